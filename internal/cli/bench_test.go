package cli

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

// largeInventory makes an inventory of that many clusters with three members each, in Pigsty's style: an infra host, etcd,
// users and databases that services have nothing to do with, a virtual address for each cluster, a service of their own for
// every fourth.
func largeInventory(clusters int) string {
	var b strings.Builder
	b.WriteString("all:\n  vars:\n    haproxy_admin_password: not-the-default\n    pg_dns_suffix: .db.example\n  children:\n" +
		"    infra: { hosts: { 10.0.0.1: { infra_seq: 1 } } }\n" +
		"    etcd: { hosts: { 10.0.0.1: { etcd_seq: 1 }, 10.0.0.2: { etcd_seq: 2 }, 10.0.0.3: { etcd_seq: 3 } } }\n")
	for i := range clusters {
		name := fmt.Sprintf("pg-app%04d", i)
		network := fmt.Sprintf("10.%d.%d", 1+i/200, i%200)
		fmt.Fprintf(&b, "    %s:\n      hosts:\n", name)
		for seq, role := range []string{"primary", "replica", "replica"} {
			fmt.Fprintf(&b, "        %s.%d: { pg_seq: %d, pg_role: %s, pg_offline_query: %v }\n", network, 11+seq, seq+1, role, seq == 2)
		}
		fmt.Fprintf(&b, "      vars:\n        pg_cluster: %s\n        pg_vip_enabled: true\n        pg_vip_address: %s.3/24\n        pg_vip_interface: eth1\n", name, network)
		fmt.Fprintf(&b, "        pg_users:\n          - { name: app%d, password: DBUser.App, pgbouncer: true, roles: [ dbrole_admin ] }\n          - { name: view%d, password: DBUser.View, pgbouncer: true, roles: [ dbrole_readonly ] }\n", i, i)
		fmt.Fprintf(&b, "        pg_databases:\n          - { name: app%d, owner: app%d, extensions: [ { name: postgis }, { name: vector } ] }\n", i, i)
		if i%4 == 0 {
			b.WriteString("        pg_services:\n          - { name: standby, port: 5435, selector: \"[]\", check: /read-only-sync, backup: \"[? pg_role == `primary`]\" }\n")
		}
	}
	return b.String()
}

// built makes the program as users have it, and gives its path.
func built(b *testing.B) string {
	b.Helper()
	program := filepath.Join(b.TempDir(), "pgporter")
	if out, err := exec.Command("go", "build", "-o", program, "github.com/pgporter/pgporter/cmd/pgporter").CombinedOutput(); err != nil {
		b.Fatalf("go build: %v\n%s", err, out)
	}
	return program
}

// cost is what runs of the program took at most: processor seconds, which don't depend on what else the machine does, and
// memory in MB.
type cost struct{ processor, memory float64 }

func (c cost) report(b *testing.B) {
	b.ReportMetric(c.processor, "cpu-s")
	b.ReportMetric(c.memory, "peak-MB")
}

// measure runs the program.
func (c *cost) measure(b *testing.B, program string, args ...string) {
	b.Helper()
	command := exec.Command(program, args...)
	out, err := command.CombinedOutput()
	if err != nil {
		b.Fatalf("%v: %v\n%s", args, err, out)
	}
	usage, ok := command.ProcessState.SysUsage().(*syscall.Rusage)
	if !ok {
		b.Fatal("the system doesn't tell how much memory a process had")
	}
	c.processor = max(c.processor, (command.ProcessState.UserTime() + command.ProcessState.SystemTime()).Seconds())
	c.memory = max(c.memory, float64(usage.Maxrss)/1024) // Linux counts in KB
}

// sizes are how many clusters of three members the large inventories have.
var sizes = []int{250, 500, 1000, 2000}

// BenchmarkRender is the whole command, from an inventory to files in a directory that was empty. Nothing is deleted before
// the end: ext4 makes new files slowly while many were deleted in the last minute.
func BenchmarkRender(b *testing.B) {
	program := built(b)
	root := b.TempDir()
	for _, clusters := range sizes {
		b.Run(fmt.Sprintf("clusters=%d", clusters), func(b *testing.B) {
			inventory := filepath.Join(b.TempDir(), "pigsty.yml")
			if err := os.WriteFile(inventory, []byte(largeInventory(clusters)), 0o644); err != nil {
				b.Fatal(err)
			}
			var most cost
			for i := 0; b.Loop(); i++ {
				most.measure(b, program, "render", "-i", inventory, "-d", filepath.Join(root, fmt.Sprint(clusters, "-", i)), "--base")
			}
			most.report(b)
		})
	}
}

// BenchmarkRenderAgain is the same where the files are there already: what changes nothing.
func BenchmarkRenderAgain(b *testing.B) {
	program := built(b)
	for _, clusters := range sizes {
		b.Run(fmt.Sprintf("clusters=%d", clusters), func(b *testing.B) {
			dir := b.TempDir()
			inventory := filepath.Join(dir, "pigsty.yml")
			if err := os.WriteFile(inventory, []byte(largeInventory(clusters)), 0o644); err != nil {
				b.Fatal(err)
			}
			args := []string{"render", "-i", inventory, "-d", filepath.Join(dir, "out"), "--base"}
			var most cost
			most.measure(b, program, args...)
			most = cost{}
			for b.Loop() {
				most.measure(b, program, args...)
			}
			most.report(b)
		})
	}
}

// BenchmarkCheck is `pgporter check`.
func BenchmarkCheck(b *testing.B) {
	program := built(b)
	for _, clusters := range sizes {
		b.Run(fmt.Sprintf("clusters=%d", clusters), func(b *testing.B) {
			inventory := filepath.Join(b.TempDir(), "pigsty.yml")
			if err := os.WriteFile(inventory, []byte(largeInventory(clusters)), 0o644); err != nil {
				b.Fatal(err)
			}
			var most cost
			for b.Loop() {
				most.measure(b, program, "check", "-i", inventory)
			}
			most.report(b)
		})
	}
}
