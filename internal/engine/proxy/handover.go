package proxy

import (
	"fmt"
	"net"
	"syscall"
	"time"
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
	Usable  bool                    `json:"usable"`
	Lost    time.Time               `json:"lost,omitzero"`
	Refused uint64                  `json:"refused"`
	Counts  map[string]handedCounts `json:"servers,omitempty"`
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

func (s *serverTally) handed() handedCounts {
	return handedCounts{Total: s.total, ConnectFailures: s.connectFailures, ToServer: s.toServer, ToClient: s.toClient}
}

func (h handedCounts) tally() serverTally {
	return serverTally{total: h.Total, connectFailures: h.ConnectFailures, toServer: h.ToServer, toClient: h.ToClient}
}
