// Package tcpcheck watches the servers of a node's TCP services (haproxy_services) for the native engine: it checks
// them as their lines say, knows which are up, and publishes that as a view.View.
//
// It is to these services what cluster is to PostgreSQL's: the only writer of their Board. But there are no roles, no leader
// and no selectors: servers are declared, and a check either passes or doesn't. HAProxy's rules hold (machine.go, pure):
// `fall` failures in a row and `rise` passes in a row, a server without a check is always up. There is one difference: one
// with a check is down until it has passed for the first time, so that nobody is connected to a server that hasn't been checked.
//
// When checks run is health's business (checker.go), what they ask is tcpservice's (tcpservice.Check); asking is done here
// (check.go).
package tcpcheck

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/pgporter/pgporter/internal/beat"
	"github.com/pgporter/pgporter/internal/config/tcpservice"
	"github.com/pgporter/pgporter/internal/monitor/health"
	"github.com/pgporter/pgporter/internal/monitor/view"
)

// Prepared are services whose checks can run: everything that can fail about them is done.
type Prepared struct {
	services []tcpservice.Service
	// probes has one entry for each server of each service; nil where it isn't checked.
	probes [][]*probe
}

// Prepare reads the files that checks need. All failures are returned at once.
func Prepare(services []tcpservice.Service) (*Prepared, error) {
	p := &Prepared{services: services}
	var failures []error
	for _, s := range services {
		probes := make([]*probe, len(s.Checks))
		for i, c := range s.Checks {
			if c == nil {
				continue
			}
			var err error
			if probes[i], err = newProbe(*c); err != nil {
				failures = append(failures, fmt.Errorf("service %s: server %s: %w", s.FullName, s.Servers[i].Member, err))
			}
		}
		p.probes = append(p.probes, probes)
	}
	if len(failures) > 0 {
		return nil, errors.Join(failures...)
	}
	return p, nil
}

// Watcher watches a set of services, which Replace replaces. All methods may be called at any time.
type Watcher struct {
	log     *slog.Logger
	board   *view.Board
	checker *checker
	// under has an entry for each check that is under way.
	under chan struct{}
	// beats counts the times that Run has gone round.
	beats atomic.Uint64

	mu       sync.Mutex
	services []tcpservice.Service
	servers  map[serverKey]*server
	byTarget map[health.Target]*server
	// serving are the services that had a server for new clients.
	serving map[string]bool
	// epoch is the last one given out; version that of the View.
	epoch, version uint64
	// lines are for the log, once the View that they tell of is published: see unlock.
	lines []line
}

// line is one of the log.
type line struct {
	level slog.Level
	text  string
}

// logf has a line logged by unlock. w.mu is held.
func (w *Watcher) logf(level slog.Level, format string, args ...any) {
	w.lines = append(w.lines, line{level, fmt.Sprintf(format, args...)})
}

// unlock gives w.mu back and then logs: other checks' results don't wait for a reader of the log.
func (w *Watcher) unlock() {
	lines := w.lines
	w.lines = nil
	w.mu.Unlock()
	for _, l := range lines {
		w.log.Log(context.Background(), l.level, l.text)
	}
}

type serverKey struct{ service, member string }

// server is one server of one service.
type server struct {
	key     serverKey
	address string
	backup  bool
	weight  int
	machine machine
	probe   *probe
	target  health.Target
	since   time.Time
	// recovered is when it came up again; zero if it has never been down since it was up.
	recovered time.Time
	epoch     uint64
	// checks counts what its checks have brought.
	checks view.Checks
	// notAsked says that it couldn't be checked the last time.
	notAsked bool
}

// New makes a Watcher of no services, which has at most so many checks under way at a time. Its Board shows an empty View.
func New(log *slog.Logger, most int) *Watcher {
	w := &Watcher{log: log, under: make(chan struct{}, most), board: view.NewBoard(&view.View{At: time.Now()}), servers: map[serverKey]*server{},
		byTarget: map[health.Target]*server{}, serving: map[string]bool{}}
	w.checker = newChecker(w.check, w.take)
	return w
}

