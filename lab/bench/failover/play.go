package failover

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/pgporter/pgporter/lab/load"
	"github.com/pgporter/pgporter/lab/sandbox"
)

// result is what one run of a scenario gave.
type result struct {
	// led led before, leads took writes first after it; the same if it was restarted in place.
	led, leads sandbox.Member
	// began is when the fault did.
	began time.Time
	// tookOver is the time from the fault until leads took writes; pool, from then until its PgBouncer let them through.
	tookOver, pool time.Duration
	// again is set when in the end yet another member led.
	again sandbox.Member
	// probe is how long a probe took before anything happened: the median over all targets.
	probe time.Duration
	seen  []seen
	// apps are what each application saw.
	apps []worked
}

// seen is what one target's prober saw of it.
type seen struct {
	load.Impression
	// first is the time from when the new primary took writes to the first write on it; through says that there was one.
	first   time.Duration
	through bool
	// sessions were open when it began, and did nothing; ended of them were over in the end.
	sessions, ended int
	// astray are the writes that a server acknowledged while the leader key named another.
	astray int
}

// play runs a scenario several times; runs 0 is as often as it takes.
func (a *arena) play(ctx context.Context, s scenario, runs int) (results []result, err error) {
	if s.configure != nil {
		if err := a.box.Configure(ctx, s.configure); err != nil {
			return nil, err
		}
		defer func() {
			back := map[string]any{}
			for key := range s.configure {
				back[key] = nil
			}
			if ctx.Err() == nil { // otherwise the sandbox goes anyway
				err = errors.Join(err, a.box.Configure(ctx, back))
			}
		}()
	}
	runs = cmp.Or(runs, s.runs)
	for i := range runs {
		r, err := a.run(ctx, s)
		if err != nil {
			return results, fmt.Errorf("run %d: %w", i+1, err)
		}
		results = append(results, r)
		change := fmt.Sprintf("%s leads instead of %s", r.leads.Name, r.led.Name)
		if r.leads == r.led {
			change = r.leads.Name + " leads again"
		}
		if s.lasts > 0 {
			change = r.leads.Name + " led all the time"
		}
		fmt.Fprintf(a.config.Progress, "%s, run %d of %d: %s after %.2f s, its PgBouncer %.2f s later; a probe took %.0f ms before\n",
			s.name, i+1, runs, change, r.tookOver.Seconds(), r.pool.Seconds(), r.probe.Seconds()*1000)
		if r.again != r.leads {
			fmt.Fprintf(a.config.Progress, "  in the end %s leads\n", r.again.Name)
		}
		for j, t := range a.targets {
			fmt.Fprintf(a.config.Progress, "  %-32s %s\n", t.name, r.seen[j])
		}
		for j, each := range a.apps {
			fmt.Fprintf(a.config.Progress, "  %-32s %s\n%s", each.name+", "+each.driver, r.apps[j], said(append(r.apps[j].begun, r.apps[j].unanswered...), r.began))
		}
	}
	return results, nil
}

func (s seen) String() string {
	first := "none"
	if s.through {
		first = fmt.Sprintf("after %.3f s", s.first.Seconds())
	}
	sessions := ""
	if s.sessions > 0 {
		sessions = fmt.Sprintf(", %d of %d idle sessions ended", s.ended, s.sessions)
	}
	return fmt.Sprintf("gap %.3f s, connects failed %d (%d in login), writes cut %d, on a replica %d, first write on the new primary %s, written astray %d%s",
		s.Gap.Seconds(), s.Connects(), len(s.LoginCut), len(s.WriteCut), len(s.ReadOnly), first, s.astray, sessions)
}

// run does it once, from peace to peace.
func (a *arena) run(ctx context.Context, s scenario) (result, error) {
	led, err := a.peace(ctx)
	if err != nil {
		return result{}, err
	}
	stop, err := a.startApps(ctx)
	if err != nil {
		return result{}, err
	}
	defer stop()
	if err := a.settled(ctx); err != nil {
		return result{}, err
	}
	var peaceful []time.Duration
	for _, r := range a.recorders {
		for _, p := range r.Take() {
			peaceful = append(peaceful, p.Ended.Sub(p.Began))
		}
	}
	r := result{led: led, probe: median(peaceful)}
	// Some of the peace is in the picture.
	if err := a.written(ctx, 20, ""); err != nil {
		return r, err
	}
	if s.lasts > 0 {
		return a.endure(ctx, s, r)
	}
	from := time.Now()
	for _, each := range a.apps {
		each.ledger.Take()
	}
	began := time.Now()
	r.began = began
	if err := s.fault(ctx, a, led); err != nil {
		return r, err
	}
	var took load.Answer
	if err := await(ctx, untilTaken, func() error {
		found := false
		for _, m := range a.box.Declared() {
			answer, writable := a.servers[m.Address].writableSince(began)
			if writable && (!found || answer.Sent.Before(took.Sent)) {
				found, took, r.leads = true, answer, m
			}
		}
		if !found {
			return errors.New("no member takes writes")
		}
		return nil
	}); err != nil {
		return r, err
	}
	r.tookOver = took.Sent.Sub(began)
	// Whoever doesn't get there is shown to.
	if err := a.written(ctx, 25, r.leads.Address); err != nil && ctx.Err() != nil {
		return r, err
	}
	if err := a.allCommit(ctx, took.Answered); err != nil && ctx.Err() != nil {
		return r, err
	}
	if s.resume != nil {
		if err := s.resume(ctx, a, led); err != nil {
			return r, err
		}
	}
	if err := pause(ctx, afterwards); err != nil {
		return r, err
	}
	if s.resume != nil {
		// What a member does that believes to lead still is a part of it.
		if _, err := a.complete(ctx); err != nil {
			return r, err
		}
	}
	r.seen = a.lookAll(took.Sent, r.leads.Address)
	r.apps = a.sumAll(from, a.servers[led.Address].silentBefore(took.Answered), took.Answered)
	if pool, ok := a.pools[r.leads.Address].writableSince(began); ok {
		r.pool = max(0, pool.Answered.Sub(took.Sent))
	}
	if s.repair != nil {
		if err := s.repair(ctx, a, led); err != nil {
			return r, err
		}
	}
	r.again, err = a.complete(ctx)
	return r, err
}

