package restproxy

import (
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"net/netip"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"
)

// rig is a proxy before a handler.
type rig struct {
	Client
	t       *testing.T
	address string
	patroni *http.Server
	asked   atomic.Int64
	// wait is what an answer waits for; nil is nothing.
	wait chan struct{}
}

func start(t *testing.T) *rig {
	t.Helper()
	back, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	front, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	front.Close()
	r := &rig{t: t, address: front.Addr().String(), Client: Client{filepath.Join(t.TempDir(), "s")}}
	r.patroni = &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, q *http.Request) {
		r.asked.Add(1)
		if r.wait != nil {
			<-r.wait
		}
		w.Header().Set("Connection", "close")
		w.WriteHeader(http.StatusServiceUnavailable)
		io.WriteString(w, q.URL.Path)
	})}
	ctx, cancel := context.WithCancel(t.Context())
	var running sync.WaitGroup
	running.Go(func() { r.patroni.Serve(back) })
	running.Go(func() {
		if err := Run(ctx, r.address, back.Addr().String(), r.Socket); err != nil {
			t.Error(err)
		}
	})
	t.Cleanup(func() {
		cancel()
		r.patroni.Close()
		running.Wait()
	})
	r.until(func() bool {
		c, err := net.Dial("tcp", r.address)
		if err == nil {
			c.Close()
		}
		return err == nil
	})
	return r
}

// until waits for a condition.
func (r *rig) until(done func() bool) {
	r.t.Helper()
	for deadline := time.Now().Add(20 * time.Second); !done(); {
		if time.Now().After(deadline) {
			r.t.Fatal("it never came to be")
		}
		time.Sleep(5 * time.Millisecond)
	}
}

func (r *rig) do(order Order) {
	r.t.Helper()
	if err := r.Do(r.t.Context(), order); err != nil {
		r.t.Fatal(err)
	}
}

// get asks as pgporter does, and gives all that comes.
func (r *rig) get(path string) (string, error) {
	c, err := net.Dial("tcp", r.address)
	if err != nil {
		return "", err
	}
	defer c.Close()
	if _, err := io.WriteString(c, "GET "+path+" HTTP/1.0\r\nHost: x\r\n\r\n"); err != nil {
		return "", err
	}
	text, err := io.ReadAll(c)
	return string(text), err
}

func (r *rig) requests() []Request {
	r.t.Helper()
	all, err := r.Requests(r.t.Context(), time.Time{})
	if err != nil {
		r.t.Fatal(err)
	}
	return all
}

func TestFaultsThatAnswer(t *testing.T) {
	r := start(t)
	for _, c := range []struct {
		fault  Fault
		status int
		want   string
	}{
		{Pass, 503, "/primary"}, {Error500, 500, "<h1>Internal"}, {Error502, 502, "Bad Gateway"}, {HalfHeader, 0, "Pyth"}, {Pass, 503, "/primary"},
	} {
		r.do(Order{Fault: c.fault})
		text, err := r.get("/primary?x=1")
		if err != nil || !strings.Contains(text, c.want) {
			t.Errorf("%s: %q, %v", c.fault, text, err)
		}
		all := r.requests()
		last := all[len(all)-1]
		if last.Status != c.status || last.Path != "/primary?x=1" || last.Method != "GET" || last.From != netip.MustParseAddr("127.0.0.1") || last.Took == 0 {
			t.Errorf("%s: noted as %+v", c.fault, last)
		}
	}
	r.do(Order{Fault: Reset})
	if text, err := r.get("/"); !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("reset: %q, %v", text, err)
	}
	if asked := r.asked.Load(); asked != 2 {
		t.Errorf("Patroni was asked %d times", asked)
	}
}

// Answers are late, and one that is waited for comes at once when the fault is over.
func TestLate(t *testing.T) {
	r := start(t)
	r.do(Order{Late, 200 * time.Millisecond})
	began := time.Now()
	if text, err := r.get("/replica"); err != nil || !strings.Contains(text, "/replica") || time.Since(began) < 200*time.Millisecond {
		t.Errorf("%q, %v after %s", text, err, time.Since(began))
	}
	r.do(Order{Late, time.Hour})
	got := make(chan error, 1)
	go func() { _, err := r.get("/late"); got <- err }()
	r.until(func() bool { return r.asked.Load() == 2 })
	r.do(Order{Fault: Pass})
	if err := <-got; err != nil {
		t.Error(err)
	}
}

