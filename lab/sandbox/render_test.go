package sandbox

import (
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/rogpeppe/go-internal/txtar"
)

var update = flag.Bool("update", false, "write the goldens")

var testTools = tools{
	etcd: "/usr/bin/etcd", patroni: "/usr/bin/patroni", pgbouncer: "/usr/sbin/pgbouncer", psql: "/usr/bin/psql",
	postgresBin: "/usr/lib/postgresql/15/bin", postgres: 15,
}

// TestFiles renders whole sandboxes: testdata/<case>.txtar has every file as it lies below the sandbox's directory.
func TestFiles(t *testing.T) {
	cases := map[string]Config{
		"patient": {Dir: "/srv/sandbox", Members: 1, Fall: 10},
		"default": {Dir: "/srv/sandbox"},
		"single":  {Dir: "/srv/sandbox", Members: 1, Prefix: "127.9.8"},
		"all":     {Dir: "/srv/sandbox", Sync: true, Offline: true, Delayed: true, Standby: true},
		"netns":   {Dir: "/srv/sandbox", Netns: true},
		"spaces":  {Dir: "/srv/my sandbox", Members: 2},
		"trouble": {Dir: "/srv/sandbox", Members: 2, WithoutLocalReplication: true, RestProxy: "/usr/bin/pgporter-lab"},
		"tls":     {Dir: "/srv/sandbox", Members: 2, TLS: true},
		"door":    {Dir: "/srv/sandbox", Members: 2, Door: true, Binary: "/usr/bin/pgporter"},
	}
	for name, config := range cases {
		t.Run(name, func(t *testing.T) {
			config, err := config.withDefaults()
			if err != nil {
				t.Fatal(err)
			}
			l := newLayout(config)
			if !l.socketsFit() {
				l.sockets = "/tmp/pgporter-1"
			}
			files, err := l.files(testTools)
			if err != nil {
				t.Fatal(err)
			}
			archive := &txtar.Archive{Comment: []byte("Every file of the sandbox with its mode.\n")}
			for _, f := range files {
				relative, err := filepath.Rel(config.Dir, f.path)
				if err != nil || strings.HasPrefix(relative, "..") {
					t.Errorf("%s is outside of the sandbox", f.path)
				}
				if strings.Contains(f.text, "DBUser.DBA") && relative != "inventory.yml" && f.mode&0o077 != 0 {
					t.Errorf("%s has passwords and mode %s", relative, f.mode)
				}
				archive.Files = append(archive.Files, txtar.File{Name: relative + " " + f.mode.String(), Data: []byte(f.text)})
			}
			golden := filepath.Join("testdata", name+".txtar")
			got := txtar.Format(archive)
			if *update {
				if err := os.WriteFile(golden, got, 0o644); err != nil {
					t.Fatal(err)
				}
			}
			want, err := os.ReadFile(golden)
			if err != nil {
				t.Fatal(err)
			}
			if string(got) != string(want) {
				t.Errorf("%s differs (go test -update writes it); got:\n%s", golden, got)
			}
		})
	}
}

func TestCommands(t *testing.T) {
	config, err := Config{Dir: "/srv/sandbox", BinaryArgs: []string{"--log-level", "debug"}}.withDefaults()
	if err != nil {
		t.Fatal(err)
	}
	l := newLayout(config)
	for what, want := range map[string]string{
		"1/patroni":   "/usr/bin/patroni /srv/sandbox/pg-test-1/patroni.yml",
		"2/pgbouncer": "/usr/sbin/pgbouncer /srv/sandbox/pg-test-2/pgbouncer.ini",
		"3/pgporter":  "/bin/pgporter run --inventory /srv/sandbox/inventory.yml --node 127.0.1.13 --bind 127.0.1.13 --etcd 127.0.1.10:2379 --log-level debug",
	} {
		p, err := l.part(what)
		if err != nil {
			t.Fatal(err)
		}
		c := l.command(p, testTools, "/bin/pgporter")
		if got := strings.Join(append([]string{c.path}, c.args...), " "); got != want {
			t.Errorf("%s: %s\nwant %s", what, got, want)
		}
	}
	proxied := mustLayout(t, Config{RestProxy: "/bin/pgporter-lab"})
	before, err := proxied.part("2/restproxy")
	if err != nil {
		t.Fatal(err)
	}
	c := proxied.command(before, testTools, "/bin/pgporter-lab")
	if got, want := strings.Join(append([]string{c.path}, c.args...), " "), "/bin/pgporter-lab restproxy 127.0.1.12:8009 127.0.1.12:8008 /srv/sandbox/sockets/pg-test-2/rest"; got != want {
		t.Errorf("%s\nwant %s", got, want)
	}
	// On the documents' network a service's port is open on every address, and the first node tells the names.
	network := mustLayout(t, Config{Netns: true})
	for what, want := range map[string]string{
		"pg-meta-1/pgporter": "/bin/pgporter run --inventory /srv/sandbox/inventory.yml --node 10.10.10.10 --admin 10.10.10.10 --etcd 10.10.10.10:2379 --vip --dns=10.10.10.10",
		"3/pgporter":         "/bin/pgporter run --inventory /srv/sandbox/inventory.yml --node 10.10.10.13 --admin 10.10.10.13 --etcd 10.10.10.10:2379 --vip",
	} {
		p, err := network.part(what)
		if err != nil {
			t.Fatal(err)
		}
		c := network.command(p, testTools, "/bin/pgporter")
		if got := strings.Join(append([]string{c.path}, c.args...), " "); got != want {
			t.Errorf("%s: %s\nwant %s", what, got, want)
		}
	}
	etcd := l.command(part{kind: etcdKind}, testTools, "")
	for _, want := range []string{"http://127.0.1.10:2379", "http://127.0.1.10:2380", "/srv/sandbox/etcd/data"} {
		if !strings.Contains(strings.Join(etcd.args, " "), want) {
			t.Errorf("etcd isn't given %s: %s", want, etcd.args)
		}
	}
}

func TestQuoting(t *testing.T) {
	for in, want := range map[string]string{"/a/b-c.d": "/a/b-c.d", "/a b": "'/a b'", "it's": `'it'\''s'`, "": "''"} {
		if got := quoteShell(in); got != want {
			t.Errorf("quoteShell(%q) = %s, want %s", in, got, want)
		}
	}
	for in, want := range map[string]string{"a<b": `"a<b"`, `say "x"`: `"say \"x\""`} {
		if got, err := quoteYAML(in); err != nil || got != want {
			t.Errorf("quoteYAML(%q) = %s, %v; want %s", in, got, err, want)
		}
	}
}
