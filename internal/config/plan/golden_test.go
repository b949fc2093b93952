package plan

import (
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/pgporter/pgporter/internal/config/diag"
	"github.com/pgporter/pgporter/internal/config/inventory"
	"github.com/pgporter/pgporter/internal/config/model"
)

var update = flag.Bool("update", false, "write the goldens anew")

// parse reads an inventory from testdata under its bare name, so that goldens don't depend on where the tests run.
func parse(t testing.TB, path string) (*inventory.Inventory, diag.Problems) {
	t.Helper()
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return inventory.Parse(filepath.Base(path), data)
}

func inventories(t *testing.T, dir string, atLeast int) []string {
	t.Helper()
	paths, err := filepath.Glob(filepath.Join("testdata", dir, "*.yml"))
	if err != nil || len(paths) < atLeast {
		t.Fatalf("testdata/%s holds %d inventories (error %v), want at least %d", dir, len(paths), err, atLeast)
	}
	return paths
}

func compareGolden(t *testing.T, path, got string) {
	t.Helper()
	if *update {
		if err := os.WriteFile(path, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if got != string(want) {
		t.Errorf("%s differs:\n--- got\n%s--- want\n%s", path, got, want)
	}
}

// everyProblem is what an operator sees of a broken inventory.
func everyProblem(t *testing.T, path string) diag.Problems {
	t.Helper()
	inv, problems := parse(t, path)
	if inv != nil {
		_, found := Check(inv)
		problems = append(problems, found...)
	}
	return problems
}

func TestBadInventories(t *testing.T) {
	for _, path := range inventories(t, "bad", 20) {
		name := strings.TrimSuffix(path, ".yml")
		t.Run(filepath.Base(name), func(t *testing.T) {
			problems := everyProblem(t, path)
			if problems.Err() == nil {
				t.Errorf("no error among the problems:\n%s", problems.Error())
			}
			compareGolden(t, name+".txt", problems.Error()+"\n")
		})
	}
}

func TestWarnedInventories(t *testing.T) {
	for _, path := range inventories(t, "warn", 5) {
		name := strings.TrimSuffix(path, ".yml")
		t.Run(filepath.Base(name), func(t *testing.T) {
			problems := everyProblem(t, path)
			if err := problems.Err(); err != nil || len(problems) == 0 {
				t.Errorf("want warnings only, got:\n%s", problems.Error())
			}
			compareGolden(t, name+".txt", problems.Error()+"\n")
		})
	}
}

func TestGoodInventories(t *testing.T) {
	for _, path := range inventories(t, "good", 3) {
		name := strings.TrimSuffix(path, ".yml")
		t.Run(filepath.Base(name), func(t *testing.T) {
			if problems := everyProblem(t, path); problems.Err() != nil {
				t.Errorf("unexpected problems:\n%s", problems.Error())
			}
			inv, _ := parse(t, path)
			all, _ := All(inv)
			text, err := json.MarshalIndent(all, "", "  ")
			if err != nil {
				t.Fatal(err)
			}
			compareGolden(t, name+".json", string(text)+"\n")
			var again model.Plan
			if err := json.Unmarshal(text, &again); err != nil {
				t.Fatalf("the plan can't be read back: %v", err)
			}
			if text2, _ := json.MarshalIndent(again, "", "  "); string(text2) != string(text) {
				t.Errorf("the plan changes when it is read back:\n%s", text2)
			}
		})
	}
}

// What HAProxy carries on each node, with every problem that this node's plan has.
func TestHAProxyInventories(t *testing.T) {
	for _, path := range inventories(t, "haproxy", 1) {
		name := strings.TrimSuffix(path, ".yml")
		t.Run(filepath.Base(name), func(t *testing.T) {
			inv, problems := parse(t, path)
			plans := []model.Plan{}
			for _, h := range inv.Hosts() {
				p, found := ForHAProxy(inv, h.Name)
				plans = append(plans, p)
				problems = append(problems, found...)
			}
			text, err := json.MarshalIndent(plans, "", "  ")
			if err != nil {
				t.Fatal(err)
			}
			compareGolden(t, name+".json", string(text)+"\n")
			compareGolden(t, name+".txt", problems.Error()+"\n")
		})
	}
}

// What each node carries by either engine, and every problem that its plan has.
func TestWhatNodesCarry(t *testing.T) {
	for _, path := range inventories(t, "nodes", 3) {
		name := strings.TrimSuffix(path, ".yml")
		t.Run(filepath.Base(name), func(t *testing.T) {
			inv, problems := parse(t, path)
			if problems != nil {
				t.Fatal(problems)
			}
			var text strings.Builder
			for _, engine := range []struct {
				name string
				plan func(*inventory.Inventory, string) (model.Plan, diag.Problems)
			}{{"native", ForNode}, {"haproxy", ForHAProxy}} {
				fmt.Fprintf(&text, "%s:\n", engine.name)
				var problems diag.Problems
				for _, h := range inv.Hosts() {
					p, found := engine.plan(inv, h.Name)
					problems = append(problems, found...)
					fmt.Fprintf(&text, "  %s\n", h.Name)
					for _, c := range p.Clusters {
						fmt.Fprintf(&text, "    %s, ttl %d\n", c.Name, c.TTL)
						if v := c.VIP; v != nil {
							fmt.Fprintf(&text, "      %s on %q, or where %s is, for %s, %s on loss\n", v.Address, v.Interface, v.Host, v.Member, v.OnLoss)
						}
						for _, d := range c.Definitions {
							fmt.Fprintf(&text, "      %s\n", describe(t, c, d))
						}
					}
					for _, g := range p.TCPServices {
						fmt.Fprintf(&text, "    %s %s:%d\n", g.Name, g.IP, g.Port)
					}
				}
				for _, p := range problems.Sorted() {
					fmt.Fprintf(&text, "  %s\n", p)
				}
			}
			compareGolden(t, name+".txt", text.String())
		})
	}
}
