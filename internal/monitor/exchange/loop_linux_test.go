//go:build linux && !portable

package exchange

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"net/netip"
	"os"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// running runs a Loop until the test ends, when it has to have closed everything.
func running(t *testing.T) *Loop {
	t.Helper()
	l, err := New()
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		l.Run(ctx)
	}()
	t.Cleanup(func() {
		cancel()
		<-ended
		for fd, x := range l.byFD {
			if x != nil {
				t.Errorf("descriptor %d is left", fd)
			}
		}
	})
	return l
}

// serving has do serve each connection to the port that is given, and joins it all at the test's end.
func serving(t *testing.T, do func(conn *net.TCPConn)) netip.AddrPort {
	t.Helper()
	listener, err := net.ListenTCP("tcp", &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Fatal(err)
	}
	var serving sync.WaitGroup
	serving.Go(func() {
		for {
			conn, err := listener.AcceptTCP()
			switch {
			case errors.Is(err, syscall.EMFILE):
				continue
			case err != nil:
				return
			}
			serving.Go(func() {
				defer conn.Close()
				do(conn)
			})
		}
	})
	t.Cleanup(func() {
		listener.Close()
		serving.Wait()
	})
	return listener.Addr().(*net.TCPAddr).AddrPort()
}

// outcome is a Result that outlives its exchange.
type outcome struct {
	received  string
	connected bool
	socket    int
	err       error
}

// begin starts an exchange; what comes of it comes by the channel.
func begin(ctx context.Context, l *Loop, r Request) <-chan outcome {
	ended := make(chan outcome, 2)
	r.Done = func(r Result) { ended <- outcome{string(r.Received), r.Connected, r.Socket, r.Err} }
	l.Start(ctx, r)
	return ended
}

// line is a Request whose answer is whole with a newline.
func line(to netip.AddrPort) Request {
	return Request{To: to, Send: []byte("ask\n"), Within: 20 * time.Second, Most: 1 << 20, More: func(received []byte) int {
		if bytes.HasSuffix(received, []byte("\n")) {
			return 0
		}
		return 1
	}}
}

// asked reads the request.
func asked(conn net.Conn) {
	_, _ = io.ReadFull(conn, make([]byte, len("ask\n")))
}

func TestExchange(t *testing.T) {
	l := running(t)
	refusing, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	refusing.Close()
	closed := refusing.Addr().(*net.TCPAddr).AddrPort()
	large := strings.Repeat("x", 200_000)
	for _, test := range []struct {
		name string
		do   func(conn *net.TCPConn)
		// change changes the request.
		change    func(r *Request)
		received  string
		connected bool
		err       error
	}{
		{"at once", func(c *net.TCPConn) { asked(c); c.Write([]byte("yes\n")); io.Copy(io.Discard, c) }, nil, "yes\n", true, nil},
		{"before it was asked", func(c *net.TCPConn) { c.Write([]byte("yes\n")); io.Copy(io.Discard, c) }, nil, "yes\n", true, nil},
		{"ended by its end", func(c *net.TCPConn) { asked(c); c.Write([]byte("yes")) }, nil, "yes", true, io.EOF},
		{"no more wanted than the end", func(c *net.TCPConn) { asked(c); c.Write([]byte("ye")); c.Write([]byte("s\n")) },
			func(r *Request) { r.More = func([]byte) int { return UntilClosed } }, "yes\n", true, io.EOF},
		{"large", func(c *net.TCPConn) { asked(c); io.WriteString(c, large+"\n"); io.Copy(io.Discard, c) }, nil, large + "\n", true, nil},
		{"more than the bound", func(c *net.TCPConn) { asked(c); io.WriteString(c, large) }, func(r *Request) { r.Most = 100_000 }, large[:100_000], true, nil},
		{"closed", func(c *net.TCPConn) { asked(c) }, nil, "", true, io.EOF},
		{"reset", func(c *net.TCPConn) { asked(c); c.SetLinger(0) }, nil, "", true, syscall.ECONNRESET},
		{"reset half way", func(c *net.TCPConn) {
			asked(c)
			c.Write([]byte("ye"))
			c.SetLinger(0)
		}, nil, "ye", true, syscall.ECONNRESET},
		{"silent", func(c *net.TCPConn) { io.Copy(io.Discard, c) }, func(r *Request) { r.Within = 50 * time.Millisecond }, "", true, context.DeadlineExceeded},
		{"half", func(c *net.TCPConn) { asked(c); c.Write([]byte("ye")); io.Copy(io.Discard, c) }, func(r *Request) { r.Within = 200 * time.Millisecond }, "ye", true, context.DeadlineExceeded},
		{"refused", nil, func(r *Request) { r.To = closed }, "", false, syscall.ECONNREFUSED},
	} {
		t.Run(test.name, func(t *testing.T) {
			r := line(closed)
			if test.do != nil {
				r = line(serving(t, test.do))
			}
			if test.change != nil {
				test.change(&r)
			}
			got := <-begin(t.Context(), l, r)
			// What a reset leaves of what was sent before it is up to the kernel.
			if test.name == "reset half way" && got.received == "" {
				got.received = test.received
			}
			if got.received != test.received || got.connected != test.connected || !errors.Is(got.err, test.err) || (got.err == nil) != (test.err == nil) || got.socket != -1 {
				t.Errorf("%.50q of %d bytes, connected %t, %v, socket %d", got.received, len(got.received), got.connected, got.err, got.socket)
			}
		})
	}
}

