// Package proxy is the native engine: it listens on every service's port and leads each client to a server that may
// take it now.
//
// It owns the listening sockets, the sessions and the choice of a server for each client. It reads health and
// membership from a state.Board and never writes there; it knows nothing of checks, inventories or Patroni. Who picks
// among servers is the room balance, who moves bytes is the room relay.
//
// A client's way: a listener accepts it, and the dispatcher of the listener's service hears what it wants (client.go). A
// CancelRequest goes to every server (cancel.go). For anything else the dispatcher picks a server from the newest View and
// registers the session before it connects (dispatcher.go); while no server takes the client it waits in line (hold.go). The
// client's first packets are brought to the server until the server's answer shows that it takes the client up
// (introduce.go); a server that refuses everybody for now has been tried in vain, and the client is none the wiser. Then the
// View is looked at once more, so that no session slips past a mark-down, and a relay.Flow carries it from there. A watcher
// of the Board ends sessions whose server left the service or whose state.Health.Epoch rose. A client that no server takes
// in time gets PostgreSQL's own error (SQLSTATE 57P03) with each server's reason (refusal.go).
//
// On Linux clients go this way in the relay's loops, which also accept them (door_linux.go), as long as nothing is in the way
// (usher_linux.go); a goroutine for each client is for all else.
//
// Services that aren't PostgreSQL's (raw.go) go the same way, except that nobody is heard: whoever is accepted is connected
// at once, and closed without a word where PostgreSQL's clients would get an error.
//
// Another process takes over what an Engine has, sessions included: see Freeze and TakeOver.
//
// A new configuration is prepared (everything that can fail: binding), committed, and published (nothing of which can fail): see
// Change.
package proxy

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net"
	"slices"
	"sync"
	"time"

	"github.com/pgporter/pgporter/internal/config/model"
	"github.com/pgporter/pgporter/internal/engine/relay"
	"github.com/pgporter/pgporter/internal/monitor/view"
)

// Config is what an Engine needs besides its endpoints.
type Config struct {
	// Bind is the address that a service's "*" means on this node; empty is every address, IPv4 and IPv6.
	Bind string
	// Logger gets what an operator should know; nil drops it.
	Logger *slog.Logger
	// Recheck is called when a server refused a client or let it time out, or reset a session, and for every server of a service while clients
	// wait for one to be up, so that its health is looked at out of turn. It must not block, and has to bear a call for every
	// client. May be nil.
	Recheck func(cluster, member string)
	// ConnectTimeout limits a connection attempt to one server; 0 is 3 s, as `timeout connect` in Pigsty.
	ConnectTimeout time.Duration
	// Hold is how long, at most, a client waits for a server while none takes it; 0 refuses it at once, and has nobody look at
	// a server's first answer.
	Hold time.Duration
	// OpeningTimeout limits the wait for each packet that a client sends before its authentication, as long as no session
	// has started; 0 is 60 s, PostgreSQL's own authentication_timeout.
	OpeningTimeout time.Duration
	// StopTimeout is how long sessions may go on after Run's context has ended; 0 ends them at once.
	StopTimeout time.Duration
	// Inherited are listening sockets of an earlier process, by their addresses as Engine.Sockets has them: they are used
	// instead of opening those addresses. They are the Engine's from then on.
	Inherited map[string]*net.TCPListener
}

// Endpoint is one service to offer on this node.
type Endpoint struct {
	Cluster    string
	Definition model.Definition
	// Board is the cluster's. Its Views name the service by Definition.FullName.
	Board *view.Board
	// Expectancy is how long after its last server was lost a service is expected to get another one, so that its new clients
	// wait for that. Afterwards, and with 0, nobody waits for a server to be up.
	Expectancy time.Duration
}

