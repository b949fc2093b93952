package inventory

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"

	"github.com/pgporter/pgporter/internal/config/inventory/jinja"
)

const templated = `
all:
  vars:
    base: 5000
    port: "{{ base + 432 }}"
    of_port: "{{ port }}!"
    list: [ 1, "{{ base }}", { a: "x{{ base }}" } ]
    first: "{{ list[1] }}"
    part: "{{ list[2].a }}"
    yep: !!bool yes
    bare: "{{ yep }}"
    raw: !unsafe "{{ base }}"
    of_raw: "{{ raw }}"
    here: "{{ inventory_hostname }} of {{ group_names | join(',') }} of {{ groups['g'] | join(',') }}"
    there: "{{ hostvars['h2'].own }} {{ hostvars.h1['own'] }} {{ hostvars.h3 is defined }}"
    saved: "{{ gone | default('saved') }} {{ of_gone | default('too') }}"
    gone: "{{ nosuch }}"
    of_gone: "{{ gone }}"
    round: "{{ trip }}"
    trip: "a{{ round }}"
    self: "{{ self }}"
    broken: "{{ 1 // 0 }}"
    of_broken: "{{ broken | default('x') }}"
    syntax: "{{ base"
    half: { a: "{{ base }}", b: [ "{{ nosuch }}" ] }
    vault: !vault "x"
    of_vault: "{{ vault }}"
    default_port: "{{ pg_port }}"
    other_default: "{{ hostvars['h2'].default_port | default('unseen') }}"
    bomb: "{{ 'aaaaaaaaaa' | replace('a', word) | replace('a', word) | replace('a', word) | list | map('lower') | map('lower') | map('lower') | map('lower') | map('lower') | map('lower') | map('lower') | map('lower') | map('lower') | map('lower') | map('lower') | map('lower') | map('lower') | map('lower') | map('lower') | map('lower') | map('lower') | map('lower') | map('lower') | map('lower') | map('lower') | map('lower') | map('lower') | map('lower') }}"
    word: aaaaaaaaaa
    loop: "{% for h in groups.g %}{{ h }}{% endfor %}"
    regex: "a {{ inventory_hostname | regex_replace('x', 'y') }}"
    c0: 1
  children: { g: { hosts: { h2: { own: "two{{ base }}", base: 6000 }, h1: { own: one } } } }
`

