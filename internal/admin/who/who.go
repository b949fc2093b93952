// Package who tells for each backend of PostgreSQL who its client is. PostgreSQL sees the machine that pgporter runs on as its client,
// and behind PgBouncer that of PgBouncer; the true client is found by joining what each of them knows:
//
//	pgporter's sessions            client ─ its end toward the server (address:port)
//	PgBouncer's SHOW CLIENTS       that address:port ─ link to a server connection
//	PgBouncer's SHOW SERVERS       server connection ─ process number of the backend, its own address:port
//	PostgreSQL's pg_stat_activity  process number, client_addr:client_port
//
// Join is a function of these tables; asking for them is the command's business. They are read one after the other while connections
// come and go, and on machines whose clocks differ, so the sessions are read before and after all others, and what remains uncertain is
// said with the row instead of being decided.
package who

import (
	"cmp"
	"net/netip"
	"slices"
	"strconv"
	"time"

	"github.com/pgporter/pgporter/internal/admin/api"
)

// Tables are all that was read.
type Tables struct {
	Nodes   []Node
	Members []Member
}

// Node is what a node's pgporter tells.
type Node struct {
	Name string
	// Addresses are the machine's as far as they are known.
	Addresses []netip.Addr
	Clock     Clock
	// Before and After are its sessions as they were before and after the members were asked. Read is when Before was read, by the
	// asker's clock.
	Before, After []api.Session
	Read          time.Time
	// Problem says why it doesn't tell; empty if it does.
	Problem string
}

// Clock is how far a machine's clock is ahead of the asker's, and how exactly that is known.
type Clock struct {
	Ahead, Within time.Duration
	Known         bool
}

// ClockOf compares a clock that was read at the time told with the asker's, who asked at sent and had the answer at got.
func ClockOf(told, sent, got time.Time) Clock {
	if told.IsZero() {
		return Clock{}
	}
	half := got.Sub(sent) / 2
	return Clock{Ahead: told.Sub(sent.Add(half)), Within: half, Known: true}
}

// ours gives a time of that clock by the asker's; no time stays none.
func (c Clock) ours(t time.Time) time.Time {
	if t.IsZero() {
		return t
	}
	return t.Add(-c.Ahead)
}

// Member is what a member's PostgreSQL and PgBouncer tell.
type Member struct {
	Name string
	// Host is where its ports are, Port PostgreSQL's, PoolPort PgBouncer's; 0 if it has none.
	Host           string
	Port, PoolPort int
	Clock          Clock
	Backends       []Backend
	Clients        []PoolClient
	Servers        []PoolServer
	// Problem and PoolProblem say why PostgreSQL and PgBouncer don't tell; empty if they do.
	Problem, PoolProblem string
}

// Backend is a row of pg_stat_activity. Times are by the member's clock.
type Backend struct {
	PID int
	// Address is client_addr:client_port; not valid for a Unix socket, as Socket says, or where there is no client.
	Address netip.AddrPort
	Socket  bool
	Start   time.Time
	// Type is backend_type.
	Type, Database, User, Application, State, Wait, Query string
	// Changed is when State became what it is.
	Changed time.Time
}

// clientBackend and walSender are the backend_types that have a client.
const (
	clientBackend = "client backend"
	walSender     = "walsender"
)

// PoolClient is a row of SHOW CLIENTS.
type PoolClient struct {
	Address                            Address
	Database, User, Application, State string
	Pointer, Link                      string
	Connected                          time.Time
}

// PoolServer is a row of SHOW SERVERS: a connection that PgBouncer has with PostgreSQL.
type PoolServer struct {
	// Address is PostgreSQL's, Local PgBouncer's own end.
	Address, Local        Address
	Database, User, State string
	Pointer, Link         string
	// PID is the backend's; 0 while that isn't known.
	PID int
}

// Route is how a client comes to a backend.
type Route string

// The routes: through pgporter straight to PostgreSQL, or to PgBouncer; past pgporter, to PgBouncer or to PostgreSQL itself; a connection that PgBouncer
// keeps while no client uses it; over the machine's own socket; replicas and other receivers of WAL; PostgreSQL's own processes.
const (
	Porter      Route = "pgporter"
	PorterPool  Route = "pgporter, pool"
	Pool        Route = "pool"
	PoolIdle    Route = "pool, idle"
	Direct      Route = "direct"
	Socket      Route = "socket"
	Replication Route = "replication"
	Internal    Route = "internal"
)

