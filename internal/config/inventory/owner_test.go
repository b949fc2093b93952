package inventory

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/pgporter/pgporter/internal/config/diag"
)

const owned = `all:
  vars: { a: 1 }
  children:
    one:
      hosts:
        10.0.0.1: { b: 1 }
        10.0.0.2:
          c: 1
      vars:
        d: 1
    two: { hosts: { 10.0.0.3: { e: 1 }, 10.0.0.4: }, vars: { f: 1 } }
    both:
      children: { one: , two: }
      vars: { g: 1 }
  hosts: { 10.0.0.5: { h: 1 } }
`

// whose gives the hosts that the variable of a name in owned, or in what it became, is about.
func whose(t *testing.T, inv *Inventory, text, name string) string {
	t.Helper()
	pos := diag.Position{File: inv.File, Line: 1}
	for line := range strings.Lines(text) {
		if i := strings.Index(line, name+":"); i >= 0 {
			pos.Column = i + 1
			break
		}
		pos.Line++
	}
	var names []string
	for _, h := range inv.OwnersOf(pos) {
		names = append(names, strings.TrimPrefix(h.Name, "10.0.0."))
	}
	return strings.Join(names, " ")
}

func TestOwnersOf(t *testing.T) {
	inv, problems := Parse("pigsty.yml", []byte(owned))
	if len(problems) > 0 {
		t.Fatal(problems)
	}
	for name, want := range map[string]string{" a": "", " b": "1", " c": "2", " d": "1 2", " e": "3", " f": "3 4", " g": "1 2 3 4", " h": "5"} {
		if got := whose(t, inv, owned, name); got != want {
			t.Errorf("%s is about %q, not %q", name, got, want)
		}
	}
	if owners := inv.OwnersOf(diag.Position{File: "other.yml", Line: 6, Column: 20}); owners != nil {
		t.Errorf("another file is about %v", owners)
	}
}

// What has an alias may be meant for others than those where it stands.
func TestOwnersOfAliasesAreNobody(t *testing.T) {
	text := strings.Replace(strings.Replace(owned, "vars:\n        d: 1", "vars: &shared\n        d: 1", 1), "vars: { f: 1 }", "vars: *shared", 1)
	inv, problems := Parse("pigsty.yml", []byte(text))
	if len(problems) > 0 {
		t.Fatal(problems)
	}
	if got := whose(t, inv, text, " d"); got != "" {
		t.Errorf("it is about %q", got)
	}
}

func TestOwnersOfFiles(t *testing.T) {
	dir := t.TempDir()
	write := func(name, text string) string {
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
		return path
	}
	path := write("pigsty.yml", owned)
	for file, want := range map[string]int{"group_vars/one.yml": 2, "group_vars/two/a.yml": 2, "host_vars/10.0.0.5": 1, "group_vars/all.yml": 0} {
		at := diag.Position{File: write(file, "z: 1\n"), Line: 1, Column: 1}
		inv, problems := Read(path)
		if len(problems) > 0 {
			t.Fatal(problems)
		}
		if got := len(inv.OwnersOf(at)); got != want {
			t.Errorf("%s is about %d hosts, not %d", file, got, want)
		}
	}
}

func TestOwnersOfListed(t *testing.T) {
	const text = `{ "_meta": { "hostvars": {
  "10.0.0.1": { "b": 1 },
  "10.0.0.2": { "c": 1 } } },
"all": { "children": [ "one" ], "vars": { "a": 1 } },
"one": { "hosts": [ "10.0.0.1", "10.0.0.2" ] } }`
	inv, problems := Parse("list.json", []byte(text))
	if len(problems) > 0 {
		t.Fatal(problems)
	}
	for name, want := range map[string]string{`"a"`: "", `"b"`: "1", `"c"`: "2"} {
		if got := whose(t, inv, text, name); got != want {
			t.Errorf("%s is about %q, not %q", name, got, want)
		}
	}
}
