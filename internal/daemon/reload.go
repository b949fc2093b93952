package daemon

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/pgporter/pgporter/internal/admin/api"
	"github.com/pgporter/pgporter/internal/config/model"
	"github.com/pgporter/pgporter/internal/config/resolve"
	"github.com/pgporter/pgporter/internal/engine"
	"github.com/pgporter/pgporter/internal/monitor/cluster"
	"github.com/pgporter/pgporter/internal/monitor/view"
)

// Change is something prepared that is to replace what runs, such as an engine's listeners or a cluster's
// declaration. Either Abort is called, or Commit and then, once everything else of the reload is committed, Publish. Those that
// are nil have nothing to do.
type Change struct {
	// Commit can't fail. It ends no session and turns nobody away.
	Commit func()
	// Publish can't fail either. Whatever ends sessions is done here.
	Publish func()
	// Abort leaves everything as it was before it was prepared.
	Abort func()
}

type changes []Change

func (all changes) each(step func(Change) func()) {
	for _, c := range all {
		if do := step(c); do != nil {
			do()
		}
	}
}

// reload is a configuration that is to be the running one.
type reload struct {
	Loaded
	offer   engine.Offer
	running map[string]*runningCluster
	// views publish what is known of servers, carriers what clients meet: the engine and the parts. Views come first, so that no
	// client meets a service that they don't show.
	views, carriers changes
	// fresh are the Boards of clusters that weren't there before, shown those of all that this node carries.
	fresh, shown []*view.Board
}

// take makes a configuration the running one, or changes nothing and says why.
func (d *Daemon) take(ctx context.Context, l Loaded) error {
	d.taking.Lock()
	defer d.taking.Unlock()
	return d.swap(ctx, l)
}

// swap is take with d.taking held: prepare all, commit all, publish.
func (d *Daemon) swap(ctx context.Context, l Loaded) error {
	for _, w := range l.Warnings {
		d.log.Warn(w)
	}
	if err := d.valid(l); err != nil {
		return err
	}
	var err error
	if l.Base, err = d.withPassword(l.Base); err != nil {
		return err
	}
	if l.Unattended {
		// What was sent isn't undone by a look at a file that still says what it said then.
		if unchanged(d.plan, l.Plan) || d.sent != nil && l.Digest != "" && l.Digest == d.acceptance.File {
			d.log.Debug("the inventory was looked at, nothing changed for this node")
			return nil
		}
		if err := harmless(d.plan, l.Plan); err != nil {
			return err
		}
	}
	if d.hasPage() {
		defer d.page.giveWay(l.Plan)()
	}
	r, err := d.prepare(ctx, l)
	if err != nil || l.Trial {
		r.abort()
		return err
	}
	d.commit(r)
	r.publish(ctx)
	d.taken(r)
	if i := d.cfg.Inherited; i == nil || i.taken {
		d.keep(r.Loaded)
	}
	return nil
}

// prepare does everything about a configuration that can fail. What it gives with an error is to be aborted, too.
func (d *Daemon) prepare(ctx context.Context, l Loaded) (*reload, error) {
	r := &reload{Loaded: l, running: map[string]*runningCluster{}}
	if err := d.prepareClusters(ctx, r); err != nil {
		return r, err
	}
	if err := d.prepareOffer(r); err != nil {
		return r, err
	}
	if err := d.prepareTCPServices(r); err != nil {
		return r, err
	}
	var parts changes
	var err error
	for _, p := range d.cfg.Parts {
		change, failed := p.Prepare(ctx, r.offer)
		if failed != nil {
			err = errors.Join(err, failed)
			continue
		}
		parts = append(parts, change)
	}
	if err != nil {
		r.carriers = parts
		return r, err
	}
	// The engine comes last: a HAProxy has loaded its files when it is prepared.
	change, err := d.engine.Prepare(ctx, r.offer)
	r.carriers = append(changes{change}, parts...)
	for name, old := range d.running {
		if r.running[name] == nil {
			r.carriers = append(r.carriers, Change{Publish: old.stop})
		}
	}
	return r, err
}

// valid says what is wrong with a configuration as such; nil if nothing is.
func (d *Daemon) valid(l Loaded) error {
	err := d.cfg.LeaderKeys.fits(l)
	// A machine's addresses may change; which host it is doesn't.
	if d.node != "" && l.Plan.Node != d.node {
		err = errors.Join(err, fmt.Errorf("the plan is for %s, and this node is %s", l.Plan.Node, d.node))
	}
	for _, c := range slices.Concat(l.Plan.Clusters, l.Plan.Elsewhere) {
		err = errors.Join(err, cluster.Readable(c))
	}
	return err
}

// prepareClusters has each cluster's loop prepare its declaration, and starts the loops of new ones, whose Boards nobody reads
// yet.
func (d *Daemon) prepareClusters(ctx context.Context, r *reload) error {
	var problems []error
	for _, c := range monitored(r.Plan) {
		next := &runningCluster{plan: c}
		if old := d.running[c.Name]; old != nil {
			change, err := old.loop.Prepare(ctx, c)
			if err != nil {
				problems = append(problems, err)
				continue
			}
			next.loop, next.stop = old.loop, old.stop
			r.views = append(r.views, Change{Publish: change.Publish})
		} else {
			loop, err := cluster.New(c, cluster.Config{Logger: d.log, Exchange: d.exchange, Slots: d.slots, Seed: d.seed, Witnessed: d.cfg.HAProxy == nil && d.cfg.Shadow == nil && d.cfg.Hold > 0, Holdless: d.cfg.HAProxy != nil, Keys: d.watcherFor(d.etcdOf(r.Loaded))})
			if err != nil {
				problems = append(problems, err)
				continue
			}
			next.loop = loop
			loop.Board().Restore(d.cfg.Inherited.ordersFor(c.Name))
			d.restoreHold(c.Name, loop.Board())
			r.fresh = append(r.fresh, loop.Board())
		}
		r.running[c.Name] = next
	}
	if err := errors.Join(problems...); err != nil || r.Trial {
		return err
	}
	for name, run := range r.running {
		if d.running[name] == nil {
			d.start(name, run)
			r.views = append(r.views, Change{Abort: run.stop})
		}
	}
	return nil
}

