package shadow

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/pgporter/pgporter/internal/config/model"
	"github.com/pgporter/pgporter/internal/config/tcpservice"
	"github.com/pgporter/pgporter/internal/engine"
	"github.com/pgporter/pgporter/internal/engine/haproxy"
	"github.com/pgporter/pgporter/internal/monitor/view"
)

// csv is what HAProxy says of one service with one server.
func csv(status string, sessions int) string {
	return fmt.Sprintf("# pxname,svname,status,weight,bck,scur,stot,econ,wretr,\np,FRONTEND,OPEN,,,0,0,,,\np,1,%s,100,0,%d,5,0,0,\np,BACKEND,UP,100,0,0,0,0,0,\n", status, sessions)
}

// balancer is a HAProxy that says what it is told to.
type balancer struct {
	mu     sync.Mutex
	says   string
	err    error
	hangs  bool
	asked  []time.Time
	atOnce atomic.Int32
	most   atomic.Int32
}

func (b *balancer) String() string { return "the balancer" }

func (b *balancer) Statistics(ctx context.Context) (string, error) {
	b.most.Store(max(b.most.Load(), b.atOnce.Add(1)))
	defer b.atOnce.Add(-1)
	b.mu.Lock()
	says, err, hangs := b.says, b.err, b.hangs
	b.asked = append(b.asked, time.Now())
	b.mu.Unlock()
	if hangs {
		<-ctx.Done()
		return "", ctx.Err()
	}
	return says, err
}

func (b *balancer) set(says string, err error, hangs bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.says, b.err, b.hangs = says, err, hangs
}

func (b *balancer) times() int {
	b.mu.Lock()
	defer b.mu.Unlock()
	return len(b.asked)
}

// post shows a View in which the one server is up or not.
func post(board *view.Board, up bool) {
	before := board.View()
	board.Publish(&view.View{Cluster: "c", Version: before.Version + 1, At: time.Now(), Key: view.Key{Watched: true, Holder: "1"},
		Members:  []view.Member{{Member: model.Member{Name: "1"}, Live: model.Primary, Answer: "200"}},
		Services: []view.Service{{Service: model.Service{Definition: model.Definition{FullName: "p", Check: "/primary"}, Servers: []model.Server{{Member: "1", Weight: 1}}}, Health: []view.Health{{Up: up, Reason: "because"}}}}})
}

func offerOf(board *view.Board, services ...string) engine.Offer {
	c := engine.Cluster{Cluster: model.Cluster{Name: "c"}, Board: board}
	for _, name := range services {
		c.Definitions = append(c.Definitions, model.Definition{FullName: name})
	}
	return engine.Offer{Clusters: []engine.Cluster{c}}
}

func TestWatcher(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		board := view.NewBoard(&view.View{Cluster: "c"})
		post(board, true)
		var log bytes.Buffer
		h := &balancer{says: csv("UP", 0)}
		w := New(Config{HAProxy: h, Logger: slog.New(slog.NewTextHandler(&log, nil))})
		w.Watch(offerOf(board, "p", "absent"), nothing)
		ctx, stop := context.WithCancel(t.Context())
		ended := make(chan error)
		go func() { ended <- w.Run(ctx) }()

		time.Sleep(10*time.Second + time.Millisecond)
		synctest.Wait()
		if n := h.times(); n != 11 {
			t.Errorf("asked %d times in 10 quiet seconds", n)
		}
		r := w.Report()
		if len(r.Events) != 0 || len(r.Standing) != 0 || r.Silent != "" || fmt.Sprint(r.Absent) != "[absent]" || r.Asked != 11 {
			t.Errorf("while nothing happens: %+v", r)
		}

		// Ours goes first, HAProxy after 1.5 s; both come back.
		before := h.times()
		post(board, false)
		time.Sleep(1500 * time.Millisecond)
		h.set(csv("DOWN", 0), nil, false)
		time.Sleep(500 * time.Millisecond)
		synctest.Wait()
		if n := h.times() - before; n < 9 || n > 11 {
			t.Errorf("asked %d times in 2 s while something changes", n)
		}
		if r := w.Report(); len(r.Events) != 1 || len(r.Events[0].Disagreements) != 1 || !r.Events[0].Ended.IsZero() {
			t.Errorf("while it goes on: %+v", r.Events)
		}
		h.set(csv("UP", 0), nil, false)
		post(board, true)
		time.Sleep(10 * time.Second)
		synctest.Wait()
		r = w.Report()
		if len(r.Events) != 1 || r.Right.HAProxy != 1 || r.Events[0].Number != 1 || r.Events[0].What != "1 went and came back" {
			t.Fatalf("afterwards: %+v", r)
		}
		// Seen with the look that follows HAProxy's change.
		if d := r.Events[0].Disagreements[0]; d.Kind != HAProxyLeads || d.Until.Sub(d.Since) < 1500*time.Millisecond || d.Until.Sub(d.Since) > 1700*time.Millisecond {
			t.Errorf("%s", d.Text())
		}
		for _, want := range []string{"comparing with HAProxy", "HAProxy hasn't all services", "in shadow: 1 went and came back", "right=haproxy"} {
			if !strings.Contains(log.String(), want) {
				t.Errorf("the log says nothing of %q:\n%s", want, &log)
			}
		}

		// A HAProxy that hangs is asked one question at a time, and isn't one that disagrees.
		h.set("", nil, true)
		time.Sleep(10 * time.Second)
		synctest.Wait()
		post(board, false)
		time.Sleep(10 * time.Second)
		synctest.Wait()
		if r := w.Report(); r.Silent == "" || r.Unanswered < 8 || len(r.Standing) != 0 {
			t.Errorf("while it hangs: %+v", r)
		}
		if n := h.most.Load(); n != 1 {
			t.Errorf("%d questions at once", n)
		}
		h.set(csv("UP", 0), nil, false)
		time.Sleep(10 * time.Second)
		synctest.Wait()
		if r := w.Report(); r.Silent != "" || len(r.Standing) != 1 {
			t.Errorf("when it answers again: %+v", r)
		}
		if n := strings.Count(log.String(), "HAProxy doesn't answer"); n != 1 {
			t.Errorf("its silence was told %d times", n)
		}

		// A reload keeps what is known of the cluster.
		w.Watch(offerOf(board, "p"), nothing)
		time.Sleep(2 * time.Second)
		synctest.Wait()
		if r := w.Report(); len(r.Standing) != 1 || len(r.Absent) != 0 {
			t.Errorf("after a reload: %+v", r)
		}
		stop()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
}

