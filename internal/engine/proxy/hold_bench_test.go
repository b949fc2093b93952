//go:build linux

package proxy

import (
	"io"
	"net"
	"os"
	"runtime"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/pgporter/pgporter/internal/monitor/view"
)

// BenchmarkHeld has 5,000 clients wait for the end of a hold, and measures what memory each of them takes meanwhile and how long it takes
// until each has written something and was answered. The server answers at once, or only after a time, as a slow one does. The clients are
// bare descriptors, which take none of this process's memory themselves.
func BenchmarkHeld(b *testing.B) {
	for name, slow := range map[string]time.Duration{"server that answers at once": 0, "server that takes 2 s": 2 * time.Second} {
		b.Run(name, func(b *testing.B) {
			for b.Loop() {
				benchmarkHeld(b, 5000, slow)
			}
		})
	}
}

func benchmarkHeld(b *testing.B, clients int, slow time.Duration) {
	a := startScript(b, "a", "127.0.42.1", func(conn net.Conn) {
		if _, err := readPacket(conn); err != nil {
			return
		}
		time.Sleep(slow)
		_, _ = io.WriteString(conn, "a")
		// One is done, and gives its descriptors back, once it was answered.
		_, _ = io.CopyN(conn, conn, 1)
	})
	def := definition(b, "primary", "127.0.50.3")
	def.MaxConn = clients
	svc := serviceOf(def, up(a))
	svc.Leads = true
	board := view.NewBoard(viewOf(svc))
	r := run(b, Config{Hold: 5 * time.Second}, Endpoint{"pg-test", def, board, time.Minute})
	now := time.Now()
	board.Hold(view.Hold{ID: "one", Since: now, Until: now.Add(time.Hour)}, now)
	before := memory()
	at := &syscall.SockaddrInet4{Port: def.Port, Addr: [4]byte(net.ParseIP(def.IP).To4())}
	waiting := make([]int, clients)
	for i := range waiting {
		fd, err := syscall.Socket(syscall.AF_INET, syscall.SOCK_STREAM|syscall.SOCK_CLOEXEC, 0)
		must(b, err)
		must(b, syscall.Connect(fd, at))
		_, err = syscall.Write(fd, startup)
		must(b, err)
		waiting[i] = fd
	}
	eventually(b, "all wait", func() bool { return r.service(b, def.FullName).Queued == clients })
	b.ReportMetric(float64(memory()-before)/float64(clients), "B/client")
	b.ReportMetric(float64(runtime.NumGoroutine()), "goroutines")
	var done sync.WaitGroup
	began := time.Now()
	board.Release("one", began)
	for i, fd := range waiting {
		must(b, syscall.SetNonblock(fd, true))
		conn := os.NewFile(uintptr(fd), "client")
		done.Go(func() {
			defer conn.Close()
			one := make([]byte, 1)
			for _, step := range []func([]byte) (int, error){conn.Read, conn.Write, conn.Read} {
				if _, err := step(one); err != nil {
					b.Errorf("client %d: %v", i, err)
					return
				}
			}
		})
	}
	done.Wait()
	b.ReportMetric(time.Since(began).Seconds(), "s/all")
	if s := r.service(b, def.FullName); s.Refused != 0 {
		b.Errorf("%d were refused", s.Refused)
	}
	r.stop()
}

// memory is what the process has in use, on heap and stacks.
func memory() int64 {
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int64(m.HeapAlloc + m.StackInuse)
}
