package model

// Naming is what a cluster is called in the DNS, besides the names of its members.
type Naming struct {
	// Cluster is whose names they are.
	Cluster string `json:"cluster"`
	// Suffix ends the cluster's own name (pg_dns_suffix), as in pg-test.db.example; the dot is part of it.
	Suffix string `json:"suffix,omitempty"`
	// Target is what the cluster's own name stands for: TargetPrimary, TargetNone, or an address.
	Target string `json:"target"`
	// Delegated says that other hosts than the members carry the services: nobody listens on a service's port at a member.
	Delegated bool `json:"delegated,omitempty"`
}

// Targets that are no address. What the inventory calls `auto` and `vip` has been settled when a Naming is made.
const (
	TargetPrimary = "primary"
	TargetNone    = "none"
)
