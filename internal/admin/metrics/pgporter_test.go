package metrics

import (
	"flag"
	"maps"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	dto "github.com/prometheus/client_model/go"

	"github.com/pgporter/pgporter/internal/admin/api"
)

var update = flag.Bool("update", false, "write testdata anew")

func pointer[T any](v T) *T { return &v }

// whole is a status in which everything is said that may be absent.
func whole() api.Status {
	now := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	ago := func(d time.Duration) *time.Time { return pointer(now.Add(-d)) }
	return api.Status{
		Version: "1.2.3", Node: "pg-test-1", Started: now.Add(-time.Hour), Now: now, Goroutines: 42, Engine: api.EngineNative,
		Stalled: []api.Stalled{{Loop: "the loop of cluster pg-test", Since: *ago(time.Minute)}}, LogDropped: 3, SessionLogDropped: 4,
		Process: api.Process{Connections: 12, ConnectionLimit: 8000, Files: 20000, OpenFiles: 40, MemoryBytes: 1 << 26, HandOvers: 2},
		Upgrade: &api.Upgrade{Problem: "the new process died"},
		Config: api.Config{Loaded: now.Add(-time.Minute), Generation: 3, Refused: "no", Refusals: 2, ControlExpires: pointer(now.Add(240 * time.Hour)),
			Plan: &api.Plan{Accepted: now.Add(-time.Hour), Unkept: "no space left"}},
		Pools: []api.Pool{{Address: "/var/run/postgresql:6432", Databases: []api.PoolDatabase{{Name: "meta", Cluster: "pg-test", Service: "pg-test-primary", State: api.PoolPausing, Active: 1, Waiting: 19}}},
			{Address: "127.0.0.1:6433", Problem: "no answer in 3s"}},
		Names:  &api.Names{Names: 9, Questions: 100, Refused: 10, Unknown: 5, Malformed: 1, Rejected: 2},
		Shadow: &api.Shadow{Asked: 50, Unanswered: 1, Both: []string{"pg-test-primary"}, Right: api.Right{PGPorter: 4, HAProxy: 1, Unknown: 2}, Standing: []api.Disagreement{{}}},
		Clusters: []api.Cluster{{
			Name: "pg-test", Contested: "pg-test-1 and pg-test-2", Hold: &api.Hold{ID: "one"}, LeaderKey: &api.LeaderKey{Holder: "pg-test-1"}, OutageSince: ago(1500 * time.Millisecond),
			Outages: api.Histogram{Bounds: []float64{1, 5, 30}, Counts: []uint64{2, 1, 0, 1}, Sum: 65.5},
			VIP:     &api.VirtualIP{Address: "10.10.10.3/24", Here: true, Others: []string{"02:00:00:00:00:01"}, Problem: "another has it"},
			Members: []api.Member{
				{Name: "pg-test-1", Role: "primary", State: "running", Timeline: 4, Answered: ago(time.Second), Lag: pointer[int64](0),
					Questions: api.Questions{Asked: 30, OutOfTurn: 4, Late: 2, HeldBack: 1}, Answering: api.Histogram{Bounds: []float64{0.01, 0.1}, Counts: []uint64{28, 1, 1}, Sum: 1.25}},
				{Name: "pg-test-2", Role: "replica", State: "a word of its own"},
				{Name: "pg-test-3", Role: "offline"},
			},
			Services: []api.Service{{
				FullName: "pg-test-primary", Up: true, Shadow: true, Sessions: 10, Queued: 2, Total: 500, Refused: 6, Waiting: ago(250 * time.Millisecond), Clients: 12, Accepted: 520, Denied: 7, Limit: 100,
				Cancels: 3, CancelsSent: 6, Ended: map[string]uint64{"client": 480, "down": 10},
				Counts: api.Counts{ConnectFailures: 8, Connecting: api.Histogram{Bounds: []float64{0.001, 0.01}, Counts: []uint64{490, 8, 2}, Sum: 0.75}},
				Servers: []api.Server{
					{Member: "pg-test-1", Up: true, Serving: true, Order: &api.Ordered{State: api.Drain, Since: now.Add(-72 * time.Hour)}},
					{Member: "pg-test-2", Downs: 3},
				},
			}},
		}},
		TCPServices: []api.Service{{FullName: "minio", Since: now.Add(-90 * time.Second), Downs: 2, DownSeconds: 95.5, Servers: []api.Server{{Member: "minio-1", Up: true}}}},
	}
}

func registry(t *testing.T, status func() api.Status) *prometheus.Registry {
	t.Helper()
	r := prometheus.NewPedanticRegistry()
	if err := New(r, status); err != nil {
		t.Fatal(err)
	}
	return r
}

// gathered are our own families by name.
func gathered(t *testing.T, status func() api.Status) map[string]*dto.MetricFamily {
	t.Helper()
	all, err := registry(t, status).Gather()
	if err != nil {
		t.Fatal(err)
	}
	own := map[string]*dto.MetricFamily{}
	for _, f := range all {
		if strings.HasPrefix(f.GetName(), "pgporter_") {
			own[f.GetName()] = f
		}
	}
	return own
}

