package haproxy

import (
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/pgporter/pgporter/internal/config/model"
	"github.com/pgporter/pgporter/internal/render/haproxycfg"
	"github.com/pgporter/pgporter/internal/render/stamp"
)

// Config says which HAProxy to run, and how.
type Config struct {
	// Dir is the directory of haproxy.cfg and conf.d. A HAProxy of our own has all that it needs there, sockets too.
	Dir string
	// System takes over a HAProxy that somebody else starts and stops, such as systemd: its haproxy.cfg stays as it is, the
	// services of conf.d are ours.
	System bool
	// Socket is the runtime API's socket and Master that of the master CLI (-S) of the system's HAProxy. With Master empty
	// Reload is run for a reload, and old workers are out of reach.
	Socket, Master string
	Reload         []string
	// Binary is HAProxy's program; empty is haproxy in PATH or in /usr/sbin.
	Binary string
	// Bind is the address that "*" means; empty is every address.
	Bind string
	// StopTimeout is how long the sessions of a HAProxy of our own may go on once the stop was asked for.
	StopTimeout time.Duration
	// Logger gets what an operator should know; nil drops it.
	Logger *slog.Logger
}

// Files of a HAProxy of our own, below its directory.
const (
	masterSocket  = "master.sock"
	runtimeSocket = "runtime.sock"
	stateFileName = "servers.state"
	logFile       = "haproxy.log"
	lockFile      = "pgporter.lock"
)

// ownFile is a file of ours beside the services', in conf.d of the system's HAProxy: what haproxy.cfg doesn't say of the
// state file and of old workers. HAProxy takes several global sections as one.
const ownFile = "pgporter.cfg"

// withoutMaster is how long sessions of an old worker live where it can't be reached to end those on a demoted primary.
const withoutMaster = "60s"

// longestSocket is what fits into a socket's address (108 bytes) with the suffix under which HAProxy binds it at first.
const longestSocket = 96

// settings are what follows from a Config and, for the system's HAProxy, from its haproxy.cfg.
type settings struct {
	binary, state string
	control       control
	// extra goes to the end of each section, own is the text of ownFile.
	extra, own string
}

func (c Config) settings() (settings, error) {
	s := settings{binary: c.Binary}
	if c.Dir == "" || !filepath.IsAbs(c.Dir) {
		return s, fmt.Errorf("HAProxy's directory %q: an absolute path", c.Dir)
	}
	if s.binary == "" {
		found, err := exec.LookPath("haproxy")
		if err != nil {
			// Debian keeps it where an ordinary user's PATH doesn't look.
			if found, err = exec.LookPath("/usr/sbin/haproxy"); err != nil {
				return s, errors.New("no haproxy in PATH or /usr/sbin: install it, or say where it is")
			}
		}
		s.binary = found
	}
	s.state = filepath.Join(c.Dir, stateFileName)
	if !c.System {
		s.control = control{master: filepath.Join(c.Dir, masterSocket), socket: filepath.Join(c.Dir, runtimeSocket)}
		for _, path := range []string{s.control.master, s.control.socket} {
			if len(path) > longestSocket {
				return s, fmt.Errorf("HAProxy's directory %s: its path is too long for a socket, at most %d bytes", c.Dir, longestSocket-len(runtimeSocket)-1)
			}
		}
		return s, nil
	}
	s.control = control{master: c.Master, socket: c.Socket}
	base := filepath.Join(c.Dir, haproxycfg.BaseFile)
	text, err := os.ReadFile(base)
	if err != nil {
		return s, fmt.Errorf("the system's HAProxy: %w", err)
	}
	if path, set := directive(string(text), "server-state-file"); !set {
		s.own += "    server-state-file " + s.state + "\n"
	} else if s.state = path; !filepath.IsAbs(path) {
		return s, fmt.Errorf("%s: server-state-file %s isn't an absolute path", base, path)
	}
	if _, set := directive(string(text), "load-server-state-from-file"); !set {
		s.extra = "    load-server-state-from-file global\n"
	}
	if _, set := directive(string(text), "hard-stop-after"); !set && c.Master == "" {
		s.own += "    hard-stop-after " + withoutMaster + "\n"
	}
	if s.own != "" {
		s.own = stamp.Stamp{Kind: stamp.HAProxy, File: ownFile}.Line() + "global\n" + s.own
	}
	return s, nil
}

// directive finds a directive's first argument in a configuration.
func directive(text, name string) (string, bool) {
	for line := range strings.Lines(text) {
		words := strings.Fields(line)
		if len(words) > 0 && words[0] == name {
			return strings.Trim(strings.Join(words[1:min(2, len(words))], ""), `"'`), true
		}
	}
	return "", false
}

// ownBase makes a node's haproxy.cfg one for a HAProxy of our own: without privileges, with everything in its directory.
func (s settings) ownBase(b model.Base, bind string) *model.Base {
	b.MaxConn = possibleConnections()
	b.PIDFile, b.Socket, b.StateFile = "", s.control.socket, s.state
	if os.Geteuid() != 0 {
		b.User, b.Group = "", ""
	}
	if b.StatsIP == "*" && bind != "" {
		b.StatsIP = bind
	}
	return &b
}

// reserved are descriptors that HAProxy needs besides those of connections: listeners, checks, sockets, threads.
const reserved = 500

// possibleConnections is for how many connections HAProxy can have descriptors; 0 if there is no need to say it.
func possibleConnections() int {
	var limit unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &limit); err != nil || limit.Max >= 2*65535+reserved {
		return 0
	}
	return max(100, (int(limit.Max)-reserved)/2)
}

// command is how a HAProxy of our own is started. A reload executes it anew, so it must not change.
func (s settings) command(dir string) *exec.Cmd {
	return exec.Command(s.binary, "-W", "-S", s.control.master+",mode,600",
		"-f", filepath.Join(dir, haproxycfg.BaseFile), "-f", filepath.Join(dir, confDir))
}

// replace writes a file whole: nobody ever reads a part of it.
func replace(path, text string) error {
	beside := path + ".new"
	if err := os.WriteFile(beside, []byte(text), 0o644); err != nil {
		return err
	}
	return os.Rename(beside, path)
}

// tail gives what was added to a log since it had a length, without what is of no interest when something failed.
func tail(path string, from int64) string {
	text, err := os.ReadFile(path)
	if err != nil || int64(len(text)) < from {
		return ""
	}
	lines := slices.DeleteFunc(strings.Split(string(text[from:]), "\n"), func(line string) bool { return !strings.Contains(line, "[ALERT]") })
	return alerts(strings.Join(lines, "\n"))
}
