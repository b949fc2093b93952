package plan

import (
	"slices"

	"github.com/pgporter/pgporter/internal/inventory"
)

// Nodes tells where a cluster's services are: carriers are the hosts that offer them, which are the members or, where
// pg_service_provider names a group, that group's hosts, as the primary has it; members are the cluster's own. Both are in the inventory's order and
// empty if there is no such cluster.
func Nodes(inv *inventory.Inventory, cluster string) (carriers, members []string) {
	p := newPlanner(inv)
	carry := map[string]bool{}
	for _, c := range p.clusters {
		if c.name != cluster {
			continue
		}
		for _, h := range c.hosts {
			members = append(members, h.Name)
			if p.quietly(h) == nil {
				carry[h.Name] = true
			}
		}
		if primary := p.primary(c); primary != nil {
			if group := p.quietly(primary); group != nil {
				for _, h := range group.Hosts() {
					carry[h.Name] = true
				}
			}
		}
	}
	for _, h := range inv.Hosts() {
		if carry[h.Name] {
			carriers = append(carriers, h.Name)
		}
	}
	return carriers, members
}

// ClusterNames are all clusters that have members, in the order of their first ones.
func ClusterNames(inv *inventory.Inventory) []string {
	var names []string
	for _, c := range newPlanner(inv).clusters {
		if !slices.Contains(names, c.name) {
			names = append(names, c.name)
		}
	}
	return names
}
