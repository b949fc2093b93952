package jinja

import (
	"slices"
	"strings"
	"unicode"
)

// functions are the names that every template may call.
var functions map[string]function

// refusedFunctions are Ansible's and Jinja's others that somebody may look for.
var refusedFunctions = map[string]string{
	"lookup": "a template can't read files, the environment or programs", "query": "a template can't read files, the environment or programs",
	"q": "a template can't read files, the environment or programs", "now": "a value mustn't change by itself",
	"lipsum": "it is of no use here", "cycler": "it is of no use here", "joiner": "it is of no use here",
}

func init() {
	functions = map[string]function{
		"range": func(m *machine, args given) (any, error) {
			if len(args.keywords) > 0 || len(args.positional) < 1 || len(args.positional) > 3 {
				return nil, complain("takes one to three numbers")
			}
			bounds := []int64{0, 0, 1}
			for i, v := range args.positional {
				n, ok := whole(v)
				if !ok {
					return nil, complain("takes whole numbers, not %s", describe(v))
				}
				bounds[i] = n
			}
			if len(args.positional) == 1 {
				bounds[0], bounds[1] = 0, bounds[0]
			}
			return m.sequence(bounds[0], bounds[1], bounds[2])
		},
		"dict": func(_ *machine, args given) (any, error) {
			if len(args.positional) > 0 {
				return nil, complain("takes only arguments with names here")
			}
			d := NewDict()
			for _, name := range args.names {
				d.Set(name, args.keywords[name])
			}
			return d, nil
		},
		"namespace": func(_ *machine, args given) (any, error) {
			d := NewDict()
			for _, name := range args.names {
				d.Set(name, args.keywords[name])
			}
			return &namespace{d}, nil
		},
	}
}

func (m *machine) sequence(from, to, by int64) (any, error) {
	if by == 0 {
		return nil, complain("can't go by 0")
	}
	numbers := []any{}
	for i := from; by > 0 && i < to || by < 0 && i > to; i += by {
		if len(numbers) > maxItems {
			return nil, m.budget.listed(len(numbers))
		}
		numbers = append(numbers, i)
		if next := i + by; (next > i) != (by > 0) {
			break
		}
	}
	return numbers, m.budget.listed(len(numbers))
}

// method is a function of a value.
type method func(m *machine, of any, args given) (any, error)

// methodOf finds a method by name.
func methodOf(of any, name string) (method, bool) {
	var table map[string]method
	switch of.(type) {
	case string:
		table = textMethods
	case *Dict, Mapping:
		table = mapMethods
	case []any, Tuple:
		table = listMethods
	}
	f, ok := table[name]
	return f, ok
}

// texts gives arguments that must all be texts.
func texts(args []any) ([]string, error) {
	all := make([]string, 0, len(args))
	for _, a := range args {
		text, ok := a.(string)
		if u, undefined := a.(*Undefined); undefined {
			return nil, u.use()
		}
		if !ok {
			return nil, complain("takes a text, not %s", describe(a))
		}
		all = append(all, text)
	}
	return all, nil
}

// simple makes a method of a text that takes nothing.
func simple(f func(string) any) method {
	return func(m *machine, of any, args given) (any, error) {
		if _, err := args.bind(""); err != nil {
			return nil, err
		}
		return f(of.(string)), m.budget.made(len(of.(string)))
	}
}

// stripping makes strip, lstrip or rstrip.
func stripping(blank, some func(text, set string) string) method {
	return func(_ *machine, of any, args given) (any, error) {
		values, err := args.bind("chars", nil)
		if err != nil {
			return nil, err
		}
		if values[0] == nil {
			return blank(of.(string), ""), nil
		}
		set, err := texts(values)
		if err != nil {
			return nil, err
		}
		return some(of.(string), set[0]), nil
	}
}

// affix makes startswith and endswith.
func affix(has func(text, part string) bool) method {
	return func(_ *machine, of any, args given) (any, error) {
		values, err := args.bind("affix")
		if err != nil {
			return nil, err
		}
		parts := values
		if several, ok := values[0].(Tuple); ok {
			parts = several
		}
		all, err := texts(parts)
		if err != nil {
			return nil, err
		}
		return slices.ContainsFunc(all, func(part string) bool { return has(of.(string), part) }), nil
	}
}

