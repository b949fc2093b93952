package sandbox

import (
	"fmt"
	"net"
	"net/url"
	"slices"
	"strconv"
	"strings"
)

// Account is a user of PostgreSQL with the password that the documents print.
type Account struct {
	User     string
	Password string
	// Role is what it is a member of: Pigsty's dbrole_readonly, dbrole_offline, dbrole_admin.
	Role      string
	Superuser bool
}

// accounts are the documents' users. All of them log in with SCRAM, through PgBouncer too.
var accounts = []Account{
	{User: "dbuser_dba", Password: "DBUser.DBA", Role: "dbrole_admin", Superuser: true},
	{User: "dbuser_meta", Password: "DBUser.Meta", Role: "dbrole_admin"},
	{User: "dbuser_view", Password: "DBUser.View", Role: "dbrole_readonly"},
	{User: "dbuser_stats", Password: "DBUser.Stats", Role: "dbrole_offline"},
	{User: "test", Password: "test", Role: "dbrole_admin"},
}

var (
	superuser   = Account{User: "postgres", Password: "DBUser.Postgres", Superuser: true}
	replication = Account{User: "replicator", Password: "DBUser.Replicator"}
	restAccount = Account{User: "postgres", Password: "Patroni.API"}
)

type database struct{ Name, Owner string }

var databases = []database{{"meta", "dbuser_meta"}, {"test", "test"}}

// password gives a user's; empty for one that the sandbox doesn't have.
func password(user string) string {
	for _, a := range append([]Account{superuser}, accounts...) {
		if a.User == user {
			return a.Password
		}
	}
	return ""
}

// Access is how a client reaches something of the sandbox.
type Access struct {
	// Name is the service's full name or the instance's, Node the member whose address it is.
	Name     string `json:"name"`
	Node     string `json:"node"`
	Host     string `json:"host"`
	Port     int    `json:"port"`
	User     string `json:"user"`
	Password string `json:"password"`
	Database string `json:"database"`
	// Servable says that somebody can carry it while everything is healthy.
	Servable bool `json:"servable"`
}

// URL is the connection URL, password included: it is one of the documents' public ones.
func (a Access) URL() string {
	u := url.URL{Scheme: "postgres", User: url.UserPassword(a.User, a.Password), Host: net.JoinHostPort(a.Host, strconv.Itoa(a.Port)), Path: "/" + a.Database}
	return u.String()
}

// Environment is what libpq reads (PGHOST and so on), and DATABASE_URL.
func (a Access) Environment() []string {
	return []string{
		"PGHOST=" + a.Host, "PGPORT=" + strconv.Itoa(a.Port), "PGUSER=" + a.User, "PGPASSWORD=" + a.Password,
		"PGDATABASE=" + a.Database, "DATABASE_URL=" + a.URL(),
	}
}

// As gives the same server with another user or database; empty leaves what is there.
func (a Access) As(user, database string) (Access, error) {
	if user != "" {
		a.User, a.Password = user, password(user)
		if a.Password == "" {
			var known []string
			for _, account := range accounts {
				known = append(known, account.User)
			}
			return a, fmt.Errorf("the sandbox has no user %q; there are: %s", user, strings.Join(known, ", "))
		}
	}
	if database != "" {
		a.Database = database
	}
	return a, nil
}

// URLs are all services at every node's address: any node offers every service of its cluster.
func (s *Sandbox) URLs() []Access {
	if s.layout.config.WithoutPgporter {
		return nil
	}
	var all []Access
	for _, cluster := range s.layout.clusters() {
		for _, service := range s.layout.services(cluster) {
			for _, m := range s.layout.of(cluster) {
				a := service.access(m)
				a.Servable = slices.Contains(s.layout.servable(cluster), service)
				all = append(all, a)
			}
		}
	}
	return all
}

func (s service) access(m Member) Access {
	return Access{Name: m.Cluster + "-" + s.Name, Node: m.Name, Host: m.Address, Port: s.Port, User: s.User, Password: password(s.User), Database: s.Database}
}

// Access finds what a person means by a target: a service (primary, or pg-standby-replica in full) at the node via, a
// member's PostgreSQL (pg-test-2, or 2), its PgBouncer (pg-test-2/pgbouncer) or the one before its pgporter (pg-test-2/door). Via is a member's name, number or address;
// empty takes the first of the service's cluster.
func (s *Sandbox) Access(target, via string) (Access, error) {
	l := s.layout
	var names []string
	for _, cluster := range l.clusters() {
		for _, service := range l.services(cluster) {
			full := cluster + "-" + service.Name
			names = append(names, full)
			if target != full && (target != service.Name || cluster != mainCluster) {
				continue
			}
			if l.config.WithoutPgporter {
				return Access{}, fmt.Errorf("service %s: this sandbox was started without pgporter; name a member: pg-test-1", full)
			}
			node := l.of(cluster)[0]
			if via != "" {
				var err error
				if node, err = l.member(via); err != nil {
					return Access{}, err
				}
				if node.Cluster != cluster {
					return Access{}, fmt.Errorf("node %s doesn't offer %s: it belongs to %s", node.Name, full, node.Cluster)
				}
			}
			return service.access(node), nil
		}
	}
	name, pooled := strings.CutSuffix(target, "/"+string(pgbouncerKind))
	name, atDoor := strings.CutSuffix(name, "/"+string(doorKind))
	name = strings.TrimSuffix(name, "/"+string(postgresKind))
	m, err := l.member(name)
	if err != nil {
		return Access{}, fmt.Errorf("nothing is called %q; services: %s; members: %s (with /pgbouncer for the pool, /door for the one before pgporter)", target, strings.Join(names, ", "), strings.Join(l.memberNames(), ", "))
	}
	switch {
	case atDoor && !l.doored(m):
		return Access{}, fmt.Errorf("%s has no PgBouncer before its pgporter: those of %s have in a sandbox that was started with --door", m.Name, mainCluster)
	case atDoor:
		return l.door(m, doorServices[0]), nil
	}
	a := Access{Name: m.Name, Node: m.Name, Host: m.Address, Port: postgresPort, User: "dbuser_dba", Password: password("dbuser_dba"), Database: "test"}
	if pooled {
		a.Port, a.User, a.Password = pgbouncerPort, "test", password("test")
	}
	return a, nil
}

func (l layout) memberNames() []string {
	var names []string
	for _, m := range l.members {
		names = append(names, m.Name)
	}
	return names
}
