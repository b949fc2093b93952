//go:build linux && !portable

package relay

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/pgporter/pgporter/lab/sandbox/netns"
)

// TestPeersThatAreGone is about those who don't say so, or say so behind bytes that nobody reads. Keepalive finds a lost peer
// within three seconds here, and a stalled server is waited for as long.
func TestPeersThatAreGone(t *testing.T) {
	idle, interval, count, limit := keepAliveIdle, keepAliveInterval, keepAliveCount, abandonLimit
	keepAliveIdle, keepAliveInterval, keepAliveCount, abandonLimit = time.Second, time.Second, 2, 3*time.Second
	t.Cleanup(func() { keepAliveIdle, keepAliveInterval, keepAliveCount, abandonLimit = idle, interval, count, limit })
	for _, test := range []struct {
		name string
		run  func(*testing.T)
	}{
		{"a peer that vanishes without a word", peerThatVanishes},
		{"a client that resets behind a stalled server", func(t *testing.T) {
			clientThatBreaks(t, func(t *testing.T, s *stage) { s.leaveHard(t) })
		}},
		{"a client that resets while the server writes", func(t *testing.T) {
			clientThatBreaks(t, func(t *testing.T, s *stage) {
				_, err := s.server.Write(make([]byte, 100))
				must(t, err)
				s.leaveHard(t)
				_, err = s.server.Write(make([]byte, 100))
				must(t, err)
			})
		}},
		{"a client that resets with bytes of the server's unread", func(t *testing.T) {
			clientThatBreaks(t, func(t *testing.T, s *stage) {
				stall(t, s.server, &s.flow.client)
				s.leaveHard(t)
			})
		}},
		{"a client that closes behind a stalled server", clientThatCloses},
		{"a client that ends its stream behind a stalled server", clientThatEndsItsStream},
		{"a client that resets behind a slow server", clientBehindASlowServer},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			test.run(t)
		})
	}
}

func TestOptionsOfBothSockets(t *testing.T) {
	_, ours := connected(t)
	theirs, _ := connected(t)
	pair := Pair{Client: descriptor(t, ours), Server: descriptor(t, theirs)}
	var r Relay
	flow := r.Start(pair, nil)
	for side, fd := range map[string]int{"client": pair.Client, "server": pair.Server} {
		for _, option := range []struct {
			name               string
			level, which, want int
		}{
			{"SO_KEEPALIVE", unix.SOL_SOCKET, unix.SO_KEEPALIVE, 1},
			{"TCP_KEEPIDLE", unix.IPPROTO_TCP, unix.TCP_KEEPIDLE, 60},
			{"TCP_KEEPINTVL", unix.IPPROTO_TCP, unix.TCP_KEEPINTVL, 10},
			{"TCP_KEEPCNT", unix.IPPROTO_TCP, unix.TCP_KEEPCNT, 6},
			{"TCP_NODELAY", unix.IPPROTO_TCP, unix.TCP_NODELAY, 1},
			// A reader who takes his time for longer isn't to be cut.
			{"TCP_USER_TIMEOUT", unix.IPPROTO_TCP, unix.TCP_USER_TIMEOUT, 0},
		} {
			if got, err := unix.GetsockoptInt(fd, option.level, option.which); err != nil || got != option.want {
				t.Errorf("%s of the %s: %d (%v), want %d", option.name, side, got, err, option.want)
			}
		}
	}
	flow.Abort(errors.New("enough"))
	flow.Wait()
	r.Close()
}

