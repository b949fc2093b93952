package bench

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"
)

// services declares the two services that write with options of their own, to be bound to an address.
const services = `    pg_default_services:
      - { name: primary, port: 5433, ip: %[1]s, dest: default, check: /primary, selector: "[]", options: "%[2]s" }
      - { name: default, port: 5436, ip: %[1]s, dest: postgres, check: /primary, selector: "[]", options: "%[2]s" }
`

// haproxy is a HAProxy of the benchmark's own.
type haproxy struct {
	command *exec.Cmd
	ended   chan struct{}
	failed  error
	log     string
}

// startHAProxy renders the cluster's services with pgporter, on another address and with other options, and has a HAProxy
// carry them until stop. It checks and switches by itself.
func startHAProxy(ctx context.Context, binary, inventory, dir, node, address, options string) (*haproxy, error) {
	text, err := os.ReadFile(inventory)
	if err != nil {
		return nil, err
	}
	const vars = "\n  vars:\n"
	if strings.Count(string(text), vars) != 1 {
		return nil, fmt.Errorf("%s: not one place for variables of all", inventory)
	}
	edited := strings.Replace(string(text), vars, vars+fmt.Sprintf(services, address, options), 1)
	if err := os.MkdirAll(filepath.Join(dir, "conf.d"), 0o755); err != nil {
		return nil, err
	}
	own := filepath.Join(dir, "inventory.yml")
	if err := os.WriteFile(own, []byte(edited), 0o600); err != nil {
		return nil, err
	}
	rendered := filepath.Join(dir, "rendered")
	if out, err := exec.CommandContext(ctx, binary, "render", "--inventory", own, "--out", rendered, "--host", node, "--base", "--only", "haproxy").CombinedOutput(); err != nil {
		return nil, fmt.Errorf("rendering HAProxy's files: %w\n%s", err, out)
	}
	files, err := filepath.Glob(filepath.Join(rendered, node, "*.cfg"))
	if err != nil {
		return nil, err
	}
	for _, f := range files {
		text, err := os.ReadFile(f)
		if err != nil {
			return nil, err
		}
		to := filepath.Join(dir, "conf.d", filepath.Base(f))
		if filepath.Base(f) == "haproxy.cfg" {
			to, text = filepath.Join(dir, "haproxy.cfg"), standAlone(text, address)
		}
		if err := os.WriteFile(to, text, 0o600); err != nil {
			return nil, err
		}
	}
	h := &haproxy{log: filepath.Join(dir, "haproxy.log"), ended: make(chan struct{})}
	log, err := os.Create(h.log)
	if err != nil {
		return nil, err
	}
	defer log.Close()
	h.command = exec.Command("haproxy", "-db", "-f", filepath.Join(dir, "haproxy.cfg"), "-f", filepath.Join(dir, "conf.d"))
	h.command.Stdout, h.command.Stderr = log, log
	// Ctrl-C is for the benchmark, which ends what it started.
	h.command.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if err := h.command.Start(); err != nil {
		return nil, fmt.Errorf("haproxy: %w", err)
	}
	go func() {
		defer close(h.ended)
		h.failed = h.command.Wait()
	}()
	if err := h.listens(ctx, address); err != nil {
		h.stop()
		return nil, err
	}
	return h, nil
}

// standAlone leaves of a node's haproxy.cfg what has nothing to do with the machine: a process of anybody's can run with it.
func standAlone(text []byte, address string) []byte {
	var kept []byte
	section := ""
	for line := range bytes.Lines(text) {
		words := strings.Fields(string(line))
		if len(words) > 0 && line[0] != ' ' {
			section = words[0]
		}
		switch {
		case section == "global" && len(words) > 0 && slices.Contains([]string{"user", "group", "pidfile", "stats", "maxconn"}, words[0]):
		default:
			kept = append(kept, bytes.Replace(line, []byte("bind *:"), []byte("bind "+address+":"), 1)...)
		}
	}
	return kept
}

// listens waits until both services do.
func (h *haproxy) listens(ctx context.Context, address string) error {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	again := time.NewTicker(50 * time.Millisecond)
	defer again.Stop()
	for {
		err := errors.Join(answers(ctx, address, pooled), answers(ctx, address, direct))
		if err == nil {
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("haproxy: %w", err)
		case <-h.ended:
			text, _ := os.ReadFile(h.log)
			return fmt.Errorf("haproxy ended: %w\n%s", h.failed, text)
		case <-again.C:
		}
	}
}

func answers(ctx context.Context, address string, port int) error {
	var d net.Dialer
	conn, err := d.DialContext(ctx, "tcp", fmt.Sprintf("%s:%d", address, port))
	if err != nil {
		return err
	}
	return conn.Close()
}

// stop ends HAProxy and returns when it has ended.
func (h *haproxy) stop() {
	h.command.Process.Signal(syscall.SIGTERM) //nolint:errcheck // it has ended then
	kill := time.AfterFunc(3*time.Second, func() { h.command.Process.Kill() })
	defer kill.Stop()
	<-h.ended
}
