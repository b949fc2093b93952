package cluster

import (
	"log/slog"
	"maps"
	"slices"
	"time"

	"github.com/pgporter/pgporter/internal/config/model"
	"github.com/pgporter/pgporter/internal/monitor/health"
	"github.com/pgporter/pgporter/internal/monitor/patroni"
)

// plan takes a declaration: resolves it and fits the servers to it.
func (s *State) plan(p Planned, a *Actions, now time.Time) {
	old := s.cluster
	s.cluster, s.resolver, s.holdless = p.Cluster, p.Resolver, p.Holdless
	// Who is refused at once doesn't wait for a server's first response, which nobody looks at then.
	s.witnessed = p.Witnessed && !slices.ContainsFunc(p.Cluster.Definitions, func(d model.Definition) bool { return d.Hold != nil && !d.Hold.Waits() })
	s.bases = make(map[string][2]string, len(p.Cluster.Members))
	present := make(map[string]bool, len(p.Cluster.Members))
	for _, m := range p.Cluster.Members {
		present[m.Name] = true
		s.bases[m.Name] = [2]string{patroni.BaseURL(m.Host, m.PatroniPort, false), patroni.BaseURL(m.Host, m.PatroniPort, true)}
		if i := slices.IndexFunc(old.Members, func(o model.Member) bool { return o.Name == m.Name }); i >= 0 && base(old.Members[i]) != base(m) {
			delete(s.members, m.Name)
		}
	}
	s.underivable = nil
	maps.DeleteFunc(s.members, func(name string, _ member) bool { return !present[name] })
	if p.Rewatched {
		s.key = keys{}
	}
	s.believeKey()
	s.settleSystem(a, now)
	s.elect(a, now)
	live := s.liveRoles()
	set, err := p.Resolver.Set(live)
	if err != nil && p.Prepared == nil {
		a.Refused = err
		return
	}
	if err != nil {
		a.logf(slog.LevelError, "%s: the services have the servers that they were prepared with, for they can't be resolved with the roles of now: %v", s.cluster.Name, err)
		set = *p.Prepared
	}
	s.live = live
	s.standby, s.positioned, s.rewiring = s.isStandbyCluster(), s.position() > 0, false
	s.adopt(set, a, now)
}

// roles elects the primary anew, and resolves the services again if that or anything else has changed a role.
func (s *State) roles(a *Actions, now time.Time) {
	s.believeKey()
	s.settleSystem(a, now)
	s.elect(a, now)
	live := s.liveRoles()
	if maps.Equal(live, s.live) {
		return
	}
	for _, name := range s.names() {
		if was, is := s.live[name], live[name]; was != is {
			a.logf(slog.LevelInfo, "%s: %s is %s now, was %s", s.cluster.Name, name, is, was)
		}
	}
	s.live = live
	if s.cluster.StaticRoles {
		return
	}
	set, err := s.resolver.Set(live)
	if err != nil {
		a.logf(slog.LevelError, "%s: the services stay with the servers they had, for they can't be resolved with the new roles: %v", s.cluster.Name, err)
		return
	}
	s.adopt(set, a, now)
}

// adopt fits the servers to a set: those that are in it already keep their health.
func (s *State) adopt(set model.Set, a *Actions, now time.Time) {
	lasting := make(map[string]bool, len(set.Services))
	for _, old := range s.set.Services {
		lasting[old.FullName] = slices.ContainsFunc(set.Services, func(svc model.Service) bool { return svc.FullName == old.FullName })
	}
	s.set = set
	s.generation++
	ttl := s.ttl()
	servers := make(map[serverKey]server, len(s.servers))
	for i := range set.Services {
		svc := &set.Services[i]
		for _, carrier := range svc.Servers {
			key := serverKey{svc.FullName, carrier.Member}
			path := svc.Check
			target := s.questionOf(s.member(carrier.Member), svc.Definition)
			options := &svc.Options
			old, there := s.servers[key]
			switch {
			case there && old.host == carrier.Host && old.check == path && sameWords(old.target, target):
				old.machine = old.machine.Reconfigure(options, ttl)
				old.target, old.port, old.steady = target, destination(carrier, svc.Options), false
				servers[key] = old
				continue
			case there && old.host == carrier.Host:
				old.machine = health.NewMachine(path, options, ttl).Adopt(old.machine, now)
			default:
				why := "it was no server of the service for a time"
				if there {
					why = "its address is " + carrier.Host + " now"
				}
				if there {
					s.noteLeft(key, old, now)
				}
				old = s.expire(server{machine: health.NewMachine(path, options, ttl), host: carrier.Host, since: now}, why)
			}
			old.path, old.check, old.target, old.port, old.steady = patroni.ParsePath(path), path, target, destination(carrier, svc.Options), false
			if last, known := s.known[target]; known {
				if as, known := s.heardAs(&old, target, last.Outcome); known {
					machine, ended := old.machine.Feed(as, s.backing(carrier.Member, now), last.at)
					old.machine = machine
					old = s.settle(old, ended)
				}
			}
			servers[key] = old
			if !there && lasting[svc.FullName] {
				a.logf(slog.LevelInfo, "%s: %s joins%s", svc.FullName, carrier.Member, asBackup(carrier))
			}
		}
	}
	for _, key := range slices.SortedFunc(maps.Keys(s.servers), compareKeys) {
		if _, stays := servers[key]; stays {
			continue
		}
		s.noteLeft(key, s.servers[key], now)
		if lasting[key.service] {
			a.logf(slog.LevelInfo, "%s: %s leaves", key.service, key.member)
		}
	}
	s.servers = servers
	s.wire(now)
	there := make(map[string]bool, len(set.Services))
	for i := range set.Services {
		there[set.Services[i].FullName] = true
	}
	s.forgetCounts(there)
	s.adoptPorts(now)
}

// sameWords says that two questions are put in the same words to the same API: which of the member's they are may differ.
func sameWords(a, b health.Target) bool {
	a.Path, b.Path = "", ""
	return a == b
}

func asBackup(s model.Server) string {
	if s.Backup {
		return " as backup"
	}
	return ""
}
