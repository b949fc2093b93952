package plan

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/pgporter/pgporter/internal/config/diag"
	"github.com/pgporter/pgporter/internal/config/inventory"
)

// cpuTime is what the process has computed so far.
func cpuTime(t *testing.T) time.Duration {
	t.Helper()
	var used syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &used); err != nil {
		t.Fatal(err)
	}
	return time.Duration(used.Utime.Nano() + used.Stime.Nano())
}

// checked is what `pgporter check` does with files in a directory, and what that computes.
func checked(t *testing.T, path string) (diag.Problems, time.Duration) {
	t.Helper()
	began := cpuTime(t)
	inv, problems := inventory.Read(path)
	if inv != nil {
		_, found := Check(inv)
		problems = append(problems, found...)
	}
	return problems, cpuTime(t) - began
}

// written puts an inventory into a file.
func written(t *testing.T, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "pigsty.yml")
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// estate is an inventory of many clusters with three members each.
func estate(clusters int, vars string) string {
	var b strings.Builder
	b.WriteString("all:\n  children:\n")
	for i := range clusters {
		fmt.Fprintf(&b, "    pg-app%04d:\n      hosts:\n", i)
		for seq, role := range []string{"primary", "replica", "replica"} {
			fmt.Fprintf(&b, "        10.%d.%d.%d: { pg_seq: %d, pg_role: %s }\n", 1+i/200, i%200, 11+seq, seq+1, role)
		}
		fmt.Fprintf(&b, "      vars:\n        pg_cluster: pg-app%04d\n%s", i, strings.ReplaceAll(vars, "#", fmt.Sprint(i)))
	}
	return b.String()
}

