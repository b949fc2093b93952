package daemon

import (
	"context"
	"fmt"
	"log/slog"
	"math"
	"net"
	"net/netip"
	"runtime"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/pgporter/pgporter/internal/admin/api"
	"github.com/pgporter/pgporter/internal/config/jmespath"
	"github.com/pgporter/pgporter/internal/config/model"
	"github.com/pgporter/pgporter/internal/engine"
	"github.com/pgporter/pgporter/internal/engine/haproxy"
	"github.com/pgporter/pgporter/internal/engine/proxy"
	"github.com/pgporter/pgporter/internal/monitor/cluster"
	"github.com/pgporter/pgporter/internal/monitor/health"
	"github.com/pgporter/pgporter/internal/monitor/patroni"
	"github.com/pgporter/pgporter/internal/monitor/view"
)

func TestFiltersAreRead(t *testing.T) {
	for name, test := range map[string]struct {
		filter api.SessionFilter
		client string
		err    string
	}{
		"nothing":            {},
		"an address":         {filter: api.SessionFilter{Client: "10.0.0.7"}, client: "10.0.0.7/32"},
		"one of IPv6":        {filter: api.SessionFilter{Client: "fe80::1%eth0"}, client: "fe80::1/128"},
		"a mapped one":       {filter: api.SessionFilter{Client: "::ffff:10.0.0.7"}, client: "10.0.0.7/32"},
		"a network":          {filter: api.SessionFilter{Client: "10.0.0.0/8"}, client: "10.0.0.0/8"},
		"a mapped network":   {filter: api.SessionFilter{Client: "::ffff:10.0.0.0/104"}, client: "10.0.0.0/8"},
		"no address":         {filter: api.SessionFilter{Client: "ten"}, err: `client "ten" is neither an address nor a network (CIDR)`},
		"idle for long":      {filter: api.SessionFilter{Idle: 3600}},
		"idle for less":      {filter: api.SessionFilter{Idle: -1}, err: "idle for -1 seconds: a number from 0 to 1e9"},
		"idle for no number": {filter: api.SessionFilter{Idle: api.Seconds(math.NaN())}, err: "idle for NaN seconds: a number from 0 to 1e9"},
		"less than none":     {filter: api.SessionFilter{Limit: -1}, err: "a limit of -1 sessions"},
	} {
		read, err := filterOf(test.filter)
		if got := fmt.Sprint(err); err != nil && got != test.err || err == nil && test.err != "" {
			t.Errorf("%s: %v, want %s", name, err, test.err)
		}
		if want := (netip.Prefix{}); err == nil && (test.client == "" && read.Client != want || test.client != "" && read.Client.String() != test.client) {
			t.Errorf("%s: clients of %s", name, read.Client)
		}
	}
}

func TestSessionsOfADaemon(t *testing.T) {
	host := address(61)
	f := newFixture(t, host)
	d := busy(t, 1, 1, func(model.Member) (string, int) { return f.host, f.echoPort })
	conn, err := net.Dial("tcp", d.engine.Traffic(t.Context())[0].Address)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	_ = conn.SetDeadline(time.Now().Add(time.Minute))
	// What isn't PostgreSQL's goes to a server that echoes it as it is.
	if _, err := conn.Write([]byte("a line of sixteen\n")); err != nil {
		t.Fatal(err)
	}
	if _, err := conn.Read(make([]byte, 1)); err != nil {
		t.Fatal(err)
	}
	all, err := d.Sessions(api.SessionFilter{Client: "127.0.0.0/8"})
	if err != nil || len(all.Sessions) != 1 || all.Sessions[0].Client != conn.LocalAddr().String() || all.Sessions[0].Server != net.JoinHostPort(f.host, strconv.Itoa(f.echoPort)) ||
		all.Sessions[0].Local == "" || all.Sessions[0].ID == 0 {
		t.Errorf("%+v, %v", all, err)
	}
	if _, err := d.EndSessions(t.Context(), api.EndSessions{}, "root"); err == nil || !strings.Contains(err.Error(), "every session") {
		t.Errorf("all that weren't meant: %v", err)
	}
	ended, err := d.EndSessions(t.Context(), api.EndSessions{All: true, DryRun: true}, "root")
	if err != nil || ended.Ended != 1 {
		t.Errorf("%+v would end, %v", ended, err)
	}
	ended, err = d.EndSessions(t.Context(), api.EndSessions{Filter: api.SessionFilter{Member: "pg-0-1"}}, "root")
	if err != nil || ended.Ended != 1 {
		t.Errorf("%+v ended, %v", ended, err)
	}
	for until := time.Now().Add(time.Minute); d.Status().Clusters[0].Services[0].Ended["killed"] != 1; time.Sleep(time.Millisecond) {
		if time.Now().After(until) {
			t.Fatalf("the session isn't counted as killed: %+v", d.Status().Clusters[0].Services[0])
		}
	}
	s := d.Status()
	if s.Engine != api.EngineNative || s.Process.Accepted != 1 || s.Process.Files == 0 || s.Process.Listeners != 1 || s.Process.MemoryBytes < s.Process.HeapBytes ||
		s.Process.Threads != runtime.GOMAXPROCS(0) || s.Process.Idle < 0 || s.Process.Idle > 100 || s.Process.SessionRateMax != 1 {
		t.Errorf("the process: %+v", s.Process)
	}
	if runtime.GOOS == "linux" && (s.Process.OpenFiles < 10 || s.Process.PipesFree == 0) {
		t.Errorf("the process: %+v", s.Process)
	}
}

