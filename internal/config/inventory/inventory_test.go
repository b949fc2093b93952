package inventory

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// read parses an inventory without problems.
func read(t *testing.T, text string) *Inventory {
	t.Helper()
	inv, problems := Parse("test.yml", []byte(text))
	if len(problems) > 0 {
		t.Fatal(problems)
	}
	return inv
}

func hostNames(hosts []*Host) string {
	names := make([]string, 0, len(hosts))
	for _, h := range hosts {
		names = append(names, h.Name)
	}
	return strings.Join(names, " ")
}

func TestOrderOfHosts(t *testing.T) {
	for _, tc := range []struct{ name, text, want string }{
		{"depth first, in file order", `
all:
  children:
    b: { children: { d: { hosts: { h4: , h1: } } }, hosts: { h3: } }
    a: { hosts: { h1: , h2: } }
  hosts: { h0: }
`, "h4 h1 h3 h2 h0"},
		{"hosts before children if they stand first", `
all:
  hosts: { h0: }
  children: { a: { hosts: { h1: } } }
`, "h0 h1"},
		{"groups at the top level, null bodies, a group in two places", `
a: { hosts: { h2: } }
both: { children: { a: , b: } }
b:
  hosts: { h1: }
all: { children: { a: { hosts: { h3: } } } }
`, "h2 h1 h3"},
		{"ranges, a port, a repeated host", `
all:
  hosts:
    10.10.10.[11:13]:
    10.10.10.12: { x: 1 }
    pg-[a:c].lan:
    n[01:10:4]-[1:2]:
    10.10.10.99:2222:
    "[::1]:22":
    "fe80::5":
`, "10.10.10.11 10.10.10.12 10.10.10.13 pg-a.lan pg-b.lan pg-c.lan n01-1 n01-2 n05-1 n05-2 n09-1 n09-2 10.10.10.99 ::1 fe80::5"},
		{"one name instead of a mapping", "all: { hosts: h1, children: a }\na: { hosts: h2 }\n", "h1 h2"},
		{"a repeated key keeps its first place", "all: { hosts: { h1: , h2: , h3: } }\nb: { hosts: { h3: , h4: } }\n", "h1 h2 h3 h4"},
		{"aliases and merge keys", `
x: &x { hosts: &h { h1: , h2: } }
y: { <<: *x }
z: { hosts: { <<: *h, h3: } }
`, "h1 h2 h3"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			if got := hostNames(read(t, tc.text).Hosts()); got != tc.want {
				t.Errorf("hosts %s, want %s", got, tc.want)
			}
		})
	}
}

