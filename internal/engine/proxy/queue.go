package proxy

import (
	"cmp"
	"fmt"
	"slices"
	"time"

	"github.com/pgporter/pgporter/internal/engine/balance"
	"github.com/pgporter/pgporter/internal/monitor/view"
)

const (
	// maxQueued limits the clients of one service that wait. It leaves room below the usual maxconn of 5000, so that
	// CancelRequests still come in.
	maxQueued = 4096
	// retryPause is how long a server that failed is left alone.
	retryPause = 100 * time.Millisecond
	// recheckInterval is how often servers are to be checked out of turn while clients wait for one to be up.
	recheckInterval = 200 * time.Millisecond
	// queueInterval is how often held clients are looked after while nothing is heard that would let one in.
	queueInterval = retryPause / 2
)

// waiter is a client that waits for a server. The dispatcher's lock guards it.
type waiter struct {
	*client
	// home is the member that it waits for; empty if any will do.
	home string
	// session is set when its turn has come.
	session *session
}

// failing is of a server that failed its latest client. While it lasts one client at a time tries the server, and none
// before until: many clients that wait must not be a storm on a server that starts.
type failing struct {
	until time.Time
	try   *session
}

// assign finds a server for a client: at once if there is one, and otherwise by waiting for its turn within the hold. It
// ends with a *refusal, or errLeft.
func (d *dispatcher) assign(c *client) (*session, error) {
	d.mu.Lock()
	d.letIn()
	s, short := d.register(c)
	if s != nil {
		d.mu.Unlock()
		return s, nil
	}
	if !d.mayWait(c, short) {
		d.mu.Unlock()
		return nil, d.refusal(c, short)
	}
	h := d.enqueue(c, short)
	d.mu.Unlock()

	left := c.awaitTurn()

	d.mu.Lock()
	defer d.mu.Unlock()
	_ = c.conn.SetReadDeadline(time.Time{})
	d.queue = slices.DeleteFunc(d.queue, func(o *waiter) bool { return o == h })
	if left == nil && h.session == nil {
		if h.session, short = d.register(c); h.session == nil {
			return nil, d.refusal(c, short)
		}
	}
	if left != nil && h.session != nil {
		d.unregister(h.session)
		d.letIn()
	}
	if left != nil {
		return nil, left
	}
	return h.session, nil
}

// refusal is what a client is told of a shortage, with how long it has waited if that was all it could.
func (d *dispatcher) refusal(c *client, short shortage) *refusal {
	no := short.refusal(d.name, c.failures)
	if short.gone == nil && !c.holdUntil.IsZero() && !time.Now().Before(c.holdUntil) {
		no.message += fmt.Sprintf(" (waited %s)", d.hold())
	}
	return no
}

// mayWait tells whether a client that no server takes now may wait for one: if the service has a server that may have
// room soon, or that failed a moment ago, or is expected to get one again. d.mu is held.
func (d *dispatcher) mayWait(c *client, short shortage) bool {
	hold, now, usable := d.hold(), time.Now(), short.usable()
	if hold <= 0 || short.gone != nil || len(d.queue) >= maxQueued {
		return false
	}
	if c.holdUntil.IsZero() {
		if usable == 0 && now.Sub(d.lost) >= d.endpoint().Expectancy {
			return false
		}
		c.holdUntil = now.Add(hold)
	}
	if short.outcome == balance.Full && d.queueFull(short) {
		return false
	}
	return now.Before(c.holdUntil)
}

// queueFull tells whether as many clients wait as maxqueue allows: for each usable server, or, of a client that may be led to
// one server only, for that one. d.mu is held.
func (d *dispatcher) queueFull(short shortage) bool {
	limit := short.maxQueue()
	if limit == 0 {
		return false
	}
	if short.home == "" {
		return len(d.queue) >= limit
	}
	waiting := 0
	for _, h := range d.queue {
		if h.home == short.home {
			waiting++
		}
	}
	return waiting >= limit
}

// enqueue has a client wait at its place among those that do. d.mu is held.
func (d *dispatcher) enqueue(c *client, short shortage) *waiter {
	h := &waiter{client: c, home: short.home}
	_ = c.conn.SetReadDeadline(c.holdUntil)
	at, _ := slices.BinarySearchFunc(d.queue, c.ticket, func(o *waiter, ticket uint64) int { return cmp.Compare(o.ticket, ticket) })
	d.queue = slices.Insert(d.queue, at, h)
	select {
	case d.joined <- struct{}{}:
	default:
	}
	return h
}