func TestTemplates(t *testing.T) {
	var chain strings.Builder
	for i := range 60 {
		fmt.Fprintf(&chain, "    c%d: \"{{ c%d }}\"\n", i+1, i)
	}
	inv := read(t, strings.Replace(templated, "    c0: 1\n", "    c0: 1\n"+chain.String(), 1))
	tm := inv.Templates(map[string]any{"pg_port": int64(5432)})
	h1, _ := inv.Host("h1")
	for _, tc := range []struct{ name, want string }{
		{"port", `"5432"`}, {"of_port", `"5432!"`}, {"list", `[1,5000,{"a":"x5000"}]`}, {"first", `"5000"`}, {"part", `"x5000"`}, {"bare", `true`},
		{"raw", `"{{ base }}"`}, {"of_raw", `"{{ base }}"`}, {"here", `"h1 of g of h2,h1"`}, {"there", `"two6000 one False"`}, {"saved", `"saved too"`},
		{"c60", `v: more than 50 variables refer to each other in a row; a value written out [template-fails]`}, {"c40", `"1"`}, {"other_default", `"unseen"`},
		{"gone", `7: v: the variable "nosuch" is not defined on h1; a variable of the inventory, or a default() for it [variable-undefined]`},
		{"of_gone", `7: v: the variable "nosuch" is not defined on h1; a variable of the inventory, or a default() for it [variable-undefined]`},
		{"self", `self: v: the variable "self" depends on itself; a value written out [template-fails]`},
		{"broken", `broken: v: division by zero; a value written out [template-fails]`},
		{"of_broken", `broken: v: division by zero; a value written out [template-fails]`},
		{"syntax", `syntax: v: the {{ is never closed with }}; a value written out [template-fails]`},
		{"half", `v: the variable "nosuch" is not defined on h1; a variable of the inventory, or a default() for it [variable-undefined]`},
		{"of_vault", `vault: v: a value that the template needs is encrypted with Ansible Vault, which is not supported; a value written out [template-fails]`},
		{"default_port", `v: the variable "pg_port" is not defined on h1; a variable of the inventory, or a default() for it [variable-undefined]`},
		{"bomb", `v: the template takes too many steps: more than 500000; a value written out [template-fails]`},
		{"loop", `v: the statement for is not supported: pick items with map, select or selectattr and join them, or write them out; a value written out [template-fails]`},
		{"regex", `v: the filter regex_replace is not supported: take the text apart with split and an index, or change it with replace; a value written out [template-fails]`},
	} {
		v, set := tm.Var(h1, tc.name)
		if !set {
			t.Fatalf("%s isn't set", tc.name)
		}
		problem, found := v.Unreadable("v")
		if !found {
			if text, _ := json.Marshal(v.JSON()); string(text) != tc.want {
				t.Errorf("%s is %s, want %s", tc.name, text, tc.want)
			}
			continue
		}
		_, want, _ := strings.Cut(tc.want, "v: ")
		if _, got, _ := strings.Cut(problem.String(), "v: "); got != want {
			t.Errorf("%s: %s, want %s", tc.name, problem, tc.want)
		}
	}
	// The place is that of what isn't defined, however far away it was asked for.
	v, _ := tm.Var(h1, "of_gone")
	if problem, _ := v.Unreadable("v"); problem.Pos.String() != "test.yml:17:15" {
		t.Errorf("the place is %s", problem.Pos)
	}
	// That of what isn't supported is its own, inside of the text.
	v, _ = tm.Var(h1, "regex")
	if problem, _ := v.Unreadable("v"); problem.Pos.String() != "test.yml:33:39" {
		t.Errorf("the place is %s", problem.Pos)
	}
	v, _ = tm.Var(h1, "round")
	if problem, found := v.Unreadable("v"); !found || !strings.Contains(problem.What, "depends on itself") {
		t.Errorf("a circle of two: %v %v", problem, found)
	}
	own, _ := tm.Own(h1, "default_port")
	if n, ok := own.WholeNumber(); !ok || n != 5432 {
		t.Errorf("default_port with the host's own eyes is %s", own.Describe())
	}
	if _, set := tm.Own(h1, "pg_port"); set {
		t.Error("a default is taken for a variable")
	}
	if !tm.HasTemplate(h1, "list") || tm.HasTemplate(h1, "raw") || tm.HasTemplate(h1, "base") || tm.HasTemplate(h1, "nosuch") {
		t.Error("HasTemplate is wrong")
	}
}

// What templates make is read like what is written.
func TestMadeValues(t *testing.T) {
	inv := read(t, "all: { hosts: { h: { m: \"{{ {'a': [1, 'x', none], 2: {'b': true}} }}\", t: \"{{ '(1, 2)' | replace('x', '') }}\", tuples: \"[(1, 2)]\" , u: \"{{ '[(1, 2)]' }}\" } } }")
	h := inv.Hosts()[0]
	m, _ := h.Var("m")
	entries := m.Entries()
	if m.Kind() != Map || len(entries) != 2 || entries[0].Name != "a" || entries[1].Name != "2" || entries[1].Key.Kind() != Int {
		t.Fatalf("m is %v", m.JSON())
	}
	items := entries[0].Value.Items()
	if len(items) != 3 || items[0].Kind() != Int || items[1].Kind() != Text || items[2].Kind() != Null || items[1].Pos() != m.Pos() {
		t.Errorf("a is %v", entries[0].Value.JSON())
	}
	if b, has := entries[1].Value.Get("b"); !has || b.Kind() != Bool || b.Describe() != "a boolean that a template makes" {
		t.Errorf("b is %s", b.Describe())
	}
	if u, _ := h.Var("u"); len(u.Items()) != 1 || len(u.Items()[0].Items()) != 2 {
		t.Errorf("u is %v", u.JSON())
	}
	if v, _ := h.Var("t"); v.Kind() != Text {
		t.Errorf("t is %s", v.Describe())
	}
	var _ jinja.Scope = scope{}
}
