package proxy

import (
	"cmp"
	"context"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/pgporter/pgporter/internal/engine/balance"
)

const (
	// awaitInterval is how often it is said that clients wait for a server to be up.
	awaitInterval = 200 * time.Millisecond
	// queueInterval is how often clients that wait are looked after while nothing is heard that would let one in.
	queueInterval = retryPause / 2
	// afterHold is how long, at least, those who were kept waiting by a View's Hold may wait on once that is over: whoever let them go knows
	// that there is a new leader, and this node is to find that out yet.
	afterHold = 5 * time.Second
)

// queue is the clients of a service that wait because no server takes them, in the order of their tickets. They are woken when their turn
// has come, or their time is up. How many there may be is the service's maxconn; CancelRequests come in by the lobby then.
//
// Once there is a server they aren't let go all at once: only so many are on their way to it at a time (sessions.busy), and whoever comes
// meanwhile is behind them.
//
// Whatever makes room calls letIn: a View, the end of a session, a server whose back-off is over. Nobody who comes later is given a
// server while somebody waits who could have it.
type queue struct {
	service  *service
	sessions *sessions
	// waiting is len(clients) and one for each client that is about to be among them. Whoever finds it 0 has no use for the lock. A
	// client is counted before it is found that no server takes it; so whoever makes room after that finds it counted.
	waiting atomic.Int32
	// joined tells the watcher that somebody came to wait, or to be heard.
	joined chan struct{}

	mu      sync.Mutex
	clients []*waiter
	// held are the words of the View's Hold that there was when they were last looked at; empty if there was none.
	held string
}

// waiter is a client that waits for a server. The queue's lock guards it.
type waiter struct {
	*client
	// wake has it go on; it doesn't block. It may be called more than once.
	wake func()
	// home is the member that it waits for; empty if any will do. outcome and crowded are of the shortage that it was last found to be in.
	home    string
	outcome balance.Outcome
	crowded bool
	// session is set when its turn has come.
	session *session
}

// enter gives a client a server after those who wait, if there is one for it then. Without a session it has joined the queue as the waiter
// that wake is of, and else, as with a wake that is nil, may not wait. stop is as in sessions.register.
func (q *queue) enter(c *client, stop context.CancelCauseFunc, wake func()) (*session, *waiter, shortage) {
	if q.waiting.Load() == 0 {
		if s, short := q.sessions.register(c, stop); s != nil || wake == nil {
			return s, nil, short
		}
	}
	q.waiting.Add(1)
	q.mu.Lock()
	defer q.mu.Unlock()
	q.letInLocked()
	register := q.sessions.register
	if len(q.clients) > 0 {
		register = q.sessions.advance
	}
	s, short := register(c, stop)
	if s != nil || wake == nil || !q.mayWait(c, short) {
		q.waiting.Add(-1)
		return s, nil, short
	}
	w := &waiter{client: c, wake: wake, home: short.home, outcome: short.outcome, crowded: short.crowded}
	if short.held {
		q.held = short.svc.HeldWords
	}
	at, _ := slices.BinarySearchFunc(q.clients, c.ticket, func(o *waiter, ticket uint64) int { return cmp.Compare(o.ticket, ticket) })
	q.clients = slices.Insert(q.clients, at, w)
	if c.expired = false; c.waits.IsZero() {
		c.waits = time.Now()
	}
	atHome := 0
	if w.home != "" {
		atHome = q.waitFor(w.home)
	}
	q.sessions.noteQueued(len(q.clients), w.home, atHome)
	q.wakeWatcher()
	return nil, w, short
}

// wakeWatcher has the watcher look after clients that wait.
func (q *queue) wakeWatcher() {
	select {
	case q.joined <- struct{}{}:
	default:
	}
}

// leave ends a client's wait, and gives the session if its turn had come.
func (q *queue) leave(w *waiter) *session {
	q.mu.Lock()
	defer q.mu.Unlock()
	if at := slices.Index(q.clients, w); at >= 0 {
		q.clients = slices.Delete(q.clients, at, at+1)
		q.waiting.Add(-1)
	}
	return w.session
}

// mayWait tells whether a client that no server takes now may wait for one: if the service has a server that may have
// room soon, or that failed a moment ago, or is expected to get one again, or is held. q.mu is held.
//
// A service that has lost its last server by an operator's order is no other case. No failover will bring it one, but what such an order is
// for often does, within the hold: a server that is made ready after a restart, or a switchover away from it. The hold bounds the wait, and
// once the service has been without a server for as long as a failover takes its clients are refused at once.
func (q *queue) mayWait(c *client, short shortage) bool {
	now, first := time.Now(), c.waits.IsZero()
	if c.task == nil {
		c.task = q.service.assigned.Load()
	}
	switch {
	case short.gone != nil:
		return false
	case short.held, short.crowded && (!first || !q.full(short)):
		return true
	case first && short.usable() == 0 && now.Sub(short.lost) >= q.service.endpoint().Expectancy:
		return false
	case short.outcome == balance.Full && q.full(short):
		return false
	}
	since := c.waits
	if first {
		since = now
	}
	may := now.Before(c.task.allowance(short).until(since, c.kept, short.outcome))
	c.expired = !may && !first
	return may
}

