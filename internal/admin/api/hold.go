package api

import (
	"fmt"
	"time"
)

// HoldOrder has a node keep the new clients of a cluster's leader waiting while a switchover is made, and pause the PgBouncers that it
// watches over. Sessions go on. Given again with the same ID it renews the hold; with ForSeconds 0 it ends it.
type HoldOrder struct {
	// Cluster is whose. ID is the switchover's, a word of its own: another hold on the cluster is refused meanwhile, and one that was ended
	// doesn't begin again.
	Cluster string `json:"cluster"`
	ID      string `json:"id"`
	// From leads now, To is to lead next; an empty To is whoever comes first.
	From string `json:"from,omitempty"`
	To   string `json:"to,omitempty"`
	// ForSeconds is how long the hold lasts unless it is renewed, 10 at most. However often that is done, none lasts longer than 60 s.
	ForSeconds Seconds `json:"for_seconds"`
	// By is who orders, for the log and the events: whoever takes the order fills it in.
	By string `json:"by,omitempty"`
}

// Held is what a node says to a HoldOrder.
type Held struct {
	// Hold is what is in force; absent once it was ended.
	Hold *Hold `json:"hold,omitempty"`
	// Pools are the PgBouncers that the node watches over, with the databases that lead to the cluster.
	Pools []Pool `json:"pools"`
	// Sessions are the node's with the leader as the hold began; absent in later answers, and where they aren't known.
	Sessions *HeldSessions `json:"sessions,omitempty"`
}

// HeldSessions are the sessions that go on during a hold.
type HeldSessions struct {
	// Count is how many there are, NewestSeconds the age of the youngest: who has been led to the leader so lately may be logging in.
	Count         int     `json:"count"`
	NewestSeconds Seconds `json:"newest_seconds"`
}

// Hold is a time in which new clients of a cluster's leader wait for who leads next.
type Hold struct {
	// ID is the switchover's; that of one which began because Patroni was asked for a switchover begins with `failover-key`.
	ID string `json:"id"`
	// From leads as it begins, To is to lead next; an empty To is whoever comes first.
	From string `json:"from,omitempty"`
	To   string `json:"to,omitempty"`
	// By is who holds; Since is when it began, and it is over at Until unless it is renewed.
	By    string    `json:"by"`
	Since time.Time `json:"since"`
	Until time.Time `json:"until"`
	// Waiting is how many clients wait.
	Waiting int `json:"waiting"`
}

// Words say it for people.
func (h *Hold) Words() string {
	to, wait := "", "clients wait"
	if h.To != "" {
		to = " to " + h.To
	}
	if h.Waiting == 1 {
		wait = "client waits"
	}
	return fmt.Sprintf("held for a switchover%s by %s since %s; %d %s", to, h.By, h.Since.UTC().Format("15:04:05Z"), h.Waiting, wait)
}

// Pool is a PgBouncer that a node watches over.
type Pool struct {
	// Address is its socket's directory or host, with the port.
	Address string `json:"address"`
	// Problem says why nothing is known of it; absent while it answers.
	Problem string `json:"problem,omitempty"`
	// Databases are those of it that lead to services of this node, or to the PostgreSQL beside it.
	Databases []PoolDatabase `json:"databases"`
}

// PoolDatabase is a database of a PgBouncer's.
type PoolDatabase struct {
	// Name is the one that clients ask for, Cluster whose it is.
	Name    string `json:"name"`
	Cluster string `json:"cluster"`
	// Service is the full name of the one that it leads to, in front of which the PgBouncer stands; Member is the member behind which it
	// stands, whose PostgreSQL it leads to itself. One of them.
	Service string `json:"service,omitempty"`
	Member  string `json:"member,omitempty"`
	// State is running, pausing (transactions are waited for) or paused.
	State PoolState `json:"state"`
	// Active transactions are under way, clients in Waiting wait for one to begin.
	Active  int `json:"active"`
	Waiting int `json:"waiting"`
	// Busy says what is under way while the database is pausing, at most 20 lines.
	Busy []string `json:"busy,omitempty"`
}

// PoolState is what a database of a PgBouncer's does.
type PoolState string

// The states.
const (
	PoolRunning PoolState = "running"
	PoolPausing PoolState = "pausing"
	PoolPaused  PoolState = "paused"
)
