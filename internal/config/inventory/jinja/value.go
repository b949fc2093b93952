package jinja

import (
	"math"
	"slices"
)

// Tuple is Python's tuple: a list that prints with parentheses.
type Tuple []any

// Mapping is a mapping that is computed as it is asked, such as Ansible's hostvars.
type Mapping interface {
	Get(name string) (v Variable, found bool, err error)
	Names() []string
}

// Undefined is what a name that isn't there gives. It may be passed on, to `default` above all, but not used.
type Undefined struct {
	// Cause is the error of using it.
	Cause error
	// soft is what a condition without else gives when it is false: nothing, where it is printed, and false.
	soft bool
}

// defined gives a value that is about to be used.
func defined(v any) any {
	if u, ok := v.(*Undefined); ok {
		panic(failure{u.Cause})
	}
	return v
}

// Dict is a mapping that keeps its order.
type Dict struct {
	keys   []any
	values map[any]any
	// Public says that its keys are names of their own, which tell nothing of what is under them.
	Public bool
}

// NewDict gives an empty mapping.
func NewDict() *Dict { return &Dict{values: map[any]any{}} }

// Keys are in the order in which they were first set: texts as a rule, but also numbers, booleans and nil.
func (d *Dict) Keys() []any { return d.keys }

// Get gives the value of a key.
func (d *Dict) Get(key any) (any, bool) {
	id, ok := identity(key)
	v, found := d.values[id]
	return v, found && ok
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
	case nil, string:
		return k, true
	case int64, bool:
		return whole(k)
	case float64:
		if k == math.Trunc(k) && math.Abs(k) < 1<<53 {
			return int64(k), true
		}
		return k, k == k
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
	case *Undefined:
		return "something undefined"
	}
	return "a mapping"
}

// truth is Python's.
func (m *machine) truth(v any) bool {
	switch v := v.(type) {
	case string:
		return v != ""
	case []any, Tuple, *Dict, Mapping:
		return len(m.items(v)) > 0
	case *Undefined:
		return !v.soft && m.truth(defined(v))
	}
	f, _ := float(v)
	return f != 0
}

// items gives what a filter over a value goes through.
func (m *machine) items(v any) []any {
	var items []any
	switch v := v.(type) {
	case []any:
		items = v
	case Tuple:
		items = v
	case *Dict:
		items = v.keys
	case string:
		m.listed(len(v))
		for _, r := range v {
			items = append(items, string(r))
		}
		return items
	case Mapping:
		for _, name := range v.Names() {
			items = append(items, name)
		}
	case *Undefined:
		if !v.soft {
			defined(v)
		}
	default:
		panic(m.failure("%s has no items", describe(v)))
	}
	m.listed(len(items))
	return items
}

// text gives a value that must be one.
func (m *machine) text(v any) string {
	text, ok := defined(v).(string)
	if !ok {
		panic(m.failure("takes a text, not %s", describe(v)))
	}
	return text
}

// equal is Python's ==.
func (m *machine) equal(a, b any) bool {
	m.step(1)
	a, b = defined(a), defined(b)
	if _, _, ok := numbers(a, b); ok {
		return m.compare(a, b) == 0
	}
	switch x := a.(type) {
	case nil, string:
		return a == b
	case []any:
		y, ok := b.([]any)
		return ok && slices.EqualFunc(x, y, m.equal)
	case Tuple:
		y, ok := b.(Tuple)
		return ok && slices.EqualFunc(x, y, m.equal)
	}
	if describe(a) != "a mapping" || describe(b) != "a mapping" {
		return false
	}
	keys := m.items(a)
	return len(keys) == len(m.items(b)) && !slices.ContainsFunc(keys, func(key any) bool {
		value, _ := m.member(a, key)
		other, has := m.member(b, key)
		return !has || !m.equal(value, other)
	})
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
		return map[bool]int64{true: 1}[v], true
	}
	return 0, false
}
