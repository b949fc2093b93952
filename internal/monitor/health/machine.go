// Package health judges servers: what the results of a check mean for a service's new clients and sessions (machine.go,
// pure: results and time in, verdicts out), whether the port behind the service lets anybody in (port.go, pure, and probe.go,
// the question), and when both are asked (checker.go, the only part with a clock and goroutines).
//
// It knows neither clusters nor roles as selectors see them, and publishes nothing. There is a Machine per service and
// server, since options differ between services, and one running check per member and path, which all machines of that
// path share.
//
// # What a server goes through
//
// A server is Waiting until the first result, and Down until its first pass. A pass is a 200 and, on the leader's paths,
// also a body that says the role asked for and `running`. Up takes new clients. Three things end that:
//
//   - An answer that isn't a pass: Paused. No new client at once, sessions stay; the next pass makes it Up at once.
//   - Certainty that sessions are wrong: Down at once. On a leader's path the body shows another role; on a replica's path
//     it shows a leader.
//   - `fall` results in a row that aren't passes: Down. They count at most once per fastinter, the pace of the schedule, so
//     that extra rounds of checks don't shorten what the options say. While there is only silence (no whole answer in time),
//     new clients still come: PostgreSQL is as likely well, and Patroni is being restarted.
//
// Two kinds of answers on a leader's path don't fit `fall`. One is a 200 whose body isn't a running primary: the member
// holds the leader key while its PostgreSQL stops, restarts after a crash (Patroni starts it in recovery first, so the body
// says `replica` for a moment), or finishes its promotion. Nobody else may take writes meanwhile, so sessions (those that
// wait in a PgBouncer, say) stay for as long as it lasts: it pauses the server and doesn't count. A switchover ends such a
// phase itself: the next role is `demoted` (certain, even with the 200 that Patroni gives until PostgreSQL has stopped) or
// `replica` without the 200. The other is `503 primary running`, which a Patroni that can't reach the DCS says (also to
// /read-only): one that was started over a running primary until it has read the leader key, and one in maintenance as long as
// etcd hangs. PostgreSQL itself was asked and is a running primary, so nobody's session is wrong by that: it pauses the server,
// and doesn't count. If another member was promoted meanwhile, its answer or the leader key says so (Fence); what neither
// shows is bounded by the TTL. In maintenance (`pause`) nobody is promoted but by hand, and the answer is a confirmation. On
// /read-only, which has no TTL, it counts if it isn't maintenance, and begins anew after silence.
//
// In maintenance Patroni may be stopped, too: see Excuse.
//
// On /read-only Patroni vouches for the leader without a look at its PostgreSQL, so there a 200 with another state than
// `running` pauses the server too.
//
// On a leader's path the last confirmation (a pass, or that 200) is void after the cluster's TTL: another member may have
// taken the key by then, whatever `fall` says.
//
// From Down a leader's path is Up on the first pass, because the leader key is authoritative; other paths need `rise`
// passes in a row, except for the first pass ever.
package health

import (
	"fmt"
	"time"

	"github.com/pgporter/pgporter/internal/config/model"
	"github.com/pgporter/pgporter/internal/monitor/patroni"
)

// Outcome is the result of one check: an Answer, or Silence.
type Outcome struct {
	Answer patroni.Answer
	// Silence says in words why there is no answer; empty if there is one.
	Silence string
	// Accepted says of a silent destination (see Probe) that it has taken the connection.
	Accepted bool
}

// Words are the outcome in short: `200 primary running`, `silent: connection refused`.
func (o Outcome) Words() string {
	if o.Silence != "" {
		return "silent: " + o.Silence
	}
	return o.Answer.Words()
}

// Phase is how far a server is in one service.
type Phase int

const (
	// Waiting: not checked yet. No clients.
	Waiting Phase = iota
	// Up: new clients may come.
	Up
	// Paused: no new clients, sessions stay.
	Paused
	// Down: no new clients, sessions have ended if the options want that.
	Down
)

