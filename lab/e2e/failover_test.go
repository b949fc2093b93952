package e2e

import (
	"context"
	"errors"
	"fmt"
	"os/exec"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgconn"

	"github.com/pgporter/pgporter/lab/load"
)

// failoverUnderLoad has probers write while the primary changes: what they see is the change as an application sees it.
// Times are printed, not asserted: they are the machine's as much as ours.
func (s shared) failoverUnderLoad(t *testing.T) {
	c := s.cluster
	setUpProbes(t, c)

	t.Run("cancel", func(t *testing.T) {
		for _, s := range []service{primary, replica, direct, offline} {
			// Replicas are taken in turn: a request that went to one of them would miss as often as not.
			for range 4 {
				cancels(t, c.member(2), s)
			}
		}
	})

	t.Run("planned switchover", func(t *testing.T) {
		c.t = t
		probers := startProbers(t, c)
		shown := showLoad(t, c)
		for _, candidate := range []string{"pg-test-2", "pg-test-1"} {
			probers.write(t)
			if _, err := c.Switchover(t.Context(), candidate); err != nil {
				t.Fatal(err)
			}
			probers.write(t)
			for _, p := range probers {
				if seen := p.report(t, "to "+candidate); p.name == "5436" && len(seen.Refused) > 0 {
					t.Errorf("%d connects failed", len(seen.Refused))
				}
			}
		}
		shown.tells("writes/s +[0-9]+ .* failed connects [0-9]+ ", "then pg-test-2 takes them instead of pg-test-1; ", "then pg-test-1 takes them instead of pg-test-2; ")
	})

	t.Run("kill -9 of Patroni and postgres", func(t *testing.T) {
		c.t = t
		probers := startProbers(t, c)
		probers.write(t)
		leader := c.leader(t)
		name := "pg-test-" + leader[len(leader)-1:]
		if err := c.Kill(t.Context(), syscall.SIGKILL, name+"/patroni", name+"/postgres"); err != nil {
			t.Fatal(err)
		}
		c.otherLeader(t, leader, without(c.nodes(), leader)...)
		probers.write(t)
		for _, p := range probers {
			p.report(t, "kill -9")
		}
	})
}

// shownLoad is a `pgporter-lab load` beside the test.
type shownLoad struct{ *porter }

func showLoad(t *testing.T, c *cluster) shownLoad {
	t.Helper()
	l := shownLoad{&porter{t: t}}
	l.cmd = exec.Command(lab, "load", "--dir", c.Dir(), "--via", "2")
	l.cmd.Stdout, l.cmd.Stderr = l.porter, l.porter
	if err := l.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		l.cmd.Process.Signal(syscall.SIGTERM)
		if err := l.cmd.Wait(); err != nil || strings.Contains(l.logged(), "DATA RACE") {
			t.Errorf("pgporter-lab load ended with %v:\n%s", err, l.logged())
		}
	})
	eventually(t, patience, func(context.Context) error {
		if !strings.Contains(l.logged(), "Writing through pg-test-primary at "+c.member(2)+":5433") {
			return fmt.Errorf("it says %q", l.logged())
		}
		return nil
	})
	return l
}

// tells asserts that there are lines like these.
func (l shownLoad) tells(lines ...string) {
	l.t.Helper()
	eventually(l.t, patience, func(context.Context) error {
		for _, line := range lines {
			if !matches(line, l.logged()) {
				return fmt.Errorf("no line like %q in\n%s", line, l.logged())
			}
		}
		return nil
	})
}

// members is the name of the prober that goes to the members itself.
const members = "members"

// probers write at the same time: through the pooled and the direct service, and as a client does that knows every member
// and tries them all.
type probers []*prober

func startProbers(t *testing.T, c *cluster) probers {
	t.Helper()
	node := c.member(3)
	all := make([]string, 0, 3)
	for _, m := range c.nodes() {
		all = append(all, m+":5432")
	}
	itself := service{5432, direct.user, direct.password, direct.database}.url("MEMBERS")
	return probers{
		startProber(t, "5433", primary.url(node)),
		startProber(t, "5436", direct.url(node)),
		startProber(t, members, strings.Replace(itself, "MEMBERS:5432", strings.Join(all, ","), 1)+"&target_session_attrs=read-write"),
	}
}

