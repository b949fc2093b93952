package patroni

import (
	"net/http"
	"net/url"
	"regexp"
	"strconv"
	"strings"

	"github.com/pgporter/pgporter/internal/config/model"
)

// Facts are what an answer doesn't say and its derivations depend on.
type Facts struct {
	// StandbyCluster says that the answer is to /standby-leader, since the cluster is a standby cluster; otherwise it is to
	// /primary.
	StandbyCluster bool
	// Position is the leader's WAL position that lag= is reckoned from, in bytes; 0 is unknown, and then nobody lags, as with
	// Patroni. Patroni itself takes what /status in the DCS says, which is up to a loop old; from 4.1 on a replica that has
	// heard of a later one takes that.
	Position int64
}

// Derivation says what became of a question to an answer.
type Derivation int

const (
	// Derived is what Patroni would have said.
	Derived Derivation = iota
	// Unsettled is what can't be known from this answer, so that what was known before should stay: as a rule the body says
	// cluster_unlocked, which hides whether the member sees the DCS. To gives what Patroni would say if it did.
	Unsettled
	// Underivable is a path that has to be asked itself.
	Underivable
)

// String is the derivation's name in messages.
func (d Derivation) String() string {
	return [...]string{"derived", "unsettled", "underivable"}[d]
}

// To is what the member would have answered to another path at the same moment, by the rules of Patroni from 3.0.2 on
// (do_GET in api.py; an answer that doesn't say its version is taken for one of 4.0): the same body with that path's
// status. A path for that Derivable says no stays Underivable; of others it is /readiness from 4.1 on unless the member
// leads or isn't running (it asks for the state of replication and a lag that no body tells), and what depends on
// synchronous standbys before 3.0.2, whose bodies don't tell them.
func (a Answer) To(p Path, f Facts) (Answer, Derivation) {
	if !p.derivable {
		return a, Underivable
	}
	q := p.question
	version := parseVersion(a.Version)
	endpoint := q.endpoint
	if version < version4 {
		endpoint = p.before4
	}
	asked := EndpointPrimary
	if f.StandbyCluster {
		asked = EndpointStandbyLeader
	}
	switch {
	case endpoint == asked:
		return a, Derived
	case endpoint == EndpointPatroni:
		a.Status = http.StatusOK
		return a, Derived
	// This is no answer of Patroni's.
	case a.Role == "" || a.Status != http.StatusOK && a.Status != http.StatusServiceUnavailable:
		return a, Unsettled
	}

	leads := a.Status == http.StatusOK
	running := a.State == StateRunning
	// Patroni's tags have it only where it is on.
	_, noLoadBalance := a.Tags["noloadbalance"]
	follows := a.Role == RoleReplica && running && !noLoadBalance && !q.lagging(f.Position, a.Replayed) && !(f.StandbyCluster && leads)
	// The body names standbys only while the member sees the DCS.
	blind := a.ClusterUnlocked && !a.SyncStandby && !a.QuorumStandby
	// The leader of a standby cluster was asked for the primary, which says nothing of the lock.
	misled := !f.StandbyCluster && !leads && a.Role == RoleStandbyLeader
	// /standby-leader refuses a primary even if it holds the lock.
	hidden := misled || f.StandbyCluster && !leads && (a.Role == RolePrimary || a.Role == RolePromoted)

	var pass, unsure bool
	switch endpoint {
	case EndpointLeader:
		pass, unsure = leads, hidden
	case EndpointStandbyLeader:
		unsure = misled
	case EndpointReplica:
		pass = follows
	case EndpointReadOnly:
		pass, unsure = leads || follows, misled
	case EndpointHealth:
		pass = running
	case EndpointSync:
		pass = follows && a.SyncStandby
	case EndpointQuorum:
		pass = follows && a.QuorumStandby
	case EndpointAsync:
		pass = follows && !a.SyncStandby && !a.QuorumStandby
		unsure = pass && blind
	case EndpointReadOnlySync:
		pass = leads || follows && a.SyncStandby
		unsure = pass && blind || misled
	case EndpointReadOnlyQuorum:
		pass = leads || follows && a.QuorumStandby
		unsure = pass && blind || misled
	case EndpointReadiness:
		// The state is unknown where PostgreSQL runs and Patroni's query failed.
		up := running || a.State == "unknown"
		if up && !leads && version >= version41 {
			return a, Underivable
		}
		pass = leads || up
		// In pause a member that doesn't see the DCS leads by its role, but not for this endpoint.
		unsure = pass && blind && (!leads || a.Pause) || !pass && hidden
	}
	switch endpoint {
	case EndpointSync, EndpointAsync, EndpointReadOnlySync:
		if version < version302 {
			return a, Underivable
		}
	}
	if !endpoint.ofLeader() && !q.matches(a.Tags) {
		pass, unsure = false, false
	}
	a.Status = http.StatusServiceUnavailable
	if pass {
		a.Status = http.StatusOK
	}
	if unsure {
		return a, Unsettled
	}
	return a, Derived
}

