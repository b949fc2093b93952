package failover

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"time"
)

// What a switchover may add to the gap of a client that tries all members, and how soon after the new primary takes writes
// a service has to connect there.
const (
	plannedGoal = 150 * time.Millisecond
	otherGoal   = 250 * time.Millisecond
)

// median gives the middle of the values, the lower one of two; zero if there are none.
func median[T cmp.Ordered](values []T) T {
	var zero T
	if len(values) == 0 {
		return zero
	}
	sorted := slices.Sorted(slices.Values(values))
	return sorted[(len(sorted)-1)/2]
}

// section is a scenario's table and its goals.
func (a *arena) section(s scenario, results []result) string {
	if s.on == applications {
		return applied(a.apps, a.targets, results)
	}
	return section(s, a.targets, results)
}

// section is that of probers.
func section(s scenario, targets []target, results []result) string {
	if s.lasts > 0 {
		return undisturbed(s, targets, results)
	}
	var b strings.Builder
	b.WriteString("| Through | Longest write gap | Connects failed | of these in login | Writes cut | Led to a replica | First write on the new primary | Written astray |\n")
	b.WriteString("|---|---|---|---|---|---|---|---|\n")
	for i, t := range targets {
		count := func(of func(seen) int) string {
			return counts(results, func(r result) int { return of(r.seen[i]) })
		}
		gap := durations(results, func(r result) (time.Duration, bool) { return r.seen[i].Gap, true })
		first := durations(results, func(r result) (time.Duration, bool) { return r.seen[i].first, r.seen[i].through })
		fmt.Fprintf(&b, "| %s | %s | %s | %s | %s | %s | %s | %s |\n", t.name, gap,
			count(func(s seen) int { return s.Connects() }), count(func(s seen) int { return len(s.LoginCut) }),
			count(func(s seen) int { return len(s.WriteCut) }), count(func(s seen) int { return len(s.ReadOnly) }),
			first, count(func(s seen) int { return s.astray }))
	}
	fmt.Fprintf(&b, "\nMedian / maximum. %s took writes %s after it began; a probe took %.0f ms before.\n",
		whoTook(results), durations(results, func(r result) (time.Duration, bool) { return r.tookOver, true }),
		1000*median(pick(results, func(r result) time.Duration { return r.probe })).Seconds())
	fmt.Fprintf(&b, "Its PgBouncer by itself let them through %s later.\n", durations(results, func(r result) (time.Duration, bool) { return r.pool, true }))
	if back := slices.DeleteFunc(slices.Clone(results), func(r result) bool { return r.again == r.leads }); len(back) > 0 {
		fmt.Fprintf(&b, "In %d of %d runs another member than the new primary led in the end (Patroni gave it the leader key), and what was written meanwhile is lost.\n", len(back), len(results))
	}
	b.WriteString("\n")
	for _, g := range goals(s, targets, results) {
		fmt.Fprintf(&b, "- %s\n", g)
	}
	return b.String()
}

// undisturbed is the table and the goals of a scenario in which the primary stays what it is.
func undisturbed(s scenario, targets []target, results []result) string {
	var b strings.Builder
	b.WriteString("| Through | Longest write gap | Connects failed | Writes cut | Idle sessions ended | Written astray |\n")
	b.WriteString("|---|---|---|---|---|---|\n")
	for i, t := range targets {
		count := func(of func(seen) int) string {
			return counts(results, func(r result) int { return of(r.seen[i]) })
		}
		sessions := "–"
		if open := results[0].seen[i].sessions; open > 0 {
			sessions = fmt.Sprintf("%s of %d", count(func(s seen) int { return s.ended }), open)
		}
		fmt.Fprintf(&b, "| %s | %s | %s | %s | %s | %s |\n", t.name, durations(results, func(r result) (time.Duration, bool) { return r.seen[i].Gap, true }),
			count(func(s seen) int { return s.Connects() }), count(func(s seen) int { return len(s.WriteCut) }), sessions,
			count(func(s seen) int { return s.astray }))
	}
	fmt.Fprintf(&b, "\nMedian / maximum, within %s; a gap that lasts to the end isn't over there. A probe took %.0f ms before.\n\n",
		text(s.lasts), 1000*median(pick(results, func(r result) time.Duration { return r.probe })).Seconds())
	tries := slices.IndexFunc(targets, func(t target) bool { return t.tries })
	for _, port := range []int{direct, pooled} {
		ours := slices.IndexFunc(targets, func(t target) bool { return t.ours && t.port == port })
		fmt.Fprintf(&b, "- %s\n", verdict(fmt.Sprintf("%d: a gap at most %s longer than that of a client that tries all members", port, text(plannedGoal)), results,
			func(r result) (time.Duration, bool) { return r.seen[ours].Gap - r.seen[tries].Gap - plannedGoal, true }))
		failed, cut, ended := 0, 0, 0
		for _, r := range results {
			failed, cut, ended = failed+r.seen[ours].Connects(), cut+len(r.seen[ours].WriteCut), ended+r.seen[ours].ended
		}
		outcome := "**met**."
		if failed+cut+ended > 0 {
			outcome = fmt.Sprintf("**missed**: %d connects failed, %d writes were cut and %d idle sessions ended in %d runs.", failed, cut, ended, len(results))
		}
		fmt.Fprintf(&b, "- %d: no connect fails and no session ends: %s\n", port, outcome)
	}
	return b.String()
}

