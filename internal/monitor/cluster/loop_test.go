package cluster

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"reflect"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/pgporter/pgporter/internal/config/jmespath"
	"github.com/pgporter/pgporter/internal/config/model"
	"github.com/pgporter/pgporter/internal/config/resolve"
	"github.com/pgporter/pgporter/internal/monitor/exchange"
	"github.com/pgporter/pgporter/internal/monitor/health"
	"github.com/pgporter/pgporter/internal/monitor/view"
)

// stage is a scripted cluster: what each member's Patroni says now.
type stage struct {
	mu    sync.Mutex
	says  map[string]scripted
	asked map[string]int
	// gaveUp is how often an answer wasn't waited for any longer.
	gaveUp map[string]int
	// ports are what keeps ports from answering, and probed how often each was asked, by host:port.
	ports  map[string]health.Outcome
	probed map[string]int
}

func newStage() *stage {
	return &stage{says: map[string]scripted{}, asked: map[string]int{}, gaveUp: map[string]int{}, ports: map[string]health.Outcome{}, probed: map[string]int{}}
}

func (g *stage) set(member int, words string) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.says["pg-test-"+strconv.Itoa(member)] = script(strings.Fields(words))
}

// check is the loop's CheckFunc. Silent members make it wait for the timeout.
func (g *stage) check(ctx context.Context, t health.Target) health.Outcome {
	g.mu.Lock()
	says := g.says[t.Member]
	g.asked[t.Member]++
	g.mu.Unlock()
	if says.silence == "timed out" {
		<-ctx.Done()
		g.mu.Lock()
		g.gaveUp[t.Member]++
		g.mu.Unlock()
	}
	return says.on(t.Path)
}

func (g *stage) askedOf(member string) int {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.asked[member]
}

// logbook collects log messages.
type logbook struct {
	mu    sync.Mutex
	lines []string
}

func (b *logbook) Enabled(context.Context, slog.Level) bool { return true }
func (b *logbook) WithAttrs([]slog.Attr) slog.Handler       { return b }
func (b *logbook) WithGroup(string) slog.Handler            { return b }
func (b *logbook) Handle(_ context.Context, r slog.Record) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.lines = append(b.lines, r.Level.String()+" "+r.Message)
	return nil
}

// count gives how many lines hold a text.
func (b *logbook) count(part string) int {
	b.mu.Lock()
	defer b.mu.Unlock()
	n := 0
	for _, line := range b.lines {
		if strings.Contains(line, part) {
			n++
		}
	}
	return n
}

// inBubble runs a loop over a stage in a synctest bubble and joins it.
func inBubble(t *testing.T, name string, test func(t *testing.T, l *Loop, g *stage, log *logbook)) {
	inBubbleWith(t, name, Config{}, test)
}

func inBubbleWith(t *testing.T, name string, cfg Config, test func(t *testing.T, l *Loop, g *stage, log *logbook)) {
	synctest.Test(t, func(t *testing.T) {
		c, known := declared(name)
		if !known {
			t.Fatalf("no cluster is called %s", name)
		}
		g, log := newStage(), &logbook{}
		g.set(1, "lock primary running")
		g.set(2, "replica running")
		g.set(3, "replica running")
		cfg.Logger, cfg.Check, cfg.Probe = slog.New(log), g.check, g.probe
		l, err := New(c, cfg)
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		var joined sync.WaitGroup
		joined.Go(func() {
			if err := l.Run(ctx); err != nil {
				t.Errorf("Run: %v", err)
			}
		})
		test(t, l, g, log)
		cancel()
		joined.Wait()
	})
}

func health1(t *testing.T, v *view.View, svc, member string) view.Health {
	t.Helper()
	s := v.Service(svc)
	if s == nil {
		t.Fatalf("no service %s", svc)
	}
	for i, carrier := range s.Servers {
		if carrier.Member == member {
			return s.Health[i]
		}
	}
	t.Fatalf("%s isn't in %s", member, svc)
	return view.Health{}
}

