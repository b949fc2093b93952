package failover

import (
	"context"
	"errors"
	"fmt"
	"regexp"
	"strings"
	"sync"
	"time"

	"github.com/pgporter/pgporter/lab/load"
)

// layout says where an application's PgBouncer is. The zero layout has none.
type layout int

// The layouts.
const (
	// behind is Pigsty's: the service leads to the PgBouncer of the primary.
	behind layout = iota + 1
	// door has it before the service.
	door
)

// app is an application: a pool of connections, and clients that share it.
type app struct {
	// name is what the tables call its way, driver what its pool is.
	name, driver string
	// url is pgx's, whatever the driver.
	url    string
	layout layout
	// ours goes through pgporter, straight to PostgreSQL itself.
	ours, straight bool
	clients        int
	// ledger is the run's.
	ledger *load.Ledger
}

// The drivers, with their pools.
const (
	inGo   = "pgx"
	inJava = "JDBC, HikariCP"
)

const (
	// transactionEvery is the time between the starts of two transactions of a client.
	transactionEvery = 50 * time.Millisecond
	// patience is how long a client waits for a connection and for an answer.
	patience = 30 * time.Second
)

// apps are all, two a way: members are the addresses of all members in order, porter is a node with a pgporter and a door, at that port,
// haproxy is where HAProxy listens, clients is how many go through pgporter a way.
func apps(members []string, porter, haproxy string, doorPort, clients int, pooler, admin account) []app {
	one := func(who account, host string, port int) string {
		return who.url([]string{host}, port, fmt.Sprintf("connect_timeout=%.0f", connectTimeout.Seconds()))
	}
	every := admin.url(members, 5432, "target_session_attrs=read-write", fmt.Sprintf("connect_timeout=%.0f", hostTimeout.Seconds()))
	var all []app
	for _, way := range []app{
		{name: fmt.Sprintf("pgporter, door %d", doorPort), url: one(pooler, porter, doorPort), layout: door, ours: true},
		{name: "HAProxy, 5436", url: one(admin, haproxy, direct)},
		{name: "all members", url: every, straight: true},
		{name: "pgporter, 5433", url: one(pooler, porter, pooled), layout: behind, ours: true},
		{name: "HAProxy, 5433", url: one(pooler, haproxy, pooled), layout: behind},
	} {
		for _, driver := range []string{inGo, inJava} {
			way.driver = driver
			// Two cores carry no more than half as many beside those that the goals are about.
			if way.clients = clients / 2; !way.ours {
				way.clients = max(1, clients/4)
			}
			all = append(all, way)
		}
	}
	return all
}

// startApps has all applications work until stop is called. They are started anew for each run: what HAProxy's clients are left with after
// one can be sessions on a replica, whose pool has no reason to close them.
func (a *arena) startApps(ctx context.Context) (stop func(), err error) {
	const (
		insert         = "insert into probe default values returning host(inet_server_addr())"
		insertNumbered = "insert into probe (client, n) values ($1, $2) returning host(inet_server_addr())"
	)
	ctx, cancel := context.WithCancel(ctx)
	var working sync.WaitGroup
	stop = func() {
		cancel()
		working.Wait()
	}
	start := func(run func(context.Context) error) {
		working.Go(func() {
			if err := run(ctx); err != nil && ctx.Err() == nil {
				a.quit(fmt.Errorf("an application has ended: %w", err))
			}
		})
	}
	java := load.Hikari{SQL: insert, Every: transactionEvery, Limit: patience, Dir: a.dir}
	for i := range a.apps {
		each := &a.apps[i]
		each.ledger = &load.Ledger{}
		if each.driver == inJava {
			url, err := load.JDBC(each.url, patience)
			if err != nil {
				stop()
				return nil, fmt.Errorf("%s: %w", each.name, err)
			}
			java.Pools = append(java.Pools, load.HikariPool{URL: url, Clients: each.clients, Ledger: each.ledger})
			continue
		}
		pool := load.Pooled{URL: each.url, SQL: insertNumbered, Clients: each.clients, Every: transactionEvery, Limit: patience, Observe: each.ledger.Add, Made: each.ledger.Open, Broken: each.ledger.Close}
		start(func(ctx context.Context) error {
			// HAProxy takes its time until it has the right server: until then the pool is made anew.
			return await(ctx, untilSteady, func() error { return pool.Run(ctx, nil) })
		})
	}
	if len(java.Pools) > 0 {
		start(java.Run)
	}
	return stop, nil
}

