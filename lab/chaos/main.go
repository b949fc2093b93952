// Command chaos does random faults to a real cluster in synchronous mode while clients write and read through every service
// of every node, and holds pgporter to what it promises. It is a test of the project (make chaos) and no part of pgporter.
//
// Whoever reads a failure begins with the seed: the faults and their times are a function of it and of the length of the
// run (plan.go); what the cluster makes of them is not. The rooms of the program are its files: plan draws the faults, inject
// does them to the field, client writes and reads and notes in the ledger what was acknowledged, key and role watch etcd and
// the members by connections of their own, judge says from these notes what was wrong (pure), promise is the list of
// everything that is asserted. What is promised, and why with these bounds, is in docs/reliability.md.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/pgporter/pgporter/lab/sandbox"
)

// options are what the command line says.
type options struct {
	length    time.Duration
	seed      uint64
	prefix    string
	dir       string
	binary    string
	faults    string
	list      bool
	netns     bool
	keep      bool
	unguarded bool
}

func main() {
	var o options
	flag.DurationVar(&o.length, "time", time.Minute, "how long faults are done")
	flag.Uint64Var(&o.seed, "seed", 0, "what faults are drawn; 0 takes one at random")
	flag.StringVar(&o.prefix, "prefix", "", "first three octets of the sandbox's addresses (default: 127.0.70, with -netns 10.10.10)")
	flag.StringVar(&o.dir, "dir", filepath.Join(os.TempDir(), "pgporter-chaos"), "directory of the sandbox; its logs stay there if a promise was broken")
	flag.StringVar(&o.binary, "pgporter", "", "the pgporter to test; by default one is built with the race detector")
	flag.StringVar(&o.faults, "faults", "", "only these kinds of faults, separated by semicolons")
	flag.BoolVar(&o.netns, "netns", false, "nodes in network namespaces (root only): networks fail too")
	flag.BoolVar(&o.list, "list", false, "print the faults of the seed and do nothing")
	flag.BoolVar(&o.keep, "keep", false, "keep the logs though every promise was kept")
	flag.BoolVar(&o.unguarded, "without-pgporter", false, "clients find the primary themselves: what Patroni alone does under the same faults")
	flag.Parse()
	if flag.NArg() > 0 {
		fmt.Fprintf(os.Stderr, "chaos: unexpected argument %q\n", flag.Arg(0))
		os.Exit(2)
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	kept, err := run(ctx, o, os.Stdout)
	if err != nil {
		fmt.Fprintf(os.Stderr, "chaos: %v\n", err)
		os.Exit(2)
	}
	if !kept {
		os.Exit(1)
	}
}

// members is how many the cluster has.
const members = 3

// run does it all; false says that a promise was broken, an error that nothing can be said.
func run(ctx context.Context, o options, out io.Writer) (kept bool, err error) {
	var names []string
	if o.faults != "" {
		for name := range strings.SplitSeq(o.faults, ";") {
			names = append(names, strings.TrimSpace(name))
		}
	}
	from, err := choose(names, o.netns)
	if err != nil {
		return false, err
	}
	if o.prefix == "" && !o.netns {
		o.prefix = "127.0.70"
	}
	if o.seed == 0 {
		o.seed = uint64(rand.Uint32()) + 1
	}
	faults := draw(o.seed, o.length, members, from)
	fmt.Fprintf(out, "seed %d, %s, %d faults; the same again: make chaos SEED=%d TIME=%s\n", o.seed, o.length, len(faults), o.seed, o.length)
	if o.list {
		for _, f := range faults {
			fmt.Fprintln(out, f)
		}
		return true, nil
	}
	if o.binary == "" && !o.unguarded {
		dir, err := os.MkdirTemp("", "pgporter-chaos-build-")
		if err != nil {
			return false, err
		}
		defer os.RemoveAll(dir)
		o.binary = filepath.Join(dir, "pgporter")
		build := exec.CommandContext(ctx, "go", "build", "-race", "-o", o.binary, "github.com/pgporter/pgporter/cmd/pgporter")
		if said, err := build.CombinedOutput(); err != nil {
			return false, fmt.Errorf("building pgporter: %w\n%s", err, said)
		}
	}
	s, err := sandbox.Up(ctx, sandbox.Config{
		Dir: o.dir, Prefix: o.prefix, Netns: o.netns, Members: members, Sync: true, Binary: o.binary, WithoutPgporter: o.unguarded,
	}, out)
	if err != nil {
		return false, err
	}
	defer func() {
		down, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
		defer cancel()
		if downErr := s.Down(down, !kept || o.keep); downErr != nil {
			kept, err = false, errors.Join(err, downErr)
		}
		if !kept || o.keep {
			fmt.Fprintf(out, "the logs of everything are in %s\n", filepath.Join(o.dir, "log"))
		}
	}()
	s.SetProgress(io.Discard)
	f := newField(s, out)
	return f.hold(ctx, o, faults)
}

// hold plays the faults and says whether every promise was kept.
func (f *field) hold(ctx context.Context, o options, faults []fault) (bool, error) {
	var err error
	if f.keys, err = newKeyWatcher(f.Etcd(), f.dialer("etcd")); err != nil {
		return false, err
	}
	defer f.keys.client.Close()
	revision, err := f.keys.begin(ctx)
	if err != nil {
		return false, err
	}
	if err := f.makeTable(ctx); err != nil {
		return false, err
	}
	if !o.unguarded {
		if err := f.addReaders(ctx); err != nil {
			return false, err
		}
	}
	all := promises(f, revision)
	if o.unguarded {
		all = all[:2]
	}

	// Watchers outlive the clients, and all are joined.
	looking, stopLooking := context.WithCancel(ctx)
	defer stopLooking()
	var watchers, clients sync.WaitGroup
	failures := make(chan error, len(all))
	for _, p := range all {
		if p.watch != nil {
			watchers.Go(func() {
				if err := p.watch(looking); err != nil {
					failures <- fmt.Errorf("%s: %w", p.says, err)
				}
			})
		}
	}
	stopFollowing := sync.OnceFunc(func() {
		close(f.over)
		f.following.Wait()
	})
	defer stopFollowing()
	defer watchers.Wait()
	defer stopLooking()
	working, stopWorking := context.WithCancel(ctx)
	defer clients.Wait()
	defer stopWorking()
	// Before the clients come it is seen what pgporter has without them.
	rest(ctx, 2*time.Second)
	f.startClients(working, &clients, o.unguarded)

	f.mu.Lock()
	f.began = time.Now()
	f.mu.Unlock()
	f.playAll(ctx, faults, o.length)
	if ctx.Err() != nil {
		return false, ctx.Err()
	}
	if err := f.restore(ctx); err != nil {
		return false, fmt.Errorf("the faults can't be undone: %w", err)
	}
	f.say("the last fault is undone")
	broken := map[string][]string{}
	for _, p := range all {
		if p.settled != nil {
			broken[p.says] = append(broken[p.says], p.settled(ctx)...)
		}
	}
	f.say("all services have been asked")
	complete, cancel := context.WithTimeoutCause(ctx, 2*time.Minute, errors.New("not within 2 minutes"))
	defer cancel()
	if leader, err := f.AwaitFollowing(complete, scope); err != nil {
		// That a member finds its way back is Patroni's affair; the services have answered without it.
		f.say("the cluster isn't complete: %v", err)
	} else {
		f.say("the cluster is complete: all follow %s", leader.Name)
	}
	stopWorking()
	clients.Wait()
	stopLooking()
	watchers.Wait()
	stopFollowing()
	close(failures)
	for err := range failures {
		broken["watching"] = append(broken["watching"], err.Error())
	}
	for _, p := range all {
		if p.concluded != nil {
			broken[p.says] = append(broken[p.says], p.concluded(ctx)...)
		}
	}
	if ctx.Err() != nil {
		return false, ctx.Err()
	}
	return f.report(o, all, broken), nil
}

// playAll does every fault at its time and returns when all are over.
func (f *field) playAll(ctx context.Context, faults []fault, length time.Duration) {
	var playing sync.WaitGroup
	defer playing.Wait()
	for _, next := range faults {
		if !rest(ctx, next.at-time.Since(f.began)) {
			return
		}
		playing.Go(func() { f.play(ctx, next) })
	}
	rest(ctx, length-time.Since(f.began))
}

// rest waits; false if ctx ended meanwhile.
func rest(ctx context.Context, d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-timer.C:
		return true
	}
}

