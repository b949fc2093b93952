package haproxy

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"reflect"
	"time"

	"github.com/pgporter/pgporter/internal/config/model"
	"github.com/pgporter/pgporter/internal/engine"
	"github.com/pgporter/pgporter/internal/monitor/view"
)

const (
	// tick is between two looks at HAProxy while the Boards don't change.
	tick = 500 * time.Millisecond
	// closeTick is the time while HAProxy's checks may bring a server up that may not take clients.
	closeTick = 100 * time.Millisecond
	// settleTime is how long roles must have been the same before the files are rendered by them.
	settleTime = 300 * time.Millisecond
	// retryTime is after a rendering that HAProxy didn't take, or a start that failed.
	retryTime = 5 * time.Second
)

// watch is what is remembered between two looks.
type watch struct {
	// kick wakes Run when the Boards to watch have changed.
	kick chan struct{}
	// up are the servers that the Boards said take clients, with the epoch of their sessions then.
	up map[serverID]uint64
	// published are servers that HAProxy was set to up since the Board says so: once for a worker, its own checks decide after that.
	published map[serverID]bool
	// insisted are servers that are down on a Board and that HAProxy was set so; silenced those whose check brought them up
	// again all the same, so that it was turned off.
	insisted, silenced map[serverID]bool
	// ordered are the operators' orders that the current worker was told, as far as they are more than to be ready.
	ordered map[serverID]view.Order
	// workers are the epochs that servers had when a worker got its last client, by the worker's process number.
	workers map[int]map[serverID]uint64
	// wanting are services that differ from what is rendered, since when.
	wanting map[string][]model.Service
	since   time.Time
	// notBefore holds the next attempt back after one that failed.
	notBefore time.Time
	// saved is what the state file of the system's HAProxy says.
	saved string
	// trouble was said last of HAProxy's sockets, so that it isn't said with every tick.
	trouble string
}

func newWatch() watch {
	return watch{kick: make(chan struct{}, 1), up: map[serverID]uint64{}, published: map[serverID]bool{}, insisted: map[serverID]bool{}, silenced: map[serverID]bool{}, ordered: map[serverID]view.Order{}, workers: map[int]map[serverID]uint64{}}
}

func (w *watch) changed(engine.Offer) {
	w.wanting, w.notBefore = nil, time.Time{}
	select {
	case w.kick <- struct{}{}:
	default:
	}
}

// retired notes what was true of servers when workers got their last clients.
func (w *watch) retired(before processes, epochs map[serverID]uint64) {
	clear(w.silenced) // a new worker checks all
	clear(w.ordered)
	if before.Current.PID != 0 {
		w.workers[before.Current.PID] = epochs
	}
}

// Run follows the Boards until ctx ends, and then stops a HAProxy of our own in order. The system's goes on. What is
// committed before it is carried from then on, unless HAProxy needs to be set to what has changed since.
func (e *Engine) Run(ctx context.Context) error {
	defer e.release()
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		e.beats.Add(1)
		// Notices are taken before the look: what is published during it wakes us again.
		boards := e.boards()
		timer.Reset(e.look(ctx))
		cases := []reflect.SelectCase{
			{Dir: reflect.SelectRecv, Chan: reflect.ValueOf(ctx.Done())},
			{Dir: reflect.SelectRecv, Chan: reflect.ValueOf(timer.C)},
			{Dir: reflect.SelectRecv, Chan: reflect.ValueOf(e.watch.kick)},
		}
		for _, replaced := range boards {
			cases = append(cases, reflect.SelectCase{Dir: reflect.SelectRecv, Chan: reflect.ValueOf(replaced)})
		}
		if chosen, _, _ := reflect.Select(cases); chosen == 0 {
			e.stop()
			return nil
		}
	}
}

// LongestRound is how long Run may take for a round: it waits for a reload under way, which may be given up and taken back, and
// for HAProxy's sockets.
const LongestRound = 2*loadTime + time.Minute

// Beats counts the times that Run has gone round, or has looked after the last sessions at a stop.
func (e *Engine) Beats() uint64 { return e.beats.Load() }

// boards are the notices of all Boards.
func (e *Engine) boards() []<-chan struct{} {
	e.mu.Lock()
	defer e.mu.Unlock()
	notices := make([]<-chan struct{}, 0, len(e.offer.Clusters))
	for _, c := range e.offer.Clusters {
		_, replaced := c.Board.Watch()
		notices = append(notices, replaced)
	}
	return notices
}

func (e *Engine) release() {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.lock != nil {
		e.lock.Close()
		e.lock = nil
	}
}

// look brings HAProxy to what the Boards say and gives the time until the next look.
func (e *Engine) look(ctx context.Context) time.Duration {
	e.mu.Lock()
	defer e.unlock()
	// While a change is under way the Boards may already be of its plan.
	if e.wanted.Load() == nil || e.pending != nil {
		return tick
	}
	e.follow(ctx)
	wait := e.followRoles(ctx, time.Now())
	if len(e.watch.insisted) > len(e.watch.silenced) {
		wait = min(wait, closeTick)
	}
	return wait
}