func TestVariables(t *testing.T) {
	inv := read(t, `
all:
  vars: { v: all, w: all, only: all, list: [ 1, 2 ] }
  children:
    shallow:
      vars: { v: shallow, w: shallow, tie: shallow, list: [ 3 ] }
      hosts: { h1: { own: h1 } }
    deep:
      children:
        mid: { children: { deeper: { vars: { v: deeper }, hosts: { h1: , h3: { v: h3 } } } } }
    a-tie: { vars: { tie: a, prio: a }, hosts: { h1: , h2: } }
    b-tie: { vars: { tie: b, prio: b }, hosts: { h1: , h2: } }
    c-prio: { vars: { prio: c, ansible_group_priority: "10" }, hosts: { h1: , h2: } }
    d-prio: { vars: { prio: d, ansible_group_priority: 9 }, hosts: { h1: , h2: } }
  hosts: { h2: { list: [ ] }, lonely.example.com: , 10.0.0.1: }
again: { children: { shallow: { hosts: { h1: { own: again } } } }, vars: { w: again } }
`)
	for _, tc := range []struct{ host, name, want string }{
		{"h1", "own", `"again"`},
		{"h1", "v", `"deeper"`},
		{"h1", "w", `"shallow"`},
		{"h1", "tie", `"shallow"`},
		{"h2", "tie", `"b"`},
		{"h2", "prio", `"c"`},
		{"h2", "v", `"all"`},
		{"h3", "v", `"h3"`},
		{"h1", "list", `[3]`},
		{"h2", "list", `[]`},
		{"h3", "list", `[1,2]`},
		{"h1", "only", `"all"`},
		{"h1", "nothing", ""},
		{"h1", "ansible_group_priority", ""},
		{"h1", "group_names", `["a-tie","again","b-tie","c-prio","d-prio","deep","deeper","mid","shallow"]`},
		{"lonely.example.com", "group_names", `["ungrouped"]`},
		{"lonely.example.com", "inventory_hostname", `"lonely.example.com"`},
		{"lonely.example.com", "inventory_hostname_short", `"lonely"`},
		{"10.0.0.1", "inventory_hostname_short", `"10.0.0.1"`},
	} {
		h, ok := inv.Host(tc.host)
		if !ok {
			t.Fatalf("no host %s", tc.host)
		}
		got := ""
		if v, set := h.Var(tc.name); set {
			text, err := json.Marshal(v.JSON())
			if err != nil {
				t.Fatal(err)
			}
			got = string(text)
		}
		if got != tc.want {
			t.Errorf("%s of %s is %s, want %s", tc.name, tc.host, got, tc.want)
		}
	}
	h, _ := inv.Host("h3")
	text, err := json.Marshal(h.Vars())
	if want := `{"group_names":["deep","deeper","mid"],"inventory_hostname":"h3","inventory_hostname_short":"h3","list":[1,2],"only":"all","v":"h3","w":"all"}`; string(text) != want || err != nil {
		t.Errorf("the variables of h3 are %s (error %v), want %s", text, err, want)
	}
	groups, _ := h.Var("groups")
	if got := fmt.Sprint(groups.JSON().(map[string]any)["deeper"]); got != "[h1 h3]" {
		t.Errorf("groups.deeper is %s", got)
	}
	all, _ := inv.Group("all")
	if got := hostNames(all.Hosts()); got != "h2 lonely.example.com 10.0.0.1 h1 h3" {
		t.Errorf("all holds %s", got)
	}
}

func TestImplicitVariablesCantBeSet(t *testing.T) {
	inv := read(t, "all: { hosts: { h1: { inventory_hostname: x, group_names: y } } }")
	v, _ := inv.Hosts()[0].Var("inventory_hostname")
	if text, _ := v.Text(); text != "h1" || inv.Hosts()[0].Vars()["inventory_hostname"] != "h1" {
		t.Errorf("inventory_hostname is %q", text)
	}
}

// The scalars of YAML 1.1 as PyYAML reads them.
func TestPlainScalars(t *testing.T) {
	for text, want := range map[string]any{
		"010": int64(8), "1_0": int64(10), "90:33": int64(5433), "-1:30": int64(-90), "190:20:30": int64(685230), "0x1F": int64(31), "-0x1f": int64(-31),
		"0b11": int64(3), "+5": int64(5), "0": int64(0), "-0": int64(0), "00": int64(0), "0_": int64(0), "08": "08", "5e3": "5e3", "0o17": "0o17", "0x": "0x", "0b_": "0b_",
		"1.": 1.0, ".5": 0.5, "-.5": "-.5", "5.0e+3": 5000.0, "5.0e3": "5.0e3", "1_0.5": 10.5, "190:20:30.15": 685230.15, "1:60": "1:60", "99999999999999999999": 1e20,
		"yes": true, "No": false, "ON": true, "off": false, "true": true, "y": "y", "n": "n", "tRUE": "tRUE", "~": nil, "null": nil, "": nil, "NULL": nil,
		"10.10.10.10": "10.10.10.10", "1.2.3": "1.2.3", "-": "-", ".": ".", ".inf": ".inf", ".nan": ".nan", "2001-01-01": "2001-01-01", "1e5": "1e5", "/primary": "/primary",
	} {
		if got := plain(text); got != want {
			t.Errorf("%q is %#v, want %#v", text, got, want)
		}
	}
}

