package daemon

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"reflect"
	"slices"
	"strings"
	"time"

	"github.com/fsnotify/fsnotify"

	"github.com/pgporter/pgporter/internal/config/diag"
	"github.com/pgporter/pgporter/internal/config/inventory"
	"github.com/pgporter/pgporter/internal/config/model"
	"github.com/pgporter/pgporter/internal/config/plan"
	"github.com/pgporter/pgporter/internal/config/resolve"
)

// settle is how long a watched file must have been left alone before it is read: editors write in several steps.
const settle = 300 * time.Millisecond

// InventoryFile is a Source that reads one node's part of an inventory.
type InventoryFile struct {
	Path string
	// Given is what came on standard input, instead of a file at Path. It can be loaded once.
	Given []byte
	// Node is the inventory host to serve as. Empty is the one that is an address of this machine; Local are those.
	Node  string
	Local []string
	// Watch takes edits without being asked, unless they remove a service or leave one without servers.
	Watch bool
	// HAProxy says that HAProxy carries the services: it knows options that the native engine hasn't, and needs a Base.
	HAProxy bool
	// Etcd says that the leader keys are watched: what the inventory says of etcd is read, too.
	Etcd   bool
	Logger *slog.Logger
	// Assumed is passed on to what was loaded.
	Assumed []string
	// Names has the clusters' names served, all of the inventory's.
	Names bool
	// loaded says that Given has been.
	loaded bool
}

// Name is the file's path.
func (f *InventoryFile) Name() string { return f.Path }

// Inventory reads the inventory itself.
func (f *InventoryFile) Inventory() (*inventory.Inventory, diag.Problems) {
	if f.Given != nil {
		return inventory.Parse(f.Path, f.Given)
	}
	return inventory.Read(f.Path)
}

// Load reads the file.
func (f *InventoryFile) Load(context.Context) (Loaded, error) {
	if f.Given != nil {
		if f.loaded {
			return Loaded{}, errors.New("the inventory came on standard input, which can't be read again: only one in a file can be reloaded")
		}
		f.loaded = true
	}
	node := f.Node
	if node == "" {
		var err error
		if node, err = f.LocalNode(f.Local); err != nil {
			return Loaded{}, err
		}
	}
	inv, problems := f.Inventory()
	if inv == nil {
		return Loaded{}, problems
	}
	if problems = plan.Refused(inv, problems, f.HAProxy); problems.Err() != nil {
		return Loaded{}, problems
	}
	n, found := plan.ForRun(inv, node, plan.Needs{HAProxy: f.HAProxy, Names: f.Names, Etcd: f.Etcd, Passwords: true})
	problems = append(problems, found...)
	if err := problems.Err(); err != nil {
		return Loaded{}, err
	}
	l := Loaded{Plan: n.Plan, Base: n.Base, Page: n.Page, Etcd: n.Etcd, Digest: inv.Digest()}
	if f.Given == nil {
		l.Secrets = inv.Secrets()
	}
	l.Assumed = f.Assumed
	for _, w := range problems.Warnings() {
		l.Warnings = append(l.Warnings, w.String())
	}
	return l, nil
}

// Digest is that of the inventory as it is now; empty if it can't be read.
func (f *InventoryFile) Digest() string {
	inv, _ := f.Inventory()
	if inv == nil {
		return ""
	}
	return inv.Digest()
}

// Fits says why a plan for a node isn't for this one.
func (f *InventoryFile) Fits(node string) error { return fits(node, f.Node, f.Local) }

// Follow reads the file again after each edit, if Watch is set.
func (f *InventoryFile) Follow(ctx context.Context, changed func(Loaded, error)) error {
	if !f.Watch {
		return nil
	}
	dirs := func() []string { return inventory.Directories(f.Path) }
	concerns := func(path string) bool { return inventory.Concerns(f.Path, path) }
	return follow(ctx, f, f.Logger, dirs, concerns, changed)
}

