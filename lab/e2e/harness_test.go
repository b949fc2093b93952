package e2e

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/pgporter/pgporter/internal/admin/api"
	"github.com/pgporter/pgporter/lab/sandbox"
	"github.com/pgporter/pgporter/lab/sandbox/guard"
)

// binary is the pgporter under test, lab the program that it is tried with; both are built with the race detector by TestMain.
var binary, lab string

func TestMain(m *testing.M) {
	os.Exit(guard.Run(func() int {
		if os.Getenv(doomed) != "" {
			return doomedSandbox()
		}
		// The race detector has a program wait for a second before it exits, which commands and restarts would do too.
		if os.Getenv("GORACE") == "" {
			os.Setenv("GORACE", "atexit_sleep_ms=0")
		}
		// The sandbox's unprivileged user has to reach it.
		dir, err := os.MkdirTemp("", "pgporter-e2e-")
		if err == nil {
			err = os.Chmod(dir, 0o755)
		}
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			return 1
		}
		binary, lab = filepath.Join(dir, "pgporter"), filepath.Join(dir, "pgporter-lab")
		build := exec.Command("go", "build", "-race", "-o", dir, "../../cmd/pgporter", "../../cmd/pgporter-lab")
		if out, err := build.CombinedOutput(); err != nil {
			fmt.Fprintf(os.Stderr, "building pgporter and pgporter-lab: %v\n%s", err, out)
			return 1
		}
		return m.Run()
	}))
}

// patient is a Fall for the clusters of tests in which bystanders' sessions have to live. The tests share two cores, and a Patroni that
// a switchover keeps busy is silent for three checks now and then.
const patient = 10

// cluster is a sandbox of one test.
type cluster struct {
	*sandbox.Sandbox
	t      *testing.T
	prefix string
}

// up brings a sandbox up on 127.0.<octet>, or in namespaces if it is to be there, and takes it down with the test.
func up(t *testing.T, octet int, config sandbox.Config) *cluster {
	t.Helper()
	dir, err := os.MkdirTemp(memory(), "pgporter-sandbox-")
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(guard.Keep(guard.Directory, dir), os.Chmod(dir, 0o755)); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	config.Dir, config.Binary = filepath.Join(dir, "s"), binary
	if !config.Netns {
		config.Prefix = fmt.Sprintf("127.0.%d", octet)
	}
	began := time.Now()
	s, err := sandbox.Up(t.Context(), config, io.Discard)
	if err != nil {
		t.Fatalf("sandbox: %v", err)
	}
	t.Logf("the sandbox is up after %.1fs", time.Since(began).Seconds())
	c := &cluster{s, t, s.Config().Prefix}
	t.Cleanup(func() {
		c.t = t // a part of the test may have put itself there
		c.checkRaces()
		if t.Failed() {
			c.showLogs()
		}
		ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
		defer cancel()
		if err := s.Down(ctx, false); err != nil {
			t.Errorf("sandbox down: %v", err)
		}
	})
	return c
}

// memory is a directory that is kept in memory, where there is plenty of it, and else where temporary files are. etcd syncs its log,
// which takes seconds on a disk that others keep busy: leader keys expire meanwhile.
func memory() string {
	const shared, plenty = "/dev/shm", 8 << 30
	var fs syscall.Statfs_t
	const tmpfs = 0x01021994 // statfs(2), TMPFS_MAGIC
	if err := syscall.Statfs(shared, &fs); err != nil || fs.Type != tmpfs || fs.Bavail*uint64(fs.Bsize) < plenty {
		return ""
	}
	return shared
}

// checkRaces fails the test if the race detector of a pgporter found something.
func (c *cluster) checkRaces() {
	for _, m := range c.Declared() {
		if strings.Contains(c.log(m.Name+"/pgporter"), "DATA RACE") {
			c.t.Errorf("the pgporter of %s has a data race", m.Name)
		}
	}
}

func (c *cluster) showLogs() {
	for _, m := range c.Declared() {
		text := c.log(m.Name + "/pgporter")
		c.t.Logf("log of %s's pgporter (its end):\n%s", m.Name, text[max(0, len(text)-6000):])
	}
}

func (c *cluster) log(what string) string {
	path, err := c.Log(what)
	if err != nil {
		return err.Error()
	}
	text, err := os.ReadFile(path)
	if err != nil {
		return err.Error()
	}
	return string(text)
}

// member is the address of pg-test-<seq>, node any node's.
func (c *cluster) member(seq int) string { return fmt.Sprintf("%s.%d", c.prefix, 10+seq) }

