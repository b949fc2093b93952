package daemon

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"os"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/pgporter/pgporter/internal/admin/api"
)

// couple is a primary and a replica, both with a server that echoes.
type couple struct{ one, two fixture }

func newCouple(t *testing.T, first int) couple {
	replica := func() (int, string) { return 503, "replica" }
	return couple{newFixture(t, address(first)), newMember(t, address(first+1), replica)}
}

// inventory has services for the primary and for reads, on ports of this node.
func (p couple) inventory() string {
	return strings.ReplaceAll(fmt.Sprintf(`pg-test:
  hosts:
    %s: { pg_seq: 1, pg_role: primary, pg_port: %d, patroni_port: %d }
    %s: { pg_seq: 2, pg_role: replica, pg_port: %d, patroni_port: %d }
  vars:
    pg_cluster: pg-test
    pg_rto: fast
    pg_default_services:
      - { name: primary, port: 5433, dest: postgres, check: /primary, selector: '[]' }
      - { name: read, port: 5434, dest: postgres, check: /read-only, selector: '[?pg_role==^replica^]', backup: '[?pg_role==^primary^]' }
`, p.one.host, p.one.echoPort, p.one.patroniPort, p.two.host, p.two.echoPort, p.two.patroniPort), "^", "`")
}

// handOver has a daemon hand over to the next process (nextProcess), waits until it has, and gives what that one says. It ends with the test.
func (p couple) handOver(t *testing.T, r *running, upgrade chan<- os.Signal) *api.Status {
	t.Helper()
	text, err := json.Marshal(next{r.path, p.one.host, r.bind, r.admin})
	if err != nil {
		t.Fatal(err)
	}
	t.Setenv(nextProcess, string(text))
	upgrade <- syscall.SIGUSR2
	if err := <-r.ended; err != nil {
		t.Fatalf("the upgrade: %v\n%s", err, &r.log)
	}
	s := r.status()
	t.Cleanup(func() {
		if s.PID == os.Getpid() {
			return
		}
		if process, err := os.FindProcess(s.PID); err == nil {
			_ = process.Kill()
		}
	})
	return s
}

// startCouple runs a daemon in front of a couple, and gives the Daemon itself.
func startCouple(t *testing.T, p couple, bind string, edit ...func(*Config)) (*running, *Daemon) {
	t.Helper()
	var d *Daemon
	r := start(t, p.one, bind, p.inventory(), false, append(edit, func(c *Config) { c.made = func(made *Daemon) { d = made } })...)
	r.until("both services have a server", func(s *api.Status) bool {
		return s.Clusters[0].Services[0].Up && s.Clusters[0].Services[1].Servers[0].Serving
	})
	return r, d
}

// effects are results in lines.
func effects(results []api.OrderResult) string {
	var lines []string
	for _, r := range results {
		changed := ""
		if !r.Changed {
			changed = " (as before)"
		}
		lines = append(lines, fmt.Sprintf("%s/%s: %s%s", r.Service, r.Member, r.Effect, changed))
	}
	return strings.Join(lines, "\n")
}

