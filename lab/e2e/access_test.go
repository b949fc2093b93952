package e2e

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/pgporter/pgporter/lab/sandbox"
)

// Who is to answer a line of the documents, besides an instance's own name.
const (
	theLeader   = "the primary"
	aReplica    = "a replica"
	theOffline  = "the offline replica"
	offlineName = "pg-test-3"
)

// line is a command of the documents, and who has to answer it.
type line struct{ command, by string }

// The documents' commands, word for word. In the section on access they print URLs alone; psql is put before.
var (
	personalUsers = []line{
		{"psql postgres://dbuser_dba:DBUser.DBA@10.10.10.10/meta", "pg-meta-1"},
		{"psql postgres://dbuser_meta:DBUser.Meta@10.10.10.10/meta", "pg-meta-1"},
		{"psql postgres://dbuser_view:DBUser.View@pg-meta/meta", "pg-meta-1"},
	}
	defaultServices = []line{
		{"psql postgres://dbuser_meta:DBUser.Meta@pg-meta:5433/meta", "pg-meta-1"},
		{"psql postgres://dbuser_meta:DBUser.Meta@pg-meta:5434/meta", "pg-meta-1"}, // it has no replica
		{"psql postgres://dbuser_dba:DBUser.DBA@pg-meta:5436/meta", "pg-meta-1"},
		// The fourth is singleOffline.
	}
	byName = []line{
		{"psql postgres://test@pg-test:5432/test", theLeader},
		{"psql postgres://test@pg-test:6432/test", theLeader},
		{"psql postgres://test@pg-test:5433/test", theLeader},
		{"psql postgres://test@pg-test:5434/test", aReplica},
		{"psql postgres://dbuser_dba@pg-test:5436/test", theLeader},
		{"psql postgres://dbuser_stats@pg-test:5438/test", theOffline},
	}
	byVIP = []line{
		{"psql postgres://test@10.10.10.3:5432/test", theLeader},
		{"psql postgres://test@10.10.10.3:6432/test", theLeader},
		{"psql postgres://test@10.10.10.3:5433/test", theLeader},
		{"psql postgres://test@10.10.10.3:5434/test", aReplica},
		{"psql postgres://dbuser_dba@10.10.10.3:5436/test", theLeader},
		// As it is meant: the documents have it as in twoColons.
		{"psql postgres://dbuser_stats@10.10.10.3:5438/test", theOffline},
	}
	byInstance = []line{
		{"psql postgres://test@pg-test-1:5432/test", "pg-test-1"},
		{"psql postgres://test@pg-test-1:6432/test", "pg-test-1"},
		{"psql postgres://test@pg-test-1:5433/test", theLeader},
		{"psql postgres://test@pg-test-1:5434/test", aReplica},
		{"psql postgres://dbuser_dba@pg-test-1:5436/test", theLeader},
		// The documents call this one read/write; what never uses the primary can't be.
		{"psql postgres://dbuser_stats@pg-test-1:5438/test", theOffline},
	}
	byAddress = []line{
		{"psql postgres://test@10.10.10.11:5432/test", "pg-test-1"},
		{"psql postgres://test@10.10.10.11:6432/test", "pg-test-1"},
		{"psql postgres://test@10.10.10.11:5433/test", theLeader},
		{"psql postgres://test@10.10.10.11:5434/test", aReplica},
		{"psql postgres://dbuser_dba@10.10.10.11:5436/test", theLeader},
		{"psql postgres://dbuser_stats@10.10.10.11:5438/test", theOffline}, // as above
	}
	smartClient = []line{
		{"psql postgres://test@10.10.10.11:6432,10.10.10.12:6432,10.10.10.13:6432/test?target_session_attrs=primary", theLeader},
		{"psql postgres://test@10.10.10.11:6432,10.10.10.12:6432,10.10.10.13:6432/test?target_session_attrs=prefer-standby", aReplica},
	}
)

// What can't work as it is printed.
const (
	twoColons     = "psql postgres://dbuser_stats@10.10.10.3::5438/test"
	singleOffline = "psql postgres://dbuser_stats:DBUser.Stats@pg-meta:5438/meta"
)

// SQLSTATEs of what becomes of a row (PostgreSQL's manual, appendix A).
const (
	written  = "00000"
	readOnly = "25006"
	denied   = "42501"
)

