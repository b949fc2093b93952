package failover

import (
	"fmt"
	"slices"
	"strings"
	"time"
)

// appGoal is what the pause of a client behind a door may be longer than the gap of one that tries all members.
const appGoal = 300 * time.Millisecond

func (w worked) String() string {
	return fmt.Sprintf("transactions begun and lost %d, unanswered %d; connections closed %d (%d early, %d late); longest pause %.3f s",
		len(w.begun), len(w.unanswered), w.closed, w.early, w.late, w.pause.Seconds())
}

// applied is the table of what applications saw, and the goals.
func applied(apps []app, targets []target, results []result) string {
	var b strings.Builder
	b.WriteString("| Through | Pool | Clients | Begun and lost | Never answered | Connections closed | of these early or late | Longest pause |\n")
	b.WriteString("|---|---|---|---|---|---|---|---|\n")
	for i, each := range apps {
		count := func(of func(worked) int) string {
			return counts(results, func(r result) int { return of(r.apps[i]) })
		}
		fmt.Fprintf(&b, "| %s | %s | %d | %s | %s | %s | %s | %s |\n", each.name, each.driver, each.clients,
			count(func(w worked) int { return len(w.begun) }), count(func(w worked) int { return len(w.unanswered) }),
			count(func(w worked) int { return w.closed }), count(func(w worked) int { return w.early + w.late }),
			durations(results, func(r result) (time.Duration, bool) { return r.apps[i].pause, true }))
	}
	tries := slices.IndexFunc(targets, func(t target) bool { return t.tries })
	gap := func(r result) time.Duration { return r.seen[tries].Gap }
	fmt.Fprintf(&b, "\nMedian / maximum. The new primary took writes %s after it began. A client that tries all members, and connects anew for each write, had a gap of %s.\n\n",
		durations(results, func(r result) (time.Duration, bool) { return r.tookOver, true }),
		durations(results, func(r result) (time.Duration, bool) { return gap(r), true }))
	for _, g := range []struct {
		layout layout
		of     string
	}{{door, "Door"}, {behind, "Pigsty's layout"}} {
		var ours []int
		for i, each := range apps {
			if each.ours && each.layout == g.layout {
				ours = append(ours, i)
			}
		}
		say := func(format string, arguments ...any) {
			fmt.Fprintf(&b, "- %s: %s\n", g.of, fmt.Sprintf(format, arguments...))
		}
		total := func(of func(worked) int) (sum, in int) {
			for _, r := range results {
				n := 0
				for _, i := range ours {
					n += of(r.apps[i])
				}
				sum += n
				in += min(n, 1)
			}
			return sum, in
		}
		failed, in := total(worked.failed)
		begun, _ := total(func(w worked) int { return len(w.begun) })
		if failed == 0 {
			say("no transaction fails: **met**.")
		} else {
			say("no transaction fails: **missed**: %d in %d of %d: %d had begun and were lost, %d were never answered.", failed, in, len(results), begun, failed-begun)
		}
		closed, in := total(func(w worked) int { return w.closed })
		early, _ := total(func(w worked) int { return w.early })
		late, _ := total(func(w worked) int { return w.late })
		switch {
		case g.layout == door && closed == 0:
			say("no connection is closed: **met**.")
		case g.layout == door:
			say("no connection is closed: **missed**: %d in %d of %d.", closed, in, len(results))
		case early+late == 0:
			say("connections are closed at the switch alone: **met**.")
		default:
			say("connections are closed at the switch alone: **missed**: %d early and %d late of %d.", early, late, closed)
		}
		if g.layout == door {
			say("%s", verdict(fmt.Sprintf("a pause at most %s longer than the gap of a client that tries all members", text(appGoal)), results, func(r result) (time.Duration, bool) {
				longest := time.Duration(0)
				for _, i := range ours {
					longest = max(longest, r.apps[i].pause)
				}
				return longest - gap(r) - appGoal, true
			}))
		}
	}
	return b.String()
}
