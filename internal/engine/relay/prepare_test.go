//go:build linux && !portable

package relay

import (
	"errors"
	"io"
	"net"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// TestPreparedFlow connects two sockets by what a flow tells of them, and then has it move their bytes.
func TestPreparedFlow(t *testing.T) {
	client, ours := connected(t)
	theirs, server := connected(t)
	for _, peer := range []*net.TCPConn{client, server} {
		must(t, peer.SetDeadline(time.Now().Add(patience)))
		defer peer.Close()
	}
	pair := Pair{Client: descriptor(t, ours), Server: descriptor(t, theirs)}
	told := map[bool]chan struct{}{false: make(chan struct{}, 100), true: make(chan struct{}, 100)}
	flow, err := relay.Prepare(nil, func(server bool) { told[server] <- struct{}{} })
	must(t, err)
	hears := func(server bool, want string) {
		t.Helper()
		got := make([]byte, 100)
		for timeout := time.After(patience); ; {
			n, err := Receive(map[bool]int{false: pair.Client, true: pair.Server}[server], got)
			if err == nil && string(got[:n]) == want {
				return
			}
			if err != unix.EAGAIN {
				t.Fatalf("read %q (%v), want %q", got[:n], err, want)
			}
			select {
			case <-told[server]:
			case <-timeout:
				t.Fatalf("never told of %q", want)
			}
		}
	}
	must(t, flow.AwaitClient(pair.Client))
	say(t, client, "hello")
	hears(false, "hello")
	must(t, flow.AwaitServer(pair.Server))
	say(t, server, "welcome")
	hears(true, "welcome")

	// What has come before the flow begins is moved by it.
	say(t, client, "before, ")
	pair.ToClient, pair.SentToServer = []byte("first, "), 5
	ends := make(chan End, 1)
	flow.Begin(pair, func(end End) { ends <- end })
	say(t, client, "after")
	expect(t, server, "before, after")
	say(t, server, "second")
	expect(t, client, "first, second")
	must(t, client.CloseWrite())
	expectEnd(t, server, io.EOF)
	must(t, server.CloseWrite())
	expectEnd(t, client, io.EOF)
	flow.Wait()
	if end := <-ends; end.Cause != nil || end.ToServer != 5+13 || end.ToClient != 13 {
		t.Errorf("end %+v", end)
	}
}

// Whoever has a flow ended, or wants it back, while it is being prepared is heard when it begins.
func TestForestalledFlow(t *testing.T) {
	for name, forestall := range map[string]func(*Flow) error{
		"aborted": func(f *Flow) error {
			cause := errors.New("too late")
			f.Abort(cause)
			f.Abort(errors.New("the first one counts"))
			return cause
		},
		"detached": func(f *Flow) error {
			if pair, still := f.Detach(); still {
				t.Errorf("it gave %+v", pair)
			}
			return errDetached
		},
	} {
		t.Run(name, func(t *testing.T) {
			var own Relay
			flow, err := own.Prepare(nil, func(bool) {})
			must(t, err)
			client, ours := connected(t)
			defer client.Close()
			server, theirs := connected(t)
			defer server.Close()
			fd := descriptor(t, theirs)
			must(t, flow.AwaitServer(fd))
			cause := forestall(flow)
			ends := make(chan End, 1)
			flow.Begin(Pair{Client: descriptor(t, ours), Server: fd, ToClient: []byte("welcome")}, func(end End) { ends <- end })
			expect(t, client, "welcome")
			expectEnd(t, client, io.EOF)
			if end := <-ends; end.Cause != cause || end.ToClient != 7 {
				t.Errorf("end %+v", end)
			}
			own.Close()
		})
	}
}

func TestDroppedFlowLeavesItsSockets(t *testing.T) {
	client, ours := connected(t)
	defer client.Close()
	fd := descriptor(t, ours)
	defer Discard(fd)
	var own Relay
	flow, err := own.Prepare(nil, func(bool) { t.Error("told of something after the end") })
	must(t, err)
	must(t, flow.AwaitClient(fd))
	// The socket takes bytes, which it may have told of by now; that goes nowhere.
	flow.mu.Lock()
	flow.happened = func(bool) {}
	flow.mu.Unlock()
	flow.Drop()
	// It would wait for a flow that hasn't left.
	own.Close()
	if n, err := Send(fd, []byte("still here")); n != 10 || err != nil {
		t.Fatalf("wrote %d bytes, %v", n, err)
	}
	expect(t, client, "still here")
}

// A loop that has parked hears of the next event, whether it comes while it looks out or not.
func TestLoopThatIsParked(t *testing.T) {
	s := set(t, nil, nil)
	for range 20 {
		say(t, s.client, "ping")
		expect(t, s.server, "ping")
		parked(t, s.flow.loop)
		say(t, s.server, "pong")
		expect(t, s.client, "pong")
	}
}

// parked waits until the loop's epoll is in the one that the runtime waits for.
func parked(t *testing.T, l *loop) {
	t.Helper()
	for deadline := time.Now().Add(patience); ; {
		// Putting it there a second time is an error.
		err := unix.EpollCtl(l.outer, unix.EPOLL_CTL_MOD, l.epoll, &unix.EpollEvent{Events: unix.EPOLLIN})
		if err == nil {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("the loop never parks: %v", err)
		}
	}
}

func TestAcceptedSocketsHaveAFlowsOptions(t *testing.T) {
	l, err := net.Listen("tcp", address)
	must(t, err)
	defer l.Close()
	raw, err := l.(*net.TCPListener).SyscallConn()
	must(t, err)
	must(t, raw.Control(func(fd uintptr) { PrepareListener(int(fd)); PrepareListener(int(fd)) }))
	client, err := net.Dial("tcp", l.Addr().String())
	must(t, err)
	defer client.Close()
	var accepted int
	must(t, raw.Control(func(fd uintptr) {
		for accepted, _, err = syscall.Accept(int(fd)); err == syscall.EAGAIN; accepted, _, err = syscall.Accept(int(fd)) {
		}
	}))
	must(t, err)
	defer syscall.Close(accepted)
	prepared, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	must(t, err)
	defer syscall.Close(prepared)
	prepare(prepared)
	for name, o := range map[string]struct{ level, option, want int }{
		"TCP_NODELAY":   {unix.IPPROTO_TCP, unix.TCP_NODELAY, 1},
		"SO_KEEPALIVE":  {unix.SOL_SOCKET, unix.SO_KEEPALIVE, 1},
		"TCP_KEEPIDLE":  {unix.IPPROTO_TCP, unix.TCP_KEEPIDLE, 60},
		"TCP_KEEPINTVL": {unix.IPPROTO_TCP, unix.TCP_KEEPINTVL, 10},
		"TCP_KEEPCNT":   {unix.IPPROTO_TCP, unix.TCP_KEEPCNT, 6},
	} {
		for who, fd := range map[string]int{"accepted": accepted, "prepared": prepared} {
			got, err := unix.GetsockoptInt(fd, o.level, o.option)
			if err != nil || got != o.want {
				t.Errorf("%s socket: %s is %d (%v), want %d", who, name, got, err, o.want)
			}
		}
	}
}
