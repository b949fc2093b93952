package tcpcheck

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/pgporter/pgporter/internal/monitor/health"
)

// recorder is a health.CheckFunc and a sink that notes when checks start and what comes of them.
type recorder struct {
	begin time.Time
	// takes is how long a check takes; a target that isn't there answers at once.
	takes map[string]time.Duration

	mu      sync.Mutex
	started map[string][]time.Duration
	results []health.Result
	running map[health.Target]int
	overlap bool
}

func newRecorder() *recorder {
	return &recorder{begin: time.Now(), takes: map[string]time.Duration{}, started: map[string][]time.Duration{}, running: map[health.Target]int{}}
}

func (r *recorder) check(ctx context.Context, t health.Target) health.Outcome {
	r.mu.Lock()
	r.started[t.Member+t.Path] = append(r.started[t.Member+t.Path], time.Since(r.begin))
	r.running[t]++
	r.overlap = r.overlap || r.running[t] > 1
	takes := r.takes[t.Member]
	r.mu.Unlock()
	defer func() {
		r.mu.Lock()
		r.running[t]--
		r.mu.Unlock()
	}()
	select {
	case <-ctx.Done():
		return health.Outcome{Silence: "given up"}
	case <-time.After(takes):
		return health.Outcome{}
	}
}

func (r *recorder) sink(_ context.Context, result health.Result) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.results = append(r.results, result)
}

// starts gives the start times of a check so far, and forgets them.
func (r *recorder) starts(check string) []time.Duration {
	r.mu.Lock()
	defer r.mu.Unlock()
	starts := r.started[check]
	delete(r.started, check)
	return starts
}

// delivered gives the results so far.
func (r *recorder) delivered() []health.Result {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.Clone(r.results)
}

func check(member, path string, interval time.Duration) scheduled {
	return scheduled{Target: health.Target{Member: member, Base: "http://" + member + ":8008", Path: path}, Interval: interval, Timeout: health.Timeout(interval)}
}

// inBubble runs a checker in a synctest bubble and joins it.
func inBubble(t *testing.T, test func(t *testing.T, c *checker, r *recorder)) {
	synctest.Test(t, func(t *testing.T) {
		r := newRecorder()
		c := newChecker(r.check, r.sink)
		ctx, cancel := context.WithCancel(t.Context())
		var joined sync.WaitGroup
		joined.Go(func() { c.Run(ctx) })
		synctest.Wait()
		test(t, c, r)
		cancel()
		joined.Wait()
		if r.overlap {
			t.Error("a check ran twice at a time")
		}
	})
}

func TestCheckerKeepsItsInterval(t *testing.T) {
	inBubble(t, func(t *testing.T, c *checker, r *recorder) {
		r.takes["a"] = 300 * time.Millisecond
		c.Set([]scheduled{check("a", "/primary", 2*time.Second)})
		time.Sleep(20 * time.Second)
		starts := r.starts("a/primary")
		if len(starts) < 9 || starts[0] > startSpread || starts[1]-starts[0] > 2*time.Second || starts[1]-starts[0] < 500*time.Millisecond {
			t.Fatalf("starts %v", starts)
		}
		for i := 2; i < len(starts); i++ {
			if starts[i]-starts[i-1] != 2*time.Second {
				t.Errorf("start %d comes %v after the one before", i, starts[i]-starts[i-1])
			}
		}
	})
}

func TestCheckerSpreadsStarts(t *testing.T) {
	inBubble(t, func(t *testing.T, c *checker, r *recorder) {
		var checks []scheduled
		for i := range 100 {
			checks = append(checks, check(fmt.Sprintf("pg-test-%d", i), "/primary", 2*time.Second))
		}
		c.Set(checks)
		time.Sleep(4 * time.Second)
		slots := map[time.Duration]int{}
		for i := range 100 {
			starts := r.starts(fmt.Sprintf("pg-test-%d/primary", i))
			if len(starts) < 2 {
				t.Fatalf("check %d started at %v only", i, starts)
			}
			slots[starts[1].Truncate(200*time.Millisecond)]++
		}
		for slot, n := range slots {
			if n > 40 {
				t.Errorf("%d of 100 second checks start within 200ms at %v", n, slot)
			}
		}
	})
}

