package plan

import (
	"cmp"
	"fmt"
	"net/netip"
	"regexp"
	"slices"
	"strings"

	"github.com/pgporter/pgporter/internal/config/diag"
	"github.com/pgporter/pgporter/internal/config/inventory"
	"github.com/pgporter/pgporter/internal/config/model"
	"github.com/pgporter/pgporter/internal/config/safetext"
)

// defaultDoorPort is beside PgBouncer's own 6432, so that a member may have both.
const defaultDoorPort = 6433

// hasDoor checks what a service says of a pool before it, as a host sees it; false if it can't have one.
func (p *planner) hasDoor(h *inventory.Host, d *definition) bool {
	if d.Pool == "" {
		return true
	}
	before := len(p.problems)
	if d.Dest.Kind != model.ToPostgres {
		dest := string(d.Dest.Kind)
		if d.Dest.Kind == model.ToPort {
			dest = fmt.Sprint(d.Dest.Port)
		}
		p.problems.Errorf(diag.DoorInvalid, d.poolPos, "dest: postgres, so that the pool is at the door alone",
			"service %q: pool: door is for services with dest: postgres, and this one has dest: %s", d.FullName, dest)
	}
	from, err := netip.ParseAddr(doorHost(d.IP, h.Name))
	if len(d.Allow) > 0 && err == nil && !slices.ContainsFunc(d.Allow, func(n netip.Prefix) bool { return n.Contains(from) }) {
		p.problems.Errorf(diag.DoorInvalid, d.poolPos, fmt.Sprintf("%s in allow, and a firewall or an auth_hba_file of the door's for its clients", from),
			"service %q: allow keeps the door out: its connections come from %s, whoever its clients are", d.FullName, from)
	}
	return len(p.problems) == before
}

// doorHost is the address at which the door of a node reaches a service. A host whose address is a loopback one shares its machine with
// others, and all that it has listens there.
func doorHost(ip, host string) string {
	switch address, err := netip.ParseAddr(ip); {
	case err == nil && address == netip.IPv6Unspecified():
		return "::1"
	case err == nil && !address.IsUnspecified():
		return ip
	case doorIP(host) != "*":
		return host
	}
	return "127.0.0.1"
}

// doorIP is the address that a node's door listens on.
func doorIP(host string) string {
	if isLoopback(host) {
		return host
	}
	return "*"
}

// doorPort reads where the nodes have their door that see a cluster as a host does; 0 if no service of it has one.
func (p *planner) doorPort(h *inventory.Host, definitions []definition) int {
	if !slices.ContainsFunc(definitions, func(d definition) bool { return d.Pool == model.Door }) {
		return 0
	}
	return p.number(h, "pgporter_door_port", defaultDoorPort, 1, 65535)
}

// doorListener is what a node's door listens at; empty if it has none. Clusters that it carries may not say different things of that.
func (p *planner) doorListener(h *inventory.Host, carried []carriedCluster) []listener {
	var found []listener
	first := ""
	for _, c := range carried {
		port := c.view.seen.DoorPort
		if port == 0 {
			continue
		}
		viewer := h
		if p.of[h] != c.cluster {
			viewer = p.primary(c.cluster)
		}
		pos, set := viewer.Position("pgporter_door_port")
		if !set {
			i := slices.IndexFunc(c.view.definitions, func(d definition) bool { return d.Pool == model.Door })
			pos = c.view.definitions[i].poolPos
		}
		l := listener{name: "the door (pgporter_door_port)", position: pos, at: listenAddr(doorIP(h.Name), port)}
		switch {
		case len(found) == 0:
			found, first = []listener{l}, c.cluster.name
			stats := listener{name: "haproxy_exporter_port, the page's and HAProxy's statistics", at: listenAddr("*", p.number(h, "haproxy_exporter_port", 9101, 1, 65535))}
			stats.position, _ = h.Position("haproxy_exporter_port")
			if stats.builtIn = stats.position.Line == 0; stats.at.Overlaps(l.at) && p.flag(h, "haproxy_enabled", true) {
				p.portTaken(l, stats)
			}
		case found[0].at != l.at:
			p.problems.Errorf(diag.DoorTwice, l.position, "one pgporter_door_port for all clusters of a node",
				"a node has one door: on %s it is at port %d for cluster %q (%s) and at %d for cluster %q", h.Name, found[0].at.Port, first, found[0].position, port, c.cluster.name)
		}
	}
	return found
}

