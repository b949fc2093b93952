package plan

import (
	"fmt"
	"slices"
	"strings"

	"github.com/pgporter/pgporter/internal/config/diag"
	"github.com/pgporter/pgporter/internal/config/inventory"
	"github.com/pgporter/pgporter/internal/config/model"
)

// Nodes tells where a cluster's services are: carriers are the hosts that offer them, which are the members or, where they are
// delegated, the provider's hosts; members are the cluster's own. Both are in the inventory's order and empty if there is no
// such cluster.
func Nodes(inv *inventory.Inventory, cluster string) (carriers, members []string) {
	p := newPlanner(inv)
	carry := map[*inventory.Host]bool{}
	for _, c := range p.clusters {
		if c.name != cluster {
			continue
		}
		for _, h := range c.hosts {
			members = append(members, h.Name)
			carry[h] = p.quietly(h) == nil
		}
		if primary := p.primary(c); primary != nil {
			if provider := p.quietly(primary); provider != nil {
				for _, h := range provider.Hosts() {
					carry[h] = true
				}
			}
		}
	}
	for _, h := range inv.Hosts() {
		if carry[h] {
			carriers = append(carriers, h.Name)
		}
	}
	return carriers, members
}

// HostOf gives the name in the inventory of a host that may go by its instance's; false if there is none.
func HostOf(inv *inventory.Inventory, name string) (string, bool) {
	h, known := newPlanner(inv).host(name)
	if !known {
		return "", false
	}
	return h.Name, true
}

// host finds a host by its name in the inventory, or by its instance's, as in pg-test-1.
func (p *planner) host(name string) (*inventory.Host, bool) {
	if h, known := p.inv.Host(name); known {
		return h, true
	}
	for _, c := range p.clusters {
		for _, h := range c.hosts {
			if instance, is := p.instance(c, h); is && instance == name {
				return h, true
			}
		}
	}
	return nil, false
}

// instance is what a member is called, without a word on a name that can't be used.
func (p *planner) instance(c *cluster, h *inventory.Host) (string, bool) {
	if v, set := p.templates.Var(h, "pgporter_member"); set {
		name, ok := v.Name()
		return name, ok && v.Tainted() == "" && model.IsName(name)
	}
	v, set := p.templates.Var(h, "pg_seq")
	if _, unreadable := v.Unreadable("pg_seq"); !set || unreadable || v.Tainted() != "" {
		return "", false
	}
	seq, numbered := v.WholeNumber()
	return fmt.Sprintf("%s-%d", c.name, seq), numbered
}

// mostNodes is how many nodes a message lists.
const mostNodes = 30

// nodes says what a node may be called: what was probably meant, or all that there are.
func (p *planner) nodes(name string) string {
	var known, listed []string
	for _, h := range p.inv.Hosts() {
		known = append(known, h.Name)
		shown := h.Name
		if c, isMember := p.of[h]; isMember {
			if instance, is := p.instance(c, h); is {
				known = append(known, instance)
				shown = fmt.Sprintf("%s (%s)", instance, h.Name)
			}
		}
		listed = append(listed, shown)
	}
	slices.Sort(known)
	near := diag.Nearest(name, known)
	switch {
	case len(listed) == 0:
		return "an inventory with hosts"
	case near != "":
		return "did you mean " + near
	case len(listed) > mostNodes:
		return fmt.Sprintf("one of %s and %d more", strings.Join(listed[:mostNodes], ", "), len(listed)-mostNodes)
	}
	return "one of " + strings.Join(listed, ", ")
}
