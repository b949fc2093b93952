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

// State is all that a loop knows of its cluster. It is a value: Step gives the next one and leaves the old as it was.
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
	// seed makes this node's times to ask its own.
	seed uint64
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
	// known holds the last outcome of every question that is asked now.
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
	// path is the service's check, target the question that the verdict comes from.
	path   string
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
	// leaving: it was asked to stop.
	leaving
	down
)

// Event is what a State is stepped with: Checked, Probed, Keyed, Planned, Suspected, Awaited, Stood or Ticked.
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
}

// Suspected says that clients have seen something of members that their last answers don't explain; Awaited that clients wait for
// services that have nobody up.
type (
	Suspected struct{ Members []string }
	Awaited   struct{ Services []string }
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
		ports: map[health.Target]port{}, serving: map[string]bool{}, seed: seed,
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
	if next, a, done := s.quietly(e, now); done {
		return next, a
	}
	next, a := s.clone(), Actions{}
	switch e := e.(type) {
	case Checked:
		if !next.checked(e, &a, now) {
			return next, Actions{}
		}
	case Probed:
		if !next.probed(e, now) {
			return s, Actions{}
		}
	case Keyed:
		next.hear(e.Reading, &a, now)
	case Planned:
		if next.plan(e, &a, now); a.Refused != nil {
			return s, a
		}
	case Suspected:
		next.suspect(e.Members, now)
	case Awaited:
		for _, service := range e.Services {
			next.await(service, now)
		}
	case Stood:
		next.stood(e.For, now)
	}
	next.expireTimers(now)
	next.noticeSilence(&a, now)
	next.tellStops(&a, now)
	next.roles(&a, now)
	next.rewire(now)
	next.weigh(now)
	next.conclude(&a, now)
	next.ask(&a, now)
	return next, a
}

// Deadline is when a Ticked is due; false if only events change anything.
func (s *State) Deadline() (time.Time, bool) {
	first := s.judgeAt()
	for name := range s.members {
		first = earlier(first, s.members[name].nextQuestion())
	}
	for at := range s.ports {
		p := s.ports[at]
		if due, any := p.ask.Due(); any {
			first = earlier(first, due)
		}
	}
	return first, !first.IsZero()
}

// judgeAt is when time alone changes what is known; zero if it doesn't.
func (s *State) judgeAt() time.Time {
	var first time.Time
	backed := false
	for key := range s.servers {
		v := s.servers[key]
		if at, limited := v.machine.Deadline(); limited {
			first = earlier(first, at)
		}
		backed = backed || v.machine.Backed()
	}
	if backed {
		first = earlier(first, s.key.now.Read.Add(health.KeyFresh))
	}
	for name := range s.members {
		m := s.members[name]
		first = earlier(first, m.mark)
		if !m.stopping.IsZero() && !m.toldStopping {
			first = earlier(first, m.stopping.Add(longStop))
		}
	}
	for _, at := range []time.Time{s.switchover, s.searching, s.leavingFrom, s.leaving} {
		first = earlier(first, at)
	}
	return first
}

// nextQuestion is when the member's API is asked next; zero while it can't be.
func (m member) nextQuestion() time.Time {
	at, _ := m.api.Due()
	return at
}

// earlier is the earlier of two times that aren't zero.
func earlier(a, b time.Time) time.Time {
	if a.IsZero() || !b.IsZero() && b.Before(a) {
		return b
	}
	return a
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

// checked takes a result in; false if nobody wants to know any more.
func (s *State) checked(e Checked, a *Actions, now time.Time) bool {
	name := e.Target.Member
	m, there := s.members[name]
	if !there {
		return false
	}
	ended := inquiry.Ended{Target: e.Target, NotAsked: e.Outcome.NotAsked, Dear: s.dear(name, e.Outcome), Late: m.silences > 0 && e.Outcome.Silence == ""}
	if t, _, busy := m.api.UnderWay(); busy && t == e.Target {
		m.mark, m.silences = time.Time{}, 0
	}
	m.api = m.api.End(ended, now)
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
	s.observe(e, a, now)
	b := s.backing(e.Target.Member, now)
	s.each(func(key serverKey, svc *model.Service, v server) (health.Machine, bool) {
		if v.target != e.Target {
			return v.machine, false
		}
		as, known := s.heardAs(svc.Check, v.machine, e.Target, e.Outcome)
		if !known {
			return v.machine, false
		}
		return v.machine.Feed(as, b, e.Ended)
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
			p.ask = p.ask.Noticed(now)
			s.ports[at] = p
		}
	}
}

// reviewTime is how long what was known before this node stood still is good for after that.
const reviewTime = time.Second

// stood forgives everybody the time in which this node stood still.
func (s *State) stood(d time.Duration, now time.Time) {
	for name, m := range s.members {
		m.api = m.api.Stood(d)
		if !m.mark.IsZero() {
			m.mark = m.mark.Add(d)
		}
		s.members[name] = m
	}
	for at, p := range s.ports {
		p.ask = p.ask.Stood(d)
		s.ports[at] = p
	}
	for key, v := range s.servers {
		v.machine = v.machine.Review(now.Add(reviewTime))
		s.servers[key] = v
	}
	s.notice(now, s.names()...)
}

// each steps the machines of all servers, in the order of the set. step says whether sessions end.
func (s *State) each(step func(serverKey, *model.Service, server) (m health.Machine, ended bool)) {
	for i := range s.set.Services {
		svc := &s.set.Services[i]
		for _, carrier := range svc.Servers {
			key := serverKey{svc.FullName, carrier.Member}
			v, ended := s.servers[key], false
			v.machine, ended = step(key, svc, v)
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
	s.each(func(key serverKey, _ *model.Service, v server) (health.Machine, bool) {
		return v.machine.Weigh(backings[key.member], now)
	})
}

// backing is what is known of a member beside what its API says, and what the members' answers together mean.
func (s *State) backing(name string, now time.Time) health.Backing {
	seen := s.members[name]
	b := health.Backing{
		Fenced: s.fenced(name), Maintained: s.maintained(name), TrustCheck: s.cluster.TrustCheck, Standby: s.standby, Port: s.portOf(s.member(name)),
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

// ask puts the questions that are due.
func (s *State) ask(a *Actions, now time.Time) {
	for _, m := range s.cluster.Members {
		seen := s.members[m.Name]
		api, t, due := seen.api.Start(now)
		if !due {
			continue
		}
		seen.api = api
		q := Question{Target: t, Within: ownPathWithin}
		if s.asksRole(t) {
			// A late answer is an answer: whoever holds the leader key has lost it after its time to live at the latest.
			q.Within = longestAnswer
			if ttl := s.ttl(); ttl > 0 {
				q.Within = min(q.Within, ttl)
			}
		}
		seen.silences, seen.mark = 0, now.Add(health.Timeout(s.wanted[t]))
		s.members[m.Name] = seen
		a.Ask = append(a.Ask, q)
	}
	for at, p := range s.ports {
		if ask, t, due := p.ask.Start(now); due {
			p.ask = ask
			s.ports[at] = p
			a.Ask = append(a.Ask, Question{Target: t, Port: true, Within: p.probeWithin()})
		}
	}
	slices.SortStableFunc(a.Ask, func(x, y Question) int {
		return cmp.Or(strings.Compare(x.Member, y.Member), strings.Compare(x.Base, y.Base), strings.Compare(x.Path, y.Path))
	})
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
