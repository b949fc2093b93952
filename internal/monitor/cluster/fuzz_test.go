package cluster

import (
	"cmp"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/pgporter/pgporter/internal/config/model"
	"github.com/pgporter/pgporter/internal/config/resolve"
	"github.com/pgporter/pgporter/internal/monitor/health"
	"github.com/pgporter/pgporter/internal/monitor/view"
)

// sayings are what members may say in FuzzStep.
var sayings = []string{
	"lock primary running", "replica running", "silent timed out", "demoted stopped", "lock primary stopping", "lock replica running",
	"primary running", "lock unlocked primary running", "lagging replica running", "lock promoted running", "uninitialized stopped",
	"lock unlocked failsafe primary running", "lock standby-cluster standby_leader running", "replica starting", "lock primary crashed", "lock demoted stopping",
	"lock paused primary running", "unlocked paused primary running",
}

// FuzzStep plays events that the bytes choose (two for each: who or what, and what it says or how long it takes) and holds
// what may never be otherwise:
//
//   - a leader's service has at most one server up, and only on a pass, or in silence within the TTL of one (silence in maintenance is as good);
//   - while etcd says who holds the leader key nobody else is up in a leader's service;
//   - nobody is up in the offline service who last said that it is a leader, or who is known to hold the leader key;
//   - nobody is up whose port lets nobody in, and no session ends by that;
//   - epochs never fall, also for servers that left and came back; versions rise by one;
//   - at most one member is primary.
func FuzzStep(f *testing.F) {
	f.Add([]byte{0, 0, 1, 1, 2, 1, 3, 10, 0, 4, 0, 3, 1, 5, 1, 0})
	f.Add([]byte{0, 0, 1, 0, 2, 1, 0, 2, 3, 40, 0, 2, 3, 255, 0, 2})
	f.Add([]byte{4, 4, 0, 0, 1, 1, 4, 2, 2, 1, 4, 0, 4, 5, 2, 0})
	f.Add([]byte{0, 0, 1, 1, 5, 0, 5, 6, 0, 4, 5, 3, 5, 1, 1, 0, 0, 0, 5, 4, 0, 0, 5, 5, 5, 7})
	f.Add([]byte{0, 0, 1, 1, 6, 1, 3, 10, 6, 1, 3, 10, 6, 1, 6, 0, 6, 4, 6, 5, 1, 2})
	f.Add([]byte{0, 7, 1, 7, 0, 11, 2, 5, 1, 15, 2, 0, 4, 1, 4, 0})
	plans := variants(f)
	f.Fuzz(func(t *testing.T, bytes []byte) { holdInvariants(t, plans, bytes) })
}

// TestStepInvariants plays FuzzStep's rules over random sequences, always the same ones.
func TestStepInvariants(t *testing.T) {
	plans := variants(t)
	random := rand.New(rand.NewPCG(1, 2))
	for range 60 {
		bytes := make([]byte, 2*random.IntN(100))
		for i := range bytes {
			bytes[i] = byte(random.Uint32())
		}
		holdInvariants(t, plans, bytes)
	}
}

// variants are the declarations that FuzzStep changes between.
func variants(t testing.TB) []Planned {
	var plans []Planned
	for _, name := range []string{"trio", "dedicated", "pair", "trio-few", "trio-moved", "trio-paths"} {
		c, _ := declared(name)
		r, err := resolve.New(c)
		if err != nil {
			t.Fatal(err)
		}
		plans = append(plans, Planned{Cluster: c, Resolver: r})
	}
	return plans
}

