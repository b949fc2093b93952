package inventory

import (
	"fmt"
	"strings"

	"go.yaml.in/yaml/v4"

	"github.com/pgporter/pgporter/internal/config/diag"
	"github.com/pgporter/pgporter/internal/config/inventory/jinja"
	"github.com/pgporter/pgporter/internal/config/inventory/ownfile"
)

// A pgporter.yml becomes what an inventory becomes: a cluster is a group, its members and nodes are hosts, and keys are the variables
// that they stand for (ownfile), each at its position. Here only what concerns the form of the file is judged; what values mean is
// judged where an inventory's are.

// Own tells whether the inventory is a pgporter.yml, whose writer needn't know of Pigsty's variables.
func (inv *Inventory) Own() bool { return inv.own }

// isOwn tells whether a file is a pgporter.yml: it says so. A group of that name has hosts, children or vars, or nothing.
func isOwn(root Value) bool {
	mark, set := root.Get(ownfile.Mark)
	return set && mark.Kind() != Map && mark.Kind() != Null
}

// looksOwn tells whether a file is one but for the key that says so: no group has such a thing in it.
func looksOwn(root Value) bool {
	clusters, _ := root.Get("clusters")
	for _, c := range clusters.Entries() {
		if _, has := c.Value.Get("members"); has {
			return true
		}
	}
	return false
}

// ReadServices reads a file of services for members that are discovered: a mapping of ownfile.Services. They are those of all hosts, of
// which there is one, so that there is somebody who has them. With an error among the problems the Inventory is good for finding more of
// them and nothing else; it is nil if there is no mapping.
func ReadServices(path string) (*Inventory, diag.Problems) {
	var problems diag.Problems
	b := newBuilder(path, &problems)
	data, err := b.read(path)
	if err != nil {
		unreadableFile(&problems, path, "the file of services", err)
		return nil, problems
	}
	if b.inv.own = true; !b.services(path, data) {
		return nil, problems
	}
	b.settle()
	b.inv.digest = b.digest()
	return b.inv, problems
}

// services reads such a file; false if nothing can be made of it.
func (b *builder) services(name string, data []byte) bool {
	if !b.marked(name, data, maxMarks) {
		return false
	}
	doc, problems := load(name, data)
	if *b.problems = append(*b.problems, problems...); doc == nil {
		return false
	}
	const want = "a mapping with services, a list as in pgporter.yml"
	if doc.root == nil || doc.value(doc.root).Kind() == Null {
		b.problems.Errorf(diag.InventoryEmpty, diag.Position{File: name}, want, "the file of services is empty")
		return false
	}
	root := doc.value(doc.root)
	if root.Kind() != Map {
		b.problems.Errorf(diag.InventoryStructure, root.Pos(), want, "the file of services is %s", root.Describe())
		return false
	}
	if isOwn(root) {
		b.problems.Errorf(diag.InventoryFormat, root.Pos(), "--inventory with it, and without --patroni", "this is a pgporter.yml, which says who the members are")
		return false
	}
	r := ownReader{builder: b, doc: doc}
	r.strictly()
	r.keys("the file of services", ownfile.Services, root, b.inv.all.vars)
	b.enlist(b.inv.all, b.host("localhost", root.Pos()))
	return true
}

// ownReader reads one file.
type ownReader struct {
	*builder
	doc *document
	// homes are the clusters and members that hosts were given to.
	homes map[*Host]string
}

// ownFile reads a pgporter.yml; false if it is none that can be read.
func (b *builder) ownFile(doc *document, root Value) bool {
	b.inv.own = true
	r := ownReader{builder: b, doc: doc, homes: map[*Host]string{}}
	for _, e := range root.Entries() {
		e.findSecrets()
	}
	mark, _ := root.Get(ownfile.Mark)
	if n, is := mark.WholeNumber(); !is || n != ownfile.Version {
		b.problems.Errorf(diag.InventoryFormat, mark.Pos(), fmt.Sprintf("%s: %d", ownfile.Mark, ownfile.Version), "the version of the file is %s, and this pgporter reads version %d", mark.Describe(), ownfile.Version)
		return false
	}
	r.strictly()
	vars := b.inv.all.vars
	inner := r.keys("the file", ownfile.File, root, vars)
	// What Pigsty has otherwise than who comes without: Patroni's own namespace and administrator, and a page that nobody needs a password
	// for since it changes nothing.
	for name, value := range map[string]any{"pg_namespace": "/service", "pg_admin_username": "postgres", "haproxy_auth_enabled": false} {
		if _, set := vars[name]; !set {
			vars[name] = Value{made: value, pos: diag.Position{File: doc.file}}
		}
	}
	// Nobody tells a name that the file doesn't speak of.
	if _, told := inner["defaults.dns"]; !told {
		vars["pg_dns_target"] = Value{made: "none", pos: diag.Position{File: doc.file}}
	}
	r.nodes(b.inv.all, inner["defaults.nodes"])
	entries := root.Entries()
	for i, e := range entries {
		if e.Name != "clusters" {
			continue
		}
		end, clusters := next(entries, i, diag.Position{}), e.Value.Entries()
		for j, c := range clusters {
			r.cluster(c, next(clusters, j, end))
		}
	}
	return true
}

