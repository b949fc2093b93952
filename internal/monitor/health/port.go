package health

import (
	"fmt"
	"time"

	"github.com/pgporter/pgporter/internal/config/model"
)

// Port is whether the port that services have on a member may get new clients: Patroni may be well while the PgBouncer
// beside it is dead or hangs. It is a value: Feed gives the next one. The zero Port is open: nothing is known of it.
//
// A closed one keeps new clients away and nothing else. Sessions that were let in go on, be it that they hang: nobody knows of
// them that they are wrong.
type Port struct {
	// heard says that there was a result, answered that one of them was an answer.
	heard, answered bool
	closed          bool
	// failures are those before it was closed.
	failures Streak
	// last is why the last probe failed; empty if it didn't. refused says that it was for want of a listener, hangs that there was a
	// connection.
	last           string
	refused, hangs bool
}

// Feed takes the result of a probe that ended now (see Probe). `fall` failures in a row close the port, and count at most once
// per fastinter; the very first result closes it alone. An answer opens it. lenient is for a port of which nobody knows what it
// speaks: there it is enough to be let in, until it has once answered.
func (p Port) Feed(o Outcome, lenient bool, options model.Options, now time.Time) Port {
	first := !p.heard
	p.heard = true
	if o.Silence == "" || o.Accepted && lenient && !p.answered {
		return Port{heard: true, answered: p.answered || o.Silence == ""}
	}
	p.last, p.refused, p.hangs = o.Silence, o.Dead, o.Accepted
	if o.Accepted {
		p.last = "takes connections and doesn't answer: " + o.Silence
	}
	if p.closed {
		return p
	}
	var enough bool
	p.failures, enough = p.failures.Fail(&options, now)
	p.closed = first || enough
	return p
}

// Assumed is a Port that is taken for open until `fall` failures in a row, the first result being none of a kind.
func Assumed() Port { return Port{heard: true} }

// Sound says that the last probe, if there was one, was answered.
func (p Port) Sound() bool { return p.heard && p.last == "" }

// Refused says that the last probe found nobody listening.
func (p Port) Refused() bool { return p.refused && p.last != "" }

// Hangs says that the last probe was let in and got no answer: the machine is there, and may just be busy.
func (p Port) Hangs() bool { return p.hangs && p.last != "" }

// Closed says why no new clients may come; empty if they may.
func (p Port) Closed() string {
	switch {
	case !p.closed:
		return ""
	case p.failures.Count() == 1:
		return p.last
	}
	return fmt.Sprintf("%s (%d in a row)", p.last, p.failures.Count())
}

// Next is the interval from the last probe to the next: inter while it is answered, and fastinter otherwise. A probe costs a
// closed port nothing, so downinter doesn't apply.
func (p Port) Next(options model.Options) time.Duration {
	if p.Sound() {
		return options.Inter
	}
	return options.FastInter
}
