package haproxy

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
	"os/exec"
	"path/filepath"
	"slices"
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

// world is three members that answer with their names, a Board that the test writes, and an engine with a real HAProxy.
type world struct {
	t     *testing.T
	octet int
	bind  string
	ports [3]int // destination and Patroni
	// options are the service's: steady, unless the test is about HAProxy's own checks.
	options string
	board   *view.Board
	engine  *Engine
	dir     string
	log     lockedBuffer
	// checks says what the members' Patroni answers.
	mu     sync.Mutex
	checks [4]int
	health [4]view.Health
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

// patience is how long a test waits for what has to come: only a failure takes so long, and a machine may be busy.
const patience = time.Minute

const (
	destination = 7432
	patroniPort = 7008
	servicePort = 7434
)

func (w *world) host(seq int) string { return fmt.Sprintf("127.0.%d.1%d", w.octet, seq) }

// address is where clients of the service connect.
func (w *world) address() string { return net.JoinHostPort(w.bind, strconv.Itoa(servicePort)) }

// newWorld makes members on 127.0.<octet>.11 to .13; every check passes.
func newWorld(t *testing.T, octet int) *world {
	t.Helper()
	w := &world{t: t, octet: octet, bind: fmt.Sprintf("127.0.%d.1", octet), ports: [3]int{destination, patroniPort}, options: steady}
	var err error
	if w.dir, err = os.MkdirTemp("", "ha-"); err != nil { // t.TempDir is too long for sockets
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(w.dir) })
	for seq := 1; seq <= 3; seq++ {
		w.checks[seq] = 200
		api := httptest.NewUnstartedServer(http.HandlerFunc(func(answer http.ResponseWriter, _ *http.Request) {
			w.mu.Lock()
			defer w.mu.Unlock()
			answer.WriteHeader(w.checks[seq])
		}))
		api.Listener.Close()
		api.Listener = w.listen(seq, patroniPort)
		api.Start()
		t.Cleanup(api.Close)
		w.serve(seq, destination)
	}
	t.Cleanup(func() {
		if t.Failed() {
			log, _ := os.ReadFile(filepath.Join(w.dir, logFile))
			t.Logf("log:\n%s\nHAProxy's:\n%s", &w.log, log)
		}
	})
	return w
}

// serve has a member answer clients on a port.
func (w *world) serve(seq, port int) {
	l := w.listen(seq, port)
	var serving sync.WaitGroup
	serving.Go(func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			serving.Go(func() {
				defer conn.Close()
				fmt.Fprintf(conn, "%d", seq)
				io.Copy(conn, conn)
			})
		}
	})
	w.t.Cleanup(func() { l.Close() })
}

// answer sets what the checks of members answer from now on.
func (w *world) answer(status int, members ...int) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, seq := range members {
		w.checks[seq] = status
	}
}

func (w *world) listen(seq, port int) net.Listener {
	l, err := net.Listen("tcp", fmt.Sprintf("%s:%d", w.host(seq), port))
	if err != nil {
		w.t.Fatal(err)
	}
	return l
}

// says publishes what is known: the primary, the servers of the service as layouts name them, and who is up.
func (w *world) says(primary int, up string, servers ...string) engine.Offer {
	c, services := clusterOf(w.options, w.host, w.ports, servicePort, servers...)
	v := &view.View{Cluster: c.Name, At: time.Now()}
	for seq := 1; seq <= 3; seq++ {
		m := view.Member{Member: c.Members[seq-1], Live: model.Replica, State: "running", Answer: "200 replica running"}
		if seq == primary {
			m.Live = model.Primary
		}
		if up == "" {
			m.Answer = view.NotChecked
		}
		v.Members = append(v.Members, m)
	}
	s := view.Service{Service: services[0]}
	for _, server := range services[0].Servers {
		seq := int(server.Member[len(server.Member)-1] - '0')
		h := &w.health[seq]
		is := strings.Contains(up, fmt.Sprint(seq))
		if h.Up && !is {
			h.Epoch++
		}
		h.Up, h.Reason = is, "as the test says"
		if up == "" {
			h.Reason = view.NotChecked
		}
		s.Health = append(s.Health, *h)
	}
	v.Services = []view.Service{s}
	if w.board == nil {
		w.board = view.NewBoard(v)
	} else {
		w.board.Publish(v)
	}
	base := model.Base{Node: "test", ClientTimeout: "1h", ServerTimeout: "1h", StatsIP: "*", StatsPort: 7901, MetricsPath: "/metrics"}
	return engine.Offer{Node: "test", Base: &base, Clusters: []engine.Cluster{{Cluster: c, Set: model.Set{Cluster: c.Name, Services: services}, Board: w.board}}}
}

// altered changes the declaration of an offer's cluster and service, and gives the View that goes with it. Nothing is published.
func (w *world) altered(o *engine.Offer, alter func(*model.Cluster, *model.Service)) *view.View {
	o.Clusters = slices.Clone(o.Clusters)
	c := &o.Clusters[0]
	c.Members = slices.Clone(c.Members)
	c.Set.Services = slices.Clone(c.Set.Services)
	c.Set.Services[0].Servers = slices.Clone(c.Set.Services[0].Servers)
	alter(&c.Cluster, &c.Set.Services[0])
	v := *w.board.View()
	v.Members = slices.Clone(v.Members)
	for i := range v.Members {
		v.Members[i].Member = c.Members[i]
	}
	v.Services = []view.Service{{Service: c.Set.Services[0], Health: slices.Clone(v.Services[0].Health)}}
	return &v
}