func TestValues(t *testing.T) {
	inv := read(t, `
all:
  vars:
    quoted: '5'
    tagged: !!str 5
    forced: !!int "010"
    unsafe: !unsafe "{{ x }}"
    base: &base { a: 1, b: 2 }
    other: &other { b: 3, c: 4 }
    merged: { b: 9, <<: [ *other, *base ], d: 5 }
    keys: { 5: a, "5": b, yes: c, ~: d, 0x10: e }
    same: *base
    block: |
      one
      two
    inf: .inf
    big: 90:33
  hosts: { h: }
`)
	h := inv.Hosts()[0]
	for name, want := range map[string]string{
		"quoted": `"5"`, "tagged": `"5"`, "forced": `8`, "unsafe": `"{{ x }}"`, "merged": `{"a":1,"b":9,"c":4,"d":5}`, "same": `{"a":1,"b":2}`,
		"keys": `{"16":"e","5":"b","null":"d","true":"c"}`, "block": `"one\ntwo\n"`, "inf": `".inf"`, "big": `5433`,
	} {
		v, _ := h.Var(name)
		if got, err := json.Marshal(v.JSON()); string(got) != want || err != nil {
			t.Errorf("%s is %s (error %v), want %s", name, got, err, want)
		}
	}
	merged, _ := h.Var("merged")
	var order []string
	for _, e := range merged.Entries() {
		order = append(order, fmt.Sprintf("%s@%d:%d", e.Name, e.Value.Pos().Line, e.Value.Pos().Column))
	}
	if got, want := strings.Join(order, " "), "a@8:22 b@10:18 c@9:30 d@10:47"; got != want {
		t.Errorf("merged has %s, want %s", got, want)
	}
	big, _ := h.Var("big")
	if got := big.Describe(); got != "the number 5433, written 90:33" {
		t.Errorf("big is described as %s", got)
	}
}

func TestConversions(t *testing.T) {
	inv := read(t, `all: { hosts: { h: { n: 5, text: "5", blank: " 7 ", word: seven, aye: yes, nay: "No", one: 1, two: 2, f: 1.5, none: , list: [ ], map: { } } } }`)
	get := func(name string) Value {
		v, set := inv.Hosts()[0].Var(name)
		if !set {
			t.Fatalf("%s isn't set", name)
		}
		return v
	}
	for name, want := range map[string]string{"n": "5", "text": "5", "blank": "7", "word": "-", "f": "-", "none": "-", "aye": "-", "list": "-"} {
		got := "-"
		if n, ok := get(name).WholeNumber(); ok {
			got = fmt.Sprint(n)
		}
		if got != want {
			t.Errorf("%s as a whole number is %s, want %s", name, got, want)
		}
	}
	for name, want := range map[string]string{"aye": "true", "nay": "false", "one": "true", "two": "-", "word": "-", "none": "-", "map": "-"} {
		got := "-"
		if truth, ok := get(name).Truth(); ok {
			got = fmt.Sprint(truth)
		}
		if got != want {
			t.Errorf("%s as a boolean is %s, want %s", name, got, want)
		}
	}
	for name, want := range map[string]string{
		"n": "the number 5", "text": `the text "5"`, "none": "empty", "list": "a list", "map": "a mapping", "aye": "the boolean true, written yes", "f": "the number 1.5",
	} {
		if got := get(name).Describe(); got != want {
			t.Errorf("%s is described as %s, want %s", name, got, want)
		}
	}
}

