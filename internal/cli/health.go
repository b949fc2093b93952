package cli

import (
	"fmt"

	"github.com/spf13/cobra"

	"github.com/pgporter/pgporter/internal/admin/api"
)

func newHealthCommand() *cobra.Command {
	var admin string
	c := &cobra.Command{
		Use:   "health",
		Short: "Say by the exit status whether a pgporter works",
		Long: `Asks the pgporter at the admin address whether all parts of it work, as GET /health does. Whether servers are up is another
question: pgporter status.

The exit status is 0 if they do, and 1 if one stands still, which is named, or if nobody answers.`,
		Example: `  pgporter health
  pgporter health --admin 10.10.10.11`,
		Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			address, err := adminAddress(admin)
			if err != nil {
				return err
			}
			if err := (api.Client{Address: address}).Health(c.Context()); err != nil {
				return err
			}
			_, err = fmt.Fprintln(c.OutOrStdout(), "ok")
			return err
		},
	}
	adminFlag(c, &admin)
	return c
}
