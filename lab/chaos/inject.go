package chaos

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/pgporter/pgporter/lab/sandbox/restproxy"
)

// play does one fault to the cluster, waits and undoes it. It returns when that is over.
func (f *field) play(ctx context.Context, plan fault) {
	member, what := "", string(plan.kind)
	if plan.whom != "" {
		if member = f.keys.is(plan.whom, f.names()); member == "" {
			f.say("%s: left out, nobody is %s now", plan.kind, plan.whom)
			return
		}
	}
	if member != "" {
		what += " of " + member
	}
	parts := plan.kind.parts(member)
	if !f.claim(parts) {
		f.say("%s: left out, another fault has it in hand", what)
		return
	}
	defer f.release(parts)
	began := time.Now()
	over := f.begin(plan, member)
	defer over()
	err := f.inflict(ctx, plan, member)
	if err != nil {
		// As when it is a process that is being started anew. What was done of it by then is put right at the end.
		f.say("%s: not done: %v", what, err)
		return
	}
	if plan.lasts == 0 || plan.kind == abandonedSwitchover {
		return
	}
	f.say("%s for %.1fs", what, plan.lasts.Seconds())
	if !f.bear(ctx, plan, member, plan.lasts-time.Since(began)) {
		return
	}
	if err := f.mend(ctx, plan, member); err != nil {
		f.say("%s: not undone: %v", what, err)
		return
	}
	over()
	f.say("%s: undone", what)
	if plan.kind == haltPatroni || plan.kind == haltMember {
		// Its next halt must not begin before it has renewed its key: the two together would be longer than the TTL.
		select {
		case <-ctx.Done():
		case <-time.After(recovers):
		}
	}
}

// bear waits for the time of a fault; false if ctx ended meanwhile.
func (f *field) bear(ctx context.Context, plan fault, member string, lasts time.Duration) bool {
	if plan.kind != refuseReplication {
		return rest(ctx, lasts)
	}
	// Where all addresses are local ones, a leader that refuses those has no replicas: nobody can be promoted with that.
	for end := time.Now().Add(lasts); time.Now().Before(end); {
		if f.keys.is("leader", f.names()) == member {
			f.say("%s of %s: it leads", plan.kind, member)
			return true
		}
		if !rest(ctx, min(100*time.Millisecond, lasts)) {
			return false
		}
	}
	return true
}

// parts are the processes that a kind of fault has in hand.
func (k kind) parts(member string) []string {
	switch k {
	case killPostgres, haltPostgres:
		return []string{member + "/postgres"}
	case killPatroni, haltPatroni, awaken:
		return []string{member + "/patroni"}
	case crash, stopPatroni, haltMember, hang:
		return []string{member + "/patroni", member + "/postgres"}
	case killPgBouncer, haltPgBouncer, endedItself:
		return []string{member + "/pgbouncer"}
	case killDoor, haltDoor:
		return []string{member + "/door"}
	case drainedSwitchover, abandonedSwitchover:
		return []string{command}
	case killPgporter, haltPgporter, upgrade:
		return []string{member + "/pgporter"}
	case killEtcd, haltEtcd, keepEtcdAway:
		return []string{"etcd"}
	case hangAPI, lateAPI, nonsenseAPI:
		return []string{member + "/restproxy"}
	case refuseReplication:
		return []string{member + "/pg_hba.conf"}
	case cutFromEtcd, cutOff, cutOffOneWay, unplug:
		return []string{network}
	case losePower:
		return []string{network, member + "/patroni", member + "/postgres", member + "/pgbouncer", member + "/door", member + "/pgporter"}
	}
	return nil
}

// The network and pgporter switchover, of which there is one at a time, are claimed like processes.
const (
	network = "network"
	command = "pgporter switchover"
)

