//go:build linux && !portable

package proxy

import (
	"net"
	"os"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/pgporter/pgporter/internal/engine/handover"
	"github.com/pgporter/pgporter/internal/engine/relay"
)

// listenSocket is a listening socket of ours. It is in the epolls of the relay's loops (EPOLLEXCLUSIVE), one of which accepts a
// client, and not in the runtime's, which would wake up a thread of its own for each.
type listenSocket struct {
	// mu is held for reading by a loop that accepts clients.
	mu sync.RWMutex
	// fd is -1 once the socket is closed.
	fd int
	// flows announce clients that wait in the backlog, one in each loop; nil while nobody is to be accepted.
	flows []*relay.Flow
	// stopped gets why no more are taken.
	stopped chan error
}

// newListenSocket takes a listening socket out of the runtime's hands. With an error it is closed.
func newListenSocket(socket *net.TCPListener) (*listenSocket, error) {
	defer socket.Close()
	fd, err := handover.Duplicate(socket)
	if err != nil {
		return nil, os.NewSyscallError("fcntl", err)
	}
	relay.PrepareListener(fd)
	return &listenSocket{fd: fd, stopped: make(chan error, 1)}, nil
}

// SyscallConn gives access to the descriptor.
func (o *listenSocket) SyscallConn() (syscall.RawConn, error) { return o, nil }

// Control runs a function on the descriptor, which stays open meanwhile.
func (o *listenSocket) Control(f func(fd uintptr)) error {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.fd < 0 {
		return net.ErrClosed
	}
	f(uintptr(o.fd))
	return nil
}

// Read and Write are what a listening socket has not.
func (o *listenSocket) Read(func(uintptr) bool) error { return syscall.EINVAL }

// Write is like Read.
func (o *listenSocket) Write(func(uintptr) bool) error { return syscall.EINVAL }

func (o *listenSocket) close() {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.fd >= 0 {
		o.unwatch()
		relay.Discard(o.fd)
		o.fd = -1
	}
}

// unwatch takes the socket out of the epolls (EPOLL_CTL_DEL): no more clients are accepted. o.mu is held.
func (o *listenSocket) unwatch() {
	for _, w := range o.flows {
		w.Drop()
	}
	o.flows = nil
}

// acceptClients has clients accepted and connected until there is no room for another one, or halt is closed, which are no errors.
func (l *listener) acceptClients(halt <-chan struct{}) error {
	o := l.socket
	if err := o.open(&l.engine.relay, l.admitBatch); err != nil {
		return err
	}
	select {
	case err := <-o.stopped:
		return err
	case <-halt:
	case <-l.closed:
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	o.unwatch()
	select {
	case <-o.stopped: // at the same time
	default:
	}
	return nil
}

// open has clients that wait accepted by arrived, which says whether that is over, and why.
func (o *listenSocket) open(r *relay.Relay, arrived func(affinity *relay.Flow) (over bool, err error)) (err error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.fd < 0 {
		return net.ErrClosed
	}
	o.flows, err = r.WatchListener(o.fd, func(affinity *relay.Flow) {
		o.mu.RLock()
		over, err := false, error(nil)
		if o.flows != nil {
			over, err = arrived(affinity)
		}
		o.mu.RUnlock()
		if !over {
			return
		}
		o.mu.Lock()
		defer o.mu.Unlock()
		if o.flows != nil {
			o.unwatch()
			o.stopped <- err
		}
	})
	return err
}

// acceptBatch is how many clients are accepted before sessions have their turn again.
const acceptBatch = 32

// admitBatch accepts clients that wait, until there is no room for one or none can be accepted. The socket's lock is held for reading.
func (l *listener) admitBatch(affinity *relay.Flow) (over bool, err error) {
	for range acceptBatch {
		d := l.dispatcher.Load()
		if !d.passes() || !d.slots.reserve() {
			return l.admitToLobby(d)
		}
		fd, from, err := acceptFrom(l.socket.fd)
		if err != nil {
			d.slots.free()
			if err == errNothingYet {
				return false, nil
			}
			return true, err
		}
		now := time.Now()
		if !d.admits(from.Addr(), now) {
			resetClient(fd)
			d.slots.free()
			continue
		}
		d.fast.begin(d, fd, from, now, affinity)
	}
	return false, nil
}

// resetClient closes a client's socket with a reset, which leaves nothing of it (TIME_WAIT) on this node.
func resetClient(fd int) {
	_ = unix.SetsockoptLinger(fd, unix.SOL_SOCKET, unix.SO_LINGER, &unix.Linger{Onoff: 1})
	relay.Discard(fd)
}

// admitToLobby is admitBatch for one client that gets no slot at once.
func (l *listener) admitToLobby(d *dispatcher) (over bool, err error) {
	if !d.hears() || !d.lobby.reserve() {
		return true, nil
	}
	fd, from, err := acceptFrom(l.socket.fd)
	if err == nil && !d.admits(from.Addr(), time.Now()) {
		resetClient(fd)
		d.lobby.free()
		return false, nil
	}
	if err == nil {
		var conn *net.TCPConn
		if conn, err = connection(fd, func(error) {}); err == nil {
			d.attend(conn)
			return false, nil
		}
	}
	d.lobby.free()
	if err == errNothingYet {
		return false, nil
	}
	return true, err
}

// drain takes the clients that wait now, and nobody afterwards.
func (l *listener) drain(to func(conn *net.TCPConn)) {
	o := l.socket
	o.mu.Lock()
	defer o.mu.Unlock()
	o.unwatch()
	for o.fd >= 0 {
		fd, _, err := acceptFrom(o.fd)
		if err != nil {
			return
		}
		if conn, err := connection(fd, func(error) {}); err == nil {
			to(conn)
		}
	}
}
