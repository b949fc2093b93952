//go:build unix

package inventory

import (
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

// What lies in a checkout of a stranger's may be anything that has a name: it is refused by name, and nothing waits for it.
func TestAttackFiles(t *testing.T) {
	fifo := func(path string) error { return syscall.Mkfifo(path, 0o600) }
	linked := func(to string) func(string) error {
		return func(path string) error { return os.Symlink(to, path) }
	}
	for _, test := range []struct {
		name, at string
		make     func(path string) error
		want     string
	}{
		{"a FIFO", "pigsty.yml", fifo, "it isn't a regular file"},
		{"an endless device", "pigsty.yml", linked("/dev/zero"), "it isn't a regular file"},
		{"a terminal", "pigsty.yml", linked("/dev/tty"), "can't be read"},
		{"a FIFO of variables", "group_vars/all.yml", fifo, "it isn't a regular file"},
		{"a device of variables", "group_vars/all/main.yml", linked("/dev/zero"), "it isn't a regular file"},
		{"a directory in itself", "group_vars/all/again", linked("."), "more than 16 deep"},
		{"a directory in itself by two ways", "group_vars/all/again", func(path string) error {
			if err := os.Symlink(".", path+"2"); err != nil {
				return err
			}
			return os.Symlink(".", path)
		}, "more than 1"},
		{"a file that is a hole", "group_vars/all.yml", func(path string) error {
			if err := os.WriteFile(path, nil, 0o600); err != nil {
				return err
			}
			return os.Truncate(path, 1<<40)
		}, "more than 32 MiB"},
		{"more files than there may be", "group_vars/all", func(path string) error {
			if err := os.MkdirAll(path, 0o700); err != nil {
				return err
			}
			for i := range maxFiles {
				if err := os.WriteFile(filepath.Join(path, strings.Repeat("x", i%100)+string(rune('a'+i/100%26))+string(rune('a'+i/2600))+".yml"), nil, 0o600); err != nil {
					return err
				}
			}
			return nil
		}, "more than 10000 files"},
	} {
		t.Run(test.name, func(t *testing.T) {
			dir := t.TempDir()
			inventory := filepath.Join(dir, "pigsty.yml")
			if test.at != "pigsty.yml" {
				if err := os.WriteFile(inventory, []byte("all: { hosts: { a: {} } }\n"), 0o600); err != nil {
					t.Fatal(err)
				}
			}
			path := filepath.Join(dir, test.at)
			err := os.MkdirAll(filepath.Dir(path), 0o700)
			if err == nil {
				err = test.make(path)
			}
			if err != nil {
				t.Fatal(err)
			}
			_, problems := Read(inventory)
			if err := problems.Err(); err == nil || !strings.Contains(err.Error(), test.want) {
				t.Errorf("got %v, want %q", err, test.want)
			}
		})
	}
	t.Run("an inventory that is a directory in itself", func(t *testing.T) {
		dir := t.TempDir()
		if err := os.Symlink(".", filepath.Join(dir, "again")); err != nil {
			t.Fatal(err)
		}
		if _, problems := Read(dir); problems.Err() == nil || !strings.Contains(problems.Error(), "more than 16 deep") {
			t.Errorf("got %v", problems)
		}
	})
	t.Run("standard input without end", func(t *testing.T) {
		zero, err := os.Open("/dev/zero")
		if err != nil {
			t.Fatal(err)
		}
		defer zero.Close()
		if _, problems := ReadFrom("standard input", zero); problems.Err() == nil || !strings.Contains(problems.Error(), "more than 32 MiB") {
			t.Errorf("got %v", problems)
		}
	})
}
