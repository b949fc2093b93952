package etcd

import (
	"strings"
	"testing"
	"unicode/utf8"
)

func TestMemberOf(t *testing.T) {
	for value, want := range map[string]string{
		// As 3.0.2 and 4.0.7 write them.
		`{"conn_url":"postgres://10.10.10.11:5432/postgres","api_url":"http://10.10.10.11:8008/patroni","state":"running","role":"master","version":"3.0.2","xlog_location":67110352,"timeline":1}`: "primary running",
		`{"version":"4.0.7","tags":{"noloadbalance":true},"state":"running","role":"replica","xlog_location":1,"timeline":2,"replication_state":"streaming"}`:                                       "replica running",
		`{"state":"creating replica","role":"uninitialized"}`: "uninitialized creating replica",
		`{"role":"standby_leader","state":5}`:                 "standby_leader ",
		`{"role":["x"],"state":"stopped","tags":"none"}`:      " stopped",
		`{"role":"a\u0000b\u001b[2J","state":"running"}`:      `a\u0000b\u001b[2J running`,
		`postgres://10.10.10.11:5432/postgres`:                " ",
		`{"role":"replica","state":"running"`:                 " ",
		`["replica"]`:                                         " ",
		`null`:                                                " ",
		``:                                                    " ",
		`{"role":"replica","state":"running","tags":"` + strings.Repeat("x", mostParsed) + `"}`: " ",
	} {
		if role, state := memberOf([]byte(value)); role+" "+state != want {
			t.Errorf("%.100s: %q %q, want %q", value, role, state, want)
		}
	}
}

func TestOptimeOf(t *testing.T) {
	for value, want := range map[string]int64{
		`{"optime":67110352}`: 67110352,
		`{"optime":67110352,"slots":{"pg_test_2":67110352},"retain_slots":["pg_test_2"]}`: 67110352,
		`{"optime":"67110352"}`:          67110352,
		`{"optime":0}`:                   0,
		`{"optime":null}`:                0,
		`{"optime":-5}`:                  0,
		`{"optime":1e3}`:                 0,
		`{"optime":9223372036854775808}`: 0,
		`{"optime":{}}`:                  0,
		`{}`:                             0,
		`67110352`:                       0,
		``:                               0,
	} {
		if got := optimeOf([]byte(value)); got != want {
			t.Errorf("%s: %d, want %d", value, got, want)
		}
	}
}

func TestStandbyOf(t *testing.T) {
	for value, want := range map[string]bool{
		`{"ttl":20,"standby_cluster":{"host":"10.10.10.20","port":5432,"create_replica_methods":["basebackup"]}}`: true,
		`{"standby_cluster":{"restore_command":"cp /archive/%f %p"}}`:                                             true,
		`{"standby_cluster":{"port":5432}}`:                                                                       true,
		`{"standby_cluster":{"host":"","port":null}}`:                                                             false,
		`{"standby_cluster":{"primary_slot_name":"x"}}`:                                                           false,
		`{"standby_cluster":{}}`:                                                                                  false,
		`{"standby_cluster":null}`:                                                                                false,
		`{"standby_cluster":"10.10.10.20"}`:                                                                       false,
		`{"ttl":20}`:                                                                                              false,
		`{`:                                                                                                       false,
	} {
		if got := standbyOf([]byte(value)); got != want {
			t.Errorf("%s: %v", value, got)
		}
	}
}

// FuzzValues: whatever a value is, what is taken from it is short, fit for a log, and no position before the first.
func FuzzValues(f *testing.F) {
	for _, seed := range []string{
		`{"conn_url":"postgres://10.10.10.11:5432/postgres","state":"running","role":"master","xlog_location":67110352,"tags":{"a":true}}`,
		`{"optime":67110352,"slots":{"s":1}}`, `{"standby_cluster":{"host":"10.10.10.20","port":5432}}`, `{"optime":"1","role":{},"state":"\ud800"}`,
		`{"standby_cluster":{"host":[ ]}}`, `{"ROLE":"master","Optime":7}`, "{\"role\":\"\xff\"}", `[[[[`, `-1`, `null`, ``,
	} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, value []byte) {
		role, state := memberOf(value)
		for _, text := range []string{role, state} {
			if len(text) > 7*longest || !utf8.ValidString(text) || text != printable([]byte(text)) && len(text) <= longest {
				t.Errorf("%q has %q", value, text)
			}
		}
		if role == "master" || optimeOf(value) < 0 {
			t.Errorf("%q: role %q, optime %d", value, role, optimeOf(value))
		}
		standbyOf(value)
	})
}
