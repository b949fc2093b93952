package daemon

import (
	"context"
	"log/slog"
	"strings"

	"github.com/pgporter/pgporter/internal/config/model"
	"github.com/pgporter/pgporter/internal/config/plan"
	"github.com/pgporter/pgporter/internal/monitor/discover"
)

// Discovered is a Source without an inventory: members come from Patroni, the services are the four default ones.
type Discovered struct {
	// Names has the cluster's names served.
	Names    bool
	follower *discover.Follower
}

// NewDiscovered makes a Source that begins with these addresses of Patroni's REST API.
func NewDiscovered(seeds []string, log *slog.Logger) (*Discovered, error) {
	follower, err := discover.New(seeds, log)
	if err != nil {
		return nil, err
	}
	return &Discovered{follower: follower}, nil
}

// Name lists the addresses it began with.
func (d *Discovered) Name() string { return strings.Join(d.follower.Seeds(), ",") }

// Load asks who the members are.
func (d *Discovered) Load(ctx context.Context) (Loaded, error) {
	found, err := d.follower.Find(ctx)
	if err != nil {
		return Loaded{}, err
	}
	return d.withDefaultServices(found), nil
}

// Follow takes members as they come and go.
func (d *Discovered) Follow(ctx context.Context, changed func(Loaded, error)) error {
	return d.follower.Follow(ctx, func(found discover.Finding) { changed(d.withDefaultServices(found), nil) })
}

func (d *Discovered) withDefaultServices(found discover.Finding) Loaded {
	c := found.Cluster
	c.Definitions = plan.DefaultServices()
	for i, one := range c.Definitions {
		c.Definitions[i].FullName = c.Name + "-" + one.Name
		if one.Dest.Kind == "" {
			c.Definitions[i].Dest = model.Dest{Kind: model.ToPgBouncer}
		}
	}
	p := model.Plan{Clusters: []model.Cluster{c}}
	if d.Names {
		p.Names = []model.Naming{{Cluster: c.Name, Target: model.TargetPrimary}}
	}
	return Loaded{Plan: p, Assumed: found.Assumed}
}
