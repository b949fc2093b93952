package inventory

import (
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"

	"go.yaml.in/yaml/v4"

	"github.com/pgporter/pgporter/internal/config/diag"
	"github.com/pgporter/pgporter/internal/config/inventory/jinja"
	"github.com/pgporter/pgporter/internal/config/safetext"
)

// Kind is a value's type.
type Kind int

// The kinds of values. Encrypted is a text under Ansible's !vault tag, UnknownTag one under a tag that Ansible doesn't know,
// Failed a template that can't be evaluated.
const (
	Null Kind = iota
	Bool
	Int
	Float
	Text
	List
	Map
	Encrypted
	UnknownTag
	Failed
)

// Value is a variable's value, or a part of one, with its position. The zero Value is null.
type Value struct {
	doc  *document
	node *yaml.Node
	// made is the value where there is no node: a template's result, or an implicit variable's (nil, bool, int64, float64,
	// string, []any, jinja.Tuple or *jinja.Dict). A node's value with templates in it is a *list or a *mapping of its parts,
	// or a *failure.
	made any
	pos  diag.Position
	// templated says that a template made the value, secret names a secret that it is made of, where there is no node that does.
	templated bool
	secret    string
}

// list and mapping are parts of which some were templates.
type (
	list    struct{ items []Value }
	mapping struct{ entries []Entry }
)

// failure is why a template has no value.
type failure struct {
	pos  diag.Position
	what string
	// source is the template.
	source string
	// undefined says that something that it needs isn't defined.
	undefined bool
}

func (f *failure) Error() string { return f.what }

// Entry is a key of a mapping with its value. Name is the key as a text.
type Entry struct {
	Name  string
	Key   Value
	Value Value
}

// Pos is where the value is written (for an alias: where what it refers to is), or for an implicit variable where its host is.
func (v Value) Pos() diag.Position { return v.pos }

// scalar resolves a scalar: nil, bool, int64, float64 or string.
func (v Value) scalar() any {
	n := v.node
	if n == nil {
		return v.made
	}
	quoted := n.Style&(yaml.SingleQuotedStyle|yaml.DoubleQuotedStyle|yaml.LiteralStyle|yaml.FoldedStyle) != 0
	if n.Style&yaml.TaggedStyle == 0 {
		if quoted {
			return n.Value
		}
		return plain(n.Value)
	}
	switch n.ShortTag() {
	case "!!int", "!!float", "!!bool", "!!null":
		return plain(n.Value)
	}
	return n.Value
}

// Kind tells the value's type.
func (v Value) Kind() Kind {
	if v.node == nil {
		return kindOf(v.made)
	}
	tagged := v.node.Style&yaml.TaggedStyle != 0
	if tagged {
		switch tag := v.node.ShortTag(); {
		case tag == "!vault" || tag == "!vault-encrypted":
			return Encrypted
		case tag != "!unsafe" && tag != "!" && !strings.HasPrefix(tag, "!!"):
			return UnknownTag
		}
	}
	switch v.node.Kind {
	case yaml.MappingNode:
		return Map
	case yaml.SequenceNode:
		return List
	}
	return kindOf(v.scalar())
}

func kindOf(scalar any) Kind {
	switch scalar.(type) {
	case bool:
		return Bool
	case int64:
		return Int
	case float64:
		return Float
	case string:
		return Text
	case []any, jinja.Tuple, *list:
		return List
	case *jinja.Dict, *mapping:
		return Map
	case *failure:
		return Failed
	}
	return Null
}

// Text gives a text.
func (v Value) Text() (string, bool) {
	if v.Kind() != Text {
		return "", false
	}
	return v.scalar().(string), true
}

// WholeNumber gives a whole number, also if it is written as a text of decimal digits ("5432"), which Ansible's users do
// and Pigsty's templates take.
func (v Value) WholeNumber() (int64, bool) {
	switch v.Kind() {
	case Int:
		return v.scalar().(int64), true
	case Text:
		text, _ := v.Text()
		n, err := strconv.ParseInt(strings.TrimSpace(text), 10, 64)
		return n, err == nil
	}
	return 0, false
}

// Truth gives a boolean, also if it is written as one of the texts that Ansible's `bool` filter takes for one.
func (v Value) Truth() (truth, ok bool) {
	switch v.Kind() {
	case Bool:
		return v.scalar().(bool), true
	case Int:
		n, _ := v.WholeNumber()
		return n == 1, n == 0 || n == 1
	case Text:
		text, _ := v.Text()
		switch strings.ToLower(text) {
		case "yes", "on", "1", "true":
			return true, true
		case "no", "off", "0", "false":
			return false, true
		}
	}
	return false, false
}

// Name gives a scalar as the text that a template would make of it: 123 for the number, the text itself for a text. False
// for null, a boolean, a list, a mapping.
func (v Value) Name() (string, bool) {
	switch v.Kind() {
	case Text, Int, Float:
		return v.keyName(), true
	}
	return "", false
}

// keyName is a scalar as a key of a JSON object.
func (v Value) keyName() string {
	switch s := v.scalar().(type) {
	case nil:
		return "null"
	case float64:
		return strconv.FormatFloat(s, 'g', -1, 64)
	default:
		return fmt.Sprint(s)
	}
}

// Items gives a list's items; none of anything else.
func (v Value) Items() []Value {
	if v.Kind() != List {
		return nil
	}
	var items []Value
	switch made := v.made.(type) {
	case *list:
		return made.items
	case []any:
		for _, item := range made {
			items = append(items, v.part(item, ""))
		}
		return items
	case jinja.Tuple:
		return v.part([]any(made), "").Items()
	}
	for _, n := range v.node.Content {
		items = append(items, v.doc.value(n))
	}
	return items
}

