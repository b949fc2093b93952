// Package cluster runs one loop per PostgreSQL cluster: it has its members checked, knows who is what, and publishes which
// server of which service may take clients.
//
// A loop is the only writer of its view.Board. What it decides is in State.Step, which does no I/O and looks at no clock: an event (an
// answer, a new declaration, the time) and the time in, a changed State and what to do out, the questions that are due among it
// (inquiry has when). The loop around it does that: puts the questions, publishes Views with membership and health together, and logs
// each change of state once.
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
// The failover key asks the leader to step down. Its new clients wait from then on for who leads next (hold.go).
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
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/pgporter/pgporter/internal/beat"
	"github.com/pgporter/pgporter/internal/config/model"
	"github.com/pgporter/pgporter/internal/config/resolve"
	"github.com/pgporter/pgporter/internal/monitor/etcd"
	"github.com/pgporter/pgporter/internal/monitor/exchange"
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
	// Check puts a question to a member; nil asks Patroni.
	Check health.CheckFunc
	// Probe asks the ports that services have; nil is health.Probe.
	Probe health.CheckFunc
	// Exchange puts questions, those of other loops among them; nil has a goroutine put each.
	Exchange *exchange.Loop
	// Witnessed says that Doubt is called where servers keep clients waiting: ports that answer are probed less often then.
	Witnessed bool
	// Holdless says that clients can't be kept waiting: the failover key begins no hold.
	Holdless bool
	// Slots bound the questions that are under way, those of other loops among them; nil doesn't.
	Slots *Slots
	// Seed makes the times at which this node asks its own; nodes with the same one ask at the same times.
	Seed uint64
	// Keys gives what follows a cluster's keys in etcd; nil, or a nil result, leaves etcd out. It is called again with each new
	// declaration: Keys that are the same as before go on.
	Keys func(c model.Cluster) Keys
}

// Keys follows a cluster's keys: an etcd.Watcher.
type Keys interface {
	// Run delivers what they say until ctx ends.
	Run(ctx context.Context, deliver etcd.Deliver)
	// AskLease says whether a Reading is to say when the leader key was renewed. It doesn't block.
	AskLease(on bool)
	// Confirm has them read at once, and doesn't block.
	Confirm()
}

// Loop watches one cluster.
type Loop struct {
	name  string
	log   *slog.Logger
	board *view.Board
	asker *health.Asker
	slots *Slots
	state State
	watch func(c model.Cluster) Keys
	// witnessed and holdless are Config's.
	witnessed, holdless bool
	// keys is what runs now; nil without etcd. stopKeys ends it and waits for that.
	keys     Keys
	stopKeys func()
	// asksLease is what the keys were told last.
	asksLease bool

	// heard gets a word when there is an answer.
	heard    chan struct{}
	hearing  sync.Mutex
	answers  []Event
	readings chan etcd.Reading
	plans    chan planned
	// beats counts the times that the loop has gone round.
	beats atomic.Uint64
	// ended is closed when Run returns.
	ended chan struct{}

	// woken gets a word when there is a wish: members that clients have failed at, services that they wait for, and servers that keep
	// them waiting.
	woken              chan struct{}
	wishes             sync.Mutex
	suspected, awaited []string
	doubted            []serverKey
}

// BeatGap is how long a loop that nothing happens to takes for a round: it wakes for its questions as a rule.
const BeatGap = beat.Gap

const (
	// awaitGap is the same while an answer is awaited. No standstill that is longer than it and stillGap goes unnoticed then.
	awaitGap = time.Second
	// stillGap is how late a round may be before that is this node's own standstill.
	stillGap = time.Second
)

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
	first, a := Begin(Planned{Cluster: c, Resolver: resolver, Witnessed: cfg.Witnessed, Holdless: cfg.Holdless}, cfg.Seed, time.Now())
	if a.Refused != nil {
		return nil, fmt.Errorf("cluster %s: %w", c.Name, a.Refused)
	}
	if cfg.Logger == nil {
		cfg.Logger = slog.Default()
	}
	asker := &health.Asker{Client: patroni.NewClient(patroni.Options{CAFile: cfg.CAFile}), Check: cfg.Check, Probe: cfg.Probe, Exchange: cfg.Exchange}
	return &Loop{
		name: c.Name, log: cfg.Logger, board: view.NewBoard(a.View), asker: asker, slots: cfg.Slots, state: first,
		watch: cfg.Keys, witnessed: cfg.Witnessed, holdless: cfg.Holdless, stopKeys: func() {}, heard: make(chan struct{}, 1), readings: make(chan etcd.Reading), plans: make(chan planned),
		ended: make(chan struct{}), woken: make(chan struct{}, 1),
	}, nil
}

// Board is where the loop publishes.
func (l *Loop) Board() *view.Board { return l.board }

