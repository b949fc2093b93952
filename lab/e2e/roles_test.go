package e2e

import (
	"context"
	"fmt"
	"syscall"
	"testing"

	"github.com/pgporter/pgporter/lab/sandbox"
)

// TestSynchronousStandby: the standby service (check /read-only-sync) connects to the synchronous replica, and to the primary
// when there is none.
func TestSynchronousStandby(t *testing.T) {
	t.Parallel()
	c := up(t, 72, sandbox.Config{Members: 2, Sync: true, Fall: patient})
	one, two := c.member(1), c.member(2)
	c.expect(afterFailover, serves{standby, []instance{at(two, true)}}, serves{primary, []instance{at(one, false)}})

	if err := c.Kill(t.Context(), syscall.SIGKILL, "pg-test-2/patroni", "pg-test-2/postgres"); err != nil {
		t.Fatal(err)
	}
	c.expect(afterFailover, serves{standby, []instance{at(one, false)}})
	if err := c.Start(t.Context(), "pg-test-2/patroni"); err != nil {
		t.Fatal(err)
	}
	c.expect(afterFailover, serves{standby, []instance{at(two, true)}})

	if _, err := c.Switchover(t.Context(), "pg-test-2"); err != nil {
		t.Fatal(err)
	}
	c.expect(afterFailover, serves{standby, []instance{at(one, true)}}, serves{primary, []instance{at(two, false)}})
}

// TestDelayedReplica: a service that a selector on the role connects to the delayed member, which shows the past.
func TestDelayedReplica(t *testing.T) {
	t.Parallel()
	c := up(t, 73, sandbox.Config{Members: 2, Delayed: true, Fall: patient})
	behind := c.nodes()[2]
	c.expect(afterFailover, serves{delayed, []instance{at(behind, true)}})

	writer, err := connect(t.Context(), c.member(1), direct)
	if err != nil {
		t.Fatal(err)
	}
	defer writer.Close(t.Context())
	if _, err := writer.Exec(t.Context(), "create table just_now (n int)"); err != nil {
		t.Fatal(err)
	}
	exists := func(s service) (there bool, err error) {
		conn, err := connect(t.Context(), c.member(2), s)
		if err != nil {
			return false, err
		}
		defer conn.Close(t.Context())
		err = conn.QueryRow(t.Context(), "select to_regclass('just_now') is not null").Scan(&there)
		return there, err
	}
	eventually(t, patience, func(context.Context) error {
		if there, err := exists(offline); err != nil || !there {
			return fmt.Errorf("on the ordinary replica: %v, %v", there, err)
		}
		return nil
	})
	if there, err := exists(delayed); err != nil || there {
		t.Errorf("on the delayed member what was written a moment ago is there: %v, %v", there, err)
	}

	// It stays delayed, and the service with it, when the primary changes.
	if _, err := c.Switchover(t.Context(), "pg-test-2"); err != nil {
		t.Fatal(err)
	}
	c.expect(afterSwitchover, serves{delayed, []instance{at(behind, true)}}, serves{primary, []instance{at(c.member(2), false)}})
}

// TestDedicatedOffline: an offline replica takes no online reads while anybody else can; its own service falls back to
// ordinary replicas.
func TestDedicatedOffline(t *testing.T) {
	t.Parallel()
	c := up(t, 74, sandbox.Config{Offline: true, Fall: patient})
	one, two, three := c.member(1), c.member(2), c.member(3)
	c.expect(afterFailover,
		serves{replica, []instance{at(two, true)}},
		serves{offline, []instance{at(three, true)}})

	// The online replica lost: the backups in their order, the primary first.
	if err := c.Kill(t.Context(), syscall.SIGKILL, "pg-test-2/patroni", "pg-test-2/postgres"); err != nil {
		t.Fatal(err)
	}
	c.expect(afterFailover,
		serves{replica, []instance{at(one, false)}},
		serves{offline, []instance{at(three, true)}})
	if err := c.Start(t.Context(), "pg-test-2/patroni"); err != nil {
		t.Fatal(err)
	}
	c.expect(afterFailover, serves{replica, []instance{at(two, true)}})

	// The offline replica lost: an ordinary replica takes its queries, never the primary.
	if err := c.Kill(t.Context(), syscall.SIGKILL, "pg-test-3/patroni", "pg-test-3/postgres"); err != nil {
		t.Fatal(err)
	}
	c.expect(afterFailover,
		serves{offline, []instance{at(two, true)}},
		serves{replica, []instance{at(two, true)}})
	if err := c.Kill(t.Context(), syscall.SIGKILL, "pg-test-2/patroni", "pg-test-2/postgres"); err != nil {
		t.Fatal(err)
	}
	c.refused(afterFailover, offline, "pg-test-offline")
}

// TestPair: one primary and one replica, the smallest cluster that fails over.
func TestPair(t *testing.T) {
	t.Parallel()
	c := up(t, 75, sandbox.Config{Members: 2, Fall: patient})
	one, two := c.member(1), c.member(2)
	c.expect(afterFailover,
		serves{primary, []instance{at(one, false)}},
		serves{replica, []instance{at(two, true)}},
		serves{offline, []instance{at(two, true)}})
	c.declinesTLS(t)

	// After a switchover the old primary is the replica, for the offline service too: files rendered from the declared
	// roles would leave that one without a server.
	if _, err := c.Switchover(t.Context(), "pg-test-2"); err != nil {
		t.Fatal(err)
	}
	c.expect(afterSwitchover,
		serves{primary, []instance{at(two, false)}},
		serves{replica, []instance{at(one, true)}},
		serves{offline, []instance{at(one, true)}},
		serves{direct, []instance{at(two, false)}})

	// The replica lost: reads go to the primary, offline queries to nobody.
	if err := c.Kill(t.Context(), syscall.SIGKILL, "pg-test-1/patroni", "pg-test-1/postgres"); err != nil {
		t.Fatal(err)
	}
	c.expect(afterFailover,
		serves{primary, []instance{at(two, false)}},
		serves{replica, []instance{at(two, false)}})
	c.refused(afterFailover, offline, "pg-test-offline")
}
