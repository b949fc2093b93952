//go:build linux && !portable

package relay

import (
	"errors"
	"fmt"
	"os"
	"runtime"
	"sync"
	"sync/atomic"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/pgporter/pgporter/internal/beat"
)

// Relay carries flows, by a loop for each of the runtime's processors but one (and at least one). The zero Relay is ready: its loops begin with its first flow. Close
// ends them.
type Relay struct {
	ids  atomic.Uint32
	next atomic.Uint32
	// pipes counts the loops' splice pipes.
	pipes atomic.Int32

	mu     sync.Mutex
	loops  []*loop
	closed bool
}

// Detaches says that a flow can be detached.
const Detaches = true

// ErrClosed is the cause of a flow's end that was to start on a closed Relay.
var ErrClosed = errors.New("the relay is closed")

// join gives the loop that the next flow begins in: that of another one, if one is given.
func (r *Relay) join(affinity *Flow) (*loop, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.closed {
		return nil, ErrClosed
	}
	// A loop that is busy keeps one of the runtime's processors: one is left for everything else.
	for len(r.loops) < max(1, runtime.GOMAXPROCS(0)-1) {
		l, err := newLoop(r)
		if err != nil && len(r.loops) > 0 {
			break
		}
		if err != nil {
			return nil, err
		}
		r.loops = append(r.loops, l)
	}
	l := r.loops[r.next.Add(1)%uint32(len(r.loops))]
	if affinity != nil {
		l = affinity.loop
	}
	l.flows.Add(1)
	return l, nil
}

// pin has the loop with the fewest pinned flows carry one that has come to pinAfter steps, and gives that loop. Flows that are
// over soon stay where they began: to move each of them to another thread would cost more than it brings.
func (r *Relay) pin(from *loop) *loop {
	r.mu.Lock()
	defer r.mu.Unlock()
	to := from
	if !r.closed {
		for _, l := range r.loops {
			if l.pinned.Load() < to.pinned.Load() {
				to = l
			}
		}
	}
	to.pinned.Add(1)
	if to != from {
		to.flows.Add(1)
		from.flows.Done()
	}
	return to
}

// Beats counts the times that each loop has gone round, which it does each BeatGap at least.
func (r *Relay) Beats() []uint64 {
	r.mu.Lock()
	defer r.mu.Unlock()
	all := make([]uint64, len(r.loops))
	for i, l := range r.loops {
		all[i] = l.beats.Load()
	}
	return all
}

// Pipes gives how many pipes there are for splicing: one for each loop, empty between two steps.
func (r *Relay) Pipes() int { return int(r.pipes.Load()) }

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
	// spin is how many milliseconds the loop waits in epoll_wait(2) by itself before it parks: see spinWait.
	spin int
	// outer is what the runtime waits for while the loop is parked, file and parked are the same.
	outer  int
	file   *os.File
	parked syscall.RawConn
	// wake is an eventfd(2) that ends the loop.
	wake  int
	ended chan struct{}
	// beats counts the times that the loop has gone round.
	beats atomic.Uint64
	// flows are those that haven't left, pinned counts those of them that have come to pinAfter steps.
	flows  sync.WaitGroup
	pinned atomic.Int32
	relay  *Relay
	// sides finds a socket by its descriptor. Pages of it are made as they are needed.
	sides [1 << 10]atomic.Pointer[page]
}

// page is a part of a loop's table of sockets.
type page [1 << 10]atomic.Pointer[side]

func newLoop(r *Relay) (*loop, error) {
	epoll, err := unix.EpollCreate1(unix.EPOLL_CLOEXEC)
	if err != nil {
		return nil, fmt.Errorf("epoll: %w", err)
	}
	l := &loop{relay: r, epoll: epoll, wake: -1, ended: make(chan struct{})}
	if runtime.GOMAXPROCS(0) > 1 {
		l.spin = spinMilliseconds
	}
	if l.outer, err = unix.EpollCreate1(unix.EPOLL_CLOEXEC); err == nil {
		// The runtime waits for what doesn't block only.
		_ = unix.SetNonblock(l.outer, true)
		l.file = os.NewFile(uintptr(l.outer), "epoll")
		l.parked, err = l.file.SyscallConn()
	}
	if err == nil {
		l.wake, err = unix.Eventfd(0, unix.EFD_CLOEXEC|unix.EFD_NONBLOCK)
	}
	if err == nil {
		err = unix.EpollCtl(epoll, unix.EPOLL_CTL_ADD, l.wake, &unix.EpollEvent{Events: unix.EPOLLIN, Fd: int32(l.wake)})
	}
	if err != nil {
		l.discard()
		return nil, fmt.Errorf("epoll: %w", err)
	}
	go l.run()
	return l, nil
}

// stop ends the loop and waits for it.
func (l *loop) stop() {
	// An eventfd takes eight bytes, and has room for them: nothing was written before.
	_, _ = unix.Write(l.wake, []byte{1, 0, 0, 0, 0, 0, 0, 0})
	<-l.ended
	l.discard()
}

