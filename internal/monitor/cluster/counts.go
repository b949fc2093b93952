package cluster

import (
	"time"

	"github.com/pgporter/pgporter/internal/monitor/health"
	"github.com/pgporter/pgporter/internal/monitor/patroni"
	"github.com/pgporter/pgporter/internal/monitor/view"
)

// What is counted goes into the Views that are published for other reasons, of which there is one every answeredGap at least while
// answers come: nothing is published for a count alone.

// counted is what is counted of the cluster as a whole.
type counted struct {
	// checks are those of the servers. They outlive a server's place in a service, and go with the member or the service.
	checks map[serverKey]view.Checks
	// outages are the times without a leader that serves, outage is when the one under way began; zero if there is one. led says that
	// there was a leader once: before that nothing is missed.
	outages view.Durations
	outage  time.Time
	led     bool
}

// noteFailure counts a check in vain of a server that is up.
func (s *State) noteFailure(key serverKey, v *server) {
	if v.up {
		c := s.counted.checks[key]
		c.Failures++
		s.counted.checks[key] = c
	}
}

// noteTurn counts that a server goes up, or not, now.
func (s *State) noteTurn(key serverKey, v server, up bool, now time.Time) {
	c := s.counted.checks[key]
	if up {
		c.DownFor += max(now.Sub(v.since), 0)
	} else {
		c.Downs++
	}
	s.counted.checks[key] = c
}

// noteLeft adds up how long a server was down that leaves its service.
func (s *State) noteLeft(key serverKey, v server, now time.Time) {
	if !v.up {
		c := s.counted.checks[key]
		c.DownFor += max(now.Sub(v.since), 0)
		s.counted.checks[key] = c
	}
}

// forgetCounts drops what was counted of servers that are declared no more.
func (s *State) forgetCounts(services map[string]bool) {
	for key := range s.counted.checks {
		if _, there := s.members[key.member]; !there || !services[key.service] {
			delete(s.counted.checks, key)
		}
	}
}

// noteAnswer counts how long a member's API took to answer.
func (m *member) noteAnswer(e Checked) {
	if t, since, busy := m.api.UnderWay(); busy && t == e.Target && e.Outcome.Silence == "" && !e.Outcome.NotAsked {
		m.answering = m.answering.Add(e.Ended.Sub(since), view.AnswerBounds)
	}
}

// noteOutage notes whether the cluster has a leader that serves: a server that is up in a service for leaders. Without such a service
// nobody here would know.
func (s *State) noteOutage(services []view.Service, now time.Time) {
	any, serves := false, false
	for i := range services {
		if !health.KindOf(services[i].Check).OfLeader() {
			continue
		}
		any = true
		for _, h := range services[i].Health {
			serves = serves || h.Up
		}
	}
	c := &s.counted
	switch {
	case !any:
		c.led, c.outage = false, time.Time{}
	case serves && !c.outage.IsZero():
		c.outages = c.outages.Add(now.Sub(c.outage), view.OutageBounds)
		c.outage = time.Time{}
	case serves:
		c.led = true
	case c.led && c.outage.IsZero():
		c.outage = now
	}
}

// lag is how far a replica's replay is behind the leader, in bytes, by their last answers and the leader key; false while that isn't known.
// The two may have been asked at different times, so it can be as much too high as is written in between.
func (s *State) lag(m member) (int64, bool) {
	a, leader := m.last.Answer, max(s.position(), s.leaderPosition)
	if !m.answers() || a.Role != patroni.RoleReplica || a.Replayed == 0 || leader == 0 {
		return 0, false
	}
	return max(leader-a.Replayed, 0), true
}
