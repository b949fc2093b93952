package cli

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"strconv"
	"time"

	"github.com/spf13/cobra"

	"github.com/pgporter/pgporter/internal/admin/api"
	"github.com/pgporter/pgporter/internal/cli/command"
	"github.com/pgporter/pgporter/internal/daemon"
	"github.com/pgporter/pgporter/internal/engine/process"
)

func newUpgradeCommand() *cobra.Command {
	var admin string
	var timeout time.Duration
	c := &cobra.Command{
		Use:   "upgrade",
		Short: "Have a new process take over from the one that runs, sessions included",
		Long: `Has the running pgporter start the program that it was started as, which may be another version by now, with the same
arguments, and hand everything over to it: open ports, sessions, clients that wait, counters. No client notices. The new process
reads its configuration anew and checks the servers before it takes anything; if it can't, or if it isn't the moment (a server
that has sessions is just failing, say), the old one goes on as if nothing had been, and upgrade says why.

It works on the machine (Linux), and as the user, that pgporter runs on and as: the process that the address names gets a signal
only if it is a pgporter of that user and seen to listen at the address. It is the same as sending the process SIGUSR2, but that
upgrade waits for the outcome. The new process has another number; systemd is notified.`,
		Example: `  pgporter upgrade
  pgporter upgrade --admin 10.10.10.11
  systemctl reload pgporter                       # with the unit of pgporter help operations`,
		Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			address, err := adminAddress(admin)
			if err != nil {
				return err
			}
			if timeout <= 0 {
				return command.Input(fmt.Errorf("--timeout %s: more than 0", timeout))
			}
			ctx, cancel := context.WithTimeout(context.Background(), timeout)
			defer cancel()
			before, after, err := upgrade(ctx, api.Client{Address: address})
			if err != nil {
				return err
			}
			fmt.Fprintln(c.OutOrStdout(), upgraded(before, after))
			return nil
		},
	}
	adminFlag(c, &admin)
	c.Flags().DurationVar(&timeout, "timeout", upgradeTimeout, "how long to wait for the outcome, as `TIME`")
	return c
}

// upgradeTimeout is longer than a pgporter takes to find out that it can't be upgraded.
const upgradeTimeout = time.Minute

// upgraded says in words what an upgrade came to.
func upgraded(before, after *api.Status) string {
	return fmt.Sprintf("pgporter %s (pid %d) has taken over from %s (pid %d): %s, %s", after.Version, after.PID, before.Version, before.PID,
		plural(after.Upgrade.Sessions, "session"), plural(after.Upgrade.Clients, "waiting client"))
}

// upgrade has the pgporter that a client asks replaced, and gives what it said before and what its successor says.
func upgrade(ctx context.Context, client api.Client) (before, after *api.Status, err error) {
	if before, err = client.Status(ctx); err != nil {
		return nil, nil, err
	}
	at, err := resolved(ctx, client.Address)
	if err != nil {
		return nil, nil, err
	}
	switch err := daemon.AskUpgrade(before.PID, at); {
	case errors.Is(err, process.ErrEnded):
		return nil, nil, fmt.Errorf("the pgporter at %s (pid %d) doesn't run on this machine: upgrade it there", client.Address, before.PID)
	case errors.Is(err, os.ErrPermission):
		return nil, nil, fmt.Errorf("the pgporter at %s (pid %d) can't be sent a signal: %w: upgrade it as its user, or as root", client.Address, before.PID, err)
	case err != nil:
		return nil, nil, fmt.Errorf("what answers at %s names process %d, which isn't sent a signal: %w", client.Address, before.PID, err)
	}
	for {
		select {
		case <-ctx.Done():
			return nil, nil, fmt.Errorf("the pgporter at %s (pid %d) hasn't said how its upgrade went; its log does", client.Address, before.PID)
		case <-time.After(20 * time.Millisecond):
		}
		// Between the two processes nobody may answer for a moment.
		after, err := client.Status(ctx)
		switch {
		case err != nil:
		case after.PID != before.PID && after.Upgrade != nil && after.Upgrade.PID == before.PID:
			return before, after, nil
		case after.PID != before.PID:
			return nil, nil, fmt.Errorf("the pgporter at %s is another one now (pid %d), and didn't take over from pid %d", client.Address, after.PID, before.PID)
		case failedSince(before.Upgrade, after.Upgrade):
			return nil, nil, fmt.Errorf("not upgraded, pid %d goes on: %s", before.PID, after.Upgrade.Problem)
		}
	}
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

func plural(n int, what string) string {
	if n != 1 {
		what += "s"
	}
	return fmt.Sprintf("%d %s", n, what)
}

// failedSince tells whether there was a failed attempt between two looks.
func failedSince(before, after *api.Upgrade) bool {
	return after != nil && after.Problem != "" && (before == nil || !after.At.Equal(before.At))
}
