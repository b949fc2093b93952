package plan

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/pgporter/pgporter/internal/config/diag"
	"github.com/pgporter/pgporter/internal/config/inventory"
	"github.com/pgporter/pgporter/internal/config/jmespath"
	"github.com/pgporter/pgporter/internal/config/model"
	"github.com/pgporter/pgporter/internal/config/safetext"
)

// viewVariables are those of the host that looks which decide what it sees.
var viewVariables = []string{
	"pg_default_services", "pg_services", "pg_default_service_dest", "pg_rto", "pg_rto_plan", "pg_service_provider", "pgporter_roles",
	"pgporter_trust", "pgporter_hold", "pgporter_door_port",
}

// view is a cluster as a host sees it.
type view struct {
	seen        model.Cluster
	definitions []definition
}

// view gives a cluster as one host sees it, with the services that it declares if it is to carry them. Hosts that have
// viewVariables from the same positions see the same, and as a rule all members do; so each view is made once. A value with a
// template in it may mean something else for every host.
func (p *planner) view(c *cluster, h *inventory.Host, carried bool) view {
	positions := make([]diag.Position, len(viewVariables))
	eyes := ""
	for i, name := range viewVariables {
		positions[i], _ = h.Position(name)
		if p.templates.HasTemplate(h, name) {
			eyes = h.Name
		}
	}
	key := fmt.Sprint(positions, eyes, carried)
	v, done := c.views[key]
	if !done {
		v = p.look(c, h, carried)
		c.views[key] = v
	}
	return v
}

// look makes a view.
func (p *planner) look(c *cluster, h *inventory.Host, carried bool) view {
	if !p.spend(c.pos, viewWork+lookWork*len(c.hosts)) {
		return view{seen: model.Cluster{Name: c.name}}
	}
	members := p.declared(c)
	before := len(p.problems)
	t := p.timing(h)
	t.ttl = p.number(h, "pgporter_ttl", t.ttl, 1, 1<<31-1)
	timed := p.problems[before:].Err() == nil
	seen := model.Cluster{
		Name: c.name, TTL: t.ttl, StaticRoles: p.staticRoles(h), TrustCheck: p.trustCheck(h), KeyPath: p.keyPath(c),
		Members: make([]model.Member, 0, len(members)), Definitions: []model.Definition{},
	}
	var definitions []definition
	if carried {
		definitions = p.definitions(h)
	}
	before = len(p.problems)
	dest := p.defaultDest(h)
	sound := p.problems[before:].Err() == nil
	hold := p.hold(h)
	// What a service takes from a variable that is wrong, it lacks.
	lacking := map[string]bool{}
	for i := range definitions {
		d := &definitions[i]
		lacking[d.Name] = d.dest == (model.Dest{}) && !sound || !d.ownOptions && !timed
		d.FullName = c.name + "-" + d.Name
		d.Dest = d.dest
		if d.Dest == (model.Dest{}) {
			d.Dest = dest
		}
		if !d.ownOptions {
			d.Options = p.pace(t)
		}
		lacking[d.Name] = !p.hasDoor(h, d) || lacking[d.Name]
		if d.Hold == nil {
			d.Hold = hold
		}
		p.warnOfTLS(members, d)
	}
	if !p.spend(c.pos, len(members)*len(definitions)) {
		return view{seen: seen}
	}
	vars, refused := p.selectorVars(members, definitions)
	for i, m := range members {
		m.Vars = vars[i]
		seen.Members = append(seen.Members, m.Member)
	}
	seen.DoorPort = p.doorPort(h, definitions)
	off := newSwitchedOff(p, members)
	for _, d := range definitions {
		if c.unnamable || refused[d.Name] {
			continue
		}
		servers, ok := p.selects(c, d, members, vars)
		if !lacking[d.Name] {
			off.note(d, servers)
		}
		if ok && !lacking[d.Name] {
			seen.Definitions = append(seen.Definitions, d.Definition)
		}
	}
	off.warn(c)
	p.warnOfStandby(c, definitions)
	return view{seen, definitions}
}

// staticRoles reads pgporter_roles, this program's own variable: whether selectors see what members are now, or what they
// were declared to be.
func (p *planner) staticRoles(h *inventory.Host) bool {
	return p.second(h, "pgporter_roles", "live", "static")
}

