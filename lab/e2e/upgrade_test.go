package e2e

import (
	"bufio"
	"bytes"
	"context"
	"crypto/md5"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"hash/crc32"
	"io"
	"net"
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

	wire "github.com/miekg/dns"

	"github.com/pgporter/pgporter/internal/admin/api"
	"github.com/pgporter/pgporter/lab/sandbox"
)

// upgradesUnderLoad has pgporters take over from each other on the node that clients use: with fifty clients of pgbench that stay
// and some that come and go, with questions for names and for the status without a pause, with a stream of half a GB, and in ways
// that can't work.
func upgradesUnderLoad(t *testing.T) {
	const names = "5363"
	systemd := hearNotices(t)
	c := up(t, 97, sandbox.Config{Fall: patient, BinaryArgs: []string{"--dns=*:" + names}, BinaryEnv: []string{"NOTIFY_SOCKET=" + systemd.path}})
	node := c.member(2)
	c.expect(afterFailover, serves{direct, []instance{at(c.member(1), false)}})
	u := upgrades{t, c, node, systemd}

	t.Run("five under load", func(t *testing.T) {
		ctx, stop := context.WithCancel(t.Context())
		var loads sync.WaitGroup
		defer loads.Wait()
		defer stop()
		loads.Go(func() { asksForNames(t, ctx, net.JoinHostPort(node, names)) })
		loads.Go(func() { asksForStatus(t, ctx, node) })
		pgbench := func(args ...string) *exec.Cmd {
			command := exec.CommandContext(t.Context(), "pgbench", append([]string{"-n", "-h", node, "-p", strconv.Itoa(direct.port), "-U", direct.user},
				append(args, direct.database)...)...)
			command.Env = append(os.Environ(), "PGPASSWORD="+direct.password, "PGSSLMODE=disable")
			return command
		}
		if out, err := pgbench("-i", "-q").CombinedOutput(); err != nil {
			t.Fatalf("pgbench -i: %v\n%s", err, out)
		}
		ready := make(chan struct{})
		for _, load := range []string{"-c 50 -j 2 -b simple-update -M prepared -R 400", "-c 3 -S -C -R 20"} {
			command := pgbench(strings.Fields(load + " -T 600 -P 1")...)
			var out bytes.Buffer
			progress, err := command.StderrPipe()
			if err != nil {
				t.Fatal(err)
			}
			command.Stdout = &out
			if err := command.Start(); err != nil {
				t.Fatal(err)
			}
			loads.Go(func() {
				// It tells its progress once all its clients are connected; it stops by itself on SIGINT no sooner than we want it to.
				var said strings.Builder
				for lines := bufio.NewScanner(progress); lines.Scan(); {
					said.WriteString(lines.Text() + "\n")
					if strings.HasPrefix(lines.Text(), "progress:") {
						select {
						case ready <- struct{}{}:
						default:
						}
					}
					if strings.Contains(lines.Text(), "error") || strings.Contains(lines.Text(), "aborted") {
						t.Errorf("pgbench %s says: %s", load, lines.Text())
					}
				}
				err := command.Wait()
				var exit *exec.ExitError
				if ctx.Err() == nil || errors.As(err, &exit) && exit.Exited() {
					t.Errorf("pgbench %s ended: %v\n%s%s", load, err, said.String(), out.String())
				}
			})
			// The test's end is the load's.
			loads.Go(func() {
				<-ctx.Done()
				_ = command.Process.Signal(syscall.SIGTERM)
			})
			<-ready
		}
		before := u.status()
		for range 5 {
			began := time.Now()
			is := u.upgrade()
			t.Logf("upgraded in %s: %d sessions, %d clients without one", time.Since(began).Round(time.Millisecond), is.Upgrade.Sessions, is.Upgrade.Clients)
			if is.Upgrade.Sessions < 50 {
				t.Errorf("%d sessions were taken over, there are 50 at least", is.Upgrade.Sessions)
			}
			// A load has gone on before the next.
			select {
			case <-ready:
			case <-time.After(patience):
				t.Fatal("pgbench tells of no progress")
			}
		}
		is, was := u.traffic(u.status()), u.traffic(before)
		if is.Sessions < 50 || is.Total < was.Total {
			t.Errorf("before %+v, after %+v", was, is)
		}
	})

	t.Run("a stream of half a GB through three", func(t *testing.T) {
		const rows, repeated = 16 << 10, 1024
		query := fmt.Sprintf("copy (select repeat(md5(i::text), %d) from generate_series(1, %d) i) to stdout", repeated, rows)
		command := exec.CommandContext(t.Context(), "psql", "-X", "-c", query,
			fmt.Sprintf("postgres://%s:%s@%s:%d/%s?sslmode=disable", direct.user, direct.password, node, direct.port, direct.database))
		out, err := command.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		var complaint bytes.Buffer
		command.Stderr = &complaint
		if err := command.Start(); err != nil {
			t.Fatal(err)
		}
		table := crc32.MakeTable(crc32.Castagnoli)
		got, want := crc32.New(table), crc32.New(table)
		moved := &counter{Hash: got}
		buffer := make([]byte, 1<<20)
		for range 3 {
			until := moved.n + rows*repeated*32/4
			if _, err := io.CopyBuffer(moved, io.LimitReader(out, until-moved.n), buffer); err != nil {
				t.Fatal(err)
			}
			u.upgrade()
		}
		if _, err := io.CopyBuffer(moved, out, buffer); err != nil {
			t.Fatal(err)
		}
		if err := command.Wait(); err != nil {
			t.Fatalf("psql: %v\n%s", err, complaint.String())
		}
		for i := 1; i <= rows; i++ {
			sum := md5.Sum([]byte(strconv.Itoa(i)))
			line := append(bytes.Repeat([]byte(hex.EncodeToString(sum[:])), repeated), '\n')
			want.Write(line)
		}
		if moved.n != rows*(repeated*32+1) || got.Sum32() != want.Sum32() {
			t.Errorf("%d bytes came, or other ones", moved.n)
		}
	})

	t.Run("in vain", func(t *testing.T) {
		session := c.hold(node, direct)
		text, err := os.ReadFile(c.Inventory())
		if err != nil {
			t.Fatal(err)
		}
		write := func(text []byte) {
			t.Helper()
			if err := os.WriteFile(c.Inventory(), text, 0o644); err != nil {
				t.Fatal(err)
			}
		}
		write(append(bytes.Clone(text), "  broken: [\n"...))
		before := u.status()
		out, err := u.run()
		if err == nil || !strings.Contains(out, "the YAML can't be read") || !strings.Contains(out, fmt.Sprintf("pid %d goes on", before.PID)) {
			t.Errorf("with a broken inventory: %v\n%s", err, out)
		}
		if is := u.status(); is.PID != before.PID || is.Upgrade == nil || is.Upgrade.Problem == "" {
			t.Errorf("afterwards process %d: %+v", is.PID, is.Upgrade)
		}
		session.lives(t)
		write(text)
		u.upgrade()
		session.lives(t)
		c.expect(afterFailover, serves{direct, []instance{at(c.member(1), false)}})
	})
}

