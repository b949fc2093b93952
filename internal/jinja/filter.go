package jinja

import (
	"encoding/base64"
	"math"
	"path"
	"strconv"
	"strings"
	"unicode"
)

// filter makes a value of another.
type filter func(m *machine, v any, args given) (any, error)

// filters are all that there are: those of Jinja and of ansible-core that make a value of a value, and nothing of the
// machine, the clock or chance. Those over lists are in sequence.go.
var filters map[string]filter

// takesUndefined are the filters that may be given something undefined.
var takesUndefined = map[string]bool{"default": true, "d": true, "mandatory": true}

func init() {
	filters = map[string]filter{
		"default": defaultFilter, "d": defaultFilter,
		"mandatory": func(_ *machine, v any, args given) (any, error) {
			if _, err := args.bind("msg", nil); err != nil {
				return nil, err
			}
			if u, ok := v.(*Undefined); ok {
				return nil, complain("%v", u.use())
			}
			return v, nil
		},
		"int": intFilter, "float": floatFilter, "bool": boolFilter, "round": roundFilter, "abs": absFilter,
		"string":     plainFilter(func(m *machine, v any) (any, error) { return m.str(v) }),
		"lower":      textFilter(strings.ToLower),
		"upper":      textFilter(strings.ToUpper),
		"capitalize": textFilter(capitalize),
		"title":      textFilter(title),
		"basename":   textFilter(func(s string) string { return s[strings.LastIndex(s, "/")+1:] }),
		"dirname": textFilter(func(s string) string {
			head := s[:strings.LastIndex(s, "/")+1]
			if trimmed := strings.TrimRight(head, "/"); trimmed != "" {
				return trimmed
			}
			return head
		}),
		"b64encode": textFilter(func(s string) string { return base64.StdEncoding.EncodeToString([]byte(s)) }),
		"b64decode": func(m *machine, v any, args given) (any, error) {
			text, err := m.str(v)
			if err != nil {
				return nil, err
			}
			decoded, err := base64.StdEncoding.DecodeString(text)
			if err != nil {
				return nil, complain("the text isn't base64")
			}
			return strings.ToValidUTF8(string(decoded), "\ufffd"), nil
		},
		"trim": func(m *machine, v any, args given) (any, error) {
			text, err := m.str(v)
			if err != nil {
				return nil, err
			}
			return textMethods["strip"](m, text, args)
		},
		"replace": func(m *machine, v any, args given) (any, error) {
			text, err := m.str(v)
			if err != nil {
				return nil, err
			}
			return m.replace(text, args)
		},
		"split": func(m *machine, v any, args given) (any, error) {
			text, ok := v.(string)
			if !ok {
				return nil, complain("takes a text, not %s", describe(v))
			}
			return m.splitText(text, args, false)
		},
		"splitext": plainFilter(func(m *machine, v any) (any, error) {
			all, err := texts([]any{v})
			if err != nil {
				return nil, err
			}
			base := path.Base(all[0])
			dot := strings.LastIndex(strings.TrimLeft(base, "."), ".")
			if dot < 0 {
				return Tuple{all[0], ""}, nil
			}
			extension := strings.TrimLeft(base, ".")[dot:]
			return Tuple{strings.TrimSuffix(all[0], extension), extension}, nil
		}),
		"path_join": plainFilter(func(m *machine, v any) (any, error) {
			items := []any{v}
			if list, ok := listOf(v); ok {
				items = list
			}
			parts, err := texts(items)
			if err != nil {
				return nil, err
			}
			joined := ""
			for i, part := range parts {
				switch {
				case strings.HasPrefix(part, "/") || i == 0:
					joined = part
				case joined == "" || strings.HasSuffix(joined, "/"):
					joined += part
				default:
					joined += "/" + part
				}
			}
			return joined, m.budget.made(len(joined))
		}),
		"center": func(m *machine, v any, args given) (any, error) {
			values, err := args.bind("width", int64(80))
			if err != nil {
				return nil, err
			}
			text, err := m.str(v)
			if err != nil {
				return nil, err
			}
			width, ok := whole(values[0])
			if !ok || width > maxText {
				return nil, complain("takes a number of characters")
			}
			missing := max(int(width)-len([]rune(text)), 0)
			// Python puts the odd blank to the left if the width is odd.
			left := missing/2 + missing&int(width)&1
			return strings.Repeat(" ", left) + text + strings.Repeat(" ", missing-left), m.budget.made(missing + len(text))
		},
		"format": func(m *machine, v any, args given) (any, error) {
			text, err := m.str(v)
			if err != nil {
				return nil, err
			}
			if len(args.keywords) == 0 {
				return m.percent(text, Tuple(args.positional))
			}
			d := NewDict()
			for _, name := range args.names {
				d.Set(name, args.keywords[name])
			}
			return m.percent(text, d)
		},
		"quote": textFilter(func(s string) string {
			if s != "" && !strings.ContainsFunc(s, func(r rune) bool {
				return r > unicode.MaxASCII || !isNameRune(r) && !strings.ContainsRune("@%+=:,./-", r)
			}) {
				return s
			}
			return "'" + strings.ReplaceAll(s, "'", `'"'"'`) + "'"
		}),
		"wordcount": plainFilter(func(m *machine, v any) (any, error) {
			text, err := m.str(v)
			return int64(len(strings.FieldsFunc(text, func(r rune) bool { return !isNameRune(r) }))), err
		}),
		"ternary": func(_ *machine, v any, args given) (any, error) {
			values, err := args.bind("true_val false_val none_val", nil)
			if err != nil {
				return nil, err
			}
			yes, err := truth(v)
			switch {
			case err != nil:
				return nil, err
			case v == nil && values[2] != nil:
				return values[2], nil
			case yes:
				return values[0], nil
			}
			return values[1], nil
		},
		"regex_replace": regexReplace, "regex_search": regexSearch, "regex_findall": regexFindAll,
		"regex_escape": textFilter(escapeRegex),
		"to_json":      toJSON(false), "tojson": toJSON(false), "to_nice_json": toJSON(true), "from_json": fromJSON,
	}
	addSequenceFilters()
}

