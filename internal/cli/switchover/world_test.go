package switchover

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/pgporter/pgporter/internal/admin/api"
	"github.com/pgporter/pgporter/internal/monitor/patroni"
)

// cluster is a cluster of three members with its nodes, as a switchover sees it: a Patroni that takes its time, nodes with leases.
type cluster struct {
	mu      sync.Mutex
	members []patroni.ClusterMember
	config  patroni.Config
	pause   bool
	leader  string
	// words replaces a member's own, stopped has the members whose port refuses.
	words   map[string]patroni.Answer
	stopped map[string]bool
	nodes   []*fakeNode
	// running are the transactions, each until it ends; cancelled those that were. account says why there is none.
	running   map[string][]ending
	cancelled []int
	account   error
	// stops and promotes is how long Patroni needs; status and says is what it answers; leads who does in the end; chosen by the caller if
	// empty.
	stops, promotes time.Duration
	status          int
	leads           string
	// silent has everything that is asked in vain until its context ends: node, patroni, postgres, checkpoint, post.
	silent map[string]bool
	// checkpoints are those that were made.
	checkpoints []string
	asked       bool
	changing    sync.WaitGroup
	end         context.Context
}

// ending is a transaction that ends at a moment.
type ending struct {
	Transaction
	at time.Time
}

func newCluster(t *testing.T) *cluster {
	c := &cluster{leader: "pg-test-1", words: map[string]patroni.Answer{}, stopped: map[string]bool{}, running: map[string][]ending{}, silent: map[string]bool{},
		config: patroni.Config{MaximumLag: 1 << 20}, stops: 300 * time.Millisecond, promotes: 400 * time.Millisecond, status: 200, end: t.Context()}
	for i := range 3 {
		c.members = append(c.members, patroni.ClusterMember{Name: fmt.Sprintf("pg-test-%d", i+1), State: "running", Role: patroni.RoleReplica, Timeline: 3, Host: "10.10.10.1", Port: 5432})
		c.nodes = append(c.nodes, &fakeNode{name: fmt.Sprintf("10.10.10.1%d", i+1), cluster: c})
	}
	t.Cleanup(c.changing.Wait)
	return c
}

func (c *cluster) world() World {
	w := World{Patroni: c, Servers: fakeServers{c}}
	for _, n := range c.nodes {
		w.Nodes = append(w.Nodes, n)
	}
	return w
}

// hangs blocks while what is asked is silent.
func (c *cluster) hangs(ctx context.Context, what string) error {
	c.mu.Lock()
	silent := c.silent[what]
	c.mu.Unlock()
	if silent {
		<-ctx.Done()
		return ctx.Err()
	}
	// Whatever is asked takes a moment.
	if !pause(ctx, 2*time.Millisecond) {
		return ctx.Err()
	}
	return nil
}

