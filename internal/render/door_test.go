package render

import (
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/pgporter/pgporter/internal/render/stamp"
)

var update = flag.Bool("update", false, "write the goldens anew")

const doors = `
all:
  vars: { app_password: 'of {{ "the" }} "vault"' }
  children:
    proxy: { hosts: { 10.10.10.18: , 10.10.10.19: } }
    pg-a:
      hosts: { 10.10.10.11: { pg_seq: 1, pg_role: primary }, 10.10.10.12: { pg_seq: 2, pg_role: replica }, 10.10.10.13: { pg_seq: 3, pg_role: replica } }
      vars:
        pg_cluster: pg-a
        pg_max_conn: 500
        pg_services:
          - { name: rw, port: 5440, dest: postgres, check: /primary, selector: "[]", pool: door, maxconn: 300, hold: 5m }
          - { name: ro, port: 5441, dest: postgres, check: /read-only, selector: "[]", pool: door }
        pg_databases:
          - { name: app, owner: app, pool_size: 60, pool_size_min: 7, pool_reserve: 1 }
          - { name: my.db-2, pool_mode: session, pool_connlimit: 30 }
          - { name: hidden, pgbouncer: false }
          - { name: gone, state: absent }
        pg_users:
          - { name: app, password: "{{ app_password }}", pgbouncer: true, pool_mode: session, pool_connlimit: 10 }
          - { name: it's, password: "SCRAM-SHA-256$4096:c2FsdHNhbHRzYWx0$c3RvcmVk:c2VydmVy", pgbouncer: true, pool_connlimit: -1 }
          - { name: bare, pgbouncer: true }
          - { name: past, password: p, pgbouncer: false }
          - { name: role, password: p, pgbouncer: true, login: false }
        pgporter_door_settings: { client_tls_sslmode: require, verbose: 1, log_stats: false }
    pg-b:
      hosts: { 10.10.10.14: { pg_seq: 1, pg_role: primary } }
      vars: &delegated
        pg_cluster: pg-b
        pg_service_provider: proxy
        pgporter_door_port: 7000
        pgbouncer_poolmode: session
        pgbouncer_auth_query: true
        pgbouncer_ignore_param: [ extra_float_digits ]
        pg_rto: wide
        pg_default_services: [ { name: rw, port: 5450, ip: 10.10.10.30, dest: postgres, check: "/read-write?x=1", selector: "[]", pool: door } ]
        pg_databases: [ { name: b } ]
        pg_users: [ { name: b, password: md5d41d8cd98f00b204e9800998ecf8427e, pgbouncer: true } ]
    pg-c:
      hosts: { 10.10.10.15: { pg_seq: 1, pg_role: primary } }
      vars:
        <<: *delegated
        pg_cluster: pg-c
        pgbouncer_auth_query: false
        pgbouncer_ignore_param: [ options ]
        pg_default_services: [ { name: rw, port: 5451, dest: postgres, check: /primary, selector: "[]", pool: door } ]
        pg_databases: [ { name: c, pool_auth_user: b }, { name: c2, pool_auth_user: nobody } ]
    pg-l:
      hosts: { 127.0.1.11: { pg_seq: 1, pg_role: primary } }
      vars:
        pg_cluster: pg-l
        pg_default_services: [ { name: rw, port: 5440, dest: postgres, check: /primary, selector: "[]", pool: door } ]
`

