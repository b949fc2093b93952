package cli

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/pgporter/pgporter/internal/admin/api"
	"github.com/pgporter/pgporter/internal/admin/who"
	"github.com/pgporter/pgporter/internal/config/model"
)

func TestAccountFile(t *testing.T) {
	for _, test := range []struct {
		text, user, password, database, wrong string
	}{
		{text: "user = monitor\npassword = a = b \n", user: "monitor", password: "a = b "},
		{text: "# of who\n\nuser=monitor\r\npassword=x\r\ndatabase=postgres\r\n", user: "monitor", password: "x", database: "postgres"},
		{text: "user = monitor\npassword =  x\n", user: "monitor", password: " x"},
		{text: "user = monitor\n", user: "monitor"},
		{text: "password = hunter2zz\n", wrong: "no line `user = NAME`"},
		{text: "user = monitor\nhunter2zz\n", wrong: "line 2 is neither"},
		{text: "user = monitor\npasswort = hunter2zz\n", wrong: "line 2 is neither"},
	} {
		a, err := parseAccount(test.text)
		switch {
		case test.wrong != "":
			if err == nil || !strings.Contains(err.Error(), test.wrong) || strings.Contains(err.Error(), "hunter2zz") {
				t.Errorf("%q: %v", test.text, err)
			}
		case err != nil || a.user != test.user || a.password.Reveal() != test.password || a.database != test.database:
			t.Errorf("%q: %+v, %v", test.text, a, err)
		}
	}
}

