//go:build !linux || portable

package relay

import (
	"errors"
	"fmt"
	"net"
	"os"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
)

// Detaches says that a flow can be detached.
const Detaches = false

// Flow is a Pair on its way.
type Flow struct {
	client, server     side
	toServer, toClient atomic.Int64
	end                func(End)
	done               chan struct{}
	// left counts the directions that haven't stopped.
	left atomic.Int32
	// first is the side whose stream was over first; nil while neither is.
	first atomic.Pointer[side]

	mu      sync.Mutex
	cause   error
	aborted bool
	// drainBy is when an aborted flow closes at the latest.
	drainBy time.Time
}

// side is one of the two sockets.
type side struct {
	name string
	conn *net.TCPConn
	// broke is set once the side's stream was cut: it will not come to an end in order.
	broke atomic.Bool
	// writing is held while bytes are written to the side.
	writing sync.Mutex
}

// direction is one of a flow's two streams.
type direction struct {
	flow     *Flow
	from, to *side
	// moved counts the bytes that were written to the other side.
	moved *atomic.Int64
	// drains is set for the direction that goes on for a moment after an Abort.
	drains bool
}

// Relay carries flows. The zero Relay is ready.
type Relay struct{ flows sync.WaitGroup }

// Beats has nothing to count: there are no loops.
func (r *Relay) Beats() []uint64 { return nil }

// Pipes has nothing to count either: everything is copied.
func (r *Relay) Pipes() int { return 0 }

// Close waits until every flow has ended, which is the callers' business.
func (r *Relay) Close() { r.flows.Wait() }

// keepAlive finds a peer that vanished without a word.
var keepAlive = net.KeepAliveConfig{Enable: true, Idle: keepAliveIdle, Interval: keepAliveInterval, Count: keepAliveCount}

// Start takes over the pair's sockets and moves bytes until both streams have ended, a side breaks, or Abort. Then it
// closes both sockets and calls end, once, from a goroutine of its own; nil is allowed. Start never blocks.
func (r *Relay) Start(pair Pair, end func(End)) *Flow {
	f := &Flow{end: end, done: make(chan struct{})}
	f.client.name, f.client.conn = "client", connection(pair.Client)
	f.server.name, f.server.conn = "server", connection(pair.Server)
	for _, conn := range []*net.TCPConn{f.client.conn, f.server.conn} {
		// Both fail only on a socket that is dead already, which the first read says better.
		_ = conn.SetNoDelay(true)
		_ = conn.SetKeepAliveConfig(keepAlive)
	}
	f.toServer.Store(pair.SentToServer)
	f.toClient.Store(pair.SentToClient)
	f.left.Store(2)
	r.flows.Add(1)
	carry := func(d *direction, pending []byte, ended bool) {
		if f.run(d, pending, ended) {
			f.close()
			r.flows.Done()
			close(f.done)
		}
	}
	go carry(&direction{flow: f, from: &f.client, to: &f.server, moved: &f.toServer}, pair.ToServer, pair.ClientEnded)
	go carry(&direction{flow: f, from: &f.server, to: &f.client, moved: &f.toClient, drains: true}, pair.ToClient, pair.ServerEnded)
	return f
}

// connection hands a descriptor to the runtime. One that is no socket gives a connection on which every call fails.
func connection(fd int) *net.TCPConn {
	file := os.NewFile(uintptr(fd), "")
	defer file.Close()
	if conn, err := net.FileConn(file); err == nil {
		if tcp, isTCP := conn.(*net.TCPConn); isTCP {
			return tcp
		}
		_ = conn.Close()
	}
	return &net.TCPConn{}
}

// Detach isn't available here.
func (f *Flow) Detach() (Pair, bool) { return Pair{}, false }

// Bytes gives how many bytes have been written to each side so far.
func (f *Flow) Bytes() (toServer, toClient int64) { return f.toServer.Load(), f.toClient.Load() }

// Done is closed once both sockets are closed and end has returned.
func (f *Flow) Done() <-chan struct{} { return f.done }

