package proxy

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/pgporter/pgporter/internal/engine/handover"
	"github.com/pgporter/pgporter/internal/engine/relay"
)

// errHandingOver is why clients are connected no further while an Engine is Frozen.
var errHandingOver = errors.New("pgporter hands over to another process")

// freezeTimeout bounds the wait for clients to stop where they can be handed over; nothing that they wait for takes time. A
// variable, so that a test needn't wait for it.
var freezeTimeout = 500 * time.Millisecond

// Frozen is an Engine that stands still between two bytes. Exactly one of Thaw and Release is to be called, soon.
type Frozen struct {
	engine   *Engine
	services []frozenService
	// lent are descriptors that were made for Items.
	lent []int
}

type frozenService struct {
	*dispatcher
	handed   handedService
	sessions []frozenSession
	clients  []*client
}

type frozenSession struct {
	*session
	pair relay.Pair
}

// Freeze stops everything: nobody is accepted (clients wait in the listeners' backlogs), those on their way to a server go back
// to where nothing of theirs was taken, and no byte of a session moves. Sessions that are ending, and clients that are being
// refused, are left to their end. No Change may be under way or begin. After an error everything goes on as before.
func (e *Engine) Freeze() (*Frozen, error) {
	if !relay.Detaches {
		return nil, errors.New("sessions can't be handed over on this system")
	}
	e.freezing.Lock()
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.phase != running || e.pending != nil {
		e.freezing.Unlock()
		return nil, errors.New("proxy: only an engine that runs, and isn't being changed, can hand over")
	}
	for _, l := range e.listeners {
		l.pause()
	}
	e.accepting.Wait()
	for _, d := range e.dispatchers {
		d.gone(errHandingOver)
		d.interrupt()
	}
	select {
	case <-e.dispatching.over():
	case <-time.After(freezeTimeout):
		e.goOn()
		e.freezing.Unlock()
		return nil, fmt.Errorf("proxy: clients didn't stop within %s", freezeTimeout)
	}
	f := &Frozen{engine: e}
	for _, d := range e.dispatchers {
		f.services = append(f.services, d.freeze())
	}
	return f, nil
}

// goOn connects clients again after a Freeze for which not all of them have stopped. e.mu is held.
func (e *Engine) goOn() {
	for _, old := range e.dispatchers {
		d := e.replace(old)
		stopped := old.passOn(d)
		e.startWatching(d)
		for _, c := range stopped {
			d.readmit(c)
		}
	}
	for _, l := range e.listeners {
		e.startAccepting(l)
	}
}

// replace puts a new dispatcher in the place of one that was stopped, which doesn't come back to life. It isn't watching yet.
// e.mu is held.
func (e *Engine) replace(old *dispatcher) *dispatcher {
	d := newDispatcher(e, *old.assigned.Load())
	e.dispatchers[d.name] = d
	old.slots.setOwn(0)
	e.divide()
	for _, l := range e.listeners {
		if l.dispatcher.Load() == old {
			l.assignTo(d)
		}
	}
	return d
}

// parked are clients of a dispatcher that were stopped on their way because the engine is being Frozen.
type parked struct {
	mu      sync.Mutex
	clients []*client
	// successor gets those that stop only now; nil for as long as they are kept here.
	successor *dispatcher
}

// park keeps a client that couldn't be connected with a server because everything is to stand still. If it was too late for that,
// the client goes on with the successor.
func (d *dispatcher) park(c *client) bool {
	if !errors.Is(context.Cause(d.here), errHandingOver) {
		return false
	}
	p := &d.parked
	p.mu.Lock()
	successor := p.successor
	if successor == nil {
		p.clients = append(p.clients, c)
	}
	d.slots.leave()
	p.mu.Unlock()
	if successor != nil {
		successor.readmit(c)
	}
	return true
}

// collect gives the clients that were stopped, in the order in which they came. Those that stop later are the successor's, if there
// is one.
func (p *parked) collect(successor *dispatcher) []*client {
	p.mu.Lock()
	defer p.mu.Unlock()
	clients := p.clients
	p.clients, p.successor = nil, successor
	slices.SortFunc(clients, func(a, b *client) int { return cmp.Compare(a.ticket, b.ticket) })
	return clients
}

// passOn gives a successor what a dispatcher knows and its sessions, which go on meanwhile, and gives the clients that have
// stopped. Those that haven't are the successor's once they do. What is on its way to a server still ends here.
func (d *dispatcher) passOn(successor *dispatcher) (stopped []*client) {
	d.sessions.mu.Lock()
	defer d.sessions.mu.Unlock()
	successor.restore(d.handed())
	successor.sessions.mu.Lock()
	defer successor.sessions.mu.Unlock()
	for s := range d.sessions.open {
		if s.flow == nil {
			continue
		}
		delete(d.sessions.open, s)
		d.slots.leave()
		successor.sessions.add(s)
	}
	d.sessions.successor = successor
	return d.parked.collect(successor)
}

