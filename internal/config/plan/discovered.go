package plan

import (
	"github.com/pgporter/pgporter/internal/config/diag"
	"github.com/pgporter/pgporter/internal/config/inventory"
	"github.com/pgporter/pgporter/internal/config/model"
)

// ForDiscovered gives a cluster whose members were discovered the services that a file says (inventory.ReadServices), for the native
// engine. A service that says no destination leads to PgBouncer, where a member has one. Of the zero Cluster it tells what is wrong with the
// file whoever the members are.
func ForDiscovered(inv *inventory.Inventory, found model.Cluster) (model.Cluster, diag.Problems) {
	p := newPlanner(inv)
	h := inv.Hosts()[0]
	c := &cluster{name: found.Name, pos: diag.Position{File: inv.File}}
	for _, m := range found.Members {
		c.members = append(c.members, member{Member: m, host: h})
	}
	vars := make([]map[string]any, len(found.Members))
	for i, m := range found.Members {
		vars[i] = m.Vars
	}
	t := p.timing(h)
	_, row := h.Position("pg_rto")
	if _, set := h.Position("pgporter_ttl"); set || row {
		found.TTL = p.number(h, "pgporter_ttl", t.ttl, 1, 1<<31-1)
	}
	found.StaticRoles, found.TrustCheck = p.staticRoles(h), p.trustCheck(h)
	found.Definitions = []model.Definition{}
	definitions, dest, hold := p.definitions(h), p.defaultDest(h), p.hold(h)
	for i := range definitions {
		d := &definitions[i]
		if d.FullName = d.Name; c.name != "" {
			d.FullName = c.name + "-" + d.Name
		}
		if d.Dest = d.dest; d.Dest == (model.Dest{}) {
			d.Dest = dest
		}
		if !d.ownOptions {
			d.Options, _ = model.ParseOptions(t.options())
		}
		if d.Hold == nil {
			d.Hold = hold
		}
		if len(vars) == 0 {
			continue
		}
		if _, ok := p.selects(c, *d, c.members, vars); ok {
			found.Definitions = append(found.Definitions, d.Definition)
		}
	}
	p.settle(h, nil, []carriedCluster{{c, view{definitions: definitions}}})
	return found, p.told()
}
