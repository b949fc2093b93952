package e2e

import (
	"bytes"
	"context"
	"encoding/json"
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

	"github.com/jackc/pgx/v5"

	"github.com/pgporter/pgporter/lab/sandbox"
)

// guest is a client of a service, from an address of its own.
type guest struct {
	*pgx.Conn
	host, node string
	service
	// client is its own end of the connection, backend the process at the other end; 0 while it has none of its own.
	client  string
	member  string
	backend int
}

// guest comes to a service at a node from an address, over TLS with SCRAM.
func (c *cluster) guest(ctx context.Context, from, node string, s service) (*guest, error) {
	config, err := pgx.ParseConfig(fmt.Sprintf("postgres://%s:%s@%s:%d/%s?sslmode=require&connect_timeout=10&default_query_exec_mode=simple_protocol", s.user, s.password, node, s.port, s.database))
	if err != nil {
		return nil, err
	}
	config.RuntimeParams["application_name"] = fmt.Sprintf("%s at %s:%d", from, node, s.port)
	config.DialFunc = (&net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP(from)}}).DialContext
	conn, err := pgx.ConnectConfig(ctx, config)
	if err != nil {
		return nil, err
	}
	g := &guest{Conn: conn, host: from, node: node, service: s, client: conn.PgConn().Conn().LocalAddr().String()}
	// In a transaction it has its backend for itself, also behind PgBouncer.
	_, err = conn.Exec(ctx, "begin")
	if err == nil {
		var address string
		err = conn.QueryRow(ctx, "select pg_backend_pid(), coalesce(host(inet_server_addr()), '')").Scan(&g.backend, &address)
		for _, m := range c.Declared() {
			if m.Address == address {
				g.member = m.Name
			}
		}
	}
	return g, err
}

// told is a row of `pgporter who -o json`.
type told struct {
	Member, Route, Client, Service, Node, Database, User, Application, State, Query, Uncertain string
	PID                                                                                        int
	Since                                                                                      *time.Time
	In                                                                                         int64 `json:"bytes_to_server"`
	Out                                                                                        int64 `json:"bytes_to_client"`
}

type toldAll struct {
	Cluster  string
	Rows     []told
	Problems []string
}

func (a toldAll) of(member string, pid int) (told, bool) {
	i := slices.IndexFunc(a.Rows, func(r told) bool { return r.Member == member && r.PID == pid })
	if i < 0 {
		return told{}, false
	}
	return a.Rows[i], true
}

// asker runs `pgporter who` for a cluster.
type asker struct {
	c       *cluster
	flags   []string
	secrets []string
}

// run gives what it prints, and its exit status. No password is in it.
func (a asker) run(t *testing.T, flags ...string) (stdout, stderr string, status int) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), binary, slices.Concat([]string{"who", "--inventory", a.c.Inventory(), "--cluster", "pg-test"}, a.flags, flags)...)
	cmd.Env = append(os.Environ(), "PGPASSWORD=", "PGPASSFILE=/dev/null", "PGSSLMODE=require")
	var out, problems bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &problems
	err := cmd.Run()
	var ended *exec.ExitError
	if err != nil && !errors.As(err, &ended) {
		t.Fatal(err)
	}
	for _, secret := range a.secrets {
		if strings.Contains(out.String()+problems.String(), secret) {
			t.Fatalf("who %v shows a secret:\n%s\n%s", flags, &out, &problems)
		}
	}
	return out.String(), problems.String(), cmd.ProcessState.ExitCode()
}

func (a asker) ask(t *testing.T, flags ...string) (toldAll, int) {
	t.Helper()
	out, problems, status := a.run(t, append(flags, "-o", "json")...)
	var all toldAll
	if err := json.Unmarshal([]byte(out), &all); err != nil {
		t.Fatalf("%v: %s\n%s", err, out, problems)
	}
	return all, status
}

// isRight holds what was told of a client with its own backend against what the client knows itself.
func (g *guest) isRight(t *testing.T, all toldAll) {
	t.Helper()
	r, found := all.of(g.member, g.backend)
	route := "pgporter, pool"
	if g.port == direct.port || g.port == offline.port {
		route = "pgporter"
	}
	names := map[int]string{5433: "pg-test-primary", 5434: "pg-test-replica", 5436: "pg-test-default", 5438: "pg-test-offline"}
	switch {
	case !found:
		t.Errorf("%s of %s isn't told of: backend %d of %s, client %s", g.Config().RuntimeParams["application_name"], g.user, g.backend, g.member, g.client)
	case r.Client != g.client || r.Node != g.node || r.Service != names[g.port] || r.Route != route || r.Database != g.database || r.User != g.user || r.Application != g.Config().RuntimeParams["application_name"] ||
		r.State != "idle in transaction" || r.Uncertain != "" || r.Since == nil || time.Since(*r.Since) > 5*time.Minute || r.In == 0 || r.Out == 0 || r.Query != "":
		t.Errorf("%s at %s, backend %d of %s: told is %+v", g.client, g.node, g.backend, g.member, r)
	}
}

