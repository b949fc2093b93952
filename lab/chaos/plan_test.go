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
			if tr.replica && f.whom != "sync" && f.whom != "other" {
				t.Errorf("seed %d: %s may be done to the leader", seed, f)
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

// TestLaterStreamsLeaveEarlierOnes: what a seed drew before a stream was added it draws still, at the same times.
func TestLaterStreamsLeaveEarlierOnes(t *testing.T) {
	from, err := choose(nil, true)
	if err != nil {
		t.Fatal(err)
	}
	first := slices.DeleteFunc(slices.Clone(from), func(t trait) bool { return t.stream > 0 })
	for seed := range uint64(50) {
		all, before := draw(seed, 5*time.Minute, members, from), draw(seed, 5*time.Minute, members, first)
		kept := slices.DeleteFunc(all, func(f fault) bool {
			return traits[slices.IndexFunc(traits, func(t trait) bool { return t.kind == f.kind })].stream > 0
		})
		if !slices.Equal(kept, before) {
			t.Errorf("seed %d: with later streams %v, without %v", seed, kept, before)
		}
	}
}

// TestSeedOfCI is what .ci/run has done each time. It changes only with a reason: what was seen with a seed is to be seen again.
func TestSeedOfCI(t *testing.T) {
	from, err := choose(nil, false)
	if err != nil {
		t.Fatal(err)
	}
	var list strings.Builder
	for _, f := range draw(110, time.Minute, members, from) {
		list.WriteString(f.String() + "\n")
	}
	const want = `   1.8s  upgrade pgporter of sync
   3.1s  switchover past a frozen consumer for 9.9s
   4.2s  kill a door of leader for 3.9s
   8.1s  kill Patroni and postgres of 3 for 12.2s
  10.5s  refuse local replication of other for 21.2s
  15.5s  kill Patroni of leader for 5.5s
  19.2s  kill a door of 3 for 2.3s
  20.5s  kill PgBouncer of leader for 2.2s
  23.5s  kill Patroni of 2 for 16.3s
  27.7s  delay Patroni's API of leader for 5.6s
  29.6s  stop Patroni in order of 2 for 4.8s
  31.3s  reload an edited inventory
  32.7s  upgrade pgporter of 2
  33.9s  switchover
  35.1s  killed drained switchover for 5.0s
  38.2s  delay Patroni's API of leader for 16.9s
  38.4s  kill postgres of sync
  42.2s  drained switchover
  43.7s  stop Patroni in order of leader for 1.2s
  50.4s  kill etcd for 2.7s
  50.4s  drained switchover
  52.5s  hang Patroni's API of 1 for 2.6s
  53.7s  reload an edited inventory
  56.5s  kill Patroni of leader for 2.0s
  57.6s  kill PgBouncer of sync for 1.3s
`
	if list.String() != want {
		t.Errorf("seed 110 draws\n%swant\n%s", list.String(), want)
	}
}

// TestLongFaults last for a minute where the run has room for it, and shorter in a short one.
func TestLongFaults(t *testing.T) {
	long, err := choose([]string{string(keepEtcdAway)}, false)
	if err != nil {
		t.Fatal(err)
	}
	for length, most := range map[time.Duration]time.Duration{20 * time.Second: 0, 40 * time.Second: 20 * time.Second, 10 * time.Minute: time.Minute} {
		longest := time.Duration(0)
		for seed := range uint64(50) {
			faults := draw(seed, length, members, long)
			for i, f := range faults {
				longest = max(longest, f.lasts)
				if i > 0 && f.at < faults[i-1].at+faults[i-1].lasts+apart {
					t.Errorf("seed %d: %s comes too soon after %s", seed, f, faults[i-1])
				}
			}
		}
		if longest != most {
			t.Errorf("in %s the longest is %s, want %s", length, longest, most)
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
