package plan

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"github.com/pgporter/pgporter/internal/config/diag"
	"github.com/pgporter/pgporter/internal/config/inventory"
	"github.com/pgporter/pgporter/internal/config/model"
)

// cluster is the hosts that share a pg_cluster.
type cluster struct {
	name string
	// unnamable says that the name can't be a part of a service's.
	unnamable bool
	// pos is where the first member's pg_cluster is set.
	pos   diag.Position
	hosts []*inventory.Host
	// index is where in hosts one is.
	index map[*inventory.Host]int
	// members are filled in when the cluster is first looked at.
	members []member
	// views are what hosts see, by the positions of the variables that decide it.
	views map[string]view
	// abroad says that some hosts aren't the reader's own machine, once it was asked for.
	abroad *bool
	// networks are those of virtual addresses that the members' were held against.
	networks map[netip.Prefix]bool
}

// member is a model.Member with what is needed to speak of it.
type member struct {
	model.Member
	host *inventory.Host
	seq  int64
	// unsound are the variables that can't be used; a default is used instead of them, which no service may rely on.
	unsound map[string]bool
}

// clusterName gives a host's pg_cluster. Pigsty means a text; a whole number is taken for the text of its digits.
func (p *planner) clusterName(h *inventory.Host) (string, inventory.Value, bool) {
	const want = "letters, digits and dashes, and not root"
	v, set := p.shown(h, "pg_cluster")
	if !set {
		return "", v, false
	}
	var name string
	switch v.Kind() {
	case inventory.Text, inventory.Int:
		name, _ = v.Name()
	default:
		p.problems.Errorf(diag.ClusterNameInvalid, v.Pos(), want, "pg_cluster is %s", v.Describe())
		return "", v, false
	}
	if !model.IsClusterName(name) {
		if !v.Quotable() {
			p.problems.Errorf(diag.ClusterNameInvalid, v.Pos(), want, "pg_cluster is %s", v.Describe())
			return "", v, false
		}
		p.problems.Errorf(diag.ClusterNameInvalid, v.Pos(), want, "the cluster name %q can't be used", name)
	}
	return name, v, name != ""
}

// primary is the member that is declared to be the primary, the first if there are several; nil if there is none.
func (p *planner) primary(c *cluster) *inventory.Host {
	for _, h := range c.hosts {
		if v, set := p.templates.Var(h, "pg_role"); set {
			if role, _ := v.Text(); role == string(model.Primary) {
				return h
			}
		}
	}
	return nil
}

// viewpoint is the host whose variables describe the cluster to an operator: the declared primary, or else the first member.
func (p *planner) viewpoint(c *cluster) *inventory.Host {
	if h := p.primary(c); h != nil {
		return h
	}
	return c.hosts[0]
}

// declared gives the cluster's members, read and checked once.
func (p *planner) declared(c *cluster) []member {
	if c.members != nil {
		return c.members
	}
	taken := map[int64]int{}
	named := map[string]int{}
	primary := -1
	for i, h := range c.hosts {
		m := p.member(c, h)
		c.members = append(c.members, m)
		if first, twice := taken[m.seq]; twice && m.seq >= 0 {
			pos, _ := h.Position("pg_seq")
			p.problems.Errorf(diag.SequenceTwice, pos, "a number of its own for each member", "pg_seq %d of %s is taken in cluster %q by %s%s",
				m.seq, h.Name, c.name, c.hosts[first].Name, where(c.hosts[first], "pg_seq"))
		} else {
			taken[m.seq] = i
			if first, twice := named[m.Name]; twice {
				pos, _ := h.Position("pgporter_member")
				p.problems.Errorf(diag.NameTwice, pos, "a name of its own for each member", "%s of %s is the name of %s in cluster %q too", m.Name, h.Name, c.hosts[first].Name, c.name)
			}
			named[m.Name] = i
		}
		switch {
		case m.Role != model.Primary:
		case primary < 0:
			primary = i
		default:
			pos, _ := h.Position("pg_role")
			p.unlessHAProxy(diag.PrimaryTwice, pos, "one primary", "%s is a second primary of cluster %q beside %s%s",
				h.Name, c.name, c.hosts[primary].Name, where(c.hosts[primary], "pg_role"))
		}
	}
	if primary < 0 {
		p.unlessHAProxy(diag.PrimaryMissing, c.pos, "pg_role: primary for one member, the leader, also in a standby cluster", "cluster %q has no primary", c.name)
	}
	return c.members
}

// unlessHAProxy reports what Pigsty warns of and HAProxy can live with, but the native engine can't.
func (p *planner) unlessHAProxy(code diag.Code, pos diag.Position, want, format string, args ...any) {
	if p.haproxy {
		p.problems.Warnf(code, pos, want, format, args...)
		return
	}
	p.problems.Errorf(code, pos, want, format, args...)
}

// where says in parentheses where a host's variable is set.
func where(h *inventory.Host, name string) string {
	pos, set := h.Position(name)
	if !set {
		return ""
	}
	return fmt.Sprintf(" (%s)", pos)
}

