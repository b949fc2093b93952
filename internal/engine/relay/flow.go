//go:build linux && !portable

package relay

import (
	"errors"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// Flow is a Pair on its way. Whoever moves it a step, its loop or a caller, holds mu; no step ever waits.
type Flow struct {
	loop *loop
	end  func(End)
	// happened is called instead of moving bytes until the flow begins, and is nil from then on; see Prepare.
	happened func(server bool)

	mu             sync.Mutex
	client, server side
	cause          error
	// forestalled is why the flow has to end as soon as it begins; nil if it hasn't.
	forestalled error
	// done is made when somebody asks for it, and closed when closed is set.
	done   chan struct{}
	closed bool
	// shared is the Pair's.
	shared bool
	// serverFirst is End.ServerFirst.
	serverFirst bool
	// over is set once nothing moves any more: both streams are done with, or the flow was detached.
	over bool
	// stepping says that a loop moves the flow, closePending that this loop is to close it after the step.
	stepping, closePending bool
	// steps counts what loops have done for the flow, up to pinAfter.
	steps uint8
	// aborted is set by Abort. The flow closes at drainBy at the latest then, and once the server was silent until quiet.
	aborted        bool
	drainBy, quiet time.Time
	drainer        *time.Timer
	// abandoned says that the client is known to be gone while the server doesn't take what it has left.
	abandoned bool
}

// side is one of a flow's two sockets: one stream comes from it, the other goes to it.
//
// Invariant: while bytes are pending for a side, nothing is read from the other one. So a direction holds at most what one
// read has brought.
type side struct {
	flow *Flow
	fd   int
	// id tells the socket from an earlier one with the same descriptor.
	id uint32
	// interest are the epoll events that the loop waits for; registered is false while the socket isn't in its epoll, which would tell
	// of errors whatever the interest is.
	interest   uint32
	registered bool
	// readOver says that nothing more is read from the side, writeOver that nothing more is written to it.
	readOver, writeOver bool
	// broke is set once the side's stream was cut: it will not come to an end in order.
	broke bool
	// bulk says that the side's last bytes filled a buffer, so that more are to be expected; copied that its bytes can't be spliced.
	bulk, copied bool
	// pending are bytes that the side hasn't taken yet; buffer is the pooled one that they are in, nil if they came with the Pair.
	pending []byte
	buffer  *buffer
	// moved counts the bytes that were written to the side.
	moved int64
}

// Start takes over the pair's sockets and moves bytes until both streams have ended, a side breaks, or Abort. Then it
// closes both sockets and calls end, once, from a goroutine of its own or of a loop's, which it must not hold up; nil is
// allowed. Start never blocks, and end isn't called before it has returned.
func (r *Relay) Start(pair Pair, end func(End)) *Flow {
	f, err := r.Prepare(nil, nil)
	if err != nil {
		f = &Flow{cause: err}
		f.client.flow, f.server.flow = f, f
	}
	f.Begin(pair, end)
	return f
}

// Begin is Start for a flow that was prepared. The pair's sockets are those that it was told to await, if any.
func (f *Flow) Begin(pair Pair, end func(End)) {
	if !pair.ClientPrepared {
		prepare(pair.Client)
	}
	prepare(pair.Server)
	f.mu.Lock()
	defer f.mu.Unlock()
	f.end, f.happened, f.shared = end, nil, pair.Shared
	f.client.begin(pair.Client, pair.ClientEnded, pair.ToClient, pair.SentToClient)
	f.server.begin(pair.Server, pair.ServerEnded, pair.ToServer, pair.SentToServer)
	f.serverFirst = pair.ServerEnded && !pair.ClientEnded
	if f.loop == nil {
		f.conclude()
		return
	}
	f.flush(&f.server)
	f.flush(&f.client)
	if f.forestalled != nil {
		f.abort(f.forestalled)
		return
	}
	f.settle()
	f.noticeErrors()
}

func (s *side) begin(fd int, ended bool, pending []byte, moved int64) {
	s.fd, s.readOver, s.pending, s.moved = fd, ended, pending, moved
}

// Bytes gives how many bytes have been written to each side so far.
func (f *Flow) Bytes() (toServer, toClient int64) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.server.moved, f.client.moved
}

// Done is closed once both sockets are closed and end has returned, or the flow was detached.
func (f *Flow) Done() <-chan struct{} {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.done == nil {
		f.done = make(chan struct{})
		if f.closed {
			close(f.done)
		}
	}
	return f.done
}

// finished closes what Done gives. f.mu is held.
func (f *Flow) finished() {
	f.closed = true
	if f.done != nil {
		close(f.done)
	}
}

