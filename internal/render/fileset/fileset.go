// Package fileset brings a directory of rendered files up to date: it compares, shows the difference, and writes.
//
// It replaces what is rendered and removes only files that carry a stamp with their own path (package stamp) and that the caller
// says are no longer wanted. A file is either the old one or the new one, never a part of it: it is written under another name
// beside the old one and renamed. Everything that can fail for a lack of room or of rights is done for all files before the
// first is replaced. Nothing outside of the directory is read, written or removed, whatever links there are in it (os.Root), and
// nothing waits for a FIFO.
package fileset

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"syscall"

	"golang.org/x/sync/errgroup"

	"github.com/pgporter/pgporter/internal/render/stamp"
)

// File is what is to be at a path.
type File struct {
	// Path is relative to the directory, with slashes.
	Path string
	Text string
	// Private files are for their owner's eyes only.
	Private bool
}

// Change is what has to be done for one file.
type Change struct {
	Path string
	// Old is the text that is there, New the one that is to be; Added and Removed say that there is no such file before or
	// after. A change with equal texts makes a private file private.
	Old, New       string
	Added, Removed bool
	private        bool
}

// Removable tells whether a file of ours that isn't rendered any more may be removed.
type Removable func(path string, s stamp.Stamp) bool

// headLength is as much of a file as is read to find its stamp.
const headLength = 1024

