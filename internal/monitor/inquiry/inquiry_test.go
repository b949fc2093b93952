package inquiry

import (
	"flag"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/pgporter/pgporter/internal/monitor/health"
)

var update = flag.Bool("update", false, "rewrite what follows from each line of the transcripts in testdata")

// TestTranscripts plays the scenarios in testdata/*.txt: lines that begin in the first column are played, the indented ones below each
// are the questions put until the next one, and are rewritten by -update. `#` begins a comment.
//
//	ask PATH QUIET [PACE] [PATH …]  begins with a Schedule of these questions
//	TIME                            nothing happens
//	TIME answers in D [dear]        how long questions take from now on; `never` is for ever
//	TIME not asked                  this node can't put questions any more; `answers` ends that
//	TIME pace PATH D                another pace is wanted
//	TIME noticed                    something was noticed
//	TIME closely on|off
//
// A question's line has its time, `early` if it was out of turn, and how many there were in the Window until then.
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
			got := play(t, string(text))
			if *update {
				if err := os.WriteFile(file, []byte(got), 0o644); err != nil {
					t.Fatal(err)
				}
				return
			}
			if string(text) != got {
				t.Errorf("%s: played it gives\n%s", file, got)
			}
		})
	}
}

// rig is a respondent on its schedule.
type rig struct {
	Schedule
	parts         Random
	now           time.Time
	takes         time.Duration
	dear, refuses bool
	// put are the times of all questions.
	put  []time.Time
	says func(format string, args ...any)
}

var start = time.Unix(1000, 0)

// until lets time pass.
func (r *rig) until(end time.Time) {
	for {
		next := end
		if at, _, any := r.Due(); any && at.Before(next) {
			next = at
		}
		t, since, busy := r.UnderWay()
		if busy && r.takes >= 0 && since.Add(r.takes).Before(next) {
			next = since.Add(r.takes)
		}
		if next.Before(r.now) {
			next = r.now
		}
		if !next.Before(end) {
			r.now = end
			return
		}
		r.now = next
		if busy {
			r.End(Ended{Target: t, Dear: r.dear, NotAsked: r.refuses}, r.now)
			continue
		}
		extra := r.Counts.Extra
		target, due := r.Start(r.now, r.parts.Draw(), false)
		if !due {
			panic("nothing is due when it is due")
		}
		r.put = append(r.put, r.now)
		early := ""
		if r.Counts.Extra > extra {
			early = " early"
		}
		r.says("    %.2fs %s%s (%d)", r.now.Sub(start).Seconds(), target.Path, early, r.within(r.now))
	}
}

// within is how many questions there were in the Window until a time.
func (r *rig) within(at time.Time) int {
	n := 0
	for _, p := range r.put {
		if !p.After(at) && at.Sub(p) < Window {
			n++
		}
	}
	return n
}

func target(path string) health.Target { return health.Target{Member: "pg-test-1", Path: path} }

func play(t *testing.T, text string) string {
	var out []string
	r := &rig{}
	r.says = func(format string, args ...any) { out = append(out, fmt.Sprintf(format, args...)) }
	var lines []string
	for line := range strings.SplitSeq(strings.TrimRight(text, "\n"), "\n") {
		if !strings.HasPrefix(line, "    ") {
			lines = append(lines, line)
		}
	}
	duration := func(word string) time.Duration {
		d, err := time.ParseDuration(word)
		if err != nil {
			t.Fatal(err)
		}
		return d
	}
	for _, line := range lines {
		words := strings.Fields(line)
		if len(words) == 0 || words[0] == "#" {
			out = append(out, line)
			continue
		}
		if words[0] == "ask" {
			*r = rig{Schedule: New(7), parts: 7, now: start, says: r.says, takes: 5 * time.Millisecond}
			var asks []Ask
			for words = words[1:]; len(words) > 0; {
				a := Ask{Target: target(words[0]), Quiet: duration(words[1]), Pace: duration(words[1])}
				words = words[2:]
				asks = append(asks, a)
			}
			r.Set(asks, start)
			out = append(out, line)
			continue
		}
		r.until(start.Add(duration(words[0])))
		out = append(out, line)
		switch words = words[1:]; {
		case len(words) == 0:
		case words[0] == "answers":
			r.refuses, r.dear = false, len(words) > 3 && words[3] == "dear"
			r.takes = -1
			if words[2] != "never" {
				r.takes = duration(words[2])
			}
		case words[0] == "not":
			r.refuses = true
		case words[0] == "pace":
			r.Paced(target(words[1]), duration(words[2]))
		case words[0] == "noticed":
			r.Noticed(r.now)
		case words[0] == "closely":
			r.Closely(words[1] == "on", r.now)
		default:
			t.Fatalf("unknown: %s", line)
		}
	}
	return strings.Join(out, "\n") + "\n"
}