// follow has a Source load again after each edit of what concerns it in these directories, until ctx ends.
func follow(ctx context.Context, source Source, log *slog.Logger, dirs func() []string, concerns func(path string) bool, changed func(Loaded, error)) error {
	watcher, err := fsnotify.NewWatcher()
	if err != nil {
		return fmt.Errorf("watching %s: %w", source.Name(), err)
	}
	defer watcher.Close()
	// Directories are watched, not files: an editor that replaces the file leaves a watch on the old one. One that is there
	// already is watched on.
	watch := func() error {
		for _, dir := range dirs() {
			if err := watcher.Add(dir); err != nil {
				return fmt.Errorf("watching %s: %w", dir, err)
			}
		}
		return nil
	}
	if err := watch(); err != nil {
		return err
	}
	// The first look is for an edit between Load and the watch.
	edited := time.NewTimer(settle)
	for {
		select {
		case <-ctx.Done():
			return nil
		case event := <-watcher.Events:
			if concerns(event.Name) && !event.Has(fsnotify.Chmod) {
				edited.Reset(settle)
			}
		case err := <-watcher.Errors:
			log.Warn("watching the configuration", "error", err)
		case <-edited.C:
			if err := watch(); err != nil {
				log.Warn("watching the configuration", "error", err)
			}
			next, err := source.Load(ctx)
			next.Unattended = true
			changed(next, err)
		}
	}
}

// unchanged tells whether a plan is the one that runs.
func unchanged(before, next model.Plan) bool {
	return same(before.Clusters, next.Clusters) && same(before.TCPServices, next.TCPServices) && same(before.Names, next.Names) && same(before.Elsewhere, next.Elsewhere)
}

// same tells whether two lists hold the same; none is as good as an empty one.
func same[T any](a, b []T) bool {
	return slices.EqualFunc(a, b, func(x, y T) bool { return reflect.DeepEqual(x, y) })
}

// harmless refuses what nobody should do by saving a file: removing a service, or leaving one without servers.
func harmless(before, next model.Plan) error {
	after := serverCounts(next.Clusters)
	var problems []error
	for _, g := range before.TCPServices {
		i := slices.IndexFunc(next.TCPServices, func(n model.TCPService) bool { return n.Name == g.Name })
		switch {
		case i < 0:
			problems = append(problems, fmt.Errorf("service %s would be removed", g.Name))
		case len(next.TCPServices[i].Servers) == 0 && len(g.Servers) > 0:
			problems = append(problems, fmt.Errorf("service %s would be left without servers", g.Name))
		}
	}
	for name, had := range serverCounts(before.Clusters) {
		count, there := after[name]
		switch {
		case !there:
			problems = append(problems, fmt.Errorf("service %s would be removed", name))
		case count == 0 && had > 0:
			problems = append(problems, fmt.Errorf("service %s would be left without servers", name))
		}
	}
	if len(problems) == 0 {
		return nil
	}
	slices.SortFunc(problems, func(a, b error) int { return strings.Compare(a.Error(), b.Error()) })
	return fmt.Errorf("%w\nsend SIGHUP to take it all the same", errors.Join(problems...))
}

// serverCounts gives for each service how many servers the declared roles select.
func serverCounts(clusters []model.Cluster) map[string]int {
	counts := map[string]int{}
	for _, c := range clusters {
		set, err := resolve.Set(c, nil)
		if err != nil {
			continue
		}
		for _, s := range set.Services {
			counts[s.FullName] = len(s.Servers)
		}
	}
	return counts
}

// LocalNode finds the one inventory host that is an address of this machine, for those who don't say which node to be.
func (f *InventoryFile) LocalNode(local []string) (string, error) {
	path := f.Path
	inv, problems := f.Inventory()
	if inv == nil {
		return "", problems
	}
	var found []string
	for _, h := range inv.Hosts() {
		for _, address := range local {
			if h.Name == address {
				found = append(found, h.Name)
			}
		}
	}
	switch len(found) {
	case 1:
		return found[0], nil
	case 0:
		return "", fmt.Errorf("no host of %s is an address of this machine: say --node HOST", path)
	}
	return "", fmt.Errorf("several hosts of %s are addresses of this machine (%s): say --node HOST", path, strings.Join(found, ", "))
}
