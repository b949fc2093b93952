// Package haproxy has a real HAProxy carry a node's services: it renders its files (haproxycfg), has HAProxy check them,
// installs them, reloads, looks whether everything is there, and goes back to what was if it isn't. Between reloads it keeps
// HAProxy at what the clusters' Boards say.
//
// It owns the files that carry our stamp, the state file, and either a HAProxy of its own (started, adopted after a crash of
// ours, started again if it dies, stopped) or the reloads of the system's. It reads Boards and never writes there. Nothing
// in it moves clients' bytes: HAProxy goes on in the state that it was set to last when pgporter isn't there.
//
// What HAProxy alone does wrong, and what is done about it:
//
//   - After a start or a reload every server is up until its checks have failed. A new worker therefore begins with a state
//     file (load-server-state-from-file) in which a server is up only if the Board says so now; see stateFile.
//   - Workers that finish their sessions after a reload check no server any more (configuration manual 2.6, hard-stop-after).
//     Their sessions are ended over the master CLI once the Board says that they must; see sweep.
//   - Which servers are backups is fixed when the file is read. When the live roles change and one leader has settled, the
//     files are rendered anew; see follow.
//   - Its checks look at a status code. The Board's verdicts are set over the runtime API (`set server … health`), which
//     HAProxy's own checks can take back: if pgporter isn't there, HAProxy's checks alone decide.
//
// Left out: whatever is in a haproxy.cfg that isn't ours.
package haproxy

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/pgporter/pgporter/internal/config/model"
	"github.com/pgporter/pgporter/internal/engine"
	"github.com/pgporter/pgporter/internal/monitor/view"
)

// Engine runs HAProxy. Its methods are safe for concurrent use.
type Engine struct {
	cfg Config
	settings
	log *slog.Logger

	// mu serialises whatever changes files or HAProxy.
	mu      sync.Mutex
	pending *Change
	stopped bool
	lock    *os.File
	// adopted says that HAProxy was running when we came, so that its ports are no news.
	adopted bool
	// master is the process number of a HAProxy of our own; ended is closed when one that we started has ended, and nil if we
	// started none.
	master int
	ended  chan struct{}
	// child is the one that we started; nil with ended.
	child *os.Process

	// offer and services are what HAProxy carries: services of each cluster as they were rendered last.
	offer    engine.Offer
	services map[string][]model.Service
	// loaded is what the current worker has read, wanted what it has been brought to by the runtime API since: the files. Traffic
	// reads wanted without the lock.
	loaded *layout
	wanted atomic.Pointer[layout]
	parked map[serverID]bool
	ours   map[string]bool

	watch watch
	seen  traffic
	// lines are for the log: see unlock.
	lines []slog.Record
	// beats are what Beats counts.
	beats atomic.Uint64
}

// say has a line logged by unlock, with the time of now. e.mu is held.
func (e *Engine) say(level slog.Level, text string, args ...any) {
	if !e.log.Enabled(context.Background(), level) {
		return
	}
	line := slog.NewRecord(time.Now(), level, text, 0)
	line.Add(args...)
	e.lines = append(e.lines, line)
}

// unlock gives e.mu back and then logs: HAProxy is set to what the cluster says first, and nothing that needs the lock waits
// for whoever reads the log.
func (e *Engine) unlock() {
	lines := e.lines
	e.lines = nil
	e.mu.Unlock()
	for _, line := range lines {
		_ = e.log.Handler().Handle(context.Background(), line)
	}
}

// New makes an Engine and finds out where everything is. Nothing is started or written yet.
func New(cfg Config) (*Engine, error) {
	s, err := cfg.settings()
	if err != nil {
		return nil, err
	}
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	return &Engine{cfg: cfg, settings: s, log: cfg.Logger, ours: map[string]bool{}, parked: map[serverID]bool{}, watch: newWatch()}, nil
}

// Change is an Offer whose files HAProxy has found sound. Load and then Commit make it what is carried; Abort gives it up, before
// Load or after it.
type Change struct {
	engine   *Engine
	offer    engine.Offer
	prepared *layout
	// was is what HAProxy carried before Load; nil before that is called.
	was *carried
}

