package render

import (
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/pgporter/pgporter/internal/config/diag"
	"github.com/pgporter/pgporter/internal/config/inventory"
	"github.com/pgporter/pgporter/internal/render/stamp"
)

const site = `
all:
  vars: { haproxy_admin_password: mine }
  children:
    infra: { hosts: { 10.10.10.10: } }
    etcd: { hosts: { 10.10.10.10: } }
    proxy: { hosts: { 10.10.10.18: , 10.10.10.19: }, vars: { haproxy_services: [ { name: web, port: 8080, servers: [ { name: w, ip: 10.0.0.1, port: 80 } ] } ] } }
    pg-test:
      hosts: { 10.10.10.11: { pg_seq: 1, pg_role: primary }, 10.10.10.12: { pg_seq: 2, pg_role: replica } }
      vars:
        pg_cluster: pg-test
        pg_service_provider: proxy
        pg_default_services: [ { name: primary ,port: 10013 ,dest: postgres ,check: /primary ,selector: "[]" } ]
    pg-src:
      hosts: { 10.10.10.14: { pg_seq: 1, pg_role: primary }, 10.10.10.15: { pg_seq: 2, pg_role: replica } }
      vars:
        pg_cluster: pg-src
        pg_vip_enabled: true
        pg_vip_address: 10.10.10.3/24
        pg_vip_interface: eth1
        pg_default_services: [ { name: primary ,port: 5433 ,ip: 10.10.10.3 ,check: /primary ,selector: "[]" }, { name: replica ,port: 5434 ,check: /replica ,selector: "[]" } ]
`

func files(t *testing.T, text string, w Wanted) (map[string]File, diag.Problems) {
	t.Helper()
	inv, problems := inventory.Parse("pigsty.yml", []byte(text))
	if len(problems) > 0 {
		t.Fatal(problems)
	}
	if w.Kinds == nil {
		w.Kinds = stamp.Kinds
	}
	made, problems := Files(inv, w)
	byPath := map[string]File{}
	for _, f := range made {
		byPath[f.Path] = f
		if got, ours := stamp.Of(filepath.Base(f.Path), f.Text); !ours || got != f.Of {
			t.Errorf("%s: the stamp is %+v, %v; want %+v", f.Path, got, ours, f.Of)
		}
	}
	return byPath, problems
}

func paths(of map[string]File) string {
	var names []string
	for path := range of {
		names = append(names, path)
	}
	slices.Sort(names)
	return strings.Join(names, "\n")
}

// Delegated services are on their provider's hosts only; names and virtual addresses stay the members'.
func TestFilesGoToTheirHosts(t *testing.T) {
	made, problems := files(t, site, Wanted{})
	if err := problems.Err(); err != nil {
		t.Fatal(err)
	}
	want := `10.10.10.10/dnsmasq.d/pigsty/pg-src
10.10.10.10/dnsmasq.d/pigsty/pg-src-1
10.10.10.10/dnsmasq.d/pigsty/pg-src-2
10.10.10.10/dnsmasq.d/pigsty/pg-test
10.10.10.10/dnsmasq.d/pigsty/pg-test-1
10.10.10.10/dnsmasq.d/pigsty/pg-test-2
10.10.10.10/pg_service.conf
10.10.10.11/pg_service.conf
10.10.10.12/pg_service.conf
10.10.10.14/pg-src-primary.cfg
10.10.10.14/pg-src-replica.cfg
10.10.10.14/pg_service.conf
10.10.10.14/vip-manager.yml
10.10.10.15/pg-src-primary.cfg
10.10.10.15/pg-src-replica.cfg
10.10.10.15/pg_service.conf
10.10.10.15/vip-manager.yml
10.10.10.18/pg-test-primary.cfg
10.10.10.18/pg_service.conf
10.10.10.18/web.cfg
10.10.10.19/pg-test-primary.cfg
10.10.10.19/pg_service.conf
10.10.10.19/web.cfg`
	if got := paths(made); got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
	for path, want := range map[string]string{
		"10.10.10.11/pg_service.conf": "[pg-test-primary]\nhost=10.10.10.18,10.10.10.19\nport=10013\n",
		"10.10.10.19/pg_service.conf": "[pg-test-primary]\nhost=10.10.10.19,10.10.10.18\nport=10013\n",
		"10.10.10.14/pg_service.conf": "[pg-src-primary]\nhost=10.10.10.3\nport=5433\nconnect_timeout=10\n\n[pg-src-replica]\nhost=10.10.10.14,10.10.10.15\nport=5434\n",
		"10.10.10.10/pg_service.conf": "[pg-test-primary]\nhost=10.10.10.18,10.10.10.19\n",
		// Without authority over the provider's own variables: members' ports, the primary's destination.
		"10.10.10.18/pg-test-primary.cfg": "    bind *:10013\n",
	} {
		if !strings.Contains(made[path].Text, want) {
			t.Errorf("%q is not in %s:\n%s", want, path, made[path].Text)
		}
	}
	if !strings.Contains(made["10.10.10.10/pg_service.conf"].Text, "[pg-src-primary]") {
		t.Error("the infra host doesn't know every service")
	}
	if made["10.10.10.14/vip-manager.yml"].Private != true || made["10.10.10.18/web.cfg"].Private || !made["10.10.10.10/pg_service.conf"].Whole {
		t.Error("what is private or a list isn't marked as such")
	}
}

