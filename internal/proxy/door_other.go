//go:build !linux || portable

package proxy

import (
	"net"
	"time"
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

// take waits for a client and has it led.
func (l *listener) take() error {
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