func (l *loop) discard() {
	_ = unix.Close(l.epoll)
	if l.file != nil {
		_ = l.file.Close()
	}
	if l.wake >= 0 {
		_ = unix.Close(l.wake)
	}
}

// left notes that a flow has left.
func (l *loop) left(f *Flow) {
	if f.steps == pinAfter {
		l.pinned.Add(-1)
	}
	l.flows.Done()
}

func (l *loop) run() {
	defer close(l.ended)
	with := tools{buffers.Get().(*buffer), newSplicePipe()}
	if with.pipe.in >= 0 {
		l.relay.pipes.Add(1)
		defer l.relay.pipes.Add(-1)
	}
	var events [128]unix.EpollEvent
	for {
		l.beats.Add(1)
		n := l.spinWait(events[:])
		for n == 0 {
			n = l.park(events[:])
			l.beats.Add(1)
		}
		for _, e := range events[:n] {
			if int(e.Fd) == l.wake {
				buffers.Put(with.scratch)
				with.pipe.close()
				return
			}
			if s := l.at(int(e.Fd)).Load(); s != nil {
				s.ready(uint32(e.Pad), e.Events, &with)
			}
		}
	}
}

// spinMilliseconds is how long a loop that had something to do waits for more without telling the scheduler.
const spinMilliseconds = 20

// spinWait waits for events for a moment; 0 if there were none, or the runtime interrupted it, as it does with whoever runs for
// long.
//
// The scheduler takes it for running, and so does not what costs more than the wait itself: take its processor away and give it
// back, and have the monitor look after that every 20 microseconds for a while.
func (l *loop) spinWait(events []unix.EpollEvent) int { return wait(l.epoll, events, l.spin) }

// park waits for events as a goroutine does, for BeatGap at most; 0 if there were none.
func (l *loop) park(events []unix.EpollEvent) (n int) {
	// While the loop looks out by itself nobody else is to be woken up by its events, so the runtime waits for another
	// epoll, which has the loop's one in it for as long as the loop is parked.
	_ = control(l.outer, unix.EPOLL_CTL_ADD, l.epoll, &unix.EpollEvent{Events: unix.EPOLLIN})
	_ = l.file.SetReadDeadline(beat.Next(BeatGap))
	err := l.parked.Read(func(uintptr) bool {
		n = wait(l.epoll, events, 0)
		return n > 0
	})
	_ = control(l.outer, unix.EPOLL_CTL_DEL, l.epoll, nil)
	if err != nil && !errors.Is(err, os.ErrDeadlineExceeded) {
		// Nobody but the loop closes it.
		panic(fmt.Sprintf("waiting for sockets: %v", err))
	}
	return n
}

// wait is epoll_wait(2).
func wait(epoll int, events []unix.EpollEvent, milliseconds int) int {
	n, _, err := unix.RawSyscall6(unix.SYS_EPOLL_PWAIT, uintptr(epoll), uintptr(unsafe.Pointer(&events[0])), uintptr(len(events)), uintptr(milliseconds), 0, 0)
	switch err {
	case 0:
		return int(n)
	case unix.EINTR:
		return 0
	}
	// No argument of ours can be wrong but the descriptor: somebody closed what is the loop's.
	panic(fmt.Sprintf("waiting for sockets: %v", err))
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

// watch has the epoll wait for events on a side's socket (EPOLL_CTL_ADD, or EPOLL_CTL_MOD if it is in there).
func (l *loop) watch(s *side, interest uint32) syscall.Errno {
	operation := unix.EPOLL_CTL_MOD
	if !s.registered {
		operation = unix.EPOLL_CTL_ADD
		if s.fd >= len(l.sides)*len(page{}) {
			return unix.EMFILE
		}
		l.at(s.fd).Store(s)
	}
	if err := control(l.epoll, operation, s.fd, &unix.EpollEvent{Events: interest, Fd: int32(s.fd), Pad: int32(s.id)}); err != 0 {
		return err
	}
	s.registered, s.interest = true, interest
	return 0
}

// unwatch takes a side's socket out of the epoll (EPOLL_CTL_DEL) and out of the loop's table.
func (l *loop) unwatch(s *side) {
	if s.registered {
		l.forget(s)
		_ = control(l.epoll, unix.EPOLL_CTL_DEL, s.fd, nil)
	}
}

// forget takes a side's socket out of the loop's table only, since it is closed at once: close(2) of a socket's last descriptor takes it
// out of every epoll (epoll(7)). A shared socket has other descriptors and needs unwatch: its events would come for ever, and without
// a descriptor of it there is no EPOLL_CTL_DEL.
func (l *loop) forget(s *side) {
	if s.registered {
		l.at(s.fd).Store(nil)
		s.registered = false
	}
}

// control is epoll_ctl(2), which never waits.
func control(epoll, operation, fd int, event *unix.EpollEvent) syscall.Errno {
	_, _, err := unix.RawSyscall6(unix.SYS_EPOLL_CTL, uintptr(epoll), uintptr(operation), uintptr(fd), uintptr(unsafe.Pointer(event)), 0, 0)
	return err
}
