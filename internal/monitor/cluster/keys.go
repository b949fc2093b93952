package cluster

import (
	"encoding/json"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"time"

	"github.com/pgporter/pgporter/internal/config/model"
	"github.com/pgporter/pgporter/internal/monitor/etcd"
	"github.com/pgporter/pgporter/internal/monitor/health"
)

// Keyed is what etcd says of the cluster's keys now.
type Keyed struct{ etcd.Reading }

func (Keyed) event() {}

// keys is what is known from etcd.
type keys struct {
	// asked says that there has been a reading, be it that etcd is lost.
	asked bool
	// now is the last reading, heard the last one that wasn't a loss.
	now, heard etcd.Reading
	// last is the last member that the key named, whether it is still there or not.
	last string
	// ours says that the key has named a declared member: names in etcd are the names of members.
	ours bool
	// held is the revision of the failover key by which there is, or was, a hold.
	held int64
	// alien says that etcd's cluster has another system identifier than the members: it is the wrong etcd or the wrong path.
	alien bool
}

// known says that etcd is heard, so that what it said last is true now.
func (k keys) known() bool { return k.asked && k.now.Lost == "" }

// believed says that etcd is heard, and that its keys are this cluster's.
func (k keys) believed() bool { return k.known() && k.ours && !k.alien }

const (
	// switchoverSoon is how long after a switchover was asked for the primary is watched closely: it begins to stop 0.2 s
	// after that and has released the key 1.3 s after it (measured with Patroni 3.0.2).
	switchoverSoon = 3 * time.Second
	// successorSoon is how long at most members aren't asked in turn because one of them is about to be chosen: from the request of a
	// switchover to the key's next holder it is 1.5 s, from the end of a key to it less (measured with Patroni 3.0.2).
	successorSoon = 3 * time.Second
	// searchSlack is how much longer than the leader key lives a new primary is looked for closely.
	searchSlack = 10 * time.Second
)

// hear takes a reading in. By itself it ends nothing and moves nobody: elections and checks do.
func (s *State) hear(r etcd.Reading, a *Actions, now time.Time) {
	was := s.key
	s.key.asked, s.key.now = true, r
	switch {
	case r.Lost != "" && was.known():
		a.logf(slog.LevelWarn, "%s: etcd is lost, the checks decide alone: %s", s.cluster.Name, r.Lost)
		// Who was kept down by the key alone comes up with the next check.
		s.notice(now, s.claimants...)
		return
	case r.Lost != "" && !was.asked:
		a.logf(slog.LevelWarn, "%s: etcd doesn't answer, the checks decide alone: %s", s.cluster.Name, r.Lost)
		return
	case r.Lost != "":
		a.logf(slog.LevelWarn, "%s: etcd is still lost: %s", s.cluster.Name, r.Lost)
		return
	case was.now.Lost != "":
		a.logf(slog.LevelInfo, "%s: etcd answers again: %s", s.cluster.Name, keyWords(r))
	case !was.asked:
		a.logf(slog.LevelInfo, "%s: etcd answers: %s", s.cluster.Name, keyWords(r))
	case r.Leader != was.heard.Leader:
		a.logf(slog.LevelInfo, "%s: %s", s.cluster.Name, keyWords(r))
	}
	if fresh := !was.asked || was.now.Lost != ""; fresh && r.Leader == "" && r.System == "" {
		a.logf(slog.LevelWarn, "%s: etcd has no keys of this cluster: it is new, or the namespace is mistaken", s.cluster.Name)
	}
	s.key.heard = r
	s.noteNamed(r)
	if r.Leader != was.heard.Leader || r.LeaderRevision != was.heard.LeaderRevision {
		// The one that it names is looked at closely from now on (closely): it takes a while to be promoted. The others have nothing
		// to say that the key doesn't, and a question is dear to them now.
		s.search(now)
	}
	// What a member's Patroni has written is true now: its answer will say so too.
	for _, m := range r.Members {
		if before := memberKey(was.heard, m.Name); before.Role != m.Role || before.State != m.State {
			if seen := s.members[m.Name]; seen.checked && (seen.state != m.State || leads(m.Role) != leads(seen.role)) {
				seen.api.Told(now)
				s.members[m.Name] = seen
			}
		}
	}
	s.spare(now)
	if r.Leader != "" && r.Leader != s.key.last {
		s.succeed(s.key.last, r.Leader)
		s.key.last = r.Leader
		if !s.isMember(r.Leader) {
			a.logf(slog.LevelError, "%s: the leader key names %s, which isn't declared as a member%s", s.cluster.Name, r.Leader, s.disbelief())
		}
	}
	if r.FailoverRevision != was.heard.FailoverRevision && r.Failover != "" {
		a.logf(slog.LevelInfo, "%s: a switchover is asked for: %s", s.cluster.Name, r.Failover)
		s.switchover = now.Add(switchoverSoon)
	}
}

