package shadow

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/pgporter/pgporter/internal/config/model"
	"github.com/pgporter/pgporter/internal/engine/haproxy"
	"github.com/pgporter/pgporter/internal/monitor/view"
)

var began = time.Date(2026, 11, 30, 3, 0, 0, 0, time.UTC)

// stage is a cluster of three with a service for its primary and one for its replicas, as both sides see it. Its script says what
// changes; then both are told.
type stage struct {
	t       *testing.T
	b       *book
	now     time.Time
	version uint64
	holder  string
	watched bool
	// up, epoch and status are of servers, as in p/1 (primary, member 1).
	up     map[string]bool
	epoch  map[string]uint64
	status map[string]string
	count  map[string]haproxy.Statistic
	// gone are servers that aren't in the service any more.
	gone map[string]bool
}

func newStage(t *testing.T) *stage {
	s := &stage{t: t, b: newBook("pg-test", nil), now: began, holder: "1", watched: true, gone: map[string]bool{},
		up:     map[string]bool{"p/1": true, "r/2": true, "r/3": true},
		epoch:  map[string]uint64{},
		status: map[string]string{"p/1": "UP", "p/2": "DOWN", "p/3": "DOWN", "r/1": "UP", "r/2": "UP", "r/3": "UP"},
		count:  map[string]haproxy.Statistic{},
	}
	s.b.offered = []string{"p", "r"}
	s.ours()
	s.theirs()
	return s
}

// ours shows pgporter's decisions of now.
func (s *stage) ours() {
	s.version++
	v := &view.View{Cluster: "pg-test", Version: s.version, At: s.now, Key: view.Key{Watched: s.watched, Holder: s.holder}}
	for _, m := range []string{"1", "2", "3"} {
		live := model.Replica
		if m == s.holder {
			live = model.Primary
		}
		v.Members = append(v.Members, view.Member{Member: model.Member{Name: m}, Live: live, Answer: "200"})
	}
	for _, of := range [][2]string{{"p", "/primary"}, {"r", "/replica"}} {
		name, check := of[0], of[1]
		svc := view.Service{Service: model.Service{Definition: model.Definition{FullName: name, Check: check, Options: model.Options{ShutdownSessions: true}}}}
		for _, m := range []string{"1", "2", "3"} {
			key := name + "/" + m
			if s.gone[key] {
				continue
			}
			svc.Servers = append(svc.Servers, model.Server{Member: m, Weight: 100, Backup: key == "r/1"})
			svc.Health = append(svc.Health, view.Health{Up: s.up[key], Reason: fmt.Sprintf("up %t", s.up[key]), Epoch: s.epoch[key], Ended: "it must"})
		}
		v.Services = append(v.Services, svc)
	}
	s.b.viewed(v)
}

// theirs shows what HAProxy does now.
func (s *stage) theirs() {
	var lines []haproxy.Statistic
	for _, name := range []string{"p", "r"} {
		lines = append(lines, haproxy.Statistic{Service: name, Server: haproxy.Frontend, Status: "OPEN"})
		for _, m := range []string{"1", "2", "3"} {
			key := name + "/" + m
			l := s.count[key]
			l.Service, l.Server, l.Status, l.Weight, l.Backup = name, m, s.status[key], 100, key == "r/1"
			lines = append(lines, l)
		}
		lines = append(lines, haproxy.Statistic{Service: name, Server: haproxy.Backend, Status: "UP"})
	}
	s.b.answered(s.now, lines)
}

// at goes on to a moment, in seconds from the beginning.
func (s *stage) at(seconds float64) *stage {
	s.now = began.Add(time.Duration(seconds * float64(time.Second)))
	return s
}

// over has all calm and gives the report of the event, line by line.
func (s *stage) over(seconds float64) string {
	s.t.Helper()
	s.at(seconds)
	e := s.b.calm(s.now)
	if e == nil {
		return "it goes on"
	}
	var b strings.Builder
	fmt.Fprintf(&b, "%s\n", e.What)
	for _, step := range e.Steps {
		fmt.Fprintf(&b, "%+.1f %s %s/%s %s", step.At.Sub(e.Began).Seconds(), step.Of, step.Service, step.Server, step.Did)
		if step.Sessions > 0 {
			fmt.Fprintf(&b, " (%d)", step.Sessions)
		}
		fmt.Fprintln(&b)
	}
	for _, d := range e.Disagreements {
		fmt.Fprintf(&b, "%s: %s, %s\n", d.Text(), d.Right, d.Because)
	}
	return strings.TrimSpace(b.String())
}

func (s *stage) want(got, want string) {
	s.t.Helper()
	if want = strings.TrimSpace(want); got != want {
		s.t.Errorf("got\n%s\nwant\n%s", got, want)
	}
}

