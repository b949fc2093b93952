package pool

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgconn"

	"github.com/pgporter/pgporter/internal/access/pool/duty"
	"github.com/pgporter/pgporter/internal/config/model"
	"github.com/pgporter/pgporter/internal/monitor/view"
)

// The tests have a real PostgreSQL, one for all, and a real PgBouncer each. Both refuse to run as root. Their ports are below those that the
// system gives to connections (net.ipv4.ip_local_port_range): others run meanwhile.

const (
	postgresPort = 25432
	poolPort     = 26432
	// front leads to a service for the leader, behind to the member's own socket, reads to another service.
	front, behind, reads = "front", "be-hind.x", "reads"
	readsPort            = 25433
	// limit is how long anything may take here.
	limit = 30 * time.Second
)

func TestMain(m *testing.M) {
	if dir := os.Getenv("POOL_TEST_VICTIM"); dir != "" {
		victim(dir)
	}
	code := m.Run()
	if postgres.dir != "" {
		end(postgres.process)
		_ = os.RemoveAll(postgres.dir)
	}
	os.Exit(code)
}

var postgres struct {
	once    sync.Once
	dir     string
	process *exec.Cmd
	err     error
}

// as has a program run as a user who isn't root.
func as(c *exec.Cmd) *exec.Cmd {
	c.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if u, err := user.Lookup("postgres"); err == nil && os.Geteuid() == 0 {
		uid, _ := strconv.Atoi(u.Uid)
		gid, _ := strconv.Atoi(u.Gid)
		c.SysProcAttr.Credential = &syscall.Credential{Uid: uint32(uid), Gid: uint32(gid)}
	}
	return c
}

func end(c *exec.Cmd) {
	_ = c.Process.Signal(syscall.SIGCONT)
	_ = c.Process.Signal(syscall.SIGQUIT)
	_ = c.Wait()
}

// directory makes one for programs that run as another user. It goes with whoever made it.
func directory() (string, error) {
	dir, err := os.MkdirTemp("", "pool")
	if err != nil {
		return "", err
	}
	return dir, errors.Join(os.Chmod(dir, 0o777), nil)
}

// startPostgres starts it once.
func startPostgres(t *testing.T) {
	t.Helper()
	if _, err := exec.LookPath("pgbouncer"); err != nil {
		t.Fatal("PgBouncer (Debian's package pgbouncer) is needed")
	}
	found, _ := filepath.Glob("/usr/lib/postgresql/*/bin/initdb")
	if len(found) == 0 {
		t.Fatal("PostgreSQL (Debian's package postgresql) is needed")
	}
	if _, err := user.Lookup("postgres"); err != nil && os.Geteuid() == 0 {
		t.Fatal("PostgreSQL refuses to run as root, and there is no user postgres")
	}
	bin := filepath.Dir(found[len(found)-1])
	postgres.once.Do(func() {
		if postgres.dir, postgres.err = directory(); postgres.err != nil {
			return
		}
		data := filepath.Join(postgres.dir, "data")
		if said, err := as(exec.Command(filepath.Join(bin, "initdb"), "-D", data, "-U", "app", "-A", "trust", "--no-sync")).CombinedOutput(); err != nil {
			postgres.err = fmt.Errorf("initdb: %w: %s", err, said)
			return
		}
		postgres.process = as(exec.Command(filepath.Join(bin, "postgres"), "-D", data, "-k", postgres.dir, "-p", strconv.Itoa(postgresPort), "-c", "listen_addresses=127.0.0.1", "-c", "fsync=off"))
		if postgres.err = postgres.process.Start(); postgres.err != nil {
			return
		}
		for until := time.Now().Add(limit); ; {
			var c *pgconn.PgConn
			if c, postgres.err = pgconn.Connect(context.Background(), fmt.Sprintf("host=%s port=%d user=app dbname=postgres", postgres.dir, postgresPort)); postgres.err == nil {
				_, postgres.err = c.Exec(context.Background(), "create table done (client int, n int)").ReadAll()
				_ = c.Close(context.Background())
				return
			}
			if time.Now().After(until) {
				return
			}
			time.Sleep(20 * time.Millisecond)
		}
	})
	if postgres.err != nil {
		t.Fatal(postgres.err)
	}
}

// bouncer is a PgBouncer.
type bouncer struct {
	t       *testing.T
	dir     string
	process *exec.Cmd
}

