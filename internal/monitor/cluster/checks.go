package cluster

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/pgporter/pgporter/internal/config/model"
	"github.com/pgporter/pgporter/internal/monitor/health"
	"github.com/pgporter/pgporter/internal/monitor/inquiry"
	"github.com/pgporter/pgporter/internal/monitor/patroni"
)

// Members are asked one question each: who holds the leader key, in the words of an ordinary cluster or of a standby cluster. What they
// would say to the paths of services follows from the answer (patroni.Answer.To).
const (
	primaryQuestion = "/primary"
	standbyQuestion = "/standby-leader"
)

const (
	// roleInter is how often a member is asked that no service is checked at.
	roleInter = 2 * time.Second
	// ownPathWithin is how long a path that has to be asked by itself is waited for: the member's one question waits meanwhile.
	ownPathWithin = 5 * time.Second
	// longestAnswer is how long an answer is waited for, less where the leader key doesn't live as long. The latest ones that were seen of
	// Patronis asked far too much took 5.2 s (connections that its backlog of 5 refuses are tried again after 1 s and 3 s).
	longestAnswer = 10 * time.Second
)

// question is what members are asked.
func (s *State) question() string {
	if s.standby {
		return standbyQuestion
	}
	return primaryQuestion
}

// base is where a member's API is.
func base(m model.Member) string { return patroni.BaseURL(m.Host, m.PatroniPort, m.PatroniTLS) }

// member is a declared one.
func (s *State) member(name string) model.Member {
	return s.cluster.Members[slices.IndexFunc(s.cluster.Members, func(m model.Member) bool { return m.Name == name })]
}

// targetOf is the check of a member for a service by its path, whose options may say that it goes elsewhere, and how it speaks TLS.
func targetOf(m model.Member, d model.Definition) health.Target {
	words := d.Options.CheckTLS
	host := m.Host
	if d.Options.CheckAddr.IsValid() {
		host = d.Options.CheckAddr.String()
	}
	t := health.Target{Member: m.Name, Base: patroni.BaseURL(host, m.PatroniPort, m.PatroniTLS || words.On), Path: d.Check}
	if m.PatroniTLS || words.On {
		t.TLS = patroni.TLS{CAFile: words.CAFile, NoVerify: words.NoVerify, CertFile: words.CertFile, SNI: words.SNI, VerifyHost: words.VerifyHost}
	}
	return t
}

// questionOf is what a member is asked for a service: the one question, or the service's path where that doesn't follow from it.
func (s *State) questionOf(m model.Member, d model.Definition) health.Target {
	t := targetOf(m, d)
	switch {
	case !s.asksItself(t), !patroni.Derivable(t.Path), s.underivable[t.Path], !s.positioned && patroni.NeedsPosition(t.Path):
	default:
		t.Path = s.question()
	}
	return t
}

// asksItself says that a check asks the member that it is of. An address of its own (option addr) may be anybody's: what is
// said there is about the server in that service, and tells nothing of the member.
func (s *State) asksItself(t health.Target) bool {
	own := s.bases[t.Member]
	return t.Base == own[0] || t.Base == own[1]
}

// asksRole says that a check is a member's one question.
func (s *State) asksRole(t health.Target) bool { return t.Path == s.question() && s.asksItself(t) }

// answersOtherwise says that a member has answered last to a check whose TLS settings differ from this one, or not at
// all: a silence is about that then, and not about the member.
func (s *State) answersOtherwise(t health.Target) bool {
	for other, last := range s.known {
		if other.Member == t.Member && (other.Base != t.Base || other.TLS != t.TLS) && last.Silence == "" && s.asksItself(other) {
			return true
		}
	}
	return false
}

// Readable says what is wrong with the files that the checks of a cluster's services are given; nil if nothing is. It
// reads them.
func Readable(c model.Cluster) error {
	var problems []error
	for _, d := range c.Definitions {
		for _, m := range c.Members {
			if err := targetOf(m, d).TLS.Check(); err != nil {
				problems = append(problems, fmt.Errorf("service %s: options: %w", d.FullName, err))
				break
			}
		}
	}
	return errors.Join(problems...)
}

