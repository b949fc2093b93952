package owner

import (
	"slices"
	"time"

	"github.com/pgporter/pgporter/internal/config/model"
	"github.com/pgporter/pgporter/internal/monitor/view"
)

// claim is until when a node may have the address, and why. A zero until is not at all.
type claim struct {
	until time.Time
	why   string
	// leave says that an address that a former pgporter gave a lifetime may stay as long as that lasts: nothing is known that
	// would forbid it.
	leave bool
}

// judge says until when the node may have the address.
//
// At each moment there is a proof that the member leads, and the address lives for a time after it in which nobody else's
// claim can have grown old: two nodes never both have it for longer than the TTL. The key says who leads, so for the TTL less
// a margin after etcd was asked. Patroni says what it did up to the TTL ago, so for half the TTL after it answered.
func (s *State) judge(v *view.View, now time.Time) claim {
	i := slices.IndexFunc(v.Members, func(m view.Member) bool { return m.Name == s.want.Member })
	if i < 0 {
		return claim{why: s.want.Member + " is no member"}
	}
	me := v.Members[i]
	if !s.want.Keyed {
		return s.byPatroni(v, me)
	}
	if v.Key.Watched && v.Key.Lost == "" && !v.Key.Doubted {
		return s.byKey(v.Key)
	}
	return s.bereft(v.Key, me, now)
}

// byKey is the rule while the DCS answers.
func (s *State) byKey(k view.Key) claim {
	switch k.Holder {
	case s.want.Member:
		s.certain = k.Confirmed.Add(s.want.TTL - margin)
		return claim{until: s.certain, why: s.want.Member + " holds the leader key"}
	case "":
		return claim{why: "nobody holds the leader key"}
	}
	return claim{why: k.Holder + " holds the leader key"}
}

// bereft is the rule while nobody knows the leader key. What the member's own Patroni says can end a claim at once, and
// begins one in failsafe mode alone.
func (s *State) bereft(k view.Key, me view.Member, now time.Time) claim {
	if !k.Watched {
		c := claim{why: "etcd hasn't answered yet", leave: true}
		if s.holds {
			c.until = s.certain
		}
		return c
	}
	lost := "etcd is lost"
	if k.Doubted {
		lost = "etcd is of another cluster"
	}
	said := me.Led.Add(s.want.TTL / 2)
	switch {
	case s.want.OnLoss == model.DropOnLoss:
		return claim{why: lost}
	case me.Answer == view.NotChecked:
		return claim{why: lost, leave: true}
	case me.Led.IsZero():
		return claim{why: lost + ", and Patroni of " + me.Name + " doesn't say that it leads: " + me.Answer}
	case me.Failsafe && now.Before(said):
		return claim{until: said, why: lost + ", and failsafe mode keeps " + me.Name + " the leader"}
	case !s.holds:
		return claim{why: lost, leave: true}
	case s.want.OnLoss == model.KeepOnLoss:
		return claim{until: later(said, s.certain), why: lost + ", and " + me.Name + " says that it leads" + paused(me)}
	}
	return claim{until: s.certain, why: lost + "; " + me.Name + " held the leader key" + paused(me)}
}

// byPatroni is the rule without a DCS: who is elected by the members' answers, and says so itself.
func (s *State) byPatroni(v *view.View, me view.Member) claim {
	if me.Answer == view.NotChecked {
		return claim{why: "Patroni of " + me.Name + " hasn't answered yet", leave: true}
	}
	if me.Live != model.Primary {
		for _, m := range v.Members {
			if m.Live == model.Primary {
				return claim{why: m.Name + " is the primary"}
			}
		}
		return claim{why: "nobody is the primary"}
	}
	said := me.Led.Add(s.want.TTL / 2)
	switch {
	case me.Led.IsZero():
		return claim{why: "Patroni of " + me.Name + " doesn't say that it leads: " + me.Answer}
	case !me.Unlocked:
		s.certain = said
		return claim{until: said, why: me.Name + " is the primary"}
	case s.want.OnLoss == model.DropOnLoss:
		return claim{why: "Patroni of " + me.Name + " has lost the DCS"}
	case me.Failsafe:
		return claim{until: said, why: "failsafe mode keeps " + me.Name + " the leader"}
	case !s.holds:
		return claim{why: "Patroni of " + me.Name + " has lost the DCS", leave: true}
	case s.want.OnLoss == model.KeepOnLoss:
		return claim{until: said, why: "Patroni of " + me.Name + " has lost the DCS, and says that it leads" + paused(me)}
	}
	return claim{until: s.certain, why: "Patroni of " + me.Name + " has lost the DCS; it held the leader key" + paused(me)}
}

func paused(m view.Member) string {
	if m.Pause {
		return " (the cluster is paused)"
	}
	return ""
}

func later(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}