func (c *cluster) Cluster(ctx context.Context) (patroni.Cluster, error) {
	if err := c.hangs(ctx, "patroni"); err != nil {
		return patroni.Cluster{}, err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	all := patroni.Cluster{Pause: c.pause, Members: slices.Clone(c.members)}
	for i, m := range all.Members {
		if m.Name == c.leader {
			all.Members[i].Role = patroni.RoleLeader
			if c.config.Standby {
				all.Members[i].Role = patroni.RoleStandbyLeader
			}
		}
	}
	return all, nil
}

func (c *cluster) Config(ctx context.Context) (patroni.Config, error) {
	return c.config, c.hangs(ctx, "patroni")
}

func (c *cluster) Member(ctx context.Context, name string) (patroni.Answer, error) {
	if err := c.hangs(ctx, "patroni"); err != nil {
		return patroni.Answer{}, err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if a, told := c.words[name]; told {
		return a, nil
	}
	a := patroni.Answer{Status: 200, Role: patroni.RoleReplica, State: patroni.StateRunning, Timeline: 3, Received: 1000, Replayed: 1000}
	switch {
	case c.stopped[name]:
		a.State = "stopped"
	case name == c.leader && c.config.Standby:
		a = patroni.Answer{Status: 200, Role: patroni.RoleStandbyLeader, State: patroni.StateRunning}
	case name == c.leader:
		a = patroni.Answer{Status: 200, Role: patroni.RolePrimary, State: patroni.StateRunning, Location: 1000}
	}
	return a, nil
}

func (c *cluster) Switchover(ctx context.Context, leader, candidate string) (int, string, error) {
	c.mu.Lock()
	c.asked = true
	status, next := c.status, c.leads
	c.mu.Unlock()
	if next == "" {
		next = candidate
	}
	switch {
	case status == 0:
		return 0, "", fmt.Errorf("%w: connection refused", patroni.ErrNotAsked)
	case status == 1:
		// The connection breaks, and Patroni goes on.
	case status != 200:
		return status, "switchover is not possible: no good candidates have been found", c.hangs(ctx, "post")
	}
	takes := func(part *time.Duration) time.Duration {
		c.mu.Lock()
		defer c.mu.Unlock()
		return *part
	}
	c.changing.Go(func() {
		if !pause(c.end, takes(&c.stops)) {
			return
		}
		c.mu.Lock()
		c.stopped[leader] = true
		c.leader = ""
		c.mu.Unlock()
		if !pause(c.end, takes(&c.promotes)) {
			return
		}
		c.mu.Lock()
		c.leader = next
		c.mu.Unlock()
	})
	if status == 1 {
		return 0, "", errors.New("connection reset")
	}
	// Patroni looks once a second whether it is over.
	for pause(ctx, time.Second) {
		c.mu.Lock()
		over := c.leader == next
		c.mu.Unlock()
		if over {
			return 200, fmt.Sprintf("Successfully switched over to %q", next), nil
		}
	}
	return 0, "", ctx.Err()
}

type fakeServers struct{ c *cluster }

func (s fakeServers) Postgres(ctx context.Context, member string) error {
	if err := s.c.hangs(ctx, "postgres"); err != nil {
		return err
	}
	s.c.mu.Lock()
	defer s.c.mu.Unlock()
	if s.c.stopped[member] {
		return errors.New("port 5432 refuses")
	}
	return nil
}

func (s fakeServers) Pooler(ctx context.Context, member string) error {
	if s.c.silent["pooler"] {
		return errors.New("port 6432 refuses")
	}
	return nil
}

func (s fakeServers) Checkpoint(ctx context.Context, member string) error {
	if err := s.c.hangs(ctx, "checkpoint"); err != nil {
		return err
	}
	if s.c.account == nil {
		s.c.checkpoints = append(s.c.checkpoints, member)
	}
	return s.c.account
}

func (s fakeServers) Transactions(ctx context.Context, member string) ([]Transaction, error) {
	if err := s.c.hangs(ctx, "transactions"); err != nil {
		return nil, err
	}
	s.c.mu.Lock()
	defer s.c.mu.Unlock()
	var now []Transaction
	for _, e := range s.c.running[member] {
		if time.Now().Before(e.at) {
			t := e.Transaction
			t.Seconds = time.Since(t.Begun).Seconds()
			now = append(now, t)
		}
	}
	return now, s.c.account
}

func (s fakeServers) Cancel(_ context.Context, member string, these []Transaction) error {
	s.c.mu.Lock()
	defer s.c.mu.Unlock()
	for _, t := range these {
		s.c.cancelled = append(s.c.cancelled, t.PID)
		for i, e := range s.c.running[member] {
			if e.PID == t.PID && t.State == "active" {
				s.c.running[member][i].at = time.Now().Add(50 * time.Millisecond)
			}
		}
	}
	return s.c.account
}

// runs has a transaction run on the first member for so long from now.
func (c *cluster) runs(pid int, state string, lasts time.Duration) {
	now := time.Now()
	c.running["pg-test-1"] = append(c.running["pg-test-1"],
		ending{Transaction{PID: pid, Begun: now, User: "app", Database: "shop", Application: "psql", Client: "10.0.0.7", State: state}, now.Add(lasts)})
}

// fakeNode is a pgporter with a lease.
type fakeNode struct {
	name    string
	cluster *cluster

	mu     sync.Mutex
	id     string
	until  time.Time
	since  time.Time
	told   []api.Seconds
	silent bool
	// status is changed before it is given; pausesAfter is how long its PgBouncer takes to be paused; it has none if that is 0.
	status      func(*api.Status)
	pausesAfter time.Duration
	refuses     error
	// sessions are those that it says it has as a hold begins.
	sessions *api.HeldSessions
}

func (n *fakeNode) Called() string { return n.name }

// holds says for whom the node holds now.
func (n *fakeNode) holds() string {
	n.mu.Lock()
	defer n.mu.Unlock()
	if !time.Now().Before(n.until) {
		return ""
	}
	return n.id
}

func (n *fakeNode) goSilent(silent bool) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.silent = silent
}

func (n *fakeNode) hangs(ctx context.Context) error {
	n.mu.Lock()
	silent := n.silent
	n.mu.Unlock()
	if silent {
		<-ctx.Done()
		return ctx.Err()
	}
	if !pause(ctx, time.Millisecond) {
		return ctx.Err()
	}
	return nil
}

func (n *fakeNode) pools() []api.Pool {
	if n.pausesAfter == 0 {
		return nil
	}
	d := api.PoolDatabase{Name: "shop", Cluster: "pg-test", Service: "pg-test-default", State: api.PoolRunning}
	if n.holds() != "" {
		d.State = api.PoolPausing
		d.Active, d.Busy = 1, []string{"app from 10.0.0.8"}
		if time.Since(n.since) >= n.pausesAfter {
			d.State, d.Active, d.Busy = api.PoolPaused, 0, nil
		}
	}
	return []api.Pool{{Address: "/run/postgresql:6433", Databases: []api.PoolDatabase{d}}}
}

func (n *fakeNode) Hold(ctx context.Context, o api.HoldOrder) (api.Held, error) {
	if err := n.hangs(ctx); err != nil {
		return api.Held{}, err
	}
	if n.refuses != nil && o.ForSeconds > 0 {
		return api.Held{}, n.refuses
	}
	if o.From == "" || o.To == "" || o.Cluster != "pg-test" {
		return api.Held{}, fmt.Errorf("an order of %+v", o)
	}
	held, began := n.holds(), (*api.HeldSessions)(nil)
	n.mu.Lock()
	n.told = append(n.told, o.ForSeconds)
	if o.ForSeconds == 0 {
		n.id, n.until = "", time.Time{}
	} else {
		if held == "" {
			n.since = time.Now()
			began = n.sessions
		}
		n.id, n.until = o.ID, time.Now().Add(o.ForSeconds.Duration())
	}
	said := api.Held{Sessions: began}
	if n.id != "" {
		said.Hold = &api.Hold{ID: n.id, By: "a test"}
	}
	n.mu.Unlock()
	said.Pools = n.pools()
	return said, nil
}

func (n *fakeNode) Status(ctx context.Context) (*api.Status, error) {
	if err := n.hangs(ctx); err != nil {
		return nil, err
	}
	n.cluster.mu.Lock()
	leader := n.cluster.leader
	n.cluster.mu.Unlock()
	one := api.Cluster{Name: "pg-test"}
	service := api.Service{FullName: "pg-test-default", Check: "/primary"}
	for _, m := range n.cluster.members {
		role := "replica"
		if m.Name == leader {
			role = "primary"
		}
		one.Members = append(one.Members, api.Member{Name: m.Name, Role: role})
		service.Servers = append(service.Servers, api.Server{Member: m.Name, Serving: m.Name == leader})
	}
	one.Services = []api.Service{service, {FullName: "pg-test-replica", Check: "/replica"}}
	if id := n.holds(); id != "" {
		one.Hold = &api.Hold{ID: id, By: "a test", Since: n.since}
	}
	s := &api.Status{Engine: api.EngineNative, Clusters: []api.Cluster{one}, Pools: n.pools()}
	if n.status != nil {
		n.status(s)
	}
	return s, nil
}

// order is an ordinary one.
func order() Order {
	return Order{Cluster: "pg-test", ID: "switchover-test", Drain: 5 * time.Second, Checkpoint: time.Minute, Look: 5 * time.Second}
}

// make has a switchover made, and gives what was told, a line each.
func (c *cluster) make(ctx context.Context, o Order, seen func(Event)) (Report, string, error) {
	var lines strings.Builder
	report, err := Run(ctx, o, c.world(), func(e Event) {
		fmt.Fprintf(&lines, "%6.3f %-10s %s\n", e.After.Seconds(), e.Step, e.Text)
		if seen != nil {
			seen(e)
		}
	})
	return report, lines.String(), err
}
