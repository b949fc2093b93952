package cluster

import (
	"testing"
	"time"

	"github.com/pgporter/pgporter/internal/monitor/health"
	"github.com/pgporter/pgporter/internal/monitor/patroni"
	"github.com/pgporter/pgporter/internal/monitor/view"
)

// TestAnswersAreTimed has members answer after a while, also when they say nothing new: it is counted from the question on.
func TestAnswersAreTimed(t *testing.T) {
	now := time.Unix(0, 0)
	s, _ := Begin(planning(t, "trio"), 1, now)
	says := script([]string{"lock", "primary", "running"})
	answers := 0
	for answers < 5 {
		a := s.Step(Ticked{}, now)
		for _, q := range a.Ask {
			if q.Port {
				continue
			}
			r := health.Result{Target: q.Target, Outcome: says.on(q.Path), Ended: now.Add(30 * time.Millisecond)}
			if q.Member != "pg-test-1" {
				r.Outcome = health.Outcome{Silence: "not now", NotAsked: true}
			} else {
				answers++
			}
			s.Step(Checked{r}, r.Ended)
		}
		at, any := s.Deadline()
		if !any {
			t.Fatal("nothing is due any more")
		}
		now = later(now.Add(time.Millisecond), at)
	}
	got := s.members["pg-test-1"].answering
	if got.Counts[5] != 5 || view.AnswerBounds[5] != .05 || got.Sum != 5*30*time.Millisecond {
		t.Errorf("counted %+v", got)
	}
	if none := s.members["pg-test-2"].answering; none != (view.Durations{}) {
		t.Errorf("of one that wasn't asked: %+v", none)
	}
}

func later(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}

func TestLag(t *testing.T) {
	replica := patroni.Answer{Role: patroni.RoleReplica, Replayed: 900}
	for _, test := range []struct {
		name   string
		leader int64
		last   health.Outcome
		want   int64
		known  bool
	}{
		{"behind", 1000, health.Outcome{Answer: replica}, 100, true},
		{"asked later than the leader", 800, health.Outcome{Answer: replica}, 0, true},
		{"nothing is known of the leader", 0, health.Outcome{Answer: replica}, 0, false},
		{"the replica is silent", 1000, health.Outcome{Silence: "timed out"}, 0, false},
		{"the replica says nothing of it", 1000, health.Outcome{Answer: patroni.Answer{Role: patroni.RoleReplica}}, 0, false},
		{"the leader itself", 1000, health.Outcome{Answer: patroni.Answer{Role: patroni.RolePrimary, Location: 1000}}, 0, false},
	} {
		t.Run(test.name, func(t *testing.T) {
			s := State{leaderPosition: test.leader}
			if got, known := s.lag(member{checked: true, last: test.last}); got != test.want || known != test.known {
				t.Errorf("got %d, %t", got, known)
			}
		})
	}
}

// TestCountsPublishNothing has a check fail that changes nothing else: the View that there is stays.
func TestCountsPublishNothing(t *testing.T) {
	v := &view.View{Members: []view.Member{{Answering: view.Durations{Sum: 1}, Lag: 7, LagKnown: true}}, Services: []view.Service{{Health: []view.Health{{Up: true, Checks: view.Checks{Failures: 1}}}}}}
	other := &view.View{Members: []view.Member{{}}, Services: []view.Service{{Health: []view.Health{{Up: true}}}}, Outages: view.Durations{Sum: 3}}
	if !alike(v, other) {
		t.Error("counts alone have a View published")
	}
}