func TestUnreadable(t *testing.T) {
	inv := read(t, `
all:
  hosts:
    h:
      plain: text
      jinja: "{{ x }}"
      block: "{% if x %}"
      comment: "{# x #}"
      deep: { a: [ 1, { b: "x{{ y }}" } ] }
      vault: !vault |
        $ANSIBLE_VAULT;1.1;AES256
      odd: !env HOME
      unsafe: !unsafe "{{ x }}"
`)
	for name, want := range map[string]string{
		"plain": "", "unsafe": "", "comment": "", "jinja": `6:18 jinja: the variable "x" is not defined on h`, "block": "7:25 block: a block is never closed with {% endif %}",
		"deep": `9:33 deep: the variable "y" is not defined on h`, "vault": "10:14 vault is encrypted with Ansible Vault, which is not supported",
		"odd": "12:12 odd has the YAML tag !env, which Ansible doesn't know",
	} {
		v, _ := inv.Hosts()[0].Var(name)
		got := ""
		if problem, found := v.Unreadable(name); found {
			got = fmt.Sprintf("%d:%d %s", problem.Pos.Line, problem.Pos.Column, problem.What)
		}
		if got != want {
			t.Errorf("%s: %q, want %q", name, got, want)
		}
	}
}

// At finds, for the mark in each text, the mark in the file.
func TestPositionsInsideTexts(t *testing.T) {
	for name, value := range map[string]string{
		"plain": "abc $def", "single quotes": "'it''s ''$ ok'", "double quotes": `"a \"b\" \t \u00e9\x41 é \\ $c"`, "after an anchor": "&anchor 'a $'",
		"after a tag": "!!str a $", "not only ASCII": "日本 é $", "plain on two lines": "one two\n    three $four", "quoted on two lines": "'one\n\n    two $three'",
		"escaped line end": "\"one \\\n     two\\ $three\"", "literal": "|\n    one\n      two $three\n    four", "folded": ">- # a comment\n    one $two\n\n    three", "at the start": "'$a'",
		"lines that end in CR LF": "'one\r\n    two $three'",
	} {
		t.Run(name, func(t *testing.T) {
			text := "é: x\nall: { }\nb:\n  vars:\n   v: " + value + "\n   w: end\n  hosts: { h: }\n"
			inv, _ := Parse("test.yml", []byte(text))
			if inv == nil || len(inv.Hosts()) != 1 {
				t.Fatal("the inventory can't be read")
			}
			v, _ := inv.Hosts()[0].Var("v")
			decoded, isText := v.Text()
			if !isText {
				t.Fatalf("v is %s", v.Describe())
			}
			at := strings.Index(text, "$")
			want := fmt.Sprintf("test.yml:%d:%d", strings.Count(text[:at], "\n")+1, len([]rune(text[strings.LastIndex(text[:at], "\n")+1:at]))+1)
			if got := v.At(strings.Index(decoded, "$")).String(); got != want {
				t.Errorf("the $ of %q is at %s, want %s", decoded, got, want)
			}
		})
	}
	inv := read(t, "all: { vars: { v: 'abc  ' }, hosts: { h: { n: 5 } } }")
	v, _ := inv.Hosts()[0].Var("v")
	if got := v.At(3).String() + " " + v.At(99).String() + " " + v.At(-1).String(); got != "test.yml:1:23 test.yml:1:23 test.yml:1:20" {
		t.Errorf("places at and beyond the end, and before the start: %s", got)
	}
	n, _ := inv.Hosts()[0].Var("n")
	if n.At(1) != n.Pos() {
		t.Error("a place inside a number isn't the number's")
	}
}