// Nothing is compared before both sides have been known once.
func TestNothingIsComparedBeforeTheFirstChecks(t *testing.T) {
	b := newBook("c", nil)
	b.offered = []string{"p"}
	lines := func() { b.answered(began, nil) }
	lines()
	b.viewed(&view.View{At: began, Members: []view.Member{{Answer: view.NotChecked}}})
	lines()
	if b.begun {
		t.Error("it has begun")
	}
	b.viewed(&view.View{At: began, Members: []view.Member{{Answer: "200"}}})
	lines()
	if !b.begun || b.event != nil {
		t.Errorf("begun %t, event %v", b.begun, b.event)
	}
}

func TestManyEvents(t *testing.T) {
	w := New(Config{HAProxy: &balancer{}})
	for range mostEvents + 7 {
		w.note(newBook("c", nil), &Event{})
	}
	if r := w.Report(); len(r.Events) != mostEvents || r.Dropped != 7 || r.Events[mostEvents-1].Number != mostEvents+7 {
		t.Errorf("%d events, %d dropped", len(r.Events), r.Dropped)
	}
}

func TestPage(t *testing.T) {
	says := func(w http.ResponseWriter, r *http.Request) {
		user, password, _ := r.BasicAuth()
		switch {
		case r.URL.Path == "/elsewhere/;csv":
			http.Redirect(w, r, "/haproxy/n1/;csv", http.StatusFound)
		case r.URL.Path != "/haproxy/n1/;csv":
			fmt.Fprint(w, "<html>")
		case user != "admin" || password != "secret":
			w.WriteHeader(http.StatusUnauthorized)
		default:
			fmt.Fprint(w, csv("UP", 0))
		}
	}
	server := httptest.NewServer(http.HandlerFunc(says))
	defer server.Close()
	for _, test := range []struct{ path, password, want string }{
		{"/haproxy/n1/", "secret", ""},
		{"/haproxy/n1/", "wrong", "wants another user or password"},
		{"/", "secret", "isn't HAProxy's page with statistics"},
		{"/elsewhere/", "secret", "answers 302 Found"},
	} {
		at, err := url.Parse(server.URL + test.path)
		if err != nil {
			t.Fatal(err)
		}
		text, err := Page{URL: at, User: "admin", Password: test.password}.Statistics(t.Context())
		switch {
		case test.want == "" && (err != nil || text != csv("UP", 0)):
			t.Errorf("%s: %v", test.path, err)
		case test.want != "" && (err == nil || !strings.Contains(err.Error(), test.want) || strings.Contains(err.Error(), test.password)):
			t.Errorf("%s: %v, want %s", test.path, err, test.want)
		}
	}
	server.Close()
	at, _ := url.Parse(server.URL)
	if _, err := (Page{URL: at}).Statistics(t.Context()); err == nil || !strings.Contains(err.Error(), "connection refused") {
		t.Errorf("nobody there: %v", err)
	}
}

