package cli

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"github.com/pgporter/pgporter/internal/cli/command"
	"github.com/pgporter/pgporter/lab/bench/failover"
	"github.com/pgporter/pgporter/lab/bench/throughput"
)

// benchLimit bounds the whole; it takes half of that, on a machine that does nothing else.
const benchLimit = 100 * time.Minute

func newBenchCommand() *cobra.Command {
	c := &cobra.Command{
		Use:   "bench",
		Short: "Compare pgporter with HAProxy and with clients that help themselves",
		Long:  "Measures what docs/benchmarks.md shows, and writes it there with --doc.",
		Example: `  pgporter-lab bench failover --scenario switchover --runs 3
  pgporter-lab bench throughput --section select --clients 8 --rounds 3 --seconds 1`,
		Args: command.SubcommandOnly,
		RunE: func(c *cobra.Command, _ []string) error { return c.Help() },
	}
	c.AddCommand(benchFailover(), benchThroughput(), benchTrivial())
	return c
}

func benchFailover() *cobra.Command {
	var config failover.Config
	c := &cobra.Command{
		Use:   "failover",
		Short: "Compare what clients see of a switchover and of crashes",
		Long: `Compares on a sandbox what clients see of a switchover and of crashes: through pgporter, through HAProxy, and as a client
that tries all members.`,
		Example: `  pgporter-lab bench failover
  pgporter-lab bench failover --scenario switchover,pause --runs 3`,
		Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) (err error) {
			if config.Binary, err = findProgram(config.Binary); err != nil {
				return err
			}
			if config.RestProxy, err = os.Executable(); err != nil {
				return err
			}
			config.Results, config.Progress = c.OutOrStdout(), c.ErrOrStderr()
			return measure(func(ctx context.Context) error { return failover.Failover(ctx, config) })
		},
	}
	f := c.Flags()
	f.StringSliceVar(&config.Scenarios, "scenario", nil, "only these `SCENARIOS`: "+strings.Join(failover.Scenarios(), ", "))
	f.IntVar(&config.Runs, "runs", 0, "how often each, as `NUMBER`; 0: switchovers ten times, everything else three times")
	f.DurationVar(&config.Every, "every", 20*time.Millisecond, "`TIME` between two connects of a prober")
	f.IntVar(&config.Clients, "clients", failover.Clients, "clients of each application, as `NUMBER`, half of them in Go and half in Java")
	benchFlags(c, &config.Binary, &config.Prefix, &config.Doc, "127.0.5")
	return c
}

func benchThroughput() *cobra.Command {
	var config throughput.Config
	var seconds int
	c := &cobra.Command{
		Use:   "throughput",
		Short: "Compare what the same work takes directly, through HAProxy and through pgporter",
		Long: `Compares transactions, connections, bulk transfers and idle sessions: directly, through HAProxy and through pgporter, one after
the other. And what it takes both to check the members of one cluster and of a thousand.`,
		Example: `  pgporter-lab bench throughput
  pgporter-lab bench throughput --section select --clients 8 --rounds 3 --seconds 1`,
		Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) (err error) {
			if config.Binary, err = findProgram(config.Binary); err != nil {
				return err
			}
			self, err := os.Executable()
			if err != nil {
				return err
			}
			config.Trivial = []string{self, c.Parent().Name(), trivial}
			config.Run = time.Duration(seconds) * time.Second
			config.Results, config.Progress = c.OutOrStdout(), c.ErrOrStderr()
			return measure(func(ctx context.Context) error { return throughput.Run(ctx, config) })
		},
	}
	f := c.Flags()
	f.StringSliceVar(&config.Sections, "section", nil, "only these `SECTIONS`: "+strings.Join(throughput.Sections(), ", "))
	f.IntSliceVar(&config.Clients, "clients", nil, "pgbench's clients, as `NUMBERS`, instead of those of the document")
	f.IntVar(&seconds, "seconds", throughput.Seconds, "how long a run takes, as `NUMBER` of seconds")
	f.IntVar(&config.Rounds, "rounds", throughput.Rounds, "how often everything is measured, as `NUMBER`")
	f.StringVar(&config.Before, "before", "", "another pgporter, as `PROGRAM`, that does the same in the same rounds; without --doc")
	benchFlags(c, &config.Binary, &config.Prefix, &config.Doc, "127.0.6")
	return c
}

const trivial = "trivial"

// benchTrivial is the trivial server and its client, which throughput starts as processes of their own.
func benchTrivial() *cobra.Command {
	return &cobra.Command{
		Use:    trivial,
		Hidden: true,
		RunE: func(_ *cobra.Command, args []string) error {
			return measure(func(ctx context.Context) error { return throughput.Trivial(ctx, args) })
		},
	}
}

// benchFlags adds the flags that all comparisons have.
func benchFlags(c *cobra.Command, binary, prefix, doc *string, own string) {
	programFlag(c, binary, foundProgram)
	c.Flags().StringVar(prefix, "prefix", own, "first three octets of the loopback `ADDRESSES`")
	c.Flags().StringVar(doc, "doc", "", "the `FILE` whose sections are written; one that was measured too seldom stays")
	c.MarkFlagFilename("doc", "md")
}

// measure bounds a comparison by signals and time, and says which of them ended it.
func measure(do func(context.Context) error) error {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM, syscall.SIGHUP)
	defer stop()
	ctx, cancel := context.WithTimeoutCause(ctx, benchLimit, fmt.Errorf("it took longer than %s", benchLimit))
	defer cancel()
	err := do(ctx)
	if err != nil && ctx.Err() != nil && !errors.Is(err, context.Cause(ctx)) {
		err = fmt.Errorf("%w: %w", context.Cause(ctx), err)
	}
	return input(err)
}
