package e2e

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/pgporter/pgporter/lab/sandbox"
)

// allBytes has PostgreSQL's own programs do through the services what nobody may alter between the ends: TLS, replication, change
// capture, bulk loads, dumps. What comes out is compared with what the server itself has.
func allBytes(t *testing.T) {
	c := up(t, 64, sandbox.Config{Members: 2, TLS: true, Fall: patient})
	one, two := c.member(1), c.member(2)
	c.expect(afterFailover, serves{primary, []instance{at(one, false)}}, serves{replica, []instance{at(two, true)}})

	// These lie idle while everything else is done.
	var listeners []*listener
	for _, node := range []string{one, two} {
		listeners = append(listeners, c.listen(t, node, "sslmode=disable"), c.listen(t, node, c.verified()))
	}
	c.notifyAll(t, listeners, "first")

	steps := []struct {
		name string
		do   func(*testing.T)
	}{
		{"TLS", c.tlsSessions},
		{"GSSENCRequest", c.gssRequest},
		{"pgbench", c.everyBench},
		{"large objects", c.largeObjects},
		{"logical decoding", c.recvlogical},
		{"pg_dump into psql", c.dumpAndRestore},
		{"COPY in", c.copyIn},
		{"COPY out", c.copyOut},
	}
	c.slots(t)
	t.Run("pg_receivewal", func(t *testing.T) {
		received := c.receivewal(t)
		for _, s := range steps {
			began := time.Now()
			t.Run(s.name, s.do)
			t.Logf("%s: %.1fs", s.name, time.Since(began).Seconds())
		}
		received.compare(t)
	})
	t.Run("pg_basebackup", c.basebackup)

	// PostgreSQL's longest payload is 7,999 bytes.
	c.notifyAll(t, listeners, strings.Repeat("7", 7999))
	t.Run("pg_terminate_backend", func(t *testing.T) {
		for _, l := range []*listener{listeners[0], listeners[len(listeners)-1]} {
			if out, err := c.psql(t.Context(), one, direct, "", fmt.Sprintf("select pg_terminate_backend(%d)", l.PgConn().PID())); out != "t" || err != nil {
				t.Fatal(out, err)
			}
			l.hearsItsServerDie(t)
		}
	})
	t.Run("a planned switchover", func(t *testing.T) { c.lastError(t, listeners[1:len(listeners)-1]) })
}

// verified asks for TLS, the server's certificate and that it is for the address that was connected to.
func (c *cluster) verified() string { return "sslmode=verify-full sslrootcert=" + c.Certificate() }

// conninfo is libpq's keywords for a service at a node; what is in more overrides it.
func (s service) conninfo(node, more string) string {
	return fmt.Sprintf("host=%s port=%d user=%s dbname=%s sslmode=disable connect_timeout=10 %s", node, s.port, s.user, s.database, more)
}

// tool prepares one of PostgreSQL's programs that logs in as a service's user. Nothing of the caller's environment reaches it.
func tool(ctx context.Context, s service, name string, args ...string) *exec.Cmd {
	bin, _, err := sandbox.PostgresBin()
	if err != nil {
		panic(err) // no cluster starts without it
	}
	cmd := exec.CommandContext(ctx, filepath.Join(bin, name), args...)
	cmd.Env = []string{"PATH=" + os.Getenv("PATH"), "HOME=/nonexistent", "LANG=C.UTF-8", "PGPASSWORD=" + s.password}
	return cmd
}

// run runs a program to its end and gives what it prints; what it complains of is in the error.
func run(cmd *exec.Cmd) (string, error) {
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	if err := cmd.Run(); err != nil {
		return stdout.String(), fmt.Errorf("%s: %w: %s", filepath.Base(cmd.Path), err, strings.TrimSpace(stderr.String()))
	}
	return stdout.String(), nil
}

// psql gives what commands print, each given as with -c.
func (c *cluster) psql(ctx context.Context, node string, s service, more string, commands ...string) (string, error) {
	args := []string{"-X", "-q", "-A", "-t", "-v", "ON_ERROR_STOP=1", "-d", s.conninfo(node, more)}
	for _, command := range commands {
		args = append(args, "-c", command)
	}
	out, err := run(tool(ctx, s, "psql", args...))
	return strings.TrimSpace(out), err
}

// server is a member's PostgreSQL itself, with no pgporter before it.
var server = service{5432, direct.user, direct.password, direct.database}