// counter is a hash that knows how much it has got.
type counter struct {
	hash.Hash
	n int64
}

func (c *counter) Write(p []byte) (int, error) {
	c.n += int64(len(p))
	return c.Hash.Write(p)
}

// upgrades are those of one node.
type upgrades struct {
	t    *testing.T
	c    *cluster
	node string
	*notices
}

// run is pgporter upgrade.
func (u upgrades) run() (string, error) {
	out, err := exec.CommandContext(u.t.Context(), binary, "upgrade", "--admin", u.node).CombinedOutput()
	return string(out), err
}

// upgrade has the node's pgporter replaced, and waits until the old process is gone.
func (u upgrades) upgrade() *api.Status {
	u.t.Helper()
	before := u.status()
	out, err := u.run()
	if err != nil {
		u.t.Fatalf("pgporter upgrade: %v\n%s", err, out)
	}
	eventually(u.t, patience, func(context.Context) error {
		if sandbox.Runs(before.PID) {
			return fmt.Errorf("process %d is still there", before.PID)
		}
		return nil
	})
	is := u.status()
	if is.PID == before.PID || is.Upgrade == nil || is.Upgrade.PID != before.PID {
		u.t.Fatalf("process %d took over from %d: %+v", is.PID, before.PID, is.Upgrade)
	}
	if pid, running := u.c.PID("2/pgporter"); !running || pid != is.PID {
		u.t.Errorf("the sandbox takes process %d (running: %t) for the pgporter", pid, running)
	}
	u.has(u.t, fmt.Sprintf("MAINPID=%d", is.PID))
	return is
}

