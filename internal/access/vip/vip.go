// Package vip keeps virtual addresses: it has them on this node's network interfaces while the members of this node lead,
// as package owner decides.
//
// Each address has a goroutine that looks at the cluster's Board whenever that changes, and at the interface every second,
// takes a step (owner.Step), and does what comes of it. An address is on its interface for a time that the kernel ends by
// itself and that is renewed as long as its member is known to lead, so that a pgporter that was killed or hangs
// can't keep it. Addresses are added and taken away by their exact prefix, and no others are touched.
//
// A reload that leaves an address as it is doesn't touch it. Run takes all away when it ends, unless HandOver was called: then
// they stay for what is left of their time, for a successor to take over.
//
// It works on Linux, with the capabilities CAP_NET_ADMIN (addresses) and CAP_NET_RAW (ARP and neighbour discovery). Whatever is
// missing is said in the log and in Status, and tried again every second; Run goes on. Left out: what vip-manager needs, which
// is rendered in owner.
package vip

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/pgporter/pgporter/internal/access/vip/owner"
	"github.com/pgporter/pgporter/internal/monitor/view"
)

// Config of a Keeper. The zero Config is usable.
type Config struct {
	// Repeat is how often an address is announced in a round; vip.DefaultRepeat if 0.
	Repeat int
	Logger *slog.Logger
	// Moved is called when this node has got an address or hasn't one any more, with how that is now; it may not block. Nil is for nobody.
	Moved func(owner.Want, owner.Status)
}

// Address is one to keep, with the Board of the cluster whose leader it follows.
type Address struct {
	owner.Want
	Board *view.Board
}

// Keeper keeps addresses.
type Keeper struct {
	cfg Config
	// open finds the network interface of an address; tests have their own.
	open func(owner.Want) link
	// handedOver says that the addresses are to stay when Run ends.
	handedOver atomic.Bool

	mu     sync.Mutex
	wanted map[vipKey]Address
	status map[vipKey]owner.Status
	// changed tells Run that wanted has.
	changed chan struct{}
}

// vipKey is what tells addresses apart: one that moves to another interface is given up and taken anew.
type vipKey struct {
	cluster   string
	address   netip.Prefix
	device    string
	neighbour string
}

func keyOf(w owner.Want) vipKey { return vipKey{w.Cluster, w.Address, w.Interface, w.Host} }

// link is the network interface of one address.
type link interface {
	// look says what there is now.
	look() owner.Link
	// bind has the address there for so many seconds from now, unbind not any more.
	bind(seconds int) error
	unbind() error
	// announce tells others where the address is, probe asks whether somebody else has it. Where there are no Ethernet
	// addresses neither does anything.
	announce() error
	probe() error
	// claims are others who say to have the address.
	claims() <-chan owner.MAC
	// close ends what was opened and leaves the address as it is.
	close()
}

// New makes a Keeper of nothing.
func New(cfg Config) *Keeper {
	if cfg.Logger == nil {
		cfg.Logger = slog.Default()
	}
	k := &Keeper{cfg: cfg, wanted: map[vipKey]Address{}, status: map[vipKey]owner.Status{}, changed: make(chan struct{}, 1)}
	k.open = func(w owner.Want) link { return openLink(w, cfg.Logger) }
	return k
}

// Keep has these addresses kept from now on, and no others. It doesn't wait for that.
func (k *Keeper) Keep(addresses []Address) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.wanted = make(map[vipKey]Address, len(addresses))
	for _, a := range addresses {
		a.Repeat = k.cfg.Repeat
		k.wanted[keyOf(a.Want)] = a
	}
	select {
	case k.changed <- struct{}{}:
	default:
	}
}

// HandOver has the addresses stay where they are when Run ends, for the rest of their time: a successor takes them over.
func (k *Keeper) HandOver() { k.handedOver.Store(true) }

// Status tells how the addresses are, by cluster. An address that no step was taken for yet isn't there.
func (k *Keeper) Status() map[string]owner.Status {
	k.mu.Lock()
	defer k.mu.Unlock()
	all := make(map[string]owner.Status, len(k.status))
	for p, s := range k.status {
		all[p.cluster] = s
	}
	return all
}

// Why an address is given up.
var (
	errStopped = errors.New("pgporter stops")
	errGone    = errors.New("it isn't declared any more")
)

// holder is a kept address and its goroutine.
type holder struct {
	follow chan Address
	stop   context.CancelCauseFunc
	ended  chan struct{}
}

