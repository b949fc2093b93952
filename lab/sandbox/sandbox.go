// Package sandbox runs a real Patroni cluster on this machine, for trying pgporter and for its end-to-end tests.
//
// A sandbox is one etcd and, on a loopback address each, members made of PostgreSQL, Patroni, PgBouncer and a pgporter. The
// addresses are those of the specification with another prefix: <prefix>.10 is etcd, <prefix>.11 to .19 are the members of
// pg-test, and with Config.Standby <prefix>.21 and .22 those of the standby cluster pg-standby. Everything lives in one
// directory, with an ordinary Pigsty inventory (inventory.yml) that the pgporters are run from: to them it is a cluster like
// any other.
//
// With Config.Netns the addresses are the documents' own: each node is in a network namespace (package netns), pg-meta on
// 10.10.10.10 with etcd and the names' server, pg-test on .11 and up, and a client on .100 from which everything is reached by
// cluster name, virtual address (.2 and .3), instance name and instance address. Nodes can be cut off and lost there.
//
// What the package owns: that directory, the processes it started, and those which these started in turn (Patroni starts
// PostgreSQL). It recognises the first by process id and start time, the others by their data directory or by a variable in
// their environment, so that an id that the kernel has given to another process is never signalled, and so that a sandbox
// whose own program was killed can still be taken down. Nothing else on the machine is touched; a port that is taken is an
// error that names who has it.
//
// The data is thrown away with the sandbox and never outlives a reboot, so PostgreSQL runs with fsync off: a killed process
// loses nothing by that (what it wrote is in the kernel's page cache), only a crash of the machine would.
//
// The accounts have the documents' public passwords and any user of the machine can connect to a loopback address: a sandbox
// is for a machine of one's own.
//
// It leaves out whatever pgporter itself does: it neither reads the inventory nor decides who serves. Linux only, as it
// needs /proc.
package sandbox

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"
)

// Config says what sandbox to start.
type Config struct {
	// Dir is where everything is kept; empty takes DefaultDir.
	Dir string `json:"dir"`
	// Netns puts every node into a network namespace of its own, on a switch that can be cut, with the documents' own addresses,
	// and adds pg-meta, the documents' single-node cluster. It needs root.
	Netns bool `json:"netns,omitempty"`
	// Prefix is the first three octets of the addresses; empty takes DefaultPrefix, with Netns NetnsPrefix.
	Prefix string `json:"prefix"`
	// Members is how many members pg-test has, 1 to 9; 0 takes DefaultMembers.
	Members int `json:"members"`
	// Sync turns Patroni's synchronous mode on and adds the service standby (port 5435).
	Sync bool `json:"sync,omitempty"`
	// Offline makes the last of several members a dedicated offline instance (pg_role: offline) instead of a tagged replica.
	Offline bool `json:"offline,omitempty"`
	// Delayed adds a member that applies changes a minute late, and the service delayed (port 5439).
	Delayed bool `json:"delayed,omitempty"`
	// Standby adds the standby cluster pg-standby of two members that replicates from pg-test.
	Standby bool `json:"standby,omitempty"`
	// TLS has each PostgreSQL and PgBouncer take clients with TLS as well as without, with one certificate (Certificate).
	TLS bool `json:"tls,omitempty"`
	// Fall is how many failed checks in a row take a server down; 0 leaves it at the 3 of `pg_rto: fast`. On a machine that is
	// so busy that Patroni falls silent for seconds, more of them keep that from being taken for a fault. Patroni then gives etcd 8 s
	// instead of 3 before a primary gives up.
	Fall int `json:"fall,omitempty"`
	// WithoutLocalReplication has pg_hba.conf admit no replication from the member itself, as it forgets to in the field. Every
	// question to a replica's Patroni then opens a connection that is refused, which is what makes checks dear; streaming goes on.
	WithoutLocalReplication bool `json:"without_local_replication,omitempty"`
	// Door puts a PgBouncer of its own before each node's services default and offline (`pool: door` in the inventory), at the port of
	// Doors, with the files that pgporter renders. The pgporters watch over it and over the PgBouncer beside PostgreSQL, and take orders
	// at control addresses (Steering).
	Door bool `json:"door,omitempty"`
	// WithoutPgporter leaves the pgporters out: a bare Patroni cluster.
	WithoutPgporter bool `json:"without_pgporter,omitempty"`
	// Binary is the pgporter to run on each member, which has to be named unless there is none (WithoutPgporter).
	Binary string `json:"binary,omitempty"`
	// RestProxy is the program of pgporter-lab that is run as a proxy before each Patroni's REST API (package restproxy), with the
	// arguments RestProxyCommand, LISTEN, PATRONI and CONTROL. The inventory then has the proxy's port for Patroni's: pgporters and
	// HAProxy ask there, Patronis and the sandbox itself don't. Empty is none.
	RestProxy string `json:"rest_proxy,omitempty"`
	// BinaryArgs are put after `run --inventory … --node … --bind …`.
	BinaryArgs []string `json:"binary_args,omitempty"`
	// BinaryEnv is added to the pgporters' environment, NAME=VALUE.
	BinaryEnv []string `json:"binary_env,omitempty"`
	// Timeout bounds Up; 0 takes DefaultTimeout.
	Timeout time.Duration `json:"-"`
	// Foreground says that the caller stays until the sandbox ends and calls Down when it gets SIGTERM: a Down in another
	// process then asks it to.
	Foreground bool `json:"foreground,omitempty"`
}

