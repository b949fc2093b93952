package jinja

import (
	"cmp"
	"slices"
	"strconv"
	"strings"
)

// addSequenceFilters adds the filters over lists and mappings.
func addSequenceFilters() {
	length := plainFilter(func(m *machine, v any) (any, error) {
		if s, ok := v.(string); ok {
			return int64(len([]rune(s))), nil
		}
		items, err := m.items(v)
		return int64(len(items)), err
	})
	for name, f := range map[string]filter{
		"length": length, "count": length,
		"list": plainFilter(func(m *machine, v any) (any, error) {
			items, err := m.items(v)
			return slices.Clone(items), err
		}),
		"first": plainFilter(func(m *machine, v any) (any, error) { return m.end(v, false) }),
		"last":  plainFilter(func(m *machine, v any) (any, error) { return m.end(v, true) }),
		"reverse": plainFilter(func(m *machine, v any) (any, error) {
			items, err := m.items(v)
			if err != nil {
				return nil, err
			}
			turned := slices.Clone(items)
			slices.Reverse(turned)
			if _, isText := v.(string); isText {
				all, err := texts(turned)
				return strings.Join(all, ""), err
			}
			return turned, nil
		}),
		"join": joinFilter, "sort": sortFilter, "unique": uniqueFilter, "sum": sumFilter,
		"min": extremeFilter(-1), "max": extremeFilter(1),
		"map": mapFilter, "select": pickFilter(false, true), "reject": pickFilter(false, false),
		"selectattr": pickFilter(true, true), "rejectattr": pickFilter(true, false),
		"union":      setFilter(func(inA, inB bool) bool { return true }),
		"intersect":  setFilter(func(inA, inB bool) bool { return inA && inB }),
		"difference": setFilter(func(inA, inB bool) bool { return inA && !inB }),
		"symmetric_difference": setFilter(func(inA, inB bool) bool {
			return inA != inB
		}),
		"flatten": flattenFilter, "combine": combineFilter, "dict2items": dictToItems, "items2dict": itemsToDict, "dictsort": dictSort,
		"items":   plainFilter(func(m *machine, v any) (any, error) { return mapMethods["items"](m, v, given{}) }),
		"groupby": groupBy, "batch": batchFilter, "zip": zipFilter, "extract": extractFilter,
		"attr": func(m *machine, v any, args given) (any, error) {
			values, err := args.bind("name")
			if err != nil {
				return nil, err
			}
			return m.member(v, values[0])
		},
	} {
		filters[name] = f
	}
}

// end gives the first or the last item.
func (m *machine) end(v any, last bool) (any, error) {
	items, err := m.items(v)
	switch {
	case err != nil:
		return nil, err
	case len(items) == 0:
		return &Undefined{What: "the list is empty"}, nil
	case last:
		return items[len(items)-1], nil
	}
	return items[0], nil
}

// attribute gives what "a.b.0" leads to in an item.
func (m *machine) attribute(item, way any) (any, error) {
	if n, ok := whole(way); ok {
		return m.member(item, n)
	}
	all, err := texts([]any{way})
	if err != nil {
		return nil, err
	}
	for part := range strings.SplitSeq(all[0], ".") {
		var key any = part
		if n, err := strconv.ParseInt(part, 10, 64); err == nil {
			key = n
		}
		if item, err = m.member(item, key); err != nil {
			return nil, err
		}
	}
	return item, nil
}

// keyed gives an item, or what an attribute leads to in it, for comparing: without regard to case, if so asked.
func (m *machine) keyed(item, way any, caseSensitive bool) (any, error) {
	if way != nil {
		var err error
		if item, err = m.attribute(item, way); err != nil {
			return nil, err
		}
	}
	if text, ok := item.(string); ok && !caseSensitive {
		return strings.ToLower(text), nil
	}
	return item, nil
}

func joinFilter(m *machine, v any, args given) (any, error) {
	values, err := args.bind("d attribute", "", nil)
	if err != nil {
		return nil, err
	}
	between, err := m.str(values[0])
	if err != nil {
		return nil, err
	}
	items, err := m.items(v)
	if err != nil {
		return nil, err
	}
	var b strings.Builder
	for i, item := range items {
		if values[1] != nil {
			if item, err = m.attribute(item, values[1]); err != nil {
				return nil, err
			}
		}
		text, err := m.str(item)
		if err != nil {
			return nil, err
		}
		if i > 0 {
			b.WriteString(between)
		}
		b.WriteString(text)
		if b.Len() > maxText {
			break
		}
	}
	return b.String(), m.budget.made(b.Len())
}

