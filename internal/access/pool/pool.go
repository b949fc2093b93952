// Package pool has the PgBouncers of a machine wait while a cluster's leader changes: their databases are paused and let go (PAUSE,
// RESUME), and their connections to servers that aren't what they were are renewed (RECONNECT), as package duty says.
//
// Each PgBouncer has a goroutine. It asks at the console (SHOW DATABASES, SHOW POOLS) every few seconds, and twenty times a second during
// a hold; takes a step for each database; and does what is due. PAUSE has a connection of its own, since PgBouncer answers it only once the
// database has no server connection any more: a pause is in force at once, and whether it is over is what SHOW POOLS says. Every command
// has a deadline, and no cancel request is ever sent.
//
// A pause never outlives its hold. Run ends those that are ours, unless HandOver was called; those of a pgporter that was killed are ended
// by the next one, which finds them in a file (marks.go). Databases that somebody else has paused are left alone.
//
// Left out: starting, configuring and checking PgBouncers.
package pool

import (
	"context"
	"log/slog"
	"sync"
	"sync/atomic"

	"github.com/pgporter/pgporter/internal/access/pool/duty"
	"github.com/pgporter/pgporter/internal/monitor/view"
)

// Config of a Keeper.
type Config struct {
	// Addresses are those of the PgBouncers.
	Addresses []Address
	// User logs in at their consoles, and has to be among their admin_users; empty for `pgbouncer`, who needs no password at the Unix
	// socket of a PgBouncer with our own user. Password is asked for with each connection; nil for none.
	User     string
	Password func() (string, error)
	// Dir is where it is noted what is paused: it has to outlive the process.
	Dir string
	// Sessions counts a member's sessions in services of the leader, on this node.
	Sessions func(cluster, member string) int
	Logger   *slog.Logger
}

// Offer is what the databases are judged by.
type Offer struct {
	duty.Node
	// Boards are those of the clusters.
	Boards map[string]*view.Board
}

// Status is what is known of a PgBouncer.
type Status struct {
	Address Address
	// Problem says why nothing is known, or what couldn't be done; empty if all is well.
	Problem   string
	Databases []Database
}

// State is what a database does.
type State int

// The states of a database.
const (
	Running State = iota
	// Pausing waits for transactions that are under way.
	Pausing
	Paused
)

// Database is one that leads to a service of the node or to a member on it.
type Database struct {
	Name string
	duty.Place
	State State
	// Active are the server connections that clients have, Waiting the clients that wait for one.
	Active, Waiting int
	// Busy says who is waited for while it is Pausing, mostBusy lines at most.
	Busy []string
}

// Keeper watches over PgBouncers.
type Keeper struct {
	cfg Config
	// handedOver says that pauses are to stay when Run ends.
	handedOver atomic.Bool
	watches    []*watch

	mu    sync.Mutex
	offer Offer
	// followed is closed when there is another offer.
	followed chan struct{}
}

// New makes a Keeper that knows of no cluster yet.
func New(cfg Config) *Keeper {
	k := &Keeper{cfg: cfg, followed: make(chan struct{})}
	for _, a := range cfg.Addresses {
		k.watches = append(k.watches, &watch{keeper: k, cfg: &k.cfg, address: a, log: cfg.Logger.With("pool", a.String()), marks: marksOf(cfg.Dir, a),
			databases: map[string]*database{}, anew: true, status: Status{Address: a, Problem: "it wasn't asked yet"}})
	}
	return k
}

// Follow has databases judged by another offer from now on.
func (k *Keeper) Follow(o Offer) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.offer = o
	close(k.followed)
	k.followed = make(chan struct{})
}

// HandOver has pauses stay when Run ends: a successor goes on with them.
func (k *Keeper) HandOver() { k.handedOver.Store(true) }

// Status tells of the PgBouncers, in the order of their addresses.
func (k *Keeper) Status() []Status {
	all := make([]Status, len(k.watches))
	for i, w := range k.watches {
		w.mu.Lock()
		all[i] = w.status
		w.mu.Unlock()
	}
	return all
}

// Run watches until ctx ends, and then ends the pauses that are ours.
func (k *Keeper) Run(ctx context.Context) error {
	var running sync.WaitGroup
	defer running.Wait()
	for _, w := range k.watches {
		running.Go(func() { w.run(ctx) })
	}
	return nil
}

// offered is the newest offer, and what is closed when there is another one.
func (k *Keeper) offered() (Offer, <-chan struct{}) {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.offer, k.followed
}
