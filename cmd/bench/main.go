// Command bench measures pgporter beside others; `make bench` and `make bench-failover` run it.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"time"

	"github.com/pgporter/pgporter/lab/bench/failover"
	"github.com/pgporter/pgporter/lab/bench/throughput"
)

const usage = `usage: bench speed [FLAG...]
       bench failover [FLAG...]

speed compares what the same work takes directly, through HAProxy and through pgporter.
failover compares on a sandbox what clients see of a switchover and of crashes: through pgporter, through HAProxy, and as a
client that tries all members.
`

// limit bounds the whole; it takes half of that.
const limit = 40 * time.Minute

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM, syscall.SIGHUP)
	defer stop()
	ctx, cancel := context.WithTimeoutCause(ctx, limit, fmt.Errorf("it took longer than %s", limit))
	defer cancel()
	commands := map[string]func(context.Context, []string) error{"speed": measureSpeed, "failover": compareFailovers, "trivial": throughput.Trivial}
	if len(os.Args) < 2 || commands[os.Args[1]] == nil {
		fmt.Fprint(os.Stderr, usage)
		os.Exit(2)
	}
	err := commands[os.Args[1]](ctx, os.Args[2:])
	if err != nil && ctx.Err() != nil && !errors.Is(err, context.Cause(ctx)) {
		err = fmt.Errorf("%w: %w", context.Cause(ctx), err)
	}
	switch {
	case err == nil:
	case errors.Is(err, failover.ErrInput), errors.Is(err, throughput.ErrInput):
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(2)
	default:
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

// parse reads a command's flags, those that all have included.
func parse(flags *flag.FlagSet, binary, prefix, doc *string, own string, args []string) {
	flags.StringVar(binary, "pgporter", "bin/pgporter", "the `PROGRAM` to measure")
	flags.StringVar(prefix, "prefix", own, "first three octets of the loopback `ADDRESSES`")
	flags.StringVar(doc, "doc", "", "the `FILE` whose sections are written; one that was measured too seldom stays")
	flags.Parse(args) //nolint:errcheck // it exits
	if flags.NArg() > 0 {
		fmt.Fprintf(os.Stderr, "bench %s takes flags only, not %q\n", flags.Name(), flags.Args())
		os.Exit(2)
	}
}

func compareFailovers(ctx context.Context, args []string) error {
	flags := flag.NewFlagSet("failover", flag.ExitOnError)
	c := failover.Config{Results: os.Stdout, Progress: os.Stderr}
	scenario := flags.String("scenario", "", "only these `SCENARIOS`, separated by commas: "+strings.Join(failover.Scenarios(), ", "))
	flags.IntVar(&c.Runs, "runs", 0, "how often each, as `NUMBER`; 0: switchovers ten times, everything else three times")
	flags.DurationVar(&c.Every, "every", 20*time.Millisecond, "`TIME` between two connects of a prober")
	parse(flags, &c.Binary, &c.Prefix, &c.Doc, "127.0.5", args)
	c.Scenarios = words(*scenario)
	return failover.Failover(ctx, c)
}

func measureSpeed(ctx context.Context, args []string) error {
	flags := flag.NewFlagSet("speed", flag.ExitOnError)
	c := throughput.Config{Results: os.Stdout, Progress: io.Writer(os.Stderr)}
	section := flags.String("section", "", "only these `SECTIONS`, separated by commas: "+strings.Join(throughput.Sections(), ", "))
	clients := flags.String("clients", "", "pgbench's clients, as `NUMBERS` separated by commas, instead of those of the document")
	seconds := flags.Int("seconds", throughput.Seconds, "how long a run takes, as `NUMBER` of seconds")
	flags.IntVar(&c.Rounds, "rounds", throughput.Rounds, "how often everything is measured, as `NUMBER`")
	parse(flags, &c.Binary, &c.Prefix, &c.Doc, "127.0.6", args)
	c.Sections, c.Run = words(*section), time.Duration(*seconds)*time.Second
	var err error
	if c.Clients, err = throughput.ParseClients(words(*clients)); err != nil {
		return err
	}
	if c.Self, err = os.Executable(); err != nil {
		return err
	}
	return throughput.Run(ctx, c)
}

func words(list string) []string {
	return strings.FieldsFunc(list, func(r rune) bool { return r == ',' || r == ' ' })
}
