package intake

import (
	"errors"
	"fmt"
	"net/netip"
	"regexp"
	"slices"
	"strings"

	"github.com/pgporter/pgporter/internal/config/jmespath"
	"github.com/pgporter/pgporter/internal/config/model"
	"github.com/pgporter/pgporter/internal/config/safetext"
	"github.com/pgporter/pgporter/internal/config/tcpservice"
)

// checker gathers what is wrong.
type checker struct {
	problems []placed
	// path is where what is looked at is, as in plan.clusters[0].
	path string
	// local says that it wasn't sent: words are taken that may name something of the node's.
	local bool
	// services are the names taken so far, taken the addresses with whose they are.
	services map[string]bool
	taken    model.Listeners[string]
}

// placed is a problem with where it is.
type placed struct {
	path string
	error
}

func newChecker() *checker { return &checker{services: map[string]bool{}} }

func validate(o Order) error {
	c := newChecker()
	c.that(remark(o.Source), "source: printable text of at most %d bytes", MaxRemark)
	c.that(remark(o.Sender), "sender: printable text of at most %d bytes", MaxRemark)
	c.plan(o.Plan)
	return c.err()
}

func (c *checker) plan(p model.Plan) {
	c.path = "plan.node"
	c.that(model.IsHost(p.Node), "node is %q: the inventory host that the plan is for", p.Node)
	clusters := map[string]bool{}
	for i, one := range p.Clusters {
		c.path = fmt.Sprintf("plan.clusters[%d]", i)
		c.that(model.IsClusterName(one.Name), "cluster %q: its name has to be letters, digits and dashes, and not root", one.Name)
		c.that(!clusters[one.Name], "cluster %s is there twice", one.Name)
		clusters[one.Name] = true
		c.cluster(one)
	}
	for i, g := range p.TCPServices {
		c.path = fmt.Sprintf("plan.generic_services[%d]", i)
		c.tcpService(g)
	}
	c.door(p)
	c.names(p, clusters)
}

// door checks where the node's PgBouncer before services is: one for all clusters, beside all services.
func (c *checker) door(p model.Plan) {
	ip := "*"
	if at, err := netip.ParseAddr(p.Node); err == nil && at.IsLoopback() {
		ip = p.Node
	}
	first := 0
	for i, one := range p.Clusters {
		within, at := fmt.Sprintf("cluster %s: door_port", one.Name), fmt.Sprintf("plan.clusters[%d]", i)
		c.path = at
		if !slices.ContainsFunc(one.Definitions, func(d model.Definition) bool { return d.Pool == model.Door }) {
			c.that(one.DoorPort == 0, "%s is %d, and no service has a pool at the door", within, one.DoorPort)
			continue
		}
		c.port(within, one.DoorPort)
		switch {
		case first == 0:
			first = one.DoorPort
			if addr, err := model.ListenAddrOf(ip, first); err == nil {
				for _, other := range c.taken.Overlapping(addr, 1) {
					c.that(false, "%s: port %d is taken on the same node by service %s", within, first, other)
				}
			}
		default:
			c.that(first == one.DoorPort, "%s is %d, and that of another cluster %d: a node has one door", within, one.DoorPort, first)
		}
	}
}

// maxProblems bounds what is reported of one order.
const maxProblems = 100

func (c *checker) err() error {
	var all []error
	for _, p := range c.problems {
		if len(all) == maxProblems {
			all = append(all, fmt.Errorf("and %d more", len(c.problems)-maxProblems))
			break
		}
		all = append(all, p.error)
	}
	return errors.Join(all...)
}

// that notes a problem unless something holds.
func (c *checker) that(holds bool, format string, args ...any) {
	if !holds {
		c.problems = append(c.problems, placed{c.path, fmt.Errorf(format, args...)})
	}
}

func (c *checker) cluster(one model.Cluster) {
	within, at := "cluster "+one.Name, c.path
	defer func() { c.path = at }()
	c.that(one.TTL >= 1, "%s: ttl is %d: 1 or more seconds", within, one.TTL)
	c.that(one.KeyPath == "" || model.IsKeyPath(one.KeyPath), "%s: key_path is %q: a path in etcd, as in /pg/pg-test", within, one.KeyPath)
	members := map[string]bool{}
	primary := ""
	for i, m := range one.Members {
		c.path = fmt.Sprintf("%s.members[%d]", at, i)
		c.that(model.IsName(m.Name), "%s: %q can't be a member's name", within, m.Name)
		c.that(!members[m.Name], "%s: member %s is there twice", within, m.Name)
		members[m.Name] = true
		c.member(fmt.Sprintf("%s: member %s", within, m.Name), m)
		if m.Role != model.Primary {
			continue
		}
		c.that(primary == "", "%s: %s is a second primary beside %s", within, m.Name, primary)
		primary = m.Name
	}
	for i, d := range one.Definitions {
		c.path = fmt.Sprintf("%s.services[%d]", at, i)
		c.definition(one.Name, d)
	}
	if one.VIP != nil {
		c.path = at + ".vip"
		c.virtual(within+": vip", *one.VIP, one.TTL)
		c.that(members[one.VIP.Member], "%s: vip: %q isn't a member", within, one.VIP.Member)
	}
}

