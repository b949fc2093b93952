package jinja

import (
	"slices"
	"strings"
)

// node is an expression of the syntax tree.
type node struct {
	// op says which: body (of a template or a block), literal, name, list, tuple, dict, attribute, index, method, function (a
	// filter or a test), if, not, or the operator; machine.value knows each.
	op string
	// at is where in the template it stands, for messages.
	at int
	// of are the operands: of a dict its keys and values in turn, of an `if` its test, its value and, with an else, the other.
	of []*node
	// name is that of a variable, an attribute, a method or a function, value a literal's.
	name  string
	value any
	// keywords name the last operands of a method or a function, whose first is what it is of.
	keywords []string
}

// expression reads a condition `a if b else c`, or what is below.
func (p *parser) expression() *node {
	defer p.nested()()
	e := p.or()
	for p.is("if") {
		offset := p.next().offset
		e = &node{op: "if", at: offset, of: []*node{p.or(), e}}
		if p.accept("else") {
			e.of = append(e.of, p.expression())
		}
	}
	return e
}

// binary reads operands with operators of one strength between them, which go from left to right.
func (p *parser) binary(operand func() *node, operators ...string) *node {
	left := operand()
	for p.is(operators...) {
		t := p.next()
		left = &node{op: t.text, at: t.offset, of: []*node{left, operand()}}
	}
	return left
}

func (p *parser) or() *node      { return p.binary(p.and, "or") }
func (p *parser) and() *node     { return p.binary(p.not, "and") }
func (p *parser) sum() *node     { return p.binary(p.concat, "+", "-") }
func (p *parser) concat() *node  { return p.binary(p.product, "~") }
func (p *parser) product() *node { return p.binary(p.operand, "*", "/", "//", "%") }

func (p *parser) not() *node {
	if !p.is("not") {
		return p.compare()
	}
	defer p.nested()()
	offset := p.next().offset
	return &node{op: "not", at: offset, of: []*node{p.not()}}
}

var comparisons = []string{"==", "!=", "<", "<=", ">", ">=", "in"}

func (p *parser) compare() *node {
	left := p.sum()
	t := p.peek()
	switch {
	case p.is(comparisons...):
		p.next()
	case p.accept("not") && p.accept("in"):
		t.text = "not in"
	default:
		p.seek(t.offset)
		return left
	}
	right := p.sum()
	if p.is(comparisons...) {
		panic(refusal(p.peek().offset, "chain of comparisons"))
	}
	return &node{op: t.text, at: t.offset, of: []*node{left, right}}
}

// operand reads what operators stand between, with its filters and tests.
func (p *parser) operand() *node {
	e := p.filtersAndTests(p.unary())
	if p.is("**") {
		panic(refusal(p.peek().offset, "operator **"))
	}
	return e
}

func (p *parser) unary() *node {
	defer p.nested()()
	if !p.is("-", "+") {
		return p.postfix(p.primary())
	}
	t := p.next()
	factor := map[string]int64{"-": -1, "+": 1}[t.text]
	return &node{op: "*", at: t.offset, name: "sign", of: []*node{{op: "literal", at: t.offset, value: factor}, p.unary()}}
}

var jinjaConstants = map[string]any{"true": true, "True": true, "false": false, "False": false, "none": nil, "None": nil}
var pythonConstants = map[string]any{"true": true, "True": true, "false": false, "False": false, "null": nil, "None": nil}

func (p *parser) primary() *node {
	t := p.peek()
	n := &node{op: "literal", at: t.offset}
	switch {
	case t.kind == literal:
		n.value = p.next().value
		// Texts beside each other are one, as in Python.
		_, isText := n.value.(string)
		for more, joins := p.peek().value.(string); joins && isText; more, joins = p.peek().value.(string) {
			n.value = n.value.(string) + more
			p.next()
		}
	case t.kind == name:
		p.next()
		var isConstant bool
		if n.value, isConstant = p.constants[t.text]; !isConstant {
			n.op, n.name = "name", t.text
		}
	case p.accept("("):
		n.op = "tuple"
		if comma := p.items(")", func() { n.of = append(n.of, p.expression()) }); len(n.of) == 1 && !comma {
			return n.of[0]
		}
	case p.accept("["):
		n.op = "list"
		p.items("]", func() { n.of = append(n.of, p.expression()) })
	case p.accept("{"):
		n.op = "dict"
		p.items("}", func() {
			key := p.expression()
			p.expect(":")
			n.of = append(n.of, key, p.expression())
		})
	default:
		panic(p.unexpected(""))
	}
	return n
}

// items reads what has commas between it up to a closing bracket, and tells whether there is one after the last.
func (p *parser) items(closer string, item func()) (comma bool) {
	for first := true; !p.accept(closer); first = false {
		if !first {
			p.expect(",")
			if p.accept(closer) {
				return true
			}
		}
		item()
	}
	return false
}

