package process

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// Process is one that was opened: the very same for as long as it isn't closed.
type Process struct {
	// PID is its number.
	PID int
	fd  int
}

// Open opens the process that has a number. What kill(2) takes for a group, or for everything, is none; 1 is one, and in a container it
// is a pgporter's.
func Open(pid int) (*Process, error) {
	if pid < 1 {
		return nil, fmt.Errorf("%d is no number of a process that may be sent a signal", pid)
	}
	fd, err := unix.PidfdOpen(pid, 0)
	switch {
	// EINVAL is the number of a thread.
	case errors.Is(err, unix.ESRCH), errors.Is(err, unix.EINVAL):
		return nil, ErrEnded
	case err != nil:
		return nil, os.NewSyscallError("pidfd_open", err)
	}
	return &Process{PID: pid, fd: fd}, nil
}

// Close lets go of it.
func (p *Process) Close() { _ = unix.Close(p.fd) }

// proc is its directory below /proc (proc(5)), or a file there.
func (p *Process) proc(name string) string { return filepath.Join("/proc", strconv.Itoa(p.PID), name) }

// Executes says why it doesn't execute a program, whose file may be another one by now; nil if it does. names are what the program
// is called elsewhere.
func (p *Process) Executes(program string, names ...string) error {
	link := p.proc("exe")
	executable, err := os.Readlink(link)
	switch {
	case errors.Is(err, os.ErrNotExist):
		return ErrEnded
	case err != nil:
		return fmt.Errorf("what it executes can't be seen: %w", err)
	}
	ours, err := os.Stat(program)
	theirs, theirErr := os.Stat(link)
	if err == nil && theirErr == nil && os.SameFile(ours, theirs) || named(executable, append(names, filepath.Base(program))) {
		return nil
	}
	return fmt.Errorf("it executes %q", executable)
}

// User is whose it is; an error if it is several users' (one that is changing its user, or that another started).
func (p *Process) User() (int, error) {
	text, err := os.ReadFile(p.proc("status"))
	if err != nil {
		return 0, ErrEnded
	}
	for line := range strings.Lines(string(text)) {
		ids, found := strings.CutPrefix(line, "Uid:")
		if !found {
			continue
		}
		// Real, effective, saved, and of the file system.
		words := strings.Fields(ids)
		for _, other := range words {
			if other != words[0] {
				return 0, fmt.Errorf("it belongs to several users (%s)", strings.Join(words, ", "))
			}
		}
		return strconv.Atoi(strings.Join(words[:min(1, len(words))], ""))
	}
	return 0, errors.New("whose it is can't be seen")
}

// Signal sends it a signal.
func (p *Process) Signal(signal syscall.Signal) error {
	err := unix.PidfdSendSignal(p.fd, signal, nil, 0)
	if errors.Is(err, unix.ESRCH) {
		return ErrEnded
	}
	return os.NewSyscallError("pidfd_send_signal", err)
}
