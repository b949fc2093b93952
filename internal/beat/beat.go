// Package beat is the rhythm in which a process does what it does by the clock, though nothing has happened. What costs an idle
// process most is being woken up, not what it does then: so all loops go round at the same moments.
package beat

import "time"

// Gap is how long a loop that nothing happens to takes for a round: longer than from one question to a member to the next.
const Gap = 3 * time.Second

// began is different in each process, so that those of many nodes don't all turn to the same server at once.
var began = time.Now()

// Next is when the next beat is, of those that are gap apart: later than now, by gap at most, and the same for all that ask in
// between.
func Next(gap time.Duration) time.Time {
	now := time.Now()
	// Less than 0 in a test whose clock is not the one of began.
	since := now.Sub(began) % gap
	if since < 0 {
		since += gap
	}
	return now.Add(gap - since)
}

// grid is what lies between the moments of Together: a hundred clusters that are each asked every three seconds fill a third of what there
// would be otherwise.
const grid = 100 * time.Millisecond

// Together is the first moment from t on of those at which a process does what may as well be done a tenth of a second later. The seed
// tells its moments from those of other processes.
func Together(t time.Time, seed uint64) time.Time {
	past := t.Sub(time.Unix(0, int64(seed%uint64(grid)))) % grid
	if past <= 0 {
		past += grid
	}
	return t.Add(grid - past)
}

// Timer fires with the next beat; whoever takes that resets it with Again. time.Ticker has a rhythm of its own.
type Timer struct {
	*time.Timer
	gap time.Duration
}

// Every makes a Timer of beats that are gap apart.
func Every(gap time.Duration) Timer { return Timer{time.NewTimer(time.Until(Next(gap))), gap} }

// Again has it fire with the next beat.
func (t Timer) Again() { t.Reset(time.Until(Next(t.gap))) }
