package owner

import (
	"errors"
	"flag"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/pgporter/pgporter/internal/config/model"
	"github.com/pgporter/pgporter/internal/monitor/view"
)

var update = flag.Bool("update", false, "write the goldens anew")

// world is what a transcript is played in: a cluster as a View shows it, and an interface whose kernel ends lifetimes.
type world struct {
	t          *testing.T
	out        strings.Builder
	start, now time.Time
	state      State
	view       view.View
	link       Link
	// ends is when the kernel takes the address away; zero for never.
	ends      time.Time
	claimants []MAC
	// fails is what the system says to every action.
	fails error
	// asked is when etcd was read last, answered when Patroni was.
	asked, answered time.Time
	silent          bool
	leads           bool
}

// TestTranscripts plays each file of testdata/keep: an unindented line is what happens, the indented ones below it are what
// pgporter does, with the seconds since the beginning.
func TestTranscripts(t *testing.T) {
	paths, err := filepath.Glob("testdata/keep/*.txt")
	if err != nil || len(paths) < 10 {
		t.Fatalf("%d transcripts, error %v", len(paths), err)
	}
	for _, path := range paths {
		t.Run(strings.TrimSuffix(filepath.Base(path), ".txt"), func(t *testing.T) {
			text, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			w := newWorld(t)
			for line := range strings.Lines(string(text)) {
				switch {
				case strings.HasPrefix(line, "  "):
				case strings.HasPrefix(line, "#"), strings.TrimSpace(line) == "":
					w.out.WriteString(line)
				default:
					w.out.WriteString(line)
					w.play(strings.Fields(line))
				}
			}
			if *update {
				if err := os.WriteFile(path, []byte(w.out.String()), 0o644); err != nil {
					t.Fatal(err)
				}
			} else if w.out.String() != string(text) {
				t.Errorf("got\n%s\nwant\n%s", w.out.String(), text)
			}
		})
	}
}

func newWorld(t *testing.T) *world {
	w := &world{t: t, start: time.Date(2026, 1, 2, 3, 0, 0, 0, time.UTC), link: Link{Name: "eth0", Up: true}}
	w.now = w.start
	w.view = view.View{Cluster: "pg-test", Key: view.Key{Watched: true}}
	for i := range 3 {
		m := view.Member{Live: model.Replica, Answer: "503 replica running"}
		m.Name = fmt.Sprintf("pg-test-%d", i+1)
		w.view.Members = append(w.view.Members, m)
	}
	w.state = Begin(Want{Cluster: "pg-test", TTL: 20 * time.Second, Keyed: true, Repeat: 2, VirtualIP: model.VirtualIP{
		Address: netip.MustParsePrefix("10.10.10.3/24"), Interface: "eth0", Member: "pg-test-1", Host: "10.10.10.11", OnLoss: model.GraceOnLoss}})
	return w
}

// play has something happen.
func (w *world) play(words []string) {
	w.t.Helper()
	me := &w.view.Members[0]
	want := w.state.want
	switch rest := strings.Join(words[1:], " "); words[0] {
	case "policy":
		want.OnLoss = model.OnLoss(rest)
		w.state = w.state.Follow(want)
		return
	case "ttl":
		want.TTL = w.duration(rest)
		w.state = w.state.Follow(want)
	case "without-etcd":
		want.Keyed, w.view.Key = false, view.Key{}
		w.state = w.state.Follow(want)
		return
	case "begin":
		// A pgporter that knows nothing begins; what the kernel has stays.
		w.state = Begin(want)
		w.view.Key = view.Key{}
		me.Answer = view.NotChecked
	case "key":
		w.view.Key, w.asked = view.Key{Watched: true, Holder: strings.Trim(rest, "-"), Confirmed: w.now}, w.now
		if rest == "-" {
			w.view.Key.Holder = ""
		} else {
			w.view.Key.Holder = rest
		}
	case "etcd":
		w.view.Key = view.Key{Watched: true, Doubted: rest == "doubted"}
		if rest == "lost" {
			w.view.Key.Lost = "10.10.10.10:2379: timed out after 2s"
		}
	case "patroni":
		w.patroni(me, words[1:])
	case "live":
		for i := range w.view.Members {
			w.view.Members[i].Live = model.Replica
			if w.view.Members[i].Name == rest {
				w.view.Members[i].Live = model.Primary
			}
		}
	case "link":
		w.link = Link{Name: "eth0", Up: rest != "down", Bound: w.link.Bound}
		if rest == "gone" {
			w.link = Link{Problem: "there is no interface eth0"}
			w.ends = time.Time{}
		}
	case "address":
		w.link.Bound, w.ends = map[string]Bound{"lasting": Lasting, "leased": Leased, "absent": Absent}[words[1]], time.Time{}
		if words[1] == "leased" {
			w.ends = w.now.Add(w.duration(words[2]))
		}
		return
	case "fails":
		if w.fails = nil; rest != "-" {
			w.fails = errors.New(rest)
		}
		return
	case "heard":
		var mac MAC
		n, err := strconv.ParseUint(rest, 16, 8)
		if err != nil {
			w.t.Fatal(err)
		}
		mac[0], mac[5] = 2, byte(n)
		w.claimants = append(w.claimants, mac)
	case "frozen":
		// pgporter hangs, the kernel and the cluster don't.
		w.now = w.now.Add(w.duration(rest))
		w.expire()
	case "pass":
		w.pass(w.duration(rest))
		return
	default:
		w.t.Fatalf("what is %q?", words)
	}
	w.step()
}