// member reads what a host says of itself as an instance. pg_seq is -1 if it can't be read.
func (p *planner) member(c *cluster, h *inventory.Host) member {
	m := member{host: h, seq: -1, unsound: map[string]bool{}}
	why, _ := unaddressable(h.Name)
	m.unsound["host"] = why != ""
	m.Name = h.Name
	if _, called := h.Position("pgporter_member"); called {
		name, ok := p.memberName(h)
		if m.unsound["pg_seq"] = !ok; ok {
			m.Name = name
		}
	} else if m.seq = p.sequence(c, h); m.seq >= 0 {
		m.Name = fmt.Sprintf("%s-%d", c.name, m.seq)
	} else {
		m.unsound["pg_seq"] = true
	}
	m.Host = h.Name
	m.Role = p.role(c, h)
	m.PostgresPort = p.memberNumber(m, "pg_port", defaultPostgresPort, 1, 65535)
	m.PgBouncerPort = p.memberNumber(m, "pgbouncer_port", defaultPgBouncerPort, 1, 65535)
	m.PatroniPort = p.memberNumber(m, "patroni_port", defaultPatroniPort, 1, 65535)
	m.Weight = p.memberNumber(m, "pg_weight", 100, 0, 256)
	if v, set := p.shown(h, "patroni_ssl_enabled"); set {
		on, ok := v.Truth()
		if !ok {
			p.problems.Errorf(diag.NotBoolean, v.Pos(), "true or false", "patroni_ssl_enabled is %s", v.Describe())
		}
		m.PatroniTLS = on
	}
	if v, set := p.shown(h, "pg_offline_query"); set && v.Kind() != inventory.Bool {
		p.problems.Warnf(diag.NotBoolean, v.Pos(), "true or false", "pg_offline_query is %s, which selectors %s", v.Describe(), truthOf(v))
	}
	return m
}

// truthOf says what a selector's condition makes of a value that isn't a boolean.
func truthOf(v inventory.Value) string {
	switch text, isText := v.Text(); {
	case v.Kind() == inventory.Null, isText && text == "", v.Kind() == inventory.List && len(v.Items()) == 0,
		v.Kind() == inventory.Map && len(v.Entries()) == 0:
		return "take for false"
	}
	return "take for true"
}

// memberName reads pgporter_member, this program's own variable: what Patroni calls a member that isn't <pg_cluster>-<pg_seq>.
func (p *planner) memberName(h *inventory.Host) (string, bool) {
	v, _ := p.shown(h, "pgporter_member")
	name, ok := v.Name()
	if !ok || !model.IsName(name) {
		p.problems.Errorf(diag.NameInvalid, v.Pos(), "letters, digits, dashes, dots and underscores", "pgporter_member is %s", v.Describe())
		return "", false
	}
	return name, true
}

func (p *planner) sequence(c *cluster, h *inventory.Host) int64 {
	const want = "a whole number from 0, different for each member"
	v, set := p.templates.Var(h, "pg_seq")
	if !set {
		p.problems.Errorf(diag.IdentityMissing, h.Pos, want, "%s is a member of cluster %q but has no pg_seq", h.Name, c.name)
		return -1
	}
	if !p.readable(v, "pg_seq") {
		return -1
	}
	n, ok := v.WholeNumber()
	if !ok || n < 0 {
		p.problems.Errorf(diag.SequenceInvalid, v.Pos(), want, "pg_seq is %s", v.Describe())
		return -1
	}
	return n
}

func (p *planner) role(c *cluster, h *inventory.Host) model.Role {
	names := make([]string, 0, len(model.Roles))
	for _, r := range model.Roles {
		names = append(names, string(r))
	}
	want := "one of " + strings.Join(names, ", ")
	v, set := p.templates.Var(h, "pg_role")
	if !set {
		p.problems.Errorf(diag.IdentityMissing, h.Pos, want, "%s is a member of cluster %q but has no pg_role", h.Name, c.name)
		return ""
	}
	if !p.readable(v, "pg_role") {
		return ""
	}
	role, _ := v.Text()
	if !slices.Contains(names, role) {
		switch lower := strings.ToLower(role); lower {
		case "master", "leader":
			want = "primary, as it is called here"
		case "slave", "secondary":
			want = "replica, as it is called here"
		default:
			if slices.Contains(names, lower) {
				want = lower
			}
		}
		p.problems.Errorf(diag.RoleInvalid, v.Pos(), want, "pg_role is %s", v.Describe())
		return ""
	}
	return model.Role(role)
}

// memberNumber reads a whole number of a member's, and notes if it can't be used.
func (p *planner) memberNumber(m member, name string, otherwise, least, most int) int {
	v, set := p.templates.Var(m.host, name)
	if !set {
		return otherwise
	}
	n, ok := p.whole(v, name, least, most)
	if !ok {
		m.unsound[name] = true
		return otherwise
	}
	return n
}

// number reads a whole number of a host's.
func (p *planner) number(h *inventory.Host, name string, otherwise, least, most int) int {
	if v, set := p.templates.Own(h, name); set {
		if n, ok := p.whole(v, name, least, most); ok {
			return n
		}
	}
	return otherwise
}

func (p *planner) whole(v inventory.Value, name string, least, most int) (int, bool) {
	if !p.readable(v, name) {
		return 0, false
	}
	n, ok := v.WholeNumber()
	if !ok || n < int64(least) || n > int64(most) {
		p.problems.Errorf(rangeOf(name), v.Pos(), fmt.Sprintf("a whole number from %d to %d", least, most), "%s is %s", name, v.Describe())
		return 0, false
	}
	return int(n), true
}