// trustCheck reads pgporter_trust, this program's own variable: whether the leader key outranks a member's silence, or that
// counts like an answer.
func (p *planner) trustCheck(h *inventory.Host) bool {
	return p.second(h, "pgporter_trust", "key", "check")
}

// second says whether a variable has the second of the two words that it may have; unset it has the first.
func (p *planner) second(h *inventory.Host, variable, first, second string) bool {
	v, set := p.variable(h, variable)
	if !set {
		return false
	}
	text, _ := v.Text()
	if text != first && text != second {
		p.problems.Errorf(diag.WordUnknown, v.Pos(), first+" or "+second, "%s is %s", variable, v.Describe())
	}
	return text == second
}

// defaultDest is what `dest: default` means on a host.
func (p *planner) defaultDest(h *inventory.Host) model.Dest {
	v, set := p.variable(h, "pg_default_service_dest")
	if !set {
		return model.Dest{Kind: model.ToPgBouncer}
	}
	dest, ok := p.dest(v, "pg_default_service_dest")
	if !ok {
		return model.Dest{Kind: model.ToPgBouncer}
	}
	return dest
}

// asker is an expression that looks at a variable.
type asker struct {
	service string
	value   inventory.Value
}

// selectorVars gives for each member the variables that the definitions' selectors look at. Secrets stay out, at any depth;
// a service whose selector asks for one is refused, by name.
func (p *planner) selectorVars(members []member, definitions []definition) (all []map[string]any, refused map[string]bool) {
	whole := false
	askers := map[string][]asker{}
	refused = map[string]bool{}
	for _, d := range definitions {
		for _, e := range []struct {
			compiled *jmespath.Selector
			value    inventory.Value
		}{{d.Selector, d.selectorValue}, {d.Backup, d.backupValue}} {
			if e.compiled.None() {
				continue
			}
			names, looksAtAll := e.compiled.Fields()
			whole = whole || looksAtAll
			for _, name := range names {
				askers[name] = append(askers[name], asker{d.Name, e.value})
			}
		}
	}
	names := slices.Sorted(maps.Keys(askers))
	all = make([]map[string]any, len(members))
	for i, m := range members {
		wanted := names
		if whole {
			wanted = m.host.Names()
		}
		vars := map[string]any{"inventory_hostname": m.host.Name, "pg_role": string(m.Role)}
		withheld := map[string]string{}
		for _, name := range wanted {
			v, set := p.templates.Var(m.host, name)
			_, has := vars[name]
			switch {
			case !set || has:
			case safetext.IsSecret(name):
				withheld[name] = ""
			case v.Secret() != "":
				withheld[name] = v.Secret()
			case whole && !slices.Contains(names, name), p.haproxy && v.LeftAsWritten():
				// An expression that looks at members as a whole need not care for this one; and as Pigsty has it a selector
				// sees what is written.
				if problem, found := v.Unreadable(name); found {
					p.problems.Warnf(problem.Code, problem.Pos, problem.Want, "%s; selectors see it as it is written", problem.What)
				}
				addShown(vars, name, v, withheld)
			case p.evaluated(v, name):
				addShown(vars, name, v, withheld)
			default:
				for _, a := range askers[name] {
					refused[a.service] = true
				}
			}
		}
		for name, secret := range withheld {
			looks := "which looks like a secret"
			if secret != "" {
				looks = "which is made of a secret, " + secret + ","
			}
			for _, a := range askers[name] {
				refused[a.service] = true
				p.problems.Errorf(diag.SecretNotHandedOn, a.value.Pos(), "a variable that is no secret",
					"service %q: the selector looks at %s, %s and isn't handed on", a.service, name, looks)
			}
		}
		all[i] = vars
	}
	return all, refused
}

// addShown adds a value to JSON's under its name, without what is a secret or made of one: that is in withheld by its name, with the
// secret's where it isn't the same. A list with such an item is withheld as a whole.
func addShown(to map[string]any, name string, v inventory.Value, withheld map[string]string) {
	if shown, secret := shownJSON(v, withheld); secret != "" {
		withheld[name] = secret
	} else {
		to[name] = shown
	}
}