// freeze takes a dispatcher's sessions and clients, with all that they are counted in.
func (d *dispatcher) freeze() frozenService {
	d.sessions.mu.Lock()
	defer d.sessions.mu.Unlock()
	f := frozenService{dispatcher: d, clients: d.parked.collect(nil), handed: d.handed()}
	for s := range d.sessions.open {
		if s.flow == nil {
			continue
		}
		if pair, still := s.flow.Detach(); still {
			f.sessions = append(f.sessions, frozenSession{s, pair})
			delete(d.sessions.open, s)
			d.slots.leave()
			d.engine.serving.Done()
			continue
		}
		if !s.ending {
			s.why = endStop
		}
		counts := f.handed.Counts[s.member]
		toServer, toClient := s.flow.Bytes()
		counts.ToServer += toServer
		counts.ToClient += toClient
		f.handed.Counts[s.member] = counts
	}
	return f
}

// Unsettled is Engine.Unsettled of what stands still.
func (f *Frozen) Unsettled(theirs HealthStatus) string {
	for _, svc := range f.services {
		on := map[string]int{}
		for _, s := range svc.sessions {
			on[s.member]++
		}
		if why := svc.unsettled(on, theirs); why != "" {
			return why
		}
	}
	return ""
}

// Count gives how many sessions and clients without one there are to hand over.
func (f *Frozen) Count() (sessions, clients int) {
	for _, s := range f.services {
		sessions += len(s.sessions)
		clients += len(s.clients)
	}
	return sessions, clients
}

// Items is all that is to be handed over. The descriptors stay the Frozen's.
func (f *Frozen) Items() ([]handover.Item, error) {
	var items []handover.Item
	add := func(kind string, body any, descriptors ...int) error {
		text, err := json.Marshal(body)
		if err != nil {
			return fmt.Errorf("handing over a %s: %w", kind, err)
		}
		items = append(items, handover.Item{Kind: kind, Body: text, Descriptors: descriptors})
		return nil
	}
	for _, svc := range f.services {
		if err := add(serviceItem, svc.handed); err != nil {
			return nil, err
		}
		for _, s := range svc.sessions {
			if err := add(sessionItem, s.handed(svc.name), s.pair.Client, s.pair.Server); err != nil {
				return nil, err
			}
		}
		for _, c := range svc.clients {
			fd, err := handover.Duplicate(c.conn)
			if err != nil {
				return nil, fmt.Errorf("handing over a client: %w", err)
			}
			f.lent = append(f.lent, fd)
			if err := add(clientItem, c.handed(svc.name, svc.protocol().hold), fd); err != nil {
				return nil, err
			}
		}
	}
	return items, nil
}

func (s frozenSession) handed(service string) handedSession {
	p := s.pair
	return handedSession{Service: service, Member: s.member, Address: s.address, Client: s.client.String(), ID: s.id, Began: s.began, Moved: s.moved, MovedAt: s.movedAt,
		ToServer: p.ToServer, ToClient: p.ToClient, ClientEnded: p.ClientEnded, ServerEnded: p.ServerEnded, SentToServer: p.SentToServer, SentToClient: p.SentToClient}
}

// handed is a client for another process, in which it may wait for as long as hold says, too.
func (c *client) handed(service string, hold time.Duration) handedClient {
	h := handedClient{Service: service, ToServer: c.toServer, ToClient: c.toClient, HoldUntil: c.kept, Waits: c.waits}
	if until := c.waits.Add(hold); !c.waits.IsZero() && until.After(h.HoldUntil) {
		h.HoldUntil = until
	}
	for name, what := range declinable {
		if c.declined[what] {
			h.Declined = append(h.Declined, name)
		}
	}
	return h
}

// declinable names what may be declined, for the wire.
var declinable = map[string]packetKind{"ssl": sslRequest, "gssenc": gssEncRequest}

// Thaw has everything go on where it stopped.
func (f *Frozen) Thaw() {
	f.engine.mu.Lock()
	defer f.engine.mu.Unlock()
	e := f.engine
	defer e.freezing.Unlock()
	f.giveBack()
	for _, svc := range f.services {
		d := e.replace(svc.dispatcher)
		d.restore(svc.handed)
		for _, s := range svc.sessions {
			d.adoptSession(s.session, s.pair)
		}
		for _, c := range svc.clients {
			d.readmit(c)
		}
		e.startWatching(d)
	}
	for _, l := range e.listeners {
		e.startAccepting(l)
	}
}

// Drop gives up what was handed over to a process that has died with it. Thaw is still to be called.
func (f *Frozen) Drop() {
	f.close()
	for i := range f.services {
		f.services[i].sessions, f.services[i].clients = nil, nil
	}
}

// close closes everything that is handed over.
func (f *Frozen) close() {
	for _, svc := range f.services {
		for _, s := range svc.sessions {
			relay.Discard(s.pair.Client)
			relay.Discard(s.pair.Server)
		}
		for _, c := range svc.clients {
			_ = c.conn.Close()
		}
	}
}

// Release forgets what was handed over, now that another process has it: here it is closed without anybody noticing. All that
// is left for Run's end are sessions that were ending and clients that were being refused, which get a moment.
func (f *Frozen) Release() {
	e := f.engine
	e.mu.Lock()
	defer e.mu.Unlock()
	defer e.freezing.Unlock()
	f.giveBack()
	f.close()
	e.released = true
}

func (f *Frozen) giveBack() {
	for _, fd := range f.lent {
		relay.Discard(fd)
	}
	f.lent = nil
}
