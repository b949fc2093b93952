package proxy

import (
	"net"
	"testing"
	"time"

	"github.com/pgporter/pgporter/internal/monitor/view"
)

// BenchmarkConnect is a client that connects, is taken up, and leaves, one after the other.
func BenchmarkConnect(b *testing.B) {
	a := startBackend(b, "a", "127.0.42.1")
	def := definition(b, "primary", "127.0.50.1")
	through := func(address string) func(b *testing.B) {
		return func(b *testing.B) {
			for b.Loop() {
				conn, err := net.Dial("tcp", address)
				must(b, err)
				_ = conn.(*net.TCPConn).SetLinger(0)
				_, _ = conn.Write(startup)
				if _, err := greeting(conn); err != nil {
					b.Fatal(err)
				}
				_ = conn.Close()
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