// worked is what an application's clients saw of a switchover.
type worked struct {
	// begun had begun and were lost, unanswered are those whose first statement was never answered.
	begun, unanswered []load.Transaction
	// closed is how many connections the pool closed, early how many of them while the old primary still took writes, late how many a
	// second or more after the new one did.
	closed, early, late int
	// pause is the longest time in which a client committed nothing.
	pause time.Duration
}

func (w worked) failed() int { return len(w.begun) + len(w.unanswered) }

// tooLate is how long after the new primary takes writes a connection is still closed for the switch.
const tooLate = time.Second

// sum makes of a ledger what is counted: how many clients it is of, from when to when it was kept, when the old primary ceased and when the new one
// began to take writes.
func sum(e load.Entry, clients int, from, until, ceased, took time.Time) worked {
	w := worked{begun: e.Failed(load.Lost), unanswered: e.Failed(load.Unanswered), closed: len(e.Closed), pause: e.Pause(clients, from, until)}
	for _, at := range e.Closed {
		switch {
		case at.Before(ceased):
			w.early++
		case at.After(took.Add(tooLate)):
			w.late++
		}
	}
	return w
}

// sumAll is sum for every application. PostgreSQL ends all its sessions at once as it ceases: those who come straight to it may see that
// before the watcher, who asks now and then.
func (a *arena) sumAll(from, ceased, took time.Time) []worked {
	until := time.Now()
	var entries []load.Entry
	for _, each := range a.apps {
		e := each.ledger.Take()
		if entries = append(entries, e); each.straight {
			for _, at := range e.Closed {
				if at.Before(ceased) {
					ceased = at
				}
			}
		}
	}
	var all []worked
	for i, e := range entries {
		all = append(all, sum(e, a.apps[i].clients, from, until, ceased, took))
	}
	return all
}

// settled waits until every application has had a connection for each client, and committed for three seconds without a failure, each client.
func (a *arena) settled(ctx context.Context) error {
	const quiet = 3 * time.Second
	began := time.Now()
	return await(ctx, untilSteady, func() error {
		for _, each := range a.apps {
			if e := each.ledger.Take(); len(e.Failed(load.Committed)) < len(e.Transactions) || len(e.Closed) > 0 {
				began = time.Now()
			}
			if n := each.ledger.Connections(); n < each.clients {
				began = time.Now()
				return fmt.Errorf("%s, %s: %d connections of %d", each.name, each.driver, n, each.clients)
			}
			if n := each.ledger.CommittedSince(began); n < each.clients {
				return fmt.Errorf("%s, %s: %d clients of %d have committed", each.name, each.driver, n, each.clients)
			}
		}
		if time.Since(began) < quiet {
			return errors.New("too early to tell")
		}
		return nil
	})
}

// allCommit waits until each client has committed what it began after a moment.
func (a *arena) allCommit(ctx context.Context, after time.Time) error {
	return await(ctx, untilThrough, func() error {
		for _, each := range a.apps {
			if n := each.ledger.CommittedSince(after); n < each.clients {
				return fmt.Errorf("%s, %s: %d clients of %d have committed", each.name, each.driver, n, each.clients)
			}
		}
		return nil
	})
}

// said lists what failures said, each with its number and when it came for the first and the last time after the switchover began.
func said(failures []load.Transaction, began time.Time) string {
	var order []string
	by := map[string][]load.Transaction{}
	for _, t := range failures {
		text := varying.ReplaceAllString(t.Err.Error(), "…")
		if by[text] == nil {
			order = append(order, text)
		}
		by[text] = append(by[text], t)
	}
	var b strings.Builder
	for _, text := range order {
		all := by[text]
		fmt.Fprintf(&b, "    %d from %.3f to %.3f s: %s\n", len(all), all[0].Ended.Sub(began).Seconds(), all[len(all)-1].Ended.Sub(began).Seconds(), text)
	}
	return b.String()
}

// varying are the parts of a failure's text that no two have in common: ports and times.
var varying = regexp.MustCompile(`\d+ms|:\d{5}\b`)
