package proxy

import (
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/netip"

	"github.com/pgporter/pgporter/internal/config/model"
	"github.com/pgporter/pgporter/internal/engine/handover"
	"github.com/pgporter/pgporter/internal/engine/relay"
)

// TakeOver makes what another process's Engine handed over this one's. It is called between a Commit and Run, once, and then
// the sessions move on. known is the Standing that the other one took for settled: a session whose server has lost its clients
// since ends. It owns the items' descriptors. sessions and clients are how many it has taken; the error tells of what it hasn't.
func (e *Engine) TakeOver(items []handover.Item, known HealthStatus) (sessions, clients int, err error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	// What nobody takes.
	defer handover.Close(items)
	if e.phase != notYet {
		return 0, 0, errors.New("proxy: the engine runs already")
	}
	var problems []error
	for n := range items {
		item := &items[n]
		switch err := e.takeOver(item, known); {
		case err != nil:
			problems = append(problems, fmt.Errorf("taking over a %s: %w", item.Kind, err))
		case item.Kind == sessionItem:
			sessions++
		case item.Kind == clientItem:
			clients++
		}
	}
	e.keepParts()
	return sessions, clients, errors.Join(problems...)
}

// takeOver takes what an item has, with the descriptors that there is use for.
func (e *Engine) takeOver(item *handover.Item, known HealthStatus) error {
	switch item.Kind {
	case serviceItem:
		var h handedService
		if err := json.Unmarshal(item.Body, &h); err != nil {
			return err
		}
		if d := e.dispatchers[h.Service]; d != nil {
			d.restore(h)
		}
	case sessionItem:
		var h handedSession
		if err := json.Unmarshal(item.Body, &h); err != nil {
			return err
		}
		if len(item.Descriptors) != 2 {
			return fmt.Errorf("%d descriptors instead of 2", len(item.Descriptors))
		}
		pair := relay.Pair{Client: item.Descriptors[0], Server: item.Descriptors[1], Shared: true, ToServer: h.ToServer, ToClient: h.ToClient,
			ClientEnded: h.ClientEnded, ServerEnded: h.ServerEnded, SentToServer: h.SentToServer, SentToClient: h.SentToClient}
		item.Descriptors = nil
		d := e.dispatchers[h.Service]
		if d == nil {
			e.relay.Start(pair, nil).Abort(fmt.Errorf("service %s is no longer offered here", h.Service))
			return nil
		}
		// Only the log names it.
		client, _ := netip.ParseAddrPort(h.Client)
		d.adoptSession(&session{member: h.Member, address: h.Address, client: client, id: h.ID, began: h.Began, moved: h.Moved, movedAt: h.MovedAt,
			epoch: known[h.Service][h.Member].Epoch}, pair)
	case clientItem:
		var h handedClient
		if err := json.Unmarshal(item.Body, &h); err != nil {
			return err
		}
		if len(item.Descriptors) != 1 {
			return fmt.Errorf("%d descriptors instead of 1", len(item.Descriptors))
		}
		d := e.dispatchers[h.Service]
		if d == nil {
			return nil
		}
		fd := item.Descriptors[0]
		item.Descriptors = nil
		conn, err := connection(fd, func(error) {})
		if err != nil {
			return fmt.Errorf("its socket: %w", err)
		}
		d.adoptClient(h, conn)
	default:
		return errors.New("nothing that is known here")
	}
	return nil
}

// keepParts gives inherited sockets that no service opened to the dispatcher of a listener that covers them, and closes the others.
func (e *Engine) keepParts() {
	for text, socket := range e.cfg.Inherited {
		at, err := model.ParseListenAddr(text)
		if whole := covering(at, e.listeners); err == nil && whole != nil {
			if l, err := newListener(e, at, socket); err == nil {
				e.listeners[at] = l
				l.assignTo(whole.dispatcher.Load())
			}
			continue
		}
		_ = socket.Close()
	}
	e.cfg.Inherited = nil
}

// adoptSession goes on with a session that was begun under another dispatcher; it is counted there.
func (d *dispatcher) adoptSession(s *session, pair relay.Pair) {
	d.sessions.mu.Lock()
	defer d.sessions.mu.Unlock()
	if s.id == 0 {
		s.id = d.engine.ids.Add(1)
	}
	raise(&d.engine.ids, s.id)
	d.sessions.add(s)
	if s.logged == nil {
		// Its beginning was told where it began.
		d.logs(s, pair.Client, pair.Server)
	}
	s.flow = d.relay(s, pair)
}

// adoptClient takes charge of a client that came to another process.
func (d *dispatcher) adoptClient(h handedClient, conn *net.TCPConn) {
	if conn.RemoteAddr() == nil {
		// It has left meanwhile.
		_ = conn.Close()
		return
	}
	c := newClient(conn, d.tickets.Add(1))
	c.declined = map[packetKind]bool{}
	for _, name := range h.Declined {
		c.declined[declinable[name]] = true
	}
	c.toServer, c.toClient, c.kept, c.waits = h.ToServer, h.ToClient, h.HoldUntil, h.Waits
	d.readmit(c)
}

// readmit has a client served that was stopped on its way, as far as nothing of it was taken.
func (d *dispatcher) readmit(c *client) {
	c.kind, c.packet, c.shared = 0, nil, true
	clear(c.failures)
	c.failed = ""
	d.slots.take()
	d.begin(c)
}
