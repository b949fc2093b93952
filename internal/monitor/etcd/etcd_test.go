package etcd

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"go.uber.org/zap"
)

// host is the loopback address that the tests' etcd listens on; its ports are free ones.
const host = "127.0.98.1"

// patience bounds what takes next to no time where there is a processor for it.
const patience = time.Minute

// etcd is a server of one test. It is the real one: a test fails where it isn't installed.
type etcd struct {
	t       *testing.T
	scheme  string
	address string
	args    []string
	process *exec.Cmd
	log     string
	// admin is the test's own way to the keys.
	admin *clientv3.Client
}

// startEtcd runs a server until the test ends.
func startEtcd(t *testing.T, args ...string) *etcd {
	t.Helper()
	e := &etcd{t: t, scheme: "http", address: freeAddress(t)}
	if slices.ContainsFunc(args, func(a string) bool { return strings.HasPrefix(a, "--cert-file") }) {
		e.scheme = "https"
	}
	dir := t.TempDir()
	e.log = filepath.Join(dir, "log")
	clients, peers := e.scheme+"://"+e.address, "http://"+freeAddress(t)
	e.args = append([]string{
		"--name", "one", "--data-dir", filepath.Join(dir, "data"), "--listen-client-urls", clients, "--advertise-client-urls", clients,
		"--listen-peer-urls", peers, "--initial-advertise-peer-urls", peers, "--initial-cluster", "one=" + peers,
	}, args...)
	t.Cleanup(e.kill)
	e.start()
	return e
}

func freeAddress(t *testing.T) string {
	t.Helper()
	listener, err := net.Listen("tcp", host+":0")
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	return listener.Addr().String()
}

// start runs the server; whoever connects finds it or tries again.
func (e *etcd) start() {
	e.t.Helper()
	log, err := os.OpenFile(e.log, os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o600)
	if err != nil {
		e.t.Fatal(err)
	}
	defer log.Close()
	e.process = exec.Command("etcd", e.args...)
	e.process.Stdout, e.process.Stderr = log, log
	if err := e.process.Start(); err != nil {
		e.process = nil
		e.t.Fatalf("etcd (Debian's package etcd-server) is needed: %v", err)
	}
}

// kill ends the server at once.
func (e *etcd) kill() {
	if e.process == nil {
		return
	}
	e.process.Process.Kill()
	e.process.Wait()
	e.process = nil
	if e.t.Failed() {
		text, _ := os.ReadFile(e.log)
		e.t.Logf("etcd's log (its end):\n%s", text[max(0, len(text)-3000):])
	}
}

func (e *etcd) signal(s syscall.Signal) {
	e.t.Helper()
	if err := e.process.Process.Signal(s); err != nil {
		e.t.Fatal(err)
	}
	if s != syscall.SIGSTOP {
		return
	}
	// It may answer until each of its threads has stopped.
	var status syscall.WaitStatus
	if _, err := syscall.Wait4(e.process.Process.Pid, &status, syscall.WUNTRACED, nil); err != nil || !status.Stopped() {
		e.t.Fatalf("etcd hasn't stopped: %v, status %x", err, status)
	}
}

// connect makes the admin client and waits until the server answers it.
func (e *etcd) connect(config clientv3.Config) *etcd {
	e.t.Helper()
	config.Endpoints, config.Logger, config.DialTimeout = []string{e.scheme + "://" + e.address}, zap.NewNop(), patience
	admin, err := clientv3.New(config)
	if err != nil {
		e.t.Fatal(err)
	}
	e.t.Cleanup(func() { admin.Close() })
	e.admin = admin
	e.do(func(ctx context.Context) error { _, err := admin.Get(ctx, "/"); return err })
	return e
}

// do runs one of the admin's requests.
func (e *etcd) do(request func(ctx context.Context) error) {
	e.t.Helper()
	ctx, cancel := context.WithTimeout(e.t.Context(), patience)
	defer cancel()
	if err := request(ctx); err != nil {
		e.t.Fatalf("etcd: %v", err)
	}
}

func (e *etcd) put(key, value string) {
	e.t.Helper()
	e.do(func(ctx context.Context) error { _, err := e.admin.Put(ctx, key, value); return err })
}

func (e *etcd) remove(key string) {
	e.t.Helper()
	e.do(func(ctx context.Context) error { _, err := e.admin.Delete(ctx, key); return err })
}

