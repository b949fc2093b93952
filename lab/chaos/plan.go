package chaos

import (
	"cmp"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"time"
)

// fault is one thing that is done to the cluster and, where it lasts, undone. A list of them is a function of the seed alone:
// whom a role means at that moment is the cluster's affair.
type fault struct {
	// at is counted from the start of the faults.
	at   time.Duration
	kind kind
	// whom is a role (leader, sync, other) or a member's number; empty where the kind needs none.
	whom string
	// lasts is how long until it is undone; 0 for what is over at once.
	lasts time.Duration
}

func (f fault) String() string {
	text := fmt.Sprintf("%6.1fs  %s", f.at.Seconds(), f.kind)
	if f.whom != "" {
		text += " of " + f.whom
	}
	if f.lasts > 0 {
		text += fmt.Sprintf(" for %.1fs", f.lasts.Seconds())
	}
	return text
}

// kind is what a fault does.
type kind string

const (
	killPostgres  kind = "kill postgres"
	killPatroni   kind = "kill Patroni"
	crash         kind = "kill Patroni and postgres"
	stopPatroni   kind = "stop Patroni in order"
	killPgBouncer kind = "kill PgBouncer"
	killPgporter  kind = "kill pgporter"
	killEtcd      kind = "kill etcd"

	haltPostgres  kind = "halt postgres"
	haltPatroni   kind = "halt Patroni"
	haltMember    kind = "halt Patroni and postgres"
	haltPgBouncer kind = "halt PgBouncer"
	haltPgporter  kind = "halt pgporter"
	haltEtcd      kind = "halt etcd"
	// hang is a member that hangs for longer than the leader key lives, and then dies.
	hang kind = "halt Patroni and postgres, then kill them"
	// awaken is what is left out unless asked for: Patroni takes the leader key back after it.
	awaken kind = "halt Patroni beyond the TTL"
	// endedItself is never drawn: see keepPools.
	endedItself kind = "end by itself"

	cutFromEtcd  kind = "cut off from etcd"
	cutOff       kind = "cut off from all others"
	cutOffOneWay kind = "unheard by all others"
	unplug       kind = "pull the cable"
	losePower    kind = "cut the power"

	// hangAPI, lateAPI and nonsenseAPI are a member's REST API alone: its Patroni is well and renews what it holds.
	hangAPI     kind = "hang Patroni's API"
	lateAPI     kind = "delay Patroni's API"
	nonsenseAPI kind = "nonsense from Patroni's API"
	// keepEtcdAway is for longer than the leader key lives: nobody leads, and clients wait.
	keepEtcdAway kind = "keep etcd away"
	// freezeConsumer is a switchover from a primary that has a replication client which reads no more: it can't stop before that one
	// goes.
	freezeConsumer kind = "switchover past a frozen consumer"
	// refuseReplication has pg_hba.conf refuse a replica's Patroni the replication connection to its own PostgreSQL.
	refuseReplication kind = "refuse local replication"

	switchover   kind = "switchover"
	reload       kind = "reload"
	reloadEdit   kind = "reload an edited inventory"
	reloadBroken kind = "reload a broken inventory"
	// Of the PgBouncer before a pgporter.
	killDoor kind = "kill a door"
	haltDoor kind = "halt a door"
	// drainedSwitchover is pgporter switchover, abandonedSwitchover one that is killed before it is over.
	drainedSwitchover   kind = "drained switchover"
	abandonedSwitchover kind = "killed drained switchover"
	// upgrade has a new process take over from a pgporter, at whatever moment.
	upgrade kind = "upgrade pgporter"
)

// trait says how a kind of fault is drawn.
type trait struct {
	kind kind
	// weight is how often it is drawn; 0 only on demand.
	weight int
	// member says that it is done to one, replica to one that doesn't lead.
	member, replica bool
	// least and most bound how long it lasts; both 0 for what is over at once.
	least, most time.Duration
	// heavy kinds take a member or etcd away: of these at most two overlap, or there would be nobody to make mistakes.
	heavy bool
	// stills and clocks exclude each other: a Patroni that hangs while etcd's clock jumps finds its key expired though
	// it was away for less than the TTL, and that is the case that is left out.
	stills, clocks bool
	// network kinds need nodes with a network of their own. One of them at a time: healing is healing all.
	network bool
	// stream is which of the seed's random numbers draw it (streams).
	stream uint64
	// long kinds last as long as they may, which is at most half of the run, and leave at least apart between each other.
	long bool
}

