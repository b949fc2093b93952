package sandbox

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

func mustLayout(t *testing.T, c Config) layout {
	t.Helper()
	if c.Dir == "" {
		c.Dir = "/srv/sandbox"
	}
	c, err := c.withDefaults()
	if err != nil {
		t.Fatal(err)
	}
	return newLayout(c)
}

func TestConfigRefused(t *testing.T) {
	for _, c := range []struct {
		name   string
		config Config
		want   string
	}{
		{"no loopback", Config{Prefix: "10.10.10"}, `prefix "10.10.10": the first three octets of loopback addresses, such as 127.0.1`},
		{"public", Config{Netns: true, Prefix: "8.8.8"}, `prefix "8.8.8": the first three octets of private addresses, such as 10.10.10`},
		{"loopback in namespaces", Config{Netns: true, Prefix: "127.0.1"}, `prefix "127.0.1": the first three octets of private addresses`},
		{"no address", Config{Prefix: "127.0"}, `prefix "127.0": the first three octets`},
		{"too many", Config{Members: 10}, "members 10: from 1 to 9"},
		{"too few", Config{Members: -1}, "members -1: from 1 to 9"},
		{"offline alone", Config{Members: 1, Offline: true}, "a dedicated offline instance needs at least 2 members, not 1"},
		{"sync alone", Config{Members: 1, Sync: true}, "synchronous mode needs at least 2 members, not 1"},
		{"sync and offline", Config{Members: 2, Sync: true, Offline: true}, "needs at least 3 members, not 2"},
		{"quote in path", Config{Dir: "/srv/it's"}, `sandbox directory "/srv/it's": choose a path without "'"`},
		{"line end in path", Config{Dir: "/srv/a\nb"}, `choose a path without "\n"`},
	} {
		t.Run(c.name, func(t *testing.T) {
			_, err := c.config.withDefaults()
			if err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("got %v, want %s", err, c.want)
			}
			if !errors.Is(err, ErrInput) {
				t.Errorf("%v isn't ErrInput", err)
			}
		})
	}
}

// describeMember is a member in one line: pg-test-3 127.0.1.13 replica offline_query.
func describeMember(m Member) string {
	text := m.Name + " " + m.Address + " " + m.Role
	if m.OfflineQuery {
		text += " offline_query"
	}
	if m.Upstream != "" {
		text += " from " + m.Upstream
	}
	return text
}

func TestMembers(t *testing.T) {
	for _, c := range []struct {
		name   string
		config Config
		want   []string
	}{
		{"default", Config{}, []string{"pg-test-1 127.0.1.11 primary", "pg-test-2 127.0.1.12 replica", "pg-test-3 127.0.1.13 replica offline_query"}},
		{"one", Config{Members: 1}, []string{"pg-test-1 127.0.1.11 primary"}},
		{"two", Config{Members: 2}, []string{"pg-test-1 127.0.1.11 primary", "pg-test-2 127.0.1.12 replica offline_query"}},
		{"offline", Config{Offline: true, Prefix: "127.3.2"}, []string{"pg-test-1 127.3.2.11 primary", "pg-test-2 127.3.2.12 replica", "pg-test-3 127.3.2.13 offline"}},
		{"delayed and standby", Config{Members: 2, Delayed: true, Standby: true}, []string{
			"pg-test-1 127.0.1.11 primary", "pg-test-2 127.0.1.12 replica offline_query", "pg-test-3 127.0.1.13 delayed",
			"pg-standby-1 127.0.1.21 primary from 127.0.1.11", "pg-standby-2 127.0.1.22 replica",
		}},
		{"netns", Config{Netns: true, Standby: true}, []string{
			"pg-meta-1 10.10.10.10 primary", "pg-test-1 10.10.10.11 primary", "pg-test-2 10.10.10.12 replica", "pg-test-3 10.10.10.13 replica offline_query",
			"pg-standby-1 10.10.10.21 primary from 10.10.10.11", "pg-standby-2 10.10.10.22 replica",
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			var got []string
			for _, m := range mustLayout(t, c.config).members {
				got = append(got, describeMember(m))
			}
			if !slices.Equal(got, c.want) {
				t.Errorf("got %q\nwant %q", got, c.want)
			}
		})
	}
	// Nine members and a delayed one must not run into the standby cluster's addresses.
	seen := map[string]bool{}
	for _, m := range mustLayout(t, Config{Members: 9, Delayed: true, Standby: true}).members {
		if seen[m.Address] {
			t.Errorf("%s has another member's address %s", m.Name, m.Address)
		}
		seen[m.Address] = true
	}
}

func TestServices(t *testing.T) {
	names := func(all []service) string {
		var texts []string
		for _, s := range all {
			texts = append(texts, s.Name)
		}
		return strings.Join(texts, " ")
	}
	for _, c := range []struct {
		name              string
		config            Config
		cluster           string
		offered, servable string
	}{
		{"default", Config{}, mainCluster, "primary replica default offline", "primary replica default offline"},
		{"one", Config{Members: 1}, mainCluster, "primary replica default offline", "primary replica default"},
		{"one and a delayed", Config{Members: 1, Delayed: true}, mainCluster, "primary replica default offline delayed", "primary replica default delayed"},
		{"sync", Config{Sync: true}, mainCluster, "primary replica standby default offline", "primary replica standby default offline"},
		{"single node", Config{Netns: true}, metaCluster, "primary replica default offline", "primary replica default"},
		{"standby cluster", Config{Sync: true, Delayed: true, Standby: true}, standbyCluster, "primary replica default offline", "replica offline"},
	} {
		t.Run(c.name, func(t *testing.T) {
			l := mustLayout(t, c.config)
			if got := names(l.services(c.cluster)); got != c.offered {
				t.Errorf("offered: %s, want %s", got, c.offered)
			}
			if got := names(l.servable(c.cluster)); got != c.servable {
				t.Errorf("servable: %s, want %s", got, c.servable)
			}
		})
	}
}