func TestFirstView(t *testing.T) {
	inBubble(t, "trio", func(t *testing.T, l *Loop, _ *stage, _ *logbook) {
		// Before anything was checked.
		v := l.Board().View()
		if v.Cluster != "pg-test" || v.Version != 1 || len(v.Services) != 4 || len(v.Members) != 3 {
			t.Fatalf("first view %+v", v)
		}
		for _, svc := range v.Services {
			for i, h := range svc.Health {
				if h.Up || h.Reason != "not checked yet" || h.Epoch == 0 || h.Since.IsZero() {
					t.Errorf("%s: %s: %+v", svc.FullName, svc.Servers[i].Member, h)
				}
			}
		}
		for _, m := range v.Members {
			if m.Live != m.Role || m.Answer != "not checked yet" || !m.Answered.IsZero() || m.State != "" {
				t.Errorf("member %+v", m)
			}
		}
	})
}

func TestLoopSwitchover(t *testing.T) {
	inBubble(t, "trio", func(t *testing.T, l *Loop, g *stage, log *logbook) {
		time.Sleep(time.Second)
		if got, want := serving(l.Board().View()), "serve primary 1, replica 2 3, default 1, offline 3"; got != want {
			t.Fatalf("after a second: %s, want %s", got, want)
		}
		time.Sleep(time.Minute)
		before := l.Board().View()
		m := before.Members[0]
		if m.Live != model.Primary || m.State != "running" || m.Timeline != 1 || m.Answer == "" || time.Since(m.Answered) > answeredGap+2*time.Second {
			t.Errorf("member %+v at %v", m, time.Now())
		}
		if since := health1(t, before, "pg-test-primary", "pg-test-1").Since; time.Since(since) < time.Minute {
			t.Errorf("up since %v only", time.Since(since))
		}
		old := health1(t, before, "pg-test-primary", "pg-test-1")
		g.set(1, "demoted stopped")
		g.set(2, "lock primary running")
		time.Sleep(2100 * time.Millisecond)
		after := l.Board().View()
		if got, want := serving(after), "serve primary 2, replica 3, default 2, offline 3"; got != want {
			t.Errorf("after the switchover: %s, want %s", got, want)
		}
		now := health1(t, after, "pg-test-primary", "pg-test-1")
		if now.Up || now.Epoch <= old.Epoch || !now.Since.After(old.Since) {
			t.Errorf("the old primary: %+v, was %+v", now, old)
		}
		if after.Members[1].Live != model.Primary || after.Members[0].Live != model.Replica {
			t.Errorf("roles %s, %s", after.Members[0].Live, after.Members[1].Live)
		}
		// What was published stays as it was.
		if h := health1(t, before, "pg-test-primary", "pg-test-1"); h != old || before.Members[0].Live != model.Primary {
			t.Errorf("a published view changed: %+v", h)
		}
		// Each change is logged once.
		time.Sleep(time.Minute)
		for _, line := range []string{
			"INFO pg-test-primary: server pg-test-1 is up: 200 primary running",
			"INFO pg-test-primary: server pg-test-2 is up: 200 primary running",
			"WARN pg-test-primary: server pg-test-1 is down: ",
			"INFO pg-test: pg-test-2 is primary now, was replica",
		} {
			if n := log.count(line); n != 1 {
				t.Errorf("%d times in the log: %s", n, line)
			}
		}
	})
}

// TestLoopSilence: a member that hangs goes down by fall, and a loop with nothing else to do still takes notice of the TTL.
func TestLoopSilence(t *testing.T) {
	inBubble(t, "trio-options", func(t *testing.T, l *Loop, g *stage, _ *logbook) {
		time.Sleep(time.Second)
		for i := range 3 {
			g.set(i+1, "silent timed out")
		}
		confirmed := time.Now()
		if !health1(t, l.Board().View(), "pg-test-primary", "pg-test-1").Up {
			t.Fatal("not up")
		}
		v, changed := l.Board().Watch()
		for health1(t, v, "pg-test-primary", "pg-test-1").Up {
			<-changed
			v, changed = l.Board().Watch()
		}
		if took := time.Since(confirmed); took < 18*time.Second || took > 20*time.Second {
			t.Errorf("down after %v, with a TTL of 20s", took)
		}
		if h := health1(t, v, "pg-test-primary", "pg-test-1"); !strings.Contains(h.Reason, "not been confirmed for 20s") {
			t.Errorf("reason %q", h.Reason)
		}
	})
}

