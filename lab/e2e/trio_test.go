package e2e

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgconn"

	"github.com/pgporter/pgporter/internal/admin/api"
	"github.com/pgporter/pgporter/lab/sandbox"
)

// The times within which services must be right again. Patroni's part is the larger: a leader key lives 20 s in the
// sandbox, an election takes one or two loops of 2 s. The rest is for machines that have little time for all of it: how long a
// change takes where they have is what the benchmarks tell.
const (
	afterSwitchover = 40 * time.Second
	afterFailover   = 80 * time.Second
	// sessionsEnd is less than a leader key lives: it isn't its end that ends them.
	sessionsEnd = 18 * time.Second
	// patience bounds what takes next to no time.
	patience = time.Minute
)

// TestTrio is the main job on three members: every service through every node, before and after a switchover and three
// kinds of kills.
func TestTrio(t *testing.T) {
	t.Parallel()
	c := up(t, 71, sandbox.Config{Fall: patient})
	one, two, three := c.member(1), c.member(2), c.member(3)

	// leads asserts all four services while a member is the primary and these are the replicas.
	leads := func(t *testing.T, within time.Duration, leader string, replicas ...string) {
		t.Helper()
		// Member 3 is tagged for offline queries; while it can't take them the first other replica does.
		slices.Sort(replicas)
		offlineTo := replicas[0]
		if slices.Contains(replicas, three) {
			offlineTo = three
		}
		reads := serves{service: replica}
		for _, r := range replicas {
			reads.to = append(reads.to, at(r, true))
		}
		c.t = t
		c.expect(within,
			serves{primary, []instance{at(leader, false)}},
			reads,
			serves{direct, []instance{at(leader, false)}},
			serves{offline, []instance{at(offlineTo, true)}})
	}
	leads(t, afterFailover, one, two, three)

	t.Run("writes and reads", func(t *testing.T) {
		writeAndRead(t, c)
	})

	names := tellNames(t, c)
	names.are(t, patience, map[string][]string{
		"pg-test": {one}, "primary.pg-test": {one}, "replica.pg-test": {two, three}, "offline.pg-test": {three}, "pg-test-2": {two},
	})

	t.Run("switchover", func(t *testing.T) {
		c.t = t
		onPrimary := []*idleSession{c.hold(two, direct).watch(t), c.hold(three, primary).watch(t), c.hold(one, direct).watch(t)}
		onReplica := c.hold(two, offline)
		watched := watchStatus(t, two+":8432")
		if _, err := c.Switchover(t.Context(), "pg-test-2"); err != nil {
			t.Fatal(err)
		}
		leads(t, afterSwitchover, two, one, three)
		names.are(t, sessionsEnd, map[string][]string{
			"pg-test": {two}, "primary.pg-test": {two}, "replica.pg-test": {one, three}, "offline.pg-test": {three}, "pg-test-2": {two},
		})
		for _, h := range onPrimary {
			h.hasEnded(t, sessionsEnd)
		}
		onReplica.lives(t)
		onReplica.Close(t.Context())
		c.nobodyLeft(t, "pg-test-1")
		watched.shows(t, "pg-test-2 +primary +serving", "pg-test-1 +replica +down")
	})

	t.Run("kill -9 of postgres restarts in place", func(t *testing.T) {
		c.t = t
		onReplica := []*idleSession{c.hold(one, offline), c.hold(two, offline)}
		if err := c.Kill(t.Context(), syscall.SIGKILL, "pg-test-2/postgres"); err != nil {
			t.Fatal(err)
		}
		leads(t, afterFailover, two, one, three)
		for _, h := range onReplica {
			h.lives(t)
			h.Close(t.Context())
		}
	})

	t.Run("kill -9 of Patroni", func(t *testing.T) {
		c.t = t
		onPrimary := []*idleSession{c.hold(one, direct).watch(t), c.hold(three, primary).watch(t)}
		if err := c.Kill(t.Context(), syscall.SIGKILL, "pg-test-2/patroni"); err != nil {
			t.Fatal(err)
		}
		// The old primary's PostgreSQL goes on taking writes: sessions on it have to end long before the key expires.
		for _, h := range onPrimary {
			h.hasEnded(t, sessionsEnd)
		}
		noDirectBackend(t, two)
		leader := c.otherLeader(t, two, one, three)
		replicas := without([]string{one, three}, leader)
		leads(t, afterFailover, leader, replicas...)
		if err := c.Start(t.Context(), "pg-test-2/patroni"); err != nil {
			t.Fatal(err)
		}
		leads(t, afterFailover, leader, append(replicas, two)...)
		c.nobodyLeft(t, "pg-test-2")
	})

	t.Run("kill -9 of Patroni and postgres", func(t *testing.T) {
		c.t = t
		leader := c.leader(t)
		others := without([]string{one, two, three}, leader)
		name := "pg-test-" + leader[len(leader)-1:]
		if err := c.Kill(t.Context(), syscall.SIGKILL, name+"/patroni", name+"/postgres"); err != nil {
			t.Fatal(err)
		}
		next := c.otherLeader(t, leader, others...)
		replicas := without(others, next)
		leads(t, afterFailover, next, replicas...)
		if err := c.Start(t.Context(), name+"/patroni"); err != nil {
			t.Fatal(err)
		}
		leads(t, afterFailover, next, append(replicas, leader)...)
	})

	t.Run("without an inventory", func(t *testing.T) { discovered(t, c) })
	t.Run("reload", func(t *testing.T) { reload(t, c) })
	t.Run("pgporter.yml", func(t *testing.T) { ownFile(t, c) })
}

