package sandbox

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"syscall"
	"time"

	"github.com/pgporter/pgporter/lab/sandbox/netns"
)

// downTimeout bounds what Down waits for in all, so that it ends even where processes can't be ended.
const downTimeout = time.Minute

// How long each kind of process has after each signal. Everything that is left then is killed.
const (
	patienceServe    = 3 * time.Second
	patiencePatroni  = 15 * time.Second
	patiencePostgres = 5 * time.Second
	patienceKill     = 5 * time.Second
)

// Down ends every process of the sandbox and removes its directory's contents, logs included unless keepLogs. It ends only
// what the sandbox started: known by id and start time, by its data directory, or by the variable that its environment
// inherited. It works on a sandbox that is partly up, one whose program was killed, and one that is only a rest of data.
//
// If another process is the sandbox's supervisor (Config.Foreground), that one is asked to take it down and waited for.
func (s *Sandbox) Down(ctx context.Context, keepLogs bool) error {
	if err := s.checkOwner(); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, downTimeout)
	defer cancel()
	if err := s.askSupervisor(ctx); err != nil {
		return err
	}
	if _, err := os.Stat(s.layout.config.Dir); errors.Is(err, os.ErrNotExist) {
		return nil
	}
	lock, err := lockDir(ctx, s.layout.config.Dir)
	if err != nil {
		return err
	}
	defer lock.release()
	if _, err := readState(s.layout.config.Dir); errors.Is(err, os.ErrNotExist) {
		return nil // the supervisor, or another Down, did it
	}
	if err := s.update(func(r *record) { r.Phase = phaseStopping }); err != nil {
		return err
	}
	if err := s.endAndJoin(ctx); err != nil {
		return err
	}
	return s.remove(keepLogs)
}

// endAndJoin ends all processes and returns when those who wait for the children of this process have.
func (s *Sandbox) endAndJoin(ctx context.Context) error {
	if err := s.end(ctx); err != nil {
		return err
	}
	s.children.Wait()
	return nil
}

// DownLost ends the processes of a sandbox whose state.json is gone, and gives how many there were.
func DownLost(ctx context.Context, dir string, progress io.Writer) (int, error) {
	dir, err := resolveDir(dir)
	if err != nil {
		return 0, err
	}
	found := leftovers(dir)
	s := &Sandbox{layout: layout{config: Config{Dir: dir}}, progress: newSteps(progress), exits: map[Process]string{}}
	ctx, cancel := context.WithTimeout(ctx, downTimeout)
	defer cancel()
	err = s.killLeftovers(ctx, nil)
	if netns.Supported() == nil {
		err = errors.Join(err, netns.Remove(s.layout.lan().Name))
	}
	return len(found), err
}

func (s *Sandbox) checkOwner() error {
	info, err := os.Lstat(s.layout.config.Dir)
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("sandbox directory: %w", err)
	}
	return ownedByCaller(s.layout.config.Dir, info)
}

// askSupervisor has the process that stays with the sandbox take it down, and waits for it.
func (s *Sandbox) askSupervisor(ctx context.Context) error {
	r, err := s.current()
	if errors.Is(err, ErrNone) {
		return nil
	}
	if err != nil {
		return err
	}
	supervisor := r.Supervisor
	if supervisor == nil || r.Boot != bootID() || supervisor.PID == os.Getpid() || !supervisor.running() {
		return nil
	}
	s.say("asking the pgporter-lab up that is in the foreground (process %d) to end it", supervisor.PID)
	if err := supervisor.signal(syscall.SIGTERM); err != nil && !errors.Is(err, errEnded) {
		return err
	}
	if !supervisor.wait(ctx, downTimeout/2) {
		s.say("it doesn't end; going on without it")
	}
	return nil
}

// end ends all processes, kindly first: what clients connect to, then Patroni (which stops its PostgreSQL), then what is left of
// PostgreSQL, then etcd. At the end nothing of the sandbox is running, or the error says what is.
func (s *Sandbox) end(ctx context.Context) error {
	r, err := s.current()
	if err != nil {
		return err
	}
	s.stop(ctx, r, patienceServe, syscall.SIGTERM, pgporterKind, doorKind, pgbouncerKind, restproxyKind)
	s.stop(ctx, r, patiencePatroni, syscall.SIGTERM, patroniKind)
	// Fast, then immediate shutdown (PostgreSQL manual, "Shutting Down the Server"); reached only where Patroni is gone.
	s.stop(ctx, r, patiencePostgres, syscall.SIGINT, postgresKind)
	s.stop(ctx, r, patiencePostgres, syscall.SIGQUIT, postgresKind)
	s.stop(ctx, r, patienceServe, syscall.SIGTERM, etcdKind)
	var known []Process
	for _, p := range s.layout.parts() {
		if process, running := s.find(r, p); running {
			known = append(known, process)
		}
	}
	return s.killLeftovers(ctx, known)
}