// String is the phase's name in messages.
func (p Phase) String() string { return [...]string{"waiting", "up", "paused", "down"}[p] }

// Verdict is what a Machine says after a result or a tick.
type Verdict struct {
	// Accept: new clients may come.
	Accept bool
	// EndSessions: this very step ended them.
	EndSessions bool
	Phase       Phase
	// Reason in words for an operator.
	Reason string
	// Next is the interval from the last check to the next.
	Next time.Duration
}

// Machine is the health of one server in one service. It is a value: Feed and Tick give the next one. The zero Machine
// isn't usable.
type Machine struct {
	kind    Kind
	options model.Options
	ttl     time.Duration

	phase Phase
	// passed says that there was a pass since the server joined.
	passed bool
	// streak counts passes while Down, and failures otherwise.
	streak Streak
	// silent and keyHeld say that the last result was of that kind.
	silent, keyHeld bool
	// confirmed is when a leader's path was confirmed last; it limits Up and Paused.
	confirmed time.Time
	// last are the words of the last result.
	last string
	// cause says why the server is Down.
	cause string
}

// NewMachine makes the machine of a server that has just joined a service: Waiting. ttl is how long a leader's
// confirmation holds; 0 is for ever.
func NewMachine(path string, o model.Options, ttl time.Duration) Machine {
	return Machine{kind: KindOf(path), options: o, ttl: ttl}
}

// Adopt makes a new machine out of one that judged the same server by another path: what was known is void, but there may
// be sessions, so it is Paused rather than Waiting where the old one was Up or Paused.
func (m Machine) Adopt(old Machine, now time.Time) Machine {
	if old.phase == Up || old.phase == Paused {
		m.phase, m.passed, m.confirmed = Paused, true, now
		m.last = "not yet checked by its new path"
	}
	return m
}

// Reconfigure gives the machine with other options and TTL and the same state. What had been counted stays counted.
func (m Machine) Reconfigure(o model.Options, ttl time.Duration) Machine {
	m.options, m.ttl = o, ttl
	return m
}

// Kind is how the machine's path is judged.
func (m Machine) Kind() Kind { return m.kind }

// Verdict is what holds now, without a step: EndSessions is false.
func (m Machine) Verdict() Verdict {
	return Verdict{Accept: m.phase == Up, Phase: m.phase, Reason: m.reason(), Next: m.next()}
}

// Accepts is Verdict().Accept, and Next is Verdict().Next, without the words.
func (m Machine) Accepts() bool { return m.phase == Up }

// Next is the interval from the last check to the next.
func (m Machine) Next() time.Duration { return m.next() }

// Deadline is when Tick will have an effect; false while it has none.
func (m Machine) Deadline() (time.Time, bool) {
	if !m.kind.OfLeader() || m.ttl <= 0 || m.phase != Up && m.phase != Paused {
		return time.Time{}, false
	}
	return m.confirmed.Add(m.ttl), true
}

// Tick takes notice of the time.
func (m Machine) Tick(now time.Time) (Machine, Verdict) {
	ended := false
	if at, limited := m.Deadline(); limited && !now.Before(at) {
		m, ended = m.fall(fmt.Sprintf("%s; the leader key has not been confirmed for %s", m.last, m.ttl))
	}
	v := m.Verdict()
	v.EndSessions = ended
	return m, v
}

