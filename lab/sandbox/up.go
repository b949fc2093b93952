package sandbox

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/pgporter/pgporter/lab/sandbox/guard"
	"github.com/pgporter/pgporter/lab/sandbox/netns"
)

// ErrRunning is what Up gives where a sandbox is running already; it isn't touched.
var ErrRunning = errors.New("a sandbox is running already")

// Up starts a sandbox and returns when everything in it answers: each cluster has a leader and replicas that stream, each
// PgBouncer connects to its member, and each pgporter connects through every service that somebody can carry. It tells progress a
// line at a time.
//
// If it fails, what was started is ended, the data is removed and the logs stay in <dir>/log; the error ends with the last
// lines of the log that matters. If ctx is cancelled nothing stays.
func Up(ctx context.Context, config Config, progress io.Writer) (*Sandbox, error) {
	if err := supported(); err != nil {
		return nil, err
	}
	config, err := config.withDefaults()
	if err != nil {
		return nil, err
	}
	if config.Binary == "" && !config.WithoutPgporter {
		return nil, inputErrorf("which pgporter to run isn't said")
	}
	if config.Netns {
		if err := netns.Supported(); err != nil {
			return nil, inputErrorf("--netns: %w", err)
		}
	}
	t, err := findTools()
	if err != nil {
		return nil, err
	}
	user, err := chooseUser()
	if err != nil {
		return nil, err
	}
	if progress == nil {
		progress = io.Discard
	}
	s := &Sandbox{layout: newLayout(config), progress: newSteps(progress), exits: map[Process]string{}}
	made, err := prepareDir(config.Dir, user)
	if err != nil {
		return nil, err
	}
	abandon := func(err error) (*Sandbox, error) {
		if s.layout.sockets != s.layout.ownSockets() {
			os.Remove(s.layout.sockets)
		}
		if made {
			os.Remove(filepath.Join(config.Dir, lockName))
			os.Remove(config.Dir)
		}
		return nil, err
	}
	quick, cancelQuick := context.WithTimeout(ctx, time.Second)
	defer cancelQuick()
	lock, err := lockDir(quick, config.Dir)
	if errors.Is(err, errBusy) {
		return nil, fmt.Errorf("%w: see pgporter-lab status", err)
	}
	if err != nil {
		return abandon(err)
	}
	defer lock.release()
	if made, err = s.claim(config.Dir, made); err != nil {
		return abandon(err)
	}
	if err := s.checkPorts(); err != nil {
		return abandon(err)
	}
	s.state = record{
		Version: stateVersion, Phase: phaseStarting, Config: config, Created: time.Now(), Boot: bootID(),
		UID: user.uid, GID: user.gid, User: user.name, MadeDir: made, Processes: map[string]Process{},
	}
	if config.Foreground {
		self, err := identify(os.Getpid())
		if err != nil {
			return abandon(err)
		}
		s.state.Supervisor = &self
	}
	if err := s.placeSockets(); err != nil {
		return abandon(err)
	}
	// Of a program with a guardian nothing stays, its sandbox neither.
	if err := errors.Join(guard.Keep(guard.Directory, config.Dir), guard.Keep(guard.Directory, s.layout.sockets)); err != nil {
		return abandon(err)
	}
	if err := s.state.write(); err != nil {
		return abandon(err)
	}

	limited, cancel := context.WithTimeoutCause(ctx, config.Timeout, fmt.Errorf("not up within %s", config.Timeout))
	defer cancel()
	err = s.bringUp(limited, t, user)
	if err == nil {
		err = s.update(func(r *record) { r.Phase, r.UpAt = phaseUp, time.Now() })
	}
	if err == nil {
		return s, nil
	}
	s.say("taking down what was started")
	clean, cancelClean := context.WithTimeout(context.WithoutCancel(ctx), downTimeout)
	defer cancelClean()
	if errors.Is(context.Cause(ctx), context.Canceled) {
		return nil, errors.Join(fmt.Errorf("starting the sandbox: %w", ctx.Err()), s.endAndJoin(clean), s.remove(false))
	}
	if endErr := s.endAndJoin(clean); endErr != nil {
		return nil, errors.Join(err, endErr)
	}
	return nil, errors.Join(err, s.remove(true), fmt.Errorf("everything was ended again; the logs are in %s", s.layout.logDir()))
}

