package jinja

import (
	"slices"
	"strings"
)

// parser makes the tree. The grammar is that of Jinja's parser.py.
type parser struct {
	tokens []token
	at     int
	depth  int
}

func (p *parser) peek() token { return p.tokens[p.at] }

func (p *parser) next() token {
	t := p.tokens[p.at]
	if t.kind != over {
		p.at++
	}
	return t
}

func (p *parser) is(operators ...string) bool {
	t := p.peek()
	return t.kind == operator && slices.Contains(operators, t.text)
}

func (p *parser) isName(names ...string) bool {
	t := p.peek()
	return t.kind == name && slices.Contains(names, t.text)
}

// accept goes past an operator if it is there.
func (p *parser) accept(operator string) bool {
	if p.is(operator) {
		p.at++
		return true
	}
	return false
}

func (p *parser) acceptName(word string) bool {
	if p.isName(word) {
		p.at++
		return true
	}
	return false
}

func (p *parser) expect(operator string) error {
	if p.accept(operator) {
		return nil
	}
	return p.unexpected("expected " + operator)
}

func (p *parser) fail(offset int, format string, args ...any) error {
	return locate(complain(format, args...), offset)
}

// unexpected complains of the next token.
func (p *parser) unexpected(want string) error {
	t := p.peek()
	what := t.text
	switch t.kind {
	case end, over:
		what = "the end"
	case text, beginPrint, beginBlock:
		what = "text"
	}
	if want != "" {
		want = ", " + want
	}
	return p.fail(t.offset, "the expression has %s where it can't be%s", what, want)
}

func (p *parser) name() (string, error) {
	if p.peek().kind != name {
		return "", p.unexpected("expected a name")
	}
	return p.next().text, nil
}

// deeper guards against nesting that would exhaust the stack.
func (p *parser) deeper() error {
	if p.depth++; p.depth > maxDepth {
		return p.fail(p.peek().offset, "the template is nested too deeply")
	}
	return nil
}

// body reads statements up to a block whose name is among ends, which is left to the caller; with none, up to the end.
func (p *parser) body(ends ...string) ([]statement, error) {
	if err := p.deeper(); err != nil {
		return nil, err
	}
	defer func() { p.depth-- }()
	var body []statement
	for {
		t := p.next()
		switch t.kind {
		case over:
			if len(ends) > 0 {
				return nil, p.fail(t.offset, "a block is never closed with {%% %s %%}", ends[len(ends)-1])
			}
			return body, nil
		case text:
			body = append(body, textNode(t.text))
		case beginPrint:
			e, err := p.tuple()
			if err != nil {
				return nil, err
			}
			if err := p.end(); err != nil {
				return nil, err
			}
			body = append(body, printNode{e})
		case beginBlock:
			if slices.Contains(ends, p.peek().text) {
				return body, nil
			}
			s, err := p.block()
			if err != nil {
				return nil, err
			}
			body = append(body, s)
		}
	}
}

func (p *parser) end() error {
	if p.peek().kind != end {
		return p.unexpected("")
	}
	p.at++
	return nil
}

// closing goes past the word that ended a body, and the end of its tag.
func (p *parser) closing() (string, error) {
	word := p.next().text
	if word == "elif" {
		return word, nil
	}
	return word, p.end()
}

func (p *parser) block() (statement, error) {
	t := p.peek()
	word, err := p.name()
	if err != nil {
		return nil, err
	}
	switch word {
	case "if":
		return p.ifBlock()
	case "for":
		return p.forBlock(t.offset)
	case "set":
		return p.setBlock(t.offset)
	case "with":
		return p.withBlock()
	case "filter":
		return p.filterBlock(t.offset)
	case "include", "import", "from", "extends":
		return nil, p.fail(t.offset, "{%% %s %%} is not available: a template can't read files", word)
	}
	return nil, p.fail(t.offset, "{%% %s %%} is not supported in an inventory", word)
}

func (p *parser) ifBlock() (statement, error) {
	var s ifNode
	for word := "if"; ; {
		switch word {
		case "if", "elif":
			e, err := p.tuple()
			if err != nil {
				return nil, err
			}
			if err := p.end(); err != nil {
				return nil, err
			}
			body, err := p.body("elif", "else", "endif")
			if err != nil {
				return nil, err
			}
			s.tests, s.bodies = append(s.tests, e), append(s.bodies, body)
		case "else":
			body, err := p.body("endif")
			if err != nil {
				return nil, err
			}
			s.otherwise = body
		case "endif":
			return s, nil
		}
		var err error
		if word, err = p.closing(); err != nil {
			return nil, err
		}
	}
}

// targets reads the names that a loop or a set assigns to.
func (p *parser) targets() ([]string, error) {
	wrapped := p.accept("(")
	var names []string
	for {
		n, err := p.name()
		if err != nil {
			return nil, err
		}
		names = append(names, n)
		if !p.accept(",") {
			break
		}
	}
	if wrapped {
		return names, p.expect(")")
	}
	return names, nil
}

