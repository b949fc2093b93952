package plan

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/pgporter/pgporter/internal/diag"
	"github.com/pgporter/pgporter/internal/inventory"
	"github.com/pgporter/pgporter/internal/selector"
	"github.com/pgporter/pgporter/internal/service"
)

// viewVariables are those of the host that looks which decide what it sees.
var viewVariables = []string{
	"pg_default_services", "pg_services", "pg_default_service_dest", "pg_rto", "pg_rto_plan", "pg_service_provider", "pgporter_roles",
}

// view is a cluster as a host sees it.
type view struct {
	seen        service.Cluster
	definitions []definition
}

// view gives a cluster as one host sees it. Hosts that have viewVariables from the same places see the same, and as a rule
// all members do; so each view is made once. (This holds as long as a value means the same for every host that has it.)
func (p *planner) view(c *cluster, h *inventory.Host) service.Cluster {
	key := make([]diag.Position, len(viewVariables))
	for i, name := range viewVariables {
		if v, set := h.Var(name); set {
			key[i] = v.Pos()
		}
	}
	v, done := c.views[fmt.Sprint(key)]
	if !done {
		v = p.look(c, h)
		c.views[fmt.Sprint(key)] = v
	}
	p.ports(h, p.declared(c), v.definitions)
	return v.seen
}

// look makes a view.
func (p *planner) look(c *cluster, h *inventory.Host) view {
	members := p.declared(c)
	t := p.timing(h)
	seen := service.Cluster{
		Name: c.name, TTL: t.ttl, StaticRoles: p.staticRoles(h),
		Members: make([]service.Member, 0, len(members)), Definitions: []service.Definition{},
	}
	var definitions []definition
	if !p.delegated(h) {
		definitions = p.definitions(h)
	}
	dest := p.defaultDest(h)
	for i := range definitions {
		d := &definitions[i]
		d.FullName = c.name + "-" + d.Name
		d.Dest = d.dest
		if d.Dest == (service.Dest{}) {
			d.Dest = dest
		}
		if !d.ownOptions {
			d.Options, _ = service.ParseOptions(t.options())
		}
	}
	vars, refused := p.selectorVars(members, definitions)
	for i, m := range members {
		m.Vars = vars[i]
		seen.Members = append(seen.Members, m.Member)
	}
	for _, d := range definitions {
		if !refused[d.Name] && p.selects(c, d, members, vars) {
			seen.Definitions = append(seen.Definitions, d.Definition)
		}
	}
	return view{seen, definitions}
}

// staticRoles reads pgporter_roles, this program's own variable: whether selectors see what members are now, or what they
// were declared to be.
func (p *planner) staticRoles(h *inventory.Host) bool {
	v, set := p.variable(h, "pgporter_roles")
	if !set {
		return false
	}
	text, _ := v.Text()
	if text != "live" && text != "static" {
		p.problems.Errorf(v.Pos(), "live or static", "pgporter_roles is %s", v.Describe())
	}
	return text == "static"
}

// delegated tells whether another group's hosts carry the services, which isn't supported yet.
func (p *planner) delegated(h *inventory.Host) bool {
	v, set := p.variable(h, "pg_service_provider")
	if !set || v.Kind() == inventory.Null {
		return false
	}
	group, isText := v.Text()
	if !isText {
		p.problems.Errorf(v.Pos(), "the name of a group, or '' for none", "pg_service_provider is %s", v.Describe())
		return true
	}
	if group == "" {
		return false
	}
	if _, exists := p.inv.Group(group); !exists {
		p.problems.Warnf(v.Pos(), "the name of a group", "pg_service_provider: there is no group %q; the members carry the services, as in Pigsty", group)
		return false
	}
	p.problems.Errorf(v.Pos(), "'', for services that the members carry", "pg_service_provider %s: services carried by another group are not supported yet", group)
	return true
}

// defaultDest is what `dest: default` means on a host.
func (p *planner) defaultDest(h *inventory.Host) service.Dest {
	v, set := p.variable(h, "pg_default_service_dest")
	if !set {
		return service.Dest{Kind: service.ToPgBouncer}
	}
	dest, ok := p.dest(v, "pg_default_service_dest")
	if !ok {
		return service.Dest{Kind: service.ToPgBouncer}
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
			compiled *selector.Selector
			value    inventory.Value
		}{{d.selector, d.selectorValue}, {d.backup, d.backupValue}} {
			if e.compiled == nil {
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
			wanted = slices.Sorted(maps.Keys(m.host.Vars()))
		}
		vars := map[string]any{"inventory_hostname": m.host.Name, "pg_role": string(m.Role)}
		withheld := map[string]bool{}
		for _, name := range wanted {
			v, set := m.host.Var(name)
			_, has := vars[name]
			switch {
			case !set || has:
			case isSecret(name):
				withheld[name] = true
			case p.readable(v, name):
				vars[name] = withoutSecrets(v.JSON(), withheld)
			}
		}
		for name := range withheld {
			for _, a := range askers[name] {
				refused[a.service] = true
				p.problems.Errorf(a.value.Pos(), "a variable that is no secret",
					"service %q: the selector looks at %s, which looks like a secret and isn't handed on", a.service, name)
			}
		}
		all[i] = vars
	}
	return all, refused
}

