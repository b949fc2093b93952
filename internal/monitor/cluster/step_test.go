package cluster

import (
	"cmp"
	"flag"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/pgporter/pgporter/internal/config/resolve"
	"github.com/pgporter/pgporter/internal/monitor/etcd"
	"github.com/pgporter/pgporter/internal/monitor/health"
	"github.com/pgporter/pgporter/internal/monitor/view"
)

var update = flag.Bool("update", false, "rewrite what follows from each line of the transcripts in testdata")

// TestTranscripts plays the scenarios in testdata/*.txt. Lines that begin in the first column are played; the indented ones
// below each are what follows from it, and are rewritten by -update. `#` begins a comment.
//
//	cluster NAME                    begins with a new cluster (see declared)
//	TIME replace NAME               a reload
//	TIME N [/PATH] FLAGS ROLE STATE what Patroni of the N-th member says to all that it is asked, or to one path
//	TIME N [/PATH] silent REASON    what keeps it from answering; one that is refused is dead
//	TIME N [/PATH] nonsense STATUS  an answer that Patroni never gives
//	TIME N not asked REASON         this node couldn't ask
//	TIME N hangs                    what it is asked from now on stays unanswered, until it says something
//	TIME round                      all members say again what they said last
//	TIME rounds                     they do so every two seconds until then
//	TIME port N PORT answers        what comes of probing a port of the N-th member: also hangs, or refuses
//	TIME etcd leader N              the leader key names the N-th member (or whoever), or nobody
//	TIME etcd switchover N M        the failover key asks for a switchover, with `any` for who isn't named and `later` for a scheduled one;
//	                                or that is done
//	TIME etcd system ID             the initialize key has a system identifier
//	TIME etcd member N ROLE STATE   the member's own key
//	TIME etcd renewed               the leader key's lease is renewed now
//	TIME etcd lost REASON           and back; or it is stale: not read any more
//	TIME suspect N                  clients have failed at the N-th member
//	TIME await SERVICE              clients wait for one
//	TIME stood D                    this node stood still for D
//	TIME counts                     what was counted of the servers and members so far
//	TIME hopeless                   why no failover can come, as far as is known
//	TIME tick
//	TIME ticks                      all that time brings until then
//
// Questions are put by the schedule too, and but for those that hang come back as not asked: what is said stands in the lines. Unless etcd is lost or stale it has been read before each line.
//
// What follows: the log, `sessions end` (servers with a higher epoch), `start slowly` (servers that were down, where options
// say slowstart), `read etcd again`, the questions if they changed (asks), who is to be asked out of turn (soon), those who are asked
// at growing intervals if that changed (closely), the hold if that changed (held), and who serves if that changed: the members that take
// new clients of each service by their checks, as primary 1, replica 2 3, …; – is nobody.
func TestTranscripts(t *testing.T) {
	files, err := filepath.Glob("testdata/*.txt")
	if err != nil || len(files) == 0 {
		t.Fatalf("no transcripts: %v", err)
	}
	for _, file := range files {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".txt"), func(t *testing.T) {
			text, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			got := play(t, file, string(text))
			if *update {
				if err := os.WriteFile(file, []byte(got), 0o644); err != nil {
					t.Fatal(err)
				}
				return
			}
			want, have := strings.Split(string(text), "\n"), strings.Split(got, "\n")
			for i := range max(len(want), len(have)) {
				if i >= len(want) || i >= len(have) || want[i] != have[i] {
					t.Fatalf("%s:%d: differs; played it gives\n%s", file, i+1, got)
				}
			}
		})
	}
}