// Engine serves a set of endpoints, which Changes replace. Its methods are safe for concurrent use.
type Engine struct {
	cfg Config
	log *slog.Logger

	// over ends when no session may live any longer.
	over context.Context
	kill context.CancelFunc

	// freezing is held while the engine is Frozen.
	freezing sync.Mutex

	mu      sync.Mutex
	phase   phase
	pending *Change
	// released says that another process has the sessions.
	released bool
	// listeners are those of the endpoints, and parts of them: an address that is covered by a listener for every address
	// may keep one of its own, which leads to the same service. Closing it would reset clients that are just arriving.
	listeners   map[listenAddr]*listener
	dispatchers map[string]*dispatcher

	slots       slots
	accepting   sync.WaitGroup // listeners
	relay       relay.Relay
	serving     sync.WaitGroup // clients, from accept to close
	dispatching underway       // clients, as long as they are on their way to a server
	watching    sync.WaitGroup // dispatchers
}

type phase int

const (
	notYet phase = iota
	running
	stopped
)

// New makes an Engine with no endpoints.
func New(cfg Config) *Engine {
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	if cfg.ConnectTimeout <= 0 {
		cfg.ConnectTimeout = 3 * time.Second
	}
	if cfg.OpeningTimeout <= 0 {
		cfg.OpeningTimeout = time.Minute
	}
	if cfg.Recheck == nil {
		cfg.Recheck = func(string, string) {}
	}
	e := &Engine{cfg: cfg, log: cfg.Logger, listeners: map[listenAddr]*listener{}, dispatchers: map[string]*dispatcher{}}
	e.slots.limit = Slots()
	e.over, e.kill = context.WithCancel(context.Background())
	return e
}

// grace is how long clients that are being refused, and sessions that were ending, may go on once everything else was handed
// over.
const grace = 400 * time.Millisecond

// errStopping is the cause of sessions that outlive the stop's patience.
var errStopping = errors.New("pgporter stops")

// Run serves until ctx ends. Then it accepts nobody any more, lets sessions finish for StopTimeout, ends those that are
// left, and returns when every goroutine it started has. What a Change commits before Run starts waits in the listeners'
// backlogs. An Engine runs once: a second Run is an error, the first returns nil.
func (e *Engine) Run(ctx context.Context) error {
	e.mu.Lock()
	if e.phase != notYet {
		e.mu.Unlock()
		return errors.New("proxy: the engine has run already")
	}
	e.phase = running
	for _, d := range e.dispatchers {
		e.startWatching(d)
	}
	for _, l := range e.listeners {
		if l.serves.Load() != nil { // else its Change is still to be published
			e.startAccepting(l)
		}
	}
	e.mu.Unlock()

	<-ctx.Done()
	e.freezing.Lock()
	defer e.freezing.Unlock()
	e.mu.Lock()
	e.phase = stopped
	stopTimeout := e.cfg.StopTimeout
	if e.released {
		stopTimeout = min(stopTimeout, grace)
	}
	for _, l := range e.listeners {
		l.close()
	}
	e.mu.Unlock()
	e.accepting.Wait()

	finished := make(chan struct{})
	go func() {
		e.serving.Wait()
		close(finished)
	}()
	patience := time.NewTimer(stopTimeout)
	defer patience.Stop()
	select {
	case <-finished:
	case <-patience.C:
		ended := map[*dispatcher]endings{}
		for _, d := range e.offered() {
			ended[d] = d.retire(errStopping)
		}
		for d := range ended {
			d.logEnded(ended[d])
		}
	}
	e.kill()
	<-finished
	e.watching.Wait()
	e.relay.Close()
	return nil
}

// startWatching and startAccepting are called with e.mu held while the engine runs.
func (e *Engine) startWatching(d *dispatcher) {
	e.watching.Go(d.watch)
	if d.tcp() != nil {
		e.watching.Go(d.watchIdle)
	}
}
func (e *Engine) startAccepting(l *listener) {
	if l.halt == nil {
		halt := make(chan struct{})
		l.halt = halt
		e.accepting.Go(func() { l.accept(halt) })
	}
}

