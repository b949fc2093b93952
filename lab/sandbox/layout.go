package sandbox

import (
	"fmt"
	"net"
	"net/netip"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
)

// Names of the clusters.
const (
	metaCluster    = "pg-meta"
	mainCluster    = "pg-test"
	standbyCluster = "pg-standby"
)

// metaHost is the last octet of where the documents have etcd, the names' server and, on their network, pg-meta.
const metaHost = 10

// Ports, the documents' own.
const (
	etcdPort      = 2379
	etcdPeerPort  = 2380
	postgresPort  = 5432
	pgbouncerPort = 6432
	patroniPort   = 8008
	doorPort      = 6433
)

// restproxyPort is that of the proxy before Patroni, where there is one: what the inventory has for Patroni's.
const restproxyPort = 8009

// adminPort is where a member's pgporter tells its status.
const adminPort = 8432

// controlPort is where it takes orders, in a sandbox with doors.
const controlPort = 8433

// Member is one instance as the inventory declares it.
type Member struct {
	Cluster string `json:"cluster"`
	// Name is the instance's, <cluster>-<seq>.
	Name    string `json:"name"`
	Seq     int    `json:"seq"`
	Address string `json:"address"`
	// Role is pg_role, OfflineQuery pg_offline_query.
	Role         string `json:"role"`
	OfflineQuery bool   `json:"offline_query,omitempty"`
	// Upstream is pg_upstream: where a standby cluster's leader replicates from.
	Upstream string `json:"upstream,omitempty"`
}

// service is what the inventory has a cluster offer.
type service struct {
	Name string
	Port int
	// User, Password and Database are what the documents use it with.
	User, Database string
	// Writable says that a session is expected to be on the primary.
	Writable bool
}

// kind is one of the programs that make a member; etcd belongs to no member.
type kind string

const (
	etcdKind      kind = "etcd"
	postgresKind  kind = "postgres"
	patroniKind   kind = "patroni"
	restproxyKind kind = "restproxy"
	pgbouncerKind kind = "pgbouncer"
	doorKind      kind = "door"
	pgporterKind  kind = "pgporter"
)

// part is one process of the sandbox. Its member is the zero Member for etcd.
type part struct {
	kind   kind
	member Member
}

// String is the part's name in commands: etcd, pg-test-1/patroni.
func (p part) String() string {
	if p.kind == etcdKind {
		return string(etcdKind)
	}
	return p.member.Name + "/" + string(p.kind)
}

// layout is where everything of a sandbox is: pure, derived from its Config.
type layout struct {
	config  Config
	members []Member
	// sockets is the directory below which each member has one for its unix socket.
	sockets string
}

// withDefaults fills in what was left empty and refuses what can't be.
func (c Config) withDefaults() (Config, error) {
	if c.Prefix == "" {
		c.Prefix = DefaultPrefix
		if c.Netns {
			c.Prefix = NetnsPrefix
		}
	}
	prefix, err := netip.ParseAddr(c.Prefix + ".0")
	switch {
	case c.Netns && (err != nil || !prefix.Is4() || !prefix.IsPrivate()):
		return c, inputErrorf("prefix %q: the first three octets of private addresses, such as %s", c.Prefix, NetnsPrefix)
	case !c.Netns && (err != nil || !prefix.Is4() || !prefix.IsLoopback()):
		return c, inputErrorf("prefix %q: the first three octets of loopback addresses, such as %s", c.Prefix, DefaultPrefix)
	}
	if c.Members == 0 {
		c.Members = DefaultMembers
	}
	if c.Members < 1 || c.Members > 9 {
		return c, inputErrorf("members %d: from 1 to 9", c.Members)
	}
	if c.Offline && c.Members < 2 {
		return c, inputErrorf("a dedicated offline instance needs at least 2 members, not %d", c.Members)
	}
	if c.Sync && c.Members < 2 {
		return c, inputErrorf("synchronous mode needs at least 2 members, not %d", c.Members)
	}
	if c.Sync && c.Offline && c.Members < 3 {
		return c, inputErrorf("synchronous mode with a dedicated offline instance needs at least 3 members, not %d: that instance never is the synchronous one", c.Members)
	}
	if c.Door && c.WithoutPgporter {
		return c, inputErrorf("a door stands before a pgporter, and there is none")
	}
	if c.Timeout == 0 {
		c.Timeout = DefaultTimeout
	}
	c.Dir, err = resolveDir(c.Dir)
	return c, err
}