func shownJSON(v inventory.Value, withheld map[string]string) (shown any, secret string) {
	if secret := v.Secret(); secret != "" {
		return nil, secret
	}
	switch v.Kind() {
	case inventory.Map:
		object := map[string]any{}
		for _, e := range v.Entries() {
			if safetext.IsSecret(e.Name) {
				withheld[e.Name] = ""
				continue
			}
			addShown(object, e.Name, e.Value, withheld)
		}
		return object, ""
	case inventory.List:
		items := []any{}
		for _, item := range v.Items() {
			one, secret := shownJSON(item, withheld)
			if secret != "" {
				return nil, secret
			}
			items = append(items, one)
		}
		return items, ""
	}
	return v.JSON(), ""
}

// selects evaluates a definition's expressions with the declared roles, gives the members that they name and tells whether they can be
// used.
func (p *planner) selects(c *cluster, d definition, members []member, vars []map[string]any) (servers []int, ok bool) {
	name := fmt.Sprintf("service %q", d.FullName)
	selected, err := d.Selector.SelectWithin(p.selecting, vars)
	if err != nil {
		p.badExpression(d.selectorValue, name+": selector", err)
	}
	var backups []int
	if !d.Backup.None() {
		var backupErr error
		if backups, backupErr = d.Backup.SelectBackupWithin(p.selecting, vars); backupErr != nil {
			p.badExpression(d.backupValue, name+": backup", backupErr)
			err = errors.Join(err, backupErr)
		}
	}
	servers = slices.Concat(selected, backups)
	if err != nil || !p.reachable(d, members, servers) {
		return servers, false
	}
	switch {
	case len(selected) > 0:
	// A cluster of one has nobody for its offline service, and nobody expects one.
	case len(members) == 1 && (d.builtIn || d.isDefault()):
	case d.builtIn && len(backups) == 0:
		p.problems.Warnf(diag.NoServer, c.pos, "", "%s has no server: neither its selector nor its backup matches a member", name)
	case !d.builtIn && d.isDefault() && len(backups) > 0:
	case !d.builtIn:
		p.problems.Warnf(diag.NoServer, d.selectorValue.Pos(), "", "%s: the selector matches no member%s", name, andBackups(len(backups)))
	}
	p.warnOfSync(d, members, backups)
	return servers, true
}

// reachable tells whether all servers of a service can be named and reached. What is wrong with a member has been reported.
func (p *planner) reachable(d definition, members []member, servers []int) bool {
	byName := map[string]int{}
	for _, i := range servers {
		m := members[i]
		if other, again := byName[m.Name]; again && other != i {
			return false
		}
		byName[m.Name] = i
		switch {
		case m.unsound["host"], m.unsound["pg_seq"], m.unsound["patroni_port"], m.unsound["pg_weight"],
			m.unsound["pg_port"] && d.Dest.Kind == model.ToPostgres, m.unsound["pgbouncer_port"] && d.Dest.Kind == model.ToPgBouncer:
			return false
		}
	}
	return true
}

func andBackups(n int) string {
	if n == 0 {
		return ", and there is no backup"
	}
	return "; only backups are left"
}

// isDefault tells whether a definition is one of the default services, written out in the inventory.
func (d definition) isDefault() bool {
	return slices.ContainsFunc(defaultServices, func(other model.Definition) bool {
		return d.Name == other.Name && d.Selector.String() == other.Selector.String() && d.Backup.String() == other.Backup.String()
	})
}

// warnOfSync tells of a backup that can never serve: Patroni's /sync answers 503 on the primary.
func (p *planner) warnOfSync(d definition, members []member, backups []int) {
	path, _, _ := strings.Cut(d.Check, "?")
	if path != "/sync" && path != "/synchronous" || len(backups) == 0 {
		return
	}
	for _, i := range backups {
		if members[i].Role != model.Primary {
			return
		}
	}
	p.problems.Warnf(diag.BackupNeverServes, d.backupValue.Pos(), "check: /read-only-sync, which passes on synchronous standbys and on the primary",
		"service %q: its backup, the primary, can never serve: %s answers 503 there", d.FullName, path)
}