// An account's file is for its owner alone.
func TestAccountFileIsPrivate(t *testing.T) {
	path := filepath.Join(t.TempDir(), "account")
	if err := os.WriteFile(path, []byte("user = monitor\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	if _, err := readAccount("--pg-credentials", path); err == nil || !strings.Contains(err.Error(), "mode 0644") {
		t.Error(err)
	}
	if err := os.Chmod(path, 0o600); err != nil {
		t.Fatal(err)
	}
	if a, err := readAccount("--pg-credentials", path); err != nil || a.user != "monitor" {
		t.Error(a, err)
	}
}

// A connection's settings hold what the address and the account say, whatever characters are in them, and no password in what prints.
func TestAccountConnects(t *testing.T) {
	t.Setenv("PGPASSWORD", "of-the-environment")
	t.Setenv("PGSSLMODE", "disable")
	config, err := account{user: `o'br\ien`, password: "hunter2zz"}.config("::1", 5433, `a b`)
	if err != nil || config.Host != "::1" || config.Port != 5433 || config.User != `o'br\ien` || config.Password != "hunter2zz" || config.Database != "a b" {
		t.Errorf("%+v, %v", config, err)
	}
	if config, err = (account{}).config("10.0.0.1", 5432, "postgres"); err != nil || config.Password != "of-the-environment" {
		t.Errorf("without an account the environment's password isn't taken: %v", err)
	}
}

func TestPoolTime(t *testing.T) {
	if got := poolTime("2026-08-10 12:00:00 UTC"); !got.Equal(time.Date(2026, 8, 10, 12, 0, 0, 0, time.UTC)) {
		t.Error(got)
	}
	for _, text := range []string{"", "2026-08-10 12:00:00 CEST", "yesterday UTC"} {
		if got := poolTime(text); !got.IsZero() {
			t.Errorf("%q: %s", text, got)
		}
	}
}

func TestByteSize(t *testing.T) {
	for n, want := range map[int64]string{0: "0", 999: "999", 1000: "1.0k", 9949: "9.9k", 9999: "10k", 999_499: "999k", 999_999: "1.0M", 123_456_789: "123M", 1 << 62: "4.6E"} {
		if got := byteSize(n); got != want {
			t.Errorf("%d: %s, not %s", n, got, want)
		}
	}
}

func TestWhoTable(t *testing.T) {
	now := time.Date(2026, 8, 10, 12, 0, 0, 0, time.UTC)
	minute := now.Add(-time.Minute)
	rows := []who.Row{
		{Member: "pg-test-1", PID: 7, Route: who.Porter, Client: "10.9.9.7:50000", Service: "pg-test-primary", Node: "10.0.0.11", Session: 1, Since: &minute, ToServer: 1500, ToClient: 20, Database: "test", User: "app", Application: "till", State: "active",
			Query: "select\n  1"},
		{Member: "pg-test-1", Route: who.PorterPool, Client: "10.9.9.8:50000", Service: "pg-test-primary", Node: "10.0.0.11", Session: 2, Since: &minute, State: "idle in the pool", Uncertain: "its session began while the tables were read"},
	}
	got := string(whoTable(rows, []string{"node 10.0.0.13: no answer in time"}, now))
	const want = `MEMBER     PID  CLIENT            BY              SERVICE          NODE       USER  DATABASE  APPLICATION  STATE             FOR    IN    OUT
pg-test-1  7    10.9.9.7:50000    pgporter        pg-test-primary  10.0.0.11  app   test      till         active            1m00s  1.5k  20
pg-test-1  -    10.9.9.8:50000 ?  pgporter, pool  pg-test-primary  10.0.0.11  -     -         -            idle in the pool  1m00s  0     0

pg-test-1 pid 7: select 1

? pg-test-1 10.9.9.8:50000: its session began while the tables were read

! node 10.0.0.13: no answer in time
`
	if got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
}

// What is ended, and how.
func TestKilling(t *testing.T) {
	for _, test := range []struct {
		row     who.Row
		chosen  int
		session bool
		left    bool
	}{
		{row: who.Row{PID: 7, Route: who.Porter, Session: 1}},
		{row: who.Row{PID: 7, Route: who.PorterPool, Session: 1}, session: true},
		{row: who.Row{Route: who.PorterPool, Session: 1}, session: true},
		{row: who.Row{Route: who.Porter, Session: 1, Uncertain: "?"}, session: true},
		{row: who.Row{PID: 7, Route: who.Direct}},
		{row: who.Row{PID: 7, Route: who.Socket}},
		{row: who.Row{PID: 7, Route: who.Direct, Uncertain: "?"}, left: true},
		{row: who.Row{PID: 7, Route: who.Direct, Uncertain: "?"}, chosen: 7},
		{row: who.Row{PID: 7, Route: who.PoolIdle}, left: true},
		{row: who.Row{PID: 7, Route: who.PoolIdle}, chosen: 7},
		{row: who.Row{PID: 7, Route: who.Pool}, left: true},
		{row: who.Row{PID: 7, Route: who.Replication, Session: 1}, chosen: 7, left: true},
		{row: who.Row{PID: 7, Route: who.Internal}, chosen: 7, left: true},
	} {
		if k := killingOf(test.row, test.chosen); k.session != test.session && !test.left || (k.why != "") != test.left {
			t.Errorf("%+v: %+v", test.row, k)
		}
	}
}

// fakeSessions is a node.
type fakeSessions struct {
	sessions api.Sessions
	err      error
	ended    []api.EndSessions
}

func (f *fakeSessions) Sessions(context.Context, api.SessionFilter) (api.Sessions, error) {
	return f.sessions, f.err
}

func (f *fakeSessions) EndSessions(_ context.Context, e api.EndSessions) (api.SessionsEnded, error) {
	f.ended = append(f.ended, e)
	return api.SessionsEnded{Ended: len(f.ended) % 2}, f.err
}

// Who doesn't answer is named, a node that doesn't tell all as well; the rest is asked for all the same.
func TestWhoNamesTheSilent(t *testing.T) {
	mute, much, well := &fakeSessions{err: errors.New("no answer")}, &fakeSessions{sessions: api.Sessions{More: 3}}, &fakeSessions{}
	// A port of 1 has nobody.
	q := inquiry{timeout: time.Minute, members: []model.Member{{Name: "pg-test-1", Host: "127.0.0.1", PostgresPort: 1}}, nodes: []whoNode{{"10.0.0.1", "10.0.0.1", mute}, {"10.0.0.2", "10.0.0.2", much}, {"10.0.0.3", "10.0.0.3", well}}}
	a := q.ask(t.Context())
	if got := strings.Join(a.problems, "\n"); !strings.HasPrefix(got, "node 10.0.0.1: no answer\nnode 10.0.0.2: it has 3 sessions more than it tells\npg-test-1, PostgreSQL at 127.0.0.1:1: ") {
		t.Error(got)
	}
}

// A session is ended where it is, by all that it is known by.
func TestSessionIsEndedAtItsNode(t *testing.T) {
	one, two := &fakeSessions{}, &fakeSessions{}
	q := inquiry{timeout: time.Minute, nodes: []whoNode{{"a", "", one}, {"b", "", two}}}
	row := who.Row{Member: "pg-test-1", Node: "b", Session: 5, Client: "10.9.9.7:50000"}
	if err := q.endSession(t.Context(), row); err != nil || len(one.ended) > 0 || len(two.ended) != 1 || two.ended[0].Filter != (api.SessionFilter{ID: 5, Member: "pg-test-1", Client: "10.9.9.7"}) {
		t.Errorf("%v, %v, %v", err, one.ended, two.ended)
	}
	if err := q.endSession(t.Context(), row); !errors.Is(err, errNoSession) {
		t.Error(err)
	}
}

// Whatever is in an account's file, what is said of it quotes nothing of it.
func FuzzAccount(f *testing.F) {
	for _, seed := range []string{"user = monitor\npassword = hunter2zz\n", "hunter2zz", "user=\n", "password = = x\nuser = a", "# x\r\nuser\t=\tb\r\ndatabase =  c"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, text string) {
		a, err := parseAccount(text + "\nhunter2zz-of-the-test\n")
		if err == nil || strings.Contains(err.Error(), "hunter2zz") || a != (account{}) {
			t.Errorf("%q: %+v, %v", text, a.user, err)
		}
	})
}
