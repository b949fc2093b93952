// Package plan turns an inventory into what nodes need to know: clusters, their members, and the definitions of their
// services, all checked (model.Plan).
//
// A cluster is all hosts with the same pg_cluster, in the inventory's order. What a service is comes from the variables of
// the host that looks at it (pg_default_services, pg_services, pg_default_service_dest, pg_rto, pg_rto_plan,
// pg_service_provider, pgporter_roles, pgporter_trust), so two nodes may see one cluster's services differently, as in
// Pigsty; the virtual address (pg_vip_enabled, pg_vip_address, pg_vip_interface, pgporter_vip_on_dcs_loss) is the host's own;
// what a member is (ports, weight, TLS) comes from each member. Parameters and their defaults are Pigsty's.
//
// Every function returns all problems that it finds at once, each with its position. With an error among them the Plan still
// holds what is sound, but is not to be run. Services that Pigsty would render in spite of a mistake, by falling back to
// something, are taken the same way with a warning. The package is pure: it reads nothing but the inventory it is given.
package plan

import (
	"net/netip"
	"slices"

	"github.com/pgporter/pgporter/internal/config/diag"
	"github.com/pgporter/pgporter/internal/config/inventory"
	"github.com/pgporter/pgporter/internal/config/inventory/ownfile"
	"github.com/pgporter/pgporter/internal/config/jmespath"
	"github.com/pgporter/pgporter/internal/config/model"
)

// ForNode gives what an inventory host carries: the clusters that it is a member of, as its variables describe them, and its
// haproxy_services as TCPServices. The host goes by its name in the inventory or by its instance's; the plan has the former. It is
// for the native engine: what only HAProxy can do is refused by name.
func ForNode(inv *inventory.Inventory, host string) (model.Plan, diag.Problems) {
	return newPlanner(inv).forNode(host)
}

// ForHAProxy gives the same for a node whose services HAProxy carries: options and algorithms that the native engine
// hasn't are taken.
func ForHAProxy(inv *inventory.Inventory, host string) (model.Plan, diag.Problems) {
	p := newPlanner(inv)
	p.haproxy, p.holdless = true, true
	return p.forNode(host)
}

func (p *planner) forNode(host string) (model.Plan, diag.Problems) {
	plan := model.Plan{Node: host, Clusters: []model.Cluster{}}
	h, known := p.host(host)
	if !known {
		p.problems.Errorf(diag.NodeUnknown, diag.Position{File: p.inv.File}, p.nodes(host), "the host %q isn't in the inventory", host)
		return plan, p.told()
	}
	plan.Node = h.Name
	plan.Clusters, plan.TCPServices = p.node(h)
	plan.Clusters = p.withVIP(h, plan.Clusters)
	p.survey(h)
	for _, c := range plan.Clusters {
		p.surveyAll(p.named(c.Name).hosts)
	}
	if !p.haproxy && len(plan.Clusters)+len(plan.TCPServices) == 0 && p.problems.Err() == nil {
		p.problems.Warnf(diag.NodeWithoutServices, h.Pos, "pg_cluster, pg_seq and pg_role", "the host %q is a member of no cluster and carries no services", h.Name)
	}
	return plan, p.told()
}

// All gives every cluster as its primary sees it, or, where none is declared, which is an error, as its first member does.
func All(inv *inventory.Inventory) (model.Plan, diag.Problems) { return newPlanner(inv).all() }

// AllForHAProxy gives the same where HAProxy carries the services.
func AllForHAProxy(inv *inventory.Inventory) (model.Plan, diag.Problems) {
	p := newPlanner(inv)
	p.haproxy, p.holdless = true, true
	return p.all()
}

func (p *planner) all() (model.Plan, diag.Problems) {
	plan := model.Plan{Clusters: make([]model.Cluster, 0, len(p.clusters))}
	for _, c := range p.clusters {
		h := p.viewpoint(c)
		v := p.view(c, h, true)
		p.settle(h, nil, []carriedCluster{{c, v}})
		plan.Clusters = append(plan.Clusters, v.seen)
	}
	p.surveyAll(p.inv.Hosts())
	p.warnOfNone()
	return plan, p.told()
}

// Count is how much there was to check: clusters, and services by their full names, those of haproxy_services among them.
type Count struct{ Clusters, Services int }

// Check finds the problems of every node and of every cluster, where the native engine carries the services: what any other function
// of the package would refuse, and more. Whoever goes on with an inventory asks it first (Refused).
func Check(inv *inventory.Inventory) (Count, diag.Problems) { return newPlanner(inv).check() }

// CheckForHAProxy finds those where HAProxy does.
func CheckForHAProxy(inv *inventory.Inventory) (Count, diag.Problems) {
	p := newPlanner(inv)
	p.haproxy, p.holdless = true, true
	return p.check()
}

// Refused gives all that Check, or CheckForHAProxy, says of an inventory, beside what reading it has said, if it can't be used; of one
// that can, what reading it has said.
func Refused(inv *inventory.Inventory, read diag.Problems, haproxy bool) diag.Problems {
	p := newPlanner(inv)
	p.haproxy, p.holdless = haproxy, haproxy
	_, found := p.check()
	if all := append(slices.Clone(read), found...); all.Err() != nil {
		return all
	}
	return read
}