// replace gives a loop a new declaration.
func replace(ctx context.Context, l *Loop, c model.Cluster) error {
	change, err := l.Prepare(ctx, c)
	if err == nil {
		change.Publish()
	}
	return err
}

func TestReplace(t *testing.T) {
	inBubble(t, "trio", func(t *testing.T, l *Loop, _ *stage, _ *logbook) {
		time.Sleep(time.Second)
		before := l.Board().View()
		c, _ := declared("trio-few")
		if err := replace(t.Context(), l, c); err != nil {
			t.Fatal(err)
		}
		// It is published on return, and the new service starts with what is known.
		v := l.Board().View()
		if got, want := serving(v), "serve primary 1, replica 2 3, default 1, more 1"; got != want {
			t.Errorf("%s, want %s", got, want)
		}
		if was, is := health1(t, before, "pg-test-primary", "pg-test-1"), health1(t, v, "pg-test-primary", "pg-test-1"); was != is {
			t.Errorf("health was %+v, is %+v", was, is)
		}
		// A service that comes back has higher epochs.
		c, _ = declared("trio")
		if err := replace(t.Context(), l, c); err != nil {
			t.Fatal(err)
		}
		if was, is := health1(t, before, "pg-test-offline", "pg-test-3"), health1(t, l.Board().View(), "pg-test-offline", "pg-test-3"); is.Epoch <= was.Epoch {
			t.Errorf("epoch was %d, is %d", was.Epoch, is.Epoch)
		}
		time.Sleep(200 * time.Millisecond)
		if got, want := serving(l.Board().View()), "serve primary 1, replica 2 3, default 1, offline 3"; got != want {
			t.Errorf("%s, want %s", got, want)
		}
		// What can't be used changes nothing.
		still := l.Board().View()
		broken, _ := declared("broken")
		if err := replace(t.Context(), l, broken); err == nil || !strings.Contains(err.Error(), "cluster pg-test: service pg-test-broken: selector: ") {
			t.Errorf("error %v", err)
		}
		syntax, _ := declared("trio")
		syntax.Definitions[0].Selector = jmespath.Read("[?")
		if err := replace(t.Context(), l, syntax); err == nil || !strings.Contains(err.Error(), "service pg-test-primary: selector: ") {
			t.Errorf("error %v", err)
		}
		other, _ := declared("trio")
		other.Name = "pg-other"
		if err := replace(t.Context(), l, other); err == nil || !strings.Contains(err.Error(), "pg-test can't become pg-other") {
			t.Errorf("error %v", err)
		}
		if l.Board().View() != still {
			t.Error("a refused declaration was published")
		}
	})
}

// TestReplaceWithoutRun: Prepare ends with its context while nobody runs the loop, and with the loop; so does Publish.
func TestReplaceWithoutRun(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, _ := declared("trio")
		l, err := New(c, Config{Logger: slog.New(&logbook{}), Check: newStage().check, Probe: newStage().probe})
		if err != nil {
			t.Fatal(err)
		}
		go func() {
			if err := replace(t.Context(), l, c); err == nil || !strings.Contains(err.Error(), "its loop hasn't answered for 10s") {
				t.Errorf("error %v", err)
			}
		}()
		time.Sleep(prepareTime + time.Second)
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if err := replace(ctx, l, c); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("error %v", err)
		}
		l.Recheck("pg-test-1")
		if err := l.Run(ctx); err != nil {
			t.Errorf("Run: %v", err)
		}
		if err := replace(t.Context(), l, c); !errors.Is(err, ErrEnded) {
			t.Errorf("error %v", err)
		}
		l.Recheck("pg-test-1")
	})
}

