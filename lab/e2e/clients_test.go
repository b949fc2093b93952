package e2e

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgconn"
)

// target is where a driver is sent.
type target struct {
	hosts          string // host:port, several with commas
	user, password string
	// attrs is libpq's target_session_attrs; empty for anybody.
	attrs string
	by    string
}

const everyPool = "10.10.10.11:6432,10.10.10.12:6432,10.10.10.13:6432"

// everyTarget is each service by the cluster's name, and the smart URLs, to the pools and past them.
var everyTarget = []target{
	{"pg-test:5433", "test", "test", "", theLeader},
	{"pg-test:5434", "test", "test", "", aReplica},
	{"pg-test:5436", "dbuser_dba", "DBUser.DBA", "", theLeader},
	{"pg-test:5438", "dbuser_stats", "DBUser.Stats", "", theOffline},
	{everyPool, "test", "test", "primary", theLeader},
	{everyPool, "test", "test", "prefer-standby", aReplica},
	{"pg-test-1:5432,pg-test-2:5432,pg-test-3:5432", "test", "test", "primary", theLeader},
	{"pg-test-1:5432,pg-test-2:5432,pg-test-3:5432", "test", "test", "prefer-standby", aReplica},
}

// libpq is the URL of psql, psycopg2 and pgx.
func (w target) libpq() string {
	text := fmt.Sprintf("postgres://%s:%s@%s/test?sslmode=prefer", w.user, w.password, w.hosts)
	if w.attrs != "" {
		text += "&target_session_attrs=" + w.attrs
	}
	return text
}

// jdbc is the URL of Java's driver, which has words of its own (PostgreSQL JDBC driver's documentation, "Connection Fail-over").
func (w target) jdbc() string {
	query := url.Values{"user": {w.user}, "password": {w.password}}
	switch w.attrs {
	case "primary":
		query.Set("targetServerType", "primary")
	case "prefer-standby":
		query.Set("targetServerType", "preferSecondary")
	}
	return "jdbc:postgresql://" + w.hosts + "/test?" + query.Encode()
}

// Java's parts, where Debian's packages have them.
const javaPath = "/usr/share/java/bsh.jar:/usr/share/java/postgresql.jar"

// allDrivers has each driver connect to every target.
func (c *cluster) allDrivers(t *testing.T, leader string, rows map[string]int) {
	programs := map[string]func() ([]string, error){
		"pgx":      func() ([]string, error) { return c.pgx(t), nil },
		"psycopg2": func() ([]string, error) { return c.program("/usr/bin/python3 testdata/clients/probe.py", target.libpq) },
		"jdbc": func() ([]string, error) {
			return c.program("java -cp "+javaPath+" bsh.Interpreter testdata/clients/probe.bsh", target.jdbc)
		},
	}
	for name, connect := range programs {
		began := time.Now()
		answers, err := connect()
		if err != nil || len(answers) != len(everyTarget) {
			t.Errorf("%s: %d answers to %d targets, %v", name, len(answers), len(everyTarget), err)
			continue
		}
		for i, w := range everyTarget {
			instance, became, _ := strings.Cut(answers[i], " ")
			if became == written {
				rows["test"]++
			}
			if err := right(w.by, w.user, leader, instance, became); err != nil {
				t.Errorf("%s to %s %s: %v", name, w.hosts, w.attrs, err)
			}
		}
		t.Logf("%s: %d targets in %.1fs", name, len(answers), time.Since(began).Seconds())
	}
}

// program runs one that is given all URLs and answers each with a line.
func (c *cluster) program(command string, form func(target) string) ([]string, error) {
	for _, w := range everyTarget {
		command += " '" + form(w) + "'"
	}
	out, complaint, err := c.typed(c.t.Context(), command, "")
	if err != nil {
		return nil, fmt.Errorf("%w: %s", err, complaint)
	}
	return strings.Split(strings.TrimSpace(out), "\n"), nil
}

func (c *cluster) pgx(t *testing.T) []string {
	var answers []string
	for _, w := range everyTarget {
		answer, err := c.pgxVisit(t.Context(), w.libpq())
		if err != nil {
			answer = "error " + err.Error()
		}
		answers = append(answers, answer)
	}
	return answers
}

func (c *cluster) pgxVisit(ctx context.Context, url string) (string, error) {
	conn, err := c.connectFrom(ctx, url)
	if err != nil {
		return "", err
	}
	defer conn.Close(ctx)
	var instance string
	if err := conn.QueryRow(ctx, "select current_setting('sandbox.instance')").Scan(&instance); err != nil {
		return "", err
	}
	_, err = conn.Exec(ctx, "insert into visits (who) values ('pgx')")
	var refused *pgconn.PgError
	switch {
	case err == nil:
		return instance + " " + written, nil
	case errors.As(err, &refused):
		return instance + " " + refused.Code, nil
	}
	return "", err
}