// warnOfDoors tells of doors before services that HAProxy carries.
func (p *planner) warnOfDoors(clusters []model.Cluster) {
	for _, c := range clusters {
		for _, d := range c.Definitions {
			if d.Pool == model.Door {
				p.problems.Warnf(diag.DoorBeforeHAProxy, p.named(c.Name).pos, "the native engine, or the service without pool: door",
					"service %q has pool: door, and HAProxy refuses the door's connections while nobody leads, where pgporter would hold them", d.FullName)
			}
		}
	}
}

// doorSuffix is what follows the names of databases at the door before a service of a cluster: nothing before the first whose check passes
// the leader alone, as far as its path tells, and the service's name before the others.
func doorSuffix(d model.Definition, c model.Cluster) string {
	i := slices.IndexFunc(c.Definitions, func(d model.Definition) bool { return d.Pool == model.Door && leads(d) })
	if i >= 0 && c.Definitions[i].Name == d.Name {
		return ""
	}
	return "-" + d.Name
}

// leads tells whether a service's check passes the leader alone.
func leads(d model.Definition) bool {
	path, _, _ := strings.Cut(d.Check, "?")
	return asks(path) == ofLeader
}

// pooling is what a cluster says of its pools, whichever node the door is on.
type pooling struct {
	databases      []pooledDatabase
	users          []pooledUser
	ignored        []string
	authQuery      string
	settings       []doorSetting
	leftOut        []string
	maxConnections int
	// pos is where databases are declared.
	pos diag.Position
}

// pooledDatabase is a database of pg_databases with its pools, whose numbers are for all nodes together: 0 for what isn't said.
type pooledDatabase struct {
	model.DoorDatabase
	pos diag.Position
}

type pooledUser struct {
	model.DoorUser
	pos diag.Position
}

type doorSetting struct {
	model.DoorSetting
	pos diag.Position
}

// doors adds to a site's nodes the PgBouncers before their services. Those are pgporter's: what HAProxy doesn't have of a service, its hold,
// counts for them.
func (p *planner) doors(site *Site) {
	native := newPlanner(p.inv)
	native.haproxy, native.keyless = true, true
	nodes := map[string]int{}
	carried := make([][]model.Cluster, len(site.Nodes))
	for i, h := range p.inv.Hosts() {
		if !slices.ContainsFunc(site.Nodes[i].Plan.Clusters, hasDoors) {
			continue
		}
		clusters, _ := native.one(h)
		carried[i] = slices.DeleteFunc(clusters, func(c model.Cluster) bool { return !hasDoors(c) })
		for _, c := range carried[i] {
			nodes[c.Name]++
		}
	}
	p.problems = append(p.problems, native.problems...)
	poolings := map[string]*pooling{}
	for i, h := range p.inv.Hosts() {
		b := doorBuilder{p: p, host: h, databases: map[string]owner{}, users: map[string]owner{}, settings: map[string]owner{}}
		for _, c := range carried[i] {
			if poolings[c.Name] == nil {
				poolings[c.Name] = p.pooling(p.named(c.Name))
			}
			b.add(c, poolings[c.Name], nodes[c.Name])
		}
		site.Nodes[i].Door = b.door
	}
}

func hasDoors(c model.Cluster) bool {
	return slices.ContainsFunc(c.Definitions, func(d model.Definition) bool { return d.Pool == model.Door })
}