// prepareDir makes the directory if it isn't there. It must belong to the caller, as its contents are trusted.
func prepareDir(dir string, user runUser) (made bool, err error) {
	info, err := os.Lstat(dir)
	if errors.Is(err, os.ErrNotExist) {
		if err := makeParents(filepath.Dir(dir)); err != nil {
			return false, fmt.Errorf("sandbox directory: %w", err)
		}
		mode := os.FileMode(0o700)
		if user.switched {
			mode = 0o755
		}
		if err := os.Mkdir(dir, mode); err != nil {
			return false, fmt.Errorf("sandbox directory: %w", err)
		}
		if err := os.Chmod(dir, mode); err != nil {
			return true, fmt.Errorf("sandbox directory: %w", err)
		}
		made = true
		info, err = os.Lstat(dir)
	}
	switch {
	case err != nil:
		return made, fmt.Errorf("sandbox directory: %w", err)
	case !info.IsDir():
		return made, fmt.Errorf("sandbox directory %s: it is no directory", dir)
	}
	if err := ownedByCaller(dir, info); err != nil {
		return made, err
	}
	if err := user.reaches(filepath.Join(dir, "x")); err != nil {
		if made {
			os.Remove(dir)
		}
		return false, fmt.Errorf("sandbox directory %s: %w, and everything of PostgreSQL runs as %s; choose another --dir", dir, err, user.name)
	}
	return made, nil
}

// makeParents makes what is missing of the parents of a directory, for everybody to go through.
func makeParents(dir string) error {
	if _, err := os.Stat(dir); err == nil || dir == filepath.Dir(dir) {
		return err
	}
	if err := makeParents(filepath.Dir(dir)); err != nil {
		return err
	}
	if err := os.Mkdir(dir, 0o755); err != nil && !errors.Is(err, os.ErrExist) {
		return err
	}
	return os.Chmod(dir, 0o755)
}

func ownedByCaller(dir string, info os.FileInfo) error {
	if st, ok := info.Sys().(*syscall.Stat_t); ok && int(st.Uid) != os.Geteuid() {
		return fmt.Errorf("sandbox directory %s: it belongs to user id %d, and you are %d", dir, st.Uid, os.Geteuid())
	}
	return nil
}

// claim makes sure that the directory is free for a new sandbox: nothing runs there, and nothing is in it but what an
// earlier one left. It gives back whether the directory goes when the sandbox does.
func (s *Sandbox) claim(dir string, made bool) (bool, error) {
	old, err := readState(dir)
	switch {
	case errors.Is(err, os.ErrNotExist):
		if left := leftovers(dir); len(left) > 0 {
			return made, fmt.Errorf("%w: processes of an earlier one in %s, which has lost its state: %s; end them with: pgporter-lab down%s", ErrRunning, dir, describe(left), dirFlag(dir))
		}
		entries, err := os.ReadDir(dir)
		if err != nil {
			return made, fmt.Errorf("sandbox directory: %w", err)
		}
		for _, e := range entries {
			if e.Name() != lockName {
				return made, fmt.Errorf("sandbox directory %s: there is something in it (%s) and it isn't a sandbox's; choose an empty or a new one", dir, e.Name())
			}
		}
		return made, nil
	case err != nil:
		return made, err
	}
	earlier := &Sandbox{layout: newLayout(old.Config), state: old, progress: s.progress, exits: map[Process]string{}}
	earlier.layout.sockets = old.Sockets
	if running := earlier.running(old); len(running) > 0 {
		since := ""
		if !old.UpAt.IsZero() {
			since = ", up since " + old.UpAt.Format(time.DateTime)
		}
		return made, fmt.Errorf("%w in %s (%d members on %s.11 and up%s): %s\nsee it with: pgporter-lab status%s; end it with: pgporter-lab down%s",
			ErrRunning, dir, old.Config.Members, old.Config.Prefix, since, strings.Join(running, ", "), dirFlag(dir), dirFlag(dir))
	}
	s.say("removing what an ended sandbox left in %s", dir)
	return old.MadeDir, earlier.clear(true, false)
}

// running describes every process of the sandbox that is there, known or left over.
func (s *Sandbox) running(r record) []string {
	var all []string
	known := map[Process]bool{}
	for _, p := range s.layout.parts() {
		if process, ok := s.find(r, p); ok {
			known[process] = true
			all = append(all, fmt.Sprintf("%s (process %d)", p, process.PID))
		}
	}
	for _, process := range leftovers(s.layout.config.Dir) {
		if !known[process] && len(all) == 0 {
			all = append(all, describe([]Process{process}))
		}
	}
	return all
}

