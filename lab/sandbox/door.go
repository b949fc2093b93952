package sandbox

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"syscall"
)

// doorServices are pg-test's that have a PgBouncer before them, with whom a client's database is named as at the door: the first
// has the database's own name, the others <database>-<service>.
var doorServices = []string{"default", "offline"}

// doored says whether a member's node has a PgBouncer before its pgporter.
func (l layout) doored(m Member) bool { return l.config.Door && m.Cluster == mainCluster }

// doorFile is what a door is started with: what pgporter rendered, and after it what differs where several nodes are one machine.
func (l layout) doorFile(m Member) string { return l.file(m, "door.ini") }

// poolAddress is where a PgBouncer's console is, as pgporter is told: the directory of its socket with the port.
func (l layout) poolAddress(m Member, port int) string {
	return l.socketDir(m) + ":" + strconv.Itoa(port)
}

// steering are the files by which the pgporters take orders.
func (l layout) steering() (token, certificate, key string) {
	return filepath.Join(l.control(), "control.token"), filepath.Join(l.control(), "control.crt"), filepath.Join(l.control(), "control.key")
}

// doorArgs are what a pgporter is told beyond its inventory where there are doors.
func (l layout) doorArgs(m Member) []string {
	token, certificate, key := l.steering()
	args := []string{
		"--control", net.JoinHostPort(m.Address, strconv.Itoa(controlPort)),
		"--control-token-file", token, "--control-tls-cert", certificate, "--control-tls-key", key,
		"--state-dir", l.home(m), "--pool", l.poolAddress(m, pgbouncerPort),
	}
	if l.doored(m) {
		args = append(args, "--pool", l.poolAddress(m, doorPort))
	}
	return args
}

// administrator is a file with the account by which a switchover makes its checkpoints and looks at transactions.
func (l layout) administrator() string { return filepath.Join(l.control(), "admin.account") }

// prepareDoors has pgporter write what doors and orders need.
func (s *Sandbox) prepareDoors(ctx context.Context) error {
	l := s.layout
	binary, err := s.executable(l.config.Binary, "pgporter")
	if err != nil {
		return err
	}
	// The directories are their user's, and so are the secrets in them.
	for _, dir := range []string{l.control(), l.rendered()} {
		if err := os.Mkdir(dir, 0o700); err != nil {
			return err
		}
		if err := s.runAs().own(dir, 0o700); err != nil {
			return err
		}
	}
	for _, args := range [][]string{
		{"credentials", "--inventory", l.inventory(), "--out", l.control()},
		{"render", "--inventory", l.inventory(), "--only", "pgbouncer", "--out", l.rendered()},
	} {
		cmd := exec.CommandContext(ctx, binary, args...)
		cmd.SysProcAttr, cmd.Dir = s.runAs().attributes(), l.config.Dir
		var said bytes.Buffer
		cmd.Stdout, cmd.Stderr = &said, &said
		if err := cmd.Run(); err != nil {
			return fmt.Errorf("pgporter %s: %w\n%s", args[0], err, bytes.TrimSpace(said.Bytes()))
		}
	}
	account := fmt.Sprintf("user = %s\npassword = %s\n", superuser.User, superuser.Password)
	if err := os.WriteFile(l.administrator(), []byte(account), 0o600); err != nil {
		return err
	}
	return s.runAs().own(l.administrator(), 0o600)
}

// Steering are the flags by which pgporter switchover reaches every node of pg-test and its members; empty unless there are doors.
func (s *Sandbox) Steering() []string {
	if !s.layout.config.Door {
		return nil
	}
	token, certificate, _ := s.layout.steering()
	return []string{"--inventory", s.layout.inventory(), "--token-file", token, "--ca", certificate, "--pg-credentials", s.layout.administrator()}
}

// errNoDoor is what needs doors where there are none.
var errNoDoor = refused{errors.New("this sandbox has no doors: only one that was started with --door takes orders for all its nodes")}

// Steer runs pgporter switchover with the flags by which it reaches all (Steering), on the client where nodes have a network of
// their own. stdout and stderr get what it says, and how it ended is the error. When ctx ends it is sent a signal.
func (s *Sandbox) Steer(ctx context.Context, end syscall.Signal, stdout, stderr io.Writer, args ...string) error {
	if !s.layout.config.Door {
		return errNoDoor
	}
	cmd := exec.CommandContext(ctx, s.layout.config.Binary, append(args, s.Steering()...)...)
	cmd.Stdout, cmd.Stderr = stdout, stderr
	// The terminal's Ctrl-C is for who runs this.
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Cancel = func() error { return cmd.Process.Signal(end) }
	cmd.WaitDelay = patiencePatroni
	if !s.layout.config.Netns {
		return cmd.Run()
	}
	if err := s.StartOn(Client, cmd); err != nil {
		return err
	}
	return cmd.Wait()
}

// Doors are how clients reach a service through each node's PgBouncer before it: default writes, offline reads.
func (s *Sandbox) Doors(service string) []Access {
	var all []Access
	for _, m := range s.layout.members {
		if s.layout.doored(m) {
			all = append(all, s.layout.door(m, service))
		}
	}
	return all
}

func (l layout) door(m Member, service string) Access {
	a := Access{Name: m.Cluster + "-" + service + "/" + string(doorKind), Node: m.Name, Host: m.Address, Port: doorPort, User: "test", Password: password("test"), Database: "test", Servable: true}
	if service != doorServices[0] {
		a.Database += "-" + service
	}
	return a
}
