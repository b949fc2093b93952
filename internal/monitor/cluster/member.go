package cluster

import (
	"log/slog"
	"time"

	"github.com/pgporter/pgporter/internal/monitor/health"
	"github.com/pgporter/pgporter/internal/monitor/inquiry"
	"github.com/pgporter/pgporter/internal/monitor/patroni"
	"github.com/pgporter/pgporter/internal/monitor/view"
)

// member is what is known of a member.
type member struct {
	// api is when its API is asked.
	api inquiry.Schedule
	// mark is when the silence of the question under way is noticed next, zero if it isn't; silences is how often it was.
	mark     time.Time
	silences int
	// silentSince is when it fell silent; zero while it answers.
	silentSince time.Time
	// role is the last one that says something; empty before the first.
	role     string
	state    string
	timeline int
	last     health.Outcome
	answered time.Time
	// asked is when the question of its last answer was put, named when the leader key was read last and named it.
	asked, named time.Time
	checked      bool
	// system is the last system identifier that it said.
	system string
	// successor has taken the leader key from it since it last said that it is no leader; empty otherwise. lostAt is the
	// timeline that it was on.
	successor string
	lostAt    int
	// paused says that it answered last that the cluster is in maintenance.
	paused bool
	// led is when it last said that it runs as the leader; zero if its last answer that knows says otherwise. unlocked and
	// failsafe are of that answer.
	led                time.Time
	unlocked, failsafe bool
	// stopping is since when its state has been that, toldStopping whether that was said to last for long.
	stopping     time.Time
	toldStopping bool
	// elect says that etcd has named it as the holder of the leader key, and it hasn't said yet that it leads.
	elect bool
	// answering counts how long its API took.
	answering view.Durations
}

// answers says that its last check brought an answer.
func (m member) answers() bool { return m.checked && m.last.Silence == "" }

// askedAt is when the question was put that a result is of.
func (m member) askedAt(e Checked) time.Time {
	if t, since, busy := m.api.UnderWay(); busy && t == e.Target {
		return since
	}
	return e.Ended
}

// outdatedBy is how long after a member was asked the leader key has to name it for its answer to be outdated. An API that is well answers
// in less, and then what it says and what the key says is of the same moment.
const outdatedBy = 500 * time.Millisecond

// outdated says that the leader key has named a member since it was asked what it answered last.
func (m member) outdated() bool { return m.named.Sub(m.asked) >= outdatedBy }

// observe notes what a result of its one question says of a member, and asks for more where it says something new.
func (s *State) observe(e Checked, a *Actions, now time.Time) {
	name := e.Target.Member
	if !s.asksRole(e.Target) || e.Outcome.Silence != "" && s.answersOtherwise(e.Target) {
		return
	}
	m := s.members[name]
	if was := m.last.Silence != ""; m.checked && was != (e.Outcome.Silence != "") || !m.checked && e.Outcome.Silence != "" {
		if was {
			a.logf(slog.LevelInfo, "%s: Patroni of %s answers again: %s", s.cluster.Name, name, e.Outcome.Words())
		} else {
			a.logf(slog.LevelWarn, "%s: Patroni of %s doesn't answer: %s", s.cluster.Name, name, e.Outcome.Silence)
		}
	}
	m.last, m.checked = e.Outcome, true
	// An answer that isn't Patroni's tells no more than silence.
	if e.Outcome.Silence != "" || e.Outcome.Answer.Role == "" {
		if m.silentSince.IsZero() {
			m.silentSince = e.Ended
		}
	} else {
		m.silentSince = time.Time{}
	}
	news := false
	var others []string
	if e.Outcome.Silence == "" {
		m.answered = e.Ended
		answer := e.Outcome.Answer
		if answer.State != "" {
			news = news || m.state != "" && m.state != answer.State
			m.state = answer.State
			switch {
			case answer.State != stateStopping:
				m.stopping, m.toldStopping = time.Time{}, false
			case m.stopping.IsZero():
				m.stopping = e.Ended
			}
		}
		if answer.Role != "" {
			m.paused = answer.Pause
		}
		if answer.Timeline != 0 {
			m.timeline = answer.Timeline
		}
		if answer.SystemID != "" {
			m.system = answer.SystemID
		}
		if tellsRole(answer.Role) {
			if m.role != "" && m.role != answer.Role {
				news = true
				others = s.concerned(name)
			}
			m.role = answer.Role
		}
		// Whoever has been something else meanwhile, or was promoted again, may be believed again.
		if tellsRole(answer.Role) && !leads(answer.Role) || m.timeline != m.lostAt {
			m.successor = ""
		}
		if leads(answer.Role) {
			m.elect = false
		}
		s.noteLeader(&m, e)
		if answer.Status == 200 && answer.State == patroni.StateRunning && leads(answer.Role) && s.holder() != "" && s.holder() != name {
			a.Confirm = true
		}
	}
	s.members[name] = m
	s.notePosition(name, e.Outcome.Answer)
	if news {
		s.notice(now, name)
	}
	s.notice(now, others...)
}

