package connstr

import (
	"fmt"
	"slices"
	"strings"

	"github.com/pgporter/pgporter/internal/config/diag"
	"github.com/pgporter/pgporter/internal/config/model"
)

// By is what a client calls the node that it connects to.
type By string

// The kinds of endpoints, in the order in which they are listed.
const (
	ByDNS      By = "dns"
	ByVIP      By = "vip"
	ByInstance By = "instance"
	ByIP       By = "ip"
	BySmart    By = "smart"
)

// Kinds are all that By may be.
var Kinds = []By{ByDNS, ByVIP, ByInstance, ByIP, BySmart}

// Role is what must answer at an endpoint.
type Role string

// Roles. Anything is what a service says nothing of, and what one instance's own port has.
const (
	Anything Role = ""
	Primary  Role = "primary"
	Standby  Role = "standby"
)

// Names of the members' own ports, where services have theirs.
const (
	Postgres  = "postgres"
	PgBouncer = "pgbouncer"
)

// Endpoint is one address of a cluster for its clients: hosts with a port each, and who comes.
type Endpoint struct {
	By By
	// Service is a service's short name, or Postgres or PgBouncer; FullName has the cluster's before it.
	Service, FullName string
	Hosts             []string
	Ports             []int
	User, Database    string
	Password          model.Secret
	// Path says what is passed before the server.
	Path string
	// Session is what the client itself looks for among several hosts: libpq's target_session_attrs, primary or prefer-standby.
	Session string
	// Spread says that it takes the hosts in an order of its own each time.
	Spread bool
	// Pooled says that clients go through a PgBouncer, Through that they go through a pgporter.
	Pooled, Through bool
	// Door says that the PgBouncer is before the pgporter.
	Door bool
	// Want is what has to answer; Fallback says that another may answer in its stead. Instance is the only member that may.
	Want     Role
	Fallback bool
	Instance string
	// Vacant says that nobody is declared to serve it.
	Vacant bool
}

// Choice says which endpoints are wanted; what is empty isn't chosen.
type Choice struct {
	By             By
	Service        string
	User, Database string
}

// Endpoints lists the endpoints of a cluster, as they are defined: by name, virtual address, instances' names, their
// addresses, and by clients that choose among hosts themselves; each of them to PostgreSQL, to PgBouncer and to the services.
// The error says which part of the choice there isn't.
func Endpoints(a model.Access, choice Choice) ([]Endpoint, error) {
	if err := known(a, choice); err != nil {
		return nil, err
	}
	l := lister{a: a, choice: choice}
	l.database = l.chooseDatabase()
	primary := a.Members[a.Primary]
	if a.Name != "" {
		l.point(ByDNS, a.Name, "DNS -> "+l.target(), primary)
	}
	if a.VIP != "" {
		l.point(ByVIP, a.VIP, "L2 VIP -> ", primary)
	}
	for _, m := range a.Members {
		l.instance(ByInstance, m.Name, "DNS -> ", m)
	}
	for _, m := range a.Members {
		l.instance(ByIP, m.Host, "", m)
	}
	l.elsewhere()
	l.smart()
	if len(l.endpoints) == 0 {
		return nil, fmt.Errorf("%s of cluster %q can't be reached by %s: %s", orServices(choice.Service), a.Cluster, choice.By, l.whyNot())
	}
	return l.endpoints, nil
}

func orServices(name string) string {
	if name == "" {
		return "the services"
	}
	return fmt.Sprintf("service %q", name)
}

