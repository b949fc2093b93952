package sandbox

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/user"
	"path/filepath"
	"strconv"
	"syscall"
)

// runUser is whom the sandbox's processes run as.
type runUser struct {
	uid, gid int
	name     string
	// switched says that this isn't the caller: PostgreSQL refuses to run as root.
	switched bool
}

// unprivileged is the account that Debian's PostgreSQL packages make.
const unprivileged = "postgres"

func chooseUser() (runUser, error) {
	if os.Geteuid() != 0 {
		name := strconv.Itoa(os.Getuid())
		if u, err := user.Current(); err == nil {
			name = u.Username
		}
		return runUser{uid: os.Getuid(), gid: os.Getgid(), name: name}, nil
	}
	u, err := user.Lookup(unprivileged)
	if err != nil {
		return runUser{}, fmt.Errorf("PostgreSQL refuses to run as root, and there is no other user for it: %w", err)
	}
	uid, uidErr := strconv.Atoi(u.Uid)
	gid, gidErr := strconv.Atoi(u.Gid)
	if err := errors.Join(uidErr, gidErr); err != nil {
		return runUser{}, fmt.Errorf("user %s: %w", unprivileged, err)
	}
	return runUser{uid: uid, gid: gid, name: unprivileged, switched: true}, nil
}

// attributes make a child run as the user, in a session of its own so that the terminal's Ctrl-C doesn't reach it.
func (u runUser) attributes() *syscall.SysProcAttr {
	attr := &syscall.SysProcAttr{Setsid: true}
	if u.switched {
		attr.Credential = &syscall.Credential{Uid: uint32(u.uid), Gid: uint32(u.gid), Groups: []uint32{uint32(u.gid)}}
	}
	return attr
}

// own gives a path to the user, with exactly that mode whatever the umask.
func (u runUser) own(path string, mode fs.FileMode) error {
	if u.switched {
		if err := os.Lchown(path, u.uid, u.gid); err != nil {
			return err
		}
	}
	return os.Chmod(path, mode)
}

// may says whether the user has the permission bits want (4 read, 1 execute or search) on what info describes. Access
// control lists are not looked at.
func (u runUser) may(info fs.FileInfo, want fs.FileMode) bool {
	st, ok := info.Sys().(*syscall.Stat_t)
	if !ok {
		return false
	}
	mode := info.Mode().Perm()
	switch {
	case int(st.Uid) == u.uid:
		mode >>= 6
	case int(st.Gid) == u.gid:
		mode >>= 3
	}
	return mode&want == want
}

// reaches says which directory above path the user can't go through; nil if there is none.
func (u runUser) reaches(path string) error {
	for dir := filepath.Dir(path); ; dir = filepath.Dir(dir) {
		info, err := os.Stat(dir)
		switch {
		case errors.Is(err, fs.ErrNotExist):
		case err != nil:
			return err
		case !u.may(info, 1):
			return fmt.Errorf("user %s can't go through %s (%s)", u.name, dir, info.Mode())
		}
		if dir == filepath.Dir(dir) {
			return nil
		}
	}
}

// runs says whether the user can execute a program where it is.
func (u runUser) runs(program string) bool {
	real, err := filepath.EvalSymlinks(program)
	if err != nil {
		return false
	}
	info, err := os.Stat(real)
	return err == nil && u.may(info, 1) && u.reaches(real) == nil && u.reaches(program) == nil
}
