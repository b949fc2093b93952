package proxy

import (
	"cmp"
	"fmt"
	"slices"

	"github.com/pgporter/pgporter/internal/engine/relay"
)

// Status is what an Engine does at one moment.
type Status struct {
	// Services are sorted by cluster and name.
	Services []ServiceStatus `json:"services"`
}

// ServiceStatus is one service's part of a Status. Totals count from when the service was first offered by this process.
type ServiceStatus struct {
	Cluster string `json:"cluster"`
	// Service is the full name.
	Service string `json:"service"`
	// Address is where it listens: ip:port, with * for every address.
	Address string `json:"address"`
	// Closed says that nobody is accepted there.
	Closed bool `json:"closed,omitempty"`
	// Clients are all connections that were accepted and are open: sessions, and those on their way to one or to a refusal.
	Clients int `json:"clients"`
	// Queued are the clients that wait now because no server takes them.
	Queued int `json:"held"`
	// Sessions are the clients that are connected with a server now, TotalSessions all there have been.
	Sessions      int    `json:"sessions"`
	TotalSessions uint64 `json:"total_sessions"`
	// Refused are clients that no server could take.
	Refused uint64 `json:"refused"`
	// ToServer and ToClient are bytes that were passed on, including those of servers that left.
	ToServer int64 `json:"bytes_to_server"`
	ToClient int64 `json:"bytes_to_client"`
	// Servers are those that the service has now, in order, then those that left and still have sessions, by name.
	Servers []ServerStatus `json:"servers"`
}

// ServerStatus is one server's part of a ServiceStatus.
type ServerStatus struct {
	Member        string `json:"member"`
	Sessions      int    `json:"sessions"`
	TotalSessions uint64 `json:"total_sessions"`
	// ConnectFailures count attempts to connect that the server refused or let time out, and clients that it refused with
	// all others, or closed without a word.
	ConnectFailures uint64 `json:"connect_failures"`
	ToServer        int64  `json:"bytes_to_server"`
	ToClient        int64  `json:"bytes_to_client"`
}

// tally counts what happened in a service. The sessions' lock guards it.
type tally struct {
	servers map[string]*serverTally
	refused uint64
	// left adds up servers that are no longer there.
	left serverTally
}

type serverTally struct {
	total, connectFailures uint64
	sessions               int
	toServer, toClient     int64
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

func (t *tally) began(member string) {
	s := t.of(member)
	s.total++
	s.sessions++
}

func (t *tally) ended(member string, end relay.End) {
	s := t.of(member)
	s.sessions--
	s.toServer += end.ToServer
	s.toClient += end.ToClient
}

func (s *serverTally) add(o serverTally) {
	s.total += o.total
	s.connectFailures += o.connectFailures
	s.sessions += o.sessions
	s.toServer += o.toServer
	s.toClient += o.toClient
}

// BeatGap is how long a dispatcher to which nothing happens takes for a round.
const BeatGap = relay.BeatGap

// Beats counts the times that each loop has gone round since it began, by what it is in words: those of the services'
// dispatchers and of the relay, as long as there is something for them to do.
func (e *Engine) Beats() map[string]uint64 {
	e.mu.Lock()
	defer e.mu.Unlock()
	all := map[string]uint64{}
	if e.phase == notYet || e.released {
		return all
	}
	for name, d := range e.dispatchers {
		all["the dispatcher of service "+name] = d.beats.Load()
	}
	for i, n := range e.relay.Beats() {
		all[fmt.Sprintf("loop %d of the relay", i+1)] = n
	}
	return all
}

// Status tells what is served now.
func (e *Engine) Status() Status {
	e.mu.Lock()
	dispatchers := make([]*dispatcher, 0, len(e.dispatchers))
	for _, d := range e.dispatchers {
		dispatchers = append(dispatchers, d)
	}
	e.mu.Unlock()
	status := Status{Services: make([]ServiceStatus, 0, len(dispatchers))}
	for _, d := range dispatchers {
		status.Services = append(status.Services, d.status())
	}
	slices.SortFunc(status.Services, func(a, b ServiceStatus) int {
		return cmp.Or(cmp.Compare(a.Cluster, b.Cluster), cmp.Compare(a.Service, b.Service))
	})
	return status
}

func (d *dispatcher) status() ServiceStatus {
	// With both locks nobody is counted as queued and connected at once, and nobody as connected who isn't there.
	d.queue.mu.Lock()
	defer d.queue.mu.Unlock()
	d.sessions.mu.Lock()
	defer d.sessions.mu.Unlock()
	task := d.assigned.Load()
	now := map[string]serverTally{}
	var order []string
	if svc := d.view(); svc != nil {
		for _, server := range svc.Servers {
			order = append(order, server.Member)
			now[server.Member] = serverTally{}
		}
	}
	var leaving []string
	for member, counted := range d.sessions.tally.servers {
		if _, here := now[member]; !here && counted.sessions == 0 {
			// Members that come and go under ever new names must not pile up.
			d.sessions.tally.left.add(*counted)
			delete(d.sessions.tally.servers, member)
			continue
		} else if !here {
			leaving = append(leaving, member)
		}
		now[member] = *counted
	}
	slices.Sort(leaving)
	for s := range d.sessions.open {
		if s.flow != nil {
			toServer, toClient := s.flow.Bytes()
			counted := now[s.member]
			counted.toServer += toServer
			counted.toClient += toClient
			now[s.member] = counted
		}
	}
	status := ServiceStatus{Cluster: task.Cluster, Service: d.name, Address: task.addr.String(), Closed: task.closed, Clients: d.slots.count(), Queued: len(d.queue.clients),
		Refused: d.sessions.tally.refused, Servers: []ServerStatus{}}
	sum := d.sessions.tally.left
	for _, member := range append(order, leaving...) {
		counted := now[member]
		sum.add(counted)
		status.Servers = append(status.Servers, ServerStatus{Member: member, Sessions: counted.sessions, TotalSessions: counted.total,
			ConnectFailures: counted.connectFailures, ToServer: counted.toServer, ToClient: counted.toClient})
	}
	status.Sessions, status.TotalSessions, status.ToServer, status.ToClient = sum.sessions, sum.total, sum.toServer, sum.toClient
	return status
}
