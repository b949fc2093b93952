// Package shadow compares what pgporter decides with what a HAProxy beside it does that carries the same services: which server
// would get new clients, whose sessions would end, since when, and who was right as far as the leader key tells.
//
// It owns nothing but what it has seen: it binds no port, ends no session, and gives HAProxy no command but `show stat`. It follows
// the Boards as an engine does, and asks HAProxy once a second, five times a second while something changes, with one question
// under way; Patroni and etcd are asked nothing on its account.
//
//	ask.go      HAProxy's statistics, from its socket or its page
//	book.go     what both sides say of a cluster's servers, and where they differ: pure
//	sessions.go the same for sessions that end: pure
//	event.go    what belongs together: an event from its first change until all is calm, and the judgement then; pure
//	words.go    the sentences
//	shadow.go   the Watcher: its loop and its Report
//
// What isn't compared: limits (maxconn, queues, slowstart) and the order in which usable servers get their clients.
package shadow

import (
	"context"
	"fmt"
	"log/slog"
	"reflect"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/pgporter/pgporter/internal/engine"
	"github.com/pgporter/pgporter/internal/engine/haproxy"
	"github.com/pgporter/pgporter/internal/monitor/view"
)

const (
	// quietGap is between two looks at HAProxy while nothing changes, busyGap while something does.
	quietGap = time.Second
	busyGap  = 200 * time.Millisecond
	// busyFor is how long an event has HAProxy looked at in the shorter gap.
	busyFor = time.Minute
	// askTime bounds a question. LongestRound is how long Run takes for a round at most.
	askTime = 2 * time.Second
	// mostEvents are kept; older ones are dropped and counted.
	mostEvents = 50
)

// LongestRound is how long Run takes for a round while nothing hangs.
const LongestRound = 5 * time.Second

// Config is what a Watcher needs.
type Config struct {
	HAProxy Source
	// Logger gets events and disagreements; nil drops them.
	Logger *slog.Logger
}

// Watcher is a shadow. Its methods are safe for concurrent use.
type Watcher struct {
	cfg  Config
	log  *slog.Logger
	kick chan struct{}
	// beats count the rounds of Run.
	beats atomic.Uint64

	mu    sync.Mutex
	books []*book
	// carried are services that pgporter carries itself, both those of them that HAProxy listens for, too.
	carried, both []string
	// lately is what became of questions.
	lately struct {
		asked, unanswered uint64
		answered          time.Time
		silent            string
	}
	events  []*Event
	number  int
	dropped int
	right   Right
	// lines are for the log, once nothing is held.
	lines []line
}

// line is one for the log.
type line struct {
	level slog.Level
	text  string
	about []any
}

// Right counts disagreements that are over by who was right, as far as the leader key told.
type Right struct{ PGPorter, HAProxy, Unknown int }

// Report is what a Watcher has seen.
type Report struct {
	// HAProxy says where it is asked.
	HAProxy string
	// Asked are questions, Unanswered those of them without a usable answer. Answered is when it answered last, Silent why it doesn't;
	// empty if it does.
	Asked, Unanswered uint64
	Answered          time.Time
	Silent            string
	// Both are services that pgporter carries and HAProxy listens for, too; Absent those that HAProxy hasn't.
	Both   []string
	Absent []string
	// Standing are disagreements that last, in order of their beginning.
	Standing []Disagreement
	// Events are the latest ones, the newest last, those under way behind them. Dropped is how many older ones there were.
	Events  []Event
	Dropped int
	Right   Right
}

// New makes a Watcher of nothing yet.
func New(cfg Config) *Watcher {
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	return &Watcher{cfg: cfg, log: cfg.Logger, kick: make(chan struct{}, 1)}
}

// Watch has it watch what an Offer has but the services that pgporter carries itself, by their full names. What is known of clusters that
// stay is kept.
func (w *Watcher) Watch(o engine.Offer, carries func(service string) bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	before := w.books
	w.books, w.carried = nil, nil
	watched := func(all []string) []string {
		var rest []string
		for _, name := range all {
			if carries(name) {
				w.carried = append(w.carried, name)
			} else {
				rest = append(rest, name)
			}
		}
		return rest
	}
	add := func(name string, board *view.Board) {
		i := slices.IndexFunc(before, func(b *book) bool { return b.cluster == name && b.board == board })
		if i >= 0 {
			w.books = append(w.books, before[i])
			return
		}
		w.books = append(w.books, newBook(name, board))
	}
	for _, c := range o.Clusters {
		var offered []string
		for _, d := range c.Definitions {
			offered = append(offered, d.FullName)
		}
		add(c.Name, c.Board)
		w.books[len(w.books)-1].offer(watched(offered))
	}
	if len(o.TCP.Services) > 0 {
		var offered []string
		for _, s := range o.TCP.Services {
			offered = append(offered, s.FullName)
		}
		add("", o.TCP.Board)
		w.books[len(w.books)-1].offer(watched(offered))
	}
	select {
	case w.kick <- struct{}{}:
	default:
	}
}

