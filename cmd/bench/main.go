// Command bench measures pgporter on a real cluster; `make bench-failover` runs it.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"time"

	"github.com/pgporter/pgporter/internal/bench"
)

const usage = `usage: bench [FLAG...] failover

Compares on a sandbox of its own what clients see of a switchover and of crashes: through pgporter, through HAProxy, and
as a client that tries all members. All of them are probed in the same event: a connect, a write and a close every 20 ms.

Scenarios: %s

`

// limit bounds the whole; it takes half of that.
const limit = 30 * time.Minute

func main() {
	flags := flag.NewFlagSet("bench", flag.ExitOnError)
	c := bench.Config{Results: os.Stdout, Progress: os.Stderr}
	flags.StringVar(&c.Binary, "pgporter", "bin/pgporter", "the `PROGRAM` to measure")
	flags.StringVar(&c.Prefix, "prefix", "127.0.5", "first three octets of the loopback `ADDRESSES`")
	scenario := flags.String("scenario", "", "only these `SCENARIOS`, separated by commas")
	flags.IntVar(&c.Runs, "runs", 0, "how often each, as `NUMBER`; 0: switchovers ten times, everything else three times")
	flags.DurationVar(&c.Every, "every", 20*time.Millisecond, "`TIME` between two connects of a prober")
	flags.StringVar(&c.Doc, "doc", "", "the `FILE` whose sections are written; one that was run too seldom stays")
	flags.Usage = func() {
		fmt.Fprintf(os.Stderr, usage, strings.Join(bench.Scenarios(), ", "))
		flags.PrintDefaults()
	}
	flags.Parse(os.Args[1:]) //nolint:errcheck // it exits
	if flags.NArg() != 1 || flags.Arg(0) != "failover" {
		flags.Usage()
		os.Exit(2)
	}
	c.Scenarios = strings.FieldsFunc(*scenario, func(r rune) bool { return r == ',' || r == ' ' })
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM, syscall.SIGHUP)
	defer stop()
	ctx, cancel := context.WithTimeoutCause(ctx, limit, fmt.Errorf("it took longer than %s", limit))
	defer cancel()
	err := bench.Failover(ctx, c)
	if err != nil && ctx.Err() != nil {
		err = fmt.Errorf("%w: %w", context.Cause(ctx), err)
	}
	switch {
	case err == nil:
	case errors.Is(err, bench.ErrInput):
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(2)
	default:
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}
