package proxy

import (
	"context"
	"sync/atomic"
	"time"

	"github.com/pgporter/pgporter/internal/monitor/view"
)

// service is what a dispatcher's parts know of the service that they are for: its name, which stays, and what it goes by, which
// Changes replace.
type service struct {
	engine *Engine
	// name is the service's full name.
	name     string
	assigned atomic.Pointer[assignment]
	// here ends when the service is no longer offered, or the engine is over; gone ends it.
	here context.Context
	gone context.CancelCauseFunc
	// complaints are for lines of the log about servers that fail, rejections for those about clients that were closed without a word,
	// silences for those about clients that don't say what they want, drops for those about cancel requests, and denials for those about
	// clients from elsewhere.
	complaints, rejections, silences, drops, denials throttle
}

// assignment is what a Change made a service go by.
type assignment struct {
	Endpoint
	protocol protocol
	addr     listenAddr
	// closed says that nobody is accepted.
	closed bool
	// replaced is closed when there is another assignment.
	replaced chan struct{}
}

func newService(e *Engine, a assignment) *service {
	s := &service{engine: e, name: a.Definition.FullName}
	s.here, s.gone = context.WithCancelCause(e.over)
	a.replaced = make(chan struct{})
	s.assigned.Store(&a)
	return s
}

// endpoint gives the endpoint, and protocol what is particular to the service's protocol, by the newest assignment.
func (s *service) endpoint() *Endpoint { return &s.assigned.Load().Endpoint }

func (s *service) protocol() *protocol { return &s.assigned.Load().protocol }

// view gives the service as the newest View has it; nil if it hasn't.
func (s *service) view() *view.Service {
	_, svc := s.look()
	return svc
}

// look is view with the View.
func (s *service) look() (*view.View, *view.Service) {
	v := s.endpoint().Board.View()
	return v, v.Service(s.name)
}

// protocol is all in which services of one protocol differ from those of another: it is chosen when a Change is prepared, and
// nothing else asks what a service speaks. There are PostgreSQL's (postgres) and everything else's (TCPService.protocol).
type protocol struct {
	// name tells protocols apart. A service that changes it is another service.
	name string
	// hear waits until the client has said what it wants and leaves that in it. nil is for protocols in which the server may speak
	// first: nobody is heard there, and who is accepted is connected at once.
	hear func(ctx context.Context, c *client) error
	// reject closes a client that no server takes, and tells it or the log why.
	reject func(s *service, c *client, no *refusal)
	// recheck has a server's health looked at out of turn, because it failed a client; await that of those whose answers matter to
	// clients that wait for one to be up. They don't block.
	recheck func(member string)
	await   func(v *view.Service)
	// doubt has a server's port looked at, because it keeps a client waiting: for the connection, or for its first response. It doesn't
	// block.
	doubt func(service, member string)
	// hold is how long a client may wait for a server; 0 is not at all. connectTimeout limits a connection attempt.
	hold, connectTimeout time.Duration
	// failover has it wait for as long as a failover can take (Endpoint.Expectancy), and for hold where none can come.
	failover bool
	// once says that a client has only one try.
	once bool
	// idle is how long both sides of a session may say nothing; 0 is for ever.
	idle time.Duration
}

// postgres is the protocol of PostgreSQL's services. Its clients speak first, and what they say comes with the end of the
// handshake. So hearing it before a server is connected takes next to no time, and costs no server a process for a client that says
// nothing, such as a port check.
func (e *Engine) postgres(endpoint Endpoint) protocol {
	cluster := endpoint.Cluster
	p := protocol{
		name:    "postgresql",
		hear:    func(ctx context.Context, c *client) error { return c.hear(ctx, e.cfg.OpeningTimeout) },
		reject:  (*service).refuse,
		recheck: func(member string) { e.cfg.Recheck(cluster, member) },
		await:   func(v *view.Service) { e.cfg.Await(cluster, v.FullName) },
		doubt:   func(service, member string) { e.cfg.Doubt(cluster, service, member) },
		hold:    e.cfg.Hold, failover: e.cfg.HoldFailover, connectTimeout: e.cfg.ConnectTimeout,
	}
	if own := endpoint.Definition.Hold; own != nil {
		if p.failover = own.Failover; !p.failover {
			p.hold = own.For
		}
	}
	return p
}

// waits says that clients wait for a server, so that one that fails or refuses them has them tried elsewhere or again. It has nothing to
// say of those who are kept by a View's Hold.
func (p *protocol) waits() bool { return p.hold > 0 || p.failover }
