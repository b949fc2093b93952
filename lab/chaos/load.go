package chaos

import (
	"context"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"sync"
	"time"

	"github.com/pgporter/pgporter/lab/sandbox"
	"github.com/pgporter/pgporter/lab/sandbox/restproxy"
)

// What a pgporter may ask one Patroni, counted before it: over any window at most twice what it asks in peace (once an inter, which
// is a second with `pg_rto: fast`), and one for where the window begins. What goes out of turn may all come within one second; the
// rest of the window pays for it.
const (
	window       = 5 * time.Second
	inPeace      = int(window / time.Second)
	mostInWindow = 2*inPeace + 1
	mostInSecond = inPeace + 2
)

// asksOfCommand is as how many pgporters a pgporter switchover may ask.
const asksOfCommand = 5

// unheardOf is how long after a network was healed the end of a connection may arrive that was closed meanwhile.
const unheardOf = time.Minute

func budget() string {
	return fmt.Sprintf("at most %d questions of a node in %s, %d in a second, one at a time", mostInWindow, window, mostInSecond)
}

// load counts what each member's REST API is asked, at the proxy before it: nobody but the pgporters asks there.
type load struct {
	field *field

	mu sync.Mutex
	// asked are the questions by member, in order.
	asked map[string][]restproxy.Request
	// lost are the times for which a proxy couldn't tell.
	lost []string
}

// watch collects the counts until ctx ends: a proxy that is killed takes with it what wasn't collected.
func (l *load) watch(ctx context.Context) error {
	l.asked = map[string][]restproxy.Request{}
	var all sync.WaitGroup
	defer all.Wait()
	for _, m := range l.field.members {
		all.Go(func() {
			began := time.Now()
			for rest(ctx, time.Second) {
				l.collect(ctx, m, began)
			}
			last, cancel := context.WithTimeout(context.WithoutCancel(ctx), 5*time.Second)
			defer cancel()
			l.collect(last, m, began)
		})
	}
	return nil
}

// collect fetches a member's questions anew from the first on that had no answer yet.
func (l *load) collect(ctx context.Context, m sandbox.Member, began time.Time) {
	l.mu.Lock()
	have := l.asked[m.Name]
	l.mu.Unlock()
	keep := slices.IndexFunc(have, func(r restproxy.Request) bool { return r.Took == 0 })
	if keep < 0 {
		keep = len(have)
	}
	since := began
	if keep > 0 {
		since = have[keep-1].At.Add(time.Nanosecond)
	}
	more, err := l.field.APIRequests(ctx, m.Name, since)
	l.mu.Lock()
	defer l.mu.Unlock()
	switch {
	case err == nil && len(more) >= len(have)-keep:
		l.asked[m.Name] = append(slices.Clone(have[:keep]), more...)
	case err == nil:
		// A proxy that was killed knows nothing of before.
		l.asked[m.Name] = append(slices.Clone(have), more...)
	case ctx.Err() == nil:
		l.lost = append(l.lost, fmt.Sprintf("%s %s: %v", clock(time.Now()), m.Name, err))
	}
}

// asker is who asks: a node's pgporter where its address says so, all of them together on loopback addresses, where all have the same one.
type asker struct {
	name string
	// processes is how many pgporters it has at most between two moments: one for each node, and one more for each that is started or
	// hands over meanwhile.
	processes func(from, to time.Time) int
	// cut says whether a network was cut not long before: then the end of a question may not have been heard of.
	cut func(at time.Time) bool
}

// overBudget finds the worst that an asker has done to a member against each bound; empty if it kept all.
func overBudget(member string, asked []restproxy.Request, by asker) []string {
	var wrong []string
	for _, bound := range []struct {
		window time.Duration
		most   int
	}{{window, mostInWindow}, {time.Second, mostInSecond}} {
		over, at, times := 0, time.Time{}, 0
		first := 0
		for i, r := range asked {
			for r.At.Sub(asked[first].At) >= bound.window {
				first++
			}
			n := i - first + 1
			if allowed := bound.most * by.processes(asked[first].At, r.At); n > allowed {
				times++
				if n > over {
					over, at = n, asked[first].At
				}
			}
		}
		if times > 0 {
			wrong = append(wrong, fmt.Sprintf("%s asked %s %d times in the %s from %s (%d times too often; %d are allowed)", by.name, member, over, bound.window, clock(at),
				times, bound.most*by.processes(at, at.Add(bound.window))))
		}
	}
	return append(wrong, atOnce(member, asked, by)...)
}

