package cluster

import (
	"cmp"
	"fmt"
	"hash/fnv"
	"log/slog"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/pgporter/pgporter/internal/config/model"
	"github.com/pgporter/pgporter/internal/config/resolve"
	"github.com/pgporter/pgporter/internal/monitor/health"
	"github.com/pgporter/pgporter/internal/monitor/inquiry"
	"github.com/pgporter/pgporter/internal/monitor/patroni"
	"github.com/pgporter/pgporter/internal/monitor/view"
)

// State is all that a loop knows of its cluster. Step changes it; Clone gives one of its own.
type State struct {
	cluster  model.Cluster
	resolver *resolve.Resolver
	set      model.Set
	// wanted are the questions, each with the smallest inter of its services.
	wanted map[health.Target]time.Duration
	// standby says that the cluster follows another one, positioned that the leader's position is known: what is asked depends on them.
	// underivable are the paths that turned out not to follow from the one question; rewiring says that there is a new one.
	standby, positioned, rewiring bool
	underivable                   map[string]bool
	// leaderPosition is the leader's own word on where it is in the WAL, in bytes; 0 while unknown.
	leaderPosition int64
	// seed makes this node's times to ask its own; parts are those that all that are asked at one time share.
	seed  uint64
	parts inquiry.Random
	// generation rises with each new set.
	generation uint64
	// bases are where the members' APIs are, without TLS and with it.
	bases map[string][2]string
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
	// resting says that whom the leader key may name soon isn't asked in turn.
	resting bool
	// hold is the one that Patroni's failover key asks for; its ID is empty if there is none.
	hold view.Hold
	// claimants are the members that were last reported to claim the leader key together, or against it.
	// contested is what was reported of them.
	claimants []string
	contested string
	members   map[string]member
	// known holds the last outcome of every question that is asked now.
	known   map[health.Target]outcome
	servers map[serverKey]server
	// ports are the ports of the servers' services.
	ports map[health.Target]port
	// witnessed and holdless are Planned's.
	witnessed, holdless bool
	// serving are the services that had a usable server at the last step.
	serving map[string]bool
	counted counted
	// epoch is the highest one given to a server.
	epoch uint64
	// judged is when time alone changes what is known, but for marks of members; backed says that the age of the leader key's last
	// read matters. turn is when a question is due in turn, next when anything else is: see Wake.
	judged, next, turn time.Time
	backed             bool
	// awaits says that a question is under way.
	awaits bool
	view   *view.View
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
	// path is the service's check, target the question that the verdict comes from.
	path   patroni.Path
	check  string
	target health.Target
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
	// steady says that the last answer, if it comes again, changes nothing but when the server was confirmed.
	steady bool
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
	// lastResort: the check is silent, and nobody else serves.
	lastResort
	down
)

// Event is what a State is stepped with: Checked, Probed, Keyed, Planned, Suspected, Awaited, Doubted, Stood or Ticked.
type Event interface{ event() }

// Checked is a question's result, however late. One that isn't asked for any more only ends the question.
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
	// Witnessed says that who connects the clients tells of servers that keep them waiting (Doubted), so that ports which answer are
	// probed less often.
	Witnessed bool
	// Holdless says that who connects the clients can't keep them waiting: no hold begins.
	Holdless bool
}

// Suspected says that clients have seen something of members that their last answers don't explain; Awaited that clients wait for
// services that have nobody up; Doubted that servers have taken a connection and leave a client without a word.
type (
	Suspected struct{ Members []string }
	Awaited   struct{ Services []string }
	Doubted   struct{ servers []serverKey }
)

// Stood says that this node stood still for a time (it was stopped, or had no processor), until now. What wasn't heard meanwhile isn't
// held against anybody.
type Stood struct{ For time.Duration }

// Ticked is the passing of time: due at State.Deadline.
type Ticked struct{}

func (Checked) event()   {}
func (Planned) event()   {}
func (Suspected) event() {}
func (Awaited) event()   {}
func (Doubted) event()   {}
func (Stood) event()     {}
func (Ticked) event()    {}

