// Package contrib_test holds what is in this folder for Prometheus and Grafana against what pgporter exports.
package contrib_test

import (
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"go.yaml.in/yaml/v4"
)

// own is a metric of pgporter's, as it stands in expressions and in docs/metrics.md.
var own = regexp.MustCompile(`\bpgporter_[a-z0-9_]+`)

// documented are the metrics of docs/metrics.md by their types: a test of internal/admin/metrics holds them to what there is.
func documented(t *testing.T) map[string]string {
	t.Helper()
	rows := regexp.MustCompile("(?m)^\\| `(pgporter_[a-z0-9_]+)` \\| (\\w+) ").FindAllStringSubmatch(read(t, "../docs/metrics.md"), -1)
	kinds := map[string]string{}
	for _, row := range rows {
		kinds[row[1]] = row[2]
	}
	if len(kinds) < 20 {
		t.Fatalf("docs/metrics.md has only %d metrics", len(kinds))
	}
	return kinds
}

func read(t *testing.T, path string) string {
	t.Helper()
	text, err := os.ReadFile(filepath.FromSlash(path))
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// exist complains about metrics in a text that pgporter hasn't.
func exist(t *testing.T, where, text string, kinds map[string]string) {
	t.Helper()
	for _, name := range own.FindAllString(text, -1) {
		of := name
		for _, part := range []string{"_bucket", "_sum", "_count"} {
			if whole, is := strings.CutSuffix(name, part); is && kinds[whole] == "histogram" {
				of = whole
			}
		}
		if kinds[of] == "" || kinds[of] == "histogram" && of == name {
			t.Errorf("%s asks for %s, which isn't in docs/metrics.md", where, name)
		}
	}
}

// panel is what is looked at of a panel of a dashboard.
type panel struct {
	ID          int
	Type, Title string
	Description string
	Datasource  struct{ UID string }
	GridPos     struct{ X, Y, W, H int }
	Targets     []struct{ Expr, RefID string }
}

func TestDashboard(t *testing.T) {
	var board struct {
		UID, Title string
		Panels     []panel
		Templating struct {
			List []struct{ Name, Type, Definition string }
		}
	}
	if err := json.Unmarshal([]byte(read(t, "grafana/pgporter.json")), &board); err != nil {
		t.Fatal(err)
	}
	kinds, known := documented(t), map[string]bool{"__rate_interval": true, "__range": true}
	for _, v := range board.Templating.List {
		known[v.Name] = true
		exist(t, "the variable "+v.Name, v.Definition, kinds)
	}
	for _, name := range []string{"datasource", "cluster", "node"} {
		if !known[name] {
			t.Errorf("there is no variable %s", name)
		}
	}
	// Debian's Prometheus takes all of them for expressions, once Grafana has put its variables in.
	var rules strings.Builder
	rules.WriteString("groups:\n- name: dashboard\n  rules:\n")
	ids, taken := map[int]bool{}, map[[2]int]string{}
	for _, p := range board.Panels {
		if ids[p.ID] || p.Title == "" || p.Description == "" || p.Datasource.UID != "${datasource}" || len(p.Targets) == 0 {
			t.Errorf("the panel %d, %q, has another's number, no title, no description, no query or a data source of its own", p.ID, p.Title)
		}
		ids[p.ID] = true
		for x := p.GridPos.X; x < p.GridPos.X+p.GridPos.W; x++ {
			for y := p.GridPos.Y; y < p.GridPos.Y+p.GridPos.H; y++ {
				if other := taken[[2]int{x, y}]; other != "" || x >= 24 || y >= 28 {
					t.Fatalf("%q lies on %q, or beyond one screen", p.Title, other)
				}
				taken[[2]int{x, y}] = p.Title
			}
		}
		for i, of := range p.Targets {
			exist(t, p.Title, of.Expr, kinds)
			for _, v := range regexp.MustCompile(`\$\{?(\w+)`).FindAllStringSubmatch(of.Expr, -1) {
				if !known[v[1]] {
					t.Errorf("%q has the variable %s, which the dashboard hasn't", p.Title, v[1])
				}
			}
			expr := strings.NewReplacer("$__rate_interval", "1m", "$__range", "1h", "$cluster", ".*", "$node", ".*").Replace(of.Expr)
			fmt.Fprintf(&rules, "  - record: panel_%d_%d\n    expr: %q\n", p.ID, i, expr)
		}
	}
	file := filepath.Join(t.TempDir(), "dashboard.yml")
	if err := os.WriteFile(file, []byte(rules.String()), 0o644); err != nil {
		t.Fatal(err)
	}
	promtool(t, ".", "check", "rules", file)
}

// promtool fails the test if Debian's promtool doesn't take what it is given.
func promtool(t *testing.T, dir string, args ...string) {
	t.Helper()
	path, err := exec.LookPath("promtool")
	if err != nil {
		t.Fatalf("%v: it comes with Debian's prometheus, which scripts/prerequisites installs", err)
	}
	run := exec.CommandContext(t.Context(), path, args...)
	run.Dir = dir
	if out, err := run.CombinedOutput(); err != nil {
		t.Errorf("promtool %s: %v\n%s", strings.Join(args, " "), err, out)
	}
}

func TestAlertsAreTested(t *testing.T) {
	var rules struct {
		Groups []struct {
			Rules []struct{ Alert, Expr string }
		}
	}
	var tests struct {
		Tests []struct {
			AlertRuleTest []struct {
				Alertname string
				ExpAlerts []any `yaml:"exp_alerts"`
			} `yaml:"alert_rule_test"`
		}
	}
	for path, into := range map[string]any{"prometheus/pgporter.rules.yml": &rules, "prometheus/pgporter.rules.test.yml": &tests} {
		if err := yaml.Unmarshal([]byte(read(t, path)), into); err != nil {
			t.Fatalf("%s: %v", path, err)
		}
	}
	fires, quiet := map[string]bool{}, map[string]bool{}
	for _, test := range tests.Tests {
		for _, of := range test.AlertRuleTest {
			if len(of.ExpAlerts) > 0 {
				fires[of.Alertname] = true
			} else {
				quiet[of.Alertname] = true
			}
		}
	}
	kinds, seen := documented(t), map[string]bool{}
	for _, group := range rules.Groups {
		for _, rule := range group.Rules {
			exist(t, rule.Alert, rule.Expr, kinds)
			if seen[rule.Alert] = true; !fires[rule.Alert] || !quiet[rule.Alert] {
				t.Errorf("%s: tested as it fires: %v, as it doesn't: %v", rule.Alert, fires[rule.Alert], quiet[rule.Alert])
			}
		}
	}
	for _, alert := range slices.Sorted(maps.Keys(fires)) {
		if !seen[alert] {
			t.Errorf("%s is tested and doesn't exist", alert)
		}
	}
	// What is said of them is said in one place.
	text := read(t, "../docs/monitoring.md")
	for _, alert := range slices.Sorted(maps.Keys(seen)) {
		if !strings.Contains(text, "`"+alert+"`") {
			t.Errorf("docs/monitoring.md doesn't name %s", alert)
		}
	}
}

func TestAlertsFire(t *testing.T) {
	promtool(t, "prometheus", "check", "rules", "pgporter.rules.yml")
	promtool(t, "prometheus", "test", "rules", "pgporter.rules.test.yml")
}
