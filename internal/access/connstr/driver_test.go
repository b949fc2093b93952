package connstr

import (
	"net/netip"
	"os"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5/pgconn"

	"github.com/pgporter/pgporter/internal/config/model"
)

// FuzzURL has pgx read what was written for it: the same has to come out, or nothing was to be written.
func FuzzURL(f *testing.F) {
	// The client's own settings would show through.
	for _, name := range []string{"PGSERVICE", "PGPASSWORD", "PGTARGETSESSIONATTRS", "PGSSLMODE"} {
		os.Unsetenv(name)
	}
	f.Add("test", "test", "test", "10.10.10.11")
	f.Add("o'hara;@home", "my db/?", `p%a:s+s "w\'`, "fd00::11")
	f.Add("a&b=c#d", "ünï", "%2F%", "pg-test.db.example")
	f.Add("two\nlines", "test", "", "pg-test")
	f.Fuzz(func(t *testing.T, user, database, password, host string) {
		if user == "" || database == "" {
			return
		}
		if _, err := netip.ParseAddr(host); err != nil && strings.Contains(host, ":") {
			// Plans have addresses and names; what is neither isn't in them.
			return
		}
		w := Endpoint{FullName: "pg-test-primary", Hosts: []string{host, "pg-test-2"}, Ports: []int{5433, 6433}, User: user, Database: database, Password: model.Secret(password), Session: "primary"}
		url, err := Driver{Name: "pgx"}.URL(w, true)
		if err != nil {
			return
		}
		c, err := pgconn.ParseConfig(url)
		if err != nil {
			t.Fatalf("%s can't be read: %v", url, err)
		}
		if c.User != user || c.Database != database || password != "" && c.Password != password || c.Host != host || c.Port != 5433 {
			t.Errorf("%s is read as %q, %q, %q at %q, %d", url, c.User, c.Database, c.Password, c.Host, c.Port)
		}
		if c.Fallbacks[len(c.Fallbacks)-1].Host != "pg-test-2" || c.Fallbacks[len(c.Fallbacks)-1].Port != 6433 || c.ValidateConnect == nil {
			t.Errorf("%s: the second host, or what is looked for, isn't read", url)
		}
		if hidden, err := (Driver{Name: "pgx"}).URL(w, false); err != nil || password != "" && hidden == url {
			t.Errorf("%s, %v: without the password it is the same", hidden, err)
		}
	})
}

func TestDrivers(t *testing.T) {
	for text, want := range map[string]Driver{"libpq": {"libpq", 0}, "libpq@13": {"libpq", 13}, "psycopg@16": {"psycopg", 16}, "npgsql@5": {"npgsql", 5}} {
		if got, err := ParseDriver(text); err != nil || got != want {
			t.Errorf("%s: %+v, %v", text, got, err)
		}
	}
	for _, text := range []string{"", "odbc", "libpq@", "libpq@x", "libpq@0", "libpq@99999", "pgx@5", "jdbc@42"} {
		if d, err := ParseDriver(text); err == nil {
			t.Errorf("%q is taken for %+v", text, d)
		}
	}
	several := Endpoint{Hosts: []string{"a", "b"}, Ports: []int{1, 2}}
	one := Endpoint{Hosts: []string{"a"}, Ports: []int{1}, Session: "primary"}
	spread := Endpoint{Hosts: []string{"a", "b"}, Ports: []int{1, 2}, Session: "prefer-standby", Spread: true}
	for _, c := range []struct {
		driver   string
		endpoint Endpoint
		lack     string
	}{
		{"libpq@9", several, "several since 10"}, {"libpq@10", several, ""}, {"libpq@9", one, ""}, {"npgsql@5", several, "several since 6"},
		{"npgsql@6", spread, ""}, {"jdbc", spread, ""}, {"pgx", spread, "no load_balance_hosts"}, {"pgx", several, ""},
		{"libpq@13", spread, "prefer-standby since 14"}, {"psycopg@15", spread, "load_balance_hosts since 16"}, {"libpq@16", spread, ""}, {"libpq", spread, ""},
	} {
		d, err := ParseDriver(c.driver)
		if err != nil {
			t.Fatal(err)
		}
		if lack := d.Lacks(c.endpoint); (lack == "") != (c.lack == "") || !strings.Contains(lack, c.lack) {
			t.Errorf("%s: it lacks %q, not %q", c.driver, lack, c.lack)
		}
	}
}
