package throughput

import (
	"flag"
	"math"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"
)

var update = flag.Bool("update", false, "write the golden files anew")

// TestTable compares a section with a golden: goals that are met and missed, both ways round, quantities without a goal or
// without a direct route, and a round that was not finished.
func TestTable(t *testing.T) {
	s := section{name: "select", title: "Selects", lasts: half}
	quantities := []quantity{
		{name: "transactions/s", goal: atLeast(1)},
		{name: "p99 latency, ms", digits: 3},
		{name: "CPU a transaction, µs", digits: 1, goal: atMost(0.95), indirect: true},
	}
	got := newTaken(s, []measure{{name: "1 client", quantities: quantities}, {name: "8 clients", quantities: quantities}, {name: "sessions", quantities: []quantity{{name: "bytes", goal: atMost(0.5)}}, indirect: true}})
	got.samples = [][]sample{
		{
			{{21000, 0.05, 0}, {10000, 0.2, 25}, {11000, 0.21, 20}},
			{{20000, 0.06, 0}, {12000, 0.1, 26}, {12240, 0.12, 26}},
			{{22000, 0.04, 0}, {9000, 0.4, 24}, {9900, 0.3, 22.8}},
		},
		{
			{{1021000, 0.05, 0}, {10000, 0.2, 25}, {9950, 0.21, 24}},
			{{1020000, 0.06, 0}, {10000, 0.1, 25}, {9970, 0.12, 26}},
			{{1, 1, 0}, {1, 1, 1}, {100, 100, 100}}, // of a round that the next measure hasn't
		},
		{
			{nil, {3400}, {1700}},
			{nil, {3500}, {1700}},
		},
	}
	if rounds := got.rounds(); rounds != 2 {
		t.Errorf("%d whole rounds, not 2", rounds)
	}
	golden(t, "table.md", got.section.often(got.rounds(), 4*time.Second)+"\n\n"+got.table())
	got.samples[1], got.samples[2] = append(got.samples[1][:2], sample{{1020000, 0.06, 0}, {10000, 0.1, 25}, {10010, 0.12, 20}}), append(got.samples[2], sample{nil, {3500}, {1800}})
	golden(t, "table-3.md", got.section.often(got.rounds(), 4*time.Second)+"\n\n"+got.table())
	got.section.lasts = nil
	alone := newTaken(got.section, []measure{{name: "1 cluster", indirect: true, quantities: []quantity{{name: "connections/s"}, {name: "CPU, % of a core", digits: 2, goal: atMost(1), own: atMost(0.5)}}}})
	alone.samples = [][]sample{{{nil, {0, 0.4}, {1, 0.6}}, {nil, {0, 0.4}, {1, 0.3}}, {nil, {0, 0.5}, {1, 0.4}}}}
	golden(t, "table-indirect.md", alone.section.often(alone.rounds(), 0)+"\n\n"+alone.table())
	golden(t, "chart-indirect.svg", alone.chart("3 rounds").SVG())
	got.section.lasts = half
	golden(t, "chart.svg", got.chart("3 rounds").SVG())
	for i := range got.samples {
		for j := range got.samples[i] {
			got.samples[i][j][before] = got.samples[i][j][haproxy]
		}
	}
	golden(t, "table-before.md", got.section.often(got.rounds(), 4*time.Second)+"\n\n"+got.table())
}

func golden(t *testing.T, name, got string) {
	t.Helper()
	path := filepath.Join("testdata", name)
	if *update {
		if err := os.WriteFile(path, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if got != string(want) {
		t.Errorf("%s:\n%s\nwant\n%s", name, got, want)
	}
}

func TestLine(t *testing.T) {
	m := measure{quantities: []quantity{{name: "transactions/s"}, {name: "CPU, µs", digits: 1, indirect: true}}}
	const want = "transactions/s: direct 21,000, HAProxy 10,000, pgporter 11,000 (1.100); CPU, µs: HAProxy 25.0, pgporter 20.0 (0.800)"
	if got := m.line(sample{{21000, 0}, {10000, 25}, {11000, 20}}); got != want {
		t.Errorf("%s\nwant\n%s", got, want)
	}
	m = measure{quantities: []quantity{{name: "bytes"}}, indirect: true}
	if got := m.line(sample{nil, {3400}, {1700}}); got != "bytes: HAProxy 3,400, pgporter 1,700 (0.500)" {
		t.Error(got)
	}
}

// TestVerdict: a ratio is judged as it is printed, and nothing meets a goal by not being a number.
func TestVerdict(t *testing.T) {
	for _, c := range []struct {
		goal  goal
		ratio float64
		want  string
	}{
		{goal{}, 0.1, ""},
		{atLeast(1), 1, "≥ 1.00: met"},
		{atLeast(1), 0.9994, "≥ 1.00: **missed**"},
		{atLeast(1), 0.9996, "≥ 1.00: met"},
		{atMost(0.95), 0.95, "≤ 0.95: met"},
		{atMost(0.95), 0.951, "≤ 0.95: **missed**"},
		{atMost(0.95), math.NaN(), "≤ 0.95: **missed**"},
		{atLeast(1), math.NaN(), "≥ 1.00: **missed**"},
	} {
		if got := c.goal.verdict(c.ratio); got != c.want {
			t.Errorf("%g: %q, not %q", c.ratio, got, c.want)
		}
	}
}

func TestThousands(t *testing.T) {
	for number, want := range map[string]string{
		"0": "0", "999": "999", "1000": "1,000", "1234567.5": "1,234,567.5", "0.1234": "0.1234", "-100": "-100", "-1000": "-1,000",
	} {
		if got := thousands(number); got != want {
			t.Errorf("%s: %s, not %s", number, got, want)
		}
	}
}

// TestOrders: each proxy is as often before the other as behind it, and each route comes first, second and last alike.
func TestOrders(t *testing.T) {
	var times [before][before]int
	ahead := 0
	for _, order := range orders {
		for i, w := range order {
			times[w][i]++
		}
		for _, w := range order {
			if w == haproxy {
				ahead++
				break
			}
			if w == pgporter {
				ahead--
				break
			}
		}
	}
	if ahead != 0 {
		t.Errorf("HAProxy is before pgporter %d times more often than behind it", ahead)
	}
	for w, at := range times {
		if at != [before]int{2, 2, 2} {
			t.Errorf("%s is in the positions %v", routeNames[w], at)
		}
	}
	ahead = 0
	for round := range orders {
		order := Config{Before: "pgporter-before"}.order(round)
		switch slices.Index(order, before) - slices.Index(order, pgporter) {
		case -1:
			ahead++
		case 1:
			ahead--
		default:
			t.Errorf("round %d: the pgporter before isn't next to the present one: %v", round, order)
		}
	}
	if ahead != 0 {
		t.Errorf("the pgporter before is ahead of the present one %d times more often than behind it", ahead)
	}
}

func TestSteady(t *testing.T) {
	flat := func(n int, at int64) []int64 {
		var all []int64
		for range n {
			all = append(all, at)
		}
		return all
	}
	for name, c := range map[string]struct {
		looks []int64
		want  bool
	}{
		"too few":               {flat(settledLooks, 100), false},
		"enough":                {flat(settledLooks+1, 100), true},
		"it has just grown":     {append(flat(settledLooks, 100), 102), false},
		"it grew long ago":      {append(flat(1, 50), flat(settledLooks+1, 100)...), true},
		"one percent is steady": {append(flat(settledLooks, 1000), 1009), true},
	} {
		if got := steady(c.looks); got != c.want {
			t.Errorf("%s: %v", name, got)
		}
	}
}
