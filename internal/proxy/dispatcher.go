package proxy

import (
	"context"
	"errors"
	"fmt"
	"net"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/pgporter/pgporter/internal/balance"
	"github.com/pgporter/pgporter/internal/relay"
	"github.com/pgporter/pgporter/internal/state"
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

	mu       sync.Mutex
	picker   balance.Picker
	sessions map[*session]struct{}
	// clients are all that were accepted and haven't left: sessions, and those being led or refused.
	clients int
	// roomChanged is closed, if somebody waits for it, when there may be room for a client.
	roomChanged chan struct{}
	tally       tally
	complaints  throttle
}

// assignment is what a Change made a dispatcher's task.
type assignment struct {
	Endpoint
	at       place
	replaced chan struct{}
}

// session is a client that is being led, or has been led, to a server.
type session struct {
	member, address string
	// epoch is the server's as it was when it was picked. Invariant: a session in the dispatcher's sessions was registered
	// under a View that is current or that the watcher hasn't looked past yet.
	epoch  uint64
	client string
	began  time.Time
	// connecting ends when the server may not take new clients any more; nil once the flow has started.
	connecting context.Context
	stop       context.CancelCauseFunc
	flow       *relay.Flow
	// ending is set once the session was told to end.
	ending bool
}

func newDispatcher(e *Engine, endpoint Endpoint, at place) *dispatcher {
	d := &dispatcher{engine: e, name: endpoint.Definition.FullName, sessions: map[*session]struct{}{}, tally: newTally()}
	d.here, d.gone = context.WithCancelCause(e.over)
	d.assigned.Store(&assignment{Endpoint: endpoint, at: at, replaced: make(chan struct{})})
	return d
}

func (d *dispatcher) endpoint() Endpoint { return d.assigned.Load().Endpoint }

// service gives the service as the newest View has it; nil if it hasn't.
func (d *dispatcher) service() *state.Service { return d.endpoint().Board.View().Service(d.name) }

// assign gives the dispatcher a new definition or Board.
func (d *dispatcher) assign(endpoint Endpoint, at place) {
	old := d.assigned.Swap(&assignment{Endpoint: endpoint, at: at, replaced: make(chan struct{})})
	close(old.replaced)
	d.wake()
}

// retire ends the service here: every session, and every client on its way to a server.
func (d *dispatcher) retire(cause error) {
	d.gone(cause)
	d.mu.Lock()
	defer d.mu.Unlock()
	d.endSessions(func(*session) string { return cause.Error() })
}

// watch ends sessions as Views come, until the service is gone.
func (d *dispatcher) watch() {
	for {
		task := d.assigned.Load()
		_, replaced := task.Board.Watch()
		d.enforce()
		select {
		case <-replaced:
		case <-task.replaced:
		case <-d.here.Done():
			return
		}
	}
}

// enforce ends what the newest View says is over. The View is taken with the lock held: an older one would object to
// sessions that were registered under the newest.
func (d *dispatcher) enforce() {
	d.mu.Lock()
	defer d.mu.Unlock()
	if len(d.sessions) == 0 {
		return
	}
	svc := d.service()
	d.endSessions(func(s *session) string { return objection(svc, s) })
}

// objection says why a session may not go on; empty if it may. One that isn't connected yet needs a server that takes
// new clients, one that is needs only its epoch.
func objection(svc *state.Service, s *session) string {
	if svc == nil {
		return "the cluster no longer has the service"
	}
	for i, server := range svc.Servers {
		if server.Member != s.member {
			continue
		}
		health := svc.Health[i]
		if health.Epoch != s.epoch || s.flow == nil && !health.Up {
			return health.Reason
		}
		return ""
	}
	return "it is no longer a server of the service"
}

// endSessions ends each session that judge has a reason against, with d.mu held, and says so once per server and reason.
func (d *dispatcher) endSessions(judge func(*session) string) {
	type batch struct{ member, reason string }
	ended := map[batch]int{}
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
			s.stop(cause)
			continue
		}
		s.flow.Abort(cause)
		ended[batch{s.member, reason}]++
	}
	for b, n := range ended {
		plural := "s"
		if n == 1 {
			plural = ""
		}
		d.engine.log.Info(fmt.Sprintf("ended %d session%s on %s: %s", n, plural, b.member, b.reason), "service", d.name)
	}
}

// admit takes charge of a client.
func (d *dispatcher) admit(client *net.TCPConn) {
	d.mu.Lock()
	d.clients++
	d.mu.Unlock()
	d.engine.serving.Go(func() { d.serve(client) })
}

// leave notes that a client is gone. d.mu is held.
func (d *dispatcher) leave() {
	d.clients--
	d.wakeLocked()
}

