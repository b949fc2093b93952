package chaos

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"
)

// What is believed of the clocks and of how fast news travel on one machine. See docs/reliability.md for where each comes from.
const (
	// newsTravel is how late the watcher may hear of a change of the key.
	newsTravel = time.Second
	// demoted is how long a member may take writes after another one got the leader key, and orphaned after it lost the key
	// to nobody: pgporter has to hear of it, drain for 200 ms and end the sessions.
	demoted  = 2 * time.Second
	orphaned = 2 * time.Second
)

// unconfirmed finds the writes that were taken by a member which the leader key's history doesn't name for that moment. frozen
// says for how much of a time a node's pgporter hung: it can end nothing then, so that time doesn't count.
func unconfirmed(writes []write, keys tenures, frozen func(node string, from, to time.Time) time.Duration) []string {
	var wrong []string
	for _, w := range writes {
		if why := notConfirmed(w, keys, frozen); why != "" {
			wrong = append(wrong, w.String()+": "+why)
		}
	}
	return wrong
}

// notConfirmed is empty if the key named the member at some moment between the write's start and its acknowledgement, or not long
// before.
func notConfirmed(w write, keys tenures, frozen func(node string, from, to time.Time) time.Duration) string {
	from, to := w.at, w.acked.Add(newsTravel)
	// The latest tenure of the member that began before the write was over.
	i := keys.at(to)
	for i >= 0 && keys[i].holder != w.member {
		i--
	}
	if i < 0 {
		return "the leader key had never named it"
	}
	lost := keys.end(i, to)
	if !lost.Before(from) || i+1 == len(keys) {
		return ""
	}
	allowed, what := orphaned, "it had lost the leader key at "+clock(lost)
	limit := lost
	for _, next := range keys[i+1 : keys.at(to)+1] {
		if next.holder != "" {
			allowed, limit = demoted, next.from
			what += fmt.Sprintf(", and %s had it from %s", next.holder, clock(next.from))
			break
		}
	}
	allowed += frozen(w.node, limit, w.at)
	// Whoever loses the key to nobody and then to another member has whichever of both times is shorter.
	if !w.at.After(lost.Add(orphaned+frozen(w.node, lost, w.at))) && !w.at.After(limit.Add(allowed)) {
		return ""
	}
	return what
}

// forked finds the timelines that more than one member took writes on, and those that another member took writes on than the
// one that began it by Patroni's history.
func forked(writes []write, began map[int]string) []string {
	takers := map[int]map[string]write{}
	for _, w := range writes {
		if takers[w.timeline] == nil {
			takers[w.timeline] = map[string]write{}
		}
		takers[w.timeline][w.member] = w
	}
	var wrong []string
	for _, timeline := range slices.Sorted(maps.Keys(takers)) {
		members := slices.Sorted(maps.Keys(takers[timeline]))
		if len(members) > 1 {
			wrong = append(wrong, fmt.Sprintf("timeline %d took writes of clients on %s", timeline, strings.Join(members, " and ")))
		}
		for _, m := range members {
			if leader := began[timeline]; leader != "" && leader != m {
				wrong = append(wrong, fmt.Sprintf("timeline %d was begun by %s by Patroni's history: %s", timeline, leader, takers[timeline][m]))
			}
		}
	}
	return wrong
}

// lost finds the acknowledged writes that aren't among the rows.
func lost(writes []write, rows map[[2]int]bool, where string) []string {
	var missing []string
	for _, w := range writes {
		if !rows[[2]int{w.writer, w.n}] {
			missing = append(missing, "not on "+where+": "+w.String())
		}
	}
	return missing
}
