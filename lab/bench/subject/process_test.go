package subject

import (
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

func started(t *testing.T, script string) *Process {
	t.Helper()
	p, err := Start(exec.Command("sh", "-c", script), filepath.Join(t.TempDir(), "log"), syscall.SIGTERM)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(p.Stop)
	return p
}

// TestEnded: who waits for a program that has ended gets to know what it said.
func TestEnded(t *testing.T) {
	p := started(t, "echo no such file >&2; exit 3")
	err := p.Await(t.Context(), time.Minute, func(context.Context) error { return errors.New("not yet") })
	if err == nil || !strings.Contains(err.Error(), "exit status 3") || !strings.Contains(err.Error(), "no such file") {
		t.Error(err)
	}
}

// TestStop: the program has ended when Stop returns, also one that pays no attention to its signal.
func TestStop(t *testing.T) {
	ready := filepath.Join(t.TempDir(), "ready")
	p := started(t, "echo $$ >"+ready+"; exec sleep 600")
	if err := p.Await(t.Context(), time.Minute, func(context.Context) error { _, err := os.Stat(ready); return err }); err != nil {
		t.Fatal(err)
	}
	p.Stop()
	if err := syscall.Kill(p.PID(), 0); !errors.Is(err, syscall.ESRCH) {
		t.Errorf("process %d is still there: %v", p.PID(), err)
	}
}

// TestAwait: what is waited for in vain is in the error.
func TestAwait(t *testing.T) {
	p := started(t, "exec sleep 600")
	err := p.Await(t.Context(), 60*time.Millisecond, func(context.Context) error { return errors.New("nobody listens") })
	if err == nil || !strings.Contains(err.Error(), "nobody listens") {
		t.Error(err)
	}
}