func holdInvariants(t *testing.T, plans []Planned, bytes []byte) {
	now := time.Unix(0, 0)
	s, a := Begin(plans[0], 1, now)
	version := a.View.Version
	epochs := map[serverKey]uint64{}
	type heard struct {
		says   scripted
		passed time.Time
	}
	last := map[string]heard{}
	var etcd picture
	apply := func(e Event) {
		s, a = stepped(s, e, now)
		if a.Refused != nil {
			t.Fatalf("refused: %v", a.Refused)
		}
		if a.View == nil {
			return
		}
		// A question that comes back as not asked may have had one published too.
		if a.View.Version <= version {
			t.Fatalf("version %d after %d", a.View.Version, version)
		}
		version = a.View.Version
		primaries := 0
		for _, m := range a.View.Members {
			if m.Live == model.Primary {
				primaries++
			}
		}
		if primaries > 1 {
			t.Fatalf("%d primaries", primaries)
		}
		if h := a.View.Hold; h.ID != "" {
			if leaders := view.Leaders(a.View.Services); len(leaders) > 0 && !slices.Equal(leaders, []string{h.From}) {
				t.Fatalf("held for who leads after %s, and these do: %v", h.From, leaders)
			}
			if !now.Before(h.Until) || h.Until.Sub(h.Since) > holdVacant {
				t.Fatalf("held since %v until %v, and it is %v", h.Since, h.Until, now)
			}
		}
		for _, svc := range a.View.Services {
			ups := 0
			for i, carrier := range svc.Servers {
				h, key := svc.Health[i], serverKey{svc.FullName, carrier.Member}
				if h.Epoch < epochs[key] {
					t.Fatalf("%v: epoch %d after %d", key, h.Epoch, epochs[key])
				}
				epochs[key] = h.Epoch
				if !h.Up {
					continue
				}
				ups++
				if why := s.ports[destination(carrier, svc.Options)].Closed(); why != "" {
					t.Fatalf("%v is up, and its port lets nobody in: %s", key, why)
				}
				said := last[carrier.Member]
				outcome := said.says.on(svc.Check)
				answer := outcome.Answer
				if !strings.HasPrefix(svc.Check, "/primary") {
					if svc.Name == "offline" && outcome.Silence == "" && answer.Role != "replica" {
						t.Fatalf("offline connects to %s, which says %s", carrier.Member, outcome.Words())
					}
					if svc.Name == "offline" && s.keyed && carrier.Member == s.primary {
						t.Fatalf("offline connects to %s, which holds the leader key", carrier.Member)
					}
					continue
				}
				passes := outcome.Silence == "" && answer.Status == 200 && answer.Role == "primary" && answer.State == "running"
				inTime := outcome.Silence != "" && !said.passed.IsZero() && now.Sub(said.passed) < 20*time.Second
				if holder := etcd.reading(now).Leader; holder != "" && holder != carrier.Member && s.isMember(holder) {
					t.Fatalf("%s connects to %s, while %s holds the leader key", svc.FullName, carrier.Member, holder)
				}
				if !passes && !inTime {
					t.Fatalf("%s connects to %s, which says %s and passed at %v (now %v)", svc.FullName, carrier.Member, outcome.Words(), said.passed, now)
				}
			}
			if strings.HasPrefix(svc.Check, "/primary") && ups > 1 {
				t.Fatalf("%s has %d servers up", svc.FullName, ups)
			}
		}
	}
	for len(bytes) >= 2 {
		who, what := bytes[0]%7, bytes[1]
		bytes = bytes[2:]
		switch who {
		case 3:
			now = now.Add(time.Duration(what) * 100 * time.Millisecond)
			apply(Ticked{})
		case 4:
			apply(plans[int(what)%len(plans)])
			// Results of a former address are not this member's.
			for name := range last {
				if m := s.members[name]; !m.checked {
					delete(last, name)
				}
			}
		case 5:
			words := []string{"leader 1", "leader 2", "leader 3", "leader nobody", "lost timed out", "back", "switchover 1 2", "leader stranger"}
			if !etcd.says(strings.Fields(words[int(what)%len(words)]), now) {
				t.Fatal("etcd doesn't say this")
			}
			apply(Keyed{etcd.reading(now)})
		case 6:
			all := slices.SortedFunc(maps.Keys(s.ports), func(a, b health.Target) int {
				return cmp.Or(strings.Compare(a.Member, b.Member), strings.Compare(a.Base, b.Base))
			})
			outcome := []string{"answers", "hangs", "refuses"}[int(what)%3]
			before := s.Clone()
			apply(Probed{health.Result{Target: all[int(what)/3%len(all)], Outcome: *outcomesOfProbes[outcome], Ended: now}})
			for key, v := range s.servers {
				if v.epoch != before.servers[key].epoch && !due(before, now) {
					t.Fatalf("%v: sessions ended by a probe", key)
				}
			}
		default:
			says := script(strings.Fields(sayings[int(what)%len(sayings)]))
			for _, c := range s.asked() {
				if c.Member != "pg-test-"+string('1'+rune(who)) {
					continue
				}
				o := says.on(c.Path)
				note := heard{says, last[c.Member].passed}
				if o.Silence == "" && o.Answer.Status == 200 || o.Silence != "" && s.maintained(c.Member) {
					note.passed = now
				}
				last[c.Member] = note
				apply(Checked{health.Result{Target: c, Outcome: o, Ended: now}})
			}
		}
	}
}

