package jinja

import (
	"strings"
)

// test is what may stand after `is`.
type test func(m *machine, v any, args given) (bool, error)

// tests are all that there are: Jinja's and ansible-core's that look at nothing but values.
var tests map[string]test

func init() {
	// is is a test that takes no argument.
	is := func(f func(v any) bool) test {
		return func(_ *machine, v any, args given) (bool, error) {
			_, err := args.bind("")
			return f(v), err
		}
	}
	// with is a test that takes one.
	with := func(f func(m *machine, v, other any) (bool, error)) test {
		return func(m *machine, v any, args given) (bool, error) {
			values, err := args.bind("other")
			if err != nil {
				return false, err
			}
			return f(m, v, values[0])
		}
	}
	compares := func(operator string) test {
		return with(func(m *machine, v, other any) (bool, error) { return m.compares(v, operator, other) })
	}
	undefined := is(func(v any) bool { _, ok := v.(*Undefined); return ok })
	isMap := func(v any) bool {
		_, isDict := v.(*Dict)
		_, isMapping := v.(Mapping)
		return isDict || isMapping
	}
	isSequence := func(v any) bool {
		_, isList := listOf(v)
		_, isText := v.(string)
		return isList || isText || isMap(v)
	}
	truthy := func(wanted bool) test {
		return func(m *machine, v any, args given) (bool, error) {
			values, err := args.bind("convert_bool", false)
			if err != nil {
				return false, err
			}
			convert, err := truth(values[0])
			if err != nil {
				return false, err
			}
			if convert {
				if v, err = boolFilter(m, v, given{}); err != nil {
					return false, err
				}
			}
			yes, err := truth(v)
			return yes == wanted, err
		}
	}
	// all of the items, or any of them.
	quantified := func(wanted bool) test {
		return func(m *machine, v any, args given) (bool, error) {
			if _, err := args.bind(""); err != nil {
				return false, err
			}
			items, err := m.items(v)
			if err != nil {
				return false, err
			}
			for _, item := range items {
				if yes, err := truth(item); err != nil || yes == wanted {
					return wanted, err
				}
			}
			return !wanted, nil
		}
	}
	tests = map[string]test{
		"undefined": undefined,
		"defined": func(m *machine, v any, args given) (bool, error) {
			is, err := undefined(m, v, args)
			return !is, err
		},
		"none":     is(func(v any) bool { return v == nil }),
		"boolean":  is(func(v any) bool { _, ok := v.(bool); return ok }),
		"true":     is(func(v any) bool { return v == true }),
		"false":    is(func(v any) bool { return v == false }),
		"integer":  is(func(v any) bool { _, ok := v.(int64); return ok }),
		"float":    is(func(v any) bool { _, ok := v.(float64); return ok }),
		"number":   is(func(v any) bool { _, ok := float(v); return ok }),
		"string":   is(func(v any) bool { _, ok := v.(string); return ok }),
		"mapping":  is(isMap),
		"iterable": is(isSequence),
		"sequence": is(isSequence),
		"lower": func(m *machine, v any, args given) (bool, error) {
			text, err := m.str(v)
			return text == strings.ToLower(text) && text != strings.ToUpper(text), err
		},
		"upper": func(m *machine, v any, args given) (bool, error) {
			text, err := m.str(v)
			return text == strings.ToUpper(text) && text != strings.ToLower(text), err
		},
		"odd":  remainderIs(2, 1),
		"even": remainderIs(2, 0),
		"divisibleby": with(func(m *machine, v, other any) (bool, error) {
			rest, err := m.operate(v, "%", other)
			if err != nil {
				return false, err
			}
			return m.equal(rest, int64(0))
		}),
		"eq": compares("=="), "==": compares("=="), "equalto": compares("=="), "ne": compares("!="), "lt": compares("<"), "lessthan": compares("<"),
		"le": compares("<="), "gt": compares(">"), "greaterthan": compares(">"), "ge": compares(">="), "in": compares("in"),
		"sameas":   with(func(m *machine, v, other any) (bool, error) { return m.same(v, other) }),
		"contains": with(func(m *machine, v, other any) (bool, error) { return m.contains(v, other) }),
		"subset":   with(func(m *machine, v, other any) (bool, error) { return m.within(v, other) }),
		"superset": with(func(m *machine, v, other any) (bool, error) { return m.within(other, v) }),
		"match":    regexTest("match"), "search": regexTest("search"), "regex": regexTest("regex"),
		"truthy": truthy(true), "falsy": truthy(false), "all": quantified(false), "any": quantified(true),
	}
	tests["issubset"], tests["issuperset"] = tests["subset"], tests["superset"]
}

func remainderIs(divisor, wanted int64) test {
	return func(m *machine, v any, args given) (bool, error) {
		if _, err := args.bind(""); err != nil {
			return false, err
		}
		rest, err := m.operate(v, "%", divisor)
		if err != nil {
			return false, err
		}
		return m.equal(rest, wanted)
	}
}

// same is Python's `is`, as far as values have an identity.
func (m *machine) same(a, b any) (bool, error) {
	switch a.(type) {
	case nil, bool:
		return a == b, nil
	case int64, string:
		return a == b, nil
	}
	return false, complain("is for true, false, none, whole numbers and texts here")
}

// within tells whether all of a's items are b's too.
func (m *machine) within(a, b any) (bool, error) {
	items, err := m.items(a)
	if err != nil {
		return false, err
	}
	for _, item := range items {
		if has, err := m.contains(b, item); err != nil || !has {
			return false, err
		}
	}
	return true, nil
}

// regexTest is match (at the beginning), search (anywhere) or regex, where one may say which.
func regexTest(name string) test {
	return func(m *machine, v any, args given) (bool, error) {
		values, err := args.bind("pattern ignorecase multiline match_type", false, false, "search")
		if err != nil {
			return false, err
		}
		text, err := m.str(v)
		if err != nil {
			return false, err
		}
		re, err := compileRegex(values[0], values[1], values[2])
		if err != nil {
			return false, err
		}
		kind := name
		if name == "regex" {
			all, err := texts(values[3:])
			if err != nil {
				return false, err
			}
			kind = all[0]
		}
		found := re.FindStringIndex(text)
		switch kind {
		case "search":
			return found != nil, nil
		case "match":
			return found != nil && found[0] == 0, nil
		}
		return false, complain("goes by match_type search or match here")
	}
}
