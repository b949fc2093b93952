package soak

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/pgporter/pgporter/internal/admin/api"
	"github.com/pgporter/pgporter/internal/engine/process"
)

// porter is the pgporter under test.
type porter struct {
	// binary is the program.
	binary string
	// command started the first process; process is the number of the one that serves now.
	command *exec.Cmd
	process int
	admin   api.Client
	log     *lastLines
	ended   chan struct{}
	err     error
}

// startPorter starts one with an inventory and waits until it serves. files is its hard
// limit of open files, and twice the soft one; 0 leaves both.
func startPorter(ctx context.Context, binary, dir, host, inventory string, files uint64) (*porter, error) {
	path := filepath.Join(dir, "inventory.yml")
	if err := os.WriteFile(path, []byte(inventory), 0o600); err != nil {
		return nil, err
	}
	free, err := net.Listen("tcp4", net.JoinHostPort(host, "0"))
	if err != nil {
		return nil, err
	}
	admin := free.Addr().String()
	_ = free.Close()
	p := &porter{binary: binary, admin: api.Client{Address: admin}, log: &lastLines{}, ended: make(chan struct{})}
	args := []string{binary, "run", "--inventory", path, "--node", host, "--bind", host, "--admin", admin}
	if files > 0 {
		args = append([]string{"/bin/sh", "-c", `ulimit -Sn "$(($0 / 2))" && ulimit -Hn "$0" && exec "$@"`, strconv.FormatUint(files, 10)}, args...)
	}
	p.command = exec.CommandContext(ctx, args[0], args[1:]...)
	p.command.Stdout, p.command.Stderr = p.log, p.log
	if err := p.command.Start(); err != nil {
		return nil, err
	}
	p.process = p.command.Process.Pid
	go func() {
		// That is when nobody can write to its output any more: whoever took over has ended as well.
		p.err = p.command.Wait()
		close(p.ended)
	}()
	err = until(ctx, "pgporter serves", func() error {
		if p.over() {
			return errOver
		}
		s, err := p.status(ctx)
		if err == nil && !s.Clusters[0].Services[0].Up {
			err = errors.New("its server is down")
		}
		return err
	})
	if err != nil {
		p.stop()
		return nil, fmt.Errorf("%w\n%s", err, p.log)
	}
	return p, nil
}

var errOver = errors.New("it has ended")

func (p *porter) over() bool {
	select {
	case <-p.ended:
		return true
	default:
		return false
	}
}

// stop ends it in order and says what was wrong with that.
func (p *porter) stop() error {
	_ = syscall.Kill(p.process, syscall.SIGTERM)
	select {
	case <-p.ended:
	case <-time.After(40 * time.Second):
		_ = syscall.Kill(p.process, syscall.SIGKILL)
		<-p.ended
		return fmt.Errorf("pgporter didn't stop within 40 s of SIGTERM\n%s", p.log)
	}
	if p.err != nil {
		return fmt.Errorf("pgporter ended: %s\n%s", exitOf(p.err), p.log)
	}
	return nil
}

func (p *porter) status(ctx context.Context) (*api.Status, error) {
	s, err := p.admin.Status(ctx)
	if err == nil && (len(s.Clusters) != 1 || len(s.Clusters[0].Services) == 0) {
		err = errors.New("its status has no service")
	}
	return s, err
}

// service is what the status says of one.
func (p *porter) service(ctx context.Context, name string) (api.Service, error) {
	s, err := p.status(ctx)
	if err != nil {
		return api.Service{}, err
	}
	for _, service := range s.Clusters[0].Services {
		if service.Name == name {
			return service, nil
		}
	}
	return api.Service{}, fmt.Errorf("the status has no service %s", name)
}

func (p *porter) pid() int { return p.process }

// handedOver is in a line of pgporter's log that says so.
const handedOver = `msg="handed over"`

// upgrade has another process take over from the one that serves, and gives what pgporter says of how long everything was frozen,
// and how many sessions it handed over.
func (p *porter) upgrade(ctx context.Context) (frozen string, sessions int, err error) {
	if err := syscall.Kill(p.process, syscall.SIGUSR2); err != nil {
		return "", 0, err
	}
	before := p.process
	err = until(ctx, "another process has taken over", func() error {
		s, err := p.status(ctx)
		switch {
		case err != nil:
			return err
		case s.PID == before && s.Upgrade != nil && s.Upgrade.Problem != "":
			return fmt.Errorf("%w: %s", errOver, s.Upgrade.Problem)
		case s.PID == before || s.Upgrade == nil || p.log.count(handedOver) == 0:
			return errors.New("not yet")
		}
		// It is going to be sent signals: the number is only what somebody said who answered.
		next, err := process.Open(s.PID)
		if err == nil {
			err = next.Executes(p.binary)
			next.Close()
		}
		if err != nil {
			return fmt.Errorf("%w: process %d, which has taken over: %w", errOver, s.PID, err)
		}
		p.process, sessions = s.PID, s.Upgrade.Sessions
		return nil
	})
	if err != nil {
		return "", 0, fmt.Errorf("%w\n%s", err, p.log)
	}
	_, rest, _ := strings.Cut(p.log.String(), handedOver)
	_, rest, _ = strings.Cut(rest, "took=")
	frozen, _, _ = strings.Cut(rest, "\n")
	return frozen, sessions, nil
}

