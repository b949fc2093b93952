package inventory

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// Named are the variables with a secret that stands in the file, not those that only lead to one.
func TestSecretsThatAreWrittenOut(t *testing.T) {
	inv := read(t, `
all:
  vars:
    pg_admin_password: s3cret
    empty_password: ""
    none_password:
    numeric_token: 12345
    flag_secret: true
    by_template_password: "{{ pg_admin_password }}"
    vaulted_password: !vault |
      $ANSIBLE_VAULT;1.1;AES256
    pg_users: [ { name: a }, { name: b, password: p } ]
    url: postgres://u:hunter2@h/db
    plain: x
    repo: { s3_key: k, region: r }
    ports: { a: 1 }
  children: { g: { vars: { group_secret: y }, hosts: { h: { own_password: z, memo: n } } } }
`)
	const want = "group_secret numeric_token own_password pg_admin_password pg_users repo url"
	if got := strings.Join(inv.Secrets(), " "); got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
	if got := read(t, "all: { hosts: { h: { pg_port: 5432 } } }").Secrets(); len(got) != 0 {
		t.Errorf("without secrets: %q", got)
	}
}

// The digest follows every file that is read, and nothing else.
func TestDigest(t *testing.T) {
	dir := t.TempDir()
	put := func(name, text string) {
		t.Helper()
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	digest := func() string {
		t.Helper()
		inv, problems := Read(filepath.Join(dir, "hosts.yml"))
		if problems.Err() != nil {
			t.Fatal(problems)
		}
		return inv.Digest()
	}
	put("hosts.yml", "g: { hosts: { h: } }\n")
	first := digest()
	if len(first) != 64 || digest() != first {
		t.Fatalf("not the same twice: %q", first)
	}
	seen := map[string]bool{first: true}
	for _, change := range []struct{ name, text string }{
		{"hosts.yml", "g: { hosts: { h: } } # a remark\n"}, {"group_vars/g.yml", "a: 1\n"}, {"group_vars/g.yml", "a: 2\n"}, {"host_vars/h/one.yml", "b: 1\n"}, {"host_vars/h/two.yml", "b: 1\n"},
	} {
		put(change.name, change.text)
		now := digest()
		if seen[now] {
			t.Errorf("%s with %q: it hasn't changed", change.name, change.text)
		}
		seen[now] = true
	}
	last := digest()
	put("notes.txt", "nothing of the inventory's\n")
	if digest() != last {
		t.Error("it has changed with a file that isn't read")
	}
	inv, _ := Parse("standard input", []byte("g: { hosts: { h: } }\n"))
	if len(inv.Digest()) != 64 {
		t.Errorf("of a text: %q", inv.Digest())
	}
}
