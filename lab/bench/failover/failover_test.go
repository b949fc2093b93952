package failover

import (
	"errors"
	"flag"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/pgporter/pgporter/lab/load"
	"github.com/pgporter/pgporter/lab/sandbox"

	"github.com/pgporter/pgporter/lab/bench/report"
)

var update = flag.Bool("update", false, "write the golden files anew")

var (
	one = sandbox.Member{Name: "pg-test-1", Address: "127.0.5.11"}
	two = sandbox.Member{Name: "pg-test-2", Address: "127.0.5.12"}
)

// made makes a result in which each of two targets of each port has seen what is given: gap and first write in milliseconds.
func made(tookOver, pool int, all ...seen) result {
	ms := time.Millisecond
	return result{led: one, leads: two, again: two, tookOver: time.Duration(tookOver) * ms, pool: time.Duration(pool) * ms, probe: 9 * ms, seen: all}
}

func saw(gap, first, refused, login int) seen {
	s := seen{first: time.Duration(first) * time.Millisecond, through: first > 0}
	s.Gap = time.Duration(gap) * time.Millisecond
	s.Refused, s.LoginCut = make([]load.Probe, refused), make([]load.Probe, login)
	return s
}

// TestSection compares tables and verdicts with goldens: goals that are met, missed, and not reached at all.
func TestSection(t *testing.T) {
	targets := []target{
		{name: "pgporter, 5436", port: direct, ours: true}, {name: "a client that tries all members", port: direct, tries: true},
		{name: "pgporter, 5433", port: pooled, ours: true},
	}
	planned, crash, lasting := scenario{planned: true}, scenario{}, scenario{lasts: 30 * time.Second}
	held := func(s seen, ended int) seen {
		s.sessions, s.ended = idleEach, ended
		return s
	}
	astray := saw(20, 0, 0, 0)
	astray.astray = 40
	back := made(20000, 0, saw(21000, 180, 4, 0), astray, saw(21500, 240, 4, 0))
	back.again = one
	for name, c := range map[string]struct {
		scenario scenario
		results  []result
	}{
		"planned-met":    {planned, []result{made(1900, 10, saw(400, 60, 0, 0), saw(300, 40, 0, 0), saw(440, 70, 0, 0)), made(2100, 0, saw(500, 90, 0, 0), saw(700, 40, 0, 0), saw(510, 95, 0, 0))}},
		"planned-missed": {planned, []result{made(1900, 0, saw(900, 60, 1, 2), saw(300, 40, 0, 0), saw(4440, 70, 0, 0)), made(2100, 300, saw(500, 90, 0, 0), saw(700, 40, 0, 0), saw(1100, 95, 1, 0))}},
		"crash-met":      {crash, []result{back, made(22000, 700, saw(23000, 100, 5, 0), saw(23000, 80, 900, 0), saw(24000, 900, 5, 1))}},
		"lasting-met":    {lasting, []result{made(0, 0, held(saw(40, 10, 0, 0), 0), saw(30, 9, 0, 0), held(saw(60, 20, 0, 0), 0))}},
		"lasting-missed": {lasting, []result{made(0, 0, held(saw(26000, 10, 4, 0), 5), saw(30, 9, 0, 0), held(saw(60, 20, 0, 0), 1)), made(0, 0, held(saw(40, 10, 0, 0), 0), saw(30, 9, 0, 0), held(saw(60, 20, 0, 0), 0))}},
		"crash-missed":   {crash, []result{made(20000, 0, saw(21000, 1250, 4, 0), saw(23000, 0, 9, 0), saw(30000, 0, 4, 0))}},
	} {
		golden(t, name, section(c.scenario, targets, c.results))
	}
}

