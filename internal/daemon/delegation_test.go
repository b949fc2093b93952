package daemon

import (
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/pgporter/pgporter/internal/admin/api"
)

// Two clusters that share one provider.
func delegated(one, two fixture, provider string) string {
	var text strings.Builder
	for i, f := range []fixture{one, two} {
		fmt.Fprintf(&text, `pg-%[1]d:
  hosts:
    %[2]s: { pg_seq: 1, pg_role: primary, pg_port: %[3]d, patroni_port: %[4]d }
  vars:
    pg_cluster: pg-%[1]d
    pg_rto: fast
    pg_service_provider: doors
    pg_default_services: [ { name: primary, port: "{{ 10013 + 10 * %[1]d }}", dest: postgres, check: /primary, selector: '[]' } ]
`, i, f.host, f.echoPort, f.patroniPort)
	}
	return text.String() + "doors: { hosts: { " + provider + ": } }\n"
}

// A provider carries the services of every cluster that is delegated to it; a member then listens for none.
func TestDelegation(t *testing.T) {
	one, two := newFixture(t, "127.0.63.41"), newFixture(t, "127.0.63.42")
	text := delegated(one, two, "127.0.63.43")
	provider := start(t, fixture{host: "127.0.63.43"}, "127.0.63.43", text, false)
	echo(t, provider.dial("10013"), "to the first cluster\n")
	echo(t, provider.dial("10023"), "to the second\n")
	if s := provider.status(); len(s.Clusters) != 2 || !s.Clusters[0].Services[0].Up || !s.Clusters[1].Services[0].Up {
		t.Errorf("the provider's status is %+v", s)
	}
	member := start(t, one, one.host, text, false)
	if conn, err := net.Dial("tcp", one.host+":10013"); err == nil {
		conn.Close()
		t.Error("the member listens for the service that is delegated")
	}
	if s := member.status(); len(s.Clusters) != 1 || len(s.Clusters[0].Services) != 0 {
		t.Errorf("the member's status is %+v", s)
	}

	// Given back to the members, the services move.
	back := strings.ReplaceAll(text, "pg_service_provider: doors", "pg_service_provider: ''")
	for _, r := range []*running{provider, member} {
		r.write(back)
		r.reload <- syscall.SIGHUP
		r.until("taken", func(s *api.Status) bool { return s.Config.Generation == 2 })
	}
	echo(t, member.dial("10013"), "by the member itself\n")
	if conn, err := net.Dial("tcp", "127.0.63.43:10013"); err == nil {
		conn.Close()
		t.Error("the provider still listens")
	}
}

func TestStandardInputIsReadOnce(t *testing.T) {
	f := newFixture(t, "127.0.63.51")
	text := f.inventory("primary:5433")
	r := start(t, f, "127.0.63.52", text, false, func(cfg *Config) {
		cfg.Source = &InventoryFile{Path: "standard input", Given: []byte(text), Node: f.host, Logger: cfg.Logger}
	})
	echo(t, r.dial("5433"), "from standard input\n")
	r.reload <- syscall.SIGHUP
	r.until("refused", func(s *api.Status) bool {
		return strings.Contains(s.Config.Refused, "the inventory came on standard input, which can't be read again")
	})
	echo(t, r.dial("5433"), "still there\n")
}

// Variables beside the inventory are watched with it, also where their directory comes later.
func TestWatchTakesFilesOfVariables(t *testing.T) {
	f := newFixture(t, "127.0.63.61")
	r := start(t, f, "127.0.63.62", f.inventory("primary:5433"), true)
	dir := filepath.Join(filepath.Dir(r.path), "group_vars")
	if err := os.Mkdir(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "pg-test.yml"), []byte("pg_services: [ { name: more, port: 5440, dest: postgres, check: /primary, selector: '[]' } ]\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	r.until("taken", func(s *api.Status) bool { return s.Config.Generation == 2 })
	echo(t, r.dial("5440"), "new service\n")
}
