// Package daemon wires the packages into the process that `pgporter run` is: it takes a configuration, starts a loop for each
// cluster and the engine that carries their services, answers at the admin address, reloads and stops.
//
// A reload does everything that can fail first (reading, validating, binding), then commits it all, then publishes it; if
// anything fails, what was running goes on (reload.go). The daemon owns no state of its own beyond which configuration is running.
package daemon

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net"
	"os"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	systemd "github.com/coreos/go-systemd/v22/daemon"
	"golang.org/x/sync/errgroup"

	"github.com/pgporter/pgporter/internal/access/pool"
	"github.com/pgporter/pgporter/internal/access/vip"
	"github.com/pgporter/pgporter/internal/admin/api"
	"github.com/pgporter/pgporter/internal/admin/history"
	"github.com/pgporter/pgporter/internal/admin/runtime"
	"github.com/pgporter/pgporter/internal/admin/web"
	"github.com/pgporter/pgporter/internal/config/intake"
	"github.com/pgporter/pgporter/internal/config/model"
	"github.com/pgporter/pgporter/internal/config/safetext"
	"github.com/pgporter/pgporter/internal/engine/haproxy"
	"github.com/pgporter/pgporter/internal/engine/proxy"
	"github.com/pgporter/pgporter/internal/engine/shadow"
	"github.com/pgporter/pgporter/internal/monitor/cluster"
	"github.com/pgporter/pgporter/internal/monitor/exchange"
	"github.com/pgporter/pgporter/internal/monitor/tcpcheck"
	"github.com/pgporter/pgporter/internal/monitor/view"
)

// Config is what a daemon needs to know.
type Config struct {
	Version string
	// Source gives the configuration.
	Source Source
	// HAProxy has a HAProxy carry the services; nil is the native engine. Its Bind, StopTimeout and Logger are ours.
	HAProxy *haproxy.Config
	// HAProxyPassword is the file with the password of its statistics page, or of pgporter's own; empty for what the configuration says.
	HAProxyPassword string
	// Shadow is the HAProxy that carries the services while pgporter only compares itself with it: nothing listens and nobody's session
	// ends. Nil is no shadow.
	Shadow shadow.Source
	// StateDir is where the plan is kept that was accepted last, for the next start; empty for nowhere.
	StateDir string
	// Bind is the address that "*" means for services; empty is every address of this machine.
	Bind string
	// Admin is where status is served, host:port; AdminNames are names by which it is asked for besides addresses, such as those of
	// proxies before it.
	Admin      string
	AdminNames []string
	// PageTLS has the page's port take TLS, too; nil for plain HTTP alone.
	PageTLS *PageTLS
	// Control is where the configuration may be changed from elsewhere; nil for nowhere.
	Control *Control
	// RuntimeSocket is the file at which HAProxy's runtime commands are taken; empty for nowhere.
	RuntimeSocket string
	// Hold is how long a client may wait for a server while none takes it, where neither its service nor its cluster says it; 0 refuses it
	// at once. HoldFailover has it wait for as long as a failover can take instead, and for Hold where none can come.
	Hold         time.Duration
	HoldFailover bool
	// StopTimeout bounds how long sessions may go on after the stop was asked for.
	StopTimeout time.Duration
	// Reload asks for the configuration to be read again; a nil channel never does.
	Reload <-chan os.Signal
	// Upgrade asks for a new process, which runs Program, to take over everything; a nil channel never does.
	Upgrade <-chan os.Signal
	Program Program
	// Inherited is what the process before has given, if there is one: this one takes over from it.
	Inherited *Inherited
	// Parts follow the configuration beside the engine.
	Parts []Part
	// VIP has this node keep its cluster's virtual address; nil leaves that to others. Its Logger is ours.
	VIP *vip.Config
	// Pools are the PgBouncers to watch over; nil for none. Its Logger and Sessions are ours.
	Pools *pool.Config
	// LeaderKeys says how the clusters' leader keys in etcd are watched; nil leaves etcd out.
	LeaderKeys *LeaderKeys
	Logger     *slog.Logger
	// LogDropped is how many lines of the log nobody read in time; nil if that isn't known.
	LogDropped func() uint64
	// SessionLog is told of the native engine's sessions; nil for none. It is reopened before the configuration is read again.
	SessionLog *SessionLog
	// Ready is called once every port is open; may be nil.
	Ready func()
	// made is called with the Daemon before it does anything; nil but in tests.
	made func(*Daemon)
}

