package jinja

import (
	"slices"
	"strings"
)

// machine evaluates one template.
type machine struct {
	scope  Scope
	budget *Budget
	// frames are the names that the template itself has set, the innermost block's last.
	frames []map[string]any
}

// text runs statements and gives what they write.
func (m *machine) text(body []statement) (string, error) {
	var out strings.Builder
	err := m.write(&out, body)
	return out.String(), err
}

func (m *machine) write(out *strings.Builder, body []statement) error {
	for _, s := range body {
		if err := m.budget.step(1); err != nil {
			return err
		}
		var piece string
		var err error
		switch s := s.(type) {
		case textNode:
			piece = string(s)
		case printNode:
			piece, err = m.printed(s.of)
		case ifNode:
			err = m.runIf(out, s)
		case forNode:
			err = m.runFor(out, s)
		case setNode:
			err = locate(m.runSet(s), s.offset())
		case withNode:
			err = m.runWith(out, s)
		case filterBlock:
			if piece, err = m.inner(s.body); err == nil {
				var v any
				if v, err = m.through(piece, s.filters); err == nil {
					piece, err = m.str(v)
				}
			}
			err = locate(err, s.offset())
		}
		if err != nil {
			return err
		}
		if out.Len()+len(piece) > maxText {
			return m.budget.made(out.Len() + len(piece))
		}
		out.WriteString(piece)
	}
	return nil
}

// inner runs a body in a frame of its own.
func (m *machine) inner(body []statement) (string, error) {
	m.push()
	defer m.pop()
	return m.text(body)
}

func (m *machine) push() { m.frames = append(m.frames, map[string]any{}) }
func (m *machine) pop()  { m.frames = m.frames[:len(m.frames)-1] }

// printed is what {{ … }} writes: nothing for None.
func (m *machine) printed(e expression) (string, error) {
	v, err := e.eval(m)
	if err != nil || v == nil {
		return "", err
	}
	text, err := m.str(v)
	if err == nil {
		err = m.budget.made(len(text))
	}
	return text, locate(err, e.offset())
}

func (m *machine) truth(e expression) (bool, error) {
	v, err := e.eval(m)
	if err != nil {
		return false, err
	}
	yes, err := truth(v)
	return yes, locate(err, e.offset())
}

// through puts a value through filters.
func (m *machine) through(v any, filters []*filterNode) (any, error) {
	for _, f := range filters {
		var err error
		if v, err = f.apply(m, v); err != nil {
			return nil, err
		}
	}
	return v, nil
}

// lookup finds a name: what the template set, the scope's variables, then the few functions that there are.
func (m *machine) lookup(name string) (any, error) {
	for _, frame := range slices.Backward(m.frames) {
		if v, ok := frame[name]; ok {
			return v, nil
		}
	}
	v, found, err := m.scope.Lookup(name)
	if err != nil {
		return nil, err
	}
	if found {
		return v.Value, nil
	}
	if f, ok := functions[name]; ok {
		return f, nil
	}
	if why, ok := refusedFunctions[name]; ok {
		return nil, complain("%s is not available: %s", name, why)
	}
	return &Undefined{What: "the variable \"" + name + "\" is not defined"}, nil
}

func (n *literalNode) eval(*machine) (any, error) { return n.value, nil }

func (n *nameNode) eval(m *machine) (any, error) {
	if err := m.budget.step(1); err != nil {
		return nil, locate(err, n.offset())
	}
	v, err := m.lookup(n.name)
	if u, ok := v.(*Undefined); ok && u.Cause == nil {
		// Where the name stands is more use than where it is used.
		return &Undefined{What: u.What, Cause: locate(undefinedUse(u.What), n.offset())}, nil
	}
	return v, locate(err, n.offset())
}

func (m *machine) evalAll(expressions []expression) ([]any, error) {
	values := make([]any, 0, len(expressions))
	for _, e := range expressions {
		v, err := e.eval(m)
		if err != nil {
			return nil, err
		}
		values = append(values, v)
	}
	return values, nil
}

func (n *listNode) eval(m *machine) (any, error) {
	items, err := m.evalAll(n.items)
	if n.tuple {
		return Tuple(items), err
	}
	return items, err
}

func (n *dictNode) eval(m *machine) (any, error) {
	d := NewDict()
	for i, k := range n.keys {
		key, err := k.eval(m)
		if err != nil {
			return nil, err
		}
		v, err := n.values[i].eval(m)
		if err != nil {
			return nil, err
		}
		if u, ok := key.(*Undefined); ok {
			return nil, locate(u.use(), k.offset())
		}
		if !d.Set(key, v) {
			return nil, locate(complain("%s can't be a key", describe(key)), k.offset())
		}
	}
	return d, nil
}

