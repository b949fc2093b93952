package daemon

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/pgporter/pgporter/internal/admin/api"
	"github.com/pgporter/pgporter/internal/config/safetext"
	"github.com/pgporter/pgporter/internal/monitor/view"
)

const (
	// holdLease is how long an operator's hold lasts at most unless he renews it: whoever is killed holds nobody for longer.
	holdLease = 10 * time.Second
	// holdMost is how long one lasts at most, however often it is renewed.
	holdMost = time.Minute
)

// errCannotHold refuses a hold on a node whose clients somebody else accepts.
var errCannotHold = errors.New("HAProxy accepts this node's clients, and it can't keep them waiting for a switchover")

// Hold has new clients of a cluster's leader wait, or lets them go. It is in force when it returns. o.By is who holds.
func (d *Daemon) Hold(_ context.Context, o api.HoldOrder) (api.Held, error) {
	o.By = cmp.Or(safetext.Line(o.By), "somebody who wasn't named")
	if err := soundHold(o); err != nil {
		return api.Held{}, err
	}
	if _, is := d.native(); !is {
		return api.Held{}, errCannotHold
	}
	// An upgrade takes along what was ordered before it began.
	d.ordering.Lock()
	defer d.ordering.Unlock()
	if d.handingOver {
		return api.Held{}, errHandingOver
	}
	d.mu.Lock()
	running := d.running[o.Cluster]
	d.mu.Unlock()
	if running == nil {
		return api.Held{}, unknown("cluster", o.Cluster, "clusters", d.order)
	}
	board, now := running.loop.Board(), time.Now()
	was := board.Held()
	if o.ForSeconds == 0 {
		if board.Release(o.ID, now) {
			d.noteHold(o, "clients are let go, who leads takes them")
		}
		return api.Held{Hold: d.holdShown(board.View()), Pools: d.poolsOf(o.Cluster)}, nil
	}
	h := view.Hold{ID: o.ID, From: o.From, To: o.To, By: o.By, Since: now, Until: now.Add(time.Duration(float64(o.ForSeconds) * float64(time.Second)))}
	if was.ID == o.ID {
		if last := was.Since.Add(holdMost); h.Until.After(last) {
			h.Until = last
		}
		if !now.Before(h.Until) {
			return api.Held{}, fmt.Errorf("clients have been held for %s, and no longer", holdMost)
		}
	}
	if standing, taken := board.Hold(h, now); !taken {
		return api.Held{}, fmt.Errorf("cluster %s is %s already", o.Cluster, standing.Words())
	}
	if was.ID != o.ID {
		d.noteHold(o, "new clients of its leader wait")
	}
	select {
	case d.holds <- struct{}{}:
	default:
	}
	return api.Held{Hold: d.holdShown(board.View()), Pools: d.poolsOf(o.Cluster)}, nil
}

// soundHold says what is wrong with an order as such.
func soundHold(o api.HoldOrder) error {
	switch {
	case o.Cluster == "":
		return errors.New("the order names no cluster")
	case o.ID == "" || len(o.ID) > 100 || safetext.Line(o.ID) != o.ID:
		return errors.New("the order has no id: a word that the switchover alone has")
	case !(o.ForSeconds >= 0 && o.ForSeconds <= api.Seconds(holdLease/time.Second)):
		return fmt.Errorf("a hold for %v seconds: %d at most, and it can be renewed", float64(o.ForSeconds), holdLease/time.Second)
	}
	return nil
}

func (d *Daemon) noteHold(o api.HoldOrder, text string) {
	d.note(api.Event{Kind: api.EventHold, Cluster: o.Cluster, Member: o.To, By: o.By, Text: text})
	d.log.Info(text, "cluster", o.Cluster, "from", o.From, "to", o.To, "by", o.By)
}

// endHolds ends operators' holds whose time is over, until ctx ends.
func (d *Daemon) endHolds(ctx context.Context) {
	timer := time.NewTimer(time.Hour)
	defer timer.Stop()
	for {
		next := time.Hour
		for name, board := range d.boards() {
			h := board.Held()
			if h.ID == "" {
				continue
			}
			if board.Release("", time.Now()) {
				d.noteHold(api.HoldOrder{Cluster: name, From: h.From, To: h.To, By: h.By}, "the hold wasn't renewed: clients are let go, who leads takes them")
				continue
			}
			next = min(next, time.Until(h.Until))
		}
		timer.Reset(max(next, time.Millisecond))
		select {
		case <-ctx.Done():
			return
		case <-d.holds:
		case <-timer.C:
		}
	}
}

// holdShown is a View's hold in the API's words; nil if there is none.
func (d *Daemon) holdShown(v *view.View) *api.Hold {
	h := v.Hold
	if h.ID == "" {
		return nil
	}
	return &api.Hold{ID: h.ID, From: h.From, To: h.To, By: h.By, Since: h.Since, Until: h.Until}
}