func (c *checker) virtual(what string, v model.VirtualIP, ttl int) {
	address := v.Address.Addr()
	c.that(v.Address.IsValid() && address.Zone() == "" && v.Address.Bits() > 0 && !address.IsUnspecified() && !address.IsMulticast(),
		"%s: address is %q: one with the length of its network, as in 10.10.10.2/24", what, v.Address)
	c.that(v.Interface == "" || model.IsInterface(v.Interface), "%s: interface is %q: a name as in eth0", what, v.Interface)
	c.that(model.IsHost(v.Host), "%s: host is %q: an address or a host name", what, v.Host)
	c.that(slices.Contains(model.LossPolicies, v.OnLoss), "%s: on_dcs_loss is %q: one of %v", what, v.OnLoss, model.LossPolicies)
	c.that(ttl >= model.LeastVIPTTL, "%s: the ttl of %d s is too short: at least %d", what, ttl, model.LeastVIPTTL)
}

func (c *checker) member(what string, m model.Member) {
	c.that(model.IsHost(m.Host), "%s: host is %q: an address or a host name", what, m.Host)
	c.that(slices.Contains(model.Roles, m.Role), "%s: role is %q: one of %v", what, m.Role, model.Roles)
	c.port(what+": postgres_port", m.PostgresPort)
	c.port(what+": pgbouncer_port", m.PgBouncerPort)
	c.port(what+": patroni_port", m.PatroniPort)
	c.weight(what, m.Weight)
	if role, set := m.Vars["pg_role"]; set {
		c.that(role == string(m.Role), "%s: its variable pg_role is %v, its role %s", what, role, m.Role)
	}
}

func (c *checker) definition(cluster string, d model.Definition) {
	what := "service " + d.FullName
	c.that(model.IsName(d.Name) && d.FullName == cluster+"-"+d.Name, "cluster %s: service %q has the full name %q: the cluster's name, a dash and its own", cluster, d.Name, d.FullName)
	c.listenAddr(what, d.FullName, d.IP, d.Port)
	c.expression(what+": selector", d.Selector)
	if !d.Backup.None() {
		c.expression(what+": backup", d.Backup)
	}
	switch d.Dest.Kind {
	case model.ToPostgres, model.ToPgBouncer:
		c.that(d.Dest.Port == 0, "%s: dest %s has a port of its own, %d", what, d.Dest.Kind, d.Dest.Port)
	case model.ToPort:
		c.port(what+": dest", d.Dest.Port)
	default:
		c.that(false, "%s: dest is %q: postgres, pgbouncer or port", what, d.Dest.Kind)
	}
	c.that(d.Pool == "" || d.Pool == model.Door, "%s: pool is %q: door, or none", what, d.Pool)
	c.that(d.Pool == "" || d.Dest.Kind == model.ToPostgres, "%s: pool %s goes with dest postgres, and it is %s", what, d.Pool, d.Dest.Kind)
	c.that(model.IsCheckPath(d.Check), "%s: check is %q: a path of Patroni's REST API", what, d.Check)
	c.maxConn(what, d.MaxConn)
	c.networks(what, d.Allow)
	c.balance(what, string(d.Balance))
	// An order without options has none of the defaults of ParseOptions either.
	c.that(d.Options.Inter > 0, "%s: options are missing", what)
	c.words(what+": options", d.Options.Text)
}

// Native says what of a plan the native engine can't carry, though HAProxy could; nil if there is nothing.
func Native(p model.Plan) error {
	c := newChecker()
	c.native(p)
	return c.err()
}

// HAProxy says what of a plan HAProxy can't do, though the native engine could; nil if there is nothing.
func HAProxy(p model.Plan) error {
	c := newChecker()
	c.haproxy(p)
	return c.err()
}

func (c *checker) haproxy(p model.Plan) {
	for i, one := range p.Clusters {
		for j, d := range one.Definitions {
			c.path = fmt.Sprintf("plan.clusters[%d].services[%d]", i, j)
			c.that(d.Hold == nil, "service %s: hold %v: HAProxy keeps no client waiting for a failover; a plan for HAProxy has no hold", d.FullName, d.Hold)
		}
	}
}

func (c *checker) native(p model.Plan) {
	for i, one := range p.Clusters {
		for j, d := range one.Definitions {
			c.path = fmt.Sprintf("plan.clusters[%d].services[%d]", i, j)
			what := "service " + d.FullName
			c.that(d.Balance.Native(), "%s: balance %s is not supported by the native engine", what, d.Balance)
			for _, o := range d.Options.Refused() {
				c.that(false, "%s: option %s %s", what, o.Word, o.What)
			}
		}
	}
	for i, g := range p.TCPServices {
		c.path = fmt.Sprintf("plan.generic_services[%d]", i)
		_, problems := tcpservice.Parse(g)
		for _, what := range tcpservice.Errors(g, problems) {
			c.that(false, "%s", what)
		}
	}
}