// Board is where the Watcher publishes: one View for all services, of no cluster.
func (w *Watcher) Board() *view.Board { return w.board }

// BeatGap is how long Run takes for a round.
const BeatGap = beat.Gap

// Run has the checks run until ctx ends, and returns when all of them have ended. It may be called once.
//
// Results are taken into account by the goroutines of their checks, one at a time. Run goes round through the same lock, so that
// it hangs if one of them does.
func (w *Watcher) Run(ctx context.Context) {
	var checking sync.WaitGroup
	checking.Go(func() { w.checker.Run(ctx) })
	defer checking.Wait()
	again := beat.Every(BeatGap)
	defer again.Stop()
	for {
		w.mu.Lock()
		w.beats.Add(1)
		w.mu.Unlock()
		select {
		case <-ctx.Done():
			return
		case <-again.C:
			again.Again()
		}
	}
}

// Beats counts the times that Run has gone round, which it does each BeatGap.
func (w *Watcher) Beats() uint64 { return w.beats.Load() }

// Recheck has a server of a service checked at once. Calls within 100 ms are one. It never blocks.
func (w *Watcher) Recheck(service, member string) { w.checker.Trigger(service + "/" + member) }

// Replace makes these the services that are watched; a View of them is published when it returns. Servers that are in it as
// before, by service, name and address, keep their health, epoch and sessions, also if their options or checks have changed.
func (w *Watcher) Replace(p *Prepared) {
	w.mu.Lock()
	defer w.unlock()
	now := time.Now()
	servers := map[serverKey]*server{}
	w.byTarget = map[health.Target]*server{}
	var checks []scheduled
	for i, svc := range p.services {
		for j, declared := range svc.Servers {
			key := serverKey{svc.FullName, declared.Member}
			options, probe := svc.OptionsOf(j), p.probes[i][j]
			s := w.servers[key]
			if s == nil || s.address != declared.Address() {
				w.epoch++
				s = &server{key: key, address: declared.Address(), since: now, epoch: w.epoch, machine: newMachine(options, probe != nil)}
			} else {
				w.change(s, s.machine.reconfigure(options, probe != nil), now)
			}
			s.backup, s.weight, s.probe = declared.Backup, declared.Weight, probe
			servers[key] = s
			if probe == nil || options.Disabled {
				continue
			}
			s.target = target(key, probe)
			w.byTarget[s.target] = s
			checks = append(checks, scheduled{Target: s.target, Interval: s.machine.next(), Timeout: probe.Timeout})
		}
	}
	w.servers, w.services = servers, p.services
	w.checker.Set(checks)
	for t, s := range w.byTarget {
		w.checker.SetInterval(t, s.machine.next())
	}
	w.publish(now)
}

// target names a server's check. One that asks something else is another.
func target(key serverKey, p *probe) health.Target {
	text, err := json.Marshal(p.Check)
	if err != nil {
		// A Check is of JSON's kinds.
		panic(fmt.Sprintf("tcpcheck: %T is not JSON: %v", p.Check, err))
	}
	return health.Target{Member: key.service + "/" + key.member, Base: net.JoinHostPort(p.Host, strconv.Itoa(p.Port)), Path: string(text)}
}

// check runs a check, once there is room for it.
func (w *Watcher) check(ctx context.Context, t health.Target) health.Outcome {
	w.mu.Lock()
	s := w.byTarget[t]
	if s == nil {
		w.mu.Unlock()
		return failed("no longer checked")
	}
	p := s.probe
	w.mu.Unlock()
	select {
	case w.under <- struct{}{}:
		defer func() { <-w.under }()
		return p.run(ctx)
	case <-ctx.Done():
		o := failed("this node has too many checks under way")
		o.NotAsked = true
		return o
	}
}

