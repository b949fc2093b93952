package proxy

import (
	"net"
	"testing"
	"time"

	"github.com/pgporter/pgporter/internal/monitor/view"
)

// connectAndLeave is a client that says at once what it wants, which goes through without a goroutine of the proxy's.
func connectAndLeave(b *testing.B, address string) {
	conn, err := net.Dial("tcp", address)
	if err != nil {
		b.Error(err)
		return
	}
	_ = conn.(*net.TCPConn).SetLinger(0)
	_, _ = conn.Write(startup)
	if _, err := greeting(conn); err != nil {
		b.Error(err)
	}
	_ = conn.Close()
}

// BenchmarkConnect is a client that connects, is taken up, and leaves, one after the other.
func BenchmarkConnect(b *testing.B) {
	a := startBackend(b, "a", "127.0.42.1")
	def := definition(b, "primary", "127.0.50.1")
	through := func(address string) func(b *testing.B) {
		return func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				connectAndLeave(b, address)
			}
		}
	}
	b.Run("itself", through(a.Addr().String()))
	for name, hold := range map[string]time.Duration{"without hold": 0, "with hold": time.Minute} {
		b.Run(name, func(b *testing.B) {
			run(b, Config{Hold: hold}, Endpoint{"pg-test", def, view.NewBoard(viewOf(serviceOf(def, up(a)))), 0})
			through(addressOf(def))(b)
		})
	}
}

// BenchmarkConnectMany is many such clients at once: what loops have to wait for from each other counts. Its allocations are those of
// the clients and the server, too, which don't vary.
func BenchmarkConnectMany(b *testing.B) {
	a := startBackend(b, "a", "127.0.42.1")
	def := definition(b, "primary", "127.0.50.2")
	run(b, Config{Hold: time.Minute}, Endpoint{"pg-test", def, view.NewBoard(viewOf(serviceOf(def, up(a)))), 0})
	b.ReportAllocs()
	b.SetParallelism(16)
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			connectAndLeave(b, addressOf(def))
		}
	})
}