// plainFilter is a filter that takes no arguments.
func plainFilter(f func(m *machine, v any) (any, error)) filter {
	return func(m *machine, v any, args given) (any, error) {
		if _, err := args.bind(""); err != nil {
			return nil, err
		}
		return f(m, v)
	}
}

// textFilter is a filter of a text that takes no arguments.
func textFilter(f func(string) string) filter {
	return plainFilter(func(m *machine, v any) (any, error) {
		text, err := m.str(v)
		if err != nil {
			return nil, err
		}
		result := f(text)
		return result, m.budget.made(len(result))
	})
}

func defaultFilter(_ *machine, v any, args given) (any, error) {
	values, err := args.bind("default_value boolean", "", false)
	if err != nil {
		return nil, err
	}
	if _, ok := v.(*Undefined); ok {
		return values[0], nil
	}
	alsoFalse, err := truth(values[1])
	if err != nil || !alsoFalse {
		return v, err
	}
	yes, err := truth(v)
	if err == nil && !yes {
		return values[0], nil
	}
	return v, err
}

// boolFilter is Ansible's: whatever isn't a word for true is false, and None stays None.
func boolFilter(_ *machine, v any, args given) (any, error) {
	if _, err := args.bind(""); err != nil {
		return nil, err
	}
	switch v := v.(type) {
	case nil, bool:
		return v, nil
	case string:
		switch strings.ToLower(v) {
		case "yes", "on", "1", "true":
			return true, nil
		}
		return false, nil
	}
	f, ok := float(v)
	return ok && f == 1, nil
}

