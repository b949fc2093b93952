//go:build linux && !portable

package relay

import (
	"errors"
	"io"
	"net"
	"os"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// TestStalledFlowsAreBounded stalls many flows in both directions and looks at what each holds, and at the heap.
func TestStalledFlowsAreBounded(t *testing.T) {
	const flows = 40
	var before, after runtime.MemStats
	runtime.GC()
	runtime.GC()
	runtime.ReadMemStats(&before)
	stages := make([]*stage, flows)
	var writing sync.WaitGroup
	var brought atomic.Int64
	for i := range stages {
		s := set(t, nil, nil)
		stages[i] = s
		writing.Go(func() { brought.Add(stall(t, s.client, &s.flow.server)) })
		writing.Go(func() { brought.Add(stall(t, s.server, &s.flow.client)) })
	}
	writing.Wait()
	held := 0
	for _, s := range stages {
		for _, side := range []*side{&s.flow.client, &s.flow.server} {
			pending := side.holds()
			if pending == 0 || pending > bufferSize {
				t.Errorf("%d bytes are pending for a %s that doesn't read", pending, side)
			}
			held += pending
		}
	}
	runtime.GC()
	runtime.GC()
	runtime.ReadMemStats(&after)
	// Two buffers, and what an idle flow has.
	const most = 2*bufferSize + 16<<10
	each := (int64(after.HeapAlloc) - int64(before.HeapAlloc)) / flows
	if each > most {
		t.Errorf("a stalled flow keeps %d bytes on the heap, %d at most are expected", each, most)
	}
	t.Logf("%d flows, stalled both ways, %d MB written to them: %d KB pending and %d KB of heap each", flows,
		brought.Load()>>20, held/flows>>10, each>>10)
}

// stall writes until nothing goes on: the reader, who doesn't read, is the other end of a side that holds bytes then. It gives how
// many were written. What there is no end of is told by how much that is, as a busy machine takes its time over each byte.
func stall(t *testing.T, to *net.TCPConn, full *side) (written int64) {
	t.Helper()
	// More than the four sockets of a direction hold: tcp_rmem and tcp_wmem (tcp(7)) end at some megabytes each.
	const most = 256 << 20
	for {
		_ = to.SetWriteDeadline(time.Now().Add(500 * time.Millisecond))
		n, err := io.Copy(to, io.LimitReader(neverEnding{}, most-written))
		written += n
		switch {
		case written == most:
			t.Errorf("wrote %d bytes to a reader that doesn't read, and there is no end of it", written)
			return written
		case !errors.Is(err, os.ErrDeadlineExceeded):
			t.Errorf("wrote %d bytes to a reader that doesn't read: %v", written, err)
			return written
		case n == 0 && full.holds() > 0:
			return written
		}
	}
}

// holds gives how many bytes are pending for a side.
func (s *side) holds() int {
	s.flow.mu.Lock()
	defer s.flow.mu.Unlock()
	return len(s.pending)
}