// Source is where configurations come from: an inventory's file, a plan's, or members discovered from Patroni.
type Source interface {
	// Name says what it is, for people.
	Name() string
	// Load reads the configuration now. Warnings come in Loaded; whatever forbids its use is the error.
	Load(ctx context.Context) (Loaded, error)
	// Follow calls changed whenever there is a new configuration without anybody having asked, or why it can't be used,
	// until ctx ends.
	Follow(ctx context.Context, changed func(Loaded, error)) error
}

// Loaded is a configuration that may be used.
type Loaded struct {
	Plan model.Plan
	// Base is HAProxy's base file; nil where none is run, or it isn't known to change.
	Base *model.Base
	// Page is where pgporter answers in HAProxy's place; nil for nowhere.
	Page *model.Page
	// Etcd says how the leader keys of clusters are read, by their names. It is beside the Plan since it holds passwords.
	Etcd map[string]model.Etcd
	// Warnings are for the log, Assumed for the log and the status: what was decided where nothing was said.
	Warnings []string
	Assumed  []string
	// Unattended marks an edit that nobody asked to take: it may not remove a service or leave one without servers.
	Unattended bool
	// Trial only finds out whether it could be taken: everything that can fail is done, and undone.
	Trial bool
	// By is who had the Source read, for the timeline; empty if nobody did.
	By string
	// Sent says who sent it; nil if the Source gave it.
	Sent *Sent
	// Digest is that of what the node's own file says; empty where there is none.
	Digest string
	// Made says who made the plan that a file has; nil if it was made here.
	Made *intake.Made
	// Accepted is when and how it was accepted, if that wasn't just now. Kept says that it is what was kept then.
	Accepted *intake.Accepted
	Kept     bool
	// Temporary stands in for what was kept, and isn't kept itself.
	Temporary bool
	// Instead is why it is taken instead of what the node's own file says; empty if it isn't.
	Instead string
	// Secrets are the variables with secrets in an inventory on this node.
	Secrets []string
}

// Daemon is a running pgporter.
type Daemon struct {
	cfg    Config
	log    *slog.Logger
	engine Engine
	// vips keeps the virtual addresses; nil if it isn't to.
	vips *vip.Keeper
	// pools watches over PgBouncers; nil if there are none.
	pools   *pool.Keeper
	started time.Time
	// tcpcheck watches the servers of TCP services; nil where HAProxy does.
	tcpcheck *tcpcheck.Watcher

	// exchange puts the questions of all clusters; nil has a goroutine put each.
	exchange *exchange.Loop
	// budget is what the limit of open files is divided into.
	budget budget
	// slots bound the questions that all clusters have under way, seed makes this node's times to ask its own.
	slots *cluster.Slots
	seed  uint64

	// history is what has happened.
	history history.History
	// liveness is what is known of whether all loops go round.
	liveness *liveness
	// usage is how much of its processors the process uses, stopping that it was told to stop, and handOvers how often one process took
	// over from another before this one serves.
	usage     usage
	stopping  atomic.Bool
	handOvers int

	// feed is what viewers of the pages are sent.
	feed *web.Feed
	// page is where HAProxy's statistics would be.
	page pagePort
	// admin and control are where status is served and orders are taken; control may be nil.
	admin, control net.Listener
	// commands is where HAProxy's runtime commands are taken; nil for nowhere.
	commands *runtime.Socket

	// rereads ask for the configuration to be read again.
	rereads chan reread
	// holds wakes who ends operators' holds in time.
	holds chan struct{}

	// ordering serialises operators' orders. It guards handingOver, with which none is taken: the next process has those of before.
	ordering sync.Mutex
	// lastHolds are the holds that clusters had last; guarded by ordering.
	lastHolds   map[string]lastHold
	handingOver bool
	// taking serialises configuration changes. It guards closed, after which no order from elsewhere is taken.
	taking sync.Mutex
	closed bool
	// short is what was logged last about open files; taking guards it, too.
	short string
	// mu guards what follows; it is never held while anything waits.
	mu      sync.Mutex
	running map[string]*runningCluster
	order   []string
	node    string
	plan    model.Plan
	base    *model.Base
	sent    *Sent
	// acceptance is how the plan came here; taking guards it, too.
	acceptance acceptance
	loaded     time.Time
	assumed    []string
	refused    string
	accepted   int
	// upgraded is how the last upgrade went; nil if there was none.
	upgraded *api.Upgrade
	// refusals counts the configurations that weren't taken.
	refusals int
	// etcd is what the running configuration says of it, by clusters.
	etcd map[string]model.Etcd
	// unordered says why orders to hold can't be read from etcd, by clusters.
	unordered map[string]string
	// loops joins the cluster loops, which live and end with their clusters.
	loops   sync.WaitGroup
	loopCtx context.Context
}