// describe names processes for a person, the first few of many.
func describe(all []Process) string {
	const most = 4
	var texts []string
	for i, p := range all {
		if i == most && len(all) > most+1 {
			texts = append(texts, fmt.Sprintf("and %d more", len(all)-most))
			break
		}
		texts = append(texts, fmt.Sprintf("process %d (%s)", p.PID, commandLine(p.PID)))
	}
	return strings.Join(texts, ", ")
}

// checkPorts makes sure that every port that will be listened on is free; all that aren't are named.
func (s *Sandbox) checkPorts() error {
	if s.layout.config.Netns {
		return nil // nobody else is there
	}
	var taken []error
	for _, p := range s.layout.parts() {
		for _, address := range s.layout.ports(p) {
			if err := tryPort(address); err != nil {
				taken = append(taken, fmt.Errorf("%s needs a port: %w", p, err))
			}
		}
	}
	if len(taken) == 0 {
		return nil
	}
	return fmt.Errorf("the sandbox can't start on %s; choose another --prefix or free the ports:\n%w", s.layout.config.Prefix, errors.Join(taken...))
}

// placeSockets puts the socket directories into the sandbox's, or into a short one of their own if that is too long.
func (s *Sandbox) placeSockets() error {
	if !s.layout.socketsFit() {
		dir, err := os.MkdirTemp("/tmp", "pgporter-")
		if err != nil {
			return fmt.Errorf("directory for unix sockets: %w", err)
		}
		s.layout.sockets = dir
	}
	s.state.Sockets = s.layout.sockets
	return nil
}

// writeFiles makes the directories and files that the programs begin with. A directory is given to their user last, so that
// nobody can put something where it is written.
func (s *Sandbox) writeFiles(t tools, user runUser) error {
	dirs := []string{s.layout.logDir(), s.layout.etcdHome(), filepath.Join(s.layout.etcdHome(), "data"), s.layout.sockets}
	for _, m := range s.layout.members {
		dirs = append(dirs, s.layout.home(m), s.layout.socketDir(m))
	}
	for _, dir := range dirs {
		// The short directory for sockets has been made with a name of its own.
		if err := os.Mkdir(dir, 0o700); err != nil && (dir != s.layout.sockets || s.layout.sockets == s.layout.ownSockets()) {
			return err
		}
	}
	files, err := s.layout.files(t)
	if err != nil {
		return err
	}
	certificate, err := s.layout.certificateFiles(time.Now())
	if err != nil {
		return err
	}
	files = append(files, certificate...)
	for _, f := range files {
		if err := os.WriteFile(f.path, []byte(f.text), f.mode); err != nil {
			return err
		}
		// What everybody may read stays the caller's.
		owner := user
		owner.switched = user.switched && f.mode&0o077 == 0
		if err := owner.own(f.path, f.mode); err != nil {
			return err
		}
	}
	for _, dir := range slices.Backward(dirs) {
		mode := os.FileMode(0o700)
		if dir == s.layout.logDir() {
			mode = 0o755
		}
		if err := user.own(dir, mode); err != nil {
			return err
		}
	}
	return nil
}

// bringUp starts everything in the order in which it can start, as much at once as that allows.
func (s *Sandbox) bringUp(ctx context.Context, t tools, user runUser) error {
	if err := s.writeFiles(t, user); err != nil {
		return fmt.Errorf("sandbox files: %w", err)
	}
	if s.layout.config.Netns {
		// What is there under its name was left by one whose directory was removed by hand: nothing of this sandbox is running.
		if err := errors.Join(netns.Remove(s.layout.lan().Name), s.layout.lan().Up()); err != nil {
			return fmt.Errorf("network of the sandbox: %w", err)
		}
		s.say("a network of %d nodes in namespaces, %s and so on", len(s.layout.lan().Nodes), s.layout.lan().Namespace(Client))
	}
	if s.layout.config.Door {
		if err := s.prepareDoors(ctx); err != nil {
			return err
		}
	}
	s.say("starting etcd and %d members as %s, in %s", len(s.layout.members), user.name, s.layout.config.Dir)
	etcd := part{kind: etcdKind}
	if err := s.launch(etcd, t); err != nil {
		return err
	}
	if err := s.await(ctx, "etcd answers on "+s.layout.etcdAddress(), s.etcdHealthy, etcd); err != nil {
		return err
	}
	// A standby cluster needs the one that it replicates from; all others have nothing to do with each other.
	var starting errgroup.Group
	for _, cluster := range s.layout.clusters() {
		if cluster != standbyCluster {
			starting.Go(func() error { return s.bringUpCluster(ctx, t, cluster) })
		}
	}
	if err := starting.Wait(); err != nil {
		return err
	}
	if s.layout.config.Standby {
		if err := s.bringUpCluster(ctx, t, standbyCluster); err != nil {
			return err
		}
	}
	for _, cluster := range s.layout.clusters() {
		if err := s.awaitReplicas(ctx, cluster); err != nil {
			return err
		}
	}
	return s.awaitClients(ctx)
}

