package switchover

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"

	"github.com/pgporter/pgporter/internal/admin/api"
	"github.com/pgporter/pgporter/internal/cli/command"
)

// holder has one node hold.
type holder struct {
	node Node
	// wake has the node asked at once. stopped ends the renewing, ended is closed when it has ended; both are nil before it began.
	wake    chan struct{}
	stopped chan struct{}
	ended   chan struct{}
	// began are the node's sessions as it began to hold; nil if it doesn't say.
	began *api.HeldSessions

	mu sync.Mutex
	// held is what the node said last, sent when it was told what it said that to.
	held api.Held
	sent time.Time
	// lost says that the node can't be counted on any more.
	lost bool
}

// order is the one that every node is given, for so long.
func (r *run) order(lasts time.Duration) api.HoldOrder {
	o := r.ordered
	o.ForSeconds = api.Seconds(lasts.Seconds())
	return o
}

func (r *run) nodeNames() string {
	var names []string
	for _, n := range r.Nodes {
		names = append(names, n.Called())
	}
	return strings.Join(names, ", ")
}

func (r *run) holdText() string {
	text := fmt.Sprintf("new clients of the leader wait at %s: %s", command.Plural(len(r.Nodes), "node"), r.nodeNames())
	pools := 0
	for _, n := range r.found.pools {
		pools += n
	}
	if pools > 0 {
		text += fmt.Sprintf("; %s of PgBouncer paused", command.Plural(pools, "database"))
	}
	return text
}

// hold has every node hold, at once, and goes on telling it.
func (r *run) hold(ctx context.Context) error {
	r.heldSince = time.Now()
	r.ordered = api.HoldOrder{Cluster: r.Cluster, ID: r.ID, From: r.found.from, To: r.found.to}
	for _, n := range r.Nodes {
		r.holders = append(r.holders, &holder{node: n, wake: make(chan struct{}, 1)})
	}
	return together(r.holders, func(h *holder) string { return "node " + h.node.Called() }, func(h *holder) error {
		if err := h.renew(ctx, r); err != nil {
			return err
		}
		h.began = h.held.Sessions
		h.stopped, h.ended = make(chan struct{}), make(chan struct{})
		go h.keep(r)
		return nil
	})
}

// renew tells the node once.
func (h *holder) renew(ctx context.Context, r *run) error {
	sent := time.Now()
	held, err := h.node.Hold(ctx, r.order(lease))
	switch {
	case err != nil:
		return err
	case held.Hold == nil:
		return errors.New("it took the order and doesn't hold")
	case held.Hold.ID != r.ID:
		return fmt.Errorf("it holds for %s", cmp.Or(held.Hold.By, held.Hold.ID))
	}
	h.mu.Lock()
	h.held, h.sent = held, sent
	h.mu.Unlock()
	select {
	case r.news <- struct{}{}:
	default:
	}
	return nil
}

// keep renews until it is stopped. A question under way then is waited for: its order must not come after the one that lets go.
func (h *holder) keep(r *run) {
	defer close(h.ended)
	timer := time.NewTimer(renewal)
	defer timer.Stop()
	for {
		every := renewal
		if r.draining.Load() && r.found.pools[h.node.Called()] > 0 {
			// At rest a PgBouncer is paused within milliseconds, and clients wait until that is known.
			every = min(max(time.Since(r.heldSince)/5, renewal/20), renewal)
		}
		timer.Reset(every)
		select {
		case <-h.stopped:
			return
		case <-h.wake:
		case <-timer.C:
		}
		ctx, cancel := context.WithTimeout(context.Background(), telling)
		err := h.renew(ctx, r)
		cancel()
		h.judge(r, err)
	}
}

// judge says whether a node is to be counted on: it is until its lease may run out before it is told again.
func (h *holder) judge(r *run, err error) {
	h.mu.Lock()
	late := time.Since(h.sent) > lease-renewal
	first := late && !h.lost
	h.lost = late
	h.mu.Unlock()
	if !first {
		return
	}
	r.mu.Lock()
	asked := r.report.Asked
	if !asked {
		r.stop(fmt.Errorf("node %s can't be told any more: %w", h.node.Called(), err))
	}
	r.mu.Unlock()
	if asked {
		r.say("node %s can't be told any more, and lets its clients go: %v", h.node.Called(), err)
	}
}

// free has the node let go. It is tried until the lease has run out anyway.
func (h *holder) free(r *run) error {
	if h.stopped != nil {
		close(h.stopped)
		<-h.ended
	}
	ctx, cancel := context.WithTimeout(context.Background(), lease)
	defer cancel()
	for {
		one, cancelOne := context.WithTimeout(ctx, telling)
		_, err := h.node.Hold(one, r.order(0))
		cancelOne()
		if err == nil || h.stopped == nil || !pause(ctx, renewal/5) {
			return err
		}
	}
}

// free has every node let go, all at once. Those that can't be told do so by themselves.
func (r *run) free() {
	r.freed = true
	err := together(r.holders, func(h *holder) string { return "node " + h.node.Called() }, func(h *holder) error { return h.free(r) })
	r.mu.Lock()
	r.report.HeldSeconds = time.Since(r.heldSince).Seconds()
	r.mu.Unlock()
	if err != nil {
		r.say("it lets go by itself within %s: %v", lease, err)
	}
}

// letGo takes back a hold.
func (r *run) letGo() {
	if !r.freed {
		r.say("clients are let go")
		r.free()
	}
}

func (r *run) releaseText() string { return "clients are let go at all nodes" }

// release lets everybody go.
func (r *run) release(context.Context) error {
	r.free()
	return nil
}

// serving is how long nodes may take to lead clients to the new leader.
const serving = 5 * time.Second

func (r *run) serveText() string { return fmt.Sprintf("nodes lead clients to %s", r.found.to) }

// serve waits until every node leads clients to the new leader. It is over whatever comes of that: who is late is named.
func (r *run) serve(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, serving)
	defer cancel()
	err := together(r.holders, func(h *holder) string { return "node " + h.node.Called() }, func(h *holder) error {
		for {
			one, cancelOne := context.WithTimeout(ctx, telling)
			status, err := h.node.Status(one)
			cancelOne()
			if err == nil {
				err = r.serves(status)
			}
			if err == nil || !pause(ctx, 20*time.Millisecond) {
				return err
			}
		}
	})
	if err != nil {
		r.say("%s leads, and not everybody has noticed yet: %v", r.found.to, err)
	}
	return nil
}

// serves says why a node doesn't lead clients to the new leader; nil if it does.
func (r *run) serves(s *api.Status) error {
	for _, c := range clusterOf(s, r.Cluster) {
		if c.Hold != nil && c.Hold.ID == r.ID {
			return errors.New("it still holds")
		}
		for _, v := range c.Services {
			if !r.found.leading[v.FullName] || len(v.Servers) == 0 || v.Shadow {
				continue
			}
			at := -1
			for i, server := range v.Servers {
				if server.Member == r.found.to && server.Serving {
					at = i
				}
			}
			if at < 0 {
				return fmt.Errorf("%s doesn't lead to %s", v.FullName, r.found.to)
			}
		}
	}
	for _, p := range s.Pools {
		for _, d := range p.Databases {
			if d.Cluster == r.Cluster && (r.found.leading[d.Service] || d.Member == r.found.to) && d.State != api.PoolRunning {
				return fmt.Errorf("database %s of its PgBouncer at %s is %s", d.Name, p.Address, d.State)
			}
		}
	}
	return nil
}
