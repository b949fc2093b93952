//go:build switchovers

package e2e

import (
	"flag"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/pgporter/pgporter/lab/sandbox"
)

var (
	switchovers  = flag.Int("switchovers", 50, "how many switchovers")
	plainPatroni = flag.Bool("patroni", false, "ask Patroni for them, as patronictl does, instead of pgporter switchover")
)

// TestSwitchovers makes many switchovers in a row under pooled clients at the doors, who stay for all of it.
func TestSwitchovers(t *testing.T) {
	d := newDoors(t, 78, sandbox.Config{Door: true, Fall: patient})
	d.settled(t)
	p := d.pooled(t, 20)
	type span struct{ from, to time.Time }
	var spans []span
	var took []time.Duration
	for i := range *switchovers {
		began := time.Now()
		if *plainPatroni {
			if _, err := d.Switchover(t.Context(), ""); err != nil {
				t.Fatalf("switchover %d: %v", i+1, err)
			}
		} else {
			run := d.switchover(t)
			run.succeeds(t)
		}
		took = append(took, time.Since(began))
		d.settled(t)
		p.commits(t, 20)
		spans = append(spans, span{began, time.Now()})
		p.mu.Lock()
		failed := 0
		for _, one := range p.done {
			if one.Err != nil {
				failed++
			}
		}
		fmt.Printf("switchover %d of %d: %d transactions, %d failed so far\n", i+1, *switchovers, len(p.done), failed)
		p.mu.Unlock()
	}
	s := p.ends(t)
	// The pause of a switchover is its longest transaction.
	pauses := make([]time.Duration, len(spans))
	for _, one := range p.done {
		if one.Err != nil {
			t.Logf("client %d, transaction %d, %s after %.2fs: %v", one.Client, one.N, one.Ended.Format("15:04:05.000"), one.Ended.Sub(one.Began).Seconds(), one.Err)
		}
		for i, span := range spans {
			if one.Ended.After(span.from) && one.Ended.Before(span.to) {
				pauses[i] = max(pauses[i], one.Ended.Sub(one.Began))
			}
		}
	}
	t.Log(s)
	t.Logf("longest transaction of each switchover: %s", distribution(pauses))
	t.Logf("the switchover itself: %s", distribution(took))
	if s.failed > 0 || s.closed > 0 {
		t.Errorf("%d switchovers weren't without an exception: %s", len(spans), s)
	}
}

// TestKilledSwitchovers has the command killed at each of its steps.
func TestKilledSwitchovers(t *testing.T) {
	d := newDoors(t, 78, sandbox.Config{Door: true, Fall: patient})
	d.part(t, "each step", func(t *testing.T) {
		d.killed(t, "look", "checkpoint", "hold", "drain", "ask", "stop", "promote", "release", "serve")
	})
}

func distribution(all []time.Duration) string {
	sorted := slices.Sorted(slices.Values(all))
	at := func(share float64) float64 {
		return sorted[min(len(sorted)-1, int(share*float64(len(sorted))))].Seconds()
	}
	return fmt.Sprintf("%.2f s at least, %.2f s in the median, %.2f s nine of ten, %.2f s at most", at(0), at(0.5), at(0.9), at(1))
}
