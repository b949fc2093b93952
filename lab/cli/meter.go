package cli

import (
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/jackc/pgx/v5/pgconn"

	"github.com/pgporter/pgporter/lab/load"
)

// meter makes of what a prober or pooled clients see a line that tells how it is now, and events that tell what has happened. Time is an
// argument.
type meter struct {
	// names are the members' by address.
	names map[string]string
	// pooled says that the clients keep their connections; lost is how many of those ended.
	pooled bool
	lost   int
	// recent are the writes of the last second; began is when there was anything to see.
	recent []time.Time
	began  time.Time
	// last is the last write, gap the last gap that was worth an event.
	last load.Probe
	gap  time.Duration
	// connects and writes failed in all; sinceLast are the failures since the last write.
	connects, writes int
	sinceLast        []load.Probe
}

// pauseShown is the least gap that is an event by itself: a busy machine makes shorter ones.
const pauseShown = 500 * time.Millisecond

func newMeter(names map[string]string, now time.Time) *meter { return &meter{names: names, began: now} }

// see takes what came since the last look and gives what there is to tell of it.
func (m *meter) see(now time.Time, probes []load.Probe) []string {
	var events []string
	for _, p := range probes {
		if p.Outcome == load.Written {
			if event := m.written(p); event != "" {
				events = append(events, event)
			}
			continue
		}
		what, count := "connect", &m.connects
		if onSession(p) {
			what, count = "write", &m.writes
		}
		*count++
		// The first of a gap says why; the others are counted.
		if !slices.ContainsFunc(m.sinceLast, func(before load.Probe) bool { return onSession(before) == onSession(p) }) {
			events = append(events, fmt.Sprintf("a %s failed after %.1f s: %v", what, p.Ended.Sub(p.Began).Seconds(), why(p.Err)))
		}
		m.sinceLast = append(m.sinceLast, p)
	}
	m.recent = slices.DeleteFunc(m.recent, func(at time.Time) bool { return now.Sub(at) > time.Second })
	if m.pooled {
		for i := range events {
			events[i] = "pooled: " + events[i]
		}
	}
	return events
}

// onSession says that a probe had come so far as to write when it failed.
func onSession(p load.Probe) bool { return p.Outcome == load.WriteCut || p.Outcome == load.ReadOnly }

// why is what a server said, where one said something.
func why(err error) error {
	var refusal *pgconn.PgError
	if errors.As(err, &refusal) {
		return refusal
	}
	return err
}

// written takes a write, which may end a gap.
func (m *meter) written(p load.Probe) string {
	before, failed := m.last, m.sinceLast
	m.last, m.sinceLast = p, nil
	m.recent = append(m.recent, p.Ended)
	if before.Server == "" {
		return ""
	}
	gap := p.Ended.Sub(before.Ended)
	moved := before.Server != p.Server
	if !moved && gap < pauseShown && len(failed) == 0 {
		return ""
	}
	m.gap = gap
	who := m.name(p.Server) + " takes them again"
	if moved {
		who = fmt.Sprintf("%s takes them instead of %s", m.name(p.Server), m.name(before.Server))
	}
	return fmt.Sprintf("no write for %.2f s, then %s; %s", gap.Seconds(), who, failures(failed))
}

// failures says in words what a gap has cost.
func failures(failed []load.Probe) string {
	connects, writes := 0, 0
	for _, p := range failed {
		if onSession(p) {
			writes++
		} else {
			connects++
		}
	}
	switch {
	case connects+writes == 0:
		return "nothing failed"
	case writes == 0:
		return fmt.Sprintf("connects failed: %d", connects)
	case connects == 0:
		return fmt.Sprintf("writes failed: %d", writes)
	}
	return fmt.Sprintf("connects failed: %d, writes failed: %d", connects, writes)
}

func (m *meter) name(address string) string {
	if name, ok := m.names[address]; ok {
		return name
	}
	return address
}

// line tells how it is now.
func (m *meter) line(now time.Time) string {
	who := "nobody takes them yet"
	since := m.began
	if m.last.Server != "" {
		who, since = "to "+m.name(m.last.Server), m.last.Ended
	}
	if silent := now.Sub(since); silent >= pauseShown {
		who = fmt.Sprintf("none for %.1f s", silent.Seconds())
	}
	gap := "none"
	if m.gap > 0 {
		gap = fmt.Sprintf("%.2f s", m.gap.Seconds())
	}
	if m.pooled {
		return fmt.Sprintf("pooled/s %2d  %-18s sessions lost %d     failed writes %d   last gap %s", len(m.recent), who, m.lost, m.writes, gap)
	}
	return fmt.Sprintf("writes/s %2d  %-18s failed connects %d   failed writes %d   last gap %s", len(m.recent), who, m.connects, m.writes, gap)
}
