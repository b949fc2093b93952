package proxy

import (
	"io"
	"net"
	"testing"
	"time"

	"github.com/pgporter/pgporter/internal/monitor/view"
)

// A client that leaves while its server thinks is found although nobody reads what it has sent, startup packet and more: it
// must not keep the server's connection, nor its place under maxconn.
func TestClientThatLeavesBehindUnreadBytesIsFound(t *testing.T) {
	for _, test := range []struct {
		name  string
		leave func(conn *net.TCPConn)
	}{
		{"closes", func(conn *net.TCPConn) { _ = conn.Close() }},
		{"resets", func(conn *net.TCPConn) { _ = conn.SetLinger(0); _ = conn.Close() }},
		{"ends its stream", func(conn *net.TCPConn) { _ = conn.CloseWrite() }},
	} {
		t.Run(test.name, func(t *testing.T) {
			thinks := startScript(t, "a", "127.0.42.1", func(conn net.Conn) { _, _ = io.Copy(io.Discard, conn) })
			def := definition(t, "primary", "127.0.63.12")
			def.Options = options(t, "maxconn 1")
			r := run(t, longHold, Endpoint{"pg-test", def, view.NewBoard(viewOf(serviceOf(def, up(thinks)))), lately})
			conn := dial(t, addressOf(def))
			_, err := conn.Write(make([]byte, 3000))
			must(t, err)
			eventually(t, "the server has the client", func() bool { return thinks.open() == 1 })
			began := time.Now()
			test.leave(conn)
			eventually(t, "nothing is left of it", func() bool { return thinks.open() == 0 && r.service(t, def.FullName).Clients == 0 })
			if took := time.Since(began); took > patience/2 {
				t.Errorf("that took %s", took)
			}
		})
	}
}