// Everything that a host has is accepted by the real HAProxy together, as it would read it.
func TestHAProxyReadsAHost(t *testing.T) {
	made, problems := files(t, site, Wanted{Base: true, Kinds: []stamp.Kind{stamp.HAProxy}})
	if err := problems.Err(); err != nil {
		t.Fatal(err)
	}
	for _, host := range []string{"10.10.10.10", "10.10.10.11", "10.10.10.14", "10.10.10.18"} {
		dir := t.TempDir()
		confd := filepath.Join(dir, "conf.d")
		if err := os.Mkdir(confd, 0o755); err != nil {
			t.Fatal(err)
		}
		for path, f := range made {
			name, ok := strings.CutPrefix(path, host+"/")
			if !ok {
				continue
			}
			if name != "haproxy.cfg" {
				name = filepath.Join("conf.d", name)
			}
			if err := os.WriteFile(filepath.Join(dir, name), []byte(f.Text), 0o600); err != nil {
				t.Fatal(err)
			}
		}
		out, err := exec.Command("haproxy", "-Ws", "-f", filepath.Join(dir, "haproxy.cfg"), "-f", confd, "-c", "-q").CombinedOutput()
		if err != nil || strings.Contains(string(out), "WARNING") {
			t.Errorf("%s: %v\n%s", host, err, out)
		}
	}
}

func TestParts(t *testing.T) {
	for name, c := range map[string]struct {
		wanted Wanted
		want   string
	}{
		"a host":             {Wanted{Hosts: []string{"10.10.10.19"}}, "10.10.10.19/pg-test-primary.cfg\n10.10.10.19/pg_service.conf\n10.10.10.19/web.cfg"},
		"a cluster":          {Wanted{Clusters: []string{"pg-test"}, Kinds: []stamp.Kind{stamp.HAProxy, stamp.DNSMasq}}, "10.10.10.10/dnsmasq.d/pigsty/pg-test\n10.10.10.10/dnsmasq.d/pigsty/pg-test-1\n10.10.10.10/dnsmasq.d/pigsty/pg-test-2\n10.10.10.18/pg-test-primary.cfg\n10.10.10.19/pg-test-primary.cfg"},
		"a cluster's lists":  {Wanted{Clusters: []string{"pg-test"}, Kinds: []stamp.Kind{stamp.PGService}}, "10.10.10.10/pg_service.conf\n10.10.10.11/pg_service.conf\n10.10.10.12/pg_service.conf\n10.10.10.18/pg_service.conf\n10.10.10.19/pg_service.conf"},
		"a cluster's bases":  {Wanted{Clusters: []string{"pg-test"}, Hosts: []string{"10.10.10.18", "10.10.10.10"}, Base: true, Kinds: []stamp.Kind{stamp.HAProxy}}, "10.10.10.18/haproxy.cfg\n10.10.10.18/pg-test-primary.cfg"},
		"virtual addresses":  {Wanted{Kinds: []stamp.Kind{stamp.VIPManager}}, "10.10.10.14/vip-manager.yml\n10.10.10.15/vip-manager.yml"},
		"the base is asked":  {Wanted{Hosts: []string{"10.10.10.10"}, Base: true, Kinds: []stamp.Kind{stamp.HAProxy}}, "10.10.10.10/haproxy.cfg"},
		"no base without it": {Wanted{Hosts: []string{"10.10.10.10"}, Kinds: []stamp.Kind{stamp.HAProxy}}, ""},
	} {
		made, problems := files(t, site, c.wanted)
		if err := problems.Err(); err != nil {
			t.Fatal(err)
		}
		if got := paths(made); got != c.want {
			t.Errorf("%s: got\n%s\nwant\n%s", name, got, c.want)
		}
	}
}