// nodes are the addresses of all members of pg-test: each has a pgporter.
func (c *cluster) nodes() []string {
	var all []string
	for _, m := range c.Declared() {
		if m.Cluster == "pg-test" {
			all = append(all, m.Address)
		}
	}
	return all
}

// instance is who answered a client.
type instance struct {
	address  string
	port     int
	recovery bool
}

// String says what the instance is by its own word.
func (i instance) String() string {
	if i.recovery {
		return i.address + " (standby)"
	}
	return i.address + " (primary)"
}

// service describes a client's endpoint: port, account, and whether PgBouncer is on it.
type service struct {
	port           int
	user, password string
	database       string
}

var (
	primary = service{5433, "test", "test", "test"}
	replica = service{5434, "test", "test", "test"}
	direct  = service{5436, "dbuser_dba", "DBUser.DBA", "test"}
	offline = service{5438, "dbuser_stats", "DBUser.Stats", "test"}
	standby = service{5435, "test", "test", "test"}
	delayed = service{5439, "dbuser_dba", "DBUser.DBA", "test"}
)

// url asks for no TLS: pgx tries with it first and then connects anew, so that each session would cost two turns of a
// round-robin and two replicas would look like one.
func (s service) url(host string) string {
	return fmt.Sprintf("postgres://%s:%s@%s:%d/%s?sslmode=disable&connect_timeout=10&default_query_exec_mode=simple_protocol", s.user, s.password, host, s.port, s.database)
}

// connect opens a session through a service at a node.
func connect(ctx context.Context, host string, s service) (*pgx.Conn, error) {
	return pgx.Connect(ctx, s.url(host))
}

// whoAnswers asks an open session which instance is at its end.
func whoAnswers(ctx context.Context, conn *pgx.Conn) (instance, error) {
	var i instance
	err := conn.QueryRow(ctx, "select host(inet_server_addr()), inet_server_port(), pg_is_in_recovery()").Scan(&i.address, &i.port, &i.recovery)
	return i, err
}

// ask opens a session, asks who answers, and closes it.
func ask(ctx context.Context, host string, s service) (instance, error) {
	conn, err := connect(ctx, host, s)
	if err != nil {
		return instance{}, err
	}
	defer conn.Close(ctx)
	return whoAnswers(ctx, conn)
}

// serves is what a service must do: connect to each of these instances and to no other.
type serves struct {
	service
	to []instance
}

func at(address string, recovery bool) instance { return instance{address, 5432, recovery} }

// check opens enough sessions through a node to see every server in turn.
func (w serves) check(ctx context.Context, node string) error {
	seen := map[instance]int{}
	for range 3 * len(w.to) {
		i, err := ask(ctx, node, w.service)
		if err != nil {
			return fmt.Errorf("%s:%d: %w", node, w.port, err)
		}
		if !slices.Contains(w.to, i) {
			return fmt.Errorf("%s:%d connected to %s, not to %v", node, w.port, i, w.to)
		}
		seen[i]++
	}
	for _, i := range w.to {
		if seen[i] == 0 {
			return fmt.Errorf("%s:%d never connected to %s in %d connects", node, w.port, i, 3*len(w.to))
		}
	}
	return nil
}

// expect waits until every service does what it must on every node.
func (c *cluster) expect(within time.Duration, want ...serves) {
	c.t.Helper()
	eventually(c.t, within, func(ctx context.Context) error {
		for _, node := range c.nodes() {
			for _, w := range want {
				if err := w.check(ctx, node); err != nil {
					return err
				}
			}
		}
		return nil
	})
}

// refused asserts that a service turns clients away on every node with PostgreSQL's error that says why.
func (c *cluster) refused(within time.Duration, s service, why string) {
	c.t.Helper()
	eventually(c.t, within, func(ctx context.Context) error {
		for _, node := range c.nodes() {
			i, err := ask(ctx, node, s)
			if err == nil {
				return fmt.Errorf("%s:%d connected to %s", node, s.port, i)
			}
			if !strings.Contains(err.Error(), "57P03") || !strings.Contains(err.Error(), why) {
				return fmt.Errorf("%s:%d: the refusal has no 57P03 with %q: %w", node, s.port, why, err)
			}
		}
		return nil
	})
}

