// Package throughput measures what a proxy costs, for docs/benchmarks.md: the same work done directly, through HAProxy with
// Pigsty's defaults, and through pgporter, one after the other on one machine. What checks cost has no need of work: many members are a
// process (members.go), and each proxy checks them for a while (checks.go). What they cost the members themselves is seen on a real
// cluster (checkcost.go).
//
// What is measured is in measure.go, what takes part in stage.go: a PostgreSQL, a trivial server that only begins
// sessions and moves bytes (trivial.go), a fake of the Patroni that the proxies ask (patroni.go), and both proxies,
// started as their users start them. pgbench and the client of the trivial server (client.go) are the clients. All but the
// the fake are processes of their own, so that each one's processor time and memory is its alone.
//
// A round does every measurement the three routes right after one another, each round in another order. What is compared is
// pgporter with HAProxy in the same round: the medians of those ratios are what goals are for (figures.go). On a virtual machine
// a run during which the host gave its processors to others is done again (steal.go).
package throughput

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/pgporter/pgporter/lab/bench/report"
)

// Config says what to measure.
type Config struct {
	// Binary is the pgporter to measure.
	Binary string
	// Trivial is the command that runs Trivial with the arguments that are put behind it: the trivial server and its client.
	Trivial []string
	// Before is another pgporter that does the same in the same rounds; empty for none. Nothing is written with it.
	Before string
	// Prefix is the first three octets of the loopback addresses.
	Prefix string
	// Sections are names of those to measure, empty for all.
	Sections []string
	// Rounds is how often everything is measured, Run how long a run takes; bulk streams take half of it. Idle sessions take
	// what they take, in no more than three rounds.
	Rounds int
	Run    time.Duration
	// Clients are the numbers of pgbench's clients, empty for those of the document.
	Clients []int
	// Doc is the document whose sections are written anew, if they were measured often enough; empty for none.
	Doc string
	// Results gets the tables, Progress what is going on.
	Results, Progress io.Writer
}

// ErrInput marks an error of what was asked for: nothing was started.
var ErrInput = errors.New("what was asked for can't be")

// refused is an error that is ErrInput too.
type refused struct{ error }

func (refused) Is(target error) bool { return target == ErrInput }

// Sections are the names of all sections, in the order in which they are measured.
func Sections() []string {
	var names []string
	for _, s := range sections {
		names = append(names, s.name)
	}
	return names
}

// machineSection is the section that tells on what was measured.
const machineSection = "machine"

// kind marks the sections of this benchmark in a document.
const kind = "throughput"

func (c Config) report() report.Report {
	return report.Report{Path: c.Doc, Kind: kind, System: report.System()}
}

// settle checks what was asked for and gives the sections that are to be measured.
func (c Config) settle() ([]section, error) {
	for _, name := range c.Sections {
		if !slices.Contains(Sections(), name) {
			return nil, refused{fmt.Errorf("no section is called %q; there are: %s", name, strings.Join(Sections(), ", "))}
		}
	}
	if c.Rounds < 1 {
		return nil, refused{fmt.Errorf("%d rounds: 1 or more", c.Rounds)}
	}
	// pgbench knows whole seconds.
	if c.Run < time.Second || c.Run != c.Run.Round(time.Second) {
		return nil, refused{fmt.Errorf("a run of %s: whole seconds, 1 or more", c.Run)}
	}
	for _, n := range c.Clients {
		if n < 1 || n > mostClients {
			return nil, refused{fmt.Errorf("%d clients: 1 to %d", n, mostClients)}
		}
	}
	chosen := slices.Clone(sections)
	if len(c.Sections) > 0 {
		chosen = slices.DeleteFunc(chosen, func(s section) bool { return !slices.Contains(c.Sections, s.name) })
	}
	if c.Before != "" && c.Doc != "" {
		return nil, refused{errors.New("a comparison with another pgporter isn't written into a document: leave it out")}
	}
	if c.Doc != "" {
		// Found out now rather than after twenty minutes.
		if err := c.report().Check(append(Sections(), machineSection)...); err != nil {
			return nil, err
		}
	}
	return chosen, nil
}

