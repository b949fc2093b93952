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
	// maxQueued limits the clients of one service that wait. It leaves room below the usual maxconn of 5000, so that
	// CancelRequests still come in.
	maxQueued = 4096
	// awaitInterval is how often it is said that clients wait for a server to be up.
	awaitInterval = 200 * time.Millisecond
	// queueInterval is how often clients that wait are looked after while nothing is heard that would let one in.
	queueInterval = retryPause / 2
)

// queue is the clients of a service that wait because no server takes them, in the order of their tickets. Each of them waits on
// its own socket (client.awaitTurn) until its read deadline, which is set to the past when its turn has come.
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
}

// waiter is a client that waits for a server. The queue's lock guards it.
type waiter struct {
	*client
	// home is the member that it waits for; empty if any will do.
	home string
	// session is set when its turn has come.
	session *session
}

// pass gives a client a server after those who wait, if there is one for it then. It is sessions.register otherwise.
func (q *queue) pass(c *client, stop context.CancelCauseFunc) (*session, shortage) {
	if q.waiting.Load() == 0 {
		return q.sessions.register(c, stop)
	}
	q.mu.Lock()
	defer q.mu.Unlock()
	q.letInLocked()
	return q.sessions.register(c, stop)
}

// enter is pass for a client that can wait: without a session it has joined the queue as the waiter, if there is one, and else may
// not wait.
func (q *queue) enter(c *client) (*session, *waiter, shortage) {
	q.waiting.Add(1)
	q.mu.Lock()
	defer q.mu.Unlock()
	q.letInLocked()
	s, short := q.sessions.register(c, nil)
	if s != nil || !q.mayWait(c, short) {
		q.waiting.Add(-1)
		return s, nil, short
	}
	w := &waiter{client: c, home: short.home}
	_ = c.conn.SetReadDeadline(c.holdUntil)
	at, _ := slices.BinarySearchFunc(q.clients, c.ticket, func(o *waiter, ticket uint64) int { return cmp.Compare(o.ticket, ticket) })
	q.clients = slices.Insert(q.clients, at, w)
	if c.waits.IsZero() {
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
	// Nobody ends its wait from now on.
	_ = w.conn.SetReadDeadline(time.Time{})
	return w.session
}

// mayWait tells whether a client that no server takes now may wait for one: if the service has a server that may have
// room soon, or that failed a moment ago, or is expected to get one again. q.mu is held.
//
// A service that has lost its last server by an operator's order is no other case. No failover will bring it one, but what such an order is
// for often does, within the hold: a server that is made ready after a restart, or a switchover away from it. The hold bounds the wait, and
// once the service has been without a server for as long as a failover takes its clients are refused at once.
func (q *queue) mayWait(c *client, short shortage) bool {
	hold, now := q.service.protocol().hold, time.Now()
	if hold <= 0 || short.gone != nil || len(q.clients) >= maxQueued {
		return false
	}
	if c.holdUntil.IsZero() {
		if short.usable() == 0 && now.Sub(short.lost) >= q.service.endpoint().Expectancy {
			return false
		}
		c.holdUntil = now.Add(hold)
	}
	if short.outcome == balance.Full && q.full(short) {
		return false
	}
	return now.Before(c.holdUntil)
}

// full tells whether as many clients wait as maxqueue allows: for each usable server, or, of a client that may be connected with
// one server only, for that one. q.mu is held.
func (q *queue) full(short shortage) bool {
	limit := short.maxQueue()
	if limit == 0 {
		return false
	}
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
		q.look()
	}
}

// look is letIn with the lock taken in any case, and gives how many wait on.
func (q *queue) look() int {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.letInLocked()
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
		s, short := q.sessions.register(w.client, nil)
		if s != nil {
			w.session = s
			q.waiting.Add(-1)
			_ = w.conn.SetReadDeadline(past)
			continue
		}
		w.home = short.home
		if alike {
			// What no server takes of one it takes of nobody who comes after.
			waiting = append(waiting, q.clients[i:]...)
			break
		}
		waiting = append(waiting, w)
	}
	clear(q.clients[len(waiting):])
	q.clients = waiting
}

// wakeAll ends everybody's wait; they find out why by themselves.
func (q *queue) wakeAll() {
	q.mu.Lock()
	defer q.mu.Unlock()
	for _, w := range q.clients {
		_ = w.conn.SetReadDeadline(past)
	}
}