// TestPrepareTouchesNothing: what is prepared and not published ends no session (no epoch rises), asks nobody and shows nowhere,
// and what has been prepared can be published whatever happens in between.
func TestPrepareTouchesNothing(t *testing.T) {
	inBubble(t, "trio", func(t *testing.T, l *Loop, g *stage, log *logbook) {
		time.Sleep(10 * time.Second)
		before := l.Board().View()
		c, _ := declared("trio-few") // takes the offline service away
		c.Members[1].Host = "10.10.10.99"
		// It can't be resolved where 3 is the primary.
		c.Definitions[1].Selector = jmespath.Read("[? !pg_offline_query || pg_role == 'replica' || abs(pg_role) > `0`]")
		change, err := l.Prepare(t.Context(), c)
		if err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		if l.Board().View() != before {
			t.Error("another View was published")
		}
		time.Sleep(time.Minute)
		for i, svc := range l.Board().View().Services {
			if was := before.Services[i]; !slices.Equal(svc.Health, was.Health) || !slices.EqualFunc(svc.Servers, was.Servers, func(a, b model.Server) bool { return a.Address() == b.Address() }) {
				t.Errorf("%s was %+v, is %+v", svc.FullName, was, svc)
			}
		}
		if got, want := len(change.plan.Prepared.Services), 4; got != want {
			t.Errorf("prepared with %d services, want %d", got, want)
		}
		g.set(1, "replica running")
		g.set(3, "lock primary running")
		time.Sleep(10 * time.Second)
		if _, err := l.Prepare(t.Context(), c); err == nil || !strings.Contains(err.Error(), "service pg-test-replica: selector: ") {
			t.Errorf("error %v", err)
		}
		change.Publish()
		time.Sleep(10 * time.Second)
		if got, want := serving(l.Board().View()), "serve primary 3, replica 2 3, default 3, more 3"; got != want {
			t.Errorf("%s, want %s", got, want)
		}
		if log.count("ERROR pg-test: the services have the servers that they were prepared with") != 1 {
			t.Errorf("the log: %q", log.lines)
		}
	})
}

// TestBeats: a loop to which nothing happens goes round each second, and one that waits for somebody doesn't.
func TestBeats(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, _ := declared("single")
		g, release := newStage(), make(chan struct{})
		asked := 0
		g.set(1, "silent timed out")
		l, err := New(c, Config{Logger: slog.New(&logbook{}), Check: g.check, Probe: g.probe, Keys: func(model.Cluster) Keys {
			if asked++; asked > 1 {
				<-release
			}
			return nil
		}})
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		var joined sync.WaitGroup
		joined.Go(func() { l.Run(ctx) })
		synctest.Wait()
		for range 5 {
			before := l.Beats()
			time.Sleep(BeatGap)
			synctest.Wait()
			if l.Beats() == before {
				t.Fatal("no beat for a second")
			}
		}
		joined.Go(func() { replace(t.Context(), l, c) })
		synctest.Wait()
		before := l.Beats()
		time.Sleep(time.Minute)
		if l.Beats() != before {
			t.Error("it beats while it hangs")
		}
		close(release)
		synctest.Wait()
		if l.Beats() == before {
			t.Error("it doesn't beat again")
		}
		cancel()
		joined.Wait()
	})
}

func TestNewRefuses(t *testing.T) {
	broken, _ := declared("broken")
	if _, err := New(broken, Config{}); err == nil || !strings.Contains(err.Error(), "cluster pg-test: service pg-test-broken: selector: ") {
		t.Errorf("error %v", err)
	}
	syntax, _ := declared("trio")
	syntax.Definitions[1].Backup = jmespath.Read("nofunc(@)")
	if _, err := New(syntax, Config{}); err == nil || !strings.Contains(err.Error(), "service pg-test-replica: backup: ") {
		t.Errorf("error %v", err)
	}
}

// TestRecheck: however hard clients ask for it, over five seconds a member is asked twice as often as in peace at most; and a change is
// seen at once.
func TestRecheck(t *testing.T) {
	inBubble(t, "trio", func(t *testing.T, l *Loop, g *stage, _ *logbook) {
		time.Sleep(10 * time.Second)
		before := g.askedOf("pg-test-2")
		for range 10_000 {
			l.Recheck("pg-test-2")
			l.Await("pg-test-primary")
			time.Sleep(time.Millisecond)
		}
		// inter 2s: in ten seconds of peace it is five.
		if n := g.askedOf("pg-test-2") - before; n < 6 || n > 11 {
			t.Errorf("%d questions in ten seconds", n)
		}
		time.Sleep(10 * time.Second)
		g.set(1, "503 stopped")
		l.Recheck("pg-test-1")
		l.Recheck("nobody")
		synctest.Wait()
		if health1(t, l.Board().View(), "pg-test-primary", "pg-test-1").Up {
			t.Error("the member was not asked at once")
		}
	})
}

