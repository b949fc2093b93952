// Package load makes a small, steady load on PostgreSQL and keeps what a client sees of it: probers that connect, write one
// row and leave, and watchers that see at a member itself when it takes writes.
//
// A prober does one thing after the other: one that is made to wait makes no load meanwhile, so the load is bounded by its
// interval however long it goes on. What it saw is a list of Probes; what they mean (Impress) is a function of that list.
//
// The package knows nothing of services, clusters or who ought to answer: it is given URLs.
package load

import (
	"slices"
	"sync"
	"time"
)

// Outcome says how far a probe came.
type Outcome int

// The outcomes of a probe.
const (
	// Written is a row that the server acknowledged.
	Written Outcome = iota
	// Refused is a connect that failed before a server had taken it up. With several hosts in the URL it is one that failed
	// at every host, however far it came there.
	Refused
	// LoginCut is a connect that failed after a server had begun to authenticate it: nobody else can go on with that.
	LoginCut
	// WriteCut is a write that failed on a session that was open: the client doesn't know whether it counts.
	WriteCut
	// ReadOnly is a write that a server refused because it takes none: it was connected to a replica.
	ReadOnly
)

// Probe is what became of one connect and write.
type Probe struct {
	Began, Ended time.Time
	Outcome      Outcome
	// Server is the address of the server that wrote, by its own word; empty unless Written.
	Server string
	// Err says what failed; nil if Written.
	Err error
}

// Recorder keeps the probes of a prober until somebody takes them. Its zero value is ready.
type Recorder struct {
	mu      sync.Mutex
	probes  []Probe
	written int
}

// Add keeps a probe; it is what Prober.Observe wants.
func (r *Recorder) Add(p Probe) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.probes = append(r.probes, p)
	if p.Outcome == Written {
		r.written++
	}
}

// Take gives the probes that came since the last Take, in the order of their ends.
func (r *Recorder) Take() []Probe {
	r.mu.Lock()
	defer r.mu.Unlock()
	taken := r.probes
	r.probes = nil
	return taken
}

// Seen gives what Take would, and leaves it.
func (r *Recorder) Seen() []Probe {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.Clone(r.probes)
}

// Written is how many writes there were since the beginning.
func (r *Recorder) Written() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.written
}

// Impression is what a client has seen in a time.
type Impression struct {
	Writes int
	// Gap is the longest time between the ends of two writes that succeeded.
	Gap time.Duration
	// LastWrite is when the last of them was acknowledged; zero if there was none.
	LastWrite time.Time
	// The probes that failed, by their outcome.
	Refused, LoginCut, WriteCut, ReadOnly []Probe
}

// Connects is how many connects failed, whether a server had taken them up or not.
func (i Impression) Connects() int { return len(i.Refused) + len(i.LoginCut) }

// Impress says what probes, in the order of their ends, amount to. From and until count as ends of writes where they aren't
// zero: from is the last write before, or when the time began, until is when it ended.
func Impress(from, until time.Time, probes []Probe) Impression {
	var i Impression
	last := from
	step := func(to time.Time) {
		if !last.IsZero() && !to.IsZero() {
			i.Gap = max(i.Gap, to.Sub(last))
		}
		last = to
	}
	for _, p := range probes {
		switch p.Outcome {
		case Written:
			i.Writes++
			i.LastWrite = p.Ended
			step(p.Ended)
		case Refused:
			i.Refused = append(i.Refused, p)
		case LoginCut:
			i.LoginCut = append(i.LoginCut, p)
		case WriteCut:
			i.WriteCut = append(i.WriteCut, p)
		case ReadOnly:
			i.ReadOnly = append(i.ReadOnly, p)
		}
	}
	step(until)
	return i
}