// letIn gives servers to clients that wait, in the order in which they came, for as long as there is one to give. d.mu is
// held. Whatever may have made room calls it: a View, the end of a session, a server that is trusted again.
func (d *dispatcher) letIn() {
	if len(d.queue) == 0 {
		return
	}
	svc := d.service()
	alike := svc == nil || balance.Alike(svc)
	waiting := d.queue[:0]
	for i, h := range d.queue {
		s, short := d.register(h.client)
		if s != nil {
			h.session = s
			_ = h.conn.SetReadDeadline(past)
			continue
		}
		h.home = short.home
		if alike {
			// What no server takes of one it takes of nobody who comes after.
			waiting = append(waiting, d.queue[i:]...)
			break
		}
		waiting = append(waiting, h)
	}
	clear(d.queue[len(waiting):])
	d.queue = waiting
}

// wakeAll wakes everybody who waits; they find out why by themselves. d.mu is held.
func (d *dispatcher) wakeAll() {
	for _, h := range d.queue {
		_ = h.conn.SetReadDeadline(past)
	}
}

// noteUsable keeps in mind whether the service has a server for new clients, and since when it hasn't. d.mu is held.
func (d *dispatcher) noteUsable(svc *view.Service) {
	usable := svc != nil && len(svc.Usable()) > 0
	if d.usable && !usable {
		d.lost = time.Now()
	}
	d.usable = usable
}

// retryNow lets servers that failed be tried at once, because something has changed. d.mu is held.
func (d *dispatcher) retryNow(svc *view.Service) {
	d.noteUsable(svc)
	for member, s := range d.failing {
		s.until = time.Time{}
		if !slices.Contains(members(svc), member) {
			delete(d.failing, member)
		}
	}
}

// wait waits until the View or the task is another one. Meanwhile it lets clients in that only time keeps out, and has
// servers checked while clients wait for one to be up: at the pace of the schedule each of them would wait for longer than
// it has to. It returns false if the service is gone.
func (d *dispatcher) wait(changed, replaced <-chan struct{}, beat <-chan time.Time) bool {
	for {
		d.beats.Add(1)
		d.mu.Lock()
		d.letIn()
		waiting := len(d.queue) > 0
		var ask []string
		if now := time.Now(); waiting && !d.usable && now.Sub(d.asked) >= recheckInterval {
			d.asked = now
			ask = members(d.service())
		}
		d.mu.Unlock()
		for _, member := range ask {
			d.recheck(member)
		}
		var again <-chan time.Time
		if waiting {
			again = time.After(queueInterval)
		}
		select {
		case <-changed:
			return true
		case <-replaced:
			return true
		case <-d.here.Done():
			return false
		case <-d.joined:
		case <-again:
		case <-beat:
		}
	}
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

// avoid gives the members that a client isn't to be led to now. Without a hold each server is tried once; with one, who
// finds nobody else waits until it may be tried again. d.mu is held.
func (d *dispatcher) avoid(c *client, now time.Time) map[string]bool {
	var members map[string]bool
	add := func(member string) {
		if members == nil {
			members = map[string]bool{}
		}
		members[member] = true
	}
	if d.hold() <= 0 {
		for member := range c.failures {
			add(member)
		}
		return members
	}
	for member, s := range d.failing {
		if s.try != nil || now.Before(s.until) {
			add(member)
		}
	}
	return members
}

// backOff notes that a server failed a client. d.mu is held.
func (d *dispatcher) backOff(member string) {
	if d.hold() <= 0 {
		return
	}
	s := d.failing[member]
	if s == nil {
		s = &failing{}
		d.failing[member] = s
	}
	s.until = time.Now().Add(retryPause)
}

// yield lets another client try a suspected server, because it isn't the server that this session waits for. d.mu is held.
func (d *dispatcher) yield(s *session) {
	if suspected := d.failing[s.member]; suspected != nil && suspected.try == s {
		suspected.try = nil
	}
}

// reset notes that a server has taken a client, or at least hasn't failed it at once. d.mu is held.
func (d *dispatcher) reset(member string) {
	if d.failing[member] != nil {
		delete(d.failing, member)
		d.letIn()
	}
}
