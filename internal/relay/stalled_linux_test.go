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
	const flows = 100
	var before, after runtime.MemStats
	runtime.GC()
	runtime.GC()
	runtime.ReadMemStats(&before)
	stages := make([]*stage, flows)
	var writing sync.WaitGroup
	var brought [2]atomic.Int64
	for i := range stages {
		stages[i] = set(t, nil, nil)
		for side, conn := range []*net.TCPConn{stages[i].client, stages[i].server} {
			writing.Go(func() {
				// It has stalled once the reader's kernel takes no more, and nothing has gone on for a while.
				full := &stages[i].flow.server
				if side == 1 {
					full = &stages[i].flow.client
				}
				deadline := time.Now().Add(patience)
				for n := int64(1); n > 0 || full.holds() == 0 && time.Now().Before(deadline); {
					_ = conn.SetWriteDeadline(time.Now().Add(time.Second))
					var err error
					if n, err = io.Copy(conn, neverEnding{}); !errors.Is(err, os.ErrDeadlineExceeded) {
						t.Errorf("wrote %d bytes to a reader that doesn't read: %v", n, err)
						return
					}
					brought[side].Add(n)
				}
			})
		}
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
		(brought[0].Load()+brought[1].Load())>>20, held/flows>>10, each>>10)
}

// holds gives how many bytes are pending for a side.
func (s *side) holds() int {
	s.flow.mu.Lock()
	defer s.flow.mu.Unlock()
	return len(s.pending)
}
