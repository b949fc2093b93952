package jinja

// expression is a node of the syntax tree that has a value.
type expression interface {
	eval(m *machine) (any, error)
	// offset is where in the template it begins, for messages.
	offset() int
}

// statement is a node that writes to the output; machine.write knows each kind.
type statement interface{ statement() }

func (textNode) statement()    {}
func (printNode) statement()   {}
func (ifNode) statement()      {}
func (forNode) statement()     {}
func (setNode) statement()     {}
func (withNode) statement()    {}
func (filterBlock) statement() {}

// at is a place in the template.
type at int

func (a at) offset() int { return int(a) }

type (
	literalNode struct {
		at
		value any
	}
	nameNode struct {
		at
		name string
	}
	listNode struct {
		at
		items []expression
		tuple bool
	}
	dictNode struct {
		at
		keys, values []expression
	}
	attributeNode struct {
		at
		of   expression
		name string
	}
	indexNode struct {
		at
		of, index expression
	}
	sliceNode struct {
		at
		of, from, to, step expression
	}
	callNode struct {
		at
		callee expression
		args   arguments
	}
	filterNode struct {
		at
		of   expression
		name string
		do   filter
		args arguments
	}
	testNode struct {
		at
		of   expression
		name string
		do   test
		args arguments
	}
	notNode struct {
		at
		of expression
	}
	signNode struct {
		at
		of       expression
		negative bool
	}
	// logicNode is `and` or `or`.
	logicNode struct {
		at
		left, right expression
		or          bool
	}
	binaryNode struct {
		at
		left, right expression
		operator    string
	}
	// compareNode is a chain a < b < c.
	compareNode struct {
		at
		first     expression
		operators []string
		others    []expression
	}
	conditionNode struct {
		at
		test, then expression
		// otherwise is nil if there is no else.
		otherwise expression
	}
)

// arguments are those of a call, a filter or a test.
type arguments struct {
	positional []expression
	keywords   []keyword
}

type keyword struct {
	name  string
	value expression
}

type (
	textNode  string
	printNode struct{ of expression }
	ifNode    struct {
		tests  []expression
		bodies [][]statement
		// otherwise is what stands after else.
		otherwise []statement
	}
	forNode struct {
		at
		targets []string
		over    expression
		filter  expression
		body    []statement
		// otherwise runs if nothing was gone through.
		otherwise []statement
	}
	setNode struct {
		at
		targets []string
		// attribute is set for a namespace's.
		attribute string
		value     expression
		// body is what a block set captures, filters what it goes through.
		body    []statement
		filters []*filterNode
	}
	withNode struct {
		names  []string
		values []expression
		body   []statement
	}
	filterBlock struct {
		at
		filters []*filterNode
		body    []statement
	}
)