func newLayout(c Config) layout {
	l := layout{config: c}
	l.sockets = l.ownSockets()
	if c.Netns {
		l.members = append(l.members, l.named(Member{Cluster: metaCluster, Seq: 1, Role: "primary"}, metaHost-1))
	}
	for seq := 1; seq <= c.Members; seq++ {
		m := Member{Cluster: mainCluster, Seq: seq, Role: "replica"}
		switch {
		case seq == 1:
			m.Role = "primary"
		case seq == c.Members && c.Offline:
			m.Role = "offline"
		// Two members are the documents' thin cluster: its one replica answers offline queries too.
		case seq == c.Members:
			m.OfflineQuery = true
		}
		l.members = append(l.members, l.named(m, 10))
	}
	if c.Delayed {
		l.members = append(l.members, l.named(Member{Cluster: mainCluster, Seq: c.Members + 1, Role: "delayed"}, 10))
	}
	if c.Standby {
		l.members = append(l.members,
			l.named(Member{Cluster: standbyCluster, Seq: 1, Role: "primary", Upstream: l.of(mainCluster)[0].Address}, 20),
			l.named(Member{Cluster: standbyCluster, Seq: 2, Role: "replica"}, 20))
	}
	return l
}

func (l layout) named(m Member, base int) Member {
	m.Name = fmt.Sprintf("%s-%d", m.Cluster, m.Seq)
	m.Address = l.address(base + m.Seq)
	return m
}

func (l layout) address(last int) string { return l.config.Prefix + "." + strconv.Itoa(last) }

func (l layout) etcdAddress() string { return l.address(metaHost) }

// clusters are the names of the clusters in order.
func (l layout) clusters() []string {
	all := []string{mainCluster}
	if l.config.Netns {
		all = []string{metaCluster, mainCluster}
	}
	if l.config.Standby {
		all = append(all, standbyCluster)
	}
	return all
}

// of gives a cluster's members.
func (l layout) of(cluster string) []Member {
	return slices.DeleteFunc(slices.Clone(l.members), func(m Member) bool { return m.Cluster != cluster })
}

// services are those that every node of a cluster offers, in the order of their ports, with the account and database that
// the documents use each with.
func (l layout) services(cluster string) []service {
	user, database := "test", "test"
	if cluster == metaCluster {
		user, database = "dbuser_meta", "meta"
	}
	all := []service{
		{Name: "primary", Port: 5433, User: user, Database: database, Writable: true},
		{Name: "replica", Port: 5434, User: user, Database: database},
	}
	if l.config.Sync && cluster == mainCluster {
		all = append(all, service{Name: "standby", Port: 5435, User: "test", Database: "test"})
	}
	all = append(all,
		service{Name: "default", Port: 5436, User: "dbuser_dba", Database: database, Writable: true},
		service{Name: "offline", Port: 5438, User: "dbuser_stats", Database: database})
	if l.config.Delayed && cluster == mainCluster {
		all = append(all, service{Name: "delayed", Port: 5439, User: "dbuser_stats", Database: "test"})
	}
	return all
}

// servable are the services that somebody can carry while everything is healthy.
func (l layout) servable(cluster string) []service {
	return slices.DeleteFunc(l.services(cluster), func(s service) bool {
		if s.Name == "offline" && len(l.of(cluster)) == 1 {
			return true
		}
		// A cluster of one and a delayed member has nobody who is a replica or tagged for offline queries.
		if s.Name == "offline" && cluster == mainCluster && l.config.Members == 1 {
			return true
		}
		// A standby cluster's leader is no primary to Patroni's /primary.
		return s.Writable && cluster == standbyCluster
	})
}

// parts are all processes, in the order in which they are started.
func (l layout) parts() []part {
	all := []part{{kind: etcdKind}}
	for _, m := range l.members {
		all = append(all, part{patroniKind, m}, part{postgresKind, m}, part{pgbouncerKind, m})
		if l.config.Door {
			all = append(all, part{doorKind, m})
		}
		if l.config.RestProxy != "" {
			all = append(all, part{restproxyKind, m})
		}
		if !l.config.WithoutPgporter {
			all = append(all, part{pgporterKind, m})
		}
	}
	return all
}

var shortPart = regexp.MustCompile(`^([1-9][0-9]?)(/.*)?$`)