// Wait blocks until Done. Not to be called from end.
func (f *Flow) Wait() { <-f.Done() }

// other gives the side that s's bytes go to.
func (f *Flow) other(s *side) *side {
	if s == &f.client {
		return &f.server
	}
	return &f.client
}

func (s *side) String() string {
	if s == &s.flow.client {
		return "client"
	}
	return "server"
}

// tools are what whoever moves flows a step works with. They are the caller's own: two may be at flows of the same loop.
type tools struct {
	scratch *buffer
	pipe    splicePipe
}

// ready moves what can be moved now that a loop was told of events on a socket.
func (s *side) ready(id, events uint32, with *tools) {
	f := s.flow
	f.mu.Lock()
	if f.over || s.id != id {
		f.mu.Unlock()
		return
	}
	if happened := f.happened; happened != nil {
		f.mu.Unlock()
		happened(s == &f.server)
		return
	}
	f.stepping = true
	const failed = unix.EPOLLERR | unix.EPOLLHUP
	if events&(unix.EPOLLOUT|failed) != 0 && len(s.pending) > 0 {
		f.flush(s)
	}
	switch {
	case events&(unix.EPOLLIN|failed) != 0 && f.reads(s):
		f.carry(s, with)
	case events&failed != 0 && len(s.pending) == 0:
		// What is wrong will be found when there is something to do with the socket again. Until then the kernel would tell of
		// it over and over.
		s.unwatch()
		f.abandon(s, events)
	}
	moved := false
	if f.steps < pinAfter {
		if f.steps++; f.steps == pinAfter {
			moved = f.move()
		}
	}
	f.settle()
	if moved {
		f.noticeErrors()
	}
	f.stepping = false
	closePending := f.closePending
	f.mu.Unlock()
	if closePending {
		f.close()
	}
}

// pinAfter is the number of steps after which a flow is moved to the loop with the fewest of its kind, once: one that has come so far
// goes on for long as a rule. Most others end before.
const pinAfter = 16

// move takes the flow to the loop that is to carry it on, and tells whether that is another one. Both sockets leave the old loop's epoll
// (EPOLL_CTL_DEL); settle, which ends the step, puts them into the new one's.
func (f *Flow) move() bool {
	to := f.loop.relay.pin(f.loop)
	if to == f.loop {
		return false
	}
	f.client.unwatch()
	f.server.unwatch()
	f.loop = to
	return true
}

// reads tells whether bytes are taken from a side now.
func (f *Flow) reads(s *side) bool { return !s.readOver && len(f.other(s).pending) == 0 }

// carry takes what a side has sent, at most a buffer full, to the other one.
func (f *Flow) carry(from *side, with *tools) {
	to := f.other(from)
	n, splices, err := from.take(with)
	switch {
	case err == unix.EAGAIN:
	case err != 0:
		f.cut(from, "read", err)
	case n == 0:
		from.readOver = true
		f.noteFirst(from)
	default:
		if f.aborted {
			f.quiet = time.Now().Add(drainQuiet)
		}
		if splices {
			taken, whole, err := with.pipe.pour(to.fd, n, with.scratch[:])
			to.moved += int64(taken)
			switch {
			case !whole:
				f.cut(from, "splice", unix.EIO)
				return
			case err != 0 && err != unix.EAGAIN:
				f.refused(to, err)
				return
			}
			n -= taken
		}
		to.pending = with.scratch[:n]
		f.flush(to)
		if len(to.pending) > 0 {
			to.buffer = with.scratch
			with.scratch = buffers.Get().(*buffer)
		}
	}
}

// take receives what a side has sent into the buffer, or into the splice pipe while that is more than a buffer can hold: splicing spares
// the copies and costs a system call more.
func (s *side) take(with *tools) (n int, splices bool, err syscall.Errno) {
	if s.bulk && !s.copied && with.pipe.in >= 0 {
		n, err = with.pipe.fill(s.fd)
		if err != unix.EINVAL {
			s.bulk = n >= bufferSize/2
			return n, true, err
		}
		s.copied = true
	}
	n, err = receive(s.fd, with.scratch[:])
	s.bulk = n == bufferSize
	return n, false, err
}

// flush writes what is pending for a side, as far as it takes it.
func (f *Flow) flush(to *side) {
	for len(to.pending) > 0 {
		n, err := send(to.fd, to.pending)
		to.moved += int64(n)
		to.pending = to.pending[n:]
		if err == unix.EAGAIN {
			return
		}
		if err != 0 {
			f.refused(to, err)
			return
		}
	}
	f.dropPending(to)
}

