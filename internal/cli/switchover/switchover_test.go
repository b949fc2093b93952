package switchover

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/pgporter/pgporter/internal/admin/api"
	"github.com/pgporter/pgporter/internal/monitor/patroni"
)

// bubble runs a test on a cluster of its own, by a clock of its own.
func bubble(t *testing.T, test func(t *testing.T, c *cluster)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) { test(t, newCluster(t)) })
}

// letGo fails unless every node has let go, or will have when its lease is over.
func (c *cluster) letGo(t *testing.T) {
	t.Helper()
	for _, n := range c.nodes {
		if n.holds() != "" && !n.silent {
			t.Errorf("node %s still holds", n.name)
		}
	}
	time.Sleep(lease)
	for _, n := range c.nodes {
		if n.holds() != "" {
			t.Errorf("node %s holds for ever", n.name)
		}
	}
}

func TestSwitchover(t *testing.T) {
	bubble(t, func(t *testing.T, c *cluster) {
		c.runs(4711, "active", 2*time.Second)
		c.nodes[0].pausesAfter = 700 * time.Millisecond
		report, lines, err := c.make(t.Context(), order(), nil)
		if err != nil {
			t.Fatal(err)
		}
		const want = ` 0.000 look       who leads pg-test, whether any member can, and whether 3 nodes can be told
 0.008            pg-test-1 leads, pg-test-2 is to lead
 0.008 checkpoint pg-test-1, then pg-test-2 write one, so that the stop has little to write
 0.010            pg-test-1: 0.002 s
 0.012            pg-test-2: 0.002 s
 0.012 hold       new clients of the leader wait at 3 nodes: 10.10.10.11, 10.10.10.12, 10.10.10.13; 1 database of PgBouncer paused
 0.013 drain      waits at most 5s for transactions to end
 2.053 ask        Patroni is asked to switch over from pg-test-1 to pg-test-2
 2.055 stop       Patroni stops PostgreSQL on pg-test-1
 2.367 promote    pg-test-2 is promoted
 2.777 release    clients are let go at all nodes
 2.778 serve      nodes lead clients to pg-test-2
`
		if lines != want {
			t.Errorf("told\n%swant\n%s", lines, want)
		}
		if c.leader != "pg-test-2" || !report.Done || !report.Asked || report.From != "pg-test-1" || report.To != "pg-test-2" || report.Error != "" {
			t.Errorf("pg-test is led by %s, the report is %+v", c.leader, report)
		}
		for name, seconds := range map[string]float64{"stop": report.StopSeconds - 0.312, "promotion": report.PromotionSeconds - 0.410, "own": report.OwnSeconds - 0.002, "held": report.HeldSeconds - 2.766} {
			if seconds < -0.0005 || seconds > 0.0005 {
				t.Errorf("%s: %.4f s off", name, seconds)
			}
		}
		// One order, one each second, oftener where a PgBouncer is being paused, and the end of it.
		for i, want := range []int{1 + 18 + 1 + 1, 1 + 2 + 1, 1 + 2 + 1} {
			if told := c.nodes[i].told; len(told) < want-3 || len(told) > want+3 || told[len(told)-1] != 0 || told[0] != 5 {
				t.Errorf("node %d was told %v", i, told)
			}
		}
		c.letGo(t)
	})
}

