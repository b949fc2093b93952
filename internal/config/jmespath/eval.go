package jmespath

import (
	"maps"
	"slices"
	"strings"
)

// Bounds of the work of one evaluation, and of those that share a Budget. A selector over some hundred members takes some thousand
// steps, those of a thousand clusters together less than a million; only one that multiplies its own results comes near.
const (
	maxSteps    = 2_000_000
	sharedSteps = 20_000_000
)

// Budget bounds what several evaluations may cost together, such as those of a whole inventory. It is for one goroutine.
type Budget struct{ steps int }

// NewBudget gives some two seconds of computing.
func NewBudget() *Budget { return &Budget{steps: sharedSteps} }

// interpreter evaluates one expression once.
type interpreter struct {
	steps  int
	shared *Budget
}

// charBytes are how many bytes of a text are looked at in the time of a step.
const charBytes = 64

// spend counts n steps.
func (in *interpreter) spend(offset, n int) error {
	if in.steps -= n; in.steps < 0 {
		return failAt(offset, "the expression takes too many steps: more than %d", maxSteps)
	}
	if in.shared.steps -= n; in.shared.steps < 0 {
		return failAt(offset, "the selectors take too many steps together: more than %d", sharedSteps)
	}
	return nil
}

// eval applies a node to a value.
func (in *interpreter) eval(n *node, v any) (any, error) {
	if err := in.spend(n.offset, 1); err != nil {
		return nil, err
	}
	switch n.op {
	case opIdentity:
		return v, nil
	case opLiteral:
		return n.value, nil
	case opField:
		object, _ := v.(map[string]any)
		return object[n.name], nil
	case opIndex:
		list, _ := v.([]any)
		i := *n.slice[0]
		if i < 0 {
			i += len(list)
		}
		if i < 0 || i >= len(list) {
			return nil, nil
		}
		return list[i], nil
	case opSlice:
		list, isList := v.([]any)
		if !isList {
			return nil, nil
		}
		if err := in.spend(n.offset, len(list)); err != nil {
			return nil, err
		}
		return slice(list, n.slice), nil
	case opChain:
		left, err := in.eval(n.kids[0], v)
		if err != nil {
			return nil, err
		}
		return in.eval(n.kids[1], left)
	case opProjection, opFilter, opValues:
		return in.project(n, v)
	case opFlatten:
		return in.flatten(n, v)
	case opList, opHash:
		return in.build(n, v)
	case opOr, opAnd, opNot:
		left, err := in.eval(n.kids[0], v)
		switch {
		case err != nil:
			return nil, err
		case n.op == opNot:
			return isFalse(left), nil
		case isFalse(left) == (n.op == opOr):
			return in.eval(n.kids[1], v)
		}
		return left, nil
	case opCompare:
		return in.compare(n, v)
	case opCall:
		return in.call(n, v)
	}
	return nil, failAt(n.offset, "the expression can't be evaluated here")
}

// project applies a projection's tail to each item (of those that pass, for a filter) and leaves out what gives null.
func (in *interpreter) project(n *node, v any) (any, error) {
	left, err := in.eval(n.kids[0], v)
	if err != nil {
		return nil, err
	}
	items, isList := left.([]any)
	if n.op == opValues {
		object, isObject := left.(map[string]any)
		if err := in.spend(n.offset, 5*len(object)); err != nil {
			return nil, err
		}
		items, isList = sortedValues(object), isObject
	}
	if !isList {
		return nil, nil
	}
	results := []any{}
	for _, item := range items {
		if n.op == opFilter {
			keep, err := in.eval(n.kids[2], item)
			if err != nil {
				return nil, err
			}
			if isFalse(keep) {
				continue
			}
		}
		result, err := in.eval(n.kids[1], item)
		if err != nil {
			return nil, err
		}
		if result != nil {
			results = append(results, result)
		}
	}
	return results, nil
}

// flatten merges the lists among a list's items into it, one level deep.
func (in *interpreter) flatten(n *node, v any) (any, error) {
	left, err := in.eval(n.kids[0], v)
	if err != nil {
		return nil, err
	}
	list, isList := left.([]any)
	if !isList {
		return nil, nil
	}
	flat := []any{}
	for _, item := range list {
		inner, isList := item.([]any)
		if err := in.spend(n.offset, len(inner)); err != nil {
			return nil, err
		}
		if isList {
			flat = append(flat, inner...)
		} else {
			flat = append(flat, item)
		}
	}
	return flat, nil
}