func TestCovers(t *testing.T) {
	service := stamp.Stamp{Kind: stamp.HAProxy, Cluster: "pg-a", File: "pg-a-primary.cfg"}
	prefixed := stamp.Stamp{Kind: stamp.HAProxy, Cluster: "pg-a-b", File: "pg-a-b-primary.cfg"}
	tcp := stamp.Stamp{Kind: stamp.HAProxy, File: "web.cfg"}
	base := stamp.Stamp{Kind: stamp.HAProxy, File: "haproxy.cfg"}
	list := stamp.Stamp{Kind: stamp.PGService, File: "pg_service.conf"}
	for _, c := range []struct {
		wanted Wanted
		s      stamp.Stamp
		want   bool
	}{
		{Wanted{Kinds: stamp.Kinds}, service, true},
		{Wanted{Kinds: stamp.Kinds}, tcp, true},
		{Wanted{Kinds: stamp.Kinds}, list, true},
		// Without --base nothing is known of whether a base is wanted.
		{Wanted{Kinds: stamp.Kinds}, base, false},
		{Wanted{Kinds: stamp.Kinds, Base: true}, base, true},
		{Wanted{Kinds: []stamp.Kind{stamp.DNSMasq}}, service, false},
		{Wanted{Kinds: stamp.Kinds, Hosts: []string{"h1"}}, service, true},
		{Wanted{Kinds: stamp.Kinds, Hosts: []string{"h2"}}, service, false},
		{Wanted{Kinds: stamp.Kinds, Clusters: []string{"pg-a"}}, service, true},
		{Wanted{Kinds: stamp.Kinds, Clusters: []string{"pg-a"}}, prefixed, false},
		{Wanted{Kinds: stamp.Kinds, Clusters: []string{"pg-a"}}, tcp, false},
		{Wanted{Kinds: stamp.Kinds, Clusters: []string{"pg-a"}, Base: true}, base, false},
	} {
		if got := c.wanted.Covers("h1/"+c.s.File, c.s); got != c.want {
			t.Errorf("%+v covers %+v: %v", c.wanted, c.s, got)
		}
	}
}

// A name that two have is reported; the first keeps it.
func TestNamesTwice(t *testing.T) {
	made, problems := files(t, `
pg-a: { hosts: { 10.10.10.11: { pg_seq: 1, pg_role: primary, pg_offline_query: true } }, vars: { pg_cluster: pg-a } }
pg-a-1: { hosts: { 10.10.10.12: { pg_seq: 1, pg_role: primary, pg_offline_query: true } }, vars: { pg_cluster: pg-a-1 } }
infra: { hosts: { 10.10.10.10: } }
`, Wanted{Kinds: []stamp.Kind{stamp.DNSMasq}})
	want := `pigsty.yml:4:19: warning: the name pg-a-1 is of cluster "pg-a" and of cluster "pg-a-1": the first keeps it; names of their own [dns-name-used-twice]`
	if problems.Error() != want {
		t.Errorf("got\n%s\nwant\n%s", problems.Error(), want)
	}
	if text := made["10.10.10.10/dnsmasq.d/pigsty/pg-a-1"].Text; !strings.Contains(text, "10.10.10.11 pg-a-1\n") {
		t.Errorf("the name is\n%s", text)
	}
}
