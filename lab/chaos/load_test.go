package chaos

import (
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/pgporter/pgporter/lab/sandbox/restproxy"
)

// asked makes questions of (second, seconds until the answer; 0 for none yet).
func asked(pairs ...float64) []restproxy.Request {
	var all []restproxy.Request
	for i := 0; i < len(pairs); i += 2 {
		all = append(all, restproxy.Request{At: sec(pairs[i]), Took: time.Duration(pairs[i+1] * float64(time.Second)), From: netip.MustParseAddr("127.0.0.1")})
	}
	return all
}

// every makes n questions at an interval from a second on.
func every(from, interval float64, n int) []restproxy.Request {
	var all []restproxy.Request
	for i := range n {
		all = append(all, asked(from+float64(i)*interval, 0.01)...)
	}
	return all
}

func TestBudget(t *testing.T) {
	one := func(time.Time, time.Time) int { return 1 }
	for name, test := range map[string]struct {
		asked     []restproxy.Request
		processes func(from, to time.Time) int
		wrong     []string
		cut       bool
	}{
		"in peace":                   {every(0, 1, 60), one, nil, false},
		"twice the quiet rate":       {every(0, 0.5, 120), one, nil, false},
		"a burst that is paid for":   {append(every(0, 0.1, 6), every(1, 1, 60)...), one, nil, false},
		"a burst that isn't":         {append(every(0, 0.1, 6), every(1, 0.5, 60)...), one, []string{"in the 5s"}, false},
		"three times the rate":       {every(0, 0.33, 120), one, []string{"in the 5s"}, false},
		"a search":                   {every(0, 0.2, 50), one, []string{"in the 5s"}, false},
		"all of a window in no time": {every(0, 0.05, 11), one, []string{"in the 1s"}, false},
		"two at a time":              {asked(0, 2, 1, 0.1), one, []string{"2 questions"}, false},
		"one after the other":        {asked(0, 1, 1, 1, 2, 1), one, nil, false},
		"one that is never answered": {asked(0, 0, 1, 0.1), one, []string{"2 questions"}, false},
		"three pgporters":            {append(every(0, 0.5, 20), every(0, 0.5, 20)...), func(time.Time, time.Time) int { return 3 }, nil, false},
		"a second process for a while": {every(0, 0.25, 20), func(from, to time.Time) int {
			if from.Before(sec(6)) {
				return 2
			}
			return 1
		}, nil, false},
		"a network was cut": {asked(0, 0, 1, 0.1), one, nil, true},
		"nobody":            {nil, one, nil, false},
	} {
		t.Run(name, func(t *testing.T) {
			slices.SortStableFunc(test.asked, func(a, b restproxy.Request) int { return a.At.Compare(b.At) })
			wrong := overBudget("b", test.asked, asker{"somebody", test.processes, func(time.Time) bool { return test.cut }})
			if len(wrong) != len(test.wrong) {
				t.Fatalf("complaints: %q", wrong)
			}
			for i, want := range test.wrong {
				if !strings.Contains(wrong[i], want) {
					t.Errorf("complaint %q, want %q", wrong[i], want)
				}
			}
		})
	}
}

func TestPgporters(t *testing.T) {
	deeds := []deed{
		{kind: upgrade, member: "a", from: sec(20), to: sec(22)},
		{kind: killPgporter, member: "b", from: sec(21), to: sec(24)},
		{kind: haltPgporter, member: "b", from: sec(40), to: sec(44)},
	}
	for name, test := range map[string]struct {
		nodes    []string
		from, to float64
		want     int
	}{
		"nothing done":           {[]string{"a", "b", "c"}, 5, 10, 3},
		"an upgrade and a start": {[]string{"a", "b", "c"}, 19, 23, 5},
		"of one node":            {[]string{"a"}, 19, 23, 2},
		"of another":             {[]string{"c"}, 19, 23, 1},
		"it has just been":       {[]string{"a"}, 26, 30, 2},
		"long over":              {[]string{"a", "b", "c"}, 32, 36, 3},
		"a halt starts nobody":   {[]string{"b"}, 40, 45, 1},
	} {
		if got := pgporters(test.nodes, deeds)(sec(test.from), sec(test.to)); got != test.want {
			t.Errorf("%s: %d, want %d", name, got, test.want)
		}
	}
}