// wire fits what is asked to the servers: each target with the smallest `inter` of its services, and the one question for each member
// that no service has asked it.
func (s *State) wire(now time.Time) {
	wanted := make(map[health.Target]time.Duration, len(s.cluster.Members))
	asks := make(map[string][]health.Target, len(s.cluster.Members))
	want := func(t health.Target, inter time.Duration) {
		had, there := wanted[t]
		if !there || inter < had {
			wanted[t] = inter
		}
		if !there {
			asks[t.Member] = append(asks[t.Member], t)
		}
	}
	roles := roleInter
	for i, svc := range s.set.Services {
		if i == 0 || svc.Options.Inter < roles {
			roles = svc.Options.Inter
		}
		for _, carrier := range svc.Servers {
			key := serverKey{svc.FullName, carrier.Member}
			v := s.servers[key]
			if t := s.questionOf(s.member(carrier.Member), svc.Definition); t != v.target {
				v.target, v.steady = t, false
			}
			s.servers[key] = v
			want(v.target, svc.Options.Inter)
		}
	}
	for _, m := range s.cluster.Members {
		if !slices.ContainsFunc(asks[m.Name], s.asksRole) {
			t := targetOf(m, model.Definition{Check: s.question()})
			want(t, roles)
		}
		// What is asked out of turn is the one question.
		slices.SortStableFunc(asks[m.Name], func(a, b health.Target) int { return boolToInt(s.asksRole(b)) - boolToInt(s.asksRole(a)) })
		seen := s.members[m.Name]
		if seen.api.IsZero() {
			seen.api = inquiry.New(s.seedOf(m.Name))
		}
		list := make([]inquiry.Ask, len(asks[m.Name]))
		for i, t := range asks[m.Name] {
			list[i] = inquiry.Ask{Target: t, Quiet: wanted[t], Pace: wanted[t]}
		}
		seen.api.Set(list, now)
		s.members[m.Name] = seen
	}
	for t := range s.known {
		if _, asked := wanted[t]; !asked {
			delete(s.known, t)
		}
	}
	s.wanted = wanted
}

func boolToInt(b bool) int {
	if b {
		return 1
	}
	return 0
}

// rewire asks other questions where what is known now calls for that: the cluster has become a standby cluster or is one no
// more, the leader's position is known, or a path turned out not to follow.
func (s *State) rewire(now time.Time) {
	standby, positioned := s.isStandbyCluster(), s.position() > 0
	if standby == s.standby && positioned == s.positioned && !s.rewiring {
		return
	}
	s.standby, s.positioned, s.rewiring = standby, positioned, false
	s.wire(now)
}

// isStandbyCluster says that the cluster follows another one: by its leader's role, or as its configuration in etcd says while nobody leads.
func (s *State) isStandbyCluster() bool {
	for _, name := range s.names() {
		switch m := s.members[name]; {
		case m.last.Silence != "":
		case m.last.Answer.Role == patroni.RoleStandbyLeader:
			return true
		case m.last.Answer.Role == patroni.RolePrimary, m.last.Answer.Role == patroni.RolePromoted:
			return false
		}
	}
	if s.key.believed() {
		return s.key.now.Standby
	}
	return s.standby
}

// position is the leader's in the WAL, that lag= is reckoned from: what Patroni reckons from where etcd is heard, else the leader's own
// word, which is up to a loop of Patroni's stricter; 0 while unknown.
func (s *State) position() int64 {
	if s.key.believed() && s.key.now.Optime > 0 {
		return s.key.now.Optime
	}
	return s.leaderPosition
}

// notePosition keeps the leader's own word.
func (s *State) notePosition(name string, a patroni.Answer) {
	if name == s.primary && a.Location > 0 {
		s.leaderPosition = a.Location
	}
}

// heardAs is what an outcome of a question means on the path of a service. known is false where that can't be told, so that what was
// known stays.
func (s *State) heardAs(v *server, t health.Target, o health.Outcome) (as health.Outcome, known bool) {
	path := v.check
	if t.Path == path || o.Silence != "" {
		o.Elsewhere = !s.asksItself(t)
		return o, true
	}
	answer, derivation := o.Answer.To(v.path, patroni.Facts{StandbyCluster: t.Path == standbyQuestion, Position: s.position()})
	switch derivation {
	case patroni.Underivable:
		if !s.underivable[path] {
			own := map[string]bool{path: true}
			maps.Copy(own, s.underivable)
			s.underivable, s.rewiring = own, true
		}
		return o, false
	case patroni.Unsettled:
		if misled := o.Answer.Role == patroni.RoleStandbyLeader && t.Path == primaryQuestion; misled {
			// It is asked the other question at once: see rewire.
			return o, false
		}
		// Who was never heard, or was silent, has no verdict that could stay.
		if v.machine.Phase() != health.Waiting && !v.machine.Silent() && answer.Role != "" {
			return o, false
		}
	}
	return health.Outcome{Answer: answer}, true
}