// poolModes are PgBouncer's, with Pigsty's default first.
var poolModes = []string{"transaction", "session", "statement"}

// leastMaxConnections is what the smallest of Pigsty's templates gives PostgreSQL where pg_max_conn is no number, and
// defaultMaxConnections is PostgreSQL's own default.
const (
	leastMaxConnections   = 250
	defaultMaxConnections = 100
	mostConnections       = 262143
)

// ignoredParameters are what drivers send at the start and not every PgBouncer keeps track of.
var ignoredParameters = []string{"extra_float_digits", "options", "IntervalStyle", "search_path"}

// pigstyAuthQuery asks the function that Pigsty makes in each database for pgbouncer_auth_query.
const pigstyAuthQuery = "SELECT username, password FROM monitor.pgbouncer_auth($1)"

// pooling reads what a cluster says of pools, as its primary does.
func (p *planner) pooling(c *cluster) *pooling {
	h := p.viewpoint(c)
	g := &pooling{pos: c.pos, maxConnections: leastMaxConnections, ignored: p.ignored(h), settings: p.doorSettings(h)}
	if at, set := h.Position("pg_databases"); set {
		g.pos = at
	}
	if p.inv.Own() {
		g.maxConnections = defaultMaxConnections
	}
	if v, set := p.variable(h, "pg_max_conn"); set && textOf(v) != "auto" {
		if n, ok := p.whole(v, "pg_max_conn", 20, mostConnections); ok {
			g.maxConnections = n
		}
	}
	mode := poolModes[0]
	if v, set := p.variable(h, "pgbouncer_poolmode"); set {
		mode = p.poolMode(v, "pgbouncer_poolmode")
	}
	var without []string
	p.entriesOf(h, "pg_users", "a user", func(v inventory.Value, name string) {
		if absent(v) || !truthIn(v, "login", true) || !truthIn(v, "pgbouncer", false) {
			return
		}
		u := pooledUser{DoorUser: model.DoorUser{Name: name, Password: p.storedPassword(v, name)}, pos: v.Pos()}
		if u.Password == "" {
			without = append(without, name)
			return
		}
		if m, set := v.Get("pool_mode"); set {
			u.Mode = p.poolMode(m, fmt.Sprintf("pool_mode of the user %q", name))
		}
		u.MaxConnections = p.connections(v, "pool_connlimit", "user", name)
		g.users = append(g.users, u)
	})
	if len(without) > 0 {
		g.leftOut = append(g.leftOut, fmt.Sprintf("cluster %q: no password is known of %s: not in userlist.txt", c.name, strings.Join(without, ", ")))
	}
	authUser := p.authUser(c, h, g)
	p.entriesOf(h, "pg_databases", "a database", func(v inventory.Value, name string) {
		if absent(v) || !truthIn(v, "pgbouncer", true) {
			return
		}
		if !doorKey.MatchString(name) || name == "pgbouncer" {
			p.problems.Errorf(diag.NameInvalid, v.Pos(), "pgbouncer: false for it; letters, digits, dashes, dots and underscores are what PgBouncer's file can name, and pgbouncer is its console",
				"the database %q of cluster %q can't be at the door", name, c.name)
			return
		}
		g.databases = append(g.databases, p.pooledDatabase(c, v, model.DoorDatabase{Database: name, Mode: mode, AuthUser: authUser}, g))
	})
	if len(g.databases) == 0 {
		g.leftOut = append(g.leftOut, fmt.Sprintf("cluster %q: no database of pg_databases is for PgBouncer, so its services have none at the door", c.name))
	}
	return g
}

// doorKey is what PgBouncer's file has for a database's name.
var doorKey = regexp.MustCompile(`^[A-Za-z0-9_.-]+$`)