// An answer in pieces is put together, however long each lets itself be awaited.
func TestPieces(t *testing.T) {
	l := running(t)
	next := make(chan string)
	to := serving(t, func(c *net.TCPConn) {
		asked(c)
		for piece := range next {
			io.WriteString(c, piece)
		}
	})
	seen := make(chan int, 10)
	r := line(to)
	whole := r.More
	r.More = func(received []byte) int {
		seen <- len(received)
		return whole(received)
	}
	ended := begin(t.Context(), l, r)
	n := 0
	for _, piece := range []string{"a", "bc", "d\n"} {
		next <- piece
		n += len(piece)
		if got := <-seen; got != n {
			t.Errorf("%d bytes, want %d", got, n)
		}
	}
	if got := <-ended; got.received != "abcd\n" || got.err != nil {
		t.Errorf("%+v", got)
	}
	close(next)
}

// full gives an address whose listener's backlog is full: the kernel drops further attempts.
func full(t *testing.T) netip.AddrPort {
	t.Helper()
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { unix.Close(fd) })
	if err := errors.Join(unix.Bind(fd, &unix.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}}), unix.Listen(fd, 0)); err != nil {
		t.Fatal(err)
	}
	name, err := unix.Getsockname(fd)
	if err != nil {
		t.Fatal(err)
	}
	to := netip.AddrPortFrom(netip.AddrFrom4([4]byte{127, 0, 0, 1}), uint16(name.(*unix.SockaddrInet4).Port))
	for {
		conn, err := net.DialTimeout("tcp", to.String(), 100*time.Millisecond)
		if err != nil {
			return to
		}
		t.Cleanup(func() { conn.Close() })
	}
}

func TestBacklogFull(t *testing.T) {
	l := running(t)
	r := line(full(t))
	r.Connect = 50 * time.Millisecond
	var connecting *net.OpError
	if got := <-begin(t.Context(), l, r); got.connected || !errors.Is(got.err, os.ErrDeadlineExceeded) || !errors.As(got.err, &connecting) || !connecting.Timeout() {
		t.Errorf("%+v", got)
	}
	r.Connect, r.Within = 0, 50*time.Millisecond
	if got := <-begin(t.Context(), l, r); got.connected || got.err != context.DeadlineExceeded {
		t.Errorf("%+v", got)
	}
}

// Whatever an exchange waits for, the end of its context ends it, and no other.
func TestCancel(t *testing.T) {
	l := running(t)
	taken := make(chan struct{}, 8)
	silent := serving(t, func(c *net.TCPConn) { taken <- struct{}{}; io.Copy(io.Discard, c) })
	half := serving(t, func(c *net.TCPConn) { asked(c); c.Write([]byte("ye")); io.Copy(io.Discard, c) })
	other := begin(t.Context(), l, line(silent))
	<-taken
	got := make(chan struct{}, 1)
	partly := line(half)
	partly.More = func([]byte) int { got <- struct{}{}; return 1 }
	for _, test := range []struct {
		name    string
		request Request
		until   <-chan struct{}
	}{
		{"connecting", line(full(t)), nil},
		{"awaiting an answer", line(silent), taken},
		{"in the middle of one", partly, got},
	} {
		ctx, cancel := context.WithCancel(t.Context())
		ended := begin(ctx, l, test.request)
		if test.until != nil {
			<-test.until
		}
		cancel()
		l.Sweep()
		if got := <-ended; got.err != context.Canceled {
			t.Errorf("%s: %+v", test.name, got)
		}
		if got := <-begin(ctx, l, test.request); got.err != context.Canceled {
			t.Errorf("%s: begun afterwards: %+v", test.name, got)
		}
	}
	select {
	case got := <-other:
		t.Errorf("another ended: %+v", got)
	default:
	}
}

// With the loop all exchanges end, those among them that come afterwards, and nothing stays open.
func TestEnd(t *testing.T) {
	to := serving(t, func(c *net.TCPConn) { io.Copy(io.Discard, c) })
	before := descriptors(t)
	l, err := New()
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	var all []<-chan outcome
	for range 10 {
		all = append(all, begin(t.Context(), l, line(to)))
	}
	ended := make(chan struct{})
	go func() { defer close(ended); l.Run(ctx) }()
	for beats := l.Beats(); l.Beats() < beats+2; {
		all = append(all, begin(t.Context(), l, line(to)))
	}
	cancel()
	<-ended
	all = append(all, begin(t.Context(), l, line(to)))
	for _, one := range all {
		if got := <-one; got.err != context.Canceled {
			t.Errorf("%+v", got)
		}
	}
	l.Sweep()
	until(t, "descriptors are closed", func() bool { return descriptors(t) <= before })
}

// descriptors counts those that are open.
func descriptors(t *testing.T) int {
	t.Helper()
	all, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	return len(all)
}

