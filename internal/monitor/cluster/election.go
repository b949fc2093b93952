package cluster

import (
	"log/slog"
	"slices"
	"strings"
	"time"

	"github.com/pgporter/pgporter/internal/config/model"
	"github.com/pgporter/pgporter/internal/monitor/health"
	"github.com/pgporter/pgporter/internal/monitor/patroni"
)

// claim is how strongly a member claims to be the leader; more outweighs less.
type claim int

const (
	// noClaim: the member says that it is none, or nothing was heard of it and it isn't declared primary.
	noClaim claim = iota
	// byDeclaration: nothing was heard of it, and the inventory calls it primary.
	byDeclaration
	// byRole: its last known role is a leader's, or the leader key was seen to name it just before etcd was lost.
	byRole
	// byKey: it answers, and holds the leader key; its PostgreSQL isn't a running leader, as while it is promoted, stopped
	// or restarted.
	byKey
	// proven: it answers, holds the leader key and runs as a leader.
	proven
)

// elect settles who the primary is. The holder of the leader key is, when etcd tells who that is. Otherwise the strongest
// claim wins. Of several proven ones on one database a claim that sees the leader key in the DCS (or is kept by failsafe
// mode) goes before one that doesn't; then, and among weaker claims, the current leader stays; else there is none, since choosing
// wrongly is worse than choosing nobody. Timelines don't count.
func (s *State) elect(a *Actions, now time.Time) {
	best, candidates := noClaim, []string(nil)
	var locked, running []string
	systems := map[string]bool{}
	for _, m := range s.cluster.Members {
		c, seesKey := s.claimOf(m)
		if c == proven {
			running = append(running, m.Name)
		}
		if s.stranger(m.Name) != "" || s.members[m.Name].successor != "" {
			continue
		}
		if c > best {
			best, candidates, locked = c, nil, nil
			clear(systems)
		}
		if c == best && c != noClaim {
			candidates = append(candidates, m.Name)
			if seesKey {
				locked = append(locked, m.Name)
			}
			if system := s.members[m.Name].system; system != "" {
				systems[system] = true
			}
		}
	}
	if best == proven && len(locked) > 0 && len(systems) < 2 {
		candidates = locked
	}
	holder := s.holder()
	elected := ""
	switch {
	case holder != "":
		if s.isMember(holder) {
			elected, best = holder, max(best, byKey)
		}
	case len(candidates) == 1:
		elected = candidates[0]
	case s.confirmed && slices.Contains(candidates, s.primary):
		elected = s.primary
	case best == byDeclaration:
		elected = candidates[0]
	}
	s.primary, s.confirmed, s.keyed = elected, elected != "" && best > byDeclaration, elected != "" && best >= byKey
	s.reportClaims(a, running, holder, now)
}

// reportClaims tells, once, that several members run as the leader, or one that isn't the leader; and that this is over.
func (s *State) reportClaims(a *Actions, running []string, holder string, now time.Time) {
	if len(running) == 1 && s.primary == running[0] || len(running) == 1 && holder == "" && s.members[running[0]].successor == "" {
		running = nil
	}
	if slices.Equal(running, s.claimants) {
		return
	}
	s.claimants, s.contested = running, ""
	if running == nil {
		a.logf(slog.LevelInfo, "%s: one member claims the leader key again", s.cluster.Name)
		return
	}
	// One of them may have been a leader only until a moment ago: asked again it says so.
	s.notice(now, running...)
	outcome := "none of them gets writes until one gives up"
	switch {
	case holder != "":
		outcome = "the leader key names " + holder
	case len(running) == 1:
		outcome = s.fenced(running[0])
	case s.primary != "":
		outcome = s.primary + " is taken"
	}
	what := " answers as the running leader, but isn't it; "
	if len(running) > 1 {
		what = " answer as the running leader at the same time; "
	}
	s.contested = strings.Join(running, " and ") + what + outcome
	a.logf(slog.LevelError, "%s: %s", s.cluster.Name, s.contested)
}

// claimOf weighs a member's claim; seesKey says that it isn't made without the DCS.
func (s *State) claimOf(m model.Member) (c claim, seesKey bool) {
	seen := s.members[m.Name]
	switch seen.role {
	case "":
		if m.Role == model.Primary {
			c = byDeclaration
		}
	case patroni.RoleDemoted:
		return noClaim, false
	case patroni.RolePrimary, patroni.RolePromoted, patroni.RoleStandbyLeader:
		c = byRole
	}
	if seen.elect && !s.searching.IsZero() {
		c = max(c, byRole)
	}
	if seen.last.Silence != "" {
		return c, false
	}
	for t, o := range s.known {
		if t.Member != m.Name || o.Silence != "" || o.Answer.Status != 200 || !health.KindOf(t.Path).OfLeader() || !s.asksItself(t) {
			continue
		}
		if o.Answer.Role != "" {
			c = max(c, byKey)
		}
		if c == byKey && seen.state == patroni.StateRunning && o.Answer.State == patroni.StateRunning && leads(seen.role) && leads(o.Answer.Role) {
			c = proven
		}
		seesKey = seesKey || !o.Answer.ClusterUnlocked || o.Answer.Failsafe
	}
	return c, seesKey
}

// leads says that a role is a leader's whose promotion has finished.
func leads(role string) bool { return role == patroni.RolePrimary || role == patroni.RoleStandbyLeader }

// liveRoles are the members' roles as selectors see them. The elected primary is primary, and nobody else is. Members that
// are declared offline, delayed or standby stay that unless elected; all others are replicas, once anything is known of
// them or of a primary.
func (s *State) liveRoles() map[string]model.Role {
	live := make(map[string]model.Role, len(s.cluster.Members))
	for _, m := range s.cluster.Members {
		role := m.Role
		switch {
		case m.Name == s.primary:
			role = model.Primary
		case role == model.Primary, role == "":
			role = model.Replica
		}
		live[m.Name] = role
	}
	return live
}
