package cli

import (
	"fmt"
	"syscall"

	"github.com/spf13/cobra"

	"github.com/pgporter/pgporter/internal/admin/api"
	"github.com/pgporter/pgporter/internal/cli/command"
)

func newUpgradeCommand() *cobra.Command {
	var local localFlags
	c := &cobra.Command{
		Use:   "upgrade",
		Short: "Have a new process take over from the one that runs, sessions included",
		Long: `Has the running pgporter start the program that it was started as, which may be another version by now, with the same
arguments, and hand everything over to it: open ports, sessions, clients that wait, counters. No client notices. The new process
reads its configuration anew and checks the servers before it takes anything; if it can't, or if it isn't the moment (a server
that has sessions is just failing, say), the old one goes on as if nothing had been, and upgrade says why.

It works on the machine (Linux), and as the user, that pgporter runs on and as: the process that the address names gets a signal
only if it is a pgporter of that user and seen to listen at the address. It is the same as sending the process SIGUSR2, but that
upgrade waits for the outcome. The new process has another number; systemd is notified.

Debian's package does this by itself when it is upgraded.`,
		Example: `  pgporter upgrade
  pgporter upgrade --admin 10.10.10.11
  pgporter upgrade --pid 4711`,
		Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			return local.ask(syscall.SIGUSR2, func(before, after *api.Status) (bool, error) {
				text, err := upgraded(before, after)
				if text != "" {
					fmt.Fprintln(c.OutOrStdout(), text)
				}
				return text != "", err
			})
		},
	}
	local.add(c)
	return c
}

// upgraded says what an upgrade has come to by what a pgporter said before and says now: nothing yet, that it was upgraded, or why not.
func upgraded(before, after *api.Status) (string, error) {
	switch {
	case after.PID != before.PID && after.Upgrade != nil && after.Upgrade.PID == before.PID:
		return fmt.Sprintf("pgporter %s (pid %d) has taken over from %s (pid %d): %s, %s", after.Version, after.PID, before.Version, before.PID,
			command.Plural(after.Upgrade.Sessions, "session"), command.Plural(after.Upgrade.Clients, "waiting client")), nil
	case after.PID != before.PID:
		return "", fmt.Errorf("the pgporter there is another one now (pid %d), and didn't take over from pid %d", after.PID, before.PID)
	case failedSince(before.Upgrade, after.Upgrade):
		return "", fmt.Errorf("not upgraded, pid %d goes on: %s", before.PID, after.Upgrade.Problem)
	}
	return "", nil
}

// failedSince tells whether there was a failed attempt between two looks.
func failedSince(before, after *api.Upgrade) bool {
	return after != nil && after.Problem != "" && (before == nil || !after.At.Equal(before.At))
}
