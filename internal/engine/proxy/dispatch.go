package proxy

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"syscall"
	"time"

	"github.com/pgporter/pgporter/internal/engine/balance"
	"github.com/pgporter/pgporter/internal/engine/relay"
)

// This is a client's way from accept to relay, from top to bottom, as a goroutine goes it. On Linux the fast path goes it first, and
// comes here with what isn't plain (fastpath_linux.go).

var (
	// errUnwanted ends an attempt whose server may not take new clients any more.
	errUnwanted = errors.New("the server may not take new clients any more")
	// errAnother ends an attempt whose client wants something else now.
	errAnother = errors.New("the client wants something else")
)

// admit takes charge of a client that was accepted.
func (d *dispatcher) admit(conn *net.TCPConn) {
	if !d.admitsConn(conn) {
		return
	}
	d.slots.take()
	d.begin(newClient(conn, d.tickets.Add(1)))
}

// begin has a client, which has a slot, served by a goroutine.
func (d *dispatcher) begin(c *client) {
	d.engine.dispatching.add(1)
	d.engine.serving.Go(func() { d.serve(c) })
}

// serve connects a client with a server, or refuses it.
func (d *dispatcher) serve(c *client) { d.settle(c, d.dispatch(c)) }

// dispatch hears what a client wants and connects it with a server. It returns nil once a session has started, which then owns
// the client. Otherwise it says why there is none: a *refusal is for the client to be told, and nothing but encryption that
// a server declined has been answered to it then; any other error is of a client that needs no answer.
func (d *dispatcher) dispatch(c *client) error {
	if err := d.hear(c); err != nil {
		if d.here.Err() != nil {
			return shortage{gone: context.Cause(d.here)}.refusal(d.name, nil)
		}
		return err
	}
	return d.connect(c, nil)
}

// hear finds out what a client wants.
func (d *dispatcher) hear(c *client) error {
	hear := d.protocol().hear
	if hear == nil {
		c.kind = notStartup
		return nil
	}
	return d.listen(c, func() error { return hear(d.here, c) })
}

// connect is dispatch for a client that was heard, and may have been given a server already.
func (d *dispatcher) connect(c *client, s *session) error {
	for {
		if s == nil && c.kind == cancelRequest {
			return errCancel
		}
		if s == nil {
			var err error
			if s, err = d.assign(c); err != nil {
				return err
			}
		}
		err := d.attempt(c, s)
		if err == nil {
			return nil
		}
		if err = d.judge(c, s, err); err != nil {
			return err
		}
		s = nil
	}
}

// assign finds a server for a client: at once if there is one, and otherwise by waiting for its turn within the hold. It
// ends with a *refusal, or errLeft.
func (d *dispatcher) assign(c *client) (*session, error) {
	s, waiter, short := d.queue.enter(c, nil, c.wake)
	if waiter != nil {
		left := c.awaitTurn()
		s = d.queue.leave(waiter)
		// Nobody ends its wait from now on.
		_ = c.conn.SetReadDeadline(time.Time{})
		if left != nil {
			if s != nil {
				d.release(s, left)
			}
			return nil, left
		}
		if s == nil {
			s, short = d.sessions.register(c, nil)
		}
	}
	if s == nil {
		return nil, d.refusal(c, short)
	}
	return s, nil
}

// refusal is what a client is told of a shortage, with how long it has waited if that was all it could.
func (d *dispatcher) refusal(c *client, short shortage) *refusal {
	no := short.refusal(d.name, c.failures)
	if short.gone == nil && c.expired {
		no.message += fmt.Sprintf(" (waited %s)", d.waited(c, time.Now()))
		if c.held != "" {
			no.message += ", it was " + c.held
		}
	}
	return no
}