// ask is psql that has to succeed.
func (c *cluster) ask(t *testing.T, node string, s service, command string) string {
	t.Helper()
	out, err := c.psql(t.Context(), node, s, "", command)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// tlsSessions opens sessions with every degree of distrust. Channel binding shows that nobody between the ends ended the TLS.
func (c *cluster) tlsSessions(t *testing.T) {
	another := filepath.Join(credentials(t, c.prefix), "control.crt")
	const encrypted = "SSL connection (protocol: TLSv1.3"
	for _, w := range []struct {
		service
		more string
		want string // what psql says
	}{
		{direct, "sslmode=require", encrypted},
		{direct, "sslmode=prefer", encrypted},
		{direct, "sslmode=verify-ca sslrootcert=" + c.Certificate(), encrypted},
		{direct, c.verified(), encrypted},
		{direct, c.verified() + " channel_binding=require", encrypted},
		{direct, "sslmode=verify-ca sslrootcert=" + another, "certificate verify failed"},
		{direct, "sslmode=disable channel_binding=require", "channel binding required, but SSL not in use"},
		{primary, "sslmode=require", encrypted},
		{primary, "sslmode=verify-ca sslrootcert=" + c.Certificate(), encrypted},
		{primary, c.verified(), encrypted},
		{primary, "sslmode=verify-ca sslrootcert=" + another, "certificate verify failed"},
		// It is the pool that ends this TLS, and PgBouncer has no channel binding.
		{primary, c.verified() + " channel_binding=require", "channel binding is required, but server did not offer"},
		{replica, c.verified(), encrypted},
		{offline, c.verified() + " channel_binding=require", encrypted},
	} {
		for _, node := range c.nodes() {
			out, err := c.psql(t.Context(), node, w.service, w.more, `\conninfo`, "select 'ssl ' || ssl from pg_stat_ssl where pid = pg_backend_pid()")
			if err != nil {
				out += err.Error()
			}
			if !strings.Contains(out, w.want) || (err == nil) != (w.want == encrypted) {
				t.Errorf("port %d of %s with %s: %s; want %q", w.port, node, w.more, out, w.want)
			}
			// Behind a pool it is another connection that the server tells of.
			if pooled := w.port == primary.port || w.port == replica.port; err == nil && !pooled && !strings.HasSuffix(out, "ssl true") {
				t.Errorf("port %d of %s with %s: the server says %s", w.port, node, w.more, out)
			}
		}
	}
}

// What a client may begin with (PostgreSQL's documentation, "Message Formats"), and what is answered.
var (
	askForGSS = []byte{0, 0, 0, 8, 0x04, 0xd2, 0x16, 0x30}
	askForTLS = []byte{0, 0, 0, 8, 0x04, 0xd2, 0x16, 0x2f}
)

// gssRequest is how a client with Kerberos's tickets begins. Debian's PostgreSQL would go on with it, PgBouncer declines; TLS is
// agreed on after that on the same connection.
func (c *cluster) gssRequest(t *testing.T) {
	roots := x509.NewCertPool()
	text, err := os.ReadFile(c.Certificate())
	if err != nil || !roots.AppendCertsFromPEM(text) {
		t.Fatalf("no certificate in %s, %v", text, err)
	}
	block, _ := pem.Decode(text)
	for _, w := range []struct {
		service
		requests [][]byte
		answers  string
	}{
		{server, [][]byte{askForGSS}, "G"},
		{direct, [][]byte{askForGSS}, "G"},
		{direct, [][]byte{askForTLS}, "S"},
		{primary, [][]byte{askForGSS, askForTLS}, "NS"},
		{replica, [][]byte{askForTLS}, "S"},
	} {
		for _, node := range c.nodes() {
			if err := w.asked(t.Context(), node, w.requests, w.answers, &tls.Config{RootCAs: roots, ServerName: node}, block.Bytes); err != nil {
				t.Errorf("port %d of %s: %v", w.port, node, err)
			}
		}
	}
}

// asked makes requests on one connection. If the last one is answered with S, TLS has to follow, with the server's certificate.
func (s service) asked(ctx context.Context, node string, requests [][]byte, answers string, config *tls.Config, certificate []byte) error {
	conn, err := net.DialTimeout("tcp", net.JoinHostPort(node, strconv.Itoa(s.port)), patience)
	if err != nil {
		return err
	}
	defer conn.Close()
	if err := conn.SetDeadline(time.Now().Add(patience)); err != nil {
		return err
	}
	var answer [1]byte
	for i, request := range requests {
		if _, err := conn.Write(request); err != nil {
			return err
		}
		if _, err := io.ReadFull(conn, answer[:]); err != nil || answer[0] != answers[i] {
			return fmt.Errorf("% x is answered with %q, %w; want %q", request, answer, err, answers[i])
		}
	}
	if answer[0] != 'S' {
		return nil
	}
	secure := tls.Client(conn, config)
	if err := secure.HandshakeContext(ctx); err != nil {
		return err
	}
	if !bytes.Equal(secure.ConnectionState().PeerCertificates[0].Raw, certificate) {
		return errors.New("it isn't the server's certificate that is shown")
	}
	return nil
}

// declinesTLS asks for TLS where servers have none: they say so themselves.
func (c *cluster) declinesTLS(t *testing.T) {
	t.Helper()
	for _, s := range []service{primary, direct} {
		out, err := c.psql(t.Context(), c.member(2), s, "sslmode=require", `\conninfo`)
		if err == nil || !strings.Contains(err.Error(), "server does not support SSL, but SSL was required") {
			t.Errorf("port %d with sslmode=require: %s, %v", s.port, out, err)
		}
		if out, err := c.psql(t.Context(), c.member(2), s, "sslmode=prefer", "select 'in the clear'"); err != nil || out != "in the clear" {
			t.Errorf("port %d with sslmode=prefer: %s, %v", s.port, out, err)
		}
	}
}

// listener is a session that waits for notifications.
type listener struct {
	*pgx.Conn
	address string
}

const channel = "bytes"

func (c *cluster) listen(t *testing.T, node, more string) *listener {
	t.Helper()
	config, err := pgx.ParseConfig(direct.conninfo(node, "password="+direct.password+" "+more))
	if err != nil {
		t.Fatal(err)
	}
	conn, err := pgx.ConnectConfig(t.Context(), config)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close(context.Background()) })
	if _, err := conn.Exec(t.Context(), "listen "+channel); err != nil {
		t.Fatal(err)
	}
	return &listener{conn, node + " with " + more}
}

