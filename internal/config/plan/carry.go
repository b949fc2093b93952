package plan

import (
	"fmt"
	"slices"

	"github.com/pgporter/pgporter/internal/config/diag"
	"github.com/pgporter/pgporter/internal/config/inventory"
	"github.com/pgporter/pgporter/internal/config/model"
)

// carriedCluster is a cluster with what a node sees of it.
type carriedCluster struct {
	cluster *cluster
	view    view
}

// node gives what one node carries, with the problems that only this node has: its own cluster, without services if those are
// delegated to others, and the clusters whose services are delegated to it, as their primaries see them.
func (p *planner) node(h *inventory.Host) ([]model.Cluster, []model.TCPService) {
	var carried []carriedCluster
	own, isMember := p.of[h]
	if isMember {
		local := !p.delegated(own, h)
		if !slices.Contains(p.delegatedTo(h), own) {
			carried = append(carried, carriedCluster{own, p.view(own, h, local)})
		}
	}
	for _, c := range p.delegatedTo(h) {
		carried = append(carried, carriedCluster{c, p.view(c, p.primary(c), true)})
	}
	tcpServices := p.tcpServices(h)
	p.others = p.others || len(tcpServices) > 0
	clashing := p.settle(h, tcpServices, carried)
	clusters := make([]model.Cluster, 0, len(carried))
	for _, c := range carried {
		seen := c.view.seen
		if len(clashing) > 0 {
			seen.Definitions = slices.DeleteFunc(slices.Clone(seen.Definitions), func(d model.Definition) bool {
				return clashing[clash{c.cluster.name, d.Name}]
			})
		}
		clusters = append(clusters, seen)
	}
	var sound []model.TCPService
	for _, g := range tcpServices {
		if !clashing[clash{"", g.Name}] {
			sound = append(sound, g.TCPService)
		}
	}
	return clusters, sound
}

// one gives what node does for one of all hosts, as long as there is work left.
func (p *planner) one(h *inventory.Host) ([]model.Cluster, []model.TCPService) {
	if !p.spend(h.Pos, hostWork+serviceWork*len(p.delegatedTo(h))) {
		return nil, nil
	}
	return p.node(h)
}

// provider gives the group that a host's services are delegated to, or nil if the host's own cluster carries them.
func (p *planner) provider(h *inventory.Host) *inventory.Group {
	v, set := p.variable(h, "pg_service_provider")
	if !set || v.Kind() == inventory.Null {
		return nil
	}
	name, isText := v.Text()
	if !isText {
		p.problems.Errorf(diag.WrongType, v.Pos(), "the name of a group, or '' for none", "pg_service_provider is %s", v.Describe())
		return nil
	}
	if name == "" {
		return nil
	}
	group, exists := p.inv.Group(name)
	if !exists {
		called := "group of the name that a template makes"
		if v.Quotable() {
			called = fmt.Sprintf("group %q", name)
		}
		p.problems.Warnf(diag.ProviderUnknown, v.Pos(), "the name of a group", "pg_service_provider: there is no %s; the members carry the services, as in Pigsty", called)
		return nil
	}
	return group
}

// delegated tells whether another group carries the services that a member would, and warns if that means nobody does.
func (p *planner) delegated(c *cluster, h *inventory.Host) bool {
	group := p.provider(h)
	if group == nil {
		return false
	}
	pos, _ := h.Position("pg_service_provider")
	switch {
	case len(group.Hosts()) == 0:
		p.problems.Warnf(diag.CarriedByNobody, pos, "a group with hosts, or '' for services that the members carry",
			"the services of cluster %q are delegated to group %q, which has no hosts: nobody carries them", c.name, group.Name)
	case p.primary(c) == nil:
		p.problems.Warnf(diag.CarriedByNobody, pos, "a primary, as which the services are seen",
			"the services of cluster %q are delegated to group %q, but the cluster has no primary: nobody carries them", c.name, group.Name)
	}
	return true
}

// delegatedTo gives the clusters whose services a host carries for their primaries, in order.
func (p *planner) delegatedTo(h *inventory.Host) []*cluster {
	if p.delegations == nil {
		p.delegations = map[*inventory.Host][]*cluster{}
		for _, c := range p.clusters {
			primary := p.primary(c)
			if primary == nil {
				continue
			}
			if group := p.quietly(primary); group != nil {
				hosts := group.Hosts()
				if !p.spend(c.pos, len(hosts)) {
					break
				}
				for _, provider := range hosts {
					p.delegations[provider] = append(p.delegations[provider], c)
				}
			}
		}
	}
	return p.delegations[h]
}

// quietly gives a host's provider without its problems, which are those of the host's own cluster.
func (p *planner) quietly(h *inventory.Host) *inventory.Group {
	kept := p.problems
	defer func() { p.problems = kept }()
	return p.provider(h)
}