// inflict does a fault; what is over at once says what it has done.
func (f *field) inflict(ctx context.Context, plan fault, member string) error {
	parts := plan.kind.parts(member)
	switch plan.kind {
	case killPostgres:
		if err := f.Kill(ctx, syscall.SIGKILL, parts...); err != nil {
			return err
		}
		f.say("%s of %s", plan.kind, member)
		return nil
	case killPatroni, killPgBouncer, killDoor, killPgporter, killEtcd, keepEtcdAway:
		return f.Kill(ctx, syscall.SIGKILL, parts...)
	case crash:
		if _, runs := f.PID(member + "/postgres"); !runs {
			parts = parts[:1]
		}
		return f.Kill(ctx, syscall.SIGKILL, parts...)
	case stopPatroni:
		return f.Kill(ctx, syscall.SIGTERM, member+"/patroni")
	case haltPatroni, awaken, haltPgBouncer, haltDoor, haltEtcd:
		return f.Kill(ctx, syscall.SIGSTOP, parts...)
	case haltPgporter:
		f.freeze(member)
		err := f.Kill(ctx, syscall.SIGSTOP, parts...)
		if err != nil {
			f.thaw(member)
		}
		return err
	case haltPostgres:
		return f.haltPostgres(ctx, member)
	case haltMember, hang:
		// Patroni first: it must not see its PostgreSQL hang.
		if err := f.Kill(ctx, syscall.SIGSTOP, member+"/patroni"); err != nil {
			return err
		}
		if err := f.haltPostgres(ctx, member); err != nil {
			return errors.Join(err, f.Kill(ctx, syscall.SIGCONT, member+"/patroni"))
		}
		return nil
	case cutFromEtcd:
		return f.Cut(false, member, "etcd")
	case cutOff, cutOffOneWay:
		f.silence(member, plan.lasts)
		return f.Cut(plan.kind == cutOffOneWay, member)
	case unplug:
		f.silence(member, plan.lasts)
		return f.Unplug(member)
	case losePower:
		f.silence(member, plan.lasts)
		return f.Lose(ctx, member)
	case hangAPI, lateAPI, nonsenseAPI:
		return f.API(ctx, member, plan.order())
	case freezeConsumer:
		return f.freezeConsumer(ctx, plan)
	case refuseReplication:
		return f.RefuseReplication(member, true)
	case switchover:
		return f.switchOver(ctx, 15*time.Second)
	case drainedSwitchover:
		return f.drainedSwitchOver(ctx)
	case abandonedSwitchover:
		f.abandonSwitchover(ctx, plan.lasts)
		return nil
	case reload, reloadEdit, reloadBroken:
		return f.reload(ctx, plan.kind)
	case upgrade:
		return f.upgrade(ctx, member)
	}
	return fmt.Errorf("nobody knows how to %s", plan.kind)
}

// mend undoes a fault.
func (f *field) mend(ctx context.Context, plan fault, member string) error {
	switch plan.kind {
	case killPatroni, crash:
		return f.Begin(ctx, member+"/patroni")
	case stopPatroni:
		// A Patroni that can't stop its PostgreSQL takes its time.
		if _, running := f.PID(member + "/patroni"); running {
			if err := f.Kill(ctx, syscall.SIGKILL, member+"/patroni"); err != nil {
				return err
			}
		}
		return f.Begin(ctx, member+"/patroni")
	case killPgBouncer, killDoor:
		return f.Begin(ctx, plan.kind.parts(member)...)
	case killEtcd, keepEtcdAway:
		return f.Begin(ctx, "etcd")
	case hangAPI, lateAPI, nonsenseAPI:
		return f.API(ctx, member, restproxy.Order{Fault: restproxy.Pass})
	case freezeConsumer:
		f.endConsumer(plan.at)
		return nil
	case refuseReplication:
		return f.RefuseReplication(member, false)
	case killPgporter:
		return f.startPgporter(ctx, member+"/pgporter")
	case haltPatroni, awaken:
		return f.Kill(ctx, syscall.SIGCONT, member+"/patroni")
	case haltPgBouncer, haltDoor:
		return f.Kill(ctx, syscall.SIGCONT, plan.kind.parts(member)...)
	case haltEtcd:
		return f.Kill(ctx, syscall.SIGCONT, "etcd")
	case haltPgporter:
		defer f.thaw(member)
		return f.Kill(ctx, syscall.SIGCONT, member+"/pgporter")
	case haltPostgres:
		return f.wakePostgres(ctx, member)
	case haltMember:
		return errors.Join(f.wakePostgres(ctx, member), f.Kill(ctx, syscall.SIGCONT, member+"/patroni"))
	case cutFromEtcd, cutOff, cutOffOneWay, unplug:
		return f.Heal()
	case losePower:
		if err := f.Heal(); err != nil {
			return err
		}
		if err := f.Begin(ctx, member+"/restproxy", member+"/patroni", member+"/pgbouncer", member+"/door"); err != nil {
			return err
		}
		return f.startPgporter(ctx, member+"/pgporter")
	case hang:
		err := f.Kill(ctx, syscall.SIGKILL, member+"/patroni")
		return errors.Join(err, f.endPostgres(ctx, member), f.Begin(ctx, member+"/patroni"))
	}
	return nil
}