// notifyAll notifies through the pooled service; every listener hears it.
func (c *cluster) notifyAll(t *testing.T, all []*listener, payload string) {
	t.Helper()
	c.ask(t, c.member(2), primary, fmt.Sprintf("select pg_notify('%s', '%s')", channel, payload))
	for _, l := range all {
		ctx, cancel := context.WithTimeout(t.Context(), patience)
		heard, err := l.WaitForNotification(ctx)
		cancel()
		if err != nil || heard.Channel != channel || heard.Payload != payload {
			t.Errorf("the listener on %s: %v, %v", l.address, heard, err)
		}
	}
}

// hearsItsServerDie fails the test unless the last that the session hears is the server's own word.
func (l *listener) hearsItsServerDie(t *testing.T) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), sessionsEnd)
	defer cancel()
	heard, err := l.WaitForNotification(ctx)
	var last *pgconn.PgError
	if !errors.As(err, &last) || last.Code != "57P01" || last.Message != "terminating connection due to administrator command" {
		t.Errorf("the listener on %s: %v, %v; want FATAL 57P01", l.address, heard, err)
	}
}

// lastError switches over under sessions that lie idle on the old primary: each reads from the server why it ends, also where
// the node's pgporter finds the server demoted at that moment.
func (c *cluster) lastError(t *testing.T, listeners []*listener) {
	for range 8 {
		for _, node := range c.nodes() {
			listeners = append(listeners, c.listen(t, node, "sslmode=disable"), c.listen(t, node, c.verified()))
		}
	}
	idle := c.idlePsql(t, c.member(2))
	if _, err := c.Switchover(t.Context(), "pg-test-2"); err != nil {
		t.Fatal(err)
	}
	for _, l := range listeners {
		l.hearsItsServerDie(t)
	}
	// psql looks at its connection only when it has something to ask.
	if said := idle("select 'still there';\n"); !strings.Contains(said, "FATAL:  terminating connection due to administrator command") || strings.Contains(said, "still there\n") {
		t.Errorf("psql says %s", said)
	}
	c.expect(afterSwitchover, serves{direct, []instance{at(c.member(2), false)}})
}

// idlePsql starts a psql that listens. What comes back types something into it, ends its input and gives all that it said.
func (c *cluster) idlePsql(t *testing.T, node string) func(input string) string {
	t.Helper()
	p := &porter{t: t, cmd: tool(t.Context(), direct, "psql", "-X", "-q", "-A", "-t", "-d", direct.conninfo(node, c.verified()))}
	p.cmd.Stdout, p.cmd.Stderr = p, p
	in, err := p.cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := p.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	say := func(text string) {
		if _, err := io.WriteString(in, text); err != nil {
			t.Errorf("psql: %v", err)
		}
	}
	say("listen " + channel + ";\n\\echo it listens\n")
	eventually(t, patience, func(context.Context) error {
		if !strings.Contains(p.logged(), "it listens\n") {
			return fmt.Errorf("psql says %q", p.logged())
		}
		return nil
	})
	return func(input string) string {
		say(input)
		in.Close()
		// It fails, as its last command did.
		_ = p.cmd.Wait()
		return p.logged()
	}
}