// noteNamed notes that the key was read, and names a member. The first reading that names one makes the key believed.
func (s *State) noteNamed(r etcd.Reading) {
	if m, there := s.members[r.Leader]; there {
		m.named = r.Read
		s.members[r.Leader] = m
	}
}

// spare keeps what the budget allows for the next leader: while one is about to be chosen, those whom the key may name aren't asked in
// turn. And the one that it names costs little to ask, whatever its last answer cost.
func (s *State) spare(now time.Time) {
	r := s.key.now
	_, leaves := leavesNow(r.Failover, r.Leader)
	resting := s.key.believed() && (r.Leader == "" || leaves)
	var until time.Time
	if resting {
		until = now.Add(successorSoon)
	}
	for name, m := range s.members {
		if name == r.Leader {
			m.api.Spared()
		}
		if resting != s.resting && name != s.key.last {
			m.api.Rest(until)
		}
		s.members[name] = m
	}
	s.resting = resting
}

// leavesNow tells whether a failover key has a leader step down at once, and who is to lead next: Patroni writes a JSON object with the
// leader that is to leave (empty in a failover by hand), the next leader (empty for anyone), and scheduled_at for later.
func leavesNow(failover, leader string) (next string, now bool) {
	var request struct {
		Leader    string `json:"leader"`
		Member    string `json:"member"`
		Scheduled string `json:"scheduled_at"`
	}
	if err := json.Unmarshal([]byte(failover), &request); err != nil {
		return "", false
	}
	return request.Member, leader != "" && request.Scheduled == "" && request.Member != leader && (request.Leader == leader || request.Leader == "")
}

// keyWords are a reading in short.
func keyWords(r etcd.Reading) string {
	if r.Leader == "" {
		return "nobody holds the leader key"
	}
	return r.Leader + " holds the leader key"
}

// disbelief says what follows from a key that names nobody who is declared.
func (s *State) disbelief() string {
	if s.key.ours {
		return ": nobody else gets writes"
	}
	return ": the key is not believed until it names one"
}

// succeed notes that next has the leader key instead of former. What former says of itself as a leader is void from now on,
// also if etcd is lost later: it may not know yet. And next is to be the primary, though it may still say `replica`.
func (s *State) succeed(former, next string) {
	if m, there := s.members[former]; there {
		m.elect = false
		if m.role == "" || leads(m.role) {
			m.successor, m.lostAt = next, m.timeline
		}
		s.members[former] = m
	}
	if s.isMember(next) {
		m := s.members[next]
		m.successor, m.elect = "", !leads(m.role)
		s.members[next] = m
	}
}

// believeKey settles whether the names in etcd are those of the members. It is called before anything relies on holder.
func (s *State) believeKey() {
	s.key.ours = s.key.ours || s.key.known() && s.isMember(s.key.now.Leader)
}

// holder is the member that is known to hold the leader key; empty while nobody is. It may be one that isn't declared: then
// none of those that are is the leader.
func (s *State) holder() string {
	if !s.key.believed() {
		return ""
	}
	return s.key.now.Leader
}

// fenced says why a member is certainly no leader, whatever it answers; empty if it may be one.
func (s *State) fenced(name string) string {
	if holder := s.holder(); holder != "" && holder != name {
		return holder + " holds the leader key"
	}
	if next := s.members[name].successor; next != "" {
		return next + " has taken the leader key from it"
	}
	return s.stranger(name)
}

