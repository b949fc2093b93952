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

// standingOrders are the orders that stand, for the next process; empty if there is none.
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
	}
	if len(all) == 0 {
		return nil, nil
	}
	return json.Marshal(all)
}

// readStanding reads what standingOrders made, in this release or another one.
func readStanding(text []byte) (map[string]map[view.ServerID]view.Order, error) {
	if len(text) == 0 {
		return nil, nil
	}
	var all []handedOrder
	if err := json.Unmarshal(text, &all); err != nil {
		return nil, fmt.Errorf("the operators' orders that stood: %w", err)
	}
	orders := map[string]map[view.ServerID]view.Order{}
	for _, h := range all {
		s, known := view.StateOf(h.State)
		if !known || h.Weight != nil && (*h.Weight < 0 || *h.Weight > 256) {
			continue
		}
		o := view.Order{State: s, By: safetext.Line(h.By), Since: h.Since}
		if h.Weight != nil {
			o.Weighed, o.Weight = true, *h.Weight
		}
		if orders[h.Cluster] == nil {
			orders[h.Cluster] = map[view.ServerID]view.Order{}
		}
		orders[h.Cluster][view.ServerID{Service: h.Service, Member: h.Member}] = o
	}
	return orders, nil
}

// ordersFor are the orders that stood on a cluster's Board in the process before. They are for the first configuration: what a cluster
// had that was dropped and declared anew is forgotten.
func (i *Inherited) ordersFor(cluster string) map[view.ServerID]view.Order {
	if i == nil || i.taken {
		return nil
	}
	return i.orders[cluster]
}

// holdOrders says whether the next process has heard all orders, so that none is taken.
func (d *Daemon) holdOrders(over bool) {
	d.ordering.Lock()
	defer d.ordering.Unlock()
	d.handingOver = over
}
