package plan

import (
	"slices"
	"strings"

	"github.com/pgporter/pgporter/internal/config/diag"
	"github.com/pgporter/pgporter/internal/config/inventory"
	"github.com/pgporter/pgporter/internal/config/model"
)

// WithNames completes the plan of a node that tells names: those of all clusters of the inventory, and the clusters whose
// services the node doesn't carry, as their primaries see them. Nobody carries those here, so what only HAProxy can do is no
// problem of theirs.
func WithNames(inv *inventory.Inventory, carried model.Plan) (model.Plan, diag.Problems) {
	all, problems := named(inv)
	return all.complete(carried), problems
}

// namedCluster is one that has names, as its primary sees it.
type namedCluster struct {
	model.Naming
	seen model.Cluster
}

type namedClusters []namedCluster

func named(inv *inventory.Inventory) (namedClusters, diag.Problems) {
	p := newPlanner(inv)
	p.haproxy = true
	var all namedClusters
	for _, c := range p.clusters {
		if c.unnamable {
			p.declared(c)
			continue
		}
		h := p.viewpoint(c)
		v := p.view(c, h, true)
		naming, ok := p.naming(c, h)
		if !ok {
			continue
		}
		p.nameable(c, naming, v.definitions)
		p.surveyAll(c.hosts)
		all = append(all, namedCluster{naming, v.seen})
	}
	return all, p.told()
}

// complete gives a node's plan with the names.
func (all namedClusters) complete(carried model.Plan) model.Plan {
	for _, c := range all {
		carried.Names = append(carried.Names, c.Naming)
		here := slices.IndexFunc(carried.Clusters, func(one model.Cluster) bool { return one.Name == c.Cluster })
		if here < 0 || len(carried.Clusters[here].Definitions) == 0 && len(c.seen.Definitions) > 0 {
			carried.Elsewhere = append(carried.Elsewhere, c.seen)
		}
	}
	return carried
}

// naming reads what a cluster is called. False if it can't be used.
func (p *planner) naming(c *cluster, h *inventory.Host) (model.Naming, bool) {
	before := len(p.problems)
	n := model.Naming{Cluster: c.name, Target: p.dnsTarget(c, h, model.TargetPrimary), Delegated: p.delegated(c, h)}
	if n.Target == "" {
		n.Target = model.TargetNone
	}
	n.Suffix = p.text(h, "pg_dns_suffix", "", "letters, digits, dashes and dots", model.IsSuffix)
	return n, p.problems[before:].Err() == nil
}

// maxLabel is the DNS's limit of a label (RFC 1035, section 2.3.4).
const maxLabel = 63

// nameable tells of names that the DNS can't carry.
func (p *planner) nameable(c *cluster, n model.Naming, definitions []definition) {
	suffixPos := c.pos
	if pos, set := p.viewpoint(c).Position("pg_dns_suffix"); set {
		suffixPos = pos
	}
	reported := map[diag.Position]bool{}
	check := func(pos diag.Position, name string) {
		if pos.Line == 0 {
			pos = c.pos
		}
		if why := unfit(name); why != "" && !reported[pos] {
			reported[pos] = true
			p.problems.Errorf(diag.DNSNameInvalid, pos, "labels of 1 to 63 bytes between the dots, 253 bytes in all", "%q can't be a name of the DNS: %s", name, why)
		}
	}
	check(c.pos, c.name)
	for _, m := range p.declared(c) {
		check(m.host.Pos, m.Name)
	}
	for _, d := range definitions {
		check(d.namePos, "_postgresql._tcp."+d.Name+"."+c.name)
	}
	if n.Suffix == "" || len(reported) > 0 {
		return
	}
	check(suffixPos, c.name+n.Suffix)
	for _, m := range p.declared(c) {
		check(suffixPos, m.Name+n.Suffix)
	}
	for _, d := range definitions {
		check(suffixPos, "_postgresql._tcp."+d.Name+"."+c.name+n.Suffix)
	}
}

// unfit says why the DNS can't carry a name; empty if it can.
func unfit(name string) string {
	if len(name) > model.MaxName {
		return "it is too long"
	}
	for label := range strings.SplitSeq(name, ".") {
		switch {
		case label == "":
			return "a label is empty"
		case len(label) > maxLabel:
			return "the label " + label + " is too long"
		}
	}
	return ""
}
