package report

import (
	"encoding/xml"
	"flag"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
)

var update = flag.Bool("update", false, "write the golden files anew")

// TestSVG compares a chart with a golden: whiskers and none, a bar of nothing, a value below nothing, a group that lacks a series, three
// panels, and text that isn't XML.
func TestSVG(t *testing.T) {
	text := func(v float64) string { return strconv.FormatFloat(v, 'f', 1, 64) }
	c := Chart{
		Title: "Checks", Note: "Debian 12, <3 rounds & more",
		Series: []Series{{"nobody asks", "plain"}, {"HAProxy", "theirs"}, {"pgporter", "ours"}},
		Panels: []Panel{
			{Title: "questions/s a member", Groups: []Group{
				{Name: "1 cluster", Bars: []Bar{NewBar(1, []float64{1.8, 1.9, 1.7}, text), NewBar(2, []float64{0.5}, text)}},
				{Name: "1,000 clusters", Bars: []Bar{NewBar(0, []float64{0}, text), NewBar(1, []float64{3, 1}, text), NewBar(2, []float64{-0.1, -0.3}, text)}},
			}},
			{Title: "CPU, % of a core", Groups: []Group{{Name: "1 cluster", Bars: []Bar{NewBar(1, []float64{0, 0}, text), NewBar(2, []float64{0, 0}, text)}}}},
			{Title: "memory, MB", Groups: []Group{{Name: "1 cluster", Bars: []Bar{NewBar(1, []float64{20, 21}, text), NewBar(2, []float64{30, 40}, text)}}}},
		},
	}
	got := c.SVG()
	path := filepath.Join("testdata", "chart.svg")
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
		t.Errorf("%s\nwant\n%s", got, want)
	}
	if err := xml.Unmarshal([]byte(got), new(struct{})); err != nil {
		t.Error(err)
	}
	if !strings.Contains(got, "questions/s a member, 1,000 clusters: nobody asks 0.0, HAProxy 2.0, pgporter -0.2.") {
		t.Error("it doesn't say in words what it shows")
	}
}

func TestMedian(t *testing.T) {
	for _, c := range []struct {
		of   []float64
		want float64
	}{{[]float64{3}, 3}, {[]float64{9, 1, 5}, 5}, {[]float64{9, 1, 5, 2}, 3.5}} {
		if got := Median(c.of); got != c.want {
			t.Errorf("median of %v is %g, not %g", c.of, got, c.want)
		}
	}
}
