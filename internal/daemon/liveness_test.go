package daemon

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/pgporter/pgporter/internal/admin/web"
	"github.com/pgporter/pgporter/internal/config/model"
	"github.com/pgporter/pgporter/internal/engine"
	"github.com/pgporter/pgporter/internal/monitor/cluster"
	"github.com/pgporter/pgporter/internal/monitor/health"
	"github.com/pgporter/pgporter/internal/monitor/patroni"
	"github.com/pgporter/pgporter/internal/monitor/tcpcheck"
)

// TestJudge plays looks at loops: for so many seconds each, a look every gap, with a beat of each loop named after so many.
func TestJudge(t *testing.T) {
	type phase struct {
		looks int
		gap   time.Duration
		// loops are there; beats is after how many looks each of them beats, 0 for never.
		loops string
		beats int
		// want are those that hang at the end.
		want string
	}
	for _, test := range []struct {
		name   string
		phases []phase
	}{
		{"loops that go round", []phase{{1000, time.Second, "a b", 1, ""}}},
		{"a machine that is ten times slower", []phase{{1000, time.Second, "a", 10, ""}}},
		{"so slow that the look is late, too", []phase{{1000, 10 * time.Second, "a", 10, ""}}},
		{"a loop that hangs, and goes on", []phase{{5, time.Second, "a", 1, ""}, {30, time.Second, "a", 0, ""}, {1, time.Second, "a", 0, "a"}, {600, time.Second, "a", 0, "a"}, {1, time.Second, "a", 1, ""}}},
		{"two of them", []phase{{5, time.Second, "b a", 1, ""}, {40, time.Second, "b a", 0, "a b"}}},
		{"stopped for an hour", []phase{{5, time.Second, "a", 1, ""}, {1, time.Hour, "a", 0, ""}, {10, time.Second, "a", 0, ""}, {1, time.Second, "a", 1, ""}}},
		{"stopped for an hour, and dead since", []phase{{5, time.Second, "a", 1, ""}, {1, time.Hour, "a", 0, ""}, {29, time.Second, "a", 0, "a"}}},
		{"stopped again and again", []phase{{1, time.Second, "a", 1, ""}, {14, time.Minute, "a", 0, ""}}},
		{"a loop that has just begun", []phase{{100, time.Second, "a", 1, ""}, {30, time.Second, "a b", 0, ""}, {1, time.Second, "a b", 0, "a"}, {1, time.Second, "a b", 0, "a b"}}},
		{"a loop that is removed", []phase{{5, time.Second, "a b", 1, ""}, {60, time.Second, "a b", 0, "a b"}, {1, time.Second, "b", 0, "b"}, {1, time.Second, "", 0, ""}}},
		{"one that comes back under its name", []phase{{60, time.Second, "a", 0, "a"}, {1, time.Second, "", 0, ""}, {30, time.Second, "a", 0, ""}, {1, time.Second, "a", 0, ""}, {1, time.Second, "a", 0, "a"}}},
	} {
		t.Run(test.name, func(t *testing.T) {
			var j judge
			now, count := time.Unix(1_000_000, 0), uint64(0)
			for n, p := range test.phases {
				var got []string
				for i := range p.looks {
					now = now.Add(p.gap)
					if p.beats > 0 && i%p.beats == 0 {
						count++
					}
					beats := map[string]rounds{}
					for _, loop := range strings.Fields(p.loops) {
						beats[loop] = rounds{count, standstill}
					}
					got = nil
					for _, s := range j.look(now, beats) {
						got = append(got, s.Loop)
					}
				}
				if got := strings.Join(got, " "); got != p.want {
					t.Errorf("phase %d: %q hang, want %q", n+1, got, p.want)
				}
			}
		})
	}
}

// TestLongRounds: a loop has the time that it says, and since is when it was last seen to go round.
func TestLongRounds(t *testing.T) {
	var j judge
	began := time.Unix(1_000_000, 0)
	for s := range 300 {
		now := began.Add(time.Duration(s) * time.Second)
		stalled := j.look(now, map[string]rounds{"HAProxy": {7, 3 * time.Minute}})
		if want := s > 180; len(stalled) > 0 != want || want && !stalled[0].Since.Equal(began) {
			t.Fatalf("after %d s: %+v", s, stalled)
		}
	}
}

// carrier is an Engine of nothing, with one loop.
type carrier struct{ beats atomic.Uint64 }

func (*carrier) Prepare(context.Context, engine.Offer) (Change, error) { return Change{}, nil }
func (*carrier) Run(ctx context.Context) error                         { <-ctx.Done(); return nil }
func (*carrier) Traffic(context.Context) []engine.Traffic              { return nil }
func (c *carrier) Beats() map[string]rounds {
	return map[string]rounds{"the engine": {c.beats.Add(1), standstill}}
}

