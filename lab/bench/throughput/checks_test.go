package throughput

import (
	"bytes"
	"context"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/pgporter/pgporter/internal/cli"
	"github.com/pgporter/pgporter/lab/fakepatroni"
)

// TestCrowdInventory: pgporter takes the inventory without a word but that of the password, and each service is as it is in Pigsty but for
// its port.
func TestCrowdInventory(t *testing.T) {
	path := filepath.Join(t.TempDir(), "inventory.yml")
	if err := os.WriteFile(path, crowdInventory("127.0.6.11", 2), 0o600); err != nil {
		t.Fatal(err)
	}
	var stdout, stderr bytes.Buffer
	if status := cli.Main([]string{"services", "--inventory", path, "--node", "127.0.6.11"}, nil, &stdout, &stderr); status != 0 || stderr.Len() > 0 {
		t.Fatalf("status %d: %s", status, &stderr)
	}
	var got []string
	for line := range strings.Lines(stdout.String()) {
		if fields := strings.Fields(line); fields[0] != "SERVICE" {
			got = append(got, strings.Join(fields, " "))
		}
	}
	want := []string{
		"pg-0001-primary *:10000 /primary pgbouncer 16432 pg-0001-1,pg-0001-2,pg-0001-3 -",
		"pg-0001-replica *:10001 /read-only pgbouncer 16432 pg-0001-2,pg-0001-3 pg-0001-1",
		"pg-0001-default *:10002 /primary postgres 15432 pg-0001-1,pg-0001-2,pg-0001-3 -",
		"pg-0001-offline *:10003 /replica postgres 15432 - pg-0001-2,pg-0001-3",
	}
	if len(got) != 8 || !slices.Equal(got[:4], want) || !strings.HasPrefix(got[7], "pg-0002-offline *:10007 ") {
		t.Errorf("%q\nwant %q", got, want)
	}
}

func TestRate(t *testing.T) {
	mean, most := rate([]int64{10, 20, 5}, []int64{20, 50, 5}, 10)
	if mean < 1.33 || mean > 1.34 || most != 3 {
		t.Errorf("%g, %g", mean, most)
	}
}

// The test program is the process of the benchmark's own too, as pgporter-lab is.
func TestMain(m *testing.M) {
	if args := os.Getenv("THROUGHPUT_TRIVIAL"); args != "" {
		if err := Trivial(context.Background(), os.Args[1:]); err != nil {
			os.Stderr.WriteString(err.Error() + "\n")
			os.Exit(1)
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}

// TestMembers: the members are a process that counts what it is asked until it isn't needed any more.
func TestMembers(t *testing.T) {
	t.Setenv("THROUGHPUT_TRIVIAL", "1")
	var said bytes.Buffer
	s := newStage(Config{Prefix: "127.0.6", Trivial: []string{os.Args[0]}, Progress: &said}, t.TempDir())
	c, err := s.startCrowd(t.Context(), 2)
	if err != nil {
		t.Fatalf("%v %s", err, &said)
	}
	defer c.stop()
	answer, err := http.Get(fmt.Sprintf("http://%s:%d/replica", fakepatroni.Address(1, 2), crowdPatroni))
	if err != nil {
		t.Fatal(err)
	}
	answer.Body.Close()
	if answer.StatusCode != http.StatusOK {
		t.Errorf("a replica says %s", answer.Status)
	}
	counts, err := c.counts()
	if err != nil || !slices.Equal(counts.Asked, []int64{0, 0, 0, 0, 0, 1}) || len(counts.Knocked) != 6 {
		t.Errorf("%+v, %v", counts, err)
	}
}

// TestLedger: what was spent before the first look isn't counted, and what a process that has ended had spent is kept.
func TestLedger(t *testing.T) {
	var l ledger
	for _, look := range []struct {
		pid   int
		spent time.Duration
	}{{7, 5 * time.Second}, {7, 6 * time.Second}, {9, time.Second}, {7, 6500 * time.Millisecond}, {9, 1200 * time.Millisecond}} {
		l.add(look.pid, look.spent)
	}
	if got := l.spent(); got != 1700*time.Millisecond {
		t.Error(got)
	}
}

func TestSubtract(t *testing.T) {
	m := measure{quantities: []quantity{{name: "a", over: true}, {name: "b"}}}
	s := sample{{3, 3}, {10, 10}, {4, 4}}
	m.subtract(&s)
	if !slices.Equal(s[direct], []float64{3, 3}) || !slices.Equal(s[haproxy], []float64{7, 10}) || !slices.Equal(s[pgporter], []float64{1, 4}) || s[before] != nil {
		t.Error(s)
	}
}
