package inventory

import (
	"cmp"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"hash"
	"slices"
	"strings"

	"github.com/pgporter/pgporter/internal/config/diag"
)

// builder makes groups and hosts of a document.
type builder struct {
	inv      *Inventory
	problems *diag.Problems
	// inProgress are the groups between the top and where the builder is, to recognise one inside itself.
	inProgress map[*Group]bool
	// summed is the digest of what was read so far.
	summed hash.Hash
	limits
}

const groupWant = "a mapping with hosts, children and vars"

func newBuilder(name string, problems *diag.Problems) *builder {
	inv := &Inventory{File: name, byName: map[string]*Host{}, named: map[string]*Group{}}
	b := &builder{inv: inv, problems: problems, inProgress: map[*Group]bool{}, summed: sha256.New()}
	inv.all = b.group("all", diag.Position{File: name})
	return b
}

// sum takes a file into the digest.
func (b *builder) sum(name string, data []byte) {
	fmt.Fprintf(b.summed, "%q %d\n", name, len(data))
	b.summed.Write(data)
}

func (b *builder) digest() string { return hex.EncodeToString(b.summed.Sum(nil)) }

// document reads one file of an inventory; false if it is none.
func (b *builder) document(name string, data []byte) bool {
	if line := iniLine(data); line > 0 {
		b.problems.Errorf(diag.InventoryFormat, diag.Position{File: name, Line: line, Column: 1}, "YAML, or the output of ansible-inventory --list --export on standard input",
			"this is an inventory in INI format, which is not supported")
		return false
	}
	load := load
	listed := isListed(data)
	if listed {
		load = loadJSON
	}
	most := maxMarks
	if listed {
		most = maxJSONMarks
	}
	if !b.marked(name, data, most) {
		return false
	}
	doc, problems := load(name, data)
	*b.problems = append(*b.problems, problems...)
	if doc == nil {
		return false
	}
	const want = "a mapping of groups, as in `all: { children: … }`"
	if doc.root == nil {
		b.problems.Errorf(diag.InventoryEmpty, diag.Position{File: name}, want, "the inventory is empty")
		return false
	}
	root := doc.value(doc.root)
	switch root.Kind() {
	case Map:
	case Null:
		b.problems.Errorf(diag.InventoryEmpty, root.Pos(), want, "the inventory is empty")
		return false
	default:
		b.problems.Errorf(diag.InventoryStructure, root.Pos(), want, "the inventory is %s", root.Describe())
		return false
	}
	if listed {
		b.listed(root)
		return true
	}
	switch {
	case b.inv.own || isOwn(root) && len(b.inv.hosts) > 0:
		b.problems.Errorf(diag.InventoryFormat, diag.Position{File: name}, "the file by its own path, or an inventory without one", "a pgporter.yml goes with no other file")
		return false
	case isOwn(root):
		return b.ownFile(doc, root)
	case looksOwn(root):
		b.problems.Errorf(diag.InventoryFormat, root.Pos(), "pgporter: 1 at the top", "this looks like a pgporter.yml, and doesn't say so")
		return false
	}
	entries := root.Entries()
	for i, e := range entries {
		b.groupBody(e, next(entries, i, diag.Position{}))
	}
	return true
}

// group finds or adds a group.
func (b *builder) group(name string, pos diag.Position) *Group {
	g, known := b.inv.named[name]
	if !known {
		g = &Group{Name: name, Pos: pos, inv: b.inv, vars: map[string]Value{}}
		b.inv.named[name] = g
		b.inv.groups = append(b.inv.groups, g)
	} else if g.Pos.Line == 0 {
		g.Pos = pos
	}
	return g
}

