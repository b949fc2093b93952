package chaos

import (
	"slices"
	"strings"
	"testing"
	"time"
)

func TestSameSeedSameFaults(t *testing.T) {
	from, err := choose(nil, true)
	if err != nil {
		t.Fatal(err)
	}
	one, two := draw(7, 10*time.Minute, members, from), draw(7, 10*time.Minute, members, from)
	if len(one) < 60 || !slices.Equal(one, two) {
		t.Errorf("%d and %d faults of one seed differ, or are too few", len(one), len(two))
	}
	if other := draw(8, 10*time.Minute, members, from); slices.Equal(one, other) {
		t.Error("another seed has the same faults")
	}
}

// TestDrawnFaults holds what every list of faults must be, over many seeds.
func TestDrawnFaults(t *testing.T) {
	from, err := choose(nil, true)
	if err != nil {
		t.Fatal(err)
	}
	const length = 5 * time.Minute
	drawn := map[kind]int{}
	for seed := range uint64(200) {
		faults := draw(seed, length, members, from)
		for i, f := range faults {
			drawn[f.kind]++
			tr := traits[slices.IndexFunc(traits, func(t trait) bool { return t.kind == f.kind })]
			if tr.weight == 0 {
				t.Errorf("seed %d: %s is drawn though nobody asked for it", seed, f)
			}
			if f.lasts < tr.least || f.lasts > tr.most || f.at+f.lasts > length || (f.whom == "") == tr.member {
				t.Errorf("seed %d: %s is out of its bounds", seed, f)
			}
			if tr.stills && f.kind != hang && f.lasts > shortOfTTL {
				t.Errorf("seed %d: %s lets a Patroni go on whose key has expired", seed, f)
			}
			heavy := 0
			for _, earlier := range faults[:i] {
				was := traits[slices.IndexFunc(traits, func(t trait) bool { return t.kind == earlier.kind })]
				if earlier.at+earlier.lasts <= f.at {
					continue
				}
				if was.heavy {
					heavy++
				}
				if was.stills && tr.clocks || was.clocks && tr.stills {
					t.Errorf("seed %d: %s during %s", seed, f, earlier)
				}
			}
			if tr.heavy && heavy > 1 {
				t.Errorf("seed %d: %s is the third heavy one", seed, f)
			}
		}
	}
	for _, tr := range from {
		if drawn[tr.kind] == 0 {
			t.Errorf("%s is never drawn", tr.kind)
		}
	}
}

func TestChoose(t *testing.T) {
	if _, err := choose([]string{"kill everything"}, true); err == nil || !strings.Contains(err.Error(), `"kill everything"`) || !strings.Contains(err.Error(), "switchover") {
		t.Errorf("an unknown kind: %v", err)
	}
	if _, err := choose([]string{string(unplug)}, false); err == nil || !strings.Contains(err.Error(), "network namespaces") {
		t.Errorf("a network's fault without one: %v", err)
	}
	only, err := choose([]string{string(awaken)}, false)
	if err != nil {
		t.Fatal(err)
	}
	faults := draw(1, 5*time.Minute, members, only)
	if len(faults) == 0 || slices.ContainsFunc(faults, func(f fault) bool { return f.kind != awaken || f.lasts <= ttl }) {
		t.Errorf("on demand: %v", faults)
	}
}
