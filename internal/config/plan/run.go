package plan

import (
	"github.com/pgporter/pgporter/internal/config/diag"
	"github.com/pgporter/pgporter/internal/config/inventory"
	"github.com/pgporter/pgporter/internal/config/model"
)

// Needs says what nodes run with, and so what is read for them.
type Needs struct {
	// HAProxy carries the services, which takes a haproxy.cfg; otherwise the native engine does.
	HAProxy bool
	// Names are told, those of all clusters.
	Names bool
	// Etcd is asked for leader keys.
	Etcd bool
	// Passwords are to be known. Where they aren't, none is read, and the files are named that nodes have them in.
	Passwords bool
}

// ForRun gives all that an inventory host runs from.
func ForRun(inv *inventory.Inventory, host string, needs Needs) (model.Node, diag.Problems) {
	p := newPlanner(inv)
	p.haproxy, p.holdless, p.secretless = needs.HAProxy, needs.HAProxy, !needs.Passwords
	carried, problems := p.forNode(host)
	h, known := p.host(host)
	if !known {
		return model.Node{Plan: carried}, problems
	}
	n := p.run(h, carried, needs)
	problems = p.problems
	if needs.Names {
		var found diag.Problems
		n.Plan, found = WithNames(inv, n.Plan)
		problems = append(problems, found...)
	}
	return n, worded(inv, problems)
}

// AllForRun gives the same for every host that carries a service or may have a virtual address, with their problems, but
// for what only Check finds.
func AllForRun(inv *inventory.Inventory, needs Needs) ([]model.Node, diag.Problems) {
	p := newPlanner(inv)
	p.haproxy, p.holdless, p.secretless = needs.HAProxy, needs.HAProxy, !needs.Passwords
	var nodes []model.Node
	for _, h := range inv.Hosts() {
		carried := model.Plan{Node: h.Name}
		carried.Clusters, carried.TCPServices = p.one(h)
		carried.Clusters = p.withVIP(h, carried.Clusters)
		if busy(carried) {
			nodes = append(nodes, p.run(h, carried, needs))
		}
	}
	p.warnOfNone()
	problems := p.problems
	if needs.Names {
		all, found := named(inv)
		problems = append(problems, found...)
		for i := range nodes {
			nodes[i].Plan = all.complete(nodes[i].Plan)
		}
	}
	return nodes, worded(inv, problems)
}

// busy tells whether a node has anything to do for clients.
func busy(carried model.Plan) bool {
	for _, c := range carried.Clusters {
		if len(c.Definitions) > 0 || c.VIP != nil {
			return true
		}
	}
	return len(carried.TCPServices) > 0
}

// run adds to what a host carries what it needs besides.
func (p *planner) run(h *inventory.Host, carried model.Plan, needs Needs) model.Node {
	n := model.Node{Plan: carried}
	if needs.HAProxy {
		before := len(p.problems)
		base, has := p.base(h)
		switch {
		case has:
			p.statsPort(h, base, carried)
			p.warnOfDoors(carried.Clusters)
			n.Base = &base
		case p.problems[before:].Err() == nil:
			p.problems.Errorf(diag.HAProxyDisabled, diag.Position{File: p.inv.File}, "haproxy_enabled: true, or another engine", "the host %q has no HAProxy: haproxy_enabled is false", h.Name)
		}
	}
	if !needs.HAProxy {
		n.Page = p.page(h, carried)
	}
	if needs.Etcd {
		n.Etcd = p.etcdOf(h)
	}
	if !needs.Passwords {
		n = n.WithoutSecrets()
	}
	return n
}
