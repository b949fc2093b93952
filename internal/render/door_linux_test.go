package render

import (
	"bufio"
	"fmt"
	"net"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"github.com/pgporter/pgporter/internal/render/pgbouncercfg"
	"github.com/pgporter/pgporter/internal/render/stamp"
)

// machine runs programs as one user, who isn't root: PostgreSQL and PgBouncer refuse that.
type machine struct {
	t          *testing.T
	dir        string
	credential *syscall.Credential
}

func newMachine(t *testing.T) machine {
	t.Helper()
	m := machine{t: t, dir: t.TempDir()}
	if os.Getuid() != 0 {
		return m
	}
	who, err := user.Lookup("postgres")
	if err != nil {
		t.Fatal("as root there has to be another user:", err)
	}
	uid, _ := strconv.Atoi(who.Uid)
	gid, _ := strconv.Atoi(who.Gid)
	m.credential = &syscall.Credential{Uid: uint32(uid), Gid: uint32(gid)}
	if err := os.Chown(m.dir, uid, gid); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(filepath.Dir(m.dir), 0o755); err != nil {
		t.Fatal(err)
	}
	return m
}

func (m machine) command(program string, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(m.t.Context(), program, args...)
	cmd.Dir = m.dir
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: m.credential, Pdeathsig: syscall.SIGKILL}
	return cmd
}

func (m machine) run(program string, args ...string) string {
	m.t.Helper()
	out, err := m.command(program, args...).CombinedOutput()
	if err != nil {
		m.t.Fatalf("%s %s: %v\n%s", program, strings.Join(args, " "), err, out)
	}
	return strings.TrimSpace(string(out))
}

// psql asks for one thing as a user with a password, if there is one.
func (m machine) psql(password, conninfo, query string) (string, error) {
	cmd := m.command("psql", "-XAtw", conninfo, "-c", query)
	cmd.Env = append(os.Environ(), "PGPASSWORD="+password, "PGCONNECT_TIMEOUT=60")
	out, err := cmd.CombinedOutput()
	return strings.TrimSpace(string(out)), err
}

// write has a file be its user's.
func (m machine) write(name, text string) string {
	m.t.Helper()
	path := filepath.Join(m.dir, name)
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		m.t.Fatal(err)
	}
	if m.credential != nil {
		if err := os.Chown(path, int(m.credential.Uid), int(m.credential.Gid)); err != nil {
			m.t.Fatal(err)
		}
	}
	return path
}

// postgres starts a PostgreSQL at a port and gives what runs SQL there as its superuser.
func (m machine) postgres(port int) func(sql string) string {
	m.t.Helper()
	found, err := filepath.Glob("/usr/lib/postgresql/*/bin/initdb")
	if err != nil || len(found) == 0 {
		m.t.Fatal("PostgreSQL (Debian's package postgresql) is needed")
	}
	bin, data := filepath.Dir(found[len(found)-1]), filepath.Join(m.dir, "data")
	m.run(found[len(found)-1], "-D", data, "-U", "postgres", "--auth-local=trust", "--auth-host=scram-sha-256", "--no-sync", "-E", "UTF8", "--locale=C")
	m.run(filepath.Join(bin, "pg_ctl"), "-D", data, "-w", "-l", filepath.Join(m.dir, "postgres.log"), "start",
		"-o", fmt.Sprintf("-c listen_addresses=127.0.0.1 -c port=%d -c unix_socket_directories=%s -c fsync=off", port, m.dir))
	m.t.Cleanup(func() {
		stop := exec.Command(filepath.Join(bin, "pg_ctl"), "-D", data, "-m", "immediate", "stop")
		stop.SysProcAttr = &syscall.SysProcAttr{Credential: m.credential}
		if out, err := stop.CombinedOutput(); err != nil {
			m.t.Errorf("stopping PostgreSQL: %v\n%s", err, out)
		}
	})
	return func(sql string) string {
		m.t.Helper()
		out, err := m.psql("", fmt.Sprintf("host=%s port=%d user=postgres dbname=postgres", m.dir, port), sql)
		if err != nil {
			m.t.Fatalf("%s: %v\n%s", sql, err, out)
		}
		return out
	}
}

// freePort is one that nobody listens at.
func freePort(t *testing.T) int {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().(*net.TCPAddr).Port
}