// groupBody reads a group's name and what stands under it, up to end; nil if it is no group.
func (b *builder) groupBody(e Entry, end diag.Position) *Group {
	name, isText := e.Key.Text()
	if !isText || name == "" {
		b.problems.Errorf(diag.NameNotText, e.Key.Pos(), "quotes around it", "%s can't be a group's name", e.Key.Describe())
		return nil
	}
	if e.Value.Kind() != Map && e.Value.Kind() != Null {
		b.problems.Errorf(diag.InventoryStructure, e.Value.Pos(), groupWant, "group %q is %s", name, e.Value.Describe())
		return nil
	}
	g := b.group(name, e.Key.Pos())
	if b.inProgress[g] || g == b.inv.all && len(b.inProgress) > 0 {
		b.problems.Errorf(diag.GroupInItself, e.Key.Pos(), "", "group %q is inside itself", name)
		return nil
	}
	b.inProgress[g] = true
	defer delete(b.inProgress, g)
	b.owns(e, end, g, nil)
	sections := e.Value.Entries()
	for i, section := range sections {
		sectionEnd := next(sections, i, end)
		switch section.Name {
		case "vars":
			b.vars(g, section.Value)
		case "children":
			children := b.section(g, section)
			for i, child := range children {
				if c := b.groupBody(child, next(children, i, sectionEnd)); c != nil {
					b.adopt(g, c)
				}
			}
		case "hosts":
			hosts := b.section(g, section)
			for i, host := range hosts {
				b.hosts(g, host, next(hosts, i, sectionEnd))
			}
		default:
			b.problems.Warnf(diag.GroupKeyIgnored, section.Key.Pos(), "hosts, children or vars", "group %q: the key %q is ignored, as Ansible ignores it",
				name, section.Name)
		}
	}
	return g
}

// adopt makes one group a child of another.
func (b *builder) adopt(parent, child *Group) {
	if !slices.Contains(child.parents, parent) {
		child.parents = append(child.parents, parent)
		parent.children = append(parent.children, child)
	}
}

// enlist makes a host one of a group's own.
func (b *builder) enlist(g *Group, h *Host) {
	if !slices.Contains(h.direct, g) {
		h.direct = append(h.direct, g)
		g.hosts = append(g.hosts, h)
	}
}

// section gives the entries under `hosts` or `children`; Ansible allows a single name instead of a mapping.
func (b *builder) section(g *Group, section Entry) []Entry {
	switch section.Value.Kind() {
	case Map, Null:
		return section.Value.Entries()
	case Text:
		name, _ := section.Value.Text()
		return []Entry{{Name: name, Key: section.Value, Value: Value{pos: section.Value.Pos()}}}
	}
	b.problems.Errorf(diag.InventoryStructure, section.Value.Pos(), "a mapping: each name with a colon after it, not a dash before it", "%s of group %q is %s",
		section.Name, g.Name, section.Value.Describe())
	return nil
}

func (b *builder) vars(g *Group, v Value) {
	if v.Kind() != Map && v.Kind() != Null {
		b.problems.Errorf(diag.InventoryStructure, v.Pos(), "a mapping of variables", "vars of group %q is %s", g.Name, v.Describe())
		return
	}
	g.written = append(g.written, v)
	for _, e := range v.Entries() {
		if e.Name != "ansible_group_priority" {
			e.findSecrets()
			g.vars[e.Name] = e.Value
			continue
		}
		priority, ok := e.Value.WholeNumber()
		if !ok {
			b.problems.Errorf(diag.NumberOutOfRange, e.Value.Pos(), "a whole number", "ansible_group_priority of group %q is %s", g.Name, e.Value.Describe())
			continue
		}
		g.priority = priority
	}
}

// hosts reads an entry under `hosts`, up to end: one host, or several if the name holds ranges.
func (b *builder) hosts(g *Group, e Entry, end diag.Position) {
	pattern, isText := e.Key.Text()
	if !isText || pattern == "" {
		b.problems.Errorf(diag.NameNotText, e.Key.Pos(), "quotes around it", "%s can't be a host's name", e.Key.Describe())
		return
	}
	if e.Value.Kind() != Map && e.Value.Kind() != Null {
		b.problems.Errorf(diag.InventoryStructure, e.Value.Pos(), "a mapping of the host's variables, or nothing", "host %q is %s", pattern, e.Value.Describe())
		return
	}
	if b.limits.hosts > maxHosts {
		return
	}
	names, err := expand(pattern)
	if err != nil {
		b.problems.Errorf(diag.HostRange, e.Key.Pos(), "a range as in 10.10.10.[11:13], [01:10:2] or pg-[a:c]", "host %q: %v", pattern, err)
		return
	}
	entries := e.Value.Entries()
	port := ""
	if withoutPort(pattern) != pattern {
		port = pattern[strings.LastIndexByte(pattern, ':')+1:]
	}
	for _, name := range names {
		if !b.named(e.Key.Pos(), 1+len(entries)/10) {
			return
		}
		h := b.host(name, e.Key.Pos())
		b.enlist(g, h)
		if len(names) == 1 {
			b.owns(e, end, nil, h)
		}
		h.listings = append(h.listings, Listing{g, e.Key.Pos(), e.Value, port})
		for _, v := range entries {
			v.findSecrets()
			h.vars[v.Name] = v.Value
		}
	}
}

