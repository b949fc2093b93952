package cluster

import (
	"time"

	"github.com/pgporter/pgporter/internal/monitor/health"
	"github.com/pgporter/pgporter/internal/monitor/inquiry"
)

// quietly takes the events that change nothing that anybody sees, which are nearly all of them: that it is time to ask, an answer that says
// what the last one said, a probe that was answered as the last one was, a reading of the key that names who held it. It does what
// loudly does with them for a small part of the cost. done is false where everything has to be looked at: the State is as it was then.
func (s *State) quietly(e Event, now time.Time) (a Actions, done bool) {
	if s.view == nil || now.Sub(s.view.At) >= answeredGap || !s.judged.IsZero() && !now.Before(s.judged) {
		return a, false
	}
	for name := range s.members {
		if m := s.members[name]; !m.mark.IsZero() && !now.Before(m.mark) {
			return a, false
		}
	}
	switch e := e.(type) {
	case Ticked:
	case Checked:
		if !s.sameAnswer(e) || !s.again(e, now) {
			return a, false
		}
	case Probed:
		if !s.sameProbe(e) {
			return a, false
		}
		s.probed(e, now)
	case Doubted:
		s.doubt(e.servers, now)
	case Keyed:
		was := s.key.now
		was.Read, was.Renewed, was.Optime = e.Read, e.Renewed, e.Optime
		if s.backed || !s.key.known() || !was.Equal(e.Reading) || (e.Optime > 0) != (s.key.now.Optime > 0) {
			return a, false
		}
		s.key.now, s.key.heard = e.Reading, e.Reading
		s.noteNamed(e.Reading)
		return a, true
	default:
		return a, false
	}
	s.ask(&a, now)
	return a, true
}

// sameAnswer says that an answer to a member's one question says what its last one said, but for positions.
func (s *State) sameAnswer(e Checked) bool {
	last, there := s.known[e.Target]
	if !there || e.Outcome.Silence != "" || last.Silence != "" || !s.asksRole(e.Target) || s.rewiring {
		return false
	}
	m := s.members[e.Target.Member]
	return m.silentSince.IsZero() && m.silences == 0 && e.Outcome.Answer.Repeats(last.Answer)
}

// sameProbe says that a probe's answer says what the last one said, of a port by which nobody's silence is judged now.
func (s *State) sameProbe(e Probed) bool {
	p, asked := s.ports[e.Target]
	return asked && e.Outcome.Silence == "" && p.Sound() && s.members[e.Target.Member].silentSince.IsZero()
}

// again takes an answer that says the same as before; false if it means something new all the same, as a pass does that was waited
// for.
func (s *State) again(e Checked, now time.Time) bool {
	name := e.Target.Member
	m := s.members[name]
	m.last, m.answered, m.asked, m.mark = e.Outcome, e.Ended, m.askedAt(e), time.Time{}
	position := s.leaderPosition
	s.notePosition(name, e.Outcome.Answer)
	var room [8]serverKey
	confirmed := room[:0]
	var failed []serverKey
	for i := range s.set.Services {
		svc := &s.set.Services[i]
		for j := range svc.Servers {
			if svc.Servers[j].Member != name {
				continue
			}
			key := serverKey{svc.FullName, name}
			switch v := s.servers[key]; {
			case v.target != e.Target:
			case v.steady:
				confirmed = append(confirmed, key)
			default:
				as, known := s.heardAs(&v, e.Target, e.Outcome)
				if !known {
					continue
				}
				b := v.machine.Backing()
				b.Outdated = m.outdated()
				next, _ := v.machine.Feed(as, b, e.Ended)
				if !next.SameAs(v.machine) {
					s.leaderPosition = position
					return false
				}
				if !next.Passed() {
					failed = append(failed, key)
				}
				if v.steady = next.Settled() && !v.path.NeedsPosition(); v.steady {
					s.servers[key] = v
				}
				confirmed = append(confirmed, key)
			}
		}
	}
	if s.rewiring {
		s.leaderPosition = position
		return false
	}
	for _, key := range confirmed {
		// All that changes is when a leader was confirmed last.
		v := s.servers[key]
		if _, limited := v.machine.Deadline(); limited {
			v.machine = v.machine.Confirm(e.Ended)
			s.servers[key] = v
		}
	}
	for _, key := range failed {
		v := s.servers[key]
		s.noteFailure(key, &v)
	}
	if !m.led.IsZero() {
		m.led = e.Ended
	}
	m.noteAnswer(e)
	m.api.End(inquiry.Ended{Target: e.Target, Dear: s.dear(name, e.Outcome)}, now)
	s.members[name] = m
	s.known[e.Target] = outcome{e.Outcome, e.Ended}
	return true
}

// unsteady has the next answer to a question looked at by every server that it is about.
func (s *State) unsteady(t health.Target) {
	for i := range s.set.Services {
		key := serverKey{s.set.Services[i].FullName, t.Member}
		if v, there := s.servers[key]; there && v.steady && v.target == t {
			v.steady = false
			s.servers[key] = v
		}
	}
}
