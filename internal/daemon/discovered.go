package daemon

import (
	"context"
	"fmt"
	"log/slog"
	"strings"
	"sync"

	"github.com/pgporter/pgporter/internal/config/diag"
	"github.com/pgporter/pgporter/internal/config/inventory"
	"github.com/pgporter/pgporter/internal/config/model"
	"github.com/pgporter/pgporter/internal/config/plan"
	"github.com/pgporter/pgporter/internal/monitor/discover"
)

// Discovered is a Source without an inventory: members come from Patroni, the services are the four default ones or a file's.
type Discovered struct {
	// Services is a file of services (inventory.ReadServices); empty for the default ones.
	Services string
	// Names has the cluster's names served.
	Names    bool
	follower *discover.Follower
	// declared is what Services said when it was last loaded.
	mu       sync.Mutex
	declared *inventory.Inventory
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
	var declared *inventory.Inventory
	var problems diag.Problems
	if d.Services != "" {
		if declared, problems = inventory.ReadServices(d.Services); declared == nil {
			return Loaded{}, problems
		}
		// What is wrong whoever the members are is said without asking them.
		if _, wrong := plan.ForDiscovered(declared, model.Cluster{}); problems.Err() != nil || wrong.Err() != nil {
			return Loaded{}, append(problems, wrong...)
		}
	}
	found, err := d.follower.Find(ctx)
	if err != nil {
		return Loaded{}, err
	}
	l, err := d.withServices(declared, found)
	if err != nil {
		return Loaded{}, err
	}
	for _, w := range problems.Warnings() {
		l.Warnings = append(l.Warnings, w.String())
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	d.declared = declared
	return l, nil
}

// Follow takes members as they come and go.
func (d *Discovered) Follow(ctx context.Context, changed func(Loaded, error)) error {
	return d.follower.Follow(ctx, func(found discover.Finding) { changed(d.withServices(d.last(), found)) })
}

// last is what the file of services said when it was last loaded; nil without one.
func (d *Discovered) last() *inventory.Inventory {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.declared
}

// withServices gives what was found the services that a file declares, or without one the default ones.
func (d *Discovered) withServices(declared *inventory.Inventory, found discover.Finding) (Loaded, error) {
	c := found.Cluster
	l := Loaded{}
	if declared != nil {
		var problems diag.Problems
		c, problems = plan.ForDiscovered(declared, c)
		if err := problems.Err(); err != nil {
			return Loaded{}, err
		}
		for _, w := range problems.Warnings() {
			l.Warnings = append(l.Warnings, w.String())
		}
	} else {
		l.Assumed = []string{
			fmt.Sprintf("the four default services of cluster %s, since no inventory was given", c.Name),
			"no member is set aside for offline queries: the offline service goes to the replicas",
		}
		c.Definitions = plan.DefaultServices()
		for i, one := range c.Definitions {
			c.Definitions[i].FullName = c.Name + "-" + one.Name
			if one.Dest.Kind == "" {
				c.Definitions[i].Dest = model.Dest{Kind: model.ToPgBouncer}
			}
		}
	}
	l.Plan = model.Plan{Clusters: []model.Cluster{c}}
	if d.Names {
		l.Plan.Names = []model.Naming{{Cluster: c.Name, Target: model.TargetPrimary}}
	}
	l.Assumed = append(l.Assumed, found.Assumed...)
	return l, nil
}