// Wait blocks until Done. Not to be called from end.
func (f *Flow) Wait() { <-f.done }

// past is a deadline that has passed: it wakes whoever waits on a socket.
var past = time.Unix(1, 0)

// Abort ends the flow with a cause: nothing more is taken from the client for the server, what the server has sent
// already is delivered to the client for up to DrainLimit, then both are closed. The server is closed with a reset, so
// that bytes of the client which the kernel still holds for it are dropped instead of reaching it later. Abort doesn't
// wait. Of several calls the first one counts; after the flow's end it does nothing.
func (f *Flow) Abort(cause error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.aborted {
		return
	}
	now := time.Now()
	f.aborted, f.drainBy = true, now.Add(DrainLimit)
	if f.cause == nil {
		f.cause = cause
	}
	_ = f.client.conn.SetReadDeadline(past)
	_ = f.server.conn.SetWriteDeadline(past)
	_ = f.server.conn.SetReadDeadline(now.Add(drainQuiet))
	_ = f.client.conn.SetWriteDeadline(f.drainBy)
}

// extendDrain gives the server of an aborted flow another drainQuiet to send, within the flow's drain.
func (f *Flow) extendDrain() {
	f.mu.Lock()
	defer f.mu.Unlock()
	if !f.aborted {
		return
	}
	deadline := time.Now().Add(drainQuiet)
	if deadline.After(f.drainBy) {
		deadline = f.drainBy
	}
	_ = f.server.conn.SetReadDeadline(deadline)
}

// run carries one direction until it stops, and tells whether it was the second of the two.
func (f *Flow) run(d *direction, pending []byte, ended bool) bool {
	if err := d.carry(pending, ended); err != nil && !errors.Is(err, os.ErrDeadlineExceeded) {
		f.mu.Lock()
		if f.cause == nil {
			f.cause = err
		}
		f.mu.Unlock()
	}
	return f.left.Add(-1) == 0
}

// carry moves bytes until the stream's end, which it passes on, or an error. os.ErrDeadlineExceeded means that Abort or
// the other direction wants this one to stop.
func (d *direction) carry(pending []byte, ended bool) error {
	if len(pending) > 0 {
		if err := d.write(pending); err != nil {
			return err
		}
	}
	if ended {
		_ = d.to.conn.CloseWrite()
		return nil
	}
	raw, err := d.from.conn.SyscallConn()
	if err != nil {
		return d.cut(err)
	}
	r := reader{raw: raw}
	r.attempt = r.try
	for {
		if d.drains {
			d.flow.extendDrain()
		}
		buffer, n, err := r.read()
		switch {
		case errors.Is(err, os.ErrDeadlineExceeded):
			return err
		case err != nil:
			return d.cut(err)
		case n == 0 && d.from.wasCut():
			d.flow.first.CompareAndSwap(nil, d.from)
			return nil
		case n == 0:
			d.flow.first.CompareAndSwap(nil, d.from)
			// If the other side is gone, its own direction says so.
			_ = d.to.conn.CloseWrite()
			return nil
		}
		err = d.write(buffer[:n])
		buffers.Put(buffer)
		if err != nil {
			return err
		}
	}
}

// cut stops both directions after from broke: nothing more comes from it (all that it had sent has been delivered), and
// nothing can be brought to it.
func (d *direction) cut(err error) error {
	d.from.broke.Store(true)
	d.flow.first.CompareAndSwap(nil, d.from)
	_ = d.to.conn.SetReadDeadline(past)
	_ = d.from.conn.SetWriteDeadline(past)
	return fmt.Errorf("%s: %w", d.from.name, err)
}