// A pull request's inventory is checked by a CI that may not be its author's: whatever it says, that ends soon, and the reason is
// named.
func TestAttackInventories(t *testing.T) {
	// An inventory of a thousand clusters with templates in all of them is nothing unusual.
	const real = "        pg_vip_address: \"10.0.0.{{ pg_cluster | length }}/24\"\n        note: \"{{ pg_cluster ~ '-' ~ pg_seq }} of {{ groups['all'] | length }}\"\n" +
		"        pg_services:\n          - { name: standby, port: \"{{ 5400 + 35 }}\", selector: \"[? pg_role == `replica`]\", backup: \"[? pg_role == `primary`]\" }\n"
	if problems, took := checked(t, written(t, estate(1000, real))); problems.Err() != nil {
		t.Errorf("1,000 clusters with templates: %v", problems.Err())
	} else {
		t.Logf("1,000 clusters with templates take %s", took)
	}
	services := func(one string, n int) string {
		var b strings.Builder
		b.WriteString("        pg_services:\n")
		for i := range n {
			fmt.Fprintf(&b, "          - "+one+"\n", i, 20000+i)
		}
		return b.String()
	}
	long := strings.Repeat("x ", 400_000)
	list := "[" + strings.Repeat("1,", 4000) + "1]"
	for _, test := range []struct{ name, text, want string }{
		{"templates that cost as much as one may, in many values", estate(200, "        l: "+list+"\n        pg_weight: \"{{ l | map('int') | map('int') | map('int') | map('int') | map('int') | map('int') | map('int') | map('int') | map('int') | map('int') | map('int') | map('int') | map('int') | map('int') | map('int') | length }}\"\n"), "steps"},
		{"values without end", "all:\n  vars:\n    l: [" + strings.Repeat("1,", 3_000_000) + "1]\n", "line ends"},
		{"templates that make text", estate(200, "        t: \"{{ '"+strings.Repeat("x", 1000)+"' }}\"\n        pg_weight: \"{{ "+strings.Repeat("[t ~ t, t ~ t] | join(t) ~ ", 150)+" '' }}\"\n"), ""},
		{"selectors that multiply", estate(1, services("{ name: s%d, port: %d, selector: \"[].[$X][].[$X][].[$X][].[$X][].[$X][].[$X][].[$X][]\" }", 300)), "steps"},
		{"selectors over long texts", estate(1, "        t: '"+strings.Repeat("ab", 200_000)+"'\n"+services("{ name: s%d, port: %d, selector: \"[? contains(t, 'bb') || contains(t, 'aa') || contains(t, 'abb') || length(t) == `1`] \" }", 300)), ""},
		{"a number of many digits", estate(1, "        pg_weight: "+strings.Repeat("1", 1_000_000)+"\n        pg_seq: "+strings.Repeat("7", 1_000_000)+"\n"), ""},
		{"a number in base sixty", estate(1, "        pg_weight: 1"+strings.Repeat(":1", 500_000)+"\n"), ""},
		{"options without end", estate(1, "        pg_services:\n          - { name: s, port: 20000, selector: \"[]\", options: '"+long+"' }\n"), ""},
		{"lines without end", "all:\n  hosts:\n    10.0.0.1:\n      haproxy_services:\n        - { name: s, port: 20000, options: ['" + long + "'], servers: [{ name: a, ip: 10.0.0.1, port: 1 }] }\n", ""},
		{"hosts that a few patterns mean", "all:\n  hosts:\n" + patterns(1000), "names hosts more than"},
		{"hosts in groups in groups", nested(500, 20_000), "too many groups"},
		{"one cluster of very many, each with eyes of its own", "all:\n  hosts:\n    10.0.0.[1:90000]: { pg_seq: \"{{ inventory_hostname.split('.') | last }}\", pg_role: replica, pg_cluster: x, pg_rto: \"{{ 'norm' }}\" }\n", ""},
		{"services without end", "all:\n  hosts:\n    10.0.0.1:\n      pg_cluster: x\n      pg_seq: 1\n      pg_role: primary\n" + strings.ReplaceAll(services("{ name: s%d, port: %d, selector: \"[]\" }", 40_000), "        ", "      "), ""},
		{"virtual addresses of very many", "all:\n  hosts:\n    10.0.[1:3].[1:9999]: { pg_seq: 1, pg_role: primary, pg_cluster: \"x{{ inventory_hostname | replace('.', '-') }}\", pg_vip_enabled: true, pg_vip_address: 10.0.0.3/24 }\n", ""},
		{"services of very many that very many carry", "all:\n  children:\n    p: { hosts: { \"10.0.[1:2].[1:9999]\": {} } }\n    m: { hosts: { \"10.1.[1:2].[1:9999]\": { pg_seq: 1, pg_role: primary, pg_service_provider: p, pg_cluster: \"x{{ inventory_hostname | replace('.', '-') }}\" } } }\n", "too many together"},
		{"keys that are there twice", "all:\n  vars:\n" + strings.Repeat("    a: 1\n", 200_000) + "  hosts: []\n", ""},
		{"templates with long texts in them", "all:\n  hosts:\n    10.0.0.1:\n      pg_cluster: x\n      pg_seq: 1\n      pg_role: primary\n" + func() string {
			var b strings.Builder
			for i, name := range []string{"pg_weight", "patroni_port", "pg_port", "pgbouncer_port", "pg_rto", "pg_services", "pg_default_services", "pg_default_service_dest"} {
				fmt.Fprintf(&b, "      %s: \"{{ '%d%s' }}\"\n", name, i, strings.Repeat("\\\\x", 300_000))
			}
			return b.String()
		}(), ""},
	} {
		t.Run(test.name, func(t *testing.T) {
			text := strings.ReplaceAll(test.text, "$X", strings.TrimSuffix(strings.Repeat("@,", 40), ","))
			problems, took := checked(t, written(t, text))
			first := ""
			for _, p := range problems {
				if strings.Contains(p.What, test.want) {
					first = p.What
					break
				}
			}
			t.Logf("%s for %d KB: %d problems, %.200s", took, len(text)>>10, len(problems), first)
			if took > bound {
				t.Errorf("it takes %s", took)
			}
			if problems.Err() == nil || first == "" {
				t.Errorf("nothing of %q in what is wrong with it", test.want)
			}
		})
	}
}

// patterns name a hundred thousand hosts each.
func patterns(n int) string {
	var b strings.Builder
	for i := range n {
		fmt.Fprintf(&b, "    10.%d.%d.[1:99999]: { pg_seq: 1 }\n", i/200, i%200)
	}
	return b.String()
}

// bound is how much a hostile inventory may have us compute: two seconds, and some for a slow machine. The race detector takes ten
// times as long.
const bound = 6 * time.Second * slower

// nested are groups inside each other, and hosts in the innermost.
func nested(depth, hosts int) string {
	var b strings.Builder
	b.WriteString("all:\n  children:\n")
	indent := "    "
	for i := range depth {
		fmt.Fprintf(&b, "%sg%d:\n", indent, i)
		if i < depth-1 {
			fmt.Fprintf(&b, "%s  children:\n", indent)
		} else {
			fmt.Fprintf(&b, "%s  hosts:\n%s    10.0.0.[1:%d]: { pg_seq: 1 }\n", indent, indent, hosts)
		}
		indent += "    "
	}
	return b.String()
}