func (n *attributeNode) eval(m *machine) (any, error) {
	of, err := n.of.eval(m)
	if err != nil {
		return nil, err
	}
	if u, ok := of.(*Undefined); ok {
		return u, nil
	}
	if _, is := methodOf(of, n.name); is {
		return nil, locate(complain("%s is a function of %s: it needs parentheses", n.name, describe(of)), n.offset())
	}
	v, err := m.member(of, n.name)
	return m.undefinedAt(missing(v, of, n.name), n.offset()), locate(err, n.offset())
}

// missing names what isn't there, if the template itself spells it: what a variable holds may be a secret.
func missing(v, of, key any) any {
	name, isText := key.(string)
	if u, ok := v.(*Undefined); ok && u.Cause == nil && isText {
		return &Undefined{What: describe(of) + " has no \"" + name + "\""}
	}
	return v
}

// undefinedAt gives something undefined its place.
func (m *machine) undefinedAt(v any, offset int) any {
	if u, ok := v.(*Undefined); ok && u.Cause == nil {
		return &Undefined{What: u.What, Cause: locate(undefinedUse(u.What), offset)}
	}
	return v
}

// member gives what is under a key or at an index.
func (m *machine) member(of, key any) (any, error) {
	switch container := of.(type) {
	case *Undefined:
		return container, nil
	case *namespace:
		of = container.values
	}
	if u, ok := key.(*Undefined); ok {
		return nil, u.use()
	}
	switch container := of.(type) {
	case *Dict:
		if v, has := container.Get(key); has {
			return v, nil
		}
	case Mapping:
		if name, ok := key.(string); ok {
			v, has, err := container.Get(name)
			if has || err != nil {
				return v, err
			}
		}
	case []any:
		return m.indexed(container, len(container), func(i int) any { return container[i] }, key)
	case Tuple:
		return m.indexed(container, len(container), func(i int) any { return container[i] }, key)
	case string:
		runes := []rune(container)
		return m.indexed(container, len(runes), func(i int) any { return string(runes[i]) }, key)
	}
	return noMember(of), nil
}

func noMember(of any) any { return &Undefined{What: describe(of) + " has nothing there"} }

func (m *machine) indexed(of any, length int, get func(int) any, key any) (any, error) {
	i, ok := whole(key)
	if !ok {
		return noMember(of), nil
	}
	if i < 0 {
		i += int64(length)
	}
	if i < 0 || i >= int64(length) {
		return noMember(of), nil
	}
	return get(int(i)), nil
}

func (n *indexNode) eval(m *machine) (any, error) {
	of, err := n.of.eval(m)
	if err != nil {
		return nil, err
	}
	key, err := n.index.eval(m)
	if err != nil {
		return nil, err
	}
	v, err := m.member(of, key)
	if spelt, ok := n.index.(*literalNode); ok {
		v = missing(v, of, spelt.value)
	}
	return m.undefinedAt(v, n.offset()), locate(err, n.offset())
}

func (n *sliceNode) eval(m *machine) (any, error) {
	of, err := n.of.eval(m)
	if err != nil {
		return nil, err
	}
	bounds := [3]*int64{}
	for i, e := range []expression{n.from, n.to, n.step} {
		if e == nil {
			continue
		}
		v, err := e.eval(m)
		if err != nil {
			return nil, err
		}
		if u, ok := v.(*Undefined); ok {
			return nil, locate(u.use(), e.offset())
		}
		bound, ok := whole(v)
		if !ok && v != nil {
			return nil, locate(complain("%s can't be a place in a list", describe(v)), e.offset())
		}
		if ok {
			bounds[i] = &bound
		}
	}
	v, err := m.slice(of, bounds[0], bounds[1], bounds[2])
	return v, locate(err, n.offset())
}

