package plan

import (
	"fmt"
	"slices"
	"strings"

	"github.com/pgporter/pgporter/internal/config/diag"
	"github.com/pgporter/pgporter/internal/config/inventory"
	"github.com/pgporter/pgporter/internal/config/model"
	"github.com/pgporter/pgporter/internal/config/safetext"
)

// Pigsty's own administrator, where the inventory doesn't name another.
const (
	defaultAdmin         = "dbuser_dba"
	defaultAdminPassword = "DBUser.DBA"
)

// defaultPatroniUser is Pigsty's own patroni_username.
const defaultPatroniUser = "postgres"

// ForAccess gives what clients need to reach a cluster: its services with the hosts that carry them, names, virtual address,
// databases and users. An unknown cluster is a problem like any other.
func ForAccess(inv *inventory.Inventory, name string) (model.Access, diag.Problems) {
	p := newPlanner(inv)
	p.haproxy = true
	at := slices.IndexFunc(p.clusters, func(c *cluster) bool { return c.name == name })
	if at < 0 {
		p.problems.Errorf(diag.ClusterUnknown, diag.Position{File: inv.File}, oneOfClusters(name, Clusters(inv)), "there is no cluster %q", name)
		return model.Access{}, p.told()
	}
	c := p.clusters[at]
	p.surveyAll(c.hosts)
	h := p.viewpoint(c)
	a := model.Access{Cluster: c.name, Pooled: p.flag(h, "pgbouncer_enabled", true), Delegated: p.delegated(c, h)}
	for i, m := range p.declared(c) {
		a.Members = append(a.Members, m.Member)
		if m.host == h {
			a.Primary = i
		}
	}
	if n, ok := p.naming(c, h); ok && n.Target != model.TargetNone {
		a.Name, a.Target = c.name+n.Suffix, n.Target
	}
	if v := p.virtualIP(c, h); v != nil {
		a.VIP = v.Address.Addr().String()
	}
	if v, is := p.upstream(c); is && v.Quotable() {
		a.Upstream, _ = v.Text()
	}
	a.Offers = p.offers(c)
	a.Databases = p.databases(h)
	a.Accounts, a.Admin = p.accounts(h)
	if a.PatroniPassword = p.secret(h, "patroni_password", ""); a.PatroniPassword != "" {
		a.PatroniUser = p.text(h, "patroni_username", defaultPatroniUser, "a name without blanks, commas and colons", isUser)
	}
	return a, p.told()
}

// oneOfClusters says what a cluster's name may be.
func oneOfClusters(name string, known []string) string {
	if len(known) == 0 {
		return "hosts with pg_cluster, pg_seq and pg_role"
	}
	return suggestion(name, known)
}

// offers gives a cluster's services in the order in which its hosts carry them.
func (p *planner) offers(c *cluster) []model.Offer {
	var offers []model.Offer
	for _, h := range p.inv.Hosts() {
		if p.of[h] != c && !slices.Contains(p.delegatedTo(h), c) {
			continue
		}
		clusters, _ := p.node(h)
		i := slices.IndexFunc(clusters, func(seen model.Cluster) bool { return seen.Name == c.name })
		if i < 0 {
			continue
		}
		for _, d := range clusters[i].Definitions {
			j := slices.IndexFunc(offers, func(o model.Offer) bool { return o.FullName == d.FullName })
			if j < 0 {
				j = len(offers)
				o := model.Offer{Definition: d, Vacant: vacant(clusters[i], d), PoolerOff: p.poolersOff(c, d)}
				if d.Pool == model.Door {
					o.DoorPort, o.DoorSuffix = clusters[i].DoorPort, doorSuffix(d, clusters[i])
				}
				offers = append(offers, o)
			}
			address, bound := h.Name, d.IP != "*"
			if bound {
				address = d.IP
			}
			o := &offers[j]
			o.Bound = o.Bound || bound
			o.At, o.Ports = append(o.At, address), append(o.Ports, d.Port)
		}
	}
	return offers
}

// vacant tells whether neither the selector nor the backup of a service, which are sound, has a member.
func vacant(c model.Cluster, d model.Definition) bool {
	vars := make([]map[string]any, len(c.Members))
	for i, m := range c.Members {
		vars[i] = m.Vars
	}
	selected, err := d.Selector.Select(vars)
	if err != nil || len(selected) > 0 || d.Backup.None() {
		return err == nil && len(selected) == 0
	}
	backups, err := d.Backup.SelectBackup(vars)
	return err == nil && len(backups) == 0
}