func TestSwitchover(t *testing.T) {
	s := newStage(t)
	if len(s.b.open) > 0 || s.b.event != nil {
		t.Fatalf("before anything changed: %v, %v", s.b.open, s.b.event)
	}
	s.count["p/1"] = haproxy.Statistic{Sessions: 3, TotalSessions: 10}
	s.at(1).theirs()
	// The old primary is asked to leave.
	s.up["p/1"] = false
	s.at(2).ours()
	s.at(2.2).theirs()
	s.epoch["p/1"], s.holder = 1, ""
	s.at(2.6).ours()
	s.count["p/1"] = haproxy.Statistic{Sessions: 3, TotalSessions: 12, Failed: 2}
	s.at(2.8).theirs()
	// The next one is there.
	s.holder, s.up["p/2"], s.up["r/2"], s.epoch["r/2"] = "2", true, false, 1
	s.at(3.4).ours()
	s.at(3.6).theirs()
	s.status["p/1"], s.count["p/1"] = "DOWN", haproxy.Statistic{TotalSessions: 13, Failed: 2}
	s.at(4.8).theirs()
	s.status["p/2"], s.status["r/2"] = "UP", "DOWN"
	s.at(5.2).theirs()
	s.up["r/1"] = true
	s.at(5.3).ours()
	s.want(s.over(9), "it goes on")
	s.want(s.over(10.4), `
the leader changed from 1 to 2
+0.0 pgporter p/1 leads no new clients to it
+0.6 pgporter p/1 ends its sessions (3)
+1.4 pgporter p/2 leads new clients to it
+1.4 pgporter r/2 leads no new clients to it
+1.4 pgporter r/2 ends its sessions
+1.4 leader key /2 is held by it
+2.8 haproxy p/1 leads no new clients to it
+2.8 haproxy p/1 ends its sessions (3)
+3.2 haproxy p/2 leads new clients to it
+3.2 haproxy r/2 leads no new clients to it
+3.2 haproxy r/2 ends its sessions
p: HAProxy led new clients to 1 for 2.8s, pgporter would have led nobody there: pgporter, 2 held the leader key afterwards
p: HAProxy kept 3 sessions on 1 for 2.2s, pgporter would have ended them: pgporter, 2 held the leader key afterwards
p: HAProxy led no new clients to 2 for 1.8s, pgporter would have: pgporter, 2 held the leader key afterwards
r: HAProxy led new clients to 2 for 1.8s, pgporter would have led nobody there: unknown, the leader key says nothing of this service`)
	if n := len(s.b.settled); n != 4 {
		t.Errorf("%d disagreements were judged", n)
	}
	if len(s.b.open) != 0 {
		t.Errorf("they still disagree: %v", s.b.standing())
	}
}

// A primary that dies keeps its key for a while: who was right is judged when there is another.
func TestCrash(t *testing.T) {
	s := newStage(t)
	s.count["p/1"] = haproxy.Statistic{Sessions: 1, TotalSessions: 1}
	s.at(1).theirs()
	s.up["p/1"] = false
	s.at(2).ours()
	s.at(2.2).theirs()
	s.status["p/1"], s.count["p/1"] = "DOWN", haproxy.Statistic{TotalSessions: 1}
	s.at(4).theirs()
	s.want(s.over(10), "it goes on")
	s.want(s.over(20), "it goes on")
	s.holder, s.up["p/2"] = "2", true
	s.at(21).ours()
	s.status["p/2"] = "UP"
	s.at(21.2).theirs()
	s.want(s.over(27), `
the leader changed from 1 to 2
+0.0 pgporter p/1 leads no new clients to it
+2.0 haproxy p/1 leads no new clients to it
+2.0 haproxy p/1 ends its sessions (1)
+19.0 pgporter p/2 leads new clients to it
+19.0 leader key /2 is held by it
+19.2 haproxy p/2 leads new clients to it
p: HAProxy led new clients to 1 for 2s, pgporter would have led nobody there: pgporter, 2 held the leader key afterwards
p: HAProxy ended 1 session on 1, pgporter would have kept them: haproxy, 2 held the leader key afterwards`)
}

// A primary that was away for a moment and still leads: HAProxy was right to leave it in, unless its clients weren't taken.
func TestWhoWasRight(t *testing.T) {
	for _, test := range []struct {
		name   string
		change func(*stage)
		want   string
	}{
		{"the leader stays", func(*stage) {}, "haproxy, 1 held the leader key afterwards"},
		{"clients failed", func(s *stage) { s.count["p/1"] = haproxy.Statistic{TotalSessions: 2, Failed: 1, Retried: 3} },
			"pgporter, 1 held the leader key afterwards, but of the clients that HAProxy led to it 4 connections failed"},
		{"no key", func(s *stage) { s.watched = false }, "unknown, the leader key isn't known"},
	} {
		t.Run(test.name, func(t *testing.T) {
			s := newStage(t)
			s.up["p/1"] = false
			s.at(1).ours()
			s.at(1.2).theirs()
			test.change(s)
			s.up["p/1"] = true
			s.at(2).ours()
			s.at(2.2).theirs()
			s.want(s.over(8), `
1 went and came back
+0.0 pgporter p/1 leads no new clients to it
+1.0 pgporter p/1 leads new clients to it
p: HAProxy led new clients to 1 for 1s, pgporter would have led nobody there: `+test.want)
		})
	}
}