// TestHealthFollowsTheLoops: while a cluster's loop waits for somebody, /health is 503 and names it, the status shows it and
// systemd's watchdog hears nothing; when it goes on, all is well again.
func TestHealthFollowsTheLoops(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var log lockedBuffer
		release, asked := make(chan struct{}), 0
		declared := func(name string) model.Cluster {
			return model.Cluster{Name: name, Members: []model.Member{{Name: name + "-1", Host: "10.10.10.11", Role: model.Primary}}}
		}
		d := &Daemon{log: slog.New(slog.NewTextHandler(&log, nil)), engine: &carrier{}, liveness: newLiveness(), running: map[string]*runningCluster{},
			cfg: Config{Source: &InventoryFile{}}, tcpcheck: tcpcheck.New(slog.New(slog.DiscardHandler), 8)}
		ctx, cancel := context.WithCancel(t.Context())
		var joined sync.WaitGroup
		for _, name := range []string{"pg-test", "pg-meta"} {
			loop, err := cluster.New(declared(name), cluster.Config{Logger: d.log,
				Check: func(context.Context, health.Target) health.Outcome {
					return health.Outcome{Answer: patroni.Answer{Status: 200, Role: "primary", State: "running"}}
				},
				Probe: func(context.Context, health.Target) health.Outcome { return health.Outcome{} },
				Keys: func(c model.Cluster) cluster.Keys {
					// Its second declaration takes long.
					if c.Name == "pg-test" {
						if asked++; asked == 2 {
							<-release
						}
					}
					return nil
				}})
			if err != nil {
				t.Fatal(err)
			}
			d.running[name] = &runningCluster{loop: loop}
			joined.Go(func() { loop.Run(ctx) })
		}
		joined.Go(func() { d.tcpcheck.Run(ctx) })
		var alive atomic.Int64
		joined.Go(func() { d.watchLoops(ctx, func() { alive.Add(1) }) })
		handler := web.Handler(d.shown(8))
		healthy := func(when, want string) {
			t.Helper()
			synctest.Wait()
			answer := httptest.NewRecorder()
			handler.ServeHTTP(answer, httptest.NewRequest("GET", "http://127.0.0.1/health", nil))
			code := http.StatusServiceUnavailable
			if want == "ok" {
				code = http.StatusOK
			}
			if got := strings.TrimSpace(answer.Body.String()); answer.Code != code || got != want {
				t.Errorf("%s: %d %q, want %d %q", when, answer.Code, got, code, want)
			}
		}
		healthy("in the beginning", "ok")
		time.Sleep(time.Hour)
		healthy("after an idle hour", "ok")

		change, err := d.running["pg-test"].loop.Prepare(ctx, declared("pg-test"))
		if err != nil {
			t.Fatal(err)
		}
		time.Sleep(500 * time.Millisecond)
		began := time.Now()
		joined.Go(change.Publish)
		time.Sleep(standstill - time.Second)
		healthy("almost", "ok")
		time.Sleep(3 * time.Second)
		last := alive.Load()
		s := d.Status()
		if len(s.Stalled) != 1 || s.Stalled[0].Loop != "the loop of cluster pg-test" {
			t.Fatalf("the status says %+v", s.Stalled)
		}
		// It is seen with the next look that it went round last.
		since := s.Stalled[0].Since
		if late := since.Sub(began); late < -lookGap || late > lookGap {
			t.Errorf("it hangs since %s, and the status says %s", began, since)
		}
		healthy("it hangs", fmt.Sprintf("the loop of cluster pg-test stands still since %s (%s)", since.Format(time.RFC3339), time.Since(since).Round(time.Second)))
		time.Sleep(time.Minute)
		if alive.Load() != last {
			t.Error("the watchdog hears that all is well")
		}
		close(release)
		time.Sleep(2 * time.Second)
		healthy("it goes on", "ok")
		if alive.Load() == last || len(d.Status().Stalled) != 0 {
			t.Error("the watchdog hears nothing, or the status shows it still")
		}
		if text := log.String(); strings.Count(text, "level=ERROR") != 1 || strings.Count(text, "all loops go round again") != 1 {
			t.Errorf("the log:\n%s", text)
		}
		cancel()
		joined.Wait()

		// Whoever asks when nobody looks any more waits for a moment: a process that was stopped looks at once.
		time.Sleep(time.Hour)
		joined.Go(func() {
			time.Sleep(time.Second)
			d.liveness.note(time.Now(), nil)
		})
		healthy("a look comes", "ok")
		joined.Wait()
		ended := time.Now()
		time.Sleep(time.Hour)
		healthy("no look comes", fmt.Sprintf("nobody looks whether loops go round since %s (1h0m2s)", ended.Format(time.RFC3339)))
	})
}

// TestWatchdogOfASuccessor: systemd's watchdog wants to know of the process that it started, and after an upgrade of the next one.
func TestWatchdogOfASuccessor(t *testing.T) {
	t.Setenv("WATCHDOG_USEC", "60000000")
	socket := filepath.Join(t.TempDir(), "notify")
	systemd, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: socket, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	defer systemd.Close()
	t.Setenv("NOTIFY_SOCKET", socket)
	heard := func() string {
		said := make([]byte, 64)
		systemd.SetReadDeadline(time.Now().Add(10 * time.Millisecond))
		n, _ := systemd.Read(said)
		return string(said[:n])
	}
	own := strconv.Itoa(os.Getpid())
	for _, test := range []struct {
		name, pid string
		before    *Inherited
		want      string
		hears     string
	}{
		{"not ours", "1", nil, "1", ""},
		{"ours", own, nil, own, "WATCHDOG=1"},
		{"a predecessor's", "4711", &Inherited{state: handoverState{PID: 4711}}, own, "WATCHDOG=1"},
		{"another's than the predecessor's", "1", &Inherited{state: handoverState{PID: 4711}}, "1", ""},
	} {
		t.Setenv("WATCHDOG_PID", test.pid)
		var log bytes.Buffer
		d := &Daemon{cfg: Config{Inherited: test.before}, log: slog.New(slog.NewTextHandler(&log, nil))}
		d.watchdog()()
		if got := os.Getenv("WATCHDOG_PID"); got != test.want || log.Len() > 0 {
			t.Errorf("%s: WATCHDOG_PID is %s, want %s; %s", test.name, got, test.want, &log)
		}
		if got := heard(); got != test.hears {
			t.Errorf("%s: systemd hears %q, want %q", test.name, got, test.hears)
		}
	}
}