// carried is what HAProxy was brought to.
type carried struct {
	offer    engine.Offer
	services map[string][]model.Service
	layout   *layout
}

// Prepare renders the files of an Offer and has HAProxy check them. What runs isn't touched. One Change can be under way at a
// time.
func (e *Engine) Prepare(ctx context.Context, o engine.Offer) (*Change, error) {
	e.mu.Lock()
	defer e.unlock()
	switch {
	case e.pending != nil:
		return nil, errors.New("another change is being prepared")
	case e.stopped:
		return nil, errors.New("HAProxy has been stopped")
	}
	if err := e.begin(ctx); err != nil {
		return nil, err
	}
	if o.Base == nil && e.offer.Base != nil {
		o.Base = e.offer.Base
	}
	if o.Base == nil && !e.cfg.System {
		return nil, errors.New("nothing to make haproxy.cfg of")
	}
	l, err := e.render(o, func(c engine.Cluster) []model.Service { return c.Set.Services })
	if err != nil {
		return nil, err
	}
	// What our own HAProxy has read already needn't be checked again; beside ours the system's reads files of others.
	if e.cfg.System || !e.wanted.Load().same(l) {
		if err := check(ctx, e.binary, e.cfg.Dir, l); err != nil {
			return nil, err
		}
	}
	if err := e.probe(ctx, l, o); err != nil {
		return nil, err
	}
	e.pending = &Change{engine: e, offer: o, prepared: l}
	return e.pending, nil
}

// render makes the files of an Offer, with each cluster's services as the caller has them.
func (e *Engine) render(o engine.Offer, services func(engine.Cluster) []model.Service) (*layout, error) {
	m := material{tcp: o.TCPServices}
	if !e.cfg.System {
		m.base = e.ownBase(*o.Base, e.cfg.Bind)
	}
	for _, c := range o.Clusters {
		m.clusters = append(m.clusters, resolved{c.Cluster, services(c)})
	}
	return render(o.Node, e.cfg.Bind, m, e.extra, e.own)
}

// probe finds addresses that are new to HAProxy and that another process has.
func (e *Engine) probe(ctx context.Context, l *layout, o engine.Offer) error {
	if e.loaded == nil && (e.adopted || e.cfg.System) {
		return nil // which addresses HAProxy has already isn't known
	}
	had := map[string]bool{}
	if e.loaded != nil {
		for _, p := range e.loaded.proxies {
			had[p.address()] = true
		}
	}
	proxies := l.proxies
	if !e.cfg.System && (e.loaded == nil || e.offer.Base.StatsPort != o.Base.StatsPort) {
		base := e.ownBase(*o.Base, e.cfg.Bind)
		proxies = append(slices.Clone(proxies), proxy{name: "of statistics", ip: base.StatsIP, port: base.StatsPort})
	}
	var taken []error
	for _, p := range proxies {
		if had[p.address()] || ctx.Err() != nil {
			continue
		}
		if err := probe(p); err != nil {
			taken = append(taken, err)
		}
	}
	return errors.Join(taken...)
}

// Load installs a Change's files and has HAProxy take them, which is the last thing about it that can fail: on an error files
// and HAProxy are what they were, and the Change is over. No session ends by it: old ones go on in HAProxy's old worker.
//
// Where the Board of a new cluster knows roles that differ from those that the Change was prepared with, and one leader is
// settled, it is rendered by what it knows.
func (c *Change) Load(ctx context.Context) (err error) {
	e := c.engine
	e.mu.Lock()
	defer e.unlock()
	if e.pending != c || c.was != nil {
		return errors.New("this change isn't the one that is under way")
	}
	c.was = &carried{e.offer, e.services, e.wanted.Load()}
	defer func() {
		if err != nil {
			e.pending, e.offer, e.services = nil, c.was.offer, c.was.services
		}
	}()
	services := map[string][]model.Service{}
	for _, cluster := range c.offer.Clusters {
		services[cluster.Name] = cluster.Set.Services
		if view := cluster.Board.View(); cluster.New && settled(view) {
			services[cluster.Name] = resolvedIn(view)
		}
	}
	next, err := e.render(c.offer, func(c engine.Cluster) []model.Service { return services[c.Name] })
	if err != nil {
		return err
	}
	if !next.same(c.prepared) {
		if err := check(ctx, e.binary, e.cfg.Dir, next); err != nil {
			return err
		}
	}
	e.offer, e.services = c.offer, services
	return e.bring(ctx, next, asked)
}

