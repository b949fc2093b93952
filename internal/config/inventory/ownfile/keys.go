// Package ownfile declares the keys of a pgporter.yml, the file of those who have Patroni and no inventory: what each is called, what it
// means, and by which variable of an inventory it goes further on. Readers, the JSON Schema and messages are all made of this one
// declaration. The package is data: it reads nothing.
package ownfile

import (
	"slices"
	"strings"
)

// Version is the one of the format that is read, the value of the key Mark.
const Version = 1

// Mark is the key by which a file is known for one of these, whatever its name.
const Mark = "pgporter"

// Shape is what a key's value looks like.
type Shape int

// The shapes of values. Word is one of some, Dest a word or a port, Wait a word, a time with its unit, or 0; Keyed is a mapping whose keys are declared, Named one of names that
// the writer chooses to such mappings, Listed a list of them; Tags is a mapping of names that the writer chooses to scalars.
const (
	Text Shape = iota
	Number
	Switch
	Word
	Dest
	Wait
	Texts
	Keyed
	Named
	Listed
	Tags
)

// Key is one that may stand in a mapping.
type Key struct {
	Name string
	// Variable is what the value is called in an inventory; empty where that isn't one.
	Variable string
	// Says is a sentence without its full stop: what the key is for.
	Says  string
	Shape Shape
	// Default is what holds without the key, as it is written; empty if that goes without saying.
	Default string
	// Example is a value in YAML.
	Example  string
	Required bool
	// Words are what a Word, a Dest or a Wait may be.
	Words []string
	// Least and Most bound a Number.
	Least, Most int
	// Keys are those of a Keyed, or of each mapping of a Named or a Listed.
	Keys []Key
	// NameForm is a regular expression that the names of a Named have.
	NameForm string
}

const (
	clusterNameForm = `^[A-Za-z0-9][A-Za-z0-9-]*$`
	nameForm        = `^[A-Za-z0-9_][A-Za-z0-9_.-]*$`
)

var ports = []Key{
	{Name: "port", Variable: "pg_port", Shape: Number, Least: 1, Most: 65535, Default: "5432", Says: "PostgreSQL's port"},
	{Name: "pgbouncer_port", Variable: "pgbouncer_port", Shape: Number, Least: 1, Most: 65535, Example: "6432", Says: "PgBouncer's port; without it there is no PgBouncer"},
	{Name: "patroni_port", Variable: "patroni_port", Shape: Number, Least: 1, Most: 65535, Default: "8008", Says: "the port of Patroni's REST API"},
	{Name: "patroni_tls", Variable: "patroni_ssl_enabled", Shape: Switch, Default: "false", Says: "whether Patroni's REST API speaks TLS; its certificate is verified against the authorities that the node trusts"},
}

var member = slices.Concat([]Key{
	{Name: "host", Shape: Text, Required: true, Example: "10.10.10.11", Says: "the address at which the member's ports are; a name is looked up on every node"},
	{Name: "role", Variable: "pg_role", Shape: Word, Words: []string{"primary", "replica", "offline", "standby", "delayed"}, Default: "primary for the first that says no other, if nobody is declared to be it; replica for the others",
		Says: "what the member is until Patroni has said what it is now; offline, standby and delayed stay as they are declared"},
}, ports, []Key{
	{Name: "weight", Variable: "pg_weight", Shape: Number, Least: 0, Most: 256, Default: "100", Says: "the member's share of the clients of a service that several members serve"},
	{Name: "offline_query", Variable: "pg_offline_query", Shape: Switch, Default: "false", Says: "whether the member takes clients of the service offline, besides those that it takes as a replica"},
	{Name: "interface", Variable: "pg_vip_interface", Shape: Text, Example: "eth0", Says: "the network interface that gets the virtual address on this member's machine, if it isn't vip.interface"},
	{Name: "tags", Shape: Tags, Example: "{ zone: a }", Says: "variables that selectors look at, by names of your own; Patroni's tags that checks ask for (?tag_zone=a) are Patroni's own"},
})

