package cli

import (
	"errors"
	"fmt"

	"github.com/spf13/cobra"

	"github.com/pgporter/pgporter/internal/cli/command"
	"github.com/pgporter/pgporter/internal/config/plan"
)

func newCheckCommand() *cobra.Command {
	var path, engine string
	c := &cobra.Command{
		Use:   "check --inventory FILE",
		Short: "Print every problem of an inventory",
		Long: `Reads an inventory as every one of its nodes would and prints all problems at once as file:line:col, with what would be
right. Exit status 2 if there is an error; warnings alone leave it at 0. Nothing is opened, bound or changed.

What the native engine can't carry is refused. --engine haproxy checks what nodes carry that run with it.`,
		Example: `  pgporter check --inventory pigsty.yml
  pgporter check --inventory pigsty.yml --engine haproxy`,
		Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			if path == "" {
				return command.Input(errors.New("--inventory is missing: which file"))
			}
			if err := command.OneOf("engine", engine, engineNative, engineHAProxy); err != nil {
				return err
			}
			inv, problems := readInventory(path, c.InOrStdin())
			if inv != nil && engine == engineHAProxy {
				problems = append(problems, plan.CheckForHAProxy(inv)...)
			} else if inv != nil {
				problems = append(problems, plan.Check(inv)...)
			}
			if err := problems.Err(); err != nil {
				return err
			}
			for _, p := range problems.Warnings() {
				fmt.Fprintln(c.ErrOrStderr(), p)
			}
			return nil
		},
	}
	inventoryFlag(c, &path)
	engineFlag(c, &engine)
	return c
}

// engineFlag adds --engine for commands that only look at what would be carried.
func engineFlag(c *cobra.Command, engine *string) {
	c.Flags().StringVar(engine, "engine", engineNative, "what is to carry the services, as `ENGINE`: native, haproxy")
	c.RegisterFlagCompletionFunc("engine", cobra.FixedCompletions([]string{engineNative, engineHAProxy}, cobra.ShellCompDirectiveNoFileComp))
}
