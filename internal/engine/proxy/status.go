package proxy

import (
	"cmp"
	"fmt"
	"slices"
	"time"

	"github.com/pgporter/pgporter/internal/config/model"
	"github.com/pgporter/pgporter/internal/engine"
	"github.com/pgporter/pgporter/internal/engine/relay"
)

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

// Status tells what is served now, by cluster and service.
func (e *Engine) Status() []engine.Traffic {
	e.mu.Lock()
	dispatchers := make([]*dispatcher, 0, len(e.dispatchers))
	for _, d := range e.dispatchers {
		dispatchers = append(dispatchers, d)
	}
	e.mu.Unlock()
	slices.SortFunc(dispatchers, func(a, b *dispatcher) int {
		return cmp.Or(cmp.Compare(a.endpoint().Cluster, b.endpoint().Cluster), cmp.Compare(a.name, b.name))
	})
	all := make([]engine.Traffic, len(dispatchers))
	now := time.Now()
	for i, d := range dispatchers {
		d.status(&all[i], now)
	}
	return all
}

// Process is what is known of all services together.
type Process struct {
	// Limit is how many clients there are descriptors for.
	Limit int
	// AcceptRate and SessionRate are the clients and the sessions of the last second, the others the most of any.
	AcceptRate, AcceptRateMax, SessionRate, SessionRateMax int
	// Listeners are the addresses that are open, Pipes those that bytes are spliced through.
	Listeners, Pipes int
}

// Process tells of all services together.
func (e *Engine) Process() Process {
	now := time.Now()
	p := Process{AcceptRate: e.accepted.read(now), AcceptRateMax: int(e.accepted.most.Load()), SessionRate: e.begun.read(now), SessionRateMax: int(e.begun.most.Load()),
		Pipes: e.relay.Pipes()}
	e.mu.Lock()
	defer e.mu.Unlock()
	p.Limit, p.Listeners = Slots(e.files, e.aside, len(e.listeners)), len(e.listeners)
	return p
}

func (d *dispatcher) status(to *engine.Traffic, at time.Time) {
	// With both locks nobody is counted as queued and connected at once, and nobody as connected who isn't there.
	d.queue.mu.Lock()
	defer d.queue.mu.Unlock()
	d.sessions.mu.Lock()
	defer d.sessions.mu.Unlock()
	task, tally := d.assigned.Load(), &d.sessions.tally
	var here []model.Server
	if svc := d.view(); svc != nil {
		here = svc.Servers
	}
	isHere := func(member string) bool {
		return slices.ContainsFunc(here, func(s model.Server) bool { return s.Member == member })
	}
	var leaving []string
	for member, counted := range tally.servers {
		switch {
		case isHere(member):
		case counted.sessions == 0:
			// Members that come and go under ever new names must not pile up.
			tally.left.add(&counted.totals)
			delete(tally.servers, member)
		default:
			leaving = append(leaving, member)
		}
	}
	slices.Sort(leaving)
	servers := make([]engine.ServerTraffic, 0, len(here)+len(leaving))
	sum := tally.left
	add := func(member string) {
		counted := tally.servers[member]
		if counted == nil {
			counted = &serverTally{}
		}
		sum.add(&counted.totals)
		servers = append(servers, engine.ServerTraffic{Member: member, Counts: counts(&counted.totals, &counted.course, at)})
	}
	for _, server := range here {
		add(server.Member)
	}
	for _, member := range leaving {
		add(member)
	}
	find := func(member string) *engine.ServerTraffic {
		for i := range servers {
			if servers[i].Member == member {
				return &servers[i]
			}
		}
		return &engine.ServerTraffic{}
	}
	for s := range d.sessions.open {
		if s.flow != nil {
			toServer, toClient := s.flow.Bytes()
			of := find(s.member)
			of.ToServer += toServer
			of.ToClient += toClient
			sum.toServer += toServer
			sum.toClient += toClient
		}
	}
	*to = engine.Traffic{Cluster: task.Cluster, Service: d.name, Address: task.addr.String(), Closed: task.closed, Limit: task.Definition.MaxConn,
		Accepted: d.accepted.total.Load(), AcceptRate: d.accepted.read(at), AcceptRateMax: int(d.accepted.most.Load()), Denied: d.denied.Load(),
		Refused: tally.refused, Cancels: d.cancels.Load(), CancelsSent: d.cancelsSent.Load(), Counts: counts(&sum, &tally.whole, at), Servers: servers}
	to.Clients, to.ClientsMax = int(d.slots.clients.Load()), int(d.slots.most.Load())
	to.Queued = len(d.queue.clients)
	for _, w := range d.queue.clients {
		if to.Waiting.IsZero() || w.waits.Before(to.Waiting) {
			to.Waiting = w.waits
		}
		if w.home != "" {
			find(w.home).Queued++
		}
	}
	for i, n := range tally.ended {
		if n > 0 {
			if to.Ended == nil {
				to.Ended = map[engine.EndReason]uint64{}
			}
			to.Ended[engine.EndReasons[i]] = n
		}
	}
}
