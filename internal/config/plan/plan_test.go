package plan

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"

	"github.com/pgporter/pgporter/internal/config/inventory"
	"github.com/pgporter/pgporter/internal/config/jmespath"
	"github.com/pgporter/pgporter/internal/config/model"
)

// servers writes who would carry a service by the declared roles: `1 2 (3)`, the backups in parentheses, by pg_seq, in the
// order in which HAProxy would be given them.
func servers(t *testing.T, c model.Cluster, d model.Definition) string {
	t.Helper()
	vars := make([]map[string]any, len(c.Members))
	for i, m := range c.Members {
		vars[i] = m.Vars
	}
	pick := func(s *jmespath.Selector) []int {
		if s.None() {
			return nil
		}
		picked, err := s.SelectBackup(vars)
		if err != nil {
			t.Fatal(err)
		}
		return picked
	}
	selected, backups := pick(d.Selector), pick(d.Backup)
	var words []string
	for _, i := range selected {
		word := strings.TrimPrefix(c.Members[i].Name, c.Name+"-")
		if slices.Contains(backups, i) {
			word = "(" + word + ")"
		}
		words = append(words, word)
	}
	for _, i := range backups {
		if !slices.Contains(selected, i) {
			words = append(words, "("+strings.TrimPrefix(c.Members[i].Name, c.Name+"-")+")")
		}
	}
	return strings.Join(words, " ")
}

// describe writes a service in one line.
func describe(t *testing.T, c model.Cluster, d model.Definition) string {
	t.Helper()
	ports := map[int]bool{}
	for _, m := range c.Members {
		ports[d.Dest.Of(m)] = true
	}
	to := make([]string, 0, len(ports))
	for _, port := range slices.Sorted(maps.Keys(ports)) {
		to = append(to, fmt.Sprint(port))
	}
	return fmt.Sprintf("%s %s:%d %s to %s: %s", d.FullName, d.IP, d.Port, d.Check, strings.Join(to, ","), servers(t, c, d))
}

func members(lines ...string) string {
	return "all:\n  children:\n    pg-test:\n      vars: { pg_cluster: pg-test }\n      hosts:\n        " + strings.Join(lines, "\n        ") + "\n"
}

var trio = members(
	"10.10.10.11: { pg_seq: 1, pg_role: primary }",
	"10.10.10.12: { pg_seq: 2, pg_role: replica }",
	"10.10.10.13: { pg_seq: 3, pg_role: replica, pg_offline_query: true }",
)

// read parses an inventory that has no errors.
func read(t testing.TB, text string) *inventory.Inventory {
	t.Helper()
	inv, problems := inventory.Parse("test.yml", []byte(text))
	if problems.Err() != nil {
		t.Fatal(problems)
	}
	return inv
}

// The four default services of the specification's clusters, as its examples list the servers (ours in the inventory's
// order).
func TestDefaultServices(t *testing.T) {
	for _, tc := range []struct {
		name      string
		inventory string
		want      []string
	}{
		{"three nodes, one of them for offline queries too", trio, []string{
			"pg-test-primary *:5433 /primary to 6432: 1 2 3",
			"pg-test-replica *:5434 /read-only to 6432: (1) 2 3",
			"pg-test-default *:5436 /primary to 5432: 1 2 3",
			"pg-test-offline *:5438 /replica to 5432: 3 (2)",
		}},
		{"a dedicated offline replica", members(
			"10.10.10.11: { pg_seq: 1, pg_role: primary }",
			"10.10.10.12: { pg_seq: 2, pg_role: replica }",
			"10.10.10.13: { pg_seq: 3, pg_role: offline }",
		), []string{
			"pg-test-primary *:5433 /primary to 6432: 1 2 3",
			"pg-test-replica *:5434 /read-only to 6432: (1) 2 (3)",
			"pg-test-default *:5436 /primary to 5432: 1 2 3",
			"pg-test-offline *:5438 /replica to 5432: 3 (2)",
		}},
		{"one primary, one replica", members(
			"10.10.10.11: { pg_seq: 1, pg_role: primary }",
			"10.10.10.12: { pg_seq: 2, pg_role: replica }",
		), []string{
			"pg-test-primary *:5433 /primary to 6432: 1 2",
			"pg-test-replica *:5434 /read-only to 6432: (1) 2",
			"pg-test-default *:5436 /primary to 5432: 1 2",
			"pg-test-offline *:5438 /replica to 5432: (2)",
		}},
		{"a single node", members("10.10.10.10: { pg_seq: 1, pg_role: primary }"), []string{
			"pg-test-primary *:5433 /primary to 6432: 1",
			"pg-test-replica *:5434 /read-only to 6432: (1)",
			"pg-test-default *:5436 /primary to 5432: 1",
			"pg-test-offline *:5438 /replica to 5432: ",
		}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			all, problems := All(read(t, tc.inventory))
			if problems.Err() != nil || len(all.Clusters) != 1 {
				t.Fatalf("%d clusters, problems:\n%s", len(all.Clusters), problems.Error())
			}
			checkServices(t, all.Clusters[0], tc.want)
			for _, d := range all.Clusters[0].Definitions {
				if want := "inter 2s fastinter 1s downinter 2s rise 3 fall 3 on-marked-down shutdown-sessions slowstart 30s maxconn 3000 " +
					"maxqueue 128 weight 100"; d.Options.Text != want || d.MaxConn != 5000 || d.Balance != model.RoundRobin {
					t.Errorf("%s: options %q, maxconn %d, balance %s; want %q, 5000, roundrobin", d.Name, d.Options.Text, d.MaxConn, d.Balance, want)
				}
			}
		})
	}
}

