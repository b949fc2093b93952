// Package render makes the files of a whole inventory: for each host the services that its HAProxy carries, haproxy.cfg,
// names for dnsmasq, vip-manager's configuration, libpq's service file and the configuration of a PgBouncer before services.
//
// It joins the packages that know one format each and decides which file goes to which host. It is pure: files are values, and
// writing them is fileset's.
package render

import (
	"cmp"
	"path"
	"slices"
	"strings"

	"github.com/pgporter/pgporter/internal/access/dns/zone"
	"github.com/pgporter/pgporter/internal/access/vip/owner"
	"github.com/pgporter/pgporter/internal/config/diag"
	"github.com/pgporter/pgporter/internal/config/inventory"
	"github.com/pgporter/pgporter/internal/config/model"
	"github.com/pgporter/pgporter/internal/config/plan"
	"github.com/pgporter/pgporter/internal/config/resolve"
	"github.com/pgporter/pgporter/internal/render/haproxycfg"
	"github.com/pgporter/pgporter/internal/render/stamp"
)

// DNSDirectory is where a host's names are, relative to its directory.
const DNSDirectory = "dnsmasq.d/pigsty"

// File is one rendered file.
type File struct {
	// Path is <host>/<file>, with slashes.
	Path string
	Text string
	// Private files hold a secret.
	Private bool
	// Whole files list what several clusters have, so one that a cluster is missing from would be wrong.
	Whole bool
	// Of is the file's stamp. Clusters are those whose services are in it.
	Of       stamp.Stamp
	Clusters []string
	// Notes are what whoever renders the file ought to know, and no problem.
	Notes []string
}

// Wanted says what to render.
type Wanted struct {
	Kinds []stamp.Kind
	// Base adds haproxy.cfg.
	Base bool
	// Hosts and Clusters limit the files to those of the hosts and the clusters named; empty for no limit.
	Hosts, Clusters []string
}

// Files renders what is wanted, sorted by path. All problems of the inventory are returned, also those of what isn't wanted;
// with an error among them the files are those that are sound.
func Files(inv *inventory.Inventory, wanted Wanted) ([]File, diag.Problems) {
	parts := plan.Parts{
		Base:  wanted.Base && wanted.kind(stamp.HAProxy),
		VIP:   wanted.kind(stamp.VIPManager),
		Names: wanted.kind(stamp.DNSMasq),
		Doors: wanted.kind(stamp.PgBouncer),
	}
	site, problems := plan.ForSite(inv, parts)
	r := &renderer{wanted: wanted, problems: problems, site: site, taken: map[string]int{}, resolved: map[sight]model.Set{}}
	r.directories()
	r.haproxy()
	r.dnsmasq()
	r.vipManager()
	r.pgService()
	r.doors()
	r.files = slices.DeleteFunc(r.files, func(f File) bool { return !wanted.selects(f) })
	slices.SortFunc(r.files, func(a, b File) int { return cmp.Compare(a.Path, b.Path) })
	return r.files, r.problems.Sorted()
}

func (w Wanted) kind(k stamp.Kind) bool { return slices.Contains(w.Kinds, k) }

// selects tells whether a file is of the hosts and the clusters that are wanted.
func (w Wanted) selects(f File) bool {
	host, _, _ := strings.Cut(f.Path, "/")
	return (len(w.Hosts) == 0 || slices.Contains(w.Hosts, host)) &&
		(len(w.Clusters) == 0 || slices.ContainsFunc(f.Clusters, func(c string) bool { return slices.Contains(w.Clusters, c) }))
}

// Covers tells whether a file at a path with a stamp would be among what is wanted, were there a reason to render it: what
// a rendering may remove.
func (w Wanted) Covers(file string, s stamp.Stamp) bool {
	host, _, _ := strings.Cut(file, "/")
	switch {
	case !w.kind(s.Kind), len(w.Hosts) > 0 && !slices.Contains(w.Hosts, host):
		return false
	case len(w.Clusters) > 0:
		return s.Cluster != "" && slices.Contains(w.Clusters, s.Cluster)
	case s.File == haproxycfg.BaseFile && s.Cluster == "":
		return w.Base
	}
	return true
}

type renderer struct {
	wanted   Wanted
	site     plan.Site
	files    []File
	taken    map[string]int
	problems diag.Problems
	// sets are the clusters' services as declared roles give them, by host.
	sets     map[string][]model.Set
	resolved map[sight]model.Set
}

// add keeps a file.
func (r *renderer) add(pos diag.Position, host string, f File) {
	f.Path = host + "/" + f.Path
	if i, again := r.taken[f.Path]; again {
		first := r.files[i]
		if f.Of.Kind == stamp.DNSMasq {
			// Within one cluster it is a pg_seq that two members have, which is reported as such.
			if f.Of.Cluster != first.Of.Cluster {
				r.problems.Warnf(diag.DNSNameTwice, pos, "names of their own", "the name %s is of cluster %q and of cluster %q: the first keeps it",
					path.Base(f.Path), first.Of.Cluster, f.Of.Cluster)
			}
			return
		}
		r.problems.Errorf(diag.NameTwice, pos, "a service by another name", "%s would be two files of %s", path.Base(f.Path), host)
		return
	}
	r.taken[f.Path] = len(r.files)
	r.files = append(r.files, f)
}