// Commit makes a Change that was loaded what is followed from now on: sessions of what is gone end, and the current worker is
// set to what the Boards say. The Boards are to be of its Offer by now.
func (c *Change) Commit(ctx context.Context) {
	e := c.engine
	e.mu.Lock()
	defer e.unlock()
	if e.pending != c || c.was == nil {
		return
	}
	e.pending = nil
	if !e.stopped {
		e.follow(ctx)
	}
	e.watch.changed(e.offer)
}

// Abort gives a Change up. If it was loaded HAProxy is brought back to what it carried.
func (c *Change) Abort() {
	e := c.engine
	e.mu.Lock()
	defer e.unlock()
	if e.pending != c {
		return
	}
	e.pending = nil
	if c.was == nil || e.stopped {
		return
	}
	e.offer, e.services = c.was.offer, c.was.services
	ctx, cancel := context.WithTimeout(context.Background(), loadTime)
	defer cancel()
	if c.was.layout == nil {
		if !e.cfg.System {
			e.kill(ctx)
		}
		return
	}
	if err := e.bring(ctx, c.was.layout, gently); err != nil {
		e.say(slog.LevelError, "HAProxy can't be brought back to the configuration that it had", "error", err)
	}
}

// manner says what bring may do.
type manner int

const (
	// briefly does what is least: commands rather than a reload, nothing if nothing differs.
	briefly manner = iota
	// gently has no session end: what a command would do to those of a server that leaves is left to sweep, after a reload.
	gently
	// asked is gently, and reloads even if nothing differs: somebody wants it.
	asked
)

// bring makes HAProxy have a layout: by the runtime API where that is enough, else by a reload, or a start.
func (e *Engine) bring(ctx context.Context, next *layout, how manner) error {
	same := e.wanted.Load() != nil && e.wanted.Load().same(next)
	if same && how != asked {
		e.wanted.Store(next)
		return nil
	}
	changes, err := changesTo(e.cfg.Dir, next)
	if err != nil {
		return err
	}
	if e.loaded != nil && !same {
		needed, parks, enough := commands(e.loaded, next, e.parked)
		for at := range parks {
			enough = enough && (how == briefly || e.parked[at])
		}
		if enough {
			done, err := e.byCommands(ctx, changes, next, needed, parks)
			if done || err != nil {
				return err
			}
			if changes, err = changesTo(e.cfg.Dir, next); err != nil {
				return err
			}
		}
	}
	return e.byReload(ctx, changes, next)
}

// byCommands brings the running worker to a layout over the runtime API. False without an error means that HAProxy didn't
// take a command and has to be reloaded.
func (e *Engine) byCommands(ctx context.Context, changes []change, next *layout, commands []string, parks map[serverID]bool) (bool, error) {
	running, err := e.control.processes(ctx)
	if err != nil || running.Current.PID == 0 {
		return false, nil
	}
	if err := apply(e.cfg.Dir, changes); err != nil {
		return false, err
	}
	for _, command := range commands {
		if err := e.control.tell(ctx, running.Current.PID, command); err != nil {
			e.say(slog.LevelWarn, "HAProxy has to be reloaded: a command wasn't taken", "error", err)
			return false, nil
		}
	}
	for at := range e.parked {
		if !parks[at] {
			delete(e.watch.published, at) // it came back down
		}
	}
	e.loaded, e.parked = reweighed(e.loaded, next), parks
	clear(e.watch.ordered) // a weight among the commands is the declared one
	e.wanted.Store(next)
	e.say(slog.LevelInfo, "HAProxy was told what has changed", "commands", len(commands))
	return true, nil
}

