package cluster

import (
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
//	TIME N [/PATH] FLAGS ROLE STATE what Patroni of the N-th member says to all its checks, or to one
//	TIME N [/PATH] silent REASON    what keeps it from answering
//	TIME round                      all members say again what they said last
//	TIME rounds                     they do so every two seconds until then
//	TIME port N PORT answers        what comes of probing a port of the N-th member: also hangs, or refuses
//	TIME etcd leader N              the leader key names the N-th member (or whoever), or nobody
//	TIME etcd switchover N M        the failover key asks for a switchover, with `later` for a scheduled one; or that is done
//	TIME etcd system ID             the initialize key has a system identifier
//	TIME etcd lost REASON           and back
//	TIME tick
//
// What follows: the log, `sessions end` (servers with a higher epoch), `start slowly` (servers that were down, where options
// say slowstart), `recheck`, `read etcd again`, the checks if they
// changed, those that run more often than fastinter if that changed, and who serves if that changed: the members that take
// new clients of each service, as primary 1, replica 2 3, …; – is nobody.
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
	said := map[string]scripted{}
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
			s, a = Begin(planning(t, words[1]), start)
			now = start
			clear(said)
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
			for _, c := range s.checks() {
				if says, any := said[c.Member]; any {
					events = append(events, Checked{health.Result{Target: c.Target, Outcome: says.on(c.Path), Ended: when}})
				}
			}
		}
		switch words[1] {
		case "tick":
			events = []Event{Ticked{}}
		case "etcd":
			if !etcd.says(words[2:]) {
				fail("etcd says leader, switchover, system, lost or back")
			}
			// What happens in etcd while it is lost is seen when it is back.
			if etcd.lost == "" || words[2] == "lost" {
				events = []Event{Keyed{etcd.reading()}}
			}
		case "port":
			if len(words) != 5 || outcomesOfProbes[words[4]] == nil {
				fail("want port N PORT answers, hangs or refuses")
			}
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
			round(now)
		case "rounds":
			for when := since.Add(2 * time.Second); when.Before(now); when = when.Add(2 * time.Second) {
				round(when)
			}
			round(now)
		default:
			member, rest, path := "pg-test-"+words[1], words[2:], ""
			if strings.HasPrefix(rest[0], "/") {
				path, rest = rest[0], rest[1:]
			}
			says := script(rest)
			said[member] = says
			for _, c := range s.checks() {
				if c.Member == member && (path == "" || path == c.Path) {
					events = append(events, Checked{health.Result{Target: c.Target, Outcome: says.on(c.Path), Ended: now}})
				}
			}
			if len(events) == 0 {
				fail("%s isn't checked by %q", member, path)
			}
		}
		before := s
		var all []Actions
		for _, e := range events {
			var a Actions
			when := now
			if c, is := e.(Checked); is {
				when = c.Ended
			}
			s, a = Step(s, e, when)
			all = append(all, a)
		}
		out = append(out, follows(&before, &s, all)...)
	}
	return strings.Join(out, "\n") + "\n"
}

// outcomesOfProbes are what may come of one.
var outcomesOfProbes = map[string]*health.Outcome{
	"answers": {}, "hangs": {Silence: "timed out after 1s", Accepted: true}, "refuses": {Silence: "connection refused"},
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
	return Planned{Cluster: c, Resolver: r}
}

// follows writes what came of a line's events.
func follows(before, after *State, all []Actions) []string {
	var lines []string
	add := func(format string, args ...any) { lines = append(lines, "    "+fmt.Sprintf(format, args...)) }
	var recheck []string
	checks, confirm := false, false
	for _, a := range all {
		if a.Refused != nil {
			add("refused: %v", a.Refused)
		}
		for _, m := range a.Log {
			add("%-5s %s", m.Level, m.Text)
		}
		recheck = append(recheck, a.Recheck...)
		checks = checks || a.Checks != nil
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
	if len(recheck) > 0 {
		slices.Sort(recheck)
		names := slices.Compact(recheck)
		for i, name := range names {
			names[i] = short(name)
		}
		add("recheck %s", strings.Join(names, " "))
	}
	if confirm {
		add("read etcd again")
	}
	if checks {
		var words []string
		for _, c := range after.checks() {
			words = append(words, short(c.Member)+c.Path)
		}
		add("checks %s", strings.Join(words, " "))
	}
	if now := closely(after); before != nil && now != closely(before) {
		add("%s", now)
	}
	if now := serving(after.view); before == nil || now != serving(before.view) {
		add("%s", now)
	}
	return lines
}

// closely are the checks that run more often than any option asks for.
func closely(s *State) string {
	paces := map[time.Duration][]string{}
	for _, c := range s.checks() {
		if c.Interval < time.Second {
			paces[c.Interval] = append(paces[c.Interval], short(c.Member)+c.Path)
		}
	}
	if len(paces) == 0 {
		return "check at the ordinary pace"
	}
	var parts []string
	for _, pace := range slices.Sorted(maps.Keys(paces)) {
		parts = append(parts, fmt.Sprintf("check every %v: %s", pace, strings.Join(paces[pace], " ")))
	}
	return strings.Join(parts, ", ")
}

// picture is what etcd says in a transcript.
type picture struct {
	now      etcd.Reading
	revision int64
	lost     string
}

// says changes the picture by the words of a line; false if they aren't understood.
func (p *picture) says(words []string) bool {
	p.revision++
	member := func(word string) string {
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
		p.lost = ""
	default:
		return false
	}
	return true
}

func (p *picture) reading() etcd.Reading {
	if p.lost != "" {
		return etcd.Reading{Lost: p.lost}
	}
	return p.now
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