func TestSocket(t *testing.T) {
	path := filepath.Join(t.TempDir(), "s")
	l, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	var serving sync.WaitGroup
	serving.Go(func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			buffer := make([]byte, 100)
			n, _ := conn.Read(buffer)
			fmt.Fprintf(conn, "said %q", buffer[:n])
			conn.Close()
		}
	})
	if text, err := Socket(path).Statistics(t.Context()); err != nil || text != `said "show stat\n"` {
		t.Errorf("%q, %v", text, err)
	}
	l.Close()
	serving.Wait()
	if _, err := Socket(path).Statistics(t.Context()); err == nil || errors.Is(err, context.Canceled) {
		t.Errorf("nobody there: %v", err)
	}
}

func nothing(string) bool { return false }

// Services of no cluster are compared as well; no leader key knows of them.
func TestTCPServices(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		board := view.NewBoard(&view.View{})
		publish := func(up bool) {
			board.Publish(&view.View{At: time.Now(), Services: []view.Service{{Service: model.Service{Definition: model.Definition{FullName: "p", Check: "/primary"},
				Servers: []model.Server{{Member: "1", Weight: 1}}}, Health: []view.Health{{Up: up, Reason: "a connect"}}}}})
		}
		publish(true)
		w := New(Config{HAProxy: &balancer{says: csv("UP", 0)}})
		w.Watch(engine.Offer{TCP: engine.TCPServices{Services: []tcpservice.Service{{Service: model.Service{Definition: model.Definition{FullName: "p"}}}}, Board: board}}, nothing)
		ctx, stop := context.WithCancel(t.Context())
		ended := make(chan error)
		go func() { ended <- w.Run(ctx) }()
		time.Sleep(2 * time.Second)
		publish(false)
		time.Sleep(10 * time.Second)
		synctest.Wait()
		r := w.Report()
		if len(r.Standing) != 1 || r.Standing[0].Right != RightUnknown || len(r.Events) != 1 || r.Events[0].Cluster != "" || r.Events[0].What != "1 went" {
			t.Errorf("%+v", r)
		}
		// A service that pgporter carries by now isn't compared any more, and HAProxy listens for it, too.
		w.Watch(engine.Offer{TCP: engine.TCPServices{Services: []tcpservice.Service{{Service: model.Service{Definition: model.Definition{FullName: "p"}}}}, Board: board}}, func(service string) bool { return service == "p" })
		time.Sleep(2 * time.Second)
		synctest.Wait()
		if r := w.Report(); len(r.Standing) != 0 || fmt.Sprint(r.Both) != "[p]" {
			t.Errorf("when it is carried: %+v", r)
		}
		if err := w.Ready(ctx, []string{"p"}); err != nil {
			t.Errorf("it could be given back: %v", err)
		}
		if err := w.Ready(ctx, []string{"q"}); err == nil {
			t.Error("a service that nobody knows could be given back")
		}
		stop()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
}

// When HAProxy may have services back.
func TestReady(t *testing.T) {
	s := &view.Service{Service: model.Service{Definition: model.Definition{FullName: "p", Check: "/primary"}, Servers: []model.Server{{Member: "1", Weight: 1}, {Member: "2", Weight: 1}}},
		Health: []view.Health{{Up: true}, {}}}
	line := func(server, status string) haproxy.Statistic {
		return haproxy.Statistic{Service: "p", Server: server, Status: status, Weight: 1}
	}
	for _, test := range []struct {
		lines []haproxy.Statistic
		check string
		want  string
	}{
		{nil, "/primary", "it doesn't listen for p"},
		{[]haproxy.Statistic{line(haproxy.Frontend, "STOP"), line("1", "UP")}, "/primary", "it doesn't listen for p"},
		{[]haproxy.Statistic{line(haproxy.Frontend, "OPEN"), line("1", "UP"), line("2", "UP")}, "/primary", "it leads clients of p to 2"},
		{[]haproxy.Statistic{line(haproxy.Frontend, "OPEN"), line("1", "UP"), line("2", "UP")}, "/replica", ""},
		{[]haproxy.Statistic{line(haproxy.Frontend, "OPEN"), line("1", "DOWN"), line("2", "DOWN")}, "/primary", "it leads nobody of p anywhere"},
		{[]haproxy.Statistic{line(haproxy.Frontend, "OPEN"), line("1", "UP"), line("2", "DOWN")}, "/primary", ""},
	} {
		s.Check = test.check
		err := ready(s, test.lines)
		if (err == nil) != (test.want == "") || err != nil && err.Error() != test.want {
			t.Errorf("%v: %v, want %q", test.lines, err, test.want)
		}
	}
}
