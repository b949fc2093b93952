// Package history is what has happened: the newest events of a process, for its timeline.
//
// A History is a ring of api.Events that numbers them and wakes those who wait for the next one. What is worth telling of a cluster
// follows from two Views of its Board, one after the other (Between, pure): who went up or down and why, who leads, which service lost its
// last server. What else happens (orders, configurations, an upgrade) is added by who does it.
//
// Left out: how often something happened (metrics), and every line of the log.
package history

import (
	"cmp"
	"slices"
	"sync"
	"time"

	"github.com/pgporter/pgporter/internal/admin/api"
	"github.com/pgporter/pgporter/internal/config/safetext"
)

// Most is how many events are kept.
const Most = 2000

// longestText bounds an event's sentence, in bytes.
const longestText = 600

// History holds the newest events. The zero History is empty and ready to use.
type History struct {
	mu sync.Mutex
	// events are the newest ones, the oldest first. Their IDs rise by one.
	events []api.Event
	// last is the ID that was given last.
	last uint64
	// added is closed when there is another one, and made when somebody asks for it.
	added chan struct{}
}

// Add keeps events that happened now, or at their own time where they have one.
func (h *History) Add(now time.Time, events ...api.Event) {
	if len(events) == 0 {
		return
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, e := range events {
		h.last++
		e.ID, e.Text, e.By = h.last, safetext.Short(e.Text, longestText), safetext.Line(e.By)
		if e.At.IsZero() {
			e.At = now
		}
		h.events = append(h.events, e)
	}
	h.forget()
	if h.added != nil {
		close(h.added)
		h.added = nil
	}
}

// forget drops the oldest. A quarter more than are told are kept, so that they aren't moved each time. h.mu is held.
func (h *History) forget() {
	if over := len(h.events) - Most; over > Most/4 {
		h.events = slices.Clone(h.events[over:])
	}
}

// After gives the events with a higher ID than after, the oldest first, the newest Most of them. An ID that no event has had yet is of
// another process: everything is new then.
func (h *History) After(after uint64) []api.Event {
	h.mu.Lock()
	defer h.mu.Unlock()
	if after > h.last {
		after = 0
	}
	events := h.events[max(0, len(h.events)-Most):]
	at, _ := slices.BinarySearchFunc(events, after+1, func(e api.Event, id uint64) int { return cmp.Compare(e.ID, id) })
	return slices.Clone(events[at:])
}

// Changed gives a channel that is closed when there is another event. Who has asked for it and then for the events misses none.
func (h *History) Changed() <-chan struct{} {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.added == nil {
		h.added = make(chan struct{})
	}
	return h.added
}

// Restore puts what another process has had before everything else, and has IDs go on from there.
func (h *History) Restore(events []api.Event) {
	h.mu.Lock()
	defer h.mu.Unlock()
	own := h.events
	h.events, h.last = nil, 0
	for _, e := range events {
		if e.ID <= h.last {
			continue
		}
		h.last = e.ID
		h.events = append(h.events, e)
	}
	for _, e := range own {
		h.last++
		e.ID = h.last
		h.events = append(h.events, e)
	}
	h.forget()
}
