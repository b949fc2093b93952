package proxy

import (
	"context"
	"net"
	"sync/atomic"
	"time"
)

// lobby is where clients of a service are heard that come while there is no slot: who wants a query cancelled has that done, since it
// is those who have all slots that are cancelled. Everybody else waits here for a slot, in order, as those do in the backlog who
// find no room here.
type lobby struct {
	slots
	// waiting is how many of its clients have been heard and wait for a slot.
	waiting atomic.Int32
	// turn has a token that whoever is the next to get a slot has.
	turn chan struct{}
}

const (
	// lobbyTime is how long a client here may take to say what it wants: it keeps out others.
	lobbyTime = leastPatience
	// lobbyLook is how often it is looked whether a client has left that waits here.
	lobbyLook = time.Second
)

// open makes a lobby ready.
func (l *lobby) open(e *Engine) {
	l.of, l.limit = &e.lobby, max(2, e.lobby.limit/2)
	l.turn = make(chan struct{}, 1)
	l.turn <- struct{}{}
}

// hears tells whether clients are heard, so that a lobby is of use.
func (d *dispatcher) hears() bool { return d.protocol().hear != nil }

// passes tells whether a client that comes now may have a slot at once, if there is one: not before those who wait for it in the lobby.
func (d *dispatcher) passes() bool { return d.lobby.waiting.Load() == 0 }

// room tells whether there is room for another client, a slot or some in the lobby, and if not, gives channels of which one is closed
// when to ask again.
func (d *dispatcher) room() (yes bool, slot, place <-chan struct{}) {
	yes, slot = d.slots.room()
	if yes && d.passes() || !d.hears() {
		return yes, slot, nil
	}
	yes, place = d.lobby.room()
	return yes, slot, place
}

// attend takes charge of a client that was accepted and has a place in the lobby.
func (d *dispatcher) attend(conn *net.TCPConn) {
	c := newClient(conn, d.tickets.Add(1))
	d.engine.dispatching.add(1)
	d.engine.serving.Go(func() { d.serveInLobby(c) })
}

// serveInLobby hears a client. One that wants anything but a cancel request has a slot before it is connected.
func (d *dispatcher) serveInLobby(c *client) {
	err := d.listen(c, func() error { return c.hear(d.here, lobbyTime) })
	if err == nil && c.kind == cancelRequest {
		d.engine.dispatching.add(-1)
		d.cancel(c)
		d.lobby.free()
		return
	}
	if err == nil {
		err = d.awaitSlot(c)
	}
	switch {
	case err == nil:
		d.lobby.free()
		d.settle(c, d.connect(c, nil))
	case d.here.Err() != nil:
		d.slots.take()
		d.lobby.free()
		d.settle(c, shortage{gone: context.Cause(d.here)}.refusal(d.name, nil))
	default:
		d.engine.dispatching.add(-1)
		c.close()
		d.lobby.free()
	}
}

// awaitSlot waits until there is a slot for a client, which it has then. It ends with errLeft, or the cause of the service's end.
func (d *dispatcher) awaitSlot(c *client) error {
	d.lobby.waiting.Add(1)
	// Before the place is free again, since whoever gets that asks.
	defer d.lobby.waiting.Add(-1)
	look := time.NewTicker(lobbyLook)
	defer look.Stop()
	next := false
	var changed <-chan struct{}
	turn := d.lobby.turn
	defer func() {
		if next {
			d.lobby.turn <- struct{}{}
		}
	}()
	for {
		if next && d.slots.reserve() {
			d.slots.arrived()
			return nil
		}
		if next {
			turn = nil
			var room bool
			if room, changed = d.slots.room(); room {
				continue
			}
		}
		select {
		case <-turn:
			next = true
		case <-changed:
		case <-d.here.Done():
			return context.Cause(d.here)
		case <-look.C:
			if c.left() {
				return errLeft
			}
		}
	}
}
