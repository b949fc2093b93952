package daemon

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/pgporter/pgporter/internal/admin/api"
	"github.com/pgporter/pgporter/internal/engine/haproxy"
)

// TestHAProxyAsTheEngine is the wiring with a real HAProxy: start, status, reload, refusal, stop.
func TestHAProxyAsTheEngine(t *testing.T) {
	f := newFixture(t, "127.0.63.41")
	const bind = "127.0.63.42"
	dir, err := os.MkdirTemp("", "ha-") // t.TempDir is too long for sockets
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	r := &running{t: t, path: filepath.Join(t.TempDir(), "pigsty.yml"), bind: bind, reload: make(chan os.Signal, 1), ended: make(chan error, 1)}
	tcp := func(text, name string) string {
		return text + fmt.Sprintf("    haproxy_services: [ { name: %s, port: 5450, options: [], servers: [ { name: one, ip: %s, port: %d, options: check } ] } ]\n", name, f.host, f.echoPort)
	}
	r.write(tcp(f.inventory("primary:5433"), "echo"))
	free := listen(t, bind)
	r.admin = free.Addr().String()
	free.Close()
	var ctx context.Context
	ctx, r.stop = context.WithCancel(context.Background())
	ready := make(chan struct{})
	logger := slog.New(slog.NewTextHandler(&r.log, nil))
	go func() {
		r.ended <- Run(ctx, Config{
			Version: "test", Source: &InventoryFile{Path: r.path, Node: f.host, HAProxy: true, Logger: logger}, Bind: bind, Admin: r.admin,
			HAProxy: &haproxy.Config{Dir: dir}, StopTimeout: 5 * time.Second, Reload: r.reload, Logger: logger, Ready: func() { close(ready) },
		})
	}()
	select {
	case <-ready:
	case err := <-r.ended:
		t.Fatalf("it didn't start: %v\n%s", err, &r.log)
	}
	stopped := false
	t.Cleanup(func() {
		if r.stop(); !stopped {
			<-r.ended
		}
	})

	session := r.dial("5433")
	echo(t, session, "before\n")
	r.until("shows the session", func(s *api.Status) bool {
		svc := s.Clusters[0].Services[0]
		return svc.Up && svc.Sessions == 1 && svc.Total == 1 && svc.Listen == bind+":5433" && svc.Servers[0].Sessions == 1
	})
	r.until("shows the TCP service, which HAProxy has checked", func(s *api.Status) bool {
		return len(s.TCPServices) == 1 && s.TCPServices[0].Up && s.TCPServices[0].Servers[0].Serving
	})
	echo(t, r.dial("5450"), "generic\n")

	r.write(tcp(f.inventory("primary:5433", "more:5440"), "echo"))
	r.reload <- syscall.SIGHUP
	r.until("taken", func(s *api.Status) bool { return s.Config.Generation == 2 && len(s.Clusters[0].Services) == 2 })
	echo(t, r.dial("5440"), "new service\n")
	echo(t, session, "after a reload\n")

	r.write(strings.Replace(tcp(f.inventory("primary:5433"), "echo"), "options: []", "options: [no-such-word]", 1))
	r.reload <- syscall.SIGHUP
	r.until("refused", func(s *api.Status) bool { return strings.Contains(s.Config.Refused, "no-such-word") })
	echo(t, r.dial("5440"), "still there\n")

	r.stop()
	for conn, err := net.Dial("tcp", bind+":5433"); err == nil; conn, err = net.Dial("tcp", bind+":5433") {
		conn.Close()
	}
	echo(t, session, "while it stops\n")
	session.Close()
	stopped = true
	if err := <-r.ended; err != nil {
		t.Errorf("the stop: %v", err)
	}
}
