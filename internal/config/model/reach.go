package model

// Access is what clients need to know to reach a cluster, as its inventory has it. It is no part of a Plan, since it holds
// passwords.
type Access struct {
	Cluster string
	// Members are the cluster's, in the inventory's order; Primary is the declared primary, or the first, by its index there.
	Members []Member
	Primary int
	// Pooled says that members have a PgBouncer.
	Pooled bool
	// Name is the cluster's own with its suffix, Target what it stands for (a Naming's Target). Name is empty for none.
	Name   string
	Target string
	// VIP is the virtual address, without its network's length; empty for none.
	VIP string
	// Offers are the services with where they are carried.
	Offers []Offer
	// Delegated says that other hosts than the members carry them.
	Delegated bool
	// Upstream is where the cluster replicates from if it is declared to be a standby cluster; empty if it isn't.
	Upstream string
	// Databases and Accounts are those of pg_databases and pg_users, in order, and the administrator behind them.
	Databases []Database
	Accounts  []Account
	Admin     string
	// PatroniUser and PatroniPassword are what Patroni's REST API asks of those who change something; empty where the inventory doesn't say.
	PatroniUser     string
	PatroniPassword Secret
}

// Offer is a service with the addresses that it is offered at.
type Offer struct {
	Definition
	// At are the hosts that carry it, by their addresses.
	At []string
	// Ports are as many: a service may have another port on another node.
	Ports []int
	// Bound says that it listens at At alone, not at every address of its hosts: names and virtual addresses don't reach it.
	Bound bool
	// Vacant says that no member is selected, as they are declared: nobody serves it.
	Vacant bool
	// PoolerOff says that it leads to PgBouncers alone, and they are all turned off.
	PoolerOff bool
	// DoorPort is where the nodes that carry it have their PgBouncer before it; 0 where they have none. DoorSuffix is what follows the
	// names of databases there.
	DoorPort   int
	DoorSuffix string
}

// Database is one that clients may ask for.
type Database struct {
	Name, Owner string
	// Pooled says that PgBouncer has it.
	Pooled bool
}

// Account is a user that clients may be.
type Account struct {
	Name string
	// Password is empty where the inventory has none that a client can use, such as a hash.
	Password Secret
	// Pooled says that PgBouncer knows the user.
	Pooled bool
	Roles  []string
}
