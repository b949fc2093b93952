package proxy

import (
	"context"
	"fmt"
	"net/netip"
	"slices"
	"sync"
	"time"

	"github.com/pgporter/pgporter/internal/engine"
	"github.com/pgporter/pgporter/internal/engine/balance"
	"github.com/pgporter/pgporter/internal/engine/relay"
	"github.com/pgporter/pgporter/internal/monitor/view"
)

// session is a client that is being connected, or is connected, with a server.
type session struct {
	member, address string
	// epoch is the server's as it was when it was picked. Invariant: a session in the table was registered under a View that is
	// current or that the watcher hasn't looked past yet.
	epoch  uint64
	client netip.AddrPort
	// began is when it was registered, queued how long the client had waited for that, and connected when its server was; zero before, and
	// where that is the same as the session's start.
	began     time.Time
	queued    time.Duration
	connected time.Time
	// id is its own in this process, from its start on.
	id uint64
	// logged is what the session log was told of it; nil if it isn't told. Whoever begins the flow sets it before.
	logged *engine.Session
	// header is the version of the PROXY protocol that the server expects.
	header byte

	// What follows is guarded by the table's lock.

	// connecting ends when the server may not take new clients any more, and stop ends it; nil while there is no attempt to
	// connect, and once the flow has started. Only whoever connects reads connecting.
	connecting context.Context
	stop       context.CancelCauseFunc
	// flow moves the bytes; nil before the server has taken the client.
	flow *relay.Flow
	// ending is set once the session was told to end, why says for what.
	ending bool
	why    endReason
	// moved are the bytes that it had moved when it was last looked at for idleness, movedAt when they had changed.
	moved   int64
	movedAt time.Time
}

// sessions is the table of a service's sessions, from the pick of a server to the end.
//
// A server is picked from the newest View, and the session noted under the server's epoch, in one critical section; a View is
// enforced in another. So whatever View is published later, the watcher finds the session when it enforces it.
type sessions struct {
	service *service
	slots   *slots
	backoff *backoff

	mu     sync.Mutex
	open   map[*session]struct{}
	picker balance.Picker
	tally  tally
	// usable says that the newest View that was looked at had a server for new clients, lost when that ended. A View's Hold is no loss.
	usable bool
	lost   time.Time
	// advancing are sessions that were given to clients of the queue and whose servers haven't responded yet, by member: see busy.
	advancing map[string][]*session
	// successor has the sessions after a Freeze that failed.
	successor *dispatcher
}

// register picks a server for a client that is up in the newest View, and notes the session. stop is the session's for as long as
// it is being connected. Without a session the shortage says why.
func (t *sessions) register(c *client, stop context.CancelCauseFunc) (*session, shortage) {
	return t.pick(c, stop, false)
}

// advance is register for a client of the queue, or one that comes while others wait there: of those only so many are on their way to one
// server at a time.
func (t *sessions) advance(c *client, stop context.CancelCauseFunc) (*session, shortage) {
	return t.pick(c, stop, true)
}

func (t *sessions) pick(c *client, stop context.CancelCauseFunc, bounded bool) (*session, shortage) {
	t.mu.Lock()
	defer t.mu.Unlock()
	short := t.short()
	svc := short.svc
	if short.gone != nil || svc == nil {
		return nil, short
	}
	now := time.Now()
	who := balance.Client{Addr: c.from.Addr(), Avoid: t.avoid(c, now), Now: now}
	if bounded {
		who.Busy = t.busy(now)
	}
	i, outcome := t.picker.Pick(svc, who)
	if short.outcome = outcome; outcome != balance.Picked {
		if outcome == balance.Full {
			short.home = t.picker.Home(svc, who)
			short.room = t.picker.Room(svc, short.home, now)
			short.crowded = len(who.Busy) > 0 && short.room != 0
		}
		return nil, short
	}
	s := &session{member: svc.Servers[i].Member, address: svc.Servers[i].Address(), epoch: svc.Health[i].Epoch,
		client: c.from, began: now, header: svc.OptionsOf(i).ProxyVersion(), stop: stop}
	if !c.waits.IsZero() {
		s.queued = now.Sub(c.waits)
	}
	t.open[s] = struct{}{}
	if bounded {
		t.advancing[s.member] = append(t.advancing[s.member], s)
	}
	t.tally.attempt(c, s.member)
	t.backoff.trying(s)
	return s, shortage{}
}

