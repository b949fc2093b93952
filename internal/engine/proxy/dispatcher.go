package proxy

import (
	"fmt"
	"math/rand/v2"
	"sync/atomic"
	"time"

	"github.com/pgporter/pgporter/internal/beat"
	"github.com/pgporter/pgporter/internal/engine/balance"
)

// dispatcher connects the clients of one service with its servers, and watches over their sessions. It outlives Changes that
// keep the service.
//
// Its parts have locks of their own (see the package's comment for their order), and it has none: what it does beyond one of them
// is a sequence of steps, each of which is right by itself.
type dispatcher struct {
	*service
	// slots are for all clients that were accepted and haven't left: sessions, and those being connected, queued or refused. tickets
	// numbers them in the order in which they come.
	slots slots
	// lobby is for clients that come while there is no slot, and unheard those that haven't said yet what they want.
	lobby   lobby
	unheard unheard
	tickets atomic.Uint64
	// accepted counts the clients, denied those that were closed unheard, cancels the cancel requests, and cancelsSent those to servers.
	accepted                     arrivals
	denied, cancels, cancelsSent atomic.Uint64
	queue                        queue
	sessions                     sessions
	backoff                      backoff
	// fast has the clients that are on their way to a session and have no goroutine.
	fast fastPath
	// parked has those that were stopped on their way because the engine is being Frozen.
	parked parked
	// beats counts the times that watch has gone round.
	beats atomic.Uint64
}

func newDispatcher(e *Engine, a assignment) *dispatcher {
	d := &dispatcher{service: newService(e, a)}
	d.slots = slots{of: &e.slots, limit: a.Definition.MaxConn}
	d.lobby.open(e)
	d.backoff.servers = map[string]*failing{}
	d.sessions = sessions{service: d.service, slots: &d.slots, backoff: &d.backoff, open: map[*session]struct{}{},
		picker: balance.Picker{Seed: rand.Uint64()}, tally: newTally(), advancing: map[string][]*session{}}
	d.queue = queue{service: d.service, sessions: &d.sessions, joined: make(chan struct{}, 1)}
	return d
}

// reassign has the service go by something new from now on.
func (d *dispatcher) reassign(a assignment) {
	a.replaced = make(chan struct{})
	old := d.assigned.Swap(&a)
	close(old.replaced)
	d.slots.setLimit(a.Definition.MaxConn)
}

// came counts a client that was accepted.
func (d *dispatcher) came(now time.Time) {
	d.accepted.add(now)
	d.engine.accepted.add(now)
}

// retire ends the service here: every session, and every client on its way to a server. What ended is for logEnded, once no lock is
// held.
func (d *dispatcher) retire(cause error) endings {
	d.gone(cause)
	ended := d.sessions.endAll(cause.Error())
	d.interrupt()
	return ended
}

// interrupt takes all clients that are on their way to a server to where they find out that the service is gone.
func (d *dispatcher) interrupt() {
	d.fast.interrupt()
	d.queue.wakeAll()
}

// watch ends sessions and lets clients in as Views come, until the service is gone.
func (d *dispatcher) watch() {
	w := watcher{dispatcher: d, beat: beat.Every(BeatGap)}
	defer w.beat.Stop()
	for {
		task := d.assigned.Load()
		_, changed := task.Board.Watch()
		d.enforce()
		if !w.wait(changed, task) {
			return
		}
	}
}

// enforce ends what the newest View says is over. Who waits for a server doesn't wait for the log.
func (d *dispatcher) enforce() {
	svc, ended := d.sessions.enforce()
	d.backoff.retryNow(members(svc))
	d.queue.letIn()
	d.logEnded(ended)
}

// logEnded logs sessions that were told to end, in a line for each server and reason.
func (d *dispatcher) logEnded(ended endings) {
	for e, n := range ended {
		plural := "s"
		if n == 1 {
			plural = ""
		}
		d.engine.log.Info(fmt.Sprintf("ended %d session%s on %s: %s", n, plural, e.member, e.reason), "service", d.name)
	}
}

// watcher is what watch knows from one wait to the next.
type watcher struct {
	*dispatcher
	beat beat.Timer
	// awaited is when it was last said that clients wait for a server to be up, idleChecked when sessions were last looked at
	// for idleness.
	awaited, idleChecked time.Time
}

// wait waits until the View or the assignment is another one. Meanwhile it lets clients in that only time keeps out, ends idle
// sessions, and says while clients wait for a server to be up: at the pace of the schedule each of them would wait for longer than it
// has to. It returns false if the service is gone.
//
// Each round takes the locks of the queue and of the sessions, so that the beats stop if one of them is never given back.
func (w *watcher) wait(changed <-chan struct{}, task *assignment) bool {
	for {
		w.beats.Add(1)
		waiting := w.queue.look() > 0
		short := w.sessions.outlook()
		now := time.Now()
		if waiting && short.usable() == 0 && now.Sub(w.awaited) >= awaitInterval {
			w.awaited = now
			if v := w.view(); v != nil {
				task.protocol.await(v)
			}
		}
		var again <-chan time.Time
		if waiting {
			again = time.After(queueInterval)
		}
		var unheard <-chan time.Time
		if w.endSilent(now) {
			unheard = time.After(unheardInterval)
		}
		var idle <-chan time.Time
		if limit := task.protocol.idle; limit > 0 {
			if now.Sub(w.idleChecked) >= idleCheck(limit) {
				w.idleChecked = now
				w.logEnded(w.sessions.endIdle(limit, now))
			}
			idle = time.After(idleCheck(limit) - now.Sub(w.idleChecked))
		}
		select {
		case <-changed:
			return true
		case <-task.replaced:
			return true
		case <-w.here.Done():
			return false
		case <-w.queue.joined:
		case <-again:
		case <-unheard:
		case <-idle:
		case <-w.beat.C:
			w.beat.Again()
		}
	}
}
