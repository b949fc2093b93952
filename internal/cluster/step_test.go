package cluster

import (
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/pgporter/pgporter/internal/health"
	"github.com/pgporter/pgporter/internal/resolve"
	"github.com/pgporter/pgporter/internal/state"
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
//	TIME tick
//
// What follows: the log, `sessions end` (servers with a higher epoch), `recheck`, the checks if they changed, and who serves
// if that changed: the members that take new clients of each service, as primary 1, replica 2 3, …; – is nobody.
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
			out = append(out, follows(nil, &s, []Actions{a})...)
			continue
		}
		at, err := time.ParseDuration(words[0])
		if err != nil || len(words) < 2 || start.Add(at).Before(now) {
			fail("want a TIME that doesn't go back, and an event")
		}
		now = start.Add(at)
		var events []Event
		switch words[1] {
		case "tick":
			events = []Event{Ticked{}}
		case "replace":
			events = []Event{planning(t, words[2])}
		case "round":
			for _, c := range s.checks() {
				if says, any := said[c.Member]; any {
					events = append(events, Checked{health.Result{Target: c.Target, Outcome: says.on(c.Path), Ended: now}})
				}
			}
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
			s, a = Step(s, e, now)
			all = append(all, a)
		}
		out = append(out, follows(&before, &s, all)...)
	}
	return strings.Join(out, "\n") + "\n"
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
	return Planned{c, r}
}

// follows writes what came of a line's events.
func follows(before, after *State, all []Actions) []string {
	var lines []string
	add := func(format string, args ...any) { lines = append(lines, "    "+fmt.Sprintf(format, args...)) }
	var recheck []string
	checks := false
	for _, a := range all {
		if a.Refused != nil {
			add("refused: %v", a.Refused)
		}
		for _, m := range a.Log {
			add("%-5s %s", m.Level, m.Text)
		}
		recheck = append(recheck, a.Recheck...)
		checks = checks || a.Checks != nil
	}
	var ended []string
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
				}
			}
		}
	}
	if len(ended) > 0 {
		add("sessions end: %s", strings.Join(ended, ", "))
	}
	if len(recheck) > 0 {
		slices.Sort(recheck)
		names := slices.Compact(recheck)
		for i, name := range names {
			names[i] = short(name)
		}
		add("recheck %s", strings.Join(names, " "))
	}
	if checks {
		var words []string
		for _, c := range after.checks() {
			words = append(words, short(c.Member)+c.Path)
		}
		add("checks %s", strings.Join(words, " "))
	}
	if now := serving(after.view); before == nil || now != serving(before.view) {
		add("%s", now)
	}
	return lines
}

func short(member string) string { return strings.TrimPrefix(member, "pg-test-") }

func serving(v *state.View) string {
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