// avoid gives the members that a client isn't to be connected with now. Where nobody may wait each server is tried once; elsewhere
// who finds no other waits until it may be tried again. t.mu is held.
func (t *sessions) avoid(c *client, now time.Time) map[string]bool {
	if t.service.protocol().waits() {
		return t.backoff.avoid(now)
	}
	if len(c.failures) == 0 {
		return nil
	}
	members := make(map[string]bool, len(c.failures))
	for member := range c.failures {
		members[member] = true
	}
	return members
}

const (
	// advanceAtOnce is how many clients of the queue are on their way to one server at a time: from when it is picked to its first response.
	// PgBouncer's port has room for 128 (listen_backlog), which all nodes share.
	advanceAtOnce = 32
	// advancePatience is how long one of them keeps the next from going. A server that takes longer to respond has the next ones come all
	// the same, so that the queue moves by advanceAtOnce in each of these however slow it is.
	advancePatience = responseCheck
)

// busy are the members that as many clients of the queue are on their way to as may be. t.mu is held.
func (t *sessions) busy(now time.Time) map[string]bool {
	var members map[string]bool
	for member, all := range t.advancing {
		all = slices.DeleteFunc(all, func(s *session) bool {
			_, open := t.open[s]
			return s.flow != nil || !open || now.Sub(s.began) >= advancePatience
		})
		if t.advancing[member] = all; len(all) == 0 {
			delete(t.advancing, member)
		} else if len(all) >= advanceAtOnce {
			if members == nil {
				members = map[string]bool{}
			}
			members[member] = true
		}
	}
	return members
}

// attach gives a session that was registered for a client of the queue what ends its way to the server; false if that is over already.
func (t *sessions) attach(s *session, stop context.CancelCauseFunc) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	s.stop = stop
	return !s.ending
}

// outlook is a shortage of nobody in particular: what those who wait can expect by the newest View.
func (t *sessions) outlook() shortage {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.short()
}

// short is outlook with t.mu held.
func (t *sessions) short() shortage {
	if t.service.here.Err() != nil {
		return shortage{gone: context.Cause(t.service.here)}
	}
	v, svc := t.service.look()
	t.noteUsable(svc)
	short := shortage{svc: svc, outcome: balance.None, lost: t.lost}
	if svc != nil {
		short.held = svc.Held
		if svc.Leads {
			short.hopeless = v.Hopeless
		}
	}
	return short
}

// noteUsable keeps in mind whether the service has a server for new clients, and since when it hasn't. t.mu is held.
func (t *sessions) noteUsable(svc *view.Service) {
	if svc != nil && svc.Held {
		t.usable = t.usable || slices.ContainsFunc(svc.Health, func(h view.Health) bool { return h.Up })
		return
	}
	usable := svc != nil && len(svc.Usable()) > 0
	if t.usable && !usable {
		t.lost = time.Now()
	}
	t.usable = usable
}

// connect gives a session a context for an attempt to connect, which ends when its server may not take new clients any more.
func (t *sessions) connect(s *session) {
	t.mu.Lock()
	defer t.mu.Unlock()
	s.connecting, s.stop = context.WithCancelCause(t.service.here)
	if s.ending {
		s.stop(errUnwanted)
	}
}

// start has a session's flow begun by begin, now that its server has taken the client, unless the newest View has something
// against the server: the watcher may be about to enforce it. begin is called with t.mu held. After an error nothing has begun.
func (t *sessions) start(s *session, begin func() (*relay.Flow, error)) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	if s.ending || t.service.here.Err() != nil || objection(t.service.view(), s) != "" {
		return errUnwanted
	}
	s.id = t.service.engine.ids.Add(1)
	flow, err := begin()
	if err != nil {
		return err
	}
	s.flow = flow
	if s.stop != nil {
		s.stop(nil)
	}
	s.connecting, s.stop = nil, nil
	now := time.Now()
	t.tally.began(s, now)
	t.service.engine.begun.add(now)
	return nil
}

// add makes a session that was begun elsewhere one of the table's, without having it be one more that there ever was. t.mu is held.
func (t *sessions) add(s *session) {
	t.slots.take()
	t.open[s] = struct{}{}
	t.picker.Take(s.member)
	t.tally.join(s.member)
}