// bringUpCluster starts a cluster's programs and returns when its first member leads. The others start after that: before, any
// of them could become the first leader.
func (s *Sandbox) bringUpCluster(ctx context.Context, t tools, cluster string) error {
	members := s.layout.of(cluster)
	for _, m := range members {
		if err := s.launch(part{pgbouncerKind, m}, t); err != nil {
			return err
		}
		if s.layout.doored(m) {
			if err := s.launch(part{doorKind, m}, t); err != nil {
				return err
			}
		}
		if s.layout.config.RestProxy != "" {
			if err := s.launch(part{restproxyKind, m}, t); err != nil {
				return err
			}
		}
	}
	if err := s.bootstrap(ctx, t, members[0]); err != nil {
		return err
	}
	for _, m := range members[1:] {
		if err := s.launch(part{patroniKind, m}, t); err != nil {
			return err
		}
	}
	if s.layout.config.WithoutPgporter {
		return nil
	}
	// Started now, so that they don't meet members that aren't there yet and wait out the longer interval of a failed check.
	for _, m := range members {
		if err := s.launch(part{pgporterKind, m}, t); err != nil {
			return err
		}
	}
	return nil
}

// bootstraps is how often a cluster's first member may begin, gaveUp what Patroni writes last if it hasn't come to an end: a
// statement of its own has 2 s, and a machine that hangs for so long ends it.
const (
	bootstraps = 3
	gaveUp     = "Failed to bootstrap cluster"
)

// bootstrap has a cluster's first member make its data and take the leader key.
func (s *Sandbox) bootstrap(ctx context.Context, t tools, first Member) error {
	patroni := part{patroniKind, first}
	leads := func(ctx context.Context) error {
		_, err := s.leading(ctx, first)
		if err == nil && !s.etcdHas(ctx, "/pg/"+first.Cluster+"/leader") {
			err = fmt.Errorf("%s hasn't taken the leader key", first.Name)
		}
		return err
	}
	for again := 1; ; again++ {
		if err := s.launch(patroni, t); err != nil {
			return err
		}
		err := s.await(ctx, first.Name+" initialises "+first.Cluster, s.initialises(first), patroni)
		if err == nil {
			err = s.await(ctx, first.Name+" leads "+first.Cluster, leads, patroni)
		}
		var over endedError
		if err == nil || again == bootstraps || !errors.As(err, &over) || !strings.Contains(over.log, gaveUp) {
			return err
		}
		s.say("Patroni of %s gave up, as it does where a statement takes 2 s: it begins again", first.Name)
	}
}

// claimLost is how long the member that has to initialise a cluster may do nothing of the kind.
const claimLost = 5 * time.Second

// initialises gives a check that a cluster's first member has claimed it in etcd and is at work. If etcd takes a claim and is too
// slow to say so, Patroni tries again, finds the claim there, and waits for whoever made it: such a claim is taken back.
func (s *Sandbox) initialises(first Member) func(context.Context) error {
	claim := "/pg/" + first.Cluster + "/initialize"
	var idle time.Time
	return func(ctx context.Context) error {
		if !s.etcdHas(ctx, claim) {
			return fmt.Errorf("%s hasn't claimed the cluster in etcd", first.Name)
		}
		status, err := s.patroni(ctx, first)
		if err != nil || !status.waits() {
			idle = time.Time{}
			return err
		}
		if idle.IsZero() {
			idle = time.Now()
		}
		err = fmt.Errorf("%s hasn't begun to initialise", first.Name)
		if time.Since(idle) > claimLost {
			idle = time.Time{}
			s.say("%s takes its own claim for another's: taking that back", first.Name)
			err = errors.Join(err, s.etcdRemove(ctx, claim))
		}
		return err
	}
}

// involved are the parts of a kind, for await.
func (s *Sandbox) involved(kinds ...kind) []part {
	return slices.DeleteFunc(s.layout.parts(), func(p part) bool { return !slices.Contains(kinds, p.kind) })
}
