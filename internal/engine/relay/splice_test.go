//go:build linux && !portable

package relay

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// TestBulk has much go both ways at once, to readers with as much room as they like and to ones with next to none, who leave
// bytes behind in the splice pipe all the time.
func TestBulk(t *testing.T) {
	for _, room := range []int{0, 64 << 10} {
		t.Run(fmt.Sprintf("room %d", room), func(t *testing.T) {
			s := set(t, nil, nil)
			total := 16 << 20
			if room > 0 {
				total = 4 << 20
				must(t, s.client.SetReadBuffer(room))
				must(t, s.server.SetReadBuffer(room))
			}
			var moving sync.WaitGroup
			move := func(seed uint64, from, to *net.TCPConn) {
				sent, got := sha256.New(), sha256.New()
				moving.Go(func() {
					if err := pour(from, rand.New(rand.NewPCG(seed, 0)), total, 256<<10, sent); err != nil {
						t.Error(err)
					}
					if err := from.CloseWrite(); err != nil {
						t.Error(err)
					}
				})
				moving.Go(func() {
					if n, err := drink(to, rand.New(rand.NewPCG(seed, 1)), 100_000, got); err != nil || n != total {
						t.Errorf("read %d bytes (%v), want %d", n, err, total)
					}
				})
				t.Cleanup(func() {
					if !bytes.Equal(sent.Sum(nil), got.Sum(nil)) {
						t.Error("what arrived isn't what was sent")
					}
				})
			}
			move(1, s.client, s.server)
			move(2, s.server, s.client)
			// Each side is looked at again and again for as long as there is a flow.
			look := time.NewTicker(time.Millisecond)
			defer look.Stop()
			var bulk [2]bool
			for over := false; !over && bulk != [2]bool{true, true}; <-look.C {
				s.flow.mu.Lock()
				bulk[0], bulk[1], over = bulk[0] || s.flow.client.bulk, bulk[1] || s.flow.server.bulk, s.flow.over
				s.flow.mu.Unlock()
			}
			if room == 0 && bulk != [2]bool{true, true} {
				t.Errorf("taken for bulk: %v", bulk)
			}
			moving.Wait()
			end := s.ended(t)
			end.ServerFirst = false // whichever was quicker
			if end != (End{ToServer: int64(total), ToClient: int64(total)}) {
				t.Errorf("ended as %+v", end)
			}
		})
	}
}

// TestSplicePipeKeepsNothing: what a socket doesn't take is given back in order, and the next bytes don't meet it.
func TestSplicePipeKeepsNothing(t *testing.T) {
	d := newSplicePipe()
	defer d.close()
	if d.in < 0 {
		t.Fatal("there is no pipe")
	}
	source, from := connected(t)
	defer source.Close()
	to, sink := connected(t)
	defer sink.Close()
	fds := [2]int{descriptor(t, from), descriptor(t, to)}
	defer Discard(fds[0])
	defer Discard(fds[1])
	must(t, unix.SetsockoptInt(fds[1], unix.SOL_SOCKET, unix.SO_SNDBUF, 4<<10))
	content := words(8 << 20)
	go func() { _, _ = source.Write(content) }()
	var scratch buffer
	var got []byte
	left := 0
	for end := time.Now().Add(patience); len(got) < 256<<10; {
		n, err := d.fill(fds[0])
		if err == unix.EAGAIN {
			if time.Now().After(end) {
				t.Fatalf("nothing more after %d bytes", len(got))
			}
			continue
		}
		if err != 0 || n == 0 {
			t.Fatalf("filled with %d bytes, %v", n, err)
		}
		taken, whole, err := d.pour(fds[1], n, scratch[:])
		if !whole || err != 0 && err != unix.EAGAIN {
			t.Fatal("bytes are missing")
		}
		p := make([]byte, taken)
		must(t, sink.SetReadDeadline(time.Now().Add(patience)))
		if _, err := io.ReadFull(sink, p); err != nil {
			t.Fatal(err)
		}
		got = append(append(got, p...), scratch[:n-taken]...)
		left += n - taken
	}
	if !bytes.Equal(got, content[:len(got)]) {
		t.Error("what came out isn't what went in")
	}
	if left == 0 {
		t.Error("the socket took everything: this tried nothing")
	}
}

// TestWhatCannotBeSpliced is copied from then on.
func TestWhatCannotBeSpliced(t *testing.T) {
	d := newSplicePipe()
	defer d.close()
	fd, err := unix.EpollCreate1(unix.EPOLL_CLOEXEC)
	must(t, err)
	defer Discard(fd)
	s := side{fd: fd, bulk: true}
	_, splices, errno := s.take(&tools{new(buffer), d})
	if splices || !s.copied || errno != syscall.ENOTSOCK {
		t.Errorf("splices %t, copied %t, %v", splices, s.copied, errno)
	}
}

// TestResetOfABulkReader: the kernel tells of a reset once, and be it to a splice; what it tells then ends the flow.
func TestResetOfABulkReader(t *testing.T) {
	for range 20 {
		s := set(t, nil, nil)
		go func() { _, _ = io.Copy(s.server, neverEnding{}) }()
		if _, err := io.CopyN(io.Discard, s.client, 4<<20); err != nil {
			t.Fatal(err)
		}
		s.leaveHard(t)
		// Where a splice has swallowed the reset, EPIPE is what is left of it.
		if end := s.ended(t); !errors.Is(end.Cause, syscall.ECONNRESET) && !errors.Is(end.Cause, syscall.EPIPE) || end.ServerBroke {
			t.Fatalf("ended as %+v", end)
		}
	}
}
