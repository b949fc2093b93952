// Package cli is pgporter's commands: it reads flags, calls the rooms that do the work and prints for people or scripts.
//
// Exit status: 0 done; 1 it was tried and failed; 2 the input (flags, inventory) can't be used. Results go to standard
// output, everything else to standard error.
package cli

import (
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"github.com/pgporter/pgporter/internal/config/diag"
)

// Version is set by the linker (-X).
var Version = "0.1.0-dev"

// Exit statuses.
const (
	exitDone   = 0
	exitFailed = 1
	exitInput  = 2
)

// inputError marks an error as the caller's input: exit status 2.
type inputError struct{ error }

func (e inputError) Unwrap() error { return e.error }

// statusError ends with a given exit status; whatever there is to say has been printed.
type statusError int

func (e statusError) Error() string { return fmt.Sprintf("exit status %d", int(e)) }

// Main runs the command line and gives the exit status.
func Main(args []string, stdin io.Reader, stdout, stderr io.Writer) int {
	root := newRootCommand()
	root.SetArgs(args)
	root.SetIn(stdin)
	root.SetOut(stdout)
	root.SetErr(stderr)
	command, err := root.ExecuteC()
	return report(stderr, command, err)
}

// report prints an error as its kind wants it and gives the exit status.
func report(stderr io.Writer, command *cobra.Command, err error) int {
	var problems diag.Problems
	var status statusError
	var input inputError
	switch {
	case err == nil:
		return exitDone
	case errors.As(err, &status):
		return int(status)
	case errors.As(err, &problems):
		fmt.Fprintln(stderr, problems)
		return exitInput
	case errors.As(err, &input):
		fmt.Fprintf(stderr, "pgporter: %v\n", err)
		fmt.Fprintf(stderr, "see: %s --help\n", command.CommandPath())
		return exitInput
	}
	fmt.Fprintf(stderr, "pgporter: %v\n", err)
	return exitFailed
}

func newRootCommand() *cobra.Command {
	root := &cobra.Command{
		Use:   "pgporter",
		Short: "Leads clients of PostgreSQL services to the instance that can serve them now",
		Long: `pgporter stands at the door of a Patroni-managed PostgreSQL cluster. A client connects to a service (primary 5433,
replica 5434, default 5436, offline 5438, or one of your own) on any node, and is led to the instance that can serve
it now, through failover and switchover. It reads Pigsty inventories as they are.`,
		Example: `  pgporter sandbox up                                          # a real three-node cluster on this machine
  pgporter check --inventory pigsty.yml                        # what is wrong with it, all at once
  pgporter services --inventory pigsty.yml                     # what it declares
  pgporter render --inventory pigsty.yml --out rendered        # its files for HAProxy, dnsmasq, vip-manager, libpq
  pgporter run --inventory pigsty.yml --node 10.10.10.11       # serve it on this node
  pgporter run --patroni 10.10.10.11:8008                      # no inventory: ask Patroni who is there
  pgporter status --watch                                      # who serves what, and why
  pgporter reload --inventory pigsty.yml pg-test --dry-run     # what a changed inventory would change on the nodes`,
		Version:       Version,
		SilenceErrors: true,
		SilenceUsage:  true,
		Args:          subcommandOnly,
		RunE:          func(c *cobra.Command, _ []string) error { return c.Help() },
		// Words two letters away are suggested.
		SuggestionsMinimumDistance: 2,
	}
	root.SetFlagErrorFunc(func(_ *cobra.Command, err error) error { return inputError{err} })
	root.SetVersionTemplate("pgporter {{.Version}}\n")
	root.AddCommand(newRunCommand(), newCheckCommand(), newServicesCommand(), newURLCommand(), newDoctorCommand(), newRenderCommand(), newStatusCommand(), newReloadCommand(),
		newUpgradeCommand(), newCredentialsCommand(), newSandboxCommand(), exitStatusTopic(), signalsTopic())
	markArgumentErrors(root)
	return root
}

// subcommandOnly refuses a word that isn't a command, with those that are near.
func subcommandOnly(c *cobra.Command, args []string) error {
	if len(args) == 0 {
		return nil
	}
	text := fmt.Sprintf("%s has no command %q", c.CommandPath(), args[0])
	if near := c.SuggestionsFor(args[0]); len(near) > 0 {
		text += "; did you mean " + strings.Join(near, " or ")
	}
	return inputError{errors.New(text)}
}

// markArgumentErrors makes the argument checks of every command input errors.
func markArgumentErrors(c *cobra.Command) {
	if check := c.Args; check != nil {
		c.Args = func(c *cobra.Command, args []string) error {
			if err := check(c, args); err != nil {
				var marked inputError
				if errors.As(err, &marked) {
					return err
				}
				return inputError{err}
			}
			return nil
		}
	}
	for _, sub := range c.Commands() {
		markArgumentErrors(sub)
	}
}

func exitStatusTopic() *cobra.Command {
	return &cobra.Command{
		Use:   "exit-status",
		Short: "What the exit status of a command means",
		Long: `Exit status of every command:

  0  done
  1  it was tried and failed: a port is taken, nobody answers, a process died
  2  the input can't be used: a flag, an argument, or the inventory; every problem has been printed as file:line:col

exec and psql of the sandbox give the status of the program that they ran.`,
	}
}

func signalsTopic() *cobra.Command {
	return &cobra.Command{
		Use:   "signals",
		Short: "What signals tell a running pgporter",
		Long: `Signals that pgporter run understands:

  SIGHUP           read the inventory again and swap it in; open sessions stay. A broken inventory is refused with all
                   its problems in the log, and what was running goes on. The control address's token and certificate
                   are read again too
  SIGUSR2          start the program anew and hand everything over to it, sessions included: pgporter help upgrade
  SIGTERM, SIGINT  stop accepting at once, let sessions finish for up to --stop-timeout, then end the rest and exit;
                   a second one ends the rest at once`,
	}
}

// columns is a terminal's width, 0 if it isn't known.
func columns(w io.Writer) int {
	file, ok := w.(*os.File)
	if !ok {
		return 0
	}
	width, _, err := term.GetSize(int(file.Fd()))
	if err != nil {
		return 0
	}
	return width
}

// oneOf refuses a flag's value that isn't one of those listed.
func oneOf(flag, value string, allowed ...string) error {
	for _, a := range allowed {
		if value == a {
			return nil
		}
	}
	return inputError{fmt.Errorf("--%s %q: one of %s", flag, value, strings.Join(allowed, ", "))}
}

// terminal says whether w is one that shows colour to a person: https://no-color.org is honoured.
func terminal(w io.Writer) (isTerminal, colour bool) {
	file, ok := w.(*os.File)
	if !ok || !term.IsTerminal(int(file.Fd())) {
		return false, false
	}
	return true, os.Getenv("NO_COLOR") == "" && os.Getenv("TERM") != "dumb"
}