// writeAndRead writes through both writing services and reads it on the replicas, which refuse to be written.
func writeAndRead(t *testing.T, c *cluster) {
	ctx := t.Context()
	for _, s := range []service{primary, direct} {
		table := fmt.Sprintf("written_%d", s.port)
		conn, err := connect(ctx, c.member(3), s)
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close(ctx)
		for _, sql := range []string{"create table " + table + " (n int)", "insert into " + table + " select generate_series(1, 1000)", "grant select on " + table + " to public"} {
			if _, err := conn.Exec(ctx, sql); err != nil {
				t.Fatalf("%d: %s: %v", s.port, sql, err)
			}
		}
		for _, reading := range []service{replica, offline} {
			eventually(t, patience, func(ctx context.Context) error {
				conn, err := connect(ctx, c.member(1), reading)
				if err != nil {
					return err
				}
				defer conn.Close(ctx)
				var n int
				if err := conn.QueryRow(ctx, "select count(*) from "+table).Scan(&n); err != nil || n != 1000 {
					return fmt.Errorf("%d rows, %v", n, err)
				}
				_, err = conn.Exec(ctx, "create table nowhere (n int)")
				var refused *pgconn.PgError
				if !errors.As(err, &refused) || refused.Code != "25006" {
					return fmt.Errorf("a write through port %d: %v, want read_only_sql_transaction", reading.port, err)
				}
				return nil
			})
		}
	}
}

// leader is the address of the member that every node's primary service connects to.
func (c *cluster) leader(t *testing.T) string {
	t.Helper()
	i, err := ask(t.Context(), c.nodes()[0], direct)
	if err != nil {
		t.Fatal(err)
	}
	return i.address
}

// otherLeader waits until the direct service connects to another primary than old, and asserts that it never connects to old.
func (c *cluster) otherLeader(t *testing.T, old string, candidates ...string) string {
	t.Helper()
	var leader string
	eventually(t, afterFailover, func(ctx context.Context) error {
		i, err := ask(ctx, candidates[0], direct)
		if err != nil {
			return err
		}
		if i.address == old {
			return fmt.Errorf("still connected to %s", old)
		}
		if i.recovery {
			t.Fatalf("the direct service connected to a standby, %s", i)
		}
		leader = i.address
		return nil
	})
	return leader
}

func without(all []string, one string) []string {
	var rest []string
	for _, a := range all {
		if a != one {
			rest = append(rest, a)
		}
	}
	return rest
}

// nobodyLeft asserts that no node's pgporter has a session on a member in the services that are for the primary.
func (c *cluster) nobodyLeft(t *testing.T, member string) {
	t.Helper()
	eventually(t, sessionsEnd, func(ctx context.Context) error {
		for _, node := range c.nodes() {
			status, err := api.Client{Address: net.JoinHostPort(node, api.DefaultPort)}.Status(ctx)
			if err != nil {
				return err
			}
			for _, s := range status.Clusters[0].Services {
				for _, server := range s.Servers {
					if s.Check == "/primary" && server.Member == member && server.Sessions > 0 {
						return fmt.Errorf("%s: %s has %d sessions on %s", node, s.FullName, server.Sessions, member)
					}
				}
			}
		}
		return nil
	})
}

// noDirectBackend asks a member itself, past every service: nobody but us is connected as the account that the direct
// service's sessions use.
func noDirectBackend(t *testing.T, address string) {
	t.Helper()
	eventually(t, sessionsEnd, func(ctx context.Context) error {
		conn, err := connect(ctx, address, service{5432, direct.user, direct.password, direct.database})
		if err != nil {
			return err
		}
		defer conn.Close(ctx)
		var standby bool
		var others int
		err = conn.QueryRow(ctx, "select pg_is_in_recovery(), (select count(*) from pg_stat_activity where usename = $1 and pid <> pg_backend_pid())", direct.user).Scan(&standby, &others)
		if err == nil && (standby || others > 0) {
			err = fmt.Errorf("%s: standby %v, %d sessions besides this one", address, standby, others)
		}
		return err
	})
}

// statusWatcher is a `pgporter status --watch` that goes on beside the test.
type statusWatcher struct{ *porter }

func watchStatus(t *testing.T, admin string) statusWatcher {
	t.Helper()
	w := statusWatcher{&porter{t: t}}
	w.cmd = exec.Command(binary, "status", "--watch", "--interval", "200ms", "--admin", admin)
	w.cmd.Stdout, w.cmd.Stderr = w.porter, w.porter
	if err := w.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		w.cmd.Process.Signal(syscall.SIGTERM)
		if err := w.cmd.Wait(); err != nil {
			t.Errorf("status --watch ended with %v", err)
		}
	})
	return w
}

