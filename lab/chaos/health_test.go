package chaos

import (
	"testing"
	"time"
)

func TestSpans(t *testing.T) {
	var all spans
	for _, note := range []struct {
		at   float64
		says string
	}{{0, "a"}, {1, "a"}, {2, "a"}, {1.5, "late"}, {10, "a"}, {11, "a"}, {11.5, "b"}, {12, "b"}} {
		all.note(sec(note.at), note.says, 2*time.Second)
	}
	if len(all) != 3 {
		t.Fatalf("spans: %+v", all)
	}
	for _, test := range []struct {
		from, to float64
		says     string
	}{
		{0, 2, "a"}, {0.5, 1.9, "a"},
		{1, 2.1, ""}, // nothing was said after 2
		{1, 10.5, ""}, {10, 11, "a"}, {11, 12, ""}, {11.5, 12, "b"}, {-1, 1, ""},
	} {
		says, ok := all.throughout(sec(test.from), sec(test.to))
		if says != test.says || ok != (test.says != "") {
			t.Errorf("from %g to %g: %q, %v", test.from, test.to, says, ok)
		}
	}
}

func TestThere(t *testing.T) {
	r := watcher()
	for i := range 100 {
		at := float64(i) / 10
		r.note("a", false, "noon", sec(at))
		started := "noon"
		if i >= 50 {
			started = "later" // it was killed, and was back before anybody noticed
		}
		r.note("b", true, started, sec(at))
	}
	for name, test := range map[string]struct {
		member      string
		from, to    float64
		primary, ok bool
	}{
		"a primary":           {"a", 1, 9, true, true},
		"a standby":           {"b", 1, 4, false, true},
		"one that restarted":  {"b", 4, 6, false, false},
		"after the restart":   {"b", 6, 9, false, true},
		"longer than is seen": {"a", 1, 11, false, false},
		"nobody":              {"c", 1, 2, false, false},
	} {
		if primary, ok := r.there(test.member, sec(test.from), sec(test.to)); primary != test.primary || ok != test.ok {
			t.Errorf("%s: primary %v, there %v", name, primary, ok)
		}
	}
}

func TestHolds(t *testing.T) {
	keys := history(0.0, "a", 10.0, "", 11.0, "b", 20.0, "a")
	for name, test := range map[string]struct {
		holder   string
		from, to float64
		want     bool
	}{
		"all the time":          {"a", 1, 9, true},
		"until it was lost":     {"a", 1, 10, true},
		"beyond":                {"a", 1, 10.1, false},
		"from its beginning":    {"b", 11, 12, true},
		"from before":           {"b", 10.9, 12, false},
		"over another's":        {"a", 5, 25, false},
		"the last one":          {"a", 20, 1000, true},
		"before anything":       {"a", -1, 5, false},
		"nobody isn't somebody": {"", 10.1, 10.9, true},
	} {
		if got := keys.holds(test.holder, sec(test.from), sec(test.to)); got != test.want {
			t.Errorf("%s: %v", name, got)
		}
	}
}
