package plan

import (
	"slices"

	"github.com/pgporter/pgporter/internal/config/diag"
	"github.com/pgporter/pgporter/internal/config/inventory"
	"github.com/pgporter/pgporter/internal/config/model"
)

// Site is what an inventory says of all its hosts at once: what their files are rendered from.
type Site struct {
	// Nodes are the hosts in the inventory's order.
	Nodes []Node
	// Names are the clusters' names, in the order of their first members.
	Names []Names
}

// Node is one host of a Site.
type Node struct {
	// Pos is where the host first appears.
	Pos diag.Position
	// Plan is what HAProxy carries on the host, as ForHAProxy gives it.
	Plan model.Plan
	// Cluster is the one that the host is a member of; empty for none.
	Cluster string
	// Infra says that the host is of the group of that name, from where Pigsty administers all others.
	Infra bool
	// Base is what its haproxy.cfg is made of; nil if it has no HAProxy, or if it wasn't asked for.
	Base *model.Base
	// VIP is the virtual address of its cluster; nil if it has none, or if it wasn't asked for.
	VIP *model.VIP
	// Door is the PgBouncer before its services; nil if none has one, or if it wasn't asked for.
	Door *model.PgBouncerDoor
}

// Names are those under which a cluster and its members are known, and the hosts that tell them.
type Names struct {
	Cluster string
	// Servers are the hosts of the group infra, which have Pigsty's name servers, or the cluster's members where no group is
	// called so.
	Servers []string
	// Records are the members' names and then the cluster's own, if it has one. Files are the files that they are in.
	Records []model.Record
	Files   []string
}

// Parts says what a Site is to hold beside Plans, and so what is read and can be wrong.
type Parts struct {
	Base, VIP, Names, Doors bool
}

// ForSite reads all hosts at once. Of two members of a cluster one that can't be read leaves the other in.
func ForSite(inv *inventory.Inventory, parts Parts) (Site, diag.Problems) {
	p := newPlanner(inv)
	p.haproxy, p.holdless, p.keyless = true, true, true
	site := Site{Nodes: make([]Node, 0, len(inv.Hosts()))}
	for _, h := range inv.Hosts() {
		n := Node{Pos: h.Pos, Plan: model.Plan{Node: h.Name}}
		n.Plan.Clusters, n.Plan.TCPServices = p.one(h)
		if parts.Base {
			n.Base = p.baseOf(h, n.Plan)
		}
		if c, isMember := p.of[h]; isMember {
			n.Cluster = c.name
			if parts.VIP {
				n.VIP = p.vipOf(c, h)
			}
		}
		n.Infra = slices.Contains(h.GroupNames(), "infra")
		site.Nodes = append(site.Nodes, n)
	}
	if parts.Doors {
		p.doors(&site)
	}
	p.surveyAll(inv.Hosts())
	p.warnOfNodeVIPs()
	if parts.Names {
		for _, c := range p.clusters {
			site.Names = append(site.Names, p.names(c))
		}
	}
	return site, p.told()
}

// baseOf gives nil if the host has no HAProxy, or if anything of its base is wrong.
func (p *planner) baseOf(h *inventory.Host, carried model.Plan) *model.Base {
	before := len(p.problems)
	base, has := p.base(h)
	if !has {
		return nil
	}
	p.statsPort(h, base, carried)
	if p.problems[before:].Err() != nil {
		return nil
	}
	return &base
}

func (p *planner) vipOf(c *cluster, h *inventory.Host) *model.VIP {
	members := p.declared(c)
	i := slices.IndexFunc(members, func(m member) bool { return m.host == h })
	before := len(p.problems)
	v, ok := p.vip(c, members[i])
	if !ok || p.problems[before:].Err() != nil {
		return nil
	}
	return &v
}

func (p *planner) names(c *cluster) Names {
	n := Names{Cluster: c.name}
	hosts := c.hosts
	if infra, exists := p.inv.Group("infra"); exists {
		if p.infra == nil {
			p.infra = infra.Hosts()
		}
		hosts = p.infra
	}
	for _, h := range hosts {
		n.Servers = append(n.Servers, h.Name)
	}
	n.Records, n.Files = p.records(c)
	return n
}

// Clusters gives the names of an inventory's clusters, in the order of their first members.
func Clusters(inv *inventory.Inventory) []string {
	p := newPlanner(inv)
	names := make([]string, 0, len(p.clusters))
	for _, c := range p.clusters {
		names = append(names, c.name)
	}
	return names
}
