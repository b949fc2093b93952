package plan

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/pgporter/pgporter/internal/config/diag"
	"github.com/pgporter/pgporter/internal/config/model"
)

// switchedOff are the programs of members that the inventory has turned off, and the services that need them all the same.
type switchedOff struct {
	p       *planner
	members []member
	// pooler and patroni are where a member's is turned off, by its index.
	pooler, patroni map[int]diag.Position
	// pooled and checked are what leads to them: by where they are turned off, the services' names and the members'.
	pooled, checked map[diag.Position]*dependents
}

// dependents are services, and the members to whose programs they lead.
type dependents struct {
	services, members []string
	// port is the program's at the first member.
	port int
}

func newSwitchedOff(p *planner, members []member) *switchedOff {
	s := &switchedOff{p, members, map[int]diag.Position{}, map[int]diag.Position{}, map[diag.Position]*dependents{}, map[diag.Position]*dependents{}}
	for i, m := range members {
		for variable, off := range map[string]map[int]diag.Position{"pgbouncer_enabled": s.pooler, "patroni_enabled": s.patroni} {
			v, set := p.templates.Var(m.host, variable)
			if enabled, ok := v.Truth(); set && ok && !enabled {
				off[i] = v.Pos()
			}
		}
	}
	return s
}

// poolerOff tells whether a service leads to a PgBouncer of a member that is turned off.
func (s *switchedOff) poolerOff(d model.Definition, i int) bool {
	_, off := s.pooler[i]
	m := s.members[i]
	return off && (d.Dest.Kind == model.ToPgBouncer || d.Dest.Kind == model.ToPort && d.Dest.Port == m.PgBouncerPort)
}

// note looks at a service and the members that may serve it.
func (s *switchedOff) note(d definition, servers []int) {
	for _, i := range servers {
		if s.poolerOff(d.Definition, i) {
			add(s.pooled, s.pooler[i], d.FullName, s.members[i].Name, s.members[i].PgBouncerPort)
		}
		if pos, off := s.patroni[i]; off {
			add(s.checked, pos, d.FullName, s.members[i].Name, s.members[i].PatroniPort)
		}
	}
}

func add(to map[diag.Position]*dependents, pos diag.Position, service, member string, port int) {
	d := to[pos]
	if d == nil {
		d = &dependents{port: port}
		to[pos] = d
	}
	if !slices.Contains(d.services, service) {
		d.services = append(d.services, service)
	}
	if !slices.Contains(d.members, member) {
		d.members = append(d.members, member)
	}
}

// warn tells of services that lead nowhere, at what turned it off.
func (s *switchedOff) warn(c *cluster) {
	for _, pos := range sortedPositions(s.pooled) {
		d := s.pooled[pos]
		s.p.problems.Warnf(diag.PgBouncerOff, pos, "pg_default_service_dest: postgres, or dest: postgres of the service",
			"pgbouncer_enabled is false: nobody listens at port %d of %s, the destination of %s", d.port, s.who(c, d), servicesNamed(d.services))
	}
	for _, pos := range sortedPositions(s.checked) {
		d := s.checked[pos]
		s.p.problems.Warnf(diag.PatroniOff, pos, "patroni_enabled: true, or no service that selects them",
			"patroni_enabled is false: nobody answers at port %d of %s, which is asked by the checks of %s", d.port, s.who(c, d), servicesNamed(d.services))
	}
}

// who names members.
func (s *switchedOff) who(c *cluster, d *dependents) string {
	if len(d.members) == len(s.members) && len(d.members) > 1 {
		return fmt.Sprintf("every member of cluster %q", c.name)
	}
	return strings.Join(d.members, ", ")
}

// servicesNamed writes the names of services.
func servicesNamed(services []string) string {
	quoted := make([]string, 0, len(services))
	for _, s := range services {
		quoted = append(quoted, fmt.Sprintf("%q", s))
	}
	if len(quoted) == 1 {
		return "service " + quoted[0]
	}
	last := len(quoted) - 1
	return "services " + strings.Join(quoted[:last], ", ") + " and " + quoted[last]
}

func sortedPositions(of map[diag.Position]*dependents) []diag.Position {
	return slices.SortedFunc(maps.Keys(of), func(a, b diag.Position) int { return strings.Compare(a.String(), b.String()) })
}
