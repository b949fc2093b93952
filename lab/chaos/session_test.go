package chaos

import (
	"context"
	"errors"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgconn"

	"github.com/pgporter/pgporter/lab/sandbox"
)

// TestExcuses: a session to the leader may end for a reason, and for no other.
func TestExcuses(t *testing.T) {
	alone := history(0.0, "a")
	on := func(k kind, member string, from, to float64) deed {
		return deed{kind: k, member: member, parts: k.parts(member), from: sec(from), to: sec(to)}
	}
	lasting := on(killPatroni, "a", 50, 0)
	lasting.to = time.Time{}
	for name, test := range map[string]struct {
		keys  tenures
		deeds []deed
		// session is the one that ended; a, direct, idle, through n from 10 s on until 60 s unless it says something else.
		session session
		// restarted is when PostgreSQL was another process; 0 is never. It was away for away from then on.
		restarted, away float64
		frozen          time.Duration
		silent          map[string]bool
		// excuse is a part of the reason; empty for an end that is wrong.
		excuse string
	}{
		"without a reason":                               {},
		"the server said so":                             {session: session{word: "FATAL terminating connection due to administrator command"}, excuse: "the server"},
		"the key was lost just before":                   {keys: history(0.0, "a", 59.0, "b"), excuse: "leader key"},
		"the key was lost to nobody":                     {keys: history(0.0, "a", 59.5, ""), excuse: "leader key"},
		"the watcher heard of it later":                  {keys: history(0.0, "a", 60.5, "b"), excuse: "leader key"},
		"the key was lost long after":                    {keys: history(0.0, "a", 62.0, "b")},
		"the key was lost, and is back":                  {keys: history(0.0, "a", 58.5, "", 59.0, "a"), excuse: "leader key"},
		"the key was lost and back long ago":             {keys: history(0.0, "a", 40.0, "", 41.0, "a")},
		"lost long ago, and pgporter hung since":         {keys: history(0.0, "a", 56.0, "", 57.0, "a"), frozen: 3 * time.Second, excuse: "leader key"},
		"the key never named it":                         {keys: history(0.0, "b"), excuse: "leader key"},
		"PostgreSQL restarted":                           {restarted: 58, away: 1, excuse: "PostgreSQL"},
		"PostgreSQL restarted so fast as not to be seen": {restarted: 58, excuse: "PostgreSQL"},
		"PostgreSQL is killed at that moment":            {restarted: 60.3, away: 5, excuse: "PostgreSQL"},
		"PostgreSQL restarted long ago":                  {restarted: 40, away: 2},
		"PostgreSQL restarted before the session":        {restarted: 57, session: session{opened: sec(58)}},
		"Patroni was killed":                             {deeds: []deed{on(killPatroni, "a", 55, 58)}, excuse: "Patroni was dead"},
		"Patroni is away":                                {deeds: []deed{lasting}, excuse: "Patroni was dead"},
		"Patroni was killed long ago":                    {deeds: []deed{on(killPatroni, "a", 20, 25)}},
		"another's Patroni was killed":                   {deeds: []deed{on(killPatroni, "b", 55, 58)}},
		"Patroni only hung":                              {deeds: []deed{on(haltPatroni, "a", 50, 61)}},
		"its API hung":                                   {deeds: []deed{on(hangAPI, "a", 40, 65)}},
		"its API spoke nonsense":                         {deeds: []deed{on(nonsenseAPI, "a", 55, 65)}},
		"its API was late":                               {deeds: []deed{on(lateAPI, "a", 55, 65)}},
		"local replication was refused":                  {deeds: []deed{on(refuseReplication, "a", 55, 65)}},
		"etcd is away":                                   {deeds: []deed{on(keepEtcdAway, "", 50, 70)}},
		"a reload":                                       {deeds: []deed{on(reloadEdit, "", 59, 59)}},
		"PgBouncer was killed, a direct session":         {deeds: []deed{on(killPgBouncer, "a", 59, 62)}},
		"PgBouncer was killed, a pooled one":             {deeds: []deed{on(killPgBouncer, "a", 59, 62)}, session: session{port: pooledPort}, excuse: "PgBouncer"},
		"PgBouncer hung, a pooled one":                   {deeds: []deed{on(haltPgBouncer, "a", 56, 59)}, session: session{port: pooledPort}, excuse: "PgBouncer"},
		"PgBouncer ended by itself":                      {deeds: []deed{on(endedItself, "a", 59, 60)}, session: session{port: pooledPort}, excuse: "PgBouncer"},
		"another's PgBouncer was killed":                 {deeds: []deed{on(killPgBouncer, "b", 59, 62)}, session: session{port: pooledPort}},
		"its pgporter was killed":                        {deeds: []deed{on(killPgporter, "n", 59.9, 62)}, excuse: "pgporter was killed"},
		"its pgporter was killed long ago":               {deeds: []deed{on(killPgporter, "n", 50, 52)}},
		"another node's pgporter was killed":             {deeds: []deed{on(killPgporter, "m", 59.9, 62)}},
		"its pgporter was upgraded":                      {deeds: []deed{on(upgrade, "n", 59, 60)}},
		"its pgporter hung":                              {deeds: []deed{on(haltPgporter, "n", 55, 59)}, frozen: 4 * time.Second},
		"the node was cut off":                           {silent: map[string]bool{"n": true}, excuse: "network"},
		"the member was cut off":                         {silent: map[string]bool{"a": true}, excuse: "network"},
		"another was cut off":                            {silent: map[string]bool{"b": true}},
		"the node couldn't see etcd":                     {deeds: []deed{on(cutFromEtcd, "n", 35, 65)}},
		"nor the API, for a moment":                      {deeds: []deed{on(cutFromEtcd, "n", 35, 65), on(hangAPI, "a", 55, 65)}},
		"nor the API, for the TTL":                       {deeds: []deed{on(cutFromEtcd, "n", 35, 65), on(hangAPI, "a", 40, 65)}, excuse: "neither"},
		"the power was cut":                              {deeds: []deed{on(losePower, "a", 58, 65)}, excuse: "Patroni was dead"},
		"the power of the node was cut":                  {deeds: []deed{on(losePower, "n", 59.9, 65)}, excuse: "pgporter was killed"},
	} {
		t.Run(name, func(t *testing.T) {
			r := watcher()
			started := "noon"
			for s := 0.0; s < 70; s += 0.1 {
				if test.restarted > 0 && s >= test.restarted {
					started = "later"
					if s < test.restarted+test.away {
						continue
					}
				}
				r.note("a", false, started, sec(s))
			}
			if test.keys == nil {
				test.keys = alone
			}
			s := test.session
			s.member, s.node, s.ended = "a", "n", sec(60)
			if s.opened.IsZero() {
				s.opened = sec(10)
			}
			if s.port == 0 {
				s.port = directPort
			}
			hung := func(node string, _, _ time.Time) time.Duration {
				if node == "n" {
					return test.frozen
				}
				return 0
			}
			c := circumstances{
				keys: test.keys, deeds: test.deeds, frozen: hung,
				primary: func(member string, from, to time.Time) bool {
					primary, there := r.there(member, from, to)
					return primary && there
				},
				silent: func(node string, from, to time.Time) time.Duration {
					if test.silent[node] {
						return time.Second
					}
					return 0
				},
			}
			if got := c.excuse(s); (got == "") != (test.excuse == "") || !strings.Contains(got, test.excuse) {
				t.Errorf("excuse %q, want %q", got, test.excuse)
			}
		})
	}
}

