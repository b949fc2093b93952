package throughput

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"syscall"
	"time"

	"github.com/pgporter/pgporter/lab/bench/subject"
	"github.com/pgporter/pgporter/lab/sandbox"
)

const (
	// costPrefix is where the cluster is that is asked: not where the stage is.
	costPrefix = "127.0.7"
	// askers is how many proxies ask its members: a node each.
	askers = 4
	// costWarmUp is what the askers get before it counts.
	costWarmUp = 5 * time.Second
	// Windows of the states: an election is the expiry of the leader key (the sandbox's ttl of 20 s) and what follows.
	quietWindow    = 20 * time.Second
	electionWindow = 30 * time.Second
	awayWindow     = 20 * time.Second
	// wholeWithin is what the cluster gets to become whole between two of them, which takes some seconds.
	wholeWithin = 5 * time.Minute
)

// checkCosts measures what the members of a real cluster spend while nodes check them, in states of the cluster. Failsafe mode is on, so
// that the primary goes on without etcd and PostgreSQL isn't restarted.
func checkCosts(Config) []measure {
	state := func(name string, window time.Duration, begin func(context.Context, *sandbox.Sandbox) (counted []string, end func(context.Context) error, err error)) measure {
		return measure{
			name: name,
			quantities: []quantity{
				{name: "CPU of Patroni, % of a core", digits: 2, over: true},
				{name: "CPU of PostgreSQL, % of a core", digits: 2, over: true},
				{name: "both", digits: 2, over: true, goal: atMost(1)},
			},
			run: func(ctx context.Context, s *stage, w route) ([]float64, error) {
				return s.checkCost(ctx, w, window, begin)
			},
		}
	}
	all := func(box *sandbox.Sandbox) (names []string) {
		for _, m := range box.Declared() {
			names = append(names, m.Name)
		}
		return names
	}
	return []measure{
		state("quiet", quietWindow, func(_ context.Context, box *sandbox.Sandbox) ([]string, func(context.Context) error, error) {
			return all(box), func(context.Context) error { return nil }, nil
		}),
		state("the primary is killed", electionWindow, func(ctx context.Context, box *sandbox.Sandbox) ([]string, func(context.Context) error, error) {
			leader, err := box.Leader(ctx)
			if err != nil {
				return nil, nil, err
			}
			patroni := leader.Name + "/patroni"
			err = box.Kill(ctx, syscall.SIGKILL, patroni, leader.Name+"/postgres")
			survive := slices.DeleteFunc(all(box), func(name string) bool { return name == leader.Name })
			return survive, func(ctx context.Context) error { return box.Begin(ctx, patroni) }, err
		}),
		state("etcd is away", awayWindow, func(ctx context.Context, box *sandbox.Sandbox) ([]string, func(context.Context) error, error) {
			err := box.Kill(ctx, syscall.SIGKILL, "etcd")
			return all(box), func(ctx context.Context) error { return box.Begin(ctx, "etcd") }, err
		}),
	}
}

// cluster starts the cluster that is asked, once.
func (s *stage) cluster(ctx context.Context) (*sandbox.Sandbox, error) {
	if s.box != nil {
		return s.box, nil
	}
	box, err := sandbox.Up(ctx, sandbox.Config{Dir: filepath.Join(s.dir, "sandbox"), Prefix: costPrefix, WithoutPgporter: true}, s.config.Progress)
	if err != nil {
		return nil, err
	}
	s.box = box
	s.stops = append(s.stops, func() {
		ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
		defer cancel()
		if err := box.Down(ctx, false); err != nil {
			fmt.Fprintf(s.config.Progress, "the cluster isn't down: %v\n", err)
		}
	})
	return box, box.Configure(ctx, map[string]any{"failsafe_mode": true})
}