func TestPart(t *testing.T) {
	l := mustLayout(t, Config{Standby: true, Members: 2})
	for what, want := range map[string]string{
		"etcd": "etcd", "1/postgres": "pg-test-1/postgres", "2/pgbouncer": "pg-test-2/pgbouncer",
		"pg-test-1/patroni": "pg-test-1/patroni", "pg-standby-2/pgporter": "pg-standby-2/pgporter",
	} {
		if p, err := l.part(what); err != nil || p.String() != want {
			t.Errorf("part(%q) = %s, %v; want %s", what, p, err, want)
		}
	}
	for _, what := range []string{"", "1", "3/postgres", "pg-test-1", "1/redis", "0/postgres"} {
		if _, err := l.part(what); !errors.Is(err, ErrInput) || !strings.Contains(err.Error(), "pg-test-1/postgres") {
			t.Errorf("part(%q): %v, want a list of what there is", what, err)
		}
	}
	bare := mustLayout(t, Config{WithoutPgporter: true})
	if _, err := bare.part("1/pgporter"); err == nil {
		t.Error("a sandbox without pgporter has 1/pgporter")
	}
}

func TestAccess(t *testing.T) {
	s := &Sandbox{layout: mustLayout(t, Config{Standby: true})}
	for _, c := range []struct{ target, via, want string }{
		{"primary", "", "postgres://test:test@127.0.1.11:5433/test"},
		{"pg-test-default", "2", "postgres://dbuser_dba:DBUser.DBA@127.0.1.12:5436/test"},
		{"offline", "127.0.1.13", "postgres://dbuser_stats:DBUser.Stats@127.0.1.13:5438/test"},
		{"pg-standby-replica", "", "postgres://test:test@127.0.1.21:5434/test"},
		{"pg-test-2", "", "postgres://dbuser_dba:DBUser.DBA@127.0.1.12:5432/test"},
		{"2/pgbouncer", "", "postgres://test:test@127.0.1.12:6432/test"},
	} {
		a, err := s.Access(c.target, c.via)
		if err != nil || a.URL() != c.want {
			t.Errorf("Access(%q, %q) = %s, %v; want %s", c.target, c.via, a.URL(), err, c.want)
		}
	}
	for _, c := range []struct{ target, via, want string }{
		{"nowhere", "", `nothing is called "nowhere"; services: pg-test-primary`},
		{"primary", "9", `no member "9"`},
		{"pg-standby-replica", "1", "node pg-test-1 doesn't offer pg-standby-replica"},
	} {
		if _, err := s.Access(c.target, c.via); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("Access(%q, %q): %v, want %s", c.target, c.via, err, c.want)
		}
	}
	a, err := s.Access("primary", "")
	if err != nil {
		t.Fatal(err)
	}
	if a, err = a.As("dbuser_view", "meta"); err != nil || a.URL() != "postgres://dbuser_view:DBUser.View@127.0.1.11:5433/meta" {
		t.Errorf("As: %s, %v", a.URL(), err)
	}
	if _, err = a.As("joe", ""); err == nil || !strings.Contains(err.Error(), "dbuser_dba, dbuser_meta") {
		t.Errorf("As an unknown user: %v", err)
	}
	if n := len(s.URLs()); n != 4*3+4*2 {
		t.Errorf("%d URLs, want every service at every node of its cluster", n)
	}
}

func TestSocketsFit(t *testing.T) {
	for dir, want := range map[string]bool{
		"/var/lib/pgporter-lab":            true,
		"/srv/" + strings.Repeat("d", 69):  true, // /srv/d…d/sockets/pg-test-1/.s.PGSQL.5432 is 106 bytes
		"/srv/" + strings.Repeat("d", 70):  false,
		"/srv/with space":                  false,
		"/srv/a,b":                         false,
		"/srv/" + strings.Repeat("d", 200): false,
	} {
		l := mustLayout(t, Config{Dir: dir})
		if got := l.socketsFit(); got != want {
			t.Errorf("%s (%d bytes): %v, want %v", dir, l.longestSocket(), got, want)
		}
	}
}

func TestResolveDir(t *testing.T) {
	base, err := filepath.EvalSymlinks(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir(filepath.Join(base, "real"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink("real", filepath.Join(base, "link")); err != nil {
		t.Fatal(err)
	}
	// /proc shows working directories without links: so must the sandbox know its own.
	got, err := resolveDir(filepath.Join(base, "link", "not", "yet"))
	if want := filepath.Join(base, "real", "not", "yet"); err != nil || got != want {
		t.Errorf("got %s, %v; want %s", got, err, want)
	}
}

func TestParseSignal(t *testing.T) {
	for text, want := range map[string]string{"KILL": "SIGKILL", "sigterm": "SIGTERM", "9": "SIGKILL", "Stop": "SIGSTOP"} {
		if sig, err := ParseSignal(text); err != nil || signalName(sig) != want {
			t.Errorf("ParseSignal(%q) = %s, %v; want %s", text, signalName(sig), err, want)
		}
	}
	for _, text := range []string{"", "SIG", "0", "-9", "KILLED"} {
		if _, err := ParseSignal(text); err == nil {
			t.Errorf("ParseSignal(%q) is no error", text)
		}
	}
}