func (m *machine) slice(of any, from, to, step *int64) (any, error) {
	var items []any
	switch of := of.(type) {
	case []any:
		items = of
	case Tuple:
		items = of
	case string:
		runes, err := m.items(of)
		if err != nil {
			return nil, err
		}
		items = runes
	case *Undefined:
		return of, nil
	default:
		return nil, complain("%s can't be cut", describe(of))
	}
	by := int64(1)
	if step != nil {
		by = *step
	}
	if by == 0 {
		return nil, complain("a slice can't go by 0")
	}
	n := int64(len(items))
	least, most := int64(0), n
	start, stop := int64(0), n
	if by < 0 {
		least, most = -1, n-1
		start, stop = n-1, -1
	}
	bound := func(given *int64, otherwise int64) int64 {
		if given == nil {
			return otherwise
		}
		i := *given
		if i < 0 {
			i = max(i+n, least)
		}
		return min(max(i, least), most)
	}
	start, stop = bound(from, start), bound(to, stop)
	cut := []any{}
	for i := start; by > 0 && i < stop || by < 0 && i > stop; i += by {
		cut = append(cut, items[i])
		if by > n || by < -n {
			break
		}
	}
	if err := m.budget.listed(len(cut)); err != nil {
		return nil, err
	}
	switch of.(type) {
	case Tuple:
		return Tuple(cut), nil
	case string:
		var b strings.Builder
		for _, c := range cut {
			b.WriteString(c.(string))
		}
		return b.String(), nil
	}
	return cut, nil
}

func (n *filterNode) eval(m *machine) (any, error) {
	v, err := n.of.eval(m)
	if err != nil {
		return nil, err
	}
	return n.apply(m, v)
}

func (n *filterNode) apply(m *machine, v any) (any, error) {
	args, err := n.args.eval(m)
	if err != nil {
		return nil, err
	}
	v, err = m.applyFilter(n.name, n.do, v, args)
	return m.undefinedAt(v, n.offset()), locate(err, n.offset())
}

func (m *machine) applyFilter(name string, do filter, v any, args given) (any, error) {
	if err := m.budget.step(1); err != nil {
		return nil, err
	}
	if u, ok := v.(*Undefined); ok && !takesUndefined[name] {
		return nil, u.use()
	}
	v, err := do(m, v, args)
	return v, prefixed("filter "+name, err)
}

func (n *testNode) eval(m *machine) (any, error) {
	v, err := n.of.eval(m)
	if err != nil {
		return nil, err
	}
	args, err := n.args.eval(m)
	if err != nil {
		return nil, err
	}
	yes, err := m.applyTest(n.name, n.do, v, args)
	return yes, locate(err, n.offset())
}

func (m *machine) applyTest(name string, do test, v any, args given) (bool, error) {
	if err := m.budget.step(1); err != nil {
		return false, err
	}
	if u, ok := v.(*Undefined); ok && name != "defined" && name != "undefined" {
		return false, u.use()
	}
	yes, err := do(m, v, args)
	return yes, prefixed("test "+name, err)
}

func (n *notNode) eval(m *machine) (any, error) {
	yes, err := m.truth(n.of)
	return !yes, err
}

func (n *logicNode) eval(m *machine) (any, error) {
	left, err := n.left.eval(m)
	if err != nil {
		return nil, err
	}
	yes, err := truth(left)
	if err != nil {
		return nil, locate(err, n.left.offset())
	}
	if yes == n.or {
		return left, nil
	}
	return n.right.eval(m)
}

func (n *conditionNode) eval(m *machine) (any, error) {
	yes, err := m.truth(n.test)
	switch {
	case err != nil:
		return nil, err
	case yes:
		return n.then.eval(m)
	case n.otherwise != nil:
		return n.otherwise.eval(m)
	}
	const what = "the condition is false and has no else"
	return &Undefined{What: what, Cause: locate(undefinedUse(what), n.offset()), soft: true}, nil
}

func (n *compareNode) eval(m *machine) (any, error) {
	left, err := n.first.eval(m)
	if err != nil {
		return nil, err
	}
	for i, operator := range n.operators {
		right, err := n.others[i].eval(m)
		if err != nil {
			return nil, err
		}
		yes, err := m.compares(left, operator, right)
		if err != nil || !yes {
			return false, locate(err, n.offset())
		}
		left = right
	}
	return true, nil
}

func (m *machine) compares(left any, operator string, right any) (bool, error) {
	switch operator {
	case "==", "!=":
		same, err := m.equal(left, right)
		return same == (operator == "=="), err
	case "in", "not in":
		if u, ok := left.(*Undefined); ok {
			return false, u.use()
		}
		has, err := m.contains(right, left)
		return has == (operator == "in"), err
	}
	c, err := m.compare(left, right)
	switch operator {
	case "<":
		return c < 0, err
	case "<=":
		return c <= 0, err
	case ">":
		return c > 0, err
	}
	return c >= 0, err
}