// Beats counts the times that Run has gone round.
func (w *Watcher) Beats() uint64 { return w.beats.Load() }

// answer is what came of a question.
type answer struct {
	at    time.Time
	lines []haproxy.Statistic
	err   error
}

// Run watches until ctx ends.
func (w *Watcher) Run(ctx context.Context) error {
	answers := make(chan answer, 1)
	var asking sync.WaitGroup
	defer asking.Wait()
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	timer := time.NewTimer(0)
	defer timer.Stop()
	var asked time.Time
	underWay := false
	for {
		w.beats.Add(1)
		now := time.Now()
		notices, gap := w.look(now)
		w.flush()
		wait := time.Until(asked.Add(gap))
		switch {
		case underWay:
			wait = quietGap
		case wait <= 0:
			underWay, asked, wait = true, now, quietGap
			asking.Go(func() { answers <- w.ask(ctx) })
		}
		timer.Reset(wait)
		cases := []reflect.SelectCase{
			{Dir: reflect.SelectRecv, Chan: reflect.ValueOf(ctx.Done())},
			{Dir: reflect.SelectRecv, Chan: reflect.ValueOf(answers)},
			{Dir: reflect.SelectRecv, Chan: reflect.ValueOf(timer.C)},
			{Dir: reflect.SelectRecv, Chan: reflect.ValueOf(w.kick)},
		}
		for _, replaced := range notices {
			cases = append(cases, reflect.SelectCase{Dir: reflect.SelectRecv, Chan: reflect.ValueOf(replaced)})
		}
		switch chosen, got, _ := reflect.Select(cases); chosen {
		case 0:
			return nil
		case 1:
			underWay = false
			w.take(got.Interface().(answer))
		}
	}
}

// ask puts one question.
func (w *Watcher) ask(ctx context.Context) answer {
	ctx, cancel := context.WithTimeout(ctx, askTime)
	defer cancel()
	text, err := w.cfg.HAProxy.Statistics(ctx)
	if err != nil {
		return answer{at: time.Now(), err: err}
	}
	lines, err := haproxy.ParseStatistics(text)
	return answer{at: time.Now(), lines: lines, err: err}
}

// look takes the newest Views, ends events that are over, and gives what tells of the next Views and how long to wait between two
// questions.
func (w *Watcher) look(now time.Time) (notices []<-chan struct{}, gap time.Duration) {
	w.mu.Lock()
	defer w.mu.Unlock()
	gap = quietGap
	for _, b := range w.books {
		v, replaced := b.board.Watch()
		notices = append(notices, replaced)
		b.viewed(v)
		w.note(b, b.calm(now))
		if e := b.event; e != nil && now.Sub(e.Began) < busyFor {
			gap = busyGap
		}
	}
	return notices, gap
}

// take takes what HAProxy has answered.
func (w *Watcher) take(a answer) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.lately.asked++
	if a.err != nil {
		w.lately.unanswered++
		if w.lately.silent == "" {
			w.say(slog.LevelWarn, "HAProxy doesn't answer, so nothing can be compared", "haproxy", w.cfg.HAProxy.String(), "error", a.err.Error())
		}
		w.lately.silent = a.err.Error()
		return
	}
	if w.lately.silent != "" {
		w.say(slog.LevelInfo, "HAProxy answers", "haproxy", w.cfg.HAProxy.String())
	}
	w.lately.silent, w.lately.answered = "", a.at
	w.lookForBoth(a.lines)
	for _, b := range w.books {
		v := b.board.View()
		b.viewed(v)
		began := b.begun
		b.answered(a.at, a.lines)
		if b.begun && !began {
			w.begun(b)
		}
	}
}

