package jinja

import (
	"flag"
	"fmt"
	"os"
	"regexp"
	"strings"
	"testing"
)

var update = flag.Bool("update", false, "write the goldens anew")

// What isn't supported, is wrong or costs too much: each with its position and message. A bomb that weren't stopped would go on
// into the time limit of all tests.
func TestRefused(t *testing.T) {
	data, err := os.ReadFile("testdata/refused.txt")
	if err != nil {
		t.Fatal(err)
	}
	var got strings.Builder
	for _, source := range strings.Split(strings.TrimSpace(string(data)), "\n") {
		compiled, err := NewTotal().Compile(source)
		if err == nil {
			_, err = compiled.Value(newFixture(t, "testdata/variables.json"), NewTotal().NewBudget())
		}
		failed, ok := err.(*Error)
		if !ok {
			t.Errorf("%s: the error is %v", source, err)
			continue
		}
		if len(source) > 80 {
			source = source[:77] + "..."
		}
		fmt.Fprintf(&got, "%s\n    %d: %s\n", source, failed.Offset, failed.What)
	}
	const golden = "testdata/refused.golden"
	if *update {
		if err := os.WriteFile(golden, []byte(got.String()), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(golden)
	if err != nil {
		t.Fatal(err)
	}
	if got.String() != string(want) {
		t.Errorf("%s differs:\n%s", golden, got.String())
	}
}

// Whatever the table refuses is refused wherever it may stand, with the advice, and isn't supported at the same time.
func TestRefusedByName(t *testing.T) {
	forms := map[string]string{
		"statement": "{%% %s %%}", "function": "{{ %s(1) }}", "filter": "{{ word | %s }}", "test": "{{ word is %s }}",
		"text method": "{{ word.%s() }}", "list method": "{{ list.%s() }}", "mapping method": "{{ d.%s() }}",
	}
	for what, advice := range refusals {
		if functions[what] != nil || advice == "" {
			t.Errorf("%s is refused and supported, or refused without advice", what)
		}
		i := strings.LastIndex(what, " ")
		form, named := forms[what[:i]]
		if !named {
			continue
		}
		source := fmt.Sprintf(form, what[i+1:])
		compiled, err := NewTotal().Compile(source)
		if err == nil {
			_, err = compiled.Value(newFixture(t, "testdata/variables.json"), NewTotal().NewBudget())
		}
		want := "the " + what + " is not supported: " + advice
		failed, ok := err.(*Error)
		if index := strings.Index(source, what[i+1:]); !ok || failed.What != want || failed.Offset != index && failed.Offset != index-1 || failed.Undefined {
			t.Errorf("%s: %v, want %s", source, err, want)
		}
	}
}

// The page on inventories names all that there is and all that is refused, each in its row and on its side, and nothing that
// there isn't.
func TestDocumented(t *testing.T) {
	page, err := os.ReadFile("../../../../docs/inventories.md")
	if err != nil {
		t.Fatal(err)
	}
	rows := map[string][]string{}
	for line := range strings.Lines(string(page)) {
		if cells := strings.Split(strings.ReplaceAll(line, `\|`, ""), "|"); len(cells) == 5 {
			rows[strings.TrimSpace(cells[1])] = cells[2:4]
		}
	}
	kinds := map[string]string{
		"statement": "tags", "function": "functions", "filter": "filters", "test": "tests",
		"text method": "methods of a text", "mapping method": "methods of a mapping", "list method": "methods of a list",
	}
	quoted := regexp.MustCompile("`([^` ]+)`")
	for kind, title := range kinds {
		row := rows[title]
		if row == nil {
			t.Fatalf("the page has no row %q", title)
		}
		for _, match := range quoted.FindAllStringSubmatch(row[0], -1) {
			if kind != "statement" && functions[kind+" "+match[1]] == nil {
				t.Errorf("the page has %s in its row %q, and there is no such %s", match[1], title, kind)
			}
		}
		for what := range functions {
			if name, ok := strings.CutPrefix(what, kind+" "); ok && !strings.Contains(row[0], "`"+name+"`") {
				t.Errorf("the page lacks %s in its row %q", name, title)
			}
		}
		for what := range refusals {
			if name, ok := strings.CutPrefix(what, kind+" "); ok && !strings.Contains(row[1], "`"+name+"`") && !strings.HasPrefix(what, "statement end") {
				t.Errorf("the page lacks %s among what is refused in its row %q", name, title)
			}
		}
	}
}

// No message may quote what a variable holds, which may be a secret.
func TestMessagesKeepSecrets(t *testing.T) {
	const secret = "s3cret"
	scope := secretScope(secret)
	for _, source := range []string{
		"{{ v + 1 }}", "{{ 1 + v }}", "{{ v - v }}", "{{ v / 2 }}", "{{ v < 1 }}", "{{ v() }}", "{{ v.nosuch }}", "{{ v['x'] }}", "{{ v | from_json }}", "{{ v | b64decode }}",
		"{{ d[v ~ v] }}", "{{ {}[v] }}", "{{ d | extract([d]) }}", "{{ d | items2dict }}", "{{ d + 1 }}", "{{ v | abs }}", "{{ v | round }}", "{{ [v, 1] | sort }}", "{{ 1 in v }}", "{{ 'x' | regex_replace(v ~ '(') }}",
		"{{ '%d' % v }}", "{{ '%d' | format(v) }}", "{{ v.nosuch() }}", "{{ -v }}", "{{ range(v) }}", "{{ [1] | batch(v) }}", "{{ v | map(v) }}", "{{ [1] | map(v) }}", "{{ l.index(v ~ v) }}", "{{ {l: 1} }}", "{{ [1] | select(v) | list }}",
		"{{ v | default(1, 2, v) }}", "{{ [v] | unique(attribute=v) }}", "{{ [v, v] | sort(attribute=v) }}", "{{ d | join(attribute=v) }}", "{{ [v] | map('extract', d, v) }}",
		"{{ [v] | map(attribute=v) | first }}", "{{ v | split(1) }}", "{{ v | split('') }}", "{{ v.startswith(1) }}", "{{ d < v }}", "{{ v * 2 }}", "{{ v % 2 }}", "{{ 2 * v }}", "{{ d[v].x }}",
		"{{ l[v] }}", "{{ v.upper(v) }}", "{{ v.join([1]) }}", "{{ v | map('upper', v) }}", "{{ v is in 1 }}", "{{ [v, l] | unique }}",
	} {
		compiled, err := NewTotal().Compile(source)
		if err == nil {
			_, err = compiled.Value(scope, NewTotal().NewBudget())
		}
		if err == nil || strings.Contains(err.Error(), secret) {
			t.Errorf("%s: %v", source, err)
		}
	}
}

type secretScope string

func (secretScope) Secret(string) {}

func (s secretScope) Lookup(name string) (Variable, bool, error) {
	switch name {
	case "v":
		return Variable{Value: string(s), Plain: true}, true, nil
	case "l":
		return Variable{Value: []any{string(s)}, Plain: true}, true, nil
	case "d":
		d := NewDict()
		d.Set(string(s), string(s))
		return Variable{Value: d, Plain: true}, true, nil
	}
	return Variable{}, false, nil
}
