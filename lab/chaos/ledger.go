package chaos

import (
	"fmt"
	"slices"
	"sync"
	"time"
)

// write is one that was acknowledged.
type write struct {
	// writer and n are the row's key.
	writer, n int
	// member took it, on this timeline and after this position in its log.
	member   string
	timeline int
	lsn      string
	// at is the server's clock while it ran, acked ours when the answer was there; both are of one machine.
	at, acked time.Time
	// node is whose pgporter connected to it, port by which service.
	node string
	port int
}

func (w write) String() string {
	return fmt.Sprintf("write %d of writer %d (%s:%d) by %s on timeline %d at %s, run %s, acknowledged %s",
		w.n, w.writer, w.node, w.port, w.member, w.timeline, w.lsn, clock(w.at), clock(w.acked))
}

// clock is a time as it is in PostgreSQL's and Patroni's logs.
func clock(t time.Time) string { return t.Format("15:04:05.000") }

// ledger holds what was acknowledged, and counts what wasn't.
type ledger struct {
	mu     sync.Mutex
	writes []write
	ports  map[int]*tally
}

// tally is what clients saw of one service.
type tally struct {
	done, refused, cut int
	// last is when something was done, gap the longest time between.
	last time.Time
	gap  time.Duration
	// why counts the failures by their words.
	why map[string]int
}

func newLedger() *ledger { return &ledger{ports: map[int]*tally{}} }

func (l *ledger) of(port int) *tally {
	t := l.ports[port]
	if t == nil {
		t = &tally{why: map[string]int{}}
		l.ports[port] = t
	}
	return t
}

// done notes something that succeeded, and a write if it was one.
func (l *ledger) done(port int, now time.Time, w *write) {
	l.mu.Lock()
	defer l.mu.Unlock()
	t := l.of(port)
	if !t.last.IsZero() {
		t.gap = max(t.gap, now.Sub(t.last))
	}
	t.last = now
	t.done++
	if w != nil {
		l.writes = append(l.writes, *w)
	}
}

// failed notes a connect (or what was on a session, connected) that failed.
func (l *ledger) failed(port int, connected bool, why string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	t := l.of(port)
	if connected {
		t.cut++
	} else {
		t.refused++
	}
	t.why[why]++
}

func (l *ledger) acknowledged() []write {
	l.mu.Lock()
	defer l.mu.Unlock()
	return slices.Clone(l.writes)
}

// since says how much of a port succeeded after a moment.
func (l *ledger) since(port int, when time.Time) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.of(port).last.After(when)
}
