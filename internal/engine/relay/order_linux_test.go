package relay

import (
	"bytes"
	"fmt"
	"io"
	"net"
	"runtime"
	"strconv"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// TestEndsInAnyOrder has both sides send and end their streams in every order that there is, with whoever reads doing so at
// once or only when all has been said.
func TestEndsInAnyOrder(t *testing.T) {
	// More is sent than a relay holds.
	const toServer, toClient = 150_000, 200_000
	forServer, forClient := words(toServer), words(toClient)
	// Small letters are the client's: s sends, e ends the stream.
	for _, order := range []string{"seSE", "sSeE", "sSEe", "SseE", "SsEe", "SEse"} {
		for _, late := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s, read late %t", order, late), func(t *testing.T) {
				t.Parallel()
				s := set(t, nil, nil)
				var reading sync.WaitGroup
				read := func(from *net.TCPConn, want []byte) {
					reading.Go(func() {
						got, err := io.ReadAll(from)
						if err != nil || !bytes.Equal(got, want) {
							t.Errorf("read %d bytes (%v), want %d", len(got), err, len(want))
						}
					})
				}
				reads := func() {
					read(s.client, forClient)
					read(s.server, forServer)
				}
				if !late {
					reads()
				}
				for _, step := range order {
					side, what := s.client, forServer
					if step == 'S' || step == 'E' {
						side, what = s.server, forClient
					}
					if step == 's' || step == 'S' {
						_, err := side.Write(what)
						must(t, err)
						continue
					}
					must(t, side.CloseWrite())
				}
				if late {
					reads()
				}
				reading.Wait()
				end := s.ended(t)
				end.ServerFirst = false // whichever was quicker
				if end != (End{ToServer: toServer, ToClient: toClient}) {
					t.Errorf("ended as %+v", end)
				}
			})
		}
	}
}

// words are bytes of which each tells its place.
func words(size int) []byte {
	p := make([]byte, 0, size+16)
	for i := 0; len(p) < size; i++ {
		p = append(strconv.AppendInt(p, int64(i), 10), ',')
	}
	return p[:size]
}

// A side that has ended its stream may still reset, or be reset: the other one is told of it.
func TestResetAfterAnEnd(t *testing.T) {
	for _, who := range []string{"client", "server"} {
		t.Run(who, func(t *testing.T) {
			s := set(t, nil, nil)
			a, b := s.client, s.server
			if who == "server" {
				a, b = b, a
			}
			say(t, a, "question")
			must(t, a.CloseWrite())
			expect(t, b, "question")
			expectEnd(t, b, io.EOF)
			say(t, b, "the answer begins")
			expect(t, a, "the answer begins")
			// It goes without having read all: its kernel answers what still comes with a reset.
			must(t, a.Close())
			_, err := io.Copy(b, neverEnding{})
			if err == nil {
				t.Fatal("wrote without an end to a side that is gone")
			}
			if end := s.ended(t); end.Cause == nil {
				t.Error("ended in order")
			}
		})
	}
}

// A side that closes with bytes unread resets the connection, whoever it is: the other one isn't told of an end in order.
func TestCloseWithUnreadBytesIsPassedOnAsReset(t *testing.T) {
	for _, who := range []string{"client", "server"} {
		t.Run(who, func(t *testing.T) {
			s := set(t, nil, nil)
			a, b := s.client, s.server
			if who == "server" {
				a, b = b, a
			}
			say(t, b, "never read")
			for deadline := time.Now().Add(patience); unread(a) == 0; runtime.Gosched() {
				if time.Now().After(deadline) {
					t.Fatal("nothing comes")
				}
			}
			must(t, a.Close())
			expectEnd(t, b, syscall.ECONNRESET)
			if end := s.ended(t); end.Cause == nil {
				t.Error("ended in order")
			}
		})
	}
}

// unread gives how many bytes wait in a peer's own kernel.
func unread(conn *net.TCPConn) (n int) {
	raw, err := conn.SyscallConn()
	if err == nil {
		_ = raw.Control(func(fd uintptr) { n, _ = unix.IoctlGetInt(int(fd), unix.TIOCINQ) })
	}
	return n
}
