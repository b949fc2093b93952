package daemon

import (
	"context"

	"github.com/pgporter/pgporter/internal/engine"
	"github.com/pgporter/pgporter/internal/engine/haproxy"
	"github.com/pgporter/pgporter/internal/engine/proxy"
)

// Engine carries the services of the running configuration: the native one, or a HAProxy.
type Engine interface {
	// Prepare does everything that can fail. Sessions, and what new clients meet, stay as they are where what it gives is aborted.
	Prepare(ctx context.Context, o engine.Offer) (Change, error)
	// Run carries what is committed until ctx ends, and then stops in order.
	Run(ctx context.Context) error
	// Traffic tells what is carried now of each service.
	Traffic(ctx context.Context) []engine.Traffic
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
func (n native) Traffic(context.Context) []engine.Traffic { return n.Status() }

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
