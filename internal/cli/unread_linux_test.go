package cli

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/pgporter/pgporter/internal/admin/api"
	"github.com/pgporter/pgporter/internal/cli/command"
)

// Where the pgporters of these tests, and the members that they connect to, have their ports.
const (
	unreadNode    = "127.0.105.1"
	unreadOther   = "127.0.105.2"
	unreadAdmin   = unreadNode + ":8432"
	unreadService = unreadNode + ":5433"
)

// pair is a cluster of two members. Its Patronis say who leads; its servers answer a line with their address.
type pair struct{ leader atomic.Pointer[string] }

func newPair(t *testing.T) *pair {
	t.Helper()
	p := &pair{}
	p.setLeader(unreadNode)
	var serving sync.WaitGroup
	t.Cleanup(serving.Wait) // last, when the listeners are closed
	for _, host := range []string{unreadNode, unreadOther} {
		patroni := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			role := "primary"
			if *p.leader.Load() != host {
				role = "replica"
				w.WriteHeader(http.StatusServiceUnavailable)
			}
			fmt.Fprintf(w, `{"state": "running", "role": %q, "timeline": 1, "patroni": {"version": "3.0.2", "scope": "pg-test"}}`, role)
		}))
		patroni.Listener.Close()
		patroni.Listener = listenAt(t, host+":8008")
		patroni.Start()
		t.Cleanup(patroni.Close)
		server := listenAt(t, host+":5432")
		serving.Go(func() {
			for {
				conn, err := server.Accept()
				if err != nil {
					return
				}
				serving.Go(func() {
					defer conn.Close()
					var said [64]byte
					if _, err := conn.Read(said[:]); err != nil {
						return
					}
					answer := host + "\n"
					if said[0] == 0 {
						answer = "N" // an SSLRequest
					}
					io.WriteString(conn, answer)
				})
			}
		})
		t.Cleanup(func() { server.Close() })
	}
	return p
}

func listenAt(t *testing.T, address string) net.Listener {
	t.Helper()
	l, err := net.Listen("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	return l
}

func (p *pair) setLeader(host string) { p.leader.Store(&host) }

// client comes to the service once and tells which server it was connected to.
func client() (string, error) {
	conn, err := net.Dial("tcp", unreadService)
	if err != nil {
		return "", err
	}
	defer conn.Close()
	conn.SetDeadline(time.Now().Add(10 * time.Second))
	if _, err := io.WriteString(conn, "who\n"); err != nil {
		return "", err
	}
	answer, err := io.ReadAll(conn)
	return strings.TrimSpace(string(answer)), err
}

// switchover makes a member the leader and tells how long it takes until the service's clients come to it.
func (p *pair) switchover(t *testing.T, to string) time.Duration {
	t.Helper()
	began := time.Now()
	p.setLeader(to)
	comesTrue(t, "clients are connected to "+to, func() bool {
		at, err := client()
		return err == nil && at == to
	})
	return time.Since(began)
}

// comesTrue waits for what only a failure keeps away for so long.
func comesTrue(t *testing.T, what string, holds func() bool) {
	t.Helper()
	for limit := time.Now().Add(30 * time.Second); !holds(); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(limit) {
			t.Fatalf("not within 30 s: %s", what)
		}
	}
}

// porting is a pgporter that runs as a process of its own.
type porting struct {
	*exec.Cmd
	ended chan struct{}
}

// startRun starts pgporter run with an inventory and a standard error, and ends it with the test.
func startRun(t *testing.T, inventory string, log *os.File) *porting {
	t.Helper()
	path := filepath.Join(t.TempDir(), "pigsty.yml")
	if err := os.WriteFile(path, []byte(inventory), 0o600); err != nil {
		t.Fatal(err)
	}
	return startPorter(t, log, "--inventory", path, "--node", unreadNode, "--log-level", "debug")
}

// startPorter starts pgporter run with arguments and a standard error, and ends it with the test.
func startPorter(t *testing.T, log *os.File, args ...string) *porting {
	t.Helper()
	p := &porting{Cmd: exec.Command("pgporter", append([]string{"run", "--bind", unreadNode, "--admin", unreadAdmin}, args...)...), ended: make(chan struct{})}
	p.Stderr = log
	if err := p.Start(); err != nil {
		t.Fatal(err)
	}
	go func() {
		defer close(p.ended)
		p.Wait()
	}()
	t.Cleanup(func() {
		p.Process.Kill()
		<-p.ended
	})
	return p
}

// serves waits until the pair's service has a server.
func (p *porting) serves(t *testing.T) {
	t.Helper()
	comesTrue(t, "pgporter serves", func() bool {
		s, err := statusOf()
		return err == nil && s.Clusters[0].Services[0].Up
	})
}

// exits waits for the end of the process, and for no longer than a log that nobody reads may delay it.
func (p *porting) exits(t *testing.T, status int) {
	t.Helper()
	select {
	case <-p.ended:
		if got := p.ProcessState.ExitCode(); got != status {
			t.Errorf("it ended with %s, want status %d", p.ProcessState, status)
		}
	case <-time.After(10 * time.Second):
		t.Error("it doesn't end")
	}
}

func statusOf() (*api.Status, error) {
	return api.Client{Address: unreadAdmin}.Status(context.Background())
}

