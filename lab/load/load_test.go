package load

import (
	"errors"
	"testing"
	"time"
)

func TestImpress(t *testing.T) {
	zero := time.Unix(1000, 0)
	at := func(ms int) time.Time { return zero.Add(time.Duration(ms) * time.Millisecond) }
	write := func(ms int) Probe { return Probe{Began: at(ms - 5), Ended: at(ms), Outcome: Written} }
	fails := func(ms int, o Outcome) Probe {
		return Probe{Began: at(ms - 5), Ended: at(ms), Outcome: o, Err: errors.New("failed")}
	}
	for name, c := range map[string]struct {
		from, until time.Time
		probes      []Probe
		gap         time.Duration
		// writes, refused, login cut, write cut, read-only
		counts [5]int
	}{
		"nothing":                      {},
		"one write has no gap":         {probes: []Probe{write(10)}, counts: [5]int{1}},
		"the longest of two":           {probes: []Probe{write(10), write(310), write(410)}, gap: 300 * time.Millisecond, counts: [5]int{3}},
		"failures don't end a gap":     {probes: []Probe{write(10), fails(200, Refused), fails(300, WriteCut), write(1010)}, gap: time.Second, counts: [5]int{2, 1, 0, 1}},
		"from the write before":        {from: at(0), probes: []Probe{write(400), write(420)}, gap: 400 * time.Millisecond, counts: [5]int{2}},
		"until the end":                {until: at(900), probes: []Probe{write(10), write(30), fails(500, ReadOnly)}, gap: 870 * time.Millisecond, counts: [5]int{2, 0, 0, 0, 1}},
		"no write between":             {from: at(0), until: at(5000), probes: []Probe{fails(500, LoginCut)}, gap: 5 * time.Second, counts: [5]int{0, 0, 1}},
		"an end without any beginning": {until: at(5000), probes: []Probe{fails(500, LoginCut)}, counts: [5]int{0, 0, 1}},
	} {
		i := Impress(c.from, c.until, c.probes)
		got := [5]int{i.Writes, len(i.Refused), len(i.LoginCut), len(i.WriteCut), len(i.ReadOnly)}
		if i.Gap != c.gap || got != c.counts {
			t.Errorf("%s: gap %s, counts %v; want %s, %v", name, i.Gap, got, c.gap, c.counts)
		}
		if i.Connects() != c.counts[1]+c.counts[2] {
			t.Errorf("%s: %d connects failed", name, i.Connects())
		}
	}
}

func TestRecorder(t *testing.T) {
	var r Recorder
	r.Add(Probe{Outcome: Written, Server: "a"})
	r.Add(Probe{Outcome: Refused})
	if seen := r.Seen(); len(seen) != 2 || r.Written() != 1 {
		t.Errorf("seen %v, %d written", seen, r.Written())
	}
	if taken := r.Take(); len(taken) != 2 || taken[0].Server != "a" {
		t.Errorf("taken %v", taken)
	}
	r.Add(Probe{Outcome: Written, Server: "b"})
	if taken := r.Take(); len(taken) != 1 || taken[0].Server != "b" || r.Written() != 2 {
		t.Errorf("taken %v, %d written", taken, r.Written())
	}
}
