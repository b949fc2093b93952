package plan

import (
	"strings"

	"github.com/pgporter/pgporter/internal/config/diag"
	"github.com/pgporter/pgporter/internal/config/inventory"
)

// upstream is where a standby cluster replicates from, as its declared primary says with pg_upstream; false for any other cluster.
func (p *planner) upstream(c *cluster) (inventory.Value, bool) {
	primary := p.primary(c)
	if primary == nil {
		return inventory.Value{}, false
	}
	v, set := p.shown(primary, "pg_upstream")
	text, _ := v.Text()
	return v, set && text != ""
}

// warnOfStandby tells what a standby cluster can't do: Patroni says 503 to /primary on its leader (do_GET in api.py).
func (p *planner) warnOfStandby(c *cluster, definitions []definition) {
	v, is := p.upstream(c)
	if !is {
		return
	}
	text, _ := v.Text()
	from := "another cluster"
	if v.Quotable() {
		from = text
	}
	for _, m := range p.declared(c) {
		if m.Host == text || m.Name == text {
			p.problems.Warnf(diag.UpstreamWrong, v.Pos(), "the address of another cluster's primary, or no pg_upstream for the primary",
				"cluster %q is its own upstream: pg_upstream of its primary is %s, a member of it", c.name, from)
			return
		}
	}
	for _, other := range p.clusters {
		if other != c && other.name == text {
			p.problems.Warnf(diag.UpstreamWrong, v.Pos(), "the address of its primary", "pg_upstream of cluster %q is %s, a cluster's name, which PostgreSQL would have to look up", c.name, from)
		}
	}
	if why, want := unaddressable(text); why != "" && v.Quotable() {
		p.problems.Warnf(diag.UpstreamWrong, v.Pos(), want, "pg_upstream of cluster %q is %s, which is no address: %s", c.name, from, why)
	}
	var closed []string
	for _, d := range definitions {
		path, _, _ := strings.Cut(d.Check, "?")
		if known(path) || path == "/" {
			if asks(path) == ofLeader && !strings.Contains(path, "leader") {
				closed = append(closed, d.FullName)
			}
		}
	}
	if len(closed) > 0 {
		p.problems.Warnf(diag.StandbyCluster, v.Pos(), "writes to the cluster that it follows, or /leader as the check of a service that is to lead to its leader",
			"cluster %q is a standby cluster of %s: as long as it is one nobody serves %s, since none of its members takes writes", c.name, from, servicesNamed(closed))
	}
}
