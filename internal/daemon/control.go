package daemon

import (
	"context"
	"errors"
	"fmt"
	"net"
	"time"

	"github.com/pgporter/pgporter/internal/admin/api"
	"github.com/pgporter/pgporter/internal/admin/control"
	"github.com/pgporter/pgporter/internal/admin/diff"
	"github.com/pgporter/pgporter/internal/config/intake"
	"github.com/pgporter/pgporter/internal/config/model"
)

// Control is an address at which orders are taken from those who have the token.
type Control struct {
	// Address is host:port; an empty host is every address of this machine.
	Address     string
	Credentials *control.Credentials
}

// Sent says where a configuration came from that wasn't read on this node.
type Sent struct {
	// Source is what the sender made it from, Sender who he says to be, From his address.
	Source, Sender, From string
}

// listenForControl opens the control address; without one there is no listener.
func (d *Daemon) listenForControl(ctx context.Context) (net.Listener, error) {
	if d.cfg.Control == nil {
		return nil, nil
	}
	if l, err := d.cfg.Inherited.listener(d.controlName()); l != nil || err != nil {
		return l, err
	}
	var config net.ListenConfig
	listener, err := config.Listen(ctx, "tcp", d.cfg.Control.Address)
	if err != nil {
		return nil, fmt.Errorf("control address %s: %w", d.cfg.Control.Address, err)
	}
	return listener, nil
}

// controlName names the control address among the sockets that are handed over.
func (d *Daemon) controlName() string {
	if d.cfg.Control == nil {
		return controlSocket
	}
	return controlSocket + d.cfg.Control.Address
}

// serveControl takes orders until ctx ends. When it returns, none is being carried out and none will be.
func (d *Daemon) serveControl(ctx context.Context, listener net.Listener) error {
	if listener == nil {
		return nil
	}
	defer d.takeNoMore()
	expires := d.cfg.Control.Credentials.Expires()
	d.log.Info("orders are taken from those who have the token", "control", listener.Addr().String(), "certificate_expires", expires)
	if time.Now().After(expires) {
		d.log.Warn("the certificate of the control address has expired, nobody will trust it", "expired", expires)
	}
	server := control.Server{Credentials: d.cfg.Control.Credentials, Steering: d.steering(), Logger: d.log}
	return server.Serve(ctx, d.guard(listener, "control", d.budget.control))
}

// takeNoMore has no order be carried out from now on.
func (d *Daemon) takeNoMore() {
	d.taking.Lock()
	defer d.taking.Unlock()
	d.closed = true
}

// steering is what may be asked and ordered of this daemon.
func (d *Daemon) steering() control.Steering {
	s := control.Steering{Node: d.who, Status: d.Status, Events: d.Events, Goroutines: goroutines, Sessions: d.Sessions, Order: d.Order, EndSessions: d.EndSessions, Hold: d.Hold,
		Reread: d.Reread, Take: d.carryOut}
	if _, discovers := d.cfg.Source.(*Discovered); discovers {
		// A plan would hold until the next look at who is there.
		s.Take = nil
	}
	return s
}

// reread is who wants the configuration to be read again, and where to say how it went.
type reread struct {
	by  string
	end chan error
}

// Reread reads the configuration again as SIGHUP does and says how it went. by says who wants that.
func (d *Daemon) Reread(ctx context.Context, by string) (api.Reread, error) {
	r := reread{by, make(chan error, 1)}
	select {
	case d.rereads <- r:
	case <-ctx.Done():
		return api.Reread{}, errStopping
	}
	select {
	case err := <-r.end:
		if err != nil {
			return api.Reread{}, err
		}
	case <-ctx.Done():
		return api.Reread{}, errStopping
	}
	node := d.who()
	return api.Reread{Version: node.Version, Node: node.Node, Generation: node.Generation, Source: d.cfg.Source.Name()}, nil
}

var errStopping = errors.New("this pgporter is stopping")

// renewCredentials reads the token and the certificate again; if they can't be used, those in use stay.
func (d *Daemon) renewCredentials() {
	if t := d.cfg.PageTLS; t != nil {
		if err := t.renew(); err != nil {
			d.log.Error("the page's certificate can't be renewed, the one in use stays", "problems", err.Error())
		}
	}
	if d.cfg.Control == nil {
		return
	}
	if err := d.cfg.Control.Credentials.Renew(); err != nil {
		d.log.Error("the credentials of the control address can't be renewed, those in use stay", "problems", err.Error())
	}
}

// who is this node, for whom may change it.
func (d *Daemon) who() api.Node {
	d.mu.Lock()
	defer d.mu.Unlock()
	return api.Node{Version: d.cfg.Version, Node: d.node, Engine: d.engineName(), Names: d.names() != nil, Generation: d.accepted}
}

// carryOut takes an order, or with dryRun says what it would change. Orders come one after the other, and each is compared
// with what the one before left.
func (d *Daemon) carryOut(ctx context.Context, o intake.Order, from string, dryRun bool) (api.Taken, error) {
	d.taking.Lock()
	defer d.taking.Unlock()
	if d.closed || ctx.Err() != nil {
		return api.Taken{}, errStopping
	}
	about := []any{"from", from, "sender", o.Sender, "source", o.Source}
	changes, err := d.compare(o)
	if err == nil {
		err = d.swap(ctx, Loaded{Plan: o.Plan, Trial: dryRun, Sent: &Sent{Source: o.Source, Sender: o.Sender, From: from}})
	}
	node := d.who()
	switch {
	case err != nil && dryRun:
		d.log.Info("an order was tried and would be refused", append(about, "generation", node.Generation, "problems", err.Error())...)
		return api.Taken{}, err
	case err != nil:
		d.refuse(Sent{Sender: o.Sender, From: from}.words(), err, about...)
		return api.Taken{}, err
	case dryRun:
		d.log.Info("an order was compared, nothing has changed", append(about, "generation", node.Generation)...)
	default:
		d.log.Info("an order was carried out", append(about, "generation", node.Generation,
			"clusters_changed", len(changes.Clusters), "services_changed", len(changes.Services))...)
	}
	taken := api.Taken{Version: node.Version, Node: node.Node, Generation: node.Generation, DryRun: dryRun, Changes: changes}
	if !dryRun {
		taken.Unkept = d.acceptance.unkept
	}
	return taken, nil
}

// compare says what an order changes of what runs, or why it isn't for this node.
func (d *Daemon) compare(o intake.Order) (api.Changes, error) {
	d.mu.Lock()
	plan, running := d.plan, d.running
	d.mu.Unlock()
	if o.Plan.Node != plan.Node {
		return api.Changes{}, fmt.Errorf("the plan is for %s, and this node is %s", o.Plan.Node, plan.Node)
	}
	carries := intake.Native
	if d.cfg.HAProxy != nil {
		carries = intake.HAProxy
	}
	if err := carries(o.Plan); err != nil {
		return api.Changes{}, err
	}
	return diff.Between(plan, o.Plan, liveRoles(running))
}

// liveRoles gives what the members of running clusters are now, by cluster and member.
func liveRoles(running map[string]*runningCluster) map[string]map[string]model.Role {
	live := make(map[string]map[string]model.Role, len(running))
	for name, r := range running {
		members := r.loop.Board().View().Members
		live[name] = make(map[string]model.Role, len(members))
		for _, m := range members {
			live[name][m.Name] = m.Live
		}
	}
	return live
}
