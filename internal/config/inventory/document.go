package inventory

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"strings"
	"unicode/utf8"

	"go.yaml.in/yaml/v4"

	"github.com/pgporter/pgporter/internal/config/diag"
	"github.com/pgporter/pgporter/internal/config/inventory/jinja"
	"github.com/pgporter/pgporter/internal/config/safetext"
)

// document is a YAML file with everything that Values need of it. It doesn't change after load.
type document struct {
	file   string
	source string
	// lines are the offsets at which the source's lines start.
	lines []int
	root  *yaml.Node
	// aliased says that there are aliases in it.
	aliased bool
	// maps are the entries of each mapping, merge keys worked in, each key once.
	maps map[*yaml.Node][]pair
	// templated are the nodes with a template in them.
	templated map[*yaml.Node]bool
	// secrets are the nodes that are under a secret's name somewhere, with that name; searched those below which it was looked for.
	secrets  map[*yaml.Node]string
	searched map[*yaml.Node]bool
}

// pair is a key of a mapping with its value, as nodes.
type pair struct {
	// identity tells keys apart as PyYAML does: 5 and "5" are two.
	identity   string
	key, value *yaml.Node
	merged     bool
}

// maxExpanded bounds the nodes that aliases may add to a document, as if each stood where it is used.
const maxExpanded = 2_000_000

// newDocument finds where the lines begin.
func newDocument(name string, data []byte) *document {
	d := &document{file: name, source: string(data), lines: []int{0}, maps: map[*yaml.Node][]pair{}, templated: map[*yaml.Node]bool{},
		secrets: map[*yaml.Node]string{}, searched: map[*yaml.Node]bool{}}
	for i, c := range d.source {
		if isBreak(c) && !strings.HasPrefix(d.source[i:], "\r\n") {
			d.lines = append(d.lines, i+utf8.RuneLen(c))
		}
	}
	return d
}

// load reads YAML and checks what concerns no particular node. The document is nil if nothing can be made of it, and has no
// root if there is nothing in it.
func load(name string, data []byte) (*document, diag.Problems) {
	var problems diag.Problems
	d := newDocument(name, data)
	if i, what := unreadable(data); i >= 0 {
		problems.Errorf(diag.SyntaxError, d.position(i), "text in UTF-8", "%s", what)
		return nil, problems
	}
	loader, err := yaml.NewLoader(bytes.NewReader(data))
	if err != nil {
		problems.Errorf(diag.SyntaxError, diag.Position{File: name}, "", "the YAML reader can't start: %v", err)
		return nil, problems
	}
	var first, second yaml.Node
	switch err := loader.Load(&first); {
	case errors.Is(err, io.EOF) || err == nil && len(first.Content) == 0:
		return d, nil
	case err != nil:
		d.syntax(err, &problems)
		return nil, problems
	}
	d.root = first.Content[0]
	switch err := loader.Load(&second); {
	case err == nil:
		pos := diag.Position{File: name, Line: second.Line, Column: second.Column}
		problems.Errorf(diag.SyntaxError, pos, "one document", "a second YAML document begins here")
		return nil, problems
	case !errors.Is(err, io.EOF):
		d.syntax(err, &problems)
		return nil, problems
	}
	return d.settled(problems)
}

// settled works out what Values need of a document whose nodes have been read.
func (d *document) settled(problems diag.Problems) (*document, diag.Problems) {
	if !d.bounded(&problems) {
		return nil, problems
	}
	f := flattener{d: d, problems: &problems, seen: map[*yaml.Node]bool{}}
	f.walk(d.root)
	d.findTemplates(d.root, map[*yaml.Node]bool{})
	return d, problems
}

