package proxy

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/pgporter/pgporter/internal/engine/balance"
	"github.com/pgporter/pgporter/internal/engine/relay"
	"github.com/pgporter/pgporter/internal/monitor/view"
)

// dispatcher leads the clients of one service to its servers, and watches over their sessions. It outlives Changes that
// keep the service.
type dispatcher struct {
	engine *Engine
	// name is the service's full name.
	name     string
	assigned atomic.Pointer[assignment]
	// here ends when the service is no longer offered, or the engine is over.
	here context.Context
	gone context.CancelCauseFunc
	// beats counts the times that watch has gone round.
	beats atomic.Uint64

	mu       sync.Mutex
	picker   balance.Picker
	sessions map[*session]struct{}
	// clients are all that were accepted and haven't left: sessions, and those being led, held or refused. tickets
	// numbers them in the order in which they come.
	clients count
	tickets uint64
	// connectors lead the clients that are on their way to a session and have no goroutine; sweeping says that somebody looks at
	// how long that takes.
	connectors map[*connector]struct{}
	sweeping   bool
	// queue wait for a server, in the order in which they came; queued tells the watcher that somebody joined them.
	queue  []*waiter
	joined chan struct{}
	// parked are clients that were stopped on their way because the engine is being Frozen.
	parked []*client
	// successor goes on with the service after a Freeze that failed: it has the sessions, and gets clients that stop only now.
	successor *dispatcher
	// usable says that the newest View that was looked at had a server for new clients, lost when that ended.
	usable bool
	lost   time.Time
	// asked is when servers were last asked to be checked because clients wait.
	asked time.Time
	// failing are servers that failed their latest client, by member.
	failing map[string]*failing
	// roomChanged is closed, if somebody waits for it, when there may be room for a client.
	roomChanged chan struct{}
	tally       tally
	complaints  throttle
	// rejections are for the log's lines about clients that were closed without a word.
	rejections throttle
}

// assignment is what a Change made a dispatcher's task.
type assignment struct {
	Endpoint
	// tcp is nil for PostgreSQL's services, and stays so.
	tcp      *TCPService
	addr     listenAddr
	replaced chan struct{}
}

// session is a client that is being led, or has been led, to a server.
type session struct {
	member, address string
	// epoch is the server's as it was when it was picked. Invariant: a session in the dispatcher's sessions was registered
	// under a View that is current or that the watcher hasn't looked past yet.
	epoch  uint64
	client netip.AddrPort
	began  time.Time
	// header is the version of the PROXY protocol that the server expects.
	header byte
	// connecting ends when the server may not take new clients any more, and stop ends it; nil while there is no attempt to
	// connect, and once the flow has started.
	connecting context.Context
	stop       context.CancelCauseFunc
	flow       *relay.Flow
	// ending is set once the session was told to end.
	ending bool
	// moved are the bytes that it had moved when it was last looked at for idleness, movedAt when they had changed.
	moved   int64
	movedAt time.Time
}

func newDispatcher(e *Engine, endpoint Endpoint, at listenAddr) *dispatcher {
	d := &dispatcher{engine: e, name: endpoint.Definition.FullName, picker: balance.Picker{Seed: rand.Uint64()}, sessions: map[*session]struct{}{},
		connectors: map[*connector]struct{}{},
		joined:     make(chan struct{}, 1), clients: count{of: &e.slots}, failing: map[string]*failing{}, tally: newTally()}
	d.here, d.gone = context.WithCancelCause(e.over)
	d.assigned.Store(&assignment{Endpoint: endpoint, addr: at, replaced: make(chan struct{})})
	return d
}

func (d *dispatcher) endpoint() Endpoint { return d.assigned.Load().Endpoint }

// service gives the service as the newest View has it; nil if it hasn't.
func (d *dispatcher) service() *view.Service { return d.endpoint().Board.View().Service(d.name) }

// reassign gives the dispatcher a new definition or Board.
func (d *dispatcher) reassign(endpoint Endpoint, raw *TCPService, at listenAddr) {
	old := d.assigned.Swap(&assignment{Endpoint: endpoint, tcp: raw, addr: at, replaced: make(chan struct{})})
	close(old.replaced)
	d.wake()
}

// retire ends the service here: every session, and every client on its way to a server. What ended is for tell, once no lock is
// held.
func (d *dispatcher) retire(cause error) endings {
	d.gone(cause)
	d.mu.Lock()
	defer d.mu.Unlock()
	ended := d.endSessions(func(*session) string { return cause.Error() })
	d.interruptAll()
	d.wakeAll()
	return ended
}

// watch ends sessions and lets clients in as Views come, until the service is gone.
func (d *dispatcher) watch() {
	beat := time.NewTicker(BeatGap)
	defer beat.Stop()
	for {
		task := d.assigned.Load()
		_, changed := task.Board.Watch()
		d.enforce()
		if !d.wait(changed, task.replaced, beat.C) {
			return
		}
	}
}