func TestCheckerTimeout(t *testing.T) {
	for inter, want := range map[time.Duration]time.Duration{
		10 * time.Millisecond: time.Second, time.Second: time.Second, 2 * time.Second: 2 * time.Second,
		3 * time.Second: 3 * time.Second, time.Minute: 3 * time.Second,
	} {
		if got := health.Timeout(inter); got != want {
			t.Errorf("health.Timeout(%v) = %v, want %v", inter, got, want)
		}
	}
	inBubble(t, func(t *testing.T, c *checker, r *recorder) {
		r.takes["hung"] = time.Hour
		c.Set([]scheduled{check("hung", "/primary", 2*time.Second), check("well", "/primary", 2*time.Second)})
		time.Sleep(10 * time.Second)
		silences := 0
		for _, result := range r.delivered() {
			if result.Target.Member == "hung" {
				silences++
				if want := "timed out after 2s"; result.Outcome.Silence != want {
					t.Errorf("silence %q, want %q", result.Outcome.Silence, want)
				}
			}
		}
		if silences < 3 {
			t.Errorf("%d silences in 10s", silences)
		}
		if n := len(r.starts("well/primary")); n < 5 {
			t.Errorf("the check of the member that is well ran %d times", n)
		}
	})
}

func TestCheckerSetInterval(t *testing.T) {
	inBubble(t, func(t *testing.T, c *checker, r *recorder) {
		a := check("a", "/primary", 10*time.Second)
		c.Set([]scheduled{a})
		time.Sleep(11 * time.Second)
		last := r.starts("a/primary")[1]
		// Shorter: the next run is that long after the last one's start, or now.
		c.SetInterval(a.Target, time.Second)
		c.SetInterval(check("b", "/", time.Second).Target, time.Second)
		time.Sleep(3 * time.Second)
		starts := r.starts("a/primary")
		if len(starts) < 3 {
			t.Fatalf("starts %v after %v", starts, last)
		}
		c.SetInterval(a.Target, time.Hour)
		synctest.Wait()
		r.starts("a/primary")
		time.Sleep(time.Minute)
		if starts := r.starts("a/primary"); len(starts) != 0 {
			t.Errorf("runs at %v with an interval of an hour", starts)
		}
	})
}

func TestCheckerTriggerCoalesces(t *testing.T) {
	inBubble(t, func(t *testing.T, c *checker, r *recorder) {
		c.Set([]scheduled{check("a", "/primary", time.Hour), check("a", "/replica", time.Hour), check("b", "/primary", time.Hour)})
		time.Sleep(time.Second)
		for _, name := range []string{"a/primary", "a/replica", "b/primary"} {
			r.starts(name)
		}
		from := time.Since(r.begin)
		for range 1000 {
			c.Trigger("a")
			time.Sleep(time.Millisecond)
		}
		time.Sleep(time.Second)
		for _, name := range []string{"a/primary", "a/replica"} {
			starts := r.starts(name)
			if len(starts) == 0 || starts[0] != from {
				t.Fatalf("%s: the round starts at %v, not at once (%v)", name, starts, from)
			}
			if len(starts) < 10 || len(starts) > 11 {
				t.Errorf("%s: %d rounds in a second", name, len(starts))
			}
			for i := 1; i < len(starts); i++ {
				if starts[i]-starts[i-1] < roundGap {
					t.Errorf("%s: rounds %v apart", name, starts[i]-starts[i-1])
				}
			}
		}
		if starts := r.starts("b/primary"); len(starts) != 0 {
			t.Errorf("another member was checked at %v", starts)
		}
		c.Trigger("nobody")
	})
}

