package bundle

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"errors"
	"io"
	"strings"
	"testing"
	"time"

	"go.yaml.in/yaml/v4"
)

func TestText(t *testing.T) {
	var r Redactor
	r.Know("hunter2zz", "abc")
	for text, want := range map[string]string{
		`{"log":"{\"password\":\"x y\"}"}`:                                `{"log":"{\"password\":(secret)}"}`,
		"password=-a,b&c;d end":                                           "password=(secret) end",
		"note: password=x":                                                "note: password=(secret)",
		"--token --port 5":                                                "--token --port 5",
		"it is hunter2zz, isn't it":                                       "it is (secret), isn't it",
		"aHVudGVyMnp6":                                                    "(secret)",
		"abc is too short to be looked for":                               "abc is too short to be looked for",
		"postgres://test:pass@10.0.0.1/x":                                 "postgres://test:(secret)@10.0.0.1/x",
		"http://admin@127.0.0.1:9101/x":                                   "http://admin@127.0.0.1:9101/x",
		"PGPASSWORD=letmein psql":                                         "PGPASSWORD=(secret) psql",
		`host=a password='a b' user=c`:                                    `host=a password=(secret) user=c`,
		`{"pg_admin_password":"a \" b","user":"c"}`:                       `{"pg_admin_password":(secret),"user":"c"}`,
		"--token 1234 --port 5":                                           "--token (secret) --port 5",
		"--control-token-file /etc/x --etcd-password-file y":              "--control-token-file /etc/x --etcd-password-file y",
		`leader_key="pg-test-1" holder=x`:                                 `leader_key="pg-test-1" holder=x`,
		"Authorization: Bearer 0123456789abcdef":                          "Authorization: Bearer (secret)",
		"-----BEGIN PRIVATE KEY-----\nMIIx\n-----END PRIVATE KEY-----\nx": "(secret)\nx",
		"-----BEGIN RSA PRIVATE KEY-----\nMIIx":                           "(secret)",
		"SCRAM-SHA-256$4096:abc$def:ghi":                                  "(secret)",
		"the password is wrong":                                           "the password is wrong",
		"check=/primary port=5433 time=12:00:00":                          "check=/primary port=5433 time=12:00:00",
	} {
		if got := r.Text(text); got != want {
			t.Errorf("%q\n is %q\nnot %q", text, got, want)
		}
	}
}

func TestYAML(t *testing.T) {
	const inventory = `# hunter0aa in a comment
all:
  vars:
    innocent: &a hunter1aa # hunter0aa
    pg_admin_password: *a
    pg_users: [ { name: app, password: hunter2aa }, { name: b, password: "{{ other }}" } ]
    other_secret:
      deep: [ hunter3aa, { x: hunter4aa } ]
    url: postgres://x:hunter5aa@host/db
    note: uses hunter2aa
    pg_port: 5432
    block_token: |
      hunter6aa
      more
`
	var r Redactor
	got, err := r.YAML([]byte(inventory))
	if err != nil {
		t.Fatal(err)
	}
	if strings.Contains(got, "hunter") || !strings.Contains(got, "pg_port: 5432") || !strings.Contains(got, "name: app") {
		t.Error(got)
	}
	if text := r.Text("hunter1aa hunter3aa"); strings.Contains(text, "hunter") {
		t.Error(text)
	}
	var back any
	if err := yaml.Unmarshal([]byte(got), &back); err != nil {
		t.Errorf("%v:\n%s", err, got)
	}
	if got, err := r.YAML([]byte("a: [ hunter7aa")); err == nil || strings.Contains(err.Error(), "hunter") || got != "" {
		t.Errorf("%q, %v", got, err)
	}
}

// What goes in comes out, without secrets, cut to its size; what isn't there is listed with the reason.
func TestWriter(t *testing.T) {
	var file bytes.Buffer
	w := NewWriter(&file, "pgporter-x", time.Date(2026, 8, 10, 12, 0, 0, 0, time.UTC))
	w.most, w.left = 1000, 5000
	w.Know("hunter2zz")
	err := errors.Join(w.Own("status.json", "the status", `{"key":"hunter2zz"}`), w.Foreign("journal.txt", "the log", strings.Repeat("x", w.most)+"password=y the end"))
	w.Missing("plan.json", "the plan", errors.New("no hunter2zz"))
	for range 8 {
		err = errors.Join(err, w.Own("more.txt", "more", strings.Repeat("x", w.most)))
	}
	if err := errors.Join(err, w.Close()); err != nil {
		t.Fatal(err)
	}
	zip, err := gzip.NewReader(&file)
	if err != nil {
		t.Fatal(err)
	}
	files, all := map[string]string{}, 0
	for archive := tar.NewReader(zip); ; {
		header, err := archive.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		text, err := io.ReadAll(archive)
		if err != nil || header.Mode != 0o600 {
			t.Error(err, header.Mode)
		}
		all += len(text)
		files[header.Name] = string(text)
	}
	if files["pgporter-x/status.json"] != `{"key":"(secret)"}` {
		t.Error(files["pgporter-x/status.json"])
	}
	if journal := files["pgporter-x/journal.txt"]; len(journal) != w.most || !strings.HasSuffix(journal, "xpassword=(secret) the end") {
		t.Errorf("%d bytes, …%s", len(journal), journal[len(journal)-40:])
	}
	if all > 5000+4096 {
		t.Errorf("%d bytes", all)
	}
	if list := files["pgporter-x/CONTENTS"]; !strings.Contains(list, "- plan.json: the plan\n    not there: no (secret)\n") || !strings.Contains(list, "- journal.txt: the log, 1000 bytes (the last") {
		t.Error(list)
	}
}

func FuzzYAML(f *testing.F) {
	f.Add("pg_admin_password: hunter2zz\n", "hunter2zz")
	f.Add("a: &a hunter2zz\nsecret: *a\n", "hunter2zz")
	f.Add("secret: { a: [ hunter2zz ] }\n---\nb: hunter2zz\n", "hunter2zz")
	f.Add("? { password: x }\n: *y\n", "x")
	f.Add("a: &a [ *a ]\n", "x")
	f.Fuzz(func(t *testing.T, text, secret string) {
		var r Redactor
		r.Know(secret)
		got, err := r.YAML([]byte(text))
		if err != nil {
			return
		}
		if s := strings.TrimSpace(secret); len(s) >= least && strings.Contains(got, s) && !strings.Contains(hidden, s) {
			t.Errorf("%q is in %q", s, got)
		}
	})
}
