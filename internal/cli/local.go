package cli

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"github.com/pgporter/pgporter/internal/admin/api"
	"github.com/pgporter/pgporter/internal/cli/command"
	"github.com/pgporter/pgporter/internal/daemon"
	"github.com/pgporter/pgporter/internal/engine/process"
)

// localFlags name a pgporter that runs on this machine, which is to get a signal, and say how long it may take to do what that asks for.
type localFlags struct {
	admin   string
	pid     int
	timeout time.Duration
}

func (l *localFlags) add(c *cobra.Command) {
	adminFlag(c, &l.admin)
	c.Flags().IntVar(&l.pid, "pid", 0, "the pgporter with this process `NUMBER`, whatever its admin address is")
	c.Flags().DurationVar(&l.timeout, "timeout", time.Minute, "how long to wait for the outcome, as `TIME`")
	c.PreRunE = func(c *cobra.Command, _ []string) error {
		if c.Flags().Changed("admin") && c.Flags().Changed("pid") {
			return command.Input(errors.New("--admin and --pid: one of them"))
		}
		return nil
	}
}

// ask sends the pgporter a signal, and what it says afterwards to outcome until that has what it waits for.
func (l localFlags) ask(signal syscall.Signal, outcome func(before, after *api.Status) (done bool, err error)) error {
	if l.timeout <= 0 {
		return command.Input(fmt.Errorf("--timeout %s: more than 0", l.timeout))
	}
	ctx, cancel := context.WithTimeout(context.Background(), l.timeout)
	defer cancel()
	address, before, err := l.find(ctx)
	if err != nil {
		return err
	}
	client := api.Client{Address: address}
	at, err := resolved(ctx, address)
	if err != nil {
		return err
	}
	if err := daemon.Ask(before.PID, at, signal); err != nil {
		return notAsked(address, before.PID, err)
	}
	for {
		select {
		case <-ctx.Done():
			return fmt.Errorf("the pgporter at %s (pid %d) hasn't said how it went; its log does", address, before.PID)
		case <-time.After(20 * time.Millisecond):
		}
		// Between two processes nobody may answer for a moment.
		after, err := client.Status(ctx)
		if err != nil {
			continue
		}
		if done, err := outcome(before, after); done || err != nil {
			return err
		}
	}
}

// find asks the pgporter that the flags mean for its status, and gives the address at which it answers.
func (l localFlags) find(ctx context.Context) (string, *api.Status, error) {
	address, err := adminAddress(l.admin)
	if l.pid != 0 {
		address, err = adminOf(l.pid)
	}
	if err != nil {
		return "", nil, err
	}
	status, err := api.Client{Address: address}.Status(ctx)
	if err != nil {
		return "", nil, err
	}
	if l.pid != 0 && status.PID != l.pid {
		return "", nil, fmt.Errorf("the pgporter at %s is process %d, not %d", address, status.PID, l.pid)
	}
	return address, status, nil
}

// notAsked says why a process isn't asked for anything.
func notAsked(address string, pid int, err error) error {
	switch {
	case errors.Is(err, process.ErrEnded):
		return fmt.Errorf("the pgporter at %s (pid %d) doesn't run on this machine: do it there", address, pid)
	case errors.Is(err, os.ErrPermission):
		return fmt.Errorf("the pgporter at %s (pid %d) can't be sent a signal: %w: do it as its user, or as root", address, pid, err)
	}
	return fmt.Errorf("what answers at %s names process %d, which isn't sent a signal: %w", address, pid, err)
}

// adminOf is the admin address of the pgporter with a process number, by the arguments that it was started with (proc(5)).
func adminOf(pid int) (string, error) {
	text, err := os.ReadFile(filepath.Join("/proc", strconv.Itoa(pid), "cmdline"))
	if err != nil {
		return "", fmt.Errorf("--pid %d: its arguments can't be read: %w", pid, err)
	}
	address, err := adminOfRun(strings.Split(strings.TrimSuffix(string(text), "\x00"), "\x00"))
	if err != nil {
		return "", fmt.Errorf("--pid %d: %w", pid, err)
	}
	return address, nil
}

// adminOfRun is where a pgporter run with these arguments, its name among them, serves its status.
func adminOfRun(args []string) (string, error) {
	c, rest, err := newRootCommand().Find(args[1:])
	if err != nil || c.Name() != "run" {
		return "", errors.New("it isn't a pgporter run")
	}
	if err := c.ParseFlags(rest); err != nil {
		return "", fmt.Errorf("its arguments are another version's: %w", err)
	}
	// Whatever the flags are, these two are texts.
	bind, _ := c.Flags().GetString("bind")
	admin, _ := c.Flags().GetString("admin")
	_, address, err := runAddresses(bind, admin)
	return address, err
}

// resolved gives the addresses that an address with a host may be.
func resolved(ctx context.Context, address string) ([]netip.AddrPort, error) {
	host, port, err := net.SplitHostPort(address)
	if err != nil {
		return nil, err
	}
	addrs, err := net.DefaultResolver.LookupNetIP(ctx, "ip", host)
	if err != nil {
		return nil, fmt.Errorf("admin address %s: %w", address, err)
	}
	number, err := strconv.ParseUint(port, 10, 16)
	if err != nil {
		return nil, fmt.Errorf("admin address %s: %w", address, err)
	}
	var all []netip.AddrPort
	for _, addr := range addrs {
		all = append(all, netip.AddrPortFrom(addr, uint16(number)))
	}
	return all, nil
}