// streams are the paces at which kinds are drawn, each with random numbers of its own, so that what a seed draws of the earlier
// ones stays what it was when kinds are added: those go into a stream behind. Of two that can't be at the same time the one
// of the later stream is left out. Changing the weight, the length or the number of kinds within a stream draws all of that
// stream anew, so it isn't done without a reason.
var streams = []struct{ least, most time.Duration }{
	{time.Second, 8 * time.Second},
	// What is done to checks: half as often.
	{2 * time.Second, 16 * time.Second},
	// What is done to doors and by pgporter switchover.
	{3 * time.Second, 16 * time.Second},
}

const (
	// ttl is the sandbox's leader key's; shortOfTTL leaves room for Patroni's loop (2 s) and its retries (3 s).
	ttl        = 20 * time.Second
	shortOfTTL = 12 * time.Second
	// apart is the least time between two long faults: in between there has to be something that can fail.
	apart = 2 * time.Minute
)

var traits = []trait{
	{kind: killPostgres, weight: 8, member: true},
	{kind: killPatroni, weight: 7, member: true, least: time.Second, most: 30 * time.Second, heavy: true},
	{kind: crash, weight: 8, member: true, least: time.Second, most: 30 * time.Second, heavy: true},
	{kind: stopPatroni, weight: 4, member: true, least: time.Second, most: 10 * time.Second, heavy: true},
	{kind: killPgBouncer, weight: 6, member: true, least: time.Second, most: 8 * time.Second},
	{kind: killPgporter, weight: 3, member: true, least: time.Second, most: 5 * time.Second},
	{kind: killEtcd, weight: 2, least: time.Second, most: 15 * time.Second, heavy: true, clocks: true},
	{kind: haltPostgres, weight: 4, member: true, least: time.Second, most: shortOfTTL},
	{kind: haltPatroni, weight: 4, member: true, least: time.Second, most: shortOfTTL, stills: true},
	{kind: haltMember, weight: 4, member: true, least: time.Second, most: shortOfTTL, heavy: true, stills: true},
	{kind: haltPgBouncer, weight: 5, member: true, least: time.Second, most: 6 * time.Second},
	{kind: haltPgporter, weight: 4, member: true, least: time.Second, most: 6 * time.Second},
	{kind: haltEtcd, weight: 2, least: time.Second, most: 15 * time.Second, heavy: true, clocks: true},
	{kind: hang, weight: 4, member: true, least: ttl + 2*time.Second, most: ttl + 8*time.Second, heavy: true, stills: true},
	{kind: awaken, member: true, least: ttl + 2*time.Second, most: ttl + 8*time.Second, heavy: true, stills: true},
	{kind: cutFromEtcd, weight: 14, member: true, least: time.Second, most: 30 * time.Second, heavy: true, clocks: true, network: true},
	{kind: cutOff, weight: 14, member: true, least: time.Second, most: 30 * time.Second, heavy: true, clocks: true, network: true},
	{kind: cutOffOneWay, weight: 6, member: true, least: time.Second, most: 30 * time.Second, heavy: true, clocks: true, network: true},
	{kind: unplug, weight: 5, member: true, least: time.Second, most: 30 * time.Second, heavy: true, clocks: true, network: true},
	{kind: losePower, weight: 6, member: true, least: time.Second, most: 30 * time.Second, heavy: true, network: true},
	{kind: switchover, weight: 14},
	{kind: reload, weight: 4},
	{kind: reloadEdit, weight: 6},
	{kind: reloadBroken, weight: 3},
	{kind: upgrade, weight: 10, member: true},

	{kind: hangAPI, weight: 8, member: true, least: 2 * time.Second, most: ttl + 10*time.Second, stream: 1},
	{kind: lateAPI, weight: 6, member: true, least: 2 * time.Second, most: ttl + 10*time.Second, stream: 1},
	{kind: nonsenseAPI, weight: 6, member: true, least: 2 * time.Second, most: ttl + 10*time.Second, stream: 1},
	// It takes no member away, and it is killed: when it comes back every lease has its whole time again, so no clock has jumped.
	{kind: keepEtcdAway, weight: 3, least: 15 * time.Second, most: time.Minute, stream: 1, long: true},
	// Patroni waits for its PostgreSQL to stop meanwhile, and mustn't find its key expired.
	{kind: freezeConsumer, weight: 6, least: 5 * time.Second, most: shortOfTTL, heavy: true, stills: true, stream: 1},
	{kind: refuseReplication, weight: 6, member: true, replica: true, least: 5 * time.Second, most: 30 * time.Second, stream: 1},

	{kind: killDoor, weight: 4, member: true, least: time.Second, most: 8 * time.Second, stream: 2},
	{kind: haltDoor, weight: 4, member: true, least: time.Second, most: 6 * time.Second, stream: 2},
	{kind: drainedSwitchover, weight: 12, stream: 2},
	{kind: abandonedSwitchover, weight: 6, least: 200 * time.Millisecond, most: 6 * time.Second, stream: 2},
}