// directories leaves hosts out whose names can't be a directory's.
func (r *renderer) directories() {
	r.site.Nodes = slices.DeleteFunc(r.site.Nodes, func(n plan.Node) bool {
		usable := directoryName(n.Plan.Node)
		if !usable {
			r.problems.Errorf(diag.NotRenderable, n.Pos, "an address, or a name without slashes", "the host %q can't be the name of a directory", n.Plan.Node)
		}
		return !usable
	})
	for i, names := range r.site.Names {
		r.site.Names[i].Servers = slices.DeleteFunc(slices.Clone(names.Servers), func(host string) bool { return !directoryName(host) })
	}
}

// directoryName tells whether a host's name can be one element of a path.
func directoryName(host string) bool {
	return host != "" && host != "." && host != ".." && !strings.ContainsFunc(host, func(r rune) bool { return r == '/' || r == '\\' || r < ' ' || r == 0x7f })
}

// sight is what hosts have in common that see a cluster alike: its members and definitions are the very same.
type sight struct {
	members     *model.Member
	definitions *model.Definition
}

// resolve gives a cluster's services as the declared roles have them. Most hosts see a cluster alike: it is done once for
// them.
func (r *renderer) resolve(c model.Cluster) (model.Set, error) {
	if len(c.Members) == 0 || len(c.Definitions) == 0 {
		return resolve.Set(c, nil)
	}
	seen := sight{&c.Members[0], &c.Definitions[0]}
	if set, done := r.resolved[seen]; done {
		return set, nil
	}
	set, err := resolve.Set(c, nil)
	if err == nil {
		r.resolved[seen] = set
	}
	return set, err
}

// haproxy renders every service of every host.
func (r *renderer) haproxy() {
	r.sets = make(map[string][]model.Set, len(r.site.Nodes))
	for _, n := range r.site.Nodes {
		host := n.Plan.Node
		var carried []string
		for _, c := range n.Plan.Clusters {
			carried = append(carried, c.Name)
			set, err := r.resolve(c)
			if err != nil {
				r.problems.Errorf(diag.NotRenderable, n.Pos, "", "cluster %q: %v", c.Name, err)
				continue
			}
			r.sets[host] = append(r.sets[host], set)
			if !r.wanted.kind(stamp.HAProxy) {
				continue
			}
			for _, s := range set.Services {
				text, err := haproxycfg.Service(host, c, s)
				r.keep(n.Pos, host, text, err, File{Path: haproxycfg.FileName(s.FullName), Clusters: []string{c.Name},
					Of: stamp.Stamp{Kind: stamp.HAProxy, Cluster: c.Name, File: haproxycfg.FileName(s.FullName)}})
			}
		}
		if !r.wanted.kind(stamp.HAProxy) {
			continue
		}
		for _, g := range n.Plan.TCPServices {
			text, err := haproxycfg.TCPService(host, g)
			r.keep(n.Pos, host, text, err, File{Path: haproxycfg.FileName(g.Name),
				Of: stamp.Stamp{Kind: stamp.HAProxy, File: haproxycfg.FileName(g.Name)}})
		}
		if n.Base != nil {
			text, err := haproxycfg.Base(*n.Base)
			r.keep(n.Pos, host, text, err, File{Path: haproxycfg.BaseFile, Private: true, Clusters: carried,
				Of: stamp.Stamp{Kind: stamp.HAProxy, File: haproxycfg.BaseFile}})
		}
	}
}

// keep adds a file that could be rendered, and reports one that couldn't.
func (r *renderer) keep(pos diag.Position, host, text string, err error, f File) {
	if err != nil {
		r.problems.Errorf(diag.NotRenderable, pos, "", "%s: %v", host, err)
		return
	}
	f.Text = text
	r.add(pos, host, f)
}

// dnsmasq renders every name on every host that tells it.
func (r *renderer) dnsmasq() {
	position := r.positions()
	for _, n := range r.site.Names {
		for i, record := range n.Records {
			file := n.Files[i]
			text, err := zone.Hosts(n.Cluster, file, record)
			for _, host := range n.Servers {
				r.keep(position[host], host, text, err, File{Path: DNSDirectory + "/" + file, Clusters: []string{n.Cluster},
					Of: stamp.Stamp{Kind: stamp.DNSMasq, Cluster: n.Cluster, File: file}})
			}
		}
	}
}

func (r *renderer) vipManager() {
	for _, n := range r.site.Nodes {
		if n.VIP == nil {
			continue
		}
		text, err := owner.Manager(n.Cluster, *n.VIP)
		r.keep(n.Pos, n.Plan.Node, text, err, File{Path: owner.File, Private: true, Clusters: []string{n.Cluster},
			Of: stamp.Stamp{Kind: stamp.VIPManager, Cluster: n.Cluster, File: owner.File}})
	}
}

func (r *renderer) positions() map[string]diag.Position {
	position := make(map[string]diag.Position, len(r.site.Nodes))
	for _, n := range r.site.Nodes {
		position[n.Plan.Node] = n.Pos
	}
	return position
}

// Known gives the names of an inventory's hosts and clusters, in its order.
func Known(inv *inventory.Inventory) (hosts, clusters []string) {
	for _, h := range inv.Hosts() {
		hosts = append(hosts, h.Name)
	}
	return hosts, plan.Clusters(inv)
}