func (p *parser) forBlock(offset int) (statement, error) {
	s := forNode{at: at(offset)}
	var err error
	if s.targets, err = p.targets(); err != nil {
		return nil, err
	}
	if !p.acceptName("in") {
		return nil, p.unexpected("expected in")
	}
	if s.over, err = p.tupleOf(p.or); err != nil {
		return nil, err
	}
	if p.acceptName("if") {
		if s.filter, err = p.expression(); err != nil {
			return nil, err
		}
	}
	if p.isName("recursive") {
		return nil, p.fail(p.peek().offset, "recursive loops are not supported in an inventory")
	}
	if err := p.end(); err != nil {
		return nil, err
	}
	if s.body, err = p.body("else", "endfor"); err != nil {
		return nil, err
	}
	word, err := p.closing()
	if err != nil {
		return nil, err
	}
	if word == "else" {
		if s.otherwise, err = p.body("endfor"); err != nil {
			return nil, err
		}
		_, err = p.closing()
	}
	return s, err
}

func (p *parser) setBlock(offset int) (statement, error) {
	s := setNode{at: at(offset)}
	var err error
	if s.targets, err = p.targets(); err != nil {
		return nil, err
	}
	if len(s.targets) == 1 && p.accept(".") {
		if s.attribute, err = p.name(); err != nil {
			return nil, err
		}
	}
	if p.accept("=") {
		if s.value, err = p.tuple(); err != nil {
			return nil, err
		}
		return s, p.end()
	}
	if s.filters, err = p.filters(); err != nil {
		return nil, err
	}
	if err := p.end(); err != nil {
		return nil, err
	}
	if s.body, err = p.body("endset"); err != nil {
		return nil, err
	}
	if s.body == nil {
		s.body = []statement{}
	}
	_, err = p.closing()
	return s, err
}

func (p *parser) withBlock() (statement, error) {
	var s withNode
	for p.peek().kind != end {
		n, err := p.name()
		if err != nil {
			return nil, err
		}
		if err := p.expect("="); err != nil {
			return nil, err
		}
		e, err := p.expression()
		if err != nil {
			return nil, err
		}
		s.names, s.values = append(s.names, n), append(s.values, e)
		if !p.accept(",") {
			break
		}
	}
	if err := p.end(); err != nil {
		return nil, err
	}
	var err error
	if s.body, err = p.body("endwith"); err != nil {
		return nil, err
	}
	_, err = p.closing()
	return s, err
}

func (p *parser) filterBlock(offset int) (statement, error) {
	s := filterBlock{at: at(offset)}
	first, err := p.filter(offset)
	if err != nil {
		return nil, err
	}
	rest, err := p.filters()
	if err != nil {
		return nil, err
	}
	s.filters = append([]*filterNode{first}, rest...)
	if err := p.end(); err != nil {
		return nil, err
	}
	if s.body, err = p.body("endfilter"); err != nil {
		return nil, err
	}
	_, err = p.closing()
	return s, err
}

// filters reads | name | name(…).
func (p *parser) filters() ([]*filterNode, error) {
	var all []*filterNode
	for p.is("|") {
		offset := p.next().offset
		f, err := p.filter(offset)
		if err != nil {
			return nil, err
		}
		all = append(all, f)
	}
	return all, nil
}

func (p *parser) dottedName() (string, error) {
	n, err := p.name()
	for err == nil && p.accept(".") {
		var part string
		part, err = p.name()
		n += "." + part
	}
	return n, err
}

// filter reads a filter's name and arguments.
func (p *parser) filter(offset int) (*filterNode, error) {
	place := p.peek().offset
	n, err := p.dottedName()
	if err != nil {
		return nil, err
	}
	f := &filterNode{at: at(offset), name: shortName(n)}
	var known bool
	if f.do, known = filters[f.name]; !known {
		return nil, p.fail(place, "the filter %s is not supported", n)
	}
	if !p.is("(") {
		return f, nil
	}
	if f.args, err = p.arguments(); err != nil {
		return nil, err
	}
	return f, p.innerName(f)
}

// shortName is a filter's or a test's name without Ansible's own prefix.
func shortName(name string) string { return strings.TrimPrefix(name, "ansible.builtin.") }

// innerName checks the filter or test that a filter is told to use on each item, where it is spelt out.
func (p *parser) innerName(f *filterNode) error {
	place, what := 0, "test"
	switch f.name {
	case "map":
		what = "filter"
	case "select", "reject":
	case "selectattr", "rejectattr":
		place = 1
	default:
		return nil
	}
	if place >= len(f.args.positional) {
		return nil
	}
	spelt, ok := f.args.positional[place].(*literalNode)
	if !ok {
		return nil
	}
	inner, ok := spelt.value.(string)
	_, isFilter := filters[shortName(inner)]
	_, isTest := tests[shortName(inner)]
	if !ok || what == "filter" && !isFilter || what == "test" && !isTest {
		return p.fail(spelt.offset(), "the %s %v is not supported", what, spelt.value)
	}
	return nil
}
