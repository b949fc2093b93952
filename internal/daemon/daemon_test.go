package daemon

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/pgporter/pgporter/internal/admin/api"
)

// address is a loopback address of this test process's own, so that two runs on one machine don't meet.
func address(last int) string {
	pid := os.Getpid()
	return fmt.Sprintf("127.%d.%d.%d", 64+pid>>8%128, pid%256, last)
}

// fixture is a member that is always the primary: a fake Patroni, since what is tested is the wiring, and a server that
// echoes lines instead of a PostgreSQL.
type fixture struct {
	host                  string
	patroniPort, echoPort int
}

func newFixture(t *testing.T, host string) fixture {
	t.Helper()
	return newMember(t, host, func() (int, string) { return 200, "master" })
}

// newMember is newFixture for a member that answers as says does: with a status and a role.
func newMember(t *testing.T, host string, says func() (int, string)) fixture {
	t.Helper()
	patroni := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		status, role := says()
		w.WriteHeader(status)
		fmt.Fprintf(w, `{"state": "running", "role": "%s", "timeline": 1, "patroni": {"version": "3.0.2", "scope": "pg-test"}}`, role)
	}))
	patroni.Listener.Close()
	patroni.Listener = listen(t, host)
	patroni.Start()
	t.Cleanup(patroni.Close)
	echo := listen(t, host)
	var sessions sync.WaitGroup
	sessions.Go(func() {
		for {
			conn, err := echo.Accept()
			if err != nil {
				return
			}
			sessions.Go(func() {
				defer conn.Close()
				io.Copy(conn, conn)
			})
		}
	})
	t.Cleanup(func() {
		echo.Close()
		sessions.Wait()
	})
	port := func(l net.Listener) int { return l.Addr().(*net.TCPAddr).Port }
	return fixture{host, port(patroni.Listener), port(echo)}
}

// ports are those that listen has given so far.
var ports sync.Map

// listen opens a port that no other listener of the tests has on any address: a plan in which a member's port is a service's
// too is refused for that, and not for what a test is about.
func listen(t *testing.T, host string) net.Listener {
	t.Helper()
	for {
		l, err := net.Listen("tcp", host+":0")
		if err != nil {
			t.Fatal(err)
		}
		if _, again := ports.LoadOrStore(l.Addr().(*net.TCPAddr).Port, true); !again {
			return l
		}
		l.Close()
	}
}

// inventory declares the member and services: name and port of each.
func (f fixture) inventory(services ...string) string {
	var list strings.Builder
	for _, s := range services {
		name, port, _ := strings.Cut(s, ":")
		fmt.Fprintf(&list, "      - { name: %s, port: %s, dest: postgres, check: /primary, selector: '[]' }\n", name, port)
	}
	return fmt.Sprintf(`pg-test:
  hosts:
    %s: { pg_seq: 1, pg_role: primary, pg_port: %d, patroni_port: %d }
  vars:
    pg_cluster: pg-test
    pg_rto: fast
    pg_default_services:
%s`, f.host, f.echoPort, f.patroniPort, list.String())
}

// running is a daemon under test.
type running struct {
	t      *testing.T
	path   string
	admin  string
	bind   string
	reload chan os.Signal
	log    lockedBuffer
	stop   context.CancelFunc
	ended  chan error
}

type lockedBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *lockedBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *lockedBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

// start runs a daemon on bind from an inventory's text and waits until it is ready. edit may alter its configuration.
func start(t *testing.T, f fixture, bind, text string, watch bool, edit ...func(*Config)) *running {
	t.Helper()
	r := &running{t: t, path: filepath.Join(t.TempDir(), "pigsty.yml"), bind: bind, reload: make(chan os.Signal, 1), ended: make(chan error, 1)}
	r.write(text)
	free := listen(t, bind)
	r.admin = free.Addr().String()
	free.Close()
	var ctx context.Context
	ctx, r.stop = context.WithCancel(t.Context())
	ready := make(chan struct{})
	logger := slog.New(slog.NewTextHandler(&r.log, nil))
	cfg := Config{
		Version: "test", Source: &InventoryFile{Path: r.path, Node: f.host, Watch: watch, Logger: logger},
		Bind: bind, Admin: r.admin, StopTimeout: 10 * time.Second, Reload: r.reload, Logger: logger, Ready: func() { close(ready) },
	}
	for _, e := range edit {
		e(&cfg)
	}
	over := make(chan struct{})
	go func() {
		defer close(over)
		r.ended <- Run(ctx, cfg)
	}()
	t.Cleanup(func() {
		r.stop()
		<-over
	})
	select {
	case <-ready:
	case err := <-r.ended:
		t.Fatalf("it didn't start: %v\n%s", err, &r.log)
	}
	return r
}