// atOnce finds the most questions that an asker had under way at a time, if those were more than it has processes.
func atOnce(member string, asked []restproxy.Request, by asker) []string {
	most, at := 0, time.Time{}
	var open []time.Time // when those before ended; zero for one that didn't
	for _, r := range asked {
		open = slices.DeleteFunc(open, func(end time.Time) bool { return !end.IsZero() && !end.After(r.At) })
		end := time.Time{}
		if r.Took > 0 {
			end = r.At.Add(r.Took)
		}
		open = append(open, end)
		if by.cut(r.At) {
			continue
		}
		if len(open) > by.processes(r.At.Add(-window), r.At) && len(open) > most {
			most, at = len(open), r.At
		}
	}
	if most == 0 {
		return nil
	}
	return []string{fmt.Sprintf("%s had %d questions to %s under way at %s", by.name, most, member, clock(at))}
}

func (l *load) judge(context.Context) []string {
	l.mu.Lock()
	defer l.mu.Unlock()
	// Those of other clusters' nodes ask too where they tell this cluster's names.
	var nodes []string
	at := map[netip.Addr]string{}
	for _, m := range l.field.Declared() {
		nodes = append(nodes, m.Name)
		if address, err := netip.ParseAddr(m.Address); err == nil {
			at[address] = m.Name
		}
	}
	deeds := l.field.done()
	cut := func(at time.Time) bool {
		return slices.ContainsFunc(nodes, func(node string) bool { return l.field.silent(node, at.Add(-unheardOf), at) > 0 })
	}
	var wrong []string
	for _, m := range l.field.members {
		asked := l.asked[m.Name]
		if len(asked) == 0 {
			wrong = append(wrong, "nobody has asked "+m.Name+" anything, as far as its proxy can tell")
		}
		wrong = append(wrong, overBudget(m.Name, asked, asker{"all pgporters together", pgporters(nodes, deeds), cut})...)
		if !l.field.HasNetwork() {
			continue
		}
		by := restproxy.ByAsker(asked)
		for _, from := range slices.SortedFunc(maps.Keys(by), netip.Addr.Compare) {
			node := at[from]
			if node == "" && l.field.fromClient(from) {
				continue // pgporter switchover
			}
			if node == "" {
				wrong = append(wrong, fmt.Sprintf("%s was asked from %s, where no node is", m.Name, from))
				continue
			}
			wrong = append(wrong, overBudget(m.Name, by[from], asker{"the pgporter of " + node, pgporters([]string{node}, deeds), cut})...)
		}
	}
	return wrong
}

// fromClient says whether an address is that of the node from where commands are given.
func (f *field) fromClient(from netip.Addr) bool {
	all, err := f.Addresses(sandbox.Client)
	return err == nil && slices.ContainsFunc(all, func(p netip.Prefix) bool { return p.Addr() == from })
}

// pgporters counts the processes of nodes between two moments at most.
func pgporters(nodes []string, deeds []deed) func(from, to time.Time) int {
	return func(from, to time.Time) int {
		n := len(nodes)
		for _, d := range deeds {
			// pgporter switchover asks by itself, from the same address where all have one: often, for it waits for an answer to change.
			if len(nodes) > 1 && (d.kind == drainedSwitchover || d.kind == abandonedSwitchover) && d.during(from, to, window) {
				n += asksOfCommand
			}
			another := d.kind == killPgporter || d.kind == losePower || d.kind == upgrade
			if another && slices.Contains(nodes, d.member) && d.during(from, to, window) {
				n++
			}
		}
		return n
	}
}

func (l *load) figures() []string {
	l.mu.Lock()
	defer l.mu.Unlock()
	var lines []string
	for _, m := range l.field.members {
		asked := l.asked[m.Name]
		left, late := 0, 0
		for _, r := range asked {
			if r.Left {
				left++
			} else if r.Took > time.Second {
				late++
			}
		}
		lines = append(lines, fmt.Sprintf("%s was asked %d times, at most %d in a second and %d in %s; %d answers took more than a second, %d weren't waited for",
			m.Name, len(asked), restproxy.Most(asked, time.Second), restproxy.Most(asked, window), window, late, left))
	}
	for _, l := range l.lost {
		lines = append(lines, "a proxy couldn't be asked for its count: "+l)
	}
	return lines
}
