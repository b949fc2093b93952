package e2e

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/pgporter/pgporter/internal/admin/api"
)

// migration is a HAProxy and its shadow, which is no root's, between which services go to and fro.
type migration struct {
	*cluster
	balancer *balancer
	shadow   *porter
	args     []string
	user     *syscall.Credential
	address  string
}

// nobody is the user that the shadow is run as.
const nobody = 65534

// migrate starts both. Only root may look into HAProxy.
func (c *cluster) migrate(t *testing.T, address string) *migration {
	t.Helper()
	if os.Getuid() != 0 {
		t.Skip("services are taken from HAProxy by root")
	}
	dir, err := os.MkdirTemp("", "pgporter-mig-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	plan, state := filepath.Join(dir, "plan.json"), filepath.Join(dir, "state")
	if out, err := exec.Command(binary, "plan", "--inventory", c.Inventory(), "--node", c.member(1), "--out", plan).CombinedOutput(); err != nil {
		t.Fatalf("plan: %v\n%s", err, out)
	}
	if err := errors.Join(os.Chmod(dir, 0o755), os.Chmod(plan, 0o644), os.Mkdir(state, 0o755), os.Chown(state, nobody, nobody)); err != nil {
		t.Fatal(err)
	}
	m := &migration{cluster: c, balancer: startBalancer(t, c.Inventory(), c.member(1), address), address: address, user: &syscall.Credential{Uid: nobody, Gid: nobody}}
	// It has no access to the socket, as on a node.
	m.args = []string{"--shadow", "--haproxy-page", m.balancer.page(t), "--haproxy-password-file", m.balancer.password(t), "--plan", plan, "--node", c.member(1), "--state-dir", state, "--etcd", c.Etcd()}
	m.shadow = startPorterAs(t, m.user, address, m.args...)
	m.compares(t)
	return m
}

// compares waits until HAProxy and the shadow have been compared, and agree.
func (m *migration) compares(t *testing.T) {
	t.Helper()
	eventually(t, afterFailover, func(ctx context.Context) error {
		s, err := m.shadow.status(ctx)
		switch {
		case err != nil:
			return err
		case s.Shadow == nil || s.Shadow.Answered == nil || s.Shadow.Silent != "":
			return fmt.Errorf("HAProxy isn't compared: %+v", s.Shadow)
		case len(s.Shadow.Standing) > 0:
			return fmt.Errorf("they disagree: %s", s.Shadow.Standing[0].Text)
		}
		return nil
	})
}

// takeover is the command, by root.
func (m *migration) takeover(t *testing.T, args ...string) string {
	t.Helper()
	out, err := m.tryTakeover(args...)
	if err != nil {
		t.Fatalf("takeover %v: %v\n%s", args, err, out)
	}
	return out
}

func (m *migration) tryTakeover(args ...string) (string, error) {
	args = append([]string{"takeover", "--pid", strconv.Itoa(m.shadow.cmd.Process.Pid), "--haproxy-socket", m.balancer.socket}, args...)
	if slices.Contains(args, "--back") {
		args = append(args, "--haproxy-reload", "kill -USR2 "+strconv.Itoa(m.balancer.cmd.Process.Pid))
	}
	out, err := exec.Command(binary, args...).CombinedOutput()
	return string(out), err
}

// serves asserts by the status which services are served by the shadow.
func (m *migration) serves(t *testing.T, want ...string) {
	t.Helper()
	s, err := m.shadow.status(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	var taken []string
	for _, service := range s.Clusters[0].Services {
		if !service.Shadow {
			taken = append(taken, service.FullName)
		}
	}
	slices.Sort(taken)
	if !slices.Equal(taken, want) || !slices.Equal(s.Shadow.Taken, want) {
		t.Errorf("the shadow serves %v and says %v, not %v", taken, s.Shadow.Taken, want)
	}
}

// everything are the services of the cluster.
var everything = []string{"pg-test-default", "pg-test-offline", "pg-test-primary", "pg-test-replica"}

// flood are clients that connect, ask who they are connected with, and leave, again and again.
type flood struct {
	stop func()
	// done are all that came, failed those that weren't served, and refused those of them that got no connection or were cut off before
	// they had one; wrong are those that were led to a standby. first is what the first failure was.
	done, failed, refused, wrong atomic.Int64
	mu                           sync.Mutex
	first                        error
}

// flood has clients come to the direct service until it is stopped.
func (m *migration) flood(t *testing.T, clients int) *flood {
	t.Helper()
	f := &flood{}
	ctx, stop := context.WithCancel(t.Context())
	var coming sync.WaitGroup
	for range clients {
		coming.Go(func() {
			for ctx.Err() == nil {
				// Whoever has begun goes on to the end.
				i, err := ask(context.WithoutCancel(ctx), m.address, direct)
				switch {
				case err != nil:
					f.failed.Add(1)
					if errors.Is(err, syscall.ECONNREFUSED) || errors.Is(err, syscall.ECONNRESET) {
						f.refused.Add(1)
					}
					f.mu.Lock()
					if f.first == nil {
						f.first = err
					}
					f.mu.Unlock()
				case i.recovery:
					f.wrong.Add(1)
				}
				f.done.Add(1)
			}
		})
	}
	f.stop = func() {
		stop()
		coming.Wait()
	}
	t.Cleanup(f.stop)
	return f
}

// after waits until some more clients have come.
func (f *flood) after(t *testing.T, n int64) {
	t.Helper()
	until := f.done.Load() + n
	eventually(t, patience, func(context.Context) error {
		if done := f.done.Load(); done < until {
			return fmt.Errorf("%d clients of %d", done, until)
		}
		return nil
	})
}

// toAndFro has all services taken and given back under load, with a session on either side that has to live.
func (m *migration) toAndFro(t *testing.T, f *flood, files bool) {
	t.Helper()
	old := m.hold(m.address, direct)
	served := m.counted(t)
	m.takeover(t)
	m.serves(t, everything...)
	f.after(t, 100)
	if now := m.counted(t); now < served+90 {
		t.Errorf("the shadow has served %d clients of 100", now-served)
	}
	m.alone(t)
	old.lives(t)
	if files {
		m.balancer.forget(t)
		old.lives(t)
	}
	own := m.hold(m.address, direct)
	m.takeover(t, "--back")
	m.serves(t)
	served = m.counted(t)
	f.after(t, 100)
	// Some may have been on their way when it was.
	if now := m.counted(t); now > served+20 {
		t.Errorf("the shadow has served %d clients after it gave its services back", now-served)
	}
	own.lives(t)
	own.Close(t.Context())
	old.lives(t)
	old.Close(t.Context())
}

// alone waits until HAProxy has been asked after a takeover, and says that it listens for nothing that was taken.
func (m *migration) alone(t *testing.T) {
	t.Helper()
	before := time.Now()
	eventually(t, patience, func(ctx context.Context) error {
		s, err := m.shadow.status(ctx)
		if err == nil && (!s.Shadow.Answered.After(before) || len(s.Shadow.Both) > 0) {
			err = fmt.Errorf("asked at %s, both serve %v", s.Shadow.Answered, s.Shadow.Both)
		}
		return err
	})
}

// counted is how many clients of the direct service the shadow has served.
func (m *migration) counted(t *testing.T) int64 {
	t.Helper()
	s, err := m.shadow.status(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	i := slices.IndexFunc(s.Clusters[0].Services, func(s api.Service) bool { return s.FullName == "pg-test-default" })
	return int64(s.Clusters[0].Services[i].Total)
}

// forget takes the services out of HAProxy's files, has it reload, and puts the files back.
func (h *balancer) forget(t *testing.T) {
	t.Helper()
	conf, away := filepath.Join(h.dir, "conf.d"), filepath.Join(h.dir, "away")
	if err := errors.Join(os.Rename(conf, away), os.Mkdir(conf, 0o755)); err != nil {
		t.Fatal(err)
	}
	if err := h.cmd.Process.Signal(syscall.SIGUSR2); err != nil {
		t.Fatal(err)
	}
	eventually(t, patience, func(ctx context.Context) error {
		servers, err := h.servers(ctx)
		if err == nil && len(servers) > 0 {
			err = fmt.Errorf("HAProxy still has %d servers", len(servers))
		}
		return err
	})
	if err := errors.Join(os.Remove(conf), os.Rename(away, conf)); err != nil {
		t.Fatal(err)
	}
}

// page is the URL of HAProxy's page, for its administrator.
func (h *balancer) page(t *testing.T) string {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(h.dir, "haproxy.cfg"))
	if err != nil {
		t.Fatal(err)
	}
	at, path := "", ""
	for line := range strings.Lines(string(text)) {
		switch words := strings.Fields(line); {
		case len(words) > 2 && words[0] == "stats" && words[1] == "uri":
			path = words[2]
		case len(words) > 1 && words[0] == "bind":
			at = words[1]
		}
	}
	return "http://admin@" + strings.Replace(at, "*", "127.0.0.1", 1) + path
}

// password is a file with the administrator's password, which is the shadow's.
func (h *balancer) password(t *testing.T) string {
	t.Helper()
	file := filepath.Join(h.dir, "password")
	if err := errors.Join(os.WriteFile(file, []byte("pigsty\n"), 0o600), os.Chown(file, nobody, nobody)); err != nil {
		t.Fatal(err)
	}
	return file
}

// takeover has services taken from a real HAProxy and given back under load: nobody is refused.
func (s shared) takeover(t *testing.T) {
	m := s.migrate(t, s.prefix+".34")
	f := m.flood(t, 4)
	f.after(t, 20)
	m.toAndFro(t, f, true)
	// A HAProxy that doesn't let go keeps the service.
	if out, err := m.tryTakeover("--haproxy-socket", m.balancer.weak(), "pg-test-default"); err == nil || !strings.Contains(out, "service pg-test-default stays HAProxy's: HAProxy refuses to shut its frontend down: Permission denied") {
		t.Errorf("HAProxy was to refuse: %v\n%s", err, out)
	}
	m.serves(t)
	f.after(t, 50)
	f.stop()
	if f.failed.Load() > 0 || f.wrong.Load() > 0 {
		t.Errorf("of %d clients %d failed, %d got to a standby; the first: %v", f.done.Load(), f.failed.Load(), f.wrong.Load(), f.first)
	}
	t.Logf("%d clients", f.done.Load())
	// What can't be done is said, and nothing has changed.
	for _, wrong := range []struct{ args, want string }{
		{"pg-test-nothing", "no service \"pg-test-nothing\" here; there are: pg-test-"},
		{"--back", "there is nothing to do: all services are HAProxy's already"},
		{"--back pg-test-default", "service pg-test-default is HAProxy's already"},
	} {
		if out, err := m.tryTakeover(strings.Fields(wrong.args)...); err == nil || !strings.Contains(out, wrong.want) {
			t.Errorf("takeover %s: %v\n%s", wrong.args, err, out)
		}
	}
}
