package proxy

import (
	"time"

	"github.com/pgporter/pgporter/internal/config/model"
	"github.com/pgporter/pgporter/internal/engine"
)

// expectancy is how long a cluster may be without a primary as a failover goes: the leader key of a primary that died outlives
// it by up to the TTL, and those who are left need some of another to elect and promote one of them. Patroni has a loop (loop_wait), in
// which each of them looks at the key, and two times of questions (retry_timeout), to the others and to the DCS, fit in one TTL; what is
// left of it is for the promotion.
func expectancy(c model.Cluster) time.Duration { return 2 * time.Duration(c.TTL) * time.Second }

// tcpExpectancy is how long after its last server was lost a service that isn't PostgreSQL's has clients wait for the next: what Pigsty's
// usual TTL is for a cluster.
const tcpExpectancy = 30 * time.Second

// PrepareOffer is Prepare for what a node offers.
func (e *Engine) PrepareOffer(o engine.Offer) (*Change, error) {
	var endpoints []Endpoint
	for _, c := range o.Clusters {
		for _, definition := range c.Definitions {
			endpoints = append(endpoints, Endpoint{Cluster: c.Name, Definition: definition, Board: c.Board, Expectancy: expectancy(c.Cluster)})
		}
	}
	var tcpEndpoints []TCPEndpoint
	for _, s := range o.TCP.Services {
		name := s.FullName
		tcpEndpoints = append(tcpEndpoints, TCPEndpoint{
			Endpoint: Endpoint{Definition: s.Definition, Board: o.TCP.Board, Expectancy: tcpExpectancy},
			TCPService: TCPService{Once: s.Once, Connect: s.Connect, Queue: s.Queue, Idle: s.Idle,
				Recheck: func(member string) { o.TCP.Recheck(name, member) }},
		})
	}
	return e.Prepare(endpoints, tcpEndpoints...)
}