// strictly refuses of the file what an inventory may have. Of two keys of one name Ansible goes on with the last; who writes this file
// means both.
func (r *ownReader) strictly() {
	for i, p := range *r.problems {
		if p.Code == diag.KeyTwice {
			(*r.problems)[i].Severity = diag.Error
		}
	}
	r.refuseTemplates(r.doc.root, map[*yaml.Node]bool{})
	r.doc.templated = nil
}

// refuseTemplates reports what an inventory would take for a template or a vault, and has nobody evaluate it.
func (r *ownReader) refuseTemplates(n *yaml.Node, seen map[*yaml.Node]bool) {
	if n.Kind == yaml.AliasNode {
		n = n.Alias
	}
	if seen[n] {
		return
	}
	seen[n] = true
	v := r.doc.value(n)
	switch kind := v.Kind(); {
	case kind == Text && n.Kind == yaml.ScalarNode && jinja.Is(n.Value) && !v.isUnsafe():
		r.problems.Errorf(diag.TemplateFails, v.Pos(), "the value written out, or an anchor and an alias of YAML", "a template is for inventories: this file has none")
		n.Tag, n.Style = "!unsafe", n.Style|yaml.TaggedStyle
	case kind == Encrypted:
		r.problems.Errorf(diag.VaultEncrypted, v.Pos(), "a file of the node's for a secret", "a value encrypted with Ansible Vault is for inventories: this file has no secrets")
	case kind == UnknownTag || v.isUnsafe():
		r.problems.Errorf(diag.TagUnknown, v.Pos(), "the value without it", "%s means nothing here", v.tag())
	}
	for _, kid := range n.Content {
		r.refuseTemplates(kid, seen)
	}
}

// keys reads a mapping: what stands for a variable goes to vars, what else there is comes back by its path within the mapping.
func (r *ownReader) keys(label string, keys []ownfile.Key, v Value, vars map[string]Value) map[string]Entry {
	inner := map[string]Entry{}
	r.keysBelow(label, "", keys, v, vars, inner)
	return inner
}

func (r *ownReader) keysBelow(label, prefix string, keys []ownfile.Key, v Value, vars map[string]Value, inner map[string]Entry) {
	// What is wrong is an error here. Aliases may have one stand in a million places.
	if len(*r.problems) > maxTold {
		return
	}
	here := label
	if prefix != "" {
		here = fmt.Sprintf("%s of %s", strings.TrimSuffix(prefix, "."), label)
	}
	if v.Kind() != Map {
		r.problems.Errorf(diag.WrongType, v.Pos(), "a mapping of "+enumerated(ownfile.Names(keys)), "%s is %s", here, v.Describe())
		return
	}
	for _, e := range v.Entries() {
		k, known := ownfile.Find(keys, e.Name)
		switch {
		case !known:
			r.unknown(here, keys, e)
		case e.Value.Kind() == Null:
			r.problems.Errorf(diag.KeyMissing, e.Key.Pos(), "a value, or not the key either", "%s%s of %s is empty", prefix, k.Name, label)
		case k.Shape == ownfile.Keyed:
			inner[prefix+k.Name] = e
			r.keysBelow(label, prefix+k.Name+".", k.Keys, e.Value, vars, inner)
		default:
			if k.Variable != "" {
				vars[k.Variable] = e.Value
			} else {
				inner[prefix+k.Name] = e
			}
			r.shape(label, prefix, k, e)
		}
	}
	for _, k := range keys {
		if _, set := v.Get(k.Name); k.Required && !set {
			want := k.Says
			if k.Example != "" {
				want = fmt.Sprintf("%s, as in %s: %s", k.Says, k.Name, k.Example)
			}
			r.problems.Errorf(diag.KeyMissing, v.Pos(), want, "%s has no %s", here, k.Name)
		}
	}
}

