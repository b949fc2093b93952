package control

import (
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// Whoever owns the file of the token knows it, and can change it: nobody but ourselves and root may.
func TestAttackTokenOfSomebodyElse(t *testing.T) {
	const root, us, other = 0, 1000, 1001
	for _, test := range []struct {
		owner, us int
		want      bool
	}{{us, us, true}, {root, us, true}, {other, us, false}, {other, root, true}, {root, root, true}} {
		if got := trusted(test.owner, test.us); got != test.want {
			t.Errorf("user %d trusts a file of %d: %t", test.us, test.owner, got)
		}
	}
	// A FIFO, in place of a file that was looked at, would hold up the start.
	path := filepath.Join(t.TempDir(), "token")
	if err := syscall.Mkfifo(path, 0o600); err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() {
		_, err := ReadToken(path)
		ended <- err
	}()
	select {
	case err := <-ended:
		if err == nil || !strings.Contains(err.Error(), "isn't a file") {
			t.Errorf("a FIFO: %v", err)
		}
	case <-time.After(10 * time.Second):
		t.Fatal("it waits for who writes into a FIFO")
	}
	if os.Geteuid() != 0 {
		return
	}
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(strings.Repeat("x", leastToken)), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Chown(path, other, other); err != nil {
		t.Fatal(err)
	}
	if _, err := ReadToken(path); err != nil {
		t.Errorf("root may read whose it likes: %v", err)
	}
}