// Run checks and publishes until ctx ends, and returns nil when all that it started has ended. It may be called once.
func (l *Loop) Run(ctx context.Context) error {
	defer close(l.ended)
	ctx, cancel := context.WithCancel(ctx)
	defer l.asker.Wait()
	defer cancel()
	l.startKeys(ctx, l.keysOf(l.state.cluster))
	defer func() { l.stopKeys() }()
	timer := time.NewTimer(BeatGap)
	defer timer.Stop()
	step := func(e Event) { l.step(ctx, e) }
	together := func(t time.Time) time.Time { return beat.Together(t, l.state.seed) }
	for {
		l.beats.Add(1)
		began := time.Now()
		round := BeatGap
		if l.state.Awaits() {
			round = awaitGap
		}
		at, limited := l.state.Wake(together)
		if limited {
			round = min(round, max(at.Sub(began), 0))
		}
		timer.Reset(round)
		// forgive is called before anything is made of the time.
		forgive := func() {
			if late := time.Since(began) - round; late > stillGap {
				l.log.Warn("this node stood still; what wasn't heard meanwhile is held against nobody", "cluster", l.name, "for", late.Round(time.Millisecond))
				step(Stood{late})
			}
		}
		select {
		case <-ctx.Done():
			return nil
		case <-l.heard:
			forgive()
			for _, e := range l.takeAnswers() {
				step(e)
			}
		case r := <-l.readings:
			forgive()
			step(Keyed{r})
		case <-l.woken:
			l.grant(step)
		case p := <-l.plans:
			if p.trial {
				next := l.state.Clone()
				a := next.Step(p.Planned, time.Now())
				p.verdict <- verdict{next.set, a.Refused}
				continue
			}
			keys := l.keysOf(p.Cluster)
			p.Rewatched = keys != l.keys
			step(p.Planned)
			if p.Rewatched {
				l.stopKeys()
				l.startKeys(ctx, keys)
			}
			p.verdict <- verdict{set: l.state.set}
		case <-timer.C:
			forgive()
			if limited && !time.Now().Before(at) {
				step(Ticked{})
			}
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
	l.keys, l.stopKeys, l.asksLease = nil, func() {}, false
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
func (l *Loop) step(ctx context.Context, e Event) {
	a := l.state.Step(e, time.Now())
	if a.View != nil {
		l.board.Publish(a.View)
	}
	for _, q := range a.Ask {
		l.ask(ctx, q)
	}
	if l.keys != nil {
		if on := l.state.doubtsLease(); on != l.asksLease {
			l.asksLease = on
			l.keys.AskLease(on)
		}
		if a.Confirm {
			l.keys.Confirm()
		}
	}
	for _, m := range a.Log {
		l.log.Log(context.Background(), m.Level, m.Text, "cluster", l.name)
	}
}

// ask puts a question. Its answer comes back as an event, at the latest when it is given up.
func (l *Loop) ask(ctx context.Context, q Question) {
	if !l.slots.take() {
		l.hear(q, health.Outcome{Silence: "this node has too many questions under way", NotAsked: true})
		return
	}
	l.asker.Ask(ctx, q.Target, q.Port, q.Within, func(o health.Outcome) {
		l.slots.give()
		l.hear(q, o)
	})
}

// hear has the loop take what came of a question. It never blocks.
func (l *Loop) hear(q Question, o health.Outcome) {
	r := health.Result{Target: q.Target, Outcome: o, Ended: time.Now()}
	var e Event = Checked{r}
	if q.Port {
		e = Probed{r}
	}
	l.hearing.Lock()
	l.answers = append(l.answers, e)
	l.hearing.Unlock()
	select {
	case l.heard <- struct{}{}:
	default:
	}
}

// takeAnswers gives what was heard since the last time.
func (l *Loop) takeAnswers() []Event {
	l.hearing.Lock()
	defer l.hearing.Unlock()
	answers := l.answers
	l.answers = nil
	return answers
}

// Slots bound how many questions are under way at once, of all loops that share them.
type Slots struct {
	under atomic.Int64
	most  int64
}

// NewSlots makes so many.
func NewSlots(most int) *Slots { return &Slots{most: int64(most)} }

// take takes a slot, if one is free. nil has always one.
func (s *Slots) take() bool {
	if s == nil {
		return true
	}
	if s.under.Add(1) > s.most {
		s.under.Add(-1)
		return false
	}
	return true
}

// give gives back what was taken.
func (s *Slots) give() {
	if s != nil {
		s.under.Add(-1)
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
	p := planned{Planned: Planned{Cluster: c, Resolver: resolver, Witnessed: l.witnessed, Holdless: l.holdless}, trial: true, verdict: make(chan verdict, 1)}
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

// Recheck has a member asked out of turn, and its ports: something was seen that its last results don't explain. How often that is
// done is bounded. It never blocks.
func (l *Loop) Recheck(member string) { wish(l, &l.suspected, member) }

// Await has those asked out of turn whose answers the clients need that wait for a service. How often that is done is bounded. It never
// blocks.
func (l *Loop) Await(service string) { wish(l, &l.awaited, service) }

// Doubt has a server's port probed out of turn: it has taken a connection, and a client waits for its first word. How often that is done
// is bounded. It never blocks.
func (l *Loop) Doubt(service, member string) { wish(l, &l.doubted, serverKey{service, member}) }

func wish[T comparable](l *Loop, list *[]T, of T) {
	l.wishes.Lock()
	if !slices.Contains(*list, of) {
		*list = append(*list, of)
	}
	l.wishes.Unlock()
	select {
	case l.woken <- struct{}{}:
	default:
	}
}

// grant takes the wishes up.
func (l *Loop) grant(step func(Event)) {
	l.wishes.Lock()
	suspected, awaited, doubted := l.suspected, l.awaited, l.doubted
	l.suspected, l.awaited, l.doubted = nil, nil, nil
	l.wishes.Unlock()
	if len(suspected) > 0 {
		step(Suspected{suspected})
	}
	if len(awaited) > 0 {
		step(Awaited{awaited})
	}
	if len(doubted) > 0 {
		step(Doubted{doubted})
	}
}
