package view

import (
	"maps"
	"sync"
	"sync/atomic"
	"time"
)

// Board holds a cluster's current View. The zero Board is not ready: use NewBoard.
//
// What readers see is the View that the cluster's loop published last with the orders of operators applied to it. The two never meet
// elsewhere: the loop decides by checks alone and doesn't see orders, and orders change nothing that a check said.
type Board struct {
	current atomic.Pointer[posting]

	// mu serialises those who publish: the loop, and whoever gives orders. Readers don't take it.
	mu sync.Mutex
	// checked is what the loop published last, orders what was ordered, and hold the operator's. Invariant: current is
	// hold.held(orders.apply(checked)), with a Version and a time of its own.
	checked *View
	orders  orders
	hold    Hold
	// turns are those of its services as of current.
	turns map[string]Turns
	// reposted is how often an order alone had something published: published Versions are the loop's and that.
	reposted uint64
}

// posting is a View and the notice that it has been replaced.
type posting struct {
	view     *View
	replaced chan struct{}
}

// NewBoard makes a Board that shows v.
func NewBoard(v *View) *Board {
	b := &Board{checked: v}
	b.note(v)
	b.current.Store(&posting{view: v, replaced: make(chan struct{})})
	return b
}

// View gives the current View.
func (b *Board) View() *View { return b.current.Load().view }

// Watch gives the current View and a channel that is closed once another one has replaced it.
func (b *Board) Watch() (*View, <-chan struct{}) {
	p := b.current.Load()
	return p.view, p.replaced
}

// Publish makes v, with the orders that there are, the current View and wakes those who watch. Only the cluster's loop calls it. Orders
// for servers that v doesn't declare any more are forgotten.
func (b *Board) Publish(v *View) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.checked, b.orders = v, b.orders.kept(v)
	b.post(v.At)
}

// post shows what there is. b.mu is held.
func (b *Board) post(at time.Time) *View {
	v := b.hold.held(b.orders.apply(b.checked))
	if v == b.checked && b.reposted > 0 {
		own := *v
		v = &own
	}
	if v != b.checked {
		v.Version, v.At = b.checked.Version+b.reposted, at
	}
	b.note(v)
	old := b.current.Swap(&posting{view: v, replaced: make(chan struct{})})
	close(old.replaced)
	return v
}

// Order has a command hold for servers, and gives the Views before and after it. It is in force when it returns: who picks a server from
// then on picks by it, and sessions that it ends are those of an epoch that is over. A server that isn't one of its service's now, though
// its member is declared, has the order when it becomes one.
func (b *Board) Order(c Command, servers []ServerID) (before, after *View) {
	b.mu.Lock()
	defer b.mu.Unlock()
	before = b.View()
	next := b.orders.with(b.checked, c, servers).kept(b.checked)
	if maps.Equal(next, b.orders) {
		return before, before
	}
	b.orders = next
	b.reposted++
	return before, b.post(c.At)
}

// Try gives what Order would, and changes nothing.
func (b *Board) Try(c Command, servers []ServerID) (before, after *View) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.View(), b.hold.held(b.orders.with(b.checked, c, servers).kept(b.checked).apply(b.checked))
}

// Orders are those that hold, those for servers among them that are none of their service's now.
func (b *Board) Orders() map[ServerID]Order {
	b.mu.Lock()
	defer b.mu.Unlock()
	all := map[ServerID]Order{}
	for id, given := range b.orders {
		if given.Order != (Order{}) {
			all[id] = given.Order
		}
	}
	return all
}

// Restore has orders hold that were given on another Board of the same cluster, in the process before this one. No session ends by it:
// what they ended is over. Those for servers that the next View doesn't declare are forgotten with it.
func (b *Board) Restore(given map[ServerID]Order) {
	if len(given) == 0 {
		return
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	next := maps.Clone(b.orders)
	if next == nil {
		next = orders{}
	}
	for id, o := range given {
		s := next[id]
		s.Order = o
		next[id] = s
	}
	b.orders = next
	b.reposted++
	b.post(b.checked.At)
}
