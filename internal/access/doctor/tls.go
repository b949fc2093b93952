package doctor

import (
	"context"
	"crypto/tls"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"time"
)

// sslRequest is the code by which a client asks for TLS (PostgreSQL's manual, "Message Formats", SSLRequest).
const sslRequest = 80877103

// errOnce refuses a second connection of a probe: it asks once, and has nothing to cancel.
var errOnce = errors.New("a probe connects once")

// negotiation asks for TLS on the connection that is then used, whatever the answer: a client that dials anew without TLS
// would wait twice where a pgporter holds it.
type negotiation struct {
	with *tls.Config
	// optional says that a server without TLS will do.
	optional bool
	dialled  bool
}

// dial is a pgconn.DialFunc.
func (n *negotiation) dial(ctx context.Context, network, address string) (net.Conn, error) {
	if n.dialled {
		return nil, errOnce
	}
	var dialer net.Dialer
	conn, err := dialer.DialContext(ctx, network, address)
	if err != nil {
		return nil, err
	}
	n.dialled = true
	conn = &bounded{Conn: conn, left: mostRead}
	if n.with == nil {
		return conn, nil
	}
	stop := context.AfterFunc(ctx, func() {
		// Whatever waits for the connection is to end.
		_ = conn.SetDeadline(time.Unix(1, 0))
	})
	defer stop()
	secured, err := n.ask(ctx, conn)
	if err != nil {
		conn.Close()
		return nil, err
	}
	return secured, nil
}

func (n *negotiation) ask(ctx context.Context, conn net.Conn) (net.Conn, error) {
	request := binary.BigEndian.AppendUint32(binary.BigEndian.AppendUint32(nil, 8), sslRequest)
	if _, err := conn.Write(request); err != nil {
		return nil, err
	}
	answer := make([]byte, 1)
	if _, err := io.ReadFull(conn, answer); err != nil {
		return nil, err
	}
	switch {
	case answer[0] == 'S':
		encrypted := tls.Client(conn, n.with)
		if err := encrypted.HandshakeContext(ctx); err != nil {
			return nil, fmt.Errorf("TLS: %w", err)
		}
		return encrypted, nil
	case answer[0] == 'N' && n.optional:
		return conn, nil
	case answer[0] == 'N':
		return nil, errors.New("TLS is asked for (PGSSLMODE), and there is none")
	case answer[0] == 'E':
		// An error instead of an answer is read by who reads the rest.
		return &begun{Conn: conn, read: answer}, nil
	}
	return nil, fmt.Errorf("the answer to a request for TLS is %q", answer)
}

// mostRead is how much is read of one server: what is asked for is some hundred bytes, a server's words and certificates some
// thousand.
const mostRead = 1 << 20

// errTooMuch ends a conversation with a server that doesn't stop.
var errTooMuch = fmt.Errorf("the server sends more than %d bytes", mostRead)

// bounded is a connection of which only so much is read.
type bounded struct {
	net.Conn
	left int
}

func (b *bounded) Read(p []byte) (int, error) {
	if b.left <= 0 {
		return 0, errTooMuch
	}
	n, err := b.Conn.Read(p[:min(len(p), b.left)])
	b.left -= n
	return n, err
}

// begun is a connection of which the first bytes have been read.
type begun struct {
	net.Conn
	read []byte
}

func (b *begun) Read(p []byte) (int, error) {
	if len(b.read) > 0 {
		n := copy(p, b.read)
		b.read = b.read[n:]
		return n, nil
	}
	return b.Conn.Read(p)
}
