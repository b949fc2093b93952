// Package overload is a cluster of stand-ins that can be asked too much: their Patronis have the capacity of real ones, so that
// a test can see whether checks tip them over. A fakepatroni answers at once whatever is asked of it; these don't.
//
// What a stand-in's API has of a real one (Patroni 3.0.2 and 4.0.7, measured):
//
//   - HTTP/1.0 without keep-alive and without a Content-Length: the answer ends with its connection. A thread for each connection,
//     however long that says nothing.
//   - A backlog of 5: of more who connect before they are accepted the kernel drops the first packets, and they come again after
//     1, 3 and 7 s.
//   - What asks PostgreSQL is done one by one in the order in which it came, and to its end when the asker is gone.
//   - What a question costs depends on the member's state; see the costs beside Member. The time is slept and not computed:
//     the machine isn't loaded, and three members have a core each where there are only two.
//
// Roles are told and not won: a test says who leads, who doesn't see whom, whose API hangs. There is no replication; all members have
// the same position, and nobody lags. Of Patroni's paths those that services check are there, and /cluster isn't.
package overload

import (
	"errors"
	"net/netip"
	"sync"
	"time"
)

// Name is the cluster's.
const Name = "pg-test"

// Ports of each member.
const (
	PatroniPort   = 8008
	PostgresPort  = 5432
	PgBouncerPort = 6432
)

// Cluster is its members and what they know of each other.
type Cluster struct {
	Members []*Member
	running sync.WaitGroup

	mu sync.Mutex
	// changed is told of each change of what follows, and of the members.
	changed *sync.Cond
	// leader holds the leader key; nil while nobody does. primary led last.
	leader, primary *Member
	timeline        int
	// blind says that the members don't see etcd, since lost.
	blind  bool
	lost   time.Time
	closed bool
}

// Start has a member at each address. The first one leads.
func Start(addresses ...netip.Addr) (*Cluster, error) {
	c := &Cluster{timeline: 1}
	c.changed = sync.NewCond(&c.mu)
	for i, address := range addresses {
		c.Members = append(c.Members, newMember(c, i+1, address))
	}
	c.leader, c.primary = c.Members[0], c.Members[0]
	for _, m := range c.Members {
		if err := m.open(); err != nil {
			return nil, errors.Join(err, c.Close())
		}
	}
	return c, nil
}

// Close ends all that the members do, and returns when it has ended.
func (c *Cluster) Close() error {
	c.change(func() { c.closed = true })
	var err error
	for _, m := range c.Members {
		err = errors.Join(err, m.shut())
	}
	c.running.Wait()
	return err
}

// Lead gives a member the leader key, with the next timeline.
func (c *Cluster) Lead(m *Member) {
	c.change(func() {
		c.leader, c.primary = m, m
		c.timeline++
	})
}

// Unlock takes the leader key away from whoever has it.
func (c *Cluster) Unlock() { c.change(func() { c.leader = nil }) }

// Blind has the members lose etcd, or find it again. The leader stays one, by failsafe mode.
func (c *Cluster) Blind(blind bool) { c.change(func() { c.blind, c.lost = blind, time.Now() }) }

// unlocked is what members say of themselves: they see no holder of the leader key.
func (c *Cluster) unlocked() bool { return c.leader == nil || c.blind }

// Leader holds the leader key; nil if nobody does.
func (c *Cluster) Leader() *Member {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.leader
}

func (c *Cluster) change(what func()) {
	c.mu.Lock()
	defer c.mu.Unlock()
	what()
	c.changed.Broadcast()
}

// await waits with the mutex until something is so, and gives false if the cluster is closed instead.
func (c *Cluster) await(so func() bool) bool {
	for !c.closed && !so() {
		c.changed.Wait()
	}
	return !c.closed
}

// Most is how many of some moments, which are in order, are in any window of a length.
func Most(moments []time.Time, window time.Duration) int {
	most, first := 0, 0
	for last, at := range moments {
		for at.Sub(moments[first]) >= window {
			first++
		}
		most = max(most, last-first+1)
	}
	return most
}