// paces are how often each question is to be put now: as often as the most curious of its servers asks. While a leader's service has
// nobody up and no leader key tells who the next leader is, at fastinter instead of downinter, since it may be any of its servers; the
// holder of the leader key, and a primary that is about to leave, more often than that: see closely.
func (s *State) paces(now time.Time) {
	paces := make(map[health.Target]time.Duration, len(s.wanted))
	for _, svc := range s.set.Services {
		leaderless := health.KindOf(svc.Check).OfLeader() && !s.anyAccepts(svc) && !s.key.believed()
		for _, carrier := range svc.Servers {
			v := s.servers[serverKey{svc.FullName, carrier.Member}]
			next := v.machine.Next()
			if leaderless {
				next = min(next, svc.Options.FastInter)
			}
			if had, there := paces[v.target]; !there || next < had {
				paces[v.target] = next
			}
		}
	}
	for _, m := range s.cluster.Members {
		seen := s.members[m.Name]
		for t, inter := range s.wanted {
			if t.Member != m.Name {
				continue
			}
			pace, there := paces[t]
			if !there {
				pace = inter
			}
			seen.api.Paced(t, pace)
		}
		seen.api.Closely(s.closely(m.Name), now)
		s.members[m.Name] = seen
	}
}

// closely says that a member is looked at closely: it holds the leader key and isn't up yet, or it is the primary and about to leave.
// Nobody else is, however many clients wait: who is a replica has nothing to say that they wait for.
func (s *State) closely(name string) bool {
	if !s.switchover.IsZero() && name == s.primary {
		return true
	}
	if s.searching.IsZero() || s.holder() != name {
		return false
	}
	for _, svc := range s.set.Services {
		kind := health.KindOf(svc.Check)
		// A standby cluster has no primary to wait for, and others no standby leader.
		hopeless := kind == health.Primary && s.standby || kind == health.StandbyLeader && !s.standby
		if kind.OfLeader() && !hopeless && !s.anyAccepts(svc) {
			return true
		}
	}
	return false
}

// notice has members asked out of turn: something was seen that their last answers don't explain.
func (s *State) notice(now time.Time, names ...string) {
	for _, name := range names {
		if m, there := s.members[name]; there {
			m.api.Noticed(now)
			s.members[name] = m
		}
	}
}

// await has asked out of turn whom the clients that wait for a service need an answer of. For a leader that is the key's holder, where it
// is known; whoever doesn't lead has nothing to hasten then. Without etcd it is the member that was asked the longest ago of those that
// it costs little. For a read service it is the one of its servers that isn't up.
func (s *State) await(fullName string, now time.Time) {
	i := slices.IndexFunc(s.set.Services, func(svc model.Service) bool { return svc.FullName == fullName })
	if i < 0 {
		return
	}
	svc := s.set.Services[i]
	ofLeader := health.KindOf(svc.Check).OfLeader()
	if ofLeader && (s.key.believed() || s.anyAccepts(svc)) {
		// closely has it asked; or there is a leader, and an operator's order or its port keeps them waiting.
		return
	}
	chosen, longest := "", time.Time{}
	for _, carrier := range svc.Servers {
		v := s.servers[serverKey{svc.FullName, carrier.Member}]
		m := s.members[carrier.Member]
		last, idle := m.api.Last()
		if v.up || !idle || m.api.Dear() {
			continue
		}
		if chosen == "" || last.Before(longest) {
			chosen, longest = carrier.Member, last
		}
	}
	if chosen == "" || now.Sub(longest) < awaitedGap {
		return
	}
	s.notice(now, chosen)
}

// awaitedGap is the least time between two questions at a member that only waiting clients have put out of turn.
const awaitedGap = 500 * time.Millisecond

// dear says that the next answer of a member will cost it a backend: a replica that doesn't see a leader, or has no timeline of
// its own, opens a replication connection for each. The holder of the leader key doesn't.
func (s *State) dear(name string, o health.Outcome) bool {
	a := o.Answer
	if o.Silence != "" || a.Role != patroni.RoleReplica || s.holder() == name {
		return false
	}
	return a.ClusterUnlocked || a.TimelineNull
}
