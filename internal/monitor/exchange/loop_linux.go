//go:build linux && !portable

package exchange

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"
)

const (
	// nap is between two rounds while there is something to do. It is what an answer may come later for it, each time that there is
	// something to wait for.
	nap = 2 * time.Millisecond
	// patience is how long an answer may take before it is looked whether the host is there: most are there long before, and are
	// spared the system calls.
	patience = time.Second
	// firstRoom and lastRoom are what is kept of buffers: Patroni's answers are some hundred bytes.
	firstRoom, lastRoom = 2 << 10, 16 << 10
	// spares bounds how many ended exchanges are kept for further ones.
	spares = 256
)

// Loop does exchanges. Run has to be called, once.
type Loop struct {
	epoll int
	// wake is an eventfd(2) that ends epoll_wait(2).
	wake  int
	beats atomic.Uint64

	mu sync.Mutex
	// asked are exchanges that the loop hasn't begun. asleep says that it has to be woken for them, swept that contexts may have ended,
	// closed that Run has returned, because of ended.
	asked         []*exchange
	asleep, swept bool
	closed        bool
	ended         error
	spare         []*exchange

	// live are the exchanges under way; byFD finds them by their sockets. begun counts all that there were.
	live  []*exchange
	byFD  []*exchange
	begun int32
	// look is when live is to be looked through for what is overdue.
	look time.Time
}

// exchange is one under way.
type exchange struct {
	Request
	ctx context.Context
	// deadline ends it, look is when it is to be looked at again: then, or when the connection or the answer is late.
	deadline, look time.Time
	fd             int
	// id tells events of its socket from those of another that had the same descriptor.
	id int32
	// index is its place in live.
	index     int
	connected bool
	sent      int
	received  []byte
	// enough is how many bytes have to be there before More is asked again.
	enough int
}

// New makes a Loop.
func New() (*Loop, error) {
	epoll, err := unix.EpollCreate1(unix.EPOLL_CLOEXEC)
	if err != nil {
		return nil, fmt.Errorf("epoll: %w", err)
	}
	wake, err := unix.Eventfd(0, unix.EFD_CLOEXEC|unix.EFD_NONBLOCK)
	if err == nil {
		// Edge-triggered, it needs no read.
		err = unix.EpollCtl(epoll, unix.EPOLL_CTL_ADD, wake, &unix.EpollEvent{Events: unix.EPOLLIN | unix.EPOLLET, Fd: int32(wake)})
	}
	if err != nil {
		_ = unix.Close(epoll)
		if wake >= 0 {
			_ = unix.Close(wake)
		}
		return nil, fmt.Errorf("epoll: %w", err)
	}
	return &Loop{epoll: epoll, wake: wake}, nil
}

// Beats counts the times that the loop has gone round, which it does each BeatGap at least.
func (l *Loop) Beats() uint64 { return l.beats.Load() }

// Start begins an exchange. It doesn't block; Done is called however it ends, also if Run has returned. That ctx has ended is
// noticed within BeatGap, and at once by Sweep.
func (l *Loop) Start(ctx context.Context, r Request) {
	now := time.Now()
	l.mu.Lock()
	if l.closed {
		l.mu.Unlock()
		r.Done(Result{Socket: -1, Err: l.ended})
		return
	}
	var x *exchange
	if n := len(l.spare); n > 0 {
		x, l.spare = l.spare[n-1], l.spare[:n-1]
	} else {
		x = &exchange{received: make([]byte, 0, firstRoom)}
	}
	*x = exchange{Request: r, ctx: ctx, deadline: now.Add(r.Within), fd: -1, received: x.received[:0]}
	x.look = x.deadline
	if r.Connect > 0 && r.Connect < r.Within {
		x.look = now.Add(r.Connect)
	}
	l.asked = append(l.asked, x)
	l.rouse()
	l.mu.Unlock()
}

