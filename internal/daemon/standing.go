package daemon

import (
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/pgporter/pgporter/internal/config/safetext"
	"github.com/pgporter/pgporter/internal/monitor/view"
)

// handedOrder is an operator's order as one process gives it to the next. Other releases read it: fields are added, never renamed, and an
// order whose State they don't know is left out by them.
type handedOrder struct {
	// Cluster is empty for a service that belongs to none.
	Cluster string    `json:"cluster,omitempty"`
	Service string    `json:"service"`
	Member  string    `json:"member"`
	State   string    `json:"state"`
	Weight  *int      `json:"weight,omitempty"`
	By      string    `json:"by"`
	Since   time.Time `json:"since"`
	// ID, From, To and Until are those of a hold (view.Hold), whose State is handedHold and which has neither service nor member.
	ID    string    `json:"id,omitempty"`
	From  string    `json:"from,omitempty"`
	To    string    `json:"to,omitempty"`
	Until time.Time `json:"until,omitzero"`
}

// handedHold is the State of an operator's hold among the orders.
const handedHold = "held"

// standing is what operators have ordered that stands: orders and holds, by clusters.
type standing struct {
	orders map[string]map[view.ServerID]view.Order
	holds  map[string]view.Hold
}

// boards are those that there may be orders on, by clusters; the one of TCP services has no name.
func (d *Daemon) boards() map[string]*view.Board {
	d.mu.Lock()
	defer d.mu.Unlock()
	all := map[string]*view.Board{}
	for name, r := range d.running {
		all[name] = r.loop.Board()
	}
	if d.tcpcheck != nil {
		all[""] = d.tcpcheck.Board()
	}
	return all
}

// standingOrders are the orders and holds that stand, for the next process; empty if there is none.
func (d *Daemon) standingOrders() ([]byte, error) {
	boards := d.boards()
	var all []handedOrder
	for _, name := range slices.Sorted(maps.Keys(boards)) {
		for id, o := range boards[name].Orders() {
			h := handedOrder{Cluster: name, Service: id.Service, Member: id.Member, State: o.State.String(), By: o.By, Since: o.Since}
			if o.Weighed {
				h.Weight = &o.Weight
			}
			all = append(all, h)
		}
		if h := boards[name].Held(); h.ID != "" {
			all = append(all, handedOrder{Cluster: name, State: handedHold, ID: h.ID, From: h.From, To: h.To, By: h.By, Since: h.Since, Until: h.Until})
		}
	}
	if len(all) == 0 {
		return nil, nil
	}
	return json.Marshal(all)
}

// readStanding reads what standingOrders made, in this release or another one.
func readStanding(text []byte) (standing, error) {
	s := standing{map[string]map[view.ServerID]view.Order{}, map[string]view.Hold{}}
	if len(text) == 0 {
		return s, nil
	}
	var all []handedOrder
	if err := json.Unmarshal(text, &all); err != nil {
		return s, fmt.Errorf("the operators' orders that stood: %w", err)
	}
	for _, h := range all {
		if h.State == handedHold {
			s.holds[h.Cluster] = view.Hold{ID: h.ID, From: h.From, To: h.To, By: safetext.Line(h.By), Since: h.Since, Until: h.Until}
			continue
		}
		state, known := view.StateOf(h.State)
		if !known || h.Weight != nil && (*h.Weight < 0 || *h.Weight > 256) {
			continue
		}
		o := view.Order{State: state, By: safetext.Line(h.By), Since: h.Since}
		if h.Weight != nil {
			o.Weighed, o.Weight = true, *h.Weight
		}
		if s.orders[h.Cluster] == nil {
			s.orders[h.Cluster] = map[view.ServerID]view.Order{}
		}
		s.orders[h.Cluster][view.ServerID{Service: h.Service, Member: h.Member}] = o
	}
	return s, nil
}

// ordersFor are the orders that stood on a cluster's Board in the process before. They are for the first configuration: what a cluster
// had that was dropped and declared anew is forgotten.
func (i *Inherited) ordersFor(cluster string) map[view.ServerID]view.Order {
	if i == nil || i.taken {
		return nil
	}
	return i.stood.orders[cluster]
}

// restoreHold has the hold go on that stood on a cluster's Board in the process before, for as long as that had it last: whoever ordered
// it renews it here. One that is longer than any lease isn't believed.
func (d *Daemon) restoreHold(cluster string, board *view.Board) {
	i, now := d.cfg.Inherited, time.Now()
	if i == nil || i.taken || !d.canHold() {
		return
	}
	h := i.stood.holds[cluster]
	if h.ID == "" || !now.Before(h.Until) {
		return
	}
	if most := now.Add(holdLease); h.Until.After(most) {
		h.Until = most
	}
	board.Hold(h, now)
	d.ordering.Lock()
	d.lastHolds[cluster] = lastHold{id: h.ID, since: h.Since}
	d.ordering.Unlock()
}

// holdOrders says whether the next process has heard all orders, so that none is taken.
func (d *Daemon) holdOrders(over bool) {
	d.ordering.Lock()
	defer d.ordering.Unlock()
	d.handingOver = over
}
