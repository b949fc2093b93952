package cluster

import (
	"cmp"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/pgporter/pgporter/internal/config/model"
	"github.com/pgporter/pgporter/internal/monitor/health"
)

// port is a destination port of services on a member. It is asked by itself, for all of them together.
type port struct {
	health.Port
	// options are the strictest of its services': the shortest times, the least `fall`.
	options model.Options
	// lenient says that nobody knows what is spoken there.
	lenient bool
}

// Probed is the result of a probe of a port. One that isn't asked for any more is ignored.
type Probed struct{ health.Result }

func (Probed) event() {}

func (s *State) probed(e Probed) bool {
	p, asked := s.ports[e.Target]
	if !asked {
		return false
	}
	p.Port = p.Feed(e.Outcome, p.lenient, p.options, e.Ended)
	s.ports[e.Target] = p
	return true
}

// destination is where a server's clients are connected to, and how they are announced.
func destination(carrier model.Server, o model.Options) health.Target {
	return health.DestinationOf(carrier.Member, carrier.Host, carrier.Port, o.ProxyVersion())
}

// adoptPorts fits the ports to the set: those that are in it already keep what is known of them.
func (s *State) adoptPorts(a *Actions) {
	ports := make(map[health.Target]port, len(s.ports))
	for _, svc := range s.set.Services {
		for _, carrier := range svc.Servers {
			at := destination(carrier, svc.Options)
			p, shared := ports[at]
			if !shared {
				p = port{Port: s.ports[at].Port, options: svc.Options, lenient: true}
			}
			p.options.Inter = min(p.options.Inter, svc.Options.Inter)
			p.options.FastInter = min(p.options.FastInter, svc.Options.FastInter)
			p.options.Fall = min(p.options.Fall, svc.Options.Fall)
			p.lenient = p.lenient && svc.Dest.Kind == model.ToPort
			ports[at] = p
		}
	}
	same := func(a, b port) bool {
		return a.options.Inter == b.options.Inter && a.options.FastInter == b.options.FastInter
	}
	if !maps.EqualFunc(s.ports, ports, same) {
		a.Probes = probes(ports)
	}
	s.ports = ports
}

// probes are the ports with their schedules, in order. A probe has fastinter, within a second and three, to be answered: that
// doesn't wait for queries as Patroni's answers do.
func probes(ports map[health.Target]port) []health.Check {
	all := make([]health.Check, 0, len(ports))
	for at, p := range ports {
		all = append(all, health.Check{Target: at, Interval: p.Next(p.options), Timeout: health.Timeout(p.options.FastInter)})
	}
	slices.SortFunc(all, func(a, b health.Check) int {
		return cmp.Or(strings.Compare(a.Member, b.Member), strings.Compare(a.Base, b.Base))
	})
	return all
}

// probeIntervals are how often each port is to be asked now.
func (s *State) probeIntervals() map[health.Target]time.Duration {
	intervals := make(map[health.Target]time.Duration, len(s.ports))
	for at, p := range s.ports {
		intervals[at] = p.Next(p.options)
	}
	return intervals
}