// lookForBoth finds services that pgporter carries and that HAProxy listens for, too.
func (w *Watcher) lookForBoth(lines []haproxy.Statistic) {
	var both []string
	for _, l := range lines {
		if l.Server == haproxy.Frontend && l.Status == "OPEN" && slices.Contains(w.carried, l.Service) {
			both = append(both, l.Service)
		}
	}
	if !slices.Equal(both, w.both) && len(both) > 0 {
		w.say(slog.LevelWarn, "HAProxy listens for services that were taken from it: each new client gets to one of the two", "services", both)
	}
	w.both = both
}

// Ready says why HAProxy can't be given services yet: it doesn't listen for one, leads nobody anywhere though pgporter would, or leads
// clients of the primary to somebody else. Nil if it can. It asks once.
func (w *Watcher) Ready(ctx context.Context, services []string) error {
	a := w.ask(ctx)
	if a.err != nil {
		return a.err
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, name := range services {
		i := slices.IndexFunc(w.books, func(b *book) bool { return b.board.View().Service(name) != nil })
		if i < 0 {
			return fmt.Errorf("service %s isn't known", name)
		}
		if err := ready(w.books[i].board.View().Service(name), a.lines); err != nil {
			return err
		}
	}
	return nil
}

// begun tells where both sides stood at the first comparison.
func (w *Watcher) begun(b *book) {
	w.say(slog.LevelInfo, "comparing with HAProxy", "cluster", b.cluster, "servers", len(b.ours), "disagreements", len(b.open))
	for _, d := range b.standing() {
		w.say(slog.LevelWarn, d.Text(), "cluster", b.cluster)
	}
	if absent := b.absent(); len(absent) > 0 {
		w.say(slog.LevelWarn, "HAProxy hasn't all services, those aren't compared", "cluster", b.cluster, "services", absent)
	}
}

// note keeps an event that is over and tells of it; nil is none.
func (w *Watcher) note(b *book, e *Event) {
	if e == nil {
		return
	}
	w.number++
	e.Number = w.number
	if w.events = append(w.events, e); len(w.events) > mostEvents {
		w.dropped += len(w.events) - mostEvents
		w.events = slices.Delete(w.events, 0, len(w.events)-mostEvents)
	}
	for _, d := range b.settled {
		switch d.Right {
		case RightPGPorter:
			w.right.PGPorter++
		case RightHAProxy:
			w.right.HAProxy++
		default:
			w.right.Unknown++
		}
	}
	b.settled = nil
	w.say(slog.LevelInfo, "in shadow: "+e.What, "cluster", b.cluster, "event", e.Number, "began", e.Began, "steps", len(e.Steps)+e.Dropped, "disagreements", len(e.Disagreements))
	for _, d := range e.Disagreements {
		level := slog.LevelInfo
		if d.Right == RightHAProxy || d.Until.IsZero() {
			level = slog.LevelWarn
		}
		w.say(level, d.Text(), "cluster", b.cluster, "event", e.Number, "right", string(d.Right), "because", d.Because)
	}
}

// say has a line logged by flush. w.mu is held.
func (w *Watcher) say(level slog.Level, text string, about ...any) {
	w.lines = append(w.lines, line{level, text, about})
}

// flush logs what was said: nobody who needs the lock waits for the log's reader.
func (w *Watcher) flush() {
	w.mu.Lock()
	lines := w.lines
	w.lines = nil
	w.mu.Unlock()
	for _, l := range lines {
		w.log.Log(context.Background(), l.level, l.text, l.about...)
	}
}

// Report tells what was seen.
func (w *Watcher) Report() Report {
	w.mu.Lock()
	defer w.mu.Unlock()
	r := Report{HAProxy: w.cfg.HAProxy.String(), Asked: w.lately.asked, Unanswered: w.lately.unanswered, Answered: w.lately.answered, Silent: w.lately.silent,
		Both: slices.Clone(w.both), Dropped: w.dropped, Right: w.right}
	for _, e := range w.events {
		r.Events = append(r.Events, e.copied())
	}
	for _, b := range w.books {
		for _, d := range b.standing() {
			r.Standing = append(r.Standing, *d)
		}
		r.Absent = append(r.Absent, b.absent()...)
		if b.event != nil {
			e := b.event.copied()
			e.Number = w.number + 1
			e.What = b.what()
			r.Events = append(r.Events, e)
		}
	}
	slices.SortStableFunc(r.Standing, func(a, b Disagreement) int { return a.Since.Compare(b.Since) })
	return r
}