func (w *world) config() Config {
	return Config{Dir: w.dir, Bind: w.bind, StopTimeout: 2 * time.Second, Logger: slog.New(slog.NewTextHandler(&w.log, nil))}
}

// begin makes the engine, commits an offer and runs it.
func (w *world) begin(c Config, o engine.Offer) {
	w.t.Helper()
	var err error
	if w.engine, err = New(c); err != nil {
		w.t.Fatal(err)
	}
	if err := w.take(o); err != nil {
		w.t.Fatal(err)
	}
	var ctx context.Context
	ctx, w.stop = context.WithCancel(context.Background())
	w.ended = make(chan error, 1)
	go func() { w.ended <- w.engine.Run(ctx) }()
	w.t.Cleanup(w.end)
}

// end stops the engine.
func (w *world) end() {
	if w.stop == nil {
		return
	}
	w.stop()
	w.stop = nil
	if err := <-w.ended; err != nil {
		w.t.Errorf("the engine ended with %v", err)
	}
}

func (w *world) take(o engine.Offer) error {
	change, err := w.engine.Prepare(context.Background(), o)
	if err != nil {
		return err
	}
	if err := change.Load(context.Background()); err != nil {
		return err
	}
	change.Commit(context.Background())
	return nil
}

// dial gives a session and the number of the member that it is with; 0 if it was closed.
func (w *world) dial() (net.Conn, int) {
	w.t.Helper()
	conn, err := net.DialTimeout("tcp", w.address(), patience)
	if err != nil {
		w.t.Fatal(err)
	}
	w.t.Cleanup(func() { conn.Close() })
	conn.SetDeadline(time.Now().Add(patience))
	name := make([]byte, 1)
	if _, err := io.ReadFull(conn, name); err != nil {
		return conn, 0
	}
	return conn, int(name[0] - '0')
}

// connectsTo fails unless new clients are connected to these members, all of them and no other.
func (w *world) connectsTo(to ...int) {
	w.t.Helper()
	seen := map[int]bool{}
	for range 3 * len(to) {
		conn, seq := w.dial()
		conn.Close()
		seen[seq] = true
	}
	for _, seq := range to {
		if !seen[seq] {
			w.t.Errorf("nobody was connected to %d: %v", seq, seen)
		}
		delete(seen, seq)
	}
	if len(seen) > 0 {
		w.t.Errorf("also connected to %v, not only to %v", seen, to)
	}
}

// until waits for something to become true.
func (w *world) until(what string, holds func() bool) {
	w.t.Helper()
	limit := time.After(patience)
	for !holds() {
		select {
		case <-limit:
			w.t.Fatalf("not within %s: %s", patience, what)
		case <-time.After(5 * time.Millisecond):
		}
	}
}

// answers says whether a session still passes bytes.
func answers(conn net.Conn) bool {
	conn.SetDeadline(time.Now().Add(patience))
	if _, err := io.WriteString(conn, "x"); err != nil {
		return false
	}
	_, err := io.ReadFull(conn, make([]byte, 1))
	return err == nil
}

// ends waits for the end of a session.
func ends(t *testing.T, conn net.Conn) {
	t.Helper()
	conn.SetReadDeadline(time.Now().Add(patience))
	if _, err := conn.Read(make([]byte, 1)); err == nil || os.IsTimeout(err) {
		t.Errorf("the session goes on: %v", err)
	}
}

func (w *world) workers() processes {
	w.t.Helper()
	p, err := w.engine.control.processes(context.Background())
	if err != nil {
		w.t.Fatal(err)
	}
	return p
}

// system starts a HAProxy as a service manager would, and gives how to end it.
func (w *world) system(withMaster bool) (c Config, pid int) {
	w.t.Helper()
	c = w.config()
	c.System, c.Socket = true, filepath.Join(w.dir, "s")
	base := "global\n    stats socket " + c.Socket + " mode 600 level admin expose-fd listeners\n    maxconn 1000\n" +
		"defaults\n    mode tcp\n    timeout connect 3s\n    timeout client 1h\n    timeout server 1h\n    timeout queue 3s\n" +
		fmt.Sprintf("listen mine\n    bind %s:7999\n    server one %s:%d\n", w.bind, w.host(1), destination)
	if err := os.WriteFile(filepath.Join(w.dir, "haproxy.cfg"), []byte(base), 0o644); err != nil {
		w.t.Fatal(err)
	}
	if err := os.Mkdir(filepath.Join(w.dir, "conf.d"), 0o755); err != nil {
		w.t.Fatal(err)
	}
	args := []string{"-W", "-f", filepath.Join(w.dir, "haproxy.cfg"), "-f", filepath.Join(w.dir, "conf.d")}
	if withMaster {
		c.Master = filepath.Join(w.dir, "m")
		args = append(args, "-S", c.Master)
	}
	out, err := os.Create(filepath.Join(w.dir, logFile))
	if err != nil {
		w.t.Fatal(err)
	}
	defer out.Close()
	binary, err := exec.LookPath("haproxy")
	if err != nil {
		binary = "/usr/sbin/haproxy"
	}
	command := exec.Command(binary, args...)
	command.Stdout, command.Stderr = out, out
	if err := command.Start(); err != nil {
		w.t.Fatal(err)
	}
	w.t.Cleanup(func() {
		command.Process.Signal(syscall.SIGTERM)
		command.Wait()
	})
	w.until("HAProxy answers", func() bool {
		p, err := control{master: c.Master, socket: c.Socket}.processes(context.Background())
		return err == nil && p.Current.PID != 0
	})
	if !withMaster {
		c.Reload = []string{"kill", "-USR2", fmt.Sprint(command.Process.Pid)}
	}
	return c, command.Process.Pid
}