func checkServices(t *testing.T, c model.Cluster, want []string) {
	t.Helper()
	got := make([]string, 0, len(c.Definitions))
	for _, d := range c.Definitions {
		got = append(got, describe(t, c, d))
	}
	if !slices.Equal(got, want) {
		t.Errorf("services:\n%s\nwant:\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
}

func TestOverriding(t *testing.T) {
	const head = "all:\n  vars:\n    pg_services: [ { name: everywhere, port: 6001, selector: '[]' } ]\n  children:\n    pg-test:\n"
	const hosts = "      hosts:\n        10.10.10.11: { pg_seq: 1, pg_role: primary }\n        10.10.10.12: { pg_seq: 2, pg_role: replica%s }\n"
	const vars = "      vars:\n        pg_cluster: pg-test\n%s"
	for _, tc := range []struct {
		name       string
		node       string
		host, vars string
		want       []string
	}{
		{name: "default services and all's own", node: "10.10.10.11", want: []string{
			"pg-test-primary *:5433 /primary to 6432: 1 2", "pg-test-replica *:5434 /read-only to 6432: (1) 2",
			"pg-test-default *:5436 /primary to 5432: 1 2", "pg-test-offline *:5438 /replica to 5432: (2)", "pg-test-everywhere *:6001 / to 6432: 1 2",
		}},
		{name: "offline and default taken out, all's own too", node: "10.10.10.11", vars: `
        pg_services: []
        pg_default_services:
          - { name: primary, port: 5433, check: /primary, selector: "[]" }
          - { name: replica, port: 5434, check: /read-only, selector: "[?pg_role == 'replica']" }
`, want: []string{"pg-test-primary *:5433 /primary to 6432: 1 2", "pg-test-replica *:5434 /read-only to 6432: 2"}},
		{name: "no service at all", node: "10.10.10.11", vars: "        pg_services: []\n        pg_default_services: []\n"},
		{name: "the pool left out", node: "10.10.10.11", vars: "        pg_services: []\n        pg_default_service_dest: postgres\n", want: []string{
			"pg-test-primary *:5433 /primary to 5432: 1 2", "pg-test-replica *:5434 /read-only to 5432: (1) 2",
			"pg-test-default *:5436 /primary to 5432: 1 2", "pg-test-offline *:5438 /replica to 5432: (2)",
		}},
		{name: "one name twice: the later takes the earlier's place", node: "10.10.10.11",
			vars: "        pg_default_services: []\n        pg_services: [ { name: a, port: 6002, selector: '[]' }, { name: b, port: 6003, selector: '[]' }, { name: a, port: 6004, selector: '[]' } ]\n",
			want: []string{"pg-test-a *:6004 / to 6432: 1 2", "pg-test-b *:6003 / to 6432: 1 2"}},
		{name: "a host's own lists", node: "10.10.10.12",
			host: ", pg_default_services: [], pg_default_service_dest: 7000, pg_services: [ { name: mine, port: 6009, selector: '[]' } ]",
			want: []string{"pg-test-mine *:6009 / to 7000: 1 2"}},
		{name: "a host's own lists are not the others'", node: "10.10.10.11",
			host: ", pg_default_services: [], pg_services: [ { name: mine, port: 6009, selector: '[]' } ]",
			vars: "        pg_default_services: []\n", want: []string{"pg-test-everywhere *:6001 / to 6432: 1 2"}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			inv := read(t, head+fmt.Sprintf(hosts, tc.host)+fmt.Sprintf(vars, tc.vars))
			got, problems := ForNode(inv, tc.node)
			if problems.Err() != nil || len(got.Clusters) != 1 || got.Node != tc.node {
				t.Fatalf("node %q, %d clusters, problems:\n%s", got.Node, len(got.Clusters), problems.Error())
			}
			checkServices(t, got.Clusters[0], tc.want)
		})
	}
}

func TestForNodeOfNobody(t *testing.T) {
	inv := read(t, trio+"    infra: { hosts: { 10.10.10.10: { infra_seq: 1 } } }\n")
	got, problems := ForNode(inv, "10.10.10.10")
	if want := `test.yml:9:23: warning: the host "10.10.10.10" is a member of no cluster and carries no services; pg_cluster, pg_seq and pg_role [node-without-services]`; problems.Error() != want || len(got.Clusters) != 0 {
		t.Errorf("problems %q, want %q; clusters %v", problems.Error(), want, got.Clusters)
	}
	_, problems = ForNode(inv, "10.10.10.1O")
	if want := `test.yml: error: the host "10.10.10.1O" isn't in the inventory; did you mean 10.10.10.10 [node-unknown]`; problems.Error() != want {
		t.Errorf("problems %q, want %q", problems.Error(), want)
	}
}

func TestNodesGoByTheirInstancesNames(t *testing.T) {
	inv := read(t, trio+"    other: { hosts: { 10.10.10.20: } }\n")
	for _, name := range []string{"10.10.10.12", "pg-test-2"} {
		plan, problems := ForNode(inv, name)
		if plan.Node != "10.10.10.12" || len(plan.Clusters) != 1 || len(problems) > 0 {
			t.Errorf("%s: node %q with %d clusters, problems:\n%s", name, plan.Node, len(plan.Clusters), problems.Error())
		}
		if n, problems := ForRun(inv, name, Needs{HAProxy: true}); n.Base == nil || n.Plan.Node != "10.10.10.12" || problems.Err() != nil {
			t.Errorf("%s: node %q, problems:\n%s", name, n.Plan.Node, problems.Error())
		}
		if host, known := HostOf(inv, name); !known || host != "10.10.10.12" {
			t.Errorf("%s is %q", name, host)
		}
	}
	for _, name := range []string{"pg-test-4", "pg-test-02", "pg-test-", "pg-test", ""} {
		if host, known := HostOf(inv, name); known {
			t.Errorf("%q is %q", name, host)
		}
	}
	_, problems := ForNode(inv, "elsewhere")
	if want := "one of pg-test-1 (10.10.10.11), pg-test-2 (10.10.10.12), pg-test-3 (10.10.10.13), 10.10.10.20"; len(problems) != 1 || problems[0].Want != want {
		t.Errorf("problems:\n%s", problems.Error())
	}
}

func TestForNodeSaysNothingOfOtherClusters(t *testing.T) {
	inv := read(t, trio+"    other: { hosts: { 10.10.10.21: { pg_seq: none, pg_cluster: pg-b } } }\n")
	if _, problems := ForNode(inv, "10.10.10.11"); len(problems) != 0 {
		t.Errorf("problems:\n%s", problems.Error())
	}
	if _, problems := Check(inv); problems.Err() == nil {
		t.Error("Check finds nothing wrong with the other cluster")
	}
}

func TestAllSeesClustersAsTheirPrimariesDo(t *testing.T) {
	inv := read(t, members(
		"10.10.10.11: { pg_seq: 1, pg_role: replica, pg_default_services: [] }",
		"10.10.10.12: { pg_seq: 2, pg_role: primary, pg_default_services: [ { name: p, port: 6000, selector: '[]' } ], pg_rto: wide }",
	))
	all, problems := All(inv)
	if len(problems) != 0 {
		t.Fatal(problems)
	}
	checkServices(t, all.Clusters[0], []string{"pg-test-p *:6000 / to 6432: 1 2"})
	if all.Node != "" || all.Clusters[0].TTL != 120 {
		t.Errorf("node %q, ttl %d; want none, 120", all.Node, all.Clusters[0].TTL)
	}
}

func TestTimings(t *testing.T) {
	for _, tc := range []struct {
		vars    string
		ttl     int
		options string
	}{
		{"pg_rto: fast", 20, "inter 1s fastinter 500ms downinter 1s rise 3 fall 3"},
		{"pg_rto: norm", 30, "inter 2s fastinter 1s downinter 2s rise 3 fall 3"},
		{"pg_rto: safe", 60, "inter 3s fastinter 1500ms downinter 3s rise 3 fall 3"},
		{"pg_rto: wide", 120, "inter 4s fastinter 2s downinter 4s rise 3 fall 3"},
		{"pg_rto: nosuch", 30, "inter 2s fastinter 1s downinter 2s rise 3 fall 3"},
		{"pg_rto: 7\n        pg_rto_plan: { 7: [ '11', 5, 5, 15, 5, 600, '0.25s', 1.5s, '2', 4 ] }", 11,
			"inter 600 fastinter 250ms downinter 1500ms rise 2 fall 4"},
		{"pg_rto_plan: { norm: [ 9, 5, 5, 15, 5, 1s, 2s, 3s, 1, 2, 3 ] }", 9, "inter 1s fastinter 2s downinter 3s rise 1 fall 2"},
	} {
		inv := read(t, trio+"      vars:\n        pg_cluster: pg-test\n        "+tc.vars+"\n")
		all, problems := All(inv)
		if problems.Err() != nil {
			t.Fatal(problems)
		}
		c := all.Clusters[0]
		want := tc.options + " on-marked-down shutdown-sessions slowstart 30s maxconn 3000 maxqueue 128 weight 100"
		if c.TTL != tc.ttl || c.Definitions[0].Options.Text != want {
			t.Errorf("%s: ttl %d, options %q; want %d, %q", tc.vars, c.TTL, c.Definitions[0].Options.Text, tc.ttl, want)
		}
	}
}

// A plan is what nodes are sent: only what selectors need, and never a secret.
func TestMemberVars(t *testing.T) {
	const hosts = "10.10.10.11: { pg_seq: 1, pg_role: primary, az: x, labels: { tier: gold, api_key: k3y }, pg_admin_password: s3cret, users: [ { name: a, password: s3cret } ] }"
	for _, tc := range []struct {
		name, selector string
		want           []string
		secretFree     string
	}{
		{name: "nothing looked at", selector: "[]", want: []string{"inventory_hostname", "pg_role"}},
		{name: "fields", selector: "[?az == 'x' && labels.tier == 'gold']", want: []string{"az", "inventory_hostname", "labels", "pg_role"}},
		{name: "implicit ones", selector: "[?contains(group_names, 'pg-test')]", want: []string{"group_names", "inventory_hostname", "pg_role"}},
		{name: "the member as a whole", selector: "[?length(keys(@)) > `1`]", want: []string{
			"az", "group_names", "inventory_hostname", "inventory_hostname_short", "labels", "pg_cluster", "pg_default_services", "pg_role", "pg_seq",
			"pg_services", "users",
		}},
		{name: "a list with passwords inside", selector: "[?users[0].name == 'a']", want: []string{"inventory_hostname", "pg_role", "users"}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			inv := read(t, members(hosts)+"      vars:\n        pg_cluster: pg-test\n        pg_default_services: []\n        pg_services: [ { name: a, port: 6001, selector: \""+tc.selector+"\" } ]\n")
			all, problems := All(inv)
			if problems.Err() != nil {
				t.Fatal(problems)
			}
			vars := all.Clusters[0].Members[0].Vars
			if got := slices.Sorted(maps.Keys(vars)); !slices.Equal(got, tc.want) {
				t.Errorf("variables %v, want %v", got, tc.want)
			}
			if text := fmt.Sprint(vars); strings.Contains(text, "s3cret") || strings.Contains(text, "k3y") {
				t.Errorf("a secret is among the variables: %s", text)
			}
			if servers(t, all.Clusters[0], all.Clusters[0].Definitions[0]) != "1" {
				t.Error("the selector doesn't pick the member with the variables of the plan")
			}
		})
	}
}

