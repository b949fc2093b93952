package sandbox

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"syscall"
	"time"
)

// Phases of a sandbox's life, as state.json and status tell them.
const (
	phaseStarting = "starting"
	phaseUp       = "up"
	phaseStopping = "stopping"
	// phaseFailed is an Up that failed: everything was ended, the logs are kept.
	phaseFailed = "failed"
)

// record is state.json: all that another process needs to operate the sandbox or to take it down.
type record struct {
	Version int       `json:"version"`
	Phase   string    `json:"phase"`
	Config  Config    `json:"config"`
	Created time.Time `json:"created"`
	UpAt    time.Time `json:"up_at,omitzero"`
	Boot    string    `json:"boot"`
	// UID and GID are whom the processes run as.
	UID  int    `json:"uid"`
	GID  int    `json:"gid"`
	User string `json:"user"`
	// Sockets is where the unix socket directories are; outside Dir if that is too long for one.
	Sockets string `json:"sockets"`
	// MadeDir says that Dir was made for the sandbox and goes with it.
	MadeDir bool `json:"made_dir,omitempty"`
	// Supervisor is the process that called Up and stays.
	Supervisor *Process `json:"supervisor,omitempty"`
	// Processes are those that were started, by their names.
	Processes map[string]Process `json:"processes"`
}

const (
	stateVersion = 1
	stateName    = "state.json"
	lockName     = "lock"
)

func readState(dir string) (record, error) {
	path := filepath.Join(dir, stateName)
	text, err := os.ReadFile(path)
	if err != nil {
		return record{}, err
	}
	var r record
	if err := json.Unmarshal(text, &r); err != nil {
		return r, fmt.Errorf("%s: %w", path, err)
	}
	if r.Version != stateVersion {
		return r, fmt.Errorf("%s: written by another version of pgporter (%d, this one knows %d): take it down with that one", path, r.Version, stateVersion)
	}
	if r.Config.Dir != dir {
		return r, fmt.Errorf("%s: describes the sandbox of another directory, %s", path, r.Config.Dir)
	}
	if r.Processes == nil {
		r.Processes = map[string]Process{}
	}
	return r, nil
}

// write replaces state.json in one step, so that a reader or a crash sees the old or the new one.
func (r record) write() error {
	text, err := json.MarshalIndent(r, "", "  ")
	if err != nil {
		return fmt.Errorf("sandbox state: %w", err)
	}
	return writeAtomically(filepath.Join(r.Config.Dir, stateName), append(text, '\n'))
}

func writeAtomically(path string, text []byte) error {
	temporary := path + "." + rand.Text()[:8]
	f, err := os.OpenFile(temporary, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o644)
	if err != nil {
		return fmt.Errorf("sandbox state: %w", err)
	}
	_, err = f.Write(text)
	if err == nil {
		err = f.Sync()
	}
	if closeErr := f.Close(); err == nil {
		err = closeErr
	}
	if err == nil {
		err = os.Rename(temporary, path)
	}
	if err != nil {
		os.Remove(temporary)
		return fmt.Errorf("sandbox state: %w", err)
	}
	return nil
}

// update changes the state as it is on disk now: another process may have started or ended something since.
func (s *Sandbox) update(change func(*record)) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if current, err := readState(s.layout.config.Dir); err == nil {
		s.state = current
	} else if !errors.Is(err, os.ErrNotExist) {
		return err
	}
	change(&s.state)
	return s.state.write()
}

// current gives the state as it is on disk now.
func (s *Sandbox) current() (record, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	r, err := readState(s.layout.config.Dir)
	if err != nil {
		if errors.Is(err, os.ErrNotExist) {
			return r, fmt.Errorf("%s: %w", s.layout.config.Dir, ErrNone)
		}
		return r, err
	}
	s.state = r
	return r, nil
}

// dirLock keeps two commands from changing one sandbox at a time; it goes with the process that holds it.
type dirLock struct{ file *os.File }

// errBusy says that another process is starting or stopping something.
var errBusy = errors.New("another pgporter-lab command is at work there")

// lockDir takes the lock of a directory, waiting until ctx ends.
func lockDir(ctx context.Context, dir string) (*dirLock, error) {
	var lock *dirLock
	var failed error
	done := poll(ctx, 50*time.Millisecond, func() bool {
		lock, failed = tryLock(filepath.Join(dir, lockName))
		return !errors.Is(failed, errBusy)
	})
	if !done {
		return nil, fmt.Errorf("%s: %w", dir, errBusy)
	}
	return lock, failed
}

func tryLock(path string) (*dirLock, error) {
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o644)
	if err != nil {
		return nil, fmt.Errorf("sandbox lock: %w", err)
	}
	if err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		f.Close()
		if errors.Is(err, syscall.EWOULDBLOCK) {
			return nil, errBusy
		}
		return nil, fmt.Errorf("sandbox lock %s: %w", path, err)
	}
	// Down removes the file while it holds it: what was locked then is no longer the one that others see.
	opened, openedErr := f.Stat()
	now, nowErr := os.Stat(path)
	if openedErr != nil || nowErr != nil || !os.SameFile(opened, now) {
		f.Close()
		return nil, errBusy
	}
	return &dirLock{f}, nil
}

func (l *dirLock) release() { l.file.Close() }
