package chaos

import (
	"strings"
	"testing"
	"time"
)

// base is when the tests' clocks begin; sec is a moment after it.
var base = time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)

func sec(s float64) time.Time { return base.Add(time.Duration(s * float64(time.Second))) }

// history makes tenures of (second, holder).
func history(pairs ...any) tenures {
	var all tenures
	for i := 0; i < len(pairs); i += 2 {
		all = append(all, tenure{from: sec(pairs[i].(float64)), holder: pairs[i+1].(string), revision: int64(i)})
	}
	return all
}

func TestWritesAreLedByTheKey(t *testing.T) {
	switched := history(0.0, "a", 10.0, "", 11.0, "b")
	for name, test := range map[string]struct {
		keys      tenures
		member    string
		at, acked float64
		// wrong is a part of the complaint; empty for a write that is well.
		wrong  string
		frozen time.Duration
	}{
		"by the holder":                             {keys: switched, member: "a", at: 5, acked: 5.1},
		"begun before the key was lost":             {keys: switched, member: "a", at: 9.9, acked: 14},
		"just after it was lost to nobody":          {keys: switched, member: "a", at: 10.5, acked: 10.6},
		"before the watcher heard of the promotion": {keys: switched, member: "b", at: 10.8, acked: 10.9},
		"by the next holder":                        {keys: switched, member: "b", at: 12, acked: 12.1},
		"by the old holder under the new one":       {keys: switched, member: "a", at: 14, acked: 14.1, wrong: "b had it from"},
		"by the old holder, whose pgporter hung":    {keys: switched, member: "a", at: 14, acked: 14.1, frozen: 3 * time.Second},
		"by the old holder, who hung for too short": {keys: switched, member: "a", at: 16, acked: 16.1, frozen: 3 * time.Second, wrong: "b had it from"},
		"long after the key was lost to nobody":     {keys: history(0.0, "a", 10.0, ""), member: "a", at: 15, acked: 15.1, wrong: "it had lost the leader key"},
		"by one who never had it":                   {keys: switched, member: "c", at: 5, acked: 5.1, wrong: "never named it"},
		"by one who only gets it later":             {keys: switched, member: "b", at: 5, acked: 5.1, wrong: "never named it"},
		"between two tenures of one member":         {keys: history(0.0, "a", 10.0, "b", 20.0, "a"), member: "a", at: 15, acked: 15.1, wrong: "b had it from"},
		"in the second tenure of a member":          {keys: history(0.0, "a", 10.0, "b", 20.0, "a"), member: "a", at: 25, acked: 25.1},
		"waiting through another's tenure":          {keys: history(0.0, "a", 10.0, "b", 20.0, "a"), member: "a", at: 15, acked: 20.5},
		"before anything is known":                  {keys: nil, member: "a", at: 5, acked: 5.1, wrong: "never named it"},
	} {
		t.Run(name, func(t *testing.T) {
			frozen := func(string, time.Time, time.Time) time.Duration { return test.frozen }
			wrong := unconfirmed([]write{{writer: 1, n: 1, member: test.member, at: sec(test.at), acked: sec(test.acked), node: "x"}}, test.keys, frozen)
			switch {
			case test.wrong == "" && len(wrong) > 0:
				t.Errorf("complaint: %s", wrong)
			case test.wrong != "" && (len(wrong) != 1 || !strings.Contains(wrong[0], test.wrong)):
				t.Errorf("complaints %q, want one with %q", wrong, test.wrong)
			}
		})
	}
}

func TestATimelineIsOneMembers(t *testing.T) {
	on := func(timeline int, member string) write { return write{member: member, timeline: timeline} }
	for name, test := range map[string]struct {
		writes []write
		began  map[int]string
		wrong  string
	}{
		"each its own":             {[]write{on(1, "a"), on(1, "a"), on(2, "b"), on(3, "a")}, map[int]string{2: "b", 3: "a"}, ""},
		"two on one":               {[]write{on(2, "b"), on(2, "a")}, nil, "timeline 2 took writes of clients on a and b"},
		"another's than Patroni's": {[]write{on(2, "a")}, map[int]string{2: "b"}, "begun by b"},
	} {
		t.Run(name, func(t *testing.T) {
			wrong := strings.Join(forked(test.writes, test.began), "\n")
			if (wrong == "") != (test.wrong == "") || !strings.Contains(wrong, test.wrong) {
				t.Errorf("complaints %q, want %q", wrong, test.wrong)
			}
		})
	}
}

func TestLostWritesAreNamed(t *testing.T) {
	writes := []write{{writer: 1, n: 1}, {writer: 1, n: 2}, {writer: 2, n: 1}}
	rows := map[[2]int]bool{{1, 1}: true, {2, 1}: true, {9, 9}: true}
	missing := lost(writes, rows, "pg-test-2")
	if len(missing) != 1 || !strings.Contains(missing[0], "pg-test-2") || !strings.Contains(missing[0], "write 2 of writer 1") {
		t.Errorf("missing: %q", missing)
	}
}

func TestHistoryOfTimelines(t *testing.T) {
	leaders, err := parseHistory(`[[1,83886496,"no recovery target specified","2026-01-01T00:00:00+00:00","pg-test-2"],[2,100,"…","…"],[3,200,"…","…","pg-test-1"]]`)
	if err != nil || len(leaders) != 2 || leaders[2] != "pg-test-2" || leaders[4] != "pg-test-1" {
		t.Errorf("%v, %v", leaders, err)
	}
	if leaders, err := parseHistory(""); err != nil || len(leaders) != 0 {
		t.Errorf("no history yet: %v, %v", leaders, err)
	}
	if _, err := parseHistory("{"); err == nil {
		t.Error("what is no JSON was read")
	}
}

func TestKeysAreNoted(t *testing.T) {
	w := &keyWatcher{}
	for i, put := range [][2]string{
		{"leader", "pg-test-1"}, {"leader", "pg-test-1"}, {"sync", `{"leader":"pg-test-1","sync_standby":"pg-test-3"}`}, {"leader", ""}, {"leader", "pg-test-3"}, {"members/pg-test-1", "{}"},
	} {
		w.note(keyspace+put[0], put[1], int64(i), sec(float64(i)))
	}
	keys := w.seen()
	if len(keys) != 3 || keys[0].holder != "pg-test-1" || keys[1].holder != "" || keys[2].holder != "pg-test-3" || !keys[1].from.Equal(sec(3)) {
		t.Errorf("tenures: %+v", keys)
	}
	for role, want := range map[string]string{"leader": "pg-test-3", "sync": "pg-test-3", "other": "pg-test-1", "2": "pg-test-2"} {
		if got := w.is(role, []string{"pg-test-1", "pg-test-2", "pg-test-3"}); got != want {
			t.Errorf("%s is %s, want %s", role, got, want)
		}
	}
}

func TestOverlap(t *testing.T) {
	freezes := []freeze{{"x", sec(1), sec(3)}, {"y", sec(0), sec(9)}, {"x", sec(8), time.Time{}}}
	if got := overlap(freezes, "x", sec(2), sec(10)); got != 3*time.Second {
		t.Errorf("x hung for %s of the time", got)
	}
}