// Questions under way are swallowed too, and stay so when the fault is over.
func TestHang(t *testing.T) {
	r := start(t)
	r.wait = make(chan struct{})
	ask := func() net.Conn {
		c, err := net.Dial("tcp", r.address)
		if err != nil {
			t.Fatal(err)
		}
		io.WriteString(c, "OPTIONS /primary HTTP/1.0\r\n\r\n")
		return c
	}
	before := ask()
	r.until(func() bool { return r.asked.Load() == 1 })
	r.do(Order{Fault: Hang})
	close(r.wait)
	during := ask()
	r.until(func() bool { return len(r.requests()) == 2 })
	r.do(Order{Fault: Pass})
	if text, err := r.get("/after"); err != nil || !strings.Contains(text, "/after") {
		t.Errorf("%q, %v", text, err)
	}
	for _, c := range []net.Conn{before, during} {
		c.SetReadDeadline(time.Now().Add(100 * time.Millisecond))
		if n, err := c.Read(make([]byte, 1)); n > 0 || !isTimeout(err) {
			t.Errorf("a swallowed question: %d bytes, %v", n, err)
		}
		c.Close()
	}
	r.until(func() bool {
		all := r.requests()
		return all[0].Left && all[1].Left && all[2].Status == 503
	})
	if most := UnderWay(r.requests(), time.Now()); most != 3 {
		t.Errorf("%d were under way", most)
	}
}

func isTimeout(err error) bool {
	var timeout net.Error
	return errors.As(err, &timeout) && timeout.Timeout()
}

// A Patroni that is gone is refused here as there, and what was under way is reset; so it is by order.
func TestRefuses(t *testing.T) {
	r := start(t)
	refused := func() bool {
		_, err := r.get("/")
		return errors.Is(err, syscall.ECONNREFUSED)
	}
	r.do(Order{Hang, 0})
	got := make(chan error, 1)
	go func() { _, err := r.get("/"); got <- err }()
	r.until(func() bool { return len(r.requests()) == 1 })
	r.do(Order{Fault: Refuse})
	if err := <-got; !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("the question under way: %v", err)
	}
	r.until(refused)
	r.do(Order{Fault: Pass})
	r.until(func() bool { _, err := r.get("/"); return err == nil })
	r.patroni.Close()
	r.until(refused)
}

func TestOrders(t *testing.T) {
	r := start(t)
	for order, want := range map[Order]string{
		{Fault: "earthquake"}: `no fault of an API is called "earthquake"; there are: pass, hang, late`,
		{Fault: Late}:         "only late has one, and needs it",
		{Hang, time.Second}:   "only late has one",
	} {
		if err := r.Do(t.Context(), order); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%+v: %v", order, err)
		}
	}
	r.do(Order{Late, time.Second})
	if order, err := r.Order(t.Context()); err != nil || order != (Order{Late, time.Second}) {
		t.Errorf("%+v, %v", order, err)
	}
}

func TestLoad(t *testing.T) {
	began := time.Unix(1000, 0)
	at := func(ms, took int) Request {
		return Request{At: began.Add(time.Duration(ms) * time.Millisecond), Took: time.Duration(took) * time.Millisecond}
	}
	all := []Request{at(0, 100), at(100, 50), at(900, 500), at(1000, 0), at(1050, 10)}
	for window, want := range map[time.Duration]int{time.Second: 4, 100 * time.Millisecond: 2, time.Minute: 5} {
		if got := Most(all, window); got != want {
			t.Errorf("most in %s: %d, not %d", window, got, want)
		}
	}
	if got := UnderWay(all, began.Add(2*time.Second)); got != 3 {
		t.Errorf("under way: %d", got)
	}
	if Most(nil, time.Second) != 0 || UnderWay(nil, began) != 0 {
		t.Error("nothing is something")
	}
}
