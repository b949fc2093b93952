package tcpcheck

import (
	"context"
	"hash/fnv"
	"sync"
	"time"

	"github.com/pgporter/pgporter/internal/monitor/health"
)

// scheduled is a target with its schedule.
type scheduled struct {
	health.Target
	// Interval is from the start of a check to the start of the next, until SetInterval says otherwise; an unchanged check
	// keeps what it was set to last.
	Interval time.Duration
	// Timeout is how long a whole check may take.
	Timeout time.Duration
}

const (
	// roundGap is the least time between two triggered rounds of a member.
	roundGap = 100 * time.Millisecond
	// startSpread is the time over which first checks are spread; the second ones spread over their interval.
	startSpread = 100 * time.Millisecond
	// breather is the least time between a check that timed out and the next one at the same path. Patroni works on a request
	// that was given up all the same: to ask at once again would keep one that is slow from ever catching up.
	breather = 250 * time.Millisecond
)

// checker runs checks on their schedules and hands each result to a sink. Each check has a goroutine, so that a member that
// doesn't answer delays no other one. All methods may be called at any time, also before Run, and never block.
type checker struct {
	check health.CheckFunc
	sink  func(ctx context.Context, r health.Result)

	mu        sync.Mutex
	schedules map[health.Target]*schedule
	// rounds holds when each member's last triggered round was (or will be) run.
	rounds map[string]time.Time
	// start runs a check's goroutine; nil unless running.
	start func(*schedule)
}

// newChecker makes a checker without checks. sink is called by the goroutines of checks, at most once at a time for each,
// and has to return when its ctx ends; a check goes on only after its sink has returned.
func newChecker(check health.CheckFunc, sink func(ctx context.Context, r health.Result)) *checker {
	return &checker{check: check, sink: sink, schedules: map[health.Target]*schedule{}, rounds: map[string]time.Time{}}
}

// Run runs the checks until ctx ends, and returns when all their goroutines have. It may be called once.
func (c *checker) Run(ctx context.Context) {
	var running sync.WaitGroup
	c.mu.Lock()
	c.start = func(p *schedule) {
		var own context.Context
		own, p.cancel = context.WithCancel(ctx)
		running.Go(func() { c.run(own, p) })
	}
	for _, p := range c.schedules {
		c.start(p)
	}
	c.mu.Unlock()
	<-ctx.Done()
	c.mu.Lock()
	c.start = nil
	for _, p := range c.schedules {
		p.cancel()
	}
	c.mu.Unlock()
	running.Wait()
}

// Set replaces the checks. Those whose target was there before go on undisturbed; the others start, spread over 100 ms, or
// stop. A check that is stopped while it runs delivers no result.
func (c *checker) Set(checks []scheduled) {
	c.mu.Lock()
	defer c.mu.Unlock()
	wanted := make(map[health.Target]bool, len(checks))
	members := make(map[string]bool, len(checks))
	for _, check := range checks {
		wanted[check.Target], members[check.Target.Member] = true, true
		if p, there := c.schedules[check.Target]; there {
			p.setTimeout(check.Timeout)
			continue
		}
		p := newSchedule(check)
		c.schedules[check.Target] = p
		if c.start != nil {
			c.start(p)
		}
	}
	for t, p := range c.schedules {
		if !wanted[t] {
			delete(c.schedules, t)
			if p.cancel != nil {
				p.cancel()
			}
		}
	}
	for member := range c.rounds {
		if !members[member] {
			delete(c.rounds, member)
		}
	}
}

// SetInterval changes a check's interval, counted from the start of its last run. A target that isn't checked is ignored.
func (c *checker) SetInterval(t health.Target, interval time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if p, there := c.schedules[t]; there {
		p.setInterval(interval)
	}
}

// Trigger runs a round of a member's checks at once, or, if there was one less than 100 ms ago, 100 ms after it; further
// calls until then are one with it. A check that is running is run again after it ended: it may have begun before what the
// caller has noticed.
func (c *checker) Trigger(member string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	now := time.Now()
	last, before := c.rounds[member]
	if before && last.After(now) {
		return
	}
	at := now
	if before && now.Sub(last) < roundGap {
		at = last.Add(roundGap)
	}
	found := false
	for t, p := range c.schedules {
		if t.Member == member {
			p.kick(at)
			found = true
		}
	}
	if found {
		c.rounds[member] = at
	}
}