// Whatever fails at whichever step: the command ends, everybody is let go, and before Patroni was asked nothing has changed.
func TestEveryFaultAtEveryStep(t *testing.T) {
	faults := map[string]func(c *cluster, cancel context.CancelFunc){
		"interrupted":           func(_ *cluster, cancel context.CancelFunc) { cancel() },
		"a node falls silent":   func(c *cluster, _ context.CancelFunc) { c.nodes[1].goSilent(true) },
		"all nodes fall silent": func(c *cluster, _ context.CancelFunc) { c.silenceNodes() },
		"Patroni falls silent":  func(c *cluster, _ context.CancelFunc) { c.silence("patroni") },
		"PostgreSQL does":       func(c *cluster, _ context.CancelFunc) { c.silence("postgres", "transactions", "checkpoint") },
		"all of it does": func(c *cluster, _ context.CancelFunc) {
			c.silence("patroni", "postgres", "transactions", "checkpoint")
			c.silenceNodes()
		},
		"nobody is promoted": func(c *cluster, _ context.CancelFunc) { c.mu.Lock(); c.promotes = time.Hour; c.mu.Unlock() },
		"nobody stops":       func(c *cluster, _ context.CancelFunc) { c.mu.Lock(); c.stops = time.Hour; c.mu.Unlock() },
		"the leader changes": func(c *cluster, _ context.CancelFunc) {
			c.mu.Lock()
			defer c.mu.Unlock()
			if !c.asked {
				c.leader = "pg-test-3"
			}
		},
	}
	// what is done in spite of it.
	done := map[string]bool{}
	for _, at := range []string{"look", "checkpoint", "hold", "drain", "ask", "stop", "promote", "release", "serve"} {
		for fault, strike := range faults {
			t.Run(at+"/"+fault, func(t *testing.T) {
				bubble(t, func(t *testing.T, c *cluster) {
					c.runs(4711, "active", 1500*time.Millisecond)
					ctx, cancel := context.WithCancel(t.Context())
					defer cancel()
					c.nodes[0].pausesAfter = 300 * time.Millisecond
					began := time.Now()
					report, lines, err := c.make(ctx, order(), func(e Event) {
						if e.Step == at {
							strike(c, cancel)
						}
					})
					if took := time.Since(began); took > 3*time.Minute {
						t.Errorf("it took %s:\n%s", took, lines)
					}
					if (err == nil) != report.Done || (err != nil) != (report.Error != "") {
						t.Errorf("done is %v and the error %v:\n%s", report.Done, err, lines)
					}
					if report.Asked != c.asked || !report.Asked && c.leader == "pg-test-2" {
						t.Errorf("asked is %v, and Patroni was: %v; pg-test is led by %s", report.Asked, c.asked, c.leader)
					}
					if report.Done && c.leader != report.To {
						t.Errorf("it is done, and %q leads", c.leader)
					}
					if err != nil && !strings.Contains(err.Error(), at+":") && report.Steps[len(report.Steps)-1].Name == at {
						t.Errorf("the error doesn't name the step: %v", err)
					}
					if fault == "interrupted" && err != nil && !strings.Contains(err.Error(), "interrupted") {
						t.Errorf("it was interrupted: %v", err)
					}
					done[at+"/"+fault] = err == nil
					c.letGo(t)
				})
			})
		}
	}
	// From the moment in which Patroni was asked a node that falls silent doesn't matter, and Patroni's silence doesn't once all is over.
	for _, at := range []string{"stop/a node falls silent", "promote/a node falls silent", "release/a node falls silent", "stop/PostgreSQL does", "release/Patroni falls silent", "serve/interrupted", "stop/the leader changes"} {
		if !done[at] {
			t.Errorf("%s: it wasn't done", at)
		}
	}
	for _, at := range []string{"hold/a node falls silent", "drain/a node falls silent", "drain/the leader changes", "drain/interrupted", "stop/nobody stops", "drain/nobody is promoted"} {
		if done[at] {
			t.Errorf("%s: it was done", at)
		}
	}
}

func (c *cluster) silence(what ...string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, w := range what {
		c.silent[w] = true
	}
}

func (c *cluster) silenceNodes() {
	for _, n := range c.nodes {
		n.goSilent(true)
	}
}

