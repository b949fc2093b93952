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

	"github.com/pgporter/pgporter/internal/api"
	"github.com/pgporter/pgporter/internal/sandbox"
)

// TestEtcdAway: an etcd that hangs, and one that is killed, change nothing for services that are well: sessions go on,
// clients that come are served, and when etcd is back the leader key is watched again. Patroni is paused for it: otherwise its
// primary gives up when it can't reach etcd.
func TestEtcdAway(t *testing.T) {
	c := up(t, 96, sandbox.Config{})
	one, two, three := c.member(1), c.member(2), c.member(3)
	all := []serves{
		{primary, []instance{at(one, false)}},
		{replica, []instance{at(two, true), at(three, true)}},
		{direct, []instance{at(one, false)}},
		{offline, []instance{at(three, true)}},
	}
	c.expect(20*time.Second, all...)
	c.leaderKey(10*time.Second, func(k api.LeaderKey) bool { return k.Holder == "pg-test-1" && k.Lost == "" })
	c.pause(true)
	sessions := []*held{c.hold(two, primary), c.hold(three, direct), c.hold(one, offline), c.hold(two, replica)}

	away := func(what string, begin, end func()) {
		t.Run(what, func(t *testing.T) {
			c.t = t
			writes := writeThrough(t, c.nodes())
			begin()
			c.leaderKey(15*time.Second, func(k api.LeaderKey) bool { return k.Lost != "" && k.Holder == "" })
			c.expect(10*time.Second, all...)
			end()
			c.leaderKey(20*time.Second, func(k api.LeaderKey) bool { return k.Holder == "pg-test-1" && k.Lost == "" })
			c.expect(10*time.Second, all...)
			writes.end(t)
			for _, h := range sessions {
				h.lives(t)
			}
		})
	}
	signal := func(s syscall.Signal) {
		if err := c.Kill(t.Context(), s, "etcd"); err != nil {
			c.t.Fatal(err)
		}
	}
	away("hangs", func() { signal(syscall.SIGSTOP) }, func() { signal(syscall.SIGCONT) })
	away("is killed", func() { signal(syscall.SIGKILL) }, func() {
		if err := c.Start(t.Context(), "etcd"); err != nil {
			c.t.Fatal(err)
		}
	})
	c.t = t

	// Each loss is one line, and so is each return.
	for _, m := range c.Declared() {
		log := c.log(m.Name + "/pgporter")
		for _, line := range []string{"etcd is lost, the checks decide alone", "etcd answers again: "} {
			if n := strings.Count(log, line); n != 2 {
				t.Errorf("%d times in the log of %s: %s", n, m.Name, line)
			}
		}
	}

	// The key is watched again: a switchover is told by it, and ends the sessions on the old primary.
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

// leaderKey waits until every node knows this of the leader key.
func (c *cluster) leaderKey(within time.Duration, holds func(api.LeaderKey) bool) {
	c.t.Helper()
	eventually(c.t, within, func(ctx context.Context) error {
		for _, node := range c.nodes() {
			status, err := api.Client{Address: node + ":" + api.DefaultPort}.Status(ctx)
			if err != nil {
				return err
			}
			if k := status.Clusters[0].LeaderKey; k == nil || !holds(*k) {
				return fmt.Errorf("the leader key as %s knows it: %+v", node, k)
			}
		}
		return nil
	})
}

// pause turns Patroni's maintenance mode on or off, and waits until every member knows.
func (c *cluster) pause(on bool) {
	c.t.Helper()
	eventually(c.t, 30*time.Second, func(ctx context.Context) error {
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