// build makes the list or the object that a multiselect describes; of null it makes null.
func (in *interpreter) build(n *node, v any) (any, error) {
	if v == nil {
		return nil, nil
	}
	list := []any{}
	object := map[string]any{}
	for _, kid := range n.kids {
		value := kid
		if n.op == opHash {
			value = kid.kids[0]
		}
		result, err := in.eval(value, v)
		if err != nil {
			return nil, err
		}
		list = append(list, result)
		object[kid.name] = result
	}
	if n.op == opHash {
		return object, nil
	}
	return list, nil
}

// compare orders numbers and, as Python's implementation does, texts. A number against a text is an error there and here;
// any other order is null.
func (in *interpreter) compare(n *node, v any) (any, error) {
	left, err := in.eval(n.kids[0], v)
	if err != nil {
		return nil, err
	}
	right, err := in.eval(n.kids[1], v)
	if err != nil {
		return nil, err
	}
	if n.name == "==" || n.name == "!=" {
		same, err := in.equal(n.offset, left, right)
		return same == (n.name == "=="), err
	}
	if !isOrdered(left) || !isOrdered(right) {
		return nil, nil
	}
	if err := in.spend(n.offset, weightOf(left)); err != nil {
		return nil, err
	}
	order, ok := orderOf(left, right)
	if !ok {
		return nil, failAt(n.offset, "%s can't order %s and %s", n.name, describe(left), describe(right))
	}
	switch n.name {
	case "<":
		return order < 0, nil
	case "<=":
		return order <= 0, nil
	case ">":
		return order > 0, nil
	}
	return order >= 0, nil
}

// equal compares JSON values in depth.
func (in *interpreter) equal(offset int, a, b any) (bool, error) {
	if err := in.spend(offset, 1+weightOf(a)); err != nil {
		return false, err
	}
	switch a := a.(type) {
	case []any:
		b, ok := b.([]any)
		if !ok || len(a) != len(b) {
			return false, nil
		}
		for i := range a {
			if same, err := in.equal(offset, a[i], b[i]); !same || err != nil {
				return false, err
			}
		}
		return true, nil
	case map[string]any:
		b, ok := b.(map[string]any)
		if !ok || len(a) != len(b) {
			return false, nil
		}
		for key, value := range a {
			other, has := b[key]
			if !has {
				return false, nil
			}
			if same, err := in.equal(offset, value, other); !same || err != nil {
				return false, err
			}
		}
		return true, nil
	}
	switch b.(type) {
	case []any, map[string]any:
		return false, nil
	}
	return a == b, nil
}

// weightOf is how many steps it takes to look at a value once, without what is in it.
func weightOf(v any) int {
	switch v := v.(type) {
	case string:
		return len(v) / charBytes
	case []any:
		return len(v)
	case map[string]any:
		return 5 * len(v)
	}
	return 0
}

// isFalse tells JMESPath's false values: null, false, and the empty text, list and object. 0 is true.
func isFalse(v any) bool {
	switch v := v.(type) {
	case nil:
		return true
	case bool:
		return !v
	case string:
		return v == ""
	case []any:
		return len(v) == 0
	case map[string]any:
		return len(v) == 0
	}
	return false
}

func isOrdered(v any) bool {
	switch v.(type) {
	case float64, string:
		return true
	}
	return false
}

// orderOf compares two numbers or two texts (by code point); false if they are neither.
func orderOf(a, b any) (int, bool) {
	switch a := a.(type) {
	case float64:
		b, ok := b.(float64)
		switch {
		case a < b:
			return -1, ok
		case a > b:
			return 1, ok
		}
		return 0, ok
	case string:
		b, ok := b.(string)
		return strings.Compare(a, b), ok
	}
	return 0, false
}

// sortedValues are an object's values in the order of its keys.
func sortedValues(object map[string]any) []any {
	values := make([]any, 0, len(object))
	for _, key := range slices.Sorted(maps.Keys(object)) {
		values = append(values, object[key])
	}
	return values
}

// slice takes list[start:stop:step] with Python's rules for missing, negative and overlong bounds.
func slice(list []any, parts [3]*int) []any {
	step := 1
	if parts[2] != nil {
		step = *parts[2]
	}
	low, high := 0, len(list)
	start, stop := low, high
	if step < 0 {
		low, high = -1, len(list)-1
		start, stop = high, low
	}
	bound := func(part *int, otherwise int) int {
		if part == nil {
			return otherwise
		}
		b := *part
		if b < 0 {
			b += len(list)
		}
		return max(low, min(b, high))
	}
	start, stop = bound(parts[0], start), bound(parts[1], stop)
	taken := []any{}
	for i := start; step > 0 && i < stop || step < 0 && i > stop; {
		taken = append(taken, list[i])
		if step > 0 && stop-i <= step || step < 0 && stop-i >= step {
			break
		}
		i += step
	}
	return taken
}
