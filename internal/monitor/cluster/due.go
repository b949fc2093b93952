package cluster

import (
	"time"

	"github.com/pgporter/pgporter/internal/monitor/health"
	"github.com/pgporter/pgporter/internal/monitor/inquiry"
)

// Deadline is when a Ticked is due; false if only events change anything.
func (s *State) Deadline() (time.Time, bool) {
	return s.Wake(func(t time.Time) time.Time { return t })
}

// Wake is the same for who puts questions that are due in turn, and for no other reason, off to a moment that together gives: they may be
// put at any later time.
func (s *State) Wake(together func(time.Time) time.Time) (time.Time, bool) {
	next := s.next
	if !s.turn.IsZero() {
		next = earlier(next, together(s.turn))
	}
	return next, !next.IsZero()
}

// reckonJudged settles when time alone changes what is known. A confirmation that comes meanwhile only puts that off.
func (s *State) reckonJudged() {
	s.judged, s.backed = time.Time{}, false
	for key := range s.servers {
		v := s.servers[key]
		if at, limited := v.machine.Deadline(); limited {
			s.judged = earlier(s.judged, at)
		}
		s.backed = s.backed || v.machine.Backed()
	}
	if s.backed {
		s.judged = earlier(s.judged, s.key.now.Read.Add(health.KeyFresh))
	}
	for name := range s.members {
		if m := s.members[name]; !m.stopping.IsZero() && !m.toldStopping {
			s.judged = earlier(s.judged, m.stopping.Add(longStop))
		}
	}
	for _, at := range []time.Time{s.switchover, s.searching, s.hold.Until} {
		s.judged = earlier(s.judged, at)
	}
}

// Awaits says that an answer is awaited.
func (s *State) Awaits() bool { return s.awaits }

// reckonNext settles when anything is due, and whether an answer is awaited.
func (s *State) reckonNext() {
	s.next, s.turn, s.awaits = s.judged, time.Time{}, false
	for name := range s.members {
		m := s.members[name]
		s.next = earlier(s.next, m.mark)
		s.reckon(&m.api)
	}
	for at := range s.ports {
		p := s.ports[at]
		s.reckon(&p.ask)
	}
}

func (s *State) reckon(ask *inquiry.Schedule) {
	if due, inTurn, any := ask.Due(); any && inTurn {
		s.turn = earlier(s.turn, due)
	} else if any {
		s.next = earlier(s.next, due)
	} else if _, _, busy := ask.UnderWay(); busy {
		s.awaits = true
	}
}

// earlier is the earlier of two times that aren't zero.
func earlier(a, b time.Time) time.Time {
	if a.IsZero() || !b.IsZero() && b.Before(a) {
		return b
	}
	return a
}
