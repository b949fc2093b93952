package daemon

import (
	"context"
	"fmt"
	"time"

	"github.com/pgporter/pgporter/internal/access/vip"
	"github.com/pgporter/pgporter/internal/access/vip/owner"
	"github.com/pgporter/pgporter/internal/admin/api"
	"github.com/pgporter/pgporter/internal/engine"
)

// virtual is the Part that keeps virtual addresses.
type virtual struct {
	*vip.Keeper
	// keyed says that leader keys are watched in etcd.
	keyed bool
	// carried is closed when the engine has ended: sessions that come by an address end with it, so it stays until then.
	carried <-chan struct{}
	none    func()
}

// Prepare can't fail: what keeps an address from its interface is reported, and everything else goes on.
func (v virtual) Prepare(_ context.Context, o engine.Offer) (Change, error) {
	var addresses []vip.Address
	for _, c := range o.Clusters {
		if c.VIP == nil {
			continue
		}
		want := owner.Want{VirtualIP: *c.VIP, Cluster: c.Name, TTL: time.Duration(c.TTL) * time.Second, Keyed: v.keyed}
		addresses = append(addresses, vip.Address{Want: want, Board: c.Board})
	}
	return Change{Publish: func() {
		if len(addresses) == 0 {
			v.none()
		}
		v.Keep(addresses)
	}}, nil
}

// Run keeps the addresses until the engine has ended after ctx has.
func (v virtual) Run(ctx context.Context) error {
	own, stop := context.WithCancel(context.WithoutCancel(ctx))
	defer stop()
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		<-ctx.Done()
		<-v.carried
		stop()
	}()
	err := v.Keeper.Run(own)
	<-ended
	return err
}

// keepVirtual makes the Part that keeps virtual addresses, if they are to be kept. carried is closed when the engine has ended.
func (d *Daemon) keepVirtual(carried <-chan struct{}) {
	if d.cfg.VIP == nil {
		return
	}
	cfg := *d.cfg.VIP
	cfg.Logger = d.log
	cfg.Moved = func(w owner.Want, s owner.Status) {
		where := "this node has the virtual address %s: %s"
		if !s.Holds {
			where = "this node hasn't the virtual address %s any more: %s"
		}
		d.note(api.Event{Kind: api.EventVIP, Cluster: w.Cluster, Text: fmt.Sprintf(where, w.Address, s.Why)})
	}
	d.vips = vip.New(cfg)
	none := func() { d.log.Warn("this node has no virtual address to keep: pg_vip_enabled isn't set for it") }
	d.cfg.Parts = append(d.cfg.Parts[:len(d.cfg.Parts):len(d.cfg.Parts)], virtual{d.vips, d.cfg.LeaderKeys != nil, carried, none})
}

// virtualStatus tells of the virtual addresses, by cluster; nil where none is kept.
func (d *Daemon) virtualStatus() map[string]*api.VirtualIP {
	if d.vips == nil {
		return nil
	}
	all := map[string]*api.VirtualIP{}
	for name, s := range d.vips.Status() {
		shown := &api.VirtualIP{Interface: s.Interface, Here: s.Holds, Why: s.Why, Problem: s.Problem}
		if s.Holds {
			shown.Since, shown.Until = &s.Since, &s.Until
		}
		for _, mac := range s.Others {
			shown.Others = append(shown.Others, mac.String())
		}
		all[name] = shown
	}
	return all
}