// Row is a backend with its client, or a client that has none now.
type Row struct {
	Member string `json:"member"`
	// PID is the backend's; 0 for a client that has none now.
	PID   int   `json:"pid,omitempty"`
	Route Route `json:"route"`
	// Client is the true client's address:port as far as it is known: of a client that comes past pgporter what PostgreSQL, or
	// PgBouncer, sees. Empty for a Unix socket and where there is no client.
	Client string `json:"client,omitempty"`
	// Service, Node and Session are of the pgporter in between; Since is when the client's session there began, or else when the
	// connection did, by the asker's clock.
	Service  string     `json:"service,omitempty"`
	Node     string     `json:"node,omitempty"`
	Session  uint64     `json:"session,omitempty"`
	Since    *time.Time `json:"since,omitempty"`
	ToServer int64      `json:"bytes_to_server,omitempty"`
	ToClient int64      `json:"bytes_to_client,omitempty"`

	Database    string `json:"database,omitempty"`
	User        string `json:"user,omitempty"`
	Application string `json:"application,omitempty"`
	State       string `json:"state,omitempty"`
	Wait        string `json:"wait,omitempty"`
	Query       string `json:"query,omitempty"`
	// Start is when the backend did, by the member's clock.
	Start *time.Time `json:"backend_start,omitempty"`
	// Uncertain says what isn't known for certain of this row; empty if all is.
	Uncertain string `json:"uncertain,omitempty"`
}

// words for clients that have no backend now, and for a session of which no backend is seen.
const (
	idleInPool    = "idle in the pool"
	waitsForPool  = "waits for the pool"
	noBackendSeen = "no backend"
)

// Join finds out who is who. The rows are in the members' order, each member's by process number and those without one last.
func Join(t Tables) []Row {
	j := newJoin(t)
	byMember := make([][]Row, len(t.Members))
	for i := range t.Members {
		byMember[i] = j.member(&t.Members[i])
	}
	var rows []Row
	// Sessions that nobody has used are left when all members are through.
	for i := range t.Members {
		rows = append(rows, sorted(append(byMember[i], j.left(&t.Members[i])...))...)
	}
	return rows
}

// seen is a session of a node, and in which of the two readings it was.
type seen struct {
	api.Session
	node          *Node
	before, after bool
	used          bool
}

// key is what both ends of a connection call it: the member, its port, and the address:port at the other end.
type key struct {
	member string
	port   int
	local  netip.AddrPort
}

type join struct {
	tables   Tables
	sessions map[key][]*seen
	// hosts are the nodes by their addresses: several where they share a machine.
	hosts map[netip.Addr][]*Node
	// pools are PgBouncers' connections by the member that the backend is of and its process number.
	pools map[*Member]map[int]pooled
	// linked are the clients that are in the row of a backend.
	linked map[*PoolClient]bool
}

// pooled is a PgBouncer's connection with a backend: the member whose PgBouncer it is, and its client, nil if it has none now. doubt says what isn't
// certain of that.
type pooled struct {
	owner  *Member
	client *PoolClient
	doubt  string
}

func newJoin(t Tables) *join {
	j := &join{tables: t, sessions: map[key][]*seen{}, hosts: map[netip.Addr][]*Node{}, pools: map[*Member]map[int]pooled{}, linked: map[*PoolClient]bool{}}
	for i := range t.Nodes {
		j.node(&t.Nodes[i])
	}
	for i := range t.Members {
		j.pool(&t.Members[i])
	}
	return j
}

// one is what tells a session apart, in both readings and whichever process has it meanwhile.
type one struct {
	client, local, server string
	began                 int64
}