// shape refuses what isn't what a key's value looks like, where nobody else will.
func (r *ownReader) shape(label, prefix string, k ownfile.Key, e Entry) {
	here := fmt.Sprintf("%s%s of %s", prefix, k.Name, label)
	refuse := func(want string) {
		r.problems.Errorf(diag.WrongType, e.Value.Pos(), want, "%s is %s", here, e.Value.Describe())
	}
	switch k.Shape {
	case ownfile.Named:
		if e.Value.Kind() != Map {
			refuse("a mapping: each name with a colon after it")
		} else if len(e.Value.Entries()) == 0 {
			r.problems.Errorf(diag.KeyMissing, e.Value.Pos(), "one at least", "%s is empty", here)
		}
	case ownfile.Tags:
		if e.Value.Kind() != Map {
			refuse("a mapping of names to values, as in " + k.Example)
		}
	case ownfile.Texts:
		if e.Value.Kind() != List {
			refuse("a list, as in " + k.Example)
		} else if len(e.Value.Items()) == 0 {
			r.problems.Errorf(diag.KeyMissing, e.Value.Pos(), "one at least, or not the key either", "%s is empty", here)
		}
	case ownfile.Listed:
		// What is in a list of services is read where plans are made.
		if k.Variable == "pg_services" || k.Variable == "pg_default_services" || e.Value.Kind() != List {
			return
		}
		for i, item := range e.Value.Items() {
			r.keysBelow(fmt.Sprintf("item %d of %s", i+1, here), "", k.Keys, item, map[string]Value{}, map[string]Entry{})
		}
	}
}

// unknown reports a key that nobody reads.
func (r *ownReader) unknown(here string, keys []ownfile.Key, e Entry) {
	if !e.Key.Quotable() {
		r.problems.Errorf(diag.KeyUnknown, e.Key.Pos(), "one of "+enumerated(ownfile.Names(keys)), "%s has a key that isn't shown", here)
		return
	}
	want := "one of " + enumerated(ownfile.Names(keys))
	if near := ownfile.Nearest(e.Name, keys); near != "" {
		want = "did you mean " + near
	} else if instead := ownfile.Instead(e.Name); instead != "" {
		want = instead
	}
	r.problems.Errorf(diag.KeyUnknown, e.Key.Pos(), want, "%s has no key %q", here, e.Name)
}

func enumerated(words []string) string { return strings.Join(words, ", ") }

// cluster reads an entry of clusters, up to end.
func (r *ownReader) cluster(c Entry, end diag.Position) {
	if !c.Key.named() {
		r.problems.Errorf(diag.NameNotText, c.Key.Pos(), "quotes around it", "%s can't be a cluster's name", c.Key.Describe())
		return
	}
	label := fmt.Sprintf("cluster %q", c.Name)
	g := r.group("clusters."+c.Name, c.Key.Pos())
	r.owns(c, end, g, nil)
	inner := r.keys(label, ownfile.Cluster(), c.Value, g.vars)
	g.vars["pg_cluster"] = c.Key
	if vip, has := inner["vip"]; has && g.vars["pg_vip_address"].node != nil {
		g.vars["pg_vip_enabled"] = Value{made: true, pos: vip.Key.Pos()}
	}
	if dns, has := inner["dns"]; has {
		if _, set := g.vars["pg_dns_target"]; !set && r.inv.all.vars["pg_dns_target"].node == nil {
			g.vars["pg_dns_target"] = Value{made: "auto", pos: dns.Key.Pos()}
		}
	}
	upstream, follows := g.vars["pg_upstream"]
	delete(g.vars, "pg_upstream")
	var members []*Host
	entries := inner["members"].Value.Entries()
	for i, m := range entries {
		if h := r.member(g, label, m, next(entries, i, end)); h != nil {
			members = append(members, h)
		}
	}
	if len(members) == 0 {
		return
	}
	r.settleRoles(g, members)
	// A standby cluster follows by its leader; pg_upstream of another member would be a cascade.
	for _, h := range members {
		if role, _ := h.vars["pg_role"].Text(); role == "primary" && follows {
			h.vars["pg_upstream"] = upstream
		}
	}
	r.settlePoolers(g, members)
	r.nodes(g, inner["nodes"])
}

// named tells whether a key can be a name: a text, or a number that is one.
func (v Value) named() bool {
	name, ok := v.Name()
	return ok && name != "" && v.Kind() != Float
}

