// Package proxy is the native engine: it listens on every service's port and connects each client with a server that may
// take it now.
//
// It owns the listening sockets, the sessions and the choice of a server for each client. It reads health and
// membership from a view.Board and never writes there; it knows nothing of checks, inventories or Patroni. Who picks
// among servers is the room balance, who moves bytes is the room relay.
//
// # A client's way
//
// dispatch.go has it from top to bottom: a listener accepts the client, and the dispatcher of the listener's service hears what it
// wants. A CancelRequest goes to every server (cancel.go). For anything else a server is picked from the newest View, and the session
// registered with it before it connects; while no server takes the client it waits in the queue. The client's first packets are
// brought to the server until the server's first response shows that it takes the client up; a server that refuses everybody for now
// has been tried in vain, and the client is none the wiser. Then the View is looked at once more, so that no session slips past a
// mark-down, and a relay.Flow carries it from there. A watcher of the Board ends sessions whose server left the service or whose
// view.Health.Epoch rose. A client that no server takes in time gets PostgreSQL's own error (SQLSTATE 57P03) with each server's
// reason.
//
// On Linux the same way is gone first in the relay's epoll loops, which also accept clients, without a goroutine
// (fastpath_linux.go), and waits there for its turn; whatever isn't plain is left to a goroutine and dispatch.go.
//
// Services that aren't PostgreSQL's go the same way. All in which they differ is in their protocol (service.go).
//
// # Files
//
//	proxy.go           Engine: Run and stop
//	change.go          a new configuration is prepared (all that can fail: binding), committed, and published (nothing can fail)
//	offer.go           what a node offers, as endpoints
//	listener.go        an address: opening it, accepting; listener_linux.go, socket_linux.go the system's part
//	holder_linux.go    who else has an address
//	allow.go           where clients may come from
//	slots.go           how many clients there may be, of a service and of all
//	lobby.go           clients that come while there is no slot
//	unheard.go         how long a client may take to say what it wants
//	dispatcher.go      one service: its parts, and the watcher of its Board
//	service.go         what its parts know of it, and the seam between protocols; tcpservice.go the other protocol
//	dispatch.go        a client's way from accept to relay
//	fastpath_linux.go  the same without a goroutine
//	client.go          a client before its session: peeking (MSG_PEEK) at what it says; peek.go
//	startup.go         PostgreSQL's packets before authentication; response.go what a server says to them
//	proxyheader.go     the PROXY protocol's header
//	queue.go           clients that wait, in order
//	sessions.go        the table of sessions, picking, mark-downs
//	backoff.go         servers that failed their latest client
//	refusal.go         what a client is told that no server takes
//	cancel.go          CancelRequests; line.go how many are passed on at a time
//	counts.go          what is counted
//	sessionlog.go      sessions are told of as they begin and end
//	table.go           sessions are listed, and ended by operators
//	status.go          what is shown
//	freeze.go          another process takes over: standing still; underway.go. handover.go what is handed over, takeover.go the other end
//
// # Locks
//
// Each lock guards what stands below it in its struct. Whoever has one may take those further down, never one further up:
//
//	Engine.freezing
//	Engine.mu
//	listenSocket.mu      read-locked by a loop while it accepts
//	connector.mu         one client of the fast path
//	queue.mu
//	sessions.mu          of a dispatcher, then of its successor
//	fastPath.mu, backoff.mu, parked.mu, relay's Flow
//	slots.mu             of a service, then of the Engine
//	unheard.mu, cancels.mu, throttle.mu, underway.mu
//
// The log is written with none of them held, but for Engine.freezing: its reader may stand still. A SessionLog doesn't wait for one.
//
// Three things are decided in one critical section each: which server a session gets, with the View read and the session noted
// (sessions.register); that a session starts, with the View read (sessions.start); what a View ends (sessions.enforce). The queue and
// the back-off are looked at without their locks while there is nobody in them; queue.waiting says why nobody is forgotten.
package proxy

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"github.com/pgporter/pgporter/internal/config/model"
	"github.com/pgporter/pgporter/internal/engine"
	"github.com/pgporter/pgporter/internal/engine/relay"
	"github.com/pgporter/pgporter/internal/monitor/view"
)

