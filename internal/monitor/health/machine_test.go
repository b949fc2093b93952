package health

import (
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/pgporter/pgporter/internal/config/model"
	"github.com/pgporter/pgporter/internal/monitor/patroni"
)

var update = flag.Bool("update", false, "rewrite the right-hand sides of the transcripts in testdata")

// TestTranscripts plays the scenarios in testdata/*.txt. A file is read line by line; `#` begins a comment.
//
//	check PATH [ttl TTL] [options OPTIONS]   begins with a new machine
//	adopt PATH                               the path is changed by a reload
//	options OPTIONS                          the options are changed by a reload
//	TIME STATUS [ROLE [STATE…]] => …         an answer at a time
//	TIME silent REASON => …                  no answer
//	TIME tick => …                           nothing but the time
//	TIME leader NAME => …                    another member is known to hold the leader key
//
// The right-hand side, which -update rewrites, is the verdict: phase, what it means for clients, the time to the next check
// and the reason.
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
			got, err := play(string(text))
			if err != nil {
				t.Fatalf("%s:%v", file, err)
			}
			if *update {
				if err := os.WriteFile(file, []byte(got), 0o644); err != nil {
					t.Fatal(err)
				}
				return
			}
			want, have := strings.Split(string(text), "\n"), strings.Split(got, "\n")
			for i := range want {
				if want[i] != have[i] {
					t.Errorf("%s:%d:\n want %s\n have %s", file, i+1, want[i], have[i])
				}
			}
		})
	}
}

const norm = "inter 2s fastinter 1s downinter 2s rise 3 fall 3 on-marked-down shutdown-sessions"

func play(text string) (string, error) {
	var m Machine
	var options model.Options
	ttl := 20 * time.Second
	start := time.Unix(0, 0)
	now := start
	lines := strings.Split(text, "\n")
	for i, line := range lines {
		fail := func(format string, args ...any) (string, error) {
			return "", fmt.Errorf("%d: %s", i+1, fmt.Sprintf(format, args...))
		}
		input, _, _ := strings.Cut(line, "=>")
		words := strings.Fields(input)
		if len(words) == 0 || strings.HasPrefix(words[0], "#") {
			continue
		}
		switch words[0] {
		case "check":
			rest := strings.Join(words[2:], " ")
			optionText := norm
			if before, after, found := strings.Cut(rest, "options "); found {
				rest, optionText = before, after
			}
			ttl = 20 * time.Second
			if after, found := strings.CutPrefix(rest, "ttl "); found {
				var err error
				if ttl, err = time.ParseDuration(strings.TrimSpace(after)); err != nil {
					return fail("%v", err)
				}
			}
			var problems []model.OptionProblem
			if options, problems = model.ParseOptions(optionText); len(problems) > 0 {
				return fail("options: %v", problems)
			}
			m, now = NewMachine(words[1], &options, ttl), start
			continue
		case "adopt":
			m = NewMachine(words[1], &options, ttl).Adopt(m, now)
			continue
		case "options":
			options, _ = model.ParseOptions(strings.Join(words[1:], " "))
			m = m.Reconfigure(&options, ttl)
			continue
		}
		at, err := time.ParseDuration(words[0])
		if err != nil || len(words) < 2 {
			return fail("want TIME and what happens")
		}
		if start.Add(at).Before(now) {
			return fail("time goes backwards")
		}
		now = start.Add(at)
		ended := false
		switch words[1] {
		case "tick":
			m, ended = m.tick(now)
		case "leader":
			m, ended = m.Weigh(Backing{Fenced: words[2] + " holds the leader key"}, now)
		case "silent":
			reason := strings.Join(words[2:], " ")
			m, ended = m.Feed(Outcome{Silence: reason, Dead: strings.Contains(reason, "refused")}, Backing{}, now)
		default:
			status, err := strconv.Atoi(words[1])
			if err != nil {
				return fail("want a status, silent, leader or tick")
			}
			a := patroni.Answer{Status: status}
			if len(words) > 2 {
				a.Role, a.State = words[2], strings.Join(words[3:], " ")
			}
			m, ended = m.Feed(Outcome{Answer: a}, Backing{}, now)
		}
		v := m.verdict(ended)
		clients := "no clients"
		if v.Accept {
			clients = "new clients"
		}
		if v.EndSessions {
			clients += ", SESSIONS END"
		}
		lines[i] = fmt.Sprintf("%-38s => %-7s | %-25s | next %-5s | %s", strings.TrimRight(input, " "), v.Phase, clients, v.Next, v.Reason)
	}
	return strings.Join(lines, "\n"), nil
}