func TestOrder(t *testing.T) {
	p := newCouple(t, 41)
	r, d := startCouple(t, p, address(43), func(c *Config) { c.Hold = 5 * time.Second })
	session := r.dial("5434")
	// A startup packet: the server that echoes takes it for an answer.
	echo(t, session, "\x00\x00\x00\x08\x00\x03\x00\x00")
	weight := func(w int) *int { return &w }
	for _, test := range []struct {
		what  string
		order api.Order
		want  string
		// happens is the beginning of an event that comes of it.
		happens string
	}{
		{"dry", api.Order{Member: "pg-test-2", State: api.Drain, DryRun: true}, "pg-test-primary/pg-test-2: took no new clients anyway, its checks have it down; it has no session\n" +
			"pg-test-read/pg-test-2: takes no new clients; its one session goes on; pg-test-1 takes them", ""},
		{"drain", api.Order{Member: "pg-test-2", State: api.Drain}, "pg-test-primary/pg-test-2: took no new clients anyway, its checks have it down; it has no session\n" +
			"pg-test-read/pg-test-2: takes no new clients; its one session goes on; pg-test-1 takes them", ""},
		{"the last one", api.Order{Service: "pg-test-primary", Member: "pg-test-1", State: api.Maintenance, DryRun: true},
			"pg-test-primary/pg-test-1: takes no new clients; it has no session; no server is left: clients of pg-test-primary will wait up to 5s and be refused", ""},
		{"a weight", api.Order{Service: "pg-test-read", Member: "pg-test-1", Weight: weight(0)},
			"pg-test-read/pg-test-1: its weight is 0, it was 100; takes no new clients; it has no session; no server is left: clients of pg-test-read will wait up to 5s and be refused",
			"service: pg-test-read has no server left: pg-test-2 drained by order of root (uid 0) since"},
		{"ready, and the weight", api.Order{Cluster: "pg-test", Service: "pg-test-read", State: api.Ready, DeclaredWeight: true},
			"pg-test-read/pg-test-1: its weight is 100, it was 0; is ready to take clients, as a backup\npg-test-read/pg-test-2: takes new clients",
			"service: pg-test-read has a server again: pg-test-2, after"},
		{"nothing", api.Order{Service: "pg-test-read", State: api.Ready}, "pg-test-read/pg-test-1: is so already (as before)\npg-test-read/pg-test-2: is so already (as before)", ""},
	} {
		test.order.By = "root (uid 0)"
		results, err := d.Order(t.Context(), test.order)
		if got := effects(results); err != nil || got != test.want {
			t.Errorf("%s: %v\n%s", test.what, err, got)
		}
		if test.happens != "" {
			awaitEvent(t, d, test.happens)
		}
	}
	for _, test := range []struct {
		order api.Order
		want  string
	}{
		{api.Order{Cluster: "pg-tets", Member: "x", State: api.Drain}, `there is no cluster "pg-tets" here: the clusters are pg-test`},
		{api.Order{Service: "pg-test-raed", State: api.Drain}, `there is no service "pg-test-raed" here: the services are pg-test-primary, pg-test-read`},
		{api.Order{Member: "pg-test-3", State: api.Drain}, `there is no member "pg-test-3" here: the members are pg-test-1, pg-test-2`},
		{api.Order{Member: "pg-test-2"}, "the order says nothing"},
		{api.Order{State: api.Drain}, "the order names no server"},
		{api.Order{Member: "pg-test-2", Weight: weight(257)}, "a weight is 0 to 256, not 257"},
		{api.Order{Member: "pg-test-2", State: "off"}, `a state is ready, drain or maint, not "off"`},
	} {
		if _, err := d.Order(t.Context(), test.order); err == nil || !strings.HasPrefix(err.Error(), test.want) {
			t.Errorf("%+v: got %v", test.order, err)
		}
	}
	results, err := d.Order(t.Context(), api.Order{Service: "pg-test-read", Member: "pg-test-2", State: api.Drain, Weight: weight(7), By: "admin at 10.0.0.7 (page)"})
	if err != nil || len(results) != 1 || results[0].Now.State != api.Drain || *results[0].Now.Weight != 7 {
		t.Fatalf("%+v, %v", results, err)
	}
	drained := func(s *api.Status) bool {
		server := s.Clusters[0].Services[1].Servers[0]
		return server.Member == "pg-test-2" && server.Up && !server.Serving && server.Weight == 7 && server.DeclaredWeight == 100 &&
			server.Order != nil && server.Order.State == api.Drain && server.Order.By == "admin at 10.0.0.7 (page)"
	}
	if m := r.status().Clusters[0].Members[0]; len(m.Answering.Counts) != len(m.Answering.Bounds)+1 || m.Answering.Sum == 0 {
		t.Errorf("how long a member took to answer: %+v", m.Answering)
	}
	if s := r.status(); !drained(s) {
		t.Errorf("status %+v", s.Clusters[0].Services[1].Servers[0])
	}
	if !strings.Contains(r.log.String(), `what="drain, weight 7" service=pg-test-read server=pg-test-2 by="admin at 10.0.0.7 (page)"`) {
		t.Errorf("the log doesn't say it:\n%s", &r.log)
	}
	// A reload leaves it.
	r.reload <- syscall.SIGHUP
	r.until("taken", func(s *api.Status) bool { return s.Config.Generation == 2 })
	if s := r.status(); !drained(s) {
		t.Errorf("after a reload: %+v", s.Clusters[0].Services[1].Servers[0])
	}
	echo(t, session, "still here\n")
	for _, want := range []string{
		"config: the configuration is taken: generation 1, 1 clusters, 2 services ()",
		"order: pg-test-2 in pg-test-read, drain: takes no new clients; its one session goes on; pg-test-1 takes them (root (uid 0))",
		"config: the configuration is taken: generation 2, 1 clusters, 2 services (SIGHUP)",
	} {
		awaitEvent(t, d, want)
	}
}

// awaitEvent waits for an event that begins so.
func awaitEvent(t *testing.T, d *Daemon, begins string) {
	t.Helper()
	limit := time.After(patience)
	for {
		changed := d.EventsChanged()
		var all []string
		for _, e := range d.Events(0) {
			all = append(all, fmt.Sprintf("%s: %s (%s)", e.Kind, e.Text, e.By))
		}
		if slices.ContainsFunc(all, func(e string) bool { return strings.HasPrefix(e, begins) }) {
			return
		}
		select {
		case <-changed:
		case <-limit:
			t.Fatalf("there is no event %q in\n%s", begins, strings.Join(all, "\n"))
		}
	}
}

// nextProcess is set for a process that TestUpgradeKeepsOrders has started, to what startNext is to do.
const nextProcess = "PGPORTER_TEST_NEXT"

// next is what the next process needs to know.
type next struct{ Path, Node, Bind, Admin string }

func TestMain(m *testing.M) {
	if text := os.Getenv(nextProcess); text != "" {
		os.Exit(runNext(text))
	}
	os.Exit(m.Run())
}