// What is in the way is found before anything is begun, and said by name, all at once.
func TestLook(t *testing.T) {
	for name, test := range map[string]struct {
		change func(c *cluster, o *Order)
		want   string
	}{
		"nobody leads":     {func(c *cluster, _ *Order) { c.leader = "" }, "nobody leads pg-test: there is nothing to switch over from"},
		"a wrong name":     {func(_ *cluster, o *Order) { o.To = "pg-tets-2" }, `there is no member "pg-tets-2"; did you mean pg-test-2`},
		"another name":     {func(_ *cluster, o *Order) { o.To = "elsewhere" }, `there is no member "elsewhere"; there are: pg-test-1, pg-test-2, pg-test-3`},
		"it leads already": {func(_ *cluster, o *Order) { o.To = "pg-test-1" }, "pg-test-1 leads already"},
		"all that is wrong with it": {func(c *cluster, o *Order) {
			o.To = "pg-test-2"
			m := &c.members[1]
			m.State, m.Tags, m.Timeline, m.Lag = "creating replica", map[string]string{"nofailover": "true"}, 2, 2<<20
			c.config.Synchronous = true
		}, `pg-test-2 can't lead: it is "creating replica", it has the tag nofailover, it is on timeline 2 and the leader on 3, ` +
			`it lags by 2097152 bytes, more than maximum_lag_on_failover (1048576), it isn't a synchronous standby, and commits wait for one (synchronous_mode)`},
		"priority": {func(c *cluster, o *Order) {
			o.To = "pg-test-2"
			c.members[1].Tags = map[string]string{"failover_priority": "0"}
		}, "its failover_priority is 0"},
		"nobody can": {func(c *cluster, _ *Order) { c.config.Synchronous = true },
			"no member can lead: pg-test-2 can't lead: it isn't a synchronous standby, and commits wait for one (synchronous_mode); pg-test-3 can't"},
		"alone":                 {func(c *cluster, _ *Order) { c.members = c.members[:1] }, "pg-test has no member but its leader"},
		"the leader's own word": {func(c *cluster, _ *Order) { c.words["pg-test-1"] = patroni.Answer{Role: "primary", State: "stopping"} }, "pg-test-1 is said to lead and says of itself: primary stopping"},
		"the other's own word":  {func(c *cluster, _ *Order) { c.words["pg-test-2"] = patroni.Answer{Role: "replica", State: "starting"} }, "pg-test-2 says of itself: replica starting"},
		"its replay is paused": {func(c *cluster, _ *Order) {
			c.words["pg-test-2"] = patroni.Answer{Role: "replica", State: "running", Received: 1000, Replayed: 1000, ReplayPaused: true}
		}, "pg-test-2 doesn't replay"},
		"it lags": {func(c *cluster, _ *Order) {
			c.words["pg-test-1"] = patroni.Answer{Role: "primary", State: "running", Location: 9 << 20}
		}, "pg-test-2 lags by 9436184 bytes"},
		"its ports and one node's": {func(c *cluster, _ *Order) {
			c.silent["pooler"], c.stopped["pg-test-2"] = true, true
			c.nodes[2].status = func(s *api.Status) { s.Clusters = nil }
		},
			"pg-test-2 says of itself: replica stopped; pg-test-2: its PostgreSQL: port 5432 refuses; pg-test-2: its PgBouncer, to which services lead: port 6432 refuses; node 10.10.10.13: it doesn't carry pg-test (it has no cluster)"},
		"another hold": {func(c *cluster, _ *Order) {
			c.nodes[0].status = func(s *api.Status) {
				s.Clusters[0].Hold = &api.Hold{ID: "failover-key 7", To: "pg-test-3", By: "Patroni's failover key", Since: time.Date(2026, 1, 1, 1, 2, 3, 0, time.UTC)}
			}
		}, "node 10.10.10.11: a switchover is under way: clients wait since 01:02:03Z for pg-test-3 (Patroni's failover key)"},
		"HAProxy": {func(c *cluster, _ *Order) { c.nodes[1].status = func(s *api.Status) { s.Engine = api.EngineHAProxy } }, "node 10.10.10.12: HAProxy has its clients"},
		"a stranger": {func(c *cluster, _ *Order) {
			c.nodes[1].status = func(s *api.Status) { s.Clusters[0].Members = s.Clusters[0].Members[:1] }
		}, "node 10.10.10.12: it doesn't know pg-test-2"},
		"cancel as nobody":    {func(c *cluster, o *Order) { o.Cancel = true; c.account = errors.New("password authentication failed") }, "--cancel takes an account of PostgreSQL's: pg-test-1: password authentication failed"},
		"a node that is away": {func(c *cluster, _ *Order) { c.nodes[1].silent = true }, "node 10.10.10.12: context deadline exceeded"},
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(t *testing.T, c *cluster) {
				o := order()
				test.change(c, &o)
				report, lines, err := c.make(t.Context(), o, nil)
				if err == nil || !strings.Contains(err.Error(), "look: "+test.want) && !strings.Contains(err.Error(), test.want) || !strings.HasSuffix(err.Error(), "; nothing was begun") {
					t.Errorf("the error is %v, want %s", err, test.want)
				}
				if len(report.Steps) != 1 || c.asked {
					t.Errorf("it went on:\n%s", lines)
				}
			})
		})
	}
}