func play(t *testing.T, file, text string) string {
	var out []string
	var s State
	start := time.Unix(0, 0)
	now := start
	said, hanging := map[string]scripted{}, map[string]bool{}
	var etcd picture
	for i, line := range strings.Split(strings.TrimRight(text, "\n"), "\n") {
		if strings.HasPrefix(line, " ") {
			continue
		}
		out = append(out, line)
		words := strings.Fields(line)
		if len(words) == 0 || strings.HasPrefix(line, "#") {
			continue
		}
		fail := func(format string, args ...any) { t.Fatalf("%s:%d: %s", file, i+1, fmt.Sprintf(format, args...)) }
		if words[0] == "cluster" {
			var a Actions
			s, a = Begin(planning(t, words[1]), 1, start)
			now = start
			clear(said)
			clear(hanging)
			etcd = picture{}
			out = append(out, follows(nil, &s, []Actions{a})...)
			continue
		}
		at, err := time.ParseDuration(words[0])
		if err != nil || len(words) < 2 || start.Add(at).Before(now) {
			fail("want a TIME that doesn't go back, and an event")
		}
		since := now
		now = start.Add(at)
		var events []Event
		round := func(when time.Time) {
			if etcd.heard() {
				events = append(events, Keyed{etcd.reading(when)})
			}
			for _, target := range s.asked() {
				if says, any := said[target.Member]; any {
					events = append(events, Checked{health.Result{Target: target, Outcome: says.on(target.Path), Ended: when}})
				}
			}
		}
		before := s.Clone()
		var all []Actions
		take := func(a Actions, when time.Time) { all = append(all, unput(&s, a, hanging, when)...) }
		if etcd.heard() {
			events = append(events, Keyed{etcd.reading(now)})
		}
		switch words[1] {
		case "counts":
			out = append(out, counts(&s, now)...)
			continue
		case "hopeless":
			out = append(out, "    "+cmp.Or(s.view.Hopeless, "no: one may come"))
			continue
		case "tick":
			events = append(events, Ticked{})
		case "ticks":
			for at, any := s.Deadline(); any && at.Before(now); at, any = s.Deadline() {
				if at.Before(since) {
					at = since
				}
				if etcd.heard() && at.Sub(s.key.now.Read) > time.Second {
					take(s.Step(Keyed{etcd.reading(at)}, at), at)
				}
				take(s.Step(Ticked{}, at), at)
				since = at.Add(time.Millisecond)
			}
			events = append(events, Ticked{})
		case "suspect":
			events = append(events, Suspected{[]string{"pg-test-" + words[2]}})
		case "await":
			events = append(events, Awaited{[]string{"pg-test-" + words[2]}})
		case "stood":
			d, err := time.ParseDuration(words[2])
			if err != nil {
				fail("%v", err)
			}
			events = []Event{Stood{d}}
		case "etcd":
			events = nil
			if !etcd.says(words[2:], now) {
				fail("etcd says leader, switchover, system, member, renewed, lost, stale or back")
			}
			// What happens in etcd while it is lost is seen when it is back.
			if etcd.heard() || words[2] == "lost" {
				events = []Event{Keyed{etcd.reading(now)}}
			}
		case "port":
			if len(words) != 5 || outcomesOfProbes[words[4]] == nil {
				fail("want port N PORT answers, hangs or refuses")
			}
			events = nil
			for at := range s.ports {
				if at.Member == "pg-test-"+words[2] && strings.HasSuffix(at.Base, ":"+words[3]) {
					events = append(events, Probed{health.Result{Target: at, Outcome: *outcomesOfProbes[words[4]], Ended: now}})
				}
			}
			if len(events) != 1 {
				fail("no service has port %s of %s", words[3], words[2])
			}
		case "replace":
			events = []Event{planning(t, words[2])}
		case "round":
			events = nil
			round(now)
		case "rounds":
			events = nil
			for when := since.Add(2 * time.Second); when.Before(now); when = when.Add(2 * time.Second) {
				round(when)
			}
			round(now)
		default:
			member, rest, path := "pg-test-"+words[1], words[2:], ""
			if strings.HasPrefix(rest[0], "/") {
				path, rest = rest[0], rest[1:]
			}
			if hanging[member] = rest[0] == "hangs"; hanging[member] {
				break
			}
			says := script(rest)
			said[member] = says
			any := false
			for _, target := range s.asked() {
				if target.Member == member && (path == "" || path == target.Path) {
					events, any = append(events, Checked{health.Result{Target: target, Outcome: says.on(target.Path), Ended: now}}), true
				}
			}
			if !any {
				fail("%s isn't asked for %q", member, path)
			}
		}
		for _, e := range events {
			var a Actions
			when := now
			switch e := e.(type) {
			case Checked:
				when = e.Ended
			case Keyed:
				if e.Read.After(start) {
					when = e.Read
				}
			}
			a = s.Step(e, when)
			take(a, when)
		}
		out = append(out, follows(&before, &s, all)...)
	}
	return strings.Join(out, "\n") + "\n"
}

// outcomesOfProbes are what may come of one.
var outcomesOfProbes = map[string]*health.Outcome{
	"answers": {}, "hangs": {Silence: "timed out after 1s", Accepted: true}, "refuses": {Silence: "connection refused", Dead: true},
}

func planning(t *testing.T, name string) Planned {
	c, known := declared(name)
	if !known {
		t.Fatalf("no cluster is called %s", name)
	}
	r, err := resolve.New(c)
	if err != nil {
		t.Fatal(err)
	}
	return Planned{Cluster: c, Resolver: r, Holdless: name == "pair-holdless"}
}

