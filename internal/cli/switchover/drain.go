package switchover

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/pgporter/pgporter/internal/admin/api"
	"github.com/pgporter/pgporter/internal/cli/command"
)

const (
	// cancelled is how long what was cancelled may take to end.
	cancelled = 2 * time.Second
	// settling is how long clients that were let through just before the hold have at least to log in: they are in no transaction yet, so
	// that nobody sees them, and a stop cuts them. On a slow machine it is longer, up to mostSettling.
	settling     = 200 * time.Millisecond
	mostSettling = time.Second
	// looking is the time between two looks at transactions.
	looking = 100 * time.Millisecond
	// named is how many of those that run are named.
	named = 20
)

func (r *run) checkpointText() string {
	return fmt.Sprintf("%s, then %s write one, so that the stop has little to write", r.found.from, r.found.to)
}

// checkpoint has both members make a checkpoint: the leader first, since a standby's can't be newer than the one that it has replayed. Who
// may not make one is said. One that takes too long has everything stay as it is: the stop would take as long.
func (r *run) checkpoint(ctx context.Context) error {
	for _, m := range []string{r.found.from, r.found.to} {
		one, cancel := context.WithTimeout(ctx, r.Checkpoint)
		began := time.Now()
		err := r.Servers.Checkpoint(one, m)
		late := one.Err()
		cancel()
		switch {
		case ctx.Err() != nil:
			return ctx.Err()
		case late != nil:
			return fmt.Errorf("%s didn't end its checkpoint in %s, and so would its stop take: when it writes less, or with a longer --checkpoint", m, r.Checkpoint)
		case err != nil:
			r.skip("checkpoint of "+m, err)
		default:
			r.say("%s: %.3f s", m, time.Since(began).Seconds())
		}
	}
	return nil
}

func (r *run) drainText() string {
	what := "waits at most " + r.Drain.String() + " for transactions to end"
	switch {
	case r.Cancel:
		what += "; what runs then is cancelled"
	case r.Force:
		what += "; what runs then is cut"
	}
	return what
}

// running is what has to end: transactions, and databases of PgBouncer that aren't paused.
type running struct {
	transactions []Transaction
	pools        []string
}

func (n running) none() bool { return len(n.transactions)+len(n.pools) == 0 }

func (n running) words() string {
	var all []string
	for _, t := range n.transactions {
		all = append(all, t.String())
	}
	all = append(all, n.pools...)
	if more := len(all) - named; more > 0 {
		all = append(all[:named], fmt.Sprintf("and %d more", more))
	}
	return strings.Join(all, "; ")
}

// drain waits until nothing is under way that the stop would cut. Of transactions those count that are there once clients of the last moment
// have logged in: sessions go on, and begin others.
func (r *run) drain(ctx context.Context) error {
	r.draining.Store(true)
	defer r.draining.Store(false)
	for _, h := range r.holders {
		select {
		case h.wake <- struct{}{}:
		default:
		}
	}
	if !pause(ctx, r.unsettled()) {
		return ctx.Err()
	}
	first, err := r.transactions(ctx, nil)
	if err != nil {
		if ctx.Err() != nil {
			return ctx.Err()
		}
		r.skip("transactions on "+r.found.from+", but for those of paused PgBouncers", err)
	}
	left, err := r.until(ctx, r.Drain, first)
	if err != nil || left.none() {
		return err
	}
	if r.Cancel {
		for _, t := range left.transactions {
			r.say("cancelled: %s", t)
		}
		if err := r.Servers.Cancel(ctx, r.found.from, left.transactions); err != nil {
			return fmt.Errorf("nothing can be cancelled: %w", err)
		}
		if left, err = r.until(ctx, cancelled, left.transactions); err != nil || left.none() {
			return err
		}
	}
	switch {
	case r.Force:
		r.say("cut by the stop: %s", left.words())
		return nil
	case r.Cancel:
		return fmt.Errorf("still under way %s after they were cancelled (what is idle in a transaction can't be; --force cuts it): %s", cancelled, left.words())
	}
	return fmt.Errorf("still under way after %s (--drain waits longer, --cancel cancels them, --force cuts them): %s", r.Drain, left.words())
}

// unsettled is how long clients that were led to the leader just before the hold may still need to log in. There are none where every node
// says that its youngest session has had the time.
func (r *run) unsettled() time.Duration {
	need := min(max(settling, 2*r.found.login), mostSettling)
	longest := time.Duration(0)
	for _, h := range r.holders {
		switch {
		case h.began == nil:
			return need
		case h.began.Count > 0:
			longest = max(longest, need-h.began.NewestSeconds.Duration())
		}
	}
	return longest
}

// until waits until nothing of these runs and the PgBouncers are paused, and gives what is left after so long.
func (r *run) until(ctx context.Context, most time.Duration, these []Transaction) (running, error) {
	last := time.NewTimer(most)
	defer last.Stop()
	next := time.NewTimer(0)
	defer next.Stop()
	for {
		over := false
		select {
		case <-ctx.Done():
			return running{}, ctx.Err()
		case <-last.C:
			over = true
		case <-r.news:
		case <-next.C:
			if len(these) > 0 {
				now, err := r.transactions(ctx, these)
				if err != nil && ctx.Err() == nil {
					return running{}, fmt.Errorf("%s doesn't tell any more what runs: %w", r.found.from, err)
				}
				these = now
			}
			next.Reset(looking)
		}
		left := running{transactions: these, pools: r.busyPools()}
		if left.none() || over {
			return left, nil
		}
	}
}

// transactions are those on the old leader, of these alone where any are given.
func (r *run) transactions(ctx context.Context, these []Transaction) ([]Transaction, error) {
	ctx, cancel := context.WithTimeout(ctx, asking)
	defer cancel()
	now, err := r.Servers.Transactions(ctx, r.found.from)
	if err != nil || these == nil {
		return now, err
	}
	return slices.DeleteFunc(now, func(t Transaction) bool {
		return !slices.ContainsFunc(these, func(o Transaction) bool { return o.PID == t.PID && o.Begun.Equal(t.Begun) })
	}), nil
}

// busyPools are the databases of PgBouncers that a hold pauses and that aren't paused yet, by what their nodes said last.
func (r *run) busyPools() []string {
	var busy []string
	for _, h := range r.holders {
		h.mu.Lock()
		pools := h.held.Pools
		h.mu.Unlock()
		for _, p := range pools {
			for _, d := range p.Databases {
				if d.Cluster != r.Cluster || d.State == api.PoolPaused || d.State == api.PoolRunning && !r.found.pausedFor(d) {
					continue
				}
				text := fmt.Sprintf("node %s: database %s of its PgBouncer at %s is %s, %s under way", h.node.Called(), d.Name, p.Address, d.State, command.Plural(d.Active, "transaction"))
				if len(d.Busy) > 0 {
					text += " (" + strings.Join(d.Busy, ", ") + ")"
				}
				busy = append(busy, text)
			}
		}
	}
	return busy
}
