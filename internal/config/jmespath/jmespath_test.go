package jmespath

import (
	"encoding/json"
	"errors"
	"reflect"
	"slices"
	"strings"
	"testing"
)

// trio is a cluster of three as a selector sees it.
const trio = `[
	{"inventory_hostname": "10.10.10.11", "pg_seq": 1, "pg_role": "primary", "az": "a", "lag": 0, "labels": {"tier": "gold"}, "tags": ["ssd", "big"]},
	{"inventory_hostname": "10.10.10.12", "pg_seq": 2, "pg_role": "replica", "az": "b", "lag": 5, "pg_offline_query": "false", "tags": []},
	{"inventory_hostname": "10.10.10.13", "pg_seq": 3, "pg_role": "offline", "lag": 5, "pg_offline_query": true, "weight": 100, "empty": "", "zero": 0}
]`

func members(t testing.TB) []map[string]any {
	t.Helper()
	var m []map[string]any
	if err := json.Unmarshal([]byte(trio), &m); err != nil {
		t.Fatal(err)
	}
	return m
}

func TestSelect(t *testing.T) {
	for _, tc := range []struct {
		expression string
		want       []int
	}{
		// The selectors of the default services, and other ways to write all.
		{"[]", []int{0, 1, 2}},
		{"[*]", []int{0, 1, 2}},
		{"@", []int{0, 1, 2}},
		{"[? pg_role == `primary` || pg_role == `offline` ]", []int{0, 2}},
		{"[? pg_role == `offline` || pg_offline_query ]", []int{1, 2}},
		{"[? pg_role == `replica` && !pg_offline_query]", []int{}},

		// Literals: JSON between backticks, or a word without quotes; texts between apostrophes; names between quotes.
		{"[?pg_role == `\"primary\"`]", []int{0}},
		{"[?pg_role == ` primary`]", []int{0}},
		{"[?pg_role == `primary `]", []int{}},
		{"[?pg_role == '`primary`']", []int{}},
		{"[?'`' == '`' && \"pg_role\" == `replica`]", []int{1}},
		{"[?not_null(\"a`b\", `x`) == 'x']", []int{0, 1, 2}},
		{"[?weight == `100`]", []int{2}},
		{"[?weight == `\"100\"`]", []int{}},
		{"[?pg_offline_query == `true`]", []int{2}},
		{"[?weight == `null`]", []int{0, 1}},
		{`[?not_null(weight, 'it\'s') == 'it\'s']`, []int{0, 1}},
		{"[?`a\\`b` == 'a`b']", []int{0, 1, 2}},
		{"[?contains(`[\"primary\",\"offline\"]`, pg_role)]", []int{0, 2}},

		// Truth: null, false, and empty texts, lists and objects are false; 0 and "false" are true.
		{"[?tags]", []int{0}},
		{"[?!tags]", []int{1, 2}},
		{"[?empty]", []int{}},
		{"[?zero]", []int{2}},
		{"[?az != 'a']", []int{1, 2}},

		// Order: numbers, and texts as in Python; null is never ordered.
		{"[?pg_seq > `1`]", []int{1, 2}},
		{"[?weight >= `0`]", []int{2}},
		{"[?az < 'b']", []int{0}},
		{"[?tags < `1`]", []int{}},

		// Operators bind as || < && < comparators < !.
		{"[?pg_role == 'primary' || pg_role == 'replica' && az == 'x']", []int{0}},
		{"[?(pg_role == 'primary' || pg_role == 'replica') && az == 'b']", []int{1}},
		{"[?!(pg_seq == `1`)]", []int{1, 2}},
		{"[?!pg_seq == `1`]", []int{}},

		// The order of the result counts.
		{"reverse(@)", []int{2, 1, 0}},
		{"[::-1]", []int{2, 1, 0}},
		{"[-2:]", []int{1, 2}},
		{"[5:0:-2]", []int{2}},
		{"[:2]", []int{0, 1}},
		{"sort_by(@, &lag)", []int{0, 1, 2}},
		{"reverse(sort_by(@, &pg_seq)) | [0:2]", []int{2, 1}},
		{"sort_by(@, &join('', [inventory_hostname]))", []int{0, 1, 2}},
		{"sort_by(@, &to_string(pg_seq))", []int{0, 1, 2}},
		{"[max_by(@, &lag)]", []int{1}},
		{"[min_by(@, &pg_seq)]", []int{0}},
		{"[[2], [0]]", []int{2, 0}},
		{"map(&@, [?lag == `5`])", []int{1, 2}},
		{"[[?pg_seq == `3`], [?pg_seq == `1`]][]", []int{2, 0}},
		{"[?nobody] || [?pg_seq == `1`]", []int{0}},
		{"to_array([1])", []int{1}},

		// Deeper values and functions.
		{"[?labels.tier == 'gold']", []int{0}},
		{"[?labels.*[] == ['gold']]", []int{0}},
		{"[?labels && contains(keys(labels), 'tier')]", []int{0}},
		{"[?tags[?@ == 'big']]", []int{0}},
		{"[?tags[0] == 'ssd' && tags[-1] == 'big' && tags[2] == `null`]", []int{0}},
		{"[?starts_with(inventory_hostname, '10.10.10.') && ends_with(inventory_hostname, '3')]", []int{2}},
		{"[?join('-', [pg_role, to_string(pg_seq)]) == 'replica-2']", []int{1}},
		{"[?length(not_null(tags, `[]`)) == `2`]", []int{0}},
		{"[?{a: az} == `{\"a\": \"a\"}`]", []int{0}},
		{"[?to_number('0x1') == `null` && to_number('2') == pg_seq]", []int{1}},
		{"[?type(pg_seq) == 'number' && type(nothing) == 'null' && type(@) == 'object' && type(`true`) == 'boolean' && type('') == 'string' && type(`[]`) == 'array']", []int{0, 1, 2}},
		{"[?max(`[3, 1]`) == pg_seq && min(['b', 'a']) == 'a' && max(`[]`) == `null`]", []int{2}},
		{"[?sum(`[1, 1]`) == pg_seq && avg(`[1, 3]`) == pg_seq && avg(`[]`) == `null` && abs(`-2`) == pg_seq && ceil(`1.1`) == pg_seq && floor(`2.9`) == pg_seq]", []int{1}},
		{"[?sort(`[2, 1]`) == `[1, 2]` && reverse('ab') == 'ba' && merge(`{\"a\": 1}`, `{\"a\": 2}`).a == `2` && values(`{\"b\": 2, \"a\": 1}`) == `[1, 2]`]", []int{0, 1, 2}},
		{"[?to_string(`{\"b\": \"<\", \"a\": [1]}`) == '{\"a\":[1],\"b\":\"<\"}']", []int{0, 1, 2}},
	} {
		s, err := Compile(tc.expression)
		if err != nil {
			t.Errorf("%s: %v", tc.expression, err)
			continue
		}
		m := members(t)
		got, err := s.Select(m)
		if err != nil || !slices.Equal(got, tc.want) {
			t.Errorf("%s: %v, error %v; want %v", tc.expression, got, err, tc.want)
		}
		if !reflect.DeepEqual(m, members(t)) {
			t.Errorf("%s: the members were changed", tc.expression)
		}
	}
}

