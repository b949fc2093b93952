package balance

import (
	"encoding/binary"
	"math"
	"net/netip"
	"strconv"
	"strings"

	"github.com/pgporter/pgporter/internal/config/model"
	"github.com/pgporter/pgporter/internal/monitor/view"
)

// defaultDraws is what HAProxy's `balance random` draws when no number is said.
const defaultDraws = 2

// parse splits an algorithm from the number of draws that random may have. Anything unknown is roundrobin: definitions
// are checked where they are read.
func parse(b model.Balance) (model.Balance, int) {
	name, rest, some := strings.Cut(string(b), "(")
	name = strings.TrimSpace(name)
	if n, err := strconv.Atoi(strings.TrimSpace(strings.TrimSuffix(strings.TrimSpace(rest), ")"))); some && err == nil && n > 0 {
		return model.Balance(name), n
	}
	return model.Balance(name), defaultDraws
}

// rotate is the smooth weighted roundrobin: it gives each open server its share as credit, finds the one with the most (the
// first of equals), and takes from it what was given out. With weights 5, 1, 1 the heavy server is picked five times in
// seven, never five times in a row.
func (p *Picker) rotate(svc *view.Service, open []candidate) candidate {
	p.reweigh(svc)
	best, given := open[0], 0
	for _, s := range open {
		s.credit += s.share
		given += s.share
	}
	for _, s := range open[1:] {
		if s.credit > best.credit {
			best = s
		}
	}
	best.credit -= given
	return best
}

// reweigh starts the rotation afresh when a declared weight has changed: credits given by weights of 100 would keep a
// server out for a hundred picks once the weights are 1.
func (p *Picker) reweigh(svc *view.Service) {
	changed := false
	for _, server := range svc.Servers {
		s := p.countersOf(server.Member)
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

// least finds the server with the fewest sessions for its weight, and among equals the one that was picked longest ago.
func least(open []candidate) candidate {
	best := open[0]
	for _, s := range open[1:] {
		switch mine, other := s.load(best), best.load(s); {
		case mine < other, mine == other && s.last < best.last:
			best = s
		}
	}
	return best
}

// load is (sessions+1)/weight, HAProxy's key while nothing is queued, times both weights: compared without division.
func (s candidate) load(other candidate) int { return (s.sessions + 1) * other.share }

// draw takes the less loaded one of n that are drawn at random, by weight.
func (p *Picker) draw(open []candidate, n int) candidate {
	total := 0
	for _, s := range open {
		total += s.share
	}
	one := func() candidate {
		at := int(p.random() % uint64(total))
		for _, s := range open {
			if at -= s.share; at < 0 {
				return s
			}
		}
		return open[0]
	}
	best := one()
	for range n - 1 {
		if s := one(); s.load(best) < best.load(s) {
			best = s
		}
	}
	return best
}

// random gives the next of the Picker's draws.
func (p *Picker) random() uint64 {
	p.draws++
	return mix(p.Seed + p.draws*0x9e3779b97f4a7c15)
}

// home finds the server that an address belongs to, by weight. Each server has a score for each address and the highest
// one wins (weighted rendezvous hashing), so that only those clients move whose server has left or come. It is the same on
// every node. HAProxy's map-based hash moves nearly everybody with each change.
func home(open []candidate, addr netip.Addr) candidate {
	best, highest := open[0], math.Inf(-1)
	for _, s := range open {
		// Between 0 and 1, neither included.
		u := (float64(hash(addr, s.member)>>11) + 0.5) / (1 << 53)
		if score := -float64(s.share) / math.Log(u); score > highest {
			best, highest = s, score
		}
	}
	return best
}

// hash is FNV-1a with its bits mixed.
func hash(addr netip.Addr, member string) uint64 {
	const prime = 1099511628211
	h := uint64(14695981039346656037)
	bytes := addr.As16()
	h = (h ^ binary.BigEndian.Uint64(bytes[:8])) * prime
	h = mix((h ^ binary.BigEndian.Uint64(bytes[8:])) * prime)
	for _, c := range []byte(member) {
		h = (h ^ uint64(c)) * prime
	}
	return mix(h)
}

// mix spreads every bit over all (the finalizer of SplitMix64).
func mix(x uint64) uint64 {
	x = (x ^ x>>30) * 0xbf58476d1ce4e5b9
	x = (x ^ x>>27) * 0x94d049bb133111eb
	return x ^ x>>31
}
