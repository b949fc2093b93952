package e2e

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os/exec"
	"regexp"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgconn"

	"github.com/pgporter/pgporter/internal/admin/api"
	"github.com/pgporter/pgporter/lab/load"
	"github.com/pgporter/pgporter/lab/sandbox"
)

// TestDoor is planned switchovers where a PgBouncer stands before each node's pgporter: its clients wait, and that is all they see.
func TestDoor(t *testing.T) {
	t.Parallel()
	d := newDoors(t, 77, sandbox.Config{Door: true, Fall: patient})
	d.part(t, "by pgporter switchover", func(t *testing.T) {
		p := d.pooled(t, 20)
		run := d.switchover(t, "--to", "pg-test-2")
		run.succeeds(t)
		p.sawNothing(t)
		t.Logf("pgporter switchover says:\n%s%s", run.said(), run.out.String())
	})
	d.part(t, "by Patroni alone", func(t *testing.T) {
		// Between its failover key and the stop of PostgreSQL Patroni leaves some tenths of a second. A pgporter that has to wait for as long
		// for a processor pauses too late.
		var s sight
		for range 4 {
			p := d.pooled(t, 20)
			if _, err := d.Switchover(t.Context(), ""); err != nil {
				t.Fatal(err)
			}
			p.commits(t, 40)
			s = p.ends(t)
			t.Log(s)
			if s.failed == 0 && s.closed == 0 {
				return
			}
		}
		t.Errorf("clients saw each switchover: %s", s)
	})
	d.part(t, "a long transaction", d.longTransaction)
	d.part(t, "a node that can't be told", d.withoutNode)
	// Each hold that is left lasts for its lease: make switchovers kills at every step.
	d.part(t, "the command is killed", func(t *testing.T) { d.killed(t, "hold", "drain", "ask", "promote") })
	d.part(t, "a pgporter is killed while its door is paused", func(t *testing.T) {
		p := d.pooled(t, 20)
		leader := d.leads(t)
		node := "pg-test-1"
		if node == leader {
			node = "pg-test-2"
		}
		held := d.pooled(t, 1) // something to see the pause by
		run := d.switchover(t)
		d.paused(t, node)
		if err := d.Kill(t.Context(), syscall.SIGKILL, node+"/pgporter"); err != nil {
			t.Fatal(err)
		}
		if err := d.Start(t.Context(), node+"/pgporter"); err != nil {
			t.Fatal(err)
		}
		run.wait()
		d.calm(t)
		p.commits(t, 40)
		held.commits(t, 5)
		held.report(t)
		p.report(t)
	})
}

// doors are a cluster with a PgBouncer before each pgporter.
type doors struct {
	*cluster
	// clients is how many have been started.
	clients int
}

func newDoors(t *testing.T, octet int, config sandbox.Config) *doors {
	t.Helper()
	d := &doors{cluster: up(t, octet, config)}
	conn, err := connect(t.Context(), d.member(1), direct)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close(t.Context())
	if _, err := conn.Exec(t.Context(), "create table pooled (client int, n int, at timestamptz default now(), primary key (client, n)); grant select, insert on pooled to public"); err != nil {
		t.Fatal(err)
	}
	return d
}

// part is a part of the test, on a cluster that is complete and with nobody held.
func (d *doors) part(t *testing.T, name string, test func(*testing.T)) {
	t.Run(name, func(t *testing.T) {
		outer := d.t
		d.t = t
		defer func() { d.t = outer }()
		d.settled(t)
		d.calm(t)
		test(t)
		if t.Failed() {
			d.showLogs()
		}
	})
}

// settled waits until all members follow one leader.
func (d *doors) settled(t *testing.T) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), afterFailover)
	defer cancel()
	leader, err := d.AwaitFollowing(ctx, "pg-test")
	if err != nil {
		t.Fatal(err)
	}
	leads := 0
	for _, m := range d.Members(ctx) {
		if m.LiveRole == "leader" {
			leads++
		}
	}
	if leads != 1 {
		t.Errorf("%d members lead, %s among them", leads, leader.Name)
	}
}

