package throughput

import (
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"
)

func TestParseSummary(t *testing.T) {
	for name, c := range map[string]struct {
		want    transactions
		problem string
	}{
		"prepared.txt":  {transactions{count: 86554, perSecond: 21643.914721, average: 0.370}, ""},
		"reconnect.txt": {transactions{count: 597, perSecond: 148.962219, average: 53.705}, ""},
		"failed.txt":    {transactions{}, "3 transactions failed"},
		"none.txt":      {transactions{}, "no transaction"},
		"lost.txt":      {transactions{}, "nothing like"},
	} {
		said, err := os.ReadFile(filepath.Join("testdata", "pgbench", name))
		if err != nil {
			t.Fatal(err)
		}
		got, err := parseSummary(string(said))
		switch {
		case c.problem == "" && (err != nil || !reflect.DeepEqual(got, c.want)):
			t.Errorf("%s: %+v, %v, want %+v", name, got, err, c.want)
		case c.problem != "" && (err == nil || !strings.Contains(err.Error(), c.problem)):
			t.Errorf("%s: %v, want %q", name, err, c.problem)
		}
	}
}

func FuzzParseSummary(f *testing.F) {
	paths, err := filepath.Glob(filepath.Join("testdata", "pgbench", "*.txt"))
	if err != nil || len(paths) == 0 {
		f.Fatal(paths, err)
	}
	for _, path := range paths {
		said, err := os.ReadFile(path)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(string(said))
	}
	f.Fuzz(func(t *testing.T, said string) {
		if got, err := parseSummary(said); err == nil && (got.count < 1 || got.perSecond < 0 || got.average < 0) {
			t.Errorf("%+v", got)
		}
	})
}

const someLog = "0 1 512 0 1795760000 120034\n1 1 87 0 1795760000 120100\n0 2 1203 0 1795760000 121300\n"

func TestParseLog(t *testing.T) {
	at := func(us int64) time.Time { return time.UnixMicro(1795760000_000000 + us) }
	before := transaction{time.Second, at(0)}
	got, err := parseLog([]transaction{before}, strings.NewReader(someLog))
	want := []transaction{before, {512 * time.Microsecond, at(120034)}, {87 * time.Microsecond, at(120100)}, {1203 * time.Microsecond, at(121300)}}
	if err != nil || !slices.Equal(got, want) {
		t.Errorf("%v, %v, want %v", got, err, want)
	}
	for text, problem := range map[string]string{
		someLog + "0 3 12 0":                         "line 4 has 4 fields",
		"0 1 failed 0 1795760000 1":                  `line 1: "failed" is no time`,
		"0 1 -5 0 1795760000 1":                      `line 1: "-5" is no time`,
		"0 1 5 0 now 1":                              `line 1: "now" is no time`,
		"0 1 5 0 1795760000 1\n\n0 2 5 0 17957600 1": "line 2 has 0 fields",
	} {
		if _, err := parseLog(nil, strings.NewReader(text)); err == nil || !strings.Contains(err.Error(), problem) {
			t.Errorf("%q: %v, want %q", text, err, problem)
		}
	}
}

// TestSpentEach: of what a proxy spends, opening sessions before the first transaction and closing them after the last is no
// transaction's.
func TestSpentEach(t *testing.T) {
	zero := time.Unix(1000, 0)
	read := func(ms, spent int) reading {
		return reading{zero.Add(time.Duration(ms) * time.Millisecond), time.Duration(spent) * time.Millisecond}
	}
	var done []transaction
	for ms := 119; ms >= 30; ms-- {
		done = append(done, transaction{time.Millisecond, zero.Add(time.Duration(ms) * time.Millisecond)})
	}
	readings := []reading{read(0, 5), read(20, 500), read(40, 600), read(60, 601), read(80, 602), read(100, 603), read(120, 700)}
	// From 40 to 100 ms there are 60, in 3 ms.
	if got, err := spentEach(readings, done); got != 50 || err != nil {
		t.Errorf("%g, %v", got, err)
	}
	if got, err := spentEach(nil, done); got != 0 || err != nil {
		t.Errorf("without a proxy: %g, %v", got, err)
	}
	if got, err := spentEach(readings, nil); err == nil {
		t.Errorf("without a transaction: %g", got)
	}
	for _, few := range [][]reading{readings[:2], readings[:3], readings[6:]} {
		if got, err := spentEach(few, done); err == nil {
			t.Errorf("%v: %g", few, got)
		}
	}
}

func FuzzParseLog(f *testing.F) {
	f.Add(someLog)
	f.Add("0 1 failed 0 1795760000 1\n")
	f.Add("0 1 5 0 1795760000 1 3")
	f.Fuzz(func(t *testing.T, text string) {
		got, err := parseLog(nil, strings.NewReader(text))
		if err == nil && len(got) != strings.Count(strings.TrimSuffix(text, "\n"), "\n")+min(1, len(text)) {
			t.Errorf("%d latencies of %q", len(got), text)
		}
		if slices.ContainsFunc(got, func(one transaction) bool { return one.took < 0 }) {
			t.Errorf("%v", got)
		}
	})
}

func TestPercentile(t *testing.T) {
	var hundred []time.Duration
	for i := range time.Duration(100) {
		hundred = append(hundred, 100-i)
	}
	for _, c := range []struct {
		of   []time.Duration
		part float64
		want time.Duration
	}{{nil, 0.99, 0}, {[]time.Duration{5}, 0.99, 5}, {hundred, 0.99, 99}, {hundred, 0.5, 50}, {[]time.Duration{3, 1, 2}, 0.99, 3}, {[]time.Duration{3, 1, 2}, 0, 1}} {
		if got := percentile(slices.Clone(c.of), c.part); got != c.want {
			t.Errorf("%g of %v is %d, not %d", c.part, c.of, got, c.want)
		}
	}
}
