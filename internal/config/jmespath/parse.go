package jmespath

// op is what a node of an expression does.
type op int

const (
	opIdentity op = iota // the current value: @, and what a projection without a tail applies
	opLiteral
	opField
	opIndex
	opSlice
	opChain      // kids applied one to the other's result: a.b, a[0], a | b
	opProjection // kids: list, what is applied to each item
	opValues     // kids: object, what is applied to each value
	opFilter     // kids: list, what is applied to each item kept, condition
	opFlatten
	opList
	opHash // kids are opPair
	opPair
	opOr
	opAnd
	opNot
	opCompare
	opCall
	opExpref
)

// node is a part of an expression.
type node struct {
	op     op
	offset int
	// name is a field's, a pair's, a function's or a comparator's.
	name  string
	value any
	slice [3]*int
	kids  []*node
}

// maxDepth bounds the nesting of an expression, so that a hostile one can't exhaust the stack.
const maxDepth = 200

// bindingPower orders the operators: the higher binds the tighter. The figures are those of the reference
// implementations; projections stop at a power below projectionStop.
var bindingPower = map[tokenKind]int{
	tokPipe: 1, tokOr: 2, tokAnd: 3, tokCompare: 5, tokFlatten: 9, tokStar: 20, tokFilter: 21, tokDot: 40, tokNot: 45,
	tokLeftBrace: 50, tokLeftBracket: 55, tokLeftParen: 60,
}

const projectionStop = 10

type parser struct {
	tokens []token
	at     int
	depth  int
}

func parse(text string) (*node, error) {
	tokens, err := scan(text)
	if err != nil {
		return nil, err
	}
	p := &parser{tokens: tokens}
	root, err := p.expression(0)
	if err != nil {
		return nil, err
	}
	if t := p.peek(); t.kind != tokEnd {
		return nil, unexpected(t)
	}
	if root.op == opExpref {
		return nil, failAt(root.offset, "& is for the arguments of functions only")
	}
	return root, nil
}

func (p *parser) peek() token { return p.tokens[p.at] }

// second is the token after the next one.
func (p *parser) second() token { return p.tokens[min(p.at+1, len(p.tokens)-1)] }

func (p *parser) take() token {
	t := p.tokens[p.at]
	if t.kind != tokEnd {
		p.at++
	}
	return t
}

func (p *parser) expect(kind tokenKind, what string) error {
	t := p.take()
	if t.kind != kind {
		return failAt(t.offset, "%s where %s is expected", t.text, what)
	}
	return nil
}

func unexpected(t token) error {
	if t.kind == tokEnd {
		return failAt(t.offset, "the expression is incomplete")
	}
	return failAt(t.offset, "%s isn't expected here", t.text)
}

// expression reads operators as long as they bind tighter than power.
func (p *parser) expression(power int) (*node, error) {
	if p.depth++; p.depth > maxDepth {
		return nil, failAt(p.peek().offset, "the expression is nested too deep")
	}
	defer func() { p.depth-- }()
	left, err := p.prefix(p.take())
	if err != nil {
		return nil, err
	}
	for length := 0; power < bindingPower[p.peek().kind]; length++ {
		if length > maxDepth {
			return nil, failAt(p.peek().offset, "the expression is too long")
		}
		if left.op == opExpref {
			return nil, unexpected(p.peek())
		}
		if left, err = p.infix(p.take(), left); err != nil {
			return nil, err
		}
	}
	return left, nil
}

// operand is an expression that has to have a value of its own.
func (p *parser) operand(power int) (*node, error) {
	n, err := p.expression(power)
	if err == nil && n.op == opExpref {
		return nil, failAt(n.offset, "& is for the arguments of functions only")
	}
	return n, err
}

