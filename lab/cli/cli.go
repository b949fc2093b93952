// Package cli is the commands of pgporter-lab: a sandbox to try pgporter on, and the tests and benchmarks that take long. All of
// them run pgporter as its users do, as a program.
package cli

import (
	"errors"
	"io"

	"github.com/spf13/cobra"

	"github.com/pgporter/pgporter/internal/cli/command"
	"github.com/pgporter/pgporter/lab/bench/failover"
	"github.com/pgporter/pgporter/lab/bench/throughput"
	"github.com/pgporter/pgporter/lab/chaos"
	"github.com/pgporter/pgporter/lab/sandbox"
)

// Main runs the command line and gives the exit status.
func Main(args []string, stdin io.Reader, stdout, stderr io.Writer) int {
	return command.Main(newRootCommand(), args, stdin, stdout, stderr)
}

// input marks what the caller has to say otherwise.
func input(err error) error {
	for _, kind := range []error{sandbox.ErrInput, chaos.ErrInput, failover.ErrInput, throughput.ErrInput} {
		if errors.Is(err, kind) {
			return command.Input(err)
		}
	}
	return err
}

func newRootCommand() *cobra.Command {
	root := &cobra.Command{
		Use:   "pgporter-lab",
		Short: "Tries and tests pgporter on real clusters",
		Long: `pgporter-lab runs what pgporter is tried and tested with. Its programs, pgporter included, are run as their users run them.

A sandbox is a real Patroni cluster on loopback addresses of this machine: etcd, and per member PostgreSQL, Patroni,
PgBouncer and a pgporter that offers the cluster's services. It is described by an ordinary Pigsty inventory, which the
pgporters are run from. Everything is in one directory and goes with it.

It needs the Debian packages that scripts/prerequisites installs. Run by root, everything in it runs as the user
postgres, otherwise as the caller. Any user of the machine can connect, with the documents' public passwords, one of
which is a superuser's: use a machine of your own.

Exit status: 0 done, 1 it was tried and failed, 2 the input can't be used; exec and psql give that of the program that they
ran.`,
		Example: `  pgporter-lab up                          # three members on 127.0.1.11 to .13; Ctrl-C takes them down
  pgporter-lab up --detach                 # … and come back to the prompt
  pgporter-lab psql primary                # through the service, to whoever is primary
  pgporter-lab load                        # write, and watch what clients see of what follows
  pgporter-lab switchover
  pgporter-lab kill 1/patroni 1/postgres   # the first member crashes
  pgporter-lab down`,
		Args: command.SubcommandOnly,
		RunE: func(c *cobra.Command, _ []string) error { return c.Help() },
		// Words two letters away are suggested.
		SuggestionsMinimumDistance: 2,
	}
	const onSandbox, tests = "sandbox", "tests"
	root.AddGroup(&cobra.Group{ID: onSandbox, Title: "A sandbox:"}, &cobra.Group{ID: tests, Title: "Tests and benchmarks, on clusters of their own:"})
	var dir string
	for _, c := range []*cobra.Command{sandboxUp(&dir), sandboxStatus(&dir), sandboxDown(&dir), sandboxPsql(&dir), sandboxExec(&dir), sandboxLoad(&dir),
		sandboxSwitchover(&dir), sandboxKill(&dir), sandboxStart(&dir), sandboxCut(&dir), sandboxUnplug(&dir), sandboxLose(&dir), sandboxHeal(&dir), sandboxAPI(&dir)} {
		c.GroupID = onSandbox
		c.Flags().StringVar(&dir, "dir", "", "`DIRECTORY` of the sandbox (default: "+sandbox.DefaultDir()+")")
		c.MarkFlagDirname("dir")
		root.AddCommand(c)
	}
	root.AddCommand(newRestProxyCommand())
	for _, c := range []*cobra.Command{newChaosCommand(), newSoakCommand(), newBenchCommand()} {
		c.GroupID = tests
		root.AddCommand(c)
	}
	return root
}