// runNext takes over as pgporter does, until it is ended.
func runNext(text string) int {
	logger := slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelWarn}))
	var n next
	inherited, err := Inherit()
	if err == nil {
		err = json.Unmarshal([]byte(text), &n)
	}
	if err == nil {
		ctx, stop := context.WithTimeout(context.Background(), patience)
		defer stop()
		err = Run(ctx, Config{Version: "next", Source: &InventoryFile{Path: n.Path, Node: n.Node, Logger: logger}, Bind: n.Bind, Admin: n.Admin,
			Hold: 5 * time.Second, Logger: logger, Inherited: inherited})
		inherited.Explain(err)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "the next process:", err)
		return 1
	}
	return 0
}

// TestUpgradeKeepsOrders has another process take over: the server is drained there too, and its session goes on.
func TestUpgradeKeepsOrders(t *testing.T) {
	p := newCouple(t, 51)
	upgrade := make(chan os.Signal, 1)
	program, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	r, d := startCouple(t, p, address(53), func(c *Config) {
		c.Hold, c.Upgrade, c.Program = 5*time.Second, upgrade, Program{Path: program, Arguments: []string{"-test.run=^$"}}
	})
	session := r.dial("5434")
	hello := "\x00\x00\x00\x08\x00\x03\x00\x00"
	echo(t, session, hello)
	if _, err := d.Order(t.Context(), api.Order{Member: "pg-test-2", State: api.Drain, By: "root (uid 0)"}); err != nil {
		t.Fatal(err)
	}
	since := r.status().Clusters[0].Services[1].Servers[0].Order.Since
	s := p.handOver(t, r, upgrade)
	server := s.Clusters[0].Services[1].Servers[0]
	if s.Version != "next" || s.Upgrade == nil || s.Upgrade.Sessions != 1 || server.Order == nil || server.Order.By != "root (uid 0)" || !server.Order.Since.Equal(since) || server.Serving {
		t.Fatalf("version %s, upgrade %+v, server %+v", s.Version, s.Upgrade, server)
	}
	echo(t, session, "still here\n")
	// The one that is the primary now was told of the drain too.
	if order := s.Clusters[0].Services[0].Servers[1].Order; order == nil || order.State != api.Drain {
		t.Errorf("the order in the other service is %+v", order)
	}
	other := r.dial("5434")
	echo(t, other, hello)
	r.until("new clients go to the other server", func(s *api.Status) bool { return s.Clusters[0].Services[1].Servers[1].Sessions == 1 })
}

// TestInheritedOrders reads what other releases may hand over.
func TestInheritedOrders(t *testing.T) {
	for _, test := range []struct{ text, want string }{
		{"", ""},
		{`[{"service":"web","member":"a","state":"maint","by":"x","since":"2026-03-01T12:00:00Z"}]`, "web/a maint"},
		{`[{"service":"web","member":"a","state":"asleep","by":"x"},{"service":"web","member":"b","state":"ready","weight":3,"by":"x","new":1}]`, "web/b ready 3"},
		{`[{"service":"web","member":"a","state":"ready","weight":300,"by":"x"}]`, ""},
		{`[{"cluster":"pg-test","service":"","member":"","state":"held","by":"x","id":"one","from":"a","to":"b","since":"2026-03-01T12:00:00Z","until":"2026-03-01T12:00:05Z"}]`,
			"pg-test held by one (x) from a to b until 12:00:05"},
		{`{}`, "error"},
	} {
		all, err := readStanding([]byte(test.text))
		var got []string
		for id, o := range all.orders[""] {
			text := fmt.Sprintf("%s/%s %s", id.Service, id.Member, o.State)
			if o.Weighed {
				text += fmt.Sprintf(" %d", o.Weight)
			}
			got = append(got, text)
		}
		for cluster, h := range all.holds {
			got = append(got, fmt.Sprintf("%s held by %s (%s) from %s to %s until %s", cluster, h.ID, h.By, h.From, h.To, h.Until.Format(time.TimeOnly)))
		}
		if err != nil {
			got = []string{"error"}
		}
		if strings.Join(got, ", ") != test.want {
			t.Errorf("%s: %v, %v", test.text, got, err)
		}
	}
}

// TestEventsGoOnAfterAnUpgrade reads the timeline of the process before; what can't be read is left out.
func TestEventsGoOnAfterAnUpgrade(t *testing.T) {
	d := &Daemon{log: slog.New(slog.DiscardHandler)}
	d.restoreEvents(&Inherited{events: []byte(`[{"id":41,"text":"one","new":{}},{"id":42,"text":"two"}]`)})
	d.note(api.Event{Kind: api.EventUpgrade, Text: "three"})
	if got := d.Events(41); len(got) != 2 || got[1].ID != 43 || got[1].Text != "three" {
		t.Errorf("after an upgrade there are %+v", got)
	}
	d.restoreEvents(&Inherited{events: []byte(`{}`)})
	if got := d.Events(0); len(got) != 3 {
		t.Errorf("what can't be read leaves %+v", got)
	}
}