// eventually tries until it succeeds; what it said last is the failure.
func eventually(t *testing.T, within time.Duration, try func(ctx context.Context) error) {
	t.Helper()
	began := time.Now()
	ctx, cancel := context.WithTimeout(t.Context(), within)
	defer cancel()
	again := time.NewTicker(100 * time.Millisecond)
	defer again.Stop()
	var last error
	for {
		err := try(ctx)
		if err == nil {
			return
		}
		// The time's end makes errors of its own, which say less.
		if ctx.Err() == nil || last == nil {
			last = err
		}
		select {
		case <-ctx.Done():
			t.Fatalf("not within %.0fs: %v", time.Since(began).Seconds(), last)
		case <-again.C:
		}
	}
}

// idleSession is a session that does nothing.
type idleSession struct {
	*pgx.Conn
	to    instance
	ended chan error
}

// hold opens a session and watches, without sending anything, whether it ends.
func (c *cluster) hold(node string, s service) *idleSession {
	c.t.Helper()
	conn, err := connect(c.t.Context(), node, s)
	if err != nil {
		c.t.Fatal(err)
	}
	h := &idleSession{Conn: conn, ended: make(chan error, 1)}
	if h.to, err = whoAnswers(c.t.Context(), conn); err != nil {
		c.t.Fatal(err)
	}
	return h
}

// watch waits for the end of the session in the background. Nothing else may be done with it afterwards.
func (h *idleSession) watch(t *testing.T) *idleSession {
	var watching sync.WaitGroup
	raw := h.PgConn().Conn()
	watching.Go(func() {
		buffer := make([]byte, 4096)
		for {
			if _, err := raw.Read(buffer); err != nil {
				h.ended <- err
				return
			}
		}
	})
	t.Cleanup(func() {
		raw.Close()
		watching.Wait()
	})
	return h
}

// hasEnded fails the test if the session doesn't end in time.
func (h *idleSession) hasEnded(t *testing.T, within time.Duration) {
	t.Helper()
	select {
	case err := <-h.ended:
		var netErr net.Error
		if errors.As(err, &netErr) && netErr.Timeout() {
			t.Errorf("the session on %s timed out instead of being ended: %v", h.to, err)
		}
	case <-time.After(within):
		t.Errorf("the session on %s is still open after %s", h.to, within)
	}
}

// lives fails the test unless the session still answers from where it was.
func (h *idleSession) lives(t *testing.T) {
	t.Helper()
	i, err := whoAnswers(t.Context(), h.Conn)
	if err != nil || i.address != h.to.address {
		t.Errorf("the session on %s: now %s, %v", h.to, i, err)
	}
}

// porter is a pgporter that the test started itself.
type porter struct {
	t     *testing.T
	cmd   *exec.Cmd
	admin string
	mu    sync.Mutex
	log   bytes.Buffer
}

func (p *porter) Write(text []byte) (int, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.log.Write(text)
}

func (p *porter) logged() string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.log.String()
}

// startPorter runs pgporter with these arguments on an address of its own and waits until it answers.
func startPorter(t *testing.T, bind string, args ...string) *porter {
	t.Helper()
	return startPorterAs(t, nil, bind, args...)
}

// startPorterAs is startPorter as another user; nil is this one.
func startPorterAs(t *testing.T, user *syscall.Credential, bind string, args ...string) *porter {
	t.Helper()
	p := &porter{t: t, admin: net.JoinHostPort(bind, api.DefaultPort)}
	p.cmd = exec.Command(binary, append([]string{"run", "--bind", bind}, args...)...)
	p.cmd.Stderr = p
	if user != nil {
		p.cmd.SysProcAttr = &syscall.SysProcAttr{Credential: user}
	}
	if err := p.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan struct{})
	t.Cleanup(func() {
		p.cmd.Process.Signal(syscall.SIGTERM)
		kill := time.AfterFunc(patience, func() { p.cmd.Process.Kill() })
		<-ended
		if !kill.Stop() {
			t.Errorf("pgporter didn't stop on SIGTERM")
		}
		if t.Failed() {
			t.Logf("log of the test's own pgporter:\n%s", p.logged())
		}
	})
	go func() {
		defer close(ended)
		if err := p.cmd.Wait(); err != nil {
			t.Errorf("pgporter ended with %v", err)
		}
		if strings.Contains(p.logged(), "DATA RACE") {
			t.Errorf("pgporter has a data race")
		}
	}()
	eventually(t, patience, func(ctx context.Context) error {
		_, err := p.status(ctx)
		return err
	})
	return p
}

func (p *porter) status(ctx context.Context) (*api.Status, error) {
	return api.Client{Address: p.admin}.Status(ctx)
}

// matches says whether one line of a text has what the pattern describes: words, and ` +` for a gap.
func matches(pattern, text string) bool {
	return regexp.MustCompile("(?m)^.*" + pattern + ".*$").MatchString(text)
}
