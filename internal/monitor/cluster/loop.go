// Package cluster runs one loop per PostgreSQL cluster: it has its members checked, knows who is what, and publishes which
// server of which service may take clients.
//
// A loop is the only writer of its view.Board. What it decides is in Step, which is pure: a State, an event (a check's
// result, a new declaration, the time) and the time in, the next State and what to do out. The loop around it does that:
// runs the checks (health.Checker), publishes Views with membership and health together, and logs each change of state once.
//
// Roles are live: the services are resolved anew whenever a member's role changes, and their servers keep their health and
// sessions through it. A server that leaves a service and comes back has a higher epoch, so sessions of its former time end.
//
// # The leader key
//
// Where etcd is asked too (Config.Keys), what it says is one more event. It is believed as long as etcd is heard: its holder
// is the primary, every other member is put down on the paths of leaders at once, and nobody else is used there however it
// answers. The holder itself takes clients when its check passes, not before. A key that is gone says nothing of who was
// wrong: members are checked, that is all. When etcd is lost the checks decide alone as they do without it, but for one
// thing that stays true: who has lost the key to another member isn't believed to be the leader before it has said that it
// is none, or was promoted anew.
//
// A member that runs as the leader against the key is a reason to doubt the key too (etcd may hang): it is read again at
// once, and lost if that takes more than 2 s. A key that never named a declared member, or belongs to another database than
// the members', isn't believed at all: names or addresses are mistaken then.
//
// Left out: sessions themselves (they look at a server's Epoch), the connection to etcd (etcd), and discovery, which gives a
// new declaration to Prepare.
package cluster

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/pgporter/pgporter/internal/config/model"
	"github.com/pgporter/pgporter/internal/config/resolve"
	"github.com/pgporter/pgporter/internal/monitor/etcd"
	"github.com/pgporter/pgporter/internal/monitor/health"
	"github.com/pgporter/pgporter/internal/monitor/patroni"
	"github.com/pgporter/pgporter/internal/monitor/view"
)

// Config of a Loop. The zero Config is usable.
type Config struct {
	// Logger gets every change of state; slog.Default() if nil.
	Logger *slog.Logger
	// CAFile is for members whose API speaks TLS: see patroni.Options.
	CAFile string
	// Check runs the checks; nil asks Patroni.
	Check health.CheckFunc
	// Probe asks the ports that services have; nil is health.Probe.
	Probe health.CheckFunc
	// Keys gives what follows a cluster's keys in etcd; nil, or a nil result, leaves etcd out. It is called again with each new
	// declaration: Keys that are the same as before go on.
	Keys func(c model.Cluster) Keys
}

// Keys follows a cluster's keys: an etcd.Watcher.
type Keys interface {
	// Run delivers what they say until ctx ends.
	Run(ctx context.Context, deliver etcd.Deliver)
	// Confirm has them read at once, and doesn't block.
	Confirm()
}

// Loop watches one cluster.
type Loop struct {
	name    string
	log     *slog.Logger
	board   *view.Board
	checker *health.Checker
	prober  *health.Checker
	state   State
	watch   func(c model.Cluster) Keys
	// keys is what runs now; nil without etcd. stopKeys ends it and waits for that.
	keys     Keys
	stopKeys func()

	results  chan health.Result
	probes   chan health.Result
	readings chan etcd.Reading
	plans    chan planned
	// beats counts the times that the loop has gone round.
	beats atomic.Uint64
	// ended is closed when Run returns.
	ended chan struct{}
}

// BeatGap is how long a loop that nothing happens to takes for a round.
const BeatGap = time.Second

// planned is a declaration that waits for the loop, and where the verdict on it goes.
type planned struct {
	Planned
	// trial only finds out whether it could be taken.
	trial   bool
	verdict chan verdict
}

// verdict is what became of a declaration: the services that it means now, or why it isn't taken.
type verdict struct {
	set     model.Set
	refused error
}

