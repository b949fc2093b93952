// Package switchover is a planned change of a cluster's leader that clients notice as little as can be: a sequence of steps, each with what
// undoes it and a bound.
//
// The nodes' pgporters keep the new clients of the leader waiting and pause the PgBouncers that they watch over, Patroni is asked, and who
// waits is let go when the new leader's own word is that it leads and isn't in recovery. What the nodes do is a lease, renewed while the
// sequence runs: whatever becomes of whoever runs it, they let go by themselves. As long as Patroni wasn't asked, any failure has
// everything be as it was.
//
// The package decides what is done when. Nodes, Patroni and PostgreSQL are given to it (World), and it prints nothing.
package switchover

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/pgporter/pgporter/internal/admin/api"
	"github.com/pgporter/pgporter/internal/monitor/patroni"
)

const (
	// lease is how long a node holds unless it is told again, which is done every renewal.
	lease   = 5 * time.Second
	renewal = time.Second
	// longest is how long a hold is counted on: a node ends it after 60 s, however often it is renewed.
	longest = 58 * time.Second
	// telling bounds one question to a node while it holds, asking one to a member. Patroni is slow while it looks for a leader, and what it
	// is asked again it does twice.
	telling = 2 * time.Second
	asking  = 3 * time.Second
)

// Node is a pgporter that carries the cluster.
type Node interface {
	// Called is its name in messages.
	Called() string
	Status(ctx context.Context) (*api.Status, error)
	// Hold gives an order, and says what is in force then.
	Hold(ctx context.Context, o api.HoldOrder) (api.Held, error)
}

// Patroni is the cluster's REST API.
type Patroni interface {
	// Cluster and Config are any member's word.
	Cluster(ctx context.Context) (patroni.Cluster, error)
	Config(ctx context.Context) (patroni.Config, error)
	// Member is a member's own word (GET /patroni).
	Member(ctx context.Context, name string) (patroni.Answer, error)
	// Switchover asks the leader: see patroni.Client.
	Switchover(ctx context.Context, leader, candidate string) (status int, says string, err error)
}

// Servers are the members' PostgreSQL and PgBouncer.
type Servers interface {
	// Postgres and Pooler say why nobody answers at a member's port; Pooler is nil too where no service leads there.
	Postgres(ctx context.Context, member string) error
	Pooler(ctx context.Context, member string) error
	// Checkpoint has a member make one. Like the two below it takes an account.
	Checkpoint(ctx context.Context, member string) error
	// Transactions are those of clients that are under way.
	Transactions(ctx context.Context, member string) ([]Transaction, error)
	Cancel(ctx context.Context, member string, these []Transaction) error
}

// Transaction is one under way.
type Transaction struct {
	PID   int       `json:"pid"`
	Begun time.Time `json:"begun"`
	// User, Database, Application and Client say whose it is, State what its backend does, by pg_stat_activity. Seconds is how long it has
	// lasted.
	User        string  `json:"user,omitempty"`
	Database    string  `json:"database,omitempty"`
	Application string  `json:"application,omitempty"`
	Client      string  `json:"client,omitempty"`
	State       string  `json:"state,omitempty"`
	Seconds     float64 `json:"seconds"`
}

// String names it for people.
func (t Transaction) String() string {
	whose := t.User + " in " + t.Database
	for _, more := range []string{t.Application, t.Client} {
		if more != "" {
			whose += ", " + more
		}
	}
	return fmt.Sprintf("pid %d (%s): %s, a transaction of %.1f s", t.PID, whose, t.State, t.Seconds)
}

// World is whom a switchover is made with.
type World struct {
	Nodes   []Node
	Patroni Patroni
	Servers Servers
}

// Order is what is wanted.
type Order struct {
	Cluster string
	// ID is this switchover's alone.
	ID string
	// To is to lead next; empty for who fits best.
	To string
	// Drain is how long transactions are waited for. Cancel cancels what runs then, Force goes on in spite of it.
	Drain         time.Duration
	Cancel, Force bool
	// DryRun looks, and says what would be done.
	DryRun bool
	// Checkpoint bounds the checkpoint of each of the two members, Look each question before anything is begun.
	Checkpoint, Look time.Duration
}

// Event is a line of what happens.
type Event struct {
	// After is how long since the beginning.
	After time.Duration
	// Step is the one that begins; empty for what is to be said of the one under way.
	Step string
	Text string
}