// Change is a set of endpoints that is ready to take the place of the current one. Either Abort is to be called on it, or Commit
// and, before long, Publish; further calls do nothing.
type Change struct {
	engine *Engine
	plan   []planned
	// committed says that Commit was called. leaving and retired are then what has no place in the new set.
	committed bool
	leaving   []*listener
	retired   []*dispatcher
}

// planned is an endpoint with the listener that will serve it.
type planned struct {
	endpoint Endpoint
	// tcp is nil for PostgreSQL's services.
	tcp      *TCPService
	listener *listener
	// fresh says that the listener was opened for this change.
	fresh bool
	// dispatcher is the service's once it is committed.
	dispatcher *dispatcher
}

// Prepare does everything about a new set of endpoints that can fail: it opens each listener that isn't open yet. What
// runs isn't touched. All failures are returned at once (errors.Join of *BindError and others), and nothing stays bound
// then. One Change can be under way at a time. The address of an endpoint needn't exist on the node yet. raws are the services
// that aren't PostgreSQL's.
func (e *Engine) Prepare(endpoints []Endpoint, tcpEndpoints ...TCPEndpoint) (*Change, error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.pending != nil {
		return nil, errors.New("proxy: another change is being prepared")
	}
	if e.phase == stopped {
		return nil, errors.New("proxy: the engine has stopped")
	}
	change := &Change{engine: e}
	endpoints = slices.Clone(endpoints)
	tcpOf := map[int]*TCPService{}
	for _, r := range tcpEndpoints {
		tcpOf[len(endpoints)] = &r.TCPService
		endpoints = append(endpoints, r.Endpoint)
	}
	places, failures := e.listenAddrs(endpoints)
	kept := map[listenAddr]bool{}
	for _, at := range places {
		kept[at] = true
	}
	for i, endpoint := range endpoints {
		at, valid := places[i]
		if !valid {
			continue
		}
		l, fresh := e.listeners[at], false
		if l == nil {
			var err error
			if l, err = change.open(at, kept); err != nil {
				failures = append(failures, fmt.Errorf("service %s: %w", endpoint.Definition.FullName, err))
				continue
			}
			fresh = true
		}
		change.plan = append(change.plan, planned{endpoint: endpoint, tcp: tcpOf[i], listener: l, fresh: fresh})
	}
	if len(failures) > 0 {
		change.undo()
		return nil, errors.Join(failures...)
	}
	e.pending = change
	return change, nil
}

// listenAddrs finds where each endpoint, by its index, is to listen, and what is wrong with the set as such.
func (e *Engine) listenAddrs(endpoints []Endpoint) (map[int]listenAddr, []error) {
	var failures []error
	places := map[int]listenAddr{}
	names, owners := map[string]bool{}, map[listenAddr]string{}
	for i, endpoint := range endpoints {
		name := endpoint.Definition.FullName
		at, err := listenAddrOf(endpoint.Definition, e.cfg.Bind)
		switch {
		case err != nil:
			failures = append(failures, fmt.Errorf("service %s: %w", name, err))
		case endpoint.Board == nil:
			failures = append(failures, fmt.Errorf("service %s: no board of cluster %s to read health from", name, endpoint.Cluster))
		case names[name]:
			failures = append(failures, fmt.Errorf("service %s is there twice", name))
		case owners[at] != "":
			failures = append(failures, fmt.Errorf("service %s: %s is already the address of service %s", name, at, owners[at]))
		default:
			names[name], owners[at], places[i] = true, name, at
		}
	}
	return places, failures
}

