package cli

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"strings"
	"syscall"

	"github.com/spf13/cobra"

	"github.com/pgporter/pgporter/internal/admin/api"
	"github.com/pgporter/pgporter/internal/cli/command"
	"github.com/pgporter/pgporter/internal/cli/nodes"
)

func newRereadCommand() *cobra.Command {
	var f nodesFlags
	c := &cobra.Command{
		Use:   "reread",
		Short: "Have the running pgporter read its configuration again, and say what came of it",
		Long: `Has the pgporter that runs on this machine read its own file again and swap in what it says; open sessions stay. If that can't
be used, all its problems are printed, what was running goes on, and the exit status is 1. It is the same as sending the process
SIGHUP, but that reread waits for the outcome: systemctl reload does this. With --node, or --inventory and --cluster, nodes
elsewhere read theirs (run --control), all at once; one that fails is named, and the exit status is 1 then.

The arguments that pgporter was started with stay as they are. To send a configuration from elsewhere see pgporter reload.`,
		Example: `  pgporter reread
  pgporter reread --admin 10.10.10.11
  pgporter reread --pid 4711
  pgporter reread --node 10.10.10.11,10.10.10.12 --token-file control.token --ca control.crt
  systemctl reload pgporter`,
		Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			if !f.here() {
				return rereadNodes(c, f)
			}
			return f.local.ask(syscall.SIGHUP, func(before, after *api.Status) (bool, error) {
				text, err := reread(before, after)
				var refused refusedError
				if errors.As(err, &refused) {
					fmt.Fprintf(c.ErrOrStderr(), "%s\npgporter: not taken, configuration %d goes on\n", refused, after.Config.Generation)
					return true, command.Status(command.ExitFailed)
				}
				if text != "" {
					fmt.Fprintln(c.OutOrStdout(), text)
				}
				return text != "", err
			})
		},
	}
	f.add(c)
	return c
}

// rereadNodes has nodes elsewhere read their own configuration.
func rereadNodes(c *cobra.Command, f nodesFlags) error {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	all, err := f.find(ctx, c)
	if err != nil {
		return err
	}
	answers := ask(ctx, c, all, f.local.timeout, func(ctx context.Context, n *nodes.Node) (api.Reread, error) { return n.Reread(ctx) })
	for _, a := range answers {
		if a.Err == nil {
			fmt.Fprintf(c.OutOrStdout(), "%s: runs configuration %d of %s\n", a.Node, a.Said.Generation, a.Said.Source)
		}
	}
	return ended(answers)
}

// refusedError has what is wrong with a configuration, a problem to a line.
type refusedError string

func (r refusedError) Error() string { return strings.TrimSpace(string(r)) }

// reread says what a reload has come to by what a pgporter said before and says now: nothing yet, what runs now, or why it doesn't.
func reread(before, after *api.Status) (string, error) {
	switch {
	case after.PID != before.PID:
		return "", fmt.Errorf("the pgporter there is another one now (pid %d): ask that one", after.PID)
	case after.Config.Generation > before.Config.Generation:
		return fmt.Sprintf("pgporter (pid %d) runs configuration %d of %s", after.PID, after.Config.Generation, after.Config.Source), nil
	case after.Config.Refusals > before.Config.Refusals:
		return "", refusedError(after.Config.Refused)
	}
	return "", nil
}