var textMethods map[string]method

func init() {
	textMethods = map[string]method{
		"lower":      simple(func(s string) any { return strings.ToLower(s) }),
		"upper":      simple(func(s string) any { return strings.ToUpper(s) }),
		"capitalize": simple(func(s string) any { return capitalize(s) }),
		"title":      simple(func(s string) any { return title(s) }),
		"isdigit": simple(func(s string) any {
			return s != "" && !strings.ContainsFunc(s, func(r rune) bool { return !unicode.IsDigit(r) })
		}),
		"isalpha": simple(func(s string) any {
			return s != "" && !strings.ContainsFunc(s, func(r rune) bool { return !unicode.IsLetter(r) })
		}),
		"isalnum": simple(func(s string) any {
			return s != "" && !strings.ContainsFunc(s, func(r rune) bool { return !unicode.IsLetter(r) && !unicode.IsDigit(r) })
		}),
		"splitlines": simple(func(s string) any {
			lines := []any{}
			for line := range strings.Lines(strings.ReplaceAll(s, "\r\n", "\n")) {
				lines = append(lines, strings.TrimSuffix(line, "\n"))
			}
			return lines
		}),
		"strip":      stripping(func(s, _ string) string { return strings.TrimSpace(s) }, strings.Trim),
		"lstrip":     stripping(func(s, _ string) string { return strings.TrimLeftFunc(s, unicode.IsSpace) }, strings.TrimLeft),
		"rstrip":     stripping(func(s, _ string) string { return strings.TrimRightFunc(s, unicode.IsSpace) }, strings.TrimRight),
		"startswith": affix(strings.HasPrefix),
		"endswith":   affix(strings.HasSuffix),
		"split":      func(m *machine, of any, args given) (any, error) { return m.splitText(of.(string), args, false) },
		"rsplit":     func(m *machine, of any, args given) (any, error) { return m.splitText(of.(string), args, true) },
		"join": func(m *machine, of any, args given) (any, error) {
			values, err := args.bind("iterable")
			if err != nil {
				return nil, err
			}
			items, err := m.items(values[0])
			if err != nil {
				return nil, err
			}
			all, err := texts(items)
			if err != nil {
				return nil, err
			}
			joined := strings.Join(all, of.(string))
			return joined, m.budget.made(len(joined))
		},
		"replace": func(m *machine, of any, args given) (any, error) { return m.replace(of.(string), args) },
		"find": func(_ *machine, of any, args given) (any, error) {
			values, err := args.bind("sub")
			if err != nil {
				return nil, err
			}
			part, err := texts(values)
			if err != nil {
				return nil, err
			}
			before, _, found := strings.Cut(of.(string), part[0])
			if !found {
				return int64(-1), nil
			}
			return int64(len([]rune(before))), nil
		},
		"count": func(_ *machine, of any, args given) (any, error) {
			values, err := args.bind("sub")
			if err != nil {
				return nil, err
			}
			part, err := texts(values)
			if err != nil {
				return nil, err
			}
			return int64(strings.Count(of.(string), part[0])), nil
		},
		"zfill": func(m *machine, of any, args given) (any, error) {
			values, err := args.bind("width")
			if err != nil {
				return nil, err
			}
			width, ok := whole(values[0])
			if !ok || width > maxText {
				return nil, complain("takes a number of characters")
			}
			text := of.(string)
			sign := ""
			if strings.HasPrefix(text, "-") || strings.HasPrefix(text, "+") {
				sign, text = text[:1], text[1:]
			}
			missing := max(int(width)-len([]rune(text))-len(sign), 0)
			return sign + strings.Repeat("0", missing) + text, m.budget.made(missing + len(text))
		},
		"format": func(m *machine, of any, args given) (any, error) { return m.braces(of.(string), args) },
	}
}

func capitalize(s string) string {
	runes := []rune(strings.ToLower(s))
	if len(runes) > 0 {
		runes[0] = unicode.ToUpper(runes[0])
	}
	return string(runes)
}

