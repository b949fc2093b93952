package throughput

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"
)

// spent does something and gives the processor time that a route's proxy needs meanwhile; 0 if there is none.
func (s *stage) spent(w route, do func() error) (time.Duration, error) {
	if s.proxies[w] == nil {
		return 0, do()
	}
	before, err := processorTime(s.proxies[w].PID())
	if err != nil {
		return 0, err
	}
	if err := do(); err != nil {
		return 0, err
	}
	after, err := processorTime(s.proxies[w].PID())
	return after - before, err
}

// each divides a time, in microseconds.
func each(d time.Duration, n int64) float64 { return float64(d.Nanoseconds()) / 1000 / float64(n) }

// cost is what a process and its descendants have spent of processor time, and how many bytes of memory they hold in RAM.
type cost struct {
	processor time.Duration
	// private is what each has for itself, shared the greatest part of one that others may have too: as a rule, each other.
	private, shared int64
}

// resident is the memory of all, in bytes.
func (c cost) resident() int64 { return c.private + c.shared }

// reading is what a process had spent on processors at a moment.
type reading struct {
	at    time.Time
	spent time.Duration
}

// meterEvery is how often the meter is read.
const meterEvery = 20 * time.Millisecond

// metered does something and reads meanwhile what a route's proxy spends; nothing if there is no proxy.
func (s *stage) metered(ctx context.Context, w route, do func() error) ([]reading, error) {
	if s.proxies[w] == nil {
		return nil, do()
	}
	pid := s.proxies[w].PID()
	ctx, stop := context.WithCancel(ctx)
	var readings []reading
	var failed error
	var reader sync.WaitGroup
	reader.Go(func() {
		again := time.NewTicker(meterEvery)
		defer again.Stop()
		for {
			var r reading
			if r.spent, failed = processorTime(pid); failed != nil {
				return
			}
			r.at = time.Now()
			readings = append(readings, r)
			select {
			case <-ctx.Done():
				return
			case <-again.C:
			}
		}
	})
	err := do()
	stop()
	reader.Wait()
	return readings, errors.Join(err, failed)
}

// errStill is of a run in which nothing went on for so long that there is nothing to count.
var errStill = errors.New("no transaction")

// spentEach gives what each transaction took of a proxy, in microseconds: between two readings that lie within the time
// in which transactions were done, so that opening and closing the sessions is in neither; 0 if there is no reading at all.
func spentEach(readings []reading, done []transaction) (float64, error) {
	if len(readings) == 0 {
		return 0, nil
	}
	if len(done) == 0 {
		return 0, errStill
	}
	first, last := done[0].ended, done[0].ended
	for _, t := range done {
		if t.ended.Before(first) {
			first = t.ended
		}
		if t.ended.After(last) {
			last = t.ended
		}
	}
	var from, to reading
	for _, r := range readings {
		if r.at.Before(first) || r.at.After(last) {
			continue
		}
		if from.at.IsZero() {
			from = r
		}
		to = r
	}
	within := int64(0)
	for _, t := range done {
		if t.ended.After(from.at) && !t.ended.After(to.at) {
			within++
		}
	}
	if within == 0 {
		return 0, fmt.Errorf("%w between two readings of the meter", errStill)
	}
	return each(to.spent-from.spent, within), nil
}
