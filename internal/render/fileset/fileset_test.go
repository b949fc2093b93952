package fileset

import (
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/pgporter/pgporter/internal/render/stamp"
)

// ours is a file of a cluster with its stamp.
func ours(cluster, name, rest string) string {
	return stamp.Stamp{Kind: stamp.HAProxy, Cluster: cluster, File: name}.Line() + rest
}

func put(t *testing.T, dir, name, text string) {
	t.Helper()
	name = filepath.Join(dir, name)
	if err := errors.Join(os.MkdirAll(filepath.Dir(name), 0o755), os.WriteFile(name, []byte(text), 0o644)); err != nil {
		t.Fatal(err)
	}
}

// tree is what a directory holds: paths with their texts.
func tree(t *testing.T, dir string) map[string]string {
	t.Helper()
	found := map[string]string{}
	err := filepath.WalkDir(dir, func(name string, entry fs.DirEntry, err error) error {
		if err != nil || entry.IsDir() {
			return err
		}
		data, err := os.ReadFile(name)
		relative, _ := filepath.Rel(dir, name)
		found[filepath.ToSlash(relative)] = string(data)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return found
}

func all(string, stamp.Stamp) bool { return true }

func update(t *testing.T, dir string, files []File, removable Removable) []Change {
	t.Helper()
	changes, err := Compare(dir, files, removable)
	if err != nil {
		t.Fatal(err)
	}
	if err := Apply(dir, changes); err != nil {
		t.Fatal(err)
	}
	return changes
}

func describe(changes []Change) string {
	var lines []string
	for _, c := range changes {
		what := "changed"
		if c.Added {
			what = "added"
		} else if c.Removed {
			what = "removed"
		}
		lines = append(lines, what+" "+c.Path)
	}
	return strings.Join(lines, "\n")
}

func TestUpdate(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "rendered")
	a := File{Path: "h1/pg-a-primary.cfg", Text: ours("pg-a", "pg-a-primary.cfg", "1\n")}
	b := File{Path: "h2/dnsmasq.d/pigsty/pg-a", Text: ours("pg-a", "pg-a", "x\n")}
	if got, want := describe(update(t, dir, []File{a, b}, all)), "added h1/pg-a-primary.cfg\nadded h2/dnsmasq.d/pigsty/pg-a"; got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
	if changes := update(t, dir, []File{a, b}, all); len(changes) != 0 {
		t.Errorf("the second time %s", describe(changes))
	}
	a.Text = ours("pg-a", "pg-a-primary.cfg", "2\n")
	if got, want := describe(update(t, dir, []File{a}, all)), "changed h1/pg-a-primary.cfg\nremoved h2/dnsmasq.d/pigsty/pg-a"; got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
	if got := tree(t, dir); !maps.Equal(got, map[string]string{a.Path: a.Text}) {
		t.Errorf("left are %v", got)
	}
}

// Removal goes by the stamp of each file and by what the caller lets go, never by how a name begins.
func TestRemovesOnlyOurs(t *testing.T) {
	dir := t.TempDir()
	keep := map[string]string{
		"h1/pg-a-primary.cfg":     "# Ansible managed\nlisten pg-a-primary\n",
		"h1/pg-a-b-primary.cfg":   ours("pg-a-b", "pg-a-b-primary.cfg", "another cluster's\n"),
		"h1/pg-a-mine.cfg":        ours("pg-a", "pg-a-primary.cfg", "a copy that somebody made\n"),
		"h1/pg-a-noted.cfg":       "# mine\n" + ours("pg-a", "pg-a-noted.cfg", ""),
		"top.cfg":                 ours("pg-a", "top.cfg", "not below a host\n"),
		"h1/x/y/z/pg-a-deep.cfg":  ours("pg-a", "pg-a-deep.cfg", "deeper than ours are\n"),
		"h2/.pg-a-hidden.cfg.bak": "",
	}
	for name, text := range keep {
		put(t, dir, name, text)
	}
	put(t, dir, "h1/pg-a-old.cfg", ours("pg-a", "pg-a-old.cfg", "listen pg-a-old\n"))
	if err := os.Symlink(filepath.Join(dir, "h1/pg-a-old.cfg"), filepath.Join(dir, "h1/link.cfg")); err != nil {
		t.Fatal(err)
	}
	changes := update(t, dir, nil, func(_ string, s stamp.Stamp) bool { return s.Cluster == "pg-a" })
	if got, want := describe(changes), "removed h1/pg-a-old.cfg"; got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
	if _, err := os.Lstat(filepath.Join(dir, "h1/link.cfg")); err != nil {
		t.Errorf("the link is gone: %v", err)
	}
	os.Remove(filepath.Join(dir, "h1/link.cfg"))
	if got := tree(t, dir); !maps.Equal(got, keep) {
		t.Errorf("left are %v, want %v", slices.Sorted(maps.Keys(got)), slices.Sorted(maps.Keys(keep)))
	}
}

// What can't be written whole leaves everything as it was, and nothing beside it.
func TestNothingHalfDone(t *testing.T) {
	dir := t.TempDir()
	put(t, dir, "h1/a.cfg", "old a\n")
	put(t, dir, "h1/gone.cfg", ours("", "gone.cfg", ""))
	put(t, dir, "h2", "a file where a directory has to be\n")
	before := tree(t, dir)
	changes := []Change{
		{Path: "h1/a.cfg", Old: "old a\n", New: "new a\n"},
		{Path: "h1/gone.cfg", Removed: true},
		{Path: "h2/b.cfg", New: "b\n", Added: true},
	}
	if err := Apply(dir, changes); err == nil {
		t.Error("no error")
	}
	if got := tree(t, dir); !maps.Equal(got, before) {
		t.Errorf("changed to %v", got)
	}
	// A file whose name has no room for being written beside the old one fails after others were written.
	changes[2] = Change{Path: "h1/" + strings.Repeat("x", 250), New: "b\n", Added: true}
	if err := Apply(dir, changes); err == nil {
		t.Error("no error")
	}
	if got := tree(t, dir); !maps.Equal(got, before) {
		t.Errorf("changed to %v", got)
	}
	if _, err := Compare(dir, []File{{Path: "h1", Text: ""}}, all); err == nil || !strings.Contains(err.Error(), "no regular file") {
		t.Errorf("a directory in a file's place: %v", err)
	}
}

func TestPrivate(t *testing.T) {
	dir := t.TempDir()
	put(t, dir, "h1/open.yml", "etcd-password: \"x\"\n")
	files := []File{{Path: "h1/open.yml", Text: "etcd-password: \"x\"\n", Private: true}, {Path: "h1/new.yml", Text: "y\n", Private: true}}
	if got, want := describe(update(t, dir, files, all)), "added h1/new.yml\nchanged h1/open.yml"; got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
	for _, f := range files {
		info, err := os.Stat(filepath.Join(dir, f.Path))
		if err != nil || info.Mode().Perm() != 0o600 {
			t.Errorf("%s: %v, %v; want mode 0600", f.Path, info.Mode(), err)
		}
	}
	if changes := update(t, dir, files, all); len(changes) != 0 {
		t.Errorf("the second time %s", describe(changes))
	}
}

// A name that a killed process of the same number left is taken over.
func TestLeftover(t *testing.T) {
	dir := t.TempDir()
	put(t, dir, fmt.Sprintf("h1/.a.cfg.%d.new", os.Getpid()), "half of")
	update(t, dir, []File{{Path: "h1/a.cfg", Text: "whole\n"}}, all)
	if got := tree(t, dir); !maps.Equal(got, map[string]string{"h1/a.cfg": "whole\n"}) {
		t.Errorf("there is %v", got)
	}
}

func TestShow(t *testing.T) {
	changes := []Change{
		{Path: "h1/a.cfg", New: "listen a\n    bind *:1\n", Added: true},
		{Path: "h1/b.cfg", Old: "listen b\n    bind *:1\n    mode tcp\n", New: "listen b\n    bind *:2\n    mode tcp\n"},
		{Path: "h1/c.cfg", Old: "listen c\n", Removed: true},
		{Path: "h1/haproxy.cfg", Old: "user admin insecure-password old\n", New: "user admin insecure-password 'n e w'\n"},
		{Path: "h1/vip-manager.yml", Old: "ip: \"1\"\netcd-password: \"old\"\n", New: "ip: \"2\"\netcd-password: \"new\"\n"},
		{Path: "h1/pg_service.conf", Old: "x\n", New: "x\n"},
	}
	var b strings.Builder
	if err := Show(&b, "out", changes); err != nil {
		t.Fatal(err)
	}
	want := `diff /dev/null out/h1/a.cfg
--- /dev/null
+++ out/h1/a.cfg
@@ -0,0 +1,2 @@
+listen a
+    bind *:1
diff out/h1/b.cfg out/h1/b.cfg
--- out/h1/b.cfg
+++ out/h1/b.cfg
@@ -1,3 +1,3 @@
 listen b
-    bind *:1
+    bind *:2
     mode tcp
diff out/h1/c.cfg /dev/null
--- out/h1/c.cfg
+++ /dev/null
@@ -1,1 +0,0 @@
-listen c
diff out/h1/haproxy.cfg out/h1/haproxy.cfg
--- out/h1/haproxy.cfg
+++ out/h1/haproxy.cfg
# only a secret changes, which isn't shown
diff out/h1/vip-manager.yml out/h1/vip-manager.yml
--- out/h1/vip-manager.yml
+++ out/h1/vip-manager.yml
@@ -1,2 +1,2 @@
-ip: "1"
+ip: "2"
 etcd-password: (secret)
diff out/h1/pg_service.conf out/h1/pg_service.conf
--- out/h1/pg_service.conf
+++ out/h1/pg_service.conf
# only its mode changes: others may read it
`
	if b.String() != want {
		t.Errorf("got\n%swant\n%s", b.String(), want)
	}
}
