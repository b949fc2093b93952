package tcpcheck

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/pgporter/pgporter/internal/config/model"
	"github.com/pgporter/pgporter/internal/config/tcpservice"
	"github.com/pgporter/pgporter/internal/monitor/view"
)

// logBook collects what is logged. Where let isn't nil, no line that holds stop is written before let is closed.
type logBook struct {
	stop string
	let  chan struct{}
	mu   sync.Mutex
	text strings.Builder
}

func (l *logBook) Write(p []byte) (int, error) {
	if l.let != nil && strings.Contains(string(p), l.stop) {
		<-l.let
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.Write(p)
}

func (l *logBook) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.String()
}

// watching is a Watcher that runs until the test's end.
type watching struct {
	*Watcher
	t   *testing.T
	log *logBook
	// end ends the Watcher and waits for that.
	end func()
}

func watch(t *testing.T) *watching {
	t.Helper()
	w := &watching{t: t, log: &logBook{}}
	w.Watcher = New(slog.New(slog.NewTextHandler(w.log, nil)), 100)
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		w.Run(ctx)
	}()
	w.end = func() {
		cancel()
		<-ended
	}
	t.Cleanup(func() {
		w.end()
		if t.Failed() {
			t.Logf("the log:\n%s", w.log)
		}
	})
	return w
}

func (w *watching) replace(services ...model.TCPService) {
	w.t.Helper()
	var all []tcpservice.Service
	for _, g := range services {
		all = append(all, parse(w.t, g))
	}
	p, err := Prepare(all)
	if err != nil {
		w.t.Fatal(err)
	}
	w.Replace(p)
}

// until waits for a View.
func (w *watching) until(what string, holds func(*view.View) bool) *view.View {
	w.t.Helper()
	limit := time.After(time.Minute)
	for {
		v, replaced := w.Board().Watch()
		if holds(v) {
			return v
		}
		select {
		case <-replaced:
		case <-limit:
			w.t.Fatalf("never came: %s; last seen %+v", what, v.Services)
		}
	}
}

// serversUp writes who is up: `x: a up, b down`.
func serversUp(v *view.View) string {
	var all []string
	for _, s := range v.Services {
		var servers []string
		for i, carrier := range s.Servers {
			word := "down"
			if s.Health[i].Up {
				word = "up"
			}
			servers = append(servers, carrier.Member+" "+word)
		}
		all = append(all, s.FullName+": "+strings.Join(servers, ", "))
	}
	return strings.Join(all, "; ")
}

func TestWatcher(t *testing.T) {
	var status atomic.Int64
	status.Store(200)
	web := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(int(status.Load())) }))
	defer web.Close()
	port := web.Listener.Addr().(*net.TCPAddr).Port
	w := watch(t)
	if v := w.Board().View(); len(v.Services) != 0 {
		t.Errorf("before anything: %+v", v)
	}
	g := service("127.0.0.1", port, "check inter 100ms rise 2 fall 2 on-marked-down shutdown-sessions", "option httpchk GET /", "http-check expect status 200")
	g.Servers = append(g.Servers, model.TCPServer{Name: "b", Host: "127.0.0.1", Port: 9, Backup: true})
	w.replace(g)
	first := w.until("a is up", func(v *view.View) bool { return serversUp(v) == "x: a up, b up" })
	if h := first.Services[0].Health; h[0].Reason != "200" || h[1].Reason != "it is not checked" || first.Services[0].Check != "GET /" || !h[0].Recovered.IsZero() {
		t.Errorf("got %+v", first.Services[0])
	}

	status.Store(503)
	down := w.until("a is down", func(v *view.View) bool { return serversUp(v) == "x: a down, b up" })
	if h := down.Services[0].Health[0]; h.Epoch <= first.Services[0].Health[0].Epoch || h.Reason != "503, not what is expected (2 in a row)" {
		t.Errorf("its sessions haven't ended: %+v", h)
	}
	status.Store(200)
	back := w.until("a is back", func(v *view.View) bool { return serversUp(v) == "x: a up, b up" })
	if h := back.Services[0].Health[0]; h.Recovered.IsZero() || h.Recovered != h.Since || h.Epoch != down.Services[0].Health[0].Epoch {
		t.Errorf("come back as %+v", h)
	} else if out := h.Since.Sub(down.Services[0].Health[0].Since); h.Checks.Failures != 2 || h.Checks.Downs != 1 || h.Checks.DownFor < out {
		t.Errorf("it was down for %s, and counted is %+v", out, h.Checks)
	}

	// A reload: b is put into maintenance, a keeps what it is, and y comes.
	other := service("127.0.0.1", port, "check inter 1h")
	other.Name = "y"
	g.Default, g.Servers[1].Options = "inter 3s", "disabled"
	w.replace(other, g)
	v := w.Board().View()
	if got := serversUp(v); got != "y: a down; x: a up, b down" || v.Services[1].Health[0] != back.Services[0].Health[0] {
		t.Errorf("right after a reload: %s, %+v", got, v.Services)
	}
	w.until("y is up", func(v *view.View) bool { return serversUp(v) == "y: a up; x: a up, b down" })

	// Out of turn, since the next check is an hour away.
	web.Close()
	g.Servers[0].Options = "check inter 1h fastinter 50ms fall 1"
	other.Servers[0].Options = "check inter 1h fastinter 50ms fall 2"
	w.replace(other, g)
	w.Recheck("y", "a")
	w.until("y is down", func(v *view.View) bool { return strings.HasPrefix(serversUp(v), "y: a down") })
	w.replace()
	if v := w.Board().View(); len(v.Services) != 0 {
		t.Errorf("at last: %+v", v)
	}
	// The log comes after the View, and is complete when the Watcher has ended.
	w.end()
	if got := w.log.String(); strings.Count(got, "y: no server is left: a cannot connect: connection refused (2 in a row)") != 1 {
		t.Error("nobody says that y has no server left")
	}
}

