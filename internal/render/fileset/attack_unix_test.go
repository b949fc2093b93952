//go:build unix

package fileset

import (
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/pgporter/pgporter/internal/render/stamp"
)

// Who may write into the directory decides where its links lead, and whoever renders may be root.
func TestAttackLinksOutOfTheDirectory(t *testing.T) {
	victim := t.TempDir()
	put(t, victim, "a.cfg", "theirs\n")
	put(t, victim, "old.cfg", ours("pg-a", "old.cfg", "theirs too\n"))
	before := tree(t, victim)
	dir := t.TempDir()
	if err := os.Symlink(victim, filepath.Join(dir, "h1")); err != nil {
		t.Fatal(err)
	}
	files := []File{{Path: "h1/a.cfg", Text: "ours\n"}, {Path: "h1/b.cfg", Text: "ours\n"}}
	if changes, err := Compare(dir, files, func(string, stamp.Stamp) bool { return true }); err == nil {
		t.Errorf("what is behind the link is compared: %v", describe(changes))
	}
	for _, changes := range [][]Change{
		{{Path: "h1/a.cfg", Old: "theirs\n", New: "ours\n"}},
		{{Path: "h1/b.cfg", New: "ours\n", Added: true}},
		{{Path: "h1/new/b.cfg", New: "ours\n", Added: true}},
		{{Path: "h1/old.cfg", Removed: true}},
		{{Path: "../" + filepath.Base(victim) + "/old.cfg", Removed: true}},
	} {
		if err := Apply(dir, changes); err == nil {
			t.Errorf("%s: no error", describe(changes))
		}
	}
	if after := tree(t, victim); len(after) != len(before) || after["a.cfg"] != before["a.cfg"] || after["old.cfg"] != before["old.cfg"] {
		t.Errorf("changed to %v", after)
	}
	// A file that is a link shows nothing of what is behind it: --diff would.
	if err := os.Remove(filepath.Join(dir, "h1")); err != nil {
		t.Fatal(err)
	}
	put(t, dir, "h1/x.cfg", "")
	if err := os.Symlink(filepath.Join(victim, "a.cfg"), filepath.Join(dir, "h1/a.cfg")); err != nil {
		t.Fatal(err)
	}
	if _, err := Compare(dir, files[:1], nil); err == nil || !strings.Contains(err.Error(), "is in the way: it is a link") {
		t.Errorf("a link to a file elsewhere: %v", err)
	}
}

// Nobody writes into a FIFO: opening it as a file is would never come back.
func TestAttackFIFOs(t *testing.T) {
	dir := t.TempDir()
	put(t, dir, "h1/x.cfg", "")
	if err := syscall.Mkfifo(filepath.Join(dir, "h1/a.cfg"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := Compare(dir, []File{{Path: "h1/a.cfg", Text: "ours\n"}}, nil); err == nil || !strings.Contains(err.Error(), "it is no regular file") {
		t.Errorf("it is compared: %v", err)
	}
	if _, err := ReadFile(dir, "h1/a.cfg"); err == nil {
		t.Error("it is read")
	}
}