// TestBudget plays random events, always the same ones, and holds what no event may change: one question is under way at most, and in
// no five seconds there are more than twice as many as in peace; after dear answers not more than in peace.
func TestBudget(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 2))
	for round := range 300 {
		quiet := []time.Duration{100 * time.Millisecond, 500 * time.Millisecond, time.Second, 2 * time.Second, 4 * time.Second, 30 * time.Second}[random.IntN(6)]
		r := &rig{Schedule: New(random.Uint64()), parts: Random(random.Uint64()), now: start, says: func(string, ...any) {}}
		r.Set([]Ask{{Target: target("/primary"), Quiet: quiet, Pace: quiet}}, start)
		dearFrom := time.Time{}
		for range 200 {
			switch random.IntN(8) {
			case 0:
				r.takes, r.dear = time.Duration(random.IntN(3000))*time.Millisecond, random.IntN(3) == 0
				dearFrom = time.Time{}
				if r.dear {
					dearFrom = r.now
				}
			case 1, 2, 3:
				r.Noticed(r.now)
			case 4:
				r.Closely(random.IntN(2) == 0, r.now)
			case 5:
				r.Paced(target("/primary"), quiet/time.Duration(1+random.IntN(4)))
			case 6:
				r.refuses = random.IntN(4) == 0
			default:
				r.Stood(time.Duration(random.IntN(3)) * time.Second)
			}
			before := len(r.put)
			r.until(r.now.Add(time.Duration(random.IntN(700)) * time.Millisecond))
			for _, at := range r.put[before:] {
				most := int(2 * Window / quiet)
				if most > kept {
					// It is kept to in each part of the Window.
					most += kept
				}
				if !dearFrom.IsZero() && at.Sub(dearFrom) > Window+3*time.Second {
					most = int((Window + quiet - 1) / quiet)
				}
				if n := r.within(at); n > max(most, 1) {
					t.Fatalf("round %d, a question each %v in peace: %d in %v, at %v", round, quiet, n, Window, at.Sub(start))
				}
			}
		}
		if len(r.put) < 2 {
			t.Fatalf("round %d: %d questions in all", round, len(r.put))
		}
	}
}

// TestDueInTurn: what nothing has hastened, and only that, is due in turn.
func TestDueInTurn(t *testing.T) {
	now := time.Date(2026, 11, 29, 12, 0, 0, 0, time.UTC)
	ask := Ask{Target: target("/primary"), Quiet: 2 * time.Second, Pace: 2 * time.Second}
	for name, hasten := range map[string]func(s *Schedule){
		"":                func(*Schedule) {},
		"it's the first":  func(s *Schedule) { *s = New(2); s.Set([]Ask{ask}, now) },
		"news":            func(s *Schedule) { s.Noticed(now) },
		"looking closely": func(s *Schedule) { s.Closely(true, now) },
		"a faster pace":   func(s *Schedule) { s.Paced(ask.Target, time.Second) },
	} {
		s := New(1)
		s.Set([]Ask{ask}, now)
		s.Start(now.Add(ask.Quiet), 0, false)
		s.End(Ended{Target: ask.Target}, now.Add(ask.Quiet))
		hasten(&s)
		if _, inTurn, any := s.Due(); !any || inTurn != (name == "") {
			t.Errorf("%q: due: %v, in turn: %v", name, any, inTurn)
		}
	}
}

// TestSeeds: two nodes don't ask at the same times.
func TestSeeds(t *testing.T) {
	var first []string
	for seed := range uint64(3) {
		r := &rig{Schedule: New(seed * 12345), parts: Random(seed * 12345), now: start, says: func(string, ...any) {}}
		r.Set([]Ask{{Target: target("/primary"), Quiet: time.Second, Pace: time.Second}}, start)
		r.until(start.Add(30 * time.Second))
		var all []string
		for _, at := range r.put {
			all = append(all, strconv.FormatInt(at.Sub(start).Milliseconds(), 10))
		}
		if len(all) < 27 || len(all) > 31 {
			t.Errorf("%d questions in 30 s", len(all))
		}
		if text := strings.Join(all, " "); seed > 0 && text == first[0] {
			t.Error("two seeds, the same times")
		} else {
			first = append(first, text)
		}
	}
}