// The installed PgBouncer starts with the files without a word of complaint, lets users in by each kind of password and has its console at
// the socket for who runs it. In pgporter's place is a PostgreSQL, at the port of the service.
func TestPgBouncerOpensADoor(t *testing.T) {
	pgbouncer, err := exec.LookPath("pgbouncer")
	if err != nil {
		if pgbouncer, err = exec.LookPath("/usr/sbin/pgbouncer"); err != nil {
			t.Fatal("PgBouncer (Debian's package pgbouncer) is needed")
		}
	}
	m := newMachine(t)
	service, door := freePort(t), freePort(t)
	sql := m.postgres(service)
	sql("CREATE ROLE plain LOGIN PASSWORD 'of plain'")
	sql("CREATE ROLE secret LOGIN PASSWORD 'of secret'")
	sql("CREATE DATABASE app")
	made, problems := files(t, fmt.Sprintf(`
pg-test:
  hosts: { 127.0.0.1: { pg_seq: 1, pg_role: primary, pg_port: 1 } }
  vars:
    pg_cluster: pg-test
    pgporter_door_port: %d
    pg_default_services: [ { name: rw, port: %d, ip: 127.0.0.1, dest: postgres, check: /primary, selector: "[]", pool: door }, { name: r-o, port: %[2]d, ip: 127.0.0.2, dest: postgres, check: /replica, selector: "[]", pool: door } ]
    pg_databases: [ { name: app, pool_size: 4, pool_size_min: 1, pool_reserve: 1, pool_connlimit: 9, pool_mode: session } ]
    pg_users: [ { name: plain, password: of plain, pgbouncer: true, pool_connlimit: 3, pool_mode: transaction }, { name: secret, password: '%s', pgbouncer: true } ]
`, door, service, sql("SELECT rolpassword FROM pg_authid WHERE rolname = 'secret'")), Wanted{Kinds: []stamp.Kind{stamp.PgBouncer}})
	if err := problems.Err(); err != nil {
		t.Fatal(err)
	}
	here := strings.NewReplacer(pgbouncercfg.Directory, m.dir, pgbouncercfg.SocketDirectory, m.dir)
	m.write(pgbouncercfg.UserFile, made["127.0.0.1/"+pgbouncercfg.UserFile].Text)
	cmd := m.command(pgbouncer, m.write(pgbouncercfg.File, here.Replace(made["127.0.0.1/"+pgbouncercfg.File].Text)))
	log, err := cmd.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	up, ended := make(chan bool), make(chan string)
	go func() {
		var said strings.Builder
		started := false
		for lines := bufio.NewScanner(log); lines.Scan(); {
			said.WriteString(lines.Text() + "\n")
			if strings.Contains(lines.Text(), "process up") {
				started = true
				up <- true
			}
		}
		if !started {
			up <- false
		}
		ended <- said.String()
	}()
	stop := func() string {
		if err := cmd.Process.Signal(syscall.SIGTERM); err != nil {
			t.Error(err)
		}
		said := <-ended
		cmd.Wait() //nolint:errcheck // It ends by a signal.
		return said
	}
	if !<-up {
		t.Fatalf("PgBouncer doesn't start:\n%s", stop())
	}
	for name, password := range map[string]string{"plain": "of plain", "secret": "of secret"} {
		if out, err := m.psql(password, fmt.Sprintf("host=127.0.0.1 port=%d user=%s dbname=app", door, name), "SELECT current_user, current_database(), inet_server_port()"); err != nil || out != fmt.Sprintf("%s|app|%d", name, service) {
			t.Errorf("%s through the door: %v\n%s", name, err, out)
		}
	}
	if out, err := m.psql("wrong", fmt.Sprintf("host=127.0.0.1 port=%d user=plain dbname=app", door), "SELECT 1"); err == nil {
		t.Errorf("a wrong password opens the door:\n%s", out)
	}
	if out, err := m.psql("", fmt.Sprintf("host=%s port=%d user=pgbouncer dbname=pgbouncer", m.dir, door), "SHOW DATABASES"); err != nil || !strings.Contains(out, fmt.Sprintf("app|127.0.0.1|%d|app|", service)) || !strings.Contains(out, fmt.Sprintf("app-r-o|127.0.0.2|%d|app|", service)) {
		t.Errorf("the console: %v\n%s", err, out)
	}
	if out, err := m.psql("", fmt.Sprintf("host=%s port=%d user=pgbouncer dbname=pgbouncer", m.dir, door), "PAUSE app"); err != nil {
		t.Errorf("the console pauses nothing: %v\n%s", err, out)
	}
	for line := range strings.Lines(stop()) {
		if (strings.Contains(line, "WARNING") || strings.Contains(line, "ERROR") || strings.Contains(line, "FATAL")) && !strings.Contains(line, "password authentication failed") && !strings.Contains(line, "SASL authentication failed") {
			t.Errorf("PgBouncer complains: %s", line)
		}
	}
}
