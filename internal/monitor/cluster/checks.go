package cluster

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/pgporter/pgporter/internal/config/model"
	"github.com/pgporter/pgporter/internal/monitor/health"
	"github.com/pgporter/pgporter/internal/monitor/patroni"
)

// rolePath is asked of members whose services' checks don't bring a role: it says who holds the leader key in any kind of
// cluster, and its body carries the role.
const rolePath = "/leader"

// roleInter is how often rolePath is asked if no service says anything.
const roleInter = 2 * time.Second

// base is where a member's API is.
func base(m model.Member) string { return patroni.BaseURL(m.Host, m.PatroniPort, m.PatroniTLS) }

// target is the check of a member by a path where no options say more.
func (s *State) target(name, path string) health.Target {
	return targetOf(s.member(name), model.Definition{Check: path})
}

// member is a declared one.
func (s *State) member(name string) model.Member {
	return s.cluster.Members[slices.IndexFunc(s.cluster.Members, func(m model.Member) bool { return m.Name == name })]
}

// targetOf is the check of a member for a service, whose options may say that it goes elsewhere, and how it speaks TLS.
func targetOf(m model.Member, d model.Definition) health.Target {
	words := d.Options.CheckTLS
	host := m.Host
	if d.Options.CheckAddr.IsValid() {
		host = d.Options.CheckAddr.String()
	}
	t := health.Target{Member: m.Name, Base: patroni.BaseURL(host, m.PatroniPort, m.PatroniTLS || words.On), Path: d.Check}
	if m.PatroniTLS || words.On {
		t.TLS = patroni.TLS{CAFile: words.CAFile, NoVerify: words.NoVerify, CertFile: words.CertFile, SNI: words.SNI, VerifyHost: words.VerifyHost}
	}
	return t
}

// asksItself says that a check asks the member that it is of. An address of its own (option addr) may be anybody's: what is
// said there is about the server in that service, and tells nothing of the member.
func (s *State) asksItself(t health.Target) bool {
	m := s.member(t.Member)
	return t.Base == patroni.BaseURL(m.Host, m.PatroniPort, false) || t.Base == patroni.BaseURL(m.Host, m.PatroniPort, true)
}

// answersOtherwise says that a member has answered last to a check whose TLS settings differ from this one, or not at
// all: a silence is about that then, and not about the member.
func (s *State) answersOtherwise(t health.Target) bool {
	for other, last := range s.known {
		if other.Member == t.Member && (other.Base != t.Base || other.TLS != t.TLS) && last.Silence == "" && s.asksItself(other) {
			return true
		}
	}
	return false
}

// Readable says what is wrong with the files that the checks of a cluster's services are given; nil if nothing is. It
// reads them.
func Readable(c model.Cluster) error {
	var problems []error
	for _, d := range c.Definitions {
		for _, m := range c.Members {
			if err := targetOf(m, d).TLS.Check(); err != nil {
				problems = append(problems, fmt.Errorf("service %s: options: %w", d.FullName, err))
				break
			}
		}
	}
	return errors.Join(problems...)
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
		asked[t.Member] = asked[t.Member] || health.CarriesRole(t.Path) && s.asksItself(t)
	}
	roles := roleInter
	for i, svc := range s.set.Services {
		if i == 0 || svc.Options.Inter < roles {
			roles = svc.Options.Inter
		}
		for _, carrier := range svc.Servers {
			want(targetOf(s.member(carrier.Member), svc.Definition), svc.Options.Inter)
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