// known refuses what there isn't.
func known(a model.Access, choice Choice) error {
	names := []string{Postgres}
	if a.Pooled {
		names = append(names, PgBouncer)
	}
	for _, o := range a.Offers {
		names = append(names, o.Name)
		if o.DoorPort > 0 {
			names = append(names, o.Name+atDoor)
		}
	}
	if short := strings.TrimPrefix(choice.Service, a.Cluster+"-"); short != "" && !slices.Contains(names, short) && !slices.Contains(names, choice.Service) {
		if near := diag.Nearest(short, names); near != "" {
			return fmt.Errorf("cluster %q has no service %q: did you mean %s", a.Cluster, choice.Service, near)
		}
		return fmt.Errorf("cluster %q has no service %q: one of %s", a.Cluster, choice.Service, strings.Join(names, ", "))
	}
	switch {
	case choice.By == ByVIP && a.VIP == "":
		return fmt.Errorf("cluster %q has no virtual address: pg_vip_enabled with pg_vip_address gives it one", a.Cluster)
	case choice.By == ByDNS && a.Name == "":
		return fmt.Errorf("cluster %q has no name of its own: its pg_dns_target is none", a.Cluster)
	case len(a.Members) == 0:
		return fmt.Errorf("cluster %q has no members", a.Cluster)
	}
	return nil
}

// lister gathers endpoints.
type lister struct {
	a         model.Access
	choice    Choice
	database  string
	endpoints []Endpoint
	bound     []string
}

func (l *lister) whyNot() string {
	if len(l.bound) > 0 {
		return strings.Join(l.bound, ", ") + " listens on addresses of its own, which only ip and smart give"
	}
	return "other hosts than the members carry it, which only ip and smart give"
}

// target says what the cluster's name resolves to.
func (l *lister) target() string {
	switch l.a.Target {
	case l.a.VIP:
		return "L2 VIP -> "
	case model.TargetPrimary:
		return "primary's node -> "
	}
	return l.a.Target + " -> "
}

// add keeps an endpoint if it is one of those chosen.
func (l *lister) add(w Endpoint) {
	if l.choice.By != "" && l.choice.By != w.By {
		return
	}
	if s := l.choice.Service; s != "" && s != w.Service && s != w.FullName {
		return
	}
	w.Database = l.database + w.Database
	l.endpoints = append(l.endpoints, w)
}

// point lists the endpoints at something that follows the primary's node.
func (l *lister) point(by By, host, before string, primary model.Member) {
	w := Endpoint{By: by, Service: Postgres, Hosts: []string{host}, Ports: []int{primary.PostgresPort}, Path: before + "primary direct connection", Want: Primary}
	// A fixed address promises no role.
	if by == ByDNS && l.a.Target != model.TargetPrimary && l.a.Target != l.a.VIP {
		w.Want = Anything
	}
	l.add(l.own(w))
	if l.a.Pooled {
		w.Service, w.Ports, w.Path, w.Pooled = PgBouncer, []int{primary.PgBouncerPort}, before+"primary connection pool -> primary", true
		l.add(l.own(w))
	}
	if l.a.Delegated {
		return
	}
	for _, o := range l.a.Offers {
		if o.Bound && host != o.IP {
			l.bound = append(l.bound, o.FullName)
			continue
		}
		l.reach(by, []string{host}, []int{o.Ports[max(0, slices.Index(o.At, primary.Host))]}, before, o)
	}
}

// instance lists the endpoints at one member's node.
func (l *lister) instance(by By, host, before string, m model.Member) {
	w := Endpoint{By: by, Service: Postgres, Hosts: []string{host}, Ports: []int{m.PostgresPort}, Path: before + "instance direct connection", Instance: m.Name}
	l.add(l.own(w))
	if l.a.Pooled {
		w.Service, w.Ports, w.Path, w.Pooled = PgBouncer, []int{m.PgBouncerPort}, before+"connection pool -> instance", true
		l.add(l.own(w))
	}
	for _, o := range l.a.Offers {
		if i := slices.Index(o.At, m.Host); i >= 0 {
			l.reach(by, []string{host}, o.Ports[i:i+1], before, o)
		}
	}
}

// elsewhere lists the services that are at addresses which are no member's.
func (l *lister) elsewhere() {
	for _, o := range l.a.Offers {
		hosts, ports := once(o.At, o.Ports)
		for i, host := range hosts {
			if !slices.ContainsFunc(l.a.Members, func(m model.Member) bool { return m.Host == host }) {
				l.reach(ByIP, []string{host}, ports[i:i+1], "", o)
			}
		}
	}
}