// lateBy is how late a delayed API answers: what replicas took that were asked for more than they could answer.
const lateBy = 3 * time.Second

// nonsense is what an API says that has lost its mind: each fault one of it, by its time.
var nonsense = []restproxy.Fault{restproxy.Error500, restproxy.Error502, restproxy.HalfHeader, restproxy.Reset}

// order is what the proxy before a member's REST API is told.
func (f fault) order() restproxy.Order {
	switch f.kind {
	case hangAPI:
		return restproxy.Order{Fault: restproxy.Hang}
	case lateAPI:
		return restproxy.Order{Fault: restproxy.Late, Delay: lateBy}
	}
	return restproxy.Order{Fault: nonsense[int(f.at/(100*time.Millisecond))%len(nonsense)]}
}

// haltPostgres stops a member's server and all processes that it has forked. The server comes first, so that it forks no more.
func (f *field) haltPostgres(ctx context.Context, member string) error {
	if err := f.Kill(ctx, syscall.SIGSTOP, member+"/postgres"); err != nil {
		return err
	}
	return f.signalBackends(member, syscall.SIGSTOP)
}

func (f *field) wakePostgres(ctx context.Context, member string) error {
	return errors.Join(f.signalBackends(member, syscall.SIGCONT), f.Kill(ctx, syscall.SIGCONT, member+"/postgres"))
}

// endPostgres kills a stopped server: first what it has forked, as nobody can take their ids over while they
// aren't waited for.
func (f *field) endPostgres(ctx context.Context, member string) error {
	return errors.Join(f.signalBackends(member, syscall.SIGKILL), f.Kill(ctx, syscall.SIGKILL, member+"/postgres"))
}

// signalBackends signals the children of a member's server, which has to be stopped.
func (f *field) signalBackends(member string, sig syscall.Signal) error {
	server, running := f.PID(member + "/postgres")
	if !running {
		return fmt.Errorf("%s/postgres isn't running", member)
	}
	for _, pid := range children(server) {
		if err := syscall.Kill(pid, sig); err != nil && !errors.Is(err, syscall.ESRCH) {
			return fmt.Errorf("backend %d of %s: %w", pid, member, err)
		}
	}
	return nil
}

// children are the processes whose parent is a process.
func children(parent int) []int {
	entries, err := os.ReadDir("/proc")
	if err != nil {
		return nil
	}
	var found []int
	for _, e := range entries {
		pid, err := strconv.Atoi(e.Name())
		if err != nil {
			continue
		}
		line, err := os.ReadFile(filepath.Join("/proc", e.Name(), "stat"))
		if err != nil {
			continue
		}
		// After the name in parentheses come the state and the parent (proc(5)).
		fields := bytes.Fields(line[bytes.LastIndexByte(line, ')')+1:])
		if len(fields) > 1 && string(fields[1]) == strconv.Itoa(parent) {
			found = append(found, pid)
		}
	}
	return found
}

// switchOver has Patroni hand over to whom it chooses: in synchronous mode that is the synchronous standby.
func (f *field) switchOver(ctx context.Context, within time.Duration) error {
	ctx, cancel := context.WithTimeout(ctx, within)
	defer cancel()
	began := time.Now()
	f.say("%s asked for", switchover)
	done, err := f.Switchover(ctx, "")
	if done.To == "" {
		return err
	}
	f.say("%s from %s to %s: it led after %.1fs, all is over after %.1fs", switchover, done.From, done.To, done.Leads.Seconds(), time.Since(began).Seconds())
	return nil
}

