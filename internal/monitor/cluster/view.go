package cluster

import (
	"cmp"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"time"

	"github.com/pgporter/pgporter/internal/config/model"
	"github.com/pgporter/pgporter/internal/monitor/health"
	"github.com/pgporter/pgporter/internal/monitor/view"
)

// conclude makes the step's results out of its state: who is up, what is said of it, when checks run, and the View.
func (s *State) conclude(a *Actions, now time.Time) {
	serving := make(map[string]bool, len(s.set.Services))
	services := make([]view.Service, 0, len(s.set.Services))
	for _, svc := range s.set.Services {
		out := view.Service{Service: svc, Health: make([]view.Health, 0, len(svc.Servers)), Leads: health.KindOf(svc.Check).OfLeader()}
		accepting := s.accepting(svc)
		resort := len(accepting) == 0
		for _, carrier := range svc.Servers {
			key := serverKey{svc.FullName, carrier.Member}
			v := s.servers[key]
			verdict := v.machine.Verdict()
			next, reason := statusOf(verdict.Phase), verdict.Reason
			if next != up && resort && v.machine.LastResort() && s.stranger(carrier.Member) == "" && s.ports[v.port].Closed() == "" {
				v.machine = v.machine.Resort()
				next, reason = lastResort, reason+"; nobody else serves, and its last answer was good"
			}
			if next == up {
				if why := s.contest(v.machine.Kind(), carrier.Member, accepting); why != "" {
					next, reason = contested, verdict.Reason+"; "+why
				} else if why := s.ports[v.port].Closed(); why != "" {
					next, reason = portClosed, fmt.Sprintf("%s; port %d: %s", verdict.Reason, carrier.Port, why)
				}
			}
			if isUp := next == up || next == lastResort; isUp != v.up {
				s.noteTurn(key, v, isUp, now)
				v.up, v.since = isUp, now
			}
			v = v.recover(next, now)
			if next != v.status {
				s.tell(a, key, v.status, next, reason)
				if next == portClosed {
					// It may have been opened since it was probed last.
					s.suspect([]string{carrier.Member}, now)
				}
				v.status = next
			}
			s.servers[key] = v
			checks := s.counted.checks[key]
			checks.Last = view.Result(v.machine.Last())
			out.Health = append(out.Health, view.Health{Up: v.up, Reason: reason, Since: v.since, Recovered: v.recovered, Epoch: v.epoch, Ended: v.ended, Checks: checks})
		}
		s.takeBack(&out)
		services = append(services, out)
		serving[svc.FullName] = len(out.Usable()) > 0
		if s.serving[svc.FullName] && !serving[svc.FullName] {
			if health.KindOf(svc.Check).OfLeader() && len(accepting) == 0 {
				s.search(now)
			}
			a.logf(slog.LevelError, "%s: no server is left: %s", svc.FullName, reasons(out))
		}
	}
	s.serving = serving
	s.settleHold(services, a, now)
	s.noteOutage(services, now)
	s.paces(now)
	s.pacePorts(now)
	s.post(a, services, now)
}

// accepting are the members whose machines take new clients of a service.
func (s *State) accepting(svc model.Service) []string {
	var members []string
	for _, carrier := range svc.Servers {
		if s.servers[serverKey{svc.FullName, carrier.Member}].machine.Accepts() {
			members = append(members, carrier.Member)
		}
	}
	return members
}

// anyAccepts says that there is one.
func (s *State) anyAccepts(svc model.Service) bool {
	return slices.ContainsFunc(svc.Servers, func(carrier model.Server) bool {
		return s.servers[serverKey{svc.FullName, carrier.Member}].machine.Accepts()
	})
}

func statusOf(p health.Phase) status {
	switch p {
	case health.Up:
		return up
	case health.Paused:
		return paused
	case health.Down:
		return down
	}
	return unchecked
}

// contest says why a server that passes its check isn't used all the same; empty if it is. A member with another database
// isn't used by anybody. On the paths of leaders only the elected primary is used where the key's holder is known or several
// servers pass. On the paths of replicas the key's holder isn't: while it is promoted, or started again after a crash,
// Patroni says 200 and `replica` of it.
func (s *State) contest(kind health.Kind, name string, accepting []string) string {
	if why := s.stranger(name); why != "" {
		return why
	}
	switch {
	case kind == health.Replica && s.keyed && name == s.primary:
		return "it holds the leader key"
	case !kind.OfLeader() || name == s.primary || !s.keyed && len(accepting) < 2:
		return ""
	case s.primary != "":
		return s.primary + " is the leader"
	}
	others := slices.DeleteFunc(slices.Clone(accepting), func(other string) bool { return other == name })
	return "so does " + strings.Join(others, ", ") + ", and none is known to be the leader"
}

