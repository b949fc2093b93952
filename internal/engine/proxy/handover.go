package proxy

import (
	"fmt"
	"net"
	"slices"
	"syscall"
	"time"

	"github.com/pgporter/pgporter/internal/engine"
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
	// Tickets counts the clients that ever came, with those that were handed over anew.
	Tickets uint64 `json:"tickets"`
	// Usable and Lost are the dispatcher's of the same names.
	Usable  bool                    `json:"usable"`
	Lost    time.Time               `json:"lost,omitzero"`
	Refused uint64                  `json:"refused"`
	Counts  map[string]handedCounts `json:"servers,omitempty"`
	// Left are the counts of servers that aren't there any more, Whole the course of all together. The totals of its counts are those of
	// the others.
	Left  handedCounts `json:"left"`
	Whole handedCourse `json:"whole,omitzero"`
	// Accepted are the clients that came, which is missing from releases that count Tickets alone.
	Accepted      uint64 `json:"accepted,omitempty"`
	AcceptRateMax int    `json:"accept_rate_max,omitempty"`
	ClientsMax    int    `json:"clients_max,omitempty"`
	Denied        uint64 `json:"denied,omitempty"`
	Cancels       uint64 `json:"cancels,omitempty"`
	CancelsSent   uint64 `json:"cancels_sent,omitempty"`
	// Ended are sessions by why they ended.
	Ended map[engine.EndReason]uint64 `json:"ended,omitempty"`
	// Process is the same in each service's item: an item of a new kind would be reported by releases that don't know it.
	Process handedProcess `json:"process,omitzero"`
}

// handedProcess is what all services have in common.
type handedProcess struct {
	SessionIDs     uint64 `json:"session_ids,omitempty"`
	AcceptRateMax  int    `json:"accept_rate_max,omitempty"`
	SessionRateMax int    `json:"session_rate_max,omitempty"`
}

// handedCounts are a server's, without those of its open sessions.
type handedCounts struct {
	Total           uint64 `json:"sessions"`
	ConnectFailures uint64 `json:"connect_failures"`
	ToServer        int64  `json:"bytes_to_server"`
	ToClient        int64  `json:"bytes_to_client"`
	Attempts        uint64 `json:"attempts,omitempty"`
	Retries         uint64 `json:"retries,omitempty"`
	Redispatches    uint64 `json:"redispatches,omitempty"`
	ClientAborts    uint64 `json:"client_aborts,omitempty"`
	ServerAborts    uint64 `json:"server_aborts,omitempty"`
	// Connecting has one number more than bounds, and isn't read by releases that have other ones. ConnectSum is in nanoseconds.
	Connecting []uint64      `json:"connecting,omitempty"`
	ConnectSum time.Duration `json:"connect_sum,omitempty"`
	Course     handedCourse  `json:"course,omitzero"`
}

// handedCourse is a course without its open sessions. Times are in nanoseconds.
type handedCourse struct {
	SessionsMax    int       `json:"sessions_max,omitempty"`
	QueuedMax      int       `json:"queued_max,omitempty"`
	SessionRateMax int       `json:"session_rate_max,omitempty"`
	Last           time.Time `json:"last,omitzero"`
	QueueTime      average   `json:"queue_time,omitzero"`
	ConnectTime    average   `json:"connect_time,omitzero"`
	SessionTime    average   `json:"session_time,omitzero"`
}

// handedSession is a session between two bytes. Its descriptors are the client's and the server's socket.
type handedSession struct {
	Service string `json:"service"`
	Member  string `json:"member"`
	Address string `json:"address"`
	Client  string `json:"client"`
	// ID is 0 from releases that don't number sessions.
	ID      uint64    `json:"id,omitempty"`
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
	Waits     time.Time `json:"waits,omitzero"`
}

// HealthStatus is the status of each service's servers, by the service's full name and the member's. A service that is
// nil isn't known yet, one that is missing isn't offered.
type HealthStatus map[string]map[string]ServerHealth

// ServerHealth is the status of one server in one service.
type ServerHealth struct {
	Up    bool   `json:"up"`
	Epoch uint64 `json:"epoch"`
}

// HealthStatus is the status of the servers by the newest Views.
func (e *Engine) HealthStatus() HealthStatus {
	all := HealthStatus{}
	for _, d := range e.offered() {
		svc := d.view()
		if svc == nil {
			all[d.name] = nil
			continue
		}
		servers := make(map[string]ServerHealth, len(svc.Servers))
		for i, server := range svc.Servers {
			servers[server.Member] = ServerHealth{svc.Health[i].Up, svc.Health[i].Epoch}
		}
		all[d.name] = servers
	}
	return all
}

// Unsettled says in words why it isn't the moment to hand over to an engine that sees servers as theirs says: a server that
// is up here, or that has sessions which its being down would end, isn't up there. Empty if there is no reason. Servers and
// services that it doesn't have are no reason, since its configuration may be another one.
func (e *Engine) Unsettled(theirs HealthStatus) string {
	for _, d := range e.offered() {
		on := map[string]int{}
		d.sessions.mu.Lock()
		for s := range d.sessions.open {
			on[s.member]++
		}
		d.sessions.mu.Unlock()
		if why := d.unsettled(on, theirs); why != "" {
			return why
		}
	}
	return ""
}

