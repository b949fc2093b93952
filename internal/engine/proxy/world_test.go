package proxy

import (
	"bytes"
	"context"
	"io"
	"log/slog"
	"math/rand/v2"
	"net"
	"os"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/pgporter/pgporter/internal/config/model"
	"github.com/pgporter/pgporter/internal/engine"
	"github.com/pgporter/pgporter/internal/monitor/view"
)

// patience bounds what should take next to no time.
const patience = time.Minute

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// eventually waits for a condition that other goroutines bring about.
func eventually(t testing.TB, what string, holds func() bool) {
	t.Helper()
	for deadline := time.Now().Add(patience); !holds(); time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("never came: %s", what)
		}
	}
}

// given are the ports that freePort has given: none of them twice.
var given sync.Map

// freePort finds a port that nobody listens on, at any address. It stays below the ports that the kernel gives to outgoing
// connections: one of those would be in the way of a listener for every address.
func freePort(t testing.TB) int {
	t.Helper()
	for range 1000 {
		port := 10000 + rand.IntN(20000)
		if _, before := given.LoadOrStore(port, true); before {
			continue
		}
		if l, err := net.Listen("tcp", net.JoinHostPort("", strconv.Itoa(port))); err == nil {
			_ = l.Close()
			return port
		}
	}
	t.Fatal("no port is free")
	return 0
}

// backend is a server that answers each client's startup packet with its name and then echoes.
type backend struct {
	name string
	net.Listener
	mu    sync.Mutex
	conns map[net.Conn]bool
}

func startBackend(t testing.TB, name, ip string) *backend {
	t.Helper()
	return startScript(t, name, ip, func(conn net.Conn) { echo(conn, name) })
}

// startScript starts a server that does this with each connection and then closes it.
func startScript(t testing.TB, name, ip string, script func(conn net.Conn)) *backend {
	t.Helper()
	l, err := net.Listen("tcp4", net.JoinHostPort(ip, "0"))
	must(t, err)
	b := &backend{name: name, Listener: l, conns: map[net.Conn]bool{}}
	b.serve(t, script)
	return b
}

func (b *backend) serve(t testing.TB, script func(conn net.Conn)) {
	var serving sync.WaitGroup
	serving.Go(func() {
		for {
			conn, err := b.Accept()
			if err != nil {
				return
			}
			b.mu.Lock()
			b.conns[conn] = true
			b.mu.Unlock()
			serving.Go(func() {
				script(conn)
				_ = conn.Close()
				b.mu.Lock()
				delete(b.conns, conn)
				b.mu.Unlock()
			})
		}
	})
	t.Cleanup(func() {
		_ = b.Close()
		b.mu.Lock()
		for conn := range b.conns {
			_ = conn.Close()
		}
		b.mu.Unlock()
		serving.Wait()
	})
}

func echo(conn net.Conn, name string) {
	if what, err := readPacket(conn); err == nil && what == startupMessage {
		_, _ = io.WriteString(conn, name+"\n")
		_, _ = io.Copy(conn, conn)
	}
}

// open gives how many connections the backend has.
func (b *backend) open() int {
	b.mu.Lock()
	defer b.mu.Unlock()
	return len(b.conns)
}

// server is one server of a test's service.
type server struct {
	*backend
	down, backup bool
	weight       int
	epoch        uint64
	reason       string
}

func up(b *backend) server { return server{backend: b, weight: 100, reason: "200 replica running"} }

// serviceOf makes a service of a View.
func serviceOf(definition model.Definition, servers ...server) view.Service {
	svc := view.Service{Service: model.Service{Definition: definition, Cluster: "pg-test"}}
	for _, s := range servers {
		address := s.Addr().(*net.TCPAddr)
		svc.Servers = append(svc.Servers, model.Server{Member: s.name, Host: address.IP.String(), Port: address.Port,
			Weight: s.weight, Backup: s.backup})
		svc.Health = append(svc.Health, view.Health{Up: !s.down, Reason: s.reason, Epoch: s.epoch})
	}
	return svc
}

func viewOf(services ...view.Service) *view.View {
	return &view.View{Cluster: "pg-test", Services: services}
}

// definition makes a service pg-test-<name> on an address of its own.
func definition(t testing.TB, name, ip string) model.Definition {
	t.Helper()
	options, problems := model.ParseOptions("on-marked-down shutdown-sessions")
	if len(problems) > 0 {
		t.Fatal(problems)
	}
	return model.Definition{Name: name, FullName: "pg-test-" + name, IP: ip, Port: freePort(t), MaxConn: 1000,
		Balance: model.RoundRobin, Options: options}
}

// logBook collects what is logged.
type logBook struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (l *logBook) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.Write(p)
}

func (l *logBook) count(s string) int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return strings.Count(l.text.String(), s)
}

// rig is an engine that runs until the test's end.
type rig struct {
	*Engine
	log  *logBook
	stop func()
}