// check reads no password: whoever has them in a vault plans without (Needs), and only who runs from the inventory needs them.
func (p *planner) check() (Count, diag.Problems) {
	p.secretless = true
	services := map[string]bool{}
	for _, h := range p.inv.Hosts() {
		plan := model.Plan{}
		plan.Clusters, plan.TCPServices = p.one(h)
		if p.work < 0 {
			break
		}
		p.withVIP(h, plan.Clusters)
		for _, c := range plan.Clusters {
			for _, d := range c.Definitions {
				services[d.FullName] = true
			}
		}
		for _, g := range plan.TCPServices {
			services[g.Name] = true
		}
		if p.haproxy {
			p.warnOfDoors(plan.Clusters)
		}
		p.errorsOf(func() {
			if p.haproxy {
				p.baseOf(h, plan)
			}
			if _, isMember := p.of[h]; isMember {
				p.etcdPassword(h, "")
			}
		})
	}
	p.surveyAll(p.inv.Hosts())
	if p.work >= 0 {
		p.warnOfNodeVIPs()
	}
	p.errorsOf(func() {
		p.etcd()
		scopes := map[string]*cluster{}
		for _, c := range p.clusters {
			if !p.spend(c.pos, viewWork) {
				break
			}
			h := p.viewpoint(c)
			scope := p.keys(c, h).path()
			if other := scopes[scope]; other != nil {
				p.problems.Errorf(diag.ScopeTwice, c.pos, "a pg_group of its own for each cluster of a pg_shard",
					"cluster %q and cluster %q (%s) have the same keys in etcd, %s: they would be one cluster for Patroni", c.name, other.name, other.pos, scope)
			}
			scopes[scope] = c
			p.store(h)
			p.naming(c, h)
			p.databases(h)
			p.accounts(h)
		}
	})
	p.warnOfNone()
	return Count{len(p.clusters), len(services)}, p.told()
}

// errorsOf has something read for what is wrong with it alone: what makes it only doubtful is for who uses it.
func (p *planner) errorsOf(read func()) {
	before := len(p.problems)
	read()
	found := slices.DeleteFunc(p.problems[before:], func(f diag.Problem) bool { return f.Severity != diag.Error })
	p.problems = p.problems[:before+len(found)]
}

// named finds a cluster by its name.
func (p *planner) named(name string) *cluster {
	return p.clusters[slices.IndexFunc(p.clusters, func(c *cluster) bool { return c.name == name })]
}

// told are the problems, in the words of the file.
func (p *planner) told() diag.Problems { return worded(p.inv, p.problems) }

// worded gives problems sorted and in the words of the file, which aren't an inventory's variables in a pgporter.yml. A selector has the
// same ones in both.
func worded(inv *inventory.Inventory, problems diag.Problems) diag.Problems {
	problems = problems.Sorted()
	if !inv.Own() {
		return problems
	}
	for i, one := range problems {
		if one.Code != diag.SelectorInvalid {
			problems[i].What, problems[i].Want = ownfile.Worded(one.What), ownfile.Worded(one.Want)
		}
	}
	return problems
}

// planner works on one inventory and gathers its problems.
type planner struct {
	inv *inventory.Inventory
	// haproxy says that HAProxy carries the services, not the native engine.
	haproxy bool
	// holdless says that what is planned is for HAProxy, which keeps no client waiting.
	holdless bool
	// keyless leaves out where clusters have their keys in etcd: files don't say it.
	keyless bool
	// secretless leaves passwords unread: what is planned holds none.
	secretless bool
	problems   diag.Problems
	// clusters are in the order of their first members.
	clusters  []*cluster
	of        map[*inventory.Host]*cluster
	selectors map[string]*jmespath.Selector
	// paces are options of services by what pg_rto says.
	paces     map[timing]model.Options
	templates *inventory.Templates
	// delegations are the clusters whose services hosts carry for others, once somebody has asked.
	delegations map[*inventory.Host][]*cluster
	// endpoints are etcd's URLs, once they were asked for.
	endpoints []string
	// virtuals are what keeps each virtual address, once that was asked for.
	virtuals map[netip.Addr][]virtualUse
	// addresses are the hosts by the addresses that they are at, once they were asked for. abroad says that some aren't this machine.
	addresses map[netip.Addr]*inventory.Host
	abroad    *bool
	// surveyed are the hosts, and surveyedVars the mappings of variables, of which has been said what is passed over. mentions are the
	// words of templates and selectors, once they were asked for.
	surveyed     map[*inventory.Host]bool
	surveyedVars map[diag.Position]bool
	mentions     map[string]bool
	// others says that a host has been seen to carry services that belong to no cluster.
	others bool
	// infra are the hosts of the group of that name, once they were asked for.
	infra []*inventory.Host
	// selecting is what selectors may cost together, and work what is left of everything else that a small inventory may make large.
	selecting *jmespath.Budget
	work      int
}

