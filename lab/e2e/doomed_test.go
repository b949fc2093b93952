package e2e

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"github.com/pgporter/pgporter/lab/sandbox"
	"github.com/pgporter/pgporter/lab/sandbox/guard"
)

// doomed has the pgporter for a program that brings a sandbox up and is killed: the test binary itself.
const doomed = "E2E_DOOMED"

// fate is what a doomed program tells of its sandbox.
type fate struct {
	Dir        string
	Processes  []int
	Namespaces []string
	// Shared are files of shared memory.
	Shared []string
}

// doomedSandbox tells its fate and waits for its end.
func doomedSandbox() int {
	err := func() error {
		dir, err := os.MkdirTemp(memory(), "pgporter-sandbox-")
		if err := errors.Join(err, guard.Keep(guard.Directory, dir), os.Chmod(dir, 0o755)); err != nil {
			return err
		}
		config := sandbox.Config{Dir: filepath.Join(dir, "s"), Binary: os.Getenv(doomed), Members: 2, Netns: os.Geteuid() == 0}
		if !config.Netns {
			config.Prefix = "127.0.77"
		}
		s, err := sandbox.Up(context.Background(), config, os.Stderr)
		if err != nil {
			return err
		}
		status, err := s.Status(context.Background())
		if err != nil {
			return err
		}
		f := fate{Dir: dir}
		for _, p := range status.Processes {
			f.Processes = append(f.Processes, p.PID)
			maps, err := os.ReadFile(filepath.Join("/proc", strconv.Itoa(p.PID), "maps"))
			if err != nil {
				return err
			}
			for line := range strings.Lines(string(maps)) {
				if at := strings.Index(line, "/dev/shm/PostgreSQL."); at >= 0 {
					f.Shared = append(f.Shared, strings.TrimSpace(line[at:]))
				}
			}
		}
		for _, m := range s.Declared() {
			if name, err := s.Namespace(m.Name); err == nil {
				f.Namespaces = append(f.Namespaces, name)
			}
		}
		return json.NewEncoder(os.Stdout).Encode(f)
	}()
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	_, _ = io.Copy(io.Discard, os.Stdin)
	return 0
}

// TestKilledProgramLeavesNothing kills a program in whose sandbox everything runs: processes, namespaces and directories go with it.
func TestKilledProgramLeavesNothing(t *testing.T) {
	t.Parallel()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	program := exec.Command(self)
	program.Env = append(os.Environ(), doomed+"="+binary)
	var complaints bytes.Buffer
	program.Stderr = &complaints
	stdin, err := program.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	defer stdin.Close()
	stdout, err := program.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := program.Start(); err != nil {
		t.Fatal(err)
	}
	program.WaitDelay = patience
	var f fate
	line, err := bufio.NewReader(stdout).ReadBytes('\n')
	if err := errors.Join(err, json.Unmarshal(line, &f)); err != nil || len(f.Processes) < 9 || len(f.Shared) == 0 {
		t.Errorf("it tells %+v, %v", f, err)
	}
	if err := program.Process.Signal(syscall.SIGKILL); err != nil {
		t.Error(err)
	}
	_ = program.Wait()
	if t.Failed() {
		t.Fatal(complaints.String())
	}
	eventually(t, patience, func(context.Context) error {
		for _, pid := range f.Processes {
			if sandbox.Runs(pid) {
				return fmt.Errorf("process %d is still there", pid)
			}
		}
		paths := []string{f.Dir}
		for _, name := range f.Namespaces {
			paths = append(paths, filepath.Join("/run/netns", name), filepath.Join("/etc/netns", name))
		}
		for _, path := range paths {
			if _, err := os.Lstat(path); !errors.Is(err, fs.ErrNotExist) {
				return fmt.Errorf("%s is still there (%v)", path, err)
			}
		}
		return nil
	})
	for _, segment := range f.Shared {
		if _, err := os.Lstat(segment); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("%s is still there (%v)", segment, err)
		}
	}
	// PostgreSQL's own processes are known by where they work.
	entries, err := os.ReadDir("/proc")
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		if _, err := strconv.Atoi(e.Name()); err != nil {
			continue
		}
		if at, _ := os.Readlink(filepath.Join("/proc", e.Name(), "cwd")); strings.HasPrefix(at, f.Dir+"/") {
			t.Errorf("process %s still works in %s", e.Name(), at)
		}
	}
}