// Compare finds what has to change in a directory, sorted by path. A directory that isn't there is empty. The depth of the
// tree that may be ours is what render makes of it: <host>/<file> and <host>/<directory>/<directory>/<file>.
func Compare(dir string, files []File, removable Removable) ([]Change, error) {
	root, err := os.OpenRoot(dir)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		root = nil
	case err != nil:
		return nil, err
	default:
		defer root.Close()
	}
	changes := make([]*Change, len(files))
	err = inParallel(len(files), func(i int) error {
		f := files[i]
		old, mode, err := read(root, f.Path)
		switch {
		case errors.Is(err, fs.ErrNotExist):
			changes[i] = &Change{Path: f.Path, New: f.Text, Added: true, private: f.Private}
		case err != nil:
			return err
		case old != f.Text || f.Private && mode.Perm()&0o077 != 0:
			changes[i] = &Change{Path: f.Path, Old: old, New: f.Text, private: f.Private}
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	kept := make(map[string]bool, len(files))
	for _, f := range files {
		kept[f.Path] = true
	}
	all := make([]Change, 0, len(files))
	for _, c := range changes {
		if c != nil {
			all = append(all, *c)
		}
	}
	if root != nil {
		gone, err := stale(root, kept, removable)
		if err != nil {
			return nil, err
		}
		all = append(all, gone...)
	}
	slices.SortFunc(all, func(a, b Change) int { return strings.Compare(a.Path, b.Path) })
	return all, nil
}

// ReadFile reads a regular file in a directory.
func ReadFile(dir, name string) (string, error) {
	root, err := os.OpenRoot(dir)
	if err != nil {
		return "", err
	}
	defer root.Close()
	text, _, err := read(root, name)
	return text, err
}

// read reads a regular file; there is none in a nil directory. A symbolic link counts as what it points at, as long as that is in
// the directory; renaming replaces the link.
func read(root *os.Root, name string) (string, fs.FileMode, error) {
	if root == nil {
		return "", 0, fs.ErrNotExist
	}
	full := filepath.Join(root.Name(), filepath.FromSlash(name))
	// Opening a FIFO would wait for who writes into it, and so would reading it.
	file, err := root.OpenFile(filepath.FromSlash(name), os.O_RDONLY|syscall.O_NONBLOCK, 0)
	if err != nil {
		if link, linkErr := root.Lstat(filepath.FromSlash(name)); linkErr == nil && link.Mode()&fs.ModeSymlink != 0 {
			return "", 0, fmt.Errorf("%s is in the way: it is a link: %w", full, err)
		}
		return "", 0, err
	}
	defer file.Close()
	info, err := file.Stat()
	if err != nil {
		return "", 0, err
	}
	if !info.Mode().IsRegular() {
		return "", 0, fmt.Errorf("%s is in the way: it is no regular file", full)
	}
	data, err := io.ReadAll(file)
	return string(data), info.Mode(), err
}

// maxDepth is the deepest level below the directory at which files of ours are: <host>/dnsmasq.d/pigsty/<name>.
const maxDepth = 4

// stale finds files of ours that aren't rendered any more.
func stale(root *os.Root, kept map[string]bool, removable Removable) ([]Change, error) {
	var gone []Change
	err := fs.WalkDir(root.FS(), ".", func(relative string, entry fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		depth := strings.Count(relative, "/") + 1
		switch {
		case entry.IsDir() && depth >= maxDepth:
			return filepath.SkipDir
		case entry.IsDir(), !entry.Type().IsRegular(), depth < 2, kept[relative]:
			return nil
		}
		s, ours, err := stampOf(root, relative)
		if err != nil || !ours || !removable(relative, s) {
			return err
		}
		text, _, err := read(root, relative)
		if err != nil {
			return err
		}
		gone = append(gone, Change{Path: relative, Old: text, Removed: true})
		return nil
	})
	return gone, err
}

func stampOf(root *os.Root, name string) (stamp.Stamp, bool, error) {
	file, err := root.OpenFile(filepath.FromSlash(name), os.O_RDONLY|syscall.O_NONBLOCK, 0)
	if err != nil {
		// A file that may not be read isn't known to be ours.
		if errors.Is(err, fs.ErrPermission) || errors.Is(err, fs.ErrNotExist) {
			return stamp.Stamp{}, false, nil
		}
		return stamp.Stamp{}, false, err
	}
	defer file.Close()
	head := make([]byte, headLength)
	n, err := io.ReadFull(file, head)
	if err != nil && !errors.Is(err, io.EOF) && !errors.Is(err, io.ErrUnexpectedEOF) {
		return stamp.Stamp{}, false, err
	}
	s, ours := stamp.Of(path.Base(name), string(head[:n]))
	return s, ours, nil
}

// Apply carries changes out. If the new files can't all be written, nothing has changed but for directories that were made.
func Apply(dir string, changes []Change) error {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	root, err := os.OpenRoot(dir)
	if err != nil {
		return err
	}
	defer root.Close()
	made := map[string]bool{".": true}
	for _, c := range changes {
		parent := filepath.Dir(filepath.FromSlash(c.Path))
		if c.Removed || made[parent] {
			continue
		}
		if err := root.MkdirAll(parent, 0o755); err != nil {
			return fmt.Errorf("%s: %w", filepath.Join(dir, parent), err)
		}
		made[parent] = true
	}
	beside := make([]string, len(changes))
	err = inParallel(len(changes), func(i int) error {
		c := changes[i]
		if c.Removed {
			return nil
		}
		name := filepath.FromSlash(c.Path)
		// A name that begins with a dot is read neither by HAProxy nor by dnsmasq.
		beside[i] = filepath.Join(filepath.Dir(name), fmt.Sprintf(".%s.%d.new", filepath.Base(name), os.Getpid()))
		return writeNew(root, beside[i], c.New, c.private)
	})
	if err != nil {
		for _, name := range beside {
			if name != "" {
				_ = root.Remove(name)
			}
		}
		return err
	}
	var failed []error
	for i, c := range changes {
		name := filepath.FromSlash(c.Path)
		if c.Removed {
			err = root.Remove(name)
		} else {
			err = root.Rename(beside[i], name)
		}
		if err != nil && !(c.Removed && errors.Is(err, fs.ErrNotExist)) {
			failed = append(failed, err)
		}
	}
	return errors.Join(failed...)
}

func writeNew(root *os.Root, name, text string, private bool) error {
	mode := fs.FileMode(0o644)
	if private {
		mode = 0o600
	}
	file, err := root.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_EXCL, mode)
	if errors.Is(err, fs.ErrExist) {
		// An earlier process with this number was killed at its work.
		if err = root.Remove(name); err == nil {
			file, err = root.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_EXCL, mode)
		}
	}
	if err != nil {
		return err
	}
	_, err = io.WriteString(file, text)
	return errors.Join(err, file.Close())
}

// inParallel calls do for 0 to n-1, spread over the processors: most of the time goes into the kernel.
func inParallel(n int, do func(i int) error) error {
	workers := max(1, min(n, runtime.GOMAXPROCS(0)))
	var group errgroup.Group
	for w := range workers {
		group.Go(func() error {
			for i := w * n / workers; i < (w+1)*n/workers; i++ {
				if err := do(i); err != nil {
					return err
				}
			}
			return nil
		})
	}
	return group.Wait()
}
