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

// tuple reads an expression, or several with commas between them, which are a tuple.
func (p *parser) tuple() (expression, error) { return p.tupleOf(p.expression) }

func (p *parser) tupleOf(item func() (expression, error)) (expression, error) {
	offset := p.peek().offset
	first, err := item()
	if err != nil || !p.is(",") {
		return first, err
	}
	items := []expression{first}
	for p.accept(",") {
		if p.peek().kind == end || p.is(")") {
			break
		}
		e, err := item()
		if err != nil {
			return nil, err
		}
		items = append(items, e)
	}
	return &listNode{at: at(offset), items: items, tuple: true}, nil
}

// expression reads a condition `a if b else c`, or what is below.
func (p *parser) expression() (expression, error) {
	if err := p.deeper(); err != nil {
		return nil, err
	}
	defer func() { p.depth-- }()
	e, err := p.or()
	for err == nil && p.isName("if") {
		c := &conditionNode{at: at(p.next().offset), then: e}
		if c.test, err = p.or(); err != nil {
			return nil, err
		}
		if p.acceptName("else") {
			if c.otherwise, err = p.expression(); err != nil {
				return nil, err
			}
		}
		e = c
	}
	return e, err
}

func (p *parser) or() (expression, error) {
	left, err := p.and()
	for err == nil && p.isName("or") {
		n := &logicNode{at: at(p.next().offset), left: left, or: true}
		n.right, err = p.and()
		left = n
	}
	return left, err
}

func (p *parser) and() (expression, error) {
	left, err := p.not()
	for err == nil && p.isName("and") {
		n := &logicNode{at: at(p.next().offset), left: left}
		n.right, err = p.not()
		left = n
	}
	return left, err
}

func (p *parser) not() (expression, error) {
	if !p.isName("not") {
		return p.compare()
	}
	if err := p.deeper(); err != nil {
		return nil, err
	}
	defer func() { p.depth-- }()
	n := &notNode{at: at(p.next().offset)}
	var err error
	n.of, err = p.not()
	return n, err
}

func (p *parser) compare() (expression, error) {
	first, err := p.sum()
	if err != nil {
		return nil, err
	}
	c := &compareNode{at: at(p.peek().offset), first: first}
	for {
		var word string
		switch {
		case p.is("==", "!=", "<", "<=", ">", ">="):
			word = p.next().text
		case p.acceptName("in"):
			word = "in"
		case p.isName("not") && p.tokens[p.at+1].kind == name && p.tokens[p.at+1].text == "in":
			p.at += 2
			word = "not in"
		default:
			if len(c.operators) == 0 {
				return first, nil
			}
			return c, nil
		}
		other, err := p.sum()
		if err != nil {
			return nil, err
		}
		c.operators, c.others = append(c.operators, word), append(c.others, other)
	}
}

// binary reads operands with operators of one strength between them, which go from left to right.
func (p *parser) binary(operand func() (expression, error), operators ...string) (expression, error) {
	left, err := operand()
	for err == nil && p.is(operators...) {
		t := p.next()
		n := &binaryNode{at: at(t.offset), left: left, operator: t.text}
		n.right, err = operand()
		left = n
	}
	return left, err
}

func (p *parser) sum() (expression, error)    { return p.binary(p.concat, "+", "-") }
func (p *parser) concat() (expression, error) { return p.binary(p.product, "~") }
func (p *parser) product() (expression, error) {
	return p.binary(p.power, "*", "/", "//", "%")
}
func (p *parser) power() (expression, error) {
	return p.binary(func() (expression, error) { return p.unary(true) }, "**")
}

func (p *parser) unary(withFilters bool) (expression, error) {
	if err := p.deeper(); err != nil {
		return nil, err
	}
	defer func() { p.depth-- }()
	var e expression
	var err error
	if p.is("-", "+") {
		t := p.next()
		n := &signNode{at: at(t.offset), negative: t.text == "-"}
		n.of, err = p.unary(false)
		e = n
	} else {
		e, err = p.primary()
	}
	if err != nil {
		return nil, err
	}
	if e, err = p.postfix(e); err != nil || !withFilters {
		return e, err
	}
	return p.filtersAndTests(e)
}

func (p *parser) primary() (expression, error) {
	t := p.peek()
	switch t.kind {
	case name:
		p.at++
		switch t.text {
		case "true", "True":
			return &literalNode{at(t.offset), true}, nil
		case "false", "False":
			return &literalNode{at(t.offset), false}, nil
		case "none", "None":
			return &literalNode{at(t.offset), nil}, nil
		}
		return &nameNode{at(t.offset), t.text}, nil
	case number:
		p.at++
		return &literalNode{at(t.offset), t.value}, nil
	case quoted:
		var whole strings.Builder
		for p.peek().kind == quoted {
			whole.WriteString(p.next().value.(string))
		}
		return &literalNode{at(t.offset), whole.String()}, nil
	}
	switch {
	case p.accept("("):
		if p.accept(")") {
			return &listNode{at: at(t.offset), tuple: true}, nil
		}
		e, err := p.tuple()
		if err != nil {
			return nil, err
		}
		return e, p.expect(")")
	case p.accept("["):
		items, err := p.items("]")
		return &listNode{at: at(t.offset), items: items}, err
	case p.accept("{"):
		return p.dict(t.offset)
	}
	return nil, p.unexpected("")
}

