package cluster

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/pgporter/pgporter/internal/monitor/patroni"
)

// silentFor is how long a member's API has to be silent before nobody counts on it. One whose port nobody listens at counts at once.
const silentFor = 5 * time.Second

// hopeless says why no failover can bring the cluster a leader that it lacks; empty while one may, or nothing is lacking. It is what Patroni
// would say: it promotes nobody by itself in maintenance, and nobody who is tagged against it, isn't there, or has no database that runs.
func (s *State) hopeless(now time.Time) string {
	if s.counted.outage.IsZero() || s.requested() || s.members[s.holder()].elect {
		return ""
	}
	if s.maintenance() {
		return "the cluster is in maintenance (patronictl pause), in which Patroni promotes nobody"
	}
	if p := s.members[s.primary]; p.answers() && (p.role == patroni.RolePromoted || leads(p.role) && p.state == patroni.StateRunning) {
		// It is there, and is about to be let in.
		return ""
	}
	var reasons []string
	for _, name := range s.names() {
		if name == s.former() {
			continue
		}
		why := s.unfit(name, now)
		if why == "" {
			return ""
		}
		reasons = append(reasons, name+" "+why)
	}
	if len(reasons) == 0 {
		return "there is no other member to promote"
	}
	return "there is nobody to promote: " + strings.Join(reasons, ", ")
}

// requested says that a switchover or a failover was asked for, which Patroni also makes in maintenance.
func (s *State) requested() bool { return s.key.known() && s.key.now.Failover != "" }

// former is the member that led before the outage; empty if nobody knows.
func (s *State) former() string {
	if s.primary != "" {
		return s.primary
	}
	return s.key.last
}

// maintenance says that the members say so: those who answer, or did last.
func (s *State) maintenance() bool {
	paused := false
	for _, m := range s.members {
		if m.answers() && !m.paused {
			return false
		}
		paused = paused || m.paused
	}
	return paused
}

// dormant are states of a PostgreSQL that nobody is promoted in, and that Patroni leaves no sooner than a failover would be over.
var dormant = []string{"stopped", "crashed", "start failed", "restart failed", "stop failed", "creating replica", "initdb failed"}

// unfit says why Patroni wouldn't promote a member; empty if it may.
func (s *State) unfit(name string, now time.Time) string {
	m := s.members[name]
	// Patroni leaves nofailover out where it is off.
	_, against := m.last.Answer.Tags["nofailover"]
	priority := m.last.Answer.Tags["failover_priority"]
	switch {
	case !m.checked:
		return ""
	case m.last.Silence != "" && (m.last.Dead || !m.silentSince.IsZero() && now.Sub(m.silentSince) >= silentFor):
		return "doesn't answer"
	case m.last.Silence != "":
		return ""
	case against, priority == "0", strings.HasPrefix(priority, "-"):
		return "is tagged nofailover"
	case slices.Contains(dormant, m.state):
		return fmt.Sprintf("is %s", m.state)
	case s.stranger(name) != "":
		return "has another database"
	}
	return ""
}
