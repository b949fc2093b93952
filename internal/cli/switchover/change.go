package switchover

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"sync"
	"time"

	"github.com/pgporter/pgporter/internal/monitor/patroni"
)

// change is Patroni's part: its answer, and what can be seen of it meanwhile.
type change struct {
	end context.CancelFunc
	// watching are the goroutines that look.
	watching sync.WaitGroup
	asked    time.Time
	// stopped is closed when the old leader's port refuses, leading when the new one's word is that it leads, answered when Patroni has
	// answered; at each of them its time is there.
	stopped, leading, answered       chan struct{}
	stoppedAt, leadingAt, answeredAt time.Time
	// status, says and err are Patroni's answer; heard says that it was looked at.
	status int
	says   string
	err    error
	heard  bool

	mu sync.Mutex
	// to is whose word is awaited; kept says that the old leader leads on.
	to   string
	kept bool
}

// errAnother is that the leader is another one by now.
var errAnother = errors.New("the leader has changed since it was looked for")

// refused says that nothing came of it.
func (c *change) refused() bool {
	if c == nil {
		return false
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.kept
}

func (c *change) awaited() string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.to
}

func (r *run) askText() string {
	return fmt.Sprintf("Patroni is asked to switch over from %s to %s", r.found.from, r.found.to)
}

// ask looks once more whether the leader leads and every node holds, and asks Patroni. Its answer comes when all is over, or it refuses.
func (r *run) ask(ctx context.Context) error {
	var holding sync.WaitGroup
	var lost error
	holding.Go(func() {
		lost = together(r.holders, func(h *holder) string { return "node " + h.node.Called() }, func(h *holder) error { return h.renew(ctx, r) })
	})
	word, err := r.Patroni.Member(ctx, r.found.from)
	holding.Wait()
	switch {
	case lost != nil:
		return lost
	case err != nil:
		return fmt.Errorf("%s: its Patroni: %w", r.found.from, err)
	case !r.found.leads(word):
		return fmt.Errorf("%w: %s says of itself: %s %s", errAnother, r.found.from, word.Role, word.State)
	}
	r.mu.Lock()
	// Who may not be counted on any more says so under the same lock.
	if ctx.Err() != nil {
		r.mu.Unlock()
		return ctx.Err()
	}
	r.report.Asked = true
	r.mu.Unlock()
	watch, end := context.WithCancel(context.Background())
	c := &change{end: end, asked: time.Now(), to: r.found.to, stopped: make(chan struct{}), leading: make(chan struct{}), answered: make(chan struct{})}
	r.change = c
	c.watching.Go(func() {
		c.status, c.says, c.err = r.Patroni.Switchover(watch, r.found.from, r.found.to)
		c.answeredAt = time.Now()
		close(c.answered)
	})
	c.watching.Go(func() { r.watchOld(watch) })
	c.watching.Go(func() { r.watchNew(watch) })
	return nil
}

// endChange ends what looks. Patroni's answer is waited for a little: it comes within a second of the end, and whoever it can't be given to
// leaves an error in Patroni's log.
func (r *run) endChange() {
	if r.change == nil {
		return
	}
	timer := time.NewTimer(asking)
	defer timer.Stop()
	select {
	case <-r.change.answered:
	case <-timer.C:
	}
	r.change.end()
	r.change.watching.Wait()
}

// watchOld waits until the old leader's port refuses.
func (r *run) watchOld(ctx context.Context) {
	for pause(ctx, 50*time.Millisecond) {
		one, cancel := context.WithTimeout(ctx, asking)
		err := r.Servers.Postgres(one, r.found.from)
		cancel()
		if err != nil && ctx.Err() == nil && !errors.Is(err, context.DeadlineExceeded) {
			r.change.stoppedAt = time.Now()
			close(r.change.stopped)
			return
		}
	}
}

// watchNew waits until the new leader's own word is that it leads. It is asked seldom before the old one has stopped: a replica's Patroni
// has work to do meanwhile.
func (r *run) watchNew(ctx context.Context) {
	every, stopped := 250*time.Millisecond, r.change.stopped
	for {
		timer := time.NewTimer(every)
		select {
		case <-ctx.Done():
			timer.Stop()
			return
		case <-stopped:
			timer.Stop()
			every, stopped = 100*time.Millisecond, nil
		case <-timer.C:
		}
		to := r.change.awaited()
		one, cancel := context.WithTimeout(ctx, asking)
		word, err := r.Patroni.Member(one, to)
		cancel()
		if err == nil && r.found.leads(word) && to == r.change.awaited() {
			r.change.leadingAt = time.Now()
			close(r.change.leading)
			return
		}
	}
}

func (r *run) stopText() string {
	return fmt.Sprintf("Patroni stops PostgreSQL on %s", r.found.from)
}

// awaitStop waits until the old leader refuses, or the new one leads before that: a port may be open while WAL is archived.
func (r *run) awaitStop(ctx context.Context) error {
	return r.await(ctx, r.change.stopped)
}

func (r *run) promoteText() string {
	return fmt.Sprintf("%s is promoted", r.found.to)
}

// awaitPromotion waits until the new leader's own word is that it leads.
func (r *run) awaitPromotion(ctx context.Context) error {
	return r.await(ctx, nil)
}

// await waits until there is a new leader, or until what comes before that.
func (r *run) await(ctx context.Context, before <-chan struct{}) error {
	for {
		answered := r.change.answered
		if r.change.heard {
			answered = nil
		}
		select {
		case <-r.change.leading:
			return nil
		case <-before:
			return nil
		case <-answered:
			r.change.heard = true
			if err := r.heard(ctx); err != nil {
				return err
			}
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// heard looks what Patroni's answer means.
func (r *run) heard(ctx context.Context) error {
	c := r.change
	switch {
	case errors.Is(c.err, patroni.ErrNotAsked):
		r.keep()
		return c.err
	case c.err != nil:
		r.say("Patroni's answer didn't come (%v): it is waited for what becomes of it", c.err)
		return nil
	case c.status == http.StatusOK:
		r.say("Patroni: %s", c.says)
		return r.whoLeads(ctx)
	}
	said := fmt.Errorf("Patroni answers %d: %s", c.status, c.says)
	switch c.status {
	case http.StatusUnauthorized:
		said = fmt.Errorf("%w: it wants a user and a password (restapi.authentication; --patroni-credentials)", said)
	case http.StatusForbidden:
		said = fmt.Errorf("%w: it lets in other machines than this one (restapi.allowlist), or wants a certificate (--patroni-cert)", said)
	}
	if c.status < 500 {
		// It didn't begin.
		r.keep()
		return said
	}
	word, err := r.Patroni.Member(ctx, r.found.from)
	if err == nil && r.found.leads(word) {
		r.keep()
		return said
	}
	r.say("%v: it is waited for what becomes of it", said)
	return nil
}

// keep notes that the old leader leads on.
func (r *run) keep() {
	r.change.mu.Lock()
	r.change.kept = true
	r.change.mu.Unlock()
}

// whoLeads finds out whether another member leads than was asked for.
func (r *run) whoLeads(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, asking)
	defer cancel()
	cluster, err := r.Patroni.Cluster(ctx)
	if err != nil {
		return nil
	}
	for _, m := range cluster.Members {
		if (m.Role == patroni.RoleLeader || m.Role == patroni.RoleStandbyLeader) && m.Name != r.found.from && m.Name != r.found.to {
			r.say("%s leads instead of %s", m.Name, r.found.to)
			r.change.mu.Lock()
			r.change.to = m.Name
			r.change.mu.Unlock()
			r.found.to = m.Name
		}
	}
	return nil
}
