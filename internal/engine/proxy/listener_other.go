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
	if err == nil {
		l.dispatcher.Load().admit(conn)
	}
	return err
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
