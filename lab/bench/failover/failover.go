// Package failover measures on a real cluster what clients see of it, for docs/benchmarks.md.
//
// Failover compares routes to the primary while it changes: pgporter, a HAProxy that runs by itself with files that pgporter
// rendered, once with the options of the specification and once with Pigsty's own, and a client that knows every member and
// tries them in order. They are all probed at the same time, in the same switchover or crash, so that what the cluster
// itself needs is the same for all of them.
//
// The package starts what it needs (a sandbox, two HAProxies) on loopback addresses of its own and ends it. The programs
// are used as anybody uses them: nothing of pgporter's own code takes part but the sandbox and the probers.
package failover

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/pgporter/pgporter/lab/bench/report"
	"github.com/pgporter/pgporter/lab/sandbox"
)

// Config says what to measure.
type Config struct {
	// Binary is the pgporter to measure.
	Binary string
	// RestProxy is the pgporter-lab that scenarios with an API in trouble run before each Patroni.
	RestProxy string
	// Prefix is the first three octets of the loopback addresses.
	Prefix string
	// Scenarios are names of those to run, empty for all; Runs is how often each, 0 for as often as it takes.
	Scenarios []string
	Runs      int
	// Every is the time between a prober's probes.
	Every time.Duration
	// Clients is how many each application has, half of them in Go, half in Java.
	Clients int
	// Doc is the document whose sections are written anew, one for each scenario that was run often enough; empty for none.
	Doc string
	// Results gets the tables, Progress what is going on.
	Results, Progress io.Writer
}

// Clients is how many clients an application has in what is written into the document.
const Clients = 20

// machineSection is the section that tells on what was measured.
const machineSection = "machine"

// kind marks the sections of this benchmark in a document.
const kind = "failover"

func (c Config) report() report.Report {
	return report.Report{Path: c.Doc, Kind: kind, System: report.System()}
}

// Scenarios are the names of all scenarios, in the order in which they run.
func Scenarios() []string {
	var names []string
	for _, s := range scenarios {
		names = append(names, s.name)
	}
	return names
}

// ErrInput marks an error of what was asked for: nothing was started.
var ErrInput = errors.New("what was asked for can't be")

// refused is an error that is ErrInput too.
type refused struct{ error }

func (refused) Is(target error) bool { return target == ErrInput }

func (c Config) chosen() ([]scenario, error) {
	chosen := slices.Clone(scenarios)
	if len(c.Scenarios) > 0 {
		chosen = slices.DeleteFunc(chosen, func(s scenario) bool { return !slices.Contains(c.Scenarios, s.name) })
		for _, name := range c.Scenarios {
			if !slices.Contains(Scenarios(), name) {
				return nil, refused{fmt.Errorf("no scenario is called %q; there are: %s", name, strings.Join(Scenarios(), ", "))}
			}
		}
	}
	return chosen, nil
}

// Failover runs the scenarios, prints a table for each and writes them into the document. What was measured until ctx ended
// is printed, and only whole scenarios are written.
func Failover(ctx context.Context, c Config) error {
	chosen, err := c.chosen()
	if err != nil {
		return err
	}
	if c.Doc != "" {
		// Found out now rather than after twenty minutes.
		if err := c.report().Check(append(Scenarios(), machineSection)...); err != nil {
			return err
		}
	}
	dir, err := os.MkdirTemp("/var/tmp", "pgporter-bench-") // the sandbox's user has to reach it
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	if err := os.Chmod(dir, 0o755); err != nil {
		return err
	}
	for _, on := range []stage{probers, proxies, applications} {
		some := slices.DeleteFunc(slices.Clone(chosen), func(s scenario) bool { return s.on != on })
		if len(some) == 0 {
			continue
		}
		if err := c.onCluster(ctx, dir, some, on); err != nil {
			return err
		}
	}
	return nil
}

// onCluster runs scenarios on a cluster of their own.
func (c Config) onCluster(ctx context.Context, dir string, chosen []scenario, on stage) error {
	config := sandbox.Config{Dir: filepath.Join(dir, "sandbox"), Prefix: c.Prefix, Binary: c.Binary}
	config.Door = on == applications
	if on == proxies {
		config.RestProxy = c.RestProxy
	}
	box, err := sandbox.Up(ctx, config, c.Progress)
	if err != nil {
		return err
	}
	measured := func() (err error) {
		ctx, quit := context.WithCancelCause(ctx)
		defer func() {
			if err != nil && ctx.Err() != nil {
				err = context.Cause(ctx)
			}
			quit(nil)
		}()
		a, err := newArena(ctx, c, box, dir, on, quit)
		if err != nil {
			return err
		}
		defer a.close()
		fmt.Fprintf(c.Results, "\n%s\n", a.machine)
		for _, s := range chosen {
			results, err := a.play(ctx, s, c.Runs)
			if len(results) > 0 {
				fmt.Fprintf(c.Results, "\n%s: %d runs\n\n%s", s.title, len(results), a.section(s, results))
			}
			if err != nil {
				return fmt.Errorf("%s: %w", s.name, err)
			}
			switch {
			case c.Doc == "":
			case on == applications && c.Clients != Clients:
				fmt.Fprintf(c.Progress, "%s is left as it is: it is written with %d clients of an application\n", c.Doc, Clients)
			case len(results) < s.runs:
				fmt.Fprintf(c.Progress, "%s is left as it is: it is written after %d runs, not %d\n", c.Doc, s.runs, len(results))
			default:
				version, err := report.Version(ctx, c.Binary)
				if err != nil {
					return err
				}
				head := fmt.Sprintf("%s; pgporter %s; %d runs.\n\n", time.Now().Format(time.DateOnly), version, len(results))
				if err := c.report().Write(map[string]string{s.name: head + a.section(s, results), machineSection: a.machine + "\n"}); err != nil {
					return err
				}
			}
		}
		return nil
	}
	failed := measured()
	// The sandbox goes even where the caller has lost his patience.
	ending, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Minute)
	defer cancel()
	return errors.Join(failed, box.Down(ending, false))
}
