package etcd

import (
	"context"
	"errors"
	"math/rand/v2"
	"sync/atomic"
	"syscall"
	"time"
)

// paces are a Watcher's times.
type paces struct {
	// attempt bounds the time to a first reading on one connection, read each reading.
	attempt, read time.Duration
	// beat is from one reading of the leader key to the next, all from one of all keys to the next.
	beat, all time.Duration
	// first and most are the shortest and the longest pause between attempts.
	first, most time.Duration
}

var pace = paces{attempt: 4 * time.Second, read: 2 * time.Second, beat: time.Second, all: 30 * time.Second, first: 200 * time.Millisecond, most: 5 * time.Second}

// Watcher follows the keys of one cluster.
type Watcher struct {
	etcd *Etcd
	path string
	// confirm asks for a read at once.
	confirm chan struct{}
	// leased says that the time that the leader's lease has left is asked for.
	leased atomic.Bool
	// ordersKey is followed too if deliverOrder isn't nil.
	ordersKey    string
	deliverOrder func(ctx context.Context, o Order)
	pace         paces
	// hook is called between a read and the watch that begins after it; tests use it.
	hook func(revision int64)

	// published is what was delivered last; reasons are those logged since etcd was lost.
	published *Reading
	reasons   map[string]bool
}

// Confirm has the keys read at once: a member's answer contradicts them. If etcd doesn't answer they are lost within the 2 s
// that a read may take. It never blocks, and does nothing while there is no connection.
func (w *Watcher) Confirm() {
	select {
	case w.confirm <- struct{}{}:
	default:
	}
}

// AskLease has each read of the leader key ask too how much time its lease has left (Reading.Renewed), beginning at once; false
// ends that. It never blocks, and may be called at any time.
func (w *Watcher) AskLease(on bool) {
	if !w.leased.Swap(on) && on {
		w.Confirm()
	}
}

// Run follows the keys until ctx ends: it delivers what they say once that is known, and each change. It may be called once.
//
// What was known is void as soon as a read isn't answered in time, or the next address after a broken connection fails. While
// nothing was known, as at the start, every address is tried before that is said. A connection that this node couldn't make, for want of
// a descriptor, is no failure of the address: it is tried again at once, for as long as what is known may go without a word.
func (w *Watcher) Run(ctx context.Context, deliver Deliver) {
	hosts := w.etcd.hosts
	failures, pause := 0, time.Duration(0)
	for i := 0; ; i++ {
		began := time.Now()
		read, err := w.session(ctx, hosts[i%len(hosts)], deliver)
		switch {
		case ctx.Err() != nil:
			return
		case read:
			failures, pause = 0, 0
			// A connection that ends says nothing of etcd before another one has been tried; no answer in time does.
			if !errors.Is(err, errBroken) {
				w.lose(ctx, err, deliver)
			}
			// One that holds for moments only, again and again, must not become a storm.
			if time.Since(began) < w.pace.most && !sleep(ctx, jitter(w.pace.first)) {
				return
			}
			continue
		}
		if w.holds(err) {
			if !sleep(ctx, jitter(w.pace.first)) {
				return
			}
			continue
		}
		failures++
		if known := w.published != nil && w.published.Lost == ""; known || failures >= len(hosts) {
			w.lose(ctx, err, deliver)
		}
		if failures%len(hosts) != 0 {
			continue
		}
		pause = min(max(2*pause, w.pace.first), w.pace.most)
		if !sleep(ctx, jitter(pause)) {
			return
		}
	}
}

// holds tells whether what is known holds although a connection couldn't be made: for as long as it may without an answer, if this node
// hadn't what it takes to ask. That says nothing of etcd.
func (w *Watcher) holds(err error) bool {
	return ours(err) && w.published != nil && w.published.Lost == "" && time.Since(w.published.Read) < w.pace.beat+w.pace.read
}

// ours says that a connection failed for a want of this node's own: descriptors, memory, local ports.
func ours(err error) bool {
	for _, want := range []syscall.Errno{syscall.EMFILE, syscall.ENFILE, syscall.ENOBUFS, syscall.ENOMEM, syscall.EADDRNOTAVAIL} {
		if errors.Is(err, want) {
			return true
		}
	}
	return false
}

// lose delivers why etcd is lost, each reason once until it is back.
func (w *Watcher) lose(ctx context.Context, why error, deliver Deliver) {
	reason := why.Error()
	if w.reasons[reason] {
		return
	}
	if w.reasons == nil {
		w.reasons = map[string]bool{}
	}
	w.reasons[reason] = true
	w.tell(ctx, Reading{Lost: reason}, deliver)
}

// tell delivers a Reading that isn't what was delivered last.
func (w *Watcher) tell(ctx context.Context, r Reading, deliver Deliver) {
	if w.published != nil && w.published.Equal(r) {
		return
	}
	if r.Lost == "" {
		w.reasons = nil
	}
	w.published = &r
	deliver(ctx, r)
}

// jitter gives between three and five quarters of d, so that many that lost etcd together don't come back together.
func jitter(d time.Duration) time.Duration {
	return d*3/4 + rand.N(d/2+1)
}

// sleep waits; false if ctx ended first.
func sleep(ctx context.Context, d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-timer.C:
		return true
	}
}
