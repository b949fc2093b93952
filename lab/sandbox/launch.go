package sandbox

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"

	"github.com/pgporter/pgporter/lab/sandbox/guard"
)

// user gives whom the sandbox runs as.
func (r record) user() runUser {
	return runUser{uid: r.UID, gid: r.GID, name: r.User, switched: os.Geteuid() != r.UID}
}

// environment is what the programs get: nothing of the caller's that would change what they do (PATRONI_*, ETCD_*, PG*).
func (s *Sandbox) environment(p part) []string {
	home := s.layout.etcdHome()
	if p.kind != etcdKind {
		home = s.layout.home(p.member)
	}
	env := []string{
		"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "HOME=" + home, "LANG=C.UTF-8",
		dirVariable + "=" + s.layout.config.Dir,
	}
	env = append(env, guard.Environment()...)
	if zone, ok := os.LookupEnv("TZ"); ok {
		env = append(env, "TZ="+zone)
	}
	switch p.kind {
	case patroniKind:
		// Python's own: its log lines at once, no files in directories of the system.
		env = append(env, "PYTHONUNBUFFERED=1", "PYTHONDONTWRITEBYTECODE=1")
	case pgporterKind, restproxyKind:
		for _, v := range os.Environ() {
			// Go's runtime settings (GOMAXPROCS, GORACE, GOCOVERDIR) are for whoever tests our programs.
			if strings.HasPrefix(v, "GO") {
				env = append(env, v)
			}
		}
		if p.kind == pgporterKind {
			env = append(env, s.layout.config.BinaryEnv...)
		}
	}
	return env
}

// launch starts a part and notes it in the state.
func (s *Sandbox) launch(p part, t tools) error {
	binary := ""
	var err error
	switch p.kind {
	case pgporterKind:
		binary, err = s.executable(s.layout.config.Binary, "pgporter")
	case restproxyKind:
		binary, err = s.executable(s.layout.config.RestProxy, "pgporter-lab")
	}
	if err != nil {
		return err
	}
	c := s.layout.command(p, t, binary)
	// The directory belongs to the programs' user, who must not lead root's hand elsewhere.
	log, err := os.OpenFile(s.layout.log(p), os.O_WRONLY|os.O_CREATE|os.O_APPEND|syscall.O_NOFOLLOW, 0o644)
	if err != nil {
		return fmt.Errorf("log of %s: %w", p, err)
	}
	defer log.Close()
	cmd := exec.Command(c.path, c.args...)
	cmd.Dir, cmd.Env, cmd.Stdout, cmd.Stderr = c.dir, s.environment(p), log, log
	cmd.SysProcAttr = s.runAs().attributes()
	if p.kind == pgporterKind && s.layout.config.Netns {
		mayManageAddresses(cmd.SysProcAttr)
	}
	if err := s.on(p, cmd.Start); err != nil {
		return fmt.Errorf("start of %s: %w", p, err)
	}
	started, err := identify(cmd.Process.Pid)
	s.children.Go(func() {
		cmd.Wait() //nolint:errcheck // how it ended is in ProcessState
		s.childEnded(p, started, cmd.ProcessState.String())
	})
	if err != nil {
		return fmt.Errorf("start of %s: %w", p, err)
	}
	return s.update(func(r *record) { r.Processes[p.String()] = started })
}

func (s *Sandbox) runAs() runUser {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.state.user()
}

func (s *Sandbox) childEnded(p part, which Process, why string) {
	next, upgraded := s.successor(p)
	if upgraded {
		why = fmt.Sprintf("process %d has taken over", next.PID)
	}
	s.mu.Lock()
	s.exits[which] = why
	watchers := s.watchers
	s.mu.Unlock()
	if upgraded {
		return
	}
	for _, f := range watchers {
		f(p.String(), why)
	}
}