// tell logs that a server's status has changed.
func (s *State) tell(a *Actions, key serverKey, was, is status, reason string) {
	switch is {
	case up:
		a.logf(slog.LevelInfo, "%s: server %s is up: %s", key.service, key.member, reason)
	case paused:
		a.logf(slog.LevelWarn, "%s: server %s takes no new clients, sessions stay: %s", key.service, key.member, reason)
	case lastResort:
		a.logf(slog.LevelWarn, "%s: server %s serves as the last resort: %s", key.service, key.member, reason)
	case portClosed:
		a.logf(slog.LevelWarn, "%s: server %s gets no new clients, sessions stay: %s", key.service, key.member, reason)
	case contested:
		a.logf(slog.LevelWarn, "%s: server %s gets no new clients: %s", key.service, key.member, reason)
	case down:
		// A server that was never up, as the replicas behind a leader's check, is no news.
		level := slog.LevelWarn
		if was == unchecked {
			level = slog.LevelDebug
		}
		a.logf(level, "%s: server %s is down: %s", key.service, key.member, reason)
	}
}

// reasons lists why nobody carries a service.
func reasons(svc view.Service) string {
	if len(svc.Servers) == 0 {
		return "no member is selected"
	}
	parts := make([]string, len(svc.Servers))
	for i, carrier := range svc.Servers {
		parts[i] = carrier.Member + " " + svc.Health[i].Reason
	}
	return strings.Join(parts, "; ")
}

// post makes the View if it differs from the last one in more than when members answered, or that is old.
func (s *State) post(a *Actions, services []view.Service, now time.Time) {
	v := &view.View{Cluster: s.cluster.Name, Version: 1, At: now, Contested: s.contested, Hopeless: s.hopeless(now), Outages: s.counted.outages, Outage: s.counted.outage, Hold: s.hold, Services: services}
	if v.Key = (view.Key{Watched: s.key.asked, Lost: s.key.now.Lost}); s.key.known() {
		v.Key.Holder, v.Key.Confirmed, v.Key.Doubted = s.key.now.Leader, s.key.now.Read, s.key.alien
	}
	for _, m := range s.cluster.Members {
		seen := s.members[m.Name]
		out := view.Member{
			Member: m, Live: s.live[m.Name], State: seen.state, Timeline: seen.timeline,
			Answer: "not checked yet", Answered: seen.answered, Led: seen.led, Unlocked: seen.unlocked, Failsafe: seen.failsafe, Pause: seen.paused, Remark: s.remark(m.Name, now),
			Answering: seen.answering,
			Questions: view.Questions{Asked: seen.api.Counts.Asked, OutOfTurn: seen.api.Counts.Extra, Late: seen.api.Counts.Late, HeldBack: seen.api.Counts.HeldBack},
		}
		if seen.checked {
			out.Answer = seen.last.Words()
		}
		out.Lag, out.LagKnown = s.lag(seen)
		v.Members = append(v.Members, out)
	}
	if s.view != nil {
		if s.posted == s.generation && alike(s.view, v) && now.Sub(s.view.At) < answeredGap {
			return
		}
		v.Version = s.view.Version + 1
	}
	s.view, s.posted = v, s.generation
	a.View = v
}

// alike says that two Views of the same set say the same but for when members answered and etcd was read, how far they lag, and for counts.
func alike(a, b *view.View) bool {
	key := b.Key
	key.Confirmed = a.Key.Confirmed
	if a.Key != key || a.Hold != b.Hold || a.Contested != b.Contested || a.Hopeless != b.Hopeless || a.Key.Confirmed.IsZero() != b.Key.Confirmed.IsZero() {
		return false
	}
	for i, m := range a.Members {
		n := b.Members[i]
		if m.Live != n.Live || m.State != n.State || m.Timeline != n.Timeline || m.Answer != n.Answer ||
			m.Led.IsZero() != n.Led.IsZero() || m.Unlocked != n.Unlocked || m.Failsafe != n.Failsafe || m.Pause != n.Pause || m.Remark != n.Remark {
			return false
		}
	}
	for i := range a.Services {
		for j, h := range a.Services[i].Health {
			h.Checks = b.Services[i].Health[j].Checks
			if h != b.Services[i].Health[j] {
				return false
			}
		}
	}
	return true
}

func compareKeys(a, b serverKey) int {
	return cmp.Or(strings.Compare(a.service, b.service), strings.Compare(a.member, b.member))
}