// What an empty Config means.
const (
	DefaultPrefix  = "127.0.1"
	NetnsPrefix    = "10.10.10"
	DefaultMembers = 3
	DefaultTimeout = 5 * time.Minute
)

// DefaultDir is where a sandbox is kept when nothing else is said: for root a directory that the unprivileged user can
// reach, otherwise one in the user's state directory (XDG Base Directory Specification).
func DefaultDir() string {
	if os.Geteuid() == 0 {
		return "/var/lib/pgporter-lab"
	}
	if state := os.Getenv("XDG_STATE_HOME"); filepath.IsAbs(state) {
		return filepath.Join(state, "pgporter", "sandbox")
	}
	home, err := os.UserHomeDir()
	if err != nil {
		return filepath.Join(os.TempDir(), fmt.Sprintf("pgporter-sandbox-%d", os.Getuid()))
	}
	return filepath.Join(home, ".local", "state", "pgporter", "sandbox")
}

// Sandbox is one that was started, by this process or another.
type Sandbox struct {
	layout   layout
	progress io.Writer

	mu    sync.Mutex
	state record

	children sync.WaitGroup
	exits    map[Process]string // why a child of this process ended
	watchers []func(what, why string)
}

// ErrNone is what Open gives for a directory in which there is no sandbox.
var ErrNone = errors.New("no sandbox")

// ErrInput marks an error of what the caller asked for: nothing was tried.
var ErrInput = errors.New("what was asked for can't be")

// inputErrorf makes an error that is ErrInput too.
func inputErrorf(format string, args ...any) error { return refused{fmt.Errorf(format, args...)} }

type refused struct{ error }

func (r refused) Unwrap() error { return r.error }

func (refused) Is(target error) bool { return target == ErrInput }

// Open gives the sandbox that was started in a directory; empty means DefaultDir. Its processes may all have ended. If none
// was started there, or it was taken down, the error is ErrNone.
func Open(dir string) (*Sandbox, error) {
	dir, err := resolveDir(dir)
	if err != nil {
		return nil, err
	}
	state, err := readState(dir)
	if errors.Is(err, os.ErrNotExist) {
		return nil, fmt.Errorf("%s: %w", dir, ErrNone)
	}
	if err != nil {
		return nil, err
	}
	l := newLayout(state.Config)
	l.sockets = state.Sockets
	return &Sandbox{layout: l, state: state, progress: io.Discard, exits: map[Process]string{}}, nil
}

// resolveDir gives the absolute path that a sandbox's directory is known by.
func resolveDir(dir string) (string, error) {
	if dir == "" {
		dir = DefaultDir()
	}
	dir, err := filepath.Abs(dir)
	if err != nil {
		return "", fmt.Errorf("sandbox directory: %w", err)
	}
	// The path is written into the configurations of programs that each quote differently.
	if i := strings.IndexFunc(dir, func(r rune) bool { return r < ' ' || r == 0x7f || strings.ContainsRune("'\"\\$`%#;", r) }); i >= 0 {
		return "", inputErrorf("sandbox directory %q: choose a path without %q", dir, dir[i:i+1])
	}
	// /proc shows the real path of a working directory. The last parts may not be there yet.
	for existing := dir; ; existing = filepath.Dir(existing) {
		if real, err := filepath.EvalSymlinks(existing); err == nil {
			return filepath.Join(real, strings.TrimPrefix(dir, existing)), nil
		}
		if existing == filepath.Dir(existing) {
			return dir, nil
		}
	}
}

// Dir is the sandbox's directory.
func (s *Sandbox) Dir() string { return s.layout.config.Dir }

// DirFlag is what a command of pgporter-lab needs to find this sandbox: empty if it is in DefaultDir, otherwise the flag
// --dir with a space before it, quoted for a shell.
func (s *Sandbox) DirFlag() string { return dirFlag(s.layout.config.Dir) }

func dirFlag(dir string) string {
	if dir == DefaultDir() {
		return ""
	}
	return " --dir " + quoteShell(dir)
}

// Inventory is the file that describes the sandbox, from which its pgporters are run.
func (s *Sandbox) Inventory() string { return s.layout.inventory() }

// Config is what the sandbox was started with, defaults filled in.
func (s *Sandbox) Config() Config { return s.layout.config }

// Declared are the members as the inventory declares them, in its order: pg-meta's, pg-test's, pg-standby's.
func (s *Sandbox) Declared() []Member { return s.layout.members }

// Log is the file that a process writes to: WHAT as in Kill.
func (s *Sandbox) Log(what string) (string, error) {
	p, err := s.layout.part(what)
	if err != nil {
		return "", err
	}
	return s.layout.log(p), nil
}

// OnExit has f called, from another goroutine, whenever a process that this Sandbox started itself ends, unless another one has
// taken over from it.
func (s *Sandbox) OnExit(f func(what, why string)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.watchers = append(s.watchers, f)
}
