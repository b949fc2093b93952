//go:build trouble

package e2e

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os/exec"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/pgporter/pgporter/internal/admin/api"
	"github.com/pgporter/pgporter/lab/sandbox"
	"github.com/pgporter/pgporter/lab/sandbox/restproxy"
)

// TestAPIInTrouble is about what pgporter learns, or doesn't, while the cluster itself is well: Patroni's REST API is silent or
// talks nonsense, and etcd is away. Beside the members' pgporters, which watch etcd, there is one that doesn't.
func TestAPIInTrouble(t *testing.T) {
	t.Parallel()
	c := up(t, 82, sandbox.Config{RestProxy: lab})
	lone := c.prefix + ".31"
	startPorter(t, lone, "--inventory", c.Inventory(), "--node", c.member(1))
	c.healthy(t, lone)

	t.Run("Patroni is stopped for 9 s", func(t *testing.T) { c.stoppedPatroni(t, lone) })
	t.Run("an API that hangs", func(t *testing.T) { c.silentAPI(t, lone, restproxy.Hang, 25*time.Second) })
	for _, fault := range []restproxy.Fault{restproxy.Error500, restproxy.HalfHeader, restproxy.Reset} {
		t.Run("an API that talks nonsense: "+string(fault), func(t *testing.T) { c.silentAPI(t, lone, fault, 6*time.Second) })
	}
	t.Run("every API hangs", func(t *testing.T) { c.silentAPIs(t, lone) })
	t.Run("etcd is away while clients wait for a primary", func(t *testing.T) { c.waitingWriters(t, lone) })
}