// golden compares a section with its file.
func golden(t *testing.T, name, got string) {
	t.Helper()
	path := filepath.Join("testdata", name+".md")
	if *update {
		if err := os.WriteFile(path, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if got != string(want) {
		t.Errorf("%s:\n%s\nwant\n%s", name, got, want)
	}
}

// TestApplied does so with what applications saw.
func TestApplied(t *testing.T) {
	all := apps([]string{"127.0.5.11", "127.0.5.12"}, "127.0.5.12", "127.0.5.42", 6433, 20, account{"test", "t", "test"}, account{"dba", "p.D", "test"})
	targets := []target{{name: "a client that tries all members", port: direct, tries: true}}
	of := func(of func(app) worked) result {
		r := made(2000, 0, saw(1500, 30, 0, 0))
		for _, a := range all {
			r.apps = append(r.apps, of(a))
		}
		return r
	}
	pause := func(ms int) worked { return worked{pause: time.Duration(ms) * time.Millisecond} }
	met := of(func(a app) worked {
		w := pause(1700)
		if a.layout != door {
			w.closed = 10
		}
		return w
	})
	missed := of(func(a app) worked {
		w := pause(1900)
		w.begun, w.unanswered, w.closed, w.early, w.late = make([]load.Transaction, 2), make([]load.Transaction, 3), 7, 1, 2
		return w
	})
	for name, results := range map[string][]result{"applied-met": {met, met}, "applied-missed": {met, missed}} {
		golden(t, name, applied(all, targets, results))
	}
}

// TestSum: a connection is closed at the switch from when the old primary ceases until a second after the new one takes writes.
func TestSum(t *testing.T) {
	at := func(ms int) time.Time { return time.UnixMilli(int64(ms)) }
	a := arena{apps: []app{{clients: 1, ledger: &load.Ledger{}}, {clients: 1, straight: true, ledger: &load.Ledger{}}}}
	for _, ms := range []int{450, 500, 1000, 2500, 3100} {
		a.apps[0].ledger.Close(at(ms))
	}
	a.apps[1].ledger.Close(at(490))
	a.apps[0].ledger.Add(load.Transaction{Ended: at(2600)})
	a.apps[0].ledger.Add(load.Transaction{Ended: at(2700), Fate: load.Lost})
	all := a.sumAll(at(100), at(600), at(2000))
	if w := all[0]; w.closed != 5 || w.early != 1 || w.late != 1 || w.pause < 2500*time.Millisecond || len(w.begun) != 1 || w.failed() != 1 {
		t.Errorf("%s", w)
	}
	if w := all[1]; w.closed != 1 || w.early+w.late != 0 {
		t.Errorf("%s", w)
	}
}

// TestSaid: what failures have in common is told once.
func TestSaid(t *testing.T) {
	at := func(ms int) time.Time { return time.UnixMilli(int64(ms)) }
	var failures []load.Transaction
	for _, text := range []string{"read tcp 127.0.0.1:41234->127.0.5.11:5432: reset", "timed out after 3001ms", "read tcp 127.0.0.1:51234->127.0.5.11:5432: reset"} {
		failures = append(failures, load.Transaction{Ended: at(1000 + 100*len(failures)), Err: errors.New(text)})
	}
	const want = "    2 from 0.500 to 0.700 s: read tcp 127.0.0.1…->127.0.5.11:5432: reset\n    1 from 0.600 to 0.600 s: timed out after …\n"
	if got := said(failures, at(500)); got != want {
		t.Errorf("%s", got)
	}
}

func TestMedian(t *testing.T) {
	for _, c := range []struct {
		of   []int
		want int
	}{{nil, 0}, {[]int{3}, 3}, {[]int{9, 1, 5}, 5}, {[]int{9, 1, 5, 2}, 2}} {
		if got := median(c.of); got != c.want {
			t.Errorf("median of %v is %d, not %d", c.of, got, c.want)
		}
	}
}

// TestLook: only writes on the new primary after it took over count as its first, only writes on a member while the leader
// key named another all the time as astray.
func TestLook(t *testing.T) {
	zero := time.Unix(1000, 0)
	at := func(ms int) time.Time { return zero.Add(time.Duration(ms) * time.Millisecond) }
	write := func(server string, began, ended int) load.Probe {
		return load.Probe{Server: server, Began: at(began), Ended: at(ended)}
	}
	a := &arena{names: map[string]string{"new": "pg-test-2", "old": "pg-test-1"}}
	a.key.add("pg-test-1", at(0))
	a.key.add("", at(60))
	a.key.add("pg-test-2", at(80))
	s := a.look([]load.Probe{
		write("new", 10, 20), // before it led: the key names the other
		write("old", 30, 65), write("old", 75, 85), write("old", 90, 95), write("old", 110, 120), write("new", 40, 160), write("new", 190, 200),
	}, at(1000), "new", at(100))
	if !s.through || s.first != 60*time.Millisecond || s.astray != 3 || s.Gap != 800*time.Millisecond {
		t.Errorf("%+v", s)
	}
	if s := a.look([]load.Probe{write("old", 30, 50)}, at(1000), "new", at(100)); s.through || s.astray != 0 {
		t.Errorf("%+v", s)
	}
}

func TestHistory(t *testing.T) {
	at := func(s int64) time.Time { return time.Unix(s, 0) }
	var h history
	if h.against("a", at(0), at(1)) {
		t.Error("nothing is known")
	}
	h.add("a", at(10))
	h.add("a", at(11))
	h.add("b", at(20))
	h.add("c", at(30))
	h.add("", at(40))
	for _, c := range []struct {
		member   string
		from, to int64
		want     bool
	}{
		{"b", 5, 12, false},  // who held it at 5 isn't known
		{"b", 11, 12, true},  // a's term
		{"a", 11, 12, false}, // its own
		{"b", 15, 25, false}, // its own began meanwhile
		{"a", 25, 35, true},  // b's and c's
		{"a", 35, 45, false}, // nobody's in the end
		{"a", 45, 46, false}, // nobody's
	} {
		if got := h.against(c.member, at(c.from), at(c.to)); got != c.want {
			t.Errorf("against %s from %d to %d: %v", c.member, c.from, c.to, got)
		}
	}
}

func TestLeaderKey(t *testing.T) {
	answer := `{"header":{},"kvs":[{"key":"L3BnL3BnLXRlc3QvbGVhZGVy","value":"cGctdGVzdC0y"}],"count":"1"}`
	status := http.StatusOK
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		asked, _ := io.ReadAll(r.Body)
		if r.URL.Path != "/v3/kv/range" || string(asked) != `{"key":"L3BnL3BnLXRlc3QvbGVhZGVy"}` {
			t.Errorf("%s %s", r.URL.Path, asked)
		}
		w.WriteHeader(status)
		io.WriteString(w, answer)
	}))
	defer server.Close()
	ask := func() (string, error) {
		return leaderKey(t.Context(), server.Client(), server.Listener.Addr().String(), "pg-test")
	}
	if holder, err := ask(); holder != "pg-test-2" || err != nil {
		t.Errorf("%q, %v", holder, err)
	}
	answer = `{"header":{}}`
	if holder, err := ask(); holder != "" || err != nil {
		t.Errorf("no key: %q, %v", holder, err)
	}
	status = http.StatusServiceUnavailable
	if _, err := ask(); err == nil {
		t.Error("no error from one that says 503")
	}
}