// Commit makes the change's endpoints the engine's: services that stay go by their new definitions. No session ends, nobody is
// accepted at a new address and nobody turned away at an old one before Publish.
func (c *Change) Commit() {
	e := c.engine
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.pending != c || c.committed {
		return
	}
	if e.phase == stopped {
		e.pending = nil
		c.undo()
		return
	}
	c.committed = true
	listeners, dispatchers := make(map[listenAddr]*listener, len(c.plan)), make(map[string]*dispatcher, len(c.plan))
	for i, p := range c.plan {
		name := p.endpoint.Definition.FullName
		d := e.dispatchers[name]
		if d != nil && d.endpoint().Cluster == p.endpoint.Cluster && (d.tcp() == nil) == (p.tcp == nil) {
			d.reassign(p.endpoint, p.tcp, p.listener.addr)
		} else {
			d = newDispatcher(e, p.endpoint, p.listener.addr)
			d.assigned.Load().tcp = p.tcp
			if e.phase == running {
				e.startWatching(d)
			}
		}
		listeners[p.listener.addr], dispatchers[name] = p.listener, d
		c.plan[i].dispatcher = d
	}
	parts := map[listenAddr]*listener{}
	for at, l := range e.listeners {
		switch {
		case listeners[at] == l:
		case covering(at, listeners) != nil:
			parts[at] = l
		default:
			c.leaving = append(c.leaving, l)
		}
	}
	maps.Copy(listeners, parts)
	for name, d := range e.dispatchers {
		if dispatchers[name] != d {
			c.retired = append(c.retired, d)
		}
	}
	e.listeners, e.dispatchers = listeners, dispatchers
}

// Publish shows what was committed: clients are accepted at new addresses and no more at those that are gone, listeners that
// stay are not closed for an instant and lead new clients by the new definition. A service that is still there (by its full
// name) keeps its sessions, as long as its Board's View has their servers under the same epoch; the sessions of one that is gone
// end, drained. The Boards are to show the new services by now: who comes to one that isn't there is refused.
func (c *Change) Publish() {
	c.engine.mu.Lock()
	lines := c.publish()
	c.engine.mu.Unlock()
	for _, log := range lines {
		log()
	}
}

// publish is Publish with e.mu held. What it gives is to be called without: it logs.
func (c *Change) publish() (lines []func()) {
	e := c.engine
	if e.pending != c || !c.committed {
		return nil
	}
	e.pending = nil
	for _, p := range c.plan {
		p.listener.assignTo(p.dispatcher)
		if e.phase == running {
			e.startAccepting(p.listener)
		}
	}
	own := make(map[listenAddr]*listener, len(c.plan))
	for _, p := range c.plan {
		own[p.listener.addr] = p.listener
	}
	for at, l := range e.listeners {
		if whole := covering(at, own); own[at] != l && whole != nil {
			l.assignTo(whole.serves.Load())
		}
	}
	for _, l := range c.leaving {
		if e.phase == running && slices.ContainsFunc(c.plan, func(p planned) bool { return p.listener.addr.Overlaps(l.addr) }) {
			l.passBacklog(own)
		}
		l.close()
		lines = append(lines, func() { e.log.Info("stopped listening", "address", l.addr.String()) })
	}
	for _, d := range c.retired {
		ended := d.retire(fmt.Errorf("service %s is no longer offered here", d.name))
		lines = append(lines, func() { d.logEnded(ended) })
	}
	for _, p := range c.plan {
		if p.fresh {
			lines = append(lines, func() {
				e.log.Info("listening", "service", p.endpoint.Definition.FullName, "address", p.listener.addr.String())
			})
		}
	}
	return lines
}

// Abort closes what Prepare opened. What runs goes on as it was.
func (c *Change) Abort() {
	c.engine.mu.Lock()
	defer c.engine.mu.Unlock()
	if c.engine.pending != c || c.committed {
		return
	}
	c.engine.pending = nil
	c.undo()
}

// undo closes the change's own listeners, except those that became a part of one that stays.
func (c *Change) undo() {
	e := c.engine
	for _, p := range c.plan {
		switch {
		case !p.fresh:
		case e.phase != stopped && covering(p.listener.addr, e.listeners) != nil:
			e.listeners[p.listener.addr] = p.listener
		default:
			p.listener.close()
		}
	}
}
