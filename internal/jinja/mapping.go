package jinja

func combineFilter(m *machine, v any, args given) (any, error) {
	rest, err := given{keywords: args.keywords, names: args.names}.bind("recursive list_merge", false, "replace")
	if err != nil {
		return nil, err
	}
	recursive, err := truth(rest[0])
	if err != nil {
		return nil, err
	}
	if rest[1] != "replace" {
		return nil, complain("list_merge is supported as replace only")
	}
	result := NewDict()
	for _, term := range append([]any{v}, args.positional...) {
		terms := []any{term}
		if list, ok := listOf(term); ok {
			terms = list
		}
		for _, one := range terms {
			d, err := m.asDict(one)
			if err != nil {
				return nil, err
			}
			if result, err = m.merge(result, d, recursive, 0); err != nil {
				return nil, err
			}
		}
	}
	return result, nil
}

func (m *machine) merge(low, high *Dict, recursive bool, depth int) (*Dict, error) {
	if depth > maxDepth {
		return nil, complain("the value is nested too deeply")
	}
	merged := NewDict()
	for _, key := range low.keys {
		v, _ := low.Get(key)
		merged.Set(key, v)
	}
	for _, key := range high.keys {
		if err := m.budget.step(1); err != nil {
			return nil, err
		}
		v, _ := high.Get(key)
		below, _ := merged.Get(key)
		if inner, ok := v.(*Dict); ok && recursive {
			if other, ok := below.(*Dict); ok {
				both, err := m.merge(other, inner, true, depth+1)
				if err != nil {
					return nil, err
				}
				v = both
			}
		}
		merged.Set(key, v)
	}
	return merged, nil
}

func dictToItems(m *machine, v any, args given) (any, error) {
	names, err := args.bind("key_name value_name", "key", "value")
	if err != nil {
		return nil, err
	}
	d, err := m.asDict(v)
	if err != nil {
		return nil, err
	}
	items := []any{}
	for _, key := range d.keys {
		value, _ := d.Get(key)
		item := NewDict()
		if !item.Set(names[0], key) || !item.Set(names[1], value) {
			return nil, complain("takes names that are texts")
		}
		items = append(items, item)
	}
	return items, m.budget.listed(len(items))
}

func itemsToDict(m *machine, v any, args given) (any, error) {
	names, err := args.bind("key_name value_name", "key", "value")
	if err != nil {
		return nil, err
	}
	items, err := m.items(v)
	if err != nil {
		return nil, err
	}
	d := NewDict()
	for _, item := range items {
		key, err := m.member(item, names[0])
		if err != nil {
			return nil, err
		}
		value, err := m.member(item, names[1])
		if err != nil {
			return nil, err
		}
		for _, part := range []any{key, value} {
			if u, ok := part.(*Undefined); ok {
				return nil, u.use()
			}
		}
		if !d.Set(key, value) {
			return nil, complain("%s can't be a key", describe(key))
		}
	}
	return d, nil
}

func dictSort(m *machine, v any, args given) (any, error) {
	values, err := args.bind("case_sensitive by reverse", false, "key", false)
	if err != nil {
		return nil, err
	}
	pairs, err := mapMethods["items"](m, v, given{})
	if err != nil {
		return nil, err
	}
	by, ok := map[any]int64{"key": 0, "value": 1}[values[1]]
	if !ok {
		return nil, complain("goes by key or by value")
	}
	return sortFilter(m, pairs, given{positional: []any{values[2], values[0], by}})
}