// write brings bytes to the other side. If it can't, the opposite direction is left alone: it delivers what had been
// received before and then ends by itself, since the stream of a dead socket ends.
func (d *direction) write(p []byte) error {
	d.to.writing.Lock()
	defer d.to.writing.Unlock()
	n, err := d.to.conn.Write(p)
	d.moved.Add(int64(n))
	if err == nil || errors.Is(err, os.ErrDeadlineExceeded) {
		return err
	}
	// EPIPE comes from a side that had ended its stream in order and then closed: no reason to cut the opposite one.
	if !errors.Is(err, syscall.EPIPE) {
		d.to.broke.Store(true)
	}
	d.flow.first.CompareAndSwap(nil, d.to)
	return fmt.Errorf("%s: %w", d.to.name, err)
}

// wasCut tells, at the end of a side's stream, whether it is a cut one. The kernel reports a reset to one system call
// only: if that was a write, reads just see an end. The write's result is waited for, which takes no time on a socket
// that is dead.
func (s *side) wasCut() bool {
	if isDead(descriptorOf(s.conn)) {
		s.writing.Lock()
		defer s.writing.Unlock()
	}
	return s.broke.Load()
}

// close is the flow's end: both directions have stopped.
func (f *Flow) close() {
	f.mu.Lock()
	cause, aborted, drainBy := f.cause, f.aborted, f.drainBy
	// From here on an Abort comes too late.
	f.aborted = true
	f.mu.Unlock()
	client, server := f.client.conn, f.server.conn
	switch {
	case aborted:
		hangUp(server, 0)
		retire(client, time.Until(drainBy))
	case f.client.broke.Load():
		hangUp(client, 0)
		hangUp(server, DrainLimit)
	case f.server.broke.Load():
		hangUp(server, 0)
		hangUp(client, DrainLimit)
	case cause != nil:
		retire(client, DrainLimit)
		retire(server, DrainLimit)
	default:
		_ = client.Close()
		_ = server.Close()
	}
	if f.end != nil {
		f.end(End{Cause: cause, Aborted: aborted, ClientBroke: !aborted && f.client.broke.Load(), ServerBroke: !aborted && f.server.broke.Load(),
			ServerFirst: !aborted && f.first.Load() == &f.server, ToServer: f.toServer.Load(), ToClient: f.toClient.Load()})
	}
}

// descriptorOf gives the descriptor of a connection, for calls that don't keep it; -1 if it is closed.
func descriptorOf(conn *net.TCPConn) int {
	own := -1
	if raw, err := conn.SyscallConn(); err == nil {
		_ = raw.Control(func(fd uintptr) { own = int(fd) })
	}
	return own
}

// hangUp closes a connection with RST, after waiting up to limit for the peer to get what was written; the rest is dropped.
func hangUp(conn *net.TCPConn, limit time.Duration) {
	delivered(descriptorOf(conn), limit)
	_ = conn.SetLinger(0)
	_ = conn.Close()
}

// retire ends our stream to a peer and closes once the peer's kernel has all of it.
func retire(conn *net.TCPConn, limit time.Duration) {
	_ = conn.CloseWrite()
	delivered(descriptorOf(conn), limit)
	_ = conn.Close()
}

// reader reads from a socket into a pooled buffer that is taken only when there is something to read.
type reader struct {
	raw     syscall.RawConn
	attempt func(fd uintptr) bool
	buffer  *buffer
	n       int
	err     error
}

// read waits for bytes. On success the buffer is the caller's to put back; at the stream's end n is 0 and there is none.
func (r *reader) read() (*buffer, int, error) {
	if err := r.raw.Read(r.attempt); err != nil {
		return nil, 0, err
	}
	b, n, err := r.buffer, r.n, r.err
	r.buffer = nil
	if n <= 0 {
		buffers.Put(b)
		return nil, 0, err
	}
	return b, n, nil
}

// try reads once; false means that there is nothing yet, and that the runtime is to call again when there is.
func (r *reader) try(fd uintptr) bool {
	r.buffer = buffers.Get().(*buffer)
	r.n, r.err = readSocket(fd, r.buffer[:])
	if r.err == errNothingYet {
		buffers.Put(r.buffer)
		r.buffer = nil
		return false
	}
	if r.err != nil {
		r.err = os.NewSyscallError("read", r.err)
	}
	return true
}