// follows writes what came of a line's events.
func follows(before, after *State, all []Actions) []string {
	var lines []string
	add := func(format string, args ...any) { lines = append(lines, "    "+fmt.Sprintf(format, args...)) }
	confirm := false
	for _, a := range all {
		if a.Refused != nil {
			add("refused: %v", a.Refused)
		}
		for _, m := range a.Log {
			add("%-5s %s", m.Level, m.Text)
		}
		confirm = confirm || a.Confirm
	}
	var ended, slow []string
	for _, svc := range after.view.Services {
		for i, carrier := range svc.Servers {
			if before == nil {
				continue
			}
			old := before.view.Service(svc.FullName)
			if old == nil {
				continue
			}
			for j, was := range old.Servers {
				if was.Member == carrier.Member && svc.Health[i].Epoch > old.Health[j].Epoch {
					ended = append(ended, svc.Name+" "+short(carrier.Member))
					if svc.Health[i].Ended == "" {
						add("%s of %s end without a reason", svc.Name, carrier.Member)
					}
				}
				if was.Member == carrier.Member && svc.Options.SlowStart > 0 && svc.Health[i].Recovered != old.Health[j].Recovered {
					slow = append(slow, svc.Name+" "+short(carrier.Member))
				}
			}
		}
	}
	if len(ended) > 0 {
		add("sessions end: %s", strings.Join(ended, ", "))
	}
	if len(slow) > 0 {
		add("start slowly: %s", strings.Join(slow, ", "))
	}
	if before != nil {
		switch was, is := before.counted, after.counted; {
		case was.outage.IsZero() && !is.outage.IsZero():
			add("an outage begins")
		case !was.outage.IsZero() && is.outage.IsZero():
			add("the outage is over, in all %s", is.outages.Sum)
		}
	}
	if confirm {
		add("read etcd again")
	}
	for _, says := range []func(*State) string{asking, soon, closely} {
		was := ""
		if before != nil {
			was = says(before)
		}
		if now := says(after); now != was && now != "" {
			add("%s", now)
		} else if now != was {
			add("not %s any more", was)
		}
	}
	if before != nil {
		switch was, is := before.view.Hold, after.view.Hold; {
		case is == was:
		case is.ID == "":
			add("not held any more")
		default:
			add("held by %s from %s to %s until %s", is.ID, cmp.Or(short(is.From), "any"), cmp.Or(short(is.To), "any"), is.Until.Sub(time.Unix(0, 0)))
		}
	}
	if now := serving(after.view); before == nil || now != serving(before.view) {
		add("%s", now)
	}
	return lines
}

// counts tells what was counted.
func counts(s *State, now time.Time) []string {
	var lines []string
	for _, svc := range s.set.Services {
		for _, carrier := range svc.Servers {
			key := serverKey{svc.FullName, carrier.Member}
			if c := s.counted.checks[key]; c.Failures > 0 || c.Downs > 0 {
				down := c.DownFor
				if v := s.servers[key]; !v.up {
					down += now.Sub(v.since)
				}
				lines = append(lines, fmt.Sprintf("    %s %s: %d checks failed, down %d times, %s in all", svc.Name, short(carrier.Member), c.Failures, c.Downs, down))
			}
		}
	}
	for _, name := range s.names() {
		if lag, known := s.lag(s.members[name]); known {
			lines = append(lines, fmt.Sprintf("    %s lags %d", short(name), lag))
		}
	}
	return lines
}

// stepped is Step where nobody puts the questions that follow.
func stepped(s State, e Event, now time.Time) (State, Actions) {
	a := s.Step(e, now)
	unput(&s, a, nil, now)
	return s, a
}

// unput has the questions of a step come back as not asked, but those of members that hang. It gives the step's Actions and those that
// come of that.
func unput(s *State, a Actions, hanging map[string]bool, now time.Time) []Actions {
	all := []Actions{a}
	for _, q := range a.Ask {
		switch r := (health.Result{Target: q.Target, Outcome: health.Outcome{Silence: "not now", NotAsked: true}, Ended: now}); {
		case q.Port:
			all = append(all, unput(s, s.Step(Probed{r}, now), hanging, now)...)
		case !hanging[q.Member]:
			all = append(all, unput(s, s.Step(Checked{r}, now), hanging, now)...)
		}
	}
	return all
}

// asked are all questions, in order.
func (s *State) asked() []health.Target {
	all := slices.Collect(maps.Keys(s.wanted))
	slices.SortFunc(all, func(a, b health.Target) int {
		return cmp.Or(strings.Compare(a.Member, b.Member), strings.Compare(a.Path, b.Path), strings.Compare(a.Base, b.Base), strings.Compare(fmt.Sprint(a.TLS), fmt.Sprint(b.TLS)))
	})
	return all
}

