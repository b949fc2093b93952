package e2e

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/pgporter/pgporter/internal/admin/api"
	"github.com/pgporter/pgporter/lab/sandbox"
)

// TestNeighbours: what runs beside a PostgreSQL that is well hangs or dies: PgBouncer, etcd, and Patroni in maintenance.
func TestNeighbours(t *testing.T) {
	t.Parallel()
	c := up(t, 96, sandbox.Config{Fall: patient})
	one, two, three := c.member(1), c.member(2), c.member(3)
	all := []serves{
		{primary, []instance{at(one, false)}},
		{replica, []instance{at(two, true), at(three, true)}},
		{direct, []instance{at(one, false)}},
		{offline, []instance{at(three, true)}},
	}
	c.expect(afterFailover, all...)
	signal := func(s syscall.Signal, what string) {
		if err := c.Kill(t.Context(), s, what); err != nil {
			c.t.Fatal(err)
		}
	}
	start := func(what string) {
		if err := c.Start(t.Context(), what); err != nil {
			c.t.Fatal(err)
		}
	}

	// Patroni doesn't know of PgBouncer. Who comes isn't connected to one that takes connections and says nothing, nor to one
	// that refuses them; who is there already isn't cut off.
	pooler := func(what, reason string, begin, end func()) {
		t.Run("PgBouncer "+what, func(t *testing.T) {
			c.t = t
			session := c.hold(three, replica)
			for session.to.address != two {
				session.Close(t.Context())
				session = c.hold(three, replica)
			}
			writes := writeThrough(t, c.nodes())
			begin()
			c.says(afterFailover, "pg-test-replica", "pg-test-2", reason)
			c.expect(afterFailover, serves{replica, []instance{at(three, true)}}, serves{offline, []instance{at(three, true)}}, serves{primary, []instance{at(one, false)}})
			end()
			c.expect(afterFailover, all...)
			writes.end(t)
			if what == "hangs" {
				session.lives(t)
			}
			session.Close(t.Context())
		})
	}
	pooler("hangs", "takes connections and doesn't answer", func() { signal(syscall.SIGSTOP, "pg-test-2/pgbouncer") }, func() { signal(syscall.SIGCONT, "pg-test-2/pgbouncer") })
	pooler("is killed", "connection refused", func() { signal(syscall.SIGKILL, "pg-test-2/pgbouncer") }, func() { start("pg-test-2/pgbouncer") })
	c.t = t

	// In maintenance: otherwise the primary gives up when it can't reach etcd, and when Patroni is away.
	c.leaderKey(afterFailover, func(k api.LeaderKey) bool { return k.Holder == "pg-test-1" && k.Lost == "" })
	c.pause(true)
	sessions := []*idleSession{c.hold(two, primary), c.hold(three, direct), c.hold(one, offline), c.hold(two, replica)}
	away := func(what string, begin, during, end func()) {
		t.Run(what, func(t *testing.T) {
			c.t = t
			writes := writeThrough(t, c.nodes())
			begin()
			during()
			c.expect(afterFailover, all...)
			end()
			c.leaderKey(afterFailover, func(k api.LeaderKey) bool { return k.Holder == "pg-test-1" && k.Lost == "" })
			c.expect(afterFailover, all...)
			writes.end(t)
			for _, h := range sessions {
				h.lives(t)
			}
		})
	}
	lost := func() {
		c.leaderKey(afterFailover, func(k api.LeaderKey) bool { return k.Lost != "" && k.Holder == "" })
	}
	away("etcd hangs", func() { signal(syscall.SIGSTOP, "etcd") }, lost, func() { signal(syscall.SIGCONT, "etcd") })
	away("etcd is killed", func() { signal(syscall.SIGKILL, "etcd") }, lost, func() { start("etcd") })
	away("Patroni is killed in maintenance", func() { signal(syscall.SIGKILL, "pg-test-1/patroni") },
		// `fall` is 10, `fastinter` half a second: its silence would have ended sessions before it is seen that often.
		func() { c.silent(afterFailover, "pg-test-1", 10*time.Second) }, func() { start("pg-test-1/patroni") })
	c.t = t
	for _, m := range c.Declared() {
		log := c.log(m.Name + "/pgporter")
		for _, line := range []string{"etcd is lost, the checks decide alone", "etcd answers again: "} {
			if n := strings.Count(log, line); n < 2 {
				t.Errorf("%d times in the log of %s: %s", n, m.Name, line)
			}
		}
	}

	// The key is watched again: a switchover is known by it, and ends the sessions on the old primary.
	c.pause(false)
	if _, err := c.Switchover(t.Context(), "pg-test-2"); err != nil {
		t.Fatal(err)
	}
	c.leaderKey(afterSwitchover, func(k api.LeaderKey) bool { return k.Holder == "pg-test-2" })
	c.expect(afterSwitchover, serves{primary, []instance{at(two, false)}}, serves{direct, []instance{at(two, false)}})
	for _, h := range sessions[:2] {
		h.watch(t).hasEnded(t, sessionsEnd)
	}
	sessions[2].lives(t)
	for _, m := range c.Declared() {
		if log := c.log(m.Name + "/pgporter"); !strings.Contains(log, "a switchover is asked for: ") || !strings.Contains(log, "pg-test-2 holds the leader key") {
			t.Errorf("the log of %s has no word of the switchover", m.Name)
		}
	}
}

