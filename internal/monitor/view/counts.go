package view

import "time"

// Checks counts what a server's checks have brought in one service, since the start and as of the View. It goes on where a role or a
// reload takes the server out of the service for a while.
type Checks struct {
	// Failures are checks in vain while it was up, silence among them. Downs is how often it went from up to not up.
	Failures, Downs uint64
	// DownFor is how long it wasn't up in all, but for the time under way, which began with Health.Since.
	DownFor time.Duration
}

// Durations counts how long something took: Counts[i] those that took at most as long as the i-th of bounds that the field with the
// Durations names, the last one those that took longer than all; Sum is of all.
type Durations struct {
	Counts [14]uint64
	Sum    time.Duration
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
	return d
}