// pooledDatabase reads a database.
func (p *planner) pooledDatabase(c *cluster, v inventory.Value, d model.DoorDatabase, g *pooling) pooledDatabase {
	if m, set := v.Get("pool_mode"); set {
		d.Mode = p.poolMode(m, fmt.Sprintf("pool_mode of the database %q", d.Database))
	}
	limit := func(key string) int { return p.connections(v, key, "database", d.Database) }
	d.PoolSize, d.MinPoolSize, d.Reserve, d.MaxConnections = limit("pool_size"), limit("pool_size_min"), limit("pool_reserve"), limit("pool_connlimit")
	if who, set := v.Get("pool_auth_user"); set && p.readable(who, fmt.Sprintf("pool_auth_user of the database %q", d.Database)) {
		name, _ := who.Name()
		if slices.ContainsFunc(g.users, func(u pooledUser) bool { return u.Name == name }) {
			d.AuthUser = name
		} else {
			g.leftOut = append(g.leftOut, fmt.Sprintf("cluster %q: pool_auth_user of the database %q is nobody whom the door knows by a password: users that aren't listed can't come in", c.name, d.Database))
		}
	}
	return pooledDatabase{d, v.Pos()}
}

func absent(v inventory.Value) bool {
	state, _ := v.Get("state")
	return textOf(state) == "absent"
}

func textOf(v inventory.Value) string {
	text, _ := v.Text()
	return text
}

// connections reads a number of connections of a user or a database; 0 where there is none, or where it is no limit.
func (p *planner) connections(v inventory.Value, key, what, name string) int {
	value, set := v.Get(key)
	if n, ok := value.WholeNumber(); !set || ok && n == -1 {
		return 0
	}
	n, _ := p.whole(value, fmt.Sprintf("%s of the %s %q", key, what, name), 0, mostConnections)
	return n
}

func (p *planner) poolMode(v inventory.Value, what string) string {
	if mode := textOf(v); slices.Contains(poolModes, mode) {
		return mode
	}
	if p.readable(v, what) {
		p.problems.Errorf(diag.WordUnknown, v.Pos(), suggestion(textOf(v), poolModes), "%s is %s", what, v.Describe())
	}
	return poolModes[0]
}

// storedPassword is a user's as the inventory has it, plain or a hash; empty for none.
func (p *planner) storedPassword(user inventory.Value, name string) model.Secret {
	v, set := user.Get("password")
	if !set || v.Kind() == inventory.Null {
		return ""
	}
	text, ok := v.Name()
	if !ok || strings.ContainsFunc(text, func(r rune) bool { return r < ' ' || r == 0x7f }) {
		p.problems.Errorf(diag.TextInvalid, v.Pos(), "a text of one line", "the password of %q can't be used", name)
		return ""
	}
	return model.Secret(text)
}

// authUser is who looks up users that aren't listed, where pgbouncer_auth_query is on: the administrator, whose password is known.
func (p *planner) authUser(c *cluster, h *inventory.Host, g *pooling) string {
	if !p.flag(h, "pgbouncer_auth_query", false) {
		return ""
	}
	accounts, admin := p.accounts(h)
	i := slices.IndexFunc(accounts, func(a model.Account) bool { return a.Name == admin })
	if accounts[i].Password == "" {
		g.leftOut = append(g.leftOut, fmt.Sprintf("cluster %q: pgbouncer_auth_query takes a plain password of %s, and none is known: users that aren't listed can't come in", c.name, admin))
		return ""
	}
	g.authQuery = pigstyAuthQuery
	if !slices.ContainsFunc(g.users, func(u pooledUser) bool { return u.Name == admin }) {
		pos, _ := h.Position("pgbouncer_auth_query")
		g.users = append(g.users, pooledUser{model.DoorUser{Name: admin, Password: accounts[i].Password}, pos})
	}
	return admin
}

var parameterForm = regexp.MustCompile(`^[A-Za-z_][A-Za-z0-9_.]*$`)