func (d *doors) leads(t *testing.T) string {
	t.Helper()
	leader, err := d.Leader(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return leader.Name
}

// calm waits until no node holds anybody and every pool runs.
func (d *doors) calm(t *testing.T) {
	t.Helper()
	eventually(t, patience, func(ctx context.Context) error {
		for _, node := range d.nodes() {
			if err := d.node(ctx, node, func(s *api.Status) error {
				if hold := s.Clusters[0].Hold; hold != nil {
					return fmt.Errorf("it holds clients: %+v", *hold)
				}
				if len(s.Pools) != 2 {
					return fmt.Errorf("it watches over %d pools", len(s.Pools))
				}
				return pools(s, func(p api.Pool, db api.PoolDatabase) error {
					if db.State != api.PoolRunning {
						return fmt.Errorf("%s of %s is %s", db.Name, p.Address, db.State)
					}
					return nil
				})
			}); err != nil {
				return err
			}
		}
		return nil
	})
}

// paused waits until a node's door is.
func (d *doors) paused(t *testing.T, name string) {
	t.Helper()
	m, err := d.Access(name+"/door", "")
	if err != nil {
		t.Fatal(err)
	}
	again := time.NewTicker(5 * time.Millisecond)
	defer again.Stop()
	for deadline := time.Now().Add(patience); time.Now().Before(deadline); <-again.C {
		paused := false
		if err := d.node(t.Context(), m.Host, func(s *api.Status) error {
			return pools(s, func(_ api.Pool, db api.PoolDatabase) error {
				paused = paused || db.Service == "pg-test-default" && db.State == api.PoolPaused
				return nil
			})
		}); err == nil && paused {
			return
		}
	}
	t.Fatalf("the door of %s wasn't paused", name)
}

func (d *doors) node(ctx context.Context, host string, look func(*api.Status) error) error {
	status, err := api.Client{Address: host + ":" + api.DefaultPort}.Status(ctx)
	if err == nil {
		err = look(status)
	}
	if err != nil {
		return fmt.Errorf("%s: %w", host, err)
	}
	return nil
}

func pools(s *api.Status, look func(api.Pool, api.PoolDatabase) error) error {
	for _, p := range s.Pools {
		if p.Problem != "" {
			return fmt.Errorf("pool %s: %s", p.Address, p.Problem)
		}
		if len(p.Databases) == 0 {
			return fmt.Errorf("pool %s: nothing is led to", p.Address)
		}
		for _, db := range p.Databases {
			if err := look(p, db); err != nil {
				return err
			}
		}
	}
	return nil
}

// pooled are clients at the doors, and what they saw.
type pooled struct {
	d     *doors
	first int
	pools []*load.Pooled
	stop  func()

	mu sync.Mutex
	// done are the transactions, committed how many of them are.
	done      []load.Transaction
	committed int
}

// pooled starts clients, as many at each of the doors (of all nodes if none is named), each with a transaction every 50 ms.
func (d *doors) pooled(t *testing.T, clients int, names ...string) *pooled {
	t.Helper()
	p := &pooled{d: d, first: d.clients}
	ctx, stop := context.WithCancel(context.Background())
	var running sync.WaitGroup
	p.stop = func() {
		stop()
		running.Wait()
	}
	t.Cleanup(p.stop)
	var doors []sandbox.Access
	for _, door := range d.Doors("default") {
		if len(names) == 0 || slices.Contains(names, door.Node) {
			doors = append(doors, door)
		}
	}
	for i, door := range doors {
		share := clients / len(doors)
		if i < clients%len(doors) {
			share++
		}
		if share == 0 {
			continue
		}
		one := &load.Pooled{
			URL: door.URL() + "?sslmode=disable", SQL: "insert into pooled values ($1, $2) returning host(inet_server_addr())",
			Clients: share, First: d.clients, Every: 50 * time.Millisecond, Limit: afterFailover, Observe: p.observe,
		}
		d.clients += share
		p.pools = append(p.pools, one)
		ready := make(chan struct{})
		failed := make(chan error, 1)
		running.Go(func() { failed <- one.Run(ctx, ready) })
		select {
		case <-ready:
		case err := <-failed:
			t.Fatal(err)
		}
	}
	p.commits(t, 2*clients)
	return p
}

func (p *pooled) observe(one load.Transaction) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.done = append(p.done, one)
	if one.Err == nil {
		p.committed++
	}
}

// commits waits until n more transactions are committed.
func (p *pooled) commits(t *testing.T, n int) {
	t.Helper()
	count := func() int {
		p.mu.Lock()
		defer p.mu.Unlock()
		return p.committed
	}
	before := count()
	eventually(t, patience, func(context.Context) error {
		if now := count(); now < before+n {
			return fmt.Errorf("%d of %d transactions", now-before, n)
		}
		return nil
	})
}

// sight is what pooled clients saw.
type sight struct {
	transactions, failed, closed int
	// longest is how long the longest transaction took: nearly all of it is waiting.
	longest time.Duration
	servers []string
	first   error
}