func TestSelectBackup(t *testing.T) {
	for expression, want := range map[string]struct {
		indices []int
		err     string
	}{
		"[?pg_role == 'primary']": {[]int{0}, ""},
		"nosuch":                  {nil, ""},
		"[0].nosuch":              {nil, ""},
		"[0]":                     {nil, "column 1: the result is an object instead of a list of members"},
	} {
		s, err := Compile(expression)
		if err != nil {
			t.Fatal(err)
		}
		got, err := s.SelectBackup(members(t))
		if !slices.Equal(got, want.indices) || message(err) != want.err {
			t.Errorf("%s: %v, error %q; want %v, %q", expression, got, message(err), want.indices, want.err)
		}
	}
}

func message(err error) string {
	if err == nil {
		return ""
	}
	return err.Error()
}

func TestErrors(t *testing.T) {
	for _, tc := range []struct{ expression, want string }{
		// Refused by Compile.
		{"", "column 1: the expression is empty"},
		{"  \n", "column 1: the expression is empty"},
		{"[?pg_role = 'x']", "column 11: = is no operator; equality is =="},
		{"[ ?pg_role == 'x']", "column 3: ? has to follow its [ at once, as in [?a == b]"},
		{"[?pg_role == 'x", "column 14: ' is never closed"},
		{"[?é == 'x']", "column 3: the character 'é' means nothing here"},
		{"[?'é' == $]", "column 10: the character '$' means nothing here"},
		{"[?pg_role ==", "column 13: the expression is incomplete"},
		{"[?a == b", "column 9: the end where ] is expected"},
		{"[?a b]", "column 5: b where ] is expected"},
		{"[0", "column 3: the expression is incomplete"},
		{"[0 1]", "column 4: 1 isn't expected here"},
		{"[::0]", "column 1: a slice's step can't be 0"},
		{"[1:2:3:4]", "column 7: : isn't expected here"},
		{"[99999999999999999999]", "column 2: 99999999999999999999 is no number"},
		{"a.", "column 3: the end where a name, * , [ or { is expected after the dot"},
		{"[].{a}", "column 6: } where : is expected"},
		{"{'a': b}", "column 2: 'a' where a name is expected"},
		{"[] []x", "column 6: x isn't expected here"},
		{"nofunc(a)", "column 1: unknown function nofunc"},
		{"\"length\"(a)", "column 1: a function's name stands without quotes"},
		{"length()", "column 1: length takes 1 argument, not 0"},
		{"[?starts_with(a)]", "column 3: starts_with takes 2 arguments, not 1"},
		{"merge()", "column 1: merge takes 1 argument, not 0"},
		{"sort_by(@, pg_seq)", "column 12: argument 2 of sort_by is an expression with & before it, as in &pg_seq"},
		{"length(&a)", "column 8: argument 1 of length takes no &"},
		{"&a", "column 1: & is for the arguments of functions only"},
		{"[?&a]", "column 3: & is for the arguments of functions only"},
		{"`\"a`", "column 1: `\"a` holds neither JSON nor a word"},
		{"\"\\x\"", `column 1: "\x" is no text in JSON`},
		{strings.Repeat("[?", 300), "column 401: the expression is nested too deep"},
		{"a" + strings.Repeat("||a", 300), "column 605: the expression is too long"},

		// Refused by Select.
		{"nosuch", "column 1: the result is null instead of a list of members"},
		{"[0]", "column 1: the result is an object instead of a list of members"},
		{"length(@)", "column 1: the result is a number instead of a list of members"},
		{"'x'", "column 1: the result is a text instead of a list of members"},
		{"`true`", "column 1: the result is a boolean instead of a list of members"},
		{"[].pg_role", "column 1: the result holds a text instead of members"},
		{"map(&nosuch, @)", "column 1: the result holds null instead of members"},
		{"[@, @]", "column 1: the result holds a list instead of members"},
		{"[].{pg_seq: pg_seq}", "column 1: the result holds an object that the expression made instead of members"},
		{"[@[0], @[0]]", "column 1: the result holds the same member twice"},
		{"[?pg_seq < 'a']", "column 10: < can't order a number and a text"},
		{"[?'a' >= pg_seq]", "column 7: >= can't order a text and a number"},
		{"sort_by(@, &(az && 'x' || lag))", "column 12: sort_by can't go by a text and by a number"},
		{"sort_by(@, &weight)", "column 12: sort_by can't go by null; a number or a text for each"},
		{"sort_by(@, &pg_role)", "column 12: sort_by can't go by a text variable as it is, for Ansible refuses that; join('', [variable]) makes a text of its own"},
		{"sort_by(@, &to_string(pg_role))", "column 12: sort_by can't go by a text variable as it is, for Ansible refuses that; join('', [variable]) makes a text of its own"},
		{"[?starts_with(az, 'a')]", "column 15: argument 1 of starts_with is null instead of a text"},
		{"[?contains('abc', pg_seq)]", "column 19: contains looks for a number in a text"},
		{"[?contains(pg_seq, 'a')]", "column 12: argument 1 of contains is a number instead of a text or a list"},
		{"[?max(tags) == 'x'] ", "column 7: argument 1 of max is null instead of a list of numbers or a list of texts"},
		{"[?join(',', @)]", "column 13: argument 2 of join is an object instead of a list of texts"},
		{"to_string(@" + strings.Repeat("|[@,@]", 60) + ")", "column 1: the expression takes too many steps: more than 2000000"},
		{"@" + strings.Repeat("|[@,@]", 40) + strings.Repeat("|[]", 40), "column 296: the expression takes too many steps: more than 2000000"},
	} {
		s, err := Compile(tc.expression)
		if err == nil {
			_, err = s.Select(members(t))
		}
		if message(err) != tc.want {
			t.Errorf("%.40s:\n got %q\nwant %q", tc.expression, message(err), tc.want)
		}
		if at := (*Error)(nil); !errors.As(err, &at) || at.Offset > len(tc.expression) {
			t.Errorf("%.40s: %#v has no offset in the expression", tc.expression, err)
		}
	}
}

