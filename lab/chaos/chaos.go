// Package chaos does random faults to a real cluster in synchronous mode while clients write and read through every service
// of every node, and holds pgporter to what it promises (make chaos).
//
// Whoever reads a failure begins with the seed: the faults and their times are a function of it and of the length of the
// run (plan.go); what the cluster makes of them is not. The parts of the package are its files: plan draws the faults, inject
// does them to the field, client writes and reads and notes in the ledger what was acknowledged, key, role and health watch etcd
// and the members by connections of their own, judge, carry, session and load say from these notes what was wrong (their judging
// functions are pure), bounds are the times in which things have to be well again, promise is the list of everything that is
// asserted. What is promised, and why with these bounds, is in docs/reliability.md.
package chaos

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"github.com/pgporter/pgporter/lab/sandbox"
)

// Config says what to do.
type Config struct {
	// Length is how long faults are done, Seed which are drawn; 0 takes one at random.
	Length time.Duration
	Seed   uint64
	// Prefix is the first three octets of the sandbox's addresses; empty takes 127.0.70, with Netns 10.10.10.
	Prefix string
	// Dir is the sandbox's directory. Its logs stay there if a promise was broken, and with Keep if none was.
	Dir  string
	Keep bool
	// Binary is the pgporter to test; empty builds one with the race detector, for which the source has to be at hand.
	Binary string
	// Faults are the only kinds of faults; empty takes all that are drawn by themselves.
	Faults []string
	// Netns has nodes in network namespaces, whose networks fail too.
	Netns bool
	// List has the faults printed and nothing done.
	List bool
	// WithoutPgporter has clients find the primary themselves: what Patroni alone does under the same faults.
	WithoutPgporter bool
}

// ErrInput marks an error of what was asked for: nothing was started.
var ErrInput = errors.New("what was asked for can't be")

// refused is an error that is ErrInput too.
type refused struct{ error }

func (refused) Is(target error) bool { return target == ErrInput }

// members is how many the cluster has.
const members = 3

// Run does it all, and tells it to out; false says that a promise was broken, an error that nothing can be said.
func Run(ctx context.Context, c Config, out io.Writer) (kept bool, err error) {
	from, err := choose(c.Faults, c.Netns)
	if err != nil {
		return false, refused{err}
	}
	if c.Prefix == "" && !c.Netns {
		c.Prefix = "127.0.70"
	}
	if c.Seed == 0 {
		c.Seed = uint64(rand.Uint32()) + 1
	}
	faults := draw(c.Seed, c.Length, members, from)
	fmt.Fprintf(out, "seed %d, %s, %d faults; the same again: make chaos SEED=%d TIME=%s\n", c.Seed, c.Length, len(faults), c.Seed, c.Length)
	if c.List {
		for _, f := range faults {
			fmt.Fprintln(out, f)
		}
		return true, nil
	}
	if c.Binary == "" && !c.WithoutPgporter {
		dir, err := os.MkdirTemp("", "pgporter-chaos-build-")
		if err != nil {
			return false, err
		}
		defer os.RemoveAll(dir)
		c.Binary = filepath.Join(dir, "pgporter")
		build := exec.CommandContext(ctx, "go", "build", "-race", "-o", c.Binary, "github.com/pgporter/pgporter/cmd/pgporter")
		if said, err := build.CombinedOutput(); err != nil {
			return false, fmt.Errorf("building pgporter: %w\n%s", err, said)
		}
	}
	// The proxies before Patronis' REST APIs, which hang and count, are this program too.
	proxy, err := os.Executable()
	if err != nil {
		return false, err
	}
	s, err := sandbox.Up(ctx, sandbox.Config{
		Dir: c.Dir, Prefix: c.Prefix, Netns: c.Netns, Members: members, Sync: true, Binary: c.Binary, WithoutPgporter: c.WithoutPgporter,
		RestProxy: proxy, Door: !c.WithoutPgporter,
	}, out)
	if err != nil {
		return false, err
	}
	defer func() {
		down, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
		defer cancel()
		if downErr := s.Down(down, !kept || c.Keep); downErr != nil {
			kept, err = false, errors.Join(err, downErr)
		}
		if !kept || c.Keep {
			fmt.Fprintf(out, "the logs of everything are in %s\n", filepath.Join(c.Dir, "log"))
		}
	}()
	s.SetProgress(io.Discard)
	f := newField(s, out)
	return f.hold(ctx, c, faults)
}

// hold plays the faults and says whether every promise was kept.
func (f *field) hold(ctx context.Context, c Config, faults []fault) (bool, error) {
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
	if !c.WithoutPgporter {
		if err := f.addReaders(ctx); err != nil {
			return false, err
		}
	}
	all := promises(f, revision)
	if c.WithoutPgporter {
		all = all[:2]
	}

	// Watchers outlive the clients, and all are joined.
	looking, stopLooking := context.WithCancel(ctx)
	defer stopLooking()
	var watchers, clients sync.WaitGroup
	failures := make(chan error, len(all)+1)
	watchers.Go(func() {
		if err := f.keepPools(looking); err != nil {
			failures <- err
		}
	})
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
	f.startClients(working, &clients, c.WithoutPgporter)

	f.mu.Lock()
	f.began = time.Now()
	f.mu.Unlock()
	f.playAll(ctx, faults, c.Length)
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
		// That a member comes back is Patroni's affair; the services have answered without it.
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
	return f.report(c, all, broken), nil
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
		if forPrimary(to.Port) {
			start(to, true, true, 50*time.Millisecond)
			start(to, true, false, 100*time.Millisecond)
		} else {
			start(to, false, true, 100*time.Millisecond)
			start(to, false, false, 200*time.Millisecond)
		}
	}
	for _, to := range f.Doors("default") {
		start(to, true, true, 50*time.Millisecond)
		start(to, true, true, 50*time.Millisecond)
		start(to, true, false, 200*time.Millisecond)
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