// byReload installs files and has HAProxy read them. If it can't, or lacks a server afterwards, everything goes back.
func (e *Engine) byReload(ctx context.Context, changes []change, next *layout) error {
	if err := apply(e.cfg.Dir, changes); err != nil {
		return fmt.Errorf("installing HAProxy's files: %w", err)
	}
	for _, p := range next.proxies {
		e.ours[p.name] = true
	}
	was, parked := e.loaded, e.parked
	err := e.load(ctx, next)
	if err == nil {
		e.loaded, e.parked = next, map[serverID]bool{}
		e.wanted.Store(next)
		return nil
	}
	// The return to what was must not end halfway because somebody wants to stop.
	back, cancel := context.WithTimeout(context.WithoutCancel(ctx), loadTime)
	defer cancel()
	if undo := apply(e.cfg.Dir, undoing(changes)); undo != nil {
		return fmt.Errorf("%w; and the old files couldn't be put back: %w", err, undo)
	}
	if was == nil && !e.cfg.System {
		e.kill(back)
		return err
	}
	e.parked = parked
	if again := e.reload(back, e.wanted.Load()); again != nil {
		return fmt.Errorf("%w; and going back failed: %w", err, again)
	}
	if e.wanted.Load() != nil {
		e.loaded, e.parked = e.wanted.Load(), map[serverID]bool{}
	}
	e.say(slog.LevelWarn, "HAProxy is back at the configuration that it had")
	return err
}

// reweighed is a layout with the weights that another one has.
func reweighed(l, by *layout) *layout {
	again := &layout{files: by.files, proxies: slices.Clone(l.proxies)}
	for i, p := range again.proxies {
		p.servers = slices.Clone(p.servers)
		for j := range p.servers {
			if s, there := by.proxies[i].find(p.servers[j].name); there {
				p.servers[j].weight = s.weight
			}
		}
		again.proxies[i] = p
	}
	return again
}

// load has HAProxy read what is installed, and looks whether it has it all.
func (e *Engine) load(ctx context.Context, l *layout) error {
	if !e.cfg.System && !e.adopted && e.loaded == nil {
		return e.start(ctx, l)
	}
	return e.reload(ctx, l)
}

// verify reads back over the socket of a worker whether everything of a layout is there. It asks until ctx ends.
func (e *Engine) verify(ctx context.Context, pid int, l *layout) error {
	for {
		servers, err := e.control.servers(ctx, pid)
		var counted map[serverID]counters
		if err == nil {
			counted, err = e.control.counts(ctx, pid)
		}
		var absent []string
		if err == nil {
			if absent = l.missing(servers, counted); len(absent) == 0 {
				return nil
			}
			err = fmt.Errorf("HAProxy lacks %s", strings.Join(absent, ", "))
			if e.cfg.System {
				err = fmt.Errorf("%w (does its command line have -f for %s?)", err, confDir)
			}
			return err
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("HAProxy's new worker doesn't answer: %w", err)
		case <-time.After(pause):
		}
	}
}

// settled says that a cluster has exactly one primary, whose PostgreSQL runs.
func settled(v *view.View) bool {
	primaries, running := 0, 0
	for _, m := range v.Members {
		if m.Live == model.Primary {
			primaries++
			if m.State == "running" {
				running++
			}
		}
	}
	return primaries == 1 && running == 1
}

// resolvedIn gives a View's services as they are declared, without their health and without orders: files say what is declared.
func resolvedIn(v *view.View) []model.Service {
	services := make([]model.Service, 0, len(v.Services))
	for _, s := range v.Services {
		declared := s.Service
		declared.Servers = slices.Clone(s.Servers)
		for i := range declared.Servers {
			declared.Servers[i].Weight = s.DeclaredWeight(i)
		}
		services = append(services, declared)
	}
	return services
}
