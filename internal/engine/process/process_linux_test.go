package process

import (
	"errors"
	"math"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

// Numbers that kill(2) takes for a group or for everything are no process's, and those that can't be any process's name none.
func TestAttackNumbers(t *testing.T) {
	for _, pid := range []int{0, -1, -os.Getpid(), math.MinInt, math.MaxInt32} {
		if p, err := Open(pid); err == nil {
			p.Close()
			t.Errorf("%d was opened", pid)
		}
	}
}

// The program may have been replaced since the process started.
func TestExecutes(t *testing.T) {
	sleep, err := exec.LookPath("sleep")
	if err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile(sleep)
	if err != nil {
		t.Fatal(err)
	}
	program := filepath.Join(t.TempDir(), "program")
	if err := os.WriteFile(program, text, 0o755); err != nil {
		t.Fatal(err)
	}
	c := exec.Command(program, "60")
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	p, err := Open(c.Process.Pid)
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	if err := p.Executes(program); err != nil {
		t.Errorf("the program itself: %v", err)
	}
	if err := os.Remove(program); err != nil {
		t.Fatal(err)
	}
	if err := p.Executes(program); err != nil {
		t.Errorf("its file is gone: %v", err)
	}
	if err := p.Executes(filepath.Join(filepath.Dir(program), "other")); err == nil || !strings.Contains(err.Error(), "it executes") {
		t.Errorf("another program: %v", err)
	}
	if user, err := p.User(); err != nil || user != os.Getuid() {
		t.Errorf("its user is %d, %v", user, err)
	}
	if err := p.Signal(syscall.SIGKILL); err != nil {
		t.Error(err)
	}
	_ = c.Wait()
	if err := p.Signal(syscall.SIGKILL); !errors.Is(err, ErrEnded) {
		t.Errorf("to one that has ended: %v", err)
	}
	if err := p.Executes(program); err == nil {
		t.Error("one that has ended still executes something")
	}
}