// items reads expressions up to a closing bracket.
func (p *parser) items(closer string) ([]expression, error) {
	var items []expression
	for !p.accept(closer) {
		if len(items) > 0 {
			if err := p.expect(","); err != nil {
				return nil, err
			}
			if p.accept(closer) {
				break
			}
		}
		e, err := p.expression()
		if err != nil {
			return nil, err
		}
		items = append(items, e)
	}
	return items, nil
}

func (p *parser) dict(offset int) (expression, error) {
	d := &dictNode{at: at(offset)}
	for !p.accept("}") {
		if len(d.keys) > 0 {
			if err := p.expect(","); err != nil {
				return nil, err
			}
			if p.accept("}") {
				break
			}
		}
		key, err := p.expression()
		if err != nil {
			return nil, err
		}
		if err := p.expect(":"); err != nil {
			return nil, err
		}
		value, err := p.expression()
		if err != nil {
			return nil, err
		}
		d.keys, d.values = append(d.keys, key), append(d.values, value)
	}
	return d, nil
}

// postfix reads .name, [index] and calls.
func (p *parser) postfix(e expression) (expression, error) {
	for {
		t := p.peek()
		switch {
		case p.accept("."):
			word := p.next()
			switch word.kind {
			case name:
				e = &attributeNode{at(t.offset), e, word.text}
			case number:
				e = &indexNode{at(t.offset), e, &literalNode{at(word.offset), word.value}}
			default:
				p.at--
				return nil, p.unexpected("expected a name")
			}
		case p.accept("["):
			var err error
			if e, err = p.subscript(e, t.offset); err != nil {
				return nil, err
			}
		case p.is("("):
			args, err := p.arguments()
			if err != nil {
				return nil, err
			}
			e = &callNode{at(t.offset), e, args}
		default:
			return e, nil
		}
	}
}

func (p *parser) subscript(of expression, offset int) (expression, error) {
	var parts [3]expression
	colons := 0
	for !p.accept("]") {
		switch {
		case p.accept(":"):
			if colons++; colons > 2 {
				return nil, p.unexpected("expected ]")
			}
		case p.is(","):
			return nil, p.unexpected("expected ]")
		case parts[colons] != nil:
			return nil, p.unexpected("expected ]")
		default:
			e, err := p.expression()
			if err != nil {
				return nil, err
			}
			parts[colons] = e
		}
	}
	switch {
	case colons > 0:
		return &sliceNode{at(offset), of, parts[0], parts[1], parts[2]}, nil
	case parts[0] == nil:
		return nil, p.fail(offset, "the brackets are empty")
	}
	return &indexNode{at(offset), of, parts[0]}, nil
}

func (p *parser) arguments() (arguments, error) {
	var args arguments
	p.at++
	for first := true; !p.accept(")"); first = false {
		if !first {
			if err := p.expect(","); err != nil {
				return args, err
			}
			if p.accept(")") {
				break
			}
		}
		t := p.peek()
		if p.is("*", "**") {
			return args, p.fail(t.offset, "%s arguments are not supported in an inventory", t.text)
		}
		if following := p.tokens[p.at+1]; t.kind == name && following.kind == operator && following.text == "=" {
			p.at += 2
			e, err := p.expression()
			if err != nil {
				return args, err
			}
			args.keywords = append(args.keywords, keyword{t.text, e})
			continue
		}
		e, err := p.expression()
		if err != nil {
			return args, err
		}
		if len(args.keywords) > 0 {
			return args, p.fail(t.offset, "an argument without a name stands after one with a name")
		}
		args.positional = append(args.positional, e)
	}
	return args, nil
}

// filtersAndTests reads what may follow an expression: | filter, is test, calls.
func (p *parser) filtersAndTests(e expression) (expression, error) {
	for {
		t := p.peek()
		switch {
		case p.accept("|"):
			f, err := p.filter(t.offset)
			if err != nil {
				return nil, err
			}
			f.of = e
			e = f
		case p.acceptName("is"):
			var err error
			if e, err = p.test(e, t.offset); err != nil {
				return nil, err
			}
		case p.is("("):
			args, err := p.arguments()
			if err != nil {
				return nil, err
			}
			e = &callNode{at(t.offset), e, args}
		default:
			return e, nil
		}
	}
}

func (p *parser) test(of expression, offset int) (expression, error) {
	negated := p.acceptName("not")
	place := p.peek().offset
	n, err := p.dottedName()
	if err != nil {
		return nil, err
	}
	t := &testNode{at: at(offset), of: of, name: shortName(n)}
	var known bool
	if t.do, known = tests[t.name]; !known {
		return nil, p.fail(place, "the test %s is not supported", n)
	}
	switch following := p.peek(); {
	case p.is("("):
		t.args, err = p.arguments()
	case p.isName("else", "or", "and", "is", "if", "in", "not"):
	case following.kind == name, following.kind == number, following.kind == quoted, p.is("[", "{"):
		var argument expression
		if argument, err = p.primary(); err == nil {
			argument, err = p.postfix(argument)
		}
		t.args.positional = []expression{argument}
	}
	if err != nil {
		return nil, err
	}
	if negated {
		return &notNode{at(offset), t}, nil
	}
	return t, nil
}
