package proxy

import (
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"slices"
	"syscall"
	"time"

	"github.com/pgporter/pgporter/internal/handover"
	"github.com/pgporter/pgporter/internal/relay"
	"github.com/pgporter/pgporter/internal/state"
)

// What an Engine hands over to that of another process: an item for each service, then its sessions and its clients that
// have none yet, in the order in which they came. The bodies are read by other releases: fields are added, never renamed,
// and one that is missing is its zero value.
const (
	serviceItem = "service"
	sessionItem = "session"
	clientItem  = "client"
)

// handedService is what is known of a service beyond its configuration.
type handedService struct {
	Service string `json:"service"`
	// Tickets counts the clients that ever came.
	Tickets uint64 `json:"tickets"`
	// Usable and Lost are the dispatcher's of the same names.
	Usable bool                    `json:"usable"`
	Lost   time.Time               `json:"lost,omitzero"`
	Refuse uint64                  `json:"refused"`
	Counts map[string]handedCounts `json:"servers,omitempty"`
	// Left are the counts of servers that aren't there any more.
	Left handedCounts `json:"left"`
}

// handedCounts are a server's, without those of its open sessions.
type handedCounts struct {
	Total           uint64 `json:"sessions"`
	ConnectFailures uint64 `json:"connect_failures"`
	ToServer        int64  `json:"bytes_to_server"`
	ToClient        int64  `json:"bytes_to_client"`
}

// handedSession is a session between two bytes. Its descriptors are the client's and the server's socket.
type handedSession struct {
	Service string    `json:"service"`
	Member  string    `json:"member"`
	Address string    `json:"address"`
	Client  string    `json:"client"`
	Began   time.Time `json:"began"`
	Moved   int64     `json:"moved,omitempty"`
	MovedAt time.Time `json:"moved_at,omitzero"`
	// What follows is the relay's Pair.
	ToServer     []byte `json:"to_server,omitempty"`
	ToClient     []byte `json:"to_client,omitempty"`
	ClientEnded  bool   `json:"client_ended,omitempty"`
	ServerEnded  bool   `json:"server_ended,omitempty"`
	SentToServer int64  `json:"sent_to_server"`
	SentToClient int64  `json:"sent_to_client"`
}

// handedClient is somebody who has no session yet. Its descriptor is its socket, which still holds all that it has said, but
// for the encryption requests that were declined.
type handedClient struct {
	Service string `json:"service"`
	// Declined are the requests for encryption among declinable.
	Declined  []string  `json:"declined,omitempty"`
	ToServer  int64     `json:"to_server,omitempty"`
	ToClient  int64     `json:"to_client,omitempty"`
	HoldUntil time.Time `json:"hold_until,omitzero"`
}

// Standing says of each service's servers, by the service's full name and the member's, how they stand. A service that is
// nil isn't known yet, one that is missing isn't offered.
type Standing map[string]map[string]Stand

// Stand is how one server stands in one service.
type Stand struct {
	Up    bool   `json:"up"`
	Epoch uint64 `json:"epoch"`
}

// Standing is how the servers stand by the newest Views.
func (e *Engine) Standing() Standing {
	all := Standing{}
	for _, d := range e.offered() {
		svc := d.service()
		if svc == nil {
			all[d.name] = nil
			continue
		}
		servers := make(map[string]Stand, len(svc.Servers))
		for i, server := range svc.Servers {
			servers[server.Member] = Stand{svc.Health[i].Up, svc.Health[i].Epoch}
		}
		all[d.name] = servers
	}
	return all
}

// Unsettled says in words why it isn't the moment to hand over to an engine that sees servers as theirs says: a server that
// is up here, or that has sessions which its being down would end, isn't up there. Empty if there is no reason. Servers and
// services that it doesn't have are no reason, since its configuration may be another one.
func (e *Engine) Unsettled(theirs Standing) string {
	for _, d := range e.offered() {
		their, offered := theirs[d.name]
		if !offered {
			continue
		}
		on := map[string]int{}
		d.mu.Lock()
		for s := range d.sessions {
			on[s.member]++
		}
		d.mu.Unlock()
		if why := unsettled(d.name, d.service(), on, their); why != "" {
			return why
		}
	}
	return ""
}

