package jinja

import (
	"slices"
)

// distinct gives the items that are the first of their kind.
func (m *machine) distinct(items []any, key func(any) (any, error)) ([]any, error) {
	seen := NewDict()
	var others []any
	kept := []any{}
	for _, item := range items {
		k, err := key(item)
		if err != nil {
			return nil, err
		}
		if u, ok := k.(*Undefined); ok {
			return nil, u.use()
		}
		if _, hashable := identity(k); hashable {
			if _, again := seen.Get(k); again {
				continue
			}
			seen.Set(k, true)
		} else {
			again, err := m.contains(others, k)
			if err != nil {
				return nil, err
			}
			if again {
				continue
			}
			others = append(others, k)
		}
		kept = append(kept, item)
	}
	return kept, nil
}

func uniqueFilter(m *machine, v any, args given) (any, error) {
	values, err := args.bind("case_sensitive attribute", nil, nil)
	if err != nil {
		return nil, err
	}
	caseSensitive, err := truth(values[0])
	if err != nil {
		return nil, err
	}
	items, err := m.items(v)
	if err != nil {
		return nil, err
	}
	return m.distinct(items, func(item any) (any, error) { return m.keyed(item, values[1], caseSensitive) })
}

// setFilter is one of the set operations, which keep the order of the first list and then of the second.
func setFilter(keep func(inA, inB bool) bool) filter {
	return func(m *machine, v any, args given) (any, error) {
		values, err := args.bind("b")
		if err != nil {
			return nil, err
		}
		a, err := m.items(v)
		if err != nil {
			return nil, err
		}
		b, err := m.items(values[0])
		if err != nil {
			return nil, err
		}
		all, err := m.distinct(slices.Concat(a, b), func(item any) (any, error) { return item, nil })
		if err != nil {
			return nil, err
		}
		kept := []any{}
		for _, item := range all {
			inA, err := m.contains(a, item)
			if err != nil {
				return nil, err
			}
			inB, err := m.contains(b, item)
			if err != nil {
				return nil, err
			}
			if keep(inA, inB) {
				kept = append(kept, item)
			}
		}
		return kept, nil
	}
}