// runningCluster is a cluster's loop with its end.
type runningCluster struct {
	loop *cluster.Loop
	plan model.Cluster
	stop context.CancelFunc
}

// Run serves until ctx ends and then stops in order. It returns nil after an orderly stop; an error means that it could not
// start (nothing is left open) or that a part of it died. It also returns nil once another process has taken over.
func Run(ctx context.Context, cfg Config) error {
	files := newBudget(cfg)
	d := &Daemon{cfg: cfg, log: cfg.Logger, started: time.Now(), liveness: newLiveness(), budget: files,
		slots: cluster.NewSlots(files.questions), seed: rand.Uint64(), rereads: make(chan reread), holds: make(chan struct{}, 1), lastHolds: map[string]lastHold{}, unordered: map[string]string{}, running: map[string]*runningCluster{}}
	d.restoreEvents(cfg.Inherited)
	if cfg.made != nil {
		cfg.made(d)
	}
	if cfg.HAProxy == nil {
		sockets, err := cfg.Inherited.services()
		if err != nil {
			return err
		}
		d.tcpcheck = tcpcheck.New(cfg.Logger, files.checks)
		d.tcpcheck.Board().Restore(cfg.Inherited.ordersFor(""))
		var shadows *shadowing
		closed := func(service string) bool { return shadows != nil && !shadows.has(service) }
		if cfg.Shadow != nil && (cfg.Bind == "" || cfg.Bind == "*") {
			// What "*" is to HAProxy. A socket for both families has no group with its one (SO_REUSEPORT): the kernel would bring clients
			// there as soon as it listened.
			cfg.Bind = "0.0.0.0"
		}
		own := proxy.Config{Bind: cfg.Bind, Logger: cfg.Logger, Hold: cfg.Hold, HoldFailover: cfg.HoldFailover, StopTimeout: cfg.StopTimeout, Recheck: d.recheck, Await: d.await, Doubt: d.doubt,
			Inherited: sockets, Closed: closed, Steerable: cfg.Shadow != nil}
		if cfg.SessionLog != nil {
			own.SessionLog = cfg.SessionLog
		}
		carrier := native{proxy.New(own), files}
		d.engine = carrier
		if cfg.Shadow != nil {
			taken, err := cfg.takenBefore()
			if err != nil {
				return err
			}
			shadows = newShadowing(carrier, cfg, taken)
			d.engine = shadows
		}
	} else {
		h := *cfg.HAProxy
		h.Bind, h.StopTimeout, h.Logger = cfg.Bind, cfg.StopTimeout, cfg.Logger
		engine, err := haproxy.New(h)
		if err != nil {
			return err
		}
		d.engine = balancer{engine}
	}

	defer context.AfterFunc(ctx, func() { d.stopping.Store(true) })()
	d.feed = web.NewFeed(d.Status, d)
	d.page.actions = web.NewActions(d.Order, cfg.Logger)

	carried := make(chan struct{})
	d.keepVirtual(carried)
	d.watchPools()

	// Loops outlive ctx: while sessions finish after the stop was asked for, their servers stay under watch.
	loopCtx, stopLoops := context.WithCancel(context.WithoutCancel(ctx))
	d.loopCtx = loopCtx
	defer d.loops.Wait()
	defer stopLoops()
	if d.tcpcheck != nil {
		d.loops.Go(func() { d.tcpcheck.Run(loopCtx) })
		d.loops.Go(func() { d.follow(loopCtx, d.tcpcheck.Board()) })
	}
	if questions, err := exchange.New(); err == nil {
		d.exchange = questions
		d.loops.Go(func() { questions.Run(loopCtx) })
	} else if !errors.Is(err, errors.ErrUnsupported) {
		d.log.Warn("each question is put by a goroutine, which takes more of the processor", "error", err)
	}

	loaded, other, err := d.first(cfg.Source.Load(ctx))
	if err != nil {
		return err
	}
	if d.admin, err = listenAdmin(ctx, cfg.Admin, cfg.Inherited); err != nil {
		return err
	}
	if d.control, err = d.listenForControl(ctx); err != nil {
		d.admin.Close()
		return err
	}
	if d.commands, err = d.prepareRuntime(ctx); err != nil {
		d.admin.Close()
		if d.control != nil {
			d.control.Close()
		}
		return err
	}
	if err := d.page.inherit(cfg.Inherited); err != nil {
		d.log.Warn("the page's port isn't taken over from the process before", "error", err)
	}
	err = d.begin(ctx, loaded)
	if err != nil && other != nil {
		d.log.Error("the plan that was kept can't be taken, the file is for now", "problems", err.Error())
		err = d.begin(ctx, *other)
	}
	if err != nil {
		d.admin.Close()
		if d.control != nil {
			d.control.Close()
		}
		d.page.close()
		if d.commands != nil {
			d.commands.Discard()
		}
		return err
	}
	d.openPage(ctx)
	d.tellSecrets(loaded.Secrets)
	alive := d.watchdog()
	d.loops.Go(func() { d.watchLoops(loopCtx, alive) })
	d.loops.Go(func() { d.endHolds(loopCtx) })
	group, ctx := errgroup.WithContext(ctx)
	group.Go(func() error {
		defer close(carried)
		return d.engine.Run(ctx)
	})
	for _, p := range d.cfg.Parts {
		group.Go(func() error { return p.Run(ctx) })
	}
	group.Go(func() error {
		d.feed.Run(ctx)
		return nil
	})
	group.Go(func() error { return d.serveAdmin(ctx, d.admin) })
	group.Go(func() error { return d.serveControl(ctx, d.control) })
	group.Go(func() error { return d.servePage(ctx) })
	group.Go(func() error { return d.serveRuntime(ctx, d.commands) })
	// Who is told that it is ready may order at once.
	orders := d.listenLocal(ctx)
	group.Go(func() error { return d.serveLocal(ctx, orders) })
	steering := d.listenForSteering(ctx)
	group.Go(func() error { return d.serveSteering(ctx, steering) })
	group.Go(func() error { return cfg.Source.Follow(ctx, func(l Loaded, err error) { _ = d.change(ctx, l, err) }) })
	group.Go(func() error { return d.reloadOnSignal(ctx) })
	group.Go(func() error { return d.upgradeOnSignal(ctx) })
	does := "pgporter serves"
	if engine, is := d.engine.(*shadowing); is {
		does = "pgporter is a shadow: it compares itself with HAProxy and serves nothing but what was taken from it"
		if taken := engine.takenNow(); len(taken) > 0 {
			d.log.Info("services that were taken from HAProxy are served", "services", taken)
		}
	}
	d.log.Info(does, "version", cfg.Version, "source", cfg.Source.Name(), "admin", d.admin.Addr().String())
	d.tellReady()
	err = group.Wait()
	switch {
	case errors.Is(err, errHandedOver):
		d.log.Info("pgporter ends, its successor goes on")
	case err != nil && !errors.Is(err, context.Canceled):
		return err
	default:
		d.log.Info("pgporter has stopped")
	}
	return nil
}

