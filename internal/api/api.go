// Package api is what pgporter tells over HTTP: the JSON of the admin address and a client for it.
//
// The types are made from the state of a running daemon and hold no secrets. Fields are added, never renamed: scripts
// read them.
package api

import "time"

// Status is a daemon's whole state at one moment: the answer to GET /status.
type Status struct {
	Version string `json:"version"`
	// Node is the inventory host that the daemon serves as; empty when members were discovered.
	Node    string    `json:"node,omitempty"`
	PID     int       `json:"pid"`
	Started time.Time `json:"started"`
	Now     time.Time `json:"now"`
	Config  Config    `json:"config"`
	// Clusters stand in the order of the inventory.
	Clusters []Cluster `json:"clusters"`
	// Generic are services that belong to no cluster (haproxy_services). Role and State of their servers say nothing, and Check
	// says in words what servers are asked. Where HAProxy carries them it alone knows of their servers: Check and Since say
	// nothing, either.
	Generic []Service `json:"generic_services,omitempty"`
}

// Config says where the running configuration came from and how the last attempt to change it ended.
type Config struct {
	// Source is the inventory's path or the addresses of the Patroni that was asked.
	Source string `json:"source"`
	// Sent says who sent the running configuration; Source is then a path on the sender's machine. Absent if the node read
	// the configuration itself.
	Sent *Sent `json:"sent,omitempty"`
	// Control is the address at which configurations are taken from elsewhere; empty for none.
	Control string `json:"control,omitempty"`
	// Loaded is when the running configuration was taken.
	Loaded time.Time `json:"loaded"`
	// Generation counts the configurations taken since the start, from 1.
	Generation int `json:"generation"`
	// Refused says why the last reload was not taken; empty if it was.
	Refused string `json:"refused,omitempty"`
	// Assumed are the decisions taken where nothing was said.
	Assumed []string `json:"assumed,omitempty"`
}

// Sent is where a configuration came from that a node was sent.
type Sent struct {
	// Sender is who says to have sent it, From the address that it came from.
	Sender string `json:"sender"`
	From   string `json:"from"`
}

// Cluster is one cluster's members and services.
type Cluster struct {
	Name string `json:"name"`
	// LeaderKey is what etcd says of the leader key; absent where etcd isn't asked.
	LeaderKey *LeaderKey `json:"leader_key,omitempty"`
	Members   []Member   `json:"members"`
	Services  []Service  `json:"services"`
}

// LeaderKey is the key by which Patroni has one leader.
type LeaderKey struct {
	// Holder is the member that holds it; empty if nobody does, or etcd is lost.
	Holder string `json:"holder"`
	// Lost says why etcd can't be asked; absent while it can.
	Lost string `json:"lost,omitempty"`
}

// Member is an instance as its Patroni describes it.
type Member struct {
	Name     string `json:"name"`
	Host     string `json:"host"`
	Role     string `json:"role"`
	Declared string `json:"declared_role"`
	State    string `json:"state,omitempty"`
	Timeline int    `json:"timeline,omitempty"`
	// Answer is the last check's result in words.
	Answer string `json:"answer"`
	// Answered is when Patroni answered last; absent if never.
	Answered *time.Time `json:"answered,omitempty"`
}

// Service is a service and who carries it now.
type Service struct {
	Name     string `json:"name"`
	FullName string `json:"full_name"`
	// Listen is where clients connect; Check is the Patroni path that decides.
	Listen string `json:"listen"`
	Check  string `json:"check"`
	// Up says whether a client that comes now is led to a server.
	Up bool `json:"up"`
	// Sessions are open now, Held the clients that wait because no server takes them; Total counts those led to a server since
	// the start, Refused those who found none.
	Sessions int      `json:"sessions"`
	Held     int      `json:"held"`
	Total    uint64   `json:"total"`
	Refused  uint64   `json:"refused"`
	Servers  []Server `json:"servers"`
}

// Server is a member as a service's destination.
type Server struct {
	Member  string `json:"member"`
	Address string `json:"address"`
	// Role is what the member is now, State Patroni's word for its PostgreSQL.
	Role   string `json:"role"`
	State  string `json:"state,omitempty"`
	Weight int    `json:"weight"`
	Backup bool   `json:"backup"`
	// Up servers may take clients; Serving ones do (a backup that is up doesn't while a regular server is usable).
	Up       bool      `json:"up"`
	Serving  bool      `json:"serving"`
	Reason   string    `json:"reason"`
	Since    time.Time `json:"since"`
	Sessions int       `json:"sessions"`
	Total    uint64    `json:"total"`
}
