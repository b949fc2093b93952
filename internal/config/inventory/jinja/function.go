package jinja

import (
	"slices"
	"strings"
)

// function is what is behind a filter, a test or a method: it makes a value of another.
type function func(m *machine, v any, args given) any

// functions are all that there are, under names such as "filter default", "test defined" and "text method split". What isn't
// here is in refused.go, with what to write instead.
var functions = map[string]function{}

func add(kind string, all map[string]function) {
	for name, f := range all {
		functions[kind+" "+name] = f
	}
}

// takeUndefined are those that may be given something that isn't defined.
var takeUndefined = []string{"filter default", "filter d", "test defined", "test undefined"}

// known is a function's full name. One that there isn't is refused by name.
func known(offset int, kind, name string) string {
	full := kind + " " + name
	if functions[full] == nil {
		panic(refusal(offset, full))
	}
	return full
}

// call calls one by its full name.
func (m *machine) call(name string, of any, args given) any {
	m.step(1)
	if !slices.Contains(takeUndefined, name) {
		of = defined(of)
	}
	m.doing = name
	return functions[name](m, of, args)
}

// methods is the kind of the methods of a value: "text method", "mapping method".
func methods(of any) string { return strings.TrimPrefix(describe(of), "a ") + " method" }

// given are arguments that have been evaluated; names are those of the last.
type given struct {
	values []any
	names  []string
}

// positional are the arguments without names.
func (g given) positional() []any { return g.values[:len(g.values)-len(g.names)] }

// bind puts arguments under the names of parameters; one that isn't given keeps what defaults says. Parameters beyond the
// defaults, which are for the last ones, have to be given.
func (m *machine) bind(g given, names string, defaults ...any) []any {
	parameters := strings.Fields(names)
	values := slices.Clone(g.positional())
	positional := len(values)
	if positional > len(parameters) {
		panic(m.failure("takes at most %d arguments, not %d", len(parameters), positional))
	}
	for i := positional; i < len(parameters); i++ {
		named, optional := slices.Index(g.names, parameters[i]), i-len(parameters)+len(defaults)
		switch {
		case named >= 0:
			values = append(values, g.values[positional+named])
		case optional >= 0:
			values = append(values, defaults[optional])
		default:
			panic(m.failure("needs an argument %s", parameters[i]))
		}
	}
	for _, name := range g.names {
		if !slices.Contains(parameters[positional:], name) {
			panic(m.failure("has no argument %s, or is given it twice", name))
		}
	}
	return values
}

// plain is a function that takes no arguments.
func plain(f func(m *machine, v any) any) function {
	return func(m *machine, v any, args given) any {
		m.bind(args, "")
		return f(m, v)
	}
}
