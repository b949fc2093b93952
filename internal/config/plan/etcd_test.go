package plan

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"

	"github.com/pgporter/pgporter/internal/config/inventory"
)

const withEtcd = `all:
  children:
    etcd: { hosts: { 10.10.10.9: { etcd_seq: 1 }, 10.10.10.10: { etcd_seq: 2, etcd_port: 12379 } } }
    pg-a:
      hosts: { 10.10.10.11: { pg_seq: 1, pg_role: primary }, 10.10.10.12: { pg_seq: 2, pg_role: replica } }
      vars: { pg_cluster: pg-a }
    pg-b:
      hosts: { 10.10.10.13: { pg_seq: 1, pg_role: primary } }
      vars: { pg_cluster: pg-b, pg_namespace: /service/, pg_etcd_password: Secret.B, pg_service_provider: proxy }
    citus1:
      hosts: { 10.10.10.14: { pg_seq: 1, pg_role: primary } }
      vars: { pg_cluster: pg-citus1, pg_mode: citus, pg_shard: pg-citus, pg_group: 1, pg_service_provider: proxy, pg_default_services: [ { name: primary, port: 6433, selector: '[]' } ] }
    proxy:
      hosts: { 10.10.10.20: }
`

// keyed are nodes of the native engine that read leader keys, with the passwords.
var keyed = Needs{Etcd: true, Passwords: true}

func TestEtcdOfANode(t *testing.T) {
	inv, problems := inventory.Parse("t.yml", []byte(withEtcd))
	if problems.Err() != nil {
		t.Fatal(problems)
	}
	for _, test := range []struct{ host, access, paths string }{
		{"10.10.10.12", "pg-a as pg-a with pg-a", "pg-a at "},
		{"10.10.10.13", "pg-b as pg-b with Secret.B", "pg-b at /service/pg-b"},
		{"10.10.10.20", "pg-b as pg-b with Secret.B, pg-citus1 as pg-citus with pg-citus", "pg-b at /service/pg-b, pg-citus1 at /pg/pg-citus/1"},
		{"10.10.10.9", "", ""},
	} {
		n, problems := ForRun(inv, test.host, keyed)
		access := n.Etcd
		if problems.Err() != nil {
			t.Errorf("%s: %v", test.host, problems)
		}
		var got, paths []string
		for _, name := range slices.Sorted(maps.Keys(access)) {
			a := access[name]
			if at := strings.Join(a.Endpoints, " "); at != "https://10.10.10.10:12379 https://10.10.10.9:2379" {
				t.Errorf("%s: endpoints %s", test.host, at)
			}
			if a.CAFile != "/pg/cert/ca.crt" || a.CertFile != "/pg/cert/server.crt" || a.KeyFile != "/pg/cert/server.key" {
				t.Errorf("%s: files %+v", test.host, a)
			}
			if strings.Contains(fmt.Sprintf("%+v", a), "Secret.B") {
				t.Errorf("%s: the password is shown: %+v", test.host, a)
			}
			got = append(got, fmt.Sprintf("%s as %s with %s", name, a.User, a.Password.Reveal()))
		}
		if all := strings.Join(got, ", "); all != test.access {
			t.Errorf("%s: %s, want %s", test.host, all, test.access)
		}
		p, _ := ForNode(inv, test.host)
		for _, c := range p.Clusters {
			paths = append(paths, c.Name+" at "+c.KeyPath)
		}
		if all := strings.Join(paths, ", "); all != test.paths {
			t.Errorf("%s: %s, want %s", test.host, all, test.paths)
		}
	}
	none, problems := inventory.Parse("t.yml", []byte(strings.Replace(withEtcd, "    etcd:", "    else:", 1)))
	if problems.Err() != nil {
		t.Fatal(problems)
	}
	if n, problems := ForRun(none, "10.10.10.12", keyed); len(n.Etcd) > 0 || problems.Err() != nil {
		t.Errorf("without a group etcd: %v, %v", n.Etcd, problems)
	}
	wrong, problems := inventory.Parse("t.yml", []byte(strings.NewReplacer("/service/", "service", "Secret.B", "[1]", "12379", "x").Replace(withEtcd)))
	if problems.Err() != nil {
		t.Fatal(problems)
	}
	_, problems = ForRun(wrong, "10.10.10.20", keyed)
	for _, want := range []string{`t.yml:3:90: error: etcd_port is the text "x"`, `t.yml:9:47: error: pg_namespace is the text "service"`, "t.yml:9:74: error: pg_etcd_password can't be used"} {
		if !strings.Contains(problems.Error(), want) {
			t.Errorf("%q isn't in:\n%v", want, problems)
		}
	}
}