// stop sends a signal to every process of the kinds and waits until they have ended, up to patience in all; pgporter
// takes a second signal as not to wait for its sessions, and gets one.
func (s *Sandbox) stop(ctx context.Context, r record, patience time.Duration, sig syscall.Signal, kinds ...kind) {
	signalled := map[Process]part{}
	for _, p := range s.involved(kinds...) {
		process, running := s.find(r, p)
		if !running {
			continue
		}
		if err := process.signal(sig); err != nil {
			if !errors.Is(err, errEnded) {
				s.say("%s: %v", p, err)
			}
			continue
		}
		// One that somebody halted acts on the signal only when it goes on.
		if process.stopped() {
			process.signal(syscall.SIGCONT) //nolint:errcheck // it is killed in the end
		}
		signalled[process] = p
	}
	deadline := time.Now().Add(patience)
	hurry := time.Now().Add(patience / 3)
	for process, p := range signalled {
		if p.kind == pgporterKind && !process.wait(ctx, time.Until(hurry)) {
			process.signal(sig) //nolint:errcheck // as above
		}
		if !process.wait(ctx, time.Until(deadline)) {
			s.say("%s doesn't end by %s", p, signalName(sig))
		}
	}
}

// killLeftovers kills what belongs to the sandbox and is still there, known or found, until there is nothing more.
func (s *Sandbox) killLeftovers(ctx context.Context, known []Process) error {
	// Some patience, even where the caller's is at an end: the alternative is to leave something running.
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), patienceKill)
	defer cancel()
	logged := map[Process]bool{}
	var failed error
	remaining := func() []Process {
		all := leftovers(s.layout.config.Dir)
		for _, p := range known {
			if p.running() && !slices.Contains(all, p) {
				all = append(all, p)
			}
		}
		return all
	}
	gone := poll(ctx, 20*time.Millisecond, func() bool {
		left := remaining()
		if news := slices.DeleteFunc(slices.Clone(left), func(p Process) bool { return logged[p] }); len(news) > 0 {
			s.say("killing %s", describe(news))
		}
		for _, p := range left {
			logged[p] = true
			if err := p.signal(syscall.SIGKILL); err != nil && !errors.Is(err, errEnded) {
				failed = err
			}
		}
		return len(left) == 0
	})
	if !gone {
		return errors.Join(fmt.Errorf("still running: %s", describe(remaining())), failed)
	}
	return nil
}

// remove takes away what the sandbox put into its directory, and the directory if it made it. With keepLogs the logs stay,
// and a state that says so.
func (s *Sandbox) remove(keepLogs bool) error {
	if err := s.clear(false, keepLogs); err != nil {
		return err
	}
	if keepLogs {
		return s.update(func(r *record) {
			r.Phase, r.Supervisor, r.Processes = phaseFailed, nil, map[string]Process{}
		})
	}
	dir := s.layout.config.Dir
	err := os.Remove(filepath.Join(dir, stateName))
	if err == nil || errors.Is(err, os.ErrNotExist) {
		err = os.Remove(filepath.Join(dir, lockName))
	}
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("sandbox directory: %w", err)
	}
	if s.state.MadeDir {
		// Something that isn't the sandbox's may be in it by now; then it stays.
		if err := os.Remove(dir); err != nil && !errors.Is(err, os.ErrNotExist) && !errors.Is(err, syscall.ENOTEMPTY) {
			return fmt.Errorf("sandbox directory: %w", err)
		}
	}
	return nil
}

// clear removes data and files; the lock stays, and the state unless withState.
func (s *Sandbox) clear(withState, keepLogs bool) error {
	if s.layout.config.Netns {
		if err := netns.Remove(s.layout.lan().Name); err != nil {
			return fmt.Errorf("network of the sandbox: %w", err)
		}
	}
	dir := s.layout.config.Dir
	paths := []string{s.layout.etcdHome(), s.layout.inventory(), s.layout.bootstrapSQL(), s.layout.passwords(), s.layout.certificate(), s.layout.certificateKey(), s.layout.control(), s.layout.rendered(), filepath.Join(dir, "bin"), s.state.Sockets}
	for _, m := range s.layout.members {
		paths = append(paths, s.layout.home(m))
	}
	if !keepLogs {
		paths = append(paths, s.layout.logDir())
	}
	if withState {
		paths = append(paths, filepath.Join(dir, stateName))
	}
	for _, path := range paths {
		if path == "" {
			continue
		}
		if err := os.RemoveAll(path); err != nil {
			return fmt.Errorf("sandbox directory: %w", err)
		}
	}
	return nil
}