// shows asserts that the table has rows like these, last of all.
func (w statusWatcher) shows(t *testing.T, rows ...string) {
	t.Helper()
	eventually(t, patience, func(context.Context) error {
		text := w.logged()
		last := text[max(0, strings.LastIndex(text, "SERVICE")):]
		for _, row := range rows {
			if !matches(row, last) {
				return fmt.Errorf("no row like %q in\n%s", row, last)
			}
		}
		return nil
	})
}

// discovered runs a pgporter that knows nothing but one Patroni's address.
func discovered(t *testing.T, c *cluster) {
	c.t = t
	bind := c.prefix + ".31"
	p := startPorter(t, bind, "--patroni", c.member(1)+":8008")
	leader := c.leader(t)
	replicas := without([]string{c.member(1), c.member(2), c.member(3)}, leader)
	reads := []instance{at(replicas[0], true), at(replicas[1], true)}
	eventually(t, patience, func(ctx context.Context) error {
		for _, w := range []serves{{primary, []instance{at(leader, false)}}, {replica, reads}, {direct, []instance{at(leader, false)}}, {offline, reads[:1]}} {
			if err := w.check(ctx, bind); err != nil {
				return err
			}
		}
		return nil
	})
	status, err := p.status(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range status.Clusters[0].Services {
		for _, server := range s.Servers {
			if pooled := s.Name == "primary" || s.Name == "replica"; pooled != strings.HasSuffix(server.Address, ":6432") {
				t.Errorf("%s connects to %s", s.FullName, server.Address)
			}
		}
	}
	if assumed := strings.Join(status.Config.Assumed, "\n"); !strings.Contains(assumed, "four default services of cluster pg-test") {
		t.Errorf("assumed: %s", assumed)
	}
}

// reload changes a running pgporter's inventory under an open session.
func reload(t *testing.T, c *cluster) {
	c.t = t
	bind := c.prefix + ".32"
	text, err := os.ReadFile(c.Inventory())
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "pigsty.yml")
	write := func(text string) {
		t.Helper()
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write(string(text))
	p := startPorter(t, bind, "--inventory", path, "--node", c.member(1))
	leader := c.leader(t)
	eventually(t, patience, serves{direct, []instance{at(leader, false)}}.checkAt(bind))
	session, err := connect(t.Context(), bind, direct)
	if err != nil {
		t.Fatal(err)
	}
	defer session.Close(t.Context())
	before, err := whoAnswers(t.Context(), session)
	if err != nil {
		t.Fatal(err)
	}
	same := func() {
		t.Helper()
		if now, err := whoAnswers(t.Context(), session); err != nil || now != before {
			t.Errorf("the open session: %s, %v; before %s", now, err, before)
		}
	}
	hangUp := func(want func(generation int, refused string) bool) {
		t.Helper()
		if err := p.cmd.Process.Signal(syscall.SIGHUP); err != nil {
			t.Fatal(err)
		}
		eventually(t, patience, func(ctx context.Context) error {
			s, err := p.status(ctx)
			if err == nil && !want(s.Config.Generation, s.Config.Refused) {
				err = fmt.Errorf("generation %d, refused %q", s.Config.Generation, s.Config.Refused)
			}
			return err
		})
	}

	// A service more: it is there, and the session doesn't notice.
	custom := service{5440, direct.user, direct.password, direct.database}
	added := strings.Replace(string(text), "pg_cluster: pg-test\n", "pg_cluster: pg-test\n        pg_services: [ { name: extra, port: 5440, dest: postgres, check: /primary, selector: '[]' } ]\n", 1)
	if added == string(text) {
		t.Fatalf("no line for a service in\n%s", text)
	}
	write(added)
	hangUp(func(generation int, refused string) bool { return generation == 2 && refused == "" })
	eventually(t, patience, serves{custom, []instance{at(leader, false)}}.checkAt(bind))
	same()

	// A broken file: refused with its position, everything goes on.
	write(strings.Replace(added, "port: 5440", "port: 544000", 1))
	hangUp(func(generation int, refused string) bool {
		return generation == 2 && strings.Contains(refused, path+":") && strings.Contains(refused, "544000")
	})
	eventually(t, patience, serves{custom, []instance{at(leader, false)}}.checkAt(bind))
	same()

	// The service gone: its port is closed, the session on another stays.
	write(string(text))
	hangUp(func(generation int, refused string) bool { return generation == 3 && refused == "" })
	if i, err := ask(t.Context(), bind, custom); err == nil || !strings.Contains(err.Error(), "connection refused") {
		t.Errorf("the removed service: %s, %v", i, err)
	}
	same()
}

// checkAt is check through one node, for eventually.
func (w serves) checkAt(node string) func(context.Context) error {
	return func(ctx context.Context) error { return w.check(ctx, node) }
}