// fullPipe is a pipe that takes no byte more until somebody reads.
func fullPipe(t *testing.T) (from, to *os.File) {
	t.Helper()
	var ends [2]int
	if err := unix.Pipe2(ends[:], unix.O_CLOEXEC|unix.O_NONBLOCK); err != nil {
		t.Fatal(err)
	}
	for filler := bytes.Repeat([]byte{'\n'}, 4096); ; {
		_, err := unix.Write(ends[1], filler)
		if errors.Is(err, unix.EAGAIN) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	// As a shell's or systemd's is: who writes waits.
	if err := unix.SetNonblock(ends[1], false); err != nil {
		t.Fatal(err)
	}
	from, to = os.NewFile(uintptr(ends[0]), "the log"), os.NewFile(uintptr(ends[1]), "standard error")
	t.Cleanup(func() {
		from.Close()
		to.Close()
	})
	return from, to
}

// crowd has clients come and go, each of whom is a line of the log, until stop is called or the test ends.
func crowd(t *testing.T) (stop func()) {
	ctx, cancel := context.WithCancel(t.Context())
	var clients sync.WaitGroup
	for range 8 {
		clients.Go(func() {
			for ctx.Err() == nil {
				if _, err := client(); err != nil {
					time.Sleep(time.Millisecond)
				}
			}
		})
	}
	stop = func() {
		cancel()
		clients.Wait()
	}
	t.Cleanup(stop)
	return stop
}

func losesLines(t *testing.T) {
	t.Helper()
	comesTrue(t, "lines of the log are dropped", func() bool {
		s, err := statusOf()
		return err == nil && s.LogDropped > 0
	})
}

const pairInventory = `pg-test:
  hosts:
    ` + unreadNode + `: { pg_seq: 1, pg_role: primary }
    ` + unreadOther + `: { pg_seq: 2, pg_role: replica }
  vars:
    pg_cluster: pg-test
    pg_rto: fast
    pg_default_services:
      - { name: primary, port: 5433, dest: postgres, check: /primary, selector: '[]' }
`

var droppedLine = regexp.MustCompile(`level=WARN msg="lines of the log were dropped, nobody read them in time" lines=(\d+)\n`)

// readText is what was read so far.
type readText struct {
	mu   sync.Mutex
	text strings.Builder
}

func (r *readText) Write(p []byte) (int, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.text.Write(p)
}

func (r *readText) String() string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.text.String()
}

// TestALogThatNobodyReads runs pgporter with a standard error that is a full pipe.
func TestALogThatNobodyReads(t *testing.T) {
	var read time.Duration
	t.Run("for comparison, one that is read", func(t *testing.T) {
		cluster := newPair(t)
		from, to, err := os.Pipe()
		if err != nil {
			t.Fatal(err)
		}
		porter := startRun(t, pairInventory, to)
		to.Close()
		go io.Copy(io.Discard, from)
		porter.serves(t)
		crowd(t)
		read = cluster.switchover(t, unreadOther)
		porter.Process.Signal(syscall.SIGTERM)
		porter.exits(t, 0)
	})
	t.Run("a switchover takes no longer", func(t *testing.T) {
		cluster := newPair(t)
		from, to := fullPipe(t)
		porter := startRun(t, pairInventory, to)
		to.Close()
		porter.serves(t)
		stop := crowd(t)
		losesLines(t)
		// A check comes every second.
		took := cluster.switchover(t, unreadOther)
		t.Logf("clients of the new primary after %s; %s where the log is read", took, read)
		if took > read+3*time.Second {
			t.Error("that is longer than the checks explain")
		}
		stop()
		out, err := exec.Command("pgporter", "status", "--admin", unreadAdmin).Output()
		if !regexp.MustCompile(`(?m)^lines of the log that nobody read in time: \d+ were dropped$`).Match(out) {
			t.Errorf("the status doesn't tell (%v):\n%s", err, out)
		}

		// Now somebody reads.
		var log readText
		ended := make(chan struct{})
		go func() {
			defer close(ended)
			io.Copy(&log, from)
		}()
		comesTrue(t, "the log tells of as many lines as the status", func() bool {
			logged := uint64(0)
			for _, line := range droppedLine.FindAllStringSubmatch(log.String(), -1) {
				n, _ := strconv.ParseUint(line[1], 10, 64)
				logged += n
			}
			s, err := statusOf()
			return err == nil && logged > 0 && logged == s.LogDropped
		})
		porter.Process.Signal(syscall.SIGTERM)
		porter.exits(t, 0)
		<-ended
		if !strings.HasSuffix(log.String(), "msg=\"pgporter has stopped\"\n") {
			t.Errorf("the log ends with %q", log.String()[max(0, len(log.String())-200):])
		}
	})
	t.Run("an upgrade and a stop", func(t *testing.T) {
		newPair(t)
		_, to := fullPipe(t)
		porter := startRun(t, pairInventory, to)
		to.Close()
		porter.serves(t)
		stop := crowd(t)
		losesLines(t)
		if out, err := exec.Command("pgporter", "upgrade", "--admin", unreadAdmin).CombinedOutput(); err != nil {
			t.Fatalf("%v: %s", err, out)
		}
		s, err := statusOf()
		if err != nil || s.PID == porter.Process.Pid {
			t.Fatalf("after the upgrade: %+v, %v", s, err)
		}
		next := s.PID
		t.Cleanup(func() { syscall.Kill(next, syscall.SIGKILL) })
		porter.exits(t, 0)
		losesLines(t)
		stop()
		syscall.Kill(next, syscall.SIGTERM)
		comesTrue(t, "the next process has ended", func() bool { return !lives(next) })
	})
	t.Run("an error", func(t *testing.T) {
		_, to := fullPipe(t)
		startRun(t, "pg-test: [", to).exits(t, command.ExitInput)
	})
}

// lives tells whether a process runs: one that only waits for its parent to look doesn't (proc(5), state Z).
func lives(pid int) bool {
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	return err == nil && !bytes.Contains(stat, []byte(") Z "))
}