// node takes in the sessions of a node.
func (j *join) node(n *Node) {
	for _, a := range n.Addresses {
		j.host(a, n)
	}
	known := map[one]*seen{}
	take := func(s api.Session) *seen {
		which := one{s.Client, s.Local, s.Server, s.Began.UnixNano()}
		if already := known[which]; already != nil {
			already.Session = s
			return already
		}
		local, err := netip.ParseAddrPort(s.Local)
		server, err2 := netip.ParseAddrPort(s.Server)
		if err != nil || err2 != nil || !j.memberHas(s.Member, server) {
			return &seen{}
		}
		entry := &seen{Session: s, node: n}
		known[which] = entry
		k := key{s.Member, int(server.Port()), plain(local)}
		j.sessions[k] = append(j.sessions[k], entry)
		j.host(k.local.Addr(), n)
		return entry
	}
	for _, s := range n.Before {
		take(s).before = true
	}
	for _, s := range n.After {
		take(s).after = true
	}
}

func (j *join) host(a netip.Addr, n *Node) {
	a = a.Unmap().WithZone("")
	if !slices.Contains(j.hosts[a], n) {
		j.hosts[a] = append(j.hosts[a], n)
	}
}

// memberHas says whether a session's server is one of the members that were asked: of another cluster's member of the same name the
// address differs.
func (j *join) memberHas(name string, server netip.AddrPort) bool {
	return slices.ContainsFunc(j.tables.Members, func(m Member) bool {
		host, err := netip.ParseAddr(m.Host)
		return m.Name == name && (err != nil || host.Unmap() == server.Addr().Unmap())
	})
}

// pool finds the backend and the client of each connection of a member's PgBouncer. A TCP connection is found by its address, also with
// another member, where PgBouncer leads there; one over a Unix socket by the number of the process.
func (j *join) pool(owner *Member) {
	byPointer, byLink := map[string]*PoolClient{}, map[string]*PoolClient{}
	for i := range owner.Clients {
		c := &owner.Clients[i]
		byPointer[c.Pointer] = c
		byLink[c.Link] = c
	}
	delete(byPointer, "")
	delete(byLink, "")
	for _, s := range owner.Servers {
		member, pid, found := j.backendOf(owner, s)
		if !found {
			continue
		}
		p := pooled{owner: owner}
		p.client, p.doubt = clientOf(s, byPointer, byLink)
		if j.pools[member] == nil {
			j.pools[member] = map[int]pooled{}
		}
		j.pools[member][pid] = p
		if p.client != nil {
			j.linked[p.client] = true
		}
	}
}

// backendOf finds the backend of a connection of a member's PgBouncer, and the member that has it.
func (j *join) backendOf(owner *Member, s PoolServer) (*Member, int, bool) {
	is := func(b Backend) bool {
		if s.Local.Socket || s.Address.Socket {
			return b.Socket && s.PID == b.PID
		}
		return b.Address.IsValid() && s.Local.AddrPort == b.Address && (s.PID == 0 || s.PID == b.PID)
	}
	if i := slices.IndexFunc(owner.Backends, is); i >= 0 {
		return owner, owner.Backends[i].PID, true
	}
	if s.Local.Socket || s.Address.Socket || s.Local.Addr().IsLoopback() {
		return nil, 0, false
	}
	for i := range j.tables.Members {
		other := &j.tables.Members[i]
		if at := slices.IndexFunc(other.Backends, is); other != owner && at >= 0 {
			return other, other.Backends[at].PID, true
		}
	}
	return nil, 0, false
}

// clientOf is who is linked to a connection. SHOW CLIENTS and SHOW SERVERS are two moments: what both say is certain.
func clientOf(s PoolServer, byPointer, byLink map[string]*PoolClient) (*PoolClient, string) {
	ofServer, ofClient := byPointer[s.Link], byLink[s.Pointer]
	switch {
	case s.Link == "" && ofClient == nil:
		return nil, ""
	case ofServer == nil && ofClient == nil:
		return nil, "its client came or left while the tables were read"
	case ofServer == ofClient:
		return ofServer, ""
	case ofServer != nil:
		return ofServer, changedHands
	}
	return ofClient, changedHands
}

const changedHands = "the pool gave the connection to another client while the tables were read"

// plain is an address as all tables have it: an IPv4 address isn't written as an IPv6 one, and no interface is named.
func plain(a netip.AddrPort) netip.AddrPort {
	return netip.AddrPortFrom(a.Addr().Unmap().WithZone(""), a.Port())
}