func (s sight) String() string {
	text := fmt.Sprintf("%d transactions, %d failed, %d connections closed, the longest took %.2f s, on %s", s.transactions, s.failed, s.closed, s.longest.Seconds(), strings.Join(s.servers, ", "))
	if s.first != nil {
		text += fmt.Sprintf("; the first failure: %v", s.first)
	}
	return text
}

// ends stops the clients, gives what they saw, and looks for every row of which they were told that it is committed.
func (p *pooled) ends(t *testing.T) sight {
	t.Helper()
	closed := 0
	for _, one := range p.pools {
		closed += one.Closed()
	}
	p.stop()
	s := sight{closed: closed, transactions: len(p.done)}
	acknowledged := map[[2]int]bool{}
	for _, one := range p.done {
		s.longest = max(s.longest, one.Ended.Sub(one.Began))
		if one.Err != nil {
			s.failed++
			if s.first == nil {
				s.first = fmt.Errorf("%s after %.1fs: %w", one.Ended.Format("15:04:05.000"), one.Ended.Sub(one.Began).Seconds(), one.Err)
			}
			continue
		}
		acknowledged[[2]int{one.Client, one.N}] = true
		if !slices.Contains(s.servers, one.Server) {
			s.servers = append(s.servers, one.Server)
		}
	}
	conn, err := connect(t.Context(), p.d.member(1), direct)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close(t.Context())
	rows, err := conn.Query(t.Context(), "select client, n from pooled where client >= $1", p.first)
	if err != nil {
		t.Fatal(err)
	}
	var key [2]int
	for rows.Next() {
		if err := rows.Scan(&key[0], &key[1]); err != nil {
			t.Fatal(err)
		}
		delete(acknowledged, key)
	}
	if rows.Err() != nil {
		t.Fatal(rows.Err())
	}
	if len(acknowledged) > 0 {
		t.Errorf("%d acknowledged transactions are lost", len(acknowledged))
	}
	return s
}

// report ends the clients, of whom some may have failed.
func (p *pooled) report(t *testing.T) {
	t.Helper()
	t.Log(p.ends(t))
}

// sawNothing ends clients who must have seen another primary and nothing else.
func (p *pooled) sawNothing(t *testing.T) {
	t.Helper()
	p.commits(t, 40)
	s := p.ends(t)
	t.Log(s)
	if s.failed > 0 || s.closed > 0 || len(s.servers) != 2 {
		t.Errorf("clients saw the switchover: %s", s)
	}
}

// switching is a pgporter switchover that runs.
type switching struct {
	cmd  *exec.Cmd
	out  bytes.Buffer
	over chan struct{}
	// err is how it ended.
	err error

	mu sync.Mutex
	// text is what it has said of its steps, more that there is more of that.
	text bytes.Buffer
	more chan struct{}
}

func (s *switching) Write(text []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	select {
	case s.more <- struct{}{}:
	default:
	}
	return s.text.Write(text)
}

// said is what it has told of its progress.
func (s *switching) said() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.text.String()
}

// switchover starts pgporter switchover. It has ended with the test.
func (d *doors) switchover(t *testing.T, args ...string) *switching {
	t.Helper()
	s := &switching{over: make(chan struct{}), more: make(chan struct{}, 1)}
	s.cmd = exec.Command(binary, slices.Concat([]string{"switchover", "pg-test"}, args, d.Steering())...)
	s.cmd.Stdout, s.cmd.Stderr = &s.out, s
	if err := s.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go func() {
		defer close(s.over)
		s.err = s.cmd.Wait()
	}()
	t.Cleanup(func() {
		s.kill()
		if strings.Contains(s.said(), "DATA RACE") {
			t.Errorf("pgporter switchover has a data race:\n%s", s.said())
		}
	})
	return s
}

func (s *switching) wait() { <-s.over }

// kill ends it as kill -9 does.
func (s *switching) kill() {
	s.cmd.Process.Kill() //nolint:errcheck // it may have ended
	s.wait()
}

func (s *switching) succeeds(t *testing.T) {
	t.Helper()
	s.wait()
	if s.err != nil {
		t.Fatalf("pgporter switchover: %v\n%s%s", s.err, s.said(), s.out.String())
	}
}

// fails waits for its end and asserts that it says why.
func (s *switching) fails(t *testing.T, why string) {
	t.Helper()
	s.wait()
	if all := s.said() + s.out.String(); s.err == nil || !regexp.MustCompile(why).MatchString(all) {
		t.Errorf("pgporter switchover: %v, without %q:\n%s", s.err, why, all)
	}
}

