package daemon

import (
	"context"

	"github.com/pgporter/pgporter/internal/engine"
	"github.com/pgporter/pgporter/internal/engine/haproxy"
	"github.com/pgporter/pgporter/internal/engine/proxy"
	"github.com/pgporter/pgporter/internal/monitor/view"
)

// Engine carries the services of the running configuration: the native one, or a HAProxy.
type Engine interface {
	// Prepare does everything that can fail. Sessions, and what new clients meet, stay as they are where what it gives is aborted.
	Prepare(ctx context.Context, o engine.Offer) (Change, error)
	// Run carries what is committed until ctx ends, and then stops in order.
	Run(ctx context.Context) error
	// Traffic tells what is carried now, by the services' full names.
	Traffic(ctx context.Context) map[string]Traffic
	// Beats are those of its loops, as long as they are to go round.
	Beats() map[string]rounds
}

// Part is something besides the engine that follows the running configuration: names, virtual addresses.
type Part interface {
	// Prepare finds out whether o can be followed and touches nothing.
	Prepare(ctx context.Context, o engine.Offer) (Change, error)
	// Run follows what is committed until ctx ends, and then stops in order.
	Run(ctx context.Context) error
}

// Traffic is what an engine has of a service.
type Traffic struct {
	// Address is where it listens, unless it is Closed.
	Address  string
	Closed   bool
	Sessions int
	// Queued are clients that wait for a server.
	Queued         int
	Total, Refused uint64
	Servers        map[string]ServerTraffic
}

// ServerTraffic is one server's part, by the member's name.
type ServerTraffic struct {
	Sessions int
	Total    uint64
	// Asked says that the engine has a mind of its own about who takes clients, and Up what it is. Ordered is what operators have ordered
	// of it over the engine's own interface, or by pgporter.
	Asked, Up bool
	Ordered   view.State
}

// native is our own engine.
type native struct {
	*proxy.Engine
	files budget
}

// native is the native engine, also where it is a shadow's.
func (d *Daemon) native() (native, bool) {
	switch engine := d.engine.(type) {
	case native:
		return engine, true
	case *shadowing:
		return engine.native, true
	}
	return native{}, false
}

// Prepare opens the ports that aren't open yet.
func (n native) Prepare(_ context.Context, o engine.Offer) (Change, error) {
	change, err := n.Engine.PrepareOffer(o)
	if err != nil {
		return Change{}, err
	}
	commit := func() {
		n.SetAside(n.files.aside(clusters(o)))
		change.Commit()
	}
	return Change{Commit: commit, Publish: change.Publish, Abort: change.Abort}, nil
}

// Traffic is the engine's status.
func (n native) Traffic(context.Context) map[string]Traffic {
	all := map[string]Traffic{}
	for _, s := range n.Status().Services {
		t := Traffic{Address: s.Address, Closed: s.Closed, Sessions: s.Sessions, Queued: s.Queued, Total: s.TotalSessions, Refused: s.Refused, Servers: map[string]ServerTraffic{}}
		for _, server := range s.Servers {
			t.Servers[server.Member] = ServerTraffic{Sessions: server.Sessions, Total: server.TotalSessions}
		}
		all[s.Service] = t
	}
	return all
}

// Beats are those of dispatchers and of the relay.
func (n native) Beats() map[string]rounds {
	all := map[string]rounds{}
	for name, count := range n.Engine.Beats() {
		all[name] = rounds{count, standstill}
	}
	return all
}

// balancer is a HAProxy.
type balancer struct{ *haproxy.Engine }

// Prepare renders HAProxy's files, has it check them and, unless it is a trial, load them.
func (b balancer) Prepare(ctx context.Context, o engine.Offer) (Change, error) {
	change, err := b.Engine.Prepare(ctx, o)
	if err != nil {
		return Change{}, err
	}
	if !o.Trial {
		o.FirstChecks(ctx)
		if err := change.Load(ctx); err != nil {
			return Change{}, err
		}
	}
	return Change{Publish: func() { change.Commit(ctx) }, Abort: change.Abort}, nil
}

// Beats are those of the one loop that follows the Boards.
func (b balancer) Beats() map[string]rounds {
	return map[string]rounds{"the loop that follows HAProxy": {b.Engine.Beats(), haproxy.LongestRound}}
}

// Traffic is what HAProxy counts.
func (b balancer) Traffic(ctx context.Context) map[string]Traffic {
	all := map[string]Traffic{}
	for _, s := range b.Engine.Traffic(ctx) {
		t := Traffic{Address: s.Address, Sessions: s.Sessions, Total: s.TotalSessions, Refused: s.Refused, Servers: map[string]ServerTraffic{}}
		for _, server := range s.Servers {
			t.Servers[server.Member] = ServerTraffic{Sessions: server.Sessions, Total: server.TotalSessions, Asked: server.Known, Up: server.Up, Ordered: server.State}
		}
		all[s.Service] = t
	}
	return all
}
