// Package inventory reads an Ansible inventory in YAML, as Pigsty's users write it, into hosts with their effective
// variables, each of which knows its position in the file. The source is a file or a directory, with the group_vars and
// host_vars beside it, or what `ansible-inventory --list` prints.
//
// It follows Ansible's YAML inventory plugin: the order of hosts is that of their first appearance, depth first; groups may
// stand at the top level, be nested, be defined in several places and have several parents; a host's variables win over its
// groups', which win by depth, then by ansible_group_priority, then by name, and `all` is the weakest. Lists and mappings are
// replaced, never merged. Plain scalars are read as PyYAML reads them, by YAML 1.1's rules: 010 is 8, 90:33 is 5433, yes is
// true.
//
// Values that hold Jinja templates are evaluated when they are asked for, with the variables of the host that asks, as Ansible
// evaluates them (Templates); so one that nobody reads does no harm. What can't be evaluated, or is encrypted, is a Value that
// says so (Value.Unreadable). The package knows nothing of PostgreSQL. An Inventory doesn't change once read and may be used
// by several goroutines.
package inventory

import (
	"iter"
	"maps"
	"net/netip"
	"slices"
	"strings"

	"github.com/pgporter/pgporter/internal/config/diag"
	"github.com/pgporter/pgporter/internal/config/inventory/jinja"
)

// Inventory is what a file says, or, if there were problems, what of it could be understood.
type Inventory struct {
	// File is the name that positions carry.
	File   string
	hosts  []*Host
	byName map[string]*Host
	groups []*Group
	named  map[string]*Group
	all    *Group
	// parts are what groups and hosts have of the files, for OwnersOf.
	parts  []part
	digest string
	// own says that it is a pgporter.yml.
	own bool
}

// Digest is the SHA-256 of all that was read, in hexadecimal digits: it changes with any of the files, their names and their order.
func (inv *Inventory) Digest() string { return inv.digest }

// Host is an entry under some group's `hosts`.
type Host struct {
	Name string
	// Pos is where the host first appears.
	Pos  diag.Position
	inv  *Inventory
	vars map[string]Value
	// fileVars are those of files in host_vars, which are stronger.
	fileVars map[string]Value
	// listings are where it is named, and written the mappings of variables that aren't in them.
	listings []Listing
	written  []Value
	// direct are the groups that list the host, chain all that it belongs to but `all`, weakest first.
	direct []*Group
	chain  []*Group
}

// Group is a named set of hosts and of other groups.
type Group struct {
	Name string
	// Pos is where the group first appears.
	Pos  diag.Position
	inv  *Inventory
	vars map[string]Value
	// fileVars are those of files in group_vars, which are stronger than any group's vars in the inventory itself.
	fileVars map[string]Value
	// written are the mappings that both are from.
	written []Value
	parents []*Group
	// hosts and children are those that the group itself lists, in order.
	hosts    []*Host
	children []*Group
	// depth is the longest path from `all`.
	depth    int
	priority int64
	// ancestors are the group itself and all above it but `all`.
	ancestors []*Group
}

// Hosts gives all hosts in the order of their first appearance.
func (inv *Inventory) Hosts() []*Host { return inv.hosts }

// Host finds a host by its name.
func (inv *Inventory) Host(name string) (*Host, bool) {
	h, ok := inv.byName[name]
	return h, ok
}

// Groups gives all groups in the order of their first appearance. `all` is always among them, `ungrouped` if it is named or needed.
func (inv *Inventory) Groups() []*Group { return inv.groups }

// Group finds a group by its name.
func (inv *Inventory) Group(name string) (*Group, bool) {
	g, ok := inv.named[name]
	return g, ok
}

// Hosts gives the hosts of the group and of all groups below it: its own in their order, then those of its children, then
// those of theirs.
func (g *Group) Hosts() []*Host {
	var hosts []*Host
	seen := map[*Host]bool{}
	for _, below := range g.descendants() {
		for _, h := range below.hosts {
			if !seen[h] {
				seen[h] = true
				hosts = append(hosts, h)
			}
		}
	}
	return hosts
}

