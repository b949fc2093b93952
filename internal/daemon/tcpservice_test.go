package daemon

import (
	"bufio"
	"encoding/pem"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/pgporter/pgporter/internal/admin/api"
	"github.com/pgporter/pgporter/internal/config/model"
)

// banner is a server that says its name first and then echoes.
func banner(t *testing.T, host, name string) (port int) {
	t.Helper()
	l := listen(t, host)
	var mu sync.Mutex
	open := map[net.Conn]bool{}
	var serving sync.WaitGroup
	serving.Go(func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			mu.Lock()
			open[conn] = true
			mu.Unlock()
			serving.Go(func() {
				defer conn.Close()
				fmt.Fprintf(conn, "220 %s\n", name)
				io.Copy(conn, conn)
			})
		}
	})
	t.Cleanup(func() {
		l.Close()
		mu.Lock()
		for conn := range open {
			conn.Close()
		}
		mu.Unlock()
		serving.Wait()
	})
	return l.Addr().(*net.TCPAddr).Port
}

// greeted waits for what the server says first.
func greeted(t *testing.T, conn net.Conn) string {
	t.Helper()
	if err := conn.SetDeadline(time.Now().Add(patience)); err != nil {
		t.Fatal(err)
	}
	line, err := bufio.NewReaderSize(conn, 16).ReadString('\n')
	if err != nil {
		t.Fatal(err)
	}
	return strings.TrimSpace(line)
}

// rest is how many bytes come until a connection ends.
func rest(conn net.Conn) (int64, error) {
	if err := conn.SetDeadline(time.Now().Add(patience)); err != nil {
		return 0, err
	}
	return io.Copy(io.Discard, conn)
}

// tcpOf finds a TCP service in a status.
func tcpOf(s *api.Status, name string) api.Service {
	for _, g := range s.TCPServices {
		if g.Name == name {
			return g
		}
	}
	return api.Service{}
}