// refused ends the stream to a side that takes nothing any more, for an error that isn't EAGAIN.
func (f *Flow) refused(to *side, err syscall.Errno) {
	// The opposite stream is left alone: it delivers what had been received before and then ends by itself, since the
	// stream of a dead socket ends. EPIPE comes from a side that had ended its stream in order and then closed: no reason
	// to cut the opposite one.
	if err != unix.EPIPE {
		to.broke = true
	}
	f.noteFirst(to)
	f.blame(to, "write", err)
	f.dropPending(to)
	f.other(to).readOver, to.writeOver = true, true
}

// dropPending drops what is pending for a side, and gives its buffer back to the pool.
func (f *Flow) dropPending(to *side) {
	to.pending = nil
	if to.buffer != nil {
		buffers.Put(to.buffer)
		to.buffer = nil
	}
}

// cut stops both streams after a side broke: nothing more comes from it (all that it had sent has been delivered), and
// nothing can be brought to it.
func (f *Flow) cut(from *side, call string, err syscall.Errno) {
	to := f.other(from)
	from.broke = true
	f.noteFirst(from)
	f.blame(from, call, err)
	f.dropPending(from)
	f.dropPending(to)
	from.readOver, from.writeOver, to.readOver, to.writeOver = true, true, true, true
}

// noteFirst notes that a side's stream is over, if the other one's isn't.
func (f *Flow) noteFirst(s *side) {
	if s == &f.server && !f.client.readOver && !f.client.broke {
		f.serverFirst = true
	}
}

// blame notes why the flow ends, if nothing was noted before.
func (f *Flow) blame(s *side, call string, err syscall.Errno) {
	if f.cause == nil {
		f.cause = broken(s.String(), call, err)
	}
}

// settle ends a step: ends of streams are passed on (shutdown(2)), the epoll is told what to wait for, and a flow with both streams over
// is closed.
func (f *Flow) settle() {
	f.passEnd(&f.client, &f.server)
	f.passEnd(&f.server, &f.client)
	if f.client.readOver && f.client.writeOver && f.server.readOver && f.server.writeOver {
		f.conclude()
		return
	}
	f.await(&f.client)
	f.await(&f.server)
}

// passEnd ends the stream to a side (SHUT_WR) once the other one's has ended and all of it was delivered.
func (f *Flow) passEnd(from, to *side) {
	if !from.readOver || to.writeOver || len(to.pending) > 0 {
		return
	}
	to.writeOver = true
	if from.writeOver && to.readOver && !f.shared {
		// Nothing is left to be done but to close both, which ends the stream as well.
		return
	}
	// The kernel reports a reset to one system call only: if that was a write, reads just see an end. It isn't passed on as
	// one. If the other side is gone, its own stream says so.
	if !from.broke && !(f.aborted && to == &f.server) {
		endStream(to.fd)
	}
}

// await has the epoll wait for what a side is needed for: EPOLLIN while it is read, EPOLLOUT while it has bytes pending.
func (f *Flow) await(s *side) {
	var interest uint32
	if f.reads(s) {
		interest |= unix.EPOLLIN
	}
	if len(s.pending) > 0 {
		interest |= unix.EPOLLOUT
	}
	if interest == s.interest && (s.registered || interest == 0) {
		return
	}
	if err := f.loop.watch(s, interest); err != 0 {
		f.cut(s, "epoll_ctl", err)
		f.conclude()
	}
}

func (s *side) unwatch() {
	s.flow.loop.unwatch(s)
	s.interest = 0
}

// Abort ends the flow with a cause: nothing more is taken from the client for the server, what the server has sent
// already is delivered to the client for up to DrainLimit, then both are closed. The server is closed with a reset, so
// that bytes of the client which the kernel still holds for it are dropped instead of reaching it later. Abort doesn't
// wait. Of several calls the first one counts; after the flow's end it does nothing.
func (f *Flow) Abort(cause error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	switch {
	case f.aborted || f.over:
	case f.happened != nil:
		f.forestall(cause)
	default:
		f.abort(cause)
	}
}

// forestall has a flow that is being prepared end as soon as it begins.
func (f *Flow) forestall(cause error) {
	if f.forestalled == nil {
		f.forestalled = cause
	}
}

func (f *Flow) abort(cause error) {
	now := time.Now()
	f.aborted, f.drainBy, f.quiet = true, now.Add(DrainLimit), now.Add(drainQuiet)
	if f.cause == nil {
		f.cause = cause
	}
	f.dropPending(&f.server)
	f.client.readOver, f.server.writeOver = true, true
	f.drainer = time.AfterFunc(drainQuiet, f.drain)
	f.settle()
}