// Feed takes the result of a check that ended now.
func (m Machine) Feed(o Outcome, now time.Time) (Machine, Verdict) {
	m, expired := m.Tick(now)
	wasSilent := m.silent
	j := m.kind.judge(o)
	m.silent = j == silence
	m.keyHeld = j == keyHeld
	m.last = o.Words()
	if m.kind.OfLeader() && o.Silence == "" && o.Answer.Status == 200 && o.Answer.Role == "" {
		m.last += " without a role"
	}
	ended := false
	switch j {
	case pass:
		m = m.pass(now)
	case keyHeld:
		m.streak, m.confirmed = Streak{}, now
		m = m.pause()
	case wrong:
		m, ended = m.fall(m.last)
	case unready:
		if m.phase != Down && (wasSilent || m.kind.OfLeader() || o.Answer.Pause) {
			m.streak = Streak{}
		}
		m = m.pause()
		switch {
		case o.Answer.Pause:
			m.confirmed = now
		case !m.kind.OfLeader():
			m, ended = m.fail(now)
		}
	case failed:
		m, ended = m.pause().fail(now)
	case silence:
		m, ended = m.fail(now)
	}
	v := m.Verdict()
	v.EndSessions = ended || expired.EndSessions
	return m, v
}

// Excuse takes notice of silence that says nothing: the cluster is in maintenance, for which Patroni is stopped as often as not,
// and PostgreSQL is seen to be there. What was true stays true.
func (m Machine) Excuse(o Outcome, now time.Time) (Machine, Verdict) {
	m, v := m.Tick(now)
	if m.phase == Up || m.phase == Paused {
		m.confirmed = now
		m.last = o.Words() + ", in maintenance"
		ended := v.EndSessions
		v = m.Verdict()
		v.EndSessions = ended
		return m, v
	}
	return m.Feed(o, now)
}

// Fence puts a server of a leader's path down at once, because it is certain from elsewhere that it is no leader; why says
// so in words. One that is Down or Waiting stays as it is.
func (m Machine) Fence(why string) (Machine, Verdict) {
	ended := false
	if m.phase == Up || m.phase == Paused {
		m, ended = m.fall(m.last + "; " + why)
	}
	v := m.Verdict()
	v.EndSessions = ended
	return m, v
}

func (m Machine) pass(now time.Time) Machine {
	m.confirmed = now
	if m.phase == Down && m.passed && !m.kind.OfLeader() {
		var enough bool
		if m.streak, enough = m.streak.Pass(&m.options); !enough {
			return m
		}
	}
	m.phase, m.passed, m.streak, m.cause = Up, true, Streak{}, ""
	return m
}

// pause stops new clients. Who has none stays, except that a first result ends the waiting.
func (m Machine) pause() Machine {
	switch m.phase {
	case Up:
		m.phase = Paused
	case Waiting:
		m, _ = m.fall(m.last)
	case Down:
		m.cause = m.last
	}
	return m
}

// fail counts a result towards fall.
func (m Machine) fail(now time.Time) (Machine, bool) {
	if m.phase == Waiting || m.phase == Down {
		return m.fall(m.last)
	}
	var enough bool
	if m.streak, enough = m.streak.Fail(&m.options, now); enough {
		return m.fall(fmt.Sprintf("%s (%d in a row)", m.last, m.streak.Count()))
	}
	return m, false
}

// fall puts the server down and says whether that ends sessions.
func (m Machine) fall(cause string) (Machine, bool) {
	ended := (m.phase == Up || m.phase == Paused) && m.options.ShutdownSessions
	m.phase, m.streak, m.cause = Down, Streak{}, cause
	return m, ended
}

func (m Machine) reason() string {
	switch {
	case m.phase == Waiting:
		return "not checked yet"
	case m.phase == Down && m.streak.Count() > 0:
		return fmt.Sprintf("%s (pass %d of %d)", m.last, m.streak.Count(), m.options.Rise)
	case m.phase == Down:
		return m.cause
	case m.streak.Count() > 0:
		return fmt.Sprintf("%s (%d of %d)", m.last, m.streak.Count(), m.options.Fall)
	}
	return m.last
}

// next is HAProxy's table: inter when settled, downinter when down, fastinter in between.
func (m Machine) next() time.Duration {
	switch {
	case m.phase == Up && m.streak.Count() == 0:
		return m.options.Inter
	case m.phase == Down && m.streak.Count() == 0 && !m.keyHeld:
		return m.options.DownInter
	}
	return m.options.FastInter
}
