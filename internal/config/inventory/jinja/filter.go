package jinja

import (
	"math"
	"regexp"
	"slices"
	"strconv"
	"strings"
)

func init() {
	add("filter", map[string]function{
		"default": defaultFilter, "d": defaultFilter, "int": intFilter, "float": floatFilter, "bool": plain(boolFilter),
		"ternary": func(m *machine, v any, args given) any {
			values := m.bind(args, "true_val false_val none_val", nil)
			switch {
			case v == nil && values[2] != nil:
				return values[2]
			case m.truth(v):
				return values[0]
			}
			return values[1]
		},
	})
}

func defaultFilter(m *machine, v any, args given) any {
	values := m.bind(args, "default_value boolean", "", false)
	_, undefined := v.(*Undefined)
	if undefined || m.truth(values[1]) && !m.truth(v) {
		return values[0]
	}
	return v
}

// boolFilter is Ansible's: whatever isn't a word for true is false, and None stays None.
func boolFilter(_ *machine, v any) any {
	switch v := v.(type) {
	case nil, bool:
		return v
	case string:
		return slices.Contains([]string{"yes", "on", "1", "true"}, strings.ToLower(v))
	}
	return v == int64(1) || v == 1.0
}

var numberForm = regexp.MustCompile(`(?i)^[-+]?(?:` + fraction + `|` + digits + `)(?:e[-+]?` + digits + `)?$`)

// readNumber gives the number that a text is to Python's int() or float(), nil if it isn't one, and any other value as it is.
// Infinities and NaN are left out.
func readNumber(v any) any {
	text, isText := v.(string)
	if !isText {
		return v
	}
	text = strings.TrimSpace(text)
	plain := strings.ReplaceAll(text, "_", "")
	f, err := strconv.ParseFloat(plain, 64)
	if err != nil || !numberForm.MatchString(text) {
		return nil
	}
	if n, err := strconv.ParseInt(plain, 10, 64); err == nil {
		return n
	}
	return f
}

func intFilter(m *machine, v any, args given) any {
	otherwise := m.bind(args, "default", int64(0))[0]
	v = readNumber(v)
	if n, ok := whole(v); ok {
		return n
	}
	f, ok := v.(float64)
	if ok && math.Abs(f) < 1<<63 {
		return int64(f)
	} else if ok {
		panic(m.failure("the number is too large"))
	}
	return otherwise
}

func floatFilter(m *machine, v any, args given) any {
	otherwise := m.bind(args, "default", 0.0)[0]
	if f, ok := float(readNumber(v)); ok {
		return f
	}
	return otherwise
}

// The tests, which may stand after `is`.
func init() {
	is := func(f func(v any) bool) function { return plain(func(_ *machine, v any) any { return f(v) }) }
	// isOf is a test of the type.
	isOf := func(kinds ...string) function {
		return is(func(v any) bool { return slices.Contains(kinds, describe(v)) })
	}
	compares := func(operator string) function {
		return func(m *machine, v any, args given) any { return m.compares(v, operator, m.bind(args, "other")[0]) }
	}
	undefined := func(v any) bool { _, ok := v.(*Undefined); return ok }
	add("test", map[string]function{
		"undefined": is(undefined),
		"defined":   is(func(v any) bool { return !undefined(v) }),
		"none":      is(func(v any) bool { return v == nil }),
		"true":      is(func(v any) bool { return v == true }),
		"false":     is(func(v any) bool { return v == false }),
		"integer":   is(func(v any) bool { _, ok := v.(int64); return ok }),
		"float":     is(func(v any) bool { _, ok := v.(float64); return ok }),
		"boolean":   isOf("a boolean"),
		"number":    isOf("a number", "a boolean"),
		"string":    isOf("a text"),
		"mapping":   isOf("a mapping"),
		"iterable":  isOf("a list", "a text", "a mapping"),
		"sequence":  isOf("a list", "a text", "a mapping"),
		"eq":        compares("=="), "==": compares("=="), "equalto": compares("=="), "ne": compares("!="), "!=": compares("!="),
		"lt": compares("<"), "lessthan": compares("<"), "le": compares("<="),
		"gt": compares(">"), "greaterthan": compares(">"), "ge": compares(">="),
		"in":       compares("in"),
		"contains": func(m *machine, v any, args given) any { return m.contains(v, m.bind(args, "value")[0]) },
	})
}
