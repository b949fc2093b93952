package daemon

import (
	"errors"
	"fmt"
	"net/netip"
	"os"
	"os/user"
	"slices"
	"strconv"
	"syscall"

	"github.com/pgporter/pgporter/internal/engine/process"
	"github.com/pgporter/pgporter/internal/engine/proxy"
)

// Ask sends the pgporter with a process number a signal: SIGUSR2 asks for an upgrade, SIGHUP for a reload. The number is what somebody
// said who answered at one of the admin addresses, and any local user may have answered: unless the process is seen to be a pgporter
// that listens there, and the caller's (root's may be anybody's), it gets nothing.
func Ask(pid int, admin []netip.AddrPort, signal syscall.Signal) error {
	p, _, err := seen(pid, admin)
	if err != nil {
		return err
	}
	defer p.Close()
	return p.Signal(signal)
}

// seen opens the process if it is all that, and tells whose it is.
func seen(pid int, admin []netip.AddrPort) (*process.Process, int, error) {
	p, err := process.Open(pid)
	if err != nil {
		return nil, -1, err
	}
	user, err := isOurs(p, admin)
	if err != nil {
		p.Close()
		return nil, -1, err
	}
	return p, user, nil
}

// isOurs says why it isn't all that, and else whose it is.
func isOurs(p *process.Process, admin []netip.AddrPort) (int, error) {
	program, err := os.Executable()
	if err != nil {
		return -1, err
	}
	if err := p.Executes(program, "pgporter"); err != nil {
		return -1, err
	}
	user, err := p.User()
	switch {
	case err != nil:
		return -1, err
	case os.Geteuid() != 0 && user != os.Geteuid():
		return -1, fmt.Errorf("it belongs to the user with id %d: %w", user, os.ErrPermission)
	case !slices.ContainsFunc(admin, func(at netip.AddrPort) bool { return proxy.Listens(p.PID, at) }):
		return -1, errors.New("it isn't seen to listen there")
	}
	return user, nil
}

// userNamed is what a user is called; empty if that isn't known.
func userNamed(id int) string {
	who, err := user.LookupId(strconv.Itoa(id))
	if err != nil {
		return ""
	}
	return who.Username
}