// makeTable makes what writers write to.
func (f *field) makeTable(ctx context.Context) error {
	leader, err := f.Leader(ctx)
	if err != nil {
		return err
	}
	to, err := f.Access(leader.Name, "")
	if err != nil {
		return err
	}
	conn, err := f.open(ctx, leader.Name, to)
	if err != nil {
		return err
	}
	defer conn.Close(ctx) //nolint:errcheck // what was done is done
	_, err = conn.Exec(ctx, "create table "+table+" (writer int, n int, at timestamptz default now(), primary key (writer, n)); grant select, insert on "+table+" to public")
	return err
}

// startClients starts writers and readers on every service of every node: of each some that stay and some that come and go.
func (f *field) startClients(ctx context.Context, clients *sync.WaitGroup, unguarded bool) {
	id := 0
	start := func(to sandbox.Access, writes, stays bool, every time.Duration) {
		c := &client{field: f, from: sandbox.Client, to: to, stays: stays, every: every}
		if stays && !unguarded {
			// Some of the applications are on the nodes themselves: they go on with theirs when it is cut off.
			c.from = to.Node
		}
		if writes {
			id++
			c.id = id
		}
		clients.Go(func() { c.run(ctx) })
	}
	if unguarded {
		for range 6 {
			start(f.multiHost(), true, true, 50*time.Millisecond)
			start(f.multiHost(), true, false, 100*time.Millisecond)
		}
		return
	}
	for _, to := range f.services() {
		if writes := to.Port == 5433 || to.Port == 5436; writes {
			start(to, true, true, 50*time.Millisecond)
			start(to, true, false, 100*time.Millisecond)
		} else {
			start(to, false, true, 100*time.Millisecond)
			start(to, false, false, 200*time.Millisecond)
		}
	}
}

// multiHost is how a client reaches the primary that tries all members by itself.
func (f *field) multiHost() sandbox.Access {
	var hosts []string
	for _, m := range f.members {
		hosts = append(hosts, m.Address)
	}
	to, err := f.Access(f.members[0].Name, "")
	if err != nil {
		panic(err) // the member is the sandbox's own
	}
	to.Node, to.Host = "members", strings.Join(hosts, ",")
	return to
}
