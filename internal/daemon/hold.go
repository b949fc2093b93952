package daemon

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/pgporter/pgporter/internal/admin/api"
	"github.com/pgporter/pgporter/internal/config/safetext"
	"github.com/pgporter/pgporter/internal/engine"
	"github.com/pgporter/pgporter/internal/monitor/view"
)

const (
	// holdLease is how long an operator's hold lasts at most unless he renews it: whoever is killed holds nobody for longer.
	holdLease = 10 * time.Second
	// holdMost is how long one lasts at most, however often it is renewed.
	holdMost = time.Minute
	// holdSilent is how long one lasts that isn't renewed, at most, once another member leads. Whoever lives renews it each second.
	holdSilent = 2 * time.Second
)

// errCannotHold refuses a hold on a node whose clients somebody else accepts.
var errCannotHold = errors.New("HAProxy accepts this node's clients, and it can't keep them waiting for a switchover")

// errHoldOver refuses to begin a hold once more that was ended: whoever renews it hasn't heard of that yet.
var errHoldOver = errors.New("that hold was ended")

// lastHold is the one that a cluster had last: since when, and whether somebody ended it.
type lastHold struct {
	id    string
	since time.Time
	ended bool
}

// Hold has new clients of a cluster's leader wait, or lets them go. It is in force when it returns. o.By is who holds.
func (d *Daemon) Hold(ctx context.Context, o api.HoldOrder) (api.Held, error) {
	o.By = cmp.Or(safetext.Line(o.By), "somebody who wasn't named")
	if err := soundHold(o); err != nil {
		return api.Held{}, err
	}
	if !d.canHold() {
		return api.Held{}, errCannotHold
	}
	// An upgrade takes along what was ordered before it began.
	d.ordering.Lock()
	defer d.ordering.Unlock()
	if d.handingOver {
		return api.Held{}, errHandingOver
	}
	d.mu.Lock()
	running, known := d.running[o.Cluster], slices.Clone(d.order)
	d.mu.Unlock()
	if running == nil {
		return api.Held{}, unknown("cluster", o.Cluster, "clusters", known)
	}
	board, now := running.loop.Board(), time.Now()
	was := board.Held()
	if o.ForSeconds == 0 {
		if last := d.lastHolds[o.Cluster]; last.id == o.ID {
			last.ended = true
			d.lastHolds[o.Cluster] = last
		}
		if board.Release(o.ID, now) {
			// Whoever lets go has seen it lead.
			if o.To != "" {
				running.loop.Recheck(o.To)
			}
			d.noteHold(o, "clients are let go, who leads takes them")
		}
		return d.held(ctx, o.Cluster, board), nil
	}
	h := view.Hold{ID: o.ID, From: o.From, To: o.To, By: o.By, Since: now, Until: now.Add(o.ForSeconds.Duration())}
	if last := d.lastHolds[o.Cluster]; last.id == o.ID {
		if last.ended {
			return api.Held{}, errHoldOver
		}
		h.Since = last.since
	}
	if end := h.Since.Add(holdMost); h.Until.After(end) {
		h.Until = end
	}
	if !now.Before(h.Until) {
		return api.Held{}, fmt.Errorf("clients have been held for %s, and no longer", holdMost)
	}
	if standing, taken := board.Hold(h, now); !taken {
		return api.Held{}, fmt.Errorf("cluster %s is %s already", o.Cluster, standing.Words())
	}
	select {
	case d.holds <- struct{}{}:
	default:
	}
	held := d.held(ctx, o.Cluster, board)
	if was.ID != o.ID {
		d.lastHolds[o.Cluster] = lastHold{id: o.ID, since: h.Since}
		d.noteHold(o, "new clients of its leader wait")
		held.Sessions = d.ledTo(board.View(), now)
	}
	return held, nil
}