// reaches waits until it has begun a step.
func (s *switching) reaches(t *testing.T, step string) {
	t.Helper()
	begins := regexp.MustCompile(`(?m)^ *[0-9.]+ s  ` + step + ` `)
	for over := false; !begins.MatchString(s.said()); {
		if over {
			t.Fatalf("it is over without a step %s:\n%s%s", step, s.said(), s.out.String())
		}
		select {
		case <-s.more:
		case <-s.over:
			over = true
		case <-time.After(patience):
			t.Fatalf("it has come to no step %s:\n%s", step, s.said())
		}
	}
}

// killed kills pgporter switchover as it begins a step, each time another.
func (d *doors) killed(t *testing.T, steps ...string) {
	p := d.pooled(t, 20)
	for _, step := range steps {
		run := d.switchover(t)
		run.reaches(t, step)
		run.kill()
		began := time.Now()
		d.calm(t)
		p.commits(t, 40)
		t.Logf("killed at %q: all is well after %.1fs", step, time.Since(began).Seconds())
		d.settled(t)
	}
	p.report(t)
}

// longTransaction has one under way that doesn't end by itself.
func (d *doors) longTransaction(t *testing.T) {
	leader := d.leads(t)
	door := d.Doors("default")[1]
	open := func(query string) (ended <-chan error) {
		t.Helper()
		conn, err := connect(t.Context(), door.Host, service{door.Port, door.User, door.Password, door.Database})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := conn.Exec(t.Context(), "begin; set local application_name to 'month end'; insert into pooled values (-1, (select count(*) from pooled where client = -1)); select txid_current()"); err != nil {
			t.Fatal(err)
		}
		over := make(chan error, 1)
		var waiting sync.WaitGroup
		waiting.Go(func() {
			_, err := conn.Exec(context.Background(), query)
			// As an application does: what was cancelled is idle in its transaction until then.
			conn.Exec(context.Background(), "rollback") //nolint:errcheck // the connection may be gone
			over <- err
		})
		t.Cleanup(func() {
			conn.PgConn().Conn().Close()
			waiting.Wait()
		})
		return over
	}
	p := d.pooled(t, 6)
	over := open("select pg_sleep(120)")
	run := d.switchover(t, "--drain", "1s")
	run.fails(t, "pg_sleep|month end")
	t.Logf("pgporter switchover says:\n%s%s", run.said(), run.out.String())
	d.calm(t)
	if now := d.leads(t); now != leader {
		t.Errorf("%s leads instead of %s", now, leader)
	}
	select {
	case err := <-over:
		t.Errorf("the transaction ended: %v", err)
	default:
	}
	run = d.switchover(t, "--drain", "1s", "--cancel")
	run.succeeds(t)
	var refusal *pgconn.PgError
	if err := <-over; !errors.As(err, &refusal) || refusal.Code != "57014" {
		t.Errorf("the query of the long transaction ended with %v", err)
	}
	p.sawNothing(t)
	d.settled(t)

	p = d.pooled(t, 6)
	over = open("select pg_sleep(120)")
	d.switchover(t, "--drain", "1s", "--force").succeeds(t)
	if err := <-over; err == nil {
		t.Error("the long transaction outlived its primary")
	}
	p.sawNothing(t)
}

// withoutNode has a node whose pgporter can't be told.
func (d *doors) withoutNode(t *testing.T) {
	leader, away := d.leads(t), "pg-test-3"
	if leader == away {
		away = "pg-test-2"
	}
	m, err := d.Access(away, "")
	if err != nil {
		t.Fatal(err)
	}
	var others []string
	for _, door := range d.Doors("default") {
		if door.Node != away {
			others = append(others, door.Node)
		}
	}
	if err := d.Kill(t.Context(), syscall.SIGKILL, away+"/pgporter"); err != nil {
		t.Fatal(err)
	}
	p := d.pooled(t, 6, others...)
	run := d.switchover(t)
	run.fails(t, regexp.QuoteMeta(m.Host))
	t.Logf("pgporter switchover says:\n%s%s", run.said(), run.out.String())
	if now := d.leads(t); now != leader {
		t.Errorf("%s leads instead of %s", now, leader)
	}
	d.switchover(t, "--without", m.Host).succeeds(t)
	p.sawNothing(t)
	if err := d.Start(t.Context(), away+"/pgporter"); err != nil {
		t.Fatal(err)
	}
}
