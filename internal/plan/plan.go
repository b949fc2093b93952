// Package plan turns an inventory into what nodes need to know: clusters, their members, and the definitions of their
// services, all checked (service.Plan).
//
// A cluster is all hosts with the same pg_cluster, in the inventory's order. What a service is comes from the variables of
// the host that looks at it (pg_default_services, pg_services, pg_default_service_dest, pg_rto, pg_rto_plan,
// pg_service_provider, pgporter_roles), so two nodes may see one cluster's services differently, as in Pigsty; what a member
// is (ports, weight, TLS) comes from each member. Parameters and their defaults are Pigsty's.
//
// Every function returns all problems that it finds at once, each with its place. With an error among them the Plan still
// holds what is sound, but is not to be run. Services that Pigsty would render in spite of a mistake, by falling back to
// something, are taken the same way with a warning. The package is pure: it reads nothing but the inventory it is given.
package plan

import (
	"github.com/pgporter/pgporter/internal/diag"
	"github.com/pgporter/pgporter/internal/inventory"
	"github.com/pgporter/pgporter/internal/selector"
	"github.com/pgporter/pgporter/internal/service"
)

// ForNode gives the clusters that an inventory host is a member of, as that host's variables describe them, for the native
// engine: what only HAProxy can do is refused by name.
func ForNode(inv *inventory.Inventory, host string) (service.Plan, diag.Problems) {
	return newPlanner(inv).forNode(host)
}

// ForHAProxy gives the same for a node whose services HAProxy carries: options and algorithms that the native engine
// hasn't are taken, and the node's haproxy_services are the Plan's Generics.
func ForHAProxy(inv *inventory.Inventory, host string) (service.Plan, diag.Problems) {
	p := newPlanner(inv)
	p.haproxy = true
	return p.forNode(host)
}

func (p *planner) forNode(host string) (service.Plan, diag.Problems) {
	inv := p.inv
	plan := service.Plan{Node: host, Clusters: []service.Cluster{}}
	h, known := inv.Host(host)
	if !known {
		p.problems.Errorf(diag.Position{File: inv.File}, nearestHost(inv, host), "the host %q isn't in the inventory", host)
		return plan, p.problems.Sorted()
	}
	plan.Clusters = p.node(h)
	if p.haproxy {
		for _, g := range p.generics(h) {
			plan.Generics = append(plan.Generics, g.Generic)
		}
	}
	if !p.haproxy && len(plan.Clusters) == 0 {
		p.problems.Warnf(h.Pos, "pg_cluster, pg_seq and pg_role", "the host %q is a member of no cluster and carries no services", host)
	}
	return plan, p.problems.Sorted()
}

// All gives every cluster as its primary sees it, or, where none is declared, which is an error, as its first member does.
func All(inv *inventory.Inventory) (service.Plan, diag.Problems) {
	p := newPlanner(inv)
	plan := service.Plan{Clusters: make([]service.Cluster, 0, len(p.clusters))}
	for _, c := range p.clusters {
		plan.Clusters = append(plan.Clusters, p.view(c, c.viewpoint()))
	}
	p.warnOfNone()
	return plan, p.problems.Sorted()
}

// Check finds the problems of every node and of every cluster.
func Check(inv *inventory.Inventory) diag.Problems {
	p := newPlanner(inv)
	for _, h := range inv.Hosts() {
		p.node(h)
	}
	p.warnOfNone()
	return p.problems.Sorted()
}

// planner works on one inventory and gathers its problems.
type planner struct {
	inv *inventory.Inventory
	// haproxy says that HAProxy carries the services, not the native engine.
	haproxy  bool
	problems diag.Problems
	// clusters are in the order of their first members.
	clusters  []*cluster
	of        map[*inventory.Host]*cluster
	selectors map[string]compiled
	// endpoints are etcd's URLs, once they were asked for.
	endpoints []string
	// infra are the hosts of the group of that name, once they were asked for.
	infra []*inventory.Host
}

// compiled is a selector, or why there is none.
type compiled struct {
	selector *selector.Selector
	err      error
}

func newPlanner(inv *inventory.Inventory) *planner {
	p := &planner{inv: inv, of: map[*inventory.Host]*cluster{}, selectors: map[string]compiled{}}
	byName := map[string]*cluster{}
	for _, h := range inv.Hosts() {
		name, v, ok := p.clusterName(h)
		if !ok {
			continue
		}
		c, known := byName[name]
		if !known {
			c = &cluster{name: name, pos: v.Pos(), views: map[string]view{}}
			byName[name] = c
			p.clusters = append(p.clusters, c)
		}
		c.hosts = append(c.hosts, h)
		p.of[h] = c
	}
	return p
}

// node gives what one node carries, with the problems that only this node has.
func (p *planner) node(h *inventory.Host) []service.Cluster {
	p.genericServices(h)
	c, isMember := p.of[h]
	if !isMember {
		return []service.Cluster{}
	}
	return []service.Cluster{p.view(c, h)}
}

// genericServices tells of services that the node's HAProxy has and this program doesn't carry.
func (p *planner) genericServices(h *inventory.Host) {
	v, set := h.Var("haproxy_services")
	if p.haproxy || !set || v.Kind() == inventory.Null || v.Kind() == inventory.List && len(v.Items()) == 0 {
		return
	}
	if enabled, set := h.Var("haproxy_enabled"); set {
		if on, ok := enabled.Truth(); ok && !on {
			return
		}
	}
	p.problems.Warnf(v.Pos(), "HAProxy for these", "haproxy_services are not carried by the native engine yet")
}

func (p *planner) warnOfNone() {
	if len(p.clusters) == 0 && p.problems.Err() == nil {
		p.problems.Warnf(diag.Position{File: p.inv.File}, "hosts with pg_cluster, pg_seq and pg_role", "no host is a member of a cluster")
	}
}

// variable looks a host's variable up. One that can't be read as it is written is a problem, and then as good as unset.
func (p *planner) variable(h *inventory.Host, name string) (inventory.Value, bool) {
	v, set := h.Var(name)
	return v, set && p.readable(v, name)
}

// readable reports a value that holds a template or is encrypted; what names it in the message.
func (p *planner) readable(v inventory.Value, what string) bool {
	part, why, found := v.Unreadable()
	if found {
		p.problems.Errorf(part.Pos(), "a value written out", why, what)
	}
	return !found
}

func (p *planner) compile(expression string) (*selector.Selector, error) {
	c, done := p.selectors[expression]
	if !done {
		c.selector, c.err = selector.Compile(expression)
		p.selectors[expression] = c
	}
	return c.selector, c.err
}
