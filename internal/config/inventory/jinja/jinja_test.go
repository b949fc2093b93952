package jinja

import (
	"bytes"
	"encoding/json"
	"errors"
	"os"
	"strconv"
	"strings"
	"testing"
)

// fixture is a Scope over variables given as JSON, templates in them evaluated as they are asked for.
type fixture struct {
	vars   *Dict
	budget *Budget
	asked  map[string]bool
}

func newFixture(t testing.TB, path string) *fixture {
	t.Helper()
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	decoder := json.NewDecoder(bytes.NewReader(data))
	decoder.UseNumber()
	return &fixture{vars: readJSON(t, decoder).(*Dict), budget: NewTotal().NewBudget(), asked: map[string]bool{}}
}

// readJSON reads a value, whole numbers as such and mappings in their order.
func readJSON(t testing.TB, decoder *json.Decoder) any {
	t.Helper()
	next, err := decoder.Token()
	if err != nil {
		t.Fatal(err)
	}
	switch next {
	case json.Delim('['):
		items := []any{}
		for decoder.More() {
			items = append(items, readJSON(t, decoder))
		}
		next, err = items, skip(decoder)
	case json.Delim('{'):
		d := NewDict()
		for decoder.More() {
			key := readJSON(t, decoder)
			d.Set(key, readJSON(t, decoder))
		}
		next, err = d, skip(decoder)
	}
	if err != nil {
		t.Fatal(err)
	}
	if n, isNumber := next.(json.Number); isNumber {
		if whole, err := n.Int64(); err == nil {
			return whole
		}
		f, _ := n.Float64()
		return f
	}
	return next
}

// skip goes past a closing bracket.
func skip(decoder *json.Decoder) error {
	_, err := decoder.Token()
	return err
}

func (*fixture) Secret(string) {}

func (f *fixture) Lookup(name string) (Variable, bool, error) {
	v, found := f.vars.Get(name)
	if !found {
		return Variable{}, false, nil
	}
	if f.asked[name] {
		return Variable{}, false, &Error{What: name + " depends on itself"}
	}
	f.asked[name] = true
	defer delete(f.asked, name)
	value, err := f.resolve(v)
	var failed *Error
	if errors.As(err, &failed) && failed.Undefined {
		return Variable{Value: &Undefined{Cause: err}}, true, nil
	}
	text, isText := v.(string)
	return Variable{Value: value, Plain: !isText || !Is(text)}, true, err
}

func (f *fixture) resolve(v any) (any, error) {
	switch v := v.(type) {
	case string:
		if !Is(v) {
			return v, nil
		}
		t, err := NewTotal().Compile(v)
		if err != nil {
			return nil, err
		}
		return t.Value(f, f.budget)
	case []any:
		items := make([]any, 0, len(v))
		for _, item := range v {
			resolved, err := f.resolve(item)
			if err != nil {
				return nil, err
			}
			items = append(items, resolved)
		}
		return items, nil
	case *Dict:
		d := NewDict()
		for _, key := range v.Keys() {
			item, _ := v.Get(key)
			resolved, err := f.resolve(item)
			if err != nil {
				return nil, err
			}
			d.Set(key, resolved)
		}
		return d, nil
	}
	return v, nil
}

// describeResult writes a value as the goldens have it: JSON in which types that JSON hasn't are marked.
func describeResult(v any) any {
	all := func(items []any) []any {
		described := make([]any, 0, len(items))
		for _, item := range items {
			described = append(described, describeResult(item))
		}
		return described
	}
	switch v := v.(type) {
	case int64:
		return map[string]any{"__int__": strconv.FormatInt(v, 10)}
	case float64:
		return map[string]any{"__float__": floatRepr(v)}
	case []any:
		return all(v)
	case Tuple:
		return map[string]any{"__tuple__": all(v)}
	case *Dict:
		pairs := []any{}
		for _, key := range v.Keys() {
			value, _ := v.Get(key)
			pairs = append(pairs, []any{describeResult(key), describeResult(value)})
		}
		return map[string]any{"__dict__": pairs}
	}
	return v
}

type templateCase struct{ source, want string }

// cases reads templates with the results that ansible-core 2.14's Templar gave for them.
func cases(t testing.TB, path string) []templateCase {
	t.Helper()
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	var all []templateCase
	lines := strings.Split(strings.TrimSuffix(string(data), "\n"), "\n")
	for i := 0; i+1 < len(lines); i += 2 {
		source := lines[i]
		if strings.HasPrefix(source, `"`) && strings.Contains(source, `\n`) {
			if err := json.Unmarshal([]byte(source), &source); err != nil {
				t.Fatalf("%s:%d: %v", path, i+1, err)
			}
		}
		all = append(all, templateCase{source, strings.TrimSpace(lines[i+1])})
	}
	return all
}