func run(t testing.TB, cfg Config, endpoints ...Endpoint) *rig {
	t.Helper()
	r := made(cfg)
	r.begin(t)
	r.commit(t, endpoints...)
	return r
}

// prepared has endpoints, and doesn't run before begin.
func prepared(t testing.TB, cfg Config, endpoints ...Endpoint) *rig {
	t.Helper()
	r := made(cfg)
	r.commit(t, endpoints...)
	return r
}

func made(cfg Config) *rig {
	log := &logBook{}
	cfg.Logger = slog.New(slog.NewTextHandler(log, nil))
	return &rig{Engine: New(cfg), log: log}
}

// lone is the dispatcher of a service of PostgreSQL's that nobody listens for.
func lone(e *Engine, endpoint Endpoint) *dispatcher {
	return newDispatcher(e, assignment{Endpoint: endpoint, protocol: e.postgres(endpoint)})
}

// begin runs the engine until the test's end.
func (r *rig) begin(t testing.TB) {
	ctx, cancel := context.WithCancel(t.Context())
	returned := make(chan error, 1)
	go func() { returned <- r.Run(ctx) }()
	eventually(t, "the engine runs", func() bool {
		r.mu.Lock()
		defer r.mu.Unlock()
		return r.phase >= running
	})
	r.stop = sync.OnceFunc(func() {
		cancel()
		select {
		case err := <-returned:
			if err != nil {
				t.Errorf("Run: %v", err)
			}
		case <-time.After(patience):
			t.Error("Run doesn't return")
		}
	})
	t.Cleanup(func() {
		r.stop()
		if t.Failed() {
			t.Logf("the engine's log:\n%s", r.log.text.String())
		}
	})
}

// commit replaces the engine's endpoints.
func (r *rig) commit(t testing.TB, endpoints ...Endpoint) {
	t.Helper()
	change, err := r.Prepare(endpoints)
	must(t, err)
	change.Commit()
	change.Publish()
}

// service gives the status of one service.
func (r *rig) service(t testing.TB, fullName string) engine.Traffic {
	t.Helper()
	for _, s := range r.Status() {
		if s.Service == fullName {
			return s
		}
	}
	t.Fatalf("no service %s in the status", fullName)
	return engine.Traffic{}
}

func addressOf(d model.Definition) string { return net.JoinHostPort(d.IP, strconv.Itoa(d.Port)) }

// dial connects a client that gives up after patience, and sends its startup packet.
func dial(t testing.TB, address string) *net.TCPConn {
	t.Helper()
	conn := dialSilent(t, address)
	_, err := conn.Write(startup)
	must(t, err)
	return conn
}

// dialSilent connects a client that says nothing by itself.
func dialSilent(t testing.TB, address string) *net.TCPConn {
	t.Helper()
	conn, err := net.DialTimeout("tcp", address, patience)
	must(t, err)
	t.Cleanup(func() { _ = conn.Close() })
	must(t, conn.SetDeadline(time.Now().Add(patience)))
	return conn.(*net.TCPConn)
}

// greeting reads the name that a backend says first.
func greeting(conn net.Conn) (string, error) {
	var name []byte
	for one := make([]byte, 1); ; {
		if _, err := conn.Read(one); err != nil {
			return string(name), err
		}
		if one[0] == '\n' {
			return string(name), nil
		}
		name = append(name, one[0])
	}
}

// reach connects a client and tells which backend it came to.
func reach(t testing.TB, address string) (*net.TCPConn, string) {
	t.Helper()
	conn := dial(t, address)
	name, err := greeting(conn)
	must(t, err)
	return conn, name
}

// echoes checks that a session is alive.
func echoes(t testing.TB, conn net.Conn) {
	t.Helper()
	_, err := io.WriteString(conn, "ping")
	must(t, err)
	got := make([]byte, 4)
	if _, err := io.ReadFull(conn, got); err != nil || string(got) != "ping" {
		t.Fatalf("the session answers %q, %v", got, err)
	}
}

// over waits until a connection is ended by the other side.
func over(t testing.TB, conn net.Conn) {
	t.Helper()
	n, err := io.Copy(io.Discard, conn)
	if n > 0 || err != nil && !isReset(err) {
		t.Fatalf("read %d bytes and %v, want the end", n, err)
	}
}

func isReset(err error) bool { return strings.Contains(err.Error(), syscall.ECONNRESET.Error()) }

// sequence reaches the service n times and spells who answered; the sessions are closed at once.
func sequence(t testing.TB, address string, n int) string {
	t.Helper()
	var names []string
	for range n {
		conn, name := reach(t, address)
		_ = conn.Close()
		names = append(names, name)
	}
	return strings.Join(names, " ")
}

func openFiles(t testing.TB) int {
	t.Helper()
	entries, err := os.ReadDir("/proc/self/fd")
	must(t, err)
	return len(entries)
}
