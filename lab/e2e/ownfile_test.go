package e2e

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// ownFile goes the way of those who have Patroni alone: a first pgporter.yml from the living cluster, services of their own in it,
// checked, planned, run from the plan on a proxy node, used with psql, and followed through a switchover.
func ownFile(t *testing.T, c *cluster) {
	c.t = t
	node, other := c.prefix+".33", c.prefix+".34"
	dir := t.TempDir()
	file, plans, ourServices := filepath.Join(dir, "pgporter.yml"), filepath.Join(dir, "plans"), filepath.Join(dir, "services.yml")
	pgporter := func(args ...string) string {
		t.Helper()
		out, err := run(exec.CommandContext(t.Context(), binary, args...))
		if err != nil {
			t.Fatalf("pgporter %s: %v", strings.Join(args, " "), err)
		}
		return out
	}
	pgporter("init", "--patroni", c.member(1)+":8008", "--out", file)
	if found := pgporter("check", file); !strings.HasPrefix(found, "1 cluster, 4 services, ") {
		t.Errorf("check of what init has written: %s", found)
	}
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	for seq := 1; seq <= 3; seq++ {
		if line := fmt.Sprintf("      pg-test-%d: { host: %s, pgbouncer_port: 6432", seq, c.member(seq)); !strings.Contains(string(text), line) {
			t.Errorf("no line %q in\n%s", line, text)
		}
	}
	if !strings.Contains(string(text), "    ttl: 20\n") {
		t.Errorf("it isn't Patroni's ttl in\n%s", text)
	}

	// What Patroni doesn't tell, and services of one's own.
	const services = `services:
      - { name: ours, port: 5450, dest: postgres, check: /primary, selector: "[]" }
      - { name: standbys, port: 5451, dest: postgres, check: /replica, selector: "[]", balance: leastconn }
`
	more := fmt.Sprintf("    etcd: { endpoints: [%q] }\n    namespace: /pg\n    nodes: [%q]\n    %s    members:\n", "http://"+c.Etcd(), node, services)
	if err := os.WriteFile(file, []byte(strings.Replace(string(text), "    members:\n", more, 1)), 0o600); err != nil {
		t.Fatal(err)
	}
	if found := pgporter("check", file); !strings.HasPrefix(found, "1 cluster, 6 services, ") {
		t.Errorf("check: %s", found)
	}
	if made := pgporter("plan", file, "--out", plans); made != filepath.Join(plans, node+".json")+": 6 services\n" {
		t.Errorf("plan: %s", made)
	}
	p := startPorter(t, node, "--plan", filepath.Join(plans, node+".json"))

	ours, standbys := service{5450, direct.user, direct.password, direct.database}, service{5451, direct.user, direct.password, direct.database}
	members := []string{c.member(1), c.member(2), c.member(3)}
	leads := func(leader string) {
		t.Helper()
		replicas := without(members, leader)
		reads := []instance{at(replicas[0], true), at(replicas[1], true)}
		eventually(t, afterSwitchover, func(ctx context.Context) error {
			for _, w := range []serves{{ours, []instance{at(leader, false)}}, {standbys, reads}, {primary, []instance{at(leader, false)}}, {replica, reads}} {
				if err := w.check(ctx, node); err != nil {
					return err
				}
			}
			return nil
		})
	}
	leader := c.leader(t)
	leads(leader)
	if answer, err := c.psql(t.Context(), node, ours, "", "select host(inet_server_addr()), pg_is_in_recovery()"); err != nil || answer != leader+"|f" {
		t.Errorf("psql through ours: %q, %v; want %s", answer, err, leader)
	}
	if answer, err := c.psql(t.Context(), node, standbys, "", "select pg_is_in_recovery()"); err != nil || answer != "t" {
		t.Errorf("psql through standbys: %q, %v", answer, err)
	}
	// Members go by the names that the leader key has for them.
	named := func(address string) string { return "pg-test-" + address[len(address)-1:] }
	keyIs := func(holder string) {
		t.Helper()
		eventually(t, afterSwitchover, func(ctx context.Context) error {
			status, err := p.status(ctx)
			if err != nil {
				return err
			}
			if k := status.Clusters[0].LeaderKey; k == nil || k.Holder != holder {
				return fmt.Errorf("the leader key: %+v, want %s", k, holder)
			}
			return nil
		})
	}
	keyIs(named(leader))

	// Members that are discovered have services of one's own from a file.
	if err := os.WriteFile(ourServices, []byte(strings.ReplaceAll(services, "\n      ", "\n  ")), 0o600); err != nil {
		t.Fatal(err)
	}
	startPorter(t, other, "--patroni", c.member(2)+":8008", "--services", ourServices)
	eventually(t, patience, serves{ours, []instance{at(leader, false)}}.checkAt(other))
	eventually(t, patience, serves{primary, []instance{at(leader, false)}}.checkAt(other))

	next := without(members, leader)[0]
	session := c.hold(node, ours).watch(t)
	if _, err := c.Switchover(t.Context(), named(next)); err != nil {
		t.Fatal(err)
	}
	leads(next)
	session.hasEnded(t, sessionsEnd)
	keyIs(named(next))
	eventually(t, afterSwitchover, serves{ours, []instance{at(next, false)}}.checkAt(other))
}