// service is an entry of services. What its values may be is said, and checked, where plans are made.
var service = []Key{
	{Name: "name", Shape: Text, Required: true, Example: "reports", Says: "the service's name; its full name begins with the cluster's and a dash"},
	{Name: "port", Shape: Number, Required: true, Least: 1, Most: 65535, Example: "5440", Says: "the port that the nodes listen on"},
	{Name: "selector", Shape: Text, Required: true, Example: `"[]"`, Says: "which members serve, as a JMESPath expression over the members; \"[]\" is all of them"},
	{Name: "backup", Shape: Text, Example: `"[? pg_role == 'primary']"`, Says: "which members serve while none of the selector's can, as a JMESPath expression"},
	{Name: "ip", Shape: Text, Default: `"*"`, Says: "the address that the nodes listen on; \"*\" is every one"},
	{Name: "dest", Shape: Dest, Words: []string{"default", "postgres", "pgbouncer"}, Default: "default", Says: "the port at the members that clients are connected to: default is the cluster's dest"},
	{Name: "check", Shape: Text, Default: "/", Example: "/replica?lag=10MB", Says: "the path of Patroni's REST API that answers 200 where the service may be served"},
	{Name: "maxconn", Shape: Number, Least: 1, Most: 1<<31 - 1, Default: "5000", Says: "how many clients the service has at most on a node"},
	{Name: "balance", Shape: Text, Default: "roundrobin", Example: "leastconn", Says: "how clients are spread over the servers, in HAProxy's words"},
	{Name: "allow", Shape: Texts, Example: "[10.0.0.0/8, 192.168.1.7]", Default: "from everywhere", Says: "where clients may come from: networks and addresses; others are closed unheard"},
	{Name: "pool", Shape: Word, Words: []string{"door"}, Says: "door puts the node's own PgBouncer before the service, whose dest is postgres then"},
	{Name: "hold", Shape: Wait, Words: []string{"failover"}, Example: "10s", Default: "the cluster's hold", Says: "how long new clients wait while no server takes them; 0 refuses them at once, failover waits as long as one can take"},
	{Name: "options", Shape: Text, Example: "'inter 2s fall 3 rise 3'", Says: "HAProxy's words for default-server; without them those of rto"},
}

// shared are the keys of a cluster that may stand for all of them under defaults.
var shared = slices.Concat(ports, []Key{
	{Name: "dest", Variable: "pg_default_service_dest", Shape: Dest, Words: []string{"postgres", "pgbouncer"}, Default: "pgbouncer where a member has a pgbouncer_port, else postgres",
		Says: "where services lead that don't say it"},
	{Name: "services", Variable: "pg_services", Shape: Listed, Keys: service, Says: "services besides the default ones; one of the same name takes the place of a default one"},
	{Name: "default_services", Variable: "pg_default_services", Shape: Listed, Keys: service, Default: "primary 5433, replica 5434, default 5436, offline 5438", Says: "the default services; [] for none"},
	{Name: "nodes", Shape: Texts, Example: "[10.10.10.20, 10.10.10.21]", Says: "the machines that carry the services, where those aren't the members': proxy nodes"},
	{Name: "ttl", Variable: "pgporter_ttl", Shape: Number, Least: 1, Most: 1<<31 - 1, Default: "that of rto: 30", Says: "Patroni's ttl in seconds: how long the leader key outlives its holder"},
	{Name: "rto", Variable: "pg_rto", Shape: Word, Words: []string{"fast", "norm", "safe", "wide"}, Default: "norm", Says: "how often checks ask, and how often they have to fail"},
	{Name: "roles", Variable: "pgporter_roles", Shape: Word, Words: []string{"live", "static"}, Default: "live", Says: "whether selectors see what members are now, or what is declared"},
	{Name: "trust", Variable: "pgporter_trust", Shape: Word, Words: []string{"key", "check"}, Default: "key", Says: "whether the leader key outranks the silence of a member's REST API"},
	{Name: "door_port", Variable: "pgporter_door_port", Shape: Number, Least: 1, Most: 65535, Default: "6433", Says: "the port of the nodes' PgBouncer before services with pool: door"},
	{Name: "door_settings", Variable: "pgporter_door_settings", Shape: Tags, Example: "{ client_tls_sslmode: require }", Says: "settings of that PgBouncer, by its own names"},
	{Name: "pool_mode", Variable: "pgbouncer_poolmode", Shape: Word, Words: []string{"transaction", "session", "statement"}, Default: "transaction", Says: "when that PgBouncer takes a connection back from a client"},
	{Name: "max_connections", Variable: "pg_max_conn", Shape: Number, Least: 20, Most: 262143, Default: "100", Says: "PostgreSQL's max_connections, three quarters of which are for those PgBouncers together"},
	{Name: "hold", Variable: "pgporter_hold", Shape: Wait, Words: []string{"failover"}, Example: "10s", Default: "what the node runs with: run --hold", Says: "how long new clients of services that don't say it wait while no server takes them"},
	{Name: "namespace", Variable: "pg_namespace", Shape: Text, Default: "/service", Says: "Patroni's namespace: the path in etcd below which scopes are"},
	{Name: "etcd", Shape: Keyed, Says: "the etcd (v3) that Patroni keeps its keys in; without it checks alone decide", Keys: []Key{
		{Name: "endpoints", Variable: "pgporter_etcd_endpoints", Shape: Texts, Required: true, Example: "[https://10.10.10.31:2379]", Says: "its URLs"},
		{Name: "ca_file", Variable: "pgporter_etcd_ca_file", Shape: Text, Example: "/etc/pgporter/etcd-ca.crt", Says: "the file on each node with the authority that signed its certificates; without it the node's own authorities count"},
		{Name: "cert_file", Variable: "pgporter_etcd_cert_file", Shape: Text, Example: "/etc/pgporter/etcd.crt", Says: "the file on each node with the certificate to show"},
		{Name: "key_file", Variable: "pgporter_etcd_key_file", Shape: Text, Example: "/etc/pgporter/etcd.key", Says: "the file on each node with that certificate's key"},
		{Name: "user", Variable: "pgporter_etcd_user", Shape: Text, Example: "patroni", Says: "the user to come as; the password is in /etc/pgporter/etcd-USER.password of each node"},
	}},
	{Name: "dns", Shape: Keyed, Says: "the names that nodes tell which run with --dns; without it the cluster has none of its own, its members alone have", Keys: []Key{
		{Name: "suffix", Variable: "pg_dns_suffix", Shape: Text, Example: ".db.example", Says: "what follows the cluster's name"},
		{Name: "target", Variable: "pg_dns_target", Shape: Text, Default: "auto", Says: "what the cluster's name stands for: primary, vip, an address, none; auto is vip where there is one, else primary"},
	}},
})