// allowance is how long clients of a service may wait as things are.
type allowance struct {
	// hold is the protocol's. by is until when a service that has no server is expected to have one; zero if there is one, or it can't be
	// said. extra is how long a failover may take that those wait for whose servers fail them; 0 where none is waited for.
	hold, extra time.Duration
	by          time.Time
}

// allowance is that in a shortage of anybody's. Where clients wait for as long as a failover can take, that is from when the last server was
// lost; where none can come it is from then, too, that they have their plain hold.
func (task *assignment) allowance(short shortage) allowance {
	p := allowance{hold: task.protocol.hold}
	switch {
	case !task.protocol.failover || short.svc == nil:
	case short.usable() > 0:
		p.extra = task.Expectancy
	case len(short.svc.OrderedOut()) > 0:
		// Nobody is elected while the one that was taken out leads.
	case short.hopeless != "":
		p.by = short.lost.Add(p.hold)
	default:
		p.by = short.lost.Add(task.Expectancy)
	}
	return p
}

// until is when a client that has waited since has waited for long enough, unless it is to be kept for longer.
func (p allowance) until(since, kept time.Time, outcome balance.Outcome) time.Time {
	until := since.Add(p.hold)
	switch {
	case outcome == balance.Full:
	case !p.by.IsZero():
		until = p.by
	case p.extra > 0:
		until = since.Add(max(p.hold, p.extra))
	}
	if kept.After(until) {
		return kept
	}
	return until
}

// full tells whether as many clients wait as maxqueue allows: for each usable server, or, of a client that may be connected with
// one server only, for that one. For as many more as there are places they only wait for those before them to arrive. q.mu is held.
func (q *queue) full(short shortage) bool {
	limit := short.maxQueue()
	if limit == 0 || short.room < 0 {
		return false
	}
	limit += short.room
	if short.home == "" {
		return len(q.clients) >= limit
	}
	return q.waitFor(short.home) >= limit
}

// waitFor gives how many clients wait for a server that can be connected with no other. q.mu is held.
func (q *queue) waitFor(home string) int {
	waiting := 0
	for _, w := range q.clients {
		if w.home == home {
			waiting++
		}
	}
	return waiting
}

// letIn gives servers to clients that wait, in the order in which they came, for as long as there is one to give.
func (q *queue) letIn() {
	if q.waiting.Load() > 0 {
		q.mu.Lock()
		defer q.mu.Unlock()
		q.letInLocked()
	}
}

// look is letIn with the lock taken in any case, and also ends the wait of those whose time is up, which is a look at each of them. It gives
// how many wait on.
func (q *queue) look() int {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.letInLocked()
	q.expireLocked(time.Now())
	return len(q.clients)
}

func (q *queue) letInLocked() {
	if len(q.clients) == 0 {
		return
	}
	svc := q.service.view()
	alike := svc == nil || balance.Alike(svc)
	waiting := q.clients[:0]
	for i, w := range q.clients {
		s, short := q.sessions.advance(w.client, nil)
		if s != nil {
			w.session = s
			q.waiting.Add(-1)
			w.wake()
			continue
		}
		w.home, w.outcome, w.crowded = short.home, short.outcome, short.crowded
		if alike {
			// What no server takes of one it takes of nobody who comes after. There may be thousands, which stay where they are.
			clear(q.clients[:i])
			q.clients = q.clients[i:]
			return
		}
		waiting = append(waiting, w)
	}
	clear(q.clients[len(waiting):])
	q.clients = waiting
}

// expireLocked wakes those who have waited for long enough: they find out by themselves why there is no server, and leave. A hold that is
// over leaves them some time.
func (q *queue) expireLocked(now time.Time) {
	if len(q.clients) == 0 {
		q.held = ""
		return
	}
	short := q.sessions.outlook()
	if short.held {
		q.held = short.svc.HeldWords
		return
	}
	ended := q.held
	q.held = ""
	var task *assignment
	var p allowance
	alike := short.svc == nil || balance.Alike(short.svc)
	for _, w := range q.clients {
		if w.task != task {
			task = w.task
			p = task.allowance(short)
		}
		if ended != "" {
			w.held, w.kept = ended, now.Add(max(p.hold, afterHold))
		}
		of := w
		if alike {
			of = q.clients[0]
		}
		if of.crowded {
			// There is a server, and it isn't the client that has it wait: should the server be full once it is its turn, it has its time for that.
			if own := now.Add(p.hold); own.After(w.kept) {
				w.kept = own
			}
			continue
		}
		if !now.Before(p.until(w.waits, w.kept, of.outcome)) {
			w.expired = true
			w.wake()
		}
	}
}

// wakeAll ends everybody's wait; they find out why by themselves.
func (q *queue) wakeAll() {
	q.mu.Lock()
	defer q.mu.Unlock()
	for _, w := range q.clients {
		w.wake()
	}
}