// TestSeries has what a status becomes in testdata/pgporter.prom.
func TestSeries(t *testing.T) {
	path := filepath.Join("testdata", "pgporter.prom")
	var got strings.Builder
	for line := range strings.Lines(exposition(t, whole)) {
		if strings.Contains(line, "pgporter_") {
			got.WriteString(line)
		}
	}
	if *update {
		if err := os.WriteFile(path, []byte(got.String()), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if got.String() != string(want) {
		t.Errorf("got\n%s\nwant %s", got.String(), path)
	}
}

// A node that has just begun has every series that rate() and increase() need the beginning of, and nothing that isn't so.
func TestSeriesOfABeginning(t *testing.T) {
	text := exposition(t, func() api.Status {
		return api.Status{Clusters: []api.Cluster{{Name: "pg-test", Members: []api.Member{{Name: "pg-test-1", Role: "primary"}}, Services: []api.Service{{FullName: "pg-test-primary"}}}}}
	})
	for _, want := range []string{
		`pgporter_cluster_outage_duration_seconds_count{cluster="pg-test"} 0`, `pgporter_member_check_duration_seconds_count{cluster="pg-test",member="pg-test-1"} 0`,
		`pgporter_service_sessions_ended_total{cluster="pg-test",reason="killed",service="pg-test-primary"} 0`, `pgporter_config_last_reload_successful 1`, `pgporter_service_up{cluster="pg-test",service="pg-test-primary"} 0`,
	} {
		if !strings.Contains(text, want+"\n") {
			t.Errorf("missing: %s", want)
		}
	}
	for _, absent := range []string{"lag_bytes", "member_state", "timestamp", "etcd", "vip", "limit{", "name_questions", "shadow_questions", "timeline"} {
		if strings.Contains(text, absent) {
			t.Errorf("something with %q in it: nobody said anything of it", absent)
		}
	}
}

func TestLint(t *testing.T) {
	for _, f := range gathered(t, whole) {
		for _, m := range f.GetMetric() {
			for _, l := range m.GetLabel() {
				if slices.Contains([]string{"ip", "ins", "cls", "job", "instance"}, l.GetName()) {
					t.Errorf("%s has the label %s, which is the target's", f.GetName(), l.GetName())
				}
			}
		}
	}
	problems, err := testutil.GatherAndLint(registry(t, whole), slices.Collect(maps.Keys(gathered(t, whole)))...)
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range problems {
		t.Errorf("%s: %s", p.Metric, p.Text)
	}
}

// TestDocumented holds docs/metrics.md against what a registry gives: every metric with its type, labels and unit, and no other.
func TestDocumented(t *testing.T) {
	text, err := os.ReadFile(filepath.Join("..", "..", "..", "docs", "metrics.md"))
	if err != nil {
		t.Fatal(err)
	}
	type row struct{ kind, labels, unit, meaning string }
	documented := map[string]row{}
	for line := range strings.Lines(string(text)) {
		if !strings.HasPrefix(line, "| `pgporter_") {
			continue
		}
		cells := strings.Split(strings.Trim(strings.TrimSpace(line), "|"), " |")
		for i := range cells {
			cells[i] = strings.TrimSpace(cells[i])
		}
		if len(cells) != 5 {
			t.Fatalf("a row of %d cells: %s", len(cells), line)
		}
		name := strings.Trim(cells[0], "`")
		if _, twice := documented[name]; twice {
			t.Errorf("%s is documented twice", name)
		}
		documented[name] = row{cells[1], cells[2], cells[3], cells[4]}
	}
	exported := gathered(t, whole)
	for _, d := range ours {
		name := strings.Split(d.String(), `"`)[1]
		if exported[name] == nil {
			t.Errorf("%s is declared and never given", name)
		}
	}
	for _, name := range slices.Sorted(maps.Keys(exported)) {
		f, is := exported[name], row{}
		labels := map[string]bool{}
		for _, m := range f.GetMetric() {
			for _, l := range m.GetLabel() {
				labels[l.GetName()] = true
			}
		}
		is.kind = strings.ToLower(f.GetType().String())
		said, ok := documented[name]
		if !ok {
			t.Errorf("%s isn't documented: %s", name, f.GetHelp())
			continue
		}
		want := slices.Sorted(maps.Keys(labels))
		got := strings.FieldsFunc(said.labels, func(r rune) bool { return r == ',' || r == ' ' })
		slices.Sort(got)
		if said.kind != is.kind || !slices.Equal(got, want) || said.meaning == "" {
			t.Errorf("%s is documented as a %s of %v, and is a %s of %v", name, said.kind, got, is.kind, want)
		}
		for unit, suffix := range map[string]string{"seconds": "_seconds", "bytes": "_bytes", "time": "_timestamp"} {
			has := strings.Contains(name, suffix)
			if unit == "seconds" {
				has = has && !strings.Contains(name, "_timestamp")
			}
			if has != (said.unit == unit) {
				t.Errorf("%s has the unit %q", name, said.unit)
			}
		}
	}
	for name := range documented {
		if exported[name] == nil {
			t.Errorf("%s is documented and doesn't exist", name)
		}
	}
}

// Words from the network don't make series without end.
func TestStatesAreBounded(t *testing.T) {
	for state, want := range map[string]string{"running": "running", "Start Failed": "start failed", "in archive recovery": "in archive recovery", "": "other", "run\nning": "other", "word 7": "other"} {
		if got := stateWord(state); got != want {
			t.Errorf("%q became %q, want %q", state, got, want)
		}
	}
}

// exposition is what a scraper reads.
func exposition(t testing.TB, status func() api.Status) string {
	t.Helper()
	answer := httptest.NewRecorder()
	Handler(status).ServeHTTP(answer, httptest.NewRequest("GET", "/metrics", nil))
	if answer.Code != 200 {
		t.Fatalf("%d %s", answer.Code, answer.Body)
	}
	return answer.Body.String()
}
