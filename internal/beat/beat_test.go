package beat

import (
	"testing"
	"testing/synctest"
	"time"
)

// TestTogether: timers that were made at different times fire at the same moments, gap after gap.
func TestTogether(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const gap = 700 * time.Millisecond
		var last time.Time
		var timers []Timer
		for i := range 5 {
			timers = append(timers, Every(gap))
			time.Sleep(time.Duration(i) * gap / 3)
			for _, timer := range timers {
				timer.Again()
			}
			var at []time.Time
			for _, timer := range timers {
				<-timer.C
				at = append(at, time.Now())
			}
			for _, one := range at {
				if !one.Equal(at[0]) {
					t.Errorf("fired at %v", at)
				}
			}
			if since := at[0].Sub(last); !last.IsZero() && (since <= 0 || since%gap != 0) {
				t.Errorf("%v after the one before, which is no multiple of %v", since, gap)
			}
			last = at[0]
		}
	})
}

// TestNext: a beat is ahead, and not farther than a gap.
func TestNext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		for range 50 {
			now := time.Now()
			if wait := Next(Gap).Sub(now); wait <= 0 || wait > Gap {
				t.Fatalf("in %v", wait)
			}
			time.Sleep(37 * time.Millisecond)
		}
	})
}

// TestDoneTogether: what is due at different times is done at the same moment, a tenth of a second later at most, and at others by another
// seed.
func TestDoneTogether(t *testing.T) {
	start := time.Date(2026, 11, 29, 12, 0, 0, 0, time.UTC)
	moments := map[uint64]map[time.Time]bool{0: {}, 12345678: {}}
	for seed, at := range moments {
		for i := range 1000 {
			due := start.Add(time.Duration(i) * 1003 * time.Microsecond)
			done := Together(due, seed)
			if late := done.Sub(due); late < 0 || late >= grid {
				t.Fatalf("%v late", late)
			}
			if Together(done, seed) != done {
				t.Fatalf("%v isn't itself such a moment", done)
			}
			at[done] = true
		}
		if len(at) > 12 {
			t.Errorf("%d moments in a second", len(at))
		}
	}
	for at := range moments[0] {
		if moments[12345678][at] {
			t.Errorf("two seeds have the moment %v", at)
		}
	}
}