// TestCheckerTriggerDuringRun: what was noticed after a check began is looked at by another one.
func TestCheckerTriggerDuringRun(t *testing.T) {
	inBubble(t, func(t *testing.T, c *checker, r *recorder) {
		r.takes["a"] = 800 * time.Millisecond
		c.Set([]scheduled{check("a", "/primary", time.Hour)})
		time.Sleep(400 * time.Millisecond)
		first := r.starts("a/primary")
		if len(first) != 1 {
			t.Fatalf("starts %v", first)
		}
		for range 3 {
			c.Trigger("a")
			time.Sleep(50 * time.Millisecond)
		}
		time.Sleep(10 * time.Second)
		if got, want := r.starts("a/primary"), []time.Duration{first[0] + 800*time.Millisecond}; !slices.Equal(got, want) {
			t.Errorf("starts %v, want %v", got, want)
		}
	})
}

func TestCheckerSetReplaces(t *testing.T) {
	inBubble(t, func(t *testing.T, c *checker, r *recorder) {
		r.takes["gone"] = 500 * time.Millisecond
		stays := check("stays", "/primary", 2*time.Second)
		c.Set([]scheduled{stays, check("gone", "/primary", 2*time.Second)})
		time.Sleep(7 * time.Second)
		before := r.starts("stays/primary")
		last := before[len(before)-1]
		stays.Timeout = 3 * time.Second
		c.Set([]scheduled{stays, check("new", "/primary", 2*time.Second)})
		synctest.Wait()
		r.starts("gone/primary")
		delivered := len(r.delivered())
		from := time.Since(r.begin)
		time.Sleep(10 * time.Second)
		for i, start := range r.starts("stays/primary") {
			if want := last + time.Duration(i+1)*2*time.Second; start != want {
				t.Errorf("the unchanged check runs at %v, want %v", start, want)
			}
		}
		if starts := r.starts("new/primary"); len(starts) == 0 || starts[0]-from > startSpread {
			t.Errorf("the new check runs at %v", starts)
		}
		if starts := r.starts("gone/primary"); len(starts) != 0 {
			t.Errorf("the removed check runs at %v", starts)
		}
		for _, result := range r.delivered()[delivered:] {
			if result.Target.Member == "gone" {
				t.Error("the removed check delivers a result")
			}
		}
	})
}

// TestCheckerBeforeRun: checks and triggers that come before Run are taken, and Run returns with checks in flight.
func TestCheckerBeforeRun(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRecorder()
		r.takes["a"] = time.Hour
		c := newChecker(r.check, r.sink)
		c.Set([]scheduled{check("a", "/primary", time.Second), check("b", "/primary", time.Second)})
		c.Trigger("a")
		c.SetInterval(check("a", "/primary", 0).Target, time.Second)
		c.Set([]scheduled{check("a", "/primary", time.Second)})
		ctx, cancel := context.WithTimeout(t.Context(), 500*time.Millisecond)
		defer cancel()
		c.Run(ctx)
		if got := r.starts("a/primary"); len(got) != 1 {
			t.Errorf("starts %v", got)
		}
		if got := r.starts("b/primary"); len(got) != 0 {
			t.Errorf("a check that was taken back ran at %v", got)
		}
		if len(r.delivered()) != 0 {
			t.Errorf("a check that ended with the context delivered %v", r.delivered())
		}
	})
}

// Whoever asks for rounds of checks all the time must not keep a member that is slow from catching up.
func TestCheckerLeavesASlowMemberABreather(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRecorder()
		r.takes["a"] = time.Hour
		c := newChecker(r.check, r.sink)
		c.Set([]scheduled{{Target: health.Target{Member: "a", Path: "/"}, Interval: 100 * time.Millisecond, Timeout: time.Second}})
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan struct{})
		go func() {
			defer close(done)
			c.Run(ctx)
		}()
		for range 100 {
			c.Trigger("a")
			time.Sleep(100 * time.Millisecond)
		}
		cancel()
		<-done
		starts := r.starts("a/")
		if len(starts) < 7 {
			t.Errorf("checked %d times in 10s", len(starts))
		}
		for i := 1; i < len(starts); i++ {
			if gap := starts[i] - starts[i-1]; gap < time.Second+breather {
				t.Errorf("a check that timed out after 1s was followed by another %s after its start", gap)
			}
		}
	})
}
