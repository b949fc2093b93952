package jinja

import (
	"math"
	"math/bits"
	"strings"
)

func (n *signNode) eval(m *machine) (any, error) {
	v, err := n.of.eval(m)
	if err != nil {
		return nil, err
	}
	if u, ok := v.(*Undefined); ok {
		return nil, locate(u.use(), n.of.offset())
	}
	sign := int64(1)
	if n.negative {
		sign = -1
	}
	if i, ok := whole(v); ok {
		if i == math.MinInt64 {
			return nil, locate(tooLarge(), n.offset())
		}
		return sign * i, nil
	}
	if f, ok := v.(float64); ok {
		return float64(sign) * f, nil
	}
	return nil, locate(complain("%s has no sign", describe(v)), n.offset())
}

func (n *binaryNode) eval(m *machine) (any, error) {
	left, err := n.left.eval(m)
	if err != nil {
		return nil, err
	}
	right, err := n.right.eval(m)
	if err != nil {
		return nil, err
	}
	v, err := m.operate(left, n.operator, right)
	return v, locate(err, n.offset())
}

func tooLarge() error { return complain("the number is too large") }

// operate is Python's arithmetic, and Jinja's ~.
func (m *machine) operate(a any, operator string, b any) (any, error) {
	for _, v := range []any{a, b} {
		if u, ok := v.(*Undefined); ok {
			return nil, u.use()
		}
	}
	if err := m.budget.step(1); err != nil {
		return nil, err
	}
	if operator == "~" {
		x, err := m.str(a)
		if err != nil {
			return nil, err
		}
		y, err := m.str(b)
		if err != nil {
			return nil, err
		}
		return x + y, m.budget.made(len(x) + len(y))
	}
	if x, ok := whole(a); ok {
		if y, ok := whole(b); ok {
			return wholeOperate(x, operator, y)
		}
	}
	if x, y, ok := numbers(a, b); ok {
		return floatOperate(x, operator, y)
	}
	switch operator {
	case "+":
		return m.joined(a, b)
	case "*":
		if n, ok := whole(b); ok {
			return m.repeated(a, n)
		}
		if n, ok := whole(a); ok {
			return m.repeated(b, n)
		}
	case "%":
		if format, ok := a.(string); ok {
			return m.percent(format, b)
		}
	}
	return nil, complain("%s and %s don't go together by %s", describe(a), describe(b), operator)
}

// joined is + of what isn't a number. A number and a text don't join, as they don't in Python.
func (m *machine) joined(a, b any) (any, error) {
	switch x := a.(type) {
	case string:
		if y, ok := b.(string); ok {
			return x + y, m.budget.made(len(x) + len(y))
		}
	case []any:
		if y, ok := b.([]any); ok {
			return append(append(make([]any, 0, len(x)+len(y)), x...), y...), m.budget.listed(len(x) + len(y))
		}
	case Tuple:
		if y, ok := b.(Tuple); ok {
			return append(append(make(Tuple, 0, len(x)+len(y)), x...), y...), m.budget.listed(len(x) + len(y))
		}
	}
	return nil, complain("%s and %s can't be added", describe(a), describe(b))
}

func (m *machine) repeated(v any, times int64) (any, error) {
	times = min(max(times, 0), 1<<31)
	if text, ok := v.(string); ok {
		if err := m.budget.made(int(min(times*int64(len(text)), 1<<40))); err != nil {
			return nil, err
		}
		return strings.Repeat(text, int(times)), nil
	}
	items, ok := listOf(v)
	if !ok {
		return nil, complain("%s can't be multiplied", describe(v))
	}
	if err := m.budget.listed(int(min(times*int64(len(items)), 1<<40))); err != nil {
		return nil, err
	}
	all := []any{}
	for range times {
		if len(items) == 0 {
			break
		}
		all = append(all, items...)
	}
	if _, isTuple := v.(Tuple); isTuple {
		return Tuple(all), nil
	}
	return all, nil
}

func wholeOperate(x int64, operator string, y int64) (any, error) {
	switch operator {
	case "+":
		if sum := x + y; (sum > x) == (y > 0) {
			return sum, nil
		}
		return nil, tooLarge()
	case "-":
		if difference := x - y; (difference < x) == (y > 0) {
			return difference, nil
		}
		return nil, tooLarge()
	case "*":
		return product(x, y)
	case "**":
		return wholePower(x, y)
	}
	if y == 0 {
		return nil, complain("division by zero")
	}
	switch operator {
	case "/":
		return float64(x) / float64(y), nil
	case "//":
		if x == math.MinInt64 && y == -1 {
			return nil, tooLarge()
		}
		quotient := x / y
		if x%y != 0 && (x < 0) != (y < 0) {
			quotient--
		}
		return quotient, nil
	}
	// Python's remainder has the divisor's sign.
	if y == -1 {
		return int64(0), nil
	}
	remainder := x % y
	if remainder != 0 && (remainder < 0) != (y < 0) {
		remainder += y
	}
	return remainder, nil
}

func product(x, y int64) (any, error) {
	magnitude := func(n int64) uint64 {
		if n < 0 {
			return -uint64(n)
		}
		return uint64(n)
	}
	high, low := bits.Mul64(magnitude(x), magnitude(y))
	if high != 0 || low > math.MaxInt64 {
		return nil, tooLarge()
	}
	return x * y, nil
}

func wholePower(x, y int64) (any, error) {
	if y < 0 {
		if x == 0 {
			return nil, complain("zero has no negative power")
		}
		return math.Pow(float64(x), float64(y)), nil
	}
	if y > 64 && x != 0 && x != 1 && x != -1 {
		return nil, tooLarge()
	}
	if x == -1 {
		y %= 2
	} else {
		y = min(y, 64)
	}
	var result any = int64(1)
	for range y {
		var err error
		if result, err = product(result.(int64), x); err != nil {
			return nil, err
		}
	}
	return result, nil
}

func floatOperate(x float64, operator string, y float64) (any, error) {
	var f float64
	switch operator {
	case "+":
		f = x + y
	case "-":
		f = x - y
	case "*":
		f = x * y
	case "**":
		f = math.Pow(x, y)
	default:
		if y == 0 {
			return nil, complain("division by zero")
		}
		switch operator {
		case "/":
			f = x / y
		case "//":
			f = math.Floor(x / y)
		case "%":
			f = math.Mod(x, y)
			if f != 0 && (f < 0) != (y < 0) {
				f += y
			}
		}
	}
	if math.IsInf(f, 0) || math.IsNaN(f) {
		return nil, tooLarge()
	}
	return f, nil
}
