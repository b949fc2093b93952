// Package health judges servers: what the results of a check mean for a service's new clients and sessions (machine.go,
// pure: results and time in, verdicts out), what beside them counts and in which order (evidence.go, pure), whether the port
// behind the service lets anybody in (port.go, pure, and probe.go, the question), and how a check is put (patroni.go).
//
// It knows neither clusters nor roles as selectors see them, decides nothing about when anybody is asked, and publishes nothing. There
// is a Machine per service and server, since options differ between services.
//
// # What a server goes through
//
// A server is Waiting until the first result, and Down until its first pass. A pass is a 200 and, on the leader's paths,
// also a body that says the role asked for and `running`. Up takes new clients. Three things end that:
//
//   - An answer that isn't a pass: Paused. No new client at once, sessions stay; the next pass makes it Up at once.
//   - Certainty that sessions are wrong: Down at once. On a leader's path the leader key names another member, or the body shows
//     another role while the key doesn't name this one; on a replica's path the body shows a leader.
//   - `fall` answers in a row that aren't passes: Down. They count at most once per fastinter, the pace of the schedule, so
//     that extra checks don't shorten what the options say.
//
// Two kinds of answers on a leader's path don't fit `fall`. One is a 200 whose body isn't a running primary: the member
// holds the leader key while its PostgreSQL stops, restarts after a crash (Patroni starts it in recovery first, so the body
// says `replica` for a moment), or finishes its promotion. Nobody else may take writes meanwhile, so sessions (those that
// wait in a PgBouncer, say) stay for as long as it lasts: it pauses the server and doesn't count. A switchover ends such a
// phase itself: the next role is `demoted` (contrary, even with the 200 that Patroni gives until PostgreSQL has stopped) or
// `replica` without the 200. The other is `503 primary running`, which a Patroni that can't reach the DCS says (also to
// /read-only): one that was started over a running primary until it has read the leader key, and one in maintenance as long as
// etcd hangs. PostgreSQL itself was asked and is a running primary, so nobody's session is wrong by that: it pauses the server,
// and doesn't count. If another member was promoted meanwhile, its answer or the leader key says so (Backing.Fenced); what neither
// shows is bounded by the TTL. In maintenance (`pause`) nobody is promoted but by hand, and the answer is a confirmation. On
// /read-only, which has no TTL, it counts if it isn't maintenance, and begins anew after silence.
//
// On /read-only Patroni vouches for the leader without a look at its PostgreSQL, so there a 200 with another state than
// `running` pauses the server too.
//
// # Silence
//
// No answer in time, half of one, or one that Patroni never gives (500, HTML) says nothing of PostgreSQL, so it is the
// weakest evidence: the leader key that names the member, or its PostgreSQL's port that answers, goes before it (see ranks). With the key
// everything stays as it was, also for new clients. Without it new clients stay away after `fall` of it, and sessions stay: on a
// leader's path until the key's time to live could have run out. A Patroni whose port refuses is dead, and not merely silent: nobody is
// led to a member without a Patroni, so `fall` of that put it down.
//
// On a leader's path the last confirmation (a pass, a 200 of the key's holder, or the key itself) is void after the cluster's TTL:
// another member may have taken the key by then, whatever `fall` says.
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
	// Elsewhere says of an answer that it may be anybody's: the check goes to an address of its own.
	Elsewhere bool
	// Dead says of a silent one that nobody listens at its port.
	Dead bool
	// Accepted says of a silent destination (see Probe) that it has taken the connection.
	Accepted bool
	// Code is HAProxy's for a Silence, where it is known: see CodeOf.
	Code string
	// NotAsked says that the check couldn't be put for a reason of this node's, which Silence has: it says nothing of anybody.
	NotAsked bool
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

