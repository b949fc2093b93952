package cluster

import (
	"time"

	"github.com/pgporter/pgporter/internal/config/model"
	"github.com/pgporter/pgporter/internal/monitor/health"
	"github.com/pgporter/pgporter/internal/monitor/inquiry"
	"github.com/pgporter/pgporter/internal/monitor/patroni"
)

// port is a port on a member that is probed: a destination of services, for all of them together, or its PostgreSQL's own.
type port struct {
	health.Port
	ask inquiry.Schedule
	// options are the strictest of its services': the shortest times, the least `fall`.
	options model.Options
	// lenient says that nobody knows what is spoken there. serves says that services lead there, postgres that PostgreSQL itself is
	// there: a probe costs it a process.
	lenient, serves, postgres bool
	// heard is when the last result was there, answered when the last answer was. soundFrom is since when there were only answers, zero
	// while there are none.
	heard, answered, soundFrom time.Time
}

// probeSeldom is how often PostgreSQL itself is probed while its Patroni says that it runs: what a probe can find then is a
// postmaster that is stopped, and that shows as soon as a client comes.
const probeSeldom = 15 * time.Second

const (
	// witnessedAfter is for how long a port has to have answered before clients are relied on to find out that it doesn't.
	witnessedAfter = 10 * time.Second
	// witnessedPace is how many times `inter` such a port is left alone: what a probe finds then is a pooler that has hung itself up
	// while nobody came.
	witnessedPace = 3
)

// Probed is the result of a probe of a port. One that isn't asked for any more is ignored.
type Probed struct{ health.Result }

func (Probed) event() {}

func (s *State) probed(e Probed, now time.Time) bool {
	p, asked := s.ports[e.Target]
	if !asked {
		return false
	}
	p.ask.End(inquiry.Ended{Target: e.Target, NotAsked: e.Outcome.NotAsked, Cheap: true}, now)
	if !e.Outcome.NotAsked {
		p.Port = p.Feed(e.Outcome, p.lenient, p.options, e.Ended)
		p.heard = e.Ended
		if e.Outcome.Silence == "" {
			p.answered = e.Ended
		}
		if !p.Sound() {
			p.soundFrom = time.Time{}
		} else if p.soundFrom.IsZero() {
			p.soundFrom = e.Ended
		}
	}
	s.ports[e.Target] = p
	return true
}

// destination is where a server's clients are connected to, and how they are announced.
func destination(carrier model.Server, o model.Options) health.Target {
	return health.DestinationOf(carrier.Member, carrier.Host, carrier.Port, o.ProxyVersion())
}

// postgresOf is the port of a member's PostgreSQL.
func postgresOf(m model.Member) health.Target {
	return health.DestinationOf(m.Name, m.Host, m.PostgresPort, 0)
}

// adoptPorts fits the ports to the set: those that are in it already keep what is known of them.
func (s *State) adoptPorts(now time.Time) {
	ports := make(map[health.Target]port, len(s.ports))
	strictest := map[string]model.Options{}
	add := func(at health.Target, o model.Options) port {
		p, shared := ports[at]
		if !shared {
			p = s.ports[at]
			p.options, p.lenient, p.serves, p.postgres = o, true, false, false
			if p.ask.IsZero() {
				p.ask = inquiry.New(s.seedOf(at.Member + " " + at.Base))
			}
		}
		p.options = stricter(p.options, o)
		return p
	}
	for _, svc := range s.set.Services {
		for _, carrier := range svc.Servers {
			at := destination(carrier, svc.Options)
			p := add(at, svc.Options)
			p.serves = true
			p.lenient = p.lenient && svc.Dest.Kind == model.ToPort
			ports[at] = p
			if had, there := strictest[carrier.Member]; there {
				strictest[carrier.Member] = stricter(had, svc.Options)
			} else {
				strictest[carrier.Member] = svc.Options
			}
		}
	}
	for _, m := range s.cluster.Members {
		o, serves := strictest[m.Name]
		if !serves {
			continue
		}
		at := postgresOf(m)
		p := add(at, o)
		if !p.serves && p.heard.IsZero() {
			p.Port = health.Assumed()
		}
		p.postgres, p.lenient = true, false
		ports[at] = p
	}
	s.ports = ports
	s.pacePorts(now)
}

// stricter has the shorter times and the lower `fall` of two.
func stricter(a, b model.Options) model.Options {
	a.Inter, a.FastInter, a.Fall = min(a.Inter, b.Inter), min(a.FastInter, b.FastInter), min(a.Fall, b.Fall)
	return a
}

// pacePorts settles which ports are probed, and how often. A probe has fastinter, within a second and three, to be answered: that
// doesn't wait for queries as Patroni's answers do.
func (s *State) pacePorts(now time.Time) {
	for at, p := range s.ports {
		switch doubt := s.doubtful(at.Member, p); {
		case !p.serves && !doubt:
			p.ask.Set(nil, now)
		case p.postgres && !doubt:
			p.ask.Keep(inquiry.Ask{Target: at, Quiet: p.options.Inter, Pace: max(probeSeldom, p.options.Inter)}, now)
		case s.witnessed && !doubt && !p.lenient && now.Sub(p.soundFrom) >= witnessedAfter:
			p.ask.Keep(inquiry.Ask{Target: at, Quiet: p.options.Inter, Pace: witnessedPace * p.options.Inter}, now)
		default:
			p.ask.Keep(inquiry.Ask{Target: at, Quiet: p.options.Inter, Pace: p.Next(p.options)}, now)
		}
		s.ports[at] = p
	}
}

// doubt has the ports probed at which servers keep clients waiting.
func (s *State) doubt(servers []serverKey, now time.Time) {
	for _, key := range servers {
		at := s.servers[key].port
		if p, asked := s.ports[at]; asked {
			p.ask.Noticed(now)
			s.ports[at] = p
		}
	}
}

// doubtful says that nothing fresher tells whether PostgreSQL runs on a member than its port.
func (s *State) doubtful(name string, p port) bool {
	m := s.members[name]
	return !m.silentSince.IsZero() || !m.checked || m.state != patroni.StateRunning || !p.Sound()
}

// portOf is what the port of a member's PostgreSQL says since its API fell silent.
func (s *State) portOf(m model.Member) health.PortSays {
	since := s.members[m.Name].silentSince
	p, asked := s.ports[postgresOf(m)]
	switch {
	case !asked || since.IsZero():
		return health.PortUnknown
	case p.Hangs() && p.Closed() != "":
		return health.PortHangs
	case p.Closed() != "" || p.Refused() && !p.heard.Before(since):
		return health.PortFails
	case !p.answered.Before(since):
		return health.PortAnswers
	}
	return health.PortUnknown
}

// probeWithin is how long a probe may take.
func (p port) probeWithin() time.Duration { return health.Timeout(p.options.FastInter) }
