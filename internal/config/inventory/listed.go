package inventory

import (
	"bytes"
	"encoding/json"
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"

	"go.yaml.in/yaml/v4"

	"github.com/pgporter/pgporter/internal/config/diag"
)

// isListed tells whether an inventory is what `ansible-inventory --list` prints.
func isListed(data []byte) bool {
	trimmed := bytes.TrimLeft(data, " \t\r\n")
	if !bytes.HasPrefix(trimmed, []byte("{")) || !bytes.Contains(data, []byte(`"_meta"`)) || !json.Valid(data) {
		return false
	}
	var top struct {
		Meta json.RawMessage `json:"_meta"`
	}
	return json.Unmarshal(data, &top) == nil && top.Meta != nil
}

// listed reads such an inventory: each group with its hosts, its children and (with --export) its variables, and each host's
// variables under _meta. Hosts come in the order of the groups that list them, from `all` on down.
func (b *builder) listed(root Value) {
	groups := map[string]Entry{}
	var order []string
	var hostVars []Entry
	var end diag.Position
	entries := root.Entries()
	for i, e := range entries {
		if e.Name == "_meta" {
			inner, _ := e.Value.Get("hostvars")
			hostVars, end = inner.Entries(), next(entries, i, diag.Position{})
			continue
		}
		groups[e.Name] = e
		order = append(order, e.Name)
	}
	done := map[string]bool{}
	var group func(name string, pos diag.Position, depth int) *Group
	group = func(name string, pos diag.Position, depth int) *Group {
		g := b.group(name, pos)
		e, written := groups[name]
		if done[name] || !written || depth > maxGroupDepth {
			return g
		}
		done[name] = true
		hosts, _ := e.Value.Get("hosts")
		if e.Value.Kind() == List {
			hosts = e.Value
		} else if e.Value.Kind() != Map {
			b.problems.Errorf(diag.InventoryStructure, e.Value.Pos(), groupWant, "group %q is %s", name, e.Value.Describe())
		}
		for _, item := range b.names(hosts, "hosts", name) {
			name, _ := item.Text()
			h := b.host(name, item.Pos())
			b.enlist(g, h)
			h.listings = append(h.listings, Listing{Group: g, Pos: item.Pos()})
		}
		if vars, has := e.Value.Get("vars"); has {
			b.vars(g, vars)
		}
		children, _ := e.Value.Get("children")
		for _, item := range b.names(children, "children", name) {
			child, _ := item.Text()
			if child == name || child == "all" {
				b.problems.Errorf(diag.GroupInItself, item.Pos(), "", "group %q is inside itself", child)
				continue
			}
			b.adopt(g, group(child, item.Pos(), depth+1))
		}
		return g
	}
	group("all", root.Pos(), 0)
	for _, name := range order {
		group(name, groups[name].Key.Pos(), 0)
	}
	for i, e := range hostVars {
		h := b.host(e.Name, e.Key.Pos())
		b.owns(e, next(hostVars, i, end), nil, h)
		if e.Value.Kind() != Map {
			b.problems.Errorf(diag.InventoryStructure, e.Value.Pos(), "a mapping of the host's variables", "host %q is %s", e.Name, e.Value.Describe())
			continue
		}
		h.written = append(h.written, e.Value)
		for _, v := range e.Value.Entries() {
			v.findSecrets()
			h.vars[v.Name] = v.Value
		}
	}
}

// maxGroupDepth bounds how deep groups may be nested.
const maxGroupDepth = 1000

// names gives the texts of a list.
func (b *builder) names(v Value, what, group string) []Value {
	if v.Kind() != List && v.Kind() != Null {
		b.problems.Errorf(diag.InventoryStructure, v.Pos(), "a list of names", "%s of group %q is %s", what, group, v.Describe())
	}
	return slices.DeleteFunc(v.Items(), func(item Value) bool {
		name, isText := item.Text()
		if !isText || name == "" {
			b.problems.Errorf(diag.NameNotText, item.Pos(), "a name", "one of the %s of group %q is %s", what, group, item.Describe())
		}
		return !isText || name == ""
	})
}

// loadJSON reads JSON as the YAML that it means, with positions.
func loadJSON(name string, data []byte) (*document, diag.Problems) {
	d := newDocument(name, data)
	r := &jsonReader{d: d, decoder: json.NewDecoder(bytes.NewReader(data))}
	r.decoder.UseNumber()
	var err error
	if d.root, err = r.value(0); err != nil {
		var problems diag.Problems
		problems.Errorf(diag.SyntaxError, d.position(int(min(r.decoder.InputOffset(), int64(len(data))))), "", "the JSON can't be read: %v", err)
		return nil, problems
	}
	return d.settled(nil)
}

type jsonReader struct {
	d       *document
	decoder *json.Decoder
}

// start is where the next token begins.
func (r *jsonReader) start() int {
	at := int(r.decoder.InputOffset())
	for at < len(r.d.source) && strings.IndexByte(" \t\r\n,:", r.d.source[at]) >= 0 {
		at++
	}
	return at
}

func (r *jsonReader) value(depth int) (*yaml.Node, error) {
	pos := r.d.position(r.start())
	n := &yaml.Node{Kind: yaml.ScalarNode, Line: pos.Line, Column: pos.Column}
	t, err := r.decoder.Token()
	if err != nil {
		return nil, err
	}
	if depth > maxGroupDepth {
		return nil, fmt.Errorf("more than %d values are nested in each other", maxGroupDepth)
	}
	switch t := t.(type) {
	case json.Delim:
		n.Kind = yaml.SequenceNode
		if t == '{' {
			n.Kind = yaml.MappingNode
		}
		for r.decoder.More() {
			inner, err := r.value(depth + 1)
			if err != nil {
				return nil, err
			}
			n.Content = append(n.Content, inner)
		}
		_, err := r.decoder.Token()
		return marked(n), err
	case string:
		n.Value, n.Style = t, yaml.DoubleQuotedStyle
	case json.Number:
		n.Value = t.String()
		if f, err := t.Float64(); err == nil && strings.ContainsAny(n.Value, "eE") && !math.IsInf(f, 0) {
			// YAML 1.1 wants a point and a sign in a number with an exponent.
			if n.Value = strconv.FormatFloat(f, 'f', -1, 64); !strings.Contains(n.Value, ".") {
				n.Value += ".0"
			}
		}
	case bool:
		n.Value = strconv.FormatBool(t)
	default:
		n.Value = "null"
	}
	return n, nil
}

// marked gives the text that Ansible's mark in JSON means, encrypted or never to be taken for a template.
func marked(n *yaml.Node) *yaml.Node {
	if n.Kind != yaml.MappingNode || len(n.Content) != 2 || n.Content[1].Kind != yaml.ScalarNode {
		return n
	}
	tag := map[string]string{"__ansible_unsafe": "!unsafe", "__ansible_vault": "!vault"}[n.Content[0].Value]
	if tag == "" {
		return n
	}
	text := n.Content[1]
	text.Tag, text.Style = tag, yaml.DoubleQuotedStyle|yaml.TaggedStyle
	return text
}