// Run measures, prints a table for each section and writes them into the document. Of what was measured until ctx ended
// the whole rounds are printed, and nothing is written.
func Run(ctx context.Context, c Config) error {
	chosen, err := c.settle()
	if err != nil {
		return err
	}
	version, err := report.Version(ctx, c.Binary)
	if err != nil {
		return err
	}
	machine, err := report.Machine(ctx, c.Binary, "PostgreSQL", "HAProxy", "etcd")
	if err != nil {
		return err
	}
	dir, err := os.MkdirTemp("/var/tmp", "pgporter-throughput-") // PostgreSQL's user has to reach it
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	if err := os.Chmod(dir, 0o755); err != nil {
		return err
	}
	machine += circumstances()
	s := newStage(c, dir)
	defer s.close()
	if slices.ContainsFunc(chosen, func(s section) bool { return !s.apart }) {
		if err := s.start(ctx); err != nil {
			return err
		}
	}
	fmt.Fprintf(c.Results, "\n%s\n", machine)
	taken, failed := s.measure(ctx, chosen)
	written := map[string]string{}
	charts := map[string]report.Chart{}
	for _, t := range taken {
		rounds := t.rounds()
		if rounds == 0 {
			continue
		}
		// A section may be measured by itself: each says which pgporter it is of.
		text := fmt.Sprintf("%s; pgporter %s; %s%s.\n\n%s", time.Now().Format(time.DateOnly), version, t.section.often(rounds, c.Run), t.disturbed, t.table())
		fmt.Fprintf(c.Results, "\n%s\n%s", t.section.title, text)
		switch least := t.section.least; {
		case failed != nil || c.Doc == "":
		case len(c.Clients) > 0 && t.section.name == selectSection:
			fmt.Fprintf(c.Progress, "%s: %q is left as it is: it is written with its own numbers of clients\n", c.Doc, t.section.name)
		case rounds < least:
			fmt.Fprintf(c.Progress, "%s: %q is left as it is: it is written after %d rounds, not %d\n", c.Doc, t.section.name, least, rounds)
		default:
			written[t.section.name] = text
			charts[t.section.name] = t.chart(fmt.Sprintf("%s, %s, pgporter %s. Bars: medians; lines: least and greatest of %s. Each group of bars has its own scale, from 0 on.",
				report.System(), time.Now().Format(time.DateOnly), version, plural(rounds, "round")))
			written[machineSection] = machine + "\n"
		}
	}
	if failed != nil || len(written) == 0 {
		return failed
	}
	for name, chart := range charts {
		shown, err := c.report().Draw(name, chart)
		if err != nil {
			return err
		}
		written[name] = shown + "\n" + written[name]
	}
	return c.report().Write(written)
}

// circumstances tell what else bears on the figures: what the machine did before, and settings of Go's runtime that pgporter
// inherits.
func circumstances() string {
	var b strings.Builder
	if text, err := os.ReadFile("/proc/loadavg"); err == nil {
		load, _, _ := strings.Cut(string(text), " ")
		fmt.Fprintf(&b, " Load of the minute before: %s.", load)
	}
	for _, name := range []string{"GOGC", "GOMEMLIMIT", "GOMAXPROCS", "GODEBUG"} {
		if value, set := os.LookupEnv(name); set {
			fmt.Fprintf(&b, " pgporter was told %s=%s.", name, value)
		}
	}
	return b.String()
}

// measure does the rounds, of all sections together so that each is spread over the whole time.
func (s *stage) measure(ctx context.Context, chosen []section) ([]*taken, error) {
	var all []*taken
	for _, section := range chosen {
		all = append(all, newTaken(section, section.measures(s.config)))
	}
	for round := range s.config.Rounds {
		for _, t := range all {
			if t.section.most > 0 && round >= t.section.most {
				continue
			}
			for i, m := range t.measures {
				var got sample
				for _, w := range s.config.order(round) {
					if w == direct && m.indirect {
						continue
					}
					run := func() ([]float64, error) { return m.run(ctx, s, w) }
					values, err := []float64(nil), error(nil)
					if t.section.apart {
						values, err = run()
					} else {
						values, err = t.disturbed.undisturbed(ctx, machineTime, run)
					}
					if err != nil {
						if ctx.Err() != nil {
							err = context.Cause(ctx)
						}
						return all, fmt.Errorf("%s, %s, %s: %w", t.section.name, m.name, routeNames[w], err)
					}
					got[w] = values
				}
				m.subtract(&got)
				t.samples[i] = append(t.samples[i], got)
				fmt.Fprintf(s.config.Progress, "round %d of %d: %s, %s: %s\n", round+1, s.config.Rounds, t.section.name, m.name, m.line(got))
			}
		}
	}
	return all, nil
}

// orders are those of the routes, round by round: each proxy is as often before the other as behind it.
var orders = [][]route{
	{direct, haproxy, pgporter}, {pgporter, haproxy, direct}, {haproxy, pgporter, direct},
	{direct, pgporter, haproxy}, {haproxy, direct, pgporter}, {pgporter, direct, haproxy},
}

// order is that of a round. The pgporter before is next to the present one, in turn ahead of it and behind.
func (c Config) order(round int) []route {
	order := orders[round%len(orders)]
	if c.Before == "" {
		return order
	}
	return slices.Insert(slices.Clone(order), slices.Index(order, pgporter)+round%2, before)
}

// leastRounds is how often a section has to be measured to be written.
const leastRounds = 5

// What everything takes of each: about 50 minutes with the sections about checks. Short runs that alternate often bear a machine that does something else better
// than few long ones.
const (
	Rounds  = 15
	Seconds = 2
)
