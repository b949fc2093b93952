package proxy

import (
	"sync/atomic"
	"time"

	"github.com/pgporter/pgporter/internal/engine"
	"github.com/pgporter/pgporter/internal/engine/relay"
)

// What happens to sessions is counted under the sessions' lock, which is held then anyway, and what happens to clients before by atomics:
// counting takes no lock of its own and allocates nothing.

// clockBegan is what the seconds of rates are counted from: they don't jump when somebody sets the clock.
var clockBegan = time.Now()

// secondOf numbers the seconds.
func secondOf(now time.Time) int64 { return int64(now.Sub(clockBegan) / time.Second) }

// rate counts events by the second: those of the second that runs and of the one before, and the most of any.
type rate struct {
	second            int64
	current, previous int
	most              int
}

func (r *rate) add(now time.Time) {
	if second := secondOf(now); second != r.second {
		r.previous = 0
		if second == r.second+1 {
			r.previous = r.current
		}
		r.second, r.current = second, 0
	}
	r.current++
	r.most = max(r.most, r.current)
}

// read gives how many events there were in the last second, as HAProxy's counters of frequency do: those of the second that runs, and
// of the one before as large a part as the one that runs has left.
func (r *rate) read(now time.Time) int { return overlapping1s(r.second, r.current, r.previous, now) }

func overlapping1s(second int64, current, previous int, now time.Time) int {
	switch secondOf(now) - second {
	case 0:
	case 1:
		current, previous = 0, current
	default:
		return 0
	}
	left := time.Second - now.Sub(clockBegan)%time.Second
	return current + int(int64(previous)*int64(left)/int64(time.Second))
}

// arrivals counts as a rate does, and all in total, for many at once without a lock.
type arrivals struct {
	total atomic.Uint64
	// running is the second that runs, in the upper half, and how many came in it; before is the same of the one before.
	running, before atomic.Uint64
	most            atomic.Uint32
}

func (a *arrivals) add(now time.Time) {
	a.total.Add(1)
	second := uint64(uint32(secondOf(now)))
	for {
		was := a.running.Load()
		is := was + 1
		if was>>32 != second {
			is = second<<32 | 1
		}
		if !a.running.CompareAndSwap(was, is) {
			continue
		}
		if was>>32 != second {
			a.before.Store(was)
		}
		for n := uint32(is); ; {
			most := a.most.Load()
			if n <= most || a.most.CompareAndSwap(most, n) {
				return
			}
		}
	}
}

// restore has it go on from what another one has counted.
func (a *arrivals) restore(total uint64, most int) {
	raise(&a.total, total)
	for {
		was := a.most.Load()
		if uint32(most) <= was || a.most.CompareAndSwap(was, uint32(most)) {
			return
		}
	}
}

// raise makes a counter at least n.
func raise(a *atomic.Uint64, n uint64) {
	for {
		was := a.Load()
		if n <= was || a.CompareAndSwap(was, n) {
			return
		}
	}
}

func (a *arrivals) read(now time.Time) int {
	running, before := a.running.Load(), a.before.Load()
	previous := 0
	if before>>32+1 == running>>32 {
		previous = int(uint32(before))
	}
	return overlapping1s(int64(running>>32), int(uint32(running)), previous, now)
}

// average is the mean of about the latest averageOf values: each new one moves it by its part. It is handed over as it is.
type average struct {
	// N is how many values there were, up to averageOf.
	N int `json:"n"`
	// Mean is in nanoseconds, as is Most, the greatest of all values.
	Mean float64 `json:"mean"`
	Most float64 `json:"most,omitempty"`
}

const averageOf = 1024

func (a *average) add(d time.Duration) {
	if a.N < averageOf {
		a.N++
	}
	a.Mean += (float64(d) - a.Mean) / float64(a.N)
	a.Most = max(a.Most, float64(d))
}

func (a *average) read() time.Duration { return time.Duration(a.Mean) }
func (a *average) most() time.Duration { return time.Duration(a.Most) }

// totals are what a server's counts are added up by to those of its service.
type totals struct {
	total, attempts, connectFailures, retries, redispatches, clientAborts, serverAborts uint64
	toServer, toClient                                                                  int64
	connecting                                                                          [len(engine.ConnectBounds) + 1]uint64
	connectSum                                                                          time.Duration
}

