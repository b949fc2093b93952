package cli

import (
	"errors"
	"fmt"

	"github.com/spf13/cobra"

	"github.com/pgporter/pgporter/internal/plan"
)

func newCheckCommand() *cobra.Command {
	var path string
	c := &cobra.Command{
		Use:   "check --inventory FILE",
		Short: "Print every problem of an inventory",
		Long: `Reads an inventory as every one of its nodes would and prints all problems at once as file:line:col, with what would be
right. Exit status 2 if there is an error; warnings alone leave it at 0. Nothing is opened, bound or changed.`,
		Example: "  pgporter check --inventory pigsty.yml",
		Args:    cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			if path == "" {
				return inputError{errors.New("--inventory is missing: which file")}
			}
			inv, problems := readInventory(path, c.InOrStdin())
			if inv != nil {
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
	return c
}
