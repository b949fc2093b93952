package health

import (
	"strings"

	"github.com/pgporter/pgporter/internal/monitor/patroni"
)

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

// ownHandlers are the first segments that Patroni routes to handlers of their own, before it looks for roles in a path.
var ownHandlers = map[string]bool{
	"liveness": true, "readiness": true, "patroni": true, "cluster": true, "history": true, "config": true,
	"metrics": true, "failsafe": true,
}

// KindOf classifies a check path (its query doesn't count). Patroni looks for the role as a part of the path, in the order
// below and sensitive to case (do_GET in api.py), so that /primary/ and /db-primary ask for the leader too; taking them
// for anything else would make their check laxer than its writer means.
func KindOf(path string) Kind {
	path, _, _ = strings.Cut(path, "?")
	has := func(part string) bool { return strings.Contains(path, part) }
	first, _, _ := strings.Cut(strings.TrimLeft(path, "/"), "/")
	switch {
	case path == "" || path == "/":
		return Primary
	case ownHandlers[first]:
		return Status
	case has("standby_leader") || has("standby-leader"):
		return StandbyLeader
	case has("leader"):
		return Leader
	case has("master") || has("primary") || has("read-write"):
		return Primary
	case has("replica"):
		return Replica
	case has("read-only"):
		return ReadOnly
	case has("health"):
		return Status
	}
	switch path {
	case "/sync", "/synchronous", "/async", "/asynchronous", "/quorum":
		return Replica
	}
	return Status
}

// OfLeader says that the path passes on the holder of the leader key only: one member at a time.
func (k Kind) OfLeader() bool { return k == Primary || k == Leader || k == StandbyLeader }

// CarriesRole says that a GET of the path brings a body with the member's role and state.
func CarriesRole(path string) bool {
	path, _, _ = strings.Cut(path, "?")
	first, _, _ := strings.Cut(strings.TrimLeft(path, "/"), "/")
	return first == "patroni" || !ownHandlers[first]
}

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
	// silence: no answer.
	silence
)

// judge says what a result means on a path of kind k.
func (k Kind) judge(o Outcome) judgement {
	a := o.Answer
	ok := a.Status == 200
	running := a.State == patroni.StateRunning
	switch {
	case o.Silence != "":
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