// Bounds of what an inventory may have us do, for who wrote it may be a stranger. One of a thousand clusters takes a sixth.
const (
	// maxWork is about members that services look at, and words that are read.
	maxWork = 1_000_000
	// hostWork is what a host costs of all that are looked at, surveyWork what is written of it.
	hostWork, surveyWork = 20, 5
	// viewWork is what a host's view of a cluster costs, and lookWork each member that it looks at, services aside.
	viewWork, lookWork = 20, 5
	// compareWork is how many listeners on a port one is compared with for one.
	compareWork = 200
	// serviceWork is what reading a service costs, textWork how many bytes of text cost one.
	serviceWork, textWork = 5, 50
	// maxServices is how many services a list may declare, maxEntryText how long a text of theirs may be: HAProxy's lines have 2 KB.
	maxServices  = 1000
	maxEntryText = 16 << 10
)

// spend takes n from work. What isn't there any more is an error, told once, and then nothing more is looked at.
func (p *planner) spend(pos diag.Position, n int) bool {
	if p.work < 0 {
		return false
	}
	if p.work -= n; p.work < 0 {
		p.problems.Errorf(diag.TooLarge, pos, "an inventory of its own for a part of the clusters",
			"members, services and their words are too many together: checking them takes more than %d steps", maxWork)
	}
	return p.work >= 0
}

// fewServices tells whether a list of services is short enough to be read.
func (p *planner) fewServices(v inventory.Value, variable string) bool {
	n := len(v.Items())
	if n > maxServices {
		p.problems.Errorf(diag.TooLarge, v.Pos(), "", "%s declares %d services, more than %d", variable, n, maxServices)
		return false
	}
	return p.spend(v.Pos(), serviceWork*n)
}

func newPlanner(inv *inventory.Inventory) *planner {
	p := &planner{inv: inv, of: map[*inventory.Host]*cluster{}, selectors: map[string]*jmespath.Selector{}, paces: map[timing]model.Options{}, templates: inv.Templates(roleDefaults()),
		selecting: jmespath.NewBudget(), work: maxWork, surveyed: map[*inventory.Host]bool{}, surveyedVars: map[diag.Position]bool{}}
	byName := map[string]*cluster{}
	for _, h := range inv.Hosts() {
		name, v, ok := p.clusterName(h)
		if !ok {
			continue
		}
		c, known := byName[name]
		if !known {
			c = &cluster{name: name, unnamable: !model.IsName(name), pos: v.Pos(), views: map[string]view{}, index: map[*inventory.Host]int{}, networks: map[netip.Prefix]bool{}}
			byName[name] = c
			p.clusters = append(p.clusters, c)
		}
		c.index[h] = len(c.hosts)
		c.hosts = append(c.hosts, h)
		p.of[h] = c
	}
	p.clusters = slices.DeleteFunc(p.clusters, func(c *cluster) bool {
		watched := watchedOnly(c.hosts)
		for _, h := range c.hosts {
			if watched {
				delete(p.of, h)
			}
		}
		return watched
	})
	return p
}

func (p *planner) warnOfNone() {
	if len(p.clusters) == 0 && !p.others && p.problems.Err() == nil {
		p.problems.Warnf(diag.NoCluster, diag.Position{File: p.inv.File}, "hosts with pg_cluster, pg_seq and pg_role", "no host is a member of a cluster")
	}
}

// variable looks a host's variable up as the host itself sees it: templates in it may use Pigsty's defaults. One that has no
// value is a problem, and then as good as unset.
func (p *planner) variable(h *inventory.Host, name string) (inventory.Value, bool) {
	v, set := p.templates.Own(h, name)
	return v, set && p.readable(v, name)
}

// secretVariable is variable for one that may be a secret.
func (p *planner) secretVariable(h *inventory.Host, name string) (inventory.Value, bool) {
	v, set := p.templates.Own(h, name)
	return v, set && p.evaluated(v, name)
}

// shown looks a variable up as other hosts see it: what the host is as a member.
func (p *planner) shown(h *inventory.Host, name string) (inventory.Value, bool) {
	v, set := p.templates.Var(h, name)
	return v, set && p.readable(v, name)
}

// readable reports a value that has no value, or that a secret went into: what is read becomes a part of plans and messages. what
// names it in the message.
func (p *planner) readable(v inventory.Value, what string) bool {
	if !p.evaluated(v, what) {
		return false
	}
	secret := v.Tainted()
	if secret != "" {
		p.problems.Errorf(diag.SecretNotHandedOn, v.Pos(), "a value that no secret is needed for", "%s is made of a secret, %s, and isn't handed on", what, secret)
	}
	return secret == ""
}

// evaluated reports a value that has no value.
func (p *planner) evaluated(v inventory.Value, what string) bool {
	problem, found := v.Unreadable(what)
	if found {
		p.problems = append(p.problems, problem)
	}
	return !found
}

// compile reads an expression, once for all hosts that have it.
func (p *planner) compile(expression string) *jmespath.Selector {
	s, done := p.selectors[expression]
	if !done {
		s = jmespath.Read(expression)
		p.selectors[expression] = s
	}
	return s
}
