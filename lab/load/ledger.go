package load

import (
	"sync"
	"time"
)

// Ledger keeps what the clients of one pool saw until somebody takes it. Its zero value is ready.
type Ledger struct {
	mu     sync.Mutex
	entry  Entry
	commit map[int]time.Time
	open   int
}

// Entry is what a Ledger has kept.
type Entry struct {
	// Transactions are in the order of their ends, but for those that ended in one moment.
	Transactions []Transaction
	// Closed are the moments at which the pool closed a connection, as it was of no more use.
	Closed []time.Time
}

// Add keeps a transaction.
func (l *Ledger) Add(t Transaction) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.entry.Transactions = append(l.entry.Transactions, t)
	if t.Fate == Committed {
		if l.commit == nil {
			l.commit = map[int]time.Time{}
		}
		l.commit[t.Client] = t.Began
	}
}

// Open keeps that a connection was made.
func (l *Ledger) Open() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.open++
}

// Connections is how many were made and not closed.
func (l *Ledger) Connections() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.open
}

// Close keeps that a connection was closed.
func (l *Ledger) Close(at time.Time) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.open--
	l.entry.Closed = append(l.entry.Closed, at)
}

// Take gives what came since the last Take.
func (l *Ledger) Take() Entry {
	l.mu.Lock()
	defer l.mu.Unlock()
	taken := l.entry
	l.entry = Entry{}
	return taken
}

// CommittedSince is how many clients have committed a transaction that they began after a moment.
func (l *Ledger) CommittedSince(after time.Time) int {
	l.mu.Lock()
	defer l.mu.Unlock()
	clients := 0
	for _, began := range l.commit {
		if began.After(after) {
			clients++
		}
	}
	return clients
}

// Pause is the longest time in which one of so many clients, numbered from 0 on, committed nothing, from one moment to another.
func (e Entry) Pause(clients int, from, until time.Time) time.Duration {
	last := make([]time.Time, clients)
	for i := range last {
		last[i] = from
	}
	var longest time.Duration
	for _, t := range e.Transactions {
		if t.Fate == Committed {
			longest = max(longest, t.Ended.Sub(last[t.Client]))
			last[t.Client] = t.Ended
		}
	}
	for _, before := range last {
		longest = max(longest, until.Sub(before))
	}
	return longest
}

// Failed are the transactions with a fate.
func (e Entry) Failed(f Fate) []Transaction {
	var failed []Transaction
	for _, t := range e.Transactions {
		if t.Fate == f {
			failed = append(failed, t)
		}
	}
	return failed
}