// Machine is the health of one server in one service. It is a value: Feed and Weigh give the next one. The zero Machine
// isn't usable.
type Machine struct {
	kind    Kind
	options *model.Options
	ttl     time.Duration

	phase Phase
	// passed says that there was a pass since the server joined, passing that the last answer was one.
	passed, passing bool
	// streak counts passes while Down, and failures otherwise.
	streak Streak
	// heard is what the last result was, backing what it was weighed with, and decided the rank that did.
	heard   judgement
	backing Backing
	decided string
	// confirmed is when a leader's path was confirmed last; it limits Up and Paused.
	confirmed time.Time
	// last are the words of the last result, code and status its HAProxy's and HTTP's.
	last, code string
	status     int
	// cause says why the server is Down.
	cause string
}

// NewMachine makes the machine of a server that has just joined a service: Waiting. ttl is how long a leader's
// confirmation holds; 0 is for ever. The options aren't changed by anybody after this.
func NewMachine(path string, o *model.Options, ttl time.Duration) Machine {
	return Machine{kind: KindOf(path), options: o, ttl: ttl, heard: unheard}
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
func (m Machine) Reconfigure(o *model.Options, ttl time.Duration) Machine {
	m.options, m.ttl = o, ttl
	return m
}

// Kind is how the machine's path is judged.
func (m Machine) Kind() Kind { return m.kind }

// Verdict is what holds now, without a step: EndSessions is false.
func (m Machine) Verdict() Verdict {
	return Verdict{Accept: m.phase == Up, Phase: m.phase, Reason: m.reason(), Next: m.Next()}
}

// Accepts is Verdict().Accept without the words.
func (m Machine) Accepts() bool { return m.phase == Up }

// Phase is Verdict().Phase without the words.
func (m Machine) Phase() Phase { return m.phase }

// Backing is what the last result was weighed with.
func (m Machine) Backing() Backing { return m.backing }

// SameAs says that a machine that was made of another one by a further result says the same of its server.
func (m Machine) SameAs(o Machine) bool {
	m.confirmed, m.backing.Read, m.backing.Outdated = o.confirmed, o.backing.Read, o.backing.Outdated
	return m == o
}

// Settled says that the last result, if it came again for ever, would change nothing but when the server was confirmed: nothing is
// counted.
func (m Machine) Settled() bool {
	return m.streak.Count() == 0 && (m.phase == Up && m.heard == pass || m.phase == Down && m.heard != pass)
}

// Confirm gives the machine of a server whose last result came again: all that changes is when it was confirmed.
func (m Machine) Confirm(at time.Time) Machine {
	m.confirmed = later(m.confirmed, at)
	return m
}

// Passed says that the last result was a pass.
func (m Machine) Passed() bool { return m.heard == pass }

// Silent says that the last result was no answer; Undecided that such a result would change something if it came again.
func (m Machine) Silent() bool { return m.heard == silence || m.heard == dead }

// Undecided says that silence, if it goes on, has more to say: it hasn't been counted `fall` times.
func (m Machine) Undecided() bool {
	return m.phase != Down && (!m.Silent() || m.streak.Count() < m.options.Fall)
}

// Backed says that the leader key keeps the server as it is, so that the age of the key matters.
func (m Machine) Backed() bool {
	return m.backing.Named && (m.phase == Up || m.phase == Paused) && m.heard != pass && m.heard != unheard
}

// LastResort says that a read service may be led here where it has nobody else: the API is silent (and not dead), the last answer was
// a pass, and PostgreSQL's port answers.
func (m Machine) LastResort() bool {
	return !m.kind.OfLeader() && m.heard == silence && m.passing && m.backing.Port == PortAnswers && (m.kind != Replica || !m.backing.Named)
}

// Resort gives the machine of a server that serves as the last resort: it is Paused, so that whatever ends sessions ends those too.
func (m Machine) Resort() Machine {
	if m.phase == Down {
		m.phase, m.streak = Paused, Streak{}
	}
	return m
}

// Next is the interval from the last check to the next. It is HAProxy's table: inter when settled, downinter when down, fastinter
// in between.
func (m Machine) Next() time.Duration {
	switch {
	case m.phase == Up && m.streak.Count() == 0, m.Silent() && m.phase != Down && m.streak.Count() >= m.options.Fall:
		return m.options.Inter
	case m.phase == Down && m.streak.Count() == 0 && m.heard != keyHeld:
		return m.options.DownInter
	}
	return m.options.FastInter
}

// Deadline is when time alone has an effect, which Weigh and Feed take notice of; false while it has none.
func (m Machine) Deadline() (time.Time, bool) {
	if !m.kind.OfLeader() || m.ttl <= 0 || m.phase != Up && m.phase != Paused {
		return time.Time{}, false
	}
	return m.confirmed.Add(m.ttl), true
}

// verdict is Verdict with what the step that made the machine did.
func (m Machine) verdict(ended bool) Verdict {
	v := m.Verdict()
	v.EndSessions = ended
	return v
}

// tick takes notice of the time.
func (m Machine) tick(now time.Time) (Machine, bool) {
	if at, limited := m.Deadline(); limited && !now.Before(at) {
		return m.fall(fmt.Sprintf("%s; the leader key has not been confirmed for %s", m.last, m.ttl))
	}
	return m, false
}

// Feed takes the result of a check that ended now, and what else is known. It says whether that ends sessions.
func (m Machine) Feed(o Outcome, b Backing, now time.Time) (next Machine, ended bool) {
	m, expired := m.confirmBy(b).tick(now)
	m, ended = m.feed(o, b, now)
	return m, ended || expired
}

func (m Machine) feed(o Outcome, b Backing, now time.Time) (Machine, bool) {
	wasSilent := m.Silent()
	m.heard = m.kind.judge(o)
	m.last, m.code, m.status = o.Words(), o.code(m.heard), o.Answer.Status
	if o.Silence == "" && o.Answer.Role == "" && (m.kind.OfLeader() || m.kind.nonsense(o)) {
		m.last += " without a role"
	}
	if !m.Silent() {
		m.passing = m.heard == pass
	}
	var does effect
	does, m.decided = weigh(m.kind, m.heard, b)
	m.backing = b
	ended := false
	if does == end {
		return m.wrong()
	}
	switch m.heard {
	case pass:
		return m.pass(now), false
	case keyHeld:
		m.streak, m.confirmed = Streak{}, now
	case unready:
		if m.phase != Down && (wasSilent || m.kind.OfLeader() || o.Answer.Pause) {
			m.streak = Streak{}
		}
		switch {
		case o.Answer.Pause:
			m.confirmed = now
		case !m.kind.OfLeader():
			does = count
		}
	}
	switch does {
	case admit:
		// Silent, and backed by all that can be.
		m = m.tally(now)
		m.phase, m.passed = Up, true
		m.confirmed = later(m.confirmed, b.Read)
	case keep:
		m = m.tally(now)
		if b.Maintained && (m.phase == Up || m.phase == Paused) {
			m.confirmed, m.streak = now, Streak{}
		}
		if m.phase == Waiting {
			m, _ = m.fall(m.last)
		}
		if m.phase == Paused && m.passing {
			m.phase = Up
		}
	case pause:
		m = m.pause()
	case count:
		m, ended = m.pause().fail(now)
	case spare:
		if m.phase == Waiting || m.phase == Down {
			return m.fall(m.last)
		}
		m = m.tally(now).doubted()
	case doubt:
		m, ended = m.fail(now)
	}
	return m, ended
}

// Weigh takes notice of what is known beside the last result, which is weighed again. It counts nothing.
func (m Machine) Weigh(b Backing, now time.Time) (next Machine, ended bool) {
	m, ended = m.confirmBy(b).tick(now)
	m.backing = b
	if (m.heard == unheard || m.heard == pass) && b.Fenced == "" && (m.kind != Replica || !b.Named) {
		return m, ended
	}
	var does effect
	does, m.decided = weigh(m.kind, m.heard, b)
	open := m.phase == Up || m.phase == Paused
	also := false
	switch does {
	case end:
		if open {
			m, also = m.wrong()
		}
	case admit:
		if m.Silent() {
			m.phase, m.passed = Up, true
		}
	case keep:
		if m.phase == Paused && m.passing && m.Silent() {
			m.phase = Up
		}
	case pause:
		if m.phase == Up {
			m.phase = Paused
		}
	case spare:
		m = m.doubted()
	case doubt:
		if open && m.streak.Count() >= m.options.Fall {
			m, also = m.fall(m.inARow())
		}
	}
	return m, ended || also
}

// Review gives what is known a while to be looked at anew, because this node stood still until now: a time to live that has run out
// meanwhile ends nothing before then.
func (m Machine) Review(until time.Time) Machine {
	if at, limited := m.Deadline(); limited && at.Before(until) {
		m.confirmed = until.Add(-m.ttl)
	}
	return m
}

// confirmBy takes the leader key's word.
func (m Machine) confirmBy(b Backing) Machine {
	if b.Named && b.Fenced == "" {
		m.confirmed = later(m.confirmed, b.Read)
	}
	return m
}

// wrong puts down a server that is certainly wrong. One that its own answer excludes anyway needs no other reason.
func (m Machine) wrong() (Machine, bool) {
	open := m.phase == Up || m.phase == Paused
	cause := m.last
	switch {
	case m.kind.OfLeader() && m.backing.Fenced != "" && (open || m.heard == pass):
		cause += "; " + m.backing.Fenced
	case m.kind == Replica && m.backing.Named && m.heard != wrong:
		cause += "; it holds the leader key"
	}
	return m.fall(cause)
}

func (m Machine) pass(now time.Time) Machine {
	m.confirmed = now
	if m.phase == Down && m.passed && !m.kind.OfLeader() {
		var enough bool
		if m.streak, enough = m.streak.Pass(m.options); !enough {
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

// tally counts a silent result without a consequence. While Down nothing is counted: there are no sessions.
func (m Machine) tally(now time.Time) Machine {
	if m.phase == Up || m.phase == Paused {
		m.streak, _ = m.streak.Fail(m.options, now)
	}
	return m
}

// doubted stops new clients where silence has been counted often enough.
func (m Machine) doubted() Machine {
	if m.phase == Up && m.streak.Count() >= m.options.Fall {
		m.phase = Paused
	}
	return m
}

// fail counts a result towards fall.
func (m Machine) fail(now time.Time) (Machine, bool) {
	if m.phase == Waiting || m.phase == Down {
		return m.fall(m.last)
	}
	var enough bool
	if m.streak, enough = m.streak.Fail(m.options, now); enough {
		return m.fall(m.inARow())
	}
	return m, false
}

func (m Machine) inARow() string { return fmt.Sprintf("%s (%d in a row)", m.last, m.streak.Count()) }

// fall puts the server down and says whether that ends sessions.
func (m Machine) fall(cause string) (Machine, bool) {
	ended := (m.phase == Up || m.phase == Paused) && m.options.ShutdownSessions
	m.phase, m.streak, m.cause = Down, Streak{}, cause
	return m, ended
}

func (m Machine) reason() string {
	text := m.last
	switch {
	case m.phase == Waiting:
		return "not checked yet"
	case m.phase == Down && m.streak.Count() > 0:
		return fmt.Sprintf("%s (pass %d of %d)", m.last, m.streak.Count(), m.options.Rise)
	case m.phase == Down:
		return m.cause
	case m.streak.Count() >= m.options.Fall:
	case m.streak.Count() > 0:
		text = fmt.Sprintf("%s (%d of %d)", m.last, m.streak.Count(), m.options.Fall)
	}
	return text + m.support()
}

// support says what keeps a server whose last result doesn't.
func (m Machine) support() string {
	b := m.backing
	switch {
	case m.heard == pass || m.heard == unheard || m.heard == keyHeld:
		return ""
	case b.Maintained && m.decided == "port":
		return ", in maintenance"
	case m.decided == "leader key" && b.Stops:
		return "; the leader key names it, and by its own key its PostgreSQL isn't running"
	case m.decided == "leader key" && m.Silent():
		return "; the leader key names it, and its PostgreSQL's port answers"
	case m.decided == "leader key":
		return "; the leader key names it"
	case m.decided == "port" && b.Port == PortAnswers:
		return "; its PostgreSQL's port answers"
	}
	return ""
}

// later is the later of two times.
func later(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}