// unsettled is Engine.Unsettled of one service with so many sessions on its servers, by members.
func unsettled(name string, svc *state.Service, sessions map[string]int, theirs map[string]Stand) string {
	if theirs == nil {
		return fmt.Sprintf("service %s isn't known yet", name)
	}
	if svc == nil {
		return ""
	}
	for i, server := range svc.Servers {
		stand, known := theirs[server.Member]
		switch {
		case !known || stand.Up:
		case svc.Health[i].Up:
			return fmt.Sprintf("server %s of service %s is up, and not so for the new process yet", server.Member, name)
		case sessions[server.Member] > 0 && svc.OptionsOf(i).ShutdownSessions:
			return fmt.Sprintf("server %s of service %s has sessions and isn't up: %s", server.Member, name, svc.Health[i].Reason)
		}
	}
	return ""
}

// offered are the dispatchers of the services that are offered now.
func (e *Engine) offered() []*dispatcher {
	e.mu.Lock()
	defer e.mu.Unlock()
	all := make([]*dispatcher, 0, len(e.dispatchers))
	for _, d := range e.dispatchers {
		all = append(all, d)
	}
	return all
}

// Sockets are the listening sockets, by their addresses (ip:port, with * for every address). They stay the Engine's.
func (e *Engine) Sockets() map[string]syscall.Conn {
	e.mu.Lock()
	defer e.mu.Unlock()
	all := make(map[string]syscall.Conn, len(e.listeners))
	for at, l := range e.listeners {
		all[at.String()] = l.door
	}
	return all
}

// errHandingOver is why clients are led no further while an Engine is Frozen.
var errHandingOver = errors.New("pgporter hands over to another process")

// freezePatience bounds the wait for clients to stop where they can be handed over; nothing that they wait for takes time.
const freezePatience = 500 * time.Millisecond

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
// refused, are left to their end. No Change may be under way or begin.
func (e *Engine) Freeze() (*Frozen, error) {
	if !relay.Detaches {
		return nil, errors.New("sessions can't be handed over on this system")
	}
	e.handing.Lock()
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.phase != running || e.pending != nil {
		e.handing.Unlock()
		return nil, errors.New("proxy: only an engine that runs, and isn't being changed, can hand over")
	}
	for _, l := range e.listeners {
		l.pause()
	}
	e.accepting.Wait()
	for _, d := range e.dispatchers {
		d.gone(errHandingOver)
		d.mu.Lock()
		d.dismiss()
		d.recall()
		d.mu.Unlock()
	}
	stopped := make(chan struct{})
	go func() {
		e.leading.Wait()
		close(stopped)
	}()
	var late error
	select {
	case <-stopped:
	case <-time.After(freezePatience):
		late = fmt.Errorf("proxy: clients didn't stop within %s", freezePatience)
	}
	f := &Frozen{engine: e}
	for _, d := range e.dispatchers {
		f.services = append(f.services, d.freeze())
	}
	if late != nil {
		f.thaw()
		return nil, late
	}
	return f, nil
}

