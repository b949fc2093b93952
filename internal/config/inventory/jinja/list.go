package jinja

import (
	"slices"
	"strconv"
	"strings"
)

func init() {
	length := plain(func(m *machine, v any) any { return int64(len(m.items(v))) })
	add("filter", map[string]function{
		"length": length, "count": length,
		"list":  plain(func(m *machine, v any) any { return slices.Clone(m.items(v)) }),
		"first": plain(func(m *machine, v any) any { return m.end(v, 0) }),
		"last":  plain(func(m *machine, v any) any { return m.end(v, -1) }),
		"join":  joinFilter, "sort": sortFilter, "unique": uniqueFilter, "extract": extractFilter,
		"map": mapFilter, "select": pickFilter(false, true), "reject": pickFilter(false, false),
		"selectattr": pickFilter(true, true), "rejectattr": pickFilter(true, false),
	})
	add("mapping method", map[string]function{
		"keys":   plain(func(m *machine, of any) any { return slices.Clone(m.items(of)) }),
		"values": plain(func(m *machine, of any) any { return m.each(of, func(key any) any { return m.item(of, key, false) }) }),
		"items": plain(func(m *machine, of any) any {
			return m.each(of, func(key any) any { return Tuple{key, m.item(of, key, false)} })
		}),
		"get": func(m *machine, of any, args given) any {
			values := m.bind(args, "key default", nil)
			if v, found := m.member(of, values[0]); found {
				return v
			}
			return values[1]
		},
	})
}

// each makes a list of what f gives for each item.
func (m *machine) each(of any, f func(item any) any) []any {
	made := []any{}
	for _, item := range m.items(of) {
		made = append(made, f(item))
	}
	return made
}

// end gives the first item, 0, or the last, -1.
func (m *machine) end(v any, i int) any {
	items := m.items(v)
	if len(items) == 0 {
		return m.undefined("the list is empty")
	}
	return items[(i+len(items))%len(items)]
}

// attribute gives what "a.b.0" leads to in an item; the item itself if the path is nil.
func (m *machine) attribute(item, path any) any {
	if path == nil {
		return item
	}
	for part := range strings.SplitSeq(m.text(path), ".") {
		var key any = part
		if n, err := strconv.ParseInt(part, 10, 64); err == nil {
			key = n
		}
		item = m.item(item, key, false)
	}
	return item
}

// keyed is an item with what it is compared by.
type keyed struct{ key, item any }

// keyed gives items with what they are compared by: they themselves or an attribute, without regard to case unless so asked.
func (m *machine) keyed(v, path, caseSensitive any) []keyed {
	items := m.items(v)
	all := make([]keyed, 0, len(items))
	for _, item := range items {
		key := m.attribute(item, path)
		if text, ok := key.(string); ok && !m.truth(caseSensitive) {
			key = functions["filter lower"](m, text, given{})
		}
		all = append(all, keyed{key, item})
	}
	return all
}

func joinFilter(m *machine, v any, args given) any {
	values := m.bind(args, "d attribute", "", nil)
	between := m.str(values[0])
	var b strings.Builder
	for i, item := range m.items(v) {
		if i > 0 {
			b.WriteString(between)
		}
		b.WriteString(m.str(m.attribute(item, values[1])))
		if b.Len() > maxText {
			break
		}
	}
	m.made(b.Len())
	return b.String()
}

// sortFilter keeps the order of items that are equal, also if it goes down.
func sortFilter(m *machine, v any, args given) any {
	values := m.bind(args, "reverse case_sensitive attribute", false, false, nil)
	if text, ok := values[2].(string); ok && strings.Contains(text, ",") {
		panic(m.failure("goes by one attribute here"))
	}
	down := m.truth(values[0])
	pairs := m.keyed(v, values[2], values[1])
	slices.SortStableFunc(pairs, func(a, b keyed) int {
		if down {
			a, b = b, a
		}
		return m.compare(a.key, b.key)
	})
	sorted := make([]any, 0, len(pairs))
	for _, pair := range pairs {
		sorted = append(sorted, pair.item)
	}
	return sorted
}

// uniqueFilter keeps the items that are the first of their kind.
func uniqueFilter(m *machine, v any, args given) any {
	values := m.bind(args, "case_sensitive attribute", false, nil)
	seen := map[any]bool{}
	kept := []any{}
	for _, pair := range m.keyed(v, values[1], values[0]) {
		id, ok := identity(defined(pair.key))
		if !ok {
			panic(m.failure("takes texts and numbers here, not %s", describe(pair.key)))
		}
		if !seen[id] {
			kept = append(kept, pair.item)
		}
		seen[id] = true
	}
	return kept
}

// extractFilter looks an item up: groups.g | map('extract', hostvars, 'x').
func extractFilter(m *machine, v any, args given) any {
	values := m.bind(args, "container morekeys", nil)
	found := m.item(values[0], v, false)
	if values[1] == nil {
		return found
	}
	return m.item(found, m.text(values[1]), false)
}

// mapFilter puts each item through another filter, or takes an attribute of each.
func mapFilter(m *machine, v any, args given) any {
	each := func(item any) any {
		return m.call("filter "+m.text(args.values[0]), item, given{args.values[1:], args.names})
	}
	if len(args.positional()) == 0 {
		values := m.bind(args, "attribute default", nil)
		each = func(item any) any {
			found := m.attribute(item, values[0])
			if _, missing := found.(*Undefined); missing && values[1] != nil {
				return values[1]
			}
			return found
		}
	}
	return m.each(v, each)
}

// pickFilter is select and reject, and with byAttribute selectattr and rejectattr.
func pickFilter(byAttribute, wanted bool) function {
	return func(m *machine, v any, args given) any {
		var path any
		if byAttribute {
			if len(args.positional()) == 0 {
				panic(m.failure("needs an attribute"))
			}
			path, args.values = args.values[0], args.values[1:]
		}
		passes := m.truth
		if len(args.positional()) == 0 {
			m.bind(args, "")
		} else {
			passes = func(item any) bool {
				return m.call("test "+m.text(args.values[0]), item, given{args.values[1:], args.names}) == true
			}
		}
		return slices.DeleteFunc(slices.Clone(m.items(v)), func(item any) bool {
			return passes(m.attribute(item, path)) != wanted
		})
	}
}