// syntax reports an error of the YAML reader with its position.
func (d *document) syntax(err error, problems *diag.Problems) {
	pos, what := diag.Position{File: d.file}, err.Error()
	if le := (*yaml.LoadError)(nil); errors.As(err, &le) {
		what = le.Message
		mark := le.Mark
		if mark.Line == 0 {
			mark = le.ContextMark
		}
		pos.Line, pos.Column = mark.Line, max(mark.Column, 1)
		if mark.Line == 0 {
			pos.Column = 0
		}
	}
	// The anchor's name may be a password that begins with an asterisk.
	if strings.HasPrefix(what, "unknown anchor ") {
		problems.Errorf(diag.YAMLAlias, pos, "quotes around a text that begins with *", "the YAML can't be read: an alias refers to nothing")
		return
	}
	problems.Errorf(diag.SyntaxError, pos, "", "the YAML can't be read: %s", what)
}

// unreadable finds the first byte that YAML doesn't allow; -1 if there is none.
func unreadable(data []byte) (int, string) {
	for i := 0; i < len(data); {
		r, size := utf8.DecodeRune(data[i:])
		switch {
		case r == utf8.RuneError && size == 1:
			return i, fmt.Sprintf("the byte 0x%02x is no UTF-8", data[i])
		case r < ' ' && r != '\t' && r != '\n' && r != '\r', r == 0x7f, r >= 0x80 && r < 0xa0 && r != 0x85, r == 0xfffe, r == 0xffff:
			return i, fmt.Sprintf("the control character %U can't stand in YAML", r)
		}
		i += size
	}
	return -1, ""
}

// isBreak tells the characters that end a line in YAML 1.1.
func isBreak(r rune) bool {
	return r == '\n' || r == '\r' || r == '\u0085' || r == '\u2028' || r == '\u2029'
}

// position gives line and column (in characters) of an offset in the source.
func (d *document) position(offset int) diag.Position {
	low, high := 0, len(d.lines)
	for high-low > 1 {
		if middle := (low + high) / 2; d.lines[middle] <= offset {
			low = middle
		} else {
			high = middle
		}
	}
	return diag.Position{File: d.file, Line: low + 1, Column: utf8.RuneCountInString(d.source[d.lines[low]:offset]) + 1}
}

// bounded makes sure that walking the document with its aliases ends, and soon: no alias stands inside what it refers to, and
// all of them together don't blow the document up.
func (d *document) bounded(problems *diag.Problems) bool {
	const inProgress = -1
	weights := map[*yaml.Node]int{}
	ok, nodes := true, 0
	var weigh func(n *yaml.Node) int
	weigh = func(n *yaml.Node) int {
		if n.Kind == yaml.AliasNode {
			d.aliased = true
			if weights[n.Alias] == inProgress {
				problems.Errorf(diag.YAMLAlias, d.at(n), "", "an alias stands inside what it refers to")
				ok = false
				return 1
			}
			return weigh(n.Alias)
		}
		// Only what has an anchor is come to a second time.
		anchored := n.Anchor != ""
		if w, known := weights[n]; anchored && known {
			return w
		}
		nodes++
		if anchored {
			weights[n] = inProgress
		}
		w := 1
		for _, kid := range n.Content {
			w = min(w+weigh(kid), 1<<40)
		}
		if anchored {
			weights[n] = w
		}
		return w
	}
	total := weigh(d.root)
	if ok && total-nodes > maxExpanded {
		problems.Errorf(diag.YAMLAlias, d.at(d.root), "", "its aliases, written out, make the file %d times as large", total/nodes)
		ok = false
	}
	return ok
}

func (d *document) at(n *yaml.Node) diag.Position {
	return diag.Position{File: d.file, Line: n.Line, Column: n.Column}
}

func (d *document) value(n *yaml.Node) Value {
	if n.Kind == yaml.AliasNode {
		n = n.Alias
	}
	return Value{doc: d, node: n, pos: d.at(n)}
}

// findTemplates tells whether there is a template at or below a node, and notes it.
func (d *document) findTemplates(n *yaml.Node, done map[*yaml.Node]bool) bool {
	if n.Kind == yaml.AliasNode {
		n = n.Alias
	}
	// Most nodes are scalars that nothing refers to.
	if n.Kind != yaml.ScalarNode || n.Anchor != "" {
		if done[n] {
			return d.templated[n]
		}
		done[n] = true
	}
	has := false
	if n.Kind == yaml.ScalarNode && jinja.Is(n.Value) {
		v := d.value(n)
		has = v.Kind() == Text && !v.isUnsafe()
	}
	for _, kid := range n.Content {
		has = d.findTemplates(kid, done) || has
	}
	if has {
		d.templated[n] = true
	}
	return has
}

