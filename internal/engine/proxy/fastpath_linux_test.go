//go:build linux && !portable

package proxy

import (
	"io"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/pgporter/pgporter/internal/monitor/view"
)

// fastClients counts the clients on the fast path, and all.
func fastClients(e *Engine, service string) (fast, clients int) {
	e.mu.Lock()
	d := e.dispatchers[service]
	e.mu.Unlock()
	d.fast.mu.Lock()
	defer d.fast.mu.Unlock()
	return len(d.fast.connectors), d.slots.count()
}

// TestFastPathLeavesWhatIsNotPlain has clients speak in ways that the fast path doesn't wait for. They reach a server all the same, and nothing
// is lost of what they said.
func TestFastPathLeavesWhatIsNotPlain(t *testing.T) {
	a := startBackend(t, "a", "127.0.42.1")
	long := packet(3<<16, "user\x00u\x00application_name\x00"+strings.Repeat("x", 3000)+"\x00\x00")
	for _, test := range []struct {
		name string
		cfg  Config
		// said comes at once, late when the client has been left to a goroutine.
		said, late []byte
	}{
		{"late", longHold, nil, startup},
		{"in two pieces", longHold, startup[:7], startup[7:]},
		{"in two pieces, without a hold", Config{}, startup[:7], startup[7:]},
		{"a long packet", longHold, long, nil},
		{"a long packet in two pieces", longHold, long[:1000], long[1000:]},
	} {
		t.Run(test.name, func(t *testing.T) {
			def := definition(t, "primary", "127.0.48.5")
			r := run(t, test.cfg, Endpoint{"pg-test", def, view.NewBoard(viewOf(serviceOf(def, up(a)))), 0})
			conn := dialSilent(t, addressOf(def))
			_, err := conn.Write(test.said)
			must(t, err)
			if test.late != nil {
				eventually(t, "the client is left to a goroutine", func() bool {
					fast, clients := fastClients(r.Engine, def.FullName)
					return fast == 0 && clients == 1
				})
				_, err = conn.Write(test.late)
				must(t, err)
			}
			if name, err := greeting(conn); name != "a" || err != nil {
				t.Fatalf("reached %q, %v", name, err)
			}
			echoes(t, conn)
			must(t, conn.CloseWrite())
			over(t, conn)
			eventually(t, "the session is over", func() bool { return r.service(t, def.FullName).Clients == 0 })
			// What the client said and the four bytes of its ping.
			want := int64(len(test.said) + len(test.late) + 4)
			if got := r.service(t, def.FullName).ToServer; got != want {
				t.Errorf("%d bytes went to the server, want %d", got, want)
			}
		})
	}
}

// A client whose encryption request was declined by a server that is lost while the client thinks is connected with another one, which
// hears of neither.
func TestServerLostWhileItsClientThinks(t *testing.T) {
	gone := make(chan struct{})
	a := startScript(t, "a", "127.0.42.1", func(conn net.Conn) {
		play(t, conn, []step{{sslAsked, []byte("N")}}, true)
		close(gone)
	})
	b := startBackend(t, "b", "127.0.42.2")
	def := definition(t, "primary", "127.0.48.6")
	board := view.NewBoard(viewOf(serviceOf(def, up(a))))
	r := run(t, longHold, Endpoint{"pg-test", def, board, 0})
	conn := dialSilent(t, addressOf(def))
	_, err := conn.Write(sslAsked)
	must(t, err)
	if _, err := io.ReadFull(conn, make([]byte, 1)); err != nil {
		t.Fatal(err)
	}
	if fast, _ := fastClients(r.Engine, def.FullName); fast != 1 {
		t.Fatalf("%d ushers", fast)
	}
	lost := up(a)
	lost.down, lost.epoch = true, 1
	board.Publish(viewOf(serviceOf(def, lost, up(b))))
	_, err = conn.Write(startup)
	must(t, err)
	if name, err := greeting(conn); name != "b" || err != nil {
		t.Fatalf("reached %q, %v", name, err)
	}
	echoes(t, conn)
	select {
	case <-gone:
	case <-time.After(patience):
		t.Error("the lost server keeps its connection")
	}
}

// Clients that are on their way don't keep a service that is gone.
func TestServiceThatGoesEndsItsFastPath(t *testing.T) {
	a := startScript(t, "a", "127.0.42.1", func(conn net.Conn) { _, _ = io.Copy(io.Discard, conn) })
	def := definition(t, "primary", "127.0.48.7")
	r := run(t, longHold, Endpoint{"pg-test", def, view.NewBoard(viewOf(serviceOf(def, up(a)))), 0})
	r.mu.Lock()
	d := r.dispatchers[def.FullName]
	r.mu.Unlock()
	waiting := dial(t, addressOf(def))
	eventually(t, "the server has the client", func() bool { return a.open() == 1 })
	r.commit(t)
	answer, err := io.ReadAll(waiting)
	if err != nil || !strings.Contains(string(answer), "57P03") {
		t.Errorf("the client got %q, %v", answer, err)
	}
	must(t, waiting.Close())
	eventually(t, "nobody is left", func() bool {
		d.fast.mu.Lock()
		defer d.fast.mu.Unlock()
		d.sessions.mu.Lock()
		defer d.sessions.mu.Unlock()
		return d.slots.count() == 0 && len(d.fast.connectors) == 0 && len(d.sessions.open) == 0 && a.open() == 0
	})
}

// A client of the fast path that nothing happens to is looked at again and again, and the client's leaving is noticed.
func TestClientThatLeavesASilentServer(t *testing.T) {
	a := startScript(t, "a", "127.0.42.1", func(conn net.Conn) { _, _ = io.Copy(io.Discard, conn) })
	def := definition(t, "primary", "127.0.48.8")
	r := run(t, longHold, Endpoint{"pg-test", def, view.NewBoard(viewOf(serviceOf(def, up(a)))), 0})
	conn := dial(t, addressOf(def))
	eventually(t, "the server has the client", func() bool { return a.open() == 1 })
	if fast, _ := fastClients(r.Engine, def.FullName); fast != 1 {
		t.Fatalf("%d ushers", fast)
	}
	must(t, conn.Close())
	eventually(t, "nobody is left", func() bool {
		_, clients := fastClients(r.Engine, def.FullName)
		return clients == 0 && a.open() == 0
	})
	if s := r.service(t, def.FullName); s.Servers[0].ConnectFailures != 0 || s.Refused != 0 {
		t.Errorf("the server or the client is blamed: %+v", s)
	}
}