// HAProxy was first, by less than looks can tell.
func TestBothAtTheSameTime(t *testing.T) {
	s := newStage(t)
	s.count["r/3"] = haproxy.Statistic{Sessions: 2}
	s.at(1).theirs()
	s.status["r/3"], s.count["r/3"] = "DOWN", haproxy.Statistic{}
	s.at(2).theirs()
	s.up["r/3"], s.epoch["r/3"] = false, 1
	s.at(2.1).ours()
	s.at(2.2).theirs()
	s.want(s.over(8), `
3 went
+0.0 haproxy r/3 leads no new clients to it
+0.0 haproxy r/3 ends its sessions (2)
+0.1 pgporter r/3 leads no new clients to it
+0.1 pgporter r/3 ends its sessions`)
}

// What both do between two looks at HAProxy is no disagreement.
func TestBothWithinALook(t *testing.T) {
	s := newStage(t)
	s.count["r/3"] = haproxy.Statistic{Sessions: 2}
	s.at(1).theirs()
	s.up["r/3"], s.epoch["r/3"] = false, 1
	s.at(1.5).ours()
	s.status["r/3"], s.count["r/3"] = "MAINT", haproxy.Statistic{}
	s.at(2).theirs()
	s.want(s.over(8), `
3 went
+0.0 pgporter r/3 leads no new clients to it
+0.0 pgporter r/3 ends its sessions (2)
+0.5 haproxy r/3 leads no new clients to it
+0.5 haproxy r/3 ends its sessions (2)`)
}

// A disagreement that outlives its event is shown as one that lasts, and judged anew when it ends.
func TestStanding(t *testing.T) {
	s := newStage(t)
	s.status["r/3"] = "DRAIN"
	s.at(1).theirs()
	s.want(s.over(7), `
3 went
+0.0 haproxy r/3 leads no new clients to it
r: HAProxy led no new clients to 3 and still does, pgporter would have: unknown, the leader key says nothing of this service`)
	if len(s.b.standing()) != 1 || len(s.b.settled) != 0 {
		t.Fatalf("standing %v, settled %v", s.b.standing(), s.b.settled)
	}
	s.status["r/3"] = "UP"
	s.at(20).theirs()
	s.want(s.over(26), `
3 came
+0.0 haproxy r/3 leads new clients to it`)
	if len(s.b.standing()) != 0 || len(s.b.settled) != 1 || s.b.settled[0].Until.Sub(began) != 20*time.Second {
		t.Fatalf("standing %v, settled %v", s.b.standing(), s.b.settled)
	}
}

// HAProxy's files have roles as they were declared: a server that left our service goes on there, with its sessions.
func TestServerThatLeftTheService(t *testing.T) {
	s := newStage(t)
	s.count["r/2"] = haproxy.Statistic{Sessions: 5}
	s.at(1).theirs()
	s.gone["r/2"] = true
	s.at(2).ours()
	s.at(2.2).theirs()
	s.want(s.over(9), `
2 went
+0.0 pgporter r/2 leads no new clients to it
+0.0 pgporter r/2 ends its sessions (5)
r: HAProxy led new clients to 2 and still does, pgporter would have led nobody there: unknown, the leader key says nothing of this service
r: HAProxy kept 5 sessions on 2 and still does, pgporter would have ended them: unknown, the leader key says nothing of this service`)
}

// Backups get clients while no regular server is there: the first, or all where the service says so.
func TestBackups(t *testing.T) {
	servers := func(status ...string) []haproxy.Statistic {
		var all []haproxy.Statistic
		for i, s := range status {
			all = append(all, haproxy.Statistic{Status: s, Weight: 1, Backup: i > 0})
		}
		return all
	}
	for _, test := range []struct {
		servers []haproxy.Statistic
		all     bool
		want    string
	}{
		{servers("UP", "UP", "UP"), false, "[true false false]"},
		{servers("UP 1/3", "UP", "UP"), false, "[true false false]"},
		{servers("DOWN", "UP", "UP"), false, "[false true false]"},
		{servers("DOWN 1/2", "MAINT", "no check"), false, "[false false true]"},
		{servers("DRAIN", "UP", "UP"), true, "[false true true]"},
		{servers("NOLB", "DOWN", "MAINT (via p/1)"), true, "[false false false]"},
	} {
		if got := fmt.Sprint(usable(test.servers, test.all)); got != test.want {
			t.Errorf("%v, all %t: %s, want %s", test.servers, test.all, got, test.want)
		}
	}
	if usable([]haproxy.Statistic{{Status: "UP"}}, false)[0] {
		t.Error("a server without weight gets clients")
	}
}

// What is kept of an event has a bound, and what is beyond is counted.
func TestAnEventIsBounded(t *testing.T) {
	s := newStage(t)
	for i := range 300 {
		s.up["p/1"] = i%2 == 1
		s.at(1 + float64(i)/10).ours()
	}
	e := s.b.event
	if len(e.Steps) != mostSteps || e.Dropped != 100 {
		t.Errorf("%d steps, %d dropped", len(e.Steps), e.Dropped)
	}
}