// part finds the process that a person means: etcd, pg-test-1/postgres, or 1/postgres for a member of pg-test.
func (l layout) part(what string) (part, error) {
	full := shortPart.ReplaceAllString(what, mainCluster+"-$1$2")
	var names []string
	for _, p := range l.parts() {
		if p.String() == full {
			return p, nil
		}
		names = append(names, p.String())
	}
	return part{}, inputErrorf("the sandbox has no %q; there are: %s (a member of %s goes by its number too: 1/postgres)", what, strings.Join(names, ", "), mainCluster)
}

// member finds a member by name, address or (for pg-test) number.
func (l layout) member(what string) (Member, error) {
	full := shortPart.ReplaceAllString(what, mainCluster+"-$1$2")
	var names []string
	for _, m := range l.members {
		if m.Name == full || m.Address == what {
			return m, nil
		}
		names = append(names, m.Name)
	}
	return Member{}, inputErrorf("the sandbox has no member %q; there are: %s", what, strings.Join(names, ", "))
}

// ports are all that a part listens on, as host:port. PostgreSQL's are listed with Patroni, which starts it.
func (l layout) ports(p part) []string {
	at := func(host string, port int) string { return net.JoinHostPort(host, strconv.Itoa(port)) }
	switch p.kind {
	case etcdKind:
		return []string{at(l.etcdAddress(), etcdPort), at(l.etcdAddress(), etcdPeerPort)}
	case patroniKind:
		return []string{at(p.member.Address, patroniPort)}
	case restproxyKind:
		return []string{at(p.member.Address, restproxyPort)}
	case postgresKind:
		return []string{at(p.member.Address, postgresPort)}
	case pgbouncerKind:
		return []string{at(p.member.Address, pgbouncerPort)}
	case doorKind:
		return []string{at(p.member.Address, doorPort)}
	case pgporterKind:
		var all []string
		for _, s := range l.services(p.member.Cluster) {
			all = append(all, at(p.member.Address, s.Port))
		}
		if l.config.Door {
			all = append(all, at(p.member.Address, controlPort))
		}
		return append(all, at(p.member.Address, adminPort))
	}
	return nil
}

// Files. Everything that a member's programs write is below its home; what only this package writes is beside it.

func (l layout) inventory() string              { return filepath.Join(l.config.Dir, "inventory.yml") }
func (l layout) logDir() string                 { return filepath.Join(l.config.Dir, "log") }
func (l layout) etcdHome() string               { return filepath.Join(l.config.Dir, "etcd") }
func (l layout) home(m Member) string           { return filepath.Join(l.config.Dir, m.Name) }
func (l layout) data(m Member) string           { return filepath.Join(l.home(m), "data") }
func (l layout) file(m Member, n string) string { return filepath.Join(l.home(m), n) }
func (l layout) socketDir(m Member) string      { return filepath.Join(l.sockets, m.Name) }
func (l layout) restproxySocket(m Member) string {
	return filepath.Join(l.socketDir(m), "rest")
}
func (l layout) ownSockets() string     { return filepath.Join(l.config.Dir, "sockets") }
func (l layout) passwords() string      { return filepath.Join(l.config.Dir, "pgpass") }
func (l layout) control() string        { return filepath.Join(l.config.Dir, "control") }
func (l layout) rendered() string       { return filepath.Join(l.config.Dir, "rendered") }
func (l layout) bootstrapSQL() string   { return filepath.Join(l.config.Dir, "bootstrap.sql") }
func (l layout) certificate() string    { return filepath.Join(l.config.Dir, "server.crt") }
func (l layout) certificateKey() string { return filepath.Join(l.config.Dir, "server.key") }

func (l layout) log(p part) string {
	return filepath.Join(l.logDir(), strings.ReplaceAll(p.String(), "/", ".")+".log")
}

// maxSocketPath is the longest path of a unix socket that is used: sun_path has 108 bytes (unix(7)), the closing zero needs
// one, and one is left for programs that count it twice.
const maxSocketPath = 106

// longestSocket is the longest path that a server makes below the members' socket directories: PgBouncer and PostgreSQL
// name theirs alike, and PostgreSQL puts a lock file beside it, which is no socket.
func (l layout) longestSocket() int {
	longest := 0
	for _, m := range l.members {
		longest = max(longest, len(filepath.Join(l.socketDir(m), ".s.PGSQL.5432")))
	}
	return longest
}

// plainPath is what may be in unix_socket_directories, a list with commas that is quoted by several programs.
var plainPath = regexp.MustCompile(`^[A-Za-z0-9/._+@=-]+$`)

// socketsFit says whether the socket directories can be where they would be by default.
func (l layout) socketsFit() bool {
	return l.longestSocket() <= maxSocketPath && plainPath.MatchString(l.sockets)
}
