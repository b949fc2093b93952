package inventory

import (
	"encoding/json"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/rogpeppe/go-internal/txtar"
)

// unpack writes the files of an archive into a directory of the test's.
func unpack(t *testing.T, archive string) string {
	t.Helper()
	dir := t.TempDir()
	for _, f := range txtar.Parse([]byte(archive)).Files {
		path := filepath.Join(dir, f.Name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, f.Data, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

// problemsWithout lists problems with a directory's name cut out of them.
func problemsWithout(dir, text string) string { return strings.ReplaceAll(text, dir+"/", "") }

const sources = `
-- hosts.yml --
all:
  vars: { a: inline-all, b: inline-all, c: inline-all, f: inline-all }
  children:
    pg-test:
      vars: { a: inline-group, b: inline-group, d: inline-group }
      hosts: { 10.10.10.11: { e: inline-host, a: inline-host }, 10.10.10.12: }
    pg-a: { children: { pg-test: }, vars: { g: inline-parent } }
-- group_vars/all.yml --
b: file-all
c: file-all
g: file-all
-- group_vars/pg-test --
c: file-group
-- group_vars/pg-a/two.yaml --
h: second
i: second
-- group_vars/pg-a/one.yml --
h: first
j: "{{ a }}-{{ h }}"
-- group_vars/pg-a/sub/three.json --
{ "i": "third" }
-- group_vars/pg-a/.hidden.yml --
h: hidden
-- host_vars/10.10.10.11.yml --
a: file-host
`

// The values are those that ansible-core 2.14 gives for these files.
func TestFilesOfVariables(t *testing.T) {
	dir := unpack(t, sources)
	for name, path := range map[string]string{"a file": filepath.Join(dir, "hosts.yml"), "a directory": dir} {
		t.Run(name, func(t *testing.T) {
			inv, problems := Read(path)
			if len(problems) > 0 {
				t.Fatal(problems)
			}
			for host, want := range map[string]string{
				"10.10.10.11": `{"a":"file-host","b":"file-all","c":"file-group","d":"inline-group","e":"inline-host","f":"inline-all","g":"file-all","group_names":["pg-a","pg-test"],"h":"second","i":"second","inventory_hostname":"10.10.10.11","inventory_hostname_short":"10.10.10.11","j":"file-host-second"}`,
				"10.10.10.12": `{"a":"inline-group","b":"file-all","c":"file-group","d":"inline-group","f":"inline-all","g":"file-all","group_names":["pg-a","pg-test"],"h":"second","i":"second","inventory_hostname":"10.10.10.12","inventory_hostname_short":"10.10.10.12","j":"inline-group-second"}`,
			} {
				h, _ := inv.Host(host)
				if text, _ := json.Marshal(h.Vars()); string(text) != want {
					t.Errorf("%s has %s\nwant %s", host, text, want)
				}
			}
			h, _ := inv.Host("10.10.10.11")
			if pos, _ := h.Position("c"); problemsWithout(dir, pos.String()) != "group_vars/pg-test:1:4" {
				t.Errorf("c is at %s", pos)
			}
		})
	}
}

func TestSourcesThatAreWrong(t *testing.T) {
	for _, tc := range []struct{ name, archive, path, want string }{
		{"nothing there", "", "no.yml", "no.yml: error: the inventory can't be read: no such file or directory [file-unreadable]"},
		{"an empty directory", "-- group_vars/all.yml --\na: 1\n", ".", ".: error: the directory holds no inventory; YAML files with groups and hosts [inventory-empty]"},
		{"INI with sections", "-- hosts --\n# comment\n\n[pg-test]\n10.10.10.11 pg_seq=1\n", "hosts",
			"hosts:3:1: error: this is an inventory in INI format, which is not supported; YAML, or the output of ansible-inventory --list --export on standard input [inventory-format]"},
		{"INI without", "-- hosts --\n10.10.10.11 pg_seq=1 pg_role=primary\n", "hosts",
			"hosts:1:1: error: this is an inventory in INI format, which is not supported; YAML, or the output of ansible-inventory --list --export on standard input [inventory-format]"},
		{"INI in a directory", "-- a.yml --\nall: { hosts: { h: } }\n-- b.ini --\n[x]\nh\n-- ansible.cfg --\n[defaults]\n", ".",
			"b.ini: warning: this file is passed over, as Ansible passes it over in a directory; YAML [file-passed-over]"},
		{"several files, one broken", "-- a.yml --\nall: { hosts: { h: } }\n-- b.yml --\nall: [ ]\n-- c.yml --\n[ ]\n-- sub/d.yml --\n-- sub/e.yml --\na: { hosts: { h: { x: 1 } } }\n", ".",
			"b.yml:1:6: error: group \"all\" is a list; a mapping with hosts, children and vars [inventory-structure]\n" +
				"c.yml:1:1: error: the inventory is a list; a mapping of groups, as in `all: { children: … }` [inventory-structure]\n" +
				"sub/d.yml: error: the inventory is empty; a mapping of groups, as in `all: { children: … }` [inventory-empty]"},
		{"variables of nobody", "-- h.yml --\nall: { hosts: { 10.0.0.1: } }\n-- group_vars/pg-tset.yml --\na: 1\n-- group_vars/all.txt --\na: 1\n-- host_vars/10.0.0.2 --\na: 1\n-- host_vars/10.0.0.1 --\na: 1\n", "h.yml",
			"group_vars/all.txt: warning: these variables are nobody's: there is no group \"all\"; the name of a group, with .yml, .yaml, .json or nothing after it [variables-unused]\n" +
				"group_vars/pg-tset.yml: warning: these variables are nobody's: there is no group \"pg-tset\"; the name of a group, with .yml, .yaml, .json or nothing after it [variables-unused]\n" +
				"host_vars/10.0.0.2: warning: these variables are nobody's: there is no host \"10.0.0\"; the name of a host, with .yml, .yaml, .json or nothing after it [variables-unused]"},
		{"a file that another hides", "-- h.yml --\nall: { hosts: { h: } }\n-- group_vars/all/a.yml --\na: 1\n-- group_vars/all.yml --\na: 2\n-- group_vars/all/b.conf --\na: 1\n", "h.yml",
			"group_vars/all.yml: warning: this file is passed over, as in Ansible, since group_vars/all is there; one of them [file-passed-over]\n" +
				"group_vars/all/b.conf: warning: this is passed over, as in Ansible; a name that ends in .yml, .yaml, .json or nothing [file-passed-over]"},
		{"variables that are none", "-- h.yml --\nall: { hosts: { h: } }\n-- group_vars/all.yml --\n- a\n-- host_vars/h.yml --\n$ANSIBLE_VAULT;1.1;AES256\n6162\n-- group_vars/ungrouped.yml --\nansible_group_priority: 5\na: {\n", "h.yml",
			"group_vars/all.yml:1:1: error: the file is a list; a mapping of variables [inventory-structure]\n" +
				"group_vars/ungrouped.yml:3:1: error: the YAML can't be read: did not find expected node content [syntax-error]\n" +
				"host_vars/h.yml: error: the file is encrypted with Ansible Vault, which is not supported; variables written out [vault-encrypted]"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			dir := unpack(t, tc.archive)
			_, problems := Read(filepath.Join(dir, tc.path))
			if got := strings.ReplaceAll(problemsWithout(dir, problems.Error()), dir+":", ".:"); got != tc.want {
				t.Errorf("problems:\n%s\nwant:\n%s", got, tc.want)
			}
		})
	}
	dir := unpack(t, "-- h.sh --\n#!/bin/sh\necho\n")
	if err := os.Chmod(filepath.Join(dir, "h.sh"), 0o755); err != nil {
		t.Fatal(err)
	}
	if _, problems := Read(filepath.Join(dir, "h.sh")); !strings.Contains(problems.Error(), "this is a program, and an inventory's programs are not run") {
		t.Error(problems)
	}
}

// listedInventory is what ansible-core 2.14 prints for an inventory, by --list.
const listedInventory = `{
    "_meta": {
        "hostvars": {
            "10.10.10.11": {
                "pg_cluster": "pg-test",
                "pg_seq": 1,
                "tpl": "{{ pg_seq + 1 }}",
                "raw": {"__ansible_unsafe": "{{ x }}"},
                "vault": {"__ansible_vault": "$ANSIBLE_VAULT;1.1;AES256\n6162"},
                "smile": "\ud83d\ude00 \/ \u00e9",
                "big": 1e3, "half": 0.5, "on": "yes", "yes": true, "none": null, "list": [1, [], {}]
            },
            "10.10.10.12": {"pg_cluster": "pg-test"}
        }
    },
    "all": {"children": ["ungrouped", "pg-test", "z"]},
    "pg-test": {"hosts": ["10.10.10.12", "10.10.10.11"], "vars": {"pg_seq": 9, "only": "group"}},
    "ungrouped": {"hosts": ["lonely"]},
    "z": {"children": ["pg-test"]}
}`

func TestListed(t *testing.T) {
	inv, problems := ReadFrom("standard input", strings.NewReader(listedInventory))
	if len(problems) > 0 {
		t.Fatal(problems)
	}
	if got := hostNames(inv.Hosts()); got != "lonely 10.10.10.12 10.10.10.11" {
		t.Errorf("hosts: %s", got)
	}
	h, _ := inv.Host("10.10.10.11")
	vars := h.Vars()
	text, _ := json.Marshal(vars)
	if want := `{"big":1000,"group_names":["pg-test","z"],"half":0.5,"inventory_hostname":"10.10.10.11","inventory_hostname_short":"10.10.10.11","list":[1,[],{}],"none":null,"on":"yes","only":"group","pg_cluster":"pg-test","pg_seq":1,"raw":"{{ x }}","smile":"😀 / é","tpl":"2","vault":null,"yes":true}`; string(text) != want {
		t.Errorf("variables: %s\nwant %s", text, want)
	}
	if pos, _ := h.Position("tpl"); pos.String() != "standard input:7:24" {
		t.Errorf("tpl is at %s", pos)
	}
	v, _ := h.Var("smile")
	if pos := v.At(len("😀 / ")); pos.Line != 10 {
		t.Errorf("é is at %s", pos)
	}
	if problem, found := func() (string, bool) {
		v, _ := h.Var("vault")
		p, found := v.Unreadable("vault")
		return p.String(), found
	}(); !found || !strings.Contains(problem, "standard input:9:") {
		t.Errorf("the encrypted one: %s", problem)
	}
	z, _ := inv.Group("z")
	if got := hostNames(z.Hosts()); got != "10.10.10.12 10.10.10.11" {
		t.Errorf("z holds %s", got)
	}
	for text, want := range map[string]string{
		`{"_meta": {"hostvars": {"h": 5}}, "all": {"children": ["a"]}, "a": {"children": ["a", 7], "hosts": "h"}}`: `f:1:30: error: host "h" is the number 5; a mapping of the host's variables [inventory-structure]
f:1:82: error: group "a" is inside itself [group-in-itself]
f:1:87: error: one of the children of group "a" is the number 7; a name [name-not-text]
f:1:100: error: hosts of group "a" is the text "h"; a list of names [inventory-structure]`,
		`{"_meta": {}, "a": {"children": ["b"]}, "b": {"children": ["a"]}}`: `f:1:34: error: group "b" is inside itself, by way of group "a" [group-in-itself]`,
	} {
		if _, problems := Parse("f", []byte(text)); problems.Error() != want {
			t.Errorf("%s:\n%s\nwant:\n%s", text, problems.Error(), want)
		}
	}
}

func TestWhatToWatch(t *testing.T) {
	dir := unpack(t, sources)
	file := filepath.Join(dir, "hosts.yml")
	want := []string{dir, filepath.Join(dir, "group_vars"), filepath.Join(dir, "group_vars", "pg-a"), filepath.Join(dir, "group_vars", "pg-a", "sub"), filepath.Join(dir, "host_vars")}
	if got := Directories(file); !slices.Equal(got, want) {
		t.Errorf("directories of the file: %v", got)
	}
	if got := Directories(dir); !slices.Equal(got, want) {
		t.Errorf("directories of the directory: %v", got)
	}
	for name, want := range map[string]bool{"hosts.yml": true, "other.yml": false, "group_vars/x.yml": true, "group_vars": true, "host_vars/h": true, "group_vars.yml": false} {
		if Concerns(file, filepath.Join(dir, name)) != want {
			t.Errorf("%s concerns the file: %v", name, !want)
		}
	}
	if !Concerns(dir, filepath.Join(dir, "other.yml")) {
		t.Error("a file of the directory doesn't concern it")
	}
}