func TestProblems(t *testing.T) {
	for _, tc := range []struct{ name, text, want string }{
		{"nothing", "", "test.yml: error: the inventory is empty; a mapping of groups, as in `all: { children: … }` [inventory-empty]"},
		{"null", "---\n", "test.yml:2:1: error: the inventory is empty; a mapping of groups, as in `all: { children: … }` [inventory-empty]"},
		{"a list", "- a\n", "test.yml:1:1: error: the inventory is a list; a mapping of groups, as in `all: { children: … }` [inventory-structure]"},
		{"a control character", "all:\n  vars: { a: \"\x01\" }\n", "test.yml:2:15: error: the control character U+0001 can't stand in YAML; text in UTF-8 [syntax-error]"},
		{"an unknown anchor", "all: { vars: *nobody }\n", "test.yml:1:14: error: the YAML can't be read: an alias refers to nothing; quotes around a text that begins with * [yaml-alias]"},
		{"a key twice", "all: { vars: { a: 1, b: 2, a: 3 } }\n",
			"test.yml:1:28: warning: the key \"a\" stands here twice and the last one counts; the first is at test.yml:1:16; one of them taken out [key-twice]"},
		{"a list as key", "all: { vars: { [ 1 ]: 2 } }\n", "test.yml:1:16: error: a list can't be a key; a name [name-not-text]"},
		{"an unknown section", "all: { host: { a: } }\n", "test.yml:1:8: warning: group \"all\": the key \"host\" is ignored, as Ansible ignores it; hosts, children or vars [group-key-ignored]"},
		{"all inside a group", "a: { children: { all: } }\n", "test.yml:1:18: error: group \"all\" is inside itself [group-in-itself]"},
		{"too many hosts", "all: { hosts: { \"n[1:100][1:2000]\": } }\n",
			"test.yml:1:17: error: host \"n[1:100][1:2000]\": means more than 100000 hosts; a range as in 10.10.10.[11:13], [01:10:2] or pg-[a:c] [host-range]"},
		{"a huge range", "all: { hosts: { \"n[0:9000000000000000000:3]\": } }\n",
			"test.yml:1:17: error: host \"n[0:9000000000000000000:3]\": range [0:9000000000000000000:3] means more than 100000 hosts; a range as in 10.10.10.[11:13], [01:10:2] or pg-[a:c] [host-range]"},
		{"odd ranges", "all: { hosts: { \"a[1]\": , \"b[1:]\": , \"c[1:z]\": , \"d[1:2:0]\": } }\n", strings.Join([]string{
			"test.yml:1:17: error: host \"a[1]\": range [1] isn't begin:end or begin:end:step; a range as in 10.10.10.[11:13], [01:10:2] or pg-[a:c] [host-range]",
			"test.yml:1:27: error: host \"b[1:]\": range [1:] has no end; a range as in 10.10.10.[11:13], [01:10:2] or pg-[a:c] [host-range]",
			"test.yml:1:38: error: host \"c[1:z]\": range [1:z] goes neither from number to number nor from letter to letter; a range as in 10.10.10.[11:13], [01:10:2] or pg-[a:c] [host-range]",
			"test.yml:1:50: error: host \"d[1:2:0]\": range [1:2:0] has a step that is no positive number; a range as in 10.10.10.[11:13], [01:10:2] or pg-[a:c] [host-range]",
		}, "\n")},
	} {
		t.Run(tc.name, func(t *testing.T) {
			if _, problems := Parse("test.yml", []byte(tc.text)); problems.Error() != tc.want {
				t.Errorf("problems\n%s\nwant\n%s", problems.Error(), tc.want)
			}
		})
	}
}

func TestNilOnlyIfThereIsNoInventory(t *testing.T) {
	for text, want := range map[string]bool{"": true, "- a": true, "a: b: c": true, "all: [": true, "all: { hosts: [ ] }": false, "all:": false} {
		if inv, _ := Parse("test.yml", []byte(text)); (inv == nil) != want {
			t.Errorf("%q gives the inventory %v", text, inv)
		}
	}
}

