// Package jinja evaluates the templates that stand in values of Ansible inventories, as ansible-core evaluates them.
//
// It owns the part of Jinja that inventories use: expressions in {{ … }}, {% if %}, comments, and the filters, tests and
// methods of filter.go, text.go and list.go. Everything else is refused by name, with what to write instead (refused.go).
// What is there is Jinja 3.1 in ansible-core 2.14's dress: undefined variables are errors, a backslash inside {{ … }} means
// itself, and a text that reads as a list, a mapping, True or False becomes one, while a lone {{ name }} of a boolean or a
// number keeps its type. Where variables come from is the caller's business (Scope).
//
// A template can't reach anything but its Scope, and what it may cost is bounded by a Budget. Errors know their position in the
// template and never quote a variable's value, which may be a secret. The package is pure.
package jinja

import (
	"fmt"
	"regexp"
	"strings"
)

// Scope is where a template's variables come from.
type Scope interface {
	// Lookup finds a variable. An error ends the evaluation; a variable whose own template asks for one that isn't defined
	// should be given as an Undefined instead, since `default` may still save it.
	Lookup(name string) (v Variable, found bool, err error)
	// Secret is told the name of a secret that the result may be made of: a variable that is one (Variable.Secret), or what is in
	// a mapping under a name that looks like one's. A mapping that is the result as it is doesn't count: the secrets in it are
	// under their names still. Nor does whether a secret is there at all.
	Secret(name string)
}

// Variable is a variable's value: nil, bool, int64, float64, string, []any, Tuple, *Dict, a Mapping or an *Undefined.
type Variable struct {
	Value any
	// Plain says that the variable is written out, not computed by a template of its own.
	Plain bool
	// Secret names the secret that the value is or is made of; empty for none.
	Secret string
}

// Error is why a template can't be compiled or evaluated.
type Error struct {
	// Offset is where in the template, in bytes.
	Offset int
	What   string
	// Undefined says that something wasn't defined, for which Ansible has its own treatment.
	Undefined bool
	// Exhausted says that the template costs more than the Budget allows.
	Exhausted bool
}

func (e *Error) Error() string { return e.What }

// failure is what the parser and the machine panic with; Compile and Value recover it and return its error, as text/template
// does. No other panic is recovered.
type failure struct{ err error }

// failAt is the failure of what is at an offset of the template.
func failAt(offset int, format string, args ...any) failure {
	return failure{&Error{Offset: offset, What: fmt.Sprintf(format, args...)}}
}

// catch is deferred by what returns failures as errors.
func catch(err *error) {
	switch r := recover().(type) {
	case nil:
	case failure:
		*err = r.err
	default:
		panic(r)
	}
}

// Template is a compiled template. It is immutable.
type Template struct {
	source string
	body   *node
	// bare is the name if the template is nothing but {{ name }}.
	bare string
	// textual says that the template is nothing but {{ … | string }}, whose result Ansible leaves a text whatever it reads as.
	textual bool
}

// Is tells whether Ansible takes a text for a template. Every text of an inventory is asked about.
func Is(text string) bool {
	for {
		i := strings.IndexByte(text, '{')
		if i < 0 || i+1 == len(text) {
			return false
		}
		if text = text[i+1:]; strings.IndexByte("{%#", text[0]) >= 0 {
			return true
		}
	}
}

// Compile reads a template, at the total's cost.
func (total *Total) Compile(source string) (t *Template, err error) {
	defer catch(&err)
	// Reading costs as well: a step for what a short token has.
	if total.steps -= len(source) / 4; total.steps < 0 {
		panic(failAt(0, "the templates of the inventory take too many steps together: more than %d", totalSteps))
	}
	if len(source) > maxSource {
		panic(failAt(0, "the template has more than %d bytes", maxSource))
	}
	// A template loses its last line end.
	p := &parser{source: strings.TrimSuffix(source, "\n"), tokens: tokenForm, constants: jinjaConstants}
	t = &Template{source: source}
	t.body, _ = p.body()
	if match := bareForm.FindStringSubmatch(source); match != nil {
		t.bare = match[1]
	}
	t.textual = len(t.body.of) == 1 && t.body.of[0].name == "filter string"
	return t, nil
}