// choose gives the traits of the named kinds, or of those that are drawn by themselves if none is named.
func choose(names []string, network bool) ([]trait, error) {
	if len(names) == 0 {
		return slices.DeleteFunc(slices.Clone(traits), func(t trait) bool { return t.weight == 0 || t.network && !network }), nil
	}
	var chosen []trait
	for _, name := range names {
		i := slices.IndexFunc(traits, func(t trait) bool { return string(t.kind) == name })
		if i < 0 {
			return nil, fmt.Errorf("no fault is called %q; there are: %s", name, strings.Join(kindNames(), ", "))
		}
		t := traits[i]
		if t.network && !network {
			return nil, fmt.Errorf("%q needs nodes in network namespaces", name)
		}
		t.weight = max(1, t.weight)
		chosen = append(chosen, t)
	}
	return chosen, nil
}

func kindNames() []string {
	var names []string
	for _, t := range traits {
		names = append(names, string(t.kind))
	}
	return names
}

// recovers is how long a Patroni needs after it hung until it has renewed its key.
const recovers = 6 * time.Second

// draw makes the faults of a run: the same for the same seed, length and kinds. All of them are undone when it is over.
func draw(seed uint64, length time.Duration, members int, from []trait) []fault {
	var all []drawn
	for stream := range streams {
		var own []trait
		for _, t := range from {
			if t.stream == uint64(stream) {
				own = append(own, t)
			}
		}
		all = drawStream(uint64(stream), seed, length, members, own, all)
	}
	slices.SortStableFunc(all, func(a, b drawn) int { return cmp.Compare(a.at, b.at) })
	var faults []fault
	for _, d := range all {
		faults = append(faults, d.fault)
	}
	return faults
}

// drawn is a fault with what its kind is like.
type drawn struct {
	fault
	trait
}

// drawStream adds the faults of one stream to those of the streams before it.
func drawStream(stream, seed uint64, length time.Duration, members int, from []trait, all []drawn) []drawn {
	random := rand.New(rand.NewPCG(seed, stream))
	between := func(least, most time.Duration) time.Duration {
		tenths := int64(least / (100 * time.Millisecond))
		return time.Duration(tenths+random.Int64N(int64(most/(100*time.Millisecond))-tenths+1)) * 100 * time.Millisecond
	}
	pace := streams[stream]
	for at := between(pace.least, 2*pace.least); at < length; at += between(pace.least, pace.most) {
		var possible []trait
		sum := 0
		for _, t := range from {
			if at+t.least <= length && (!t.long || t.least <= length/2) {
				possible = append(possible, t)
				sum += t.weight
			}
		}
		if sum == 0 {
			break
		}
		pick := random.IntN(sum)
		i := 0
		for ; pick >= possible[i].weight; i++ {
			pick -= possible[i].weight
		}
		t := possible[i]
		f := fault{at: at, kind: t.kind}
		longest := min(t.most, length-at)
		switch {
		case t.long:
			f.lasts = min(longest, length/2)
		case t.most > 0:
			// The least of two: short ones are more frequent than long ones.
			f.lasts = min(between(t.least, longest), between(t.least, longest))
		}
		switch {
		case t.replica:
			f.whom = []string{"sync", "other"}[random.IntN(2)]
		case t.member:
			f.whom = whom(random, members)
		}
		if one := (drawn{f, t}); one.fits(all) {
			all = append(all, one)
		}
	}
	return all
}

// whom draws the one that a fault is done to: the leader more often than others.
func whom(random *rand.Rand, members int) string {
	switch n := random.IntN(100); {
	case n < 45:
		return "leader"
	case n < 65:
		return "sync"
	case n < 75:
		return "other"
	}
	return fmt.Sprint(1 + random.IntN(members))
}

func (d drawn) end() time.Duration { return d.at + d.lasts }

// fits says whether a fault may be added to others, which may begin before it or after it.
func (d drawn) fits(others []drawn) bool {
	var heavy []drawn
	for _, o := range others {
		if d.long && o.long && d.at < o.end()+apart {
			return false
		}
		if o.end()+recovers <= d.at || d.end()+recovers <= o.at {
			continue
		}
		if d.stills && o.clocks || d.clocks && o.stills {
			return false
		}
		if d.heavy && o.heavy && o.end() > d.at && d.end() > o.at {
			heavy = append(heavy, o)
		}
	}
	// Of those that overlap with this one no two may overlap with each other meanwhile: that would be three at a time.
	for i, a := range heavy {
		for _, b := range heavy[:i] {
			if max(a.at, b.at, d.at) < min(a.end(), b.end(), d.end()) {
				return false
			}
		}
	}
	return true
}
