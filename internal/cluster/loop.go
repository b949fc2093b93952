// Package cluster runs one loop per PostgreSQL cluster: it has its members checked, knows who is what, and publishes which
// server of which service may take clients.
//
// A loop is the only writer of its state.Board. What it decides is in Step, which is pure: a State, an event (a check's
// result, a new declaration, the time) and the time in, the next State and what to do out. The loop around it does that:
// runs the checks (health.Checker), publishes Views with membership and health together, and logs each change of state once.
//
// Roles are live: the services are resolved anew whenever a member's role changes, and their servers keep their health and
// sessions through it. A server that leaves a service and comes back has a higher epoch, so sessions of its former time end.
//
// Left out: sessions themselves (they look at a server's Epoch), the leader key in the DCS, and discovery, which gives a
// new declaration to Replace.
package cluster

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/pgporter/pgporter/internal/health"
	"github.com/pgporter/pgporter/internal/patroni"
	"github.com/pgporter/pgporter/internal/resolve"
	"github.com/pgporter/pgporter/internal/service"
	"github.com/pgporter/pgporter/internal/state"
)

// Config of a Loop. The zero Config is usable.
type Config struct {
	// Logger gets every change of state; slog.Default() if nil.
	Logger *slog.Logger
	// CAFile is for members whose API speaks TLS: see patroni.Options.
	CAFile string
	// Check runs the checks; nil asks Patroni.
	Check health.CheckFunc
}

// Loop watches one cluster.
type Loop struct {
	name    string
	log     *slog.Logger
	board   *state.Board
	checker *health.Checker
	state   State

	results chan health.Result
	plans   chan planned
	// ended is closed when Run returns.
	ended chan struct{}
}

// planned is a declaration on its way into the loop, and where the verdict on it goes.
type planned struct {
	Planned
	verdict chan error
}

// ErrEnded is given by Replace when the loop has ended.
var ErrEnded = errors.New("the cluster's loop has ended")

// New makes a Loop. Its Board shows a View at once, in which nothing is up and every reason is `not checked yet`. The error
// says which selectors can't be compiled or evaluated on the declared members.
func New(c service.Cluster, cfg Config) (*Loop, error) {
	resolver, err := resolve.New(c)
	if err != nil {
		return nil, fmt.Errorf("cluster %s: %w", c.Name, err)
	}
	first, a := Begin(Planned{c, resolver}, time.Now())
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
		name: c.Name, log: cfg.Logger, board: state.NewBoard(a.View), state: first,
		results: make(chan health.Result), plans: make(chan planned), ended: make(chan struct{}),
	}
	l.checker = health.NewChecker(cfg.Check, func(ctx context.Context, r health.Result) {
		select {
		case l.results <- r:
		case <-ctx.Done():
		}
	})
	l.checker.Set(a.Checks)
	return l, nil
}

// Board is where the loop publishes.
func (l *Loop) Board() *state.Board { return l.board }

// Run checks and publishes until ctx ends, and returns nil when all that it started has ended. It may be called once.
func (l *Loop) Run(ctx context.Context) error {
	defer close(l.ended)
	checking := make(chan struct{})
	go func() {
		defer close(checking)
		l.checker.Run(ctx)
	}()
	defer func() { <-checking }()
	timer := time.NewTimer(time.Hour)
	defer timer.Stop()
	for {
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
		case p := <-l.plans:
			p.verdict <- l.step(p.Planned)
		case <-due:
			l.step(Ticked{})
		}
	}
}

// step takes an event into account and does what follows from it. The error says why a declaration was refused.
func (l *Loop) step(e Event) error {
	next, a := Step(l.state, e, time.Now())
	l.state = next
	if a.Refused != nil {
		return a.Refused
	}
	if a.View != nil {
		l.board.Publish(a.View)
	}
	if a.Checks != nil {
		l.checker.Set(a.Checks)
	}
	for target, interval := range a.Intervals {
		l.checker.SetInterval(target, interval)
	}
	for _, member := range a.Recheck {
		l.checker.Trigger(member)
	}
	for _, m := range a.Log {
		l.log.Log(context.Background(), m.Level, m.Text, "cluster", l.name)
	}
	return nil
}

// Replace gives the loop a new declaration of its cluster and returns when a View of it has been published. Servers that are
// in it as before, by name and address, keep their health, epoch and sessions, also if the options of their service have
// changed. If the declaration can't be used, or ctx ends first, everything stays as it was. Run has to be running.
func (l *Loop) Replace(ctx context.Context, c service.Cluster) error {
	if c.Name != l.name {
		return fmt.Errorf("cluster %s can't become %s", l.name, c.Name)
	}
	resolver, err := resolve.New(c)
	if err != nil {
		return fmt.Errorf("cluster %s: %w", c.Name, err)
	}
	p := planned{Planned{c, resolver}, make(chan error, 1)}
	select {
	case l.plans <- p:
	case <-l.ended:
		return fmt.Errorf("cluster %s: %w", c.Name, ErrEnded)
	case <-ctx.Done():
		return fmt.Errorf("cluster %s: %w", c.Name, context.Cause(ctx))
	}
	if err := <-p.verdict; err != nil {
		return fmt.Errorf("cluster %s: %w", c.Name, err)
	}
	return nil
}

// Recheck has a member checked by all its paths at once: something was seen that its last results don't explain. Calls
// within 100 ms are one. It never blocks.
func (l *Loop) Recheck(member string) { l.checker.Trigger(member) }
