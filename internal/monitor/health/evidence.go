package health

import "time"

// PortSays is what is known of the port of a member's PostgreSQL.
type PortSays int

const (
	// PortUnknown: it hasn't been asked lately.
	PortUnknown PortSays = iota
	// PortAnswers: it has answered since there is doubt.
	PortAnswers
	// PortHangs: it lets in and doesn't answer, again and again. PostgreSQL may be stopped, or its machine busy: sessions may go on.
	PortHangs
	// PortFails: it refuses, or can't be reached.
	PortFails
)

// Backing is what is known of a server beside what its member's API says. The zero Backing knows nothing.
type Backing struct {
	// Fenced says why the member is certainly no leader: as a rule that the leader key names another one. Empty if it may be.
	Fenced string
	// Named says that the leader key, read through the quorum within KeyFresh, names the member; Read is when.
	Named bool
	Read  time.Time
	// Leads says that etcd's key of the member, which its Patroni writes, has it run as the leader.
	Leads bool
	// Stops says that by that key its PostgreSQL isn't running: it is stopped, or started.
	Stops bool
	// Standby says that the cluster follows another one: the holder of its leader key is no primary, but a standby leader.
	Standby bool
	// Free says that the leader key, as fresh, names nobody.
	Free bool
	// Outdated says that what the member answered last is older than the key's word: it was asked well before the key was read and named it.
	// The word is that of the last read that did, also when etcd is lost since.
	Outdated bool
	// Renewed says that the member's Patroni has renewed the leader key since its API fell silent: it lives.
	Renewed bool
	// Port is what its PostgreSQL's port says.
	Port PortSays
	// Maintained says that the cluster is in maintenance (Patroni's `pause`): nobody is promoted, and Patroni is stopped as often
	// as not.
	Maintained bool
	// TrustCheck has silence count whatever backs the member: the checks alone are trusted.
	TrustCheck bool
}

// KeyFresh is how old the last read of the leader key through etcd's quorum may be for the key to vouch for its holder.
const KeyFresh = 2 * time.Second

// effect is what evidence means for a server.
type effect int

const (
	// nothing: the evidence doesn't tell, weaker one decides.
	nothing effect = iota
	// admit: new clients come, sessions stay.
	admit
	// keep: all stays as it was.
	keep
	// pause: no new clients; sessions stay.
	pause
	// count: no new clients; sessions stay until there were `fall` results of it in a row.
	count
	// spare: all stays as it was until there were `fall` results in a row; after that no new clients, and sessions stay.
	spare
	// doubt: all stays as it was until there were `fall` results in a row; then sessions end.
	doubt
	// end: sessions end at once.
	end
)

// ranks is the order of evidence, the strongest first. The first one that tells anything decides: weaker evidence never beats
// stronger.
var ranks = [...]struct {
	name string
	says func(k Kind, j judgement, b Backing) effect
}{
	// Read through etcd's quorum. It isn't about an answer that passes: that the member leads and is ready is then known.
	{"leader key", func(k Kind, j judgement, b Backing) effect {
		switch {
		// The holder is promoted, if it isn't yet: it is wrong where leaders are excluded. What it says goes before that only as long as it
		// says something, and its own key doesn't.
		case k == Replica && b.Named && (b.Leads || j == silence || j == dead):
			return end
		case !k.OfLeader():
			return nothing
		case b.Fenced != "":
			return end
		case !b.Named || b.TrustCheck, k == Primary && b.Standby, k == StandbyLeader && !b.Standby:
			return nothing
		// Its API is slow, and it has been promoted meanwhile: what it says next will be that.
		case j == wrong && b.Outdated && b.Leads && b.Port != PortFails && b.Port != PortHangs:
			return keep
		case j == wrong, j == failed:
			return pause
		// An API that hangs or talks nonsense. One that refuses is a dead Patroni, which nobody is led to, unless
		// the key is renewed.
		case j == silence, j == dead && b.Renewed:
			switch {
			case b.Stops:
				return pause
			case b.Port != PortAnswers:
				return nothing
			case b.Leads:
				return admit
			}
			return keep
		}
		return nothing
	}},
	{"contrary answer", func(k Kind, j judgement, b Backing) effect {
		switch {
		case j != wrong:
			return nothing
		// The key named the member after that. Its next answer tells, or its silence until the key's time to live has run out.
		case k.OfLeader() && b.Outdated:
			return pause
		}
		return end
	}},
	{"answer", func(_ Kind, j judgement, _ Backing) effect {
		switch j {
		case pass:
			return admit
		case keyHeld, unready:
			return pause
		case failed:
			return count
		}
		return nothing
	}},
	// The port's word stands for PostgreSQL alone. What it can't say is who leads: without the key that is bounded by the key's time
	// to live, and over at once where the key is seen to be free.
	{"port", func(k Kind, j judgement, b Backing) effect {
		switch {
		case j != silence && j != dead, b.Port == PortFails:
			return nothing
		case b.Maintained && b.Port != PortHangs:
			return keep
		case j == dead && !b.Renewed, b.TrustCheck, k.OfLeader() && b.Free:
			return nothing
		}
		return spare
	}},
	{"silence", func(_ Kind, j judgement, _ Backing) effect {
		if j == silence || j == dead {
			return doubt
		}
		return nothing
	}},
}

// weigh gives what a judgement means with what backs it, and the rank that decided.
func weigh(k Kind, j judgement, b Backing) (effect, string) {
	for _, rank := range ranks {
		if e := rank.says(k, j, b); e != nothing {
			return e, rank.name
		}
	}
	return nothing, ""
}
