package cluster

import (
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"time"

	"github.com/pgporter/pgporter/internal/config/model"
	"github.com/pgporter/pgporter/internal/config/resolve"
	"github.com/pgporter/pgporter/internal/monitor/health"
	"github.com/pgporter/pgporter/internal/monitor/view"
)

// State is all that a loop knows of its cluster. It is a value: Step gives the next one and leaves the old as it was.
type State struct {
	cluster  model.Cluster
	resolver *resolve.Resolver
	set      model.Set
	// wanted are the set's checks, each with the smallest inter of its services.
	wanted map[health.Target]time.Duration
	// generation rises with each new set.
	generation uint64
	// live are the roles that the set was resolved with.
	live map[string]model.Role
	// primary is the elected leader; empty if there is none. confirmed says that it was elected by its own words, not by
	// declaration.
	primary   string
	confirmed bool
	// keyed says that the primary was elected because it holds the leader key, by its own words or etcd's.
	keyed bool
	// key is what etcd says.
	key keys
	// system is the cluster's system identifier; empty while unknown. strangers are the members that were last reported to
	// have another one.
	system    string
	strangers []string
	// switchover and searching are until when a primary is watched closely because it was asked to stop, and a new one is
	// looked for closely; zero in peace.
	switchover, searching time.Time
	// leaving is until when the primary gets no new clients because it is about to stop; leavingFrom is when that begins, zero once
	// it has.
	leaving, leavingFrom time.Time
	// claimants are the members that were last reported to claim the leader key together, or against it.
	claimants []string
	members   map[string]member
	// known holds the last outcome of every check that is running now.
	known   map[health.Target]outcome
	servers map[serverKey]server
	// ports are the ports of the servers' services.
	ports map[health.Target]port
	// serving are the services that had a usable server at the last step.
	serving map[string]bool
	// epoch is the highest one given to a server.
	epoch uint64
	view  *view.View
	// posted is the set's generation in the view.
	posted uint64
}

// outcome is a check's result and when it was there.
type outcome struct {
	health.Outcome
	at time.Time
}

type serverKey struct{ service, member string }

// server is a member's part in one service.
type server struct {
	machine health.Machine
	target  health.Target
	// port is the destination.
	port  health.Target
	host  string
	epoch uint64
	// ended says why the epoch rose last.
	ended string
	up    bool
	since time.Time
	// failed says that it has been down since it was up last, recovered when it was up again after that.
	failed    bool
	recovered time.Time
	// usable says that it was up as a regular server with a weight at the last step.
	usable bool
	// status is what was last said of it.
	status status
}

// status is a server's condition as operators see it.
type status int

const (
	unchecked status = iota
	up
	paused
	contested
	// portClosed: the check passes, the port lets nobody in.
	portClosed
	// leaving: it was asked to stop.
	leaving
	down
)

// Event is what a State is stepped with: Checked, Probed, Keyed, Planned or Ticked.
type Event interface{ event() }

// Checked is a check's result. One that isn't asked for any more is ignored.
type Checked struct{ health.Result }

// Planned is a new declaration of the same cluster, with its selectors compiled.
type Planned struct {
	Cluster  model.Cluster
	Resolver *resolve.Resolver
	// Prepared are its services by the roles of a moment ago. They are taken if it can't be resolved with those of now; without
	// them it is refused then.
	Prepared *model.Set
	// Rewatched says that its keys are read elsewhere, or not at all, from now on: what was read before is void.
	Rewatched bool
}

// Ticked is the passing of time: due at State.Deadline.
type Ticked struct{}

func (Checked) event() {}
func (Planned) event() {}
func (Ticked) event()  {}

// Actions are what a step wants done, in the order of the fields. Whoever does it publishes the View first, since clients go by it,
// and logs last: when a line of the log is written, all that it tells of is done, however long the line takes.
type Actions struct {
	// View is to be published; nil if nothing that readers see has changed.
	View *view.View
	// Checks are all that shall run; nil if they stay as they are.
	Checks []health.Check
	// Intervals are those of running checks.
	Intervals map[health.Target]time.Duration
	// Probes and ProbeIntervals are the same for the ports of the services.
	Probes         []health.Check
	ProbeIntervals map[health.Target]time.Duration
	// Recheck are members to run a round of checks for at once.
	Recheck []string
	// Confirm asks for etcd's keys to be read at once: a member contradicts them.
	Confirm bool
	// Log is to be written, after everything else.
	Log []Message
	// Refused says why a Planned was not taken; the state is then what it was.
	Refused error
}

// Message is a line of the log.
type Message struct {
	Level slog.Level
	Text  string
}

func (a *Actions) logf(level slog.Level, format string, args ...any) {
	a.Log = append(a.Log, Message{level, fmt.Sprintf(format, args...)})
}

