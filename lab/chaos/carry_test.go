package chaos

import (
	"strings"
	"testing"
	"time"
)

// TestLeftOut: a server that is down is wrong once its member has been well for the bound, and not before.
func TestLeftOut(t *testing.T) {
	at := place{"n", replicaPort, "b"}
	bound := replicaCarries.Seconds()
	// every second, up from one second on until another.
	says := func(up, down float64) []sample {
		var all []sample
		for s := 0.0; s < 40; s++ {
			all = append(all, sample{at, sec(s), s >= up && s < down, "silent"})
		}
		return all
	}
	well := func(begins, ends float64) func(place, time.Time, time.Time) bool {
		return func(_ place, from, to time.Time) bool { return !from.Before(sec(begins)) && !to.After(sec(ends)) }
	}
	for name, test := range map[string]struct {
		samples []sample
		fit     func(place, time.Time, time.Time) bool
		since   float64
		frozen  time.Duration
		wrong   string
		seen    bool
	}{
		"up in time":                       {samples: says(bound, 99), fit: well(0, 99), seen: true},
		"up all along":                     {samples: says(0, 99), fit: well(0, 99), seen: true},
		"never up":                         {samples: says(99, 99), fit: well(0, 99), wrong: "silent", seen: true},
		"up too late":                      {samples: says(bound+3, 99), fit: well(0, 99), wrong: "silent", seen: true},
		"up, and then left out":            {samples: says(5, 30), fit: well(0, 99), wrong: "silent", seen: true},
		"well later than the last fault":   {samples: says(10+bound, 99), fit: well(10, 99), seen: true},
		"not well for long enough":         {samples: says(99, 99), fit: well(0, bound-1)},
		"not well at all":                  {samples: says(99, 99), fit: well(99, 99)},
		"the last fault was only just":     {samples: says(99, 99), fit: well(0, 99), since: 39},
		"pgporter hung for that":           {samples: says(bound+3, 99), fit: well(0, 99), frozen: 3 * time.Second, seen: true},
		"pgporter hung for less than that": {samples: says(bound+5, 99), fit: well(0, 99), frozen: 3 * time.Second, wrong: "silent", seen: true},
	} {
		t.Run(name, func(t *testing.T) {
			frozen := func(string, time.Time, time.Time) time.Duration { return test.frozen }
			wrong, seen := leftOut(test.samples, func(place) time.Time { return sec(test.since) }, test.fit, frozen)
			if seen[at] != test.seen || (len(wrong) > 0) != (test.wrong != "") || !strings.Contains(strings.Join(wrong, "\n"), test.wrong) {
				t.Errorf("complaints %q, seen %v", wrong, seen[at])
			}
			if len(wrong) > 1 {
				t.Errorf("one place is complained about %d times", len(wrong))
			}
		})
	}
}

// TestCountsFrom: who waits for an answer that never comes can't know better; nobody else is excused by that.
func TestCountsFrom(t *testing.T) {
	counts := countsFrom(sec(100), []deed{
		{kind: hangAPI, member: "a", from: sec(50), to: sec(95)},
		{kind: hangAPI, member: "b", from: sec(10), to: sec(20)},
		{kind: lateAPI, member: "c", from: sec(50), to: sec(99)},
		{kind: unplug, member: "d", from: sec(50), to: sec(90)},
	})
	for p, want := range map[place]float64{
		{"c", 5434, "a"}: 105, {"c", 5434, "b"}: 100, {"a", 5434, "c"}: 100, {"d", 5434, "b"}: 100, {"c", 5434, "d"}: 100, {"a", 5434, "b"}: 100,
	} {
		if got := counts(p); !got.Equal(sec(want)) {
			t.Errorf("%s: from %s, want %s", p, clock(got), clock(sec(want)))
		}
	}
}

// TestFit: who has to be up where.
func TestFit(t *testing.T) {
	f := &field{keys: &keyWatcher{}}
	f.roles = newRoleWatcher(f)
	c := &carrying{field: f, patronis: patronis{field: f, said: map[string]spans{}}}
	f.keys.keys, f.keys.syncs = history(0.0, "a"), history(0.0, "b")
	for i := range 300 {
		at := sec(float64(i) / 10)
		f.roles.note("a", false, "noon", at)
		f.roles.note("b", true, "noon", at)
		f.roles.note("c", true, "noon", at)
		f.roles.note("d", true, "noon", at)
		f.roles.note("e", false, "noon", at) // a primary that the key doesn't name
		if i%10 == 0 {
			c.patronis.note("a", "primary running", at)
			c.patronis.note("b", "replica running", at)
			c.patronis.note("c", "replica running", at)
			c.patronis.note("d", "replica starting", at)
			c.patronis.note("e", "primary running", at)
		}
	}
	for member, ports := range map[string][]int{
		"a": {pooledPort, replicaPort, syncPort, directPort},
		"b": {replicaPort, syncPort, readersPort, offlinePort},
		"c": {replicaPort, readersPort, offlinePort},
		"d": {}, "e": {}, "f": {},
	} {
		has := map[int]bool{5440: false}
		for _, port := range ports {
			has[port] = true
		}
		for _, port := range []int{pooledPort, replicaPort, syncPort, directPort, readersPort, offlinePort, 5440} {
			if got := c.fit(place{"n", port, member}, sec(1), sec(20)); got != has[port] {
				t.Errorf("%s in %d: %v", member, port, got)
			}
		}
	}
	if c.fit(place{"n", replicaPort, "c"}, sec(1), sec(35)) {
		t.Error("one who hasn't been asked for 5 s is well")
	}
}

// TestASlowPatroniIsWell: the judge waits for answers, or an overload of our own making would leave it nothing to judge.
func TestASlowPatroniIsWell(t *testing.T) {
	p := &patronis{said: map[string]spans{}}
	for _, at := range []float64{0, 4, 13, 20} {
		p.note("b", "replica running", sec(at))
	}
	if says, ok := p.throughout("b", sec(1), sec(19)); !ok || says != "replica running" {
		t.Errorf("%q, %v", says, ok)
	}
	p.note("b", "replica running", sec(31))
	if _, ok := p.throughout("b", sec(1), sec(31)); ok {
		t.Error("11 s without an answer are none")
	}
}