// poolersOff tells whether a service leads to PgBouncers alone that are turned off.
func (p *planner) poolersOff(c *cluster, d model.Definition) bool {
	members := p.declared(c)
	off := newSwitchedOff(p, members)
	for i := range members {
		if !off.poolerOff(d, i) {
			return false
		}
	}
	return true
}

// entriesOf gives the mappings of a list that have a name. Whatever else is wrong with them is Pigsty's to tell: they have
// nothing to do with services.
func (p *planner) entriesOf(h *inventory.Host, variable, what string, each func(v inventory.Value, name string)) {
	v, set := p.secretVariable(h, variable)
	if !set || v.Kind() == inventory.Null {
		return
	}
	if v.Kind() != inventory.List {
		p.problems.Errorf(diag.WrongType, v.Pos(), "a list of mappings with a name", "%s is %s", variable, v.Describe())
		return
	}
	if !p.spend(v.Pos(), len(v.Items())) {
		return
	}
	for _, item := range v.Items() {
		named, _ := item.Get("name")
		name, ok := named.Name()
		if !p.readable(named, fmt.Sprintf("the name of %s of %s", what, variable)) {
			continue
		}
		if !ok || name == "" || !safetext.Is(name) {
			want := "a mapping with a name"
			if _, older := item.Get("username"); older {
				want += ", which username was called up to Pigsty 0.6"
			}
			p.problems.Errorf(diag.NameInvalid, item.Pos(), want, "%s of %s can't be used", what, variable)
			continue
		}
		each(item, name)
	}
}

// truthIn reads a boolean of a mapping.
func truthIn(v inventory.Value, key string, otherwise bool) bool {
	value, set := v.Get(key)
	if !set {
		return otherwise
	}
	truth, ok := value.Truth()
	if !ok {
		return otherwise
	}
	return truth
}

func (p *planner) databases(h *inventory.Host) []model.Database {
	var all []model.Database
	p.entriesOf(h, "pg_databases", "a database", func(v inventory.Value, name string) {
		state, _ := v.Get("state")
		if text, _ := state.Text(); text == "absent" {
			return
		}
		owner, _ := v.Get("owner")
		text, _ := owner.Name()
		if !p.readable(owner, fmt.Sprintf("the owner of the database %q", name)) || !safetext.Is(text) {
			text = ""
		}
		all = append(all, model.Database{Name: name, Owner: text, Pooled: truthIn(v, "pgbouncer", true)})
	})
	return all
}

func (p *planner) accounts(h *inventory.Host) (all []model.Account, admin string) {
	p.entriesOf(h, "pg_users", "a user", func(v inventory.Value, name string) {
		state, _ := v.Get("state")
		if text, _ := state.Text(); text == "absent" || !truthIn(v, "login", true) {
			return
		}
		a := model.Account{Name: name, Pooled: truthIn(v, "pgbouncer", false)}
		if password, set := v.Get("password"); set {
			a.Password = p.clientPassword(password, name)
		}
		if roles, set := v.Get("roles"); set {
			for _, r := range roles.Items() {
				if role, ok := r.Name(); ok && p.readable(r, fmt.Sprintf("a role of the user %q", name)) {
					a.Roles = append(a.Roles, role)
				}
			}
		}
		all = append(all, a)
	})
	admin = defaultAdmin
	if v, set := p.variable(h, "pg_admin_username"); set {
		if text, ok := v.Name(); ok && text != "" && safetext.Is(text) {
			admin = text
		} else if ok && text != "" {
			p.problems.Errorf(diag.TextInvalid, v.Pos(), "a name of which every character shows", "pg_admin_username is %s", v.Describe())
		}
	}
	if !slices.ContainsFunc(all, func(a model.Account) bool { return a.Name == admin }) {
		a := model.Account{Name: admin, Pooled: true}
		if v, set := p.templates.Own(h, "pg_admin_password"); set {
			a.Password = p.clientPassword(v, admin)
		} else if admin == defaultAdmin {
			a.Password = defaultAdminPassword
		}
		all = append(all, a)
	}
	return all, admin
}

// clientPassword reads a password as clients may give it; a hash, which Pigsty takes as well, is none.
func (p *planner) clientPassword(v inventory.Value, user string) model.Secret {
	if _, unreadable := v.Unreadable("password"); unreadable {
		p.problems.Warnf(diag.PasswordUnreadable, v.Pos(), "a password written out, or one that clients bring along", "the password of %q can't be read", user)
		return ""
	}
	text, ok := v.Name()
	if !ok || strings.HasPrefix(text, "SCRAM-SHA-256$") || strings.HasPrefix(text, "md5") && len(text) == len("md5")+32 {
		return ""
	}
	return model.Secret(text)
}
