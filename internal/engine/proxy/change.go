package proxy

import (
	"errors"
	"fmt"
	"maps"
	"slices"
)

// Change is a set of endpoints that is ready to take the place of the current one. Either Abort is to be called on it, or Commit
// and, before long, Publish; further calls do nothing.
type Change struct {
	engine *Engine
	plan   []planned
	// committed says that Commit was called. leaving and retired are then what has no place in the new set.
	committed bool
	leaving   []*listener
	retired   []*dispatcher
}

// planned is an endpoint with the listener that will serve it.
type planned struct {
	endpoint Endpoint
	protocol protocol
	addr     listenAddr
	// closed says that nobody is accepted for it; listener is nil then.
	closed   bool
	listener *listener
	// fresh says that the listener was opened for this change.
	fresh bool
	// dispatcher is the service's once it is committed.
	dispatcher *dispatcher
}

// assignment is what the service is to go by.
func (p planned) assignment() assignment {
	return assignment{Endpoint: p.endpoint, protocol: p.protocol, addr: p.addr, closed: p.closed}
}

// Prepare does everything about a new set of endpoints that can fail: it opens each listener that isn't open yet. What
// runs isn't touched. All failures are returned at once (errors.Join of *BindError and others), and nothing stays bound
// then. One Change can be under way at a time. The address of an endpoint needn't exist on the node yet. tcp are the services
// that aren't PostgreSQL's.
func (e *Engine) Prepare(endpoints []Endpoint, tcp ...TCPEndpoint) (*Change, error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.pending != nil {
		return nil, errors.New("proxy: another change is being prepared")
	}
	if e.phase == stopped {
		return nil, errors.New("proxy: the engine has stopped")
	}
	wanted := make([]planned, 0, len(endpoints)+len(tcp))
	for _, endpoint := range endpoints {
		wanted = append(wanted, planned{endpoint: endpoint, protocol: e.postgres(endpoint)})
	}
	for _, t := range tcp {
		wanted = append(wanted, planned{endpoint: t.Endpoint, protocol: t.TCPService.protocol(e)})
	}
	for i, p := range wanted {
		wanted[i].closed = e.cfg.Closed != nil && e.cfg.Closed(p.endpoint.Definition.FullName)
	}
	change := &Change{engine: e}
	addrs, failures := e.listenAddrs(wanted)
	kept := map[listenAddr]bool{}
	for i, addr := range addrs {
		kept[addr] = !wanted[i].closed
	}
	for i, p := range wanted {
		addr, valid := addrs[i]
		if !valid {
			continue
		}
		p.addr = addr
		if !p.closed {
			p.listener = e.listeners[addr]
		}
		if p.listener == nil && !p.closed {
			var err error
			if p.listener, err = change.open(addr, kept); err != nil {
				failures = append(failures, fmt.Errorf("service %s: %w", p.endpoint.Definition.FullName, err))
				continue
			}
			p.fresh = true
		}
		change.plan = append(change.plan, p)
	}
	if len(failures) > 0 {
		change.undo()
		return nil, errors.Join(failures...)
	}
	e.pending = change
	return change, nil
}

// listenAddrs finds where each endpoint, by its index, is to listen, and what is wrong with the set as such.
func (e *Engine) listenAddrs(wanted []planned) (map[int]listenAddr, []error) {
	var failures []error
	addrs := map[int]listenAddr{}
	names, owners := map[string]bool{}, map[listenAddr]string{}
	for i, p := range wanted {
		name := p.endpoint.Definition.FullName
		addr, err := listenAddrOf(p.endpoint.Definition, e.cfg.Bind)
		switch {
		case err != nil:
			failures = append(failures, fmt.Errorf("service %s: %w", name, err))
		case p.endpoint.Board == nil:
			failures = append(failures, fmt.Errorf("service %s: no board of cluster %s to read health from", name, p.endpoint.Cluster))
		case names[name]:
			failures = append(failures, fmt.Errorf("service %s is there twice", name))
		case owners[addr] != "":
			failures = append(failures, fmt.Errorf("service %s: %s is already the address of service %s", name, addr, owners[addr]))
		default:
			names[name], owners[addr], addrs[i] = true, name, addr
		}
	}
	return addrs, failures
}