func TestSessionsOfHAProxyAreItsOwn(t *testing.T) {
	d := &Daemon{engine: balancer{&haproxy.Engine{}}}
	if _, err := d.Sessions(api.SessionFilter{}); err == nil || !strings.Contains(err.Error(), "show sess") {
		t.Errorf("%v", err)
	}
	if _, err := d.EndSessions(t.Context(), api.EndSessions{All: true}, "root"); err == nil || !strings.Contains(err.Error(), "shutdown sessions") {
		t.Errorf("%v", err)
	}
}

// busy is a daemon with so many clusters, each with two members and a few services, whose engine runs. Nothing is asked: all members are up.
func busy(t testing.TB, clusters, services int, at func(model.Member) (string, int)) *Daemon {
	t.Helper()
	log := slog.New(slog.DiscardHandler)
	e := proxy.New(proxy.Config{Bind: address(62), Logger: log})
	d := &Daemon{log: log, engine: native{e, budget{}}, liveness: newLiveness(), running: map[string]*runningCluster{}, cfg: Config{Source: &InventoryFile{}}}
	ctx, stop := context.WithCancel(context.Background())
	ended := make(chan struct{})
	selector, err := jmespath.Compile("[]")
	if err != nil {
		t.Fatal(err)
	}
	var offer engine.Offer
	for i := range clusters {
		c := model.Cluster{Name: fmt.Sprintf("pg-%d", i)}
		for seq := 1; seq <= 2; seq++ {
			m := model.Member{Name: fmt.Sprintf("pg-%d-%d", i, seq), Role: model.Replica, Weight: 100}
			m.Host, m.PostgresPort = at(m)
			c.Members = append(c.Members, m)
		}
		for n := range services {
			name := fmt.Sprintf("s%d", n)
			c.Definitions = append(c.Definitions, model.Definition{Name: name, FullName: c.Name + "-" + name, IP: "*", Port: portOfNobody(t), Selector: selector,
				Dest: model.Dest{Kind: model.ToPostgres}, Check: "/replica", MaxConn: 5000, Balance: model.RoundRobin})
		}
		loop, err := cluster.New(c, cluster.Config{Logger: log,
			Check: func(context.Context, health.Target) health.Outcome {
				return health.Outcome{Answer: patroni.Answer{Status: 503, Role: "replica", State: "running"}}
			},
			Probe: func(context.Context, health.Target) health.Outcome { return health.Outcome{} }})
		if err != nil {
			t.Fatal(err)
		}
		d.running[c.Name] = &runningCluster{loop: loop, plan: c}
		d.order = append(d.order, c.Name)
		d.plan.Clusters = append(d.plan.Clusters, c)
		offer.Clusters = append(offer.Clusters, engine.Cluster{Cluster: c, Board: loop.Board()})
		d.loops.Go(func() { loop.Run(ctx) })
	}
	change, err := e.PrepareOffer(offer)
	if err != nil {
		t.Fatal(err)
	}
	change.Commit()
	go func() {
		defer close(ended)
		_ = e.Run(ctx)
	}()
	change.Publish()
	t.Cleanup(func() {
		stop()
		<-ended
		d.loops.Wait()
	})
	for _, c := range offer.Clusters {
		awaitFirstChecks(ctx, []*view.Board{c.Board})
	}
	return d
}

// portOfNobody is one that nobody listens on.
func portOfNobody(t testing.TB) int {
	t.Helper()
	for {
		l, err := net.Listen("tcp", address(62)+":0")
		if err != nil {
			t.Fatal(err)
		}
		port := l.Addr().(*net.TCPAddr).Port
		l.Close()
		if _, again := ports.LoadOrStore(port, true); !again {
			return port
		}
	}
}

// BenchmarkStatus is the status of 600 services, as a page or a scrape asks for it.
func BenchmarkStatus(b *testing.B) {
	d := busy(b, 100, 6, func(m model.Member) (string, int) { return "10.10.10.11", 5432 })
	b.ReportAllocs()
	for b.Loop() {
		if s := d.Status(); len(s.Clusters) != 100 || len(s.Clusters[99].Services) != 6 {
			b.Fatal("not the status of all")
		}
	}
}