// Every host that carries a service with a pool at the door has a PgBouncer's files, and nobody else.
func TestDoors(t *testing.T) {
	made, problems := files(t, doors, Wanted{Kinds: []stamp.Kind{stamp.PgBouncer}})
	if err := problems.Err(); err != nil {
		t.Fatal(err)
	}
	const want = `10.10.10.11/pgbouncer.ini
10.10.10.11/userlist.txt
10.10.10.12/pgbouncer.ini
10.10.10.12/userlist.txt
10.10.10.13/pgbouncer.ini
10.10.10.13/userlist.txt
10.10.10.18/pgbouncer.ini
10.10.10.18/userlist.txt
10.10.10.19/pgbouncer.ini
10.10.10.19/userlist.txt
127.0.1.11/pgbouncer.ini`
	if got := paths(made); got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
	for _, path := range []string{"10.10.10.11/pgbouncer.ini", "10.10.10.11/userlist.txt", "10.10.10.18/pgbouncer.ini", "10.10.10.18/userlist.txt", "127.0.1.11/pgbouncer.ini"} {
		golden := filepath.Join("testdata", "doors", path)
		if *update {
			if err := os.MkdirAll(filepath.Dir(golden), 0o755); err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(golden, []byte(made[path].Text), 0o644); err != nil {
				t.Fatal(err)
			}
		}
		text, err := os.ReadFile(golden)
		if err != nil {
			t.Fatal(err)
		}
		if got := made[path].Text; got != string(text) {
			t.Errorf("%s: got\n%s\nwant\n%s", path, got, text)
		}
	}
	if got := made["10.10.10.12/pgbouncer.ini"].Text; got != made["10.10.10.11/pgbouncer.ini"].Text {
		t.Errorf("members of one cluster have doors that differ:\n%s", got)
	}
	for path, f := range made {
		if f.Private != strings.HasSuffix(path, "/userlist.txt") || !f.Whole {
			t.Errorf("%s: private %v, of several clusters %v", path, f.Private, f.Whole)
		}
		if s, is := stamp.Of(filepath.Base(path), f.Text); !is || s != f.Of {
			t.Errorf("%s isn't known for pgporter's: %+v", path, s)
		}
	}
	for path, want := range map[string]string{
		"10.10.10.11/pgbouncer.ini": `the pools of cluster pg-a multiply: 3 nodes x 2 databases x 2 services have 372 connections to the primary at most, of the 500 of its max_connections
cluster "pg-a": no password is known of bare: not in userlist.txt`,
		"10.10.10.18/pgbouncer.ini": `the pools of cluster pg-b multiply: 2 nodes x 1 database x 1 service have 186 connections to the primary at most, of the 250 of its max_connections
the pools of cluster pg-c multiply: 2 nodes x 2 databases x 1 service have 184 connections to the primary at most, of the 250 of its max_connections
cluster "pg-c": pool_auth_user of the database "c2" is nobody whom the door knows by a password: users that aren't listed can't come in`,
		"127.0.1.11/pgbouncer.ini": `the pools of cluster pg-l multiply: 1 node x 0 databases x 1 service have 0 connections to the primary at most, of the 250 of its max_connections
cluster "pg-l": no database of pg_databases is for PgBouncer, so its services have none at the door`,
	} {
		if got := strings.Join(made[path].Notes, "\n"); got != want {
			t.Errorf("notes of %s: got\n%s\nwant\n%s", path, got, want)
		}
	}
}