// ignored reads pgbouncer_ignore_param.
func (p *planner) ignored(h *inventory.Host) []string {
	v, set := p.variable(h, "pgbouncer_ignore_param")
	if !set {
		return ignoredParameters
	}
	var names []string
	for _, item := range v.Items() {
		name := textOf(item)
		if !parameterForm.MatchString(name) {
			p.problems.Errorf(diag.NameInvalid, item.Pos(), "the name of a parameter, as in extra_float_digits", "one of pgbouncer_ignore_param is %s", item.Describe())
			continue
		}
		names = append(names, name)
	}
	if v.Kind() != inventory.List {
		p.problems.Errorf(diag.WrongType, v.Pos(), "a list, as in [extra_float_digits]", "pgbouncer_ignore_param is %s", v.Describe())
	}
	return names
}

// settledSettings are PgBouncer's settings that the layout depends on, with where they are said instead.
var settledSettings = map[string]string{
	"listen_port": "pgporter_door_port", "listen_addr": "nothing in its place: a door listens on every address of its node", "pool_mode": "pgbouncer_poolmode",
	"unix_socket_dir": "nothing in its place: pgporter looks for the console there", "auth_file": "nothing in its place: pg_users are written there",
	"so_reuseport": "nothing in its place: pgporter would pause one of several processes", "user": "User= of the unit",
	"ignore_startup_parameters": "pgbouncer_ignore_param",
}

var settingForm = regexp.MustCompile(`^[a-z][a-z0-9_]*$`)

// doorSettings reads pgporter_door_settings, this program's own variable.
func (p *planner) doorSettings(h *inventory.Host) []doorSetting {
	v, set := p.variable(h, "pgporter_door_settings")
	if !set {
		return nil
	}
	if v.Kind() != inventory.Map {
		p.problems.Errorf(diag.WrongType, v.Pos(), "a mapping of PgBouncer's settings, as in { client_tls_sslmode: require }", "pgporter_door_settings is %s", v.Describe())
		return nil
	}
	var settings []doorSetting
	for _, e := range v.Entries() {
		value, ok := e.Value.Name()
		if on, is := e.Value.Truth(); e.Value.Kind() == inventory.Bool && is {
			value, ok = map[bool]string{true: "1", false: "0"}[on], true
		}
		instead, settled := settledSettings[e.Name]
		switch {
		case !settingForm.MatchString(e.Name):
			p.problems.Errorf(diag.KeyUnknown, e.Key.Pos(), "the name of one of PgBouncer's settings", "pgporter_door_settings has a key that is none")
		case settled:
			p.problems.Errorf(diag.KeyUnknown, e.Key.Pos(), instead, "pgporter_door_settings can't say %s", e.Name)
		case !ok || value == "" || !safetext.Is(value):
			p.problems.Errorf(diag.TextInvalid, e.Value.Pos(), "a text of one line, a number, true or false", "%s of pgporter_door_settings can't be used", e.Name)
		default:
			settings = append(settings, doorSetting{model.DoorSetting{Name: e.Name, Value: value}, e.Value.Pos()})
		}
	}
	return settings
}

// owner is whose something of a door is.
type owner struct {
	cluster string
	pos     diag.Position
	is      any
}

// doorBuilder makes the door of one node.
type doorBuilder struct {
	p    *planner
	host *inventory.Host
	door *model.PgBouncerDoor
	// databases, users and settings are whose each is, by their names.
	databases, users, settings map[string]owner
}

// take notes whose something is. It is false if it is there already: a problem, unless both are the same.
func (b *doorBuilder) take(from map[string]owner, name, what, want string, o owner) bool {
	other, again := from[name]
	if !again {
		from[name] = o
		return true
	}
	if other.is != o.is {
		b.p.problems.Errorf(diag.DoorTwice, o.pos, want, "the door of %s would have two %s %q: of cluster %q and of cluster %q (%s)", b.host.Name, what, name, o.cluster, other.cluster, other.pos)
	}
	return false
}

// mostHold is how many seconds a switchover may hold clients at most.
const mostHold = 60

