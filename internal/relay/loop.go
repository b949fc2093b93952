//go:build linux && !portable

package relay

import (
	"errors"
	"fmt"
	"runtime"
	"sync"
	"sync/atomic"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Relay carries flows, by a loop for each processor but one (and at least one). The zero Relay is ready: its loops begin with its first flow. Close
// ends them.
type Relay struct {
	ids  atomic.Uint32
	next atomic.Uint32

	mu     sync.Mutex
	loops  []*loop
	closed bool
}

// ErrClosed is the cause of a flow's end that was to start on a closed Relay.
var ErrClosed = errors.New("the relay is closed")

// join gives the loop that the next flow is carried by.
func (r *Relay) join() (*loop, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.closed {
		return nil, ErrClosed
	}
	// While every processor of the runtime's waits in a system call, its monitor wakes up every 20 microseconds to take one
	// back: with one left over there is nothing to take.
	for len(r.loops) < max(1, runtime.GOMAXPROCS(0)-1) {
		l, err := newLoop()
		if err != nil && len(r.loops) > 0 {
			break
		}
		if err != nil {
			return nil, err
		}
		r.loops = append(r.loops, l)
	}
	l := r.loops[r.next.Add(1)%uint32(len(r.loops))]
	l.flows.Add(1)
	return l, nil
}

// Close waits until every flow has ended, which is the callers' business, and ends the loops. No flow starts afterwards.
func (r *Relay) Close() {
	r.mu.Lock()
	loops := r.loops
	r.loops, r.closed = nil, true
	r.mu.Unlock()
	for _, l := range loops {
		l.flows.Wait()
		l.stop()
	}
}

// loop waits for many sockets at once (epoll(7), level-triggered) and moves their flows.
//
// Level-triggered means that a socket is read once an event: if there is more, the next wait says so. No read has to find
// out that there is nothing left, which would cost a system call for each packet.
type loop struct {
	epoll int
	// wake is an eventfd(2) that ends the loop.
	wake  int
	ended chan struct{}
	// flows are those that haven't left.
	flows sync.WaitGroup
	// sides finds a socket by its descriptor. Pages of it are made as they are needed.
	sides [1 << 10]atomic.Pointer[page]
}

// page is a part of a loop's table of sockets.
type page [1 << 10]atomic.Pointer[side]

func newLoop() (*loop, error) {
	epoll, err := unix.EpollCreate1(unix.EPOLL_CLOEXEC)
	if err != nil {
		return nil, fmt.Errorf("epoll: %w", err)
	}
	wake, err := unix.Eventfd(0, unix.EFD_CLOEXEC|unix.EFD_NONBLOCK)
	if err == nil {
		err = unix.EpollCtl(epoll, unix.EPOLL_CTL_ADD, wake, &unix.EpollEvent{Events: unix.EPOLLIN, Fd: int32(wake)})
	}
	if err != nil {
		_ = unix.Close(epoll)
		_ = unix.Close(wake)
		return nil, fmt.Errorf("epoll: %w", err)
	}
	l := &loop{epoll: epoll, wake: wake, ended: make(chan struct{})}
	go l.run()
	return l, nil
}

// stop ends the loop and waits for it.
func (l *loop) stop() {
	// An eventfd takes eight bytes, and has room for them: nothing was written before.
	_, _ = unix.Write(l.wake, []byte{1, 0, 0, 0, 0, 0, 0, 0})
	<-l.ended
	_ = unix.Close(l.epoll)
	_ = unix.Close(l.wake)
}

// left notes that a flow has left.
func (l *loop) left() { l.flows.Done() }

func (l *loop) run() {
	defer close(l.ended)
	scratch := buffers.Get().(*buffer)
	var events [128]unix.EpollEvent
	n := 0
	for {
		// Where several sockets had something, more is likely to be there already.
		if n = l.poll(events[:], n > 1); n == 0 {
			var err error
			n, err = unix.EpollWait(l.epoll, events[:], -1)
			if err != nil && err != unix.EINTR {
				// No argument of ours can be wrong but the descriptor: somebody closed what is the loop's.
				panic(fmt.Sprintf("waiting for sockets: %v", err))
			}
		}
		for _, e := range events[:max(n, 0)] {
			if int(e.Fd) == l.wake {
				buffers.Put(scratch)
				return
			}
			if s := l.at(int(e.Fd)).Load(); s != nil {
				scratch = s.ready(uint32(e.Pad), e.Events, scratch)
			}
		}
	}
}

// poll is epoll_wait(2) without waiting, of which the scheduler needn't know.
func (l *loop) poll(events []unix.EpollEvent, likely bool) int {
	if !likely {
		return 0
	}
	n, _, err := unix.RawSyscall6(unix.SYS_EPOLL_PWAIT, uintptr(l.epoll), uintptr(unsafe.Pointer(&events[0])), uintptr(len(events)), 0, 0, 0)
	if err != 0 {
		return 0
	}
	return int(n)
}

// at gives a descriptor's place in the table.
func (l *loop) at(fd int) *atomic.Pointer[side] {
	slot := &l.sides[fd/len(page{})]
	p := slot.Load()
	if p == nil {
		slot.CompareAndSwap(nil, new(page))
		p = slot.Load()
	}
	return &p[fd%len(page{})]
}

// watch has the loop wait for events on a side's socket.
func (l *loop) watch(s *side, interest uint32) syscall.Errno {
	operation := unix.EPOLL_CTL_MOD
	if !s.watched {
		operation = unix.EPOLL_CTL_ADD
		if s.fd >= len(l.sides)*len(page{}) {
			return unix.EMFILE
		}
		l.at(s.fd).Store(s)
	}
	if err := control(l.epoll, operation, s.fd, &unix.EpollEvent{Events: interest, Fd: int32(s.fd), Pad: int32(s.id)}); err != 0 {
		return err
	}
	s.watched, s.interest = true, interest
	return 0
}

// unwatch has the loop forget a side's socket.
func (l *loop) unwatch(s *side) {
	if s.watched {
		l.forget(s)
		_ = control(l.epoll, unix.EPOLL_CTL_DEL, s.fd, nil)
	}
}

// forget has the loop forget a side's socket that is closed at once, which the kernel takes as its cue.
func (l *loop) forget(s *side) {
	if s.watched {
		l.at(s.fd).Store(nil)
		s.watched = false
	}
}

// control is epoll_ctl(2), which never waits.
func control(epoll, operation, fd int, event *unix.EpollEvent) syscall.Errno {
	_, _, err := unix.RawSyscall6(unix.SYS_EPOLL_CTL, uintptr(epoll), uintptr(operation), uintptr(fd), uintptr(unsafe.Pointer(event)), 0, 0)
	return err
}
