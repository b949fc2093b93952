package jinja

import (
	"cmp"
	"math"
	"slices"
	"strings"
)

// operate is Python's arithmetic, and Jinja's ~.
func (m *machine) operate(a any, operator string, b any) any {
	m.step(1)
	a, b = defined(a), defined(b)
	_, wholeA := whole(a)
	_, wholeB := whole(b)
	x, y, areNumbers := numbers(a, b)
	switch {
	case operator == "~":
		return m.joined(m.str(a), m.str(b))
	case areNumbers:
		f := m.arithmetic(x, operator, y)
		// Whole numbers are fractions without loss up to here, and so are their results.
		const exact = 1 << 53
		if wholeA && wholeB && max(math.Abs(x), math.Abs(y), math.Abs(f)) >= exact {
			panic(m.failure("the number is too large"))
		}
		if wholeA && wholeB && operator != "/" {
			return int64(f)
		}
		return f
	case operator == "+":
		return m.joined(a, b)
	case operator == "*" && wholeA:
		panic(refusal(m.at, "operator * of "+describe(b)))
	case operator == "*" && wholeB, operator == "%" && describe(a) == "a text":
		panic(refusal(m.at, "operator "+operator+" of "+describe(a)))
	}
	panic(m.failure("%s and %s don't go together by %s", describe(a), describe(b), operator))
}

// joined is + of what isn't a number. A number and a text don't join, as they don't in Python.
func (m *machine) joined(a, b any) any {
	switch x := a.(type) {
	case string:
		if y, ok := b.(string); ok {
			m.made(len(x) + len(y))
			return x + y
		}
	case []any:
		if y, ok := b.([]any); ok {
			m.listed(len(x) + len(y))
			return slices.Concat(x, y)
		}
	}
	panic(m.failure("%s and %s can't be added", describe(a), describe(b)))
}

func (m *machine) arithmetic(x float64, operator string, y float64) float64 {
	var f float64
	switch {
	case operator == "+":
		f = x + y
	case operator == "-":
		f = x - y
	case operator == "*":
		f = x * y
	case y == 0:
		panic(m.failure("division by zero"))
	case operator == "/":
		f = x / y
	default:
		// As Python divides: the remainder has the divisor's sign, and // rounds what it leaves.
		rest := math.Mod(x, y)
		quotient := (x - rest) / y
		if rest != 0 && (rest < 0) != (y < 0) {
			rest, quotient = rest+y, quotient-1
		}
		f = math.Copysign(rest, y)
		if operator == "//" {
			f = math.Floor(quotient)
			if quotient-f > 0.5 {
				f++
			}
			f = math.Copysign(f, x/y)
		}
	}
	if math.IsInf(f, 0) || math.IsNaN(f) {
		panic(m.failure("the number is too large"))
	}
	return f
}

// compares is Python's ==, !=, <, <=, >, >=, in and not in.
func (m *machine) compares(left any, operator string, right any) bool {
	switch operator {
	case "==", "!=":
		return m.equal(left, right) == (operator == "==")
	case "in", "not in":
		return m.contains(right, left) == (operator == "in")
	}
	c := m.compare(left, right)
	return c == 0 && strings.HasSuffix(operator, "=") || c < 0 && operator[0] == '<' || c > 0 && operator[0] == '>'
}

// compare orders two numbers or two texts: negative, zero, positive.
func (m *machine) compare(a, b any) int {
	m.step(1)
	a, b = defined(a), defined(b)
	if x, ok := a.(int64); ok {
		if y, ok := b.(int64); ok {
			return cmp.Compare(x, y)
		}
	}
	if x, y, ok := numbers(a, b); ok {
		return cmp.Compare(x, y)
	}
	if x, isText := a.(string); isText {
		if y, both := b.(string); both {
			return strings.Compare(x, y)
		}
	}
	panic(m.failure("%s and %s have no order here", describe(a), describe(b)))
}

// contains is Python's `in`.
func (m *machine) contains(container, v any) bool {
	v = defined(v)
	if text, ok := container.(string); ok {
		return strings.Contains(text, m.text(v))
	}
	if describe(container) == "a mapping" {
		_, has := m.member(container, v)
		return has
	}
	return slices.ContainsFunc(m.items(container), func(item any) bool { return m.equal(item, v) })
}