// bareForm is a template that is nothing but {{ name }}.
var bareForm = regexp.MustCompile(`^\{\{\s*([\p{L}\p{Nd}_]+)\s*\}\}\n?$`)

// Value evaluates the template and gives what Ansible makes of the result.
func (t *Template) Value(scope Scope, budget *Budget) (result any, err error) {
	defer catch(&err)
	if t.bare != "" {
		v, found, err := scope.Lookup(t.bare)
		if err != nil {
			return nil, err
		}
		if found && v.Plain {
			switch v.Value.(type) {
			case nil, bool, int64, float64:
				if v.Secret != "" {
					scope.Secret(v.Secret)
				}
				return v.Value, nil
			}
		}
	}
	m := &machine{scope: scope, budget: budget}
	defer func() {
		if m.secret != "" {
			scope.Secret(m.secret)
		}
	}()
	text := m.body(t.body.of, true)
	if t.textual {
		return text, nil
	}
	if strings.HasPrefix(text, "{") || strings.HasPrefix(text, "[") || text == "True" || text == "False" {
		m.step(len(text) / 4)
		if literal, err := parseLiteral(text); err == nil {
			return m.eval(literal), nil
		}
	}
	m.read(m.copied)
	// Ansible puts back the line ends that the source has more than the result.
	if missing := trailingBreaks(t.source) - trailingBreaks(text); missing > 0 {
		text += strings.Repeat("\n", missing)
	}
	return text, nil
}

func trailingBreaks(text string) int { return len(text) - len(strings.TrimRight(text, "\n")) }

// Budget bounds what an evaluation, with all that it leads to, may cost.
type Budget struct {
	steps, bytes int
	total        *Total
}

// Total bounds what all evaluations for one purpose may cost together, such as those of a whole inventory.
type Total struct {
	steps, bytes int
}

// NewTotal gives what the templates of an inventory are allowed to cost together: some two seconds of computing. Those of a thousand
// clusters take less than a tenth.
func NewTotal() *Total { return &Total{steps: totalSteps, bytes: totalBytes} }

// Bounds of a Budget, and of what one operation may make.
const (
	maxSteps = 500_000
	maxBytes = 16 << 20
	// totalSteps and totalBytes are those of a Total.
	totalSteps = 4_000_000
	totalBytes = 256 << 20
	maxText    = 1 << 20
	maxItems   = 100_000
	maxSource  = 1 << 20
	// maxDepth bounds nesting in the source and in values, maxChain the operators and filters that follow each other: each is
	// a level of the tree, and so of the stack.
	maxDepth = 100
	maxChain = 1000
)

// NewBudget gives what one value of an inventory is allowed to cost, of what all are.
func (t *Total) NewBudget() *Budget { return &Budget{steps: maxSteps, bytes: maxBytes, total: t} }

// exhausted is the failure of a template that costs too much.
func (m *machine) exhausted(format string, args ...any) failure {
	f := m.failure(format, args...)
	f.err.(*Error).Exhausted = true
	return f
}

func (m *machine) step(n int) {
	if m.budget.steps -= n; m.budget.steps < 0 {
		panic(m.exhausted("the template takes too many steps: more than %d", maxSteps))
	}
	if m.budget.total.steps -= n; m.budget.total.steps < 0 {
		panic(m.exhausted("the templates of the inventory take too many steps together: more than %d", totalSteps))
	}
}

// made accounts for a text of n bytes before it is made.
func (m *machine) made(n int) {
	if n < 0 || n > maxText {
		panic(m.exhausted("the template makes a text of more than %d bytes", maxText))
	}
	if m.budget.bytes -= n; m.budget.bytes < 0 {
		panic(m.exhausted("the template makes more than %d bytes of text", maxBytes))
	}
	if m.budget.total.bytes -= n; m.budget.total.bytes < 0 {
		panic(m.exhausted("the templates of the inventory make more than %d bytes of text together", totalBytes))
	}
}

// listed accounts for a list of n items before it is made.
func (m *machine) listed(n int) {
	if n < 0 || n > maxItems {
		panic(m.exhausted("the template makes a list of more than %d items", maxItems))
	}
	m.step(n)
}
