package daemon

import (
	"context"
	"net"
	"net/netip"

	"github.com/pgporter/pgporter/internal/access/pool"
	"github.com/pgporter/pgporter/internal/access/pool/duty"
	"github.com/pgporter/pgporter/internal/admin/api"
	"github.com/pgporter/pgporter/internal/engine"
	"github.com/pgporter/pgporter/internal/monitor/view"
)

// pools is the Part that watches over PgBouncers.
type pools struct {
	*pool.Keeper
	bind netip.Addr
}

// Prepare can't fail: what a PgBouncer's databases lead to is judged by what there is.
func (p pools) Prepare(_ context.Context, o engine.Offer) (Change, error) {
	follow := pool.Offer{Node: duty.Node{Host: o.Node, Bind: p.bind, Own: ownAddresses()}, Boards: map[string]*view.Board{}}
	for _, c := range o.Elsewhere {
		follow.Elsewhere = append(follow.Elsewhere, c.Cluster)
		follow.Boards[c.Name] = c.Board
	}
	for _, c := range o.Clusters {
		follow.Clusters = append(follow.Clusters, c.Cluster)
		follow.Boards[c.Name] = c.Board
	}
	return Change{Publish: func() { p.Follow(follow) }}, nil
}

// ownAddresses are the machine's. Without them what leads to one of them isn't known for what it is.
func ownAddresses() []netip.Addr {
	all, err := net.InterfaceAddrs()
	if err != nil {
		return nil
	}
	var own []netip.Addr
	for _, a := range all {
		if network, err := netip.ParsePrefix(a.String()); err == nil {
			own = append(own, network.Addr().Unmap())
		}
	}
	return own
}

// watchPools makes the Part that watches over PgBouncers, if there are any to watch over.
func (d *Daemon) watchPools() {
	if d.cfg.Pools == nil {
		return
	}
	cfg := *d.cfg.Pools
	cfg.Logger, cfg.Sessions = d.log, d.leaderSessions
	d.pools = pool.New(cfg)
	bind, _ := netip.ParseAddr(d.cfg.Bind) // "*" and the empty one are every address
	d.cfg.Parts = append(d.cfg.Parts[:len(d.cfg.Parts):len(d.cfg.Parts)], pools{d.pools, bind})
}

// leaderSessions counts the sessions of a member in services of the leader.
func (d *Daemon) leaderSessions(cluster, member string) int {
	d.mu.Lock()
	running := d.running[cluster]
	d.mu.Unlock()
	if running == nil {
		return 0
	}
	all := trafficOf(d.engine.Traffic(context.Background()))
	sessions := 0
	for _, s := range running.loop.Board().View().Services {
		if s.Leads {
			sessions += serverTraffic(all.service(s.FullName), member).Sessions
		}
	}
	return sessions
}

var poolStates = map[pool.State]api.PoolState{pool.Running: api.PoolRunning, pool.Pausing: api.PoolPausing, pool.Paused: api.PoolPaused}

// poolsOf are the PgBouncers that this node watches over, with a cluster's databases, or all of them.
func (d *Daemon) poolsOf(cluster string) []api.Pool {
	all := []api.Pool{}
	if d.pools == nil {
		return all
	}
	for _, s := range d.pools.Status() {
		shown := api.Pool{Address: s.Address.String(), Problem: s.Problem, Databases: []api.PoolDatabase{}}
		for _, b := range s.Databases {
			if cluster == "" || b.Cluster == cluster {
				shown.Databases = append(shown.Databases, api.PoolDatabase{Name: b.Name, Cluster: b.Cluster, Service: b.Service, Member: b.Member, State: poolStates[b.State],
					Active: b.Active, Waiting: b.Waiting, Busy: b.Busy})
			}
		}
		all = append(all, shown)
	}
	return all
}
