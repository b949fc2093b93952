package health

import (
	"fmt"
	"time"

	"github.com/pgporter/pgporter/internal/config/model"
)

// Port is whether the port that services lead to on a member may get new clients: Patroni may be well while the PgBouncer
// beside it is dead or hangs. It is a value: Feed gives the next one. The zero Door is open: nothing is known of it.
//
// A shut door keeps new clients away and nothing else. Sessions that were let in go on, be it that they hang: nobody knows of
// them that they are wrong.
type Port struct {
	// heard says that there was a result, answered that one of them was an answer.
	heard, answered bool
	closed          bool
	// failures are those before it was shut.
	failures Streak
	// last is why the last knock failed; empty if it didn't.
	last string
}

// Feed takes the result of a knock that ended now (see Knock). `fall` failures in a row shut the door, and count at most once
// per fastinter; the very first result shuts it alone. An answer opens it. lenient is for a port of which nobody knows what it
// speaks: there it is enough to be let in, until it has once answered.
func (d Port) Feed(o Outcome, lenient bool, options model.Options, now time.Time) Port {
	first := !d.heard
	d.heard = true
	if o.Silence == "" || o.Accepted && lenient && !d.answered {
		return Port{heard: true, answered: d.answered || o.Silence == ""}
	}
	d.last = o.Silence
	if o.Accepted {
		d.last = "takes connections and doesn't answer: " + o.Silence
	}
	if d.closed {
		return d
	}
	var enough bool
	d.failures, enough = d.failures.Fail(&options, now)
	d.closed = first || enough
	return d
}

// Closed says why no new clients may come; empty if they may.
func (d Port) Closed() string {
	switch {
	case !d.closed:
		return ""
	case d.failures.Count() == 1:
		return d.last
	}
	return fmt.Sprintf("%s (%d in a row)", d.last, d.failures.Count())
}

// Next is the interval from the last knock to the next: inter while it is answered, and fastinter otherwise. A knock costs a
// shut door nothing, so downinter doesn't apply.
func (d Port) Next(options model.Options) time.Duration {
	if d.heard && d.last == "" {
		return options.Inter
	}
	return options.FastInter
}
