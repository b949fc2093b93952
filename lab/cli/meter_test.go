package cli

import (
	"bytes"
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/pgporter/pgporter/lab/load"
)

// TestMeter plays what a prober saw and compares what is printed, step by step.
func TestMeter(t *testing.T) {
	zero := time.Unix(1000, 0)
	at := func(ms int) time.Time { return zero.Add(time.Duration(ms) * time.Millisecond) }
	write := func(ms int, server string) load.Probe {
		return load.Probe{Began: at(ms - 5), Ended: at(ms), Server: server}
	}
	fails := func(from, ms int, o load.Outcome) load.Probe {
		return load.Probe{Began: at(from), Ended: at(ms), Outcome: o, Err: errors.New("scripted")}
	}
	m := newMeter(map[string]string{"127.0.1.11": "pg-test-1", "127.0.1.12": "pg-test-2"}, zero)
	var steady []load.Probe
	for ms := 100; ms <= 1000; ms += 20 {
		steady = append(steady, write(ms, "127.0.1.11"))
	}
	for _, step := range []struct {
		what   string
		now    int
		probes []load.Probe
		events []string
		line   string
	}{
		{"nothing yet", 100, nil, nil, "writes/s  0  nobody takes them yet failed connects 0   failed writes 0   last gap none"},
		{"steady", 1000, steady, nil, "writes/s 46  to pg-test-1       failed connects 0   failed writes 0   last gap none"},
		{"silent", 1500, nil, nil, "writes/s 26  none for 0.5 s     failed connects 0   failed writes 0   last gap none"},
		{"another leads", 2700, []load.Probe{write(2600, "127.0.1.12"), write(2620, "127.0.1.12")},
			[]string{"no write for 1.60 s, then pg-test-2 takes them instead of pg-test-1; nothing failed"},
			"writes/s  2  to pg-test-2       failed connects 0   failed writes 0   last gap 1.60 s"},
		{"the first failure of each kind is printed", 9000, []load.Probe{fails(2640, 7640, load.Refused), fails(7700, 7800, load.LoginCut), fails(7850, 7860, load.WriteCut)},
			[]string{"a connect failed after 5.0 s: scripted", "a write failed after 0.0 s: scripted"},
			"writes/s  0  none for 6.4 s     failed connects 2   failed writes 1   last gap 1.60 s"},
		{"restarted in place", 9100, []load.Probe{write(9020, "127.0.1.12"), write(9040, "127.0.1.12")},
			[]string{"no write for 6.40 s, then pg-test-2 takes them again; connects failed: 2, writes failed: 1"},
			"writes/s  2  to pg-test-2       failed connects 2   failed writes 1   last gap 6.40 s"},
		{"on a replica for a moment", 9200, []load.Probe{fails(9050, 9060, load.ReadOnly), write(9080, "127.0.1.12")},
			[]string{"a write failed after 0.0 s: scripted", "no write for 0.04 s, then pg-test-2 takes them again; writes failed: 1"},
			"writes/s  3  to pg-test-2       failed connects 2   failed writes 2   last gap 0.04 s"},
		{"a switchover that hardly anybody sees", 9400, []load.Probe{write(9220, "127.0.9.9")},
			[]string{"no write for 0.14 s, then 127.0.9.9 takes them instead of pg-test-2; nothing failed"},
			"writes/s  4  to 127.0.9.9       failed connects 2   failed writes 2   last gap 0.14 s"},
	} {
		if events := m.see(at(step.now), step.probes); !slices.Equal(events, step.events) {
			t.Errorf("%s: %q, want %q", step.what, events, step.events)
		}
		if line := m.line(at(step.now)); line != step.line {
			t.Errorf("%s:\n%s, want\n%s", step.what, line, step.line)
		}
	}
}

func TestPooledMeter(t *testing.T) {
	zero := time.Unix(1000, 0)
	at := func(ms int) time.Time { return zero.Add(time.Duration(ms) * time.Millisecond) }
	m := newMeter(map[string]string{"127.0.1.11": "pg-test-1", "127.0.1.12": "pg-test-2"}, zero)
	m.pooled, m.lost = true, 2
	events := m.see(at(3000), []load.Probe{
		{Began: at(90), Ended: at(100), Server: "127.0.1.11"},
		{Began: at(200), Ended: at(900), Outcome: load.WriteCut, Err: errors.New("scripted")},
		{Began: at(200), Ended: at(2600), Server: "127.0.1.12"},
	})
	want := []string{"pooled: a write failed after 0.7 s: scripted", "pooled: no write for 2.50 s, then pg-test-2 takes them instead of pg-test-1; writes failed: 1"}
	if !slices.Equal(events, want) {
		t.Errorf("%q, want %q", events, want)
	}
	if line := m.line(at(3000)); line != "pooled/s  1  to pg-test-2       sessions lost 2     failed writes 1   last gap 2.50 s" {
		t.Error(line)
	}
}

func TestScreen(t *testing.T) {
	now := time.Unix(1000, 0)
	var out bytes.Buffer
	s := newScreen(&out, true)
	s.show(now, "one")
	s.Write([]byte("an event\n"))
	s.show(now.Add(lookEvery), "two")
	s.clear()
	s.Write([]byte("the end\n"))
	if want := "one" + eraseLine + "an event\none" + eraseLine + "two\nthe end\n"; out.String() != want {
		t.Errorf("on a terminal: %q, want %q", &out, want)
	}
	out.Reset()
	s.show(now, "one", "two")
	s.Write([]byte("an event\n"))
	s.show(now, "three", "four")
	s.clear()
	if both := eraseLine + lineUp + eraseLine; out.String() != "one\ntwo"+both+"an event\none\ntwo"+both+"three\nfour\n" {
		t.Errorf("two lines: %q", &out)
	}
	out.Reset()
	out.Reset()
	s = newScreen(&out, false)
	for i := range 3 * int(printEvery/lookEvery) {
		s.show(now.Add(time.Duration(i)*lookEvery), "now")
	}
	s.Write([]byte("an event\n"))
	s.clear()
	if want := strings.Repeat("now\n", 3) + "an event\n"; out.String() != want {
		t.Errorf("elsewhere: %q, want %q", &out, want)
	}
}
