package daemon

import (
	"context"
	"encoding/json"
	"time"

	"github.com/pgporter/pgporter/internal/admin/api"
	"github.com/pgporter/pgporter/internal/admin/history"
	"github.com/pgporter/pgporter/internal/monitor/view"
)

// Events are the newest ones with a higher ID than after, the oldest first.
func (d *Daemon) Events(after uint64) []api.Event { return d.history.After(after) }

// EventsChanged gives a channel that is closed at the next event. Who asks for it first and for the events then misses none.
func (d *Daemon) EventsChanged() <-chan struct{} { return d.history.Changed() }

// note keeps an event that happened just now.
func (d *Daemon) note(e api.Event) { d.history.Add(time.Now(), e) }

// follow notes what happens on a Board until ctx ends. Of Views that come faster than it looks it compares those that it sees.
func (d *Daemon) follow(ctx context.Context, board *view.Board) {
	var last *view.View
	for {
		v, replaced := board.Watch()
		d.history.Add(time.Now(), history.Between(last, v)...)
		last = v
		select {
		case <-ctx.Done():
			return
		case <-replaced:
		}
	}
}

// restoreEvents has the timeline go on from that of the process before. What can't be read is no reason not to take over.
func (d *Daemon) restoreEvents(i *Inherited) {
	if i == nil || len(i.events) == 0 {
		return
	}
	var events []api.Event
	if err := json.Unmarshal(i.events, &events); err != nil {
		d.log.Warn("the events of the process before can't be read", "error", err)
		return
	}
	d.history.Restore(events)
}

// words are who sent something and from where, for the timeline.
func (s Sent) words() string { return s.Sender + " at " + s.From }