func (b *builder) host(name string, pos diag.Position) *Host {
	h, known := b.inv.byName[name]
	if !known {
		h = &Host{Name: name, Pos: pos, inv: b.inv, vars: map[string]Value{}}
		b.inv.byName[name] = h
		b.inv.hosts = append(b.inv.hosts, h)
	}
	return h
}

// settle computes what needs the whole inventory: who is ungrouped, how deep each group is, and each host's groups.
func (b *builder) settle() {
	all := b.inv.all
	ungrouped, isNamed := b.inv.named["ungrouped"]
	for _, h := range b.inv.hosts {
		h.direct = slices.DeleteFunc(h.direct, func(g *Group) bool { return g == all })
		if isNamed && len(h.direct) > 1 && slices.Contains(h.direct, ungrouped) {
			h.direct = slices.DeleteFunc(h.direct, func(g *Group) bool { return g == ungrouped })
			ungrouped.hosts = slices.DeleteFunc(ungrouped.hosts, func(other *Host) bool { return other == h })
		}
		if len(h.direct) == 0 {
			ungrouped = b.group("ungrouped", h.Pos)
			isNamed = true
			b.enlist(ungrouped, h)
		}
	}
	// Ansible makes ungrouped first, and takes groups in that have no parent when all is read.
	if isNamed {
		all.children = append([]*Group{ungrouped}, slices.DeleteFunc(all.children, func(g *Group) bool { return g == ungrouped })...)
	}
	for _, g := range b.inv.groups {
		if g != all && len(g.parents) == 0 && g != ungrouped {
			all.children = append(all.children, g)
		}
	}
	for _, g := range b.inv.groups {
		b.ancestors(g)
	}
	for _, h := range b.inv.hosts {
		seen := map[*Group]bool{}
		for _, g := range h.direct {
			for _, a := range g.ancestors {
				if !seen[a] {
					seen[a] = true
					h.chain = append(h.chain, a)
					if !b.joined(h.Pos) {
						return
					}
				}
			}
		}
		slices.SortFunc(h.chain, byRank)
	}
}

// byRank orders groups by the precedence of their variables, the weakest first.
func byRank(x, y *Group) int {
	return cmp.Or(cmp.Compare(x.depth, y.depth), cmp.Compare(x.priority, y.priority), strings.Compare(x.Name, y.Name))
}

// ancestors fills in a group's ancestors and depth. A group without a parent is a child of `all`; a circle, which a group
// defined in two places can make, is a problem and cut.
func (b *builder) ancestors(g *Group) {
	if g == b.inv.all || g.ancestors != nil {
		return
	}
	b.inProgress[g] = true
	defer delete(b.inProgress, g)
	g.depth = 1
	found := []*Group{g}
	seen := map[*Group]bool{g: true}
	for _, parent := range g.parents {
		if b.inProgress[parent] {
			b.problems.Errorf(diag.GroupInItself, g.Pos, "", "group %q is inside itself, by way of group %q", g.Name, parent.Name)
			continue
		}
		b.ancestors(parent)
		g.depth = max(g.depth, parent.depth+1)
		for _, a := range parent.ancestors {
			if !seen[a] {
				seen[a] = true
				found = append(found, a)
				if !b.joined(g.Pos) {
					break
				}
			}
		}
	}
	g.ancestors = found
}