// executable gives a program of ours to run: where it is if the sandbox's user can run it there, otherwise a copy in the
// sandbox's directory (a program that `go run` or a test made is in a private one).
func (s *Sandbox) executable(source, name string) (string, error) {
	source, err := filepath.Abs(source)
	if err != nil {
		return "", fmt.Errorf("which %s to run: %w", name, err)
	}
	user := s.runAs()
	if user.runs(source) {
		return source, nil
	}
	target := filepath.Join(s.layout.config.Dir, "bin", name)
	from, err := os.Open(source)
	if errors.Is(err, os.ErrNotExist) {
		if _, err := os.Stat(target); err == nil {
			return target, nil
		}
	}
	if err != nil {
		return "", fmt.Errorf("which %s to run: %w", name, err)
	}
	defer from.Close()
	if err := os.MkdirAll(filepath.Dir(target), 0o755); err != nil {
		return "", fmt.Errorf("copy of %s: %w", name, err)
	}
	if err := os.Chmod(filepath.Dir(target), 0o755); err != nil {
		return "", fmt.Errorf("copy of %s: %w", name, err)
	}
	// Written beside and renamed: the old copy may be running.
	to, err := os.CreateTemp(filepath.Dir(target), name+"-*")
	if err != nil {
		return "", fmt.Errorf("copy of %s: %w", name, err)
	}
	_, err = io.Copy(to, from)
	if err == nil {
		err = to.Chmod(0o755)
	}
	if closeErr := to.Close(); err == nil {
		err = closeErr
	}
	if err == nil {
		err = os.Rename(to.Name(), target)
	}
	if err != nil {
		os.Remove(to.Name())
		return "", fmt.Errorf("copy of %s: %w", name, err)
	}
	return target, nil
}

// find gives the process that a part is now, if it is running.
func (s *Sandbox) find(r record, p part) (Process, bool) {
	if p.kind == postgresKind {
		return postmaster(s.layout.data(p.member))
	}
	process, ok := r.Processes[p.String()]
	if !ok || r.Boot != bootID() {
		return Process{}, false
	}
	if !process.running() {
		return s.successor(p)
	}
	return process, true
}

// successor gives the process that has taken over from a pgporter that isn't running any more (pgporter upgrade), if there is
// one: it has the same arguments, which nobody else's are. Of two it is the older, as the other one is only about to.
func (s *Sandbox) successor(p part) (oldest Process, found bool) {
	if p.kind != pgporterKind {
		return Process{}, false
	}
	for _, other := range withArguments(s.layout.command(p, tools{}, "").args) {
		if !found || other.Start < oldest.Start || other.Start == oldest.Start && other.PID < oldest.PID {
			oldest, found = other, true
		}
	}
	return oldest, found
}

// endedError describes a process that isn't running though it should be, with the end of its log.
type endedError struct {
	error
	log string
}

func (s *Sandbox) ended(r record, p part) error {
	s.mu.Lock()
	why := s.exits[r.Processes[p.String()]]
	s.mu.Unlock()
	if why != "" {
		why = " (" + why + ")"
	}
	log := tail(s.layout.log(p))
	return endedError{fmt.Errorf("%s ended%s; the end of %s:\n%s", p, why, s.layout.log(p), log), log}
}

// tail gives the last lines of a log, indented.
func tail(path string) string {
	const most, lines = 4096, 15
	f, err := os.Open(path)
	if err != nil {
		return "    (" + err.Error() + ")"
	}
	defer f.Close()
	if size, err := f.Seek(0, io.SeekEnd); err == nil {
		_, err = f.Seek(max(0, size-most), io.SeekStart)
		if err != nil {
			return "    (" + err.Error() + ")"
		}
	}
	text, err := io.ReadAll(f)
	if err != nil {
		return "    (" + err.Error() + ")"
	}
	text = bytes.TrimSpace(text)
	if len(text) == 0 {
		return "    (empty)"
	}
	all := strings.Split(string(text), "\n")
	return "    " + strings.Join(all[max(0, len(all)-lines):], "\n    ")
}
