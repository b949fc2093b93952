package proxy

import (
	"net"
	"sync/atomic"
	"testing"
	"time"

	"github.com/pgporter/pgporter/internal/engine/handover"
	"github.com/pgporter/pgporter/internal/monitor/view"
)

// copyOf is a second descriptor of a listening socket.
func copyOf(t *testing.T, l *net.TCPListener) *net.TCPListener {
	t.Helper()
	fd, err := handover.Duplicate(l)
	must(t, err)
	again, err := handover.Listener(fd)
	must(t, err)
	return again
}

// A service that is closed leaves its address to another program. It is opened by that program's own socket and closed again, and its
// sessions go on under watch.
func TestClosed(t *testing.T) {
	a := startBackend(t, "a", "127.0.42.1")
	def := definition(t, "primary", "127.0.43.30")
	board := view.NewBoard(viewOf(serviceOf(def, up(a))))
	listening, err := net.Listen("tcp", addressOf(def))
	must(t, err)
	theirs := listening.(*net.TCPListener)
	defer theirs.Close()
	var open atomic.Bool
	endpoint := Endpoint{"pg-test", def, board, 0}
	r := run(t, Config{Closed: func(service string) bool { return service == def.FullName && !open.Load() }}, endpoint)
	if s := r.service(t, def.FullName); !s.Closed || s.Address != addressOf(def) || len(s.Servers) != 1 {
		t.Errorf("closed: %+v", s)
	}
	if n := len(r.Sockets()); n != 0 {
		t.Errorf("%d sockets", n)
	}

	// Somebody waits in the queue that is taken over.
	early := dial(t, addressOf(def))
	open.Store(true)
	r.Adopt(map[string]*net.TCPListener{addressOf(def): copyOf(t, theirs)})
	r.commit(t, endpoint)
	if name, err := greeting(early); err != nil || name != "a" {
		t.Errorf("who waited: %q, %v", name, err)
	}
	session, _ := reach(t, addressOf(def))
	if s := r.service(t, def.FullName); s.Closed || s.Sessions != 2 {
		t.Errorf("open: %+v", s)
	}

	// Back: whoever comes now is the other program's, whoever has a session keeps it.
	open.Store(false)
	r.commit(t, endpoint)
	late := dial(t, addressOf(def))
	must(t, theirs.SetDeadline(time.Now().Add(patience)))
	conn, err := theirs.Accept()
	must(t, err)
	if conn.RemoteAddr().String() != late.LocalAddr().String() {
		t.Errorf("%s got through to the other program", conn.RemoteAddr())
	}
	must(t, conn.Close())
	echoes(t, session)
	if s := r.service(t, def.FullName); !s.Closed || s.Sessions != 2 {
		t.Errorf("closed again: %+v", s)
	}
	board.Publish(viewOf(serviceOf(def)))
	over(t, session)
}

// A socket that nobody has use for is closed, and a Change that fails closes the one that it had.
func TestForget(t *testing.T) {
	listening, err := net.Listen("tcp", "127.0.43.31:0")
	must(t, err)
	theirs := listening.(*net.TCPListener)
	e := New(Config{})
	for range 2 {
		e.Adopt(map[string]*net.TCPListener{theirs.Addr().String(): copyOf(t, theirs)})
	}
	must(t, theirs.Close())
	conn, err := net.Dial("tcp", theirs.Addr().String())
	if err != nil {
		t.Fatalf("the copy is closed already: %v", err)
	}
	must(t, conn.Close())
	e.Forget()
	if _, err := net.Dial("tcp", theirs.Addr().String()); err == nil {
		t.Error("the copy still listens")
	}
}
