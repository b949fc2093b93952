//go:build migration

package e2e

import (
	"syscall"
	"testing"
	"time"

	"github.com/pgporter/pgporter/lab/sandbox"
)

// TestMigration is the way from a HAProxy to pgporter and back, step by step, on a cluster of its own.
func TestMigration(t *testing.T) {
	t.Parallel()
	c := up(t, 95, sandbox.Config{Fall: patient})

	t.Run("shadow in a crash", func(t *testing.T) {
		c.t = t
		b := c.beside(t, c.prefix+".33")
		kept := c.hold(b.balancer.address, direct).watch(t)
		before := time.Now()
		if err := c.Kill(t.Context(), syscall.SIGKILL, "pg-test-1/patroni", "pg-test-1/postgres"); err != nil {
			t.Fatal(err)
		}
		e := b.event(t, before)
		b.right(t, e, "pg-test-1", e.To)
		kept.hasEnded(t, sessionsEnd)
		if err := c.Start(t.Context(), "pg-test-1/patroni"); err != nil {
			t.Fatal(err)
		}
	})
}