func (a *Actions) recheck(members ...string) {
	for _, m := range members {
		if !slices.Contains(a.Recheck, m) {
			a.Recheck = append(a.Recheck, m)
		}
	}
}

// answeredGap is how old a View may grow while nothing in it changes but when members answered last.
const answeredGap = 5 * time.Second

// Begin makes the State of a cluster of which nothing is known yet, with its first View and checks.
func Begin(p Planned, now time.Time) (State, Actions) {
	s := State{
		members: map[string]member{}, known: map[health.Target]outcome{}, servers: map[serverKey]server{},
		ports: map[health.Target]port{}, serving: map[string]bool{},
	}
	var a Actions
	s.plan(p, &a, now)
	if a.Refused == nil {
		s.conclude(&a, now)
		a.Log = nil
	}
	return s, a
}

// Step takes an event into account. It is pure: the same state, event and time give the same result.
func Step(s State, e Event, now time.Time) (State, Actions) {
	next, a := s.clone(), Actions{}
	switch e := e.(type) {
	case Checked:
		if !next.checked(e, &a) {
			return s, Actions{}
		}
	case Probed:
		if !next.probed(e) {
			return s, Actions{}
		}
	case Keyed:
		next.hear(e.Reading, &a, now)
	case Planned:
		if next.plan(e, &a, now); a.Refused != nil {
			return s, a
		}
	}
	if at, limited := next.Deadline(); limited && !now.Before(at) {
		next.each(func(_ serverKey, m health.Machine) (health.Machine, bool) {
			m, verdict := m.Tick(now)
			return m, verdict.EndSessions
		})
	}
	next.expireTimers(now)
	next.roles(&a, now)
	next.fence()
	next.conclude(&a, now)
	return next, a
}

// Deadline is when a Ticked is due; false if only events change anything.
func (s *State) Deadline() (time.Time, bool) {
	var first time.Time
	for _, v := range s.servers {
		if at, limited := v.machine.Deadline(); limited && (first.IsZero() || at.Before(first)) {
			first = at
		}
	}
	for _, at := range []time.Time{s.switchover, s.searching, s.leavingFrom, s.leaving} {
		if !at.IsZero() && (first.IsZero() || at.Before(first)) {
			first = at
		}
	}
	return first, !first.IsZero()
}

func (s State) clone() State {
	s.live = maps.Clone(s.live)
	s.members = maps.Clone(s.members)
	s.known = maps.Clone(s.known)
	s.servers = maps.Clone(s.servers)
	s.ports = maps.Clone(s.ports)
	s.serving = maps.Clone(s.serving)
	return s
}

// checked takes a result in; false if nobody asked for it.
func (s *State) checked(e Checked, a *Actions) bool {
	if _, asked := s.wanted[e.Target]; !asked {
		return false
	}
	s.known[e.Target] = outcome{e.Outcome, e.Ended}
	s.observe(e, a)
	s.each(func(key serverKey, m health.Machine) (health.Machine, bool) {
		if s.servers[key].target != e.Target {
			return m, false
		}
		return s.feed(key.member, s.servers[key].port, m, e.Outcome, e.Ended)
	})
	return true
}

// each steps the machines of all servers, in the order of the set. step says whether sessions end.
func (s *State) each(step func(serverKey, health.Machine) (m health.Machine, ended bool)) {
	for _, svc := range s.set.Services {
		for _, carrier := range svc.Servers {
			key := serverKey{svc.FullName, carrier.Member}
			v, ended := s.servers[key], false
			v.machine, ended = step(key, v.machine)
			s.servers[key] = s.settle(v, ended)
		}
	}
}

// fence puts down, on the paths of leaders, every server that is certainly no leader: all but the holder of the leader key,
// when that is known from etcd; when the members alone tell, those that are silent, or run as a primary without the key,
// while another one holds it.
func (s *State) fence() {
	claims := make(map[string]claim, len(s.cluster.Members))
	for _, m := range s.cluster.Members {
		claims[m.Name], _ = s.claimOf(m)
	}
	s.each(func(key serverKey, m health.Machine) (health.Machine, bool) {
		if !m.Kind().OfLeader() {
			return m, false
		}
		why := s.fenced(key.member)
		if why == "" && s.keyed && key.member != s.primary && claims[key.member] < byKey {
			why = s.primary + " holds the leader key"
		}
		if why == "" {
			return m, false
		}
		m, verdict := m.Fence(why)
		return m, verdict.EndSessions
	})
}