// clash is a service that can't be on a node under its name; a TCP service has no cluster.
type clash struct{ cluster, name string }

// listener is something that listens on a node.
type listener struct {
	// name is what messages call it, position where its port is written.
	name     string
	position diag.Position
	// builtIn says that the port is written nowhere; a service's position is then where its cluster is.
	builtIn bool
	at      model.ListenAddr
}

func (l listener) String() string {
	switch {
	case l.builtIn && l.position.Line == 0:
		return l.name
	case l.builtIn:
		return fmt.Sprintf("%s (a default service of the cluster at %s)", l.name, l.position)
	}
	return fmt.Sprintf("%s (%s)", l.name, l.position)
}

// maxListed is how many others on its port are named for a listener: if a thousand clusters are on one, a word on each pair of
// them is no help.
const maxListed = 3

// settle finds what can't be together on a node: services with one full name, of which the later are given back, and
// listeners on one port, those of the member on the node included.
func (p *planner) settle(h *inventory.Host, tcpServices []tcpService, carried []carriedCluster) map[clash]bool {
	var all []listener
	named := map[string]listener{}
	clashing := map[clash]bool{}
	add := func(l listener, fullName string, id clash, pos diag.Position) {
		all = append(all, l)
		if other, again := named[fullName]; again {
			clashing[id] = true
			p.problems.Errorf(diag.NameTwice, pos, "names that differ", "two services on %s have the full name %q: this one and %s", h.Name, fullName, other)
			return
		}
		named[fullName] = l
	}
	for _, c := range carried {
		for _, d := range c.view.definitions {
			l := listener{name: fmt.Sprintf("service %q", d.FullName), position: d.portPos, at: listenAddr(d.IP, d.Port)}
			if l.builtIn = d.portPos.Line == 0; l.builtIn {
				l.position = c.cluster.pos
			}
			pos := d.namePos
			if pos.Line == 0 {
				pos = c.cluster.pos
			}
			add(l, d.FullName, clash{c.cluster.name, d.Name}, pos)
		}
	}
	for _, g := range tcpServices {
		l := listener{name: fmt.Sprintf("service %q of haproxy_services", g.Name), position: g.portPos, at: listenAddr(g.IP, g.Port)}
		add(l, g.Name, clash{"", g.Name}, g.pos)
	}
	all = append(all, p.doorListener(h, carried)...)
	services := len(all)
	all = append(all, p.memberListeners(h)...)
	var taken model.Listeners[listener]
	perPort := map[uint16]int{}
	for i, l := range all {
		// One is compared with all before it on its port.
		if perPort[l.at.Port]++; !p.spend(h.Pos, perPort[l.at.Port]/compareWork) {
			break
		}
		for _, other := range taken.Overlapping(l.at, maxListed) {
			if i >= services {
				// What the member's own programs take the service can't have.
				p.portTaken(other, l)
			} else {
				p.portTaken(l, other)
			}
		}
		if i < services {
			taken.Add(l.at, l)
		}
	}
	return clashing
}

// listenAddr is where something listens whose port has been checked. A name that is no address may be any.
func listenAddr(ip string, port int) model.ListenAddr {
	at, err := model.ListenAddrOf(ip, port)
	if err != nil {
		at, _ = model.ListenAddrOf("*", port)
	}
	return at
}

func (p *planner) portTaken(l, by listener) {
	where := l.position
	if l.builtIn && by.position.Line > 0 && !by.builtIn {
		where = by.position
	}
	p.problems.Errorf(diag.PortTaken, where, "a port, or an ip, of its own", "%s: port %d is taken on the same node by %s", l.name, l.at.Port, by)
}

// pooled tells whether a member has a PgBouncer.
func (p *planner) pooled(h *inventory.Host) bool {
	v, set := p.templates.Var(h, "pgbouncer_enabled")
	on, ok := v.Truth()
	return !set || !ok || on
}

// memberListeners are the ports that the programs of the member on a node take.
func (p *planner) memberListeners(h *inventory.Host) []listener {
	c, isMember := p.of[h]
	if !isMember {
		return nil
	}
	var taken []listener
	m := p.declared(c)[c.index[h]]
	for _, own := range []struct {
		program, variable string
		port              int
	}{{"PostgreSQL", "pg_port", m.PostgresPort}, {"PgBouncer", "pgbouncer_port", m.PgBouncerPort}, {"Patroni", "patroni_port", m.PatroniPort}} {
		if own.program == "PgBouncer" && !p.pooled(h) {
			continue
		}
		l := listener{name: own.program + "'s " + own.variable, at: listenAddr(h.Name, own.port)}
		var set bool
		l.position, set = h.Position(own.variable)
		l.builtIn = !set
		taken = append(taken, l)
	}
	return taken
}