// prefix reads what may begin an expression.
func (p *parser) prefix(t token) (*node, error) {
	identity := &node{op: opIdentity, offset: t.offset}
	switch t.kind {
	case tokLiteral:
		return &node{op: opLiteral, offset: t.offset, value: t.value}, nil
	case tokIdentifier:
		if p.peek().kind == tokLeftParen {
			return p.call(t)
		}
		return &node{op: opField, offset: t.offset, name: t.text}, nil
	case tokQuoted:
		if p.peek().kind == tokLeftParen {
			return nil, failAt(t.offset, "a function's name stands without quotes")
		}
		return &node{op: opField, offset: t.offset, name: t.text}, nil
	case tokCurrent:
		return identity, nil
	case tokStar:
		right, err := p.tail(bindingPower[tokStar])
		return &node{op: opValues, offset: t.offset, kids: []*node{identity, right}}, err
	case tokFilter:
		return p.filter(t, identity)
	case tokFlatten:
		return p.flatten(t, identity)
	case tokLeftBrace:
		return p.hash(t)
	case tokLeftBracket:
		switch next := p.peek(); {
		case next.kind == tokNumber || next.kind == tokColon:
			return p.index(t, identity)
		case next.kind == tokStar && p.second().kind == tokRightBracket:
			return p.star(t, identity)
		}
		return p.list(t)
	case tokExpref:
		n, err := p.operand(0)
		return &node{op: opExpref, offset: t.offset, kids: []*node{n}}, err
	case tokNot:
		n, err := p.operand(bindingPower[tokNot])
		return &node{op: opNot, offset: t.offset, kids: []*node{n}}, err
	case tokLeftParen:
		n, err := p.operand(0)
		if err != nil {
			return nil, err
		}
		return n, p.expect(tokRightParen, ")")
	}
	return nil, unexpected(t)
}

// infix reads what may follow an expression.
func (p *parser) infix(t token, left *node) (*node, error) {
	binary := func(op op) (*node, error) {
		right, err := p.operand(bindingPower[t.kind])
		return &node{op: op, offset: t.offset, name: t.text, kids: []*node{left, right}}, err
	}
	switch t.kind {
	case tokPipe:
		return binary(opChain)
	case tokOr:
		return binary(opOr)
	case tokAnd:
		return binary(opAnd)
	case tokCompare:
		return binary(opCompare)
	case tokDot:
		if p.peek().kind == tokStar {
			p.take()
			right, err := p.tail(bindingPower[tokDot])
			return &node{op: opValues, offset: t.offset, kids: []*node{left, right}}, err
		}
		right, err := p.afterDot(bindingPower[tokDot])
		return &node{op: opChain, offset: t.offset, kids: []*node{left, right}}, err
	case tokFilter:
		return p.filter(t, left)
	case tokFlatten:
		return p.flatten(t, left)
	case tokLeftBracket:
		if next := p.peek().kind; next == tokNumber || next == tokColon {
			return p.index(t, left)
		}
		return p.star(t, left)
	}
	return nil, unexpected(t)
}

// tail reads what a projection applies to each of its items.
func (p *parser) tail(power int) (*node, error) {
	t := p.peek()
	switch {
	case bindingPower[t.kind] < projectionStop:
		return &node{op: opIdentity, offset: t.offset}, nil
	case t.kind == tokLeftBracket || t.kind == tokFilter:
		return p.operand(power)
	case t.kind == tokDot:
		p.take()
		return p.afterDot(power)
	}
	return nil, unexpected(t)
}

func (p *parser) afterDot(power int) (*node, error) {
	t := p.peek()
	switch t.kind {
	case tokIdentifier, tokQuoted, tokStar:
		return p.operand(power)
	case tokLeftBracket:
		return p.list(p.take())
	case tokLeftBrace:
		return p.hash(p.take())
	}
	return nil, failAt(t.offset, "%s where a name, * , [ or { is expected after the dot", t.text)
}

func (p *parser) filter(t token, left *node) (*node, error) {
	condition, err := p.operand(0)
	if err != nil {
		return nil, err
	}
	if err := p.expect(tokRightBracket, "]"); err != nil {
		return nil, err
	}
	right, err := p.tail(bindingPower[tokFilter])
	return &node{op: opFilter, offset: t.offset, kids: []*node{left, right, condition}}, err
}