// Report is what came of it.
type Report struct {
	Cluster string `json:"cluster"`
	ID      string `json:"id"`
	From    string `json:"from,omitempty"`
	To      string `json:"to,omitempty"`
	// Done says that To leads; Asked that Patroni was asked, so that From may not lead any more even if Done is false. DryRun says that
	// nothing was to be changed.
	Done   bool `json:"done"`
	Asked  bool `json:"asked"`
	DryRun bool `json:"dry_run,omitempty"`
	// Error is why it isn't done; absent if it is.
	Error string `json:"error,omitempty"`
	Steps []Step `json:"steps"`
	// StopSeconds are Patroni's from the question until the old leader's port refused, PromotionSeconds from there until the new one's own
	// word was that it leads, OwnSeconds from there until every node let clients through. HeldSeconds are all in which clients waited. Each
	// is absent where it didn't come to that.
	StopSeconds      float64 `json:"stop_seconds,omitempty"`
	PromotionSeconds float64 `json:"promotion_seconds,omitempty"`
	OwnSeconds       float64 `json:"own_seconds,omitempty"`
	HeldSeconds      float64 `json:"held_seconds,omitempty"`
	// Hints say what a part that took long is made of.
	Hints []string `json:"hints,omitempty"`
}

// Step is one of the sequence.
type Step struct {
	Name string `json:"name"`
	// Text says what it does to whom.
	Text string `json:"text"`
	// After is when it began, in seconds since the beginning.
	After   float64 `json:"after_seconds"`
	Seconds float64 `json:"seconds"`
	// Skipped says why it wasn't done, Problem why it failed; absent if neither.
	Skipped string   `json:"skipped,omitempty"`
	Problem string   `json:"problem,omitempty"`
	Said    []string `json:"said,omitempty"`
}

// step is one as it is done.
type step struct {
	name string
	// text says what it does to whom; it is asked when the step begins.
	text func() string
	// bound is how long it may take.
	bound func() time.Duration
	do    func(ctx context.Context) error
	// undo takes back what do did, or began to do; nil where there is nothing. It isn't interrupted, and bounds itself.
	undo func()
}

// run is a switchover under way.
type run struct {
	Order
	World
	began time.Time
	tell  func(Event)
	// stop ends the steps, interrupted says that whoever wanted them has.
	stop        context.CancelCauseFunc
	interrupted func() bool

	// found is what the look was about.
	found findings
	// holders are the nodes as they hold, since heldSince, as ordered; freed says that all were told to let go. draining has them asked more
	// often, news says that one of them has answered.
	holders   []*holder
	heldSince time.Time
	ordered   api.HoldOrder
	freed     bool
	draining  atomic.Bool
	news      chan struct{}
	// change is Patroni's part.
	change *change

	mu     sync.Mutex
	report Report
}

// Run makes a switchover and returns when all that it began has ended. tell is called with what happens, one at a time. When ctx ends
// everybody is let go.
func Run(ctx context.Context, o Order, w World, tell func(Event)) (Report, error) {
	caller := ctx
	ctx, stop := context.WithCancelCause(caller)
	defer stop(nil)
	r := &run{Order: o, World: w, began: time.Now(), tell: tell, interrupted: func() bool { return caller.Err() != nil }, stop: stop, news: make(chan struct{}, 1),
		report: Report{Cluster: o.Cluster, ID: o.ID, DryRun: o.DryRun, Steps: []Step{}}}
	err := r.steps(ctx, r.table())
	r.endChange()
	r.measure()
	r.report.From, r.report.To = r.found.from, r.found.to
	if err != nil {
		r.report.Error = err.Error()
	}
	return r.report, err
}

// table is the sequence.
func (r *run) table() []step {
	fixed := func(d time.Duration) func() time.Duration { return func() time.Duration { return d } }
	rest := func() time.Duration { return time.Until(r.heldSince.Add(longest)) }
	return []step{
		{name: "look", text: r.lookText, bound: fixed(6 * r.Look), do: r.look},
		{name: "checkpoint", text: r.checkpointText, bound: fixed(2*r.Checkpoint + asking), do: r.checkpoint},
		{name: "hold", text: r.holdText, bound: fixed(lease), do: r.hold, undo: r.letGo},
		{name: "drain", text: r.drainText, bound: fixed(mostSettling + r.Drain + cancelled + 2*asking), do: r.drain},
		{name: "ask", text: r.askText, bound: fixed(asking), do: r.ask},
		{name: "stop", text: r.stopText, bound: rest, do: r.awaitStop},
		{name: "promote", text: r.promoteText, bound: rest, do: r.awaitPromotion},
		{name: "release", text: r.releaseText, bound: fixed(2 * lease), do: r.release},
		{name: "serve", text: r.serveText, bound: fixed(serving + asking), do: r.serve},
	}
}