// Entries gives a mapping's keys and values in their order, merge keys worked in; none of anything else.
func (v Value) Entries() []Entry {
	if v.Kind() != Map {
		return nil
	}
	switch made := v.made.(type) {
	case *mapping:
		return made.entries
	case *jinja.Dict:
		entries := make([]Entry, 0, len(made.Keys()))
		for _, key := range made.Keys() {
			k := v.part(key, "")
			value, _ := made.Get(key)
			entries = append(entries, Entry{Name: k.keyName(), Key: k, Value: v.part(value, k.keyName())})
		}
		return entries
	}
	pairs := v.doc.maps[v.node]
	entries := make([]Entry, 0, len(pairs))
	for _, p := range pairs {
		key := v.doc.value(p.key)
		entries = append(entries, Entry{Name: key.keyName(), Key: key, Value: v.doc.value(p.value)})
	}
	return entries
}

// part is a part of a value that has no node, name the key that it is under.
func (v Value) part(made any, name string) Value {
	part := Value{made: made, pos: v.pos, templated: v.templated, secret: v.secret}
	if part.secret == "" && safetext.IsSecret(name) {
		part.secret = name
	}
	return part
}

// Get gives the value of a mapping's key.
func (v Value) Get(name string) (Value, bool) {
	for _, e := range v.Entries() {
		if e.Name == name {
			return e.Value, true
		}
	}
	return Value{}, false
}

// Is tells whether two values are at the same position of the same file.
func (v Value) Is(other Value) bool { return v.node != nil && v.node == other.node }

// JSON gives the value as encoding/json would read it: nil, bool, float64, string, []any, map[string]any. A template that
// has no value is the text that it is written as, as Ansible leaves it.
func (v Value) JSON() any {
	switch v.Kind() {
	case Map:
		object := map[string]any{}
		for _, e := range v.Entries() {
			object[e.Name] = e.Value.JSON()
		}
		return object
	case List:
		items := []any{}
		for _, item := range v.Items() {
			items = append(items, item.JSON())
		}
		return items
	case Int:
		return float64(v.scalar().(int64))
	case Failed:
		return v.made.(*failure).source
	case Encrypted, UnknownTag:
		return nil
	}
	if f, ok := v.scalar().(float64); ok && (math.IsInf(f, 0) || math.IsNaN(f)) {
		return v.keyName()
	}
	return v.scalar()
}

// Unreadable finds the first part of the value that has no value, and says why: a template in it can't be evaluated, or it is
// encrypted. what names the variable in the message.
func (v Value) Unreadable(what string) (diag.Problem, bool) {
	var p diag.Problems
	const written = "a value written out"
	switch v.Kind() {
	case Failed:
		failed := v.made.(*failure)
		code, want := diag.TemplateFails, written
		if failed.undefined {
			code, want = diag.VariableUndefined, "a variable of the inventory, or a default() for it"
		}
		p.Errorf(code, failed.pos, want, "%s: %s", what, failed.what)
	case Text:
		if text, _ := v.Text(); v.node != nil && jinja.Is(text) && !v.isUnsafe() {
			p.Errorf(diag.TemplateFails, v.pos, written, "%s: the template has not been evaluated", what)
		}
	case Encrypted:
		p.Errorf(diag.VaultEncrypted, v.pos, written, "%s is encrypted with Ansible Vault, which is not supported", what)
	case UnknownTag:
		p.Errorf(diag.TagUnknown, v.pos, written, "%s has %s, which Ansible doesn't know", what, v.tag())
	case List:
		for _, item := range v.Items() {
			if problem, found := item.Unreadable(what); found {
				return problem, true
			}
		}
	case Map:
		for _, e := range v.Entries() {
			if problem, found := e.Value.Unreadable(what); found {
				return problem, true
			}
		}
	}
	if len(p) == 0 {
		return diag.Problem{}, false
	}
	return p[0], true
}

// LeftAsWritten tells whether the value has no value because something that a template in it needs isn't defined: Ansible
// leaves it as it is written then, where another host's variables are looked at, and fails for any other reason.
func (v Value) LeftAsWritten() bool {
	switch v.Kind() {
	case Failed:
		return v.made.(*failure).undefined
	case List:
		return slices.ContainsFunc(v.Items(), Value.LeftAsWritten)
	case Map:
		return slices.ContainsFunc(v.Entries(), func(e Entry) bool { return e.Value.LeftAsWritten() })
	}
	return false
}

// isUnsafe tells whether the value has the tag by which Ansible never takes it for a template.
func (v Value) isUnsafe() bool {
	return v.node != nil && v.node.Style&yaml.TaggedStyle != 0 && v.node.ShortTag() == "!unsafe"
}

// asWritten adds how a scalar is written if that isn't what it means: YAML 1.1 surprises.
func (v Value) asWritten() string {
	if v.node == nil || v.node.Value == v.keyName() {
		return ""
	}
	return ", written " + v.node.Value
}

// Describe names the value for a message: `the text "abc"`, `a list`. One that isn't Quotable is named by its kind.
func (v Value) Describe() string {
	if !v.Quotable() {
		return v.unquoted()
	}
	switch v.Kind() {
	case Null:
		return "empty"
	case Bool:
		return "the boolean " + v.keyName() + v.asWritten()
	case Int, Float:
		return "the number " + v.keyName() + v.asWritten()
	case Text:
		text, _ := v.Text()
		if utf8.RuneCountInString(text) > 60 {
			text = string([]rune(text)[:57]) + "..."
		}
		return fmt.Sprintf("the text %q", text)
	case List:
		return "a list"
	case Map:
		return "a mapping"
	case Encrypted:
		return "encrypted"
	case Failed:
		return "a template that can't be evaluated"
	}
	return "under " + v.tag()
}
