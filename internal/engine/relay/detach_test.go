//go:build linux && !portable

package relay

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"hash"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// TestDetachLosesNothing takes a flow from relay to relay while both sides write and read in odd pieces.
func TestDetachLosesNothing(t *testing.T) {
	client, ours := connected(t)
	theirs, server := connected(t)
	const total = 8 << 20
	var all sync.WaitGroup
	// What may be written is metered, so that it takes many relays to bring it.
	meter := make(chan struct{}, 8)
	exchange := func(from, to *net.TCPConn, seed uint64) (sent, got hash.Hash) {
		sent, got = sha256.New(), sha256.New()
		all.Go(func() {
			if err := pour(metered{from, meter}, rand.New(rand.NewPCG(seed, 1)), total, 100_000, sent); err != nil {
				t.Errorf("write: %v", err)
			}
			_ = from.CloseWrite()
		})
		all.Go(func() {
			if n, err := drink(to, rand.New(rand.NewPCG(seed, 2)), 9000, got); err != nil || n != total {
				t.Errorf("read %d bytes (%v), want %d", n, err, total)
			}
		})
		return sent, got
	}
	for _, peer := range []*net.TCPConn{client, server} {
		must(t, peer.SetDeadline(time.Now().Add(patience)))
	}
	sentToServer, gotByServer := exchange(client, server, 1)
	sentToClient, gotByClient := exchange(server, client, 2)

	pair := Pair{Client: descriptor(t, ours), Server: descriptor(t, theirs)}
	ends := make(chan End, 1)
	detached := 0
	for {
		var r Relay
		flow := r.Start(pair, func(end End) { ends <- end })
		for range cap(meter) {
			select {
			case meter <- struct{}{}:
			default:
			}
		}
		// Until something has moved, so that each relay has its part; a stream that is over moves no more.
		before, beforeToo := pair.SentToServer, pair.SentToClient
		for s, c := flow.Bytes(); s == before && c == beforeToo; s, c = flow.Bytes() {
			select {
			case <-flow.Done():
			case <-time.After(50 * time.Microsecond):
				continue
			}
			break
		}
		next, ok := flow.Detach()
		r.Close()
		if !ok {
			break
		}
		detached++
		pair = next
	}
	all.Wait()
	end := <-ends
	end.ServerFirst = false // whichever was quicker
	if end != (End{ToServer: total, ToClient: total}) {
		t.Errorf("ended as %+v", end)
	}
	if string(sentToServer.Sum(nil)) != string(gotByServer.Sum(nil)) || string(sentToClient.Sum(nil)) != string(gotByClient.Sum(nil)) {
		t.Error("what was read differs from what was written")
	}
	if detached < 10 {
		t.Errorf("detached %d times: that shows too little", detached)
	}
}

// metered writes once for each token.
type metered struct {
	io.Writer
	tokens <-chan struct{}
}

func (m metered) Write(p []byte) (int, error) {
	select {
	case <-m.tokens:
	case <-time.After(patience):
		return 0, os.ErrDeadlineExceeded
	}
	return m.Writer.Write(p)
}

// TestDetachTakesWhatIsPending detaches a flow whose client doesn't read.
func TestDetachTakesWhatIsPending(t *testing.T) {
	client, ours := connected(t)
	theirs, server := connected(t)
	fd, otherFd := descriptor(t, ours), descriptor(t, theirs)
	var first Relay
	flow := first.Start(Pair{Client: fd, Server: otherFd}, nil)
	must(t, client.SetReadDeadline(time.Now().Add(patience)))
	written := stall(t, server, &flow.client)
	must(t, server.CloseWrite())
	pair, ok := flow.Detach()
	first.Close()
	if !ok || len(pair.ToClient) == 0 || pair.Client != fd || pair.Server != otherFd {
		t.Fatalf("detached: %t, with %d bytes for the client", ok, len(pair.ToClient))
	}
	var second Relay
	defer second.Close()
	flow = second.Start(pair, nil)
	got, err := io.Copy(io.Discard, client)
	if err != nil || got != written {
		t.Errorf("read %d bytes (%v), want %d", got, err, written)
	}
	must(t, client.Close())
	flow.Wait()
}