func (p *parser) flatten(t token, left *node) (*node, error) {
	right, err := p.tail(bindingPower[tokFlatten])
	flat := &node{op: opFlatten, offset: t.offset, kids: []*node{left}}
	return &node{op: opProjection, offset: t.offset, kids: []*node{flat, right}}, err
}

// star reads the rest of [*].
func (p *parser) star(t token, left *node) (*node, error) {
	if err := p.expect(tokStar, "a number, : or *"); err != nil {
		return nil, err
	}
	if err := p.expect(tokRightBracket, "]"); err != nil {
		return nil, err
	}
	right, err := p.tail(bindingPower[tokStar])
	return &node{op: opProjection, offset: t.offset, kids: []*node{left, right}}, err
}

// index reads the rest of [1] or of a slice [a:b:step], which is a projection.
func (p *parser) index(t token, left *node) (*node, error) {
	n := &node{op: opIndex, offset: t.offset}
	for part := 0; ; {
		switch next := p.take(); {
		case next.kind == tokNumber && n.slice[part] == nil:
			number := next.value.(int)
			n.slice[part] = &number
			if after := p.peek().kind; after != tokColon && after != tokRightBracket {
				return nil, unexpected(p.peek())
			}
		case next.kind == tokColon && part < 2:
			part++
			n.op = opSlice
		case next.kind == tokRightBracket:
			if step := n.slice[2]; step != nil && *step == 0 {
				return nil, failAt(t.offset, "a slice's step can't be 0")
			}
			found := &node{op: opChain, offset: t.offset, kids: []*node{left, n}}
			if n.op == opIndex {
				return found, nil
			}
			right, err := p.tail(bindingPower[tokStar])
			return &node{op: opProjection, offset: t.offset, kids: []*node{found, right}}, err
		default:
			return nil, unexpected(next)
		}
	}
}

// list reads the rest of [a, b].
func (p *parser) list(t token) (*node, error) {
	n := &node{op: opList, offset: t.offset}
	for {
		item, err := p.operand(0)
		if err != nil {
			return nil, err
		}
		n.kids = append(n.kids, item)
		if p.peek().kind == tokRightBracket {
			p.take()
			return n, nil
		}
		if err := p.expect(tokComma, ", or ]"); err != nil {
			return nil, err
		}
	}
}

// hash reads the rest of {name: a}.
func (p *parser) hash(t token) (*node, error) {
	n := &node{op: opHash, offset: t.offset}
	for {
		key := p.take()
		if key.kind != tokIdentifier && key.kind != tokQuoted {
			return nil, failAt(key.offset, "%s where a name is expected", key.text)
		}
		if err := p.expect(tokColon, ":"); err != nil {
			return nil, err
		}
		value, err := p.operand(0)
		if err != nil {
			return nil, err
		}
		n.kids = append(n.kids, &node{op: opPair, offset: key.offset, name: key.text, kids: []*node{value}})
		if p.peek().kind == tokRightBrace {
			p.take()
			return n, nil
		}
		if err := p.expect(tokComma, ", or }"); err != nil {
			return nil, err
		}
	}
}

// call reads a function's arguments and checks what can be known of them.
func (p *parser) call(name token) (*node, error) {
	n := &node{op: opCall, offset: name.offset, name: name.text}
	for p.take(); p.peek().kind != tokRightParen; {
		arg, err := p.expression(0)
		if err != nil {
			return nil, err
		}
		n.kids = append(n.kids, arg)
		if p.peek().kind == tokRightParen {
			break
		}
		if err := p.expect(tokComma, ", or )"); err != nil {
			return nil, err
		}
	}
	p.take()
	f, known := functions[n.name]
	if !known {
		return nil, failAt(n.offset, "unknown function %s", n.name)
	}
	return n, f.checkCall(n)
}