// room tells whether the service may have another client, and if not, gives a channel that is closed when to ask again.
func (d *dispatcher) room() (bool, <-chan struct{}) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if limit := d.endpoint().Definition.MaxConn; limit <= 0 || d.clients < limit {
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
func (d *dispatcher) serve(client *net.TCPConn) {
	no := d.lead(client)
	if no == nil {
		return
	}
	d.mu.Lock()
	d.tally.refused++
	d.mu.Unlock()
	d.engine.log.Debug("refused a client", "service", d.name, "client", client.RemoteAddr().String(), "reason", no.message, "detail", no.detail)
	refuse(d.engine.over, client, no)
	d.mu.Lock()
	d.leave()
	d.mu.Unlock()
}

// lead connects a client with a server. It returns nil once a session has started, which then owns the client, and
// otherwise why no server can take it. Nothing has been read from the client then.
func (d *dispatcher) lead(client *net.TCPConn) *refusal {
	tried := map[string]bool{}
	failures := map[string]error{}
	for {
		s, no := d.register(client, tried, failures)
		if no != nil {
			return no
		}
		dialer := net.Dialer{Timeout: d.engine.cfg.ConnectTimeout, KeepAlive: -1}
		server, err := dialer.DialContext(s.connecting, "tcp", s.address)
		if err == nil {
			if d.start(s, client, server.(*net.TCPConn)) {
				return nil
			}
			// The server was marked down meanwhile. It never got a byte of the client.
			_ = server.Close()
			continue
		}
		unwanted := s.connecting.Err() != nil
		d.mu.Lock()
		d.unregister(s)
		if !unwanted {
			d.tally.of(s.member).connectFailures++
		}
		d.mu.Unlock()
		switch {
		case unwanted:
			continue
		case ours(err):
			return &refusal{code: codeTooManyConnections, message: fmt.Sprintf("pgporter cannot connect to a server of service %s now", d.name),
				detail: fmt.Sprintf("%s: %v", s.member, plain(err))}
		}
		tried[s.member], failures[s.member] = true, err
		d.engine.cfg.Recheck(d.endpoint().Cluster, s.member)
		d.complain(s, err)
	}
}

// complain tells of a failed connect, at most once a second.
func (d *dispatcher) complain(s *session, err error) {
	d.mu.Lock()
	say, missed := d.complaints.ready(time.Now())
	d.mu.Unlock()
	if say {
		d.engine.log.Warn("cannot connect to a server that its check calls up", "service", d.name, "server", s.member,
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
// one lock: whatever View is published later, the watcher finds the session when it enforces it.
func (d *dispatcher) register(client *net.TCPConn, tried map[string]bool, failures map[string]error) (*session, *refusal) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.here.Err() != nil {
		return nil, &refusal{code: codeCannotConnectNow, message: context.Cause(d.here).Error()}
	}
	svc := d.service()
	if svc == nil {
		return nil, &refusal{code: codeCannotConnectNow, message: fmt.Sprintf("service %s is not known yet", d.name)}
	}
	i, outcome := d.picker.Pick(svc, tried)
	if outcome != balance.Picked {
		return nil, noServer(svc, outcome, failures)
	}
	s := &session{member: svc.Servers[i].Member, address: svc.Servers[i].Address(), epoch: svc.Health[i].Epoch,
		client: client.RemoteAddr().String(), began: time.Now()}
	s.connecting, s.stop = context.WithCancelCause(d.here)
	d.sessions[s] = struct{}{}
	return s, nil
}

// unregister forgets a session. d.mu is held.
func (d *dispatcher) unregister(s *session) {
	if s.stop != nil {
		s.stop(nil)
	}
	delete(d.sessions, s)
	d.picker.Release(s.member)
}

// start begins to move bytes, unless the newest View has something against the server: the watcher may be about to
// enforce it. Then the session is forgotten and false returned.
func (d *dispatcher) start(s *session, client, server *net.TCPConn) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	if s.ending || s.connecting.Err() != nil || objection(d.service(), s) != "" {
		d.unregister(s)
		return false
	}
	d.tally.began(s.member)
	// Until the flow's end the client counts as one that is served; it can't end before the lock is free.
	d.engine.serving.Add(1)
	s.flow = relay.Start(relay.Pair{Client: client, Server: server}, func(end relay.End) {
		defer d.engine.serving.Done()
		d.ended(s, end)
	})
	s.stop(nil)
	s.connecting, s.stop = nil, nil
	return true
}

// ended notes the end of a session's flow.
func (d *dispatcher) ended(s *session, end relay.End) {
	d.mu.Lock()
	d.unregister(s)
	d.tally.ended(s.member, end)
	d.leave()
	d.mu.Unlock()
	d.engine.log.Debug("session ended", "service", d.name, "server", s.member, "client", s.client,
		"duration", time.Since(s.began).Round(time.Millisecond), "to_server", end.ToServer, "to_client", end.ToClient, "cause", end.Cause)
}
