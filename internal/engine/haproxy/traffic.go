package haproxy

import (
	"context"
	"sync"

	"github.com/pgporter/pgporter/internal/monitor/view"
)

// ServiceTraffic is what HAProxy has of a service now. Totals count since pgporter's start, over reloads.
type ServiceTraffic struct {
	// Service is the full name, Address where it listens.
	Service, Address string
	Sessions         int
	TotalSessions    uint64
	// Refused are clients for whom there was no server.
	Refused uint64
	Servers []ServerTraffic
}

// ServerTraffic is one server's part.
type ServerTraffic struct {
	Member        string
	Sessions      int
	TotalSessions uint64
	// Known says that HAProxy was asked and checks it; Up that its checks would have it lead new clients to the server. State and Weight are what
	// operators have it be, by pgporter or over the runtime API, and the weight in use.
	Known, Up bool
	State     view.State
	Weight    int
}

// traffic sums up what workers counted. Its lock is never held while HAProxy is asked.
type traffic struct {
	mu sync.Mutex
	// past are totals of workers that get no more clients.
	past map[serverID]counters
}

// retire adds what a worker has counted. counted was read before another one replaced it: without a session left it may
// have ended by now.
func (t *traffic) retire(ctx context.Context, c control, pid int, counted map[serverID]counters) {
	if c.master != "" {
		if last, err := c.counts(ctx, pid); err == nil {
			counted = last
		}
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.past == nil {
		t.past = map[serverID]counters{}
	}
	for at, n := range counted {
		sum := t.past[at]
		sum.TotalSessions += n.TotalSessions
		sum.Refused += n.Refused
		t.past[at] = sum
	}
}

// Traffic asks HAProxy what it carries, old workers included. What can't be asked is left out. Whoever asks waits neither for a
// reload nor for the last sessions at a stop.
func (e *Engine) Traffic(ctx context.Context) []ServiceTraffic {
	ctx, cancel := context.WithTimeout(ctx, readTime)
	defer cancel()
	l := e.wanted.Load()
	if l == nil {
		return nil
	}
	sum := map[serverID]counters{}
	var servers map[serverID]serverState
	if running, err := e.control.processes(ctx); err == nil {
		if counted, err := e.control.counts(ctx, running.Current.PID); err == nil {
			sum = counted
		}
		servers, _ = e.control.servers(ctx, running.Current.PID)
		for _, old := range running.Old {
			counted, err := e.control.counts(ctx, old.PID)
			if err != nil {
				continue // it has just ended
			}
			for at, n := range counted {
				now := sum[at]
				now.Sessions += n.Sessions
				sum[at] = now
			}
		}
	}
	e.seen.mu.Lock()
	defer e.seen.mu.Unlock()
	all := make([]ServiceTraffic, 0, len(l.proxies))
	for _, p := range l.proxies {
		t := ServiceTraffic{Service: p.name, Address: p.address()}
		whole := serverID{p.name, Backend}
		t.Sessions = sum[whole].Sessions
		t.TotalSessions = sum[whole].TotalSessions + e.seen.past[whole].TotalSessions
		t.Refused = sum[whole].Refused + e.seen.past[whole].Refused
		for _, s := range p.servers {
			at := serverID{p.name, s.name}
			has, known := servers[at]
			t.Servers = append(t.Servers, ServerTraffic{
				Member: s.name, Sessions: sum[at].Sessions, TotalSessions: sum[at].TotalSessions + e.seen.past[at].TotalSessions,
				Known: known && has.state() != view.Maintenance, Up: known && has.running(), State: has.state(), Weight: has.Weight,
			})
		}
		all = append(all, t)
	}
	return all
}