// TestLateAnswer: a question isn't put again while it is under way, and its answer counts whenever it comes.
func TestLateAnswer(t *testing.T) {
	inBubble(t, "trio", func(t *testing.T, l *Loop, g *stage, _ *logbook) {
		time.Sleep(10 * time.Second)
		before := g.askedOf("pg-test-2")
		g.set(2, "silent timed out")
		time.Sleep(longestAnswer - time.Second)
		if n := g.askedOf("pg-test-2") - before; n > 1 {
			t.Errorf("asked %d times more, while the first answer was awaited", n)
		}
		if n := g.gaveUp["pg-test-2"]; n != 0 {
			t.Errorf("%d answers weren't waited for", n)
		}
		for range 1000 {
			l.Recheck("pg-test-2")
		}
		synctest.Wait()
		if n := g.askedOf("pg-test-2") - before; n > 1 {
			t.Errorf("asked %d times more because of clients", n)
		}
		// It is given up in the end.
		g.set(2, "replica running")
		time.Sleep(15 * time.Second)
		if got, want := serving(l.Board().View()), "serve primary 1, replica 2 3, default 1, offline 3"; got != want {
			t.Errorf("%s, want %s", got, want)
		}
	})
}

// TestPaces: how often members are asked, by what their servers ask.
func TestPaces(t *testing.T) {
	s, _ := Begin(planning(t, "trio"), 1, time.Unix(0, 0))
	feed := func(at time.Duration, member, words string) {
		for _, target := range s.asked() {
			if target.Member == member {
				now := time.Unix(0, 0).Add(at)
				s, _ = stepped(s, Checked{health.Result{Target: target, Outcome: script(strings.Fields(words)).on(target.Path), Ended: now}}, now)
			}
		}
	}
	want := func(step string, wants ...time.Duration) {
		t.Helper()
		for i, target := range s.asked() {
			m := s.members[target.Member]
			if pace, there := m.api.Pace(target); !there || pace != wants[i] {
				t.Errorf("%s: %s every %v, want %v", step, short(target.Member), pace, wants[i])
			}
		}
	}
	const inter, fast = 2 * time.Second, time.Second
	want("never checked", fast, fast, fast)
	feed(0, "pg-test-2", "replica running")
	want("no leader yet", fast, fast, fast)
	feed(0, "pg-test-1", "lock primary running")
	feed(0, "pg-test-3", "replica running")
	want("all well", inter, inter, inter)
	feed(time.Second, "pg-test-1", "demoted stopped")
	want("no leader any more", fast, fast, fast)

	// Two services with different options: the more curious one decides.
	c, _ := declared("trio-few")
	c.Definitions[3].Options, _ = model.ParseOptions("inter 500ms downinter 10s")
	r, err := resolve.New(c)
	if err != nil {
		t.Fatal(err)
	}
	s, _ = Begin(Planned{Cluster: c, Resolver: r}, 1, time.Unix(0, 0))
	feed(0, "pg-test-1", "lock primary running")
	feed(0, "pg-test-2", "replica running")
	feed(0, "pg-test-3", "replica running")
	want("two options", 500*time.Millisecond, inter, inter)
}

