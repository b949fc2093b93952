//go:build !linux || portable

package proxy

import (
	"net"
	"time"
)

// door is a listening socket of ours.
type door struct{ *net.TCPListener }

func newDoor(socket *net.TCPListener) (*door, error) { return &door{socket}, nil }

func (o *door) close() { _ = o.Close() }

// take waits for a client and has it led. Nothing halts a listener here: see relay.Detaches.
func (l *listener) take(<-chan struct{}) error {
	conn, err := l.door.AcceptTCP()
	if err == nil {
		l.serves.Load().admit(conn)
	}
	return err
}

// drain takes the clients that wait now.
func (l *listener) drain(to func(conn *net.TCPConn)) {
	// The deadline ends the loop when nobody waits any more; a passed one would not even look.
	for l.door.SetDeadline(time.Now().Add(2*time.Millisecond)) == nil {
		conn, err := l.door.AcceptTCP()
		if err != nil {
			break
		}
		to(conn)
	}
	_ = l.door.SetDeadline(time.Time{})
}
