package haproxy

import (
	"context"
	"sync"

	"github.com/pgporter/pgporter/internal/engine"
	"github.com/pgporter/pgporter/internal/monitor/view"
)

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
		sum.add(n)
		t.past[at] = sum
	}
}

// Traffic asks HAProxy what it carries, old workers included. What can't be asked is left out. Whoever asks waits neither for a
// reload nor for the last sessions at a stop.
//
// What it counts is HAProxy's: rates and averages are those of the worker that gets the clients.
func (e *Engine) Traffic(ctx context.Context) []engine.Traffic {
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
	all := make([]engine.Traffic, 0, len(l.proxies))
	of := func(at serverID) counters {
		n := sum[at]
		n.add(e.seen.past[at])
		return n
	}
	for _, p := range l.proxies {
		whole, front := of(serverID{p.name, Backend}), of(serverID{p.name, Frontend})
		t := engine.Traffic{Service: p.name, Address: p.address(), Counts: whole.Counts, Refused: whole.Refused, Clients: front.Sessions, ClientsMax: front.SessionsMax,
			Limit: front.Limit, Accepted: front.Accepted, AcceptRate: front.Rate, AcceptRateMax: front.RateMax, Denied: front.Denied}
		for _, s := range p.servers {
			at := serverID{p.name, s.name}
			has, known := servers[at]
			t.Servers = append(t.Servers, engine.ServerTraffic{Member: s.name, Counts: of(at).Counts, Asked: known && has.state() != view.Maintenance,
				Up: known && has.running(), State: has.state(), Weight: has.Weight})
		}
		all = append(all, t)
	}
	return all
}