// take takes a result into account.
func (w *Watcher) take(_ context.Context, r health.Result) {
	w.mu.Lock()
	defer w.unlock()
	s := w.byTarget[r.Target]
	if s == nil {
		return
	}
	pass, words := r.Outcome.Silence == "", r.Outcome.Silence
	switch {
	case !pass:
	case r.Outcome.Answer.Status == 0:
		words = "connected"
	default:
		words = strconv.Itoa(r.Outcome.Answer.Status)
	}
	was := s.machine
	if r.Outcome.NotAsked {
		if !s.notAsked {
			s.notAsked = true
			w.logf(slog.LevelError, "service %s: server %s can't be checked, what was known of it stays: %s", s.key.service, s.key.member, words)
		}
		return
	}
	s.notAsked = false
	if was.up && !pass {
		s.checks.Failures++
	}
	next := was.feed(pass, words, r.Ended)
	next.result = resultOf(r.Outcome, words)
	w.change(s, next, r.Ended)
	w.checker.SetInterval(r.Target, s.machine.next())
	if s.machine.up != was.up || s.machine.reason() != was.reason() {
		w.publish(r.Ended)
	}
}

// change gives a server its next machine, and does what follows for sessions. w.mu is held.
func (w *Watcher) change(s *server, next machine, now time.Time) {
	was := s.machine
	s.machine = next
	if was.up == next.up {
		if !was.heard && next.heard && !next.up {
			w.logf(slog.LevelWarn, "%s: server %s is down: %s", s.key.service, s.key.member, next.reason())
		}
		return
	}
	if next.up {
		s.checks.DownFor += max(now.Sub(s.since), 0)
	} else {
		s.checks.Downs++
	}
	s.since = now
	if !next.up {
		if next.options.ShutdownSessions {
			w.epoch++
			s.epoch = w.epoch
		}
		w.logf(slog.LevelWarn, "%s: server %s is down: %s", s.key.service, s.key.member, next.reason())
		return
	}
	if was.passed {
		s.recovered = now
	}
	w.logf(slog.LevelInfo, "%s: server %s is up: %s", s.key.service, s.key.member, next.reason())
	if !next.options.ShutdownBackupSessions || s.backup || s.weight == 0 {
		return
	}
	for _, other := range w.servers {
		if other.key.service == s.key.service && other.backup {
			w.epoch++
			other.epoch = w.epoch
		}
	}
}

// publish makes a View of what is known. w.mu is held.
func (w *Watcher) publish(now time.Time) {
	w.version++
	v := &view.View{Version: w.version, At: now, Services: make([]view.Service, 0, len(w.services))}
	serving := make(map[string]bool, len(w.services))
	for _, declared := range w.services {
		svc := view.Service{Service: declared.Service, Health: make([]view.Health, 0, len(declared.Servers))}
		for _, carrier := range declared.Servers {
			s := w.servers[serverKey{declared.FullName, carrier.Member}]
			checks := s.checks
			checks.Last = s.machine.check()
			svc.Health = append(svc.Health, view.Health{Up: s.machine.up, Reason: s.machine.reason(), Since: s.since, Recovered: s.recovered, Epoch: s.epoch, Checks: checks})
		}
		v.Services = append(v.Services, svc)
		serving[declared.FullName] = len(svc.Usable()) > 0
		if w.serving[declared.FullName] && !serving[declared.FullName] {
			w.logf(slog.LevelError, "%s: no server is left: %s", declared.FullName, reasons(&svc))
		}
	}
	w.serving = serving
	w.board.Publish(v)
}

// reasons lists why nobody carries a service.
func reasons(svc *view.Service) string {
	if len(svc.Servers) == 0 {
		return "it has no servers"
	}
	var parts []string
	for i, carrier := range svc.Servers {
		parts = append(parts, carrier.Member+" "+svc.Health[i].Reason)
	}
	return strings.Join(slices.Compact(parts), "; ")
}