// tolerance is by how much a session may seem to begin later than its backend, or its end earlier than is read, besides what is not
// known of the clocks: a session is noted when its connection stands, and PostgreSQL notes the time when it has forked.
const tolerance = 2 * time.Second

// find gives the session that a connection, begun at the time start by the member's clock, belongs to. A port may have been used twice
// while the tables were read; the times tell those apart, and what is said of them if they don't.
func (j *join) find(m *Member, port int, address netip.AddrPort, start time.Time) (*seen, string) {
	candidates := j.sessions[key{m.Name, port, address}]
	if len(candidates) == 0 {
		return nil, ""
	}
	var fits []*seen
	doubt := ""
	for _, s := range candidates {
		timed := !start.IsZero() && m.Clock.Known && s.node.Clock.Known && !s.Began.IsZero()
		slack := tolerance + m.Clock.Within + s.node.Clock.Within
		begun, began := m.Clock.ours(start), s.node.Clock.ours(s.Began)
		switch {
		case timed && began.After(begun.Add(slack)):
			// The backend is older than the session: of a client before it that had the same port.
			doubt = "its port was used again by a session that is younger than it"
		case timed && !s.after && begun.After(s.node.Read.Add(slack)):
			doubt = "its port was used before by a session that is older than it"
		default:
			fits = append(fits, s)
		}
	}
	switch len(fits) {
	case 0:
		return nil, doubt
	case 1:
		return fits[0], fits[0].doubt()
	}
	// The newest that isn't younger than the backend.
	newest := slices.MaxFunc(fits, func(a, b *seen) int {
		return a.node.Clock.ours(a.Began).Compare(b.node.Clock.ours(b.Began))
	})
	return newest, "its port was used twice while the tables were read"
}

// doubt says what isn't certain of a session that was in one reading alone.
func (s *seen) doubt() string {
	switch {
	case s.before && !s.after:
		return "its session ended while the tables were read"
	case s.after && !s.before:
		return "its session began while the tables were read"
	}
	return ""
}

// fill writes what a session tells into a row.
func (s *seen) fill(r *Row) {
	s.used = true
	r.Client, r.Service, r.Node, r.Session = s.Client, s.Service, s.node.Name, s.ID
	r.ToServer, r.ToClient = s.ToServer, s.ToClient
	r.Since = at(s.node.Clock.ours(s.Began))
}

func at(t time.Time) *time.Time {
	if t.IsZero() {
		return nil
	}
	return &t
}

// member gives the rows of one member.
func (j *join) member(m *Member) []Row {
	var rows []Row
	for _, b := range m.Backends {
		rows = append(rows, j.backend(m, b))
	}
	for i := range m.Clients {
		if c := &m.Clients[i]; !j.linked[c] {
			rows = append(rows, j.withoutBackend(m, c))
		}
	}
	return rows
}

// sorted has the backends by number, then those without one.
func sorted(rows []Row) []Row {
	slices.SortFunc(rows, func(a, b Row) int {
		if (a.PID == 0) != (b.PID == 0) {
			return cmp.Compare(b.PID, a.PID)
		}
		return cmp.Or(cmp.Compare(a.PID, b.PID), cmp.Compare(a.Client, b.Client), cmp.Compare(a.Session, b.Session))
	})
	return rows
}

func (j *join) backend(m *Member, b Backend) Row {
	r := Row{Member: m.Name, PID: b.PID, Database: b.Database, User: b.User, Application: b.Application, State: b.State, Wait: b.Wait, Query: b.Query,
		Since: at(m.Clock.ours(b.Start)), Start: at(b.Start)}
	if p, is := j.pools[m][b.PID]; is {
		j.pooled(&r, p)
		return r
	}
	switch {
	case b.Type == walSender:
		r.Route = Replication
	case b.Type != clientBackend:
		r.Route = Internal
		return r
	case b.Socket:
		r.Route = Socket
		if m.PoolProblem != "" {
			r.Uncertain = "it may be PgBouncer's, which doesn't tell"
		}
		return r
	default:
		r.Route = Direct
	}
	if !b.Address.IsValid() {
		return r
	}
	r.Client = b.Address.String()
	s, doubt := j.find(m, m.Port, b.Address, b.Start)
	switch {
	case s != nil:
		if r.Route == Direct {
			r.Route = Porter
		}
		s.fill(&r)
		r.Uncertain = doubt
	case doubt != "":
		r.Uncertain = doubt
	default:
		r.Uncertain = j.unknown(m, b.Address, b.Start)
	}
	return r
}

