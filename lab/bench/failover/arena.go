package failover

import (
	"context"
	"fmt"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/pgporter/pgporter/lab/bench/report"
	"github.com/pgporter/pgporter/lab/bench/subject"
	"github.com/pgporter/pgporter/lab/load"
	"github.com/pgporter/pgporter/lab/sandbox"
)

// arena is a cluster with everybody that is compared on it.
type arena struct {
	config    Config
	box       *sandbox.Sandbox
	machine   string
	targets   []target
	recorders []*load.Recorder
	// apps work on a stage for applications, in each run; quit ends the measuring because one of them ended by itself. They write into dir.
	apps []app
	dir  string
	quit context.CancelCauseFunc
	// servers and pools are what each member and its PgBouncer said of themselves, by address.
	servers, pools map[string]*diary
	// names are the members' by address, key is who held the leader key.
	names   map[string]string
	key     history
	running []*subject.Process
	stop    context.CancelFunc
	joined  sync.WaitGroup
}

// diary keeps the answers of one server. Only changes are in it.
type diary struct {
	mu      sync.Mutex
	answers []load.Answer
}

func (d *diary) add(a load.Answer) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.answers = append(d.answers, a)
}

// writableSince gives the first answer after a moment that says the server takes writes again, or now.
func (d *diary) writableSince(after time.Time) (load.Answer, bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	i := slices.IndexFunc(d.answers, func(a load.Answer) bool { return a.Writable && a.Sent.After(after) })
	if i < 0 {
		return load.Answer{}, false
	}
	return d.answers[i], true
}

// silentBefore gives when the server last ceased to take writes before a moment, as the moment of the first question that said so; zero
// if it took them all the time.
func (d *diary) silentBefore(before time.Time) time.Time {
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, a := range slices.Backward(d.answers) {
		if !a.Writable && a.Sent.Before(before) {
			return a.Sent
		}
	}
	return time.Time{}
}

// How often a member, and its PgBouncer, is asked.
const (
	serverEvery = 5 * time.Millisecond
	poolEvery   = 20 * time.Millisecond
)

// newArena starts the HAProxies, the watchers, and the probers or applications. quit is called with the reason where one of those ends by
// itself.
func newArena(ctx context.Context, c Config, box *sandbox.Sandbox, dir string, on stage, quit context.CancelCauseFunc) (*arena, error) {
	ctx, stop := context.WithCancel(ctx)
	a := &arena{config: c, box: box, dir: dir, stop: stop, servers: map[string]*diary{}, pools: map[string]*diary{}, names: map[string]string{}, quit: quit}
	if err := a.start(ctx, on); err != nil {
		a.close()
		return nil, err
	}
	return a, nil
}

func (a *arena) start(ctx context.Context, on stage) error {
	var err error
	if a.machine, err = report.Machine(ctx, a.config.Binary, "PostgreSQL", "Patroni", "etcd", "PgBouncer", "HAProxy"); err != nil {
		return err
	}
	var members []string
	for _, m := range a.box.Declared() {
		members = append(members, m.Address)
		a.names[m.Address] = m.Name
	}
	etcd, err := etcdAddress(ctx, a.box)
	if err != nil {
		return err
	}
	a.joined.Go(func() { a.key.watchKey(ctx, etcd, a.box.Declared()[0].Cluster) })
	addresses := map[string]string{specified: a.config.Prefix + ".41", norm: a.config.Prefix + ".42"}
	if on == applications {
		delete(addresses, specified)
	}
	for options, address := range addresses {
		h, err := startHAProxy(ctx, a.config.Binary, a.box.Inventory(), filepath.Join(a.dir, "haproxy-"+address), members[0], address, options)
		if err != nil {
			return err
		}
		a.running = append(a.running, h)
	}
	app, err := a.account("primary")
	if err != nil {
		return err
	}
	admin, err := a.account("default")
	if err != nil {
		return err
	}
	if err := makeTable(ctx, admin.url(members[:1], 5432)); err != nil {
		return err
	}
	for _, m := range members {
		a.servers[m] = a.watch(ctx, admin.url([]string{m}, 5432), serverEvery)
		a.pools[m] = a.watch(ctx, app.url([]string{m}, 6432), poolEvery)
	}
	porter := members[len(members)-1]
	a.targets = targets(members, porter, addresses[specified], addresses[norm], app, admin)
	if on == applications {
		a.targets = slices.DeleteFunc(a.targets, func(t target) bool { return !t.tries })
		doors := a.box.Doors("default")
		at := doors[len(doors)-1]
		a.apps = apps(members, at.Host, addresses[norm], at.Port, a.config.Clients, account{at.User, at.Password, at.Database}, admin)
	}
	for i, t := range a.targets {
		r := &load.Recorder{}
		a.recorders = append(a.recorders, r)
		prober := load.Prober{
			URL: t.url, SQL: "insert into probe default values returning host(inet_server_addr())",
			Every: a.config.Every, Connect: connectTimeout, Write: writeTimeout, Observe: r.Add,
		}
		if t.tries {
			prober.Connect = time.Duration(len(members)) * hostTimeout
		}
		// Not all in the same instant.
		begin := time.Duration(i) * a.config.Every / time.Duration(len(a.targets))
		a.joined.Go(func() {
			select {
			case <-ctx.Done():
			case <-time.After(begin):
				prober.Run(ctx) //nolint:errcheck // the URL was made here
			}
		})
	}
	return nil
}

func (a *arena) account(service string) (account, error) {
	access, err := a.box.Access(service, "")
	return account{access.User, access.Password, access.Database}, err
}

func (a *arena) watch(ctx context.Context, url string, every time.Duration) *diary {
	d := &diary{}
	w := load.Watcher{URL: url, Every: every, Observe: d.add}
	a.joined.Go(func() { w.Run(ctx) }) //nolint:errcheck // the URL was made here
	return d
}

// close ends what newArena started and returns when it has ended.
func (a *arena) close() {
	a.stop()
	a.joined.Wait()
	for _, h := range a.running {
		h.Stop()
	}
}

func makeTable(ctx context.Context, url string) error {
	conn, err := pgx.Connect(ctx, url)
	if err != nil {
		return err
	}
	defer conn.Close(ctx)
	_, err = conn.Exec(ctx, "create table probe (at timestamptz default now(), client int, n int); grant insert on probe to public")
	return err
}

// await asks every 50 ms until there is nothing to complain of; when ctx ends or the time is over, the last complaint is the
// error.
func await(ctx context.Context, within time.Duration, complaint func() error) error {
	ctx, cancel := context.WithTimeout(ctx, within)
	defer cancel()
	again := time.NewTicker(50 * time.Millisecond)
	defer again.Stop()
	for {
		err := complaint()
		if err == nil {
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("after %s: %w", within, err)
		case <-again.C:
		}
	}
}
