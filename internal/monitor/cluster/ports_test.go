package cluster

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"github.com/pgporter/pgporter/internal/monitor/health"
)

// port says what comes of probing a port.
func (g *stage) port(address string, o health.Outcome) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.ports[address] = o
}

// probe is the loop's CheckFunc of ports. Those that hang make it wait for the timeout.
func (g *stage) probe(ctx context.Context, t health.Target) health.Outcome {
	g.mu.Lock()
	o := g.ports[t.Base]
	g.probed[t.Base]++
	g.mu.Unlock()
	if o.Accepted {
		<-ctx.Done()
	}
	return o
}

func (g *stage) probedAt(address string) int {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.probed[address]
}

// TestLoopProbes: one probe for all services that have a port, at the pace of the options; a port that hangs gets no new
// clients after `fall` of them, and some again with the first that is answered, out of turn if somebody asks.
func TestLoopProbes(t *testing.T) {
	inBubble(t, "trio-pooled", func(t *testing.T, l *Loop, g *stage, log *logbook) {
		const pooler, direct = "10.10.10.11:6432", "10.10.10.11:5432"
		time.Sleep(10 * time.Second)
		before := g.probedAt(pooler)
		time.Sleep(20 * time.Second)
		if n := g.probedAt(pooler) - before; n < 9 || n > 11 {
			t.Errorf("%d probes in 20 s at inter 2s", n)
		}
		well, epoch := "serve primary 1, replica 2 3, default 1, offline 3", health1(t, l.Board().View(), "pg-test-primary", "pg-test-1").Epoch
		if got := serving(l.Board().View()); got != well {
			t.Fatalf("%s, want %s", got, well)
		}
		g.port(pooler, health.Outcome{Silence: "timed out", Accepted: true})
		began := time.Now()
		for v, changed := l.Board().Watch(); health1(t, v, "pg-test-primary", "pg-test-1").Up; v, changed = l.Board().Watch() {
			<-changed
		}
		// Until the next probe, and three that take a second each or a bit more.
		if took := time.Since(began); took < 3*time.Second || took > 5500*time.Millisecond {
			t.Errorf("closed after %v", took)
		}
		if got, want := serving(l.Board().View()), "serve primary –, replica 2 3, default 1, offline 3"; got != want {
			t.Errorf("%s, want %s", got, want)
		}
		h := health1(t, l.Board().View(), "pg-test-primary", "pg-test-1")
		if want := "200 primary running; port 6432: takes connections and doesn't answer: no answer for 1s (3 in a row)"; h.Reason != want || h.Epoch != epoch {
			t.Errorf("%+v, want %s and epoch %d", h, want, epoch)
		}
		time.Sleep(20 * time.Second)
		g.port(pooler, health.Outcome{})
		time.Sleep(time.Second + time.Millisecond)
		if got := serving(l.Board().View()); got != well {
			t.Errorf("it answers again: %s, want %s", got, well)
		}
		if n := log.count("gets no new clients, sessions stay: 200 primary running; port 6432"); n != 2 {
			t.Errorf("logged %d times of two services", n)
		}

		// A client couldn't connect.
		time.Sleep(10 * time.Second)
		before = g.probedAt(direct)
		l.Recheck("pg-test-1")
		synctest.Wait()
		if n := g.probedAt(direct) - before; n != 1 {
			t.Errorf("%d probes out of turn", n)
		}
	})
}

// TestWitnessedPorts: where clients tell of a port that keeps them waiting, one that has answered for long is probed less often. It is
// found to hang as soon as without that where there are clients, and in the time of one more such pace where there are none.
func TestWitnessedPorts(t *testing.T) {
	const pooler, direct = "10.10.10.11:6432", "10.10.10.11:5432"
	closes := func(l *Loop) time.Duration {
		began := time.Now()
		for v, changed := l.Board().Watch(); v.Service("pg-test-primary").Health[0].Up; v, changed = l.Board().Watch() {
			<-changed
		}
		return time.Since(began)
	}
	test := func(name string, hang func(l *Loop, g *stage) time.Duration, most time.Duration) {
		t.Run(name, func(t *testing.T) {
			inBubbleWith(t, "trio-pooled", Config{Witnessed: true}, func(t *testing.T, l *Loop, g *stage, _ *logbook) {
				time.Sleep(time.Second)
				before := g.probedAt(pooler)
				time.Sleep(8 * time.Second)
				if n := g.probedAt(pooler) - before; n < 3 || n > 5 {
					t.Errorf("%d probes in 8 s after the start", n)
				}
				time.Sleep(22 * time.Second)
				before = g.probedAt(pooler)
				time.Sleep(time.Minute)
				if n := g.probedAt(pooler) - before; n < 8 || n > 10 {
					t.Errorf("%d probes in a minute, at thrice 2 s", n)
				}
				g.port(pooler, health.Outcome{Silence: "timed out", Accepted: true})
				if took := hang(l, g); took > most {
					t.Errorf("closed after %v", took)
				}
				before = g.probedAt(pooler)
				time.Sleep(10 * time.Second)
				if n := g.probedAt(pooler) - before; n < 8 {
					t.Errorf("%d probes in 10 s while it hangs", n)
				}
				g.port(pooler, health.Outcome{})
				time.Sleep(time.Second + time.Second/8)
				if !health1(t, l.Board().View(), "pg-test-primary", "pg-test-1").Up {
					t.Error("it answers again, and isn't up")
				}
				before = g.probedAt(pooler)
				time.Sleep(8 * time.Second)
				if n := g.probedAt(pooler) - before; n < 3 {
					t.Errorf("%d probes in 8 s after it hung", n)
				}
			})
		})
	}
	test("nobody comes", func(l *Loop, _ *stage) time.Duration { return closes(l) }, 10*time.Second+500*time.Millisecond)
	// The client has waited for 250 ms, and three probes take a second each or a bit more.
	test("a client waits", func(l *Loop, g *stage) time.Duration {
		began := time.Now()
		time.Sleep(250 * time.Millisecond)
		doubted, other := g.probedAt(pooler), g.probedAt(direct)
		l.Doubt("pg-test-primary", "pg-test-1")
		l.Doubt("pg-test-primary", "nobody")
		synctest.Wait()
		if n, others := g.probedAt(pooler)-doubted, g.probedAt(direct)-other; n != 1 || others != 0 {
			t.Errorf("%d probes of the port in doubt, %d of another", n, others)
		}
		closes(l)
		return time.Since(began)
	}, 3750*time.Millisecond)
}
