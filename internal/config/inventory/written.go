package inventory

import (
	"slices"

	"github.com/pgporter/pgporter/internal/config/diag"
)

// Listing is an entry under some group's `hosts` that names a host.
type Listing struct {
	// Group is the one that lists the host, Pos where.
	Group *Group
	Pos   diag.Position
	// Vars is the mapping of the host's variables there, or null.
	Vars Value
	// Port is what stands behind the name, SSH's port for Ansible; empty for none.
	Port string
}

// Listings are all entries that name the host, in the order in which they are read. Their variables are the host's together; of
// one that stands in several the last one counts.
func (h *Host) Listings() []Listing { return h.listings }

// Written gives every mapping that variables of the host are written in: its own and those of all its groups. Which of two values
// counts is Var's to say.
func (h *Host) Written() []Value {
	var all []Value
	for _, l := range h.listings {
		all = append(all, l.Vars)
	}
	all = append(all, h.written...)
	for _, g := range append(slices.Clone(h.chain), h.inv.all) {
		all = append(all, g.written...)
	}
	return all
}

// Var gives a variable as the group and those above it, `all` aside, set it for their hosts, its templates unevaluated; false if none
// of them does.
func (g *Group) Var(name string) (Value, bool) {
	above := slices.SortedFunc(slices.Values(g.ancestors), byRank)
	for _, vars := range []func(*Group) map[string]Value{func(g *Group) map[string]Value { return g.fileVars }, func(g *Group) map[string]Value { return g.vars }} {
		for _, a := range slices.Backward(above) {
			if v, set := vars(a)[name]; set {
				return v, true
			}
		}
	}
	return Value{}, false
}
