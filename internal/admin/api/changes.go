package api

// Node is what a node says of itself to whom may change it.
type Node struct {
	// Version is the program's, Node the inventory host that it serves as.
	Version string `json:"version"`
	Node    string `json:"node"`
	// Engine carries the services: EngineNative or EngineHAProxy. A plan is made for one of them.
	Engine string `json:"engine"`
	// Names says that the node tells the clusters' names: a plan for it has those of all.
	Names bool `json:"names,omitempty"`
	// Generation is the number of the configuration that runs.
	Generation int `json:"generation"`
}

// The engines.
const (
	EngineNative  = "native"
	EngineHAProxy = "haproxy"
)

// Taken is a node's answer to a configuration that it was sent.
type Taken struct {
	// Version is the program's, Node the inventory host that it serves as.
	Version string `json:"version"`
	Node    string `json:"node"`
	// Generation is the number of the configuration that runs now: the one that was sent, or, after a dry run, still the
	// one before.
	Generation int `json:"generation"`
	// DryRun says that nothing was changed.
	DryRun bool `json:"dry_run,omitempty"`
	// Changes are what differs from what ran before.
	Changes Changes `json:"changes"`
	// Unkept says why the node, which keeps what it takes for its next start, couldn't; empty if it could, or keeps nothing.
	Unkept string `json:"unkept,omitempty"`
}

// Reread is a node's answer to having read its own configuration again, and taken it.
type Reread struct {
	// Version is the program's, Node the inventory host that it serves as.
	Version string `json:"version"`
	Node    string `json:"node,omitempty"`
	// Generation is the number of the configuration that runs now, Source where it was read.
	Generation int    `json:"generation"`
	Source     string `json:"source"`
}

// Refusal is a node's answer to what it doesn't take; what it ran goes on.
type Refusal struct {
	// Error has all problems, one to a line.
	Error string `json:"error"`
}

// ChangeKind says how something differs between two configurations.
type ChangeKind string

// What may have become of a cluster or a service.
const (
	Added   ChangeKind = "added"
	Removed ChangeKind = "removed"
	Changed ChangeKind = "changed"
)

// Changes are the differences between two configurations; what is the same in both isn't listed.
type Changes struct {
	// Clusters and Services are those that differ.
	Clusters []ClusterChange `json:"clusters"`
	Services []ServiceChange `json:"services"`
}

// None says that the configurations mean the same.
func (c Changes) None() bool { return len(c.Clusters)+len(c.Services) == 0 }

// ClusterChange is about a cluster as such and its members.
type ClusterChange struct {
	// Cluster is its name, Kind what became of it.
	Cluster string     `json:"cluster"`
	Kind    ChangeKind `json:"kind"`
	// What has one difference each: `ttl 30 → 20`, `member pg-test-2: weight 100 → 50`.
	What []string `json:"what,omitempty"`
}

// ServiceChange is about one service and who may carry it, as the members' roles are now.
type ServiceChange struct {
	// Service is the full name, Listen ip:port as declared, of the new configuration if it has the service.
	Service string `json:"service"`
	Listen  string `json:"listen"`
	// Kind is what became of it.
	Kind ChangeKind `json:"kind"`
	// What has one difference of the definition each: `port 5433 → 5440`.
	What []string `json:"what,omitempty"`
	// ServersAdded and ServersRemoved are members by name; of a service that is added or removed, all that it has or had.
	ServersAdded   []string `json:"servers_added,omitempty"`
	ServersRemoved []string `json:"servers_removed,omitempty"`
	// ServersChanged has one difference of a server that stays each: `pg-test-2: weight 100 → 50`.
	ServersChanged []string `json:"servers_changed,omitempty"`
}
