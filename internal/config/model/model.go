// Package model is the trusted model: what services a cluster offers and who carries them.
//
// Everything here has been checked once, by the package that made it (plan from an inventory, discovery from Patroni); nothing
// downstream checks again. Values are plain data: comparable or cloneable, JSON in and out, no clock, no I/O. A Plan holds
// no secrets: it is what nodes are sent and what `pgporter services -o json` prints.
package model

import (
	"net"
	"slices"
	"strconv"
	"strings"

	"github.com/pgporter/pgporter/internal/config/jmespath"
)

// Role is what a member is. In an inventory it is declared (pg_role); at run time it is what the member is now.
type Role string

// The roles that Pigsty's pg_role may have.
const (
	Primary Role = "primary"
	Replica Role = "replica"
	Standby Role = "standby"
	Offline Role = "offline"
	Delayed Role = "delayed"
)

// Roles are all that pg_role may be, in the order in which messages list them.
var Roles = []Role{Primary, Replica, Standby, Offline, Delayed}

// Plan is what a node (or, with Node empty, an operator) needs to know of the clusters that it serves: definitions that
// aren't yet resolved against live roles.
type Plan struct {
	// Node is the inventory host that the plan was made for; empty for the operator's view, in which each cluster is seen
	// as its primary sees it.
	Node     string    `json:"node,omitempty"`
	Clusters []Cluster `json:"clusters"`
	// TCPServices are the node's services that belong to no cluster (haproxy_services), in the order of their list.
	TCPServices []TCPService `json:"generic_services,omitempty"`
	// Names are what clusters are called in the DNS. Elsewhere are those of them whose services the node doesn't carry: their
	// members are watched for the names alone. Both are only there for a node that serves names.
	Names     []Naming  `json:"names,omitempty"`
	Elsewhere []Cluster `json:"elsewhere,omitempty"`
}

// TCPService is a service of a node for something else than PostgreSQL, in HAProxy's words.
type TCPService struct {
	Name string `json:"name"`
	IP   string `json:"ip"`
	Port int    `json:"port"`
	// Protocol is tcp or http, Balance an algorithm with its arguments.
	Protocol string `json:"protocol"`
	MaxConn  int    `json:"maxconn"`
	Balance  string `json:"balance"`
	// Allow is a Definition's.
	Allow Networks `json:"allow,omitempty"`
	// Options are lines of a listen section as they were written; Default is its default-server line.
	Options []string    `json:"options,omitempty"`
	Default string      `json:"default"`
	Servers []TCPServer `json:"servers"`
}

// TCPServer is a server of a TCPService.
type TCPServer struct {
	Name   string `json:"name"`
	Host   string `json:"host"`
	Port   int    `json:"port"`
	Backup bool   `json:"backup,omitempty"`
	// Weight is nil where none is declared: HAProxy's default holds.
	Weight *int `json:"weight,omitempty"`
	// Options are words of the server line as they were written.
	Options string `json:"options,omitempty"`
}

// Cluster is one PostgreSQL cluster as declared.
type Cluster struct {
	// Name is pg_cluster, the prefix of every full service name, and Patroni's scope unless KeyPath says another.
	Name        string       `json:"name"`
	Members     []Member     `json:"members"`
	Definitions []Definition `json:"services"`
	// StaticRoles keeps the declared roles in selectors, as Pigsty's rendered files do, whatever the members are now.
	StaticRoles bool `json:"static_roles,omitempty"`
	// TrustCheck has a member's silence count to fall as an answer would, whatever the leader key says.
	TrustCheck bool `json:"trust_check,omitempty"`
	// KeyPath is where Patroni keeps the cluster's keys in etcd: <namespace>/<scope>, or <namespace>/<scope>/<group> for a group
	// of a Citus cluster. Empty is Name in the namespace that pgporter was given, /pg as a rule.
	KeyPath string `json:"key_path,omitempty"`
	// TTL is how long Patroni's leader key outlives its holder, in seconds: a primary's last passed check is void after it.
	TTL int `json:"ttl"`
	// DoorPort is the port of the node's PgBouncer before the services whose Pool is Door; 0 where there is none.
	DoorPort int `json:"door_port,omitempty"`
	// VIP is the cluster's virtual address as this node is to keep it; nil where the node isn't a member, or there is none.
	VIP *VirtualIP `json:"vip,omitempty"`
}

