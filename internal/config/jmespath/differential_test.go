package jmespath

import (
	"bytes"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"slices"
	"strings"
	"testing"
)

// generator makes expressions over members at random; most of them mean something.
type generator struct{ *rand.Rand }

func (g generator) of(choices ...string) string { return choices[g.IntN(len(choices))] }

var fields = []string{"pg_role", "pg_seq", "inventory_hostname", "az", "lag", "labels.tier", "labels", "tags", "pg_offline_query", "empty", "nosuch", "tags[0]", "labels.*", "weight"}

// atom is something to compare.
func (g generator) atom() string {
	switch g.IntN(8) {
	case 0, 1, 2, 3:
		return g.of(fields...)
	case 4:
		return g.of("'replica'", "'primary'", "'a'", "''", `'it\'s'`, "'gold'", "'10.10.10.11'")
	case 5:
		return g.of("`replica`", "`primary`", "`1`", "`5`", "`100`", "`true`", "`null`", "`\"a\"`", "`[1, 2]`", "` offline`", "`{\"tier\": \"gold\"}`", "`1.5`", "`-1`", "``")
	case 6:
		return g.of("length("+g.of(fields...)+")", "to_number("+g.of(fields...)+")", "type("+g.of(fields...)+")", "to_string("+g.of("pg_seq", "pg_role", "tags", "pg_offline_query")+")",
			"not_null("+g.of(fields...)+", "+g.of(fields...)+")", "abs(lag)", "max(tags)", "join('-', tags)", "reverse(pg_role)", "keys(labels)[0]", "sum(`[1, 2]`)", "ceil(weight)", "floor(`1.7`)")
	}
	return "@"
}

// condition is what may stand in a filter.
func (g generator) condition(depth int) string {
	if depth <= 0 {
		return g.atom()
	}
	switch g.IntN(10) {
	case 0, 1, 2, 3:
		return g.atom() + g.of(" == ", "==", " != ", "!=") + g.atom()
	case 4:
		return g.atom() + g.of(" < ", " <= ", " > ", " >= ", "<", ">=") + g.atom()
	case 5:
		return g.condition(depth-1) + g.of(" && ", " || ", "&&", "||") + g.condition(depth-1)
	case 6:
		return g.of("!", "! ") + g.of(g.atom(), "("+g.condition(depth-1)+")")
	case 7:
		return "(" + g.condition(depth-1) + ")"
	case 8:
		return g.of("starts_with", "ends_with", "contains") + "(" + g.atom() + ", " + g.atom() + ")"
	}
	return g.atom()
}

// members is an expression that gives a list of members as a rule.
func (g generator) members(depth int) string {
	if depth <= 0 {
		return g.of("[]", "[*]", "@", "[?"+g.condition(1)+"]")
	}
	inner := g.members(depth - 1)
	switch g.IntN(14) {
	case 0, 1, 2, 3:
		return g.of("[?", "[? ", "@[?") + g.condition(2) + g.of("]", " ]")
	case 4:
		return inner + " | " + g.members(depth-1)
	case 5:
		return inner + "[?" + g.condition(1) + "]"
	case 6:
		return inner + g.of(" | [0:1]", " | [::-1]", "[:2]", " | [-1:]", "[1:]", " | [0]", "[0]", " | [?pg_seq]", " | [:2:0]", "[].az", "[-1]", " | [::2]")
	case 7:
		return g.of("sort_by", "max_by", "min_by") + "(" + g.of(inner, "@") + ", &" + g.of("pg_seq", "lag", "az", "to_string(pg_role)", "to_string(lag)", "length(pg_role)", "nosuch", "labels", "not_null(weight, `5`)") + ")"
	case 8:
		return "reverse(" + inner + ")"
	case 9:
		return "[" + g.of("[0]", "@[1]", "@[0], @[2]", "max_by(@, &pg_seq)", "min_by(@, &lag)", "nosuch", "@[9]") + "]"
	case 10:
		return g.of("not_null(nosuch, "+inner+")", "to_array("+inner+")", "map(&@, "+inner+")", "("+inner+")", inner+" || @", inner+" && @", "[]."+inner, inner+".{a: az}", "map(&pg_role, "+inner+")", "merge(@[0], @[1])")
	}
	return inner
}

// spoilt changes a character or two, as fingers do.
func (g generator) spoilt(expression string) string {
	text := []byte(expression)
	for range 1 + g.IntN(2) {
		at := g.IntN(len(text))
		switch g.IntN(3) {
		case 0:
			text = slices.Delete(text, at, at+1)
		case 1:
			text[at] = "[]?*@.,|&'`\"()!=<>:0a "[g.IntN(22)]
		default:
			text = slices.Insert(text, at, "[]?*@.,|&'`\"()!=<>:0a "[g.IntN(22)])
		}
		if len(text) == 0 {
			return " "
		}
	}
	return string(text)
}

