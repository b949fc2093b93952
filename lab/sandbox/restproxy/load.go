package restproxy

import (
	"net/netip"
	"slices"
	"time"
)

// ByAsker sorts requests by who asked.
func ByAsker(all []Request) map[netip.Addr][]Request {
	by := map[netip.Addr][]Request{}
	for _, r := range all {
		by[r.From] = append(by[r.From], r)
	}
	return by
}

// Most is the greatest number of requests that arrived within any window of that length. The requests are in order of their times.
func Most(all []Request, window time.Duration) int {
	most, first := 0, 0
	for i, r := range all {
		for r.At.Sub(all[first].At) >= window {
			first++
		}
		most = max(most, i-first+1)
	}
	return most
}

// UnderWay is the greatest number of requests that waited for their answers at one time; those that have none yet wait until now.
func UnderWay(all []Request, now time.Time) int {
	type edge struct {
		at   time.Time
		step int
	}
	var edges []edge
	for _, r := range all {
		end := r.At.Add(r.Took)
		if r.Took == 0 {
			end = now
		}
		edges = append(edges, edge{r.At, 1}, edge{end, -1})
	}
	// An end comes before a begin at the same time: who asks as soon as it is answered has one question under way.
	slices.SortStableFunc(edges, func(a, b edge) int {
		if c := a.at.Compare(b.at); c != 0 {
			return c
		}
		return a.step - b.step
	})
	most, running := 0, 0
	for _, e := range edges {
		running += e.step
		most = max(most, running)
	}
	return most
}
