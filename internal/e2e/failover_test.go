package e2e

import (
	"context"
	"errors"
	"fmt"
	"net"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/pgporter/pgporter/internal/sandbox"
)

// TestFailoverUnderLoad has probers write while the primary changes: what they see is the change as an application sees it.
// Times are printed, not asserted: they are the machine's as much as ours.
func TestFailoverUnderLoad(t *testing.T) {
	c := up(t, 95, sandbox.Config{})
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
		for _, candidate := range []string{"pg-test-2", "pg-test-1"} {
			probers.write(t)
			if _, err := c.Switchover(t.Context(), candidate); err != nil {
				t.Fatal(err)
			}
			probers.write(t)
			for _, p := range probers {
				if seen := p.report(t, "to "+candidate); p.name == "5436" && len(seen.refused) > 0 {
					t.Errorf("connects failed: %v", seen.refused)
				}
			}
		}
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
	c.expect(20*time.Second, serves{primary, []instance{at(c.member(1), false)}}, serves{direct, []instance{at(c.member(1), false)}})
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
	ctx, stop := context.WithTimeout(t.Context(), 20*time.Second)
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
			var told *pgconn.PgError
			if !errors.As(err, &told) || told.Code != "57014" {
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

// prober connects, writes one row and leaves, again and again, 20 ms apart or as long as it takes.
type prober struct {
	name    string
	mu      sync.Mutex
	written int
	last    time.Time
	seen    impression
}

// impression is what a prober has seen, each failure with its error.
type impression struct {
	// gap is the longest time between two writes that succeeded.
	gap time.Duration
	// refused are connects that failed before a server had taken them up, unready those that were cut while the server
	// authenticated them (nobody else can go on with that), and cut the writes that failed on a session.
	refused, unready, cut []string
}

func startProber(t *testing.T, name, url string) *prober {
	t.Helper()
	p := &prober{name: name}
	config, err := pgx.ParseConfig(url)
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(context.Background())
	var probing sync.WaitGroup
	probing.Go(func() {
		every := time.NewTicker(20 * time.Millisecond)
		defer every.Stop()
		for {
			select {
			case <-ctx.Done():
				return
			case <-every.C:
				p.probe(ctx, config.Copy())
			}
		}
	})
	t.Cleanup(func() {
		stop()
		probing.Wait()
	})
	return p
}

func (p *prober) probe(parent context.Context, config *pgx.ConnConfig) {
	ctx, stop := context.WithTimeout(parent, 30*time.Second)
	defer stop()
	var taken atomic.Bool
	dial := config.DialFunc
	config.DialFunc = func(ctx context.Context, network, address string) (net.Conn, error) {
		conn, err := dial(ctx, network, address)
		if err != nil {
			return nil, err
		}
		return &firstByte{Conn: conn, taken: &taken}, nil
	}
	began := time.Now()
	conn, err := pgx.ConnectConfig(ctx, config)
	connected := err == nil
	if connected {
		_, err = conn.Exec(ctx, "insert into probe default values")
		conn.Close(ctx)
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	now := time.Now()
	what := fmt.Sprintf("%s after %.1fs: %v", now.Format("05.000"), now.Sub(began).Seconds(), err)
	switch {
	case parent.Err() != nil:
	case err == nil:
		if !p.last.IsZero() {
			p.seen.gap = max(p.seen.gap, now.Sub(p.last))
		}
		p.last = now
		p.written++
	case connected:
		p.seen.cut = append(p.seen.cut, what)
	case taken.Load():
		p.seen.unready = append(p.seen.unready, what)
	default:
		p.seen.refused = append(p.seen.refused, what)
	}
}

// firstByte notes whether the first message of a connection is a request for authentication: a server has taken it up then.
type firstByte struct {
	net.Conn
	taken *atomic.Bool
	begun bool
}

func (f *firstByte) Read(p []byte) (int, error) {
	n, err := f.Conn.Read(p)
	if n > 0 && !f.begun {
		f.begun = true
		f.taken.Store(p[0] == 'R')
	}
	return n, err
}

// writes waits until n more writes have succeeded.
func (p *prober) writes(t *testing.T, n int) {
	t.Helper()
	count := func() int {
		p.mu.Lock()
		defer p.mu.Unlock()
		return p.written
	}
	before := count()
	eventually(t, afterFailover, func(context.Context) error {
		if now := count(); now < before+n {
			return fmt.Errorf("%s: %d writes of %d", p.name, now-before, n)
		}
		return nil
	})
}

// report prints what was seen since the last report, and gives it.
func (p *prober) report(t *testing.T, what string) impression {
	t.Helper()
	p.mu.Lock()
	defer p.mu.Unlock()
	seen := p.seen
	p.seen = impression{}
	if p.name == members {
		// Such a client is refused by members again and again: that is its way of finding the primary.
		t.Logf("%s %s: longest write gap %.2f s", p.name, what, seen.gap.Seconds())
		return seen
	}
	t.Logf("%s %s: longest write gap %.2f s, %d connects failed, %d cut while authenticated, %d writes cut", p.name, what,
		seen.gap.Seconds(), len(seen.refused), len(seen.unready), len(seen.cut))
	for _, failure := range slices.Concat(seen.refused, seen.unready, seen.cut) {
		t.Logf("  %.300s", failure)
	}
	return seen
}