// TestRegularServerEndsSessionsOnBackups has on-marked-up shutdown-backup-sessions do that.
func TestRegularServerEndsSessionsOnBackups(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	address := l.Addr().String()
	_ = l.Close()
	w := watch(t)
	g := service("127.0.0.1", l.Addr().(*net.TCPAddr).Port, "check inter 50ms on-marked-up shutdown-backup-sessions")
	g.Servers = append(g.Servers, model.TCPServer{Name: "b", Host: "127.0.0.1", Port: 9, Backup: true})
	w.replace(g)
	before := w.until("a is down", func(v *view.View) bool {
		return strings.Contains(fmt.Sprint(v.Services), "connection refused")
	})
	if l, err = net.Listen("tcp", address); err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	after := w.until("a is up", func(v *view.View) bool { return serversUp(v) == "x: a up, b up" })
	if after.Services[0].Health[1].Epoch <= before.Services[0].Health[1].Epoch {
		t.Error("the sessions on b go on")
	}
}

// TestViewsComeBeforeTheLog has nobody read the log from the line on that a server is down. The View has it down all the same, and
// so it is with the next.
func TestViewsComeBeforeTheLog(t *testing.T) {
	w := watch(t)
	w.log.stop, w.log.let = "x: server a is down", make(chan struct{})
	let := sync.OnceFunc(func() { close(w.log.let) })
	t.Cleanup(let)
	var webs []*httptest.Server
	var services []model.TCPService
	for _, name := range []string{"x", "y"} {
		web := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}))
		defer web.Close()
		// A check has a second: one that a busy machine is late with would be down before its time.
		g := service("127.0.0.1", web.Listener.Addr().(*net.TCPAddr).Port, "check inter 1s fall 1")
		g.Name = name
		webs, services = append(webs, web), append(services, g)
	}
	w.replace(services...)
	w.until("both are up", func(v *view.View) bool { return serversUp(v) == "x: a up; y: a up" })
	for i, want := range []string{"x: a down; y: a up", "x: a down; y: a down"} {
		webs[i].Close()
		w.until(want, func(v *view.View) bool { return serversUp(v) == want })
	}
	let()
	w.end()
	for _, want := range []string{"x: server a is down", "y: server a is down", "x: no server is left", "y: no server is left"} {
		if strings.Count(w.log.String(), want) != 1 {
			t.Errorf("the log doesn't say once that %s", want)
		}
	}
}

// TestBeats: the Watcher goes round each second, and not while a result that is taken into account holds everything up. A lock is
// held, so the time is the real one.
func TestBeats(t *testing.T) {
	w := watch(t)
	beats := func(after uint64) {
		t.Helper()
		for limit := time.Now().Add(time.Minute); w.Beats() <= after; time.Sleep(10 * time.Millisecond) {
			if time.Now().After(limit) {
				t.Fatal("no beat for a minute")
			}
		}
	}
	beats(1)
	w.mu.Lock()
	before := w.Beats()
	time.Sleep(2*BeatGap + BeatGap/2)
	if w.Beats() != before {
		t.Error("it beats while it hangs")
	}
	w.mu.Unlock()
	beats(before)
}
