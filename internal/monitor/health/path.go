package health

import "github.com/pgporter/pgporter/internal/monitor/patroni"

// Kind is what a check path asks a member, which decides how its answers are judged.
type Kind int

const (
	// Status paths are judged by their status alone: /liveness, /readiness, /health, what isn't known …
	Status Kind = iota
	// Primary paths pass on the leader of a cluster that is no standby cluster: /, /primary, /master, /read-write.
	Primary
	// Leader paths pass on the leader of any cluster: /leader.
	Leader
	// StandbyLeader paths pass on the leader of a standby cluster: /standby-leader, /standby_leader.
	StandbyLeader
	// Replica paths pass on members that follow another one and exclude leaders: /replica, /sync, /async, /quorum …
	Replica
	// ReadOnly paths pass on leaders and on members that follow: /read-only, /read-only-sync, /read-only-quorum.
	ReadOnly
)

// String is the kind's name in messages.
func (k Kind) String() string {
	return [...]string{"status", "primary", "leader", "standby leader", "replica", "read-only"}[k]
}

// KindOf classifies a check path (its query doesn't count).
func KindOf(path string) Kind {
	switch patroni.EndpointOf(path) {
	case patroni.EndpointPrimary:
		return Primary
	case patroni.EndpointLeader:
		return Leader
	case patroni.EndpointStandbyLeader:
		return StandbyLeader
	case patroni.EndpointReplica, patroni.EndpointSync, patroni.EndpointQuorum, patroni.EndpointAsync:
		return Replica
	case patroni.EndpointReadOnly, patroni.EndpointReadOnlySync, patroni.EndpointReadOnlyQuorum:
		return ReadOnly
	}
	return Status
}

// OfLeader says that the path passes on the holder of the leader key only: one member at a time.
func (k Kind) OfLeader() bool { return k == Primary || k == Leader || k == StandbyLeader }

// judgement is what one result means for a server.
type judgement int

const (
	// pass: new clients may come.
	pass judgement = iota
	// keyHeld: the member holds the leader key, but its PostgreSQL takes nobody right now.
	keyHeld
	// failed: an answer that is no pass.
	failed
	// unready: a running primary whose Patroni doesn't vouch for it: as a rule one that was just started again and hasn't
	// read the leader key yet.
	unready
	// wrong: the member is certainly not what the path asks for, so sessions that want it are at the wrong server.
	wrong
	// silence: no answer, or one that Patroni never gives.
	silence
	// dead: nobody listens at the API's port.
	dead
	// unheard: there was no result yet.
	unheard
)

// judge says what a result means on a path of kind k.
func (k Kind) judge(o Outcome) judgement {
	a := o.Answer
	ok := a.Status == 200
	running := a.State == patroni.StateRunning
	switch {
	case o.Dead:
		return dead
	case o.Silence != "", k.nonsense(o):
		return silence
	case k.OfLeader():
		switch {
		case ok && running && k.leads(a.Role):
			return pass
		// Released the leader key by itself; the status may stay 200 until PostgreSQL has stopped.
		case a.Role == patroni.RoleDemoted:
			return wrong
		// Includes a holder that is still (or, after a crash, for a moment again) in recovery: the key is authoritative,
		// nobody else may take writes.
		case ok && a.Role != "":
			return keyHeld
		case k.contradicts(a.Role):
			return wrong
		case running && k.leads(a.Role):
			return unready
		}
		return failed
	case k == Replica && leads(a.Role):
		return wrong
	case k == ReadOnly && !ok && running && leads(a.Role):
		return unready
	case !ok:
		return failed
	// Patroni vouches for a leader without looking at PostgreSQL's state.
	case k == ReadOnly && a.State != "" && !running:
		return keyHeld
	}
	return pass
}

// nonsense says that an answer to a path of this kind isn't Patroni's, from which it is expected: its bodies on the paths of roles
// have one.
func (k Kind) nonsense(o Outcome) bool { return k != Status && o.Answer.Role == "" && !o.Elsewhere }

// leads says that a role is the one that a leader path of kind k asks for.
func (k Kind) leads(role string) bool {
	switch k {
	case Primary:
		return role == patroni.RolePrimary
	case StandbyLeader:
		return role == patroni.RoleStandbyLeader
	}
	return role == patroni.RolePrimary || role == patroni.RoleStandbyLeader
}

// contradicts says that a role is known to be another than a leader path of kind k asks for.
func (k Kind) contradicts(role string) bool {
	switch role {
	case patroni.RoleReplica:
		return true
	case patroni.RolePrimary, patroni.RolePromoted:
		return k == StandbyLeader
	case patroni.RoleStandbyLeader:
		return k == Primary
	}
	return false
}

// leads says that a role is a leader's, in whatever kind of cluster.
func leads(role string) bool {
	return role == patroni.RolePrimary || role == patroni.RolePromoted || role == patroni.RoleStandbyLeader
}
