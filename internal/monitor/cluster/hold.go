package cluster

import (
	"fmt"
	"log/slog"
	"slices"
	"time"

	"github.com/pgporter/pgporter/internal/monitor/view"
)

// The hold that begins by itself: Patroni's failover key asks the leader to step down, which somebody else wanted.
//
// New clients wait as soon as the key is seen, since who is being authenticated when the leader stops is cut, and PgBouncers that are
// paused need the time for the transactions that are under way. Patroni has 0.2 to 2 s from the key until it stops PostgreSQL.
const (
	// holdServing is how long at most they are kept from a leader that goes on serving. Before Patroni stops PostgreSQL it makes a checkpoint
	// (postgresql/__init__.py, _do_stop), without a bound unless primary_stop_timeout is set, and only after that it says `stopping`. That may
	// take minutes where much was written, in which the leader is well: who comes then is cut when it stops, as he would be by a hold that
	// has been too short. And a request that nobody looks at, since the leader's Patroni hangs, stays for ever. So it is what clients wait
	// for a server as a rule (run --hold).
	holdServing = 5 * time.Second
	// holdVacant is how long it lasts at most once the leader doesn't serve. Nobody is kept from anybody then, and most switchovers are over
	// within 5 s of the key; on a node that is short of everything they take several times as long, and clients and PgBouncers that wait
	// are better off than with errors. It is less than the 30 s that pools such as HikariCP wait for a connection.
	holdVacant = 20 * time.Second
)

// keyHolder is who holds where Patroni's failover key says so.
const keyHolder = "Patroni's failover key"

// settleHold begins and ends the hold. services are what this step makes of them.
//
// It ends as soon as another member leads by its own word; when the key is gone, or asks for something else, while the leader still serves
// (Patroni takes back what can't be done: process_manual_failover_from_leader); and when its time is over. That etcd is lost ends nothing.
func (s *State) settleHold(services []view.Service, a *Actions, now time.Time) {
	leaders := view.Leaders(services)
	if r := s.key.now; !s.holdless && s.key.believed() && r.Failover != "" && r.FailoverRevision != s.key.held && slices.Contains(leaders, s.holder()) {
		if next, leaves := leavesNow(r.Failover, s.holder()); leaves {
			s.key.held = r.FailoverRevision
			s.hold = view.Hold{ID: fmt.Sprintf("%s %d", view.KeyHold, r.FailoverRevision), From: s.holder(), To: next, By: keyHolder, Since: now}
			a.logf(slog.LevelInfo, "%s: new clients of the leader wait: it is asked to step down", s.cluster.Name)
		}
	}
	h := &s.hold
	if h.ID == "" {
		return
	}
	over := ""
	if i := slices.IndexFunc(leaders, func(name string) bool { return name != h.From }); i >= 0 {
		over = leaders[i] + " leads"
	}
	serves := slices.Contains(leaders, h.From)
	_, leaves := leavesNow(s.key.now.Failover, h.From)
	h.Until = h.Since.Add(holdVacant)
	if serves {
		h.Until = h.Since.Add(holdServing)
	}
	switch {
	case over != "":
	case serves && s.key.known() && !leaves:
		over = h.From + " leads, and isn't asked to step down any more"
	case !now.Before(h.Until) && serves:
		over = fmt.Sprintf("%s still leads, %s and more after it was asked to step down", h.From, holdServing)
	case !now.Before(h.Until):
		over = fmt.Sprintf("nobody has come to lead for %s", holdVacant)
	default:
		return
	}
	a.logf(slog.LevelInfo, "%s: new clients of the leader don't wait any more: %s", s.cluster.Name, over)
	s.hold = view.Hold{}
}
