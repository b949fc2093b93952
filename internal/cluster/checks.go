package cluster

import (
	"cmp"
	"slices"
	"strings"
	"time"

	"github.com/pgporter/pgporter/internal/health"
	"github.com/pgporter/pgporter/internal/patroni"
	"github.com/pgporter/pgporter/internal/service"
)

// rolePath is asked of members whose services' checks don't bring a role: it says who holds the leader key in any kind of
// cluster, and its body carries the role.
const rolePath = "/leader"

// roleInter is how often rolePath is asked if no service says anything.
const roleInter = 2 * time.Second

// base is where a member's API is.
func base(m service.Member) string { return patroni.BaseURL(m.Host, m.PatroniPort, m.PatroniTLS) }

// target is the check of a member by a path.
func (s *State) target(name, path string) health.Target {
	i := slices.IndexFunc(s.cluster.Members, func(m service.Member) bool { return m.Name == name })
	return health.Target{Member: name, Base: base(s.cluster.Members[i]), Path: path}
}

// targets are the checks that the servers need, each with the smallest `inter` of its services, and one more for each
// member that none of them asks for its role.
func (s *State) targets() map[health.Target]time.Duration {
	targets := make(map[health.Target]time.Duration, len(s.servers)+len(s.cluster.Members))
	asked := make(map[string]bool, len(s.cluster.Members))
	want := func(t health.Target, inter time.Duration) {
		if had, there := targets[t]; !there || inter < had {
			targets[t] = inter
		}
		asked[t.Member] = asked[t.Member] || health.CarriesRole(t.Path)
	}
	roles := roleInter
	for i, svc := range s.set.Services {
		if i == 0 || svc.Options.Inter < roles {
			roles = svc.Options.Inter
		}
		for _, carrier := range svc.Servers {
			want(s.target(carrier.Member, svc.Check), svc.Options.Inter)
		}
	}
	for _, m := range s.cluster.Members {
		if !asked[m.Name] {
			want(s.target(m.Name, rolePath), roles)
		}
	}
	return targets
}

// checks are the targets with their schedules, in order.
func (s *State) checks() []health.Check {
	intervals := s.intervals()
	checks := make([]health.Check, 0, len(intervals))
	for t, inter := range s.wanted {
		checks = append(checks, health.Check{Target: t, Interval: intervals[t], Timeout: health.Timeout(inter)})
	}
	slices.SortFunc(checks, func(a, b health.Check) int {
		return cmp.Or(strings.Compare(a.Member, b.Member), strings.Compare(a.Path, b.Path), strings.Compare(a.Base, b.Base))
	})
	return checks
}

// intervals are how often each target is to be checked now: as often as the most curious of its servers asks. While a
// leader's service has nobody up, its checks run at fastinter instead of downinter, since the next leader may be any of its
// servers, and for some seconds after something has happened more often than that: see closely.
func (s *State) intervals() map[health.Target]time.Duration {
	intervals := make(map[health.Target]time.Duration, len(s.wanted))
	for _, svc := range s.set.Services {
		kind := health.KindOf(svc.Check)
		leaderless := kind.OfLeader() && len(s.accepting(svc)) == 0
		for _, carrier := range svc.Servers {
			v := s.servers[serverKey{svc.FullName, carrier.Member}]
			next := v.machine.Next()
			if leaderless {
				next = min(next, svc.Options.FastInter)
			}
			if pace := s.closely(kind, carrier.Member, leaderless); pace > 0 {
				next = min(next, pace)
			}
			if had, there := intervals[v.target]; !there || next < had {
				intervals[v.target] = next
			}
		}
	}
	for t, inter := range s.wanted {
		if _, there := intervals[t]; !there {
			intervals[t] = inter
		}
	}
	return intervals
}