// ErrEnded is given by Prepare when the loop has ended.
var ErrEnded = errors.New("the cluster's loop has ended")

// New makes a Loop. Its Board shows a View at once, in which nothing is up and every reason is `not checked yet`. The error
// says which selectors can't be compiled or evaluated on the declared members.
func New(c model.Cluster, cfg Config) (*Loop, error) {
	resolver, err := resolve.New(c)
	if err != nil {
		return nil, fmt.Errorf("cluster %s: %w", c.Name, err)
	}
	first, a := Begin(Planned{Cluster: c, Resolver: resolver}, time.Now())
	if a.Refused != nil {
		return nil, fmt.Errorf("cluster %s: %w", c.Name, a.Refused)
	}
	if cfg.Logger == nil {
		cfg.Logger = slog.Default()
	}
	if cfg.Check == nil {
		cfg.Check = health.AskPatroni(patroni.NewClient(patroni.Options{CAFile: cfg.CAFile}))
	}
	l := &Loop{
		name: c.Name, log: cfg.Logger, board: view.NewBoard(a.View), state: first, watch: cfg.Keys, stopKeys: func() {},
		results: make(chan health.Result), probes: make(chan health.Result), readings: make(chan etcd.Reading), plans: make(chan planned), ended: make(chan struct{}),
	}
	if cfg.Probe == nil {
		cfg.Probe = health.Probe
	}
	l.checker = health.NewChecker(cfg.Check, into(l.results))
	l.checker.Set(a.Checks)
	l.prober = health.NewChecker(cfg.Probe, into(l.probes))
	l.prober.Set(a.Probes)
	return l, nil
}

// into brings results to the loop.
func into(results chan<- health.Result) func(context.Context, health.Result) {
	return func(ctx context.Context, r health.Result) {
		select {
		case results <- r:
		case <-ctx.Done():
		}
	}
}

// Board is where the loop publishes.
func (l *Loop) Board() *view.Board { return l.board }

// Run checks and publishes until ctx ends, and returns nil when all that it started has ended. It may be called once.
func (l *Loop) Run(ctx context.Context) error {
	defer close(l.ended)
	var checking sync.WaitGroup
	checking.Go(func() { l.checker.Run(ctx) })
	checking.Go(func() { l.prober.Run(ctx) })
	defer checking.Wait()
	l.startKeys(ctx, l.keysOf(l.state.cluster))
	defer func() { l.stopKeys() }()
	timer := time.NewTimer(time.Hour)
	defer timer.Stop()
	beat := time.NewTicker(BeatGap)
	defer beat.Stop()
	for {
		l.beats.Add(1)
		var due <-chan time.Time
		if at, limited := l.state.Deadline(); limited {
			timer.Reset(time.Until(at))
			due = timer.C
		}
		select {
		case <-ctx.Done():
			return nil
		case r := <-l.results:
			l.step(Checked{r})
		case r := <-l.probes:
			l.step(Probed{r})
		case r := <-l.readings:
			l.step(Keyed{r})
		case p := <-l.plans:
			if p.trial {
				next, a := Step(l.state, p.Planned, time.Now())
				p.verdict <- verdict{next.set, a.Refused}
				continue
			}
			keys := l.keysOf(p.Cluster)
			p.Rewatched = keys != l.keys
			l.step(p.Planned)
			if p.Rewatched {
				l.stopKeys()
				l.startKeys(ctx, keys)
			}
			p.verdict <- verdict{set: l.state.set}
		case <-due:
			l.step(Ticked{})
		case <-beat.C:
		}
	}
}

// Beats counts the times that the loop has gone round, which it does each BeatGap at least. Whoever sees that the number stays
// the same sees that the loop hangs.
func (l *Loop) Beats() uint64 { return l.beats.Load() }

// keysOf gives what is to follow a cluster's keys; nil if etcd isn't to be asked.
func (l *Loop) keysOf(c model.Cluster) Keys {
	if l.watch == nil {
		return nil
	}
	return l.watch(c)
}