// drain looks whether an aborted flow has been drained.
func (f *Flow) drain() {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.over {
		return
	}
	// A machine with more to do than it can may have let nobody look in time.
	with := tools{buffers.Get().(*buffer), splicePipe{-1, -1}}
	for quiet := f.quiet; f.reads(&f.server); quiet = f.quiet {
		if f.carry(&f.server, &with); f.quiet.Equal(quiet) {
			break
		}
	}
	buffers.Put(with.scratch)
	now := time.Now()
	if now.Before(f.drainBy) && now.Before(f.quiet) {
		f.drainer.Reset(min(f.quiet.Sub(now), f.drainBy.Sub(now)))
		return
	}
	// The server has been silent for long enough.
	f.server.readOver = true
	if now.Before(f.drainBy) {
		// What the client hasn't taken yet has until then.
		f.drainer.Reset(f.drainBy.Sub(now))
	} else {
		f.dropPending(&f.client)
	}
	f.settle()
}

// errDetached is the cause of a flow's end that was detached before it had begun.
var errDetached = errors.New("the flow was detached before it began")

// Detach stops the flow between two bytes and hands its sockets back: what was read and isn't written yet is in the Pair, which is
// Shared, since they may be passed on. end isn't called. It is false, and nothing has changed, if the flow is ending; one that is being prepared ends when it begins.
func (f *Flow) Detach() (Pair, bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.happened != nil {
		f.forestall(errDetached)
	}
	if f.over || f.aborted || f.cause != nil || f.forestalled != nil {
		return Pair{}, false
	}
	f.over = true
	f.unwatchBoth()
	p := Pair{
		Client: f.client.fd, Server: f.server.fd, Shared: true, ClientEnded: f.client.readOver, ServerEnded: f.server.readOver,
		ToServer: append([]byte(nil), f.server.pending...), ToClient: append([]byte(nil), f.client.pending...),
		SentToServer: f.server.moved, SentToClient: f.client.moved,
	}
	f.dropPending(&f.client)
	f.dropPending(&f.server)
	f.finished()
	return p, true
}

// unwatchBoth takes both sockets out of the loop, and with them the flow.
func (f *Flow) unwatchBoth() {
	if f.loop != nil {
		f.client.unwatch()
		f.server.unwatch()
		f.loop.left(f)
	}
}

// conclude ends the flow: both streams are over. Where both ended in order, closing takes no time, and a loop that is at it
// closes the flow itself.
func (f *Flow) conclude() {
	if f.over {
		return
	}
	f.over = true
	if f.drainer != nil {
		f.drainer.Stop()
	}
	f.dropPending(&f.client)
	f.dropPending(&f.server)
	if f.stepping && f.cause == nil && !f.aborted {
		if f.shared {
			f.client.unwatch()
			f.server.unwatch()
		} else {
			f.loop.forget(&f.client)
			f.loop.forget(&f.server)
		}
		f.loop.left(f)
		f.closePending = true
		return
	}
	f.unwatchBoth()
	go f.close()
}

// reset closes a socket with RST, after waiting up to limit for the peer to get what was written; the rest is dropped. Closing is not
// enough for a shared one: nothing would be sent as long as somebody else has a descriptor of it.
func (f *Flow) reset(fd int, limit time.Duration) {
	delivered(fd, limit)
	if f.shared {
		disconnect(fd)
	}
	_ = unix.SetsockoptLinger(fd, unix.SOL_SOCKET, unix.SO_LINGER, &unix.Linger{Onoff: 1})
	_ = unix.Close(fd)
}

// close closes both sockets as the flow's end demands, and tells of the end. Nobody else moves a flow that is over.
func (f *Flow) close() {
	client, server := f.client.fd, f.server.fd
	switch {
	case f.aborted:
		f.reset(server, 0)
		finish(client, time.Until(f.drainBy))
	case f.client.broke:
		f.reset(client, 0)
		f.reset(server, DrainLimit)
	case f.server.broke:
		f.reset(server, 0)
		f.reset(client, DrainLimit)
	case f.cause != nil:
		finish(client, DrainLimit)
		finish(server, DrainLimit)
	default:
		closeAtOnce(client)
		closeAtOnce(server)
	}
	if f.end != nil {
		f.end(End{Cause: f.cause, Aborted: f.aborted, ClientBroke: !f.aborted && f.client.broke, ServerBroke: !f.aborted && f.server.broke,
			ServerFirst: !f.aborted && f.serverFirst, ToServer: f.server.moved, ToClient: f.client.moved})
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.finished()
}