// tellReady says that every port is open: to systemd, if it started us (sd_notify(3)), and to whoever wants to know.
func (d *Daemon) tellReady() {
	if _, err := systemd.SdNotify(false, systemd.SdNotifyReady); err != nil {
		d.log.Warn("systemd wasn't told that pgporter is ready", "error", err)
	}
	if d.cfg.Ready != nil {
		d.cfg.Ready()
	}
}

// firstChecks bounds how long a new configuration waits for the first word about each member.
const firstChecks = 2 * time.Second

// awaitFirstChecks waits until the Boards say that every member has been asked once for every service. Without it, whoever comes
// in the first milliseconds would be told that nobody has been checked yet.
func awaitFirstChecks(ctx context.Context, boards []*view.Board) {
	ctx, cancel := context.WithTimeout(ctx, firstChecks)
	defer cancel()
	for _, board := range boards {
		for {
			v, replaced := board.Watch()
			if checked(v) {
				break
			}
			select {
			case <-ctx.Done():
				return
			case <-replaced:
			}
		}
	}
}

// checked says that every member was asked for every service that it may carry.
func checked(v *view.View) bool {
	for _, m := range v.Members {
		if m.Answer == view.NotChecked {
			return false
		}
	}
	return !slices.ContainsFunc(v.Services, func(s view.Service) bool {
		return slices.ContainsFunc(s.Health, func(h view.Health) bool { return h.Reason == view.NotChecked })
	})
}

