"""Connects to each URL of the command line, writes a row, and prints a line: who answered, and what became of the row."""

import sys

import psycopg2


def probe(url):
    connection = psycopg2.connect(url)
    try:
        connection.autocommit = True
        with connection.cursor() as cursor:
            cursor.execute("select current_setting('sandbox.instance')")
            instance = cursor.fetchone()[0]
            try:
                cursor.execute("insert into visits (who) values ('psycopg2')")
                return instance + " 00000"
            except psycopg2.Error as error:
                return instance + " " + str(error.pgcode)
    finally:
        connection.close()


for url in sys.argv[1:]:
    try:
        print(probe(url))
    except psycopg2.Error as error:
        print("error " + " ".join(str(error).split()))