func asking(s *State) string {
	words := []string{"asks"}
	for _, t := range s.asked() {
		words = append(words, short(t.Member)+t.Path)
	}
	return strings.Join(words, " ")
}

// soon are the members that are to be asked out of turn, and whose answers are dear.
func soon(s *State) string {
	words, dear := []string{"soon"}, []string{"; dear"}
	for _, name := range s.names() {
		m := s.members[name]
		if m.api.Urgent() {
			words = append(words, short(name))
		}
		if m.api.Dear() {
			dear = append(dear, short(name))
		}
	}
	if len(dear) > 1 {
		return strings.Join(words, " ") + strings.Join(dear, " ")
	}
	if len(words) == 1 {
		return ""
	}
	return strings.Join(words, " ")
}

// closely are the members that are asked at growing intervals.
func closely(s *State) string {
	words := []string{"closely"}
	for _, name := range s.names() {
		if s.closely(name) {
			words = append(words, short(name))
		}
	}
	if len(words) == 1 {
		return ""
	}
	return strings.Join(words, " ")
}

// picture is what etcd says in a transcript.
type picture struct {
	now      etcd.Reading
	revision int64
	lost     string
	// said says that it was heard at all, stale that it isn't read any more.
	said, stale bool
}

// says changes the picture by the words of a line; false if they aren't understood.
func (p *picture) says(words []string, now time.Time) bool {
	p.revision++
	p.said = true
	member := func(word string) string {
		if word == "any" {
			return ""
		}
		if strings.Trim(word, "0123456789") == "" {
			return "pg-test-" + word
		}
		return word
	}
	switch rest := words[1:]; {
	case words[0] == "leader" && len(rest) == 1 && rest[0] == "nobody":
		p.now.Leader, p.now.LeaderRevision = "", 0
	case words[0] == "leader" && len(rest) == 1:
		p.now.Leader, p.now.LeaderRevision = member(rest[0]), p.revision
	case words[0] == "switchover" && len(rest) == 1 && rest[0] == "done":
		p.now.Failover, p.now.FailoverRevision = "", 0
	case words[0] == "switchover" && len(rest) == 2:
		p.now.Failover, p.now.FailoverRevision = fmt.Sprintf(`{"leader":"%s","member":"%s"}`, member(rest[0]), member(rest[1])), p.revision
	case words[0] == "switchover" && len(rest) == 3 && rest[2] == "later":
		p.now.Failover, p.now.FailoverRevision = fmt.Sprintf(`{"leader":"%s","member":"%s","scheduled_at":"2026-11-22T03:00:00+00:00"}`, member(rest[0]), member(rest[1])), p.revision
	case words[0] == "system" && len(rest) == 1:
		p.now.System = rest[0]
	case words[0] == "lost" && len(rest) > 0:
		p.lost = strings.Join(rest, " ")
	case words[0] == "back" && len(rest) == 0:
		p.lost, p.stale = "", false
	case words[0] == "stale" && len(rest) == 0:
		p.stale = true
	case words[0] == "renewed" && len(rest) == 0:
		p.now.Renewed = now
	case words[0] == "standby-cluster" && len(rest) == 0:
		p.now.Standby = true
	case words[0] == "member" && len(rest) > 1:
		name := member(rest[0])
		p.now.Members = slices.DeleteFunc(slices.Clone(p.now.Members), func(m etcd.MemberKey) bool { return m.Name == name })
		p.now.Members = append(p.now.Members, etcd.MemberKey{Name: name, Role: rest[1], State: strings.Join(rest[2:], " "), Revision: p.revision})
		slices.SortFunc(p.now.Members, func(a, b etcd.MemberKey) int { return strings.Compare(a.Name, b.Name) })
	default:
		return false
	}
	return true
}

// heard says that it is read all the time.
func (p *picture) heard() bool { return p.said && p.lost == "" && !p.stale }

func (p *picture) reading(now time.Time) etcd.Reading {
	if p.lost != "" {
		return etcd.Reading{Lost: p.lost}
	}
	r := p.now
	r.Read = now
	return r
}

func short(member string) string { return strings.TrimPrefix(member, "pg-test-") }

func serving(v *view.View) string {
	var parts []string
	for _, svc := range v.Services {
		words := []string{svc.Name}
		for _, i := range svc.Usable() {
			words = append(words, short(svc.Servers[i].Member))
		}
		if len(words) == 1 {
			words = append(words, "–")
		}
		parts = append(parts, strings.Join(words, " "))
	}
	return "serve " + strings.Join(parts, ", ")
}
