package cli

import (
	"errors"
	"fmt"
	"strings"
	"syscall"

	"github.com/spf13/cobra"

	"github.com/pgporter/pgporter/internal/admin/api"
	"github.com/pgporter/pgporter/internal/cli/command"
)

func newRereadCommand() *cobra.Command {
	var local localFlags
	c := &cobra.Command{
		Use:   "reread",
		Short: "Have the running pgporter read its configuration again, and say what came of it",
		Long: `Has the pgporter that runs on this machine read its own file again and swap in what it says; open sessions stay. If that can't
be used, all its problems are printed, what was running goes on, and the exit status is 1. It is the same as sending the process
SIGHUP, but that reread waits for the outcome: systemctl reload does this.

The arguments that pgporter was started with stay as they are. To send a configuration from elsewhere see pgporter reload.`,
		Example: `  pgporter reread
  pgporter reread --admin 10.10.10.11
  pgporter reread --pid 4711
  systemctl reload pgporter`,
		Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			return local.ask(syscall.SIGHUP, func(before, after *api.Status) (bool, error) {
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
	local.add(c)
	return c
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