// peerThatVanishes pulls the cable of a machine that has a client of one flow and the server of another.
func peerThatVanishes(t *testing.T) {
	if err := netns.Supported(); err != nil {
		t.Skipf("NOT TESTED: a peer that vanishes without a word: %v", err)
	}
	l := netns.LAN{Name: fmt.Sprintf("relaytest%d", os.Getpid())}
	for i, name := range []string{"porter", "far"} {
		l.Nodes = append(l.Nodes, netns.Node{Name: name, Address: netip.PrefixFrom(netip.AddrFrom4([4]byte{10, 10, 10, byte(11 + i)}), 24)})
	}
	t.Cleanup(func() { must(t, netns.Remove(l.Name)) })
	must(t, l.Up())

	// over is a connection from the node far to the node porter.
	over := func() (far, affinity *net.TCPConn) {
		var listener net.Listener
		must(t, l.Do("porter", func() (err error) {
			listener, err = net.Listen("tcp4", "10.10.10.11:0")
			return err
		}))
		defer listener.Close()
		ctx, cancel := context.WithTimeout(t.Context(), patience)
		defer cancel()
		conn, err := l.Dial(ctx, "far", "tcp4", listener.Addr().String())
		must(t, err)
		accepted, err := listener.Accept()
		must(t, err)
		t.Cleanup(func() { _ = conn.Close() })
		return conn.(*net.TCPConn), accepted.(*net.TCPConn)
	}
	farClient, ours := over()
	theirs, server := connected(t)
	client, oursToo := connected(t)
	farServer, theirsToo := over()
	ends := make(chan End, 2)
	end := func(e End) { ends <- e }
	var r Relay
	defer r.Close()
	flows := []*Flow{
		r.Start(Pair{Client: descriptor(t, ours), Server: descriptor(t, theirs)}, end),
		r.Start(Pair{Client: descriptor(t, oursToo), Server: descriptor(t, theirsToo)}, end),
	}
	for _, pair := range [][2]*net.TCPConn{{farClient, server}, {client, farServer}} {
		for _, conn := range pair {
			must(t, conn.SetDeadline(time.Now().Add(patience)))
		}
		say(t, pair[0], "ping")
		expect(t, pair[1], "ping")
		say(t, pair[1], "pong")
		expect(t, pair[0], "pong")
	}
	must(t, l.Unplug("far"))
	// Whoever is left is told that the stream was cut.
	expectEnd(t, server, syscall.ECONNRESET)
	expectEnd(t, client, syscall.ECONNRESET)
	for _, flow := range flows {
		flow.Wait()
	}
	for range flows {
		if e := <-ends; e.Cause == nil || e.ToServer != 4 || e.ToClient != 4 {
			t.Errorf("ended as %+v", e)
		}
	}
}

// stalled starts a flow whose server reads nothing, and has the client send until nothing goes on. It gives how much the
// client has written.
func stalled(t *testing.T) (*stage, int64) {
	t.Helper()
	s := set(t, nil, nil)
	return s, stall(t, s.client, &s.flow.server)
}

func (s *stage) leaveHard(t *testing.T) {
	t.Helper()
	must(t, s.client.SetLinger(0))
	must(t, s.client.Close())
}

// clientThatBreaks: it is found although nothing is read from it, and doesn't hold the server.
func clientThatBreaks(t *testing.T, leave func(*testing.T, *stage)) {
	s, written := stalled(t)
	leave(t, s)
	end := s.ended(t)
	if end.Cause == nil || !strings.HasPrefix(end.Cause.Error(), "client: ") || end.ServerBroke || end.ToServer > written {
		t.Errorf("ended as %+v", end)
	}
	// The server finds a part of the stream and no end in order.
	if got, err := io.Copy(io.Discard, s.server); !errors.Is(err, syscall.ECONNRESET) || got > end.ToServer {
		t.Errorf("the server read %d bytes (%v), %d were brought to it", got, err, end.ToServer)
	}
}

// clientThatCloses behind bytes that nobody has read can't be told from one that waits for an answer, until its kernel knows
// nothing more of the connection and says so to a probe.
func clientThatCloses(t *testing.T) {
	client, ours := connected(t)
	theirs, server := connected(t)
	t.Cleanup(func() { _ = server.Close() })
	must(t, server.SetDeadline(time.Now().Add(patience)))
	// What is pending for the server is more than its socket takes.
	fd := descriptor(t, theirs)
	must(t, unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_SNDBUF, 4096))
	ends := make(chan End, 1)
	var r Relay
	defer r.Close()
	flow := r.Start(Pair{Client: descriptor(t, ours), Server: fd, ToServer: make([]byte, 8<<20)}, func(e End) { ends <- e })
	say(t, client, "unread")
	raw, err := client.SyscallConn()
	must(t, err)
	// How long the kernel remembers a connection that was closed and whose other end wasn't (tcp(7)).
	must(t, raw.Control(func(fd uintptr) { err = unix.SetsockoptInt(int(fd), unix.IPPROTO_TCP, unix.TCP_LINGER2, 1) }))
	must(t, err)
	must(t, client.Close())
	flow.Wait()
	if e := <-ends; e.Cause == nil || !strings.HasPrefix(e.Cause.Error(), "client: ") {
		t.Errorf("ended as %+v", e)
	}
}

