// Package balance picks the server of a service that takes the next client.
//
// A Picker belongs to one service and holds all that is mutable about its choice: how many sessions each server has and
// where the rotation is. It is keyed by the member's name, so it survives Views, reloads and servers that leave and
// come back. The package is pure: no clock, no lock, no goroutine; whoever owns a Picker serialises its calls and brings
// the time along.
//
// It decides only among the servers that view.Service.Usable gives: health, weight 0 and backups are settled there. How
// each algorithm chooses is in algorithm.go. Queues aren't here: who finds every server Full waits, or doesn't, elsewhere.
package balance

import (
	"net/netip"
	"time"

	"github.com/pgporter/pgporter/internal/config/model"
	"github.com/pgporter/pgporter/internal/monitor/view"
)

// Outcome says why a Pick did or did not give a server.
type Outcome int

const (
	// Picked means that a server was chosen.
	Picked Outcome = iota
	// None means that no server is usable, or that all that are were to be avoided for this client.
	None
	// Full means that a usable server that is left has as many sessions as it may have now, and no other takes the client.
	Full
)

// Client is what matters of a client that wants a server.
type Client struct {
	// Addr is where it comes from; balance source goes by it.
	Addr netip.Addr
	// Avoid are members by name that it isn't to be connected to; nil is none.
	Avoid map[string]bool
	// Busy are members by name that take no further one for the moment: it is with them as if they were full.
	Busy map[string]bool
	// Now is the time, for servers that are starting slowly.
	Now time.Time
}

// Picker chooses servers for one service. The zero Picker is ready. It is not safe for concurrent use.
type Picker struct {
	// Seed makes the draws of balance random differ from those of other Pickers.
	Seed uint64

	servers map[string]*counters
	picks   uint64
	draws   uint64
}

// counters is what a Picker knows of one member.
type counters struct {
	// sessions are those picked and not yet released.
	sessions int
	// credit is what the smooth roundrobin owes the member; all credits of a service add up to 0.
	credit int
	// weight is the declared one that credit was given by.
	weight int
	// last is the number of the latest pick that chose the member.
	last uint64
}

// candidate is a server that may be picked.
type candidate struct {
	// index is into the service's servers.
	index int
	*counters
	member string
	// share is its weight in wholeShare-ths, less while it is starting slowly. It is above 0.
	share int
	// limit is how many sessions it may have now; 0 is any number.
	limit int
	full  bool
}

// wholeShare is what one unit of weight counts for on a server that has its full share.
const wholeShare = 100

// Pick chooses a server for a new client, by the service's balance, and counts the client as a session of that server
// until Release. The index is into svc.Servers, and -1 unless the outcome is Picked.
func (p *Picker) Pick(svc *view.Service, c Client) (int, Outcome) {
	p.forget(svc)
	algorithm, draws := parse(svc.Balance)
	all := p.candidates(svc, c)
	open := all
	if algorithm != model.Source {
		open = open[:0:0]
		for _, s := range all {
			if !s.full {
				open = append(open, s)
			}
		}
	}
	if len(open) == 0 {
		if len(all) > 0 {
			return -1, Full
		}
		return -1, None
	}
	var chosen candidate
	switch algorithm {
	case model.LeastConn:
		chosen = least(open)
	case model.First:
		chosen = open[0]
	case model.Random:
		chosen = p.draw(open, draws)
	case model.Source:
		// A client belongs to its server: it waits there rather than go elsewhere.
		if chosen = home(open, c.Addr); chosen.full {
			return -1, Full
		}
	default:
		chosen = p.rotate(svc, open)
	}
	p.picks++
	chosen.last = p.picks
	chosen.sessions++
	return chosen.index, Picked
}

// Alike tells whether what Pick says of one client holds for every other, but for those it is to avoid: with balance
// source, one client's server may be full while another's isn't.
func Alike(svc *view.Service) bool {
	algorithm, _ := parse(svc.Balance)
	return algorithm != model.Source
}

// Home gives the member that a client has to wait for when it finds its server Full: with balance source the one that its
// address belongs to, otherwise none in particular, which is empty.
func (p *Picker) Home(svc *view.Service, c Client) string {
	if Alike(svc) {
		return ""
	}
	all := p.candidates(svc, c)
	if len(all) == 0 {
		return ""
	}
	return home(all, c.Addr).member
}

// Room gives how many more clients the usable servers may have now, or the one that home names alone, whoever is Busy; -1 if there is no limit.
func (p *Picker) Room(svc *view.Service, home string, now time.Time) int {
	room := 0
	for _, s := range p.candidates(svc, Client{Now: now}) {
		switch {
		case home != "" && s.member != home:
		case s.limit == 0:
			return -1
		default:
			room += max(s.limit-s.sessions, 0)
		}
	}
	return room
}

// Take counts a session that a member has without a Pick, until Release.
func (p *Picker) Take(member string) { p.countersOf(member).sessions++ }

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

// candidates are the usable servers that the client isn't to avoid, in the service's order.
func (p *Picker) candidates(svc *view.Service, c Client) []candidate {
	usable := svc.Usable()
	shares := make([]int, len(usable))
	whole := false
	for n, i := range usable {
		shares[n] = Share(svc.OptionsOf(i).SlowStart, c.Now.Sub(svc.Health[i].Recovered))
		whole = whole || shares[n] == wholeShare
	}
	all := make([]candidate, 0, len(usable))
	for n, i := range usable {
		server := svc.Servers[i]
		if c.Avoid[server.Member] {
			continue
		}
		percent := shares[n]
		if !whole {
			// Nobody else could take what is kept from it.
			percent = wholeShare
		}
		known := p.countersOf(server.Member)
		limit := svc.OptionsOf(i).MaxConn
		if limit > 0 {
			limit = max(1, limit*percent/wholeShare)
		}
		all = append(all, candidate{index: i, counters: known, member: server.Member, share: server.Weight * percent, limit: limit,
			full: limit > 0 && known.sessions >= limit || c.Busy[server.Member]})
	}
	return all
}

// Share is how many hundredths of its weight and maxconn a server has that has been up for a time: with slowstart it grows
// evenly from one hundredth to the whole (HAProxy's manual, "slowstart").
func Share(slowStart, up time.Duration) int {
	if up >= slowStart || slowStart <= 0 {
		return wholeShare
	}
	return max(1, int(wholeShare*max(0, up)/slowStart))
}

func (p *Picker) countersOf(member string) *counters {
	s := p.servers[member]
	if s == nil {
		if p.servers == nil {
			p.servers = make(map[string]*counters)
		}
		s = &counters{}
		p.servers[member] = s
	}
	return s
}

// forget drops members that left the service and have no session, so that names that come and go don't pile up.
func (p *Picker) forget(svc *view.Service) {
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
