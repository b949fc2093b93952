package jmespath

import (
	"bytes"
	"encoding/json"
	"maps"
	"math"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"
)

// kinds are the types that an argument may have.
type kinds int

const (
	isNumber kinds = 1 << iota
	isText
	isList
	isObject
	isNumbers // a list of numbers only
	isTexts   // a list of texts only
	isExpref
	isAny
)

var kindNames = []struct {
	kind kinds
	name string
}{
	{isNumber, "a number"}, {isText, "a text"}, {isList, "a list"}, {isObject, "an object"}, {isNumbers, "a list of numbers"},
	{isTexts, "a list of texts"},
}

// function is one that JMESPath's specification defines.
type function struct {
	args []kinds
	// more says that the last argument may be repeated.
	more bool
	call func(c *call) (any, error)
}

// call is what a function is called with.
type call struct {
	in   *interpreter
	node *node
	args []any
}

// functions are all those of the specification. The table is filled by init, for the functions refer to it through eval.
var functions map[string]function

func init() {
	functions = map[string]function{
		"abs":         {args: []kinds{isNumber}, call: number(math.Abs)},
		"avg":         {args: []kinds{isNumbers}, call: avg},
		"ceil":        {args: []kinds{isNumber}, call: number(math.Ceil)},
		"contains":    {args: []kinds{isList | isText, isAny}, call: contains},
		"ends_with":   {args: []kinds{isText, isText}, call: texts(strings.HasSuffix)},
		"floor":       {args: []kinds{isNumber}, call: number(math.Floor)},
		"join":        {args: []kinds{isText, isTexts}, call: join},
		"keys":        {args: []kinds{isObject}, call: keys},
		"length":      {args: []kinds{isText | isList | isObject}, call: length},
		"map":         {args: []kinds{isExpref, isList}, call: mapEach},
		"max":         {args: []kinds{isNumbers | isTexts}, call: extreme(1)},
		"max_by":      {args: []kinds{isList, isExpref}, call: extremeBy(1)},
		"merge":       {args: []kinds{isObject}, more: true, call: merge},
		"min":         {args: []kinds{isNumbers | isTexts}, call: extreme(-1)},
		"min_by":      {args: []kinds{isList, isExpref}, call: extremeBy(-1)},
		"not_null":    {args: []kinds{isAny}, more: true, call: notNull},
		"reverse":     {args: []kinds{isList | isText}, call: reverse},
		"sort":        {args: []kinds{isNumbers | isTexts}, call: sorted},
		"sort_by":     {args: []kinds{isList, isExpref}, call: sortBy},
		"starts_with": {args: []kinds{isText, isText}, call: texts(strings.HasPrefix)},
		"sum":         {args: []kinds{isNumbers}, call: sum},
		"to_array":    {args: []kinds{isAny}, call: toArray},
		"to_number":   {args: []kinds{isAny}, call: toNumber},
		"to_string":   {args: []kinds{isAny}, call: toString},
		"type":        {args: []kinds{isAny}, call: typeOf},
		"values":      {args: []kinds{isObject}, call: func(c *call) (any, error) { return sortedValues(c.object(0)), nil }},
	}
}

// checkCall looks at what can be known of a call before its arguments have values.
func (f function) checkCall(n *node) error {
	got, want := len(n.kids), len(f.args)
	if got < want || got > want && !f.more {
		return failAt(n.offset, "%s takes %s, not %d", n.name, plural(want, "argument"), got)
	}
	for i, kid := range n.kids {
		wantsExpref := f.args[min(i, want-1)]&isExpref != 0
		if wantsExpref && kid.op != opExpref {
			return failAt(kid.offset, "argument %d of %s is an expression with & before it, as in &pg_seq", i+1, n.name)
		}
		if !wantsExpref && kid.op == opExpref {
			return failAt(kid.offset, "argument %d of %s takes no &", i+1, n.name)
		}
	}
	return nil
}

