// Package cli is pgporter's commands: it reads flags, calls the packages that do the work and prints for people or scripts.
//
// Exit status: 0 done; 1 it was tried and failed; 2 the input (flags, inventory) can't be used. Results go to standard
// output, everything else to standard error.
package cli

import (
	"io"

	"github.com/spf13/cobra"

	"github.com/pgporter/pgporter/internal/cli/command"
	"github.com/pgporter/pgporter/internal/config/safetext"
)

// Main runs the command line and gives the exit status.
func Main(args []string, stdin io.Reader, stdout, stderr io.Writer) int {
	return command.Main(newRootCommand(), args, stdin, stdout, safetext.Writer(stderr))
}

func newRootCommand() *cobra.Command {
	root := &cobra.Command{
		Use:   "pgporter",
		Short: "A TCP proxy for Patroni clusters: connects clients of PostgreSQL services to the instance that can serve them now",
		Long: `pgporter is a TCP proxy for Patroni-managed PostgreSQL clusters. A client connects to a service (primary 5433,
replica 5434, default 5436, offline 5438, or one of your own) on any node; pgporter connects it to the instance that can
serve it now, through failover and switchover. It reads Pigsty inventories as they are; who has Patroni alone writes a
pgporter.yml (pgporter init makes a first one), which every command takes in an inventory's place.`,
		Example: `  pgporter check pigsty.yml                                    # what is wrong with it, all at once
  pgporter services pigsty.yml                                 # what it declares
  pgporter render pigsty.yml --out rendered                    # its files for HAProxy, dnsmasq, vip-manager, libpq
  pgporter plan pigsty.yml --out plans                         # what each node is to run from, without secrets
  pgporter run --plan plans/10.10.10.11.json                   # serve it on this node
  pgporter init --patroni 10.10.10.11:8008 --out pgporter.yml  # no inventory: a file of your own, from the living cluster
  pgporter run --patroni 10.10.10.11:8008                      # or none at all: ask Patroni who is there
  pgporter top                                                 # who serves what, and why, live
  pgporter drain pg-test-2 --wait 5m                           # no new clients for a server, until its sessions have ended
  pgporter switchover pg-test -i pigsty.yml --dry-run          # who would lead next, and what would be done to whom
  pgporter reload --inventory pigsty.yml pg-test --dry-run     # what a changed inventory would change on the nodes`,
		Args: command.SubcommandOnly,
		RunE: func(c *cobra.Command, _ []string) error { return c.Help() },
		// Words two letters away are suggested.
		SuggestionsMinimumDistance: 2,
	}
	root.AddCommand(
		newRunCommand(),
		newInitCommand(),
		newCheckCommand(),
		newPlanCommand(),
		newServicesCommand(),
		newURLCommand(),
		newDoctorCommand(),
		newRenderCommand(),
		newStatusCommand(),
		newTopCommand(),
		newWhoCommand(),
		newSessionsCommand(),
		newDrainCommand(),
		newMaintCommand(),
		newReadyCommand(),
		newWeightCommand(),
		newKillSessionsCommand(),
		newSwitchoverCommand(),
		newHealthCommand(),
		newReloadCommand(),
		newRereadCommand(),
		newBundleCommand(),
		newUpgradeCommand(),
		newTakeoverCommand(),
		newCredentialsCommand(),
		command.NewVersion(),
		exitStatusTopic(),
		signalsTopic(),
	)
	return root
}

func exitStatusTopic() *cobra.Command {
	return &cobra.Command{
		Use:   "exit-status",
		Short: "What the exit status of a command means",
		Long: `Exit status of every command:

  0  done
  1  it was tried and failed: a port is taken, nobody answers, a process died
  2  the input can't be used: a flag, an argument, or the inventory; every problem has been printed as file:line:col`,
	}
}

func signalsTopic() *cobra.Command {
	return &cobra.Command{
		Use:   "signals",
		Short: "What signals tell a running pgporter",
		Long: `Signals that pgporter run understands:

  SIGHUP           read the plan or the inventory again and swap it in; open sessions stay. A broken one is refused with
                   all its problems in the log, and what was running goes on. The control address's token and
                   certificate are read again too: pgporter help reread. The session log is opened anew, for logrotate
  SIGUSR2          start the program anew and hand everything over to it, sessions included: pgporter help upgrade
  SIGTERM, SIGINT  stop accepting at once, let sessions finish for up to --stop-timeout, then end the rest and exit;
                   a second one ends the rest at once`,
	}
}