// follow tells HAProxy what the Boards say of its servers and ends what has to end in old workers.
func (e *Engine) follow(ctx context.Context) {
	running, err := e.control.processes(ctx)
	if err == nil && running.Current.PID == 0 {
		err = errors.New("HAProxy has no worker")
	}
	if err == nil {
		err = e.push(ctx, running.Current.PID)
	}
	if err == nil {
		err = e.sweep(ctx, running)
	}
	if ctx.Err() != nil {
		return
	}
	if err != nil && !e.cfg.System && !e.alive() {
		e.revive(ctx)
		return
	}
	trouble := ""
	if err != nil {
		trouble = err.Error()
	}
	if trouble != e.watch.trouble {
		e.watch.trouble = trouble
		if err != nil {
			e.say(slog.LevelError, "HAProxy can't be told what the cluster says, its own checks decide", "error", err)
		} else {
			e.say(slog.LevelInfo, "HAProxy answers again")
		}
	}
}

// push tells the current worker where the Boards differ from it. Who is down on a Board stays so: if HAProxy's check, which
// looks at less, brings the server up again, the check is turned off until the Board has the server up. Who is up is set so
// once, when it has become up: if HAProxy's own check fails after that, it has its reasons.
func (e *Engine) push(ctx context.Context, pid int) error {
	servers, err := e.control.servers(ctx, pid)
	if err != nil {
		return err
	}
	said := opinions(e.views())
	epochs, orders := e.epochs(), ordered(e.views())
	var failed []error
	for _, p := range e.loaded.proxies {
		for _, s := range p.servers {
			at := serverID{p.name, s.name}
			has, there := servers[at]
			if !there || e.parked[at] {
				delete(e.watch.ordered, at) // it was put into maintenance by us
				continue
			}
			for _, command := range e.obey(at, orders[at], has, s.weight, said[at] == down) {
				if err := e.control.tell(ctx, pid, command); err != nil {
					failed = append(failed, err)
					delete(e.watch.ordered, at)
					continue
				}
				e.say(slog.LevelInfo, "HAProxy was told of an order", "service", p.name, "server", s.name, "command", command)
			}
			epoch, wasUp := e.watch.up[at]
			word, over := "", wasUp && epoch != epochs[at]
			switch said[at] {
			case up:
				if !has.takesClients() && has.Admin == 0 && !e.watch.published[at] {
					word = "up"
				}
				e.watch.published[at] = true
				delete(e.watch.insisted, at)
				if e.watch.silenced[at] {
					failed = append(failed, e.control.tell(ctx, pid, "enable health "+at.String()))
					delete(e.watch.silenced, at)
				}
				e.watch.up[at] = epochs[at]
			case down:
				delete(e.watch.published, at)
				if !has.Passed && !e.watch.silenced[at] {
					delete(e.watch.insisted, at) // HAProxy has found out
				}
				if has.takesClients() {
					word = "down"
					if wasUp && !over {
						word = "stopping" // no new clients, sessions stay
					}
				}
				if over {
					delete(e.watch.up, at)
				}
			default:
				over = false
			}
			if word == "down" || word == "stopping" {
				if e.watch.insisted[at] && !e.watch.silenced[at] {
					failed = append(failed, e.control.tell(ctx, pid, "disable health "+at.String()))
					e.watch.silenced[at] = true
					e.say(slog.LevelWarn, "HAProxy's check passes on a server that may not take clients, it is off until the server may", "service", p.name, "server", s.name)
				}
				e.watch.insisted[at] = true
			}
			if word != "" {
				failed = append(failed, e.control.tell(ctx, pid, "set server "+at.String()+" health "+word))
				e.say(slog.LevelInfo, "HAProxy was told of a server", "service", p.name, "server", s.name, "health", word)
			}
			// Not before it is down, or the next client would be connected to it. One that is up was down in between.
			if over {
				failed = append(failed, e.control.tell(ctx, pid, "shutdown sessions server "+at.String()))
			}
		}
	}
	if e.cfg.System {
		failed = append(failed, e.keepState(said, servers))
	}
	return errors.Join(failed...)
}

// keepState keeps the state file at what is known now: others may reload the system's HAProxy at any time.
func (e *Engine) keepState(said map[serverID]opinion, servers map[serverID]serverState) error {
	lasting := maps.Clone(servers)
	for at, s := range lasting {
		s.Since = 0
		lasting[at] = s
	}
	text, _ := stateFile(e.wanted.Load(), said, ordered(e.views()), lasting, e.parked)
	if text == e.watch.saved {
		return nil
	}
	if err := replace(e.state, text); err != nil {
		return fmt.Errorf("the state of HAProxy's servers: %w", err)
	}
	e.watch.saved = text
	return nil
}

// epochs are those of all servers on the Boards.
func (e *Engine) epochs() map[serverID]uint64 {
	epochs := map[serverID]uint64{}
	for _, v := range e.views() {
		for _, s := range v.Services {
			for i, server := range s.Servers {
				epochs[serverID{s.FullName, server.Member}] = s.Health[i].Epoch
			}
		}
	}
	return epochs
}