// TestSharedSocketsLeaveTheirLoop has a flow go on in another loop after a detour on which its sockets were duplicated, as a handing
// over that fails does, and come to its end while the duplicates are open: the kernel would wake up that loop for ever.
func TestSharedSocketsLeaveTheirLoop(t *testing.T) {
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(4))
	var own Relay
	defer own.Close()
	for range 3 {
		client, ours := connected(t)
		theirs, server := connected(t)
		flow := own.Start(Pair{Client: descriptor(t, ours), Server: descriptor(t, theirs)}, nil)
		first := flow.loop
		pair, ok := flow.Detach()
		if !ok {
			t.Fatal("not detached")
		}
		for _, fd := range []int{pair.Client, pair.Server} {
			duplicate, err := unix.FcntlInt(uintptr(fd), unix.F_DUPFD_CLOEXEC, 0)
			must(t, err)
			defer Discard(duplicate)
		}
		flow = own.Start(pair, nil)
		if flow.loop == first {
			t.Fatal("the flow goes on in the same loop: that shows nothing")
		}
		for _, peer := range []*net.TCPConn{client, server} {
			must(t, peer.SetDeadline(time.Now().Add(patience)))
		}
		say(t, client, "hello")
		expect(t, server, "hello")
		must(t, client.CloseWrite())
		expectEnd(t, server, io.EOF)
		must(t, server.CloseWrite())
		expectEnd(t, client, io.EOF)
		flow.Wait()
		for _, l := range own.loops {
			if waits := registrations(t, l); len(waits) != 1 || !strings.HasPrefix(waits[0], fmt.Sprint(l.wake, " ")) {
				t.Errorf("beside its eventfd %d a loop waits for %q", l.wake, waits)
			}
		}
		_, _ = client.Close(), server.Close()
	}
}

// TestSharedSocketsAreReset has flows end otherwise than in order while duplicates of their sockets are open.
func TestSharedSocketsAreReset(t *testing.T) {
	for name, test := range map[string]struct {
		end func(f *Flow, client, server *net.TCPConn)
		// What the peers read then; nil is of who ended it.
		client, server error
	}{
		"abort":             {func(f *Flow, _, _ *net.TCPConn) { f.Abort(errors.New("enough")) }, io.EOF, syscall.ECONNRESET},
		"client that broke": {func(_ *Flow, client, _ *net.TCPConn) { _, _ = client.SetLinger(0), client.Close() }, nil, syscall.ECONNRESET},
		"server that broke": {func(_ *Flow, _, server *net.TCPConn) { _, _ = server.SetLinger(0), server.Close() }, syscall.ECONNRESET, nil},
	} {
		t.Run(name, func(t *testing.T) {
			client, ours := connected(t)
			theirs, server := connected(t)
			defer client.Close()
			defer server.Close()
			pair := Pair{Client: descriptor(t, ours), Server: descriptor(t, theirs), Shared: true}
			for _, fd := range []int{pair.Client, pair.Server} {
				duplicate, err := unix.FcntlInt(uintptr(fd), unix.F_DUPFD_CLOEXEC, 0)
				must(t, err)
				defer Discard(duplicate)
			}
			f := relay.Start(pair, nil)
			test.end(f, client, server)
			for peer, want := range map[*net.TCPConn]error{client: test.client, server: test.server} {
				if want != nil {
					must(t, peer.SetDeadline(time.Now().Add(patience)))
					expectEnd(t, peer, want)
				}
			}
			f.Wait()
		})
	}
}

// registrations are what a loop's epoll waits for: a descriptor, as it was when it was registered, and more (proc(5), fdinfo).
func registrations(t *testing.T, l *loop) []string {
	t.Helper()
	text, err := os.ReadFile(fmt.Sprintf("/proc/self/fdinfo/%d", l.epoll))
	must(t, err)
	var all []string
	for line := range strings.Lines(string(text)) {
		if rest, is := strings.CutPrefix(line, "tfd:"); is {
			all = append(all, strings.TrimSpace(rest))
		}
	}
	return all
}

func TestDetachRefusesWhatEnds(t *testing.T) {
	s := set(t, nil, nil)
	s.flow.Abort(errors.New("enough"))
	if _, ok := s.flow.Detach(); ok {
		t.Error("an aborted flow was detached")
	}
	s.ended(t)
	if _, ok := s.flow.Detach(); ok {
		t.Error("a flow that has ended was detached")
	}
}

// TestStreamThatHasEnded goes on with a pair whose client had ended its stream before, with bytes that are still to be
// delivered.
func TestStreamThatHasEnded(t *testing.T) {
	client, ours := connected(t)
	theirs, server := connected(t)
	must(t, client.CloseWrite())
	flow := relay.Start(Pair{Client: descriptor(t, ours), Server: descriptor(t, theirs), ToServer: []byte("the rest"), ClientEnded: true, SentToServer: 100}, nil)
	expect(t, server, "the rest")
	if n, err := server.Read(make([]byte, 1)); n != 0 || err == nil {
		t.Errorf("after the end: %d, %v", n, err)
	}
	say(t, server, "answer")
	expect(t, client, "answer")
	must(t, server.Close())
	flow.Wait()
	if s, c := flow.Bytes(); s != 108 || c != 6 {
		t.Errorf("counted %d and %d bytes", s, c)
	}
	_ = client.Close()
}

func TestClosedRelay(t *testing.T) {
	var r Relay
	r.Close()
	_, ours := connected(t)
	theirs, _ := connected(t)
	ends := make(chan End, 1)
	r.Start(Pair{Client: descriptor(t, ours), Server: descriptor(t, theirs)}, func(end End) { ends <- end }).Wait()
	if end := <-ends; !errors.Is(end.Cause, ErrClosed) {
		t.Errorf("ended with %v", end.Cause)
	}
}