// add adds a cluster's services, of which some have a door on so many nodes.
func (b *doorBuilder) add(c model.Cluster, g *pooling, nodes int) {
	if b.door == nil {
		b.door = &model.PgBouncerDoor{IP: doorIP(b.host.Name), Port: c.DoorPort}
	}
	share := model.DoorShare{Cluster: c.Name, Nodes: nodes, Databases: len(g.databases), MaxConnections: g.maxConnections}
	for _, d := range c.Definitions {
		if d.Pool == model.Door {
			share.Services++
		}
	}
	limit := fairShare(g, share)
	for _, d := range c.Definitions {
		if d.Pool != model.Door {
			continue
		}
		b.door.MaxClients += d.MaxConn
		hold := max(mostHold, 2*c.TTL)
		if d.Hold != nil {
			hold = max(hold, int(d.Hold.For.Seconds()))
		}
		b.door.Patience = max(b.door.Patience, hold+30)
		b.door.Spread = b.door.Spread || !leads(d)
		for _, one := range g.databases {
			db := one.DoorDatabase
			db.Name, db.Service, db.Host, db.Port = db.Database+doorSuffix(d, c), d.FullName, doorHost(d.IP, b.host.Name), d.Port
			each := func(n int) int { return min(max(n/nodes, 1), n) }
			if db.MaxConnections = each(db.MaxConnections); db.MaxConnections == 0 {
				db.MaxConnections = limit
			}
			if db.PoolSize = each(db.PoolSize); db.PoolSize == 0 {
				db.PoolSize = db.MaxConnections
			}
			db.MinPoolSize, db.Reserve = each(db.MinPoolSize), each(db.Reserve)
			share.Together += nodes * db.MaxConnections
			if b.take(b.databases, db.Name, "databases", "another name for one of them, or other nodes for its cluster", owner{c.Name, one.pos, db}) {
				b.door.Databases = append(b.door.Databases, db)
			}
		}
	}
	for _, u := range g.users {
		u.MaxConnections = min(max(u.MaxConnections/nodes, 1), u.MaxConnections)
		if b.take(b.users, u.Name, "passwords, or other pools, for the user", "the same in both clusters, or another user in one of them", owner{c.Name, u.pos, u.DoorUser}) {
			b.door.Users = append(b.door.Users, u.DoorUser)
		}
	}
	for _, s := range g.settings {
		if b.take(b.settings, s.Name, "values of", "the same value in both", owner{c.Name, s.pos, s.DoorSetting}) {
			b.door.Settings = append(b.door.Settings, s.DoorSetting)
		}
	}
	for _, name := range g.ignored {
		if !slices.Contains(b.door.IgnoredParameters, name) {
			b.door.IgnoredParameters = append(b.door.IgnoredParameters, name)
		}
	}
	b.door.AuthQuery = cmp.Or(b.door.AuthQuery, g.authQuery)
	b.door.Shares = append(b.door.Shares, share)
	b.door.LeftOut = append(b.door.LeftOut, g.leftOut...)
	if share.Together > share.MaxConnections {
		b.p.problems.Warnf(diag.PoolsTooLarge, g.pos, "a lower pool_connlimit of the databases, or a pg_max_conn that says what max_connections is",
			"cluster %q: its pools (nodes with a door: %d, databases: %d, services behind the door: %d) may have %d connections to the primary, and max_connections is %d",
			c.Name, share.Nodes, share.Databases, share.Services, share.Together, share.MaxConnections)
	}
}

// fairShare is how many connections a database without a pool_connlimit has at most, on one node and before one service, so that those of
// all together leave a quarter of max_connections to whoever comes past the door.
func fairShare(g *pooling, share model.DoorShare) int {
	left, rest := g.maxConnections*3/4, 0
	for _, one := range g.databases {
		if one.MaxConnections > 0 {
			left -= one.MaxConnections * share.Services
		} else {
			rest += share.Nodes * share.Services
		}
	}
	return max(left/max(rest, 1), 1)
}
