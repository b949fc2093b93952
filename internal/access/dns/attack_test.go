package dns

import (
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

// A FIFO under the name of one of our files, or under another, holds up neither the start nor the stop.
func TestAttackFIFOAmongHostsFiles(t *testing.T) {
	dir := t.TempDir()
	for _, name := range []string{"pg-a", "other"} {
		if err := syscall.Mkfifo(filepath.Join(dir, name), 0o666); err != nil {
			t.Fatal(err)
		}
	}
	s, err := New(t.Context(), Config{HostsDir: dir})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	if _, err := s.Prepare(offer(newPair(t, "pg-a", "10.0.0.1", "10.0.0.2"))); err == nil || !strings.Contains(err.Error(), filepath.Join(dir, "pg-a")+" is in the way: it is no regular file") {
		t.Errorf("got %v", err)
	}
}
