package plan

import (
	"fmt"
	"regexp"
	"slices"
	"strings"

	"github.com/pgporter/pgporter/internal/diag"
	"github.com/pgporter/pgporter/internal/inventory"
	"github.com/pgporter/pgporter/internal/service"
)

// cluster is the hosts that share a pg_cluster.
type cluster struct {
	name string
	// pos is where the first member's pg_cluster is set.
	pos   diag.Position
	hosts []*inventory.Host
	// members are filled in when the cluster is first looked at.
	members []member
	// views are what hosts see, by the places of the variables that decide it.
	views map[string]view
}

// member is a service.Member with what is needed to speak of it.
type member struct {
	service.Member
	host *inventory.Host
	seq  int64
}

// clusterForm is what Pigsty takes for a cluster's name.
var clusterForm = regexp.MustCompile(`^[A-Za-z0-9-]+$`)

// clusterName gives a host's pg_cluster. Pigsty means a text; a whole number is taken for the text of its digits.
func (p *planner) clusterName(h *inventory.Host) (string, inventory.Value, bool) {
	const want = "letters, digits and dashes, and not root"
	v, set := p.variable(h, "pg_cluster")
	if !set {
		return "", v, false
	}
	var name string
	switch v.Kind() {
	case inventory.Text, inventory.Int:
		name, _ = v.Name()
	default:
		p.problems.Errorf(v.Pos(), want, "pg_cluster is %s", v.Describe())
		return "", v, false
	}
	if !clusterForm.MatchString(name) || name == "root" {
		p.problems.Errorf(v.Pos(), want, "the cluster name %q can't be used", name)
	}
	return name, v, name != ""
}

// viewpoint is the host whose variables describe the cluster to an operator: the declared primary, or else the first member.
func (c *cluster) viewpoint() *inventory.Host {
	for _, h := range c.hosts {
		if v, set := h.Var("pg_role"); set {
			if role, _ := v.Text(); role == string(service.Primary) {
				return h
			}
		}
	}
	return c.hosts[0]
}

// declared gives the cluster's members, read and checked once.
func (p *planner) declared(c *cluster) []member {
	if c.members != nil {
		return c.members
	}
	taken := map[int64]int{}
	primary := -1
	for i, h := range c.hosts {
		m := p.member(c, h)
		c.members = append(c.members, m)
		if first, twice := taken[m.seq]; twice && m.seq >= 0 {
			v, _ := h.Var("pg_seq")
			p.problems.Errorf(v.Pos(), "a number of its own for each member", "pg_seq %d of %s is taken in cluster %q by %s%s",
				m.seq, h.Name, c.name, c.hosts[first].Name, where(c.hosts[first], "pg_seq"))
		} else {
			taken[m.seq] = i
		}
		switch {
		case m.Role != service.Primary:
		case primary < 0:
			primary = i
		default:
			v, _ := h.Var("pg_role")
			p.problems.Errorf(v.Pos(), "one primary", "%s is a second primary of cluster %q beside %s%s",
				h.Name, c.name, c.hosts[primary].Name, where(c.hosts[primary], "pg_role"))
		}
	}
	if primary < 0 {
		p.problems.Errorf(c.pos, "pg_role: primary for one member, the leader, also in a standby cluster", "cluster %q has no primary", c.name)
	}
	return c.members
}

// where says in parentheses where a host's variable is set.
func where(h *inventory.Host, name string) string {
	v, set := h.Var(name)
	if !set {
		return ""
	}
	return fmt.Sprintf(" (%s)", v.Pos())
}

// member reads what a host says of itself as an instance. pg_seq is -1 if it can't be read.
func (p *planner) member(c *cluster, h *inventory.Host) member {
	m := member{host: h, seq: p.sequence(c, h)}
	m.Name = h.Name
	if m.seq >= 0 {
		m.Name = fmt.Sprintf("%s-%d", c.name, m.seq)
	}
	m.Host = h.Name
	m.Role = p.role(c, h)
	m.PostgresPort = p.number(h, "pg_port", defaultPostgresPort, 1, 65535)
	m.PgBouncerPort = p.number(h, "pgbouncer_port", 6432, 1, 65535)
	m.PatroniPort = p.number(h, "patroni_port", 8008, 1, 65535)
	m.Weight = p.number(h, "pg_weight", 100, 0, 256)
	if v, set := p.variable(h, "patroni_ssl_enabled"); set {
		on, ok := v.Truth()
		if !ok {
			p.problems.Errorf(v.Pos(), "true or false", "patroni_ssl_enabled is %s", v.Describe())
		}
		m.PatroniTLS = on
	}
	if v, set := p.variable(h, "pg_offline_query"); set && v.Kind() != inventory.Bool {
		p.problems.Warnf(v.Pos(), "true or false", "pg_offline_query is %s, which selectors %s", v.Describe(), truthOf(v))
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

func (p *planner) sequence(c *cluster, h *inventory.Host) int64 {
	const want = "a whole number from 0, different for each member"
	v, set := h.Var("pg_seq")
	if !set {
		p.problems.Errorf(h.Pos, want, "%s is a member of cluster %q but has no pg_seq", h.Name, c.name)
		return -1
	}
	if !p.readable(v, "pg_seq") {
		return -1
	}
	n, ok := v.WholeNumber()
	if !ok || n < 0 {
		p.problems.Errorf(v.Pos(), want, "pg_seq is %s", v.Describe())
		return -1
	}
	return n
}

func (p *planner) role(c *cluster, h *inventory.Host) service.Role {
	names := make([]string, 0, len(service.Roles))
	for _, r := range service.Roles {
		names = append(names, string(r))
	}
	want := "one of " + strings.Join(names, ", ")
	v, set := h.Var("pg_role")
	if !set {
		p.problems.Errorf(h.Pos, want, "%s is a member of cluster %q but has no pg_role", h.Name, c.name)
		return ""
	}
	if !p.readable(v, "pg_role") {
		return ""
	}
	role, _ := v.Text()
	if !slices.Contains(names, role) {
		p.problems.Errorf(v.Pos(), want, "pg_role is %s", v.Describe())
		return ""
	}
	return service.Role(role)
}

// number reads a whole number of a host's.
func (p *planner) number(h *inventory.Host, name string, otherwise, least, most int) int {
	v, set := p.variable(h, name)
	if !set {
		return otherwise
	}
	n, ok := v.WholeNumber()
	if !ok || n < int64(least) || n > int64(most) {
		p.problems.Errorf(v.Pos(), fmt.Sprintf("a whole number from %d to %d", least, most), "%s is %s", name, v.Describe())
		return otherwise
	}
	return int(n)
}