// following is a running Watcher with what it delivered.
type following struct {
	t        *testing.T
	readings chan Reading
}

// follow runs a Watcher of the path /pg/pg-test until the test ends.
func follow(t *testing.T, cfg Config, change func(*Watcher)) *following {
	t.Helper()
	e, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	return run(t, e.Watch("/pg/pg-test"), change)
}

func run(t *testing.T, w *Watcher, change func(*Watcher)) *following {
	f := &following{t, make(chan Reading, 100)}
	if change != nil {
		change(w)
	}
	ctx, cancel := context.WithCancel(context.Background())
	var joined sync.WaitGroup
	var last *Reading
	joined.Go(func() {
		w.Run(ctx, func(ctx context.Context, r Reading) {
			if r.Lost == "" && (r.Read.IsZero() || last != nil && r.Read.Before(last.Read)) {
				t.Errorf("%q was read at %v, the one before at %v", short(r), r.Read, last)
			}
			// One that only confirms the one before is no news, and no WAL position is.
			confirms := last != nil
			if confirms {
				again := *last
				again.Read, again.Optime = r.Read, r.Optime
				confirms = again.Equal(r)
			}
			last = &r
			if confirms {
				return
			}
			select {
			case f.readings <- r:
			case <-ctx.Done():
			}
		})
	})
	t.Cleanup(func() {
		cancel()
		joined.Wait()
	})
	return f
}

// every runs a Watcher until the test ends and keeps each Reading, also those that only confirm the one before. Those that
// nobody takes hold the Watcher up.
func every(t *testing.T, w *Watcher) *following {
	f := &following{t, make(chan Reading)}
	ctx, cancel := context.WithCancel(context.Background())
	var joined sync.WaitGroup
	joined.Go(func() {
		w.Run(ctx, func(ctx context.Context, r Reading) {
			select {
			case f.readings <- r:
			case <-ctx.Done():
			}
		})
	})
	t.Cleanup(func() {
		cancel()
		joined.Wait()
	})
	return f
}

// next gives the next Reading.
func (f *following) next() Reading {
	f.t.Helper()
	select {
	case r := <-f.readings:
		return r
	case <-time.After(patience):
		f.t.Fatal("nothing was delivered")
		return Reading{}
	}
}

// says asserts the next Reading, as short has it.
func (f *following) says(want string) Reading {
	f.t.Helper()
	r := f.next()
	if got := short(r); got != want {
		f.t.Fatalf("delivered %q, want %q", got, want)
	}
	return r
}

// quiet asserts that nothing more was delivered.
func (f *following) quiet() {
	f.t.Helper()
	select {
	case r := <-f.readings:
		f.t.Errorf("delivered %q", short(r))
	default:
	}
}

// lost asserts that the next Reading says that etcd is lost, and why.
func (f *following) lost(why string) {
	f.t.Helper()
	r := f.next()
	if !strings.Contains(r.Lost, why) || !r.Equal(Reading{Lost: r.Lost}) {
		f.t.Fatalf("delivered %+v, want it to be lost: %s", r, why)
	}
}

// back asserts the next Reading that isn't lost. A server that starts has other reasons to be lost than one that is dead.
func (f *following) back(want string) {
	f.t.Helper()
	r := f.next()
	for r.Lost != "" {
		r = f.next()
	}
	if got := short(r); got != want {
		f.t.Fatalf("delivered %q, want %q", got, want)
	}
}

// short is a Reading without revisions.
func short(r Reading) string {
	if r.Lost != "" {
		return "lost: " + r.Lost
	}
	text := "leader " + r.Leader
	if r.Failover != "" {
		text += ", failover " + r.Failover
	}
	if r.System != "" {
		text += ", system " + r.System
	}
	if r.Standby {
		text += ", standby"
	}
	for _, m := range r.Members {
		text += ", " + strings.Join([]string{m.Name, m.Role, m.State}, " ")
	}
	return text
}

// until waits for a condition that nothing signals.
func until(t *testing.T, what string, holds func() bool) {
	t.Helper()
	for end := time.Now().Add(patience); !holds(); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal(what)
		}
	}
}

var errNone = errors.New("none")

func fixed(password string) func() (string, error) {
	return func() (string, error) {
		if password == "none" {
			return "", errNone
		}
		return password, nil
	}
}

func at(e *etcd) Config { return Config{Endpoints: []string{fmt.Sprint(e.address)}} }