// What is worth knowing and in nobody's way is said.
func TestLookTells(t *testing.T) {
	for name, test := range map[string]struct {
		change func(c *cluster)
		want   string
	}{
		"maintenance":     {func(c *cluster) { c.pause = true }, "the cluster is in maintenance (Patroni's pause)"},
		"standby cluster": {func(c *cluster) { c.config.Standby = true }, "pg-test is a standby cluster: pg-test-1 follows another one, and so will pg-test-2"},
		"no account":      {func(c *cluster) { c.account = errors.New("permission denied") }, "transactions on pg-test-1: skipped: permission denied"},
		"a mute pool": {func(c *cluster) {
			c.nodes[1].status = func(s *api.Status) { s.Pools = []api.Pool{{Address: "/run:6432", Problem: "login failed"}} }
		}, "node 10.10.10.12: its PgBouncer at /run:6432 isn't paused, so that its clients notice: login failed"},
		"a shadow": {func(c *cluster) { c.nodes[0].status = func(s *api.Status) { s.Shadow = &api.Shadow{} } }, "node 10.10.10.11 is a shadow"},
		"lost etcd": {func(c *cluster) {
			c.nodes[0].status = func(s *api.Status) { s.Clusters[0].LeaderKey = &api.LeaderKey{Lost: "refused"} }
		}, "node 10.10.10.11 can't ask etcd (refused)"},
		"synchronous": {func(c *cluster) { c.config.Synchronous = true; c.members[2].Role = patroni.RoleSyncStandby }, "pg-test-1 leads, pg-test-3 is to lead"},
		"the nearest": {func(c *cluster) { c.members[1].Lag = 100 }, "pg-test-1 leads, pg-test-3 is to lead"},
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(t *testing.T, c *cluster) {
				test.change(c)
				o := order()
				o.DryRun = true
				report, lines, err := c.make(t.Context(), o, nil)
				if err != nil || !strings.Contains(lines, test.want) {
					t.Errorf("error %v, told\n%swant %s", err, lines, test.want)
				}
				// It changes nothing and names every step.
				if len(report.Steps) != 9 || report.Done || c.asked || len(c.checkpoints) > 0 || len(c.nodes[0].told) > 0 {
					t.Errorf("a dry run: %+v", report)
				}
				o.DryRun = false
				if _, lines, err := c.make(t.Context(), o, nil); err != nil {
					t.Errorf("%v:\n%s", err, lines)
				}
				c.letGo(t)
			})
		})
	}
}

// What runs longer than --drain is named, and then it depends.
func TestDrain(t *testing.T) {
	for name, test := range map[string]struct {
		change func(c *cluster, o *Order)
		// wrong is the error, empty for none; told what is said.
		wrong, told string
		cancelled   int
	}{
		"it has time": {func(c *cluster, _ *Order) { c.runs(1, "active", 4*time.Second) }, "", "", 0},
		"it has none": {func(c *cluster, _ *Order) { c.runs(1, "active", time.Minute) },
			"drain: still under way after 5s (--drain waits longer, --cancel cancels them, --force cuts them): pid 1 (app in shop, psql, 10.0.0.7): active, a transaction of 5.2 s; clients are let go: everything is as it was", "", 0},
		"no time at all": {func(c *cluster, o *Order) { o.Drain = 0; c.runs(1, "active", time.Minute) }, "still under way after 0s", "", 0},
		"cancelled":      {func(c *cluster, o *Order) { o.Cancel = true; c.runs(1, "active", time.Minute) }, "", "cancelled: pid 1 (app", 1},
		"idle in a transaction": {func(c *cluster, o *Order) { o.Cancel = true; c.runs(1, "idle in transaction", time.Minute) },
			"still under way 2s after they were cancelled (what is idle in a transaction can't be", "", 1},
		"forced": {func(c *cluster, o *Order) { o.Force = true; c.runs(1, "active", time.Minute) }, "", "cut by the stop: pid 1 (app", 0},
		"a pool that isn't paused": {func(c *cluster, _ *Order) { c.nodes[1].pausesAfter = time.Minute },
			"node 10.10.10.12: database shop of its PgBouncer at /run/postgresql:6433 is pausing, 1 transaction under way (app from 10.0.0.8)", "", 0},
		"a pool that isn't, forced": {func(c *cluster, o *Order) { o.Force = true; c.nodes[1].pausesAfter = 30 * time.Second }, "", "cut by the stop: node 10.10.10.12: database shop", 0},
		"no account":                {func(c *cluster, _ *Order) { c.account = errors.New("permission denied") }, "", "transactions on pg-test-1, but for those of paused PgBouncers: skipped: permission denied", 0},
		"very many": {func(c *cluster, _ *Order) {
			for i := range 25 {
				c.runs(i, "active", time.Minute)
			}
		}, "a transaction of 5.2 s; and 5 more;", "", 0},
		"a checkpoint that takes long": {func(c *cluster, _ *Order) { c.silence("checkpoint") }, "checkpoint: pg-test-1 didn't end its checkpoint in 1m0s", "", 0},
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(t *testing.T, c *cluster) {
				o := order()
				test.change(c, &o)
				_, lines, err := c.make(t.Context(), o, nil)
				if test.wrong == "" && err != nil || test.wrong != "" && (err == nil || !strings.Contains(err.Error(), test.wrong)) {
					t.Errorf("the error is %v, want %s", err, test.wrong)
				}
				if !strings.Contains(lines, test.told) {
					t.Errorf("told\n%swant %s", lines, test.told)
				}
				if len(c.cancelled) != test.cancelled {
					t.Errorf("cancelled: %v", c.cancelled)
				}
				if c.asked != (test.wrong == "") {
					t.Errorf("asked: %v", c.asked)
				}
				c.letGo(t)
			})
		})
	}
}

