package proxy

import (
	"io"
	"net"
	"net/netip"
	"testing"
	"time"

	"github.com/pgporter/pgporter/internal/config/model"
	"github.com/pgporter/pgporter/internal/engine"
	"github.com/pgporter/pgporter/internal/monitor/view"
)

// dialFrom connects a client that comes from an address of this machine's; nil if it was reset before that was done.
func dialFrom(t testing.TB, from, to string) net.Conn {
	t.Helper()
	dialer := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP(from)}, Timeout: patience}
	conn, err := dialer.Dial("tcp", to)
	if err != nil && isReset(err) {
		return nil
	}
	must(t, err)
	t.Cleanup(func() { _ = conn.Close() })
	must(t, conn.SetDeadline(time.Now().Add(patience)))
	return conn
}

// kept tells whether a client gets to a server; if not, it is closed without a word.
func kept(t testing.TB, from, to string) bool {
	t.Helper()
	conn := dialFrom(t, from, to)
	if conn == nil {
		return false
	}
	_, _ = conn.Write(startup)
	name, err := greeting(conn)
	if err != nil && (name != "" || err != io.EOF && !isReset(err)) {
		t.Errorf("%s read %q, %v", from, name, err)
	}
	return err == nil
}

func TestClientsFromElsewhereAreClosedUnheard(t *testing.T) {
	a := startBackend(t, "a", "127.0.42.1")
	def := definition(t, "primary", "127.0.43.80")
	def.MaxConn = 1
	def.Allow = model.Networks{netip.MustParsePrefix("127.0.44.0/24"), netip.MustParsePrefix("127.0.45.7/32")}
	board := view.NewBoard(viewOf(serviceOf(def, up(a))))
	r := run(t, Config{}, Endpoint{"pg-test", def, board, 0})
	first := dialFrom(t, "127.0.44.1", addressOf(def))
	_, err := first.Write(startup)
	must(t, err)
	_, err = greeting(first)
	must(t, err)
	// The slot is taken: who isn't allowed is closed all the same, whether it says something or not.
	for _, from := range []string{"127.0.45.8", "127.0.46.1"} {
		if kept(t, from, addressOf(def)) {
			t.Errorf("%s may come", from)
		}
		if silent := dialFrom(t, from, addressOf(def)); silent != nil {
			over(t, silent)
		}
	}
	got := r.service(t, def.FullName)
	if got.Denied != 4 || got.Accepted != 5 || got.Clients != 1 || got.ClientsMax != 1 || got.Refused != 0 {
		t.Errorf("counted %+v", got)
	}
	must(t, first.Close())
	if !kept(t, "127.0.45.7", addressOf(def)) {
		t.Error("an address that is allowed may not come")
	}
	eventually(t, "it is logged", func() bool { return r.log.count("the service isn't for its address (allow)") > 0 })
	if n := r.log.count("the service isn't for its address"); n > 2 {
		t.Errorf("%d lines within a moment", n)
	}
}

func TestNarrowedListLeavesSessionsAlone(t *testing.T) {
	a := startBackend(t, "a", "127.0.42.1")
	def := definition(t, "primary", "127.0.43.81")
	board := view.NewBoard(viewOf(serviceOf(def, up(a))))
	r := run(t, Config{}, Endpoint{"pg-test", def, board, 0})
	conn, _ := reach(t, addressOf(def))
	def.Allow = model.Networks{netip.MustParsePrefix("10.0.0.0/8")}
	r.commit(t, Endpoint{"pg-test", def, board, 0})
	if kept(t, "127.0.0.1", addressOf(def)) {
		t.Error("who comes afterwards may come")
	}
	echoes(t, conn)
	r.countedUntil(t, def, "one was denied", func(s engine.Traffic) bool { return s.Denied == 1 && s.Sessions == 1 })
	def.Allow = append(def.Allow, netip.MustParsePrefix("127.0.0.1/32"))
	r.commit(t, Endpoint{"pg-test", def, board, 0})
	if !kept(t, "127.0.0.1", addressOf(def)) {
		t.Error("an address that was added may not come")
	}
}
