//go:build migration

package e2e

import (
	"context"
	"fmt"
	"os/exec"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/pgporter/pgporter/lab/sandbox"
)

// rounds is how often services go to and fro.
const rounds = 6

// TestMigration is the way from a HAProxy to pgporter and back, step by step, on a cluster of its own.
func TestMigration(t *testing.T) {
	t.Parallel()
	c := up(t, 95, sandbox.Config{Fall: patient})
	calm := func(t *testing.T) { shared{cluster: c}.settle(t) }

	t.Run("to and fro under load", func(t *testing.T) {
		calm(t)
		m := c.migrate(t, c.prefix+".34")
		for round := range rounds {
			// With its files in place HAProxy keeps its sockets and gets the very same back, without checks at first, as with each reload.
			files := round%2 == 0
			f := m.flood(t, 4)
			f.after(t, 20)
			m.toAndFro(t, f, files)
			f.stop()
			t.Logf("round %d: %d clients, %d failed, %d got to a standby, the first failure: %v", round, f.done.Load(), f.failed.Load(), f.wrong.Load(), f.first)
			if f.refused.Load() > 0 || files && f.failed.Load()+f.wrong.Load() > 0 {
				t.Errorf("of %d clients %d failed, %d got to a standby; the first: %v", f.done.Load(), f.failed.Load(), f.wrong.Load(), f.first)
			}
			m.compares(t)
		}
	})

	t.Run("a restart", func(t *testing.T) {
		calm(t)
		m := c.migrate(t, c.prefix+".35")
		m.takeover(t)
		m.balancer.forget(t)
		m.restart(t)
		m.serves(t, everything...)
		// Now they are sockets of pgporter's own, and another user's than HAProxy's.
		f := m.flood(t, 4)
		f.after(t, 50)
		m.takeover(t, "--back")
		m.serves(t)
		f.after(t, 50)
		f.stop()
		if f.failed.Load() > 0 || f.wrong.Load() > 0 {
			t.Errorf("of %d clients %d failed, %d got to a standby; the first: %v", f.done.Load(), f.failed.Load(), f.wrong.Load(), f.first)
		}
		// A HAProxy that has its ports back at a start keeps them.
		m.compares(t)
		m.takeover(t, "pg-test-replica")
		m.serves(t, "pg-test-replica")
		if err := m.balancer.cmd.Process.Signal(syscall.SIGUSR2); err != nil {
			t.Fatal(err)
		}
		eventually(t, patience, func(ctx context.Context) error {
			s, err := m.shadow.status(ctx)
			if err == nil && fmt.Sprint(s.Shadow.Both) != "[pg-test-replica]" {
				err = fmt.Errorf("both serve %v", s.Shadow.Both)
			}
			return err
		})
		m.restart(t)
		m.serves(t)
		if log := m.shadow.logged(); !strings.Contains(log, "services that were taken from HAProxy can't be served") {
			t.Error("the log says nothing of a port that is HAProxy's again")
		}
	})

	t.Run("an upgrade", func(t *testing.T) {
		calm(t)
		m := c.migrate(t, c.prefix+".36")
		m.takeover(t, "pg-test-default", "pg-test-primary")
		session := m.hold(m.address, direct)
		f := m.flood(t, 4)
		f.after(t, 20)
		before, err := m.shadow.status(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if out, err := exec.Command(binary, "upgrade", "--pid", strconv.Itoa(before.PID)).CombinedOutput(); err != nil {
			t.Fatalf("upgrade: %v\n%s", err, out)
		}
		after, err := m.shadow.status(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { syscall.Kill(after.PID, syscall.SIGTERM) })
		m.serves(t, "pg-test-default", "pg-test-primary")
		f.after(t, 50)
		f.stop()
		session.lives(t)
		session.Close(t.Context())
		if f.failed.Load() > 0 || after.PID == before.PID {
			t.Errorf("of %d clients %d failed; the first: %v", f.done.Load(), f.failed.Load(), f.first)
		}
	})

	t.Run("shadow in a crash", func(t *testing.T) {
		calm(t)
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
	c.t = t
}

// restart ends the shadow and starts it anew.
func (m *migration) restart(t *testing.T) {
	t.Helper()
	if err := m.shadow.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	eventually(t, patience, func(ctx context.Context) error {
		if _, err := m.shadow.status(ctx); err == nil {
			return fmt.Errorf("it still answers")
		}
		return nil
	})
	m.shadow = startPorterAs(t, m.user, m.address, m.args...)
}
