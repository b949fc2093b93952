package jmespath

import (
	"maps"
	"slices"
)

// Fields names the variables of members that the expression may look at, sorted; names that it only looks for deeper inside
// a variable are among them. whole says that it may look at a member as a whole (keys(@), [].*), so that no list of names
// is enough.
func (s *Selector) Fields() (names []string, whole bool) {
	w := fieldWalk{names: map[string]bool{}}
	w.walk(s.root, holdsMembers)
	return slices.Sorted(maps.Keys(w.names)), w.whole
}

// holds tells what an expression's value may be, as far as members are concerned.
type holds int

const (
	// holdsMembers is a list of members.
	holdsMembers holds = 1 << iota
	// holdsMember is one.
	holdsMember
	// holdsDeeper is something that the expression made with members somewhere inside.
	holdsDeeper
)

type fieldWalk struct {
	names map[string]bool
	whole bool
}

// walk notes the names below n, which is applied to something that holds what v says, and tells what its result holds.
func (w *fieldWalk) walk(n *node, v holds) holds {
	switch n.op {
	case opIdentity, opSlice:
		return v
	case opField:
		w.names[n.name] = true
		return deeper(v)
	case opIndex:
		return items(v)
	case opChain:
		return w.walk(n.kids[1], w.walk(n.kids[0], v))
	case opProjection, opFilter:
		each := items(w.walk(n.kids[0], v))
		if n.op == opFilter {
			w.walk(n.kids[2], each)
		}
		return listOf(w.walk(n.kids[1], each))
	case opValues:
		left := w.walk(n.kids[0], v)
		w.consume(left)
		return listOf(w.walk(n.kids[1], deeper(left)))
	case opFlatten:
		left := w.walk(n.kids[0], v)
		return left | deeper(left)
	case opList:
		return w.all(n.kids, v, listOf)
	case opHash:
		return w.all(n.kids, v, made)
	case opPair, opExpref:
		return w.walk(n.kids[0], v)
	case opOr, opAnd:
		return w.all(n.kids, v, func(h holds) holds { return h })
	case opNot:
		w.walk(n.kids[0], v)
	case opCompare:
		w.consume(w.all(n.kids, v, func(h holds) holds { return h }))
	case opCall:
		return w.call(n, v)
	}
	return 0
}

func (w *fieldWalk) all(kids []*node, v holds, wrap func(holds) holds) holds {
	var result holds
	for _, kid := range kids {
		result |= wrap(w.walk(kid, v))
	}
	return result
}

func (w *fieldWalk) call(n *node, v holds) holds {
	switch n.name {
	case "map":
		return listOf(w.walk(n.kids[0], items(w.walk(n.kids[1], v))))
	case "sort_by", "max_by", "min_by":
		list := w.walk(n.kids[0], v)
		w.walk(n.kids[1], items(list))
		if n.name == "sort_by" {
			return list
		}
		return items(list)
	}
	args := w.all(n.kids, v, func(h holds) holds { return h })
	switch n.name {
	case "keys", "to_string", "length", "contains":
		w.consume(args)
	case "values", "merge":
		w.consume(args)
		return made(args)
	case "to_array":
		return args | listOf(args)
	case "not_null", "reverse":
		return args
	}
	return 0
}

// consume notes that something is looked at as a whole. A list of members has a length that doesn't depend on what is in them.
func (w *fieldWalk) consume(h holds) {
	if h&(holdsMember|holdsDeeper) != 0 {
		w.whole = true
	}
}

// items is what the items of a list hold.
func items(h holds) holds {
	if h&holdsMembers != 0 {
		return holdsMember | deeper(h)
	}
	return deeper(h)
}

// listOf is what a list of something holds.
func listOf(h holds) holds {
	if h == holdsMember {
		return holdsMembers
	}
	return made(h)
}

// made is what something holds that was made of h.
func made(h holds) holds {
	if h != 0 {
		return holdsDeeper
	}
	return 0
}

// deeper is what may be found inside something that the expression made: anything.
func deeper(h holds) holds {
	if h&holdsDeeper != 0 {
		return holdsMembers | holdsMember | holdsDeeper
	}
	return 0
}
