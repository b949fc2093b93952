package view

import "sync/atomic"

// Board holds a cluster's current View. The zero Board is not ready: use NewBoard.
type Board struct {
	current atomic.Pointer[posting]
}

// posting is a View and the notice that it has been replaced.
type posting struct {
	view     *View
	replaced chan struct{}
}

// NewBoard makes a Board that shows v.
func NewBoard(v *View) *Board {
	b := &Board{}
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

// Publish makes v the current View and wakes those who watch. Only the cluster's loop calls it.
func (b *Board) Publish(v *View) {
	old := b.current.Swap(&posting{view: v, replaced: make(chan struct{})})
	close(old.replaced)
}