// TestWho has clients on three hosts come through three nodes, pooled and straight, over TLS with SCRAM, and each backend's client is told
// as the client knows itself; before a switchover and after it. What is ended is what was meant.
func TestWho(t *testing.T) {
	t.Parallel()
	const octet = 85
	credentials := credentials(t, fmt.Sprintf("127.0.%d", octet))
	token, ca := filepath.Join(credentials, "control.token"), filepath.Join(credentials, "control.crt")
	c := up(t, octet, sandbox.Config{Fall: patient, TLS: true, BinaryArgs: []string{
		"--control", "*", "--control-token-file", token, "--control-tls-cert", ca, "--control-tls-key", filepath.Join(credentials, "control.key"),
	}})
	settled := []serves{{primary, []instance{at(c.member(1), false)}}, {replica, []instance{at(c.member(2), true), at(c.member(3), true)}}, {direct, []instance{at(c.member(1), false)}}}
	c.expect(afterFailover, settled...)

	account := func(user, password string) string {
		path := filepath.Join(t.TempDir(), user)
		if err := os.WriteFile(path, []byte(fmt.Sprintf("user = %s\npassword = %s\n", user, password)), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	secret, err := os.ReadFile(token)
	if err != nil {
		t.Fatal(err)
	}
	nodes := []string{"--token-file", token, "--ca", ca}
	a := asker{c, append(nodes, "--pg-credentials", account(direct.user, direct.password)), []string{"DBUser.", strings.TrimSpace(string(secret))}}

	// From three hosts through three nodes, each kind of service.
	arrive := func(part *testing.T) []*guest {
		part.Helper()
		var guests []*guest
		for host := 1; host <= 3; host++ {
			for _, node := range c.nodes() {
				for _, s := range []service{primary, replica, direct} {
					g, err := c.guest(t.Context(), fmt.Sprintf("127.1.%d.%d", octet, host), node, s)
					if err != nil {
						part.Fatalf("%s:%d: %v", node, s.port, err)
					}
					// Later parts need them too.
					t.Cleanup(func() { g.Close(context.Background()) })
					guests = append(guests, g)
				}
			}
		}
		return guests
	}
	check := func(t *testing.T, guests []*guest) {
		t.Helper()
		all, status := a.ask(t)
		if status != 0 || len(all.Problems) > 0 {
			t.Errorf("status %d, %v", status, all.Problems)
		}
		for _, g := range guests {
			g.isRight(t, all)
		}
	}

	var guests []*guest
	t.Run("every client", func(t *testing.T) {
		guests = arrive(t)
		check(t, guests)

		past, err := connect(t.Context(), c.member(1), service{5432, direct.user, direct.password, direct.database})
		if err != nil {
			t.Fatal(err)
		}
		defer past.Close(t.Context())
		// One that isn't in a transaction any more.
		idle := guests[0]
		if _, err := idle.Exec(t.Context(), "commit"); err != nil {
			t.Fatal(err)
		}
		all, _ := a.ask(t)
		row := func(client string) told {
			i := slices.IndexFunc(all.Rows, func(r told) bool { return r.Client == client })
			if i < 0 {
				t.Errorf("nothing is told of %s", client)
				return told{}
			}
			return all.Rows[i]
		}
		if r := row(past.PgConn().Conn().LocalAddr().String()); r.Route != "direct" || r.Service != "" || r.PID == 0 {
			t.Errorf("who comes past pgporter is told as %+v", r)
		}
		if r := row(idle.client); r.Route != "pgporter, pool" || r.PID != 0 || r.State != "idle in the pool" || r.Node != idle.node || r.Application == "" {
			t.Errorf("who has no backend now is told as %+v", r)
		}
		if !slices.ContainsFunc(all.Rows, func(r told) bool { return r.Route == "replication" && r.Client != "" }) {
			t.Error("no replica is told of")
		}
	})
	t.Run("filters", func(t *testing.T) {
		g := guests[len(guests)-1]
		for _, flags := range [][]string{{"--client", g.host, "--service", "default"}, {"--client", g.host + "/32", "--user", g.user}, {"--pid", fmt.Sprint(g.backend), "--member", g.member}} {
			all, _ := a.ask(t, flags...)
			if _, found := all.of(g.member, g.backend); !found || slices.ContainsFunc(all.Rows, func(r told) bool { return !strings.HasPrefix(r.Client, g.host+":") }) {
				t.Errorf("%v: %+v", flags, all.Rows)
			}
		}
		all, _ := a.ask(t, "--pid", fmt.Sprint(g.backend), "--member", g.member, "--query")
		if r, _ := all.of(g.member, g.backend); !strings.Contains(r.Query, "inet_server_addr") {
			t.Errorf("with --query: %+v", r)
		}
	})
	t.Run("kill", func(t *testing.T) {
		if _, problems, status := a.run(t, "--kill", "--yes"); status != 2 || !strings.Contains(problems, "say whom") {
			t.Errorf("all are ended: %d, %s", status, problems)
		}
		if _, problems, status := a.run(t, "--kill", "--client", guests[1].host); status != 2 || !strings.Contains(problems, "nobody answers") {
			t.Errorf("without being asked: %d, %s", status, problems)
		}
		fresh := arrive(t)
		chosen := fresh[0].host
		shown, problems, status := a.run(t, "--kill", "--yes", "--client", chosen, "--service", "default")
		shown2, problems2, status2 := a.run(t, "--kill", "--yes", "--client", chosen, "--service", "primary")
		if status != 0 || status2 != 0 {
			t.Errorf("%d, %d\n%s%s%s%s", status, status2, shown, problems, shown2, problems2)
		}
		for _, g := range fresh {
			err := g.Ping(t.Context())
			meant := g.host == chosen && (g.port == direct.port || g.port == primary.port)
			if (err != nil) != meant {
				t.Errorf("%s at %s:%d: %v", g.client, g.node, g.port, err)
			}
		}
		for _, g := range guests {
			meant := g.host == chosen && (g.port == direct.port || g.port == primary.port)
			if err := g.Ping(t.Context()); (err != nil) != meant {
				t.Errorf("%s at %s:%d, of those before: %v", g.client, g.node, g.port, err)
			}
			g.Close(t.Context())
		}
	})
	t.Run("after a switchover", func(t *testing.T) {
		if _, err := c.Switchover(t.Context(), "pg-test-2"); err != nil {
			t.Fatal(err)
		}
		c.expect(afterFailover, serves{direct, []instance{at(c.member(2), false)}}, serves{replica, []instance{at(c.member(1), true), at(c.member(3), true)}}, serves{primary, []instance{at(c.member(2), false)}})
		check(t, arrive(t))
	})
	t.Run("PgBouncer over a Unix socket", func(t *testing.T) {
		two := c.Declared()[1]
		path := filepath.Join(c.Config().Dir, two.Name, "pgbouncer.ini")
		text, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		_, sockets, _ := strings.Cut(string(text), "unix_socket_dir = ")
		sockets, _, _ = strings.Cut(sockets, "\n")
		over := strings.ReplaceAll(string(text), "host="+two.Address, "host="+sockets)
		if over == string(text) {
			t.Fatalf("no database in %s", text)
		}
		if err := errors.Join(os.WriteFile(path, []byte(over), 0o644), c.Kill(t.Context(), syscall.SIGKILL, two.Name+"/pgbouncer")); err != nil {
			t.Fatal(err)
		}
		// The kernel may have its port for a moment more.
		eventually(t, patience, func(ctx context.Context) error { return c.Start(ctx, two.Name+"/pgbouncer") })
		var guests []*guest
		eventually(t, afterFailover, func(ctx context.Context) error {
			for _, node := range c.nodes() {
				g, err := c.guest(ctx, fmt.Sprintf("127.1.%d.4", octet), node, primary)
				if err != nil {
					return err
				}
				t.Cleanup(func() { g.Close(context.Background()) })
				if g.member != "" {
					return fmt.Errorf("PgBouncer of %s isn't the one behind the service", two.Name)
				}
				g.member = two.Name
				guests = append(guests, g)
			}
			return nil
		})
		check(t, guests)
	})
	t.Run("who doesn't tell", func(t *testing.T) {
		meek := asker{c, append(slices.Clone(nodes), "--pg-credentials", account(offline.user, offline.password)), a.secrets}
		all, status := meek.ask(t)
		if status != 1 || !strings.Contains(strings.Join(all.Problems, "\n"), "pg_monitor") {
			t.Errorf("an account without rights: %d, %v", status, all.Problems)
		}
		if err := c.Kill(t.Context(), syscall.SIGKILL, "pg-test-3/pgporter"); err != nil {
			t.Fatal(err)
		}
		all, status = a.ask(t)
		if status != 1 || len(all.Problems) != 1 || !strings.Contains(all.Problems[0], c.member(3)) || len(all.Rows) == 0 {
			t.Errorf("a node that isn't there: %d, %v", status, all.Problems)
		}
		eventually(t, patience, func(ctx context.Context) error { return c.Start(ctx, "pg-test-3/pgporter") })
	})
}
