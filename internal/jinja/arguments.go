package jinja

import (
	"slices"
	"strings"
)

// given are arguments that have been evaluated.
type given struct {
	positional []any
	keywords   map[string]any
	// names are the keywords in their order.
	names []string
}

func (a arguments) eval(m *machine) (given, error) {
	positional, err := m.evalAll(a.positional)
	if err != nil {
		return given{}, err
	}
	g := given{positional: positional, keywords: map[string]any{}}
	for _, k := range a.keywords {
		g.names = append(g.names, k.name)
		if g.keywords[k.name], err = k.value.eval(m); err != nil {
			return g, err
		}
	}
	return g, nil
}

// bind puts arguments under the names of parameters; one that isn't given keeps what defaults says. Parameters beyond the
// defaults, which are for the last ones, have to be given.
func (g given) bind(names string, defaults ...any) ([]any, error) {
	parameters := strings.Fields(names)
	values := make([]any, len(parameters))
	set := make([]bool, len(parameters))
	if len(g.positional) > len(parameters) {
		return nil, complain("takes at most %d arguments, not %d", len(parameters), len(g.positional))
	}
	for i, v := range g.positional {
		values[i], set[i] = v, true
	}
	for _, name := range g.names {
		i := slices.Index(parameters, name)
		switch {
		case i < 0:
			return nil, complain("has no argument %s", name)
		case set[i]:
			return nil, complain("is given %s twice", name)
		}
		values[i], set[i] = g.keywords[name], true
	}
	for i, name := range parameters {
		if set[i] {
			continue
		}
		from := i - (len(parameters) - len(defaults))
		if from < 0 {
			return nil, complain("needs an argument %s", name)
		}
		values[i] = defaults[from]
	}
	return values, nil
}

// function is what a call may call.
type function func(m *machine, args given) (any, error)

func (n *callNode) eval(m *machine) (any, error) {
	var f function
	var called string
	if a, ok := n.callee.(*attributeNode); ok {
		of, err := a.of.eval(m)
		if err != nil {
			return nil, err
		}
		if u, ok := of.(*Undefined); ok {
			return nil, locate(u.use(), n.offset())
		}
		bound, is := methodOf(of, a.name)
		if !is {
			return nil, locate(complain("%s has no function %s that is supported here", describe(of), a.name), a.offset())
		}
		f, called = func(m *machine, args given) (any, error) { return bound(m, of, args) }, a.name
	} else {
		callee, err := n.callee.eval(m)
		if err != nil {
			return nil, err
		}
		if u, ok := callee.(*Undefined); ok {
			return nil, locate(u.use(), n.callee.offset())
		}
		var is bool
		if f, is = callee.(function); !is {
			return nil, locate(complain("%s can't be called", describe(callee)), n.offset())
		}
		if name, ok := n.callee.(*nameNode); ok {
			called = name.name
		}
	}
	args, err := n.args.eval(m)
	if err != nil {
		return nil, err
	}
	v, err := f(m, args)
	return v, locate(prefixed(called, err), n.offset())
}

// prefixed says of what a complaint is.
func prefixed(name string, err error) error {
	switch err := err.(type) {
	case complaint:
		return complaint(name + ": " + string(err))
	case exhausted:
		return exhausted(name + ": " + string(err))
	}
	return err
}