func TestDiary(t *testing.T) {
	at := func(s int64) time.Time { return time.Unix(s, 0) }
	var d diary
	if _, ok := d.writableSince(at(0)); ok {
		t.Error("nobody has answered")
	}
	for _, a := range []load.Answer{{Writable: true, Sent: at(10)}, {Sent: at(20)}, {Writable: true, Sent: at(30)}} {
		d.add(a)
	}
	if a, ok := d.writableSince(at(15)); !ok || a.Sent != at(30) {
		t.Errorf("%+v, %v", a, ok)
	}
	if a, ok := d.writableSince(at(30)); ok {
		t.Errorf("%+v", a)
	}
}

func TestTargets(t *testing.T) {
	all := targets([]string{"127.0.5.11", "127.0.5.12"}, "127.0.5.12", "127.0.5.41", "127.0.5.42", account{"test", "t", "test"}, account{"dba", "p.D", "test"})
	urls := map[string]string{}
	for _, t := range all {
		urls[t.name] = t.url
	}
	for name, want := range map[string]string{
		"pgporter, 5433":                  "postgres://test:t@127.0.5.12:5433/test?sslmode=disable&connect_timeout=10",
		"HAProxy `inter 3s`, 5436":        "postgres://dba:p.D@127.0.5.41:5436/test?sslmode=disable&connect_timeout=10",
		"HAProxy `inter 2s`, 5433":        "postgres://test:t@127.0.5.42:5433/test?sslmode=disable&connect_timeout=10",
		"a client that tries all members": "postgres://dba:p.D@127.0.5.11:5432,127.0.5.12:5432/test?sslmode=disable&target_session_attrs=read-write&connect_timeout=2",
	} {
		if urls[name] != want {
			t.Errorf("%s: %s, want %s", name, urls[name], want)
		}
	}
}

// TestDocument: the document has a section for whatever can be measured.
func TestDocument(t *testing.T) {
	for _, system := range report.Systems {
		document := report.Report{Path: "../../../docs/benchmarks.md", Kind: kind, System: system}
		if err := document.Check(append(Scenarios(), machineSection)...); err != nil {
			t.Error(err)
		}
	}
}

func TestChosen(t *testing.T) {
	all, err := Config{}.chosen()
	if err != nil || len(all) != len(scenarios) {
		t.Errorf("%d scenarios, %v", len(all), err)
	}
	some, err := Config{Scenarios: []string{"pause", "switchover"}}.chosen()
	if err != nil || len(some) != 2 || some[0].name != "switchover" {
		t.Errorf("%v, %v", some, err)
	}
	if _, err := (Config{Scenarios: []string{"pause", "earthquake"}}).chosen(); !errors.Is(err, ErrInput) || !strings.Contains(err.Error(), `"earthquake"; there are: switchover, `) {
		t.Errorf("one that there isn't: %v", err)
	}
}