// TestStepIsPure: the same state, event and time give the same result, and no step of a state reaches its clone.
func TestStepIsPure(t *testing.T) {
	start := time.Unix(0, 0)
	s, _ := Begin(planning(t, "trio"), 1, start)
	event := func(member, path, words string) Event {
		target := targetOf(s.member("pg-test-"+member), model.Definition{Check: path})
		return Checked{health.Result{Target: target, Outcome: script(strings.Fields(words)).on(path), Ended: start}}
	}
	again := s.Clone()
	first := s.Step(event("1", "/primary", "lock primary running"), start)
	second := again.Step(event("1", "/primary", "lock primary running"), start)
	if first.View == nil || second.View == nil || serving(first.View) != serving(second.View) || first.View.Version != second.View.Version {
		t.Errorf("the same step twice: %+v, %+v", first.View, second.View)
	}
	if len(first.Log) != len(second.Log) || len(first.Log) != 3 {
		t.Errorf("log %v, %v", first.Log, second.Log)
	}
	up := s.Clone()
	if a := s.Step(event("1", "/primary", "demoted stopped"), start.Add(time.Second)); serving(a.View) != "serve primary –, replica –, default –, offline –" {
		t.Errorf("after the demotion: %s", serving(a.View))
	}
	if got := serving(up.view); got != "serve primary 1, replica 1, default 1, offline –" {
		t.Errorf("the clone was changed: %s", got)
	}
	if !reflect.DeepEqual(up, again) {
		t.Error("the clone was changed, or the same step made another state")
	}
	// A check that nobody asks for changes nothing.
	stray := Checked{health.Result{Target: health.Target{Member: "pg-test-1", Base: "http://10.9.9.9:8008", Path: "/primary"}}}
	before := up.Clone()
	if a := up.Step(stray, start); a.View != nil || a.Log != nil || !reflect.DeepEqual(up, before) {
		t.Errorf("a stray result: %+v", a)
	}
}

// TestRealPatroniAPI runs a loop against HTTP servers that answer as Patroni does, on loopback: with a goroutine for each question,
// and with one loop for all where there is one.
func TestRealPatroniAPI(t *testing.T) {
	t.Run("goroutines", func(t *testing.T) { realPatroniAPI(t, nil) })
	questions, err := exchange.New()
	if errors.Is(err, errors.ErrUnsupported) {
		return
	}
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	var running sync.WaitGroup
	running.Go(func() { questions.Run(ctx) })
	defer running.Wait()
	defer cancel()
	t.Run("exchanges", func(t *testing.T) { realPatroniAPI(t, questions) })
}

func realPatroniAPI(t *testing.T, questions *exchange.Loop) {
	g := newStage()
	g.set(1, "lock primary running")
	g.set(2, "replica running")
	c := model.Cluster{Name: "pg-test", TTL: 20, Definitions: defaults()}
	for i, role := range []model.Role{model.Primary, model.Replica} {
		name := "pg-test-" + strconv.Itoa(i+1)
		server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			o := g.check(r.Context(), health.Target{Member: name, Path: r.URL.Path})
			body, _ := json.Marshal(map[string]any{"role": o.Answer.Role, "state": o.Answer.State, "timeline": o.Answer.Timeline})
			w.Header().Set("Content-Type", "application/json")
			w.WriteHeader(o.Answer.Status)
			w.Write(body)
		}))
		defer server.Close()
		host, port, err := net.SplitHostPort(strings.TrimPrefix(server.URL, "http://"))
		if err != nil {
			t.Fatal(err)
		}
		m := instance(i+1, role, i == 1)
		m.Host = host
		m.PatroniPort, _ = strconv.Atoi(port)
		c.Members = append(c.Members, m)
	}
	l, err := New(c, Config{Logger: slog.New(slog.NewTextHandler(io.Discard, nil)), Probe: g.probe, Exchange: questions})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	var joined sync.WaitGroup
	joined.Go(func() { l.Run(ctx) })
	defer joined.Wait()
	defer cancel()
	until := func(want string) {
		t.Helper()
		limit := time.After(20 * time.Second)
		for {
			v, changed := l.Board().Watch()
			if serving(v) == want {
				return
			}
			select {
			case <-changed:
			case <-limit:
				t.Fatalf("%s, want %s", serving(l.Board().View()), want)
			}
		}
	}
	until("serve primary 1, replica 2, default 1, offline 2")
	g.set(1, "replica running")
	g.set(2, "lock primary running")
	l.Recheck("pg-test-1")
	until("serve primary 2, replica 1, default 2, offline 1")
	// It ends at once with a question under way.
	g.set(1, "silent timed out")
	for asked := g.askedOf("pg-test-1"); g.askedOf("pg-test-1") == asked; l.Recheck("pg-test-1") {
		runtime.Gosched()
	}
	began := time.Now()
	cancel()
	joined.Wait()
	if took := time.Since(began); took > longestAnswer/2 {
		t.Errorf("its end took %v", took)
	}
}
