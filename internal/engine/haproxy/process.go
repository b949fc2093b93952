package haproxy

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/pgporter/pgporter/internal/config/model"
	"github.com/pgporter/pgporter/internal/engine/process"
	"github.com/pgporter/pgporter/internal/monitor/view"
	"github.com/pgporter/pgporter/internal/render/fileset"
)

type change = fileset.Change

func apply(dir string, changes []change) error { return fileset.Apply(dir, changes) }

// Times within which HAProxy does what it is asked, on a machine that has little left.
const (
	loadTime = time.Minute
	readTime = 5 * time.Second
	// pause is between two looks at something that is about to happen.
	pause = 10 * time.Millisecond
	// askAgain is when a signal is taken for lost: a master that executes itself anew at that moment doesn't see it.
	askAgain = 3 * time.Second
	// endTime is how long HAProxy may take to end once its sessions were asked to.
	endTime = 5 * time.Second
)

// maxLog is how long HAProxy's log may become before a reload empties it.
const maxLog = 8 << 20

// begin takes the directory of a HAProxy of our own, once, and finds out whether one runs there.
func (e *Engine) begin(ctx context.Context) error {
	if e.cfg.System {
		if _, err := e.control.processes(ctx); err != nil {
			return fmt.Errorf("the system's HAProxy doesn't answer, is it started? %w", err)
		}
		return nil
	}
	if e.lock != nil {
		return nil
	}
	if err := os.MkdirAll(filepath.Join(e.cfg.Dir, confDir), 0o755); err != nil {
		return err
	}
	lock, err := os.OpenFile(filepath.Join(e.cfg.Dir, lockFile), os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return err
	}
	if err := unix.Flock(int(lock.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		lock.Close()
		return fmt.Errorf("another pgporter has HAProxy's directory %s: give this one another", e.cfg.Dir)
	}
	e.lock = lock
	if running, err := e.control.processes(ctx); err == nil {
		if err := e.signal(running.Master.PID, 0); err != nil {
			return fmt.Errorf("what answers at HAProxy's socket %s names process %d as its master: %w", e.control.master, running.Master.PID, err)
		}
		e.adopted, e.master = true, running.Master.PID
		e.say(slog.LevelInfo, "HAProxy runs already, it is taken over", "pid", running.Master.PID)
	}
	return nil
}

// start starts a HAProxy of our own.
func (e *Engine) start(ctx context.Context, l *layout) error {
	ctx, cancel := context.WithTimeout(ctx, loadTime)
	defer cancel()
	if err := e.writeState(l, nil); err != nil {
		return err
	}
	path := filepath.Join(e.cfg.Dir, logFile)
	out, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_TRUNC|os.O_APPEND, 0o640)
	if err != nil {
		return err
	}
	defer out.Close()
	command := e.settings.command(e.cfg.Dir)
	command.Stdout, command.Stderr = out, out
	command.Dir = e.cfg.Dir
	// A Ctrl-C is for us: HAProxy is stopped in order. It also goes on if we are killed.
	command.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if err := command.Start(); err != nil {
		return fmt.Errorf("starting HAProxy: %w", err)
	}
	ended := make(chan struct{})
	e.ended, e.child, e.master = ended, command.Process, command.Process.Pid
	go func() {
		defer close(ended)
		if err := command.Wait(); err != nil {
			var exit *exec.ExitError
			if errors.As(err, &exit) {
				e.log.Debug("HAProxy's master has ended", "status", exit.String())
			}
		}
	}()
	for {
		running, err := e.control.processes(ctx)
		if err == nil && running.Master.PID == command.Process.Pid && running.Current.PID != 0 {
			if err := e.verify(ctx, running.Current.PID, l); err != nil {
				return err
			}
			e.say(slog.LevelInfo, "HAProxy serves", "pid", command.Process.Pid, "directory", e.cfg.Dir)
			return nil
		}
		select {
		case <-ended:
			return fmt.Errorf("HAProxy doesn't start: %s (its log is %s)", tail(path, 0), path)
		case <-ctx.Done():
			return fmt.Errorf("HAProxy doesn't answer after its start: %w (its log is %s)", errors.Join(err, context.Cause(ctx)), path)
		case <-time.After(pause):
		}
	}
}