// descendants are the group itself and all below it, level by level.
func (g *Group) descendants() []*Group {
	all := []*Group{g}
	seen := map[*Group]bool{g: true}
	for i := 0; i < len(all); i++ {
		for _, child := range all[i].children {
			if !seen[child] {
				seen[child] = true
				all = append(all, child)
			}
		}
	}
	return all
}

// Var gives a variable as it is for the host, templates in it evaluated, or false if neither the host nor any of its groups
// sets it. The implicit inventory_hostname, inventory_hostname_short, group_names and groups are there for every host and
// can't be set. Who asks for many variables asks Templates, which remembers.
func (h *Host) Var(name string) (Value, bool) {
	v, set := h.unevaluated(name)
	if set && v.hasTemplate() {
		return h.inv.Templates(nil).Var(h, name)
	}
	return v, set
}

// unevaluated gives a variable as it is written, its templates unevaluated.
func (h *Host) unevaluated(name string) (Value, bool) {
	if v, ok := h.implicit(name); ok {
		return v, true
	}
	for layer := range h.layers() {
		if v, ok := layer[name]; ok {
			return v, true
		}
	}
	return Value{}, false
}

// layers are the variables that the host has, strongest first (Ansible's order of precedence, with files of group_vars and
// host_vars beside the inventory).
func (h *Host) layers() iter.Seq[map[string]Value] {
	return func(yield func(map[string]Value) bool) {
		if !yield(h.fileVars) || !yield(h.vars) {
			return
		}
		for _, g := range slices.Backward(h.chain) {
			if !yield(g.fileVars) {
				return
			}
		}
		if !yield(h.inv.all.fileVars) {
			return
		}
		for _, g := range slices.Backward(h.chain) {
			if !yield(g.vars) {
				return
			}
		}
		yield(h.inv.all.vars)
	}
}

// Names are the names of all variables of the host, sorted, the implicit ones but `groups` included.
func (h *Host) Names() []string {
	names := map[string]bool{"inventory_hostname": true, "inventory_hostname_short": true, "group_names": true}
	for layer := range h.layers() {
		for name := range layer {
			names[name] = true
		}
	}
	return slices.Sorted(maps.Keys(names))
}

// Vars gives all variables of the host as JSON values, the implicit ones but `groups` included.
func (h *Host) Vars() map[string]any {
	t := h.inv.Templates(nil)
	vars := map[string]any{}
	for _, name := range h.Names() {
		v, _ := t.Var(h, name)
		vars[name] = v.JSON()
	}
	return vars
}

// GroupNames are the names of all groups that the host belongs to but `all`, sorted.
func (h *Host) GroupNames() []string {
	names := make([]string, 0, len(h.chain))
	for _, g := range h.chain {
		names = append(names, g.Name)
	}
	slices.Sort(names)
	return names
}

func (h *Host) implicit(name string) (Value, bool) {
	var made any
	switch name {
	case "inventory_hostname":
		made = h.Name
	case "inventory_hostname_short":
		// An address has no short form (ansible/inventory/host.py).
		made = h.Name
		if _, err := netip.ParseAddr(h.Name); err != nil {
			made, _, _ = strings.Cut(h.Name, ".")
		}
	case "group_names":
		made = texts(h.GroupNames())
	case "groups":
		made = h.inv.memberNames()
	default:
		return Value{}, false
	}
	return Value{made: made, pos: h.Pos}, true
}

// memberNames are the hosts' names by group.
func (inv *Inventory) memberNames() *jinja.Dict {
	members := jinja.NewDict()
	members.Public = true
	members.Set("all", nil)
	members.Set("ungrouped", []any{})
	for _, g := range inv.groups {
		var names []string
		for _, member := range g.Hosts() {
			names = append(names, member.Name)
		}
		members.Set(g.Name, texts(names))
	}
	return members
}

func texts(all []string) []any {
	items := make([]any, 0, len(all))
	for _, t := range all {
		items = append(items, t)
	}
	return items
}