// unknown says why a connection that no session fits may be of a pgporter's client all the same; empty if it can't.
func (j *join) unknown(m *Member, address netip.AddrPort, start time.Time) string {
	if host, err := netip.ParseAddr(m.Host); m.PoolProblem != "" && (err == nil && host.Unmap() == address.Addr() || address.Addr().IsLoopback()) {
		return "it may be of the member's own PgBouncer, which doesn't tell"
	}
	young := ""
	for _, n := range j.hosts[address.Addr()] {
		if n.Problem != "" {
			return "it comes from " + n.Name + ", whose pgporter doesn't tell"
		}
		// A session that was there when the sessions were read first is in that table.
		if start.IsZero() || !m.Clock.Known || m.Clock.ours(start).Add(tolerance+m.Clock.Within).After(n.Read) {
			young = "it is younger than the sessions of " + n.Name + " that were read first"
		}
	}
	return young
}

// pooled fills in who uses a connection of PgBouncer's.
func (j *join) pooled(r *Row, p pooled) {
	if p.client == nil {
		r.Route, r.Uncertain = PoolIdle, p.doubt
		return
	}
	j.ofPool(r, p.owner, p.client)
	r.Uncertain = cmp.Or(p.doubt, r.Uncertain)
}

// ofPool fills in what is known of a client of PgBouncer's.
func (j *join) ofPool(r *Row, m *Member, c *PoolClient) {
	r.Database, r.User, r.Application = cmp.Or(c.Database, r.Database), cmp.Or(c.User, r.User), cmp.Or(c.Application, r.Application)
	r.Route = Pool
	r.Since = at(m.Clock.ours(c.Connected))
	if c.Address.Socket || !c.Address.IsValid() {
		r.Client = ""
		return
	}
	r.Client = c.Address.AddrPort.String()
	s, doubt := j.find(m, m.PoolPort, c.Address.AddrPort, c.Connected)
	if s != nil {
		s.fill(r)
		r.Route = PorterPool
	}
	r.Uncertain = doubt
	if s == nil && doubt == "" {
		r.Uncertain = j.unknown(m, c.Address.AddrPort, c.Connected)
	}
}

// withoutBackend is a row for a client of PgBouncer's that has no backend now.
func (j *join) withoutBackend(m *Member, c *PoolClient) Row {
	r := Row{Member: m.Name, State: idleInPool}
	j.ofPool(&r, m, c)
	switch {
	case c.State == "waiting" || c.State == "waiting_cancel_req":
		r.State = waitsForPool
	case c.Link != "" && m.Problem != "":
		r.State = noBackendSeen
	case c.Link != "":
		r.State = noBackendSeen
		r.Uncertain = cmp.Or(r.Uncertain, "its connection to PostgreSQL came or ended while the tables were read")
	}
	return r
}

// left are the sessions with a member of which no table has the other end: the member doesn't tell, or it is still authenticating the client.
func (j *join) left(m *Member) []Row {
	var rows []Row
	for k, sessions := range j.sessions {
		if k.member != m.Name {
			continue
		}
		for _, s := range sessions {
			if s.used || !s.after {
				continue
			}
			r := Row{Member: m.Name, Route: Porter, State: noBackendSeen}
			silent := m.Problem
			if k.port == m.PoolPort && k.port != m.Port {
				r.Route, silent = PorterPool, m.PoolProblem
			}
			s.fill(&r)
			switch {
			case silent != "":
				r.Uncertain = "the server's side doesn't tell"
			case k.port != m.Port && k.port != m.PoolPort:
				r.Uncertain = "port " + strconv.Itoa(k.port) + " is neither PostgreSQL's nor PgBouncer's"
			case s.before:
				r.Uncertain = "the server has no such connection in its table: it is authenticating the client, or sees another address"
			default:
				r.Uncertain = s.doubt()
			}
			rows = append(rows, r)
		}
	}
	return rows
}