// TestDocumentedAccess is a client on the documents' network: every command that they print connects where they say, before a
// switchover and after it, with psql, pgx, psycopg2 and JDBC.
func TestDocumentedAccess(t *testing.T) {
	t.Parallel()
	c := upOnNetwork(t)
	c.makeVisits()
	rows := map[string]int{} // what was written, by the database

	before := "pg-test-1"
	t.Run("psql", func(t *testing.T) { c.allLines(t, before, rows) })
	t.Run("drivers", func(t *testing.T) { c.allDrivers(t, before, rows) })
	t.Run("refused", func(t *testing.T) { c.refusedLines(t) })
	t.Run("VIP", func(t *testing.T) { c.vipIsAt(t, before) })
	if t.Failed() {
		return
	}

	after := "pg-test-2"
	if _, err := c.Switchover(t.Context(), after); err != nil {
		t.Fatal(err)
	}
	// Everybody knows it by then; what has to settle is PgBouncer's word on whether its server is a standby.
	eventually(t, afterSwitchover, func(ctx context.Context) error {
		for _, l := range slices.Concat(byName, byVIP, smartClient) {
			if err := c.run(ctx, l, after, rows); err != nil {
				return err
			}
		}
		return nil
	})
	t.Run("VIP after the switchover", func(t *testing.T) { c.vipIsAt(t, after) })
	t.Run("psql after the switchover", func(t *testing.T) { c.allLines(t, after, rows) })
	t.Run("drivers after the switchover", func(t *testing.T) { c.allDrivers(t, after, rows) })

	// Each row that a client was assured of is there, and no other.
	for database, host := range map[string]string{"meta": "10.10.10.10", "test": "10.10.10.12"} {
		conn, err := c.connectFrom(t.Context(), "postgres://dbuser_dba:DBUser.DBA@"+host+":5432/"+database)
		if err != nil {
			t.Fatal(err)
		}
		var n int
		if err := conn.QueryRow(t.Context(), "select count(*) from visits").Scan(&n); err != nil || n != rows[database] {
			t.Errorf("database %s has %d rows, %v; written were %d", database, n, err, rows[database])
		}
		conn.Close(t.Context())
	}
	t.Run("commands", func(t *testing.T) { c.networkCommands(t) })
	t.Run("a lost node", func(t *testing.T) { c.loseNode(t) })
}

// upOnNetwork brings the documents' network up.
func upOnNetwork(t *testing.T) *cluster {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("NOT TESTED: network namespaces need root")
	}
	return up(t, 0, sandbox.Config{Netns: true})
}

// makeVisits makes the table that clients write to.
func (c *cluster) makeVisits() {
	c.t.Helper()
	for _, address := range []string{"10.10.10.10:5432/meta", "10.10.10.11:5432/test"} {
		conn, err := c.connectFrom(c.t.Context(), "postgres://dbuser_dba:DBUser.DBA@"+address)
		if err != nil {
			c.t.Fatal(err)
		}
		if _, err := conn.Exec(c.t.Context(), "create table visits (who text)"); err != nil {
			c.t.Fatal(err)
		}
		conn.Close(c.t.Context())
	}
}

// connectFrom connects as a program on the client does: its network, its names.
func (c *cluster) connectFrom(ctx context.Context, url string) (*pgx.Conn, error) {
	config, err := pgx.ParseConfig(url)
	if err != nil {
		return nil, err
	}
	config.DialFunc = func(ctx context.Context, network, address string) (net.Conn, error) {
		return c.Dial(ctx, sandbox.Client, network, address)
	}
	config.LookupFunc = c.Resolve
	config.DefaultQueryExecMode = pgx.QueryExecModeSimpleProtocol
	return pgx.ConnectConfig(ctx, config)
}

// visit is what every psql is given: who are you, and may I write.
const visit = `\set QUIET on
\pset format unaligned
\pset tuples_only on
select current_setting('sandbox.instance');
insert into visits (who) values (current_user);
\echo :SQLSTATE
`

// typed types a command on the client and gives what it prints and what it complains of.
func (c *cluster) typed(ctx context.Context, command, input string) (out, complaint string, err error) {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	cmd := exec.CommandContext(ctx, "bash", "-c", command)
	var stdout, stderr bytes.Buffer
	cmd.Stdin, cmd.Stdout, cmd.Stderr = strings.NewReader(input), &stdout, &stderr
	cmd.Env = []string{"PATH=" + os.Getenv("PATH"), "HOME=" + c.t.TempDir(), "LANG=C.UTF-8", "PGPASSFILE=" + c.PasswordFile()}
	if err := c.StartOn(sandbox.Client, cmd); err != nil {
		return "", "", err
	}
	err = cmd.Wait()
	return stdout.String(), strings.TrimSpace(stderr.String()), err
}