// What clusters on one node can't have together, and what can't be written, is an error that names both.
func TestDoorProblems(t *testing.T) {
	const node = `
proxy: { hosts: { 10.10.10.18: } }
pg-a:
  hosts: { 10.10.10.11: { pg_seq: 1, pg_role: primary } }
  vars: { pg_cluster: pg-a, pg_service_provider: proxy, pg_default_services: [ { name: rw, port: 5440, dest: postgres, check: /primary, selector: "[]", pool: door }, { name: ro, port: 5441, dest: postgres, check: /replica, selector: "[]", pool: door } ], A }
pg-b:
  hosts: { 10.10.10.12: { pg_seq: 1, pg_role: primary } }
  vars: { pg_cluster: pg-b, pg_service_provider: proxy, pg_default_services: [ { name: rw, port: 5442, dest: postgres, check: /primary, selector: "[]", pool: door } ], B }
`
	for name, c := range map[string]struct{ a, b, want string }{
		"databases": {"pg_databases: [ { name: app } ]", "pg_databases: [ { name: app } ]",
			`pigsty.yml:8:185: error: the door of 10.10.10.18 would have two databases "app": of cluster "pg-b" and of cluster "pg-a" (pigsty.yml:5:272); another name for one of them, or other nodes for its cluster [door-used-twice]`},
		"a database that is called as another before another service": {"pg_databases: [ { name: app }, { name: app-ro } ]", "x: y",
			`pigsty.yml:5:272: error: the door of 10.10.10.18 would have two databases "app-ro": of cluster "pg-a" and of cluster "pg-a" (pigsty.yml:5:287); another name for one of them, or other nodes for its cluster [door-used-twice]`},
		"passwords": {"pg_users: [ { name: u, password: one, pgbouncer: true } ]", "pg_users: [ { name: u, password: two, pgbouncer: true } ]",
			`pigsty.yml:8:181: error: the door of 10.10.10.18 would have two passwords, or other pools, for the user "u": of cluster "pg-b" and of cluster "pg-a" (pigsty.yml:5:268); the same in both clusters, or another user in one of them [door-used-twice]`},
		"the same user": {"pg_users: [ { name: u, password: one, pgbouncer: true } ]", "pg_users: [ { name: u, password: one, pgbouncer: true } ]", ""},
		"settings": {"pgporter_door_settings: { verbose: 1 }", "pgporter_door_settings: { verbose: 2 }",
			`pigsty.yml:8:204: error: the door of 10.10.10.18 would have two values of "verbose": of cluster "pg-b" and of cluster "pg-a" (pigsty.yml:5:291); the same value in both [door-used-twice]`},
		"settings that aren't to be said": {"pgporter_door_settings: { listen_port: 1, Odd: 1, log: [], pool_mode: session }", "pgporter_door_settings: 7",
			"pigsty.yml:5:282: error: pgporter_door_settings can't say listen_port; pgporter_door_port [key-unknown]\n" +
				"pigsty.yml:5:298: error: pgporter_door_settings has a key that is none; the name of one of PgBouncer's settings [key-unknown]\n" +
				"pigsty.yml:5:311: error: log of pgporter_door_settings can't be used; a text of one line, a number, true or false [text-invalid]\n" +
				"pigsty.yml:5:315: error: pgporter_door_settings can't say pool_mode; pgbouncer_poolmode [key-unknown]\n" +
				"pigsty.yml:8:193: error: pgporter_door_settings is the number 7; a mapping of PgBouncer's settings, as in { client_tls_sslmode: require } [wrong-type]"},
		"values": {"pg_databases: [ { name: 'a b' }, { name: pgbouncer }, { name: c, pool_size: many, pool_mode: no-mode } ]", `pg_users: [ { name: u, password: "a\nb", pgbouncer: true } ], pg_max_conn: few, pgbouncer_ignore_param: [ "a b" ]`,
			`pigsty.yml:5:272: error: the database "a b" of cluster "pg-a" can't be at the door; pgbouncer: false for it; letters, digits, dashes, dots and underscores are what PgBouncer's file can name, and pgbouncer is its console [name-invalid]
pigsty.yml:5:289: error: the database "pgbouncer" of cluster "pg-a" can't be at the door; pgbouncer: false for it; letters, digits, dashes, dots and underscores are what PgBouncer's file can name, and pgbouncer is its console [name-invalid]
pigsty.yml:5:332: error: pool_size of the database "c" is the text "many"; a whole number from 0 to 262143 [number-out-of-range]
pigsty.yml:5:349: error: pool_mode of the database "c" is the text "no-mode"; one of transaction, session, statement [word-unknown]
pigsty.yml:8:202: error: the password of "u" can't be used; a text of one line [text-invalid]
pigsty.yml:8:244: error: pg_max_conn is the text "few"; a whole number from 20 to 262143 [number-out-of-range]
pigsty.yml:8:275: error: one of pgbouncer_ignore_param is the text "a b"; the name of a parameter, as in extra_float_digits [name-invalid]`},
		"pools": {"pg_max_conn: 20, pg_databases: [ { name: c, pool_connlimit: 30 } ]", "x: y",
			`pigsty.yml:5:287: warning: cluster "pg-a": its pools (nodes with a door: 1, databases: 1, services behind the door: 2) may have 60 connections to the primary, and max_connections is 20; a lower pool_connlimit of the databases, or a pg_max_conn that says what max_connections is [pools-too-large]`},
		"a user with pools whose name the file can't have": {"pg_users: [ { name: it's, password: one, pgbouncer: true, pool_mode: session } ]", "x: y",
			`pigsty.yml:2:19: error: 10.10.10.18: pgbouncer.ini: user "it's": letters, digits, dashes, dots and underscores are what PgBouncer's file can name [not-renderable]`},
	} {
		_, problems := files(t, strings.NewReplacer("], A }", "], "+c.a+" }", "], B }", "], "+c.b+" }").Replace(node), Wanted{Kinds: []stamp.Kind{stamp.PgBouncer}})
		if got := problems.Error(); got != c.want {
			t.Errorf("%s: got\n%s\nwant\n%s", name, got, c.want)
		}
	}
}
