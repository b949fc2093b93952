package cli

import (
	"context"
	"fmt"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"github.com/pgporter/pgporter/lab/soak"
)

// soakLimit bounds the whole.
const soakLimit = time.Hour

func newSoakCommand() *cobra.Command {
	var config soak.Config
	c := &cobra.Command{
		Use:   "soak",
		Short: "Load a pgporter for long, and look whether everything is there at the end",
		Long: `Puts a pgporter between clients and a trivial server in processes of their own, and looks whether every byte came, every
session was counted, and descriptors and memory are as before.`,
		Example: `  pgporter-lab soak
  pgporter-lab soak --bytes 1073741824 --sessions 20000 --idle 500 --seed 7`,
		Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) (err error) {
			if config.Binary, err = findProgram(config.Binary); err != nil {
				return err
			}
			ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM, syscall.SIGHUP)
			defer stop()
			ctx, cancel := context.WithTimeoutCause(ctx, soakLimit, fmt.Errorf("it took longer than %s", soakLimit))
			defer cancel()
			config.Out = c.OutOrStdout()
			began := time.Now()
			if err := soak.Run(ctx, config); err != nil {
				return fmt.Errorf("seed %d: %w", config.Seed, err)
			}
			fmt.Fprintf(config.Out, "everything is as it has to be, after %s (seed %d)\n", time.Since(began).Round(time.Second), config.Seed)
			return nil
		},
	}
	f := c.Flags()
	programFlag(c, &config.Binary, foundProgram)
	f.StringVar(&config.Host, "host", "127.0.6.1", "a loopback `ADDRESS` that nobody else uses")
	f.Int64Var(&config.Bytes, "bytes", 10<<30, "`BYTES` of the long streams, each way; 0 for none")
	f.IntVar(&config.Sessions, "sessions", 1_000_000, "`NUMBER` of short sessions")
	f.IntVar(&config.Idle, "idle", 8000, "`NUMBER` of sessions that say nothing, two descriptors each in pgporter")
	f.IntVar(&config.Storm, "storm", 5000, "`NUMBER` of clients that come at once")
	f.BoolVar(&config.Scarce, "scarce", true, "have descriptors run out")
	f.BoolVar(&config.Memory, "memory", true, "let no memory be left behind; not with the race detector, which keeps some itself")
	f.Uint64Var(&config.Seed, "seed", 1, "what the short sessions do; the same `SEED` has them do the same")
	return c
}