// right says what is wrong with an answer to who asks: by whom it is and what became of the row.
func right(by, user, leader, instance, became string) error {
	isLeader := instance == leader || instance == "pg-meta-1"
	var who bool
	switch by {
	case theLeader:
		who = instance == leader
	case aReplica:
		who = strings.HasPrefix(instance, "pg-test-") && !isLeader
	case theOffline:
		who = instance == offlineName
	default:
		who = instance == by
	}
	want := readOnly
	if isLeader {
		want = written
		if user == "dbuser_view" {
			want = denied
		}
	}
	if !who || became != want {
		return fmt.Errorf("%s answers, and the row: %s; want %s, and %s (%s leads)", instance, became, by, want, leader)
	}
	return nil
}

// run types a line and checks the answer; rows counts what was written.
func (c *cluster) run(ctx context.Context, l line, leader string, rows map[string]int) error {
	out, complaint, err := c.typed(ctx, l.command, visit)
	instance, became, _ := strings.Cut(strings.TrimSpace(out), "\n")
	if err != nil {
		return fmt.Errorf("%s: %w: %s", l.command, err, complaint)
	}
	// The URL is the same to pgx, which knows its parts.
	url := strings.TrimPrefix(l.command, "psql ")
	config, err := pgconn.ParseConfig(url)
	if err != nil {
		return fmt.Errorf("%s: %w", l.command, err)
	}
	if became == written {
		rows[config.Database]++
	}
	if err := right(l.by, config.User, leader, instance, became); err != nil {
		return fmt.Errorf("%s: %w; psql says: %s", l.command, err, complaint)
	}
	return nil
}

func (c *cluster) allLines(t *testing.T, leader string, rows map[string]int) {
	began, n := time.Now(), 0
	for _, l := range slices.Concat(personalUsers, defaultServices, byName, byVIP, byInstance, byAddress, smartClient) {
		if err := c.run(t.Context(), l, leader, rows); err != nil {
			t.Error(err)
		}
		n++
	}
	t.Logf("%d lines in %.1fs", n, time.Since(began).Seconds())
}

// refusedLines are those that can't work: they have to say why.
func (c *cluster) refusedLines(t *testing.T) {
	for command, want := range map[string]string{
		twoColons:     `invalid integer value ":5438" for connection option "port"`,
		singleOffline: "FATAL:  service pg-meta-offline has no usable server\nDETAIL:  its selector matches no member now",
	} {
		out, complaint, err := c.typed(t.Context(), command, visit)
		var status *exec.ExitError
		if !errors.As(err, &status) || status.ExitCode() != 2 || out != "" || !strings.Contains(complaint, want) {
			t.Errorf("%s: %v, prints %q, says %s; want %s", command, err, out, complaint, want)
		}
	}
	var refusal *pgconn.PgError
	_, err := c.connectFrom(t.Context(), strings.TrimPrefix(singleOffline, "psql "))
	if !errors.As(err, &refusal) || refusal.Code != "57P03" {
		t.Errorf("the offline service of a single node: %v, want 57P03", err)
	}
}

// vipIsAt asserts that one node has pg-test's virtual address, and that the client's ARP cache, which nobody empties, knows.
func (c *cluster) vipIsAt(t *testing.T, leader string) {
	const vip = "10.10.10.3"
	var holders []string
	var own string
	for _, m := range c.Declared() {
		addresses, err := c.Addresses(m.Name)
		if err != nil {
			t.Fatal(err)
		}
		for _, a := range addresses {
			if a.Addr().String() == vip {
				holders = append(holders, m.Name)
			}
		}
		if m.Name == leader {
			own = m.Address
		}
	}
	if !slices.Equal(holders, []string{leader}) {
		t.Errorf("%s is on %v, want %s alone", vip, holders, leader)
	}
	// A connection to the leader's own address has its hardware address in the cache.
	if _, _, err := c.typed(t.Context(), "psql postgres://test@"+own+":5432/test", ""); err != nil {
		t.Error(err)
	}
	known := map[string]string{}
	err := c.On(sandbox.Client, func() error {
		table, err := os.ReadFile("/proc/thread-self/net/arp")
		for entry := range strings.Lines(string(table)) {
			if fields := strings.Fields(entry); len(fields) > 3 {
				known[fields[0]] = fields[3]
			}
		}
		return err
	})
	if err != nil || known[vip] == "" || known[vip] != known[own] {
		t.Errorf("the client has %s at %s and %s at %s (%v)", vip, known[vip], own, known[own], err)
	}
}