// prepareOffer resolves the clusters against the roles that are known now.
func (d *Daemon) prepareOffer(r *reload) error {
	r.offer = engine.Offer{Node: r.Plan.Node, Names: r.Plan.Names, TCPServices: r.Plan.TCPServices, Base: r.Base, Trial: r.Trial,
		FirstChecks: func(ctx context.Context) { awaitFirstChecks(ctx, r.fresh) }}
	var problems []error
	offered := func(c model.Cluster) engine.Cluster {
		set, err := resolve.Set(c, d.roles(c.Name))
		if err != nil {
			problems = append(problems, fmt.Errorf("cluster %s: %w", c.Name, err))
		}
		_, before := d.running[c.Name]
		return engine.Cluster{Cluster: c, Set: set, Board: r.running[c.Name].loop.Board(), New: !before}
	}
	for _, c := range r.Plan.Clusters {
		r.offer.Clusters = append(r.offer.Clusters, offered(c))
		r.shown = append(r.shown, r.running[c.Name].loop.Board())
	}
	for _, c := range r.Plan.Elsewhere {
		r.offer.Elsewhere = append(r.offer.Elsewhere, offered(c))
	}
	return errors.Join(problems...)
}

// prepareTCPServices makes the checks of TCP services ready where they are ours.
func (d *Daemon) prepareTCPServices(r *reload) error {
	if d.tcpcheck == nil {
		return nil
	}
	checks, services, err := read(r.Plan.TCPServices)
	if err != nil {
		return err
	}
	r.offer.TCP = engine.TCPServices{Services: services, Board: d.tcpcheck.Board(), Recheck: d.tcpcheck.Recheck}
	r.views = append(r.views, Change{Publish: func() { d.tcpcheck.Replace(checks) }})
	r.shown = append(r.shown, d.tcpcheck.Board())
	return nil
}

// commit makes a configuration that is prepared the one that counts.
func (d *Daemon) commit(r *reload) {
	commit := func(c Change) func() { return c.Commit }
	r.views.each(commit)
	r.carriers.each(commit)
	d.page.set(d.pageOf(r.Loaded))
	d.mu.Lock()
	defer d.mu.Unlock()
	d.etcd = d.etcdOf(r.Loaded)
	d.running, d.order, d.node, d.plan, d.sent = r.running, nil, r.Plan.Node, r.Plan, r.Sent
	if r.Base != nil {
		d.base = r.Base
	}
	for _, c := range r.Plan.Clusters {
		d.order = append(d.order, c.Name)
	}
}

// publish shows what was committed to those who look, and ends sessions that it has no server for.
func (r *reload) publish(ctx context.Context) {
	publish := func(c Change) func() { return c.Publish }
	r.views.each(publish)
	awaitFirstChecks(ctx, r.shown)
	r.carriers.each(publish)
}

// abort leaves everything as it was.
func (r *reload) abort() {
	abort := func(c Change) func() { return c.Abort }
	r.carriers.each(abort)
	r.views.each(abort)
}

// taken notes and tells that a configuration runs.
func (d *Daemon) taken(r *reload) {
	d.mu.Lock()
	d.loaded, d.refused, d.assumed = time.Now(), "", r.Assumed
	d.accepted++
	generation := d.accepted
	d.mu.Unlock()
	d.tellShortfall(r.offer)
	for _, a := range r.Assumed {
		d.log.Info("assumed", "what", a)
	}
	services := len(r.Plan.TCPServices)
	for _, c := range r.Plan.Clusters {
		services += len(c.Definitions)
		if c.VIP != nil && d.vips == nil {
			d.log.Info("the virtual address is left to another program: with --vip this one keeps it", "cluster", c.Name, "address", c.VIP.Address.String())
		}
	}
	by := r.By
	if r.Sent != nil {
		by = r.Sent.words()
	}
	d.note(api.Event{Kind: api.EventConfig, By: by, Text: fmt.Sprintf("the configuration is taken: generation %d, %d clusters, %d services", generation, len(r.Plan.Clusters), services)})
	d.log.Info("the configuration is taken", "generation", generation, "clusters", len(r.Plan.Clusters), "services", services)
}

// start runs a cluster's loop until the cluster goes or the daemon ends.
func (d *Daemon) start(name string, r *runningCluster) {
	ctx, stop := context.WithCancel(d.loopCtx)
	r.stop = stop
	d.loops.Go(func() {
		if err := r.loop.Run(ctx); err != nil && ctx.Err() == nil {
			d.log.Error("a cluster's loop died", "cluster", name, "error", err)
		}
	})
	d.loops.Go(func() { d.follow(ctx, r.loop.Board()) })
}

// roles are what a cluster's members are now, by name; none of one that isn't watched yet.
func (d *Daemon) roles(cluster string) map[string]model.Role {
	live := map[string]model.Role{}
	if r := d.running[cluster]; r != nil {
		for _, m := range r.loop.Board().View().Members {
			live[m.Name] = m.Live
		}
	}
	return live
}
