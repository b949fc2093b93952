package plan

import "github.com/pgporter/pgporter/internal/config/inventory"

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
