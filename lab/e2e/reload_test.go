package e2e

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"github.com/pgporter/pgporter/internal/admin/api"
)

// credentials makes a token and a certificate for the members of a sandbox, readable by whom it runs as.
func credentials(t *testing.T, prefix string) (dir string) {
	t.Helper()
	dir, err := os.MkdirTemp("", "pgporter-credentials-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	args := []string{"credentials", "--out", dir}
	for seq := 1; seq <= 3; seq++ {
		args = append(args, fmt.Sprintf("%s.%d", prefix, 10+seq))
	}
	if out, err := exec.Command(binary, args...).CombinedOutput(); err != nil {
		t.Fatalf("pgporter credentials: %v\n%s", err, out)
	}
	if os.Geteuid() != 0 {
		return dir
	}
	postgres, err := user.Lookup("postgres")
	if err != nil {
		t.Fatal(err)
	}
	uid, _ := strconv.Atoi(postgres.Uid)
	gid, _ := strconv.Atoi(postgres.Gid)
	for _, name := range []string{"", "control.token", "control.crt", "control.key"} {
		if err := os.Chown(filepath.Join(dir, name), uid, gid); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

// reloadFromElsewhere has one command bring a changed inventory to all nodes of a running cluster, while a session goes
// on, and while a node doesn't answer.
func (s shared) reloadFromElsewhere(t *testing.T) {
	c, dir, token, ca := s.cluster, s.credentials, s.token, s.ca
	one, two, three := c.member(1), c.member(2), c.member(3)
	c.expect(afterFailover, serves{direct, []instance{at(one, false)}})

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
	more := strings.Replace(string(text), "pg_cluster: pg-test\n", "pg_cluster: pg-test\n        pg_services: [ { name: extra, port: 5440, dest: postgres, check: /primary, selector: '[]' } ]\n", 1)
	if more == string(text) {
		t.Fatalf("no line for a service in\n%s", text)
	}
	extra := service{5440, direct.user, direct.password, direct.database}
	onAll := serves{extra, []instance{at(one, false)}}
	gone := func(nodes ...string) {
		t.Helper()
		for _, node := range nodes {
			if i, err := ask(t.Context(), node, extra); err == nil || !strings.Contains(err.Error(), "connection refused") {
				t.Errorf("the service that isn't there, at %s: %s, %v", node, i, err)
			}
		}
	}
	generation := func(node string, want int) *api.Status {
		t.Helper()
		s, err := api.Client{Address: node + ":8432"}.Status(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if s.Config.Generation != want {
			t.Errorf("%s runs configuration %d, want %d", node, s.Config.Generation, want)
		}
		return s
	}
	sessions := []*idleSession{c.hold(one, direct), c.hold(two, direct), c.hold(three, direct)}
	live := func() {
		t.Helper()
		for _, s := range sessions {
			s.lives(t)
		}
	}

	// What would change, and nothing does.
	write(more)
	status, out, problems := runReload(t, path, token, ca, "pg-test", "--dry-run")
	if status != 0 || strings.Count(out, "+ pg-test-extra *:5440 on pg-test-1,pg-test-2,pg-test-3") != 1 || strings.Count(out, "the same changes as on") != 2 {
		t.Fatalf("the dry run: status %d\n%s%s", status, out, problems)
	}
	gone(one, two, three)
	generation(one, 1)

	// The service is on every node.
	if status, out, problems = runReload(t, path, token, ca, "pg-test"); status != 0 || strings.Count(out, "runs configuration 2") != 3 {
		t.Fatalf("status %d\n%s%s", status, out, problems)
	}
	c.expect(afterFailover, onAll)
	live()
	for _, node := range c.nodes() {
		if s := generation(node, 2); s.Config.Source != path || s.Config.Sent == nil || !strings.Contains(s.Config.Sent.Sender, "@") {
			t.Errorf("%s says of its configuration %+v", node, s.Config)
		}
	}

	t.Run("a node with HAProxy", func(t *testing.T) {
		reloadHAProxy(t, c, path, string(text), more, dir, onAll)
		write(more)
	})

	// A token of somebody else's.
	other := filepath.Join(t.TempDir(), "token")
	if err := os.WriteFile(other, []byte(strings.Repeat("x", 64)), 0o600); err != nil {
		t.Fatal(err)
	}
	if status, out, problems = runReload(t, path, other, ca, "pg-test", one); status != 1 || !strings.Contains(problems, "the token isn't this node's") {
		t.Errorf("another token: status %d\n%s%s", status, out, problems)
	}

	// One node is halted: it is named and goes on with what it ran, the others lose the service.
	if err := c.Kill(t.Context(), syscall.SIGSTOP, "pg-test-3/pgporter"); err != nil {
		t.Fatal(err)
	}
	write(string(text))
	status, out, problems = runReload(t, path, token, ca, "pg-test", "--timeout", "3s")
	if status != 1 || !strings.Contains(problems, three+": goes on with what it ran: no answer from "+three+":8433 in time") ||
		!strings.Contains(problems, "1 of 3 nodes of pg-test failed: "+three) || strings.Count(out, "runs configuration 3") != 2 {
		t.Fatalf("one node halted: status %d\n%s%s", status, out, problems)
	}
	gone(one, two)
	if err := c.Start(t.Context(), "pg-test-3/pgporter"); err != nil {
		t.Fatal(err)
	}
	eventually(t, patience, onAll.checkAt(three))
	generation(three, 2)
	live()

	// One node's pgporter is gone.
	sessions[2].Close(t.Context())
	sessions = sessions[:2]
	if err := c.Kill(t.Context(), syscall.SIGKILL, "pg-test-3/pgporter"); err != nil {
		t.Fatal(err)
	}
	if status, out, problems = runReload(t, path, token, ca, "pg-test"); status != 1 || !strings.Contains(problems, "nobody listens at "+three+":8433") || strings.Count(out, "nothing changes") != 2 {
		t.Errorf("one node gone: status %d\n%s%s", status, out, problems)
	}
	live()
	for _, s := range sessions {
		s.Close(t.Context())
	}
}

// reloadHAProxy starts one more pgporter that serves as the first member with HAProxy, and sends it what the others have and
// a service of HAProxy's own.
func reloadHAProxy(t *testing.T, c *cluster, path, before, after, credentials string, extra serves) {
	c.t = t
	bind := c.prefix + ".31"
	haproxy, err := os.MkdirTemp("", "pgporter-ha-") // short enough for sockets
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(haproxy) })
	token, ca := filepath.Join(credentials, "control.token"), filepath.Join(credentials, "control.crt")
	own := filepath.Join(t.TempDir(), "own.yml")
	if err := os.WriteFile(own, []byte(before), 0o600); err != nil {
		t.Fatal(err)
	}
	p := startPorter(t, bind, "--engine", "haproxy", "--haproxy-dir", haproxy, "--inventory", own, "--node", c.member(1), "--stop-timeout", "3s",
		"--control", c.member(1)+":8434", "--control-token-file", token, "--control-tls-cert", ca, "--control-tls-key", filepath.Join(credentials, "control.key"))
	session := c.hold(bind, direct)
	tcp := strings.Replace(after, "pg_cluster: pg-test\n", "pg_cluster: pg-test\n        haproxy_services: [ { name: rest, port: 5441, servers: [ { name: one, ip: "+c.member(1)+", port: 8008 } ] } ]\n", 1)
	if err := os.WriteFile(path, []byte(tcp), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, dryRun := range []string{"--dry-run", "--dry-run=false"} {
		status, out, problems := runReload(t, path, token, ca, "pg-test", c.member(1), "--port", "8434", dryRun)
		if status != 0 || !strings.Contains(out, "+ pg-test-extra *:5440 on pg-test-1,pg-test-2,pg-test-3") || !strings.Contains(out, "+ rest *:5441 on one") {
			t.Fatalf("%s: status %d\n%s%s", dryRun, status, out, problems)
		}
		s, err := p.status(t.Context())
		if want := map[string]int{"--dry-run": 1, "--dry-run=false": 2}[dryRun]; err != nil || s.Config.Generation != want {
			t.Fatalf("%s: it runs configuration %d, %v", dryRun, s.Config.Generation, err)
		}
	}
	eventually(t, patience, extra.checkAt(bind))
	if answer, err := http.Get("http://" + bind + ":5441/health"); err != nil {
		t.Errorf("the service of HAProxy's own: %v", err)
	} else {
		answer.Body.Close()
	}
	session.lives(t)
	session.Close(t.Context())
}

// runReload runs the command and gives its exit status and what it said.
func runReload(t *testing.T, inventory, token, ca string, args ...string) (status int, stdout, stderr string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	cmd := exec.CommandContext(ctx, binary, append([]string{"reload", "--inventory", inventory, "--token-file", token, "--ca", ca}, args...)...)
	var out, problems bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &problems
	err := cmd.Run()
	if ended := (*exec.ExitError)(nil); err != nil && !errors.As(err, &ended) {
		t.Fatal(err)
	}
	return cmd.ProcessState.ExitCode(), out.String(), problems.String()
}