// write waits until each of them has written again and again.
func (all probers) write(t *testing.T) {
	t.Helper()
	for _, p := range all {
		p.writes(t, 20)
	}
}

// setUpProbes makes the table that probers write to.
func setUpProbes(t *testing.T, c *cluster) {
	t.Helper()
	c.expect(afterFailover, serves{primary, []instance{at(c.member(1), false)}}, serves{direct, []instance{at(c.member(1), false)}})
	conn, err := connect(t.Context(), c.member(1), direct)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close(t.Context())
	if _, err := conn.Exec(t.Context(), "create table probe (at timestamptz default now()); grant insert on probe to public"); err != nil {
		t.Fatal(err)
	}
}

// cancels runs a long query through a service and has it cancelled by a CancelRequest.
func cancels(t *testing.T, node string, s service) {
	t.Helper()
	ctx, stop := context.WithTimeout(t.Context(), patience)
	defer stop()
	conn, err := connect(ctx, node, s)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close(ctx)
	// A pooler gives the session a server with the first query: only then there is something to cancel.
	to, err := whoAnswers(ctx, conn)
	if err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() {
		_, err := conn.Exec(ctx, "select pg_sleep(60)")
		ended <- err
	}()
	again := time.NewTicker(200 * time.Millisecond)
	defer again.Stop()
	for {
		select {
		case err := <-ended:
			var refusal *pgconn.PgError
			if !errors.As(err, &refusal) || refusal.Code != "57014" {
				t.Errorf("%d on %s: the query ended with %v, not by the cancel request", s.port, to, err)
			}
			return
		case <-again.C:
			// Sent before the query has begun it does nothing, so it is sent again.
			if err := conn.PgConn().CancelRequest(ctx); err != nil {
				t.Errorf("%d: cancel: %v", s.port, err)
			}
		}
	}
}

// prober is one endpoint of the primary under load.
type prober struct {
	name string
	load.Recorder
	// last is the write that ended last before the next report.
	last time.Time
}

func startProber(t *testing.T, name, url string) *prober {
	t.Helper()
	p := &prober{name: name}
	running := load.Prober{
		URL: url, SQL: "insert into probe default values returning host(inet_server_addr())",
		Every: 20 * time.Millisecond, Connect: patience, Write: patience, Observe: p.Add,
	}
	ctx, stop := context.WithCancel(context.Background())
	var probing sync.WaitGroup
	probing.Go(func() {
		if err := running.Run(ctx); err != nil {
			t.Error(err)
		}
	})
	t.Cleanup(func() {
		stop()
		probing.Wait()
	})
	return p
}

// writes waits until n more writes have succeeded.
func (p *prober) writes(t *testing.T, n int) {
	t.Helper()
	before := p.Written()
	eventually(t, afterFailover, func(context.Context) error {
		if now := p.Written(); now < before+n {
			return fmt.Errorf("%s: %d writes of %d", p.name, now-before, n)
		}
		return nil
	})
}

// report prints what was seen since the last report, and gives it.
func (p *prober) report(t *testing.T, what string) load.Impression {
	t.Helper()
	seen := load.Impress(p.last, time.Time{}, p.Take())
	p.last = seen.LastWrite
	if p.name == members {
		// Such a client is refused by members again and again: that is how it finds the primary.
		t.Logf("%s %s: longest write gap %.2f s", p.name, what, seen.Gap.Seconds())
		return seen
	}
	t.Logf("%s %s: longest write gap %.2f s, %d connects failed, %d cut while authenticated, %d writes cut, %d connected to a replica", p.name, what,
		seen.Gap.Seconds(), len(seen.Refused), len(seen.LoginCut), len(seen.WriteCut), len(seen.ReadOnly))
	for _, failed := range slices.Concat(seen.Refused, seen.LoginCut, seen.WriteCut, seen.ReadOnly) {
		t.Logf("  %s after %.1fs: %.300v", failed.Ended.Format("05.000"), failed.Ended.Sub(failed.Began).Seconds(), failed.Err)
	}
	return seen
}
