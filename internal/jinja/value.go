package jinja

import (
	"fmt"
	"math"
	"strings"
)

// Tuple is Python's tuple: a list that prints with parentheses.
type Tuple []any

// Mapping is a mapping that is computed as it is asked, such as Ansible's hostvars.
type Mapping interface {
	Get(name string) (v any, found bool, err error)
	Names() []string
}

// Undefined is what a name that isn't there gives. It may be passed on, to `default` above all, but not used.
type Undefined struct {
	// What says what isn't defined: `the variable "x" is not defined`.
	What string
	// Cause is another template's error on the way to the value; it replaces What.
	Cause error
	// soft is what a condition without else gives when it is false: nothing, where it is printed, and false.
	soft bool
}

// use is the error of using something that isn't defined.
func (u *Undefined) use() error {
	if u.Cause != nil {
		return u.Cause
	}
	return undefinedUse(u.What)
}

// undefinedUse is a complaint of something undefined.
type undefinedUse string

func (u undefinedUse) Error() string { return string(u) }

// Dict is a mapping that keeps its order.
type Dict struct {
	keys   []any
	values map[any]any
}

// NewDict gives an empty mapping.
func NewDict() *Dict { return &Dict{values: map[any]any{}} }

// Len is how many keys there are.
func (d *Dict) Len() int { return len(d.keys) }

// Keys are in the order in which they were first set: texts as a rule, but also numbers, booleans and nil.
func (d *Dict) Keys() []any { return d.keys }

// Get gives the value of a key.
func (d *Dict) Get(key any) (any, bool) {
	id, ok := identity(key)
	if !ok {
		return nil, false
	}
	v, found := d.values[id]
	return v, found
}

// Set sets a key; false if the value can't be one.
func (d *Dict) Set(key, value any) bool {
	id, ok := identity(key)
	if !ok {
		return false
	}
	if _, again := d.values[id]; !again {
		d.keys = append(d.keys, key)
	}
	d.values[id] = value
	return true
}

// identity makes equal keys the same: to Python 1, 1.0 and True are one.
func identity(key any) (any, bool) {
	switch k := key.(type) {
	case nil, string, int64:
		return k, true
	case bool:
		if k {
			return int64(1), true
		}
		return int64(0), true
	case float64:
		if k == math.Trunc(k) && math.Abs(k) < 1<<53 {
			return int64(k), true
		}
		return k, k == k
	case Tuple:
		var id strings.Builder
		for _, item := range k {
			inner, ok := identity(item)
			if !ok {
				return nil, false
			}
			fmt.Fprintf(&id, "%T %v\x00", inner, inner)
		}
		return [1]string{id.String()}, true
	}
	return nil, false
}

// describe names a value's type in messages.
func describe(v any) string {
	switch v.(type) {
	case nil:
		return "nothing"
	case bool:
		return "a boolean"
	case int64, float64:
		return "a number"
	case string:
		return "a text"
	case []any, Tuple:
		return "a list"
	case *Dict, Mapping:
		return "a mapping"
	case *namespace:
		return "a namespace"
	}
	return "a function"
}

// truth is Python's.
func truth(v any) (bool, error) {
	switch v := v.(type) {
	case nil:
		return false, nil
	case bool:
		return v, nil
	case int64:
		return v != 0, nil
	case float64:
		return v != 0, nil
	case string:
		return v != "", nil
	case []any:
		return len(v) > 0, nil
	case Tuple:
		return len(v) > 0, nil
	case *Dict:
		return v.Len() > 0, nil
	case Mapping:
		return len(v.Names()) > 0, nil
	case *Undefined:
		if v.soft {
			return false, nil
		}
		return false, v.use()
	}
	return true, nil
}

// items gives what a loop over a value goes through.
func (m *machine) items(v any) ([]any, error) {
	var items []any
	switch v := v.(type) {
	case []any:
		items = v
	case Tuple:
		items = v
	case *Dict:
		items = v.keys
	case string:
		if err := m.budget.listed(len(v)); err != nil {
			return nil, err
		}
		for _, r := range v {
			items = append(items, string(r))
		}
		return items, nil
	case Mapping:
		for _, name := range v.Names() {
			items = append(items, name)
		}
	case *Undefined:
		if v.soft {
			return nil, nil
		}
		return nil, v.use()
	default:
		return nil, complain("%s has no items", describe(v))
	}
	return items, m.budget.listed(len(items))
}

// asDict gives a mapping with all its values.
func (m *machine) asDict(v any) (*Dict, error) {
	switch v := v.(type) {
	case *Dict:
		return v, nil
	case Mapping:
		d := NewDict()
		for _, name := range v.Names() {
			if err := m.budget.step(1); err != nil {
				return nil, err
			}
			value, _, err := v.Get(name)
			if err != nil {
				return nil, err
			}
			d.Set(name, value)
		}
		return d, nil
	case *Undefined:
		return nil, v.use()
	}
	return nil, complain("%s is no mapping", describe(v))
}