// steps does them one after the other. When one fails what was begun is undone, the last first.
func (r *run) steps(ctx context.Context, table []step) error {
	for i, s := range table {
		r.begin(s)
		if r.DryRun && i > 0 {
			continue
		}
		bound := s.bound()
		one, cancel := context.WithTimeout(ctx, bound)
		err := s.do(one)
		if err != nil {
			err = r.why(ctx, one, bound, err)
		}
		cancel()
		r.end(err)
		if err == nil {
			continue
		}
		for _, begun := range slices.Backward(table[:i+1]) {
			if begun.undo != nil {
				begun.undo()
			}
		}
		return r.failed(s.name, err)
	}
	r.report.Done = !r.DryRun
	return nil
}

// why says why a step failed whose context is one, that of all steps ctx.
func (r *run) why(ctx, one context.Context, bound time.Duration, err error) error {
	switch {
	case r.interrupted():
		return errors.New("interrupted")
	case ctx.Err() != nil:
		return context.Cause(ctx)
	case one.Err() != nil && errors.Is(err, one.Err()):
		return fmt.Errorf("it took longer than %s", bound.Round(time.Millisecond))
	}
	return err
}

// failed says where it failed, and what is so now.
func (r *run) failed(step string, err error) error {
	r.mu.Lock()
	asked := r.report.Asked
	r.mu.Unlock()
	now := "nothing was begun"
	switch {
	case asked && r.change.refused():
		now = fmt.Sprintf("%s leads on, and clients are let go: everything is as it was", r.found.from)
	case asked:
		now = "clients are let go; Patroni was asked and may go on: pgporter status tells"
	case len(r.holders) > 0:
		now = "clients are let go: everything is as it was"
	}
	return fmt.Errorf("%s: %w; %s", step, err, now)
}

// begin notes and tells that a step begins.
func (r *run) begin(s step) {
	r.mu.Lock()
	defer r.mu.Unlock()
	after, text := time.Since(r.began), s.text()
	r.report.Steps = append(r.report.Steps, Step{Name: s.name, Text: text, After: after.Seconds()})
	r.tell(Event{After: after, Step: s.name, Text: text})
}

// end notes how the step under way ended.
func (r *run) end(err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	s := &r.report.Steps[len(r.report.Steps)-1]
	s.Seconds = time.Since(r.began).Seconds() - s.After
	if err != nil {
		s.Problem = err.Error()
	}
}

// say tells something of the step under way.
func (r *run) say(format string, args ...any) {
	text := fmt.Sprintf(format, args...)
	r.mu.Lock()
	defer r.mu.Unlock()
	s := &r.report.Steps[len(r.report.Steps)-1]
	s.Said = append(s.Said, text)
	r.tell(Event{After: time.Since(r.began), Text: text})
}

// skip tells that a part of the step under way isn't done, and why.
func (r *run) skip(what string, why error) {
	text := fmt.Sprintf("%s: skipped: %v", what, why)
	r.mu.Lock()
	s := &r.report.Steps[len(r.report.Steps)-1]
	if s.Skipped != "" {
		text = s.Skipped + "; " + text
	}
	s.Skipped = text
	r.mu.Unlock()
	r.say("%s: skipped: %v", what, why)
}

// skipped says whether a part of a step wasn't done.
func (r *run) skipped(step string) bool {
	return slices.ContainsFunc(r.report.Steps, func(s Step) bool { return s.Name == step && s.Skipped != "" })
}

// together does something with each of several at once and gives their errors as one, each with a name before it.
func together[T any](all []T, name func(T) string, do func(T) error) error {
	problems := make([]error, len(all))
	var doing sync.WaitGroup
	for i, one := range all {
		doing.Go(func() {
			if err := do(one); err != nil {
				problems[i] = fmt.Errorf("%s: %w", name(one), err)
			}
		})
	}
	doing.Wait()
	return listed(problems)
}

// listed is several errors in one line; nil if there are none.
func listed(problems []error) error {
	var texts []string
	for _, p := range problems {
		if p != nil {
			texts = append(texts, p.Error())
		}
	}
	if len(texts) == 0 {
		return nil
	}
	return errors.New(strings.Join(texts, "; "))
}

// within asks for an answer that may take so long.
func within[T any](ctx context.Context, most time.Duration, ask func(context.Context) (T, error)) (T, error) {
	ctx, cancel := context.WithTimeout(ctx, most)
	defer cancel()
	return ask(ctx)
}

// pause waits, and says whether ctx lasts.
func pause(ctx context.Context, d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-timer.C:
		return true
	}
}