// TestTCPServicesNatively has the native engine carry haproxy_services: a server that speaks first, checks over HTTPS that
// decide, backups, a reload that changes one, removes one and brings one, and one that is refused.
func TestTCPServicesNatively(t *testing.T) {
	f := newFixture(t, address(91))
	var healthy atomic.Bool
	healthy.Store(true)
	web := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method != http.MethodOptions || r.URL.Path != "/live" || !healthy.Load() {
			w.WriteHeader(http.StatusServiceUnavailable)
		}
	}))
	web.Listener.Close()
	web.Listener = listen(t, f.host)
	web.StartTLS()
	t.Cleanup(web.Close)
	ca := filepath.Join(t.TempDir(), "ca.crt")
	if err := os.WriteFile(ca, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: web.Certificate().Raw}), 0o600); err != nil {
		t.Fatal(err)
	}
	checked := fmt.Sprintf("check-ssl ca-file %s check port %d inter 3s fastinter 200ms downinter 200ms rise 1 fall 2", ca, web.Listener.Addr().(*net.TCPAddr).Port)
	one, two, three := banner(t, f.host, "one"), banner(t, f.host, "two"), banner(t, f.host, "three")
	// inventory has the services mail and plain, with these lines for mail, and what else is in the list.
	inventory := func(lines, plain string) string {
		return f.inventory("primary:5433") + fmt.Sprintf(`    haproxy_services:
      - name: mail
        port: 2525
        options: [ option httpchk, option http-keep-alive, http-check send meth OPTIONS uri /live, http-check expect status 200%s ]
        servers:
          - { name: one, ip: %s, port: %d, options: '%s' }
          - { name: two, ip: %s, port: %d, backup: true, weight: 5 }
          - { name: three, ip: %s, port: %d, backup: true, weight: 5 }
%s`, lines, f.host, one, checked, f.host, two, f.host, three, plain)
	}
	plain := fmt.Sprintf("      - { name: plain, port: 2526, servers: [ { name: two, ip: %s, port: %d } ] }\n", f.host, two)
	r := start(t, f, address(92), inventory("", plain), false, func(cfg *Config) { cfg.Hold = 5 * time.Second })

	session := r.dial("2526")
	if got := greeted(t, session); got != "220 two" {
		t.Errorf("plain greets with %q", got)
	}
	mail := r.dial("2525")
	if got := greeted(t, mail); got != "220 one" {
		t.Errorf("mail greets with %q", got)
	}
	echo(t, mail, "hello\n")
	echo(t, r.dial("5433"), "and PostgreSQL\n")
	s := r.status()
	if g := tcpOf(s, "mail"); !g.Up || g.Check != "OPTIONS /live" || g.Sessions != 1 || g.Listen != r.bind+":2525" || !g.Servers[0].Serving || g.Servers[0].Reason != "200" ||
		!g.Servers[1].Backup || g.Servers[1].Serving || g.Servers[1].Reason != "it is not checked" {
		t.Errorf("the status of mail is %+v", g)
	}

	// The default options end sessions of a server that goes down; the first backup takes all.
	healthy.Store(false)
	r.until("connected to the backup", func(s *api.Status) bool {
		g := tcpOf(s, "mail")
		return !g.Servers[0].Up && g.Servers[1].Serving && !g.Servers[2].Serving
	})
	if n, err := rest(mail); n != 0 || err != nil && !strings.Contains(err.Error(), "reset") {
		t.Errorf("the old session: %d bytes, %v", n, err)
	}
	for range 3 {
		if got := greeted(t, r.dial("2525")); got != "220 two" {
			t.Errorf("mail greets with %q", got)
		}
	}

	// A reload: mail has all backups now, plain is gone, and one more comes.
	more := fmt.Sprintf("      - { name: more, port: 2527, servers: [ { name: three, ip: %s, port: %d } ] }\n", f.host, three)
	r.write(inventory(", option allbackups", more))
	r.reload <- syscall.SIGHUP
	r.until("taken", func(s *api.Status) bool { return s.Config.Generation == 2 })
	came := map[string]int{}
	for range 4 {
		came[greeted(t, r.dial("2525"))]++
	}
	if came["220 two"] != 2 || came["220 three"] != 2 {
		t.Errorf("all backups: came to %v", came)
	}
	if got := greeted(t, r.dial("2527")); got != "220 three" {
		t.Errorf("more greets with %q", got)
	}
	if conn, err := net.Dial("tcp", r.bind+":2526"); err == nil {
		conn.Close()
		t.Error("the service that is gone still listens")
	}
	if n, err := rest(session); n != 0 || err != nil && !strings.Contains(err.Error(), "reset") {
		t.Errorf("a session of the service that is gone: %d bytes, %v", n, err)
	}
	healthy.Store(true)
	r.until("connected to the regular server", func(s *api.Status) bool {
		g := tcpOf(s, "mail")
		return g.Servers[0].Serving && !g.Servers[1].Serving
	})

	// What can't be carried is refused, and what runs goes on.
	for lines, want := range map[string]string{
		", option mysql-check":               "option mysql-check isn't supported by the native engine",
		", http-check expect rstring ^O(":    "missing closing )",
		", option forwardfor, retries never": "retries is \"never\"",
	} {
		r.write(inventory(lines, more))
		r.reload <- syscall.SIGHUP
		r.until("refused", func(s *api.Status) bool { return strings.Contains(s.Config.Refused, want) })
	}
	r.write(strings.Replace(inventory("", more), ca, ca+".gone", 1))
	r.reload <- syscall.SIGHUP
	r.until("refused", func(s *api.Status) bool {
		return strings.Contains(s.Config.Refused, "service mail: server one: ") && strings.Contains(s.Config.Refused, ca+".gone: no such file")
	})
	if got := greeted(t, r.dial("2525")); got != "220 one" {
		t.Errorf("after refusals mail greets with %q", got)
	}
}

// TestHarmlessTCPServices: an edit that nobody asked to take may not remove a service, or leave one without servers.
func TestHarmlessTCPServices(t *testing.T) {
	one := model.TCPService{Name: "a", Servers: []model.TCPServer{{Name: "s"}}}
	other := one
	other.Port, other.Servers = 99, []model.TCPServer{{Name: "t"}}
	for _, test := range []struct {
		next []model.TCPService
		want string
	}{
		{[]model.TCPService{other, {Name: "b"}}, ""},
		{nil, "service a would be removed"},
		{[]model.TCPService{{Name: "a"}}, "service a would be left without servers"},
	} {
		err := harmless(model.Plan{TCPServices: []model.TCPService{one}}, model.Plan{TCPServices: test.next})
		if got := fmt.Sprint(err); test.want == "" && err != nil || test.want != "" && !strings.HasPrefix(got, test.want+"\n") {
			t.Errorf("%+v: %s, want %q", test.next, got, test.want)
		}
	}
}
