package daemon

import (
	"errors"
	"fmt"
	"net/netip"
	"os"
	"slices"
	"syscall"

	"github.com/pgporter/pgporter/internal/engine/process"
	"github.com/pgporter/pgporter/internal/engine/proxy"
)

// Ask sends the pgporter with a process number a signal: SIGUSR2 asks for an upgrade, SIGHUP for a reload. The number is what somebody
// said who answered at one of the admin addresses, and any local user may have answered: unless the process is seen to be a pgporter
// that listens there, and the caller's (root's may be anybody's), it gets nothing.
func Ask(pid int, admin []netip.AddrPort, signal syscall.Signal) error {
	p, err := process.Open(pid)
	if err != nil {
		return err
	}
	defer p.Close()
	program, err := os.Executable()
	if err != nil {
		return err
	}
	if err := p.Executes(program, "pgporter"); err != nil {
		return err
	}
	user, err := p.User()
	switch {
	case err != nil:
		return err
	case os.Geteuid() != 0 && user != os.Geteuid():
		return fmt.Errorf("it belongs to the user with id %d: %w", user, os.ErrPermission)
	case !slices.ContainsFunc(admin, func(at netip.AddrPort) bool { return proxy.Listens(pid, at) }):
		return errors.New("it isn't seen to listen there")
	}
	return p.Signal(signal)
}