func (r *running) write(text string) {
	r.t.Helper()
	if err := os.WriteFile(r.path, []byte(text), 0o600); err != nil {
		r.t.Fatal(err)
	}
}

func (r *running) status() *api.Status {
	r.t.Helper()
	s, err := r.ask()
	if err != nil {
		r.t.Fatal(err)
	}
	return s
}

func (r *running) ask() (*api.Status, error) {
	return api.Client{Address: r.admin}.Status(r.t.Context())
}

// patience is how long a test waits for what has to come: only a failure takes so long, and a machine may be busy.
const patience = time.Minute

// until waits for a state of the daemon.
func (r *running) until(what string, holds func(*api.Status) bool) {
	r.t.Helper()
	again := time.NewTicker(10 * time.Millisecond)
	defer again.Stop()
	limit := time.After(patience)
	for {
		s, err := r.ask()
		if err == nil && holds(s) {
			return
		}
		select {
		case <-again.C:
		case <-limit:
			r.t.Fatalf("not %s after %s: %v, %+v\n%s", what, patience, err, s, &r.log)
		}
	}
}

// echo sends a line through a connection and expects it back.
func echo(t *testing.T, conn net.Conn, line string) {
	t.Helper()
	if err := conn.SetDeadline(time.Now().Add(patience)); err != nil {
		t.Fatal(err)
	}
	if _, err := io.WriteString(conn, line); err != nil {
		t.Fatal(err)
	}
	got := make([]byte, len(line))
	if _, err := io.ReadFull(conn, got); err != nil || string(got) != line {
		t.Fatalf("sent %q, got %q, %v", line, got, err)
	}
}

func (r *running) dial(port string) net.Conn {
	r.t.Helper()
	conn, err := net.Dial("tcp", r.bind+":"+port)
	if err != nil {
		r.t.Fatal(err)
	}
	r.t.Cleanup(func() { conn.Close() })
	return conn
}

func TestServeReloadStop(t *testing.T) {
	f := newFixture(t, address(11))
	r := start(t, f, address(12), f.inventory("primary:5433"), false)
	if s := r.status(); s.Config.Generation != 1 || !s.Clusters[0].Services[0].Up {
		t.Errorf("ready, but %+v", s)
	}
	session := r.dial("5433")
	echo(t, session, "before\n")

	r.write(f.inventory("primary:5433", "more:5440"))
	r.reload <- syscall.SIGHUP
	r.until("taken", func(s *api.Status) bool { return s.Config.Generation == 2 })
	echo(t, r.dial("5440"), "new service\n")
	echo(t, session, "after a reload\n")

	for name, broken := range map[string]struct{ text, want string }{
		"a port out of range": {f.inventory("primary:5433", "more:99999"), r.path + ":9:29: error: "},
		"no YAML":             {"pg-test: [", r.path + ":"},
		"a port that is taken": {f.inventory("primary:5433", "more:"+r.admin[strings.LastIndex(r.admin, ":")+1:]),
			"service pg-test-more"},
	} {
		r.write(broken.text)
		r.reload <- syscall.SIGHUP
		r.until("refused: "+name, func(s *api.Status) bool { return strings.Contains(s.Config.Refused, broken.want) })
		if s := r.status(); s.Config.Generation != 2 || len(s.Clusters[0].Services) != 2 {
			t.Errorf("%s: the running configuration has changed: %+v", name, s)
		}
		echo(t, session, "after "+name+"\n")
		echo(t, r.dial("5440"), "still there\n")
	}

	r.write(f.inventory("primary:5433"))
	r.reload <- syscall.SIGHUP
	r.until("taken", func(s *api.Status) bool { return s.Config.Generation == 3 && s.Config.Refused == "" })
	if conn, err := net.Dial("tcp", r.bind+":5440"); err == nil {
		conn.Close()
		t.Error("the removed service's port is still open")
	}

	// The stop: no new clients, but the session may finish.
	r.stop()
	for conn, err := net.Dial("tcp", r.bind+":5433"); err == nil; conn, err = net.Dial("tcp", r.bind+":5433") {
		conn.Close()
	}
	echo(t, session, "while it stops\n")
	session.Close()
	if err := <-r.ended; err != nil {
		t.Errorf("the stop: %v", err)
	}
}