// keyFresh says that the leader key was read through the quorum so lately that it vouches for its holder.
func (s *State) keyFresh(now time.Time) bool {
	return s.key.believed() && now.Sub(s.key.now.Read) < health.KeyFresh
}

// memberKey is a member's own key in etcd; zero if it has none.
func memberKey(r etcd.Reading, name string) etcd.MemberKey {
	i, found := slices.BinarySearchFunc(r.Members, name, func(m etcd.MemberKey, name string) int { return strings.Compare(m.Name, name) })
	if !found {
		return etcd.MemberKey{}
	}
	return r.Members[i]
}

// doubtsLease says that it matters whether the leader key's lease is renewed: nobody listens at its holder's API.
func (s *State) doubtsLease() bool {
	holder := s.holder()
	return holder != "" && s.members[holder].last.Dead
}

// maintained says that a member that is silent now was in maintenance (Patroni's `pause`) when it was heard last, and that
// nobody who answers knows of its end. Nobody is promoted by Patroni then.
func (s *State) maintained(name string) bool {
	for other, m := range s.members {
		if other != name && m.answers() && !m.paused {
			return false
		}
	}
	return s.members[name].paused
}

// settleSystem finds out which database the cluster's is, as the members' and etcd's system identifiers tell. etcd's counts
// if any member has it. Otherwise it is the primary's, for as long as a member that answered within the TTL has it.
func (s *State) settleSystem(a *Actions, now time.Time) {
	defer s.reportStrangers(a)
	some, matches, current := "", false, false
	for _, name := range s.names() {
		m := s.members[name]
		if m.system == "" {
			continue
		}
		some = m.system
		matches = matches || m.system == s.key.now.System
		current = current || m.system == s.system && (s.cluster.TTL <= 0 || now.Sub(m.answered) < s.ttl())
	}
	named := s.key.known() && s.key.now.System != ""
	if alien := named && some != "" && !matches; alien != s.key.alien {
		s.key.alien = alien
		if alien {
			a.logf(slog.LevelError, "%s: etcd is of another cluster, its keys are not believed: its system identifier is %s, the members' is %s", s.cluster.Name, s.key.now.System, some)
		} else {
			a.logf(slog.LevelInfo, "%s: etcd is of this cluster again", s.cluster.Name)
		}
	}
	primary := s.members[s.primary].system
	switch {
	case named && matches:
		s.system = s.key.now.System
	case s.confirmed && primary != "":
		s.system = primary
	case !current:
		s.system = ""
	}
}

// stranger says that a member runs another database than the cluster's; empty if that isn't known.
func (s *State) stranger(name string) string {
	own := s.members[name].system
	if s.system == "" || own == "" || own == s.system {
		return ""
	}
	return fmt.Sprintf("it has another database: its system identifier is %s, the cluster's is %s", own, s.system)
}

func (s *State) reportStrangers(a *Actions) {
	var strangers []string
	for _, name := range s.names() {
		why := s.stranger(name)
		if why == "" {
			continue
		}
		strangers = append(strangers, name)
		if !slices.Contains(s.strangers, name) {
			a.logf(slog.LevelError, "%s: %s gets no clients: %s", s.cluster.Name, name, why)
		}
	}
	for _, name := range s.strangers {
		if !slices.Contains(strangers, name) {
			a.logf(slog.LevelInfo, "%s: %s has the cluster's database again, or is gone", s.cluster.Name, name)
		}
	}
	s.strangers = strangers
}

// search begins a time in which a new primary is looked for closely.
func (s *State) search(now time.Time) { s.searching = now.Add(s.ttl() + searchSlack) }

// ttl is how long a leader key outlives its holder.
func (s *State) ttl() time.Duration { return time.Duration(s.cluster.TTL) * time.Second }

// expireTimers ends what is over.
func (s *State) expireTimers(now time.Time) {
	for _, until := range []*time.Time{&s.switchover, &s.searching} {
		if !until.IsZero() && !now.Before(*until) {
			*until = time.Time{}
		}
	}
}

func (s *State) isMember(name string) bool {
	return slices.ContainsFunc(s.cluster.Members, func(m model.Member) bool { return m.Name == name })
}