// BenchmarkLarge reads and plans 1,000 clusters of three, as values and with most of them computed by templates.
func BenchmarkLarge(b *testing.B) {
	for _, tc := range []struct{ name, cluster, host string }{
		{"plain", "pg_cluster: pg-c%[1]d\n        pg_services: [ { name: s, port: 5435, selector: '[]', check: /read-only-sync } ]", "pg_seq: %[1]d, pg_role: %[2]s"},
		{"templated", "n: %[1]d\n        pg_cluster: \"pg-{{ env }}-{{ n }}\"\n        pg_port: \"{{ base + 432 }}\"\n        pg_rto: \"{{ 'fast' if env == 'prod' else 'norm' }}\"\n" +
			"        pg_services: [ { name: \"{{ env }}-s\", port: \"{{ base + 435 }}\", selector: \"[?az == '{{ az }}']\", dest: \"{{ 'postgres' | lower }}\" } ]",
			"pg_seq: \"{{ %[1]d + 0 }}\", pg_role: \"{{ '%[2]s' }}\", az: \"{{ env }}-{{ inventory_hostname.split('.')[1] }}\""},
	} {
		b.Run(tc.name, func(b *testing.B) {
			var text strings.Builder
			text.WriteString("all:\n  vars: { pg_rto: fast, env: prod, base: 5000 }\n  children:\n")
			for i := range 1000 {
				fmt.Fprintf(&text, "    pg-c%[1]d:\n      vars:\n        "+tc.cluster+"\n      hosts:\n", i)
				for seq, role := range []string{"primary", "replica", "offline"} {
					fmt.Fprintf(&text, "        10.%[3]d.%[4]d.%[1]d: { "+tc.host+" }\n", seq, role, i/250, i%250)
				}
			}
			for b.Loop() {
				inv := read(b, text.String())
				if _, problems := Check(inv); len(problems) != 0 {
					b.Fatal(problems[0])
				}
			}
		})
	}
}
