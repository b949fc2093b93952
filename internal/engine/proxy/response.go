package proxy

import (
	"context"
	"errors"
	"net"
	"os"
	"time"

	"github.com/pgporter/pgporter/internal/engine/relay"
)

var (
	// errUnwanted ends an attempt whose server may not take new clients any more.
	errUnwanted = errors.New("the server may not take new clients any more")
	// errAnother ends an attempt whose client wants something else now.
	errAnother = errors.New("the client wants something else")
	// errClosedEarly is a server's that closed a connection without a word.
	errClosedEarly = errors.New("closed the connection before it had said anything")
)

// responseCheck is how often one looks up while waiting for a server's first word.
const responseCheck = 250 * time.Millisecond

// startup brings what a client says before its authentication to a server, packet by packet, and starts the session as
// soon as the server's answer shows that it has taken the client up. Until then the client hasn't heard of this server, so
// that any failure (the returned error) leaves it free to be led to another. What can't be read, which includes everything
// after encryption was agreed on, is the session's business from the first byte. With an error the server is the caller's
// to close.
func (d *dispatcher) startup(c *client, s *session, server *net.TCPConn) error {
	stop := context.AfterFunc(s.connecting, func() { _ = server.SetDeadline(past) })
	defer stop()
	for {
		var answer []byte
		if c.kind != notStartup && d.engine.cfg.Hold > 0 {
			var err error
			if answer, err = d.exchange(c, s, server); err != nil {
				return err
			}
		}
		if len(answer) == 1 && answer[0] == declined && c.kind != startupMessage {
			// The client may take its time for the next packet.
			d.mu.Lock()
			d.yield(s)
			d.letIn()
			d.mu.Unlock()
			if err := c.decline(d.here, d.engine.cfg.OpeningTimeout); err != nil {
				return err
			}
			if c.kind == cancelRequest {
				return errAnother
			}
			continue
		}
		if !stop() {
			return errUnwanted
		}
		_ = server.SetDeadline(time.Time{})
		return d.start(c, s, server, answer)
	}
}

// exchange passes the client's packet to a server and gives what the server says to it, unless that is a refusal of all
// clients: then it is the error.
func (d *dispatcher) exchange(c *client, s *session, server *net.TCPConn) ([]byte, error) {
	if _, err := server.Write(c.packet); err != nil {
		return nil, d.closedEarly(s, err)
	}
	answer := make([]byte, 0, 512)
	for {
		_ = server.SetReadDeadline(time.Now().Add(responseCheck))
		if s.connecting.Err() != nil {
			return nil, errUnwanted
		}
		n, err := server.Read(answer[len(answer):cap(answer)])
		answer = answer[:len(answer)+n]
		no, decided := firstResponse(answer)
		switch {
		case no != nil:
			return nil, no
		case decided, len(answer) == maxResponse:
			return answer, nil
		case len(answer) == cap(answer):
			answer = append(make([]byte, 0, maxResponse), answer...)
		}
		switch {
		case err == nil:
		case errors.Is(err, os.ErrDeadlineExceeded):
			if c.left() {
				return nil, errLeft
			}
			d.mu.Lock()
			d.reset(s.member)
			d.mu.Unlock()
		case len(answer) > 0:
			// It said something and closed: whatever it was, it is for the client.
			return answer, nil
		default:
			return nil, d.closedEarly(s, err)
		}
	}
}

// closedEarly names the error of a connection that ended before the server had said anything.
func (d *dispatcher) closedEarly(s *session, err error) error {
	if s.connecting.Err() != nil {
		return errUnwanted
	}
	if ours(err) {
		return err
	}
	return errClosedEarly
}

// start begins to move bytes, unless the newest View has something against the server: the watcher may be about to
// enforce it. The server has had the client's packet if there is an answer.
func (d *dispatcher) start(c *client, s *session, server *net.TCPConn, answer []byte) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if !d.stillWanted(s) {
		return errUnwanted
	}
	var pair relay.Pair
	var err error
	if pair.Server, err = relay.Descriptor(server); err != nil {
		return err
	}
	pair.Shared = c.shared
	pair.ToClient, pair.SentToServer, pair.SentToClient = answer, c.toServer, c.toClient
	if answer != nil {
		err = c.take()
		pair.SentToServer += int64(len(c.packet))
	}
	if err == nil {
		pair.Client, err = relay.Descriptor(c.conn)
	}
	if err != nil {
		relay.Discard(pair.Server)
		return err
	}
	d.startFlow(s, pair)
	d.started(s)
	return nil
}

// startFlow has a session's bytes moved. d.mu is held.
func (d *dispatcher) startFlow(s *session, pair relay.Pair) {
	// Until the flow's end the client counts as one that is served; it can't end before the lock is free.
	d.engine.serving.Add(1)
	s.flow = d.engine.relay.Start(pair, d.onEnd(s))
}

// stillWanted tells whether a session may begin now that its server has taken it. d.mu is held.
func (d *dispatcher) stillWanted(s *session) bool {
	return !s.ending && d.here.Err() == nil && objection(d.service(), s) == ""
}

// onEnd is what follows the end of a session's flow.
func (d *dispatcher) onEnd(s *session) func(relay.End) {
	return func(end relay.End) {
		defer d.engine.serving.Done()
		d.ended(s, end)
	}
}

// started notes that a session's flow has begun. d.mu is held.
func (d *dispatcher) started(s *session) {
	d.tally.began(s.member)
	if s.stop != nil {
		s.stop(nil)
	}
	s.connecting, s.stop = nil, nil
	d.reset(s.member)
}