// TestIdleSessionsEnd: what a server says last is told from an end without a word.
func TestIdleSessionsEnd(t *testing.T) {
	const fatal = "E\x00\x00\x00\x60SFATAL\x00VFATAL\x00C57P01\x00Mterminating connection due to administrator command\x00Fpostgres.c\x00\x00"
	for name, test := range map[string]struct{ said, word string }{
		"without a word":      {"", ""},
		"a notice and no end": {"N\x00\x00\x00\x20SNOTICE\x00VNOTICE\x00C00000\x00Mhello\x00\x00", ""},
		"by the server":       {fatal, "FATAL terminating connection due to administrator command"},
	} {
		t.Run(name, func(t *testing.T) {
			w := &sessions{}
			mine, theirs := net.Pipe()
			defer mine.Close()
			go func() {
				theirs.Write([]byte(test.said)) //nolint:errcheck // seen at the other end
				theirs.Close()
			}()
			w.sit(t.Context(), idle{sandbox.Access{Port: directPort, Node: "n"}, "a", sec(0), mine})
			ended := w.all()
			if len(ended) != 1 || ended[0].word != test.word || ended[0].member != "a" || w.held != 1 {
				t.Errorf("ended: %+v", ended)
			}
		})
	}
	t.Run("ours", func(t *testing.T) {
		w := &sessions{}
		mine, theirs := net.Pipe()
		defer theirs.Close()
		ctx, stop := context.WithCancel(t.Context())
		stop()
		w.sit(ctx, idle{sandbox.Access{Port: directPort, Node: "n"}, "a", sec(0), mine})
		if ended := w.all(); len(ended) != 0 {
			t.Errorf("what we ended ourselves: %+v", ended)
		}
	})
}

// TestBusySessionsEnd: an error is an end only if the session is over by somebody else's will.
func TestBusySessionsEnd(t *testing.T) {
	for name, test := range map[string]struct {
		err  error
		ends bool
		word string
	}{
		"a statement fails":    {&pgconn.PgError{Severity: "ERROR", Code: "25006", Message: "read-only"}, false, ""},
		"the server ends it":   {&pgconn.PgError{Severity: "FATAL", Code: "57P01", Message: "terminating"}, true, "FATAL terminating"},
		"a statement is late":  {context.DeadlineExceeded, false, ""},
		"we stop":              {context.Canceled, false, ""},
		"it ends without word": {errors.New("unexpected EOF"), true, ""},
	} {
		w := &sessions{}
		w.failed(session{member: "a"}, test.err)
		ended := w.all()
		if (len(ended) == 1) != test.ends || test.ends && (ended[0].word != test.word || !ended[0].busy) {
			t.Errorf("%s: %+v", name, ended)
		}
	}
}
