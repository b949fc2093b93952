package proxy

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"os"
	"time"
)

// errClosedEarly is a server's that closed a connection without a word.
var errClosedEarly = errors.New("closed the connection before it had said anything")

// responseCheck is how often whoever waits for a server's first response looks whether the client is still there.
const responseCheck = 250 * time.Millisecond

// exchange passes the client's packet to a server and gives what the server says to it, unless that is a refusal of all
// clients: then it is the error.
func (d *dispatcher) exchange(c *client, s *session, server *net.TCPConn) ([]byte, error) {
	if _, err := server.Write(c.packet); err != nil {
		return nil, s.closedEarly(err)
	}
	response := make([]byte, 0, 512)
	for {
		_ = server.SetReadDeadline(time.Now().Add(responseCheck))
		if s.connecting.Err() != nil {
			return nil, errUnwanted
		}
		n, err := server.Read(response[len(response):cap(response)])
		response = response[:len(response)+n]
		no, decided := firstResponse(response)
		switch {
		case no != nil:
			return nil, no
		case decided, len(response) == maxResponse:
			return response, nil
		case len(response) == cap(response):
			response = append(make([]byte, 0, maxResponse), response...)
		}
		switch {
		case err == nil:
		case errors.Is(err, os.ErrDeadlineExceeded):
			if c.left() {
				return nil, errLeft
			}
			d.keepsWaiting(s)
		case len(response) > 0:
			// It said something and closed: whatever it was, it is for the client.
			return response, nil
		default:
			return nil, s.closedEarly(err)
		}
	}
}

// keepsWaiting notes that a server hasn't responded for responseCheck: it doesn't fail its clients at once, but may hang.
func (d *dispatcher) keepsWaiting(s *session) {
	d.arrived(s.member)
	d.protocol().doubt(d.name, s.member)
}

// closedEarly names the error of a connection that ended before the server had said anything. Only whoever connects the session
// calls it.
func (s *session) closedEarly(err error) error {
	if s.connecting.Err() != nil {
		return errUnwanted
	}
	if ours(err) {
		return err
	}
	return errClosedEarly
}

// serverRefusal is a server's own refusal of a client.
type serverRefusal struct{ code, message string }

func (r *serverRefusal) Error() string {
	return fmt.Sprintf("refuses: %s (SQLSTATE %s)", r.message, r.code)
}

// firstResponse says what a server's first bytes mean. It is decided once they show that the server has taken the client up
// (asks for its password, declines it for a reason that another try wouldn't mend) or refuses all clients for now.
func firstResponse(p []byte) (no *serverRefusal, decided bool) {
	for {
		if len(p) == 0 {
			return nil, false
		}
		// What follows NegotiateProtocolVersion is the response.
		if p[0] != 'v' && p[0] != 'E' {
			return nil, true
		}
		if len(p) < 5 {
			return nil, false
		}
		length := binary.BigEndian.Uint32(p[1:5])
		switch {
		case length < 4 || length > maxResponse:
			return nil, true
		case int(length) >= len(p):
			return nil, false
		case p[0] == 'E':
			said := errorFields(p[5 : 1+length])
			if said['C'] != codeCannotConnectNow {
				return nil, true
			}
			return &serverRefusal{said['C'], said['M']}, true
		}
		p = p[1+length:]
	}
}

// maxResponse bounds what is looked at of a server's first response.
const maxResponse = 4 << 10

// errorFields reads the body of an ErrorResponse (PostgreSQL documentation, "Error and Notice Message Fields").
func errorFields(body []byte) map[byte]string {
	fields := map[byte]string{}
	for _, field := range bytes.Split(body, []byte{0}) {
		if len(field) > 1 {
			fields[field[0]] = string(field[1:])
		}
	}
	return fields
}