// reloadOnSignal reads the configuration again whenever it is asked to.
func (d *Daemon) reloadOnSignal(ctx context.Context) error {
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-d.cfg.Reload:
			_ = d.read(ctx, "SIGHUP")
		case r := <-d.rereads:
			d.log.Info("the configuration is read again", "by", r.by)
			r.end <- d.read(ctx, r.by)
		}
	}
}

// read reads the configuration and takes it, or says why it isn't taken.
func (d *Daemon) read(ctx context.Context, by string) error {
	if err := d.cfg.SessionLog.Reopen(); err != nil {
		d.log.Error("the session log goes on in the old file", "error", err)
	}
	d.renewCredentials()
	loaded, err := d.cfg.Source.Load(ctx)
	loaded.By = by
	return d.change(ctx, loaded, err)
}

// change takes a configuration, or notes why it wasn't taken and says so.
func (d *Daemon) change(ctx context.Context, l Loaded, err error) error {
	if err == nil {
		err = d.take(ctx, l)
	}
	if err != nil && ctx.Err() == nil {
		d.refuse(l.By, err)
	}
	return err
}

// refuse notes why a configuration wasn't taken, which somebody wanted to be; about are attributes of the log's line.
func (d *Daemon) refuse(by string, err error, about ...any) {
	d.mu.Lock()
	d.refused = safetext.Text(err.Error())
	d.refusals++
	generation := d.accepted
	d.mu.Unlock()
	why, _, more := strings.Cut(err.Error(), "\n")
	if more {
		why += " …"
	}
	d.note(api.Event{Kind: api.EventConfig, By: by, Text: fmt.Sprintf("a configuration is refused, generation %d goes on: %s", generation, why)})
	d.log.Error("the new configuration is refused, what was running goes on", append(about, "generation", generation, "problems", err.Error())...)
}

// recheck asks a cluster to look at a member at once.
func (d *Daemon) recheck(clusterName, member string) {
	d.mu.Lock()
	r := d.running[clusterName]
	d.mu.Unlock()
	if r != nil {
		r.loop.Recheck(member)
	}
}

// doubt tells a cluster that a server keeps a client waiting.
func (d *Daemon) doubt(clusterName, service, member string) {
	d.mu.Lock()
	r := d.running[clusterName]
	d.mu.Unlock()
	if r != nil {
		r.loop.Doubt(service, member)
	}
}

// await tells a cluster that clients wait for a service.
func (d *Daemon) await(clusterName, service string) {
	d.mu.Lock()
	r := d.running[clusterName]
	d.mu.Unlock()
	if r != nil {
		r.loop.Await(service)
	}
}