// parseWhole reads a whole number as Python's int() does.
func parseWhole(text string, base int) (int64, bool) {
	text = strings.TrimSpace(text)
	if strings.HasPrefix(text, "_") || strings.HasSuffix(text, "_") || strings.Contains(text, "__") {
		return 0, false
	}
	sign, digits := "", strings.ReplaceAll(text, "_", "")
	if digits != "" && (digits[0] == '-' || digits[0] == '+') {
		sign, digits = digits[:1], digits[1:]
	}
	lower := strings.ToLower(digits)
	prefix := map[int]string{16: "0x", 8: "0o", 2: "0b"}[base]
	if prefix != "" {
		lower = strings.TrimPrefix(lower, prefix)
	}
	if lower == "" || lower[0] == '-' || lower[0] == '+' {
		return 0, false
	}
	n, err := strconv.ParseInt(sign+lower, base, 64)
	return n, err == nil
}

// parseFloat reads a number as Python's float() does, infinities and NaN left out.
func parseFloat(text string) (float64, bool) {
	text = strings.TrimSpace(text)
	if strings.Contains(text, "__") || strings.HasPrefix(text, "_") || strings.HasSuffix(text, "_") || strings.Trim(text, "0123456789+-.eE_") != "" {
		return 0, false
	}
	f, err := strconv.ParseFloat(strings.ReplaceAll(text, "_", ""), 64)
	return f, err == nil
}

func intFilter(_ *machine, v any, args given) (any, error) {
	values, err := args.bind("default base", int64(0), int64(10))
	if err != nil {
		return nil, err
	}
	f, isFloat := v.(float64)
	switch x := v.(type) {
	case int64, bool:
		n, _ := whole(x)
		return n, nil
	case string:
		base, ok := whole(values[1])
		if !ok || base < 2 || base > 36 {
			return nil, complain("takes a base from 2 to 36")
		}
		if n, ok := parseWhole(x, int(base)); ok {
			return n, nil
		}
		f, isFloat = parseFloat(x)
	}
	if !isFloat {
		return values[0], nil
	}
	if math.Abs(f) >= 1<<63 {
		return nil, tooLarge()
	}
	return int64(f), nil
}

func floatFilter(_ *machine, v any, args given) (any, error) {
	values, err := args.bind("default", 0.0)
	if err != nil {
		return nil, err
	}
	if f, ok := float(v); ok {
		return f, nil
	}
	if text, ok := v.(string); ok {
		if f, ok := parseFloat(text); ok {
			return f, nil
		}
	}
	return values[0], nil
}

func absFilter(_ *machine, v any, args given) (any, error) {
	if _, err := args.bind(""); err != nil {
		return nil, err
	}
	if n, ok := whole(v); ok {
		if n == math.MinInt64 {
			return nil, tooLarge()
		}
		return max(n, -n), nil
	}
	if f, ok := v.(float64); ok {
		return math.Abs(f), nil
	}
	return nil, complain("takes a number, not %s", describe(v))
}

func roundFilter(_ *machine, v any, args given) (any, error) {
	values, err := args.bind("precision method", int64(0), "common")
	if err != nil {
		return nil, err
	}
	f, ok := float(v)
	precision, okPrecision := whole(values[0])
	if !ok || !okPrecision || precision < -15 || precision > 15 {
		return nil, complain("takes a number and a precision from -15 to 15")
	}
	scale := math.Pow(10, float64(precision))
	switch values[1] {
	case "ceil":
		f = math.Ceil(f*scale) / scale
	case "floor":
		f = math.Floor(f*scale) / scale
	case "common":
		if n, isWhole := whole(v); isWhole && precision >= 0 {
			return n, nil
		} else if isWhole {
			return int64(math.RoundToEven(f*scale) / scale), nil
		}
		if precision < 0 {
			f = math.RoundToEven(f*scale) / scale
		} else {
			// The decimal digits decide, as in Python, not the product's.
			f, _ = strconv.ParseFloat(strconv.FormatFloat(f, 'f', int(precision), 64), 64)
		}
	default:
		return nil, complain("takes the method common, ceil or floor")
	}
	return f, nil
}