func TestWatchTakesEditsWithCare(t *testing.T) {
	f := newFixture(t, address(21))
	r := start(t, f, address(22), f.inventory("primary:5433", "more:5440"), true)

	// As editors do it: a new file replaces the old one.
	replacement := r.path + ".new"
	if err := os.WriteFile(replacement, []byte(f.inventory("primary:5433", "more:5440", "third:5441")), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(replacement, r.path); err != nil {
		t.Fatal(err)
	}
	r.until("taken", func(s *api.Status) bool { return s.Config.Generation == 2 })
	echo(t, r.dial("5441"), "new service\n")

	r.write(f.inventory("primary:5433", "third:5441"))
	r.until("refused", func(s *api.Status) bool {
		return strings.Contains(s.Config.Refused, "service pg-test-more would be removed\nsend SIGHUP to take it all the same")
	})
	echo(t, r.dial("5440"), "still there\n")

	r.write(strings.Replace(f.inventory("primary:5433", "more:5440", "third:5441"), "third, port: 5441, dest: postgres, check: /primary, selector: '[]'",
		"third, port: 5441, dest: postgres, check: /primary, selector: '[?pg_role==`delayed`]'", 1))
	r.until("refused", func(s *api.Status) bool {
		return strings.Contains(s.Config.Refused, "service pg-test-third would be left without servers")
	})
	echo(t, r.dial("5441"), "still there\n")

	// Asked for, it is taken.
	r.write(f.inventory("primary:5433", "third:5441"))
	r.reload <- syscall.SIGHUP
	r.until("taken", func(s *api.Status) bool { return len(s.Clusters[0].Services) == 2 && s.Config.Refused == "" })
}

func TestStartRefuses(t *testing.T) {
	f := newFixture(t, address(31))
	taken := listen(t, address(32))
	defer taken.Close()
	path := filepath.Join(t.TempDir(), "pigsty.yml")
	logger := slog.New(slog.NewTextHandler(io.Discard, nil))
	_, port, _ := net.SplitHostPort(taken.Addr().String())
	for _, test := range []struct{ name, text, node, admin, want string }{
		{"a broken inventory", f.inventory("primary:0"), f.host, address(32) + ":8432", ":8:32: error"},
		{"a node that isn't there", f.inventory("primary:5433"), "10.10.10.99", address(32) + ":8432", "10.10.10.99"},
		{"a taken port", f.inventory("primary:" + port), f.host, address(32) + ":8432", "service pg-test-primary"},
		{"a taken admin address", f.inventory("primary:5433"), f.host, taken.Addr().String(),
			fmt.Sprintf("admin address %s: address already in use: this pgporter (pid %d) listens on", taken.Addr(), os.Getpid())},
	} {
		t.Run(test.name, func(t *testing.T) {
			if err := os.WriteFile(path, []byte(test.text), 0o600); err != nil {
				t.Fatal(err)
			}
			err := Run(t.Context(), Config{Source: &InventoryFile{Path: path, Node: test.node, Logger: logger}, Bind: address(32), Admin: test.admin, Logger: logger})
			if err == nil || !strings.Contains(err.Error(), test.want) {
				t.Errorf("got %v, want %q in it", err, test.want)
			}
			if conn, err := net.Dial("tcp", address(32)+":5433"); err == nil {
				conn.Close()
				t.Error("a port was left open")
			}
		})
	}
}