// member reads an entry of members, up to end; nil if nobody can be made of it.
func (r *ownReader) member(g *Group, cluster string, m Entry, end diag.Position) *Host {
	if !m.Key.named() {
		r.problems.Errorf(diag.NameNotText, m.Key.Pos(), "quotes around it", "%s of %s can't be a member's name", m.Key.Describe(), cluster)
		return nil
	}
	label := fmt.Sprintf("member %q of %s", m.Name, cluster)
	vars := map[string]Value{"pgporter_member": m.Key}
	inner := r.keys(label, ownfile.Member(), m.Value, vars)
	for _, tag := range inner["tags"].Value.Entries() {
		switch {
		case !ownfile.IsTag(tag.Name):
			r.problems.Errorf(diag.KeyUnknown, tag.Key.Pos(), "another name: selectors know this one as something else", "tags of %s: a tag can't be called %q", label, tag.Name)
		case tag.Value.Kind() == Null || tag.Value.Kind() == List || tag.Value.Kind() == Map:
			r.problems.Errorf(diag.WrongType, tag.Value.Pos(), "a text, a number, true or false", "tags of %s: %s is %s", label, tag.Name, tag.Value.Describe())
		default:
			vars[tag.Name] = tag.Value
		}
	}
	at, set := inner["host"]
	if !set {
		return nil
	}
	name, isText := at.Value.Text()
	if !isText || name == "" {
		r.problems.Errorf(diag.HostNoAddress, at.Value.Pos(), "an address, as in 10.10.10.11", "host of %s is %s", label, at.Value.Describe())
		return nil
	}
	if !r.builder.named(at.Value.Pos(), 1) {
		return nil
	}
	h := r.host(name, at.Value.Pos())
	if home, taken := r.homes[h]; taken {
		r.problems.Errorf(diag.HostTwice, at.Value.Pos(), "an address of its own for each member: another one of the machine's, or a name that stands for it",
			"%s is at %s, where %s (%s) is", label, name, home, h.Pos)
		return nil
	}
	// A node that was named before is known by where it is a member.
	r.homes[h], h.Pos = label, at.Value.Pos()
	r.owns(m, end, nil, h)
	r.enlist(g, h)
	h.listings = append(h.listings, Listing{Group: g, Pos: at.Value.Pos()})
	h.vars = vars
	return h
}

// settleRoles gives members that don't say it a role: the first of them is the primary if nobody else is, the others replicas. Patroni
// says who leads; with static roles nobody but the file does.
func (r *ownReader) settleRoles(g *Group, members []*Host) {
	roles, set := g.vars["pgporter_roles"]
	if !set {
		roles = r.inv.all.vars["pgporter_roles"]
	}
	word, _ := roles.Text()
	primary := word == "static"
	for _, h := range members {
		role, _ := h.vars["pg_role"].Text()
		primary = primary || role == "primary"
	}
	for _, h := range members {
		if _, set := h.vars["pg_role"]; set {
			continue
		}
		role := "replica"
		if !primary {
			role, primary = "primary", true
		}
		h.vars["pg_role"] = Value{made: role, pos: h.Pos}
	}
}

// settlePoolers says of members without a pgbouncer_port that they have no PgBouncer, and where nobody has one that services lead to
// PostgreSQL unless the file says otherwise.
func (r *ownReader) settlePoolers(g *Group, members []*Host) {
	const port, dest = "pgbouncer_port", "pg_default_service_dest"
	has := func(vars map[string]Value, name string) bool { _, set := vars[name]; return set }
	if has(g.vars, port) || has(r.inv.all.vars, port) {
		return
	}
	pooled := false
	for _, h := range members {
		if has(h.vars, port) {
			pooled = true
			continue
		}
		h.vars["pgbouncer_enabled"] = Value{made: false, pos: h.Pos}
	}
	if !pooled && !has(g.vars, dest) && !has(r.inv.all.vars, dest) {
		g.vars[dest] = Value{made: "postgres", pos: g.Pos}
	}
}

// nodes makes hosts of a list of nodes, and has them carry the services of a group's hosts.
func (r *ownReader) nodes(g *Group, e Entry) {
	items := e.Value.Items()
	if len(items) == 0 {
		return
	}
	carriers := r.group(g.Name+".nodes", e.Key.Pos())
	for i, item := range items {
		name, isText := item.Text()
		if !isText || name == "" {
			r.problems.Errorf(diag.HostNoAddress, item.Pos(), "an address, as in 10.10.10.20", "item %d of nodes is %s", i+1, item.Describe())
			continue
		}
		if !r.builder.named(item.Pos(), 1) {
			return
		}
		h := r.host(name, item.Pos())
		r.enlist(carriers, h)
		h.listings = append(h.listings, Listing{Group: carriers, Pos: item.Pos()})
	}
	g.vars["pg_service_provider"] = Value{made: carriers.Name, pos: e.Value.Pos()}
}