// until waits for what other goroutines do to become true.
func until(t *testing.T, what string, is func() bool) {
	t.Helper()
	again := time.NewTicker(time.Millisecond)
	defer again.Stop()
	for limit := time.Now().Add(20 * time.Second); !is(); <-again.C {
		if time.Now().After(limit) {
			t.Fatalf("not so: %s", what)
		}
	}
}

func TestManyAtOnce(t *testing.T) {
	l := running(t)
	const many = 2000
	to := serving(t, func(c *net.TCPConn) { asked(c); c.Write([]byte("yes\n")) })
	before := descriptors(t)
	var done sync.WaitGroup
	done.Add(many)
	results := make(chan string, many)
	for range many {
		r := line(to)
		r.Done = func(r Result) {
			defer done.Done()
			if r.Err != nil {
				results <- r.Err.Error()
				return
			}
			results <- string(r.Received)
		}
		l.Start(t.Context(), r)
	}
	done.Wait()
	for range many {
		if got := <-results; got != "yes\n" {
			t.Fatalf("an answer is %q", got)
		}
	}
	until(t, "descriptors are closed", func() bool { return descriptors(t) <= before })
}

// Without a descriptor an exchange fails with what says so.
func TestNoDescriptor(t *testing.T) {
	l := running(t)
	to := serving(t, func(c *net.TCPConn) { asked(c); c.Write([]byte("yes\n")) })
	var limit unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &limit); err != nil {
		t.Fatal(err)
	}
	if err := unix.Setrlimit(unix.RLIMIT_NOFILE, &unix.Rlimit{Cur: 0, Max: limit.Max}); err != nil {
		t.Fatal(err)
	}
	got := <-begin(t.Context(), l, line(to))
	if err := unix.Setrlimit(unix.RLIMIT_NOFILE, &limit); err != nil {
		t.Fatal(err)
	}
	if got.connected || !errors.Is(got.err, syscall.EMFILE) {
		t.Errorf("%+v", got)
	}
	if got := <-begin(t.Context(), l, line(to)); got.err != nil {
		t.Errorf("afterwards: %+v", got)
	}
}

// A socket that is kept is its receiver's.
func TestKeep(t *testing.T) {
	l := running(t)
	to := serving(t, func(c *net.TCPConn) { asked(c); c.Write([]byte("yes\nmore")); asked(c); c.Write([]byte("!")) })
	r := line(to)
	r.Most = len("yes\n")
	r.Keep = func(received []byte) bool { return string(received) == "yes\n" }
	got := <-begin(t.Context(), l, r)
	if got.socket < 0 {
		t.Fatalf("%+v", got)
	}
	file := os.NewFile(uintptr(got.socket), "kept")
	conn, err := net.FileConn(file)
	file.Close()
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	conn.Write([]byte("ask\n"))
	if rest, err := io.ReadAll(conn); string(rest) != "more!" || err != nil {
		t.Errorf("%q, %v", rest, err)
	}
}

// A late answer has the kernel look for the host; one that is there in time is spared that.
func TestKeepalive(t *testing.T) {
	l := running(t)
	release := make(chan struct{})
	to := serving(t, func(c *net.TCPConn) { asked(c); <-release; c.Write([]byte("yes\n")); io.Copy(io.Discard, c) })
	r := line(to)
	r.Keepalive, r.Keep = true, func([]byte) bool { return true }
	ended := begin(t.Context(), l, r)
	release <- struct{}{}
	fd := (<-ended).socket
	defer unix.Close(fd)
	if on, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_KEEPALIVE); on != 0 || err != nil {
		t.Errorf("an answer in time: %d, %v", on, err)
	}
	ended = begin(t.Context(), l, r)
	<-time.After(patience + 200*time.Millisecond)
	release <- struct{}{}
	fd = (<-ended).socket
	defer unix.Close(fd)
	for _, want := range []struct{ level, option, value int }{
		{unix.SOL_SOCKET, unix.SO_KEEPALIVE, 1}, {unix.IPPROTO_TCP, unix.TCP_KEEPIDLE, 2}, {unix.IPPROTO_TCP, unix.TCP_KEEPINTVL, 1}, {unix.IPPROTO_TCP, unix.TCP_KEEPCNT, 3},
	} {
		if got, err := unix.GetsockoptInt(fd, want.level, want.option); got != want.value || err != nil {
			t.Errorf("option %d is %d, want %d (%v)", want.option, got, want.value, err)
		}
	}
}

// A loop that nothing happens to goes round each BeatGap, and one that sleeps wakes up for what comes.
func TestSleepAndWake(t *testing.T) {
	l := running(t)
	to := serving(t, func(c *net.TCPConn) { asked(c); c.Write([]byte("yes\n")) })
	asleep := func() bool {
		l.mu.Lock()
		defer l.mu.Unlock()
		return l.asleep
	}
	for range 3 {
		until(t, "it sleeps", asleep)
		if got := <-begin(t.Context(), l, line(to)); got.err != nil {
			t.Errorf("%+v", got)
		}
	}
	beats := l.Beats()
	until(t, "it beats", func() bool { return l.Beats() > beats+1 })
}
