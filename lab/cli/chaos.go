package cli

import (
	"context"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"github.com/pgporter/pgporter/internal/cli/command"
	"github.com/pgporter/pgporter/lab/chaos"
)

func newChaosCommand() *cobra.Command {
	var config chaos.Config
	var faults string
	c := &cobra.Command{
		Use:   "chaos",
		Short: "Do random faults to a cluster under load, and hold pgporter to its promises",
		Long: `Brings up a cluster in synchronous mode, has clients write and read through every service of every node, does faults to it
and looks whether every promise was kept. The faults and their times follow from the seed and the length of the run.

Exit status: 0 every promise was kept, 1 one was broken or nothing can be said, 2 the input can't be used.`,
		Example: `  pgporter-lab chaos --time 60s --seed 7
  pgporter-lab chaos --list --seed 7         # its faults, without doing them
  pgporter-lab chaos --netns                 # root: networks fail too
  pgporter-lab chaos --without-pgporter      # what Patroni alone does, with clients that find the primary themselves`,
		Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
			defer stop()
			for name := range strings.SplitSeq(faults, ";") {
				if name = strings.TrimSpace(name); name != "" {
					config.Faults = append(config.Faults, name)
				}
			}
			if config.Binary != "" {
				var err error
				if config.Binary, err = findProgram(config.Binary); err != nil {
					return err
				}
			}
			kept, err := chaos.Run(ctx, config, c.OutOrStdout())
			if err == nil && !kept {
				return command.Status(command.ExitFailed)
			}
			return input(err)
		},
	}
	f := c.Flags()
	f.DurationVar(&config.Length, "time", time.Minute, "how long faults are done, as `TIME`")
	f.Uint64Var(&config.Seed, "seed", 0, "the `SEED` that says which faults are drawn; 0 takes one at random")
	f.StringVar(&config.Prefix, "prefix", "", "first three octets of the sandbox's `ADDRESSES` (default: 127.0.70; with --netns 10.10.10)")
	f.StringVar(&config.Dir, "dir", filepath.Join(os.TempDir(), "pgporter-chaos"), "`DIRECTORY` of the sandbox; its logs stay there if a promise was broken")
	c.MarkFlagDirname("dir")
	programFlag(c, &config.Binary, "one that is built here and now with the race detector")
	f.StringVar(&faults, "faults", "", "only these kinds of `FAULTS`, separated by semicolons")
	f.BoolVar(&config.Netns, "netns", false, "nodes in network namespaces (root only): networks fail too")
	f.BoolVar(&config.List, "list", false, "print the faults of the seed and do nothing")
	f.BoolVar(&config.Keep, "keep", false, "keep the logs though every promise was kept")
	f.BoolVar(&config.WithoutPgporter, "without-pgporter", false, "clients find the primary themselves: what Patroni alone does under the same faults")
	return c
}
