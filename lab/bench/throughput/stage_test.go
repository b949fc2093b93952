package throughput

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/pgporter/pgporter/internal/cli"
	"github.com/pgporter/pgporter/lab/bench/report"
)

// TestInventory: pgporter takes the inventory, and it declares the services where clients connect.
func TestInventory(t *testing.T) {
	path := filepath.Join(t.TempDir(), "inventory.yml")
	if err := os.WriteFile(path, fmt.Appendf(nil, inventory, "127.0.6.11"), 0o600); err != nil {
		t.Fatal(err)
	}
	var stdout, stderr bytes.Buffer
	if status := cli.Main([]string{"services", "--inventory", path}, nil, &stdout, &stderr); status != 0 || stderr.Len() > 0 {
		t.Fatalf("status %d: %s", status, &stderr)
	}
	var got []string
	for line := range strings.Lines(stdout.String()) {
		if fields := strings.Fields(line); fields[0] != "SERVICE" {
			got = append(got, strings.Join(fields, " "))
		}
	}
	want := []string{"pg-bench-default *:5436 /primary postgres 5432 pg-bench-1 -", "pg-bench-trivial *:5440 /primary port 5440 pg-bench-1 -"}
	if !slices.Equal(got, want) {
		t.Errorf("%q\nwant %q", got, want)
	}
}

func TestServePatroni(t *testing.T) {
	const address, port = "127.0.6.12", 8008
	stop, err := servePatroni(t.Context(), address, port)
	if err != nil {
		t.Fatal(err)
	}
	defer stop()
	for _, c := range []struct {
		method, path string
		status       int
		body         bool
	}{
		{http.MethodGet, "/", 200, true}, {http.MethodOptions, "/primary", 200, false}, {http.MethodGet, "/primary", 200, true},
		{http.MethodOptions, "/replica", 503, false}, {http.MethodGet, "/replica", 503, true},
	} {
		request, err := http.NewRequestWithContext(t.Context(), c.method, fmt.Sprintf("http://%s:%d%s", address, port, c.path), nil)
		if err != nil {
			t.Fatal(err)
		}
		answer, err := http.DefaultClient.Do(request)
		if err != nil {
			t.Fatal(err)
		}
		body, err := io.ReadAll(answer.Body)
		answer.Body.Close()
		if err != nil || answer.StatusCode != c.status || strings.Contains(string(body), `"role": "primary"`) != c.body {
			t.Errorf("%s %s: %s %q, %v", c.method, c.path, answer.Status, body, err)
		}
	}
	http.DefaultClient.CloseIdleConnections()
}

// TestDocument: the document has a section for whatever can be measured.
func TestDocument(t *testing.T) {
	for _, system := range report.Systems {
		document := report.Report{Path: "../../../docs/benchmarks.md", Kind: kind, System: system}
		if err := document.Check(append(Sections(), machineSection)...); err != nil {
			t.Error(err)
		}
	}
}

func TestSettle(t *testing.T) {
	good := Config{Rounds: Rounds, Run: Seconds * time.Second, Progress: io.Discard}
	all, err := good.settle()
	if err != nil || len(all) != len(sections) {
		t.Errorf("%d sections, %v", len(all), err)
	}
	for _, s := range sections {
		if n := len(s.measures(good)); n == 0 {
			t.Errorf("%s measures nothing", s.name)
		}
	}
	for problem, change := range map[string]func(*Config){
		`"select", "nonsense"`:          func(c *Config) { c.Sections = []string{"select", "nonsense"} },
		"0 rounds: 1 or more":           func(c *Config) { c.Rounds = 0 },
		"a run of 1.5s: whole seconds":  func(c *Config) { c.Run = 1500 * time.Millisecond },
		"500 clients: 1 to 190":         func(c *Config) { c.Clients = []int{8, 500} },
		"no place for section \"select": nil,
		"isn't written into a document": func(c *Config) { c.Before, c.Doc = "pgporter-before", "benchmarks.md" },
	} {
		c := good
		if change == nil {
			c.Doc = filepath.Join(t.TempDir(), "empty.md")
			if err := os.WriteFile(c.Doc, nil, 0o600); err != nil {
				t.Fatal(err)
			}
		} else {
			change(&c)
		}
		if problem == `"select", "nonsense"` {
			problem = `no section is called "nonsense"; there are: select, connect, bulk, idle, checks, checkcost`
		}
		_, err := c.settle()
		if err == nil || !strings.Contains(err.Error(), problem) || errors.Is(err, ErrInput) != (change != nil) {
			t.Errorf("%v, want %q", err, problem)
		}
	}
	c := good
	c.Sections = []string{"idle", "select"}
	if some, err := c.settle(); err != nil || len(some) != 2 || some[0].name != "select" {
		t.Errorf("%v, %v", some, err)
	}
}
