package soak

import (
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// TestSoak is `make soak` in small: all parts with pgporter as it is shipped, and the sessions and storms once more with
// one that has the race detector. Clients and server never have it, since they would be too slow to load anybody.
func TestSoak(t *testing.T) {
	dir := t.TempDir()
	build := func(name, what string, flags ...string) string {
		path := filepath.Join(dir, name)
		args := append(append([]string{"build"}, flags...), "-o", path, what)
		if out, err := exec.CommandContext(t.Context(), "go", args...).CombinedOutput(); err != nil {
			t.Fatalf("building %s: %v\n%s", name, err, out)
		}
		return path
	}
	lab := build("pgporter-lab", "../../cmd/pgporter-lab")
	// An address of this process's own, so that two runs on one machine don't meet.
	pid := os.Getpid()
	host := fmt.Sprintf("127.%d.%d.63", 64+pid>>8%128, pid%256)
	for _, test := range []struct {
		name, porter string
		args         []string
	}{
		{"as shipped", build("pgporter", "../../cmd/pgporter"), []string{"--bytes", "67108864", "--sessions", "2000", "--idle", "500"}},
		{"with the race detector", build("pgporter-race", "../../cmd/pgporter", "-race"),
			[]string{"--bytes", "16777216", "--sessions", "2000", "--idle", "0", "--storm", "1000", "--scarce=false", "--memory=false"}},
	} {
		t.Run(test.name, func(t *testing.T) {
			out, err := exec.CommandContext(t.Context(), lab, append([]string{"soak", "--pgporter", test.porter, "--host", host}, test.args...)...).CombinedOutput()
			t.Logf("%s", out)
			if err != nil {
				t.Fatal(err)
			}
		})
	}
}

// Every ending has its part in what is run.
func TestScriptsAreVaried(t *testing.T) {
	drawn := map[ending]int{}
	var stalls, large, empty, encrypted int
	for n := range uint64(10_000) {
		s := scriptOf(1, n)
		if s != scriptOf(1, n) {
			t.Fatalf("session %d has two scripts", n)
		}
		drawn[s.ending]++
		if s.clientStalls+s.serverStalls > 0 {
			stalls++
		}
		if s.up > 64<<10 {
			large++
		}
		if s.up == 0 {
			empty++
		}
		if s.asksTLS {
			encrypted++
		}
	}
	for _, w := range endings {
		if n := drawn[w.ending]; n < 50*w.share || n > 150*w.share {
			t.Errorf("ending %d: %d of 10000 sessions, want %d in a hundred", w.ending, n, w.share)
		}
	}
	if stalls < 100 || large < 20 || empty < 100 || encrypted < 100 {
		t.Errorf("%d stalls, %d large, %d empty, %d that ask for encryption", stalls, large, empty, encrypted)
	}
}

// A check that can't fail shows nothing: each of these is what a proxy might do to a stream.
func TestStreamIsJudged(t *testing.T) {
	const total = 300_000
	var whole strings.Builder
	if sent, err := stream(7).send(&whole, total, 999); err != nil || sent.Bytes != total {
		t.Fatalf("sent %+v, %v", sent, err)
	}
	text := whole.String()
	for _, test := range []struct{ name, text, want string }{
		{"as sent", text, "EOF"},
		{"cut short", text[:total-1], "EOF"},
		{"a byte changed", text[:1234] + string(text[1234]^1) + text[1235:], "byte 1234 is"},
		{"a byte lost", text[:70_001] + text[70_002:], "byte 70001 is"},
		{"two pieces exchanged", text[64<<10:128<<10] + text[:64<<10] + text[128<<10:], "byte 0 is"},
		{"a piece twice", text[:131_072] + text[65_536:131_072] + text[131_072:], "byte 131072 is"},
		{"another stream's", strings.Repeat("x", 10), "byte 0 is"},
	} {
		t.Run(test.name, func(t *testing.T) {
			got, err := stream(7).receive(strings.NewReader(test.text), toItsEnd)
			if err == nil || !strings.Contains(err.Error(), test.want) {
				t.Fatalf("got %+v, %v; want %s", got, err, test.want)
			}
			if err == io.EOF && got.Bytes != int64(len(test.text)) {
				t.Errorf("%d bytes, want %d", got.Bytes, len(test.text))
			}
		})
	}
	// A number of bytes may be asked for in odd parts.
	in := strings.NewReader(text)
	if got, err := stream(7).receive(in, 13); err != nil || got.Bytes != 13 || in.Len() != total-13 {
		t.Errorf("got %+v, %v", got, err)
	}
}
