package chaos

import (
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

	cutFromEtcd  kind = "cut off from etcd"
	cutOff       kind = "cut off from all others"
	cutOffOneWay kind = "unheard by all others"
	unplug       kind = "pull the cable"
	losePower    kind = "cut the power"

	switchover   kind = "switchover"
	reload       kind = "reload"
	reloadEdit   kind = "reload an edited inventory"
	reloadBroken kind = "reload a broken inventory"
	// upgrade has a new process take over from a pgporter, at whatever moment.
	upgrade kind = "upgrade pgporter"
)

// trait says how a kind of fault is drawn.
type trait struct {
	kind kind
	// weight is how often it is drawn; 0 only on demand.
	weight int
	// member says that it is done to one.
	member bool
	// least and most bound how long it lasts; both 0 for what is over at once.
	least, most time.Duration
	// heavy kinds take a member or etcd away: of these at most two overlap, or there would be nobody to make mistakes.
	heavy bool
	// stills and clocks exclude each other: a Patroni that hangs while etcd's clock jumps finds its key expired though
	// it was away for less than the TTL, and that is the case that is left out.
	stills, clocks bool
	// network kinds need nodes with a network of their own. One of them at a time: healing is healing all.
	network bool
}

const (
	// ttl is the sandbox's leader key's; shortOfTTL leaves room for Patroni's loop (2 s) and its retries (3 s).
	ttl        = 20 * time.Second
	shortOfTTL = 12 * time.Second
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
	random := rand.New(rand.NewPCG(seed, 0))
	between := func(least, most time.Duration) time.Duration {
		tenths := int64(least / (100 * time.Millisecond))
		return time.Duration(tenths+random.Int64N(int64(most/(100*time.Millisecond))-tenths+1)) * 100 * time.Millisecond
	}
	var faults []fault
	var drawn []trait
	for at := between(time.Second, 2*time.Second); at < length; at += between(time.Second, 8*time.Second) {
		var possible []trait
		sum := 0
		for _, t := range from {
			if at+t.least <= length {
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
		if t.most > 0 {
			// The least of two: short ones are more frequent than long ones.
			longest := min(t.most, length-at)
			f.lasts = min(between(t.least, longest), between(t.least, longest))
		}
		if t.member {
			f.whom = whom(random, members)
		}
		if fits(f, t, faults, drawn) {
			faults, drawn = append(faults, f), append(drawn, t)
		}
	}
	return faults
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

// fits says whether a fault may be added to those that were drawn before it.
func fits(f fault, t trait, faults []fault, drawn []trait) bool {
	heavy := 0
	for i, earlier := range faults {
		if earlier.at+earlier.lasts+recovers <= f.at {
			continue
		}
		if t.stills && drawn[i].clocks || t.clocks && drawn[i].stills {
			return false
		}
		if drawn[i].heavy && earlier.at+earlier.lasts > f.at {
			heavy++
		}
	}
	return !t.heavy || heavy < 2
}