func sortFilter(m *machine, v any, args given) (any, error) {
	values, err := args.bind("reverse case_sensitive attribute", false, false, nil)
	if err != nil {
		return nil, err
	}
	items, err := m.items(v)
	if err != nil {
		return nil, err
	}
	down, err := truth(values[0])
	if err != nil {
		return nil, err
	}
	caseSensitive, err := truth(values[1])
	if err != nil {
		return nil, err
	}
	ways := []any{values[2]}
	if text, ok := values[2].(string); ok {
		ways = nil
		for way := range strings.SplitSeq(text, ",") {
			ways = append(ways, way)
		}
	}
	type keyedItem struct {
		keys []any
		item any
	}
	sorted := make([]keyedItem, 0, len(items))
	for _, item := range items {
		one := keyedItem{item: item}
		for _, way := range ways {
			key, err := m.keyed(item, way, caseSensitive)
			if err != nil {
				return nil, err
			}
			one.keys = append(one.keys, key)
		}
		sorted = append(sorted, one)
	}
	slices.SortStableFunc(sorted, func(a, b keyedItem) int {
		c, failed := m.compare(a.keys, b.keys)
		if failed != nil && err == nil {
			err = failed
		}
		if down {
			return -c
		}
		return c
	})
	result := make([]any, 0, len(sorted))
	for _, one := range sorted {
		result = append(result, one.item)
	}
	return result, err
}

func sumFilter(m *machine, v any, args given) (any, error) {
	values, err := args.bind("attribute start", nil, int64(0))
	if err != nil {
		return nil, err
	}
	items, err := m.items(v)
	if err != nil {
		return nil, err
	}
	total := values[1]
	for _, item := range items {
		if values[0] != nil {
			if item, err = m.attribute(item, values[0]); err != nil {
				return nil, err
			}
		}
		if total, err = m.operate(total, "+", item); err != nil {
			return nil, err
		}
	}
	return total, nil
}

// extremeFilter is min or max.
func extremeFilter(sign int) filter {
	return func(m *machine, v any, args given) (any, error) {
		values, err := args.bind("case_sensitive attribute", false, nil)
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
		if len(items) == 0 {
			return &Undefined{What: "the list is empty"}, nil
		}
		best, bestKey := items[0], any(nil)
		for i, item := range items {
			key, err := m.keyed(item, values[1], caseSensitive)
			if err != nil {
				return nil, err
			}
			if i == 0 {
				bestKey = key
				continue
			}
			c, err := m.compare(key, bestKey)
			if err != nil {
				return nil, err
			}
			if c*sign > 0 {
				best, bestKey = item, key
			}
		}
		return best, nil
	}
}

// mapFilter puts each item through another filter, or takes an attribute of each.
func mapFilter(m *machine, v any, args given) (any, error) {
	items, err := m.items(v)
	if err != nil {
		return nil, err
	}
	var each func(item any) (any, error)
	if way, ok := args.keywords["attribute"]; ok && len(args.positional) == 0 {
		values, err := args.bind("attribute default", nil, nil)
		if err != nil {
			return nil, err
		}
		each = func(item any) (any, error) {
			found, err := m.attribute(item, way)
			if u, missing := found.(*Undefined); missing && u.Cause == nil && values[1] != nil {
				return values[1], err
			}
			return found, err
		}
	} else {
		name, rest, err := named(args)
		if err != nil {
			return nil, err
		}
		do, known := filters[shortName(name)]
		if !known {
			return nil, complain("is given the name of a filter that is not supported")
		}
		each = func(item any) (any, error) { return m.applyFilter(name, do, item, rest) }
	}
	mapped := make([]any, 0, len(items))
	for _, item := range items {
		one, err := each(item)
		if err != nil {
			return nil, err
		}
		mapped = append(mapped, one)
	}
	return mapped, nil
}

// named takes a filter's or a test's name from the head of arguments.
func named(args given) (string, given, error) {
	if len(args.positional) == 0 {
		return "", args, complain("needs a name")
	}
	name, err := texts(args.positional[:1])
	if err != nil {
		return "", args, err
	}
	return name[0], given{args.positional[1:], args.keywords, args.names}, nil
}