// says waits until every node gives a reason of a service's server that holds a text.
func (c *cluster) says(within time.Duration, service, member, text string) {
	c.t.Helper()
	c.everywhere(within, func(status *api.Status) error {
		for _, s := range status.Clusters[0].Services {
			for _, server := range s.Servers {
				if s.FullName == service && server.Member == member && !strings.Contains(server.Reason, text) {
					return fmt.Errorf("%s: %s: %s", service, member, server.Reason)
				}
			}
		}
		return nil
	})
}

// silent waits until every node hasn't had an answer of a member's Patroni for some time.
func (c *cluster) silent(within time.Duration, member string, since time.Duration) {
	c.t.Helper()
	c.everywhere(within, func(status *api.Status) error {
		for _, m := range status.Clusters[0].Members {
			if m.Name == member && (m.Answered == nil || status.Now.Sub(*m.Answered) < since) {
				return fmt.Errorf("%s has answered: %s", member, m.Answer)
			}
		}
		return nil
	})
}

// everywhere waits until the status of every node is right.
func (c *cluster) everywhere(within time.Duration, right func(*api.Status) error) {
	c.t.Helper()
	eventually(c.t, within, func(ctx context.Context) error {
		for _, node := range c.nodes() {
			status, err := api.Client{Address: node + ":" + api.DefaultPort}.Status(ctx)
			if err == nil {
				err = right(status)
			}
			if err != nil {
				return fmt.Errorf("%s: %w", node, err)
			}
		}
		return nil
	})
}

// leaderKey waits until every node knows this of the leader key.
func (c *cluster) leaderKey(within time.Duration, holds func(api.LeaderKey) bool) {
	c.t.Helper()
	c.everywhere(within, func(status *api.Status) error {
		if k := status.Clusters[0].LeaderKey; k == nil || !holds(*k) {
			return fmt.Errorf("the leader key: %+v", k)
		}
		return nil
	})
}

// pause turns Patroni's maintenance mode on or off, and waits until every member knows.
func (c *cluster) pause(on bool) {
	c.t.Helper()
	eventually(c.t, patience, func(ctx context.Context) error {
		body := strings.NewReader(fmt.Sprintf(`{"pause": %t}`, on))
		request, err := http.NewRequestWithContext(ctx, http.MethodPatch, "http://"+c.member(1)+":8008/config", body)
		if err != nil {
			return err
		}
		request.SetBasicAuth("postgres", "Patroni.API")
		response, err := http.DefaultClient.Do(request)
		if err != nil {
			return err
		}
		response.Body.Close()
		for _, node := range c.nodes() {
			var said struct {
				Pause bool `json:"pause"`
			}
			response, err := http.Get("http://" + node + ":8008/patroni")
			if err != nil {
				return err
			}
			err = json.NewDecoder(response.Body).Decode(&said)
			response.Body.Close()
			if err != nil || said.Pause != on {
				return fmt.Errorf("%s says pause %t (%v)", node, said.Pause, err)
			}
		}
		return nil
	})
}

// writing goes on until it is ended.
type writing struct {
	stop   context.CancelFunc
	joined sync.WaitGroup
	mu     sync.Mutex
	done   int
	failed []error
}

// writeThrough connects, writes and closes again and again, through each node in turn.
func writeThrough(t *testing.T, nodes []string) *writing {
	t.Helper()
	ctx, stop := context.WithCancel(t.Context())
	w := &writing{stop: stop}
	t.Cleanup(func() { stop(); w.joined.Wait() })
	w.joined.Go(func() {
		pause := time.NewTicker(50 * time.Millisecond)
		defer pause.Stop()
		for i := 0; ; i++ {
			err := writeOnce(ctx, nodes[i%len(nodes)])
			if ctx.Err() != nil {
				return
			}
			w.mu.Lock()
			if w.done++; err != nil {
				w.failed = append(w.failed, err)
			}
			w.mu.Unlock()
			select {
			case <-ctx.Done():
				return
			case <-pause.C:
			}
		}
	})
	return w
}

func writeOnce(ctx context.Context, node string) error {
	conn, err := connect(ctx, node, direct)
	if err != nil {
		return fmt.Errorf("%s: %w", node, err)
	}
	defer conn.Close(context.WithoutCancel(ctx))
	if _, err := conn.Exec(ctx, "create table if not exists etcd_away (at timestamptz); insert into etcd_away values (now())"); err != nil {
		return fmt.Errorf("%s: %w", node, err)
	}
	return nil
}

// end stops the writing and fails the test if any of it failed.
func (w *writing) end(t *testing.T) {
	t.Helper()
	w.stop()
	w.joined.Wait()
	if w.done == 0 || len(w.failed) > 0 {
		t.Errorf("%d of %d writes failed: %v", len(w.failed), w.done, w.failed)
	}
	t.Logf("%d writes", w.done)
}