func (in *interpreter) call(n *node, v any) (any, error) {
	f := functions[n.name]
	c := &call{in: in, node: n, args: make([]any, len(n.kids))}
	for i, kid := range n.kids {
		if kid.op == opExpref {
			continue
		}
		arg, err := in.eval(kid, v)
		if err != nil {
			return nil, err
		}
		// Whatever a function does, it looks at its arguments; one that does more spends for that itself.
		if err := in.spend(kid.offset, weightOf(arg)); err != nil {
			return nil, err
		}
		if want := f.args[min(i, len(f.args)-1)]; want&isAny == 0 && want&kindsOf(arg) == 0 {
			return nil, failAt(kid.offset, "argument %d of %s is %s instead of %s", i+1, n.name, describe(arg), want)
		}
		c.args[i] = arg
	}
	return f.call(c)
}

// String names the kinds with their articles.
func (k kinds) String() string {
	var names []string
	for _, each := range kindNames {
		if k&each.kind != 0 {
			names = append(names, each.name)
		}
	}
	return strings.Join(names, " or ")
}

func kindsOf(v any) kinds {
	switch v := v.(type) {
	case float64:
		return isNumber
	case string:
		return isText
	case map[string]any:
		return isObject
	case []any:
		k := isList | isNumbers | isTexts
		for _, item := range v {
			switch item.(type) {
			case float64:
				k &^= isTexts
			case string:
				k &^= isNumbers
			default:
				return isList
			}
		}
		return k
	}
	return 0
}

func (c *call) text(i int) string           { return c.args[i].(string) }
func (c *call) list(i int) []any            { return c.args[i].([]any) }
func (c *call) object(i int) map[string]any { return c.args[i].(map[string]any) }

// each applies the expression that is argument i to a value.
func (c *call) each(i int, v any) (any, error) { return c.in.eval(c.node.kids[i].kids[0], v) }

func number(f func(float64) float64) func(*call) (any, error) {
	return func(c *call) (any, error) { return f(c.args[0].(float64)), nil }
}

func texts(f func(s, affix string) bool) func(*call) (any, error) {
	return func(c *call) (any, error) { return f(c.text(0), c.text(1)), nil }
}

func sum(c *call) (any, error) {
	total := 0.0
	for _, item := range c.list(0) {
		total += item.(float64)
	}
	return total, nil
}

func avg(c *call) (any, error) {
	count := len(c.list(0))
	if count == 0 {
		return nil, nil
	}
	total, err := sum(c)
	return total.(float64) / float64(count), err
}

func contains(c *call) (any, error) {
	if text, ok := c.args[0].(string); ok {
		part, ok := c.args[1].(string)
		if !ok {
			return nil, failAt(c.node.kids[1].offset, "contains looks for %s in a text", describe(c.args[1]))
		}
		return strings.Contains(text, part), nil
	}
	for _, item := range c.list(0) {
		if same, err := c.in.equal(c.node.offset, asNumber(item), asNumber(c.args[1])); same || err != nil {
			return same, err
		}
	}
	return false, nil
}

// asNumber makes 1 and 0 of booleans: Python looks for a value in a list by its own equality, not by JMESPath's.
func asNumber(v any) any {
	if b, ok := v.(bool); ok {
		if b {
			return 1.0
		}
		return 0.0
	}
	return v
}

func join(c *call) (any, error) {
	parts := make([]string, 0, len(c.list(1)))
	for _, item := range c.list(1) {
		if err := c.in.spend(c.node.offset, len(item.(string))+len(c.text(0))); err != nil {
			return nil, err
		}
		parts = append(parts, item.(string))
	}
	return strings.Join(parts, c.text(0)), nil
}

func keys(c *call) (any, error) {
	names := []any{}
	for _, key := range slices.Sorted(maps.Keys(c.object(0))) {
		names = append(names, key)
	}
	return names, nil
}