// concerned are the members that have something to say when another one's role has changed: where etcd tells who leads, nobody;
// else whoever was the leader, or wasn't heard yet. Replicas have not, and are asked in turn.
func (s *State) concerned(name string) []string {
	if s.key.believed() {
		return nil
	}
	var names []string
	for _, other := range s.names() {
		if m := s.members[other]; other != name && (m.role == "" || leads(m.role) || m.role == patroni.RolePromoted) {
			names = append(names, other)
		}
	}
	return names
}

// noteLeader takes in what an answer says of its member as the running leader: it knows whether it holds the leader key.
func (s *State) noteLeader(m *member, e Checked) {
	answer := e.Outcome.Answer
	m.led, m.unlocked, m.failsafe = time.Time{}, answer.ClusterUnlocked, answer.Failsafe
	// The leader of a standby cluster says so in its role, and 503 to /primary.
	if answer.State == patroni.StateRunning && leads(answer.Role) && (answer.Status == 200 || answer.Role == patroni.RoleStandbyLeader) {
		m.led = e.Ended
	}
}

// tellsRole says that a role is one of a member that has a database.
func tellsRole(role string) bool {
	switch role {
	case patroni.RolePrimary, patroni.RolePromoted, patroni.RoleStandbyLeader, patroni.RoleReplica, patroni.RoleDemoted:
		return true
	}
	return false
}

// stateStopping is Patroni's word for a PostgreSQL that is being shut down.
const stateStopping = "stopping"

// longStop is for how long a PostgreSQL may stop before that is worth a remark. It sends all of its WAL to those who replicate first, in
// order (PostgreSQL's documentation, "Shutting Down the Server"), so that one who doesn't read keeps it from ending.
const longStop = 10 * time.Second

const waitsForReaders = "its PostgreSQL is stopping and doesn't end: as a rule a replication client that doesn't read keeps it from that, such as a logical consumer that hangs (pg_stat_replication has it); nobody else can lead until it is over"

// remark is what an operator should know of a member beside its answer.
func (s *State) remark(name string, now time.Time) string {
	m := s.members[name]
	switch {
	case m.last.Silence != "":
		return ""
	case !m.stopping.IsZero() && now.Sub(m.stopping) >= longStop:
		return waitsForReaders
	case m.role == patroni.RoleReplica && m.last.Answer.TimelineNull && s.primary != "" && s.primary != name && !m.unlocked:
		return "each check costs it a refused or failed connection: its Patroni can't reach its own PostgreSQL for replication; as a rule pg_hba.conf lacks a line that admits replication from the member itself (host replication USER 127.0.0.1/32 METHOD)"
	case m.role == patroni.RoleReplica && m.unlocked:
		return "each check costs it a replication connection: its Patroni sees no leader, so it is asked half as often"
	}
	return ""
}

// tellStops logs, once, that a member has been stopping for long.
func (s *State) tellStops(a *Actions, now time.Time) {
	for _, name := range s.names() {
		m := s.members[name]
		if m.stopping.IsZero() || m.toldStopping || now.Sub(m.stopping) < longStop {
			continue
		}
		m.toldStopping = true
		s.members[name] = m
		a.logf(slog.LevelWarn, "%s: %s has been stopping for %s: %s", s.cluster.Name, name, longStop, waitsForReaders)
	}
}