// endure goes on with a run whose fault the primary survives as the primary.
func (a *arena) endure(ctx context.Context, s scenario, r result) (result, error) {
	idle, err := a.holdSessions(ctx)
	defer idle.close()
	if err != nil {
		return r, err
	}
	began := time.Now()
	if err := s.fault(ctx, a, r.led); err != nil {
		return r, err
	}
	if err := pause(ctx, s.lasts); err != nil {
		return r, err
	}
	r.leads, r.seen = r.led, a.lookAll(began, r.led.Address)
	for i := range r.seen {
		r.seen[i].sessions, r.seen[i].ended = idle.count(i)
	}
	if err := s.repair(ctx, a, r.led); err != nil {
		return r, err
	}
	r.again, err = a.complete(ctx)
	return r, err
}

// lookAll is look for every target.
func (a *arena) lookAll(took time.Time, leads string) []seen {
	until := time.Now()
	var all []seen
	for _, recorder := range a.recorders {
		all = append(all, a.look(recorder.Take(), until, leads, took))
	}
	return all
}

// look makes of probes what is counted: leads is the address of the new primary, took when it began to take writes.
func (a *arena) look(probes []load.Probe, until time.Time, leads string, took time.Time) seen {
	s := seen{Impression: load.Impress(time.Time{}, until, probes)}
	for _, p := range probes {
		if p.Outcome != load.Written {
			continue
		}
		if p.Server == leads && p.Ended.After(took) && !s.through {
			s.through, s.first = true, p.Ended.Sub(took)
		}
		if a.key.against(a.names[p.Server], p.Began, p.Ended) {
			s.astray++
		}
	}
	return s
}

// complete waits until all members run and follow one, and gives that one.
func (a *arena) complete(ctx context.Context) (sandbox.Member, error) {
	ctx, cancel := context.WithTimeoutCause(ctx, untilSteady, fmt.Errorf("not within %s", untilSteady))
	defer cancel()
	return a.box.AwaitFollowing(ctx, a.box.Declared()[0].Cluster)
}

// peace waits until the cluster is complete and every prober has written for three seconds without a failure. How fast it does is
// the machine's, and written beside the figures.
func (a *arena) peace(ctx context.Context) (sandbox.Member, error) {
	led, err := a.complete(ctx)
	if err != nil {
		return led, err
	}
	for _, r := range a.recorders {
		r.Take()
	}
	const quiet, enough, longest = 3 * time.Second, 5, 2 * time.Second
	began := time.Now()
	return led, await(ctx, untilSteady, func() error {
		now := time.Now()
		if now.Sub(began) < quiet {
			return errors.New("too early to tell")
		}
		for i, r := range a.recorders {
			recent := slices.DeleteFunc(r.Seen(), func(p load.Probe) bool { return p.Ended.Before(now.Add(-quiet)) })
			seen := load.Impress(now.Add(-quiet), now, recent)
			if seen.Writes < enough || seen.Writes < len(recent) || seen.Gap > longest {
				return fmt.Errorf("%s: %d writes in %s, %d failures, a gap of %s", a.targets[i].name, seen.Writes, quiet, len(recent)-seen.Writes, seen.Gap)
			}
		}
		return nil
	})
}

// written waits until every service's prober has written so many times from now on; if server is an address, on that server.
func (a *arena) written(ctx context.Context, times int, server string) error {
	began := time.Now()
	return await(ctx, untilThrough, func() error {
		for i, r := range a.recorders {
			if a.targets[i].tries {
				continue // it stays with whoever takes its writes
			}
			writes := 0
			for _, p := range r.Seen() {
				if p.Outcome == load.Written && p.Began.After(began) && (server == "" || p.Server == server) {
					writes++
				}
			}
			if writes < times {
				return fmt.Errorf("%s: %d writes of %d", a.targets[i].name, writes, times)
			}
		}
		return nil
	})
}

func pause(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-timer.C:
		return nil
	}
}