// postfix reads .name, [index] and calls.
func (p *parser) postfix(e *node) *node {
	for {
		t := p.peek()
		switch {
		case p.accept("."):
			word := p.peek()
			_, isIndex := word.value.(int64)
			switch {
			case word.kind == name:
				e = &node{op: "attribute", at: t.offset, of: []*node{e}, name: word.text}
			case isIndex:
				e = &node{op: "index", at: t.offset, of: []*node{e, {op: "literal", at: word.offset, value: word.value}}}
			default:
				panic(p.unexpected("expected a name or an index"))
			}
			p.next()
		case p.accept("["):
			n := &node{op: "index", at: t.offset, of: []*node{e}}
			if !p.is(":") {
				n.of = append(n.of, p.expression())
			}
			if p.is(":") {
				panic(refusal(p.peek().offset, "slice [from:to]"))
			}
			p.expect("]")
			e = n
		case p.is("(") && e.op == "attribute":
			e.op = "method"
			p.arguments(e)
		case p.is("(") && e.op == "name":
			panic(refusal(e.at, "function "+e.name))
		default:
			return e
		}
	}
}

func (p *parser) arguments(n *node) {
	p.expect("(")
	p.items(")", func() {
		t := p.next()
		switch {
		case t.kind == name && p.accept("="):
			n.keywords = append(n.keywords, t.text)
		case len(n.keywords) > 0:
			panic(failAt(t.offset, "an argument without a name stands after one with a name"))
		default:
			p.seek(t.offset)
		}
		n.of = append(n.of, p.expression())
	})
}

// filtersAndTests reads what may follow an expression: | filter, is test.
func (p *parser) filtersAndTests(e *node) *node {
	for {
		t := p.peek()
		switch {
		case p.accept("|"):
			e = &node{op: "function", at: t.offset, of: []*node{e}, name: p.function("filter")}
			if p.is("(") {
				p.arguments(e)
			}
			nameInner(e)
		case p.accept("is"):
			e = p.test(e, t.offset)
		default:
			return e
		}
	}
}

func (p *parser) test(of *node, offset int) *node {
	negated := p.accept("not")
	t := &node{op: "function", at: offset, of: []*node{of}, name: p.function("test")}
	switch following := p.peek(); {
	case p.is("("):
		p.arguments(t)
	case p.is("is"):
		panic(refusal(following.offset, "chain of tests"))
	case p.is("else", "or", "and"):
	case following.kind == name, following.kind == literal, p.is("[", "{"):
		t.of = append(t.of, p.postfix(p.primary()))
	}
	if negated {
		return &node{op: "not", at: offset, of: []*node{t}}
	}
	return t
}

// function reads the name of a filter or a test, which may be written with its collection.
func (p *parser) function(kind string) string {
	offset, name := p.peek().offset, p.name()
	for p.accept(".") {
		name += "." + p.name()
	}
	return known(offset, kind, strings.TrimPrefix(name, "ansible.builtin."))
}

// overItems are the filters that take the name of a filter or of a test for each item, which is the operand at that index.
var overItems = map[string]int{"filter map": 1, "filter select": 1, "filter reject": 1, "filter selectattr": 2, "filter rejectattr": 2}

// nameInner checks that name, which has to be spelt out: nothing unknown is left for the evaluation.
func nameInner(n *node) {
	index := overItems[n.name]
	if index == 0 || index >= len(n.of)-len(n.keywords) {
		return
	}
	kind := "test"
	if n.name == "filter map" {
		kind = "filter"
	}
	name, spelt := n.of[index].value.(string)
	if !spelt || overItems["filter "+name] > 0 {
		panic(failAt(n.of[index].at, "%s takes the name of a %s in quotes, and of none that takes a name itself", n.name, kind))
	}
	known(n.of[index].at, kind, name)
}

// parseLiteral reads a text as Python's ast.literal_eval does, with JSON's true, false and null beside; an error if it isn't
// one. A set, bytes, a complex number and a number beyond 64 bits, which JSON can't hold or services don't need, aren't.
func parseLiteral(text string) (n *node, err error) {
	defer catch(&err)
	p := &parser{source: text, tokens: pythonTokenForm, constants: pythonConstants, escapes: true}
	n = p.expression()
	if p.peek().kind != over {
		panic(p.unexpected(""))
	}
	mustBeLiteral(n)
	return n, nil
}

// mustBeLiteral fails for anything that has to be computed.
func mustBeLiteral(n *node) {
	if !slices.Contains([]string{"literal", "list", "tuple", "dict"}, n.op) && n.name != "sign" {
		panic(failAt(n.at, "no literal"))
	}
	for _, operand := range n.of {
		mustBeLiteral(operand)
	}
}