func length(c *call) (any, error) {
	switch v := c.args[0].(type) {
	case string:
		return float64(utf8.RuneCountInString(v)), nil
	case []any:
		return float64(len(v)), nil
	}
	return float64(len(c.object(0))), nil
}

func mapEach(c *call) (any, error) {
	results := make([]any, 0, len(c.list(1)))
	for _, item := range c.list(1) {
		result, err := c.each(0, item)
		if err != nil {
			return nil, err
		}
		results = append(results, result)
	}
	return results, nil
}

// extreme is max (sign 1) and min (sign -1) of a list of one type; null of an empty one.
func extreme(sign int) func(*call) (any, error) {
	return func(c *call) (any, error) {
		var best any
		for i, item := range c.list(0) {
			if order, _ := orderOf(item, best); i == 0 || order*sign > 0 {
				best = item
			}
		}
		return best, nil
	}
}

// extremeBy is max_by and min_by: the first of the items whose key is the greatest or the least.
func extremeBy(sign int) func(*call) (any, error) {
	return func(c *call) (any, error) {
		keyed, err := c.keyed()
		if err != nil || len(keyed) == 0 {
			return nil, err
		}
		best := keyed[0]
		for _, k := range keyed[1:] {
			if order, _ := orderOf(k.key, best.key); order*sign > 0 {
				best = k
			}
		}
		return best.item, nil
	}
}

func sortBy(c *call) (any, error) {
	keyed, err := c.keyed()
	if err != nil {
		return nil, err
	}
	slices.SortStableFunc(keyed, func(a, b keyedItem) int { order, _ := orderOf(a.key, b.key); return order })
	items := make([]any, 0, len(keyed))
	for _, k := range keyed {
		items = append(items, k.item)
	}
	return items, nil
}

type keyedItem struct{ key, item any }

// keyed pairs each item of argument 0 with what argument 1 makes of it: numbers only or texts only.
func (c *call) keyed() ([]keyedItem, error) {
	var keyed []keyedItem
	for _, item := range c.list(0) {
		key, err := c.each(1, item)
		if err != nil {
			return nil, err
		}
		offset := c.node.kids[1].offset
		if err := c.in.spend(offset, sortSteps*(1+weightOf(key))); err != nil {
			return nil, err
		}
		if !isOrdered(key) {
			return nil, failAt(offset, "%s can't go by %s; a number or a text for each", c.node.name, describe(key))
		}
		if _, isText := key.(string); isText {
			own, err := c.handedOn(c.node.kids[1].kids[0], item)
			if err != nil {
				return nil, err
			}
			if own {
				return nil, failAt(offset, "%s can't go by a text variable as it is, for Ansible refuses that; join('', [variable]) makes a text of its own", c.node.name)
			}
		}
		if len(keyed) > 0 {
			if _, ok := orderOf(keyed[0].key, key); !ok {
				return nil, failAt(offset, "%s can't go by %s and by %s", c.node.name, describe(keyed[0].key), describe(key))
			}
		}
		keyed = append(keyed, keyedItem{key, item})
	}
	return keyed, nil
}

// handedOn tells whether the text that an expression makes of an item is one of the item's own, handed on as it is: to Ansible
// that is of another type than a text that the expression makes or spells out, and its json_query knows no order for it.
func (c *call) handedOn(n *node, item any) (bool, error) {
	switch {
	case n.op == opIdentity, n.op == opField, n.op == opIndex:
		return true, nil
	case n.op == opChain:
		if n.kids[1].op != opCall {
			return c.handedOn(n.kids[1], item)
		}
		inner, err := c.in.eval(n.kids[0], item)
		if err != nil {
			return false, err
		}
		return c.handedOn(n.kids[1], inner)
	case n.op == opOr, n.op == opAnd:
		left, err := c.in.eval(n.kids[0], item)
		if err != nil {
			return false, err
		}
		if isFalse(left) == (n.op == opOr) {
			return c.handedOn(n.kids[1], item)
		}
		return c.handedOn(n.kids[0], item)
	case n.op == opCall && (n.name == "to_string" || n.name == "not_null" || n.name == "max" || n.name == "min"):
		for _, kid := range n.kids {
			v, err := c.in.eval(kid, item)
			if err != nil {
				return false, err
			}
			if v == nil || n.name == "to_string" && kindsOf(v) != isText {
				continue
			}
			return c.handedOn(kid, item)
		}
	}
	return false, nil
}