// Sweep ends the exchanges whose contexts have ended.
func (l *Loop) Sweep() {
	l.mu.Lock()
	l.swept = true
	l.rouse()
	l.mu.Unlock()
}

// rouse wakes the loop if it sleeps. mu is held.
func (l *Loop) rouse() {
	if l.asleep && !l.closed {
		l.asleep = false
		// An eventfd takes eight bytes, and has room for them.
		_, _ = unix.Write(l.wake, []byte{1, 0, 0, 0, 0, 0, 0, 0})
	}
}

// Run does the exchanges until ctx ends, and returns when all have ended.
func (l *Loop) Run(ctx context.Context) {
	defer context.AfterFunc(ctx, l.Sweep)()
	events := make([]unix.EpollEvent, 256)
	l.look = time.Now().Add(BeatGap)
	for ctx.Err() == nil {
		l.beats.Add(1)
		begun := l.beginAll()
		n := l.wait(events, 0)
		l.serve(events[:n])
		// What came in time isn't overdue, however late the loop is.
		if now := time.Now(); n < len(events) && !now.Before(l.look) {
			l.lookThrough(now)
		}
		switch {
		case n == len(events):
		case n > 0 || begun:
			time.Sleep(nap)
		case l.sleeps():
			l.serve(events[:l.wait(events, milliseconds(min(BeatGap, time.Until(l.look))))])
			l.mu.Lock()
			l.asleep = false
			l.mu.Unlock()
		}
	}
	l.close(ctx.Err())
}

// close ends all exchanges.
func (l *Loop) close(because error) {
	l.mu.Lock()
	l.closed, l.ended = true, because
	asked := l.asked
	l.asked = nil
	_ = unix.Close(l.wake)
	l.mu.Unlock()
	for _, x := range asked {
		x.Done(Result{Socket: -1, Err: because})
	}
	for len(l.live) > 0 {
		l.end(l.live[len(l.live)-1], because)
	}
	_ = unix.Close(l.epoll)
}

// sleeps notes that the loop is about to sleep, unless there is something to begin.
func (l *Loop) sleeps() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.asleep = len(l.asked) == 0 && !l.swept
	return l.asleep
}

// wait is epoll_wait(2).
func (l *Loop) wait(events []unix.EpollEvent, ms int) int {
	n, err := unix.EpollWait(l.epoll, events, ms)
	if err == unix.EINTR {
		return 0
	}
	if err != nil {
		// No argument of ours can be wrong but the descriptor: somebody closed what is the loop's.
		panic(fmt.Sprintf("waiting for sockets: %v", err))
	}
	return n
}

// milliseconds rounds up, since who wakes too early has to sleep again.
func milliseconds(d time.Duration) int {
	return int(max(0, d+time.Millisecond-1) / time.Millisecond)
}

// beginAll begins what was asked for, and says whether there was anything.
func (l *Loop) beginAll() bool {
	l.mu.Lock()
	asked := l.asked
	l.asked = nil
	if l.swept {
		l.swept, l.look = false, time.Time{}
	}
	l.mu.Unlock()
	for _, x := range asked {
		l.begin(x)
	}
	return len(asked) > 0
}