// TestDeadline: on a leader's path a server that is up or paused has one, others none.
func TestDeadline(t *testing.T) {
	options, _ := model.ParseOptions(norm)
	start := time.Unix(1000, 0)
	pass := Outcome{Answer: patroni.Answer{Status: 200, Role: "primary", State: "running"}}
	stopping := Outcome{Answer: patroni.Answer{Status: 200, Role: "primary", State: "stopping"}}
	silent := Outcome{Silence: "timed out"}
	for _, test := range []struct {
		name     string
		path     string
		ttl      time.Duration
		outcomes []Outcome
		want     time.Time
	}{
		{"waiting", "/primary", 20 * time.Second, nil, time.Time{}},
		{"up", "/primary", 20 * time.Second, []Outcome{pass}, start.Add(20 * time.Second)},
		{"up and silent", "/primary", 20 * time.Second, []Outcome{pass, silent}, start.Add(20 * time.Second)},
		{"paused with the key", "/primary", 20 * time.Second, []Outcome{pass, stopping}, start.Add(21 * time.Second)},
		{"down", "/primary", 20 * time.Second, []Outcome{silent}, time.Time{}},
		{"no ttl", "/primary", 0, []Outcome{pass}, time.Time{}},
		{"replica", "/replica", 20 * time.Second, []Outcome{pass}, time.Time{}},
	} {
		t.Run(test.name, func(t *testing.T) {
			m := NewMachine(test.path, &options, test.ttl)
			for i, o := range test.outcomes {
				m, _ = m.Feed(o, Backing{}, start.Add(time.Duration(i)*time.Second))
			}
			at, limited := m.Deadline()
			if limited == test.want.IsZero() || !at.Equal(test.want) {
				t.Errorf("deadline %v %v, want %v", at, limited, test.want)
			}
			if !limited {
				return
			}
			if next, ended := m.tick(at.Add(-1)); ended || next.Phase() == Down {
				t.Errorf("down before the deadline: %+v", next.Verdict())
			}
			if next, ended := m.tick(at); !ended || next.Phase() != Down {
				t.Errorf("not down at the deadline: %+v", next.Verdict())
			}
		})
	}
}

func TestKindOf(t *testing.T) {
	for path, want := range map[string]Kind{
		"/": Primary, "": Primary, "/?lag=1": Primary, "/primary": Primary, "/master": Primary, "/read-write": Primary,
		"/primary/": Primary, "/primary?tag_a=b": Primary, "/db-primary": Primary,
		"/leader": Leader, "/standby-leader": StandbyLeader, "/standby_leader": StandbyLeader,
		"/replica": Replica, "/replica?lag=10MB": Replica, "/sync": Replica, "/synchronous": Replica, "/async": Replica,
		"/asynchronous": Replica, "/quorum": Replica,
		"/read-only": ReadOnly, "/read-only-sync": ReadOnly, "/read-only-synchronous": ReadOnly, "/read-only-quorum": ReadOnly,
		"/health": Status, "/liveness": Status, "/readiness?lag=1MB": Status, "/patroni": Status, "/cluster": Status,
		"/history": Status, "/config": Status, "/metrics": Status, "/liveness/primary": Status,
		"/replica?tag_x=primary": Replica, "/nonsense": Status, "/PRIMARY": Status, "/sync/": Status,
	} {
		if got := KindOf(path); got != want {
			t.Errorf("KindOf(%q) = %v, want %v", path, got, want)
		}
	}
}

// TestJudge is the whole table of what an answer means, by kind of path.
func TestJudge(t *testing.T) {
	names := map[judgement]string{pass: "pass", keyHeld: "held", failed: "failed", unready: "unready", wrong: "wrong", silence: "silence", dead: "dead"}
	for _, test := range []struct {
		answer string
		// Primary, Leader, StandbyLeader, Replica, ReadOnly, Status
		want string
	}{
		{"200 primary running", "pass pass held wrong pass pass"},
		{"200 primary stopping", "held held held wrong held pass"},
		{"200 primary starting", "held held held wrong held pass"},
		{"200 primary crashed", "held held held wrong held pass"},
		{"200 primary unknown", "held held held wrong held pass"},
		{"200 promoted running", "held held held wrong pass pass"},
		{"200 replica running", "held held held pass pass pass"},
		{"200 replica starting", "held held held pass held pass"},
		{"200 demoted stopping", "wrong wrong wrong pass held pass"},
		{"200 standby_leader running", "held pass pass wrong pass pass"},
		{"200 uninitialized stopped", "held held held pass held pass"},
		{"200", "silence silence silence silence silence pass"},
		{"503 primary running", "unready unready wrong wrong unready failed"},
		{"503 primary stopping", "failed failed wrong wrong failed failed"},
		{"503 promoted running", "failed failed wrong wrong unready failed"},
		{"503 replica running", "wrong wrong wrong failed failed failed"},
		{"503 replica starting", "wrong wrong wrong failed failed failed"},
		{"503 demoted stopped", "wrong wrong wrong failed failed failed"},
		{"503 standby_leader running", "wrong unready unready wrong unready failed"},
		{"503 uninitialized stopped", "failed failed failed failed failed failed"},
		{"503", "silence silence silence silence silence failed"},
		{"302", "silence silence silence silence silence failed"},
		{"401", "silence silence silence silence silence failed"},
	} {
		words := append(strings.Fields(test.answer), "", "")
		status, _ := strconv.Atoi(words[0])
		o := Outcome{Answer: patroni.Answer{Status: status, Role: words[1], State: words[2]}}
		for i, want := range strings.Fields(test.want) {
			k := []Kind{Primary, Leader, StandbyLeader, Replica, ReadOnly, Status}[i]
			if got := names[k.judge(o)]; got != want {
				t.Errorf("%s on a %s path: %s, want %s", test.answer, k, got, want)
			}
		}
	}
	for k := Status; k <= ReadOnly; k++ {
		if got := k.judge(Outcome{Silence: "timed out", Answer: patroni.Answer{Status: 200}}); got != silence {
			t.Errorf("silence on a %s path: %s", k, names[got])
		}
		if got := k.judge(Outcome{Silence: "connection refused", Dead: true}); got != dead {
			t.Errorf("nobody listens, on a %s path: %s", k, names[got])
		}
		// Somebody else than a Patroni may answer without a role.
		for status, want := range map[int]judgement{200: pass, 503: failed} {
			if k.OfLeader() && status == 200 {
				want = failed
			}
			if got := k.judge(Outcome{Answer: patroni.Answer{Status: status}, Elsewhere: true}); got != want {
				t.Errorf("%d from elsewhere on a %s path: %s, want %s", status, k, names[got], names[want])
			}
		}
	}
}
