package daemon

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"syscall"

	"github.com/pgporter/pgporter/internal/config/diag"
	"github.com/pgporter/pgporter/internal/config/intake"
)

// PlanFile is a Source that reads a plan's file, which `pgporter plan` has made for one node.
type PlanFile struct {
	Path string
	// Node is the inventory host that this node was said to be. Empty is the plan's, if that may be this machine, of which Local are
	// the addresses.
	Node  string
	Local []string
	// Watch, HAProxy and Names are as in InventoryFile.
	Watch, HAProxy, Names bool
	Logger                *slog.Logger
}

// Name is the file's path.
func (f *PlanFile) Name() string { return f.Path }

// Load reads the file.
func (f *PlanFile) Load(context.Context) (Loaded, error) {
	file, problems := ReadPlan(f.Path)
	if problems.Err() != nil {
		return Loaded{}, problems
	}
	refuse := func(want, format string, args ...any) {
		problems.Errorf(diag.PlanInvalid, diag.Position{File: f.Path}, want, format, args...)
	}
	if err := f.Fits(file.Plan.Node); err != nil {
		refuse("the plan of this node", "%v", err)
	}
	switch {
	case f.HAProxy && file.Base == nil:
		refuse("pgporter plan --engine haproxy", "the plan was made for the native engine, and HAProxy is to carry the services")
	case !f.HAProxy && file.Base != nil:
		refuse("pgporter plan without --engine haproxy, or run with it", "the plan was made for HAProxy, and the native engine is to carry the services")
	}
	if f.Names && len(file.Plan.Names) == 0 && len(file.Plan.Clusters) > 0 {
		refuse("pgporter plan --names", "the plan has no names, and this node is to tell them")
	}
	if err := problems.Err(); err != nil {
		return Loaded{}, err
	}
	l := Loaded{Plan: file.Plan, Base: file.Base, Page: file.Page, Etcd: file.Etcd, Made: &file.Made, Digest: file.SHA256}
	if l.Digest == "" {
		var err error
		if l.Digest, err = intake.Digest(file.Node); err != nil {
			return Loaded{}, err
		}
	}
	if !f.Names {
		l.Plan.Names, l.Plan.Elsewhere = nil, nil
	}
	for _, w := range problems.Warnings() {
		l.Warnings = append(l.Warnings, w.String())
	}
	return l, nil
}

// Follow reads the file again after each edit, if Watch is set.
func (f *PlanFile) Follow(ctx context.Context, changed func(Loaded, error)) error {
	if !f.Watch {
		return nil
	}
	dirs := func() []string { return []string{filepath.Dir(f.Path)} }
	concerns := func(path string) bool { return filepath.Clean(path) == filepath.Clean(f.Path) }
	return follow(ctx, f, f.Logger, dirs, concerns, changed)
}

// Digest is that of what the file says now, whoever made it when; empty if it can't be used.
func (f *PlanFile) Digest() string {
	l, err := f.Load(context.Background())
	if err != nil {
		return ""
	}
	return l.Digest
}

// Fits says why a plan for a node isn't for this one.
func (f *PlanFile) Fits(node string) error { return fits(node, f.Node, f.Local) }

// fits says why a plan for a node isn't for this one, which was said to be an inventory host or, if that is empty, is one of its own
// addresses.
func fits(node, said string, local []string) error {
	switch address, err := netip.ParseAddr(node); {
	case said == node:
		return nil
	case said != "":
		return fmt.Errorf("the plan is for %s, and this node is %s", node, said)
	case err == nil && !address.IsLoopback() && !slices.Contains(local, node):
		return fmt.Errorf("the plan is for %s, which is no address of this machine: say --node %s if it is this one all the same", node, node)
	}
	return nil
}

// errSpecial is what isn't a regular file: reading a FIFO would wait for who writes into it.
var errSpecial = errors.New("it isn't a regular file")

// ReadPlan reads a plan's file.
func ReadPlan(path string) (intake.File, diag.Problems) {
	return readPlan(path, func(fs.FileInfo) error { return nil })
}

// readPlan reads a plan's file that is found right once it is open.
func readPlan(path string, check func(fs.FileInfo) error) (intake.File, diag.Problems) {
	text, err := func() ([]byte, error) {
		file, err := os.OpenFile(path, os.O_RDONLY|syscall.O_NONBLOCK, 0)
		if err != nil {
			return nil, err
		}
		defer file.Close()
		info, err := file.Stat()
		if err == nil && !info.Mode().IsRegular() {
			err = errSpecial
		}
		if err == nil {
			err = check(info)
		}
		if err != nil {
			return nil, err
		}
		return io.ReadAll(io.LimitReader(file, intake.MaxFileBytes+1))
	}()
	if err != nil {
		if failed := (*fs.PathError)(nil); errors.As(err, &failed) {
			err = failed.Err
		}
		want := ""
		switch {
		case errors.Is(err, fs.ErrNotExist):
			want = "this node's plan, which pgporter plan --inventory FILE --node HOST makes where the inventory is"
		case errors.Is(err, fs.ErrPermission):
			want = "a file that the user may read as whom pgporter runs"
		}
		var problems diag.Problems
		problems.Errorf(diag.FileUnreadable, diag.Position{File: path}, want, "the plan can't be read: %v", err)
		return intake.File{}, problems
	}
	return intake.DecodeFile(path, text)
}

// planMode is a plan's: what it holds is no secret, but nobody else's business either.
const planMode = 0o640

// WritePlan writes a plan's file whole: whoever reads it, also after a crash, finds what was there before or all of the new one.
func WritePlan(path string, f intake.File) error {
	text, err := f.Encode()
	if err != nil {
		return err
	}
	return writeWhole(path, text)
}

// writeWhole writes a file whole: whatever happens, it is the old one or the new one.
func writeWhole(path string, text []byte) error {
	dir := filepath.Dir(path)
	beside := filepath.Join(dir, fmt.Sprintf(".%s.%d.new", filepath.Base(path), os.Getpid()))
	// An earlier process with this number may have been killed at its work.
	if err := os.Remove(beside); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	file, err := os.OpenFile(beside, os.O_WRONLY|os.O_CREATE|os.O_EXCL, planMode)
	if err != nil {
		return err
	}
	// Whatever the umask takes away, whoever is in the group may read it.
	err = file.Chmod(planMode)
	if err == nil {
		_, err = file.Write(text)
	}
	if err == nil {
		err = file.Sync()
	}
	err = errors.Join(err, file.Close())
	if err == nil {
		err = os.Rename(beside, path)
	}
	if err != nil {
		_ = os.Remove(beside)
		return err
	}
	directory, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(directory.Sync(), directory.Close())
}