func startBouncer(t *testing.T) *bouncer {
	t.Helper()
	startPostgres(t)
	dir, err := directory()
	if err != nil {
		t.Fatal(err)
	}
	b := &bouncer{t: t, dir: dir}
	ini := fmt.Sprintf(`[databases]
%s = host=127.0.0.1 port=%d dbname=postgres
%s = host=%s port=%d dbname=postgres
%s = host=127.0.0.1 port=%d dbname=postgres
elsewhere = host=10.1.1.1 port=%d dbname=postgres
[pgbouncer]
unix_socket_dir = %s
listen_port = %d
auth_type = md5
auth_file = %s/users
admin_users = boss
stats_users = looker
pool_mode = transaction
logfile = %s/log
server_login_retry = 1
`, front, postgresPort, behind, postgres.dir, postgresPort, reads, readsPort, postgresPort, dir, poolPort, dir, dir)
	for name, text := range map[string]string{"ini": ini, "users": "\"boss\" \"secret\"\n\"looker\" \"secret\"\n\"app\" \"secret\"\n"} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	t.Cleanup(func() {
		end(b.process)
		if t.Failed() {
			log, _ := os.ReadFile(filepath.Join(dir, "log"))
			t.Logf("PgBouncer's log:\n%s", log)
		}
		_ = os.RemoveAll(dir)
	})
	b.start()
	return b
}

func (b *bouncer) start() {
	b.t.Helper()
	b.process = as(exec.Command("pgbouncer", "-q", filepath.Join(b.dir, "ini")))
	if err := b.process.Start(); err != nil {
		b.t.Fatal(err)
	}
	var err error
	defer func() {
		if err != nil {
			b.t.Log(err)
		}
	}()
	until(b.t, "PgBouncer answers", func() bool {
		var c *console
		if c, err = open(context.Background(), b.config(), b.address()); err == nil {
			c.close()
		}
		return err == nil
	})
}

func (b *bouncer) address() Address { return Address{b.dir, poolPort} }

func (b *bouncer) config() *Config {
	return &Config{Addresses: []Address{b.address()}, User: "boss", Password: func() (string, error) { return "secret", nil }, Dir: b.dir, Logger: slog.New(slog.DiscardHandler)}
}

// say is what an operator says at the console.
func (b *bouncer) say(command string) []map[string]string {
	b.t.Helper()
	c, err := open(context.Background(), b.config(), b.address())
	if err != nil {
		b.t.Fatal(err)
	}
	defer c.close()
	rows, err := c.do(command)
	if err != nil {
		b.t.Fatalf("%s: %v", command, err)
	}
	return rows
}

// paused tells whether PgBouncer says that a database is paused.
func (b *bouncer) paused(name string) bool {
	b.t.Helper()
	return slices.ContainsFunc(b.say("SHOW DATABASES"), func(row map[string]string) bool { return row["name"] == name && row["paused"] == "1" })
}

// told is how often PgBouncer's log says that a command was given for a database.
func (b *bouncer) told(command, database string) int {
	text, _ := os.ReadFile(filepath.Join(b.dir, "log"))
	return bytes.Count(text, fmt.Appendf(nil, "%s '%s' command issued", command, database))
}

// until waits for a condition.
func until(t *testing.T, what string, is func() bool) {
	t.Helper()
	for stop := time.Now().Add(limit); !is(); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(stop) {
			t.Fatalf("it isn't so in %s: %s", limit, what)
		}
	}
}

// cluster is one with a Board of which a test is the loop.
type cluster struct {
	board    *view.Board
	sessions atomic.Int64
}

// newCluster has a member m1 on this node, which leads, and m2.
func newCluster() *cluster {
	c := &cluster{}
	c.board = view.NewBoard(c.view("m1"))
	return c
}

func (c *cluster) model() model.Cluster {
	return model.Cluster{Name: "pg-test",
		Members:     []model.Member{{Name: "m1", Host: "10.0.0.1", PostgresPort: postgresPort}, {Name: "m2", Host: "10.0.0.2", PostgresPort: postgresPort}},
		Definitions: []model.Definition{{FullName: "pg-test-primary", IP: "127.0.0.1", Port: postgresPort}, {FullName: "pg-test-replica", IP: "127.0.0.1", Port: readsPort}}}
}

func (c *cluster) view(leader string) *view.View {
	v := &view.View{Cluster: "pg-test", At: time.Now()}
	for _, m := range c.model().Members {
		role := model.Replica
		if m.Name == leader {
			role = model.Primary
		}
		v.Members = append(v.Members, view.Member{Member: m, Live: role, Answered: time.Now()})
	}
	for i, d := range c.model().Definitions {
		v.Services = append(v.Services, view.Service{Service: model.Service{Definition: d}, Leads: i == 0})
	}
	return v
}

