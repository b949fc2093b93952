package patroni

import "strings"

// Endpoint is what a path of the API asks, as Patroni (from 4.0 on) routes it.
type Endpoint int

const (
	// EndpointUnknown is a path that Patroni knows nothing of: 503, with the body of all role paths.
	EndpointUnknown Endpoint = iota
	EndpointPrimary
	EndpointLeader
	EndpointStandbyLeader
	EndpointReplica
	EndpointReadOnly
	EndpointHealth
	EndpointSync
	EndpointQuorum
	EndpointAsync
	EndpointReadOnlySync
	EndpointReadOnlyQuorum
	EndpointReadiness
	// EndpointPatroni is the body alone: 200 whatever it says.
	EndpointPatroni
	// EndpointOther has a handler and a body of its own: /liveness, /cluster, /history, /config, /metrics, /failsafe.
	EndpointOther
)

// ownHandlers are the first segments that Patroni routes to handlers of their own, before it looks for roles in a path.
var ownHandlers = map[string]Endpoint{
	"patroni": EndpointPatroni, "readiness": EndpointReadiness, "liveness": EndpointOther, "cluster": EndpointOther,
	"history": EndpointOther, "config": EndpointOther, "metrics": EndpointOther, "failsafe": EndpointOther,
}

// exactly are the endpoints that are no part of a path but all of it.
var exactly = map[string]Endpoint{
	"/sync": EndpointSync, "/synchronous": EndpointSync, "/async": EndpointAsync, "/asynchronous": EndpointAsync,
	"/quorum": EndpointQuorum, "/read-only-quorum": EndpointReadOnlyQuorum,
	"/read-only-sync": EndpointReadOnlySync, "/read-only-synchronous": EndpointReadOnlySync,
}

// EndpointOf says what a path asks; its query doesn't count. Patroni looks for most roles as a part of the path, in the
// order below and sensitive to case (do_GET in api.py), so that /primary/ and /db-primary ask for the leader too; taking them
// for anything else would make their check laxer than its writer means.
func EndpointOf(path string) Endpoint { return route(path, true) }

// route is EndpointOf, for a Patroni that knows of quorums or one that doesn't.
func route(path string, quorum bool) Endpoint {
	path, _, _ = strings.Cut(path, "?")
	if !strings.HasPrefix(path, "/") {
		path = "/" + path
	}
	has := func(part string) bool { return strings.Contains(path, part) }
	first, _, _ := strings.Cut(strings.TrimLeft(path, "/"), "/")
	switch {
	case path == "/":
		return EndpointPrimary
	case ownHandlers[first] != EndpointUnknown:
		return ownHandlers[first]
	case has("standby_leader") || has("standby-leader"):
		return EndpointStandbyLeader
	case has("leader"):
		return EndpointLeader
	case has("master") || has("primary") || has("read-write"):
		return EndpointPrimary
	case has("replica"):
		return EndpointReplica
	case has("read-only") && !has("sync") && !(quorum && has("quorum")):
		return EndpointReadOnly
	case has("health"):
		return EndpointHealth
	case path == "/quorum" && !quorum:
		return EndpointUnknown
	}
	return exactly[path]
}