// flattener works out the entries of every mapping: merge keys first, so that the mapping's own keys win, and the last of
// equal keys, with the position among the keys that the first one had.
type flattener struct {
	d        *document
	problems *diag.Problems
	seen     map[*yaml.Node]bool
	// secret says that what is read is under a secret's name: messages don't quote it.
	secret bool
}

func (f *flattener) walk(n *yaml.Node) {
	if n.Kind == yaml.AliasNode {
		n = n.Alias
	}
	if n.Kind == yaml.ScalarNode || f.seen[n] {
		return
	}
	f.seen[n] = true
	if n.Kind == yaml.MappingNode {
		f.mapping(n)
		return
	}
	for _, kid := range n.Content {
		f.walk(kid)
	}
}

func (f *flattener) mapping(n *yaml.Node) []pair {
	if pairs, done := f.d.maps[n]; done {
		return pairs
	}
	f.d.maps[n] = []pair{}
	var merged, own []pair
	for i := 0; i+1 < len(n.Content); i += 2 {
		key, value := n.Content[i], n.Content[i+1]
		f.walk(key)
		above := f.secret
		f.secret = above || safetext.IsSecret(key.Value)
		f.walk(value)
		f.secret = above
		if isMerge(key) {
			merged = append(merged, f.merge(value)...)
			continue
		}
		k := f.d.value(key)
		if k.Kind() == List || k.Kind() == Map {
			f.problems.Errorf(diag.NameNotText, f.d.at(key), "a name", "%s can't be a key", k.Describe())
			continue
		}
		own = append(own, pair{identity: fmt.Sprint(k.Kind(), " ", k.keyName()), key: key, value: value})
	}
	pairs := make([]pair, 0, len(merged)+len(own))
	index := make(map[string]int, len(merged)+len(own))
	for _, p := range append(merged, own...) {
		position, again := index[p.identity]
		if !again {
			index[p.identity] = len(pairs)
			pairs = append(pairs, p)
			continue
		}
		if earlier := pairs[position]; !earlier.merged && !p.merged && len(*f.problems) < maxTold {
			key := fmt.Sprintf("the key %q", f.d.value(p.key).keyName())
			if f.secret {
				key = "a key"
			}
			f.problems.Warnf(diag.KeyTwice, f.d.at(p.key), "one of them taken out", "%s stands here twice and the last one counts; the first is at %s", key, f.d.at(earlier.key))
		}
		pairs[position] = p
	}
	f.d.maps[n] = pairs
	return pairs
}

// merge gives the entries that a merge key brings; of several mappings the first is the strongest.
func (f *flattener) merge(value *yaml.Node) []pair {
	if value.Kind == yaml.AliasNode {
		value = value.Alias
	}
	sources := []*yaml.Node{value}
	if value.Kind == yaml.SequenceNode {
		sources = value.Content
	}
	var pairs []pair
	for i := len(sources) - 1; i >= 0; i-- {
		source := sources[i]
		if source.Kind == yaml.AliasNode {
			source = source.Alias
		}
		if source.Kind != yaml.MappingNode {
			merged := f.d.value(source).Describe()
			if f.secret {
				merged = "what is no mapping"
			}
			f.problems.Errorf(diag.YAMLAlias, f.d.at(sources[i]), "a mapping, or a list of mappings", "<< merges %s", merged)
			continue
		}
		for _, p := range f.mapping(source) {
			p.merged = true
			pairs = append(pairs, p)
		}
	}
	return pairs
}

func isMerge(key *yaml.Node) bool {
	return key.Kind == yaml.ScalarNode && key.Value == "<<" && key.Style&(yaml.SingleQuotedStyle|yaml.DoubleQuotedStyle) == 0
}