// Member is one instance of a cluster as declared.
type Member struct {
	// Name is the instance's, Patroni's name of the member: <pg_cluster>-<pg_seq> in an inventory.
	Name string `json:"name"`
	// Host is the address that its ports are on: the inventory's host name, an IP address as a rule.
	Host string `json:"host"`
	// Role is the declared one.
	Role          Role `json:"role"`
	PostgresPort  int  `json:"postgres_port"`
	PgBouncerPort int  `json:"pgbouncer_port"`
	PatroniPort   int  `json:"patroni_port"`
	// PatroniTLS says that Patroni's REST API speaks TLS.
	PatroniTLS bool `json:"patroni_tls,omitempty"`
	// Weight is pg_weight, 0..256.
	Weight int `json:"weight"`
	// Vars are the variables that the cluster's selectors look at, as JSON values (numbers are float64).
	Vars map[string]any `json:"vars"`
}

// DestKind says where on a member a service's clients are connected to.
type DestKind string

// Destinations. What the inventory calls `default` has been settled when a Dest is made.
const (
	ToPostgres  DestKind = "postgres"
	ToPgBouncer DestKind = "pgbouncer"
	ToPort      DestKind = "port"
)

// Dest is a service's destination on each of its servers.
type Dest struct {
	Kind DestKind `json:"kind"`
	// Port is set with ToPort only.
	Port int `json:"port,omitempty"`
}

// Of gives the port on a member that the destination means.
func (d Dest) Of(m Member) int {
	switch d.Kind {
	case ToPostgres:
		return m.PostgresPort
	case ToPgBouncer:
		return m.PgBouncerPort
	}
	return d.Port
}

// Balance is how new clients are spread over usable servers, in HAProxy's words. Random may have the number of its draws
// behind it, as in random(3).
type Balance string

// The algorithms that are declared in services.
const (
	RoundRobin Balance = "roundrobin"
	LeastConn  Balance = "leastconn"
	First      Balance = "first"
	Source     Balance = "source"
	Random     Balance = "random"
)

// NativeBalances are those that the native engine has, too; HAProxy has more.
var NativeBalances = []Balance{RoundRobin, LeastConn, First, Source, Random}

// Native tells whether the native engine has the algorithm. Arguments in parentheses don't count.
func (b Balance) Native() bool {
	name, _, _ := strings.Cut(string(b), "(")
	return slices.Contains(NativeBalances, Balance(name))
}

// Pool says that a PgBouncer is before a service on each node that carries it.
type Pool string

// Door is the PgBouncer of a node that has all its services with this Pool for servers, and that pgporter pauses while there is a hold.
const Door Pool = "door"

// Definition is a service as declared: who carries it is still an expression.
type Definition struct {
	// Name is the short one (primary), FullName the cluster's name and it (pg-test-primary).
	Name     string `json:"name"`
	FullName string `json:"full_name"`
	// IP is the address to listen on; "*" is every address of the node.
	IP   string `json:"ip"`
	Port int    `json:"port"`
	// Selector and Backup are JMESPath over the members, compiled when they were read; Backup is nil for none.
	Selector *jmespath.Selector `json:"selector"`
	Backup   *jmespath.Selector `json:"backup,omitempty"`
	Dest     Dest               `json:"dest"`
	// Check is the path (with its query) of Patroni's REST API that has to answer 200.
	Check string `json:"check"`
	// MaxConn limits the clients of the service on this node.
	MaxConn int `json:"maxconn"`
	// Allow are the networks that clients may come from; none is anywhere.
	Allow Networks `json:"allow,omitempty"`
	// Hold is how long its clients wait while no server takes them; nil is what the node says (run --hold).
	Hold    *Hold   `json:"hold,omitempty"`
	Balance Balance `json:"balance"`
	Options Options `json:"options"`
	// Pool is what clients come through before the service; empty for nothing.
	Pool Pool `json:"pool,omitempty"`
	// AllBackups (option allbackups) has all usable backups carry the service, where otherwise the first does.
	AllBackups bool `json:"all_backups,omitempty"`
}

// Set is a cluster's services resolved against roles: who would carry each, were everybody healthy.
type Set struct {
	Cluster  string    `json:"cluster"`
	Services []Service `json:"services"`
}

// Service is a definition with its servers: the selected members in their order in the inventory, then the backups that
// were not selected.
type Service struct {
	Definition
	Cluster string   `json:"cluster"`
	Servers []Server `json:"servers"`
}

// Server is a member as a service's destination.
type Server struct {
	// Member is the instance's name.
	Member string `json:"member"`
	Host   string `json:"host"`
	Port   int    `json:"port"`
	Weight int    `json:"weight"`
	// Backup servers carry the service only while no regular one is usable.
	Backup bool `json:"backup,omitempty"`
	// Own are the options of a server that has words of its own, those of its service included; nil for the service's.
	Own *Options `json:"-"`
}

// OptionsOf are the options that hold for a server of the service.
func (s *Service) OptionsOf(i int) *Options {
	if own := s.Servers[i].Own; own != nil {
		return own
	}
	return &s.Options
}

// Address is host:port as a dialer takes it.
func (s Server) Address() string { return net.JoinHostPort(s.Host, strconv.Itoa(s.Port)) }