// lead has another member lead.
func (c *cluster) lead(member string) { c.board.Publish(c.view(member)) }

// hold is an operator's; it lasts longer than any test.
func (c *cluster) hold(t *testing.T) {
	t.Helper()
	now := time.Now()
	if _, taken := c.board.Hold(view.Hold{ID: "switchover", From: "m1", To: "m2", By: "test", Since: now, Until: now.Add(time.Hour)}, now); !taken {
		t.Fatal("the hold wasn't taken")
	}
}

func (c *cluster) release() { c.board.Release("switchover", time.Now()) }

func (c *cluster) offer() Offer {
	return Offer{Node: duty.Node{Host: "10.0.0.1", Own: []netip.Addr{netip.MustParseAddr("10.0.0.1")}, Clusters: []model.Cluster{c.model()}},
		Boards: map[string]*view.Board{"pg-test": c.board}}
}

// keeping is a Keeper that runs.
type keeping struct {
	*Keeper
	t    *testing.T
	stop func()
}

// keep runs a Keeper until the test or stop ends it.
func keep(t *testing.T, cfg *Config, c *cluster) *keeping {
	t.Helper()
	cfg.Sessions = func(string, string) int { return int(c.sessions.Load()) }
	k := New(*cfg)
	k.Follow(c.offer())
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		_ = k.Run(ctx)
	}()
	stop := func() {
		cancel()
		<-ended
	}
	t.Cleanup(stop)
	return &keeping{k, t, stop}
}

// database is what the status says of one.
func (k *keeping) database(name string) (Database, bool) {
	all := k.Status()[0].Databases
	if i := slices.IndexFunc(all, func(d Database) bool { return d.Name == name }); i >= 0 {
		return all[i], true
	}
	return Database{}, false
}

// does waits until a database is in a state.
func (k *keeping) does(name string, s State) {
	k.t.Helper()
	until(k.t, fmt.Sprintf("%s is in state %d", name, s), func() bool {
		d, there := k.database(name)
		return there && d.State == s
	})
}

// client connects to a database of the PgBouncer.
func (b *bouncer) client(name string) *pgconn.PgConn {
	b.t.Helper()
	config, err := pgconn.ParseConfig(fmt.Sprintf("host=%s port=%d user=app password=secret dbname='%s'", b.dir, poolPort, name))
	if err != nil {
		b.t.Fatal(err)
	}
	config.RuntimeParams["application_name"] = "patient"
	c, err := pgconn.ConnectConfig(context.Background(), config)
	if err != nil {
		b.t.Fatal(err)
	}
	b.t.Cleanup(func() { _ = c.Close(context.Background()) })
	return c
}

func query(t *testing.T, c *pgconn.PgConn, text string) {
	t.Helper()
	if _, err := c.Exec(context.Background(), text).ReadAll(); err != nil {
		t.Errorf("%s: %v", text, err)
	}
}

// crowd are clients that write without end.
type crowd struct {
	done    atomic.Int64
	stopped atomic.Bool
	all     sync.WaitGroup
}

func (b *bouncer) crowd(n int, name string) *crowd {
	w := &crowd{}
	for i := range n {
		c := b.client(name)
		w.all.Go(func() {
			for turn := 0; !w.stopped.Load() && !b.t.Failed(); turn++ {
				for _, text := range []string{"begin", fmt.Sprintf("insert into done values (%d, %d)", i, turn), "commit"} {
					query(b.t, c, text)
				}
				w.done.Add(1)
				time.Sleep(time.Millisecond)
			}
		})
	}
	return w
}

// goesOn waits until clients have done more.
func (w *crowd) goesOn(t *testing.T, n int64) {
	t.Helper()
	target := w.done.Load() + n
	until(t, "clients go on", func() bool { return w.done.Load() >= target })
}

func (w *crowd) stop() {
	w.stopped.Store(true)
	w.all.Wait()
}

