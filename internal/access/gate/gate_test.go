package gate

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"sync/atomic"
	"testing"
	"time"
)

// fake is a connection from somewhere that notes that it was closed.
type fake struct {
	net.Conn
	from   netip.Addr
	closed atomic.Bool
}

func (f *fake) Close() error {
	f.closed.Store(true)
	return nil
}

func (f *fake) RemoteAddr() net.Addr { return net.TCPAddrFromAddrPort(netip.AddrPortFrom(f.from, 1)) }

// rig is a Listener to which connections come from anywhere.
type rig struct {
	*Listener
	closed int
}

func newRig(limits Limits) *rig { return &rig{Listener: New(nil, limits, nil)} }

// come has somebody come, and gives the connection if it was taken.
func (r *rig) come(from string) (*fake, *Conn) {
	f := &fake{from: netip.MustParseAddr(from)}
	c := r.conn(f)
	gone := r.admit(c, time.Now())
	if gone != nil {
		_ = gone.Close()
		r.closed++
	}
	if gone == c {
		return f, nil
	}
	return f, c
}

// Whoever comes beyond a source's limit takes the place of that source's oldest, and nobody else's.
func TestAttackFromOneSource(t *testing.T) {
	r := newRig(Limits{Total: 16, PerSource: 4})
	other, kept := r.come("10.0.0.9")
	if kept == nil {
		t.Fatal("the first isn't taken")
	}
	var flood []*fake
	for i := range 100 {
		f, c := r.come("10.0.0.1")
		if c == nil {
			t.Fatalf("number %d isn't taken, though older ones do nothing", i)
		}
		flood = append(flood, f)
	}
	open := 0
	for _, f := range flood {
		if !f.closed.Load() {
			open++
		}
	}
	if open != 4 || other.closed.Load() || r.Count() != 5 || r.closed != 96 {
		t.Errorf("%d of the flood are open, want 4; another source's is closed: %v; %d have a place, %d were closed", open, other.closed.Load(), r.Count(), r.closed)
	}
}

// Sources of this machine are one, and so are addresses of one network of IPv6.
func TestAttackFromManyAddressesOfOneSource(t *testing.T) {
	for _, addresses := range []string{"127.0.0.%d", "2001:db8::%d"} {
		r := newRig(Limits{Total: 16, PerSource: 4})
		for i := range 30 {
			r.come(fmt.Sprintf(addresses, i+1))
		}
		if r.Count() != 4 {
			t.Errorf("%s: %d have a place, want 4", addresses, r.Count())
		}
	}
}

// Remote sources, be they as many as connections and all of them busy, leave places to this machine; and where somebody does nothing,
// anybody gets in.
func TestAttackFromManySources(t *testing.T) {
	r := newRig(Limits{Total: 16, PerSource: 8})
	come := func(i int) (*fake, *Conn) { return r.come(fmt.Sprintf("10.0.%d.%d", i/250, 1+i%250)) }
	for i := range 1000 {
		if _, c := come(i); c == nil {
			t.Fatal("somebody isn't taken, though others do nothing")
		}
	}
	if r.Count() != 14 {
		t.Fatalf("%d have a place, want 14", r.Count())
	}
	for _, c := range r.open {
		c.mark(time.Now(), false)
	}
	if f, c := come(1000); c != nil || !f.closed.Load() {
		t.Error("there is a place though all are busy")
	}
	if _, c := r.come("127.0.0.1"); c == nil {
		t.Error("an operator on this machine isn't let in")
	}
	for _, c := range r.open {
		c.mark(time.Now().Add(-busyTime), false)
	}
	if _, c := come(1001); c == nil {
		t.Error("who is slow keeps the others out")
	}
}

// Who has shown credentials keeps the place.
func TestAttackOnWhoIsKnown(t *testing.T) {
	r := newRig(Limits{Total: 8, PerSource: 4})
	operator, c := r.come("10.0.0.1")
	c.mark(time.Time{}, true)
	for i := range 50 {
		r.come("10.0.0.1")
		r.come(fmt.Sprintf("10.0.1.%d", i+1))
	}
	if operator.closed.Load() {
		t.Error("it was closed")
	}
}

func TestPlacesAreGivenBack(t *testing.T) {
	r := newRig(Limits{Total: 4, PerSource: 4})
	for range 20 {
		_, c := r.come("10.0.0.1")
		if c == nil {
			t.Fatal("no place")
		}
		_ = c.Close()
		_ = c.Close()
	}
	if r.Count() != 0 || r.closed != 0 {
		t.Errorf("%d have a place, %d were closed", r.Count(), r.closed)
	}
}

// A request that is being answered isn't closed while idle ones are there, and a server that speaks HTTP answers in a flood.
func TestAttackOnHTTP(t *testing.T) {
	inner, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	l := New(inner, Limits{Total: 8, PerSource: 8}, nil)
	entered, release := make(chan struct{}), make(chan struct{})
	server := &http.Server{ConnContext: Context, ReadHeaderTimeout: time.Minute, Handler: Serving(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/slow" {
			close(entered)
			<-release
		}
		_, _ = io.WriteString(w, "answered")
	}))}
	served := make(chan error, 1)
	go func() { served <- server.Serve(l) }()
	t.Cleanup(func() {
		_ = server.Close()
		<-served
	})
	dial := func() net.Conn {
		t.Helper()
		conn, err := net.Dial("tcp", inner.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = conn.Close() })
		_ = conn.SetDeadline(time.Now().Add(time.Minute))
		return conn
	}
	ask := func(conn net.Conn, path string) {
		t.Helper()
		if _, err := fmt.Fprintf(conn, "GET %s HTTP/1.1\r\nHost: x\r\n\r\n", path); err != nil {
			t.Fatal(err)
		}
	}
	answered := func(conn net.Conn) error {
		answer, err := http.ReadResponse(bufio.NewReader(conn), nil)
		if err == nil {
			_ = answer.Body.Close()
		}
		return err
	}
	slow := dial()
	ask(slow, "/slow")
	<-entered
	for range 200 {
		_, _ = io.WriteString(dial(), "GET")
	}
	quick := dial()
	ask(quick, "/")
	if err := answered(quick); err != nil {
		t.Errorf("no answer in a flood: %v", err)
	}
	close(release)
	if err := answered(slow); err != nil {
		t.Errorf("the answer under way: %v", err)
	}
	if n := l.Count(); n > 8 {
		t.Errorf("%d have a place", n)
	}
}