// begin has a socket connect.
func (l *Loop) begin(x *exchange) {
	l.begun++
	x.id, x.index = l.begun, len(l.live)
	l.live = append(l.live, x)
	if x.look.Before(l.look) {
		l.look = x.look
	}
	if err := x.ctx.Err(); err != nil {
		l.end(x, err)
		return
	}
	family, to := unix.AF_INET, unix.Sockaddr(&unix.SockaddrInet4{Port: int(x.To.Port())})
	if address := x.To.Addr().Unmap(); address.Is4() {
		to.(*unix.SockaddrInet4).Addr = address.As4()
	} else {
		family, to = unix.AF_INET6, &unix.SockaddrInet6{Port: int(x.To.Port()), Addr: address.As16()}
	}
	var err error
	if x.fd, err = unix.Socket(family, unix.SOCK_STREAM|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0); err != nil {
		x.fd = -1
		l.end(x, x.failed("dial", "socket", err))
		return
	}
	// An interrupted connect(2) goes on.
	if err := unix.Connect(x.fd, to); err != nil && err != unix.EINPROGRESS && err != unix.EINTR {
		l.end(x, x.failed("dial", "connect", err))
		return
	}
	// Once for all: edge-triggered, in both directions.
	interest := unix.EpollEvent{Events: unix.EPOLLIN | unix.EPOLLOUT | unix.EPOLLRDHUP | unix.EPOLLET, Fd: int32(x.fd), Pad: x.id}
	if err := unix.EpollCtl(l.epoll, unix.EPOLL_CTL_ADD, x.fd, &interest); err != nil {
		l.end(x, x.failed("dial", "epoll_ctl", err))
		return
	}
	for len(l.byFD) <= x.fd {
		l.byFD = append(l.byFD, nil)
	}
	l.byFD[x.fd] = x
}

// failed is the error that package net gives of the same failure.
func (x *exchange) failed(what, call string, err error) error {
	return &net.OpError{Op: what, Net: "tcp", Addr: net.TCPAddrFromAddrPort(x.To), Err: os.NewSyscallError(call, err)}
}

// serve goes on with the exchanges whose sockets have something to say.
func (l *Loop) serve(events []unix.EpollEvent) {
	for _, e := range events {
		if int(e.Fd) == l.wake {
			continue
		}
		// A socket that was closed can be in another process still, on its way to another program: it has events until then.
		if x := l.byFD[e.Fd]; x != nil && x.id == e.Pad {
			l.ready(x, e.Events)
		}
	}
}

// ready goes on with an exchange.
func (l *Loop) ready(x *exchange, events uint32) {
	if !x.connected {
		if events&(unix.EPOLLERR|unix.EPOLLHUP) != 0 {
			code, _ := unix.GetsockoptInt(x.fd, unix.SOL_SOCKET, unix.SO_ERROR)
			switch err := unix.Errno(code); err {
			case 0:
			case unix.ECONNRESET, unix.EPIPE:
				// It was taken, and reset since then. Who refuses is ECONNREFUSED.
				x.connected = true
				l.end(x, x.failed("read", "read", err))
				return
			default:
				l.end(x, x.failed("dial", "connect", err))
				return
			}
		}
		if events&unix.EPOLLOUT == 0 {
			return
		}
		x.connected = true
		x.look = x.deadline
		if late := time.Now().Add(patience); x.Keepalive && late.Before(x.deadline) {
			x.look = late
		}
		if x.look.Before(l.look) {
			l.look = x.look
		}
	}
	for x.sent < len(x.Send) {
		n, err := unix.Write(x.fd, x.Send[x.sent:])
		if err == unix.EAGAIN {
			break
		}
		if err != nil && err != unix.EINTR {
			l.end(x, x.failed("write", "write", err))
			return
		}
		x.sent += max(0, n)
	}
	if events&(unix.EPOLLIN|unix.EPOLLRDHUP|unix.EPOLLHUP|unix.EPOLLERR) != 0 {
		l.receive(x, events)
	}
}

