package throughput

import (
	"context"
	"errors"
	"fmt"
	"time"
)

// ticks are times of all processors of the machine together, in hundredths of a second.
type ticks struct{ all, stolen int64 }

// stolenSince is the part of the machine's time that another one had.
func (t ticks) stolenSince(before ticks) float64 {
	if t.all == before.all {
		return 0
	}
	return float64(t.stolen-before.stolen) / float64(t.all-before.all)
}

const (
	// mostStolen is the part up to which a run counts as undisturbed.
	mostStolen = 0.05
	// mostTries is how often a run is tried; the last counts whatever it was. breath is between two: a machine that was held
	// up may be so because it has had more than its share.
	mostTries = 8
	breath    = 2 * time.Second
)

// disturbances counts runs: all that count, those that were done again, and those that count although they were disturbed.
type disturbances struct{ runs, again, kept int }

// String is a clause for the document; empty if nothing was disturbed.
func (d disturbances) String() string {
	text := ""
	if d.again > 0 {
		text = fmt.Sprintf("; %s done again, since other machines took more than %.0f %% of the processors meanwhile", plural(d.again, "run"), 100*mostStolen)
	}
	if d.kept > 0 {
		verb := "count"
		if d.kept == 1 {
			verb = "counts"
		}
		text += fmt.Sprintf("; %d of %s %s all the same", d.kept, plural(d.runs, "run"), verb)
	}
	return text
}

// undisturbed does a run until no other machine has had the processors meanwhile. now tells their time. Of a run's failures errStill
// alone may be the other machines' doing.
func (d *disturbances) undisturbed(ctx context.Context, now func() (ticks, error), run func() ([]float64, error)) ([]float64, error) {
	d.runs++
	for try := 1; ; try++ {
		before, err := now()
		if err != nil {
			return nil, err
		}
		values, failed := run()
		if failed != nil && !errors.Is(failed, errStill) {
			return nil, failed
		}
		after, err := now()
		if err != nil {
			return nil, err
		}
		disturbed := after.stolenSince(before) > mostStolen
		if !disturbed || failed != nil && try == mostTries {
			return values, failed
		}
		if try == mostTries {
			d.kept++
			return values, nil
		}
		d.again++
		select {
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		case <-time.After(breath):
		}
	}
}
