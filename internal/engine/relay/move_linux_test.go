//go:build linux && !portable

package relay

import (
	"errors"
	"io"
	"runtime"
	"sync"
	"syscall"
	"testing"
	"time"
)

// TestLastingFlowsAreSpread begins all flows in one loop and has them last, while both sides write and read at once: every loop
// carries some in the end, and each byte comes where it should.
func TestLastingFlowsAreSpread(t *testing.T) {
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(4))
	var own Relay
	defer own.Close()
	const flows, rounds = 12, 200
	ends := make(chan End, flows)
	// One that doesn't begin, and so stays where it is.
	affinity, err := own.Prepare(nil, nil)
	must(t, err)
	defer affinity.Drop()
	var talking sync.WaitGroup
	var all []*Flow
	for range flows {
		client, ours := connected(t)
		theirs, server := connected(t)
		must(t, errors.Join(client.SetDeadline(time.Now().Add(patience)), server.SetDeadline(time.Now().Add(patience))))
		f, err := own.Prepare(affinity, nil)
		must(t, err)
		f.Begin(Pair{Client: descriptor(t, ours), Server: descriptor(t, theirs)}, func(end End) { ends <- end })
		all = append(all, f)
		talking.Go(func() {
			var both sync.WaitGroup
			for _, way := range [][2]io.ReadWriter{{client, server}, {server, client}} {
				both.Go(func() {
					for i := range rounds {
						text := []byte{byte(i), byte(i >> 8), 7}
						if _, err := way[0].Write(text); err != nil {
							t.Errorf("write: %v", err)
							return
						}
					}
				})
				both.Go(func() {
					got := make([]byte, 3)
					for i := range rounds {
						if _, err := io.ReadFull(way[1], got); err != nil || got[0] != byte(i) || got[1] != byte(i>>8) || got[2] != 7 {
							t.Errorf("message %d: %v, %v", i, got, err)
							return
						}
					}
				})
			}
			both.Wait()
			// As many steps as it takes, and none at the same time.
			for range pinAfter {
				if _, err := client.Write([]byte{1}); err != nil {
					t.Errorf("write: %v", err)
				}
				if _, err := io.ReadFull(server, make([]byte, 1)); err != nil {
					t.Errorf("read: %v", err)
				}
			}
		})
		t.Cleanup(func() {
			_ = client.Close()
			_ = server.Close()
		})
		defer func() {
			_ = client.Close()
			_ = server.Close()
			f.Wait()
		}()
	}
	talking.Wait()
	carried := map[*loop]int{}
	for _, f := range all {
		f.mu.Lock()
		carried[f.loop]++
		f.mu.Unlock()
	}
	if len(carried) != 3 {
		t.Errorf("%d loops carry flows, want 3", len(carried))
	}
	for l, n := range carried {
		if n != flows/3 || int(l.pinned.Load()) != n {
			t.Errorf("a loop carries %d flows and counts %d", n, l.pinned.Load())
		}
	}
}

// TestMovedFlowIsStillWatched moves a flow to another loop in a moment in which nothing is to be read from its client, which
// then breaks.
func TestMovedFlowIsStillWatched(t *testing.T) {
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(4))
	limit := abandonLimit
	abandonLimit = 200 * time.Millisecond
	defer func() { abandonLimit = limit }()
	var own Relay
	defer own.Close()
	client, ours := connected(t)
	theirs, server := connected(t)
	defer server.Close()
	ends := make(chan End, 1)
	f := own.Start(Pair{Client: descriptor(t, ours), Server: descriptor(t, theirs)}, func(end End) { ends <- end })
	stall(t, client, &f.server)
	f.mu.Lock()
	stalled, from := len(f.server.pending) > 0, f.loop
	// As if it were the step after which it is moved.
	from.pinned.Add(1)
	f.move()
	f.settle()
	f.noticeErrors()
	moved := f.loop != from
	from.pinned.Add(-1)
	f.steps = pinAfter
	f.mu.Unlock()
	if !stalled || !moved {
		t.Fatalf("stalled: %t, moved: %t", stalled, moved)
	}
	must(t, client.SetLinger(0))
	must(t, client.Close())
	select {
	case end := <-ends:
		if !errors.Is(end.Cause, syscall.ECONNRESET) {
			t.Errorf("ended with %v", end.Cause)
		}
	case <-time.After(patience):
		t.Fatal("a flow whose client broke doesn't end")
	}
}