// due says that time alone changes a state.
func due(s State, now time.Time) bool {
	at, limited := s.Deadline()
	return limited && !now.Before(at)
}

// quietCluster is a cluster of three that goes well: its questions and probes are put when they are due, and answered a moment later.
type quietCluster struct {
	State
	now  time.Time
	says map[string]health.Outcome
	// ticks and questions are how often it woke to ask, and what it asked; asked are the times of questions to each respondent.
	ticks, questions int
	asked            map[health.Target][]time.Time
}

func newQuiet(t testing.TB, seed uint64) *quietCluster {
	c, _ := declared("trio-pooled")
	r, err := resolve.New(c)
	if err != nil {
		t.Fatal(err)
	}
	q := &quietCluster{now: time.Unix(0, 0), says: map[string]health.Outcome{}}
	for i, words := range []string{"lock primary running", "replica running", "replica running"} {
		q.says[c.Members[i].Name] = script(strings.Fields(words)).on(primaryQuestion)
	}
	s, a := Begin(Planned{Cluster: c, Resolver: r}, seed, q.now)
	q.State = s
	q.answer(a.Ask)
	return q
}

func (q *quietCluster) answer(asked []Question) {
	q.questions += len(asked)
	for _, question := range asked {
		if q.asked != nil {
			q.asked[question.Target] = append(q.asked[question.Target], q.now)
		}
	}
	for _, question := range asked {
		q.now = q.now.Add(time.Millisecond)
		var e Event = Checked{health.Result{Target: question.Target, Outcome: q.says[question.Member], Ended: q.now}}
		if question.Port {
			e = Probed{health.Result{Target: question.Target, Ended: q.now}}
		}
		q.answer(q.Step(e, q.now).Ask)
	}
}

func (q *quietCluster) turn() {
	if at, _ := q.Deadline(); at.After(q.now) {
		q.now = at
	}
	q.ticks++
	q.answer(q.Step(Ticked{}, q.now).Ask)
}

// TestGathered: what a cluster's members and ports are asked in peace is asked together, no sooner than the options say and as often as
// if each had pauses of its own; also after somebody was asked out of turn. Nodes don't come to ask at the same times.
func TestGathered(t *testing.T) {
	const inter = 2 * time.Second
	var phases [2][]time.Time
	for node := range phases {
		q := newQuiet(t, uint64(node+1))
		began := q.now
		for q.now.Sub(began) < 10*time.Minute {
			q.turn()
		}
		// A client couldn't connect.
		q.answer(q.Step(Suspected{[]string{"pg-test-2"}}, q.now.Add(inter/2)).Ask)
		for q.now.Sub(began) < 20*time.Minute {
			q.turn()
		}
		q.ticks, q.questions, q.asked = 0, 0, map[health.Target][]time.Time{}
		began = q.now
		for q.now.Sub(began) < time.Hour {
			q.turn()
		}
		if perTick := float64(q.questions) / float64(q.ticks); perTick < 5.5 {
			t.Errorf("node %d: %.1f questions a time, of 3 members and 3 ports", node, perTick)
		}
		for at, times := range q.asked {
			for i, when := range times[1:] {
				if gap := when.Sub(times[i]); gap < inter {
					t.Fatalf("node %d: %v twice within %v", node, at, gap)
				}
			}
			// A pause of its own would be 2.125 s on the average.
			if n := len(times); !strings.HasSuffix(at.Base, ":5432") && (n < 1640 || n > 1710) {
				t.Errorf("node %d: %v was asked %d times in an hour", node, at, n)
			}
		}
		phases[node] = q.asked[targetOf(q.member("pg-test-1"), model.Definition{Check: primaryQuestion})]
	}
	near := 0
	for _, when := range phases[0] {
		if slices.ContainsFunc(phases[1], func(other time.Time) bool { return when.Sub(other).Abs() < 100*time.Millisecond }) {
			near++
		}
	}
	// By chance alone it is a tenth.
	if near > len(phases[0])/5 {
		t.Errorf("two nodes ask at the same time in %d cases of %d", near, len(phases[0]))
	}
}

// BenchmarkQuiet is a turn of a cluster of three that goes well: its questions and probes are put when they are due, and answered.
func BenchmarkQuiet(b *testing.B) {
	q := newQuiet(b, 1)
	for range 1000 {
		q.turn()
	}
	q.questions, q.ticks = 0, 0
	b.ReportAllocs()
	for b.Loop() {
		q.turn()
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(q.questions), "ns/question")
	b.ReportMetric(float64(q.questions)/float64(q.ticks), "questions/tick")
}