// enforce ends what the newest View says is over. The View is taken with the lock held: an older one would object to
// sessions that were registered under the newest.
func (d *dispatcher) enforce() {
	d.mu.Lock()
	svc := d.service()
	d.retryNow(svc)
	ended := d.endSessions(func(s *session) string { return objection(svc, s) })
	// Who waits for a server doesn't wait for the log.
	d.letIn()
	d.mu.Unlock()
	d.logEnded(ended)
}

// objection says why a session may not go on; empty if it may. One that isn't connected yet needs a server that takes
// new clients, one that is needs only its epoch. A session whose server was taken out of the service ends where the service's
// options end those of a server that is down.
func objection(svc *view.Service, s *session) string {
	if svc == nil {
		return "the cluster no longer has the service"
	}
	for i, server := range svc.Servers {
		if server.Member != s.member {
			continue
		}
		health := svc.Health[i]
		switch {
		case health.Epoch != s.epoch && health.Ended != "":
			return health.Ended
		case health.Epoch != s.epoch || s.flow == nil && !health.Up:
			return health.Reason
		}
		return ""
	}
	if s.flow != nil && !svc.Options.ShutdownSessions {
		return ""
	}
	return "it is no longer a server of the service"
}

// ending is why sessions on a server were told to end, and endings count those sessions: they are lines of the log, which nobody
// writes with a lock held, since a client's way and the loops of the relay lead through d.mu.
type (
	ending  struct{ member, reason string }
	endings map[ending]int
)

// endSessions ends each session that judge has a reason against, with d.mu held.
func (d *dispatcher) endSessions(judge func(*session) string) endings {
	ended := endings{}
	for s := range d.sessions {
		reason := ""
		if !s.ending {
			reason = judge(s)
		}
		if reason == "" {
			continue
		}
		s.ending = true
		cause := fmt.Errorf("%s: %s", s.member, reason)
		if s.flow == nil {
			if s.stop != nil {
				s.stop(cause)
			}
			continue
		}
		s.flow.Abort(cause)
		ended[ending{s.member, reason}]++
	}
	return ended
}

// logEnded logs sessions that were told to end, in a line for each server and reason.
func (d *dispatcher) logEnded(ended endings) {
	for e, n := range ended {
		plural := "s"
		if n == 1 {
			plural = ""
		}
		d.engine.log.Info(fmt.Sprintf("ended %d session%s on %s: %s", n, plural, e.member, e.reason), "service", d.name)
	}
}

// admit takes charge of a client.
func (d *dispatcher) admit(conn *net.TCPConn) {
	d.mu.Lock()
	d.clients.add(1)
	d.tickets++
	ticket := d.tickets
	d.mu.Unlock()
	d.begin(newClient(conn, ticket))
}

// begin has a client led to a server.
func (d *dispatcher) begin(c *client) {
	d.engine.dispatching.add(1)
	d.engine.serving.Go(func() { d.serve(c) })
}

// leave notes that a client is gone. d.mu is held.
func (d *dispatcher) leave() {
	d.clients.add(-1)
	d.wakeLocked()
}

// room tells whether the service may have another client, and if not, gives a channel that is closed when to ask again.
func (d *dispatcher) room() (bool, <-chan struct{}) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if limit := d.endpoint().Definition.MaxConn; limit <= 0 || d.clients.n < limit {
		return true, nil
	}
	if d.roomChanged == nil {
		d.roomChanged = make(chan struct{})
	}
	return false, d.roomChanged
}

func (d *dispatcher) wake() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.wakeLocked()
}

func (d *dispatcher) wakeLocked() {
	if d.roomChanged != nil {
		close(d.roomChanged)
		d.roomChanged = nil
	}
}

// serve leads a client to a server, or refuses it.
func (d *dispatcher) serve(c *client) { d.dispose(c, d.dispatch(c)) }

// dispose is what lead's outcome means for the client.
func (d *dispatcher) dispose(c *client, err error) {
	parked := err != nil && d.park(c)
	d.engine.dispatching.add(-1)
	if err == nil || parked {
		return
	}
	var no *refusal
	if errors.Is(err, errCancel) {
		d.cancel(c)
	} else if errors.As(err, &no) {
		d.mu.Lock()
		d.tally.refused++
		d.mu.Unlock()
		if d.tcp() != nil {
			d.reject(c, no)
		} else {
			refuse(d.engine.over, c.conn, no, c.declined)
			d.engine.log.Debug("refused a client", "service", d.name, "client", c.from.String(), "reason", no.message, "detail", no.detail)
		}
	} else {
		c.close()
		d.engine.log.Debug("a client went without a session", "service", d.name, "client", c.from.String(), "reason", err)
	}
	d.mu.Lock()
	d.leave()
	d.mu.Unlock()
}

// park keeps a client that couldn't be led to a server because everything is to stand still. If it was too late for that, the
// client is led on.
func (d *dispatcher) park(c *client) bool {
	if !errors.Is(context.Cause(d.here), errHandingOver) {
		return false
	}
	d.mu.Lock()
	successor := d.successor
	if successor == nil {
		d.parked = append(d.parked, c)
	}
	d.clients.add(-1)
	d.mu.Unlock()
	if successor != nil {
		successor.readmit(c)
	}
	return true
}