func merge(c *call) (any, error) {
	merged := map[string]any{}
	for i := range c.args {
		if err := c.in.spend(c.node.offset, len(c.object(i))); err != nil {
			return nil, err
		}
		maps.Copy(merged, c.object(i))
	}
	return merged, nil
}

func notNull(c *call) (any, error) {
	for _, arg := range c.args {
		if arg != nil {
			return arg, nil
		}
	}
	return nil, nil
}

func reverse(c *call) (any, error) {
	if text, ok := c.args[0].(string); ok {
		runes := []rune(text)
		slices.Reverse(runes)
		return string(runes), nil
	}
	items := slices.Clone(c.list(0))
	slices.Reverse(items)
	return items, nil
}

// sortSteps is how often an item is compared while some thousands are sorted.
const sortSteps = 10

func sorted(c *call) (any, error) {
	items := slices.Clone(c.list(0))
	for _, item := range items {
		if err := c.in.spend(c.node.offset, sortSteps*(1+weightOf(item))); err != nil {
			return nil, err
		}
	}
	slices.SortStableFunc(items, func(a, b any) int { order, _ := orderOf(a, b); return order })
	return items, nil
}

func toArray(c *call) (any, error) {
	if list, ok := c.args[0].([]any); ok {
		return list, nil
	}
	return []any{c.args[0]}, nil
}

// toNumber makes a number of a text that is one; of anything else null.
func toNumber(c *call) (any, error) {
	switch v := c.args[0].(type) {
	case float64:
		return v, nil
	case string:
		f, err := strconv.ParseFloat(strings.TrimSpace(v), 64)
		if err == nil && !math.IsInf(f, 0) && !math.IsNaN(f) {
			return f, nil
		}
	}
	return nil, nil
}

// toString gives a text as it is and of anything else its JSON.
func toString(c *call) (any, error) {
	if text, ok := c.args[0].(string); ok {
		return text, nil
	}
	if err := c.weigh(c.args[0]); err != nil {
		return nil, err
	}
	var out bytes.Buffer
	encoder := json.NewEncoder(&out)
	encoder.SetEscapeHTML(false)
	if err := encoder.Encode(c.args[0]); err != nil {
		return nil, failAt(c.node.offset, "to_string: %v", err)
	}
	return strings.TrimSuffix(out.String(), "\n"), nil
}

// weigh spends a step for everything inside a value: an expression can make a small value that is huge as JSON.
func (c *call) weigh(v any) error {
	if err := c.in.spend(c.node.offset, 1); err != nil {
		return err
	}
	switch v := v.(type) {
	case string:
		return c.in.spend(c.node.offset, len(v))
	case []any:
		for _, item := range v {
			if err := c.weigh(item); err != nil {
				return err
			}
		}
	case map[string]any:
		for _, item := range v {
			if err := c.weigh(item); err != nil {
				return err
			}
		}
	}
	return nil
}

func typeOf(c *call) (any, error) {
	switch c.args[0].(type) {
	case nil:
		return "null", nil
	case bool:
		return "boolean", nil
	case float64:
		return "number", nil
	case string:
		return "string", nil
	case []any:
		return "array", nil
	}
	return "object", nil
}

func plural(n int, what string) string {
	if n == 1 {
		return "1 " + what
	}
	return strconv.Itoa(n) + " " + what + "s"
}