// title makes the first letter of each word large and the others small.
func title(s string) string {
	before := ' '
	return strings.Map(func(r rune) rune {
		inside := unicode.IsLetter(before)
		before = r
		if inside {
			return unicode.ToLower(r)
		}
		return unicode.ToTitle(r)
	}, s)
}

// splitText is Python's split: by blanks, or by a separator, at most so often.
func (m *machine) splitText(text string, args given, fromRight bool) (any, error) {
	values, err := args.bind("sep maxsplit", nil, int64(-1))
	if err != nil {
		return nil, err
	}
	most, ok := whole(values[1])
	if !ok {
		return nil, complain("takes a number for maxsplit, not %s", describe(values[1]))
	}
	var parts []string
	if values[0] == nil {
		if parts = strings.Fields(text); most >= 0 && int64(len(parts)) > most+1 {
			return nil, complain("by blanks and with maxsplit is not supported")
		}
	} else {
		separators, err := texts(values[:1])
		if err != nil {
			return nil, err
		}
		separator := separators[0]
		if separator == "" {
			return nil, complain("takes a separator that isn't empty")
		}
		parts = strings.Split(text, separator)
		if extra := int64(len(parts)) - most - 1; most >= 0 && extra > 0 {
			if fromRight {
				parts = append([]string{strings.Join(parts[:extra+1], separator)}, parts[extra+1:]...)
			} else {
				parts = append(parts[:most:most], strings.Join(parts[most:], separator))
			}
		}
	}
	items := make([]any, 0, len(parts))
	for _, part := range parts {
		items = append(items, part)
	}
	return items, m.budget.listed(len(items))
}

func (m *machine) replace(text string, args given) (any, error) {
	values, err := args.bind("old new count", int64(-1))
	if err != nil {
		return nil, err
	}
	count := int64(-1)
	if values[2] != nil {
		var ok bool
		if count, ok = whole(values[2]); !ok {
			return nil, complain("takes a number for count, not %s", describe(values[2]))
		}
	}
	from, err := m.str(values[0])
	if err != nil {
		return nil, err
	}
	to, err := m.str(values[1])
	if err != nil {
		return nil, err
	}
	if err := m.budget.made(min(strings.Count(text, from)*len(to)+len(text), 1<<40)); err != nil {
		return nil, err
	}
	return strings.Replace(text, from, to, int(min(count, maxText))), nil
}

var mapMethods map[string]method

func init() {
	// each gives the keys, the values or both of a mapping.
	each := func(pick func(key, value any) any) method {
		return func(m *machine, of any, args given) (any, error) {
			if _, err := args.bind(""); err != nil {
				return nil, err
			}
			d, err := m.asDict(of)
			if err != nil {
				return nil, err
			}
			items := make([]any, 0, d.Len())
			for _, key := range d.keys {
				value, _ := d.Get(key)
				items = append(items, pick(key, value))
			}
			return items, m.budget.listed(len(items))
		}
	}
	mapMethods = map[string]method{
		"keys": func(m *machine, of any, args given) (any, error) {
			if _, err := args.bind(""); err != nil {
				return nil, err
			}
			return m.items(of)
		},
		"values": each(func(_, value any) any { return value }),
		"items":  each(func(key, value any) any { return Tuple{key, value} }),
		"get": func(m *machine, of any, args given) (any, error) {
			values, err := args.bind("key default", nil)
			if err != nil {
				return nil, err
			}
			v, err := m.member(of, values[0])
			if u, missing := v.(*Undefined); missing && u.Cause == nil {
				return values[1], err
			}
			return v, err
		},
	}
}

var listMethods = map[string]method{
	"index": func(m *machine, of any, args given) (any, error) {
		values, err := args.bind("value")
		if err != nil {
			return nil, err
		}
		items, _ := listOf(of)
		for i, item := range items {
			if same, err := m.equal(item, values[0]); same || err != nil {
				return int64(i), err
			}
		}
		return nil, complain("the list doesn't have the value")
	},
	"count": func(m *machine, of any, args given) (any, error) {
		values, err := args.bind("value")
		if err != nil {
			return nil, err
		}
		items, _ := listOf(of)
		n := int64(0)
		for _, item := range items {
			same, err := m.equal(item, values[0])
			if err != nil {
				return nil, err
			}
			if same {
				n++
			}
		}
		return n, nil
	},
}