// healthy waits until all services are as they should be, on the members' nodes and another one.
func (c *cluster) healthy(t *testing.T, lone string) {
	t.Helper()
	c.t = t
	leader, err := c.Leader(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	replicas := without(c.nodes(), leader.Address)
	want := []serves{{direct, []instance{at(leader.Address, false)}}, {replica, []instance{at(replicas[0], true), at(replicas[1], true)}}}
	c.expect(afterFailover, want...)
	for _, w := range want {
		eventually(t, afterFailover, w.checkAt(lone))
	}
	for _, node := range append(c.nodes(), lone) {
		eventually(t, afterFailover, func(ctx context.Context) error { return heard(ctx, node) })
	}
}

// heard says of whom a node's pgporter hasn't heard. Who is silent serves reads for want of anybody else, and gives way to whoever answers
// first, be it the primary.
func heard(ctx context.Context, node string) error {
	status, err := api.Client{Address: net.JoinHostPort(node, api.DefaultPort)}.Status(ctx)
	if err != nil {
		return err
	}
	for _, s := range status.Clusters[0].Services {
		for _, server := range s.Servers {
			if strings.Contains(server.Reason, "silent") {
				err = errors.Join(err, fmt.Errorf("%s: %s of %s: %s", node, server.Member, s.FullName, server.Reason))
			}
		}
	}
	return err
}

// during looks again and again for so long; what it finds wrong first is the failure.
func during(t *testing.T, length time.Duration, look func(context.Context) error) {
	t.Helper()
	began := time.Now()
	again := time.NewTicker(500 * time.Millisecond)
	defer again.Stop()
	for ; time.Since(began) < length; <-again.C {
		if err := look(t.Context()); err != nil {
			t.Errorf("after %.1fs: %v", time.Since(began).Seconds(), err)
			return
		}
	}
}

// open says which of some sessions has ended.
func open(sessions ...*idleSession) error {
	for _, h := range sessions {
		select {
		case err := <-h.ended:
			h.ended <- err
			return fmt.Errorf("the session on %s has ended: %w", h.to, err)
		default:
		}
	}
	return nil
}

// leadsTo asks through services of a node, each of which has to lead to a primary or to a standby.
func leadsTo(ctx context.Context, node string, recovery bool, services ...service) error {
	for _, s := range services {
		i, err := ask(ctx, node, s)
		if err != nil {
			return fmt.Errorf("%s:%d: %w", node, s.port, err)
		}
		if i.recovery != recovery {
			return fmt.Errorf("%s:%d connected to %s", node, s.port, i)
		}
	}
	return nil
}

// signal sends one to a process of the cluster.
func (c *cluster) signal(t *testing.T, sig syscall.Signal, what string) {
	t.Helper()
	if err := c.Kill(context.WithoutCancel(t.Context()), sig, what); err != nil {
		t.Error(err)
	}
}

// order has members' APIs do something.
func (c *cluster) order(t *testing.T, fault restproxy.Fault, members ...string) {
	t.Helper()
	for _, m := range members {
		if err := c.API(context.WithoutCancel(t.Context()), m, restproxy.Order{Fault: fault}); err != nil {
			t.Fatal(err)
		}
	}
}

// asked fails the test if a member was asked for more than so many nodes may: each has one question under way at most, and over 5 s
// at most two for each second, the interval of `pg_rto: fast`. One more may fall into five seconds, since a question arrives later
// than it was sent.
func (c *cluster) asked(t *testing.T, since time.Time, nodes int) {
	t.Helper()
	const window, most = 5 * time.Second, 10 + 1
	for _, m := range c.members() {
		all, err := c.APIRequests(t.Context(), m, since)
		if err != nil {
			t.Fatal(err)
		}
		rate, waiting := restproxy.Most(all, window), restproxy.UnderWay(all, time.Now())
		t.Logf("%s was asked %d times in %.0fs, %d times within %s at most; %d at once", m, len(all), time.Since(since).Seconds(), rate, window, waiting)
		if rate > nodes*most || waiting > nodes {
			t.Errorf("%s was asked %d times within %s and %d at once, by %d nodes", m, rate, window, waiting, nodes)
		}
	}
}

// stoppedPatroni stops the primary's Patroni for less than its leader key lives. PostgreSQL goes on and nobody else may lead, so no
// session ends; whoever watches etcd leads new clients there as well.
func (c *cluster) stoppedPatroni(t *testing.T, lone string) {
	c.healthy(t, lone)
	since := time.Now()
	sessions := []*idleSession{
		c.hold(c.member(1), direct).watch(t), c.hold(c.member(3), primary).watch(t), c.hold(lone, direct).watch(t), c.hold(lone, primary).watch(t),
	}
	leader, err := c.Leader(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	c.signal(t, syscall.SIGSTOP, leader.Name+"/patroni")
	during(t, 9*time.Second, func(ctx context.Context) error {
		return errors.Join(open(sessions...), leadsTo(ctx, c.member(1), false, direct, primary), leadsTo(ctx, c.member(3), false, direct))
	})
	c.signal(t, syscall.SIGCONT, leader.Name+"/patroni")
	c.healthy(t, lone)
	if err := open(sessions...); err != nil {
		t.Error(err)
	}
	c.asked(t, since, 4)
}

// silentAPI has the primary's API give no answer that says anything, while its Patroni goes on holding the leader key. Whoever watches
// etcd goes on for good. Who doesn't keeps the sessions at least for as long as nobody else can have been promoted.
func (c *cluster) silentAPI(t *testing.T, lone string, fault restproxy.Fault, length time.Duration) {
	const withoutEtcd = 15 * time.Second // of the leader key's 20
	c.healthy(t, lone)
	leader, err := c.Leader(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	since := time.Now()
	sessions := []*idleSession{c.hold(c.member(2), direct).watch(t), c.hold(c.member(3), primary).watch(t)}
	alone := []*idleSession{c.hold(lone, direct).watch(t), c.hold(lone, primary).watch(t)}
	c.order(t, fault, leader.Name)
	defer c.order(t, restproxy.Pass, leader.Name)
	during(t, length, func(ctx context.Context) error {
		err := errors.Join(open(sessions...), leadsTo(ctx, c.member(2), false, direct, primary), leadsTo(ctx, c.member(3), false, direct))
		if time.Since(since) < withoutEtcd {
			err = errors.Join(err, open(alone...))
		}
		return err
	})
	why := c.reason(t, c.member(2), "pg-test-default", leader.Name)
	t.Logf("why it serves: %s", why)
	if why == "200 primary running" {
		t.Errorf("status says %q of an API that says nothing", why)
	}
	c.asked(t, since, 4)
}

// reason is why a server of a service is up or down, by the word of a node's pgporter.
func (c *cluster) reason(t *testing.T, node, service, member string) string {
	t.Helper()
	status, err := api.Client{Address: net.JoinHostPort(node, api.DefaultPort)}.Status(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range status.Clusters[0].Services {
		for _, server := range s.Servers {
			if s.FullName == service && server.Member == member {
				return server.Reason
			}
		}
	}
	t.Fatalf("%s has no server %s", service, member)
	return ""
}

// silentAPIs has nobody's API answer. Nothing contradicts that all are what they were, so reads go on everywhere, and writes where
// etcd is watched. A primary whose silence is noticed after the replicas' is a backup that answers until then.
func (c *cluster) silentAPIs(t *testing.T, lone string) {
	c.healthy(t, lone)
	since := time.Now()
	sessions := []*idleSession{c.hold(c.member(1), replica).watch(t), c.hold(c.member(2), offline).watch(t), c.hold(c.member(3), direct).watch(t)}
	c.order(t, restproxy.Hang, c.members()...)
	defer c.order(t, restproxy.Pass, c.members()...)
	during(t, 10*time.Second, func(ctx context.Context) error {
		return errors.Join(open(sessions...), leadsTo(ctx, c.member(1), false, primary, direct), reads(ctx, c.member(2)), reads(ctx, lone))
	})
	c.asked(t, since, 4)
}

// reads asks through a node's read services, which have to lead to a standby unless the node has the primary's own answer and nobody
// else's.
func reads(ctx context.Context, node string) error {
	answering, err := answers(ctx, node)
	if err != nil {
		return err
	}
	for _, s := range []service{replica, offline} {
		i, err := ask(ctx, node, s)
		if err != nil {
			return fmt.Errorf("%s:%d: %w", node, s.port, err)
		}
		if !i.recovery && !(len(answering) == 1 && answering[0] == "primary") {
			return fmt.Errorf("%s:%d connected to %s, while there answered: %v", node, s.port, i, answering)
		}
	}
	return nil
}

// answers are the roles of the members of whom a node has an answer, and not silence.
func answers(ctx context.Context, node string) ([]string, error) {
	status, err := api.Client{Address: net.JoinHostPort(node, api.DefaultPort)}.Status(ctx)
	if err != nil {
		return nil, err
	}
	var roles []string
	for _, m := range status.Clusters[0].Members {
		if !strings.HasPrefix(m.Answer, "silent") {
			roles = append(roles, m.Role)
		}
	}
	return roles, nil
}

// waitingWriters has etcd away, so that there is no primary any more, and a client at two nodes that waits for one. The replicas serve
// as they did before, and are asked no more than else.
func (c *cluster) waitingWriters(t *testing.T, lone string) {
	c.healthy(t, lone)
	since := time.Now()
	sessions := []*idleSession{
		c.hold(c.member(1), replica).watch(t), c.hold(c.member(3), replica).watch(t), c.hold(c.member(2), offline).watch(t),
		c.hold(lone, replica).watch(t), c.hold(lone, offline).watch(t),
	}
	ctx, cancel := context.WithCancel(t.Context())
	var waiting sync.WaitGroup
	defer waiting.Wait()
	defer cancel()
	for _, node := range []string{c.member(3), lone} {
		waiting.Go(func() {
			for again := time.Tick(time.Second); ctx.Err() == nil; <-again {
				ask(ctx, node, primary) //nolint:errcheck // waiting is what it is for
			}
		})
	}
	if err := c.Kill(t.Context(), syscall.SIGKILL, "etcd"); err != nil {
		t.Fatal(err)
	}
	reads, slowest := 0, time.Duration(0)
	during(t, 25*time.Second, func(ctx context.Context) error {
		began := time.Now()
		err := errors.Join(open(sessions...), leadsTo(ctx, c.member(1), true, replica, offline), leadsTo(ctx, c.member(3), true, replica), leadsTo(ctx, lone, true, replica, offline))
		reads, slowest = reads+5, max(slowest, time.Since(began))
		return err
	})
	t.Logf("%d reads while etcd was away; five of them took %.2fs at most", reads, slowest.Seconds())
	c.asked(t, since, 4)
	if err := c.Start(t.Context(), "etcd"); err != nil {
		t.Fatal(err)
	}
	cancel()
	waiting.Wait()
	began := time.Now()
	eventually(t, afterFailover, func(ctx context.Context) error { return leadsTo(ctx, c.member(1), false, direct) })
	c.healthy(t, lone)
	t.Logf("all was as before %.1fs after etcd was back", time.Since(began).Seconds())
}

// TestWithoutLocalReplication is a cluster in which each question to a replica is dear, and four nodes ask: so few questions that all
// replicas serve.
func TestWithoutLocalReplication(t *testing.T) {
	t.Parallel()
	c := up(t, 83, sandbox.Config{RestProxy: lab, WithoutLocalReplication: true})
	fourth := c.prefix + ".31"
	startPorter(t, fourth, "--inventory", c.Inventory(), "--node", c.member(1), "--etcd", c.Etcd())
	c.healthy(t, fourth)
	since := time.Now()
	nodes := append(c.nodes(), fourth)
	var sessions []*idleSession
	for _, node := range nodes {
		sessions = append(sessions, c.hold(node, replica).watch(t), c.hold(node, offline).watch(t))
	}
	during(t, 15*time.Second, func(ctx context.Context) error {
		err := open(sessions...)
		for _, node := range nodes {
			for _, member := range []string{"pg-test-2", "pg-test-3"} {
				err = errors.Join(err, serving(ctx, node, "pg-test-replica", member))
			}
			err = errors.Join(err, leadsTo(ctx, node, true, replica))
		}
		return err
	})
	c.asked(t, since, len(nodes))
	out, err := exec.CommandContext(t.Context(), binary, "doctor", "pg-test", "--inventory", c.Inventory(), "--by", "ip", "--service", "replica").CombinedOutput()
	if text := string(out); err == nil || strings.Count(text, "dear checks: ") != 2 || !strings.Contains(text, "host replication USER 127.0.0.1/32") {
		t.Errorf("the doctor ended with %v and says\n%s", err, text)
	}
}

// serving asks a node's pgporter whether a server takes clients of a service.
func serving(ctx context.Context, node, service, member string) error {
	status, err := api.Client{Address: net.JoinHostPort(node, api.DefaultPort)}.Status(ctx)
	if err != nil {
		return err
	}
	for _, s := range status.Clusters[0].Services {
		for _, server := range s.Servers {
			if s.FullName == service && server.Member == member && !server.Serving {
				return fmt.Errorf("%s: %s of %s doesn't serve: %s", node, member, service, server.Reason)
			}
		}
	}
	return nil
}
