// Package logqueue lets a program write its log without ever waiting for whoever reads it.
//
// Standard error is a pipe or a socket as a rule: once its buffer is full, write(2) returns when the reader reads again, which a
// journald that hangs or a terminal that was stopped may never do. A Queue is an io.Writer for a log's handler that takes a
// line into a bounded buffer and returns. One goroutine writes; it alone waits for the reader. A line for which there
// is no room is dropped and counted, and once the reader reads again the log says how many were. How that line looks is the
// caller's business, as is everything else about a line's text.
package logqueue

import (
	"bytes"
	"io"
	"sync"
	"time"
)

// limit is how many bytes may wait: a line is taken while there are fewer. As many may be in the write that is under way.
const limit = 1 << 20

// Queue is a log between its writers and its reader.
type Queue struct {
	out   io.Writer
	limit int
	// tell writes the line that says how many were dropped since it was said last.
	tell func(out io.Writer, dropped uint64) error
	// wake tells the goroutine that there is something to do, and is closed by Close.
	wake  chan struct{}
	ended chan struct{}

	mu     sync.Mutex
	queued []byte
	// dropped are all lines that didn't get to the reader, logged those of which the log says so.
	dropped, logged uint64
	// full is set from the first line that is dropped until everything before it is written: so the lines that are missing
	// followed each other, and the one that counts them is where they would be.
	full   bool
	closed bool
}

// New makes a Queue to out, which nobody else is to write to, and starts its goroutine: Close ends it. tell writes to out that so many
// lines were dropped.
func New(out io.Writer, tell func(out io.Writer, dropped uint64) error) *Queue {
	return newQueue(out, tell, limit)
}

func newQueue(out io.Writer, tell func(io.Writer, uint64) error, limit int) *Queue {
	q := &Queue{out: out, limit: limit, tell: tell, wake: make(chan struct{}, 1), ended: make(chan struct{})}
	go q.run()
	return q
}

// Write takes whole lines, or drops them as one. It never waits and never fails.
func (q *Queue) Write(lines []byte) (int, error) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.closed {
		q.dropped++
		return len(lines), nil
	}
	if q.full = q.full || len(q.queued) >= q.limit; q.full {
		q.dropped++
	} else {
		q.queued = append(q.queued, lines...)
	}
	select {
	case q.wake <- struct{}{}:
	default:
	}
	return len(lines), nil
}

// Dropped is how many lines haven't got to the reader and never will, since the start.
func (q *Queue) Dropped() uint64 {
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.dropped
}

// Close returns when everything is written, or after patience: where nobody reads, the goroutine stays in write(2) until the
// process ends. Lines that come later are dropped. It may be called once.
func (q *Queue) Close(patience time.Duration) {
	q.mu.Lock()
	q.closed = true
	close(q.wake)
	q.mu.Unlock()
	timer := time.NewTimer(patience)
	defer timer.Stop()
	select {
	case <-q.ended:
	case <-timer.C:
	}
}

// run writes until Close.
func (q *Queue) run() {
	defer close(q.ended)
	for range q.wake {
		q.flush()
	}
	q.flush()
}

// flush writes until nothing waits, and then says what was dropped.
func (q *Queue) flush() {
	for {
		lines, dropped := q.take()
		if len(lines) == 0 {
			// A reader that has gone (EPIPE) is noticed when the next line comes.
			if dropped > 0 && q.tell(q.out, dropped) == nil {
				q.mu.Lock()
				q.logged += dropped
				q.mu.Unlock()
			}
			return
		}
		// Each by itself: a pipe keeps a line whole among those of another process if it isn't longer than PIPE_BUF.
		for line := range bytes.Lines(lines) {
			if _, err := q.out.Write(line); err != nil {
				q.mu.Lock()
				q.dropped++
				q.mu.Unlock()
			}
		}
	}
}

// take gives what waits. Where that is nothing, lines are taken again, and dropped is what the log doesn't say yet.
func (q *Queue) take() (lines []byte, dropped uint64) {
	q.mu.Lock()
	defer q.mu.Unlock()
	lines, q.queued = q.queued, nil
	if len(lines) == 0 {
		q.full = false
	}
	return lines, q.dropped - q.logged
}