func whoTook(results []result) string {
	for _, r := range results {
		if r.leads != r.led {
			return "The new primary"
		}
	}
	return "The primary, restarted in place,"
}

func pick[T any](results []result, of func(result) T) []T {
	var all []T
	for _, r := range results {
		all = append(all, of(r))
	}
	return all
}

// counts gives median and maximum of a number.
func counts(results []result, of func(result) int) string {
	all := pick(results, of)
	return fmt.Sprintf("%d / %d", median(all), slices.Max(all))
}

// durations gives median and maximum of a time in seconds, and how often there was none.
func durations(results []result, of func(result) (time.Duration, bool)) string {
	var all []time.Duration
	for _, r := range results {
		if d, ok := of(r); ok {
			all = append(all, d)
		}
	}
	if len(all) == 0 {
		return "never"
	}
	text := fmt.Sprintf("%.2f / %.2f s", median(all).Seconds(), slices.Max(all).Seconds())
	if never := len(results) - len(all); never > 0 {
		text += fmt.Sprintf(", %d times never", never)
	}
	return text
}

// goals says of each goal whether it was met, or by how much it was missed.
func goals(s scenario, targets []target, results []result) []string {
	find := func(is func(target) bool) int { return slices.IndexFunc(targets, is) }
	tries := find(func(t target) bool { return t.tries })
	var verdicts []string
	for _, port := range []int{direct, pooled} {
		ours := find(func(t target) bool { return t.ours && t.port == port })
		adds := func(r result) time.Duration {
			if port == pooled {
				return r.pool
			}
			return 0
		}
		and := ""
		if port == pooled {
			and = " and what its PgBouncer adds by itself"
		}
		if !s.planned {
			what := fmt.Sprintf("%d: the first write at most %s after the new primary takes them%s", port, text(otherGoal), and)
			verdicts = append(verdicts, verdict(what, results, func(r result) (time.Duration, bool) {
				return r.seen[ours].first - otherGoal - adds(r), r.seen[ours].through
			}))
			continue
		}
		what := fmt.Sprintf("%d: a gap at most %s longer than that of a client that tries all members%s", port, text(plannedGoal), and)
		verdicts = append(verdicts, verdict(what, results, func(r result) (time.Duration, bool) {
			return r.seen[ours].Gap - r.seen[tries].Gap - plannedGoal - adds(r), true
		}))
		failed, in, login := 0, 0, 0
		for _, r := range results {
			failed += r.seen[ours].Connects()
			login += len(r.seen[ours].LoginCut)
			in += min(1, r.seen[ours].Connects())
		}
		one := fmt.Sprintf("%d: no connect fails: ", port)
		if failed == 0 {
			verdicts = append(verdicts, one+"**met**.")
		} else {
			verdicts = append(verdicts, one+fmt.Sprintf("**missed**: %d failed in %d of %d, %d of them while a server authenticated them.", failed, in, len(results), login))
		}
	}
	return verdicts
}

// verdict tells of a goal; by is how much a run missed it, negative if it met it; false if there is nothing to compare.
func verdict(what string, results []result, by func(result) (time.Duration, bool)) string {
	var all, missed []time.Duration
	never := 0
	for _, r := range results {
		d, ok := by(r)
		if !ok {
			never++
			continue
		}
		all = append(all, d)
		if d > 0 {
			missed = append(missed, d)
		}
	}
	switch {
	case never > 0:
		return fmt.Sprintf("%s: **missed**: %d of %d never got there.", what, never, len(results))
	case len(missed) > 0:
		return fmt.Sprintf("%s: **missed** in %d of %d, by %s at most (median of all %s).", what, len(missed), len(results), text(slices.Max(missed)), margin(median(all)))
	}
	return fmt.Sprintf("%s: **met**, with %s to spare at least (median %s).", what, text(-slices.Max(all)), text(-median(all)))
}

func margin(d time.Duration) string {
	if d <= 0 {
		return text(-d) + " to spare"
	}
	return text(d) + " too long"
}

// text gives a time in milliseconds or, from two seconds on, in seconds.
func text(d time.Duration) string {
	if d < 2*time.Second {
		return fmt.Sprintf("%d ms", d.Milliseconds())
	}
	return fmt.Sprintf("%.1f s", d.Seconds())
}
