// Package resolve turns a declared cluster and the roles that its members have now into servers: who would carry each
// service, were everybody healthy.
//
// It is pure: no clock, no I/O, no knowledge of health. Selectors come compiled with the definitions.
package resolve

import (
	"errors"
	"fmt"
	"maps"

	"github.com/pgporter/pgporter/internal/config/jmespath"
	"github.com/pgporter/pgporter/internal/config/model"
)

// roleVar is the variable that selectors read a member's role from.
const roleVar = "pg_role"

// Resolver holds a cluster whose selectors can be used. It is immutable and safe for concurrent use.
type Resolver struct{ cluster model.Cluster }

// New takes a cluster. The error lists every expression that can't be used.
func New(c model.Cluster) (*Resolver, error) {
	var problems []error
	check := func(d model.Definition, what string, s *jmespath.Selector) {
		if err := s.Err(); err != nil {
			problems = append(problems, fmt.Errorf("service %s: %s: %w", d.FullName, what, err))
		}
	}
	for _, d := range c.Definitions {
		check(d, "selector", d.Selector)
		if !d.Backup.None() {
			check(d, "backup", d.Backup)
		}
	}
	if len(problems) > 0 {
		return nil, errors.Join(problems...)
	}
	return &Resolver{c}, nil
}

// Set gives every service its servers, in the order of the definitions. live holds the members' roles by name; one that
// isn't there has its declared role, and with StaticRoles all have.
//
// The servers of a service are the members that its selector picks, in the selector's order, then those that only its
// backup expression picks, in that one's order. A server is a backup if the backup expression picks it, whether the
// selector does or not, or if the service's options make all of them backups. The error lists every expression that can't be evaluated on these members.
func (r *Resolver) Set(live map[string]model.Role) (model.Set, error) {
	members := make([]map[string]any, len(r.cluster.Members))
	for i, m := range r.cluster.Members {
		members[i] = r.vars(m, live)
	}
	set := model.Set{Cluster: r.cluster.Name, Services: make([]model.Service, 0, len(r.cluster.Definitions))}
	var problems []error
	for _, s := range r.cluster.Definitions {
		servers, err := r.servers(s, members)
		if err != nil {
			problems = append(problems, fmt.Errorf("service %s: %w", s.FullName, err))
			continue
		}
		set.Services = append(set.Services, model.Service{Definition: s, Cluster: r.cluster.Name, Servers: servers})
	}
	if len(problems) > 0 {
		return model.Set{}, errors.Join(problems...)
	}
	return set, nil
}

// Set resolves a cluster once: New and Resolver.Set in one.
func Set(c model.Cluster, live map[string]model.Role) (model.Set, error) {
	r, err := New(c)
	if err != nil {
		return model.Set{}, err
	}
	return r.Set(live)
}

// vars are what selectors see of a member.
func (r *Resolver) vars(m model.Member, live map[string]model.Role) map[string]any {
	vars := make(map[string]any, len(m.Vars)+1)
	maps.Copy(vars, m.Vars)
	role := m.Role
	if now, known := live[m.Name]; known && !r.cluster.StaticRoles {
		role = now
	}
	vars[roleVar] = string(role)
	return vars
}

func (r *Resolver) servers(s model.Definition, members []map[string]any) ([]model.Server, error) {
	selected, err := s.Selector.Select(members)
	if err != nil {
		return nil, fmt.Errorf("selector: %w", err)
	}
	var backups []int
	if !s.Backup.None() {
		if backups, err = s.Backup.SelectBackup(members); err != nil {
			return nil, fmt.Errorf("backup: %w", err)
		}
	}
	isBackup := make(map[int]bool, len(backups))
	for _, i := range backups {
		isBackup[i] = true
	}
	servers := make([]model.Server, 0, len(selected)+len(backups))
	taken := make(map[int]bool, len(selected)+len(backups))
	for _, picked := range [][]int{selected, backups} {
		for _, i := range picked {
			if taken[i] {
				continue
			}
			taken[i] = true
			m := r.cluster.Members[i]
			servers = append(servers, model.Server{
				Member: m.Name, Host: m.Host, Port: s.Dest.Of(m), Weight: m.Weight, Backup: isBackup[i] || s.Options.Backup,
			})
		}
	}
	return servers, nil
}