// reload has a running HAProxy read its files again, with the state that its servers have now. l is what it should have
// afterwards; nil if that isn't known.
func (e *Engine) reload(ctx context.Context, l *layout) error {
	ctx, cancel := context.WithTimeout(ctx, loadTime)
	defer cancel()
	before, err := e.control.processes(ctx)
	if err != nil {
		return err
	}
	if l != nil {
		var servers map[serverID]serverState
		if before.Current.PID != 0 {
			if servers, err = e.control.servers(ctx, before.Current.PID); err != nil {
				return err
			}
		}
		if err := e.writeState(l, servers); err != nil {
			return err
		}
	}
	counted, err := e.control.counts(ctx, before.Current.PID)
	if err != nil && before.Current.PID != 0 {
		return err
	}
	epochs := e.epochs()
	path, from := filepath.Join(e.cfg.Dir, logFile), int64(0)
	if info, err := os.Stat(path); err == nil && !e.cfg.System {
		if from = info.Size(); from > maxLog && os.Truncate(path, 0) == nil {
			from = 0
		}
	}
	if err := e.order(ctx); err != nil {
		return err
	}
	after, err := e.awaitReload(ctx, before)
	if err != nil {
		if said := tail(path, from); said != "" && !e.cfg.System {
			err = fmt.Errorf("%w: %s", err, said)
		}
		return err
	}
	e.watch.retired(before, epochs)
	e.seen.retire(ctx, e.control, before.Current.PID, counted)
	if l == nil {
		return nil
	}
	if err := e.verify(ctx, after.Current.PID, l); err != nil {
		return err
	}
	e.say(slog.LevelInfo, "HAProxy has been reloaded", "worker", after.Current.PID, "old_workers", len(after.Old))
	return nil
}

// order asks for a reload. The master executes itself anew and may close the connection before it has answered.
func (e *Engine) order(ctx context.Context) error {
	if e.control.master != "" {
		answer, err := Ask(ctx, e.control.master, "reload")
		// From 2.7 on the answer says how it went; what the process table says is awaited all the same.
		if strings.HasPrefix(answer, "Success=0") {
			return fmt.Errorf("HAProxy can't load its new configuration: %s", alerts(answer))
		}
		if err != nil && ctx.Err() != nil {
			return err
		}
		return nil
	}
	command := exec.CommandContext(ctx, e.cfg.Reload[0], e.cfg.Reload[1:]...)
	if output, err := command.CombinedOutput(); err != nil {
		return fmt.Errorf("%s: %w: %s", strings.Join(e.cfg.Reload, " "), err, strings.TrimSpace(string(output)))
	}
	return nil
}

// awaitReload waits until another worker takes clients than before.
func (e *Engine) awaitReload(ctx context.Context, before processes) (processes, error) {
	again := time.NewTicker(askAgain)
	defer again.Stop()
	for {
		after, err := e.control.processes(ctx)
		if err == nil {
			switch old := slices.ContainsFunc(before.Old, func(p procLine) bool { return p.PID == after.Current.PID }); {
			case after.Current.PID != 0 && after.Current.PID != before.Current.PID && !old:
				return after, nil
			// The master has executed itself and forked nobody.
			case e.control.master != "" && after.Master.Reloads > before.Master.Reloads && after.Failed > 0:
				return after, errors.New("HAProxy can't load its new configuration")
			}
		}
		select {
		case <-ctx.Done():
			return processes{}, fmt.Errorf("HAProxy has no new worker: %w", errors.Join(err, context.Cause(ctx)))
		case <-e.over():
			return processes{}, errors.New("HAProxy has ended")
		case <-again.C:
			if e.control.master == "" {
				if err := e.order(ctx); err != nil {
					return processes{}, err
				}
			}
		case <-time.After(pause):
		}
	}
}

// over is closed when the HAProxy that we started has ended; it never is for one that we didn't start.
func (e *Engine) over() <-chan struct{} {
	if e.ended == nil {
		return nil
	}
	return e.ended
}

// writeState writes the state file of a worker that is about to begin; before is what the one before has. A server that begins as
// stopped hasn't been set to up since, even if the Board has said so all the time.
func (e *Engine) writeState(l *layout, before map[serverID]serverState) error {
	text, stopped := stateFile(l, e.said(l), ordered(e.views()), before, e.parked)
	if err := replace(e.state, text); err != nil {
		return err
	}
	e.watch.saved = text
	for _, at := range stopped {
		delete(e.watch.published, at)
	}
	return nil
}

// views are what the Boards show now: while a Change is loaded also those of clusters that are to go with it. Their sessions end
// if it is committed, and go on if it is given up.
func (e *Engine) views() []*view.View {
	clusters := e.offer.Clusters
	if e.pending != nil && e.pending.was != nil {
		clusters = slices.Concat(clusters, e.pending.was.offer.Clusters)
	}
	views := make([]*view.View, 0, len(clusters))
	for _, c := range clusters {
		views = append(views, c.Board.View())
	}
	return views
}