// checkCost brings the cluster into a state and gives what Patroni, PostgreSQL and both of the members that are to be counted spend in it
// while a route's proxies ask them; nobody does where there is no proxy.
func (s *stage) checkCost(ctx context.Context, w route, window time.Duration, begin func(context.Context, *sandbox.Sandbox) ([]string, func(context.Context) error, error)) (values []float64, err error) {
	box, err := s.cluster(ctx)
	if err != nil {
		return nil, err
	}
	whole, cancel := context.WithTimeoutCause(ctx, wholeWithin, fmt.Errorf("the cluster isn't whole after %s", wholeWithin))
	defer cancel()
	if _, err := box.AwaitFollowing(whole, box.Declared()[0].Cluster); err != nil {
		return nil, err
	}
	if w != direct {
		for i := range askers {
			p, err := s.asker(ctx, w, box, i)
			if err != nil {
				return nil, err
			}
			defer p.Stop()
		}
	}
	if err := pause(ctx, costWarmUp); err != nil {
		return nil, err
	}
	counted, end, err := begin(ctx, box)
	if err != nil {
		return nil, err
	}
	defer func() {
		// The cluster is as it was for what comes next, and so it can be taken down.
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Minute)
		defer cancel()
		err = errors.Join(err, end(ctx))
	}()
	var patroni, postgres ledger
	began := time.Now()
	for again := time.NewTicker(ledgerEvery); ; {
		for _, name := range counted {
			patroni.look(box, name+"/patroni")
			postgres.look(box, name+"/postgres")
		}
		if time.Since(began) > window {
			again.Stop()
			break
		}
		select {
		case <-ctx.Done():
			again.Stop()
			return nil, context.Cause(ctx)
		case <-again.C:
		}
	}
	took := time.Since(began).Seconds()
	of := func(l ledger) float64 { return 100 * l.spent().Seconds() / took }
	return []float64{of(patroni), of(postgres), of(patroni) + of(postgres)}, nil
}

// asker starts one of the proxies that ask the members, as a node that offers their services on an address of its own.
func (s *stage) asker(ctx context.Context, w route, box *sandbox.Sandbox, i int) (*subject.Process, error) {
	node, address := box.Declared()[0].Address, fmt.Sprintf("%s.%d", costPrefix, 61+i)
	s.fresh++
	dir := filepath.Join(s.dir, fmt.Sprintf("asker-%d", s.fresh))
	if w == haproxy {
		return subject.HAProxy{Pgporter: s.config.Binary, Inventory: box.Inventory(), Node: node, Address: address, Ports: []int{defaultPort}, Dir: dir}.Start(ctx)
	}
	if err := os.Mkdir(dir, 0o755); err != nil {
		return nil, err
	}
	p, err := subject.Start(exec.Command(s.binary(w), "run", "--inventory", box.Inventory(), "--node", node, "--bind", address), filepath.Join(dir, "pgporter.log"), syscall.SIGTERM)
	if err != nil {
		return nil, err
	}
	if err := p.Await(ctx, 20*time.Second, func(ctx context.Context) error {
		return subject.Listens(ctx, fmt.Sprintf("%s:%d", address, defaultPort))
	}); err != nil {
		p.Stop()
		return nil, err
	}
	return p, nil
}

// ledger is what several processes have spent since each was first looked at. Of one that has ended it keeps the last look. The zero value
// has seen none.
type ledger struct {
	first, last map[int]time.Duration
}

// ledgerEvery is how often they are looked at: what one spends between its last look and its end is lost.
const ledgerEvery = 200 * time.Millisecond

// look adds what something of a sandbox has spent by now; nothing if it doesn't run.
func (l *ledger) look(box *sandbox.Sandbox, what string) {
	pid, running := box.PID(what)
	if !running {
		return
	}
	now, err := treeCost(pid)
	if err != nil {
		return // it has just ended
	}
	l.add(pid, now.processor)
}

func (l *ledger) add(pid int, spent time.Duration) {
	if l.first == nil {
		l.first, l.last = map[int]time.Duration{}, map[int]time.Duration{}
	}
	if _, known := l.first[pid]; !known {
		l.first[pid] = spent
	}
	l.last[pid] = spent
}

func (l *ledger) spent() time.Duration {
	var all time.Duration
	for pid, last := range l.last {
		all += last - l.first[pid]
	}
	return all
}
