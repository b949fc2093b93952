package api

import "time"

// ServerState is what an operator has a server do.
type ServerState string

// The states, HAProxy's words (management guide, "set server"): a server that is Ready takes clients if it is up; one in Drain takes no
// new ones and keeps those it has; one in Maintenance takes none, and loses those it has where its options say shutdown-sessions.
const (
	Ready       ServerState = "ready"
	Drain       ServerState = "drain"
	Maintenance ServerState = "maint"
)

// Order is what an operator wants of servers.
type Order struct {
	// Cluster narrows it to one cluster's services, Service to one service by its full name, Member to one server; an empty one is any.
	// At least one of Service and Member is said.
	Cluster string `json:"cluster,omitempty"`
	Service string `json:"service,omitempty"`
	Member  string `json:"member,omitempty"`
	// State is what they are to be; empty leaves that. Weight is 0 to 256, nil leaves it, and DeclaredWeight goes back to what the
	// configuration says.
	State          ServerState `json:"state,omitempty"`
	Weight         *int        `json:"weight,omitempty"`
	DeclaredWeight bool        `json:"declared_weight,omitempty"`
	// DryRun only says what would become of it.
	DryRun bool `json:"dry_run,omitempty"`
	// By is who orders, for the log and the events: whoever takes the order fills it in, what a sender says is not believed.
	By string `json:"by,omitempty"`
}

// Ordered is what was ordered of a server, and holds until another order: across reloads and upgrades, not across a restart.
type Ordered struct {
	// State is what it was told to be.
	State ServerState `json:"state"`
	// Weight counts instead of the declared one; absent if none was ordered.
	Weight *int `json:"weight,omitempty"`
	// By is who ordered it, Since when.
	By    string    `json:"by"`
	Since time.Time `json:"since"`
}

// OrderResult is what an order did to one server, or would.
type OrderResult struct {
	// Service, of Cluster, is the one behind which Member is the server.
	Cluster string `json:"cluster,omitempty"`
	Service string `json:"service"`
	Member  string `json:"member"`
	// Effect says it in a sentence: `takes no new clients, its 12 sessions go on; pg-test-2 takes them`.
	Effect string `json:"effect"`
	// Changed is false where the server was so already.
	Changed bool `json:"changed"`
	// Now is what holds, or would.
	Now Ordered `json:"now"`
	// Sessions are those that it has.
	Sessions int `json:"sessions"`
}

// SessionFilter chooses sessions; what is empty chooses all.
type SessionFilter struct {
	// Cluster has the sessions of one cluster's services, Service those of one service by its full name, Member those with one member.
	Cluster string `json:"cluster,omitempty"`
	Service string `json:"service,omitempty"`
	Member  string `json:"member,omitempty"`
	// Client is an address or a network (CIDR).
	Client string `json:"client,omitempty"`
	// ID is one session.
	ID uint64 `json:"id,omitempty"`
	// Idle are those that have moved nothing for as long.
	Idle Seconds `json:"idle_seconds,omitempty"`
	// Limit is how many are told at most; 0 is 10,000. More says that there were more.
	Limit int `json:"limit,omitempty"`
}

// Seconds is a length of time in seconds.
type Seconds float64

// Duration is the same as Go has it.
func (s Seconds) Duration() time.Duration { return time.Duration(float64(s) * float64(time.Second)) }

// Sessions are those that a filter chose, the oldest first.
type Sessions struct {
	// Node is the inventory host that the daemon serves as.
	Node string `json:"node,omitempty"`
	// Now is when the table was read, by the node's clock.
	Now time.Time `json:"now"`
	// Sessions are the ones, More is how many there are beyond the limit.
	Sessions []Session `json:"sessions"`
	More     int       `json:"more,omitempty"`
}

// Session is a client that is connected with a server.
type Session struct {
	// ID is the session's own in this process.
	ID uint64 `json:"id"`
	// Service is the full name of the one that the client came to, Member whom it was led to.
	Service string `json:"service"`
	Member  string `json:"member"`
	// Client is the client's address, Listen the one that it connected to; Local and Server are the two ends of the connection to the
	// server: PostgreSQL sees Local as its client. Each is address:port.
	Client string `json:"client"`
	Listen string `json:"listen"`
	Local  string `json:"local"`
	Server string `json:"server"`
	// Began is when it was led there; ToServer and ToClient are the bytes passed on since.
	Began    time.Time `json:"began"`
	ToServer int64     `json:"bytes_to_server"`
	ToClient int64     `json:"bytes_to_client"`
}

// Goroutines are what a process is at, for a report of a fault: the stacks of its goroutines, those with the same one together.
type Goroutines struct {
	// Lines are those of the text.
	Lines []string `json:"lines"`
}

// EndSessions has sessions ended. A filter that chooses all is refused unless All says that it is meant.
type EndSessions struct {
	// Filter chooses them.
	Filter SessionFilter `json:"filter"`
	All    bool          `json:"all,omitempty"`
	// DryRun only counts them.
	DryRun bool `json:"dry_run,omitempty"`
}

// SessionsEnded is how many sessions were ended, or would be.
type SessionsEnded struct {
	// Ended is how many.
	Ended int `json:"ended"`
}

// Events are what happened, the oldest first.
type Events struct {
	// Events are in the order in which they happened.
	Events []Event `json:"events"`
}

// Event is something that happened, for the timeline.
type Event struct {
	// ID rises with each event of a process.
	ID uint64 `json:"id"`
	// At is when it happened, Kind what kind of thing it is.
	At   time.Time `json:"at"`
	Kind EventKind `json:"kind"`
	// Cluster, Service and Member say what it happened to; empty ones don't apply.
	Cluster string `json:"cluster,omitempty"`
	Service string `json:"service,omitempty"`
	Member  string `json:"member,omitempty"`
	// Text says it in a sentence, By who did it; empty if nobody did.
	Text string `json:"text"`
	By   string `json:"by,omitempty"`
}

// EventKind groups events.
type EventKind string

// The kinds: a server that goes up or down, a member whose role changes, a leader key that changes hands (or is lost), an operator's
// order, sessions that an operator ended, a configuration taken or refused, an upgrade, a virtual address that comes or goes, a service
// that has lost its last server or has one again, members that claim to lead at once, clients that are held for a switchover or let go.
const (
	EventServer    EventKind = "server"
	EventRole      EventKind = "role"
	EventLeader    EventKind = "leader"
	EventOrder     EventKind = "order"
	EventSessions  EventKind = "sessions"
	EventConfig    EventKind = "config"
	EventUpgrade   EventKind = "upgrade"
	EventVIP       EventKind = "vip"
	EventService   EventKind = "service"
	EventContested EventKind = "contested"
	EventHold      EventKind = "hold"
)