// Commit makes the change's endpoints the engine's: services that stay go by their new definitions. No session ends, nobody is
// accepted at a new address and nobody refused at an old one before Publish.
func (c *Change) Commit() {
	e := c.engine
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.pending != c || c.committed {
		return
	}
	if e.phase == stopped {
		e.pending = nil
		c.undo()
		return
	}
	c.committed = true
	listeners, dispatchers := make(map[listenAddr]*listener, len(c.plan)), make(map[string]*dispatcher, len(c.plan))
	for i, p := range c.plan {
		name := p.endpoint.Definition.FullName
		d := e.dispatchers[name]
		if d != nil && d.endpoint().Cluster == p.endpoint.Cluster && d.protocol().name == p.protocol.name {
			d.reassign(p.assignment())
		} else {
			d = newDispatcher(e, p.assignment())
			if e.phase == running {
				e.startWatching(d)
			}
		}
		dispatchers[name] = d
		if p.listener != nil {
			listeners[p.addr] = p.listener
		}
		c.plan[i].dispatcher = d
	}
	parts := map[listenAddr]*listener{}
	for at, l := range e.listeners {
		switch {
		case listeners[at] == l:
		case covering(at, listeners) != nil:
			parts[at] = l
		default:
			c.leaving = append(c.leaving, l)
		}
	}
	maps.Copy(listeners, parts)
	for name, d := range e.dispatchers {
		if dispatchers[name] != d {
			c.retired = append(c.retired, d)
		}
	}
	e.listeners, e.dispatchers = listeners, dispatchers
	for _, d := range c.retired {
		d.slots.setOwn(0)
	}
	e.divide()
}

// Publish shows what was committed: clients are accepted at new addresses and no more at those that are gone, listeners that
// stay are not closed for an instant and their new clients go by the new definition. A service that is still there (by its full
// name) keeps its sessions, as long as its Board's View has their servers under the same epoch; the sessions of one that is gone
// end, drained. The Boards are to show the new services by now: who comes to one that isn't there is refused.
func (c *Change) Publish() {
	c.engine.mu.Lock()
	lines := c.publish()
	c.engine.mu.Unlock()
	for _, log := range lines {
		log()
	}
}

// publish is Publish with e.mu held. What it gives is to be called without: it logs.
func (c *Change) publish() (lines []func()) {
	e := c.engine
	if e.pending != c || !c.committed {
		return nil
	}
	e.pending = nil
	own := make(map[listenAddr]*listener, len(c.plan))
	closed := map[listenAddr]*dispatcher{}
	for _, p := range c.plan {
		if p.listener == nil {
			closed[p.addr] = p.dispatcher
			continue
		}
		own[p.addr] = p.listener
		p.listener.assignTo(p.dispatcher)
		if e.phase == running {
			e.startAccepting(p.listener)
		}
	}
	for at, l := range e.listeners {
		if whole := covering(at, own); own[at] != l && whole != nil {
			l.assignTo(whole.dispatcher.Load())
		}
	}
	for _, l := range c.leaving {
		switch d := closed[l.addr]; {
		case e.phase != running:
		case d != nil:
			// Whoever has come here already is served here.
			l.drain(d.admit)
		case slices.ContainsFunc(c.plan, func(p planned) bool { return p.listener != nil && p.addr.Overlaps(l.addr) }):
			l.passBacklog(own)
		}
		l.close()
		lines = append(lines, func() { e.log.Info("stopped listening", "address", l.addr.String()) })
	}
	for _, d := range c.retired {
		ended := d.retire(fmt.Errorf("service %s is no longer offered here", d.name))
		lines = append(lines, func() { d.logEnded(ended) })
	}
	for _, p := range c.plan {
		if p.fresh {
			lines = append(lines, func() {
				e.log.Info("listening", "service", p.endpoint.Definition.FullName, "address", p.addr.String())
			})
		}
	}
	return lines
}

// Abort closes what Prepare opened. What runs goes on as it was.
func (c *Change) Abort() {
	c.engine.mu.Lock()
	defer c.engine.mu.Unlock()
	if c.engine.pending != c || c.committed {
		return
	}
	c.engine.pending = nil
	c.undo()
}

// undo closes the change's own listeners, except those that became a part of one that stays.
func (c *Change) undo() {
	e := c.engine
	for _, p := range c.plan {
		switch {
		case !p.fresh:
		case e.phase != stopped && covering(p.listener.addr, e.listeners) != nil:
			e.listeners[p.listener.addr] = p.listener
		default:
			p.listener.close()
		}
	}
}