// equal is Python's ==.
func (m *machine) equal(a, b any) (bool, error) {
	if err := m.budget.step(1); err != nil {
		return false, err
	}
	if u, ok := a.(*Undefined); ok {
		return false, u.use()
	}
	if u, ok := b.(*Undefined); ok {
		return false, u.use()
	}
	if x, y, ok := numbers(a, b); ok {
		return x == y, nil
	}
	switch x := a.(type) {
	case nil:
		return b == nil, nil
	case string:
		y, ok := b.(string)
		return ok && x == y, nil
	case []any:
		y, ok := b.([]any)
		return m.equalItems(x, y, ok)
	case Tuple:
		y, ok := b.(Tuple)
		return m.equalItems(x, y, ok)
	case *Dict, Mapping:
		switch b.(type) {
		case *Dict, Mapping:
		default:
			return false, nil
		}
		left, err := m.asDict(a)
		if err != nil {
			return false, err
		}
		right, err := m.asDict(b)
		if err != nil || left.Len() != right.Len() {
			return false, err
		}
		for _, key := range left.keys {
			other, has := right.Get(key)
			if !has {
				return false, nil
			}
			value, _ := left.Get(key)
			if same, err := m.equal(value, other); !same || err != nil {
				return false, err
			}
		}
		return true, nil
	}
	return false, nil
}

func (m *machine) equalItems(a, b []any, sameType bool) (bool, error) {
	if !sameType || len(a) != len(b) {
		return false, nil
	}
	for i := range a {
		if same, err := m.equal(a[i], b[i]); !same || err != nil {
			return false, err
		}
	}
	return true, nil
}

// compare orders two values: negative, zero, positive.
func (m *machine) compare(a, b any) (int, error) {
	if err := m.budget.step(1); err != nil {
		return 0, err
	}
	for _, v := range []any{a, b} {
		if u, ok := v.(*Undefined); ok {
			return 0, u.use()
		}
	}
	if x, ok := a.(int64); ok {
		if y, ok := b.(int64); ok {
			return order(x, y), nil
		}
	}
	if x, y, ok := numbers(a, b); ok {
		return order(x, y), nil
	}
	if x, ok := a.(string); ok {
		if y, ok := b.(string); ok {
			return strings.Compare(x, y), nil
		}
	}
	x, isList := listOf(a)
	y, both := listOf(b)
	if !isList || !both {
		return 0, complain("%s and %s have no order", describe(a), describe(b))
	}
	for i := range min(len(x), len(y)) {
		same, err := m.equal(x[i], y[i])
		if err != nil {
			return 0, err
		}
		if !same {
			return m.compare(x[i], y[i])
		}
	}
	return len(x) - len(y), nil
}

func order[T int64 | float64](a, b T) int {
	switch {
	case a < b:
		return -1
	case a > b:
		return 1
	}
	return 0
}

func listOf(v any) ([]any, bool) {
	switch v := v.(type) {
	case []any:
		return v, true
	case Tuple:
		return v, true
	}
	return nil, false
}

// numbers gives two numbers as floats; to Python a boolean is a number.
func numbers(a, b any) (x, y float64, ok bool) {
	x, okX := float(a)
	y, okY := float(b)
	return x, y, okX && okY
}

func float(v any) (float64, bool) {
	if n, ok := whole(v); ok {
		return float64(n), true
	}
	f, ok := v.(float64)
	return f, ok
}

// whole gives a whole number that isn't written as a fraction.
func whole(v any) (int64, bool) {
	switch v := v.(type) {
	case int64:
		return v, true
	case bool:
		if v {
			return 1, true
		}
		return 0, true
	}
	return 0, false
}

// contains is Python's `in`.
func (m *machine) contains(container, v any) (bool, error) {
	switch c := container.(type) {
	case string:
		part, ok := v.(string)
		if u, undefined := v.(*Undefined); undefined {
			return false, u.use()
		}
		if !ok {
			return false, complain("%s can't be part of a text", describe(v))
		}
		return strings.Contains(c, part), nil
	case *Dict:
		_, has := c.Get(v)
		return has, nil
	case Mapping:
		name, ok := v.(string)
		if !ok {
			return false, nil
		}
		_, has, err := c.Get(name)
		return has, err
	}
	items, err := m.items(container)
	if err != nil {
		return false, err
	}
	for _, item := range items {
		if same, err := m.equal(item, v); same || err != nil {
			return same, err
		}
	}
	return false, nil
}