// release forgets a session without a flow; failed says that it is the server's fault that it has none.
func (t *sessions) release(s *session, failed bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if failed {
		t.tally.of(s.member).connectFailures++
	}
	if s.stop != nil {
		s.stop(nil)
	}
	t.remove(s)
}

// remove takes a session out of the table. t.mu is held.
func (t *sessions) remove(s *session) {
	delete(t.open, s)
	t.picker.Release(s.member)
}

// ended forgets a session whose flow has ended, and with it the client. A dispatcher that is given has the session now: it is to
// be told instead.
func (t *sessions) ended(s *session, end relay.End) (successor *dispatcher) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if _, own := t.open[s]; !own && t.successor != nil {
		return t.successor
	}
	t.remove(s)
	t.tally.sessionEnded(s, end, time.Now())
	t.slots.leave()
	return nil
}

// refused counts a client that no server could take.
func (t *sessions) refused() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.tally.refused++
}

// noteQueued keeps in mind how many clients wait at once, and how many of them for the one server that home is, unless it is empty.
func (t *sessions) noteQueued(all int, home string, atHome int) {
	t.mu.Lock()
	defer t.mu.Unlock()
	whole := &t.tally.whole
	whole.queuedMax = max(whole.queuedMax, all)
	if home != "" {
		of := t.tally.of(home)
		of.queuedMax = max(of.queuedMax, atHome)
	}
}

// enforce ends what the newest View says is over, and gives what it says of the service. The View is taken with the lock held: an
// older one would object to sessions that were registered under the newest.
func (t *sessions) enforce() (*view.Service, endings) {
	t.mu.Lock()
	defer t.mu.Unlock()
	svc := t.service.view()
	t.noteUsable(svc)
	return svc, t.end(endDown, func(s *session) string { return objection(svc, s) })
}

// endAll ends all sessions for a reason.
func (t *sessions) endAll(reason string) endings {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.end(endStop, func(*session) string { return reason })
}

// endIdle ends the sessions that have moved nothing for a time.
func (t *sessions) endIdle(idle time.Duration, now time.Time) endings {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.end(endIdle, func(s *session) string {
		if s.flow == nil {
			return ""
		}
		toServer, toClient := s.flow.Bytes()
		if moved := toServer + toClient; s.movedAt.IsZero() || moved != s.moved {
			s.moved, s.movedAt = moved, now
			return ""
		}
		if now.Sub(s.movedAt) < idle {
			return ""
		}
		return fmt.Sprintf("neither side has sent anything for %s", idle)
	})
}

// endings count sessions that were told to end, by their server and the reason: they are lines of the log, which nobody writes with
// a lock held, since a client's way and the loops of the relay lead through the locks.
type endings map[ending]int

// ending is why sessions on a server were told to end.
type ending struct{ member, reason string }

// end ends each session that judge has a reason against, which is one of the kind of why. t.mu is held.
func (t *sessions) end(why endReason, judge func(*session) string) endings {
	ended := endings{}
	for s := range t.open {
		reason := ""
		if !s.ending {
			reason = judge(s)
		}
		if reason == "" {
			continue
		}
		s.ending, s.why = true, why
		cause := fmt.Errorf("%s: %s", s.member, reason)
		if s.flow == nil {
			if s.stop != nil {
				s.stop(cause)
			}
			continue
		}
		s.flow.Abort(cause)
		ended[ending{s.member, reason}]++
	}
	return ended
}

// objection says why a session may not go on; empty if it may. One that isn't connected yet needs a server that takes
// new clients, one that is needs only its epoch. A session whose server was taken out of the service ends where the service's
// options end those of a server that is down.
func objection(svc *view.Service, s *session) string {
	if svc == nil {
		return "the cluster no longer has the service"
	}
	for i, server := range svc.Servers {
		if server.Member != s.member {
			continue
		}
		health := svc.Health[i]
		switch {
		case health.Epoch != s.epoch && health.Ended != "":
			return health.Ended
		case health.Epoch != s.epoch:
			return health.Reason
		case s.flow == nil && !svc.Takes(i):
			return svc.Words(i)
		}
		return ""
	}
	if s.flow != nil && !svc.Options.ShutdownSessions {
		return ""
	}
	return "it is no longer a server of the service"
}

// members are the names of a service's servers.
func members(svc *view.Service) []string {
	if svc == nil {
		return nil
	}
	names := make([]string, len(svc.Servers))
	for i, server := range svc.Servers {
		names[i] = server.Member
	}
	return names
}