func TestFields(t *testing.T) {
	for _, tc := range []struct {
		expression string
		want       string
		whole      bool
	}{
		{"[]", "", false},
		{"[? pg_role == `offline` || pg_offline_query ]", "pg_offline_query pg_role", false},
		{"[?labels.tier == 'gold']", "labels tier", false},
		{"[?\"pg_role\" == 'a']", "pg_role", false},
		{"[?labels && contains(keys(labels), values(labels)[0])]", "labels", false},
		{"sort_by([?az], &lag) | [0:1]", "az lag", false},
		{"[max_by(@, &pg_seq)]", "pg_seq", false},
		{"map(&@, [?length(tags) > `1`])", "tags", false},
		{"[?length(@) > `3`]", "", true},
		{"[?contains(keys(@), 'az')]", "", true},
		{"[?to_string(@) == 'x']", "", true},
		{"[?@.* == 'x']", "", true},
		{"[*].*", "", true},
		{"[?contains(labels.*, 'x')]", "labels", false},
		{"[?@ == `{}`]", "", true},
		{"[?length(keys({a: @}.a)) > `1`]", "a", true},
		{"[?merge(@, {a: b}).c]", "b c", true},
		{"[?not_null(@).*]", "", true},
		{"[?[@][0].*]", "", true},
		{"reverse(@)[?length(@) > `3`]", "", true},
		{"length(@) > `2` && @ || @", "", false},
	} {
		s, err := Compile(tc.expression)
		if err != nil {
			t.Fatalf("%s: %v", tc.expression, err)
		}
		names, whole := s.Fields()
		if got := strings.Join(names, " "); got != tc.want || whole != tc.whole {
			t.Errorf("%s: %q, whole %v; want %q, %v", tc.expression, got, whole, tc.want, tc.whole)
		}
	}
}

