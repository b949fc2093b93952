package throughput

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/pgporter/pgporter/lab/bench/subject"
	"github.com/pgporter/pgporter/lab/sandbox"
)

// Whom pgbench connects as, and where. Nobody else is let in by the network, and this one without a password: what is
// measured is not PostgreSQL's arithmetic.
const (
	databaseUser = "bench"
	databaseName = "bench"
)

// scale is pgbench's: 100,000 accounts each. All of it fits into shared buffers.
const scale = 10

// settings are PostgreSQL's for a run: nothing is written, and nothing runs beside the sessions.
const settings = `
listen_addresses = '%s'
port = %d
unix_socket_directories = '%s'
max_connections = 200
shared_buffers = 512MB
fsync = off
autovacuum = off
logging_collector = off
log_checkpoints = off
`

// account is whom PostgreSQL runs as: it refuses to run as root, and is then given to the account of Debian's packages.
func account() (*syscall.Credential, error) {
	if os.Geteuid() != 0 {
		return nil, nil
	}
	u, err := user.Lookup("postgres")
	if err != nil {
		return nil, fmt.Errorf("PostgreSQL refuses to run as root, and there is no other user for it: %w", err)
	}
	uid, uidErr := strconv.ParseUint(u.Uid, 10, 32)
	gid, gidErr := strconv.ParseUint(u.Gid, 10, 32)
	if err := errors.Join(uidErr, gidErr); err != nil {
		return nil, fmt.Errorf("user postgres: %w", err)
	}
	return &syscall.Credential{Uid: uint32(uid), Gid: uint32(gid), Groups: []uint32{uint32(gid)}}, nil
}

// startPostgres makes a PostgreSQL below dir, with pgbench's tables, and has it listen at an address until Stop.
func startPostgres(ctx context.Context, dir, address string, port int) (*subject.Process, error) {
	bin, _, err := sandbox.PostgresBin()
	if err != nil {
		return nil, err
	}
	who, err := account()
	if err != nil {
		return nil, err
	}
	own := filepath.Join(dir, "postgres")
	if err := os.Mkdir(own, 0o700); err != nil {
		return nil, err
	}
	if who != nil {
		if err := os.Chown(own, int(who.Uid), int(who.Gid)); err != nil {
			return nil, err
		}
	}
	data := filepath.Join(own, "data")
	command := func(name string, args ...string) *exec.Cmd {
		c := exec.CommandContext(ctx, filepath.Join(bin, name), args...)
		c.Dir = own
		c.SysProcAttr = &syscall.SysProcAttr{Credential: who}
		return c
	}
	run := func(name string, args ...string) error {
		if out, err := command(name, args...).CombinedOutput(); err != nil {
			return fmt.Errorf("%s: %w\n%s", name, err, out)
		}
		return nil
	}
	if err := run("initdb", "--pgdata", data, "--auth-local", "peer", "--auth-host", "reject", "--no-sync", "--encoding", "UTF8", "--locale", "C"); err != nil {
		return nil, err
	}
	if err := appendTo(filepath.Join(data, "postgresql.conf"), fmt.Sprintf(settings, address, port, own)); err != nil {
		return nil, err
	}
	// Proxies connect from any loopback address.
	rules := fmt.Sprintf("local all all peer\nhost %s %s 127.0.0.0/8 trust\n", databaseName, databaseUser)
	if err := os.WriteFile(filepath.Join(data, "pg_hba.conf"), []byte(rules), 0o600); err != nil {
		return nil, err
	}
	server := exec.Command(filepath.Join(bin, "postgres"), "-D", data)
	server.SysProcAttr = &syscall.SysProcAttr{Credential: who}
	// SIGINT is PostgreSQL's fast shutdown.
	p, err := subject.Start(server, filepath.Join(dir, "postgres.log"), syscall.SIGINT)
	if err != nil {
		return nil, err
	}
	made := func() error {
		err := p.Await(ctx, 20*time.Second, func(ctx context.Context) error {
			return subject.Listens(ctx, net.JoinHostPort(address, strconv.Itoa(port)))
		})
		if err != nil {
			return err
		}
		at := strconv.Itoa(port)
		// It listens a moment before it lets anybody in.
		err = p.Await(ctx, 20*time.Second, func(context.Context) error {
			return run("psql", "-X", "-q", "-h", own, "-p", at, "-d", "postgres", "-c", "select")
		})
		if err != nil {
			return err
		}
		for _, sql := range []string{"create role " + databaseUser + " login", "create database " + databaseName + " owner " + databaseUser} {
			if err := run("psql", "-X", "-q", "-h", own, "-p", at, "-d", "postgres", "-c", sql); err != nil {
				return err
			}
		}
		fill := exec.CommandContext(ctx, filepath.Join(bin, "pgbench"), "--initialize", "--scale", strconv.Itoa(scale), "--quiet",
			"--host", address, "--port", at, "--username", databaseUser, databaseName)
		if out, err := fill.CombinedOutput(); err != nil {
			return fmt.Errorf("filling pgbench's tables: %w\n%s", err, out)
		}
		return nil
	}
	if err := made(); err != nil {
		p.Stop()
		return nil, err
	}
	return p, nil
}

func appendTo(path, text string) error {
	f, err := os.OpenFile(path, os.O_APPEND|os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	_, err = f.WriteString(strings.TrimLeft(text, "\n"))
	return errors.Join(err, f.Close())
}