// dispatch hears what a client wants and connects it with a server. It returns nil once a session has started, which then owns
// the client. Otherwise it says why there is none: a *refusal is for the client to be told, and nothing but encryption that
// a server declined has been answered to it then; any other error is of a client that needs no answer.
//
// PostgreSQL's clients speak first, and what they say comes with the end of the handshake. So hearing it before a server is
// connected takes next to no time, and costs no server a process for a client that says nothing, such as a port check.
func (d *dispatcher) dispatch(c *client) error {
	if err := d.hear(c); err != nil {
		if d.here.Err() != nil {
			return shortage{gone: context.Cause(d.here)}.refusal(d.name, nil)
		}
		return err
	}
	return d.connect(c, nil)
}

// connect is lead for a client that was heard, and may have been given a server already.
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

// judge says what the error of an attempt means for the client: nil if it is to be led to a server again.
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
	d.recheck(s.member)
	d.complain(s, err)
	if d.once() {
		return shortage{svc: d.service(), outcome: balance.None}.refusal(d.name, c.failures)
	}
	return nil
}

// attempt connects a client with the server that was picked for it. If that fails the session is forgotten.
func (d *dispatcher) attempt(c *client, s *session) error {
	d.mu.Lock()
	s.connecting, s.stop = context.WithCancelCause(d.here)
	if s.ending {
		s.stop(errUnwanted)
	}
	d.mu.Unlock()
	dialer := net.Dialer{Timeout: d.connectTimeout(), KeepAlive: -1}
	server, err := dialer.DialContext(s.connecting, "tcp", s.address)
	if err == nil {
		if err = d.open(c, s, server.(*net.TCPConn)); err == nil {
			return nil
		}
		_ = server.Close()
	} else if s.connecting.Err() != nil {
		err = errUnwanted
	}
	d.giveUp(s, err)
	return err
}

// giveUp forgets a session after an attempt's error.
func (d *dispatcher) giveUp(s *session, err error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.unregister(s)
	if isFailure(err) {
		d.tally.of(s.member).connectFailures++
		d.backOff(s.member)
	}
	d.letIn()
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
			return d.closedEarly(s, err)
		}
	}
	return d.startup(c, s, server)
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

// complain tells of a failed attempt, at most once a second.
func (d *dispatcher) complain(s *session, err error) {
	d.mu.Lock()
	say, missed := d.complaints.ready(time.Now())
	d.mu.Unlock()
	if say {
		d.engine.log.Warn("a server that its check calls up takes no client", "service", d.name, "server", s.member,
			"address", s.address, "error", plain(err), "failures_since_last_line", missed+1)
	}
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

// register picks a server that is up in the newest View and notes the session under its epoch. View and note go under
// one lock, d.mu, which the caller holds: whatever View is published later, the watcher finds the session when it enforces
// it. Without a session the shortage says why.
func (d *dispatcher) register(c *client) (*session, shortage) {
	if d.here.Err() != nil {
		return nil, shortage{gone: context.Cause(d.here)}
	}
	svc := d.service()
	d.noteUsable(svc)
	if svc == nil {
		return nil, shortage{outcome: balance.None}
	}
	now := time.Now()
	who := balance.Client{Addr: c.from.Addr(), Avoid: d.avoid(c, now), Now: now}
	i, outcome := d.picker.Pick(svc, who)
	if outcome != balance.Picked {
		short := shortage{svc: svc, outcome: outcome}
		if outcome == balance.Full {
			short.home = d.picker.Home(svc, who)
		}
		return nil, short
	}
	s := &session{member: svc.Servers[i].Member, address: svc.Servers[i].Address(), epoch: svc.Health[i].Epoch,
		client: c.from, began: now, header: svc.OptionsOf(i).ProxyVersion()}
	d.sessions[s] = struct{}{}
	if suspected := d.failing[s.member]; suspected != nil {
		suspected.try = s
	}
	return s, shortage{}
}

// unregister forgets a session. d.mu is held.
func (d *dispatcher) unregister(s *session) {
	if s.stop != nil {
		s.stop(nil)
	}
	delete(d.sessions, s)
	d.picker.Release(s.member)
	d.yield(s)
}

// ended notes the end of a session's flow.
func (d *dispatcher) ended(s *session, end relay.End) {
	d.mu.Lock()
	if _, own := d.sessions[s]; !own && d.successor != nil {
		d.mu.Unlock()
		d.successor.ended(s, end)
		return
	}
	d.unregister(s)
	d.tally.ended(s.member, end)
	d.letIn()
	d.leave()
	d.mu.Unlock()
	if end.ServerBroke {
		d.engine.cfg.Recheck(d.endpoint().Cluster, s.member)
	}
	if !d.engine.log.Enabled(context.Background(), slog.LevelDebug) {
		return
	}
	d.engine.log.Debug("session ended", "service", d.name, "server", s.member, "client", s.client.String(),
		"duration", time.Since(s.began).Round(time.Millisecond), "to_server", end.ToServer, "to_client", end.ToClient, "cause", end.Cause)
}
