package e2e

import (
	"context"
	"fmt"
	"os/exec"
	"strings"
	"testing"
)

// everyBench runs each script that pgbench has built in, in each protocol, through both services that write, and those that
// only read through the replica's: no transaction fails. Prepared statements aren't for a pool that keeps none (below).
func (c *cluster) everyBench(t *testing.T) {
	if _, err := run(tool(t.Context(), primary, "pgbench", "-i", "-q", "-s", "1", primary.conninfo(c.member(2), ""))); err != nil {
		t.Fatal(err)
	}
	eventually(t, patience, func(ctx context.Context) error {
		n, err := c.psql(ctx, c.member(1), replica, "", "select count(*) from pgbench_accounts")
		if err == nil && n != "100000" {
			err = fmt.Errorf("the replica has %s rows", n)
		}
		return err
	})
	scripts := builtins(t)
	written := 0
	for _, script := range scripts {
		for _, protocol := range []string{"simple", "extended", "prepared"} {
			for _, s := range []service{primary, direct, replica, offline} {
				pooled := s.port == primary.port || s.port == replica.port
				reads := s.port == replica.port || s.port == offline.port
				// Accounts may be read by the offline service's user, too.
				if pooled && protocol == "prepared" || reads && script != "select-only" {
					continue
				}
				more := ""
				if !pooled && protocol == "prepared" {
					more = c.verified()
				}
				const clients, each = 4, 25
				out, err := run(tool(t.Context(), s, "pgbench", "-n", "-b", script, "-M", protocol, "-c", fmt.Sprint(clients), "-t", fmt.Sprint(each), s.conninfo(c.member(2), more)))
				if err != nil || !strings.Contains(out, fmt.Sprintf("actually processed: %d/%d\n", clients*each, clients*each)) || !strings.Contains(out, "number of failed transactions: 0 ") {
					t.Errorf("%s, %s, port %d: %v\n%s", script, protocol, s.port, err, out)
				}
				if script != "select-only" {
					written += clients * each
				}
			}
		}
	}
	if n := c.ask(t, c.member(1), server, "select count(*) from pgbench_history"); n != fmt.Sprint(written) {
		t.Errorf("the history has %s transactions, %d were made", n, written)
	}
	if n := c.ask(t, c.member(1), server, `select count(*) from (select sum(abalance) s from pgbench_accounts union select sum(delta) from pgbench_history) x`); n != "1" {
		t.Error("the accounts don't add up to what the history says")
	}
	c.preparedInPool(t)
}

// builtins are the scripts that this pgbench has.
func builtins(t *testing.T) []string {
	t.Helper()
	list := tool(t.Context(), direct, "pgbench", "-b", "list")
	text, err := list.CombinedOutput()
	if err != nil {
		t.Fatalf("%v: %s", err, text)
	}
	var names []string
	for line := range strings.Lines(string(text)) {
		if name, _, found := strings.Cut(strings.TrimSpace(line), ": <builtin"); found {
			names = append(names, name)
		}
	}
	if len(names) < 3 {
		t.Fatalf("pgbench has %q: %s", names, text)
	}
	return names
}

// preparedInPool asks for prepared statements where a pool hands its connections around by the transaction: what one client
// has prepared the next one meets, unless PgBouncer keeps them apart, which it does by default from 1.24 on. That is so at
// the pool itself, and comes through as it is.
func (c *cluster) preparedInPool(t *testing.T) {
	pool := primary
	pool.port = 6432
	for i, s := range []service{pool, pool, primary} {
		bench := tool(t.Context(), s, "pgbench", "-n", "-b", "select-only", "-M", "prepared", "-c", "1", "-t", "10", s.conninfo(c.member(1), ""))
		out, err := bench.CombinedOutput()
		// What was prepared is met by whoever comes next.
		const clash = `ERROR:  prepared statement "P_0" already exists`
		if met := strings.Contains(string(out), clash); met != (i > 0 && poolVersion(t) < 24) || !met && err != nil {
			t.Errorf("run %d, on port %d: %v\n%s", i+1, s.port, err, out)
		}
	}
}

// poolVersion is the version of PgBouncer 1 that is installed.
func poolVersion(t *testing.T) int {
	t.Helper()
	out, err := exec.Command("pgbouncer", "--version").Output()
	if err != nil {
		t.Fatal(err)
	}
	var version int
	if _, err := fmt.Sscanf(string(out), "PgBouncer 1.%d", &version); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	return version
}
