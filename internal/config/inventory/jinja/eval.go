package jinja

import (
	"fmt"
	"strings"

	"github.com/pgporter/pgporter/internal/config/safetext"
)

// machine evaluates one template. Whatever fails panics with a failure, which Template.Value returns.
type machine struct {
	scope  Scope
	budget *Budget
	// at is where the operation at hand stands, and doing its name where it has one: what a failure says.
	at    int
	doing string
	// depth is how many nodes are being evaluated.
	depth int
	// copying says that the result is being written, copied is a secret's name whose value was written into it.
	copying bool
	copied  string
	// secret is one that was read; existence says that it is only asked whether something is there.
	secret    string
	existence bool
}

// failure is that of the operation at hand.
func (m *machine) failure(format string, args ...any) failure {
	what := fmt.Sprintf(format, args...)
	if m.doing != "" {
		what = m.doing + ": " + what
	}
	return failAt(m.at, "%s", what)
}

// undefined is what an operation gives that finds nothing.
func (m *machine) undefined(format string, args ...any) *Undefined {
	return &Undefined{Cause: &Error{Offset: m.at, What: fmt.Sprintf(format, args...), Undefined: true}}
}

// eval gives a node's value. What fails after it, while the value is used, is placed at the node.
func (m *machine) eval(n *node) any {
	m.at, m.doing = n.at, ""
	m.step(1)
	if m.depth++; m.depth > maxChain {
		panic(m.exhausted("the template is nested too deeply"))
	}
	v := m.value(n)
	m.depth--
	m.at, m.doing = n.at, ""
	return v
}

func (m *machine) value(n *node) any {
	switch n.op {
	case "literal":
		return n.value
	case "body":
		return m.body(n.of, false)
	case "name":
		return m.lookup(n)
	case "if":
		switch {
		case m.truth(m.eval(n.of[0])):
			return m.eval(n.of[1])
		case len(n.of) > 2:
			return m.eval(n.of[2])
		}
		m.at = n.at
		u := m.undefined("the condition is false and has no else")
		u.soft = true
		return u
	case "and", "or":
		left := m.eval(n.of[0])
		if m.truth(left) == (n.op == "or") {
			return left
		}
		return m.eval(n.of[1])
	case "not":
		return !m.truth(m.eval(n.of[0]))
	}
	if (n.name == "test defined" || n.name == "test undefined") && !m.existence {
		m.existence = true
		defer func() { m.existence = false }()
	}
	values := make([]any, 0, len(n.of))
	name := n.name
	for i, operand := range n.of {
		values = append(values, m.eval(operand))
		if n.op == "method" && i == 0 {
			name = known(n.at, methods(defined(values[0])), name)
		}
	}
	m.at, m.doing = n.at, ""
	switch n.op {
	case "list":
		return values
	case "tuple":
		return Tuple(values)
	case "dict":
		d := NewDict()
		for i := 0; i < len(values); i += 2 {
			if !d.Set(defined(values[i]), values[i+1]) {
				m.at = n.of[i].at
				panic(m.failure("%s can't be a key", describe(values[i])))
			}
		}
		return d
	case "attribute":
		return m.attributeOf(values[0], name)
	case "index":
		return m.item(values[0], values[1], n.of[1].op == "literal")
	case "+", "-", "~", "*", "/", "//", "%":
		return m.operate(values[0], n.op, values[1])
	case "function", "method":
		return m.call(name, values[0], given{values[1:], n.keywords})
	}
	return m.compares(values[0], n.op, values[1])
}

// body gives what parts of a template write, one after the other. None writes nothing. If it is the template's whole, and of one
// part, what that writes is the result.
func (m *machine) body(parts []*node, whole bool) string {
	var out strings.Builder
	for _, part := range parts {
		if v := m.eval(part); v != nil {
			m.copying = whole && len(parts) == 1
			text := m.str(v)
			m.copying = false
			m.made(len(text))
			out.WriteString(text)
		}
		if out.Len() > maxText {
			m.made(out.Len())
		}
	}
	return out.String()
}

func (m *machine) lookup(n *node) any {
	v, found, err := m.scope.Lookup(n.name)
	switch {
	case err != nil:
		panic(failure{err})
	case found:
		m.read(v.Secret)
		return v.Value
	case refusals["function "+n.name] != "":
		panic(refusal(n.at, "function "+n.name))
	}
	return m.undefined("the variable %q is not defined", n.name)
}

// attributeOf gives value.name. The name of a method isn't that of a key, even if there is one.
func (m *machine) attributeOf(of any, name string) any {
	if method := methods(of) + " " + name; functions[method] != nil || refusals[method] != "" {
		panic(m.failure("%s is a function of %s: it needs parentheses, and a key of that name ['%s']", name, describe(of), name))
	}
	return m.item(of, name, true)
}

// item gives what is under a key or at an index. A key that isn't spelt out in the template isn't named in the error: what a
// variable holds may be a secret.
func (m *machine) item(of, key any, spelt bool) any {
	v, found := m.member(of, key)
	name, isText := key.(string)
	switch {
	case found:
		return v
	case isText && spelt:
		return m.undefined("%s has no %q", describe(of), name)
	}
	return m.undefined("%s has nothing there", describe(of))
}

// member gives what is under a key or at an index. What isn't defined has all members, none of them defined.
func (m *machine) member(of, key any) (any, bool) {
	if u, ok := of.(*Undefined); ok {
		return u, true
	}
	key = defined(key)
	switch container := of.(type) {
	case *Dict:
		v, found := container.Get(key)
		if name, isText := key.(string); found && isText && !container.Public && safetext.IsSecret(name) {
			if m.copying {
				m.copied = name
			} else {
				m.read(name)
			}
		}
		return v, found
	case Mapping:
		if name, ok := key.(string); ok {
			v, found, err := container.Get(name)
			if err != nil {
				panic(failure{err})
			}
			m.read(v.Secret)
			return v.Value, found
		}
	case []any, Tuple, string:
		i, isIndex := whole(key)
		items := m.items(of)
		if i < 0 {
			i += int64(len(items))
		}
		if isIndex && i >= 0 && i < int64(len(items)) {
			return items[i], true
		}
	}
	return nil, false
}

// read notes that a secret was read; empty for none.
func (m *machine) read(secret string) {
	if secret != "" && !m.existence {
		m.secret = secret
	}
}
