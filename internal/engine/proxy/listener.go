package proxy

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strconv"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/pgporter/pgporter/internal/config/model"
)

// listenAddr is where a service listens.
type listenAddr = model.ListenAddr

// listenAddrOf reads a definition's address; "*" is what bind says.
func listenAddrOf(definition model.Definition, bind string) (listenAddr, error) {
	for _, ip := range []string{definition.IP, bind} {
		if ip != "*" && ip != "" {
			return model.ListenAddrOf(ip, definition.Port)
		}
	}
	return model.ListenAddrOf("*", definition.Port)
}

// covering finds the listener, of those given, that covers an address.
func covering(at listenAddr, listeners map[listenAddr]*listener) *listener {
	var found *listener
	for other, l := range listeners {
		if other.Covers(at) && (found == nil || found.addr.Covers(other)) {
			found = l
		}
	}
	return found
}

// BindError says why an address can't be listened on.
type BindError struct {
	// Address is ip:port, with * for every address.
	Address string
	// Holder says in words who has the address, as far as it can be known; empty if that isn't why.
	Holder string
	Err    error
}

// Error names the address, the reason and the holder.
func (b *BindError) Error() string {
	text := fmt.Sprintf("cannot listen on %s: %v", b.Address, plain(b.Err))
	if b.Holder != "" {
		text += ": " + b.Holder
	}
	return text
}

// Unwrap gives the system's error.
func (b *BindError) Unwrap() error { return b.Err }

// plain strips the operation and the address off a network error, where the message has them already.
func plain(err error) error {
	var errno syscall.Errno
	if errors.As(err, &errno) {
		return errno
	}
	return err
}

// open listens on an address, with SO_REUSEADDR (Go's default) but without SO_REUSEPORT: with that the kernel would split clients
// between us and another holder that sets it too. An address that overlaps some of our own that are about to go (`*` to an
// address of the node or back) is taken over; see takeOver.
func (c *Change) open(at listenAddr, kept map[listenAddr]bool) (*listener, error) {
	e := c.engine
	if socket := e.cfg.Inherited[at.String()]; socket != nil {
		delete(e.cfg.Inherited, at.String())
		return newListener(e, at, socket)
	}
	listen := func(at listenAddr) (*net.TCPListener, error) { return listenOn(at, nil) }
	if e.cfg.Steerable {
		listen = listenSteerable
	}
	socket, err := listen(at)
	if err == nil {
		return newListener(e, at, socket)
	}
	if errors.Is(err, syscall.EACCES) && at.Port < 1024 {
		return nil, &BindError{at.String(), "ports below 1024 need root or CAP_NET_BIND_SERVICE", err}
	}
	if !errors.Is(err, syscall.EADDRINUSE) {
		return nil, &BindError{at.String(), "", err}
	}
	var leaving []*listener
	for other, own := range e.listeners {
		switch {
		case !other.Overlaps(at):
		case kept[other]:
			return nil, &BindError{at.String(), fmt.Sprintf("service %s, which stays, listens on %s", own.dispatcher.Load().name, other), err}
		default:
			leaving = append(leaving, own)
		}
	}
	if len(leaving) == 0 {
		return nil, &BindError{at.String(), holder(at), err}
	}
	socket, err = takeOver(at, leaving)
	if err != nil {
		return nil, err
	}
	l, err := newListener(e, at, socket)
	if err != nil {
		return nil, err
	}
	if whole := covering(at, e.listeners); whole != nil {
		// From now on the kernel brings clients of this address here. Until the Commit they are the old listener's.
		l.assignTo(whole.dispatcher.Load())
		if e.phase == running {
			e.startAccepting(l)
		}
	}
	return l, nil
}

// Holder says in words who has an address that could not be listened on, as far as it can be known.
func Holder(address netip.AddrPort) string { return holder(overlapping(address)) }

// Listens tells whether a process is seen to listen on an address, or on every one.
func Listens(pid int, address netip.AddrPort) bool { return listens(pid, overlapping(address)) }

// Held is a listening socket and a process that has it open.
type Held struct {
	Inode string
	PID   int
	// FD is its number there, Command what the process is called.
	FD      int
	Command string
}

// HeldAt finds the sockets that listen at an address and at no other, with each process that is seen to have them open, which takes
// the rights to look into it. Sockets that nobody is seen to have come with PID 0. "*" is every address of either family.
func HeldAt(at model.ListenAddr) []Held { return heldAt(at) }

func overlapping(address netip.AddrPort) listenAddr {
	at := listenAddr{Addr: address.Addr().WithZone("").Unmap(), Port: address.Port()}
	if at.Addr.IsUnspecified() {
		at.Addr = netip.Addr{}
	}
	return at
}