// ledTo are the sessions with a cluster's leader, with the age of the youngest; nil if there are too many to look at.
func (d *Daemon) ledTo(v *view.View, now time.Time) *api.HeldSessions {
	n, is := d.native()
	if !is {
		return nil
	}
	open, more, err := n.Engine.Sessions(engine.SessionFilter{Cluster: v.Cluster, Limit: shownSessions})
	if err != nil || more > 0 {
		return nil
	}
	led := &api.HeldSessions{}
	for _, s := range open {
		svc := v.Service(s.Service)
		if svc == nil || !svc.Leads {
			continue
		}
		age := api.Seconds(max(now.Sub(s.Began), 0).Seconds())
		if led.Count == 0 || age < led.NewestSeconds {
			led.NewestSeconds = age
		}
		led.Count++
	}
	return led
}

// canHold says that clients can be kept waiting here: this process accepts them.
func (d *Daemon) canHold() bool { return d.cfg.HAProxy == nil && d.cfg.Shadow == nil }

// held is what is said to an order.
func (d *Daemon) held(ctx context.Context, cluster string, board *view.Board) api.Held {
	return api.Held{Hold: holdShown(board.View(), trafficOf(d.engine.Traffic(ctx))), Pools: d.poolsOf(cluster)}
}

// soundHold says what is wrong with an order as such.
func soundHold(o api.HoldOrder) error {
	switch {
	case o.Cluster == "":
		return errors.New("the order names no cluster")
	case o.ID == "" || len(o.ID) > 100 || safetext.Line(o.ID) != o.ID:
		return errors.New("the order has no id: a word that the switchover alone has")
	case view.Hold{ID: o.ID}.ByKey():
		return fmt.Errorf("the order's id is %s, which is that of a hold by Patroni's failover key", o.ID)
	case !(o.ForSeconds >= 0 && o.ForSeconds <= api.Seconds(holdLease/time.Second)):
		return fmt.Errorf("a hold for %v seconds: %d at most, and it can be renewed", float64(o.ForSeconds), holdLease/time.Second)
	}
	return nil
}

func (d *Daemon) noteHold(o api.HoldOrder, text string) {
	d.note(api.Event{Kind: api.EventHold, Cluster: o.Cluster, Member: o.To, By: o.By, Text: text})
	d.log.Info(text, "cluster", o.Cluster, "from", o.From, "to", o.To, "by", o.By)
}

// succeeded is that another member leads than the one whose clients are held: seen first at since, of a hold until then.
type succeeded struct{ until, since time.Time }

// endHolds ends operators' holds whose time is over, until ctx ends; and those that nobody has renewed for a while though another member
// leads: whoever ordered them would have let go.
func (d *Daemon) endHolds(ctx context.Context) {
	timer := time.NewTimer(time.Hour)
	defer timer.Stop()
	next := map[string]succeeded{}
	for {
		wait := time.Hour
		for name, board := range d.boards() {
			h, now := board.Held(), time.Now()
			if h.ID == "" || !leadsInstead(board.View(), h.From) {
				delete(next, name)
			} else if !next[name].until.Equal(h.Until) {
				next[name] = succeeded{h.Until, now}
			}
			if h.ID == "" {
				continue
			}
			silent := !next[name].since.IsZero() && now.Sub(next[name].since) >= holdSilent
			if board.Release("", now) || silent && board.Release(h.ID, now) {
				d.noteHold(api.HoldOrder{Cluster: name, From: h.From, To: h.To, By: h.By}, "the hold wasn't renewed: clients are let go, who leads takes them")
				continue
			}
			wait = min(wait, h.Until.Sub(now), holdSilent/4)
		}
		timer.Reset(max(wait, time.Millisecond))
		select {
		case <-ctx.Done():
			return
		case <-d.holds:
		case <-timer.C:
		}
	}
}

// leadsInstead says that another member leads by its own word than from; false if that is empty.
func leadsInstead(v *view.View, from string) bool {
	return from != "" && slices.ContainsFunc(view.Leaders(v.Services), func(name string) bool { return name != from })
}

// holdShown is a View's hold in the API's words, with the clients that wait for its leader; nil if there is none.
func holdShown(v *view.View, carried traffic) *api.Hold {
	h := v.Hold
	if h.ID == "" {
		return nil
	}
	shown := &api.Hold{ID: h.ID, From: h.From, To: h.To, By: h.By, Since: h.Since, Until: h.Until}
	for i := range v.Services {
		if v.Services[i].Leads {
			shown.Waiting += carried.service(v.Services[i].FullName).Queued
		}
	}
	return shown
}