// notices take the place of systemd: what programs tell it (sd_notify(3)).
type notices struct {
	path string
	mu   sync.Mutex
	all  []string
}

// hearNotices opens a socket like systemd's, where the sandbox's user may write.
func hearNotices(t *testing.T) *notices {
	t.Helper()
	dir, err := os.MkdirTemp("", "pgporter-notify-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	n := &notices{path: filepath.Join(dir, "socket")}
	socket, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Net: "unixgram", Name: n.path})
	if err = errors.Join(err, os.Chmod(dir, 0o755), os.Chmod(n.path, 0o777)); err != nil {
		t.Fatal(err)
	}
	var hearing sync.WaitGroup
	hearing.Go(func() {
		notice := make([]byte, 4096)
		for {
			k, err := socket.Read(notice)
			if err != nil {
				return
			}
			n.mu.Lock()
			n.all = append(n.all, string(notice[:k]))
			n.mu.Unlock()
		}
	})
	t.Cleanup(func() {
		socket.Close()
		hearing.Wait()
	})
	return n
}

// has fails the test unless a notice came.
func (n *notices) has(t *testing.T, notice string) {
	t.Helper()
	n.mu.Lock()
	defer n.mu.Unlock()
	if !slices.Contains(n.all, "READY=1") || !slices.Contains(n.all, notice) {
		t.Errorf("systemd was sent %q, and not %s", n.all, notice)
	}
}

func (u upgrades) status() *api.Status {
	u.t.Helper()
	s, err := api.Client{Address: net.JoinHostPort(u.node, api.DefaultPort)}.Status(u.t.Context())
	if err != nil {
		u.t.Fatal(err)
	}
	return s
}

// traffic is the one of the service default.
func (u upgrades) traffic(s *api.Status) api.Service {
	u.t.Helper()
	for _, svc := range s.Clusters[0].Services {
		if svc.FullName == "pg-test-default" {
			return svc
		}
	}
	u.t.Fatal("no service default")
	return api.Service{}
}

// asksForNames asks over UDP, a hundred times a second, until ctx ends. No question may stay without its answer.
func asksForNames(t *testing.T, ctx context.Context, server string) {
	client := wire.Client{Timeout: patience}
	asked := 0
	again := time.NewTicker(10 * time.Millisecond)
	defer again.Stop()
	for ; ctx.Err() == nil; <-again.C {
		question := new(wire.Msg)
		question.SetQuestion("pg-test.", wire.TypeA)
		answer, _, err := client.Exchange(question, server)
		if err != nil || answer.Rcode != wire.RcodeSuccess || len(answer.Answer) != 1 {
			t.Errorf("question %d: %v\n%v", asked, err, answer)
			return
		}
		asked++
	}
	t.Logf("%d questions for names were answered", asked)
}

// asksForStatus asks until ctx ends. There is always somebody who answers.
func asksForStatus(t *testing.T, ctx context.Context, node string) {
	asked := 0
	again := time.NewTicker(50 * time.Millisecond)
	defer again.Stop()
	for ; ctx.Err() == nil; <-again.C {
		if _, err := (api.Client{Address: net.JoinHostPort(node, api.DefaultPort)}).Status(t.Context()); err != nil {
			t.Errorf("question %d for the status: %v", asked, err)
			return
		}
		asked++
	}
	t.Logf("%d questions for the status were answered", asked)
}