// secretWords in a variable's name mean that its value is not for others to read.
var secretWords = []string{"password", "passwd", "secret", "token", "credential"}

// isSecret tells whether a name looks like a secret's: it holds one of secretWords, or `key`, `keys` or `pass` as a word.
func isSecret(name string) bool {
	name = strings.ToLower(name)
	for _, w := range secretWords {
		if strings.Contains(name, w) {
			return true
		}
	}
	words := strings.FieldsFunc(name, func(r rune) bool { return r == '_' || r == '-' || r == '.' })
	return slices.ContainsFunc(words, func(w string) bool { return w == "key" || w == "keys" || w == "pass" || w == "pwd" })
}

// withoutSecrets takes what looks like a secret out of a JSON value and notes the names in withheld.
func withoutSecrets(value any, withheld map[string]bool) any {
	switch value := value.(type) {
	case map[string]any:
		for name, inner := range value {
			if isSecret(name) {
				withheld[name] = true
				delete(value, name)
			} else {
				value[name] = withoutSecrets(inner, withheld)
			}
		}
	case []any:
		for i, inner := range value {
			value[i] = withoutSecrets(inner, withheld)
		}
	}
	return value
}

// selects evaluates a definition's expressions with the declared roles and tells whether they can be used.
func (p *planner) selects(c *cluster, d definition, members []member, vars []map[string]any) bool {
	service := fmt.Sprintf("service %q", d.FullName)
	selected, err := d.selector.Select(vars)
	if err != nil {
		p.badExpression(d.selectorValue, service+": selector", err)
	}
	var backups []int
	if d.backup != nil {
		var backupErr error
		if backups, backupErr = d.backup.SelectBackup(vars); backupErr != nil {
			p.badExpression(d.backupValue, service+": backup", backupErr)
			err = errors.Join(err, backupErr)
		}
	}
	if err != nil {
		return false
	}
	switch {
	case len(selected) > 0:
	case d.builtIn && len(backups) == 0:
		p.problems.Warnf(c.pos, "", "%s has no server: neither its selector nor its backup matches a member", service)
	case !d.builtIn && d.isDefault() && len(backups) > 0:
	case !d.builtIn:
		p.problems.Warnf(d.selectorValue.Pos(), "", "%s: the selector matches no member%s", service, andBackups(len(backups)))
	}
	p.warnOfSync(d, members, backups)
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
	return slices.ContainsFunc(defaultServices, func(other service.Definition) bool {
		return d.Name == other.Name && d.Selector == other.Selector && d.Backup == other.Backup
	})
}

// warnOfSync tells of a backup that can never serve: Patroni's /sync answers 503 on the primary.
func (p *planner) warnOfSync(d definition, members []member, backups []int) {
	path, _, _ := strings.Cut(d.Check, "?")
	if path != "/sync" && path != "/synchronous" || len(backups) == 0 {
		return
	}
	for _, i := range backups {
		if members[i].Role != service.Primary {
			return
		}
	}
	p.problems.Warnf(d.backupValue.Pos(), "check: /read-only-sync, which passes on synchronous standbys and on the primary",
		"service %q: its backup, the primary, can never serve: %s answers 503 there", d.FullName, path)
}

// ports finds what can't listen together on a host: services among each other, and a service with the member's own ports.
func (p *planner) ports(h *inventory.Host, members []member, definitions []definition) {
	byPort := map[int][]definition{}
	for _, d := range definitions {
		for _, other := range byPort[d.Port] {
			if !overlap(d.IP, other.IP) {
				continue
			}
			p.portTaken(d, fmt.Sprintf("service %q%s", other.FullName, parenthesis(other.portPos)))
		}
		byPort[d.Port] = append(byPort[d.Port], d)
	}
	for _, m := range members {
		if m.host != h {
			continue
		}
		for _, own := range []struct {
			program, variable string
			port              int
		}{{"PostgreSQL", "pg_port", m.PostgresPort}, {"PgBouncer", "pgbouncer_port", m.PgBouncerPort}, {"Patroni", "patroni_port", m.PatroniPort}} {
			for _, d := range byPort[own.port] {
				if !overlap(d.IP, h.Name) {
					continue
				}
				if d.portPos.Line == 0 {
					v, _ := h.Var(own.variable)
					d.portPos = v.Pos()
				}
				p.portTaken(d, own.program+"'s "+own.variable+where(h, own.variable))
			}
		}
	}
}

func (p *planner) portTaken(d definition, by string) {
	p.problems.Errorf(d.portPos, "a port, or an ip, of its own", "service %q: port %d is taken on the same node by %s", d.FullName, d.Port, by)
}

func parenthesis(pos diag.Position) string {
	if pos.Line == 0 {
		return " (a default service)"
	}
	return fmt.Sprintf(" (%s)", pos)
}