// startKeys follows the cluster's keys in etcd.
func (l *Loop) startKeys(ctx context.Context, keys Keys) {
	l.keys, l.stopKeys = nil, func() {}
	if keys == nil {
		return
	}
	ctx, cancel := context.WithCancel(ctx)
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		keys.Run(ctx, func(ctx context.Context, r etcd.Reading) {
			select {
			case l.readings <- r:
			case <-ctx.Done():
			}
		})
	}()
	l.keys = keys
	l.stopKeys = func() {
		cancel()
		<-ended
	}
}

// step takes an event into account and does what follows from it.
func (l *Loop) step(e Event) {
	next, a := Step(l.state, e, time.Now())
	l.state = next
	if a.View != nil {
		l.board.Publish(a.View)
	}
	if a.Checks != nil {
		l.checker.Set(a.Checks)
	}
	for target, interval := range a.Intervals {
		l.checker.SetInterval(target, interval)
	}
	if a.Probes != nil {
		l.prober.Set(a.Probes)
	}
	for target, interval := range a.ProbeIntervals {
		l.prober.SetInterval(target, interval)
	}
	for _, member := range a.Recheck {
		l.Recheck(member)
	}
	if a.Confirm && l.keys != nil {
		l.keys.Confirm()
	}
	for _, m := range a.Log {
		l.log.Log(context.Background(), m.Level, m.Text, "cluster", l.name)
	}
}

// Change is a declaration that a Loop is ready to take. Whoever doesn't commit it just forgets it.
type Change struct {
	loop *Loop
	plan Planned
}

// prepareTime bounds how long a loop may take to say whether it can take a declaration, which is a matter of microseconds.
const prepareTime = 10 * time.Second

// Prepare does everything about a new declaration of the cluster that can fail, and touches nothing: Views, epochs and checks
// are what they were. The error says which selectors can't be compiled, or evaluated with the roles that members have now, or
// that the loop doesn't answer. Run has to be running.
func (l *Loop) Prepare(ctx context.Context, c model.Cluster) (*Change, error) {
	if c.Name != l.name {
		return nil, fmt.Errorf("cluster %s can't become %s", l.name, c.Name)
	}
	resolver, err := resolve.New(c)
	if err != nil {
		return nil, fmt.Errorf("cluster %s: %w", c.Name, err)
	}
	ctx, cancel := context.WithTimeoutCause(ctx, prepareTime, fmt.Errorf("its loop hasn't answered for %s", prepareTime))
	defer cancel()
	p := planned{Planned: Planned{Cluster: c, Resolver: resolver}, trial: true, verdict: make(chan verdict, 1)}
	select {
	case l.plans <- p:
	case <-l.ended:
		return nil, fmt.Errorf("cluster %s: %w", c.Name, ErrEnded)
	case <-ctx.Done():
		return nil, fmt.Errorf("cluster %s: %w", c.Name, context.Cause(ctx))
	}
	v := <-p.verdict
	if v.refused != nil {
		return nil, fmt.Errorf("cluster %s: %w", c.Name, v.refused)
	}
	p.Prepared = &v.set
	return &Change{l, p.Planned}, nil
}

// Publish has the loop go by the declaration and returns when a View of it has been published, or the loop has ended. It can't
// fail. Servers that are in it as before, by name and address, keep their health, epoch and sessions, also if the options of
// their service have changed.
func (c *Change) Publish() {
	p := planned{Planned: c.plan, verdict: make(chan verdict, 1)}
	select {
	case c.loop.plans <- p:
		<-p.verdict
	case <-c.loop.ended:
	}
}

// Recheck has a member checked by all its paths at once, and its ports: something was seen that its last results don't
// explain. Calls within 100 ms are one. It never blocks.
func (l *Loop) Recheck(member string) {
	l.checker.Trigger(member)
	l.prober.Trigger(member)
}
