// Command soak loads a pgporter process for long and looks whether everything is there at the end; `make soak` runs it.
package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/pgporter/pgporter/lab/soak"
)

// limit bounds the whole.
const limit = time.Hour

func main() {
	if soak.BePeer() {
		return
	}
	c := soak.Config{Out: os.Stdout}
	flag.StringVar(&c.Binary, "pgporter", "bin/pgporter", "the `PROGRAM` to load")
	flag.StringVar(&c.Host, "host", "127.0.6.1", "a loopback `ADDRESS` that nobody else uses")
	flag.Int64Var(&c.Bytes, "bytes", 10<<30, "`BYTES` of the long streams, each way; 0 for none")
	flag.IntVar(&c.Sessions, "sessions", 1_000_000, "`NUMBER` of short sessions")
	flag.IntVar(&c.Idle, "idle", 9000, "`NUMBER` of sessions that say nothing, two descriptors each in pgporter")
	flag.IntVar(&c.Storm, "storm", 5000, "`NUMBER` of clients that come at once")
	flag.BoolVar(&c.Scarce, "scarce", true, "have descriptors run out")
	flag.BoolVar(&c.Memory, "memory", true, "let no memory be left behind; not with the race detector, which keeps some itself")
	flag.Uint64Var(&c.Seed, "seed", 1, "what the short sessions do; the same `SEED` has them do the same")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM, syscall.SIGHUP)
	defer stop()
	ctx, cancel := context.WithTimeoutCause(ctx, limit, fmt.Errorf("it took longer than %s", limit))
	defer cancel()
	began := time.Now()
	if err := soak.Run(ctx, c); err != nil {
		fmt.Fprintf(os.Stderr, "soak: seed %d: %v\n", c.Seed, err)
		os.Exit(1)
	}
	fmt.Printf("everything is as it has to be, after %s (seed %d)\n", time.Since(began).Round(time.Second), c.Seed)
}