// clientThatEndsItsStream behind unread bytes waits for the answer, for as long as it takes.
func clientThatEndsItsStream(t *testing.T) {
	s, written := stalled(t)
	must(t, s.client.CloseWrite())
	select {
	case <-s.flow.Done():
		t.Fatal("the flow ended while the client waits for an answer")
	case <-time.After(2 * abandonLimit):
	}
	if got, err := io.Copy(io.Discard, s.server); got != written || err != nil {
		t.Fatalf("the server read %d bytes (%v), want %d", got, err, written)
	}
	say(t, s.server, "the answer")
	must(t, s.server.CloseWrite())
	expect(t, s.client, "the answer")
	expectEnd(t, s.client, io.EOF)
	if end := s.ended(t); end.Cause != nil {
		t.Errorf("cause %v", end.Cause)
	}
}

// clientBehindASlowServer: what it has left is brought to a server that goes on, for longer than a stalled one is waited for.
func clientBehindASlowServer(t *testing.T) {
	client, ours := connected(t)
	theirs, server := connected(t)
	t.Cleanup(func() { _ = server.Close() })
	// Little is in the sockets on the server's side, so that the rest waits for the relay.
	must(t, server.SetReadBuffer(64<<10))
	must(t, theirs.SetWriteBuffer(64<<10))
	must(t, server.SetDeadline(time.Now().Add(3*patience)))
	ends := make(chan End, 1)
	flow := relay.Start(Pair{Client: descriptor(t, ours), Server: descriptor(t, theirs)}, func(e End) { ends <- e })
	// At first the server reads, so that the kernel gives the client's side more and more room.
	const first = 8 << 20
	read := make(chan error, 1)
	go func() {
		_, err := io.CopyN(io.Discard, server, first)
		read <- err
	}()
	// The client sends for as long as that takes, and then until nothing goes on.
	var written int64
	for stopped := false; ; {
		must(t, client.SetWriteDeadline(time.Now().Add(500*time.Millisecond)))
		n, err := io.Copy(client, neverEnding{})
		written += n
		if !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Fatalf("wrote %d bytes to a server that doesn't read: %v", written, err)
		}
		if stopped {
			break
		}
		select {
		case err := <-read:
			must(t, err)
			stopped = true
		default:
		}
	}
	// A reset drops what the client's own kernel still has.
	left := written - int64(waiting(client))
	must(t, client.SetLinger(0))
	must(t, client.Close())
	began, got := time.Now(), int64(first)
	const often = 20 * time.Millisecond
	tick := time.NewTicker(often)
	defer tick.Stop()
	// It takes twice the time for which a stalled one is waited for.
	buffer := make([]byte, max(1<<10, (left-first)/int64(2*abandonLimit/often)))
	for {
		<-tick.C
		n, err := io.ReadFull(server, buffer)
		got += int64(n)
		if errors.Is(err, syscall.ECONNRESET) {
			break
		}
		must(t, err)
	}
	took := time.Since(began)
	flow.Wait()
	end := <-ends
	if end.ToServer < left || got > end.ToServer || took < abandonLimit {
		t.Errorf("%d bytes were brought to the server and %d read by it in %s, the client had brought %d of %d to the relay", end.ToServer, got, took, left, written)
	}
	if !errors.Is(end.Cause, syscall.ECONNRESET) || !strings.HasPrefix(end.Cause.Error(), "client: ") {
		t.Errorf("ended as %+v", end)
	}
}