// freeze takes a dispatcher's sessions and clients, with all that they are counted in.
func (d *dispatcher) freeze() frozenService {
	d.mu.Lock()
	defer d.mu.Unlock()
	f := frozenService{dispatcher: d, clients: d.parked}
	d.parked, d.frozen = nil, true
	slices.SortFunc(f.clients, func(a, b *client) int { return int(int64(a.ticket) - int64(b.ticket)) })
	f.handed = handedService{Service: d.name, Tickets: d.tickets, Usable: d.usable, Lost: d.lost, Refuse: d.tally.refused, Left: d.tally.left.handed(),
		Counts: make(map[string]handedCounts, len(d.tally.servers))}
	for member, counted := range d.tally.servers {
		f.handed.Counts[member] = counted.handed()
	}
	for s := range d.sessions {
		if s.flow == nil {
			continue
		}
		if pair, still := s.flow.Detach(); still {
			f.sessions = append(f.sessions, frozenSession{s, pair})
			delete(d.sessions, s)
			d.clients.add(-1)
			d.engine.serving.Done()
			continue
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
func (f *Frozen) Unsettled(theirs Standing) string {
	for _, svc := range f.services {
		their, offered := theirs[svc.name]
		if !offered {
			continue
		}
		on := map[string]int{}
		for _, s := range svc.sessions {
			on[s.member]++
		}
		if why := unsettled(svc.name, svc.service(), on, their); why != "" {
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
			if err := add(clientItem, c.handed(svc.name), fd); err != nil {
				return nil, err
			}
		}
	}
	return items, nil
}

func (s frozenSession) handed(service string) handedSession {
	p := s.pair
	return handedSession{Service: service, Member: s.member, Address: s.address, Client: s.client.String(), Began: s.began, Moved: s.moved, MovedAt: s.movedAt,
		ToServer: p.ToServer, ToClient: p.ToClient, ClientEnded: p.ClientEnded, ServerEnded: p.ServerEnded, SentToServer: p.SentToServer, SentToClient: p.SentToClient}
}

func (c *client) handed(service string) handedClient {
	h := handedClient{Service: service, ToServer: c.toServer, ToClient: c.toClient, HoldUntil: c.holdUntil}
	for name, what := range declinable {
		if c.declined[what] {
			h.Declined = append(h.Declined, name)
		}
	}
	return h
}

// declinable names what may be declined, for the wire.
var declinable = map[string]opening{"ssl": sslRequest, "gssenc": gssEncRequest}

// Thaw has everything go on where it stopped.
func (f *Frozen) Thaw() {
	f.engine.mu.Lock()
	defer f.engine.mu.Unlock()
	f.thaw()
}

// thaw is Thaw with the engine's lock held. Dispatchers don't come back to life: new ones inherit what they had.
func (f *Frozen) thaw() {
	e := f.engine
	defer e.handing.Unlock()
	f.giveBack()
	for _, svc := range f.services {
		old := svc.assigned.Load()
		d := newDispatcher(e, old.Endpoint, old.at)
		d.assigned.Load().raw = old.raw
		d.inherit(svc.handed)
		for _, s := range svc.sessions {
			d.adopt(s.session, s.pair)
		}
		for _, c := range svc.clients {
			d.readmit(c)
		}
		e.dispatchers[svc.name] = d
		for _, l := range e.listeners {
			if l.serves.Load() == svc.dispatcher {
				l.lead(d)
			}
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
	defer e.handing.Unlock()
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

func (s *serverTally) handed() handedCounts {
	return handedCounts{Total: s.total, ConnectFailures: s.connectFailures, ToServer: s.toServer, ToClient: s.toClient}
}

func (h handedCounts) tally() serverTally {
	return serverTally{total: h.Total, connectFailures: h.ConnectFailures, toServer: h.ToServer, toClient: h.ToClient}
}

// TakeOver makes what another process's Engine handed over this one's. It is called between a Commit and Run, once, and then
// the sessions move on. known is the Standing that the other one took for settled: a session whose server has lost its clients
// since ends. It owns the items' descriptors.
func (e *Engine) TakeOver(items []handover.Item, known Standing) error {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.phase != notYet {
		handover.Close(items)
		return errors.New("proxy: the engine runs already")
	}
	var problems []error
	for _, item := range items {
		if err := e.takeOver(item, known); err != nil {
			problems = append(problems, fmt.Errorf("taking over a %s: %w", item.Kind, err))
			handover.Close([]handover.Item{item})
		}
	}
	e.keepParts()
	return errors.Join(problems...)
}

func (e *Engine) takeOver(item handover.Item, known Standing) error {
	switch item.Kind {
	case serviceItem:
		var h handedService
		if err := json.Unmarshal(item.Body, &h); err != nil {
			return err
		}
		if d := e.dispatchers[h.Service]; d != nil {
			d.inherit(h)
		}
	case sessionItem:
		var h handedSession
		if err := json.Unmarshal(item.Body, &h); err != nil {
			return err
		}
		if len(item.Descriptors) != 2 {
			return fmt.Errorf("%d descriptors instead of 2", len(item.Descriptors))
		}
		pair := relay.Pair{Client: item.Descriptors[0], Server: item.Descriptors[1], ToServer: h.ToServer, ToClient: h.ToClient,
			ClientEnded: h.ClientEnded, ServerEnded: h.ServerEnded, SentToServer: h.SentToServer, SentToClient: h.SentToClient}
		d := e.dispatchers[h.Service]
		if d == nil {
			e.relay.Start(pair, nil).Abort(fmt.Errorf("service %s is no longer offered here", h.Service))
			return nil
		}
		// Only the log names it.
		client, _ := netip.ParseAddrPort(h.Client)
		d.adopt(&session{member: h.Member, address: h.Address, client: client, began: h.Began, moved: h.Moved, movedAt: h.MovedAt,
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
			relay.Discard(item.Descriptors[0])
			return nil
		}
		return d.welcome(h, item.Descriptors[0])
	default:
		return errors.New("nothing that is known here")
	}
	return nil
}

// keepParts has inherited sockets that no service opened lead where a listener that covers them does, and closes the others.
func (e *Engine) keepParts() {
	for text, socket := range e.cfg.Inherited {
		at, err := parsePlace(text)
		if whole := covering(at, e.listeners); err == nil && whole != nil {
			if l, err := newListener(e, at, socket); err == nil {
				e.listeners[at] = l
				l.lead(whole.serves.Load())
			}
			continue
		}
		_ = socket.Close()
	}
	e.cfg.Inherited = nil
}

// inherit gives a new dispatcher what was known before it.
func (d *dispatcher) inherit(h handedService) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.tickets, d.usable, d.lost = h.Tickets, h.Usable, h.Lost
	d.tally.refused, d.tally.left = h.Refuse, h.Left.tally()
	for member, counts := range h.Counts {
		counted := counts.tally()
		d.tally.servers[member] = &counted
	}
}

// adopt goes on with a session that was begun under another dispatcher; it is counted there.
func (d *dispatcher) adopt(s *session, pair relay.Pair) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.clients.add(1)
	d.sessions[s] = struct{}{}
	d.picker.Take(s.member)
	d.tally.of(s.member).sessions++
	d.carry(s, pair)
}

// welcome takes charge of a client that came to another process.
func (d *dispatcher) welcome(h handedClient, fd int) error {
	file := os.NewFile(uintptr(fd), "client")
	conn, err := net.FileConn(file)
	_ = file.Close()
	if err != nil {
		return fmt.Errorf("its socket: %w", err)
	}
	tcp, is := conn.(*net.TCPConn)
	if !is || tcp.RemoteAddr() == nil {
		// It has left meanwhile.
		_ = conn.Close()
		return nil
	}
	d.mu.Lock()
	d.tickets++
	c := newClient(tcp, d.tickets)
	d.mu.Unlock()
	c.declined = map[opening]bool{}
	for _, name := range h.Declined {
		c.declined[declinable[name]] = true
	}
	c.toServer, c.toClient, c.holdUntil = h.ToServer, h.ToClient, h.HoldUntil
	d.readmit(c)
	return nil
}

// readmit leads a client that was led before, as far as nothing of it was taken.
func (d *dispatcher) readmit(c *client) {
	c.what, c.packet = 0, nil
	clear(c.failures)
	d.mu.Lock()
	d.clients.add(1)
	d.mu.Unlock()
	d.begin(c)
}