func TestClientsLoseNothing(t *testing.T) {
	b, c := startBouncer(t), newCluster()
	k := keep(t, b.config(), c)
	k.does(front, Running)
	w := b.crowd(20, front)
	defer w.stop()
	for range 3 {
		w.goesOn(t, 100)
		c.hold(t)
		k.does(front, Paused)
		k.does(behind, Paused)
		if d, _ := k.database(reads); d.State != Running {
			t.Error("a database of a service for readers is paused")
		}
		before := w.done.Load()
		until(t, "all clients wait", func() bool {
			d, _ := k.database(front)
			return d.Waiting == 20 && d.Active == 0
		})
		// The server's connections are gone: nothing of the old primary's is in the way.
		if rows := b.say("SHOW SERVERS"); len(rows) != 0 {
			t.Errorf("PgBouncer has connections with its server: %v", rows)
		}
		if n := w.done.Load(); n > before+20 {
			t.Errorf("%d transactions were done while the database was paused", n-before)
		}
		c.release()
		k.does(front, Running)
	}
	w.goesOn(t, 100)
	w.stop()
	rows, err := b.client(front).Exec(context.Background(), "select count(*) from done").ReadAll()
	if err != nil {
		t.Fatal(err)
	}
	if got := string(rows[0].Rows[0][0]); got != strconv.FormatInt(w.done.Load(), 10) {
		t.Errorf("%s rows, the clients wrote %d", got, w.done.Load())
	}
	if n := b.told("PAUSE", front); n != 3 {
		t.Errorf("PAUSE was said %d times for 3 holds", n)
	}
	if n := b.told("RECONNECT", reads); n != 3 {
		t.Errorf("readers were told to reconnect %d times in 3 holds with a member that is to lead", n)
	}
	for _, never := range []string{"elsewhere", "pgbouncer"} {
		if _, there := k.database(never); there || b.told("PAUSE", never)+b.told("RECONNECT", never) > 0 {
			t.Errorf("%s was touched, or is told of", never)
		}
	}
}

// A role that changes has PgBouncer's connections renewed, and clients of the old leader's wait until their sessions are over.
func TestOldLeadersClientsWait(t *testing.T) {
	b, c := startBouncer(t), newCluster()
	c.sessions.Store(3)
	k := keep(t, b.config(), c)
	k.does(behind, Running)
	c.hold(t)
	k.does(behind, Paused)
	c.lead("m2")
	until(t, "RECONNECT came", func() bool { return b.told("RECONNECT", behind) == 1 })
	c.release()
	k.does(front, Running)
	if !b.paused(behind) {
		t.Error("clients were let go while sessions of the old leader's were there")
	}
	c.sessions.Store(0)
	k.does(behind, Running)
	if n := b.told("RECONNECT", reads); n != 2 {
		t.Errorf("readers were told to reconnect %d times: once for who is to lead, once for who leads", n)
	}
	if n := b.told("RECONNECT", front); n != 0 {
		t.Errorf("RECONNECT in front of the leader's service: %d", n)
	}
}

func TestStopLetsGo(t *testing.T) {
	b, c := startBouncer(t), newCluster()
	k := keep(t, b.config(), c)
	c.hold(t)
	k.does(front, Paused)
	k.stop()
	if b.paused(front) || b.paused(behind) {
		t.Error("a database is paused after the stop")
	}
	if left, _ := filepath.Glob(filepath.Join(b.dir, "pgporter-paused*")); len(left) > 0 {
		t.Errorf("left: %v", left)
	}
}

// After an upgrade the next process goes on with a pause.
func TestHandOver(t *testing.T) {
	b, c := startBouncer(t), newCluster()
	first := keep(t, b.config(), c)
	c.hold(t)
	first.does(front, Paused)
	first.HandOver()
	first.stop()
	second := keep(t, b.config(), c)
	second.does(front, Paused)
	c.release()
	second.does(front, Running)
	if p, r := b.told("PAUSE", front), b.told("RESUME", front); p != 1 || r != 1 {
		t.Errorf("PAUSE %d times, RESUME %d times: want once each", p, r)
	}
}

// victim is a pgporter that pauses and is killed.
func victim(dir string) {
	b, c := &bouncer{dir: dir}, newCluster()
	k := New(*b.config())
	k.Follow(c.offer())
	now := time.Now()
	c.board.Hold(view.Hold{ID: "victim", From: "m1", By: "test", Since: now, Until: now.Add(time.Hour)}, now)
	_ = k.Run(context.Background())
}

func TestKilled(t *testing.T) {
	b := startBouncer(t)
	b.say("PAUSE " + quoted(behind)) // an operator's
	victim := exec.Command(os.Args[0])
	victim.Env = append(os.Environ(), "POOL_TEST_VICTIM="+b.dir)
	victim.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := victim.Start(); err != nil {
		t.Fatal(err)
	}
	until(t, "it has paused", func() bool { return b.paused(front) })
	_ = victim.Process.Kill()
	_ = victim.Wait()
	if !b.paused(front) {
		t.Fatal("the pause ended with who ordered it")
	}
	w := make(chan struct{})
	go func() {
		defer close(w)
		query(t, b.client(front), "select 1")
	}()
	k := keep(t, b.config(), newCluster())
	<-w
	k.does(front, Running)
	k.does(behind, Paused)
	if left, _ := filepath.Glob(filepath.Join(b.dir, "pgporter-paused*")); len(left) > 0 {
		t.Errorf("left: %v", left)
	}
	if n := b.told("RESUME", behind); n != 0 {
		t.Error("an operator's pause was ended")
	}
	b.say("RESUME " + quoted(behind))
}

