//go:build !linux || portable

package proxy

import (
	"net"
	"time"

	"github.com/pgporter/pgporter/internal/handover"
)

// door is a listening socket of ours.
type door struct{ socket *net.TCPListener }

func newDoor(socket *net.TCPListener) (*door, error) { return &door{socket}, nil }

// set runs a function on the socket.
func (o *door) set(f func(fd uintptr) error) {
	if raw, err := o.socket.SyscallConn(); err == nil {
		_ = raw.Control(func(fd uintptr) { _ = f(fd) })
	}
}

func (o *door) close() { _ = o.socket.Close() }

// pause wakes who waits for a client; resume lets clients be waited for again.
func (o *door) pause()  { _ = o.socket.SetDeadline(past) }
func (o *door) resume() { _ = o.socket.SetDeadline(time.Time{}) }

// duplicate gives a descriptor of the socket that is the caller's.
func (o *door) duplicate() (int, error) { return handover.Duplicate(o.socket) }

// take waits for a client and has it led.
func (l *listener) take(<-chan struct{}) error {
	conn, err := l.door.socket.AcceptTCP()
	if err == nil {
		l.serves.Load().admit(conn)
	}
	return err
}

// drain takes the clients that wait now.
func (l *listener) drain(to func(conn *net.TCPConn)) {
	// The deadline ends the loop when nobody waits any more; a passed one would not even look.
	for l.door.socket.SetDeadline(time.Now().Add(2*time.Millisecond)) == nil {
		conn, err := l.door.socket.AcceptTCP()
		if err != nil {
			break
		}
		to(conn)
	}
	_ = l.door.socket.SetDeadline(time.Time{})
}