// said is what the Boards say of the servers of a layout. Until a Change is committed a Board may still be of the declaration
// before: a server that is at another address there, or checked otherwise, hasn't passed what it has to pass now, and is down.
func (e *Engine) said(l *layout) map[serverID]opinion {
	views := e.views()
	said := opinions(views)
	for _, v := range views {
		members := map[string]model.Member{}
		for _, m := range v.Members {
			members[m.Name] = m.Member
		}
		for _, s := range v.Services {
			p, _ := l.find(s.FullName)
			for _, to := range s.Servers {
				was := serverOf(s.Definition, members[to.Member], to)
				is, there := p.find(to.Member)
				if there && (was.host != is.host || was.port != is.port || was.check != is.check) {
					said[serverID{s.FullName, to.Member}] = down
				}
			}
		}
	}
	return said
}

// stop ends a HAProxy of our own: no new clients at once, sessions for StopTimeout, then everything. Sessions on a server
// that the Boards give up in the meantime end at once.
func (e *Engine) stop() {
	e.mu.Lock()
	defer e.unlock()
	e.stopped = true
	if e.cfg.System {
		e.leave()
		return
	}
	if e.loaded == nil {
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), e.cfg.StopTimeout)
	defer cancel()
	running, err := e.control.processes(ctx)
	if err == nil && e.cfg.StopTimeout > 0 && e.signal(e.master, syscall.SIGUSR1) == nil {
		// It is now an old worker like others.
		e.watch.retired(running, e.epochs())
		for e.alive() && ctx.Err() == nil {
			e.beats.Add(1)
			e.sweep(ctx, processes{Old: append(slices.Clone(running.Old), running.Current)})
			select {
			case <-ctx.Done():
			case <-e.over():
			case <-time.After(100 * time.Millisecond):
			}
		}
	}
	e.kill(context.Background())
}

// kill ends a HAProxy of our own and all its workers now.
func (e *Engine) kill(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, endTime)
	defer cancel()
	if e.master == 0 {
		return
	}
	running, _ := e.control.processes(ctx)
	_ = e.signal(e.master, syscall.SIGTERM)
	for e.alive() && ctx.Err() == nil {
		select {
		case <-ctx.Done():
		case <-e.over():
		case <-time.After(pause):
		}
	}
	if e.alive() {
		e.say(slog.LevelWarn, "HAProxy doesn't end, it is killed", "pid", e.master)
		for _, p := range append(slices.Clone(running.Old), running.Current, procLine{PID: e.master}) {
			if p.PID != 0 {
				_ = e.signal(p.PID, syscall.SIGKILL)
			}
		}
	}
	e.adopted, e.master = false, 0
	if e.ended != nil {
		<-e.ended
		e.ended, e.child = nil, nil
	}
}

// signal sends a signal to the master, or to a process that it named: which has to be a HAProxy, whatever the number was. Signal 0
// only looks.
func (e *Engine) signal(pid int, signal syscall.Signal) error {
	if e.child != nil && e.child.Pid == pid {
		return e.child.Signal(signal)
	}
	p, err := process.Open(pid)
	if err != nil {
		return err
	}
	defer p.Close()
	if err := p.Executes(e.settings.binary, "haproxy"); err != nil {
		return err
	}
	return p.Signal(signal)
}

// alive tells whether the master of a HAProxy of our own runs: our child by its end, an adopted one by its number.
func (e *Engine) alive() bool {
	if e.ended == nil {
		return e.master != 0 && e.signal(e.master, 0) == nil
	}
	select {
	case <-e.ended:
		return false
	default:
		return true
	}
}

// leave makes the state file one that can't be wrong later: whoever reloads the system's HAProxy while pgporter isn't there
// begins with servers that take nobody until they have been checked.
func (e *Engine) leave() {
	if e.wanted.Load() == nil {
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), readTime)
	defer cancel()
	if running, err := e.control.processes(ctx); err == nil {
		for at := range e.watch.silenced {
			if err := e.control.tell(ctx, running.Current.PID, "enable health "+at.String()); err != nil {
				e.say(slog.LevelWarn, "a health check of HAProxy stays off", "server", at.String(), "error", err)
			}
		}
	}
	text, _ := stateFile(e.wanted.Load(), nil, nil, nil, nil)
	if err := replace(e.state, text); err != nil {
		e.say(slog.LevelWarn, "the state of HAProxy's servers isn't left as unknown", "error", err)
	}
}