// cluster makes members at random. Their keys are sorted, since Python's results follow the order in which they are written.
func (g generator) cluster() []map[string]any {
	var members []map[string]any
	for i := range g.IntN(5) {
		m := map[string]any{"inventory_hostname": fmt.Sprintf("10.10.10.%d", 11+i), "pg_seq": i + 1, "pg_role": g.of("primary", "replica", "offline", "standby")}
		for _, each := range []struct {
			name  string
			value any
		}{
			{"az", g.of("a", "b", "us-east-1a")}, {"lag", g.IntN(3) * 5}, {"labels", map[string]any{"tier": g.of("gold", "tin")}}, {"tags", []any{"ssd", g.of("big", "small")}},
			{"pg_offline_query", []any{true, false, "false", nil, 1}[g.IntN(5)]}, {"empty", []any{"", []any{}, map[string]any{}, nil}[g.IntN(4)]},
			{"weight", []any{100, "100", 1.5, nil}[g.IntN(4)]},
		} {
			if g.IntN(3) > 0 {
				m[each.name] = each.value
			}
		}
		members = append(members, m)
	}
	return members
}

type question struct {
	Members    []map[string]any `json:"members"`
	Expression string           `json:"expression"`
}

type answer struct {
	Picked []int
	Null   bool
	Error  string
}

// stricter tells whether ours refuses an expression at once for what Python finds out only when it gets there, or not at all:
// a function that there isn't, its arguments, an & anywhere else, a slice by 0.
func stricter(expression string) bool {
	_, err := Compile(expression)
	return err != nil && slices.ContainsFunc([]string{"unknown function", "takes ", "is an expression with &", "& is for", "where , or ) is expected", "step can't be 0"},
		func(why string) bool { return strings.Contains(err.Error(), why) })
}

// Selectors pick the members that Debian's python3-jmespath picks, called as Ansible calls it, or fail where that fails.
func TestAgainstPython(t *testing.T) {
	const interpreter = "/usr/bin/python3"
	if out, err := exec.Command(interpreter, "-c", "import jmespath").CombinedOutput(); err != nil {
		t.Fatalf("%s with jmespath is needed (Debian: apt-get install python3-jmespath): %v\n%s", interpreter, err, out)
	}
	const count = 4_000
	g := generator{rand.New(rand.NewPCG(1, 2))}
	questions := make([]question, 0, count)
	var input bytes.Buffer
	encoder := json.NewEncoder(&input)
	for len(questions) < count {
		expression := g.members(1 + g.IntN(3))
		if g.IntN(5) == 0 {
			expression = g.spoilt(expression)
		}
		q := question{g.cluster(), expression}
		if q.Members == nil {
			q.Members = []map[string]any{}
		}
		if err := encoder.Encode(q); err != nil {
			t.Fatal(err)
		}
		questions = append(questions, q)
	}
	reference := exec.Command(interpreter, "testdata/reference.py")
	reference.Stdin, reference.Stderr = &input, os.Stderr
	output, err := reference.Output()
	if err != nil {
		t.Fatal(err)
	}
	decoder := json.NewDecoder(bytes.NewReader(output))
	outcomes := map[string]int{}
	for _, q := range questions {
		var want answer
		if err := decoder.Decode(&want); err != nil {
			t.Fatalf("the reference's answers end early: %v", err)
		}
		// Members reach a selector as JSON.
		text, err := json.Marshal(q.Members)
		if err != nil {
			t.Fatal(err)
		}
		var members []map[string]any
		if err := json.Unmarshal(text, &members); err != nil {
			t.Fatal(err)
		}
		got := picked(q.Expression, members)
		expected := "error"
		switch {
		case want.Null:
			expected = "null"
		case want.Error == "":
			expected = fmt.Sprint(want.Picked)
		}
		if got == "error" && expected != "error" && stricter(q.Expression) {
			outcomes["stricter"]++
			continue
		}
		if got != expected {
			t.Errorf("%s\nover %s\n got  %s\n want %s %s", q.Expression, text, got, expected, want.Error)
		}
		if expected != "error" && expected != "null" && expected != "[]" {
			expected = "some"
		}
		outcomes[expected]++
	}
	if outcomes["stricter"] > count/50 {
		t.Errorf("ours refuses %d of %d expressions that Python takes", outcomes["stricter"], count)
	}
	for _, outcome := range []string{"error", "null", "[]", "some"} {
		if outcomes[outcome] < count/200 {
			t.Errorf("only %d of %d expressions gave %s: %v", outcomes[outcome], count, outcome, outcomes)
		}
	}
}

// picked is what ours makes of an expression, in the words of the test.
func picked(expression string, members []map[string]any) string {
	s, err := Compile(expression)
	if err != nil {
		return "error"
	}
	indices, err := s.SelectBackup(members)
	switch {
	case err != nil:
		return "error"
	case indices == nil:
		return "null"
	}
	return fmt.Sprint(indices)
}
