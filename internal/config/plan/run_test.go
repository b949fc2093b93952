package plan

import (
	"encoding/json"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/pgporter/pgporter/internal/config/diag"
	"github.com/pgporter/pgporter/internal/config/inventory"
)

// What planning finds, for a node alone or for all, Check finds too, so that one that was checked can be planned.
func TestPlanningFindsNothingNew(t *testing.T) {
	planned := 0
	paths, err := filepath.Glob("testdata/*/*.yml")
	if err != nil {
		t.Fatal(err)
	}
	for _, path := range paths {
		text, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		inv, _ := inventory.Parse(path, text)
		if inv == nil {
			continue
		}
		for _, haproxy := range []bool{false, true} {
			check := Check
			if haproxy {
				check = CheckForHAProxy
			}
			_, found := check(inv)
			nodes, problems := AllForRun(inv, Needs{HAProxy: haproxy})
			for _, n := range nodes {
				planned++
				_, alone := ForRun(inv, n.Plan.Node, Needs{HAProxy: haproxy})
				problems = append(problems, alone...)
			}
			for _, p := range problems {
				if p.Severity == diag.Error && !slices.Contains(found, p) {
					t.Errorf("%s, HAProxy %v: check doesn't say: %s", path, haproxy, p)
				}
			}
		}
	}
	if planned < 5 {
		t.Errorf("only %d nodes were planned", planned)
	}
}

const mixed = `all:
  vars: { haproxy_admin_password: Secret.H }
  children:
    etcd: { hosts: { 10.10.10.9: } }
    pg-a:
      hosts: { 10.10.10.11: { pg_seq: 1, pg_role: primary }, 10.10.10.12: { pg_seq: 2, pg_role: replica } }
      vars: { pg_cluster: pg-a }
    pg-b:
      hosts: { 10.10.10.13: { pg_seq: 1, pg_role: primary }, 10.10.10.14: { pg_seq: 2, pg_role: replica, pg_vip_enabled: true, pg_vip_address: 10.10.10.2/24, pg_vip_interface: eth0 } }
      vars: { pg_cluster: pg-b, pg_service_provider: proxy, pg_etcd_password: Secret.B }
    proxy: { hosts: { 10.10.10.20: } }
    web: { hosts: { 10.10.10.30: { haproxy_services: [ { name: web, port: 8080, servers: [ { name: a, ip: 10.0.0.1, port: 80 } ] } ] } } }
`

// Planned are those who have something to do: members, providers, hosts with services of their own and those with a virtual address,
// not members whose services others carry.
func TestAllForRun(t *testing.T) {
	inv, problems := inventory.Parse("t.yml", []byte(mixed))
	if problems.Err() != nil {
		t.Fatal(problems)
	}
	nodes, problems := AllForRun(inv, Needs{HAProxy: true, Etcd: true, Names: true})
	if problems.Err() != nil {
		t.Fatal(problems)
	}
	var names []string
	for _, n := range nodes {
		names = append(names, n.Plan.Node)
		text, err := json.Marshal(n)
		if err != nil || strings.Contains(string(text), "Secret.") || n.Base == nil || n.Base.PasswordFile == "" || len(n.Plan.Names) != 2 {
			t.Errorf("%s: %v, %s", n.Plan.Node, err, text)
		}
	}
	if got, want := strings.Join(names, " "), "10.10.10.11 10.10.10.12 10.10.10.14 10.10.10.20 10.10.10.30"; got != want {
		t.Errorf("planned are %s, want %s", got, want)
	}
	provider := nodes[slices.Index(names, "10.10.10.20")]
	if e := provider.Etcd["pg-b"]; e.User != "pg-b" || e.Password != "" || e.PasswordFile != "/etc/pgporter/etcd-pg-b.password" {
		t.Errorf("the provider reads etcd as %+v", e)
	}
}

// Passwords that aren't needed aren't read: they may be encrypted, or be what nothing can be made of. Where they are needed that is an error.
func TestPasswordsAreReadWhereTheyAreNeeded(t *testing.T) {
	for _, password := range []string{"!vault x", `"{{ nosuch }}"`, `["a"]`} {
		inv, problems := inventory.Parse("t.yml", []byte(strings.NewReplacer("Secret.H", password, "Secret.B", password).Replace(mixed)))
		if problems.Err() != nil {
			t.Fatal(problems)
		}
		if _, problems := AllForRun(inv, Needs{HAProxy: true, Etcd: true}); problems.Err() != nil {
			t.Errorf("%s: %v", password, problems)
		}
		_, problems = ForRun(inv, "10.10.10.20", Needs{HAProxy: true, Etcd: true, Passwords: true})
		for _, want := range []string{"haproxy_admin_password", "pg_etcd_password"} {
			if !strings.Contains(problems.Error(), want) {
				t.Errorf("%s: no error about %s in %v", password, want, problems)
			}
		}
	}
}

func TestNodesWithoutHAProxy(t *testing.T) {
	inv, problems := inventory.Parse("t.yml", []byte(strings.Replace(mixed, "pg_cluster: pg-a", "pg_cluster: pg-a, haproxy_enabled: false", 1)))
	if problems.Err() != nil {
		t.Fatal(problems)
	}
	const want = `t.yml: error: the host "10.10.10.11" has no HAProxy: haproxy_enabled is false; haproxy_enabled: true, or another engine`
	if _, problems := ForRun(inv, "10.10.10.11", Needs{HAProxy: true}); !strings.Contains(problems.Error(), want) {
		t.Errorf("got %v", problems)
	}
	if _, problems := AllForRun(inv, Needs{HAProxy: true}); !strings.Contains(problems.Error(), want) || strings.Contains(problems.Error(), "10.10.10.20") {
		t.Errorf("got %v", problems)
	}
	if _, problems := AllForRun(inv, Needs{}); problems.Err() != nil {
		t.Errorf("without HAProxy it isn't needed: %v", problems)
	}
}