// FuzzSelect looks for expressions that panic, that select what isn't there, that need a variable which Fields doesn't name,
// or that change what they are given.
func FuzzSelect(f *testing.F) {
	for _, seed := range []string{"[]", "[? pg_role == `primary` || pg_role == `offline` ]", "sort_by(@, &lag)", "[?labels.*[0] == 'gold'] | [::-1]", "[0].nosuch", "`\"", "[].{a: @}"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, expression string) {
		s, err := Compile(expression)
		if err != nil {
			if at := (*Error)(nil); !errors.As(err, &at) || at.Offset > len(expression) || at.Column < 1 || at.What == "" {
				t.Fatalf("%q: the error %#v has no offset", expression, err)
			}
			return
		}
		m := members(t)
		got, err := s.SelectBackup(m)
		if !reflect.DeepEqual(m, members(t)) {
			t.Fatalf("%q changes the members", expression)
		}
		again, errAgain := s.SelectBackup(m)
		if !slices.Equal(got, again) || message(err) != message(errAgain) {
			t.Fatalf("%q gives %v (%v), then %v (%v)", expression, got, err, again, errAgain)
		}
		for _, i := range got {
			if i < 0 || i >= len(m) {
				t.Fatalf("%q selects member %d", expression, i)
			}
		}
		names, whole := s.Fields()
		if whole || err != nil {
			return
		}
		for _, member := range m {
			for name := range member {
				if name != "inventory_hostname" && !slices.Contains(names, name) {
					delete(member, name)
				}
			}
		}
		if fewer, err := s.SelectBackup(m); !slices.Equal(got, fewer) || err != nil {
			t.Fatalf("%q selects %v, but %v (%v) of members that have %v only", expression, got, fewer, err, names)
		}
	})
}
