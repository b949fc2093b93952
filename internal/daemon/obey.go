package daemon

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"

	"github.com/pgporter/pgporter/internal/admin/api"
	"github.com/pgporter/pgporter/internal/config/safetext"
	"github.com/pgporter/pgporter/internal/monitor/etcd"
)

// obedient has orders to hold a cluster that are written into etcd carried out as those are that come by the control address. The key is
// told again as long as it is there and etcd answers, which renews the hold; where etcd is lost that lapses as any other.
//
// It is called by the watcher of the cluster's keys, one call at a time.
type obedient struct {
	daemon  *Daemon
	cluster string
	// id is that of the order that was carried out last and whose key is there; empty if there is none.
	id string
	// said is what was logged last, so that it is logged once.
	said string
}

// mostOrder is how long an order may be, in bytes.
const mostOrder = 4 << 10

func (o *obedient) take(ctx context.Context, told etcd.Order) {
	o.daemon.mu.Lock()
	o.daemon.unordered[o.cluster] = told.Problem
	o.daemon.mu.Unlock()
	if told.Problem != "" {
		o.say("orders to hold can't be read from etcd", told.Problem)
		return
	}
	order, err := o.read(told.Value)
	if o.id != "" && o.id != order.ID {
		// The key of the order before is gone. That its hold may be over already is no matter.
		if _, err := o.daemon.Hold(ctx, api.HoldOrder{Cluster: o.cluster, ID: o.id, By: byEtcd("")}); errors.Is(err, errHandingOver) {
			return
		}
		o.id = ""
	}
	if err == nil && order.ID != "" {
		o.id = order.ID
		_, err = o.daemon.Hold(ctx, order)
	}
	switch {
	case err == nil:
		o.said = ""
	case !errors.Is(err, errHandingOver):
		o.say("an order to hold in etcd isn't carried out", err.Error())
	}
}

// read gives the order that a key's value is; the zero one if there is no key.
func (o *obedient) read(value []byte) (api.HoldOrder, error) {
	if len(value) == 0 {
		return api.HoldOrder{}, nil
	}
	if len(value) > mostOrder {
		return api.HoldOrder{}, fmt.Errorf("it has %d bytes, and %d are room enough", len(value), mostOrder)
	}
	var order api.HoldOrder
	if err := json.Unmarshal(value, &order); err != nil {
		return api.HoldOrder{}, fmt.Errorf("it is no order: %w", err)
	}
	order.By = byEtcd(order.By)
	switch {
	case order.Cluster != o.cluster:
		return api.HoldOrder{}, fmt.Errorf("it is for cluster %q", safetext.Line(order.Cluster))
	case order.ForSeconds == 0:
		// Who is to be let go has the key taken away.
		return api.HoldOrder{}, errors.New("it is for 0 seconds")
	}
	return order, soundHold(order)
}

// byEtcd is who orders by way of etcd.
func byEtcd(by string) string {
	if by == "" {
		return "etcd"
	}
	return by + " by way of etcd"
}

func (o *obedient) say(what, why string) {
	if o.said != why {
		o.said = why
		o.daemon.log.Info(what, "cluster", o.cluster, "why", why)
	}
}
