package render

import (
	"slices"

	"github.com/pgporter/pgporter/internal/access/connstr"
	"github.com/pgporter/pgporter/internal/config/model"
	"github.com/pgporter/pgporter/internal/render/stamp"
)

// listener is where a service is carried.
type listener struct {
	// node is the host that carries it, host the address that clients take.
	node, host string
	port       int
}

// pgService renders libpq's service file: on a host that has to do with clusters, as a member or as one that carries their
// services, those clusters' services; on the hosts of the group infra, everybody's.
func (r *renderer) pgService() {
	if !r.wanted.kind(stamp.PGService) {
		return
	}
	var clusters []string
	names := map[string][]string{}
	carriers := map[string][]listener{}
	for _, n := range r.site.Nodes {
		for _, set := range r.sets[n.Plan.Node] {
			if _, seen := names[set.Cluster]; !seen {
				clusters = append(clusters, set.Cluster)
				names[set.Cluster] = []string{}
			}
			for _, s := range set.Services {
				if len(carriers[s.FullName]) == 0 {
					names[set.Cluster] = append(names[set.Cluster], s.FullName)
				}
				l := listener{n.Plan.Node, n.Plan.Node, s.Port}
				if s.IP != "*" {
					l.host = s.IP
				}
				carriers[s.FullName] = append(carriers[s.FullName], l)
			}
		}
	}
	for _, n := range r.site.Nodes {
		var of []string
		if n.Infra {
			of = clusters
		} else {
			for _, c := range n.Plan.Clusters {
				of = append(of, c.Name)
			}
			if n.Cluster != "" && !slices.Contains(of, n.Cluster) {
				of = append(of, n.Cluster)
			}
		}
		var entries []model.Entry
		for _, c := range of {
			for _, name := range names[c] {
				entries = append(entries, entry(name, carriers[name], n.Plan.Node))
			}
		}
		if len(entries) == 0 {
			continue
		}
		text, err := connstr.ServiceFile(entries)
		r.keep(n.Pos, n.Plan.Node, text, err, File{Path: connstr.File, Whole: true, Clusters: of,
			Of: stamp.Stamp{Kind: stamp.PGService, File: connstr.File}})
	}
}

// entry lists the hosts of a service once each, that of the node itself first.
func entry(name string, carriers []listener, node string) model.Entry {
	e := model.Entry{Name: name}
	add := func(l listener) {
		for i, h := range e.Hosts {
			if h == l.host && e.Ports[i] == l.port {
				return
			}
		}
		e.Hosts, e.Ports = append(e.Hosts, l.host), append(e.Ports, l.port)
	}
	for _, l := range carriers {
		if l.node == node {
			add(l)
		}
	}
	for _, l := range carriers {
		add(l)
	}
	return e
}