func TestRead(t *testing.T) {
	path := filepath.Join(t.TempDir(), "pigsty.yml")
	inv, problems := Read(path)
	if want := path + ": error: the inventory can't be read: no such file or directory [file-unreadable]"; problems.Error() != want || inv != nil {
		t.Errorf("inventory %v, problems %q, want none and %q", inv, problems.Error(), want)
	}
	if err := os.WriteFile(path, []byte("\ufeffall: { hosts: { h: { a: 1 } } }\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	inv, problems = Read(path)
	if len(problems) != 0 || inv.File != path || hostNames(inv.Hosts()) != "h" {
		t.Errorf("file %q, hosts %s, problems %v", inv.File, hostNames(inv.Hosts()), problems)
	}
}

// FuzzParse looks for inventories that panic, hang, or give hosts and places that can't be.
func FuzzParse(f *testing.F) {
	for _, seed := range []string{
		"all: { children: { a: { hosts: { 10.10.10.[11:13]: { pg_seq: 1 } } } } }",
		"all:\n  vars: &v { a: 010, b: *w }\n", "a: &a { hosts: { h: { <<: *a } } }", "all: { vars: { v: \"a\\u00e9 {{ x }}\" }, hosts: { h: } }",
		"all: { vars: { a: \"{{ b }}\", b: \"{{ a }}\", c: [ \"{{ d.e | default(1) }}\", { f: \"{{ hostvars[inventory_hostname].g }}\" } ], g: \"{% for h in groups.all %}{{ h }}{% endfor %}\" }, hosts: { h: } }",
		"[g]\nh a=1\n", `{"_meta": {"hostvars": {"h": {"a": "{{ 1 }}", "b": {"__ansible_unsafe": "{{ x }}"}}}}, "all": {"children": ["g"]}, "g": {"hosts": ["h"], "children": ["all"], "vars": {}}}`,
	} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		inv, problems := Parse("f.yml", data)
		lines := strings.Count(strings.Map(func(r rune) rune {
			if isBreak(r) {
				return '\n'
			}
			return r
		}, string(data)), "\n") + 1
		for _, p := range problems {
			if p.What == "" || p.Pos.Line > lines+1 || p.Pos.Line > 0 && p.Pos.Column < 1 {
				t.Fatalf("the problem %v is nowhere in a file of %d lines", p, lines)
			}
		}
		if problems.Err() != nil {
			return
		}
		hosts := inv.Hosts()
		if len(hosts) > 50 {
			hosts = hosts[:50]
		}
		for _, h := range hosts {
			if found, ok := inv.Host(h.Name); !ok || found != h || !slices.IsSorted(h.GroupNames()) || len(h.GroupNames()) == 0 {
				t.Fatalf("host %q isn't found, or is in no group", h.Name)
			}
			vars := h.Vars()
			if _, err := json.Marshal(vars); err != nil {
				t.Fatalf("the variables of %q are no JSON: %v", h.Name, err)
			}
			for name := range vars {
				v, _ := h.Var(name)
				v.Unreadable(name)
				if text, ok := v.Text(); ok {
					for offset := range text {
						if at := v.At(offset); v.node != nil && (at.Line < v.pos.Line || at.Line > lines+1) {
							t.Fatalf("offset %d of %q is at %v, but the text begins at %v", offset, text, at, v.pos)
						}
					}
				}
			}
		}
	})
}

// Where a host and its variables are written, and what a group alone would say.
func TestListings(t *testing.T) {
	inv, problems := Parse("t.yml", []byte(`
all:
  vars: { c: all }
  children:
    near: { hosts: { a: { x: 1 }, "b[1:2]": { x: 2 } }, vars: { c: near } }
    far: { children: { deep: { hosts: { a: { x: 3 } } } }, vars: { c: far, d: far } }
`))
	if problems != nil {
		t.Fatal(problems)
	}
	h, _ := inv.Host("a")
	var got []string
	for _, l := range h.Listings() {
		c, set := l.Group.Var("c")
		d, setD := l.Group.Var("d")
		x, _ := l.Vars.Get("x")
		got = append(got, fmt.Sprint(l.Group.Name, " ", l.Pos, " ", c.JSON(), set, " ", d.JSON(), setD, " ", x.JSON()))
	}
	if want := []string{"near t.yml:5:22 neartrue <nil> false 1", "deep t.yml:6:41 fartrue fartrue 3"}; !slices.Equal(got, want) {
		t.Errorf("got\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
	var keys []string
	for _, vars := range h.Written() {
		for _, e := range vars.Entries() {
			keys = append(keys, e.Name)
		}
	}
	if got := strings.Join(keys, " "); got != "x x c d c c" {
		t.Errorf("written: %s", got)
	}
}