func (w *world) duration(text string) time.Duration {
	d, err := time.ParseDuration(text)
	if err != nil {
		w.t.Fatal(err)
	}
	return d
}

// patroni has the member's own Patroni say something from now on: leads or follows, with unlocked, failsafe, pause; or
// nothing at all.
func (w *world) patroni(me *view.Member, words []string) {
	w.silent = words[0] == "silent"
	if w.silent {
		me.Answer = "silent: timed out"
		return
	}
	w.leads = words[0] == "leads"
	me.Answer = "503 replica running"
	if w.leads {
		me.Answer = "200 primary running"
	}
	me.Unlocked, me.Failsafe, me.Pause = false, false, false
	for _, word := range words[1:] {
		switch word {
		case "unlocked":
			me.Unlocked = true
		case "failsafe":
			me.Failsafe = true
		case "pause":
			me.Pause = true
		default:
			w.t.Fatalf("what does Patroni say by %q?", word)
		}
	}
	w.answer()
}

func (w *world) answer() {
	w.answered = w.now
	w.view.Members[0].Led = time.Time{}
	if w.leads {
		w.view.Members[0].Led = w.now
	}
}

// pass lets time pass: pgporter looks every second and when it is due, etcd is read every second, and Patroni every second.
func (w *world) pass(d time.Duration) {
	for end := w.now.Add(d); w.now.Before(end); {
		next := w.now.Add(time.Second)
		if at, limited := w.state.Deadline(); limited && at.Before(next) {
			next = at
		}
		if next.After(end) {
			next = end
		}
		w.now = next
		if key := &w.view.Key; key.Watched && key.Lost == "" && !key.Doubted && w.now.Sub(w.asked) >= time.Second {
			w.asked, key.Confirmed = w.now, w.now
		}
		if !w.silent && w.view.Members[0].Answer != view.NotChecked && w.now.Sub(w.answered) >= time.Second {
			w.answer()
		}
		w.expire()
		w.step()
	}
}

func (w *world) expire() {
	if w.link.Bound == Leased && !w.ends.IsZero() && !w.now.Before(w.ends) {
		w.link.Bound = Absent
		w.say("kernel: the address has expired")
	}
}

func (w *world) step() {
	next, a := Step(w.state, Sight{View: &w.view, Link: w.link, Claimants: w.claimants}, w.now)
	w.claimants, w.state = nil, next
	var done Actions
	switch {
	case a.Release == "" && a.Bind == 0:
		w.log(a)
	case w.fails != nil:
		w.state, done = w.state.Failed(a, w.fails, w.now)
		w.log(done)
		return
	default:
		w.log(a)
		if a.Release != "" {
			w.link.Bound = Absent
			w.say("release")
		}
		if a.Bind > 0 {
			w.link.Bound, w.ends = Leased, w.now.Add(time.Duration(a.Bind)*time.Second)
			w.say("bind for %d s", a.Bind)
		}
		w.state, done = w.state.Done()
	}
	w.log(done)
	if a.Announce {
		w.say("announce")
	}
	if a.Probe {
		w.say("probe")
	}
	w.check()
}

// check holds what must be true whatever happens.
func (w *world) check() {
	s := w.state.Status()
	if w.state.trouble == failing {
		return
	}
	if s.Holds && w.link.Bound != Leased {
		w.t.Errorf("at %v it is held, but not leased", w.now.Sub(w.start))
	}
	if k := w.view.Key; w.state.want.Keyed && k.Lost == "" && k.Watched && !k.Doubted && k.Holder != w.state.want.Member && s.Holds {
		w.t.Errorf("at %v it is held, though the key names %q", w.now.Sub(w.start), k.Holder)
	}
}

func (w *world) log(a Actions) {
	for _, m := range a.Log {
		w.say("%s: %s", strings.ToLower(m.Level.String()), strings.TrimPrefix(m.Text, "pg-test: "))
	}
}

func (w *world) say(format string, args ...any) {
	fmt.Fprintf(&w.out, "  %5.1f  %s\n", w.now.Sub(w.start).Seconds(), fmt.Sprintf(format, args...))
}