// sweep ends sessions of old workers that have to end: those of servers whose epoch has risen since the worker got its last
// client, of servers that left their service, and of services that are gone.
func (e *Engine) sweep(ctx context.Context, running processes) error {
	var failed []error
	living := map[int]bool{running.Current.PID: true}
	for _, old := range running.Old {
		living[old.PID] = true
		over, any := e.overIn(old.PID)
		if !any {
			continue
		}
		sessions, err := e.control.sessions(ctx, old.PID)
		if err != nil {
			// It may have ended by itself.
			continue
		}
		ended := 0
		for _, s := range sessions {
			if !over(s.serverID) {
				continue
			}
			if err := e.control.tell(ctx, old.PID, "shutdown session "+s.ID); err != nil {
				continue // it has just ended
			}
			ended++
		}
		if ended > 0 {
			e.say(slog.LevelInfo, "sessions of an old HAProxy worker were ended: their servers may not have them any more", "worker", old.PID, "sessions", ended)
		}
	}
	maps.DeleteFunc(e.watch.workers, func(pid int, _ map[serverID]uint64) bool { return !living[pid] })
	return errors.Join(failed...)
}

// revive starts a HAProxy that died.
func (e *Engine) revive(ctx context.Context) {
	if time.Now().Before(e.watch.notBefore) {
		return
	}
	e.say(slog.LevelError, "HAProxy has died and is started again", "log", e.cfg.Dir+"/"+logFile)
	e.adopted = false
	if err := e.start(ctx, e.wanted.Load()); err != nil {
		e.watch.notBefore = time.Now().Add(retryTime)
		e.say(slog.LevelError, "HAProxy can't be started", "error", err)
		return
	}
	e.loaded, e.parked = e.wanted.Load(), map[serverID]bool{}
	clear(e.watch.silenced)
	clear(e.watch.ordered)
}

// followRoles renders the services anew when the live roles have changed who carries them, one leader is settled and all
// has stayed so for a moment. It gives the time until the next look.
func (e *Engine) followRoles(ctx context.Context, now time.Time) time.Duration {
	wanting := map[string][]model.Service{}
	for _, c := range e.offer.Clusters {
		now := c.Board.View()
		services := resolvedIn(now)
		if settled(now) && !reflect.DeepEqual(services, e.services[c.Name]) {
			wanting[c.Name] = services
		}
	}
	if len(wanting) == 0 {
		e.watch.wanting = nil
		return tick
	}
	if !reflect.DeepEqual(wanting, e.watch.wanting) {
		e.watch.wanting, e.watch.since = wanting, now
	}
	due := e.watch.since.Add(settleTime)
	if e.watch.notBefore.After(due) {
		due = e.watch.notBefore
	}
	if due.After(now) {
		return min(tick, due.Sub(now))
	}
	if err := e.rerender(ctx, wanting); err != nil && ctx.Err() == nil {
		e.watch.notBefore = now.Add(retryTime)
		e.say(slog.LevelError, "HAProxy doesn't follow the change of roles", "error", err)
	}
	return tick
}

// rerender brings HAProxy to services that the live roles have changed.
func (e *Engine) rerender(ctx context.Context, changed map[string][]model.Service) error {
	services := maps.Clone(e.services)
	maps.Copy(services, changed)
	next, err := e.render(e.offer, func(c engine.Cluster) []model.Service { return services[c.Name] })
	if err != nil {
		return err
	}
	if err := check(ctx, e.binary, e.cfg.Dir, next); err != nil {
		return err
	}
	was := e.services
	e.services = services
	if err := e.bring(ctx, next, briefly); err != nil {
		e.services = was
		return err
	}
	e.follow(ctx)
	for name := range changed {
		e.say(slog.LevelInfo, "HAProxy follows a change of roles", "cluster", name, "primary", primaryOf(e.offer, name))
	}
	return nil
}

func primaryOf(o engine.Offer, cluster string) string {
	for _, c := range o.Clusters {
		if c.Name != cluster {
			continue
		}
		for _, m := range c.Board.View().Members {
			if m.Live == model.Primary {
				return m.Name
			}
		}
	}
	return ""
}

// overIn tells which sessions of an old worker have to end, and whether there can be any: what was true when it got its last
// client is compared with what is true now. Of a worker that was old when we came nothing is known: it may have no session
// on a server that is down.
func (e *Engine) overIn(pid int) (over func(serverID) bool, any bool) {
	began, known := e.watch.workers[pid]
	epochs, said := e.epochs(), opinions(e.views())
	over = func(at serverID) bool {
		p, there := e.wanted.Load().find(at.proxy)
		if !there {
			return e.ours[at.proxy]
		}
		if _, there := p.find(at.server); !there {
			return true
		}
		if said[at] == unknown {
			return false
		}
		if !known {
			return said[at] == down
		}
		return began[at] != epochs[at]
	}
	candidates := maps.Clone(epochs)
	maps.Copy(candidates, began)
	for at := range candidates {
		any = any || over(at)
	}
	for name := range e.ours {
		_, there := e.wanted.Load().find(name)
		any = any || !there
	}
	return over, any
}