func (c *checker) tcpService(g model.TCPService) {
	what, at := "service "+g.Name, c.path
	c.that(model.IsName(g.Name), "%q can't be a service's name", g.Name)
	c.listenAddr(what, g.Name, g.IP, g.Port)
	c.that(g.Protocol == "tcp" || g.Protocol == "http", "%s: protocol is %q: tcp or http", what, g.Protocol)
	c.maxConn(what, g.MaxConn)
	c.networks(what, g.Allow)
	c.balance(what, g.Balance)
	c.line(what+": default", g.Default)
	c.words(what+": default", g.Default)
	for i, o := range g.Options {
		c.line(what+": options", o)
		why, offset := tcpservice.NotFromElsewhere(o)
		c.that(c.local || why == "", "%s: options: line %d, column %d, can't be sent to a node: %s; %s", what, i+1, offset+1, why, saidLocally)
	}
	servers := map[string]bool{}
	for i, s := range g.Servers {
		c.path = fmt.Sprintf("%s.servers[%d]", at, i)
		one := fmt.Sprintf("%s: server %s", what, s.Name)
		c.that(model.IsName(s.Name), "%s: %q can't be a server's name", what, s.Name)
		c.that(!servers[s.Name], "%s is there twice", one)
		servers[s.Name] = true
		c.that(model.IsHost(s.Host), "%s: host is %q: an address or a host name", one, s.Host)
		c.port(one+": port", s.Port)
		if s.Weight != nil {
			c.weight(one, *s.Weight)
		}
		c.line(one+": options", s.Options)
		c.words(one+": options", s.Options)
	}
}

// listenAddr checks where a service listens, by itself and beside the others.
func (c *checker) listenAddr(what, name, ip string, port int) {
	c.that(!c.services[name], "%s is there twice", what)
	c.services[name] = true
	c.that(ip == "*" || model.IsAddress(ip), `%s: ip is %q: an address, or "*" for every address of the node`, what, ip)
	c.port(what+": port", port)
	at, err := model.ListenAddrOf(ip, port)
	if err != nil {
		return
	}
	for _, other := range c.taken.Overlapping(at, 1) {
		c.that(false, "%s: port %d is taken on the same node by service %s", what, port, other)
	}
	c.taken.Add(at, name)
}

func (c *checker) expression(what string, s *jmespath.Selector) {
	if err := s.Err(); err != nil {
		c.that(false, "%s, %w", what, err)
	}
}

func (c *checker) port(what string, n int) {
	c.that(n >= 1 && n <= 65535, "%s is %d: 1 to 65535", what, n)
}

func (c *checker) weight(what string, n int) {
	c.that(n >= 0 && n <= 256, "%s: weight is %d: 0 to 256", what, n)
}

func (c *checker) maxConn(what string, n int) {
	c.that(n >= 1 && n <= 1<<31-1, "%s: maxconn is %d: 1 or more", what, n)
}

func (c *checker) networks(what string, allow model.Networks) {
	c.that(len(allow) <= model.MaxNetworks, "%s: allow has %d entries: %d at most", what, len(allow), model.MaxNetworks)
	for _, network := range allow {
		c.that(network.IsValid() && network == network.Masked() && network.Addr().Zone() == "" && !network.Addr().Is4In6(),
			"%s: allow: %q: networks as in 10.0.0.0/8", what, network)
	}
}

func (c *checker) balance(what, algorithm string) {
	c.that(algorithm != "", "%s: balance is missing", what)
	c.line(what+": balance", algorithm)
	c.that(c.local || harmlessBalance.MatchString(algorithm), "%s: balance %q can't be sent to a node: it isn't known to name no file, script or variable; %s", what, algorithm, saidLocally)
}

// harmlessBalance has the algorithms that name nothing of the node's. `hash` isn't among them: it takes an expression, which may be
// of variables and files.
var harmlessBalance = regexp.MustCompile(`^(roundrobin|static-rr|leastconn|first|source|random|uri|url_param|hdr|rdp-cookie)(\([\w,-]*\))?( [\w-]+)*$`)

// saidLocally is where words may be said that aren't taken from elsewhere.
const saidLocally = "say it in an inventory that the node reads itself"

// words checks that a text of server options names nothing of the node's.
func (c *checker) words(what, text string) {
	if c.local {
		return
	}
	for _, p := range model.NotFromElsewhere(text) {
		c.that(false, "%s: column %d: %s can't be sent to a node: it %s; %s", what, p.Offset+1, p.Word, p.What, p.Want)
	}
}

// line checks words for HAProxy, which must not leave their line.
func (c *checker) line(what, text string) {
	c.that(safetext.Is(strings.ReplaceAll(text, "\t", " ")), "%s: %q is more than one line, or has characters that don't show", what, text)
}