// run is the goroutine of a check.
func (c *checker) run(ctx context.Context, p *schedule) {
	timer := time.NewTimer(p.begin(time.Now()))
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-p.woken:
		case <-timer.C:
		}
		if wait := p.wait(time.Now()); wait > 0 {
			timer.Reset(wait)
			continue
		}
		outcome := c.once(ctx, p)
		if ctx.Err() != nil {
			return
		}
		c.sink(ctx, health.Result{Target: p.target, Outcome: outcome, Ended: time.Now()})
		timer.Reset(max(p.wait(time.Now()), 0))
	}
}

func (c *checker) once(ctx context.Context, p *schedule) health.Outcome {
	timeout := p.started(time.Now())
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	outcome := c.check(ctx, p.target)
	if ctx.Err() != nil && !outcome.NotAsked {
		p.rest(time.Now().Add(breather))
		return health.Outcome{Silence: "timed out after " + timeout.String(), Accepted: outcome.Accepted, Code: health.CodeNoAnswer}
	}
	return outcome
}

// schedule is a check's schedule.
type schedule struct {
	target health.Target
	// woken gets a word when the schedule has changed.
	woken chan struct{}
	// cancel ends its goroutine; nil before that was started. The checker's mutex guards it.
	cancel context.CancelFunc

	mu                sync.Mutex
	interval, timeout time.Duration
	// due is when the next regular run starts.
	due time.Time
	// last is when the last run started; zero before the first.
	last time.Time
	// drift says that the next regular run comes after a part of the interval.
	drift bool
	// rested is when another run may start at the earliest.
	rested time.Time
	// kicked is when a triggered run is due, and again when another one is; zero if none is. There are two because the
	// first may be due and not yet begun when the next round is planned.
	kicked, again time.Time
}

func newSchedule(c scheduled) *schedule {
	return &schedule{target: c.Target, interval: c.Interval, timeout: c.Timeout, woken: make(chan struct{}, 1)}
}

// begin says when the first run is due: soon, so that a start is quick.
func (p *schedule) begin(now time.Time) time.Duration {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.due = now.Add(p.fractionOf(startSpread))
	return p.untilDue(now)
}

// started notes a run that starts now and gives its timeout. After the first run and after triggered ones the next comes
// after a part of the interval, so that checks that were started together drift apart and stay so.
func (p *schedule) started(now time.Time) time.Duration {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.drift = p.last.IsZero() || !p.kicked.IsZero() && p.kicked.Before(p.due)
	p.last = now
	p.due = now.Add(p.pause())
	p.kicked, p.again = p.again, time.Time{}
	if !p.kicked.After(now) {
		p.kicked = time.Time{}
	}
	return p.timeout
}

func (p *schedule) pause() time.Duration {
	if p.drift {
		return p.interval/4 + p.fractionOf(p.interval-p.interval/4)
	}
	return p.interval
}

func (p *schedule) wait(now time.Time) time.Duration {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.untilDue(now)
}

func (p *schedule) untilDue(now time.Time) time.Duration {
	at := p.due
	if !p.kicked.IsZero() && p.kicked.Before(at) {
		at = p.kicked
	}
	if at.Before(p.rested) {
		at = p.rested
	}
	return at.Sub(now)
}

// rest has the next run start no sooner than at.
func (p *schedule) rest(at time.Time) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.rested = at
}

func (p *schedule) setTimeout(d time.Duration) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.timeout = d
}

func (p *schedule) setInterval(d time.Duration) {
	p.mu.Lock()
	changed := d != p.interval
	p.interval = d
	if changed && !p.last.IsZero() {
		p.due = p.last.Add(p.pause())
	}
	p.mu.Unlock()
	if changed {
		p.wake()
	}
}

func (p *schedule) kick(at time.Time) {
	p.mu.Lock()
	if p.kicked.IsZero() {
		p.kicked = at
	} else {
		p.again = at
	}
	p.mu.Unlock()
	p.wake()
}

func (p *schedule) wake() {
	select {
	case p.woken <- struct{}{}:
	default:
	}
}

// fractionOf gives a part of d that depends on the target alone: the same after each start, another for each check.
func (p *schedule) fractionOf(d time.Duration) time.Duration {
	h := fnv.New64a()
	h.Write([]byte(p.target.Member + "\x00" + p.target.Path))
	const steps = 1 << 16
	// The low bits of FNV mix best when folded into the high ones.
	sum := h.Sum64()
	return time.Duration((sum>>32^sum)%steps) * d / steps
}
