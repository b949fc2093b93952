package e2e

import (
	"context"
	"encoding/csv"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// balancer is a real HAProxy with master and worker that carries a node's services by files as Pigsty writes them, on an address of
// its own. It checks and switches by itself.
type balancer struct {
	t                    *testing.T
	dir, socket, address string
	cmd                  *exec.Cmd
}

// startBalancer renders the files of a node and starts HAProxy with them.
func startBalancer(t *testing.T, inventory, node, address string) *balancer {
	t.Helper()
	dir, err := os.MkdirTemp("", "pgporter-hap-") // short enough for a socket
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	h := &balancer{t: t, dir: dir, socket: filepath.Join(dir, "s"), address: address}
	rendered := filepath.Join(dir, "rendered")
	if out, err := exec.Command(binary, "render", "--inventory", inventory, "--out", rendered, "--host", node, "--base", "--only", "haproxy").CombinedOutput(); err != nil {
		t.Fatalf("rendering: %v\n%s", err, out)
	}
	if err := errors.Join(os.Chmod(dir, 0o755), os.Mkdir(filepath.Join(dir, "conf.d"), 0o755)); err != nil {
		t.Fatal(err)
	}
	files, err := filepath.Glob(filepath.Join(rendered, node, "*.cfg"))
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range files {
		text, err := os.ReadFile(f)
		if err != nil {
			t.Fatal(err)
		}
		to := filepath.Join(dir, "conf.d", filepath.Base(f))
		edited := strings.ReplaceAll(string(text), "bind *:", "bind "+address+":")
		if filepath.Base(f) == "haproxy.cfg" {
			to = filepath.Join(dir, "haproxy.cfg")
			edited = h.base(edited)
		}
		if err := os.WriteFile(to, []byte(edited), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	h.cmd = exec.Command("haproxy", "-W", "-f", "haproxy.cfg", "-f", "conf.d")
	h.cmd.Dir = dir
	log, err := os.Create(filepath.Join(dir, "log"))
	if err != nil {
		t.Fatal(err)
	}
	h.cmd.Stdout, h.cmd.Stderr = log, log
	if err := h.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- h.cmd.Wait() }()
	t.Cleanup(func() {
		log.Close()
		h.cmd.Process.Signal(syscall.SIGTERM)
		select {
		case <-ended:
		case <-time.After(patience):
			h.cmd.Process.Kill()
			t.Errorf("HAProxy didn't stop: %v", <-ended)
		}
		if t.Failed() {
			text, _ := os.ReadFile(log.Name())
			t.Logf("HAProxy's log:\n%s", text)
		}
	})
	eventually(t, patience, func(ctx context.Context) error {
		_, err := h.servers(ctx)
		return err
	})
	return h
}

var machine = regexp.MustCompile(`(?m)^ +(maxconn|pidfile|stats socket|user|group) .*\n`)

// base makes of a node's haproxy.cfg what doesn't collide with the machine's. The socket is as in Pigsty's own.
func (h *balancer) base(text string) string {
	global, rest, _ := strings.Cut(text, "\ndefaults\n")
	global = machine.ReplaceAllString(global, "")
	global = strings.Replace(global, "\nglobal\n", "\nglobal\n    no strict-limits\n    stats socket "+h.socket+" mode 600 level admin\n    stats socket "+h.weak()+" mode 600 level operator\n", 1)
	if os.Getuid() == 0 {
		global = strings.Replace(global, "\nglobal\n", "\nglobal\n    user nobody\n    group nogroup\n", 1)
	}
	return global + "\ndefaults\n" + rest
}

// weak is a socket that takes no command which ends anything.
func (h *balancer) weak() string { return h.socket + "o" }

// say gives HAProxy a command.
func (h *balancer) say(ctx context.Context, command string) (string, error) {
	var dialer net.Dialer
	conn, err := dialer.DialContext(ctx, "unix", h.socket)
	if err != nil {
		return "", err
	}
	defer conn.Close()
	conn.SetDeadline(time.Now().Add(10 * time.Second))
	if _, err := io.WriteString(conn, command+"\n"); err != nil {
		return "", err
	}
	text, err := io.ReadAll(conn)
	return string(text), err
}

// serverOf is a server of a service.
type serverOf struct{ service, server string }

func (s serverOf) String() string { return s.service + "/" + s.server }

// balanced is what HAProxy does with a server.
type balanced struct {
	takes    bool
	status   string
	sessions string
}

// servers tells of all of them.
func (h *balancer) servers(ctx context.Context) (map[serverOf]balanced, error) {
	text, err := h.say(ctx, "show stat")
	if err != nil {
		return nil, err
	}
	rows, err := csv.NewReader(strings.NewReader(strings.TrimPrefix(strings.TrimSpace(text), "# "))).ReadAll()
	if err != nil || len(rows) == 0 {
		return nil, fmt.Errorf("show stat: %w\n%s", err, text)
	}
	column := func(name string) int { return slices.Index(rows[0], name) }
	up := func(row []string) bool { return strings.HasPrefix(row[column("status")], "UP") }
	regular := map[string]bool{}
	for _, row := range rows[1:] {
		if row[column("act")] == "1" && up(row) && row[column("svname")] != "BACKEND" {
			regular[row[0]] = true
		}
	}
	all := map[serverOf]balanced{}
	backup := map[string]bool{}
	for _, row := range rows[1:] {
		if name := row[column("svname")]; name != "FRONTEND" && name != "BACKEND" {
			takes := up(row) && row[column("act")] == "1"
			if up(row) && row[column("bck")] == "1" && !regular[row[0]] && !backup[row[0]] {
				takes, backup[row[0]] = true, true
			}
			all[serverOf{row[0], name}] = balanced{takes, row[column("status")], row[column("scur")]}
		}
	}
	return all, nil
}

// turning is a server that gets new clients from a moment on, or doesn't.
type turning struct {
	at time.Time
	serverOf
	takes bool
}

// turns are what was seen of servers, in order.
type turns struct {
	mu  sync.Mutex
	all []turning
}

// watchTurns looks at servers again and again and notes which begin and cease to get clients.
func watchTurns(t *testing.T, every time.Duration, look func(context.Context) (map[serverOf]bool, error)) *turns {
	t.Helper()
	seen := &turns{}
	ctx, stop := context.WithCancel(t.Context())
	var watching sync.WaitGroup
	t.Cleanup(func() {
		stop()
		watching.Wait()
	})
	last, err := look(ctx)
	if err != nil {
		t.Fatal(err)
	}
	watching.Go(func() {
		again := time.NewTicker(every)
		defer again.Stop()
		for {
			select {
			case <-ctx.Done():
				return
			case <-again.C:
			}
			now, err := look(ctx)
			if err != nil {
				continue
			}
			seen.mu.Lock()
			for of, takes := range now {
				if last[of] != takes {
					seen.all = append(seen.all, turning{time.Now(), of, takes})
				}
			}
			seen.mu.Unlock()
			last = now
		}
	})
	return seen
}

func (s *turns) since(at time.Time) []turning {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.DeleteFunc(slices.Clone(s.all), func(t turning) bool { return t.at.Before(at) })
}