// extra is a service that edits of the inventory add and change.
const extra = "          - { name: extra, port: 5440, dest: postgres, check: /primary, selector: '[]', maxconn: %d }\n"

// servicesKey is where it goes: the sandbox's inventory has one service of its own in synchronous mode.
const servicesKey = "        pg_services:\n"

// reload sends SIGHUP to every pgporter that runs, with the inventory as it is, edited, or broken for the moment.
func (f *field) reload(ctx context.Context, how kind) error {
	f.inventory.Lock()
	defer f.inventory.Unlock()
	current, err := os.ReadFile(f.Inventory())
	if err != nil {
		return err
	}
	text := f.sound
	switch how {
	case reloadEdit:
		// The service comes, changes, and goes.
		if f.edits++; f.edits%3 != 0 {
			text = strings.Replace(text, servicesKey, servicesKey+fmt.Sprintf(extra, 100+f.edits), 1)
		}
	case reloadBroken:
		text = strings.Replace(text, servicesKey, servicesKey+strings.Replace(fmt.Sprintf(extra, 100), "port: 5440", "port: 544000", 1), 1)
		defer func() {
			if err := f.changeInventory(string(current)); err != nil {
				f.say("%s: the inventory isn't what it was: %v", how, err)
			}
		}()
	}
	if how != reload {
		if err := f.changeInventory(text); err != nil {
			return err
		}
	}
	var names []string
	for _, m := range f.members {
		if err := f.Kill(ctx, syscall.SIGHUP, m.Name+"/pgporter"); err == nil {
			names = append(names, m.Name)
		}
	}
	f.say("%s: %s", how, strings.Join(names, " "))
	if how == reloadBroken {
		// It stays broken for long enough to be read.
		select {
		case <-ctx.Done():
		case <-time.After(2 * time.Second):
		}
	}
	return nil
}

// restore starts and wakes whatever a fault has left behind, and gives every pgporter the inventory that it began with.
func (f *field) restore(ctx context.Context) error {
	if f.HasNetwork() {
		if err := f.Heal(); err != nil {
			return err
		}
	}
	status, err := f.Status(ctx)
	if err != nil {
		return err
	}
	var failed []error
	for _, p := range status.Processes {
		postgres := strings.HasSuffix(p.What, "/postgres")
		switch {
		case p.State == "stopped" && postgres:
			failed = append(failed, f.wakePostgres(ctx, strings.TrimSuffix(p.What, "/postgres")))
		case p.State == "stopped":
			failed = append(failed, f.Kill(ctx, syscall.SIGCONT, p.What))
		case p.State == "ended" && strings.HasSuffix(p.What, "/pgporter"):
			failed = append(failed, f.startPgporter(ctx, p.What))
		case p.State == "ended" && isPool(p.What):
			// keepPools starts it.
			continue
		case p.State == "ended" && !postgres:
			failed = append(failed, f.Begin(ctx, p.What))
		default:
			continue
		}
		f.say("%s was %s: put right", p.What, p.State)
	}
	f.mu.Lock()
	consumers := slices.Collect(maps.Keys(f.consumers))
	f.mu.Unlock()
	for _, at := range consumers {
		f.endConsumer(at)
	}
	for _, m := range f.members {
		failed = append(failed, f.RefuseReplication(m.Name, false))
	}
	if f.Config().WithoutPgporter {
		return errors.Join(failed...)
	}
	for _, m := range f.members {
		failed = append(failed, f.API(ctx, m.Name, restproxy.Order{Fault: restproxy.Pass}))
	}
	f.inventory.Lock()
	defer f.inventory.Unlock()
	failed = append(failed, f.changeInventory(f.sound))
	for _, m := range f.members {
		failed = append(failed, f.Kill(ctx, syscall.SIGHUP, m.Name+"/pgporter"))
	}
	return errors.Join(failed...)
}