// listenOn opens a socket. prepare, if any, is run on it before it is bound.
func listenOn(at listenAddr, prepare func(fd uintptr) error) (*net.TCPListener, error) {
	network, host := "tcp", ""
	if !at.Every() {
		network, host = "tcp4", at.Addr.String()
		if at.Addr.Is6() {
			network = "tcp6"
		}
	}
	config := net.ListenConfig{
		// The relay sets its own.
		KeepAliveConfig: net.KeepAliveConfig{Enable: false},
		KeepAlive:       -1,
		Control: func(_, _ string, raw syscall.RawConn) error {
			var failed error
			err := raw.Control(func(fd uintptr) {
				if failed = allowMissingAddress(fd, !at.Every() && at.Addr.Is6()); failed == nil && prepare != nil {
					failed = prepare(fd)
				}
			})
			return errors.Join(err, failed)
		},
	}
	// Go's default is MPTCP, and the kernel doesn't steer between its sockets and others at one address (SO_ATTACH_REUSEPORT_CBPF).
	config.SetMultipathTCP(false)
	l, err := config.Listen(context.Background(), network, net.JoinHostPort(host, strconv.Itoa(int(at.Port))))
	if err != nil {
		return nil, err
	}
	return l.(*net.TCPListener), nil
}

// listener is an open address. It outlives Changes that keep it.
type listener struct {
	engine     *Engine
	addr       listenAddr
	socket     *listenSocket
	dispatcher atomic.Pointer[dispatcher]

	// halt ends accept and leaves the socket open; nil while it doesn't run. The engine's lock guards it.
	halt chan struct{}

	closeOnce sync.Once
	closed    chan struct{}
}

// newListener takes over a listening socket.
func newListener(e *Engine, at listenAddr, socket *net.TCPListener) (*listener, error) {
	own, err := newListenSocket(socket)
	if err != nil {
		return nil, &BindError{at.String(), "", err}
	}
	return &listener{engine: e, addr: at, socket: own, closed: make(chan struct{})}, nil
}

// assignTo makes d the dispatcher of the clients that are accepted from now on.
func (l *listener) assignTo(d *dispatcher) {
	if old := l.dispatcher.Swap(d); old != nil && old != d {
		old.slots.wake()
		old.lobby.wake()
	}
}

// close stops accepting; clients in the backlog are reset by the kernel.
func (l *listener) close() {
	l.closeOnce.Do(func() {
		close(l.closed)
		l.socket.close()
	})
}

// pause ends accept. The engine's lock is held.
func (l *listener) pause() {
	if l.halt != nil {
		close(l.halt)
		l.halt = nil
	}
}

// accept takes clients while there is room, until the listener is closed or halt is. Those beyond a service's maxconn, or the engine's
// slots, wait in the lobby, and beyond that in the kernel's backlog, as they do with HAProxy.
func (l *listener) accept(halt <-chan struct{}) {
	var complaints throttle
	backOff, failed := time.Duration(0), time.Time{}
	for l.waitForRoom(halt) {
		err := l.acceptClients(halt)
		if err == nil {
			continue
		}
		if errors.Is(err, net.ErrClosed) {
			return
		}
		// Out of descriptors or memory as a rule (a client that left again is no error): it may pass, so go on.
		now := time.Now()
		if now.Sub(failed) > time.Second {
			backOff = 0
		}
		failed = now
		backOff = min(max(2*backOff, 5*time.Millisecond), 500*time.Millisecond)
		if say, missed := complaints.ready(now); say {
			l.engine.log.Error("cannot accept clients, trying again", "address", l.addr.String(), "error", plain(err), "failures_since_last_line", missed+1)
		}
		select {
		case <-time.After(backOff):
		case <-halt:
		case <-l.closed:
		}
	}
}

// waitForRoom returns once there is room for a client; false when the listener was closed, or halt.
func (l *listener) waitForRoom(halt <-chan struct{}) bool {
	for {
		room, slot, place := l.dispatcher.Load().room()
		select {
		case <-l.closed:
			return false
		case <-halt:
			return false
		default:
		}
		if room {
			return true
		}
		select {
		case <-slot:
		case <-place:
		case <-halt:
			return false
		case <-l.closed:
			return false
		}
	}
}

// passBacklog empties the backlog of a listener for every address before it is closed: each client goes to who serves its
// address in listeners, and is closed if nobody does. New clients of those addresses don't come here any more, since the
// kernel prefers the listener whose address says more.
func (l *listener) passBacklog(listeners map[listenAddr]*listener) {
	l.drain(func(conn *net.TCPConn) {
		local := conn.LocalAddr().(*net.TCPAddr).AddrPort()
		meant := listenAddr{Addr: local.Addr().Unmap(), Port: local.Port()}
		to := listeners[meant]
		if to == nil {
			to = covering(meant, listeners)
		}
		if to == nil {
			_ = conn.Close()
			return
		}
		to.dispatcher.Load().admit(conn)
	})
}

// throttle lets one message a second through. It may be used by several goroutines.
type throttle struct {
	mu     sync.Mutex
	last   time.Time
	missed int
}

// ready tells whether to say something now, and how much wasn't said since the last time.
func (t *throttle) ready(now time.Time) (say bool, missed int) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if !t.last.IsZero() && now.Sub(t.last) < time.Second {
		t.missed++
		return false, 0
	}
	missed = t.missed
	t.last, t.missed = now, 0
	return true, missed
}
