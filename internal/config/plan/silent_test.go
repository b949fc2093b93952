package plan

import (
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/pgporter/pgporter/internal/config/diag"
	"github.com/pgporter/pgporter/internal/config/inventory"
	"github.com/pgporter/pgporter/internal/config/model"
)

// readsVariable are the ways in which the package asks for a variable by its name.
var readsVariable = regexp.MustCompile(`(?:variable|shown|flag|text|number|memberNumber|secret|secretVariable|second|timeout|list|entriesOf|Own|Var|Position|HasTemplate)\([^"\n()]*"([a-z_]+)"`)

// Each variable that the package asks for is one that a misspelt name may mean.
func TestReadVariablesAreThoseThatAreRead(t *testing.T) {
	files, err := filepath.Glob("*.go")
	if err != nil {
		t.Fatal(err)
	}
	asked := map[string]bool{}
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		if strings.HasSuffix(file, "_test.go") {
			continue
		}
		for _, m := range readsVariable.FindAllStringSubmatch(string(text), -1) {
			asked[m[1]] = true
		}
	}
	if len(asked) < 30 {
		t.Fatalf("only %d variables are asked for: the form of the question has changed", len(asked))
	}
	for name := range asked {
		if ours := strings.Contains(name, "_") || name == "nodename"; ours && name != "ansible_host" && !slices.Contains(readVariables, name) {
			t.Errorf("%s is read, and not among readVariables", name)
		}
	}
}

// pigstyVariables are the names of Pigsty's parameters, of today's version and of earlier ones.
func pigstyVariables(t *testing.T) []string {
	t.Helper()
	text, err := os.ReadFile(filepath.Join("testdata", "pigsty-variables.txt"))
	if err != nil {
		t.Fatal(err)
	}
	names := strings.Fields(string(text))
	if len(names) < 400 {
		t.Fatalf("%d names", len(names))
	}
	return names
}

// None of Pigsty's own is taken for another that is misspelt.
func TestPigstysVariablesAreNotMisspelt(t *testing.T) {
	for _, name := range pigstyVariables(t) {
		_, older := olderVariables[name]
		if near := nearVariable(name); near != "" && !slices.Contains(readVariables, name) && !older {
			t.Errorf("%s is taken for %s", name, near)
		}
	}
	for name := range olderVariables {
		if slices.Contains(readVariables, name) {
			t.Errorf("%s is older and read", name)
		}
	}
}

func TestNearVariable(t *testing.T) {
	for name, want := range map[string]string{
		"pg_wieght": "pg_weight", "pg_servces": "pg_services", "pg_service": "pg_services", "haproxy_servies": "haproxy_services", "pg_sqe": "pg_seq",
		"pg_rol": "pg_role", "pg_prot": "pg_port", "pgcluster": "pg_cluster", "pg-cluster": "pg_cluster", "PG_CLUSTER": "pg_cluster",
		"pg_defualt_services": "pg_default_services", "pg_vip_enable": "pg_vip_enabled", "pg_vip_adress": "pg_vip_address", "pg_vip_addr": "pg_vip_address",
		"pgbouncer_enable": "pgbouncer_enabled", "patroni_ssl_enable": "patroni_ssl_enabled", "pg_offline_qurey": "pg_offline_query", "pg_user": "pg_users",
		"pgporter_role": "pgporter_roles", "pg_dns_sufix": "pg_dns_suffix",
		"pg_host": "", "pg_data": "", "pg_home": "", "pg_rpo": "", "pg_conf": "", "gp_role": "", "vip_vrid": "", "my_variable": "", "x": "", "": "", "pg_": "",
	} {
		if got := nearVariable(name); got != want {
			t.Errorf("%q: %q, want %q", name, got, want)
		}
	}
}

// A host that isn't refused is one that a plan may name.
func FuzzUnaddressable(f *testing.F) {
	for _, name := range []string{"10.10.10.11", "10.0.0.300", "10.0.0.0.11", "10.0.0.014", "x.y.z.1", "${DB1_IP}", "10.0.0.1-3", "10.0.0.1/24", "db-1.lan", "fd00::1", "fe80::1%eth0", "::ffff:1.2.3.4", "", "."} {
		f.Add(name)
	}
	f.Fuzz(func(t *testing.T, name string) {
		why, want := unaddressable(name)
		if why == "" && !model.IsHost(name) {
			t.Errorf("%q is no host, and nothing is said of it", name)
		}
		if (why == "") != (want == "") {
			t.Errorf("%q: %q, %q", name, why, want)
		}
	})
}

// Whatever a check asks, it can be looked at, and what is said is of its line.
func FuzzCheckQuery(f *testing.F) {
	for _, check := range []string{"/replica?lag=1M", "/replica&lag=1MB", "/?lag", "/primary?tag_a=b&lag=%zz", "/health?tag_noloadbalance=TRUE", "/read-only-sync?lag=1e999&&=&"} {
		f.Add(check)
	}
	f.Fuzz(func(t *testing.T, check string) {
		if !model.IsCheckPath(check) || strings.Contains(check, "'") {
			return
		}
		inv, problems := inventory.Parse("t.yml", []byte("all: { vars: { check: '"+check+"' } , hosts: { a: } }\n"))
		if problems.Err() != nil {
			return
		}
		h, _ := inv.Host("a")
		p := newPlanner(inv)
		v, _ := p.templates.Own(h, "check")
		p.warnOfCheck(v, `service "s"`, check)
		for _, found := range p.problems {
			if found.Severity != diag.Warning || found.Pos.Line != 1 || found.Pos.Column > 23+len(check) {
				t.Errorf("%q: %v", check, found)
			}
		}
	})
}
