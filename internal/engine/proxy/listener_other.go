//go:build !linux || portable

package proxy

import (
	"net"
	"time"
)

// listenSocket is a listening socket of ours.
type listenSocket struct{ *net.TCPListener }

func newListenSocket(socket *net.TCPListener) (*listenSocket, error) {
	return &listenSocket{socket}, nil
}

func (o *listenSocket) close() { _ = o.Close() }

// acceptClients waits for a client and has it served. Nothing halts a listener here: see relay.Detaches.
func (l *listener) acceptClients(<-chan struct{}) error {
	conn, err := l.socket.AcceptTCP()
	if err != nil {
		return err
	}
	d := l.dispatcher.Load()
	switch {
	case !d.admitsConn(conn):
	case d.passes() && d.slots.reserve():
		d.slots.arrived()
		d.begin(newClient(conn, d.tickets.Add(1)))
	case d.hears() && d.lobby.reserve():
		d.attend(conn)
	default:
		// There was room for it before it was accepted.
		d.slots.take()
		d.begin(newClient(conn, d.tickets.Add(1)))
	}
	return nil
}

// drain takes the clients that wait now.
func (l *listener) drain(to func(conn *net.TCPConn)) {
	// The deadline ends the loop when nobody waits any more; a passed one would not even look.
	for l.socket.SetDeadline(time.Now().Add(2*time.Millisecond)) == nil {
		conn, err := l.socket.AcceptTCP()
		if err != nil {
			break
		}
		to(conn)
	}
	_ = l.socket.SetDeadline(time.Time{})
}