// waited is how long a client has waited, which is the hold as a rule.
func (d *dispatcher) waited(c *client, now time.Time) time.Duration {
	waited, hold := now.Sub(c.waits), d.protocol().hold
	if hold > 0 && waited < hold+time.Second && waited >= hold {
		return hold
	}
	return waited.Round(100 * time.Millisecond)
}

// attempt connects a client with the server that was picked for it. If that fails the session is forgotten.
func (d *dispatcher) attempt(c *client, s *session) error {
	d.sessions.connect(s)
	dialer := net.Dialer{Timeout: d.protocol().connectTimeout, KeepAlive: -1}
	slow := time.AfterFunc(responseCheck, func() { d.protocol().doubt(d.name, s.member) })
	server, err := dialer.DialContext(s.connecting, "tcp", s.address)
	slow.Stop()
	if err == nil {
		s.connected = time.Now()
		if err = d.open(c, s, server.(*net.TCPConn)); err == nil {
			return nil
		}
		_ = server.Close()
	} else if s.connecting.Err() != nil {
		err = errUnwanted
	}
	d.release(s, err)
	return err
}

// open uses a connection to a server for a client: what the service's options have it begin with, then what the client says.
func (d *dispatcher) open(c *client, s *session, server *net.TCPConn) error {
	header, err := c.proxyHeader(s.header)
	if err != nil {
		return err
	}
	if len(header) > 0 {
		// A new connection's buffer takes it at once.
		if _, err := server.Write(header); err != nil {
			return s.closedEarly(err)
		}
	}
	return d.startup(c, s, server)
}

