package jinja

import (
	"regexp"
	"slices"
	"strings"
)

// textFunction is a method of a text, and in most cases a filter too.
type textFunction func(m *machine, text string, args given) any

func init() {
	all := map[string]textFunction{
		"lower": changing(strings.ToLower, `[İΣ]`), "upper": changing(strings.ToUpper, `[ßŉǰΐΰևẖ-ẚ\x{1f50}-\x{1fff}ﬀ-ﬗ]`), "replace": replace, "split": splitText, "join": joinTexts,
		"strip": strip, "startswith": affix(strings.HasPrefix), "endswith": affix(strings.HasSuffix),
	}
	for name, f := range all {
		functions["text method "+name] = func(m *machine, of any, args given) any { return f(m, of.(string), args) }
	}
	// As filters they take the text of anything.
	for filter, method := range map[string]string{"lower": "lower", "upper": "upper", "replace": "replace", "trim": "strip"} {
		functions["filter "+filter] = func(m *machine, v any, args given) any { return all[method](m, m.str(v), args) }
	}
	functions["filter split"] = func(m *machine, v any, args given) any { return splitText(m, m.text(v), args) }
	functions["filter string"] = plain(func(m *machine, v any) any { return m.str(v) })
}

// changing makes a function for the case of letters. Those of which Python makes several, or not the same at a word's end, are refused.
func changing(f func(string) string, special string) textFunction {
	refused := regexp.MustCompile(special)
	return func(m *machine, text string, args given) any {
		m.bind(args, "")
		m.made(len(text))
		if refused.MatchString(text) {
			panic(m.failure("the text has a letter whose case has rules of its own"))
		}
		return f(text)
	}
}

// strip takes blanks from both ends, or the characters given.
func strip(m *machine, text string, args given) any {
	set := m.bind(args, "chars", nil)[0]
	if set == nil {
		return strings.TrimSpace(text)
	}
	return strings.Trim(text, m.text(set))
}

// affix makes startswith and endswith, which take one text or a tuple of them.
func affix(has func(text, part string) bool) textFunction {
	return func(m *machine, text string, args given) any {
		parts := m.bind(args, "affix")
		if several, ok := parts[0].(Tuple); ok {
			parts = several
		}
		return slices.ContainsFunc(parts, func(part any) bool { return has(text, m.text(part)) })
	}
}

func replace(m *machine, text string, args given) any {
	values := m.bind(args, "old new")
	from, to := m.str(values[0]), m.str(values[1])
	m.made(min(strings.Count(text, from)*len(to)+len(text), 1<<40))
	return strings.ReplaceAll(text, from, to)
}

// splitText is Python's split: by blanks, or by a separator, at most so often.
func splitText(m *machine, text string, args given) any {
	values := m.bind(args, "sep maxsplit", nil, int64(-1))
	most, ok := whole(values[1])
	parts := strings.Fields(text)
	switch {
	case !ok || values[0] == "":
		panic(m.failure("takes a separator that isn't empty, and a number for maxsplit"))
	case values[0] != nil && most >= 0:
		parts = strings.SplitN(text, m.text(values[0]), int(min(most, maxText))+1)
	case values[0] != nil:
		parts = strings.Split(text, m.text(values[0]))
	case most >= 0 && int64(len(parts)) > most+1:
		panic(m.failure("takes maxsplit with a separator only"))
	}
	m.listed(len(parts))
	items := make([]any, 0, len(parts))
	for _, part := range parts {
		items = append(items, part)
	}
	return items
}

func joinTexts(m *machine, between string, args given) any {
	items := m.each(m.bind(args, "iterable")[0], func(item any) any { return m.text(item) })
	return joinFilter(m, items, given{values: []any{between}})
}