// unsettled is Engine.Unsettled of one service with so many sessions on its servers, by members.
func (d *dispatcher) unsettled(sessions map[string]int, theirs HealthStatus) string {
	stands, offered := theirs[d.name]
	if !offered {
		return ""
	}
	if stands == nil {
		return fmt.Sprintf("service %s isn't known yet", d.name)
	}
	svc := d.view()
	if svc == nil {
		return ""
	}
	for i, server := range svc.Servers {
		stand, known := stands[server.Member]
		switch {
		case !known || stand.Up:
		case svc.Health[i].Up:
			return fmt.Sprintf("server %s of service %s is up, and not so for the new process yet", server.Member, d.name)
		case sessions[server.Member] > 0 && svc.OptionsOf(i).ShutdownSessions:
			return fmt.Sprintf("server %s of service %s has sessions and isn't up: %s", server.Member, d.name, svc.Health[i].Reason)
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

// Adopt has the next Change listen at addresses (ip:port, with * for every one) with sockets that came from elsewhere, instead of
// opening them; they are the Engine's from then on. Forget closes those that no Change has used.
func (e *Engine) Adopt(sockets map[string]*net.TCPListener) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.cfg.Inherited == nil {
		e.cfg.Inherited = map[string]*net.TCPListener{}
	}
	for at, socket := range sockets {
		if before := e.cfg.Inherited[at]; before != nil {
			_ = before.Close()
		}
		e.cfg.Inherited[at] = socket
	}
}

// Forget closes what was adopted and not used.
func (e *Engine) Forget() {
	e.mu.Lock()
	defer e.mu.Unlock()
	for at, socket := range e.cfg.Inherited {
		_ = socket.Close()
		delete(e.cfg.Inherited, at)
	}
}

// Sockets are the listening sockets, by their addresses (ip:port, with * for every address). They stay the Engine's.
func (e *Engine) Sockets() map[string]syscall.Conn {
	e.mu.Lock()
	defer e.mu.Unlock()
	all := make(map[string]syscall.Conn, len(e.listeners))
	for at, l := range e.listeners {
		all[at.String()] = l.socket
	}
	return all
}

func (t *totals) handed() handedCounts {
	return handedCounts{Total: t.total, ConnectFailures: t.connectFailures, ToServer: t.toServer, ToClient: t.toClient, Attempts: t.attempts, Retries: t.retries,
		Redispatches: t.redispatches, ClientAborts: t.clientAborts, ServerAborts: t.serverAborts, Connecting: slices.Clone(t.connecting[:]), ConnectSum: t.connectSum}
}

func (c *course) handed() handedCourse {
	return handedCourse{SessionsMax: c.sessionsMax, QueuedMax: c.queuedMax, SessionRateMax: c.rate.most, Last: c.last,
		QueueTime: c.queue, ConnectTime: c.connect, SessionTime: c.session}
}

func (h handedCounts) totals() totals {
	t := totals{total: h.Total, connectFailures: h.ConnectFailures, toServer: h.ToServer, toClient: h.ToClient, attempts: h.Attempts, retries: h.Retries,
		redispatches: h.Redispatches, clientAborts: h.ClientAborts, serverAborts: h.ServerAborts}
	// Each session and each failure was an attempt, whether they were counted or not.
	t.attempts = max(t.attempts, t.total+t.connectFailures)
	if len(h.Connecting) == len(t.connecting) {
		copy(t.connecting[:], h.Connecting)
		t.connectSum = h.ConnectSum
	}
	return t
}

func (h handedCourse) course() course {
	return course{sessionsMax: h.SessionsMax, queuedMax: h.QueuedMax, rate: rate{most: h.SessionRateMax}, last: h.Last,
		queue: h.QueueTime, connect: h.ConnectTime, session: h.SessionTime}
}

// handed is what is known of the service, without its open sessions. The sessions' lock is held.
func (d *dispatcher) handed() handedService {
	tally, e := &d.sessions.tally, d.engine
	h := handedService{Service: d.name, Tickets: d.tickets.Load(), Usable: d.sessions.usable, Lost: d.sessions.lost, Refused: tally.refused, Left: tally.left.handed(),
		Counts: make(map[string]handedCounts, len(tally.servers)), Whole: tally.whole.handed(), Accepted: d.accepted.total.Load(),
		AcceptRateMax: int(d.accepted.most.Load()), ClientsMax: int(d.slots.most.Load()), Denied: d.denied.Load(), Cancels: d.cancels.Load(), CancelsSent: d.cancelsSent.Load(),
		Ended:   map[engine.EndReason]uint64{},
		Process: handedProcess{SessionIDs: e.ids.Load(), AcceptRateMax: int(e.accepted.most.Load()), SessionRateMax: int(e.begun.most.Load())}}
	for member, counted := range tally.servers {
		counts := counted.totals.handed()
		counts.Course = counted.course.handed()
		h.Counts[member] = counts
	}
	for i, n := range tally.ended {
		if n > 0 {
			h.Ended[engine.EndReasons[i]] = n
		}
	}
	return h
}

// restore gives a new dispatcher what was known before it.
func (d *dispatcher) restore(h handedService) {
	d.tickets.Store(h.Tickets)
	accepted := h.Accepted
	if accepted == 0 {
		accepted = h.Tickets
	}
	d.accepted.restore(accepted, h.AcceptRateMax)
	d.slots.remember(int64(h.ClientsMax))
	d.denied.Store(h.Denied)
	d.cancels.Store(h.Cancels)
	d.cancelsSent.Store(h.CancelsSent)
	d.engine.accepted.restore(0, h.Process.AcceptRateMax)
	d.engine.begun.restore(0, h.Process.SessionRateMax)
	raise(&d.engine.ids, h.Process.SessionIDs)
	t := &d.sessions
	t.mu.Lock()
	defer t.mu.Unlock()
	t.usable, t.lost = h.Usable, h.Lost
	t.tally.refused, t.tally.left, t.tally.whole = h.Refused, h.Left.totals(), h.Whole.course()
	for member, counts := range h.Counts {
		t.tally.servers[member] = &serverTally{counts.totals(), counts.Course.course()}
	}
	for i, reason := range engine.EndReasons {
		t.tally.ended[i] = h.Ended[reason]
	}
}