// reach adds an endpoint of a service.
func (l *lister) reach(by By, hosts []string, ports []int, before string, o model.Offer) {
	check, _, _ := strings.Cut(o.Check, "?")
	w := Endpoint{By: by, Service: o.Name, FullName: o.FullName, Hosts: hosts, Ports: ports, Through: true,
		Want: wanted(o.Check), Fallback: !o.Backup.None() || check == "/read-only", Pooled: o.Dest.Kind == model.ToPgBouncer,
		Vacant: o.Vacant}
	role := o.Name
	if w.Want == Primary {
		role = string(Primary)
	}
	w.Path = before + "pgporter -> " + role
	switch {
	case o.Vacant:
		w.Path = before + "pgporter -> nobody: the service selects no member"
	case o.PoolerOff:
		w.Path = before + "pgporter -> nobody: PgBouncer is turned off"
	case o.Dest.Kind == model.ToPgBouncer:
		w.Path += " connection pool -> " + role
	case o.Dest.Kind == model.ToPostgres:
		w.Path += " direct connection"
	default:
		w.Path += fmt.Sprintf(", port %d", o.Dest.Port)
	}
	l.add(l.as(w, l.guest(o)))
	atPool := func(d model.Database) bool { return d.Name == l.database && d.Pooled }
	if o.DoorPort == 0 || o.Vacant || l.choice.Database == "" && !slices.ContainsFunc(l.a.Databases, atPool) {
		return
	}
	w.Service, w.FullName, w.Ports = w.Service+atDoor, w.FullName+atDoor, slices.Repeat([]int{o.DoorPort}, len(hosts))
	w.Pooled, w.Door, w.Database = true, true, o.DoorSuffix
	w.Path = before + "connection pool at the door -> pgporter -> " + role + " direct connection"
	l.add(l.as(w, l.application()))
}

// atDoor follows the name of a service whose way through the door is meant.
const atDoor = "-door"

// smart lists the endpoints of clients that choose among hosts.
func (l *lister) smart() {
	hosts := make([]string, 0, len(l.a.Members))
	var pools, servers []int
	for _, m := range l.a.Members {
		hosts, pools, servers = append(hosts, m.Host), append(pools, m.PgBouncerPort), append(servers, m.PostgresPort)
	}
	each := func(w Endpoint, path string) {
		w.By, w.Hosts = BySmart, hosts
		w.Session, w.Want, w.Path = "primary", Primary, "the client looks for the primary -> "+path
		l.add(l.own(w))
		w.Session, w.Want, w.Fallback, w.Path = "prefer-standby", Standby, true, "the client looks for a standby, or else the primary -> "+path
		l.add(l.own(w))
		w.Spread, w.Path = true, "the client looks for a standby, not always for the same -> "+path
		l.add(l.own(w))
	}
	each(Endpoint{Service: Postgres, Ports: servers}, "direct connection")
	if l.a.Pooled {
		each(Endpoint{Service: PgBouncer, Ports: pools, Pooled: true}, "connection pool")
	}
	for _, o := range l.a.Offers {
		hosts, ports := once(o.At, o.Ports)
		l.reach(BySmart, hosts, ports, "the first node that answers -> ", o)
	}
}

// once leaves out what is there twice.
func once(hosts []string, ports []int) (at []string, on []int) {
	for i, h := range hosts {
		if j := slices.Index(at, h); j < 0 || on[j] != ports[i] {
			at, on = append(at, h), append(on, ports[i])
		}
	}
	return at, on
}

// wanted tells from a service's check what answers (Patroni's documentation, "REST API", health check endpoints).
func wanted(check string) Role {
	path, _, _ := strings.Cut(check, "?")
	switch strings.Trim(path, "/") {
	case "", "primary", "master", "read-write", "leader":
		return Primary
	case "replica", "sync", "synchronous", "async", "asynchronous", "standby-leader", "standby_leader", "read-only":
		return Standby
	}
	return Anything
}

// own completes an endpoint at a member's own port.
func (l *lister) own(w Endpoint) Endpoint {
	w.FullName = l.a.Cluster + "-" + w.Service
	return l.as(w, l.application())
}