// Config is what an Engine needs besides its endpoints.
type Config struct {
	// Bind is the address that a service's "*" means on this node; empty is every address, IPv4 and IPv6.
	Bind string
	// Steerable has another process's sockets be able to come beside the engine's, once it is told so (handover.Share, handover.Steer).
	Steerable bool
	// Logger gets what an operator should know; nil drops it.
	Logger *slog.Logger
	// Recheck is called when a server refused a client or let it time out, or reset a session, so that its health is looked at out of turn.
	// It must not block, and has to bear a call for every client. May be nil.
	Recheck func(cluster, member string)
	// Await is called again and again while clients wait for a server of a service to be up. It must not block. May be nil.
	Await func(cluster, service string)
	// Doubt is called while a server keeps a client waiting: for the connection, or, if there is a Hold, for its first response. It must
	// not block, and has to bear a call for every client four times a second. May be nil.
	Doubt func(cluster, service, member string)
	// ConnectTimeout limits a connection attempt to one server; 0 is 3 s, as `timeout connect` in Pigsty.
	ConnectTimeout time.Duration
	// Hold is how long, at most, a client waits for a server while none takes it, where its service's Definition doesn't say it; 0 refuses
	// it at once, and has nobody look at a server's first response. HoldFailover has it wait for the Endpoint's Expectancy instead, and for
	// Hold where no failover can bring a server.
	Hold         time.Duration
	HoldFailover bool
	// OpeningTimeout limits the wait for each packet that a client sends before its authentication, as long as no session
	// has started; 0 is 60 s, PostgreSQL's own authentication_timeout.
	OpeningTimeout time.Duration
	// StopTimeout is how long sessions may go on after Run's context has ended; 0 ends them at once.
	StopTimeout time.Duration
	// Closed says, when a Change is prepared, that nobody is to be accepted for a service, by its full name: somebody else listens at its
	// address. Sessions that it has go on, under watch. Nil is for none.
	Closed func(service string) bool
	// SessionLog is told of sessions; nil isn't.
	SessionLog engine.SessionLog
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
	// wait for that. Afterwards, and with 0, nobody waits for a server to be up. It is as long as a failover can take.
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
	// may keep one of its own, for the same service. Closing it would reset clients that are just arriving.
	listeners   map[listenAddr]*listener
	dispatchers map[string]*dispatcher

	// files is the limit of open files, of which aside are for the rest of the process. slots are those that all services have in
	// common, lobby is for clients that come while there is none.
	files   uint64
	aside   int
	slots   slots
	lobby   slots
	cancels cancels
	// accepted and begun count the clients and the sessions of all services, ids numbers the sessions.
	accepted, begun arrivals
	ids             atomic.Uint64

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
	if cfg.Await == nil {
		cfg.Await = func(string, string) {}
	}
	if cfg.Doubt == nil {
		cfg.Doubt = func(string, string, string) {}
	}
	e := &Engine{cfg: cfg, log: cfg.Logger, listeners: map[listenAddr]*listener{}, dispatchers: map[string]*dispatcher{}}
	e.files, e.aside = OpenFiles(), defaultAside
	e.slots.limit = Slots(e.files, e.aside, 0)
	e.lobby.limit = lobbyFiles(e.files)
	e.cancels.limit = cancelFiles(e.files)
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
		if l.dispatcher.Load() != nil { // else its Change is still to be published
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
func (e *Engine) startWatching(d *dispatcher) { e.watching.Go(d.watch) }

func (e *Engine) startAccepting(l *listener) {
	if l.halt == nil {
		halt := make(chan struct{})
		l.halt = halt
		e.accepting.Go(func() { l.accept(halt) })
	}
}