func TestOthersPauses(t *testing.T) {
	b, c := startBouncer(t), newCluster()
	k := keep(t, b.config(), c)
	b.say("PAUSE " + front)
	k.does(front, Paused)
	c.hold(t)
	k.does(behind, Paused)
	// Who resumes what we have paused is left to it.
	b.say("RESUME " + quoted(behind))
	k.does(behind, Running)
	c.release()
	k.does(front, Paused)
	if n := b.told("PAUSE", behind); n != 1 || b.paused(behind) {
		t.Errorf("what somebody resumed was paused again: %d times", n)
	}
	if n := b.told("RESUME", front); n != 0 || !b.paused(front) {
		t.Error("somebody else's pause was ended")
	}
	b.say("RESUME " + front)
	// All of PgBouncer.
	b.say("PAUSE")
	c.hold(t)
	k.does(front, Paused)
	b.say("RESUME")
	until(t, "it is paused by us then", func() bool { return b.paused(front) })
	c.release()
	k.does(front, Running)
}

func TestLongTransactionIsNamed(t *testing.T) {
	b, c := startBouncer(t), newCluster()
	k := keep(t, b.config(), c)
	k.does(front, Running)
	long := b.client(front)
	query(t, long, "begin")
	query(t, long, "select 1")
	c.hold(t)
	k.does(front, Pausing)
	k.does(behind, Paused)
	until(t, "it is said who is waited for", func() bool {
		d, _ := k.database(front)
		return len(d.Busy) == 1 && d.Active == 1 && strings.HasPrefix(d.Busy[0], "app from unix") && strings.HasSuffix(d.Busy[0], "application patient")
	})
	waits := make(chan struct{})
	go func() {
		defer close(waits)
		query(t, b.client(front), "select 2")
	}()
	// Given up: the pause ends though it was never complete.
	c.release()
	k.does(front, Running)
	<-waits
	c.hold(t)
	k.does(front, Pausing)
	query(t, long, "commit")
	k.does(front, Paused)
	c.release()
	k.does(front, Running)
	query(t, long, "select 3")
}

func TestWrongCredentials(t *testing.T) {
	b, c := startBouncer(t), newCluster()
	problem := func(k *keeping, has string) {
		t.Helper()
		until(t, "a problem with "+has, func() bool { return strings.Contains(k.Status()[0].Problem, has) })
	}
	cfg := b.config()
	cfg.Password = func() (string, error) { return "wrong", nil }
	problem(keep(t, cfg, c), "password authentication failed")
	cfg = b.config()
	cfg.User = "looker"
	looker := keep(t, cfg, c)
	problem(looker, "looker isn't one of its admin_users")
	c.hold(t)
	problem(looker, "admin access needed")
	c.release()
	cfg = b.config()
	cfg.Addresses = []Address{{b.dir, poolPort + 1}}
	problem(keep(t, cfg, c), "no such file")
}

func TestRestartedInThePause(t *testing.T) {
	b, c := startBouncer(t), newCluster()
	k := keep(t, b.config(), c)
	c.hold(t)
	k.does(front, Paused)
	end(b.process)
	until(t, "it is told of", func() bool { return k.Status()[0].Problem != "" })
	b.start()
	until(t, "it is paused again", func() bool { return b.paused(front) })
	k.does(front, Paused)
	c.release()
	k.does(front, Running)
}

func TestHanging(t *testing.T) {
	b, c := startBouncer(t), newCluster()
	k := keep(t, b.config(), c)
	c.hold(t)
	k.does(front, Paused)
	_ = b.process.Process.Signal(syscall.SIGSTOP)
	until(t, "it is told of", func() bool { return strings.Contains(k.Status()[0].Problem, "no answer in") })
	c.release()
	_ = b.process.Process.Signal(syscall.SIGCONT)
	k.does(front, Running)
	c.hold(t)
	k.does(front, Paused)
	_ = b.process.Process.Signal(syscall.SIGSTOP)
	k.stop() // whoever can't be told isn't waited for
	_ = b.process.Process.Signal(syscall.SIGCONT)
	if !b.paused(front) {
		t.Fatal("who resumed it?")
	}
	next := keep(t, b.config(), newCluster())
	next.does(front, Running)
}