// pickFilter is select and reject, and with byAttribute selectattr and rejectattr.
func pickFilter(byAttribute, wanted bool) filter {
	return func(m *machine, v any, args given) (any, error) {
		items, err := m.items(v)
		if err != nil {
			return nil, err
		}
		var way any
		if byAttribute {
			if len(args.positional) == 0 {
				return nil, complain("needs an attribute")
			}
			way, args.positional = args.positional[0], args.positional[1:]
		}
		passes := func(item any) (bool, error) { return truth(item) }
		if len(args.positional) > 0 {
			name, rest, err := named(args)
			if err != nil {
				return nil, err
			}
			do, known := tests[shortName(name)]
			if !known {
				return nil, complain("is given the name of a test that is not supported")
			}
			passes = func(item any) (bool, error) { return m.applyTest(name, do, item, rest) }
		}
		kept := []any{}
		for _, item := range items {
			tested := item
			if byAttribute {
				if tested, err = m.attribute(item, way); err != nil {
					return nil, err
				}
			}
			yes, err := passes(tested)
			if err != nil {
				return nil, err
			}
			if yes == wanted {
				kept = append(kept, item)
			}
		}
		return kept, nil
	}
}

func flattenFilter(m *machine, v any, args given) (any, error) {
	values, err := args.bind("levels skip_nulls", nil, true)
	if err != nil {
		return nil, err
	}
	levels := int64(maxDepth)
	if values[0] != nil {
		var ok bool
		if levels, ok = whole(values[0]); !ok {
			return nil, complain("takes a number of levels")
		}
	}
	skipNulls, err := truth(values[1])
	if err != nil {
		return nil, err
	}
	items, err := m.items(v)
	if err != nil {
		return nil, err
	}
	flat := []any{}
	var walk func(items []any, levels int64) error
	walk = func(items []any, levels int64) error {
		for _, item := range items {
			if err := m.budget.step(1); err != nil {
				return err
			}
			if skipNulls && (item == nil || item == "None" || item == "null") {
				continue
			}
			if inner, ok := listOf(item); ok && levels > 0 {
				if err := walk(inner, levels-1); err != nil {
					return err
				}
				continue
			}
			flat = append(flat, item)
		}
		return nil
	}
	if err := walk(items, levels); err != nil {
		return nil, err
	}
	return flat, m.budget.listed(len(flat))
}

func groupBy(m *machine, v any, args given) (any, error) {
	values, err := args.bind("attribute default case_sensitive", nil, false)
	if err != nil {
		return nil, err
	}
	sorted, err := sortFilter(m, v, given{keywords: map[string]any{"attribute": values[0]}, names: []string{"attribute"}})
	if err != nil {
		return nil, err
	}
	groups := []any{}
	for _, item := range sorted.([]any) {
		key, err := m.attribute(item, values[0])
		if err != nil {
			return nil, err
		}
		if n := len(groups); n > 0 {
			last := groups[n-1].(Tuple)
			same, err := m.equal(last[0], key)
			if err != nil {
				return nil, err
			}
			if same {
				last[1] = append(last[1].([]any), item)
				continue
			}
		}
		groups = append(groups, Tuple{key, []any{item}})
	}
	return groups, nil
}

func batchFilter(m *machine, v any, args given) (any, error) {
	values, err := args.bind("linecount fill_with", nil)
	if err != nil {
		return nil, err
	}
	n, ok := whole(values[0])
	if !ok || n < 1 || n > maxItems {
		return nil, complain("takes a number of items")
	}
	items, err := m.items(v)
	if err != nil {
		return nil, err
	}
	batches := []any{}
	for chunk := range slices.Chunk(items, int(n)) {
		batch := slices.Clone(chunk)
		for int64(len(batch)) < n && values[1] != nil {
			batch = append(batch, values[1])
		}
		batches = append(batches, batch)
	}
	return batches, nil
}

func zipFilter(m *machine, v any, args given) (any, error) {
	if len(args.keywords) > 0 {
		return nil, complain("takes only lists")
	}
	all := [][]any{}
	shortest := maxItems
	for _, list := range append([]any{v}, args.positional...) {
		items, err := m.items(list)
		if err != nil {
			return nil, err
		}
		all = append(all, items)
		shortest = min(shortest, len(items))
	}
	zipped := make([]any, 0, shortest)
	for i := range shortest {
		var one Tuple
		for _, items := range all {
			one = append(one, items[i])
		}
		zipped = append(zipped, one)
	}
	return zipped, m.budget.listed(cmp.Or(len(zipped)*len(all), 1))
}

func extractFilter(m *machine, v any, args given) (any, error) {
	values, err := args.bind("container morekeys", nil)
	if err != nil {
		return nil, err
	}
	keys := []any{v}
	if more, ok := listOf(values[1]); ok {
		keys = append(keys, more...)
	} else if values[1] != nil {
		keys = append(keys, values[1])
	}
	found := values[0]
	for _, key := range keys {
		if found, err = m.member(found, key); err != nil {
			return nil, err
		}
	}
	return found, nil
}