// plan takes a declaration: resolves it and fits the servers to it.
func (s *State) plan(p Planned, a *Actions, now time.Time) {
	old := s.cluster
	s.cluster, s.resolver = p.Cluster, p.Resolver
	present := make(map[string]bool, len(p.Cluster.Members))
	for _, m := range p.Cluster.Members {
		present[m.Name] = true
		if i := slices.IndexFunc(old.Members, func(o model.Member) bool { return o.Name == m.Name }); i >= 0 && base(old.Members[i]) != base(m) {
			delete(s.members, m.Name)
		}
	}
	maps.DeleteFunc(s.members, func(name string, _ member) bool { return !present[name] })
	if p.Rewatched {
		s.key = keys{}
	}
	s.believeKey()
	s.settleSystem(a, now)
	s.elect(a)
	live := s.liveRoles()
	set, err := p.Resolver.Set(live)
	if err != nil && p.Prepared == nil {
		a.Refused = err
		return
	}
	if err != nil {
		a.logf(slog.LevelError, "%s: the services have the servers that they were prepared with, for they can't be resolved with the roles of now: %v", s.cluster.Name, err)
		set = *p.Prepared
	}
	s.live = live
	s.adopt(set, a, now)
}

// roles elects the primary anew, and resolves the services again if that or anything else has changed a role.
func (s *State) roles(a *Actions, now time.Time) {
	s.believeKey()
	s.settleSystem(a, now)
	s.elect(a)
	live := s.liveRoles()
	if maps.Equal(live, s.live) {
		return
	}
	for _, name := range s.names() {
		if was, is := s.live[name], live[name]; was != is {
			a.logf(slog.LevelInfo, "%s: %s is %s now, was %s", s.cluster.Name, name, is, was)
		}
	}
	s.live = live
	if s.cluster.StaticRoles {
		return
	}
	set, err := s.resolver.Set(live)
	if err != nil {
		a.logf(slog.LevelError, "%s: the services stay with the servers they had, for they can't be resolved with the new roles: %v", s.cluster.Name, err)
		return
	}
	s.adopt(set, a, now)
}

// adopt fits the servers to a set: those that are in it already keep their health.
func (s *State) adopt(set model.Set, a *Actions, now time.Time) {
	before := s.wanted
	lasting := make(map[string]bool, len(set.Services))
	for _, old := range s.set.Services {
		lasting[old.FullName] = slices.ContainsFunc(set.Services, func(svc model.Service) bool { return svc.FullName == old.FullName })
	}
	s.set = set
	s.generation++
	ttl := s.ttl()
	servers := make(map[serverKey]server, len(s.servers))
	for _, svc := range set.Services {
		for _, carrier := range svc.Servers {
			key := serverKey{svc.FullName, carrier.Member}
			target := targetOf(s.member(carrier.Member), svc.Definition)
			old, there := s.servers[key]
			switch {
			case there && old.host == carrier.Host && old.target == target:
				old.machine = old.machine.Reconfigure(svc.Options, ttl)
				old.port = destination(carrier, svc.Options)
				servers[key] = old
				continue
			case there && old.host == carrier.Host:
				old.machine = health.NewMachine(svc.Check, svc.Options, ttl).Adopt(old.machine, now)
				old.target = target
			default:
				why := "it was no server of the service for a time"
				if there {
					why = "its address is " + carrier.Host + " now"
				}
				old = s.expire(server{machine: health.NewMachine(svc.Check, svc.Options, ttl), target: target, host: carrier.Host, since: now}, why)
			}
			old.port = destination(carrier, svc.Options)
			if last, known := s.known[target]; known {
				var ended bool
				old.machine, ended = s.feed(carrier.Member, old.port, old.machine, last.Outcome, last.at)
				old = s.settle(old, ended)
			}
			servers[key] = old
			if !there && lasting[svc.FullName] {
				a.logf(slog.LevelInfo, "%s: %s joins%s", svc.FullName, carrier.Member, asBackup(carrier))
			}
		}
	}
	for _, key := range slices.SortedFunc(maps.Keys(s.servers), compareKeys) {
		if _, stays := servers[key]; !stays && lasting[key.service] {
			a.logf(slog.LevelInfo, "%s: %s leaves", key.service, key.member)
		}
	}
	s.servers = servers
	s.wanted = s.targets()
	maps.DeleteFunc(s.known, func(t health.Target, _ outcome) bool { _, wanted := s.wanted[t]; return !wanted })
	if !maps.Equal(before, s.wanted) {
		a.Checks = s.checks()
	}
	s.adoptPorts(a)
}

func asBackup(s model.Server) string {
	if s.Backup {
		return " as backup"
	}
	return ""
}

func (s *State) names() []string {
	names := make([]string, len(s.cluster.Members))
	for i, m := range s.cluster.Members {
		names[i] = m.Name
	}
	return names
}
