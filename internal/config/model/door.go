package model

// PgBouncerDoor is what the PgBouncer of a node is configured with that is before services (Definition.Pool). It holds passwords, so it is
// no part of a Plan.
type PgBouncerDoor struct {
	// IP is the address that it listens on, "*" for every one of the node.
	IP   string
	Port int
	// Databases are in the order of clusters, services and pg_databases, Users in that of clusters and pg_users.
	Databases []DoorDatabase
	Users     []DoorUser
	// AuthQuery looks up the users of databases with an AuthUser that aren't among Users; empty for PgBouncer's own.
	AuthQuery string
	// IgnoredParameters are startup parameters of clients that PgBouncer takes and passes over.
	IgnoredParameters []string
	// MaxClients is how many clients there may be, as many as the services may have together.
	MaxClients int
	// Spread says that a service has several servers, over which connections are spread.
	Spread bool
	// Patience is how many seconds a connection may wait in pgporter: longer than any hold.
	Patience int
	// Settings are the inventory's own, in its order.
	Settings []DoorSetting
	// Shares say for each cluster how its pools multiply, LeftOut what the inventory has and the door hasn't, for people.
	Shares  []DoorShare
	LeftOut []string
}

// DoorDatabase is a database as clients of the door name it.
type DoorDatabase struct {
	Name string
	// Service is the full name of the service that its connections go to, at Host and Port; Database is what it is called there.
	Service, Database, Host string
	Port                    int
	// Mode is PgBouncer's pool_mode.
	Mode string
	// PoolSize, MinPoolSize and Reserve are connections of each user, MaxConnections of all together, on this node. 0 is none of those.
	PoolSize, MinPoolSize, Reserve, MaxConnections int
	// AuthUser looks up users that aren't listed; empty for nobody.
	AuthUser string
}

// DoorUser is a user whom the door knows by a password: plain, or as PostgreSQL keeps it (md5…, SCRAM-SHA-256$…).
type DoorUser struct {
	Name     string
	Password Secret
	// Mode is the user's own pool_mode, empty for the database's; MaxConnections bounds the user's connections on this node, 0 for no bound.
	Mode           string
	MaxConnections int
}

// DoorSetting is one of PgBouncer's own.
type DoorSetting struct{ Name, Value string }

// DoorShare is how the pools of a cluster multiply.
type DoorShare struct {
	Cluster string
	// Nodes have a door, Services are behind each, Databases before each of those.
	Nodes, Services, Databases int
	// Together is how many connections all nodes may have to one server at most, MaxConnections what that takes.
	Together, MaxConnections int
}
