package diff

import (
	"fmt"
	"reflect"

	"github.com/pgporter/pgporter/internal/admin/api"
	"github.com/pgporter/pgporter/internal/config/model"
)

// nameChanges compares what two plans say of names, and of clusters that are only watched for them.
func nameChanges(before, after model.Plan) []api.ClusterChange {
	var order []string
	what := map[string][]string{}
	add := func(cluster string, changes ...string) {
		if _, there := what[cluster]; !there && len(changes) > 0 {
			order = append(order, cluster)
		}
		if len(changes) > 0 {
			what[cluster] = append(what[cluster], changes...)
		}
	}
	oldNames, newNames := named(before.Names, namingOf), named(after.Names, namingOf)
	for _, n := range after.Names {
		was, there := oldNames[n.Cluster]
		if !there {
			add(n.Cluster, "its names are told")
			continue
		}
		for _, change := range valueChanges(was, n) {
			add(n.Cluster, "names: "+change)
		}
	}
	oldElsewhere, newElsewhere := named(before.Elsewhere, clusterOf), named(after.Elsewhere, clusterOf)
	for _, c := range after.Elsewhere {
		was, there := oldElsewhere[c.Name]
		if !there {
			add(c.Name, "watched for its names: "+count(len(c.Members), "member"))
			continue
		}
		changes := append(clusterChanges(was, c), definitionChanges(was, c)...)
		if len(changes) == 0 && !reflect.DeepEqual(was, c) {
			changes = []string{"in another order"}
		}
		add(c.Name, changes...)
	}
	for _, c := range before.Elsewhere {
		if _, stays := newElsewhere[c.Name]; !stays {
			add(c.Name, "not watched for its names alone any more")
		}
	}
	for _, n := range before.Names {
		if _, stays := newNames[n.Cluster]; !stays {
			add(n.Cluster, "its names aren't told any more")
		}
	}
	if len(order) == 0 && !(sameOrder(before.Names, after.Names, namingOf) && sameOrder(before.Elsewhere, after.Elsewhere, clusterOf)) {
		add(after.Names[0].Cluster, "the names are in another order")
	}
	changes := make([]api.ClusterChange, 0, len(order))
	for _, cluster := range order {
		changes = append(changes, api.ClusterChange{Cluster: cluster, Kind: api.Changed, What: what[cluster]})
	}
	return changes
}

func namingOf(n model.Naming) string   { return n.Cluster }
func clusterOf(c model.Cluster) string { return c.Name }

// sameOrder compares the names of two lists.
func sameOrder[T any](before, after []T, name func(T) string) bool {
	if len(before) != len(after) {
		return false
	}
	for i := range before {
		if name(before[i]) != name(after[i]) {
			return false
		}
	}
	return true
}

// definitionChanges compares the services of a cluster that nobody carries here.
func definitionChanges(before, after model.Cluster) []string {
	name := func(d model.Definition) string { return d.Name }
	old, now := named(before.Definitions, name), named(after.Definitions, name)
	var what []string
	for _, d := range after.Definitions {
		was, there := old[d.Name]
		if !there {
			what = append(what, fmt.Sprintf("service %s is new", d.Name))
			continue
		}
		for _, change := range valueChanges(was, d) {
			what = append(what, fmt.Sprintf("service %s: %s", d.Name, change))
		}
	}
	for _, d := range before.Definitions {
		if _, stays := now[d.Name]; !stays {
			what = append(what, fmt.Sprintf("service %s is gone", d.Name))
		}
	}
	return what
}
