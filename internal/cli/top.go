package cli

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"github.com/pgporter/pgporter/internal/cli/command"
	"github.com/pgporter/pgporter/internal/cli/top"
)

func newTopCommand() *cobra.Command {
	var f nodesFlags
	var interval time.Duration
	c := &cobra.Command{
		Use:   "top",
		Short: "Show who serves what, live, with keys to drain and steer",
		Long: `Shows clusters, services and servers live: states with their reasons, sessions, rates, clients that wait, lag, and what happened
lately. With several nodes their sessions are summed up, and a server that only some have serving says on how many.

  up, down, tab      choose                     d  drain    m  maintenance    r  ready
  enter              fold                       w  weight   k  kill sessions
  ?                  all keys                   q  quit

Each of these keys asks first, with what would become of it on every node. To look needs no credentials on the machine itself;
to steer there, be root or pgporter's user.` + aboutNodes,
		Example: `  pgporter top
  pgporter top --admin 10.10.10.11
  pgporter top --inventory pigsty.yml --cluster pg-test --token-file control.token --ca control.crt`,
		Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			if interval < 200*time.Millisecond {
				return command.Input(fmt.Errorf("--interval %s: at least 200ms", interval))
			}
			if terminal, _ := command.Terminal(c.OutOrStdout()); !terminal || !isTerminal(c.InOrStdin()) {
				return command.Input(errors.New("it takes a terminal; elsewhere pgporter status --watch does"))
			}
			ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
			defer stop()
			all, err := f.find(ctx, c)
			if err != nil {
				return err
			}
			config := top.Config{Cluster: f.cluster, Interval: interval}
			for _, n := range all {
				config.Targets = append(config.Targets, top.Target{Name: n.Name, Node: n})
			}
			err = top.Run(ctx, config, c.InOrStdin(), c.OutOrStdout())
			if ctx.Err() != nil {
				return nil
			}
			return err
		},
	}
	f.add(c)
	c.Flags().DurationVar(&interval, "interval", time.Second, "the `TIME` between two looks")
	return c
}