// Clients that were led to the leader a moment before the hold are given the time to log in; where the nodes say that there are none nobody waits
// for them.
func TestLoginsUnderWay(t *testing.T) {
	some := func(newest api.Seconds) *api.HeldSessions { return &api.HeldSessions{Count: 3, NewestSeconds: newest} }
	for name, test := range map[string]struct {
		sessions [3]*api.HeldSessions
		want     time.Duration
	}{
		"old ones":             {[3]*api.HeldSessions{some(60), some(1), some(7)}, 0},
		"none":                 {[3]*api.HeldSessions{{}, {}, {}}, 0},
		"a fresh one":          {[3]*api.HeldSessions{some(60), some(0.05), some(7)}, 150 * time.Millisecond},
		"one that doesn't say": {[3]*api.HeldSessions{some(60), nil, some(7)}, 200 * time.Millisecond},
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(t *testing.T, c *cluster) {
				for i, n := range c.nodes {
					n.sessions, n.pausesAfter = test.sessions[i], 0
				}
				report, lines, err := c.make(t.Context(), order(), nil)
				if err != nil {
					t.Fatalf("%v\n%s", err, lines)
				}
				for _, s := range report.Steps {
					if took := time.Duration(s.Seconds * float64(time.Second)); s.Name == "drain" && (took < test.want || took > test.want+10*time.Millisecond) {
						t.Errorf("the drain took %s, want %s", took, test.want)
					}
				}
				c.letGo(t)
			})
		})
	}
}

// What Patroni answers, and what is so then.
func TestPatroniAnswers(t *testing.T) {
	for name, test := range map[string]struct {
		change func(c *cluster)
		wrong  string
		leads  string
		told   string
	}{
		"it refuses":          {func(c *cluster) { c.status = 412 }, "Patroni answers 412: switchover is not possible: no good candidates have been found; pg-test-1 leads on, and clients are let go: everything is as it was", "pg-test-1", ""},
		"it wants a password": {func(c *cluster) { c.status = 401 }, "--patroni-credentials); pg-test-1 leads on", "pg-test-1", ""},
		"it wants another":    {func(c *cluster) { c.status = 403 }, "restapi.allowlist", "pg-test-1", ""},
		"it fails":            {func(c *cluster) { c.status = 503 }, "Patroni answers 503", "pg-test-1", ""},
		"it isn't there":      {func(c *cluster) { c.status = 0 }, "the question didn't reach Patroni: connection refused; pg-test-1 leads on", "pg-test-1", ""},
		"it breaks off":       {func(c *cluster) { c.status = 1 }, "", "pg-test-2", "Patroni's answer didn't come (connection reset)"},
		"it has another":      {func(c *cluster) { c.leads = "pg-test-3" }, "", "pg-test-3", "pg-test-3 leads instead of pg-test-2"},
		"it takes long":       {func(c *cluster) { c.stops, c.promotes = 20*time.Second, 20*time.Second }, "", "pg-test-2", ""},
		"it takes for ever":   {func(c *cluster) { c.stops = time.Hour }, "stop: it took longer than", "pg-test-1", ""},
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(t *testing.T, c *cluster) {
				test.change(c)
				report, lines, err := c.make(t.Context(), order(), nil)
				if test.wrong == "" && err != nil || test.wrong != "" && (err == nil || !strings.Contains(err.Error(), test.wrong)) {
					t.Errorf("the error is %v, want %s:\n%s", err, test.wrong, lines)
				}
				all := lines + fmt.Sprint(report.Steps)
				if c.leader != test.leads || !strings.Contains(all, test.told) || err == nil && report.To != test.leads {
					t.Errorf("%q leads, want %q; told\n%s", c.leader, test.leads, lines)
				}
				c.letGo(t)
			})
		})
	}
}

// A node that restarts in between is told again and holds again; one of which an order was lost on the way, too.
func TestNodeComesBack(t *testing.T) {
	bubble(t, func(t *testing.T, c *cluster) {
		c.runs(1, "active", 4*time.Second)
		gone := make(chan struct{})
		_, lines, err := c.make(t.Context(), order(), func(e Event) {
			if e.Step == "drain" {
				c.nodes[1].goSilent(true)
				go func() {
					defer close(gone)
					time.Sleep(2500 * time.Millisecond)
					c.nodes[1].goSilent(false)
				}()
			}
		})
		<-gone
		if err != nil || c.leader != "pg-test-2" {
			t.Errorf("%v:\n%s", err, lines)
		}
		c.letGo(t)
	})
}