// Derivable says whether a path follows from that question at all. Not so: what has a handler of its own, with but a few
// exceptions, and whatever has a query that Patroni may read in another way than we do.
func Derivable(path string) bool {
	_, ok := parseQuestion(path)
	return ok
}

// NeedsPosition says that the path has a lag= that counts.
func NeedsPosition(path string) bool { return ParsePath(path).NeedsPosition() }

// NeedsPosition says that the path has a lag= that counts.
func (p Path) NeedsPosition() bool { return p.derivable && p.limited }

// ofLeader says that Patroni doesn't look at tags there.
func (e Endpoint) ofLeader() bool {
	return e == EndpointPrimary || e == EndpointLeader || e == EndpointStandbyLeader
}

// Path is a path that was read, for To: a service's is the same for each of its answers.
type Path struct {
	question
	// before4 is the endpoint for a Patroni that doesn't know of quorums.
	before4   Endpoint
	derivable bool
}

// ParsePath reads a path with its query.
func ParsePath(path string) Path {
	q, ok := parseQuestion(path)
	return Path{question: q, before4: route(path, false), derivable: ok}
}

// question is a path that is derivable.
type question struct {
	endpoint Endpoint
	// limit is the lag in bytes that is admitted, where limited says so.
	limit   int64
	limited bool
	// tags are what the member's have to be.
	tags map[string]string
}

func (q question) lagging(position, replayed int64) bool {
	return q.limited && position > 0 && min(position, model.FarthestLag)-q.limit > replayed
}

func (q question) matches(tags map[string]string) bool {
	for name, want := range q.tags {
		if got, ok := tags[name]; !ok || got != want {
			return false
		}
	}
	return true
}

// plainPath is what Python's urlparse takes for the path and nothing else.
var plainPath = regexp.MustCompile(`^(/([A-Za-z0-9_.-][A-Za-z0-9_./-]*)?)?$`)

func parseQuestion(path string) (question, bool) {
	path, query, _ := strings.Cut(path, "?")
	q := question{endpoint: EndpointOf(path)}
	if !plainPath.MatchString(path) || q.endpoint == EndpointOther || q.endpoint == EndpointReadiness && query != "" {
		return q, false
	}
	if query == "" {
		return q, true
	}
	words, err := url.ParseQuery(query)
	if err != nil {
		return q, false
	}
	for name, values := range words {
		tag, isTag := strings.CutPrefix(name, "tag_")
		for _, v := range values {
			// A tag that an Answer doesn't have as it is can't be compared.
			if printable(v) != v {
				return q, false
			}
		}
		switch value := firstOf(values); {
		// Patroni shows nosync for a while where it isn't among the tags that it compares.
		case !isTag && name != "lag" || printable(tag) != tag || tag == "nosync":
			return q, false
		case value == "":
		case isTag:
			if q.tags == nil {
				q.tags = make(map[string]string, len(words))
			}
			q.tags[tag] = value
		default:
			if q.limit, q.limited, err = model.ParseLag(value); err != nil {
				return q, false
			}
		}
	}
	switch q.endpoint {
	case EndpointReplica, EndpointReadOnly, EndpointSync, EndpointQuorum, EndpointAsync, EndpointReadOnlySync, EndpointReadOnlyQuorum:
	default:
		q.limited = false
	}
	return q, true
}

// firstOf is the first value that isn't empty, as Python's parse_qs drops those.
func firstOf(values []string) string {
	for _, v := range values {
		if v != "" {
			return v
		}
	}
	return ""
}

// Versions as parseVersion gives them, from where rules differ.
const (
	version302 = 3_000_002
	version4   = 4_000_000
	version41  = 4_001_000
)

// parseVersion makes a number of a version that grows with it; what isn't one counts as 4.0.
func parseVersion(text string) int {
	number := 0
	for range 3 {
		part, rest, _ := strings.Cut(text, ".")
		text = rest
		n, err := strconv.Atoi(strings.TrimRight(part, "abcdefghijklmnopqrstuvwxyz"))
		if err != nil && part != "" || n < 0 || n > 999 {
			return version4
		}
		number = number*1000 + n
	}
	if number == 0 {
		return version4
	}
	return number
}