// Run keeps the addresses until ctx ends, and then takes them away. It may be called once.
func (k *Keeper) Run(ctx context.Context) error {
	holders := map[vipKey]*holder{}
	drop := func(p vipKey, why error) {
		h := holders[p]
		h.stop(why)
		<-h.ended
		delete(holders, p)
		k.mu.Lock()
		delete(k.status, p)
		k.mu.Unlock()
	}
	defer func() {
		for _, h := range holders {
			h.stop(errStopped)
		}
		for p := range holders {
			drop(p, errStopped)
		}
	}()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-k.changed:
		}
		k.mu.Lock()
		wanted := maps.Clone(k.wanted)
		k.mu.Unlock()
		for _, p := range slices.Collect(maps.Keys(holders)) {
			if _, stays := wanted[p]; !stays {
				drop(p, errGone)
			}
		}
		for p, a := range wanted {
			if h, there := holders[p]; there {
				h.follow <- a
				continue
			}
			// An end of ctx must not be the end of a goroutine that still has to give its address up.
			own, stop := context.WithCancelCause(context.WithoutCancel(ctx))
			h := &holder{follow: make(chan Address), stop: stop, ended: make(chan struct{})}
			holders[p] = h
			go func() {
				defer close(h.ended)
				k.hold(own, p, a, h.follow)
			}()
		}
	}
}

// lookGap is how often the interface is looked at.
const lookGap = time.Second

// hold keeps one address until ctx ends.
func (k *Keeper) hold(ctx context.Context, p vipKey, a Address, follow <-chan Address) {
	l := k.open(a.Want)
	defer l.close()
	s := owner.Begin(a.Want)
	look := time.NewTicker(lookGap)
	defer look.Stop()
	timer := time.NewTimer(time.Hour)
	defer timer.Stop()
	var claimants []owner.MAC
	for {
		v, replaced := a.Board.Watch()
		next, tell := k.step(s, l, owner.Sight{View: v, Link: l.look(), Claimants: claimants})
		moved := next.Status().Holds != s.Status().Holds
		s, claimants = next, nil
		k.mu.Lock()
		k.status[p] = s.Status()
		k.mu.Unlock()
		tell()
		if moved {
			k.moved(a.Want, s.Status())
		}
		var due <-chan time.Time
		if at, limited := s.Deadline(); limited {
			timer.Reset(time.Until(at))
			due = timer.C
		}
		select {
		case <-ctx.Done():
			k.giveUp(s, l, a.Want, context.Cause(ctx))
			return
		case <-replaced:
		case <-look.C:
		case <-due:
		case mac := <-l.claims():
			claimants = append(claimants, mac)
		case a = <-follow:
			s = s.Follow(a.Want)
		}
	}
}

// step takes a step and does what comes of it. What it gives beside the next State logs that, once the status says so.
func (k *Keeper) step(s owner.State, l link, seen owner.Sight) (next owner.State, tell func()) {
	next, a := owner.Step(s, seen, time.Now())
	if a.Release != "" || a.Bind > 0 {
		var err error
		if a.Release != "" {
			err = l.unbind()
		}
		if err == nil && a.Bind > 0 {
			err = l.bind(a.Bind)
		}
		var after owner.Actions
		if err != nil {
			next, after = next.Failed(a, err, time.Now())
			return next, func() { k.log(after) }
		}
		next, after = next.Done()
		a.Log = append(a.Log, after.Log...)
	}
	// Others hear of it first, then the operator.
	var sending error
	if a.Announce {
		sending = l.announce()
	}
	if a.Probe {
		sending = errors.Join(sending, l.probe())
	}
	return next, func() {
		k.log(a)
		if sending != nil {
			k.cfg.Logger.Warn("a virtual address can't be announced", "error", sending)
		}
	}
}

func (k *Keeper) log(a owner.Actions) {
	for _, m := range a.Log {
		k.cfg.Logger.Log(context.Background(), m.Level, m.Text)
	}
}

// giveUp takes an address away because nobody is to keep it here any more, or leaves it to a successor.
func (k *Keeper) giveUp(s owner.State, l link, w owner.Want, why error) {
	t := s.Status()
	if !t.Holds {
		return
	}
	log := k.cfg.Logger.With("cluster", w.Cluster, "address", w.Address.String(), "interface", t.Interface)
	if errors.Is(why, errStopped) && k.handedOver.Load() {
		log.Info("the virtual address is left to a successor", "until", t.Until)
		return
	}
	if err := l.unbind(); err != nil {
		log.Error(fmt.Sprintf("the virtual address can't be released, the kernel ends it: %v", why), "until", t.Until, "error", err)
		return
	}
	log.Info("the virtual address is released: " + why.Error())
	t.Holds, t.Why = false, why.Error()
	k.moved(w, t)
}

// moved tells who wants to know that an address has come or gone.
func (k *Keeper) moved(w owner.Want, s owner.Status) {
	if k.cfg.Moved != nil {
		k.cfg.Moved(w, s)
	}
}