func outcome(t testing.TB, scope Scope, source string) string {
	t.Helper()
	if !Is(source) {
		text, _ := json.Marshal(source)
		return "= " + string(text)
	}
	var v any
	compiled, err := NewTotal().Compile(source)
	if err == nil {
		v, err = compiled.Value(scope, NewTotal().NewBudget())
	}
	if err != nil {
		failed := (*Error)(nil)
		if !errors.As(err, &failed) || failed.What == "" || failed.Offset < 0 || failed.Offset > len(source)+len("{{ base + 1 }}") {
			t.Errorf("%s: the error %v has no position or text", source, err)
			return "error"
		}
		if failed.Undefined {
			return "undefined"
		}
		return "error: " + failed.What
	}
	var text strings.Builder
	encoder := json.NewEncoder(&text)
	encoder.SetEscapeHTML(false)
	if err := encoder.Encode(describeResult(v)); err != nil {
		t.Fatal(err)
	}
	return "= " + strings.TrimSpace(text.String())
}

// sameOutcome compares a result with the golden's, whose JSON has blanks.
func sameOutcome(got, want string) bool {
	if !strings.HasPrefix(want, "= ") || !strings.HasPrefix(got, "= ") {
		return strings.HasPrefix(got, want)
	}
	var a, b any
	if json.Unmarshal([]byte(got[2:]), &a) != nil || json.Unmarshal([]byte(want[2:]), &b) != nil {
		return false
	}
	x, _ := json.Marshal(a)
	y, _ := json.Marshal(b)
	return string(x) == string(y)
}

// Results of templates.txt are what ansible-core 2.14 made of them.
func TestTemplatesAsInAnsible(t *testing.T) {
	all := cases(t, "testdata/templates.txt")
	if len(all) < 400 {
		t.Fatalf("only %d cases", len(all))
	}
	for _, tc := range all {
		if got := outcome(t, newFixture(t, "testdata/variables.json"), tc.source); !sameOutcome(got, tc.want) {
			t.Errorf("%q\n got  %s\n want %s", tc.source, got, tc.want)
		}
	}
}

// A text that a template makes is read as Python reads it, not as Jinja does.
func TestLiterals(t *testing.T) {
	for source, want := range map[string]string{
		"[9007199254740993, -1, +2]":         `= [{"__int__": "9007199254740993"}, {"__int__": "-1"}, {"__int__": "2"}]`,
		"[1., .5, -1.5e3]":                   `= [{"__float__": "1.0"}, {"__float__": "0.5"}, {"__float__": "-1500.0"}]`,
		"[True, false, None, null]":          `= [true, false, null, null]`,
		"{1: (2,), 3: ()}":                   `= {"__dict__": [[{"__int__": "1"}, {"__tuple__": [{"__int__": "2"}]}], [{"__int__": "3"}, {"__tuple__": []}]]}`,
		`["\x41\u00e9\101\d" "b"]`:           `= ["AéA\\db"]`,
		"[none]":                             `= "[none]"`,
		"[a]":                                `= "[a]"`,
		"[017]":                              `= "[017]"`,
		"[1__0]":                             `= "[1__0]"`,
		"[1 if 2 else 3]":                    `= "[1 if 2 else 3]"`,
		"[[1][0]]":                           `= "[[1][0]]"`,
		"[1 | int]":                          `= "[1 | int]"`,
		"{1, 2}":                             `= "{1, 2}"`,
		"[" + strings.Repeat("é", 300) + "]": `= "[` + strings.Repeat("é", 300) + `]"`,
		`["` + strings.Repeat("é\\\"", 300) + `"]`:          `= ["` + strings.Repeat(`é\"`, 300) + `"]`,
		strings.Repeat("[", 101) + strings.Repeat("]", 101): `= "` + strings.Repeat("[", 101) + strings.Repeat("]", 101) + `"`,
	} {
		scope := &fixture{vars: NewDict(), asked: map[string]bool{}}
		scope.vars.Set("text", source)
		if got := outcome(t, scope, "{{ text }}"); !sameOutcome(got, want) {
			t.Errorf("%s\n got  %s\n want %s", source, got, want)
		}
	}
}