// receive reads what there is.
func (l *Loop) receive(x *exchange, events uint32) {
	for {
		if len(x.received) == cap(x.received) {
			x.received = append(x.received, 0)[:len(x.received)]
		}
		room := x.received[len(x.received):min(cap(x.received), x.Most)]
		n, err := unix.Read(x.fd, room)
		switch {
		case err == unix.EINTR:
			continue
		case err == unix.EAGAIN:
			return
		case err != nil:
			l.end(x, x.failed("read", "read", err))
			return
		case n == 0:
			l.end(x, io.EOF)
			return
		}
		x.received = x.received[:len(x.received)+n]
		if x.received[0] == x.Send[0] && x.toItself() {
			x.connected = false
			l.end(x, x.failed("dial", "connect", unix.ECONNREFUSED))
			return
		}
		if len(x.received) >= x.enough {
			more := x.More(x.received)
			if more <= 0 {
				l.end(x, nil)
				return
			}
			x.enough = UntilClosed - len(x.received)
			if more < x.enough {
				x.enough = len(x.received) + more
			}
		}
		if len(x.received) >= x.Most {
			l.end(x, nil)
			return
		}
		switch {
		case n == len(room), events&unix.EPOLLERR != 0:
		case events&unix.EPOLLRDHUP != 0:
			// All is read that there was before the peer's end: no other read has to find out.
			l.end(x, io.EOF)
			return
		default:
			// There is nothing more, and what comes is another event.
			return
		}
	}
}

// toItself says that the kernel chose the very port that is connected to, where nobody listens (TCP's simultaneous open): the socket hears
// itself.
func (x *exchange) toItself() bool {
	self, err := unix.Getsockname(x.fd)
	if err != nil {
		return false
	}
	var at netip.AddrPort
	switch s := self.(type) {
	case *unix.SockaddrInet4:
		at = netip.AddrPortFrom(netip.AddrFrom4(s.Addr), uint16(s.Port))
	case *unix.SockaddrInet6:
		at = netip.AddrPortFrom(netip.AddrFrom16(s.Addr), uint16(s.Port))
	}
	return at == netip.AddrPortFrom(x.To.Addr().Unmap(), x.To.Port())
}

// lookThrough ends what is overdue.
func (l *Loop) lookThrough(now time.Time) {
	l.look = now.Add(BeatGap)
	for i := len(l.live) - 1; i >= 0; i-- {
		x := l.live[i]
		if err := x.ctx.Err(); err != nil {
			l.end(x, err)
			continue
		}
		if !now.Before(x.look) {
			if !now.Before(x.deadline) {
				l.end(x, context.DeadlineExceeded)
				continue
			}
			if !x.connected {
				l.end(x, x.failed("dial", "connect", os.ErrDeadlineExceeded))
				continue
			}
			keepalive(x.fd)
			x.look = x.deadline
		}
		if x.look.Before(l.look) {
			l.look = x.look
		}
	}
}

// keepalive has the kernel find out within three seconds more that a host is gone. One that is there acknowledges, be its
// programs stopped.
func keepalive(fd int) {
	// None of them can fail; TCP_KEEPIDLE begins the clock, which counts from the last packet.
	_ = unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_KEEPALIVE, 1)
	_ = unix.SetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_KEEPINTVL, 1)
	_ = unix.SetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_KEEPCNT, 3)
	_ = unix.SetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_KEEPIDLE, 2)
}

// end ends an exchange.
func (l *Loop) end(x *exchange, err error) {
	last := len(l.live) - 1
	l.live[x.index] = l.live[last]
	l.live[x.index].index = x.index
	l.live[last] = nil
	l.live = l.live[:last]
	result := Result{Received: x.received, Connected: x.connected, Socket: -1, Err: err}
	if x.fd >= 0 {
		if x.fd < len(l.byFD) && l.byFD[x.fd] == x {
			l.byFD[x.fd] = nil
		}
		if err == nil && x.Keep != nil && x.Keep(x.received) {
			// Its new owner may duplicate it, and then closing it doesn't take it out.
			_ = unix.EpollCtl(l.epoll, unix.EPOLL_CTL_DEL, x.fd, nil)
			result.Socket = x.fd
		} else {
			_ = unix.Close(x.fd)
		}
	}
	x.Done(result)
	if cap(x.received) > lastRoom {
		return
	}
	*x = exchange{received: x.received}
	l.mu.Lock()
	if len(l.spare) < spares {
		l.spare = append(l.spare, x)
	}
	l.mu.Unlock()
}
