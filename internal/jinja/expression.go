package jinja

import (
	"strings"
)

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
