package plan

import (
	"github.com/pgporter/pgporter/internal/config/diag"
	"github.com/pgporter/pgporter/internal/config/inventory"
	"github.com/pgporter/pgporter/internal/config/model"
)

// BaseOf gives what ForHAProxy does and what the host's haproxy.cfg is made of; nil if the inventory gives it no HAProxy.
func BaseOf(inv *inventory.Inventory, host string) (model.Plan, *model.Base, diag.Problems) {
	p := newPlanner(inv)
	p.haproxy = true
	plan, problems := p.forNode(host)
	h, known := p.host(host)
	if !known {
		return plan, nil, problems
	}
	base, has := p.base(h)
	if !has {
		return plan, nil, p.problems.Sorted()
	}
	p.statsPort(h, base, plan)
	return plan, &base, p.problems.Sorted()
}