var cluster = slices.Concat([]Key{
	{Name: "members", Shape: Named, Required: true, NameForm: nameForm, Keys: member, Says: "the members, by the names that Patroni has for them"},
	{Name: "scope", Variable: "pgporter_scope", Shape: Text, Default: "the cluster's name", Says: "Patroni's scope; of a group of a Citus cluster the scope, a slash and the group's number"},
}, shared, []Key{
	{Name: "vip", Shape: Keyed, Says: "a virtual address that follows the leader, on members' machines that run with --vip", Keys: []Key{
		{Name: "address", Variable: "pg_vip_address", Shape: Text, Required: true, Example: "10.10.10.2/24", Says: "the address with the length of its network"},
		{Name: "interface", Variable: "pg_vip_interface", Shape: Text, Default: "auto", Says: "the network interface that gets it; auto is the one that is in its network"},
		{Name: "on_dcs_loss", Variable: "pgporter_vip_on_dcs_loss", Shape: Word, Words: []string{"grace", "keep", "drop"}, Default: "grace", Says: "what becomes of it while etcd can't be reached"},
	}},
	{Name: "upstream", Variable: "pg_upstream", Shape: Text, Example: "10.10.20.11", Says: "the address that a standby cluster replicates from"},
	{Name: "databases", Variable: "pg_databases", Shape: Listed, Says: "databases that URLs may name", Keys: []Key{
		{Name: "name", Shape: Text, Required: true, Says: "the database's name"},
		{Name: "owner", Shape: Text, Says: "its owner"},
		{Name: "pgbouncer", Shape: Switch, Default: "true", Says: "whether PgBouncer serves it"},
		{Name: "pool_mode", Shape: Word, Words: []string{"transaction", "session", "statement"}, Default: "the cluster's", Says: "when a PgBouncer before services takes a connection back from a client"},
		{Name: "pool_size", Shape: Number, Least: 1, Most: 262143, Example: "60", Says: "how many connections each user has to it at most, over all nodes"},
		{Name: "pool_size_min", Shape: Number, Least: 0, Most: 262143, Default: "0", Says: "how many connections are kept open, over all nodes"},
		{Name: "pool_reserve", Shape: Number, Least: 0, Most: 262143, Default: "0", Says: "how many more each user may have after a wait, over all nodes"},
		{Name: "pool_connlimit", Shape: Number, Least: 1, Most: 262143, Default: "its share of max_connections", Says: "how many connections there are to it at most, over all nodes"},
	}},
	{Name: "users", Variable: "pg_users", Shape: Listed, Says: "users that URLs may name; passwords have no place in this file", Keys: []Key{
		{Name: "name", Shape: Text, Required: true, Says: "the user's name"},
		{Name: "roles", Shape: Texts, Example: "[dbrole_offline]", Says: "roles that it is a member of; one with dbrole_offline comes to the service offline"},
		{Name: "pgbouncer", Shape: Switch, Default: "false", Says: "whether PgBouncer serves it"},
	}},
	{Name: "admin", Variable: "pg_admin_username", Shape: Text, Default: "postgres", Says: "the user that URLs name which go straight to the primary"},
})