func (t *totals) add(o *totals) {
	t.total += o.total
	t.attempts += o.attempts
	t.connectFailures += o.connectFailures
	t.retries += o.retries
	t.redispatches += o.redispatches
	t.clientAborts += o.clientAborts
	t.serverAborts += o.serverAborts
	t.toServer += o.toServer
	t.toClient += o.toClient
	for i, n := range o.connecting {
		t.connecting[i] += n
	}
	t.connectSum += o.connectSum
}

// course is what a service's counts aren't the sum of its servers' in.
type course struct {
	sessions, sessionsMax int
	// queuedMax is the most clients that waited at once.
	queuedMax int
	rate      rate
	last      time.Time
	// queue, connect and session are times.
	queue, connect, session average
}

func (c *course) join() {
	c.sessions++
	c.sessionsMax = max(c.sessionsMax, c.sessions)
}

func (c *course) began(s *session, connecting time.Duration, now time.Time) {
	c.join()
	c.rate.add(now)
	c.last = now
	c.queue.add(s.queued)
	c.connect.add(connecting)
}

func (c *course) ended(lasted time.Duration) {
	c.sessions--
	c.session.add(lasted)
}

// serverTally is a server's counts.
type serverTally struct {
	totals
	course
}

// counts puts it into the words of an engine.
func counts(t *totals, c *course, now time.Time) engine.Counts {
	return engine.Counts{Sessions: c.sessions, SessionsMax: c.sessionsMax, TotalSessions: t.total, QueuedMax: c.queuedMax, SessionRate: c.rate.read(now), SessionRateMax: c.rate.most,
		ToServer: t.toServer, ToClient: t.toClient, Attempts: t.attempts, ConnectFailures: t.connectFailures, Retries: t.retries, Redispatches: t.redispatches,
		ClientAborts: t.clientAborts, ServerAborts: t.serverAborts, LastSession: c.last,
		QueueTime: c.queue.read(), ConnectTime: c.connect.read(), SessionTime: c.session.read(),
		QueueTimeMax: c.queue.most(), ConnectTimeMax: c.connect.most(), SessionTimeMax: c.session.most(), Connecting: t.connecting, ConnectSum: t.connectSum}
}

// tally counts what happened in a service. The sessions' lock guards it.
type tally struct {
	servers map[string]*serverTally
	// left adds up servers that are no longer there, whole is the course of all together.
	left  totals
	whole course
	// refused are clients that no server could take.
	refused uint64
	// ended counts sessions that have ended, by endReason.
	ended [len(engine.EndReasons)]uint64
}

func newTally() tally { return tally{servers: map[string]*serverTally{}} }

func (t *tally) of(member string) *serverTally {
	s := t.servers[member]
	if s == nil {
		s = &serverTally{}
		t.servers[member] = s
	}
	return s
}

// attempt counts that a client is to be connected with a server.
func (t *tally) attempt(c *client, member string) {
	s := t.of(member)
	s.attempts++
	switch c.failed {
	case "":
		return
	case member:
	default:
		s.redispatches++
	}
	s.retries++
}

// began counts a session that has begun now.
func (t *tally) began(s *session, now time.Time) {
	connected := s.connected
	if connected.IsZero() {
		connected = now
	}
	took := connected.Sub(s.began)
	of := t.of(s.member)
	of.total++
	at := 0
	for at < len(engine.ConnectBounds) && took > engine.ConnectBounds[at] {
		at++
	}
	of.connecting[at]++
	of.connectSum += took
	of.course.began(s, took, now)
	t.whole.began(s, took, now)
}

// join counts a session that was begun elsewhere.
func (t *tally) join(member string) {
	t.of(member).join()
	t.whole.join()
}

// sessionEnded counts the end of a session.
func (t *tally) sessionEnded(s *session, end relay.End, now time.Time) {
	of, lasted := t.of(s.member), now.Sub(s.began)
	of.toServer += end.ToServer
	of.toClient += end.ToClient
	if end.ClientBroke {
		of.clientAborts++
	}
	if end.ServerBroke {
		of.serverAborts++
	}
	of.course.ended(lasted)
	t.whole.ended(lasted)
	t.ended[s.reason(end)]++
}

// endReason is an index of engine.EndReasons.
type endReason uint8

const (
	endClient endReason = iota
	endServer
	endError
	endDown
	endIdle
	endKilled
	endStop
)

func (r endReason) String() string { return string(engine.EndReasons[r]) }

// reason is why a session has ended. The table's lock is held.
func (s *session) reason(end relay.End) endReason {
	switch {
	case end.Aborted:
		return s.why
	case end.Cause != nil:
		return endError
	case end.ServerFirst:
		return endServer
	}
	return endClient
}
