package cluster

import (
	"maps"
	"reflect"
	"time"

	"github.com/pgporter/pgporter/internal/monitor/inquiry"
)

// quietly takes the events that change nothing that anybody sees, which are nearly all of them: that it is time to ask, an answer that says
// what the last one said, a reading of the key that names who held it. It does what Step does with them for a small part of the
// cost. done is false where Step has to look at everything.
func (s State) quietly(e Event, now time.Time) (next State, a Actions, done bool) {
	if s.view == nil || now.Sub(s.view.At) >= answeredGap {
		return s, a, false
	}
	if at := s.judgeAt(); !at.IsZero() && !now.Before(at) {
		return s, a, false
	}
	switch e := e.(type) {
	case Ticked:
		s.members = maps.Clone(s.members)
	case Checked:
		if !s.sameAnswer(e) {
			return s, a, false
		}
		before := s
		s.members, s.known = maps.Clone(s.members), maps.Clone(s.known)
		if !s.again(e, now) {
			return before, a, false
		}
	case Keyed:
		was := s.key.now
		was.Read, was.Renewed, was.Optime = e.Read, e.Renewed, e.Optime
		if !s.key.known() || !was.Equal(e.Reading) || (e.Optime > 0) != (s.key.now.Optime > 0) {
			return s, a, false
		}
		for key := range s.servers {
			v := s.servers[key]
			if v.machine.Backed() {
				return s, a, false
			}
		}
		s.key.now, s.key.heard = e.Reading, e.Reading
		return s, a, true
	default:
		return s, a, false
	}
	if s.anyPortDue(now) {
		s.ports = maps.Clone(s.ports)
	}
	s.ask(&a, now)
	return s, a, true
}

// anyPortDue says that ask has a port to probe.
func (s *State) anyPortDue(now time.Time) bool {
	for at := range s.ports {
		p := s.ports[at]
		if due, any := p.ask.Due(); any && !now.Before(due) {
			return true
		}
	}
	return false
}

// sameAnswer says that an answer to a member's one question says what its last one said, but for positions.
func (s *State) sameAnswer(e Checked) bool {
	last, there := s.known[e.Target]
	o := e.Outcome
	if !there || o.Silence != "" || last.Silence != "" || !s.asksRole(e.Target) || s.rewiring {
		return false
	}
	m := s.members[e.Target.Member]
	if !m.silentSince.IsZero() || m.silences > 0 {
		return false
	}
	a, b := o.Answer, last.Answer
	a.Location, a.Received, a.Replayed = b.Location, b.Received, b.Replayed
	return reflect.DeepEqual(a, b)
}

// again takes an answer that says the same as before; false if it means something new all the same, as a pass does that was waited
// for.
func (s *State) again(e Checked, now time.Time) bool {
	name := e.Target.Member
	m := s.members[name]
	m.last, m.answered, m.mark = e.Outcome, e.Ended, time.Time{}
	if !m.led.IsZero() {
		m.led = e.Ended
	}
	m.api = m.api.End(inquiry.Ended{Target: e.Target, Dear: s.dear(name, e.Outcome)}, now)
	s.known[e.Target] = outcome{e.Outcome, e.Ended}
	s.members[name] = m
	s.notePosition(name, e.Outcome.Answer)
	var confirmed []serverKey
	for key := range s.servers {
		v := s.servers[key]
		if v.target != e.Target {
			continue
		}
		as, known := s.heardAs(v.path, v.machine, e.Target, e.Outcome)
		if !known {
			continue
		}
		next, _ := v.machine.Feed(as, v.machine.Backing(), e.Ended)
		if !next.SameAs(v.machine) {
			return false
		}
		// All that changes is when a leader was confirmed last.
		if _, limited := next.Deadline(); limited {
			confirmed = append(confirmed, key)
		}
	}
	if len(confirmed) > 0 {
		s.servers = maps.Clone(s.servers)
		for _, key := range confirmed {
			v := s.servers[key]
			v.machine = v.machine.Confirm(e.Ended)
			s.servers[key] = v
		}
	}
	return !s.rewiring
}