// File are the keys at the top.
var File = []Key{
	{Name: Mark, Shape: Number, Required: true, Least: Version, Most: Version, Example: "1", Says: "the version of this format; the key makes the file a pgporter.yml"},
	{Name: "defaults", Shape: Keyed, Keys: shared, Says: "what holds for every cluster that doesn't say it itself"},
	{Name: "clusters", Shape: Named, Required: true, NameForm: clusterNameForm, Keys: cluster, Says: "the clusters, by names of letters, digits and dashes"},
	{Name: "page_actions", Variable: "pgporter_page_actions", Shape: Switch, Default: "false",
		Says: "whether admin may drain servers and the like on pgporter's own page at haproxy.stats_port, over TLS or from the node itself; the password is in /etc/pgporter/haproxy.password of each node"},
	{Name: "haproxy", Shape: Keyed, Says: "the HAProxy of nodes that run with --engine haproxy; its statistics can be read by all and change nothing", Keys: []Key{
		{Name: "stats_port", Variable: "haproxy_exporter_port", Shape: Number, Least: 1, Most: 65535, Default: "9101", Says: "the port of its statistics and metrics, or of pgporter's own with the native engine"},
		{Name: "client_timeout", Variable: "haproxy_client_timeout", Shape: Text, Default: "24h", Says: "how long a client may be silent"},
		{Name: "server_timeout", Variable: "haproxy_server_timeout", Shape: Text, Default: "24h", Says: "how long a server may be silent"},
	}},
}

// Cluster are the keys of each cluster.
func Cluster() []Key { return cluster }

// Member are the keys of each member.
func Member() []Key { return member }

// Services are the keys of a file of services for members that are discovered: what a cluster says of its services.
var Services = slices.DeleteFunc(slices.Clone(shared), func(k Key) bool {
	return !slices.Contains([]string{"services", "default_services", "dest", "ttl", "rto", "roles", "trust", "hold"}, k.Name)
})

// Find gives one of some keys by its name.
func Find(keys []Key, name string) (Key, bool) {
	i := slices.IndexFunc(keys, func(k Key) bool { return k.Name == name })
	if i < 0 {
		return Key{}, false
	}
	return keys[i], true
}

// Names are those of some keys, in their order.
func Names(keys []Key) []string {
	names := make([]string, 0, len(keys))
	for _, k := range keys {
		names = append(names, k.Name)
	}
	return names
}

// reservedPrefixes begin the variables that a cluster or a member is made of: a tag of such a name would change what another key says.
var reservedPrefixes = []string{"pg_", "pgbouncer_", "patroni_", "pgporter_", "haproxy_", "vip_", "etcd_", "node_", "ansible_"}

// reserved are other names of the kind.
var reserved = []string{"inventory_hostname", "inventory_hostname_short", "group_names", "groups", "hostvars", "vars", "nodename", "exporter_metrics_path"}

// IsTag tells whether a name may be a tag's.
func IsTag(name string) bool {
	return name != "" && !slices.Contains(reserved, name) && !slices.ContainsFunc(reservedPrefixes, func(p string) bool { return strings.HasPrefix(name, p) })
}

// paths are where in a cluster, or at the top, each variable is written, as in vip.address.
var paths = func() map[string]string {
	found := map[string]string{}
	var look func(prefix string, keys []Key)
	look = func(prefix string, keys []Key) {
		for _, k := range keys {
			if _, known := found[k.Variable]; k.Variable != "" && !known {
				found[k.Variable] = prefix + k.Name
			}
			if k.Shape == Keyed {
				look(prefix+k.Name+".", k.Keys)
			}
		}
	}
	look("", cluster)
	look("", member)
	haproxy, _ := Find(File, "haproxy")
	look("haproxy.", haproxy.Keys)
	return found
}()