// Question is one to put now.
type Question struct {
	health.Target
	// Port says that it is a probe of a port.
	Port bool
	// Within is how long it is waited for before it is given up.
	Within time.Duration
}

// Actions are what a step wants done, in the order of the fields. Whoever does it publishes the View first, since clients go by it,
// and logs last: when a line of the log is written, all that it tells of is done, however long the line takes.
type Actions struct {
	// View is to be published; nil if nothing that readers see has changed.
	View *view.View
	// Ask are questions to put now.
	Ask []Question
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

// answeredGap is how old a View may grow while nothing in it changes but when members answered last.
const answeredGap = 5 * time.Second

// Begin makes the State of a cluster of which nothing is known yet, with its first View. seed makes this node's times to ask its own.
func Begin(p Planned, seed uint64, now time.Time) (State, Actions) {
	s := State{
		members: map[string]member{}, known: map[health.Target]outcome{}, servers: map[serverKey]server{},
		ports: map[health.Target]port{}, serving: map[string]bool{}, counted: counted{checks: map[serverKey]view.Checks{}}, seed: seed,
	}
	s.parts = inquiry.Seeded(s.seedOf(p.Cluster.Name))
	var a Actions
	s.plan(p, &a, now)
	if a.Refused == nil {
		s.conclude(&a, now)
		a.Log = nil
		s.reckonJudged()
		s.reckonNext()
	}
	return s, a
}

// Step takes an event into account. It is pure but for the State itself: the same one, event and time give the same result.
func (s *State) Step(e Event, now time.Time) Actions {
	a, done := s.quietly(e, now)
	if !done {
		a = s.loudly(e, now)
		s.reckonJudged()
	}
	s.reckonNext()
	return a
}

// loudly is Step for events that may change anything.
func (s *State) loudly(e Event, now time.Time) (a Actions) {
	switch e := e.(type) {
	case Checked:
		if !s.checked(e, &a, now) {
			return Actions{}
		}
	case Probed:
		if !s.probed(e, now) {
			return Actions{}
		}
	case Keyed:
		s.hear(e.Reading, &a, now)
	case Planned:
		next := s.Clone()
		if next.plan(e, &a, now); a.Refused != nil {
			return a
		}
		*s = next
	case Suspected:
		s.suspect(e.Members, now)
	case Awaited:
		for _, service := range e.Services {
			s.await(service, now)
		}
	case Doubted:
		s.doubt(e.servers, now)
	case Stood:
		s.stood(e.For, now)
	}
	s.expireTimers(now)
	s.noticeSilence(&a, now)
	s.tellStops(&a, now)
	s.roles(&a, now)
	s.rewire(now)
	s.weigh(now)
	s.conclude(&a, now)
	s.ask(&a, now)
	return a
}

// Clone gives a copy that no step of the State changes.
func (s *State) Clone() State {
	c := *s
	c.members = make(map[string]member, len(s.members))
	for name, m := range s.members {
		m.api = m.api.Clone()
		c.members[name] = m
	}
	c.ports = make(map[health.Target]port, len(s.ports))
	for at, p := range s.ports {
		p.ask = p.ask.Clone()
		c.ports[at] = p
	}
	c.known, c.servers = maps.Clone(s.known), maps.Clone(s.servers)
	c.counted.checks = maps.Clone(s.counted.checks)
	return c
}

// checked takes a result in; false if nobody wants to know any more.
func (s *State) checked(e Checked, a *Actions, now time.Time) bool {
	name := e.Target.Member
	m, there := s.members[name]
	if !there {
		return false
	}
	ended := inquiry.Ended{Target: e.Target, NotAsked: e.Outcome.NotAsked, Dear: s.dear(name, e.Outcome), Late: m.silences > 0 && e.Outcome.Silence == ""}
	if e.Outcome.Silence == "" && s.asksRole(e.Target) {
		m.asked = m.askedAt(e)
	}
	m.noteAnswer(e)
	if t, _, busy := m.api.UnderWay(); busy && t == e.Target {
		m.mark, m.silences = time.Time{}, 0
	}
	m.api.End(ended, now)
	s.members[name] = m
	if _, asked := s.wanted[e.Target]; !asked {
		return false
	}
	// What wasn't asked says nothing.
	if !e.Outcome.NotAsked {
		s.take(e, a, now)
	}
	return true
}

// take takes what a question brought, or silence, in.
func (s *State) take(e Checked, a *Actions, now time.Time) {
	s.known[e.Target] = outcome{e.Outcome, e.Ended}
	s.unsteady(e.Target)
	s.observe(e, a, now)
	b := s.backing(e.Target.Member, now)
	s.each(func(key serverKey, v *server) (health.Machine, bool) {
		if v.target != e.Target {
			return v.machine, false
		}
		as, known := s.heardAs(v, e.Target, e.Outcome)
		if !known {
			return v.machine, false
		}
		next, ended := v.machine.Feed(as, b, e.Ended)
		if !next.Passed() {
			s.noteFailure(key, v)
		}
		return next, ended
	})
}

// noticeSilence notes that questions under way haven't been answered in time: once after a check's time, and once per fastinter
// then, for as long as that changes anything. They stay under way.
func (s *State) noticeSilence(a *Actions, now time.Time) {
	for _, name := range s.names() {
		m := s.members[name]
		if m.mark.IsZero() || now.Before(m.mark) {
			continue
		}
		t, since, busy := m.api.UnderWay()
		if !busy {
			m.mark = time.Time{}
			s.members[name] = m
			continue
		}
		at := m.mark
		m.silences++
		m.mark = time.Time{}
		s.members[name] = m
		silence := health.Outcome{Silence: "no answer for " + at.Sub(since).Round(100*time.Millisecond).String()}
		s.take(Checked{health.Result{Target: t, Outcome: silence, Ended: at}}, a, now)
		m = s.members[name]
		if gap, undecided := s.undecided(t); undecided {
			m.mark = at.Add(gap)
		}
		s.members[name] = m
	}
}

// undecided says that more of a question's silence means something to a server, and the shortest fastinter of those.
func (s *State) undecided(t health.Target) (gap time.Duration, any bool) {
	for _, svc := range s.set.Services {
		for _, carrier := range svc.Servers {
			v := s.servers[serverKey{svc.FullName, carrier.Member}]
			if v.target == t && v.machine.Undecided() && (!any || svc.Options.FastInter < gap) {
				gap, any = svc.Options.FastInter, true
			}
		}
	}
	return gap, any
}

// suspect has what clients have failed at looked at: the members' APIs and their ports.
func (s *State) suspect(names []string, now time.Time) {
	s.notice(now, names...)
	for at, p := range s.ports {
		if slices.Contains(names, at.Member) && p.serves {
			p.ask.Noticed(now)
			s.ports[at] = p
		}
	}
}

// reviewTime is how long what was known before this node stood still is good for after that.
const reviewTime = time.Second

// stood forgives everybody the time in which this node stood still.
func (s *State) stood(d time.Duration, now time.Time) {
	for name, m := range s.members {
		m.api.Stood(d)
		if !m.mark.IsZero() {
			m.mark = m.mark.Add(d)
		}
		s.members[name] = m
	}
	for at, p := range s.ports {
		p.ask.Stood(d)
		s.ports[at] = p
	}
	for key, v := range s.servers {
		v.machine = v.machine.Review(now.Add(reviewTime))
		s.servers[key] = v
	}
	s.notice(now, s.names()...)
}

// each steps the machines of all servers, in the order of the set. step says whether sessions end.
func (s *State) each(step func(serverKey, *server) (m health.Machine, ended bool)) {
	// One for all, since step has its address.
	var v server
	for i := range s.set.Services {
		svc := &s.set.Services[i]
		for j := range svc.Servers {
			key := serverKey{svc.FullName, svc.Servers[j].Member}
			v = s.servers[key]
			next, ended := step(key, &v)
			v.steady = v.steady && next.SameAs(v.machine)
			v.machine = next
			s.servers[key] = s.settle(v, ended)
		}
	}
}

// weigh looks at all servers again with what is known beside their last results, the election among it: where the members alone tell
// who leads, those are fenced that are silent, or run as a primary without the key, while another one holds it.
func (s *State) weigh(now time.Time) {
	backings := make(map[string]health.Backing, len(s.cluster.Members))
	for _, m := range s.cluster.Members {
		b := s.backing(m.Name, now)
		if b.Fenced == "" && s.keyed && m.Name != s.primary {
			if c, _ := s.claimOf(m); c < byKey {
				b.Fenced = s.primary + " holds the leader key"
			}
		}
		backings[m.Name] = b
	}
	s.each(func(key serverKey, v *server) (health.Machine, bool) {
		return v.machine.Weigh(backings[key.member], now)
	})
}

// backing is what is known of a member beside what its API says, and what the members' answers together mean.
func (s *State) backing(name string, now time.Time) health.Backing {
	seen := s.members[name]
	b := health.Backing{
		Fenced: s.fenced(name), Maintained: s.maintained(name), TrustCheck: s.cluster.TrustCheck, Standby: s.standby, Port: s.portOf(s.member(name)),
		Outdated: seen.outdated(),
	}
	if !s.keyFresh(now) {
		return b
	}
	holder := s.holder()
	b.Named, b.Free = holder == name, holder == ""
	b.Read = s.key.now.Read
	if b.Named {
		own := memberKey(s.key.now, name)
		b.Leads, b.Stops = leads(own.Role) && own.State == patroni.StateRunning, own.State != "" && own.State != patroni.StateRunning
		b.Renewed = !seen.silentSince.IsZero() && s.key.now.Renewed.After(seen.silentSince)
	}
	return b
}

// ask puts the questions that are due, and those that go along with them.
func (s *State) ask(a *Actions, now time.Time) {
	next := s.parts
	part := next.Draw()
	if s.put(a, now, part, false); len(a.Ask) == 0 {
		return
	}
	s.parts = next
	s.put(a, now, part, true)
	slices.SortStableFunc(a.Ask, func(x, y Question) int {
		return cmp.Or(strings.Compare(x.Member, y.Member), strings.Compare(x.Base, y.Base), strings.Compare(x.Path, y.Path))
	})
}

// put puts the questions that their schedules give.
func (s *State) put(a *Actions, now time.Time, part inquiry.Part, along bool) {
	for i := range s.cluster.Members {
		name := s.cluster.Members[i].Name
		seen := s.members[name]
		t, due := seen.api.Start(now, part, along)
		if !due {
			continue
		}
		q := Question{Target: t, Within: ownPathWithin}
		if s.asksRole(t) {
			// A late answer is an answer: whoever holds the leader key has lost it after its time to live at the latest.
			q.Within = longestAnswer
			if ttl := s.ttl(); ttl > 0 {
				q.Within = min(q.Within, ttl)
			}
		}
		seen.silences, seen.mark = 0, now.Add(health.Timeout(s.wanted[t]))
		s.members[name] = seen
		a.Ask = append(a.Ask, q)
	}
	for at, p := range s.ports {
		if t, due := p.ask.Start(now, part, along); due {
			s.ports[at] = p
			a.Ask = append(a.Ask, Question{Target: t, Port: true, Within: p.probeWithin()})
		}
	}
}

// seedOf makes the seed of one respondent.
func (s *State) seedOf(respondent string) uint64 {
	h := fnv.New64a()
	_, _ = h.Write([]byte(respondent))
	return s.seed ^ h.Sum64()
}

func (s *State) names() []string {
	names := make([]string, len(s.cluster.Members))
	for i, m := range s.cluster.Members {
		names[i] = m.Name
	}
	return names
}