// state is what a process holds.
type state struct {
	files, goroutines int
	// rss is in bytes.
	rss int64
}

func (s state) String() string {
	return fmt.Sprintf("%d descriptors, %d goroutines, %.1f MB resident", s.files, s.goroutines, mega(s.rss))
}

func mega(bytes int64) float64 { return float64(bytes) / (1 << 20) }

// holds asks the kernel and pgporter itself.
func (p *porter) holds(ctx context.Context) (state, error) {
	var s state
	status, err := p.status(ctx)
	if err != nil {
		return s, err
	}
	s.goroutines = status.Goroutines
	fds, err := p.descriptors()
	if err != nil {
		return s, err
	}
	s.files = len(fds)
	text, err := os.ReadFile(p.proc("status"))
	if err != nil {
		return s, err
	}
	for line := range strings.Lines(string(text)) {
		if rest, is := strings.CutPrefix(line, "VmRSS:"); is {
			kilo, err := strconv.ParseInt(strings.Fields(rest)[0], 10, 64)
			if err != nil {
				return s, err
			}
			s.rss = kilo << 10
		}
	}
	return s, nil
}

func (p *porter) proc(file string) string { return fmt.Sprintf("/proc/%d/%s", p.pid(), file) }

// descriptors are the numbers of those that are open.
func (p *porter) descriptors() (map[int]bool, error) {
	entries, err := os.ReadDir(p.proc("fd"))
	if err != nil {
		return nil, err
	}
	open := make(map[int]bool, len(entries))
	for _, e := range entries {
		n, err := strconv.Atoi(e.Name())
		if err != nil {
			return nil, err
		}
		open[n] = true
	}
	return open, nil
}

// lasting are descriptors that were open at each of several looks: what a check or a question needs for a moment isn't there.
func (p *porter) lasting() (map[int]bool, error) {
	const looks, apart = 10, 100 * time.Millisecond
	open, err := p.descriptors()
	for range looks {
		if err != nil {
			return nil, err
		}
		time.Sleep(apart)
		var now map[int]bool
		now, err = p.descriptors()
		maps.DeleteFunc(open, func(n int, _ bool) bool { return !now[n] })
	}
	return open, err
}

// processorTime is what the process has used so far (proc(5), stat: utime and stime, in hundredths of a second).
func (p *porter) processorTime() (time.Duration, error) {
	text, err := os.ReadFile(p.proc("stat"))
	if err != nil {
		return 0, err
	}
	_, rest, _ := strings.Cut(string(text), ") ")
	fields := strings.Fields(rest)
	if len(fields) < 13 {
		return 0, fmt.Errorf("%s: %q", p.proc("stat"), text)
	}
	user, userErr := strconv.ParseInt(fields[11], 10, 64)
	system, systemErr := strconv.ParseInt(fields[12], 10, 64)
	return time.Duration(user+system) * 10 * time.Millisecond, errors.Join(userErr, systemErr)
}

// filesLimit is the soft limit of open files that holds for it.
func (p *porter) filesLimit() (uint64, error) {
	limit, err := filesLimitOf(p.pid())
	if err != nil {
		return 0, fmt.Errorf("pgporter's limit of open files: %w", err)
	}
	return limit.soft, nil
}

// filesLimit is a process's limit of open files.
type filesLimit struct{ soft, hard uint64 }

// leave lowers the limit of open files so far that a number of descriptors is left to it, and gives what undoes it.
func (p *porter) leave(free int) (restore func() error, err error) {
	open, err := p.lasting()
	if err != nil {
		return nil, err
	}
	limit := 0
	for ; free > 0 || open[limit]; limit++ {
		if !open[limit] {
			free--
		}
	}
	before, err := filesLimitOf(p.pid())
	if err == nil {
		err = limitFiles(p.pid(), filesLimit{uint64(limit), before.hard})
	}
	if err != nil {
		return nil, fmt.Errorf("pgporter's limit of open files: %w", err)
	}
	return func() error { return limitFiles(p.pid(), before) }, nil
}

// patience bounds what should come soon.
const patience = 90 * time.Second

// until waits for something to be so; errOver ends the wait.
func until(ctx context.Context, what string, holds func() error) error {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	for {
		err := holds()
		if err == nil {
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("%s: not within %s: %w", what, patience, err)
		case <-time.After(20 * time.Millisecond):
		}
		if errors.Is(err, errOver) {
			return fmt.Errorf("%s: %w", what, err)
		}
	}
}
