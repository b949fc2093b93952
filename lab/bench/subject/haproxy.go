package subject

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
	"strconv"
	"strings"
	"syscall"
	"time"
)

// HAProxy is how a HAProxy that runs by itself is to be started.
type HAProxy struct {
	// Pgporter renders its files, from Inventory, as those of the host Node.
	Pgporter, Inventory, Node string
	// Address is where it listens instead; Ports are those that it has to listen on to count as started.
	Address string
	Ports   []int
	// Master says that it has a master process, as under systemd. Without it, one process is all.
	Master bool
	// Dir is made for its files.
	Dir string
}

// startTime is what it gets until it listens: files of a thousand clusters take seconds on a busy machine.
const startTime = 2 * time.Minute

// Start renders the services of a node, with the global and defaults sections that go with them, and has Debian's HAProxy
// carry them on another address. It checks and switches by itself.
func (h HAProxy) Start(ctx context.Context) (*Process, error) {
	if err := os.MkdirAll(filepath.Join(h.Dir, "conf.d"), 0o755); err != nil {
		return nil, err
	}
	rendered := filepath.Join(h.Dir, "rendered")
	if out, err := exec.CommandContext(ctx, h.Pgporter, "render", "--inventory", h.Inventory, "--out", rendered, "--host", h.Node, "--base", "--only", "haproxy").CombinedOutput(); err != nil {
		return nil, fmt.Errorf("rendering HAProxy's files: %w\n%s", err, out)
	}
	files, err := filepath.Glob(filepath.Join(rendered, h.Node, "*.cfg"))
	if err != nil {
		return nil, err
	}
	for _, f := range files {
		text, err := os.ReadFile(f)
		if err != nil {
			return nil, err
		}
		to := filepath.Join(h.Dir, "conf.d", filepath.Base(f))
		if filepath.Base(f) == "haproxy.cfg" {
			to = filepath.Join(h.Dir, "haproxy.cfg")
		}
		if err := os.WriteFile(to, standAlone(text, h.Address), 0o600); err != nil {
			return nil, err
		}
	}
	mode := "-db"
	if h.Master {
		mode = "-W"
	}
	// The names of all files are one variable of a worker's environment, which can't be longer than 128 KiB: short ones.
	command := exec.Command("haproxy", mode, "-f", "haproxy.cfg", "-f", "conf.d")
	command.Dir = h.Dir
	p, err := Start(command, filepath.Join(h.Dir, "haproxy.log"), syscall.SIGTERM)
	if err != nil {
		return nil, err
	}
	err = p.Await(ctx, startTime, func(ctx context.Context) error {
		var all error
		for _, port := range h.Ports {
			all = errors.Join(all, Listens(ctx, net.JoinHostPort(h.Address, strconv.Itoa(port))))
		}
		return all
	})
	if err != nil {
		p.Stop()
		return nil, err
	}
	return p, nil
}

// standAlone leaves of a node's files what has nothing to do with the machine: a process of anybody's can run with it. The
// limit of sessions goes too, and limits aren't strict: HAProxy then takes what its limit of open files allows instead of failing for want of
// more.
func standAlone(text []byte, address string) []byte {
	var kept []byte
	section := ""
	for line := range bytes.Lines(text) {
		words := strings.Fields(string(line))
		if len(words) > 0 && line[0] != ' ' {
			section = words[0]
		}
		if string(line) == "global\n" {
			kept = append(kept, "global\n    no strict-limits\n"...)
			continue
		}
		switch {
		case section == "global" && len(words) > 0 && slices.Contains([]string{"user", "group", "pidfile", "stats", "maxconn"}, words[0]):
		default:
			kept = append(kept, bytes.Replace(line, []byte("bind *:"), []byte("bind "+address+":"), 1)...)
		}
	}
	return kept
}