// startup brings what a client says before its authentication to a server, packet by packet, and starts the session as
// soon as the server's first response shows that it has taken the client up. Until then the client hasn't heard of this server, so
// that any failure (the returned error) leaves it free to be connected with another. What can't be read, which includes everything
// after encryption was agreed on, is the session's business from the first byte. With an error the server is the caller's
// to close.
func (d *dispatcher) startup(c *client, s *session, server *net.TCPConn) error {
	stop := context.AfterFunc(s.connecting, func() { _ = server.SetDeadline(past) })
	defer stop()
	for {
		var response []byte
		if c.kind != notStartup && d.protocol().waits() {
			var err error
			if response, err = d.exchange(c, s, server); err != nil {
				return err
			}
		}
		if len(response) == 1 && response[0] == declined && c.kind != startupMessage {
			// The client may take its time for the next packet.
			d.backoff.yield(s)
			d.queue.letIn()
			if err := d.listen(c, func() error { return c.decline(d.here, d.engine.cfg.OpeningTimeout) }); err != nil {
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
		return d.start(c, s, server, response)
	}
}

// start begins to move bytes. The server has had the client's packet if there is a response.
func (d *dispatcher) start(c *client, s *session, server *net.TCPConn, response []byte) error {
	err := d.sessions.start(s, func() (*relay.Flow, error) {
		pair := relay.Pair{Shared: c.shared, ToClient: response, SentToServer: c.toServer, SentToClient: c.toClient}
		var err error
		if pair.Server, err = relay.Descriptor(server); err != nil {
			return nil, err
		}
		if response != nil {
			err = c.take()
			pair.SentToServer += int64(len(c.packet))
		}
		if err == nil {
			pair.Client, err = relay.Descriptor(c.conn)
		}
		if err != nil {
			relay.Discard(pair.Server)
			return nil, err
		}
		d.logBegan(s, pair.Client, pair.Server)
		return d.relay(s, pair), nil
	})
	if err == nil {
		d.arrived(s.member)
	}
	return err
}

// relay has a session's bytes moved. The sessions' lock is held, so that the flow doesn't end before the session knows it.
func (d *dispatcher) relay(s *session, pair relay.Pair) *relay.Flow {
	// Until the flow's end the client counts as one that is served.
	d.engine.serving.Add(1)
	return d.engine.relay.Start(pair, d.onEnd(s))
}

// onEnd is what follows the end of a session's flow.
func (d *dispatcher) onEnd(s *session) func(relay.End) {
	return func(end relay.End) {
		defer d.engine.serving.Done()
		d.ended(s, end)
	}
}

// ended notes the end of a session's flow.
func (d *dispatcher) ended(s *session, end relay.End) {
	if successor := d.sessions.ended(s, end); successor != nil {
		successor.ended(s, end)
		return
	}
	d.queue.letIn()
	d.logEnd(s, end)
	if end.ServerBroke {
		d.protocol().recheck(s.member)
	}
	if !d.engine.log.Enabled(context.Background(), slog.LevelDebug) {
		return
	}
	d.engine.log.Debug("session ended", "service", d.name, "server", s.member, "client", s.client.String(),
		"duration", time.Since(s.began).Round(time.Millisecond), "to_server", end.ToServer, "to_client", end.ToClient, "cause", end.Cause)
}

// What follows is for clients that don't come through.

// release forgets a session after an attempt's error.
func (d *dispatcher) release(s *session, err error) {
	failed := isFailure(err)
	// Before there is room for another one: that one isn't to try a server that has just failed.
	if failed && d.protocol().waits() {
		d.backoff.fail(s)
	} else {
		d.backoff.yield(s)
	}
	d.sessions.release(s, failed)
	d.queue.letIn()
}

// arrived notes that a server has taken a client, or at least hasn't failed it at once: others that wait may follow.
func (d *dispatcher) arrived(member string) {
	d.backoff.reset(member)
	d.queue.letIn()
}

// judge says what the error of an attempt means for the client: nil if it is to be given a server again.
func (d *dispatcher) judge(c *client, s *session, err error) error {
	switch {
	case errors.Is(err, errUnwanted), errors.Is(err, errAnother):
		return nil
	case errors.Is(err, errLeft), errors.Is(err, errSilent):
		return err
	case ours(err):
		return &refusal{code: codeTooManyConnections, message: fmt.Sprintf("pgporter cannot connect to a server of service %s now", d.name),
			detail: fmt.Sprintf("%s: %v", s.member, plain(err))}
	}
	c.noteFailure(s.member, err)
	d.protocol().recheck(s.member)
	d.complain(s, err)
	if d.protocol().once {
		return shortage{svc: d.view(), outcome: balance.None}.refusal(d.name, c.failures)
	}
	return nil
}

// complain tells of a failed attempt, at most once a second.
func (d *dispatcher) complain(s *session, err error) {
	if say, missed := d.complaints.ready(time.Now()); say {
		d.engine.log.Warn("a server that its check calls up takes no client", "service", d.name, "server", s.member,
			"address", s.address, "error", plain(err), "failures_since_last_line", missed+1)
	}
}

// isFailure tells whether an attempt's error is the server's.
func isFailure(err error) bool {
	for _, other := range []error{errUnwanted, errAnother, errLeft, errSilent} {
		if errors.Is(err, other) {
			return false
		}
	}
	return !ours(err)
}

// ours tells whether a connect failed for a lack on this node, which says nothing of the server.
func ours(err error) bool {
	for _, lack := range []error{syscall.EMFILE, syscall.ENFILE, syscall.ENOBUFS, syscall.ENOMEM, syscall.EADDRNOTAVAIL} {
		if errors.Is(err, lack) {
			return true
		}
	}
	return false
}

// settle is what dispatch's outcome means for the client.
func (d *dispatcher) settle(c *client, err error) {
	parked := err != nil && d.park(c)
	d.engine.dispatching.add(-1)
	if err == nil || parked {
		return
	}
	var no *refusal
	if errors.Is(err, errCancel) {
		d.cancel(c)
	} else if errors.As(err, &no) {
		d.sessions.refused()
		d.protocol().reject(d.service, c, no)
	} else {
		c.close()
		d.engine.log.Debug("a client went without a session", "service", d.name, "client", c.from.String(), "reason", err)
	}
	d.slots.leave()
}