// networkCommands uses the network as a person does.
func (c *cluster) networkCommands(t *testing.T) {
	do := func(args ...string) string {
		t.Helper()
		args = append([]string{args[0], "--dir", c.Dir()}, args[1:]...)
		cmd := exec.CommandContext(t.Context(), lab, args...)
		var stderr bytes.Buffer
		cmd.Stderr = &stderr
		out, err := cmd.Output()
		if err != nil {
			t.Errorf("pgporter-lab %s: %v: %s", strings.Join(args, " "), err, &stderr)
		}
		return strings.TrimSpace(string(out))
	}
	const who = "select current_setting('sandbox.instance')"
	for _, step := range []struct {
		want string
		args []string
	}{
		{"pg-test-2", []string{"exec", "client", "--", "psql", "postgres://test@pg-test:5433/test", "-Atc", who}},
		{"pg-test-2", []string{"psql", "primary", "--", "-Atc", who}},
		{"pg-test-3", []string{"exec", "3", "--", "psql", "-Atc", who}},
		{"lost: pg-test-1 > pg-test-3\nlost: pg-test-3 > pg-test-1", []string{"cut", "1", "3"}},
		{"pg-test-2", []string{"exec", "3", "--", "psql", "-h", "10.10.10.12", "-Atc", who}},
		// 124 is timeout(1)'s word for a command that it had to end.
		{"124", []string{"exec", "3", "--", "sh", "-c", "timeout 0.5 psql -h 10.10.10.11 -Atc '" + who + "'; echo $?"}},
		{"the network is whole", []string{"heal"}},
		{"pg-test-1", []string{"exec", "3", "--", "psql", "-h", "10.10.10.11", "-Atc", who}},
		{"unplugged: pg-test-3", []string{"unplug", "3"}},
		{"the network is whole", []string{"heal"}},
	} {
		if got := do(step.args...); got != step.want {
			t.Errorf("pgporter-lab %s prints\n%s\nwant\n%s", strings.Join(step.args, " "), got, step.want)
		}
	}
	if status := do("status"); !strings.HasSuffix(status, "\nthe network is whole") {
		t.Errorf("the status doesn't tell of the network:\n%s", status)
	}
}

// loseNode takes a replica's power: its silence costs no client anything, and it comes back.
func (c *cluster) loseNode(t *testing.T) {
	const lost = "pg-test-1"
	if err := c.Lose(t.Context(), lost); err != nil {
		t.Fatal(err)
	}
	status, err := c.Status(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range status.Processes {
		if gone := strings.HasPrefix(p.What, lost+"/"); gone != (p.State == "ended") {
			t.Errorf("%s is %s", p.What, p.State)
		}
	}
	ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
	defer cancel()
	if _, err := c.connectFrom(ctx, "postgres://test:test@10.10.10.11:5432/test"); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("connecting to a lost node: %v, want no answer at all", err)
	}
	eventually(t, afterFailover, func(ctx context.Context) error {
		for range 4 {
			out, complaint, err := c.typed(ctx, "psql postgres://test@pg-test:5434/test", visit)
			if instance, _, _ := strings.Cut(out, "\n"); err != nil || instance != offlineName {
				return fmt.Errorf("reads without %s are answered by %q: %v %s", lost, instance, err, complaint)
			}
		}
		return nil
	})
	if err := c.Heal(); err != nil {
		t.Fatal(err)
	}
	if err := c.Start(t.Context(), lost+"/patroni", lost+"/pgbouncer", lost+"/pgporter"); err != nil {
		t.Fatal(err)
	}
	eventually(t, afterFailover, func(ctx context.Context) error {
		out, complaint, err := c.typed(ctx, "psql postgres://test@pg-test-1:5434/test", visit)
		if instance, _, _ := strings.Cut(out, "\n"); err != nil || instance != lost {
			return fmt.Errorf("reads are still answered by %q: %v %s", instance, err, complaint)
		}
		return nil
	})
}
