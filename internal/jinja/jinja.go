// Package jinja evaluates the templates that stand in values of Ansible inventories, as ansible-core evaluates them.
//
// It owns the language (Jinja 3.1 in ansible-core 2.14's dress: its filters and tests, undefined variables are errors, a
// backslash inside {{ … }} means itself) and the rule by which a result becomes a value: a text that reads as a list, a
// mapping, True or False becomes one, and a lone {{ name }} of a boolean or a number keeps its type. Where variables come
// from is the caller's business (Scope).
//
// A template can't reach anything but its Scope: there is no include, import, extends, macro, lookup, no environment, no
// clock and no chance, and what it may cost is bounded by a Budget. Filters and tests are a fixed list; any other is an error
// that names it before anything is evaluated. Errors know their place in the template and never quote a variable's value,
// which may be a secret. The package is pure.
package jinja

import (
	"fmt"
	"slices"
	"strings"
)

// Scope is where a template's variables come from.
type Scope interface {
	// Lookup finds a variable. An error ends the evaluation; a variable whose own template asks for one that isn't defined
	// should be given as an Undefined instead, since `default` may still save it.
	Lookup(name string) (v Variable, found bool, err error)
}

// Variable is a variable's value: nil, bool, int64, float64, string, []any, Tuple, *Dict, a Mapping or an *Undefined.
type Variable struct {
	Value any
	// Plain says that the variable is written out, not computed by a template of its own.
	Plain bool
}

// Error is why a template can't be compiled or evaluated.
type Error struct {
	// Offset is where in the template, in bytes.
	Offset int
	What   string
	// Undefined says that something wasn't defined, for which Ansible has its own treatment.
	Undefined bool
}

func (e *Error) Error() string { return e.What }

// complaint is an error of an operation, which doesn't know where in the template it is.
type complaint string

func (c complaint) Error() string { return string(c) }

func complain(format string, args ...any) error { return complaint(fmt.Sprintf(format, args...)) }

// locate gives a complaint its place; other errors have theirs.
func locate(err error, offset int) error {
	switch err := err.(type) {
	case complaint:
		return &Error{Offset: offset, What: string(err)}
	case undefinedUse:
		return &Error{Offset: offset, What: string(err), Undefined: true}
	}
	return err
}

// Budget bounds what an evaluation, with all that it leads to, may cost.
type Budget struct {
	steps, bytes int
}

// Bounds of a Budget, and of what one operation may make.
const (
	maxSteps  = 1_000_000
	maxBytes  = 16 << 20
	maxText   = 1 << 20
	maxItems  = 100_000
	maxSource = 1 << 20
	maxDepth  = 100
)

// NewBudget gives what one value of an inventory is allowed to cost.
func NewBudget() *Budget { return &Budget{steps: maxSteps, bytes: maxBytes} }

func (b *Budget) step(n int) error {
	if b.steps -= n; b.steps < 0 {
		return complain("the template takes too many steps")
	}
	return nil
}

// made accounts for a text of n bytes before it is made.
func (b *Budget) made(n int) error {
	if n < 0 || n > maxText {
		return complain("the template makes a text of more than %d bytes", maxText)
	}
	if b.bytes -= n; b.bytes < 0 {
		return complain("the template makes more than %d bytes of text", maxBytes)
	}
	return nil
}

// listed accounts for a list of n items before it is made.
func (b *Budget) listed(n int) error {
	if n < 0 || n > maxItems {
		return complain("the template makes a list of more than %d items", maxItems)
	}
	return b.step(n)
}

// Template is a compiled template. It is immutable.
type Template struct {
	source string
	body   []statement
	// bare is the name if the template is nothing but {{ name }}.
	bare string
	// textual says that the template is nothing but {{ … | string }}, or another filter whose result Ansible leaves a text.
	textual bool
}

// Is tells whether Ansible takes a text for a template.
func Is(text string) bool {
	for rest := text; ; {
		i := strings.IndexByte(rest, '{')
		if i < 0 || i+1 == len(rest) {
			return false
		}
		if c := rest[i+1]; c == '{' || c == '%' || c == '#' {
			return true
		}
		rest = rest[i+1:]
	}
}

// Compile reads a template.
func Compile(source string) (*Template, error) {
	if len(source) > maxSource {
		return nil, &Error{What: fmt.Sprintf("the template has more than %d bytes", maxSource)}
	}
	pieces, err := split(source)
	if err != nil {
		return nil, err
	}
	p := &parser{tokens: pieces}
	body, err := p.body()
	if err != nil {
		return nil, err
	}
	t := &Template{source: source, body: body, bare: bareName(source)}
	if len(body) == 1 {
		if printed, ok := body[0].(printNode); ok {
			f, filtered := printed.of.(*filterNode)
			t.textual = filtered && slices.Contains(textualFilters, f.name)
		}
	}
	return t, nil
}

// textualFilters are those whose result stays a text, whatever it reads as (Ansible's STRING_TYPE_FILTERS).
var textualFilters = []string{"string", "to_json", "to_nice_json"}

// bareName gives the name of {{ name }}.
func bareName(source string) string {
	inner, opened := strings.CutPrefix(source, "{{")
	inner, closed := strings.CutSuffix(strings.TrimSuffix(inner, "\n"), "}}")
	name := strings.TrimSpace(inner)
	if !opened || !closed || strings.ContainsFunc(name, func(r rune) bool { return !isNameRune(r) }) {
		return ""
	}
	return name
}

// Value evaluates the template and gives what Ansible makes of the result.
func (t *Template) Value(scope Scope, budget *Budget) (any, error) {
	if t.bare != "" {
		v, found, err := scope.Lookup(t.bare)
		if err != nil {
			return nil, err
		}
		if found && v.Plain {
			switch v.Value.(type) {
			case nil, bool, int64, float64:
				return v.Value, nil
			}
		}
	}
	m := &machine{scope: scope, budget: budget, frames: []map[string]any{{}}}
	text, err := m.text(t.body)
	if err != nil {
		return nil, locate(err, 0)
	}
	if t.textual {
		return text, nil
	}
	if strings.HasPrefix(text, "{") || strings.HasPrefix(text, "[") || text == "True" || text == "False" {
		if v, ok := parseLiteral(text); ok {
			return v, nil
		}
	}
	// A template loses its last line end; Ansible puts back what the source has more than the result.
	if missing := trailingBreaks(t.source) - trailingBreaks(text); missing > 0 {
		text += strings.Repeat("\n", missing)
	}
	return text, nil
}

func trailingBreaks(text string) int { return len(text) - len(strings.TrimRight(text, "\n")) }
