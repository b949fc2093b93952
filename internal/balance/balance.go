// Package balance picks the server of a service that takes the next client.
//
// A Picker belongs to one service and holds all that is mutable about its choice: how many sessions each server has and
// where the rotation stands. It is keyed by the member's name, so it survives Views, reloads and servers that leave and
// come back. The package is pure: no clock, no lock, no goroutine; whoever owns a Picker serialises its calls.
//
// It decides only among the servers that state.Service.Usable gives: health, weight 0 and backups are settled there.
// Slow start, queues and the algorithms first, source and random are not here.
package balance

import (
	"github.com/pgporter/pgporter/internal/service"
	"github.com/pgporter/pgporter/internal/state"
)

// Outcome says why a Pick did or did not give a server.
type Outcome int

const (
	// Picked means that a server was chosen.
	Picked Outcome = iota
	// None means that no server is usable, or that all that are have been tried for this client.
	None
	// Full means that the usable servers that are left are at their maxconn.
	Full
)

// Picker chooses servers for one service. The zero Picker is ready. It is not safe for concurrent use.
type Picker struct {
	servers map[string]*standing
	picks   uint64
}

// standing is what a Picker knows of one member.
type standing struct {
	// sessions are those picked and not yet released.
	sessions int
	// credit is what the smooth roundrobin owes the member; all credits of a service add up to 0.
	credit int
	// weight is the one that credit was given by.
	weight int
	// last is the number of the latest pick that chose the member.
	last uint64
}

// Pick chooses a server for a new client, by the service's balance, and counts the client as a session of that server
// until Release. Servers whose member's name is in tried are left out; nil leaves out none. The index is into
// svc.Servers, and -1 unless the outcome is Picked.
//
// roundrobin is smooth and weighted: with weights 5, 1, 1 the heavy server is picked five times in seven, never five
// times in a row. leastconn picks the lowest (sessions+1)/weight (HAProxy's key, nothing being queued) and among equals
// the one that was picked longest ago.
func (p *Picker) Pick(svc *state.Service, tried map[string]bool) (int, Outcome) {
	p.forget(svc)
	var open []int
	outcome := None
	for _, i := range svc.Usable() {
		server := svc.Servers[i]
		if tried[server.Member] {
			continue
		}
		if limit := svc.Options.MaxConn; limit > 0 && p.Sessions(server.Member) >= limit {
			outcome = Full
			continue
		}
		open = append(open, i)
	}
	if len(open) == 0 {
		return -1, outcome
	}
	var best int
	if svc.Balance == service.LeastConn {
		best = p.least(svc, open)
	} else {
		best = p.rotate(svc, open)
	}
	chosen := p.standing(svc.Servers[best].Member)
	p.picks++
	chosen.last = p.picks
	chosen.sessions++
	return best, Picked
}

// Release takes back a session that Pick counted for a member.
func (p *Picker) Release(member string) {
	if s := p.servers[member]; s != nil && s.sessions > 0 {
		s.sessions--
	}
}

// Sessions gives the sessions that a member has now.
func (p *Picker) Sessions(member string) int {
	if s := p.servers[member]; s != nil {
		return s.sessions
	}
	return 0
}

// rotate gives each open server its weight as credit, finds the one with the most (the first of equals), and takes from
// it what was given out.
func (p *Picker) rotate(svc *state.Service, open []int) int {
	p.reweigh(svc)
	best, given := -1, 0
	for _, i := range open {
		s := p.standing(svc.Servers[i].Member)
		s.credit += svc.Servers[i].Weight
		given += svc.Servers[i].Weight
		if best < 0 || s.credit > p.standing(svc.Servers[best].Member).credit {
			best = i
		}
	}
	p.standing(svc.Servers[best].Member).credit -= given
	return best
}

// reweigh starts the rotation afresh when a weight has changed: credits given by weights of 100 would keep a server out for
// a hundred picks once the weights are 1.
func (p *Picker) reweigh(svc *state.Service) {
	changed := false
	for _, server := range svc.Servers {
		s := p.standing(server.Member)
		changed = changed || s.weight != 0 && s.weight != server.Weight
		s.weight = server.Weight
	}
	if !changed {
		return
	}
	for _, s := range p.servers {
		s.credit = 0
	}
}

// least finds the lowest (sessions+1)/weight, compared without division.
func (p *Picker) least(svc *state.Service, open []int) int {
	best := open[0]
	for _, i := range open[1:] {
		a, b := p.standing(svc.Servers[i].Member), p.standing(svc.Servers[best].Member)
		mine, other := (a.sessions+1)*svc.Servers[best].Weight, (b.sessions+1)*svc.Servers[i].Weight
		if mine < other || mine == other && a.last < b.last {
			best = i
		}
	}
	return best
}

func (p *Picker) standing(member string) *standing {
	s := p.servers[member]
	if s == nil {
		if p.servers == nil {
			p.servers = make(map[string]*standing)
		}
		s = &standing{}
		p.servers[member] = s
	}
	return s
}

// forget drops members that left the service and have no session, so that names that come and go don't pile up.
func (p *Picker) forget(svc *state.Service) {
	if len(p.servers) <= len(svc.Servers) {
		return
	}
	here := make(map[string]bool, len(svc.Servers))
	for _, server := range svc.Servers {
		here[server.Member] = true
	}
	for member, s := range p.servers {
		if !here[member] && s.sessions == 0 {
			delete(p.servers, member)
		}
	}
}
