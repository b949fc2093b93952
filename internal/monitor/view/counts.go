package view

import (
	"maps"
	"time"
)

// Checks counts what a server's checks have brought in one service, since the start and as of the View. It goes on where a role or a
// reload takes the server out of the service for a while.
type Checks struct {
	// Failures are checks in vain while it was up, silence among them. Downs is how often it went from up to not up.
	Failures, Downs uint64
	// DownFor is how long it wasn't up in all, but for the time under way, which began with Health.Since.
	DownFor time.Duration
	// Last is what the last of them brought.
	Last Result
}

// Result is what a check of a server brought, as HAProxy would say it.
type Result struct {
	// Code is HAProxy's (management guide, "check_status"); empty for a server that isn't checked. Status is an HTTP answer's, 0 without
	// one. Text says in words what came.
	Code   string
	Status int
	Text   string
	// Health is 0 for down and rise+fall-1 for up; between them results in a row are counted.
	Health int
}

// Turns are a service's: from having a server that takes new clients to having none, and back.
type Turns struct {
	// Up says that it has one, Since is since when it has or hasn't.
	Up    bool
	Since time.Time
	// Downs is how often it lost the last one. DownFor is how long it had none in all, but for the time under way.
	Downs   uint64
	DownFor time.Duration
}

// turn gives the Turns after a look at the service at a time.
func (t Turns) turn(up bool, at time.Time) Turns {
	switch {
	case t.Since.IsZero():
		return Turns{Up: up, Since: at}
	case up == t.Up:
		return t
	case up:
		t.DownFor += max(at.Sub(t.Since), 0)
	default:
		t.Downs++
	}
	t.Up, t.Since = up, at
	return t
}

// note takes notice of the services of a View that is published. Those that it hasn't are forgotten. b.mu is held.
func (b *Board) note(v *View) {
	if b.turns == nil {
		b.turns = make(map[string]Turns, len(v.Services))
	}
	for i := range v.Services {
		s := v.Services[i].Unheld()
		up := false
		for n := range s.Servers {
			up = up || s.Takes(n)
		}
		b.turns[s.FullName] = b.turns[s.FullName].turn(up, v.At)
	}
	if len(b.turns) > len(v.Services) {
		maps.DeleteFunc(b.turns, func(name string, _ Turns) bool { return v.Service(name) == nil })
	}
}

// Turns are those of a service, by its full name; the zero Turns if there is none.
func (b *Board) Turns(service string) Turns {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.turns[service]
}

// Durations counts how long something took: Counts[i] those that took at most as long as the i-th of bounds that the field with the
// Durations names, the last one those that took longer than all; Sum is of all.
type Durations struct {
	Counts [14]uint64
	Sum    time.Duration
	// Last is how long it took last.
	Last time.Duration
}

// AnswerBounds and OutageBounds are what is counted by, in seconds.
var (
	AnswerBounds = []float64{.001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10}
	OutageBounds = []float64{.5, 1, 2, 3, 5, 7.5, 10, 15, 30, 60, 120, 300}
)

// Add gives the Durations with one more.
func (d Durations) Add(took time.Duration, bounds []float64) Durations {
	took = max(took, 0)
	i := 0
	for i < len(bounds) && took.Seconds() > bounds[i] {
		i++
	}
	d.Counts[i]++
	d.Sum += took
	d.Last = took
	return d
}
