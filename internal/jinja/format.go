package jinja

import (
	"encoding/json"
	"fmt"
	"io"
	"math"
	"regexp"
	"strconv"
	"strings"
)

var percentForm = regexp.MustCompile(`%(?:\(([^)]*)\))?([-+ 0#]*)([0-9]*)(?:\.([0-9]+))?([a-zA-Z%])`)

// percent is Python's % of a text: %s, %d, %05.2f, %(name)s.
func (m *machine) percent(format string, args any) (any, error) {
	positional, isTuple := args.(Tuple)
	if !isTuple {
		positional = Tuple{args}
	}
	used := 0
	var b strings.Builder
	last := 0
	for _, match := range percentForm.FindAllStringSubmatchIndex(format, -1) {
		group := func(i int) string {
			if match[2*i] < 0 {
				return ""
			}
			return format[match[2*i]:match[2*i+1]]
		}
		if strings.Contains(format[last:match[0]], "%") {
			return nil, complain("the format can't be read")
		}
		b.WriteString(format[last:match[0]])
		last = match[1]
		verb := group(5)
		if verb == "%" {
			b.WriteByte('%')
			continue
		}
		var v any
		if match[2] >= 0 {
			var err error
			if v, err = m.member(args, group(1)); err != nil {
				return nil, err
			}
			used = len(positional)
		} else {
			if used == len(positional) {
				return nil, complain("there are fewer values than the format wants")
			}
			v = positional[used]
			used++
		}
		if u, ok := v.(*Undefined); ok {
			return nil, u.use()
		}
		piece, err := m.formatted(v, group(2), group(3), group(4), verb)
		if err != nil {
			return nil, err
		}
		b.WriteString(piece)
		if b.Len() > maxText {
			break
		}
	}
	if strings.Contains(format[last:], "%") {
		return nil, complain("the format can't be read")
	}
	b.WriteString(format[last:])
	_, isDict := args.(*Dict)
	if used < len(positional) && !isDict {
		return nil, complain("there are more values than the format wants")
	}
	return b.String(), m.budget.made(b.Len())
}

// formatted writes one value with flags, width and precision, which Go and Python write alike.
func (m *machine) formatted(v any, flags, width, precision, verb string) (string, error) {
	for _, number := range []string{width, precision} {
		if n, err := strconv.Atoi(number); number != "" && (err != nil || n > 1000) {
			return "", complain("the format's width is too large")
		}
	}
	spec := "%" + flags + width
	if precision != "" {
		spec += "." + precision
	}
	switch verb {
	case "s", "r":
		text, err := m.str(v)
		if verb == "r" && err == nil {
			var b strings.Builder
			err = m.repr(&b, v, 0)
			text = b.String()
		}
		return fmt.Sprintf(strings.ReplaceAll(spec, "0"+width, width)+"s", text), err
	case "d", "i", "u":
		n, ok := whole(v)
		if f, isFloat := v.(float64); isFloat && math.Abs(f) < 1<<62 {
			n, ok = int64(f), true
		}
		if !ok {
			return "", complain("%%d takes a number, not %s", describe(v))
		}
		return fmt.Sprintf(spec+"d", n), nil
	case "x", "X", "o":
		n, ok := whole(v)
		if !ok {
			return "", complain("%%%s takes a whole number, not %s", verb, describe(v))
		}
		return fmt.Sprintf(spec+verb, n), nil
	case "f", "F", "e":
		f, ok := float(v)
		if !ok {
			return "", complain("%%%s takes a number, not %s", verb, describe(v))
		}
		return fmt.Sprintf(spec+verb, f), nil
	}
	return "", complain("%%%s is not supported", verb)
}

var fieldForm = regexp.MustCompile(`^([A-Za-z0-9_]*)(?::([<>^]?)([+ ]?)(0?)([0-9]*)(?:\.([0-9]+))?([sdxXof]?))?$`)

// braces is str.format: {}, {0}, {name}, {:>5}, {:05.2f}.
func (m *machine) braces(format string, args given) (any, error) {
	var b strings.Builder
	automatic := 0
	for i := 0; i < len(format); {
		c := format[i]
		if c != '{' && c != '}' {
			b.WriteByte(c)
			i++
			continue
		}
		if i+1 < len(format) && format[i+1] == c {
			b.WriteByte(c)
			i += 2
			continue
		}
		length := strings.IndexByte(format[i:], '}')
		if c == '}' || length < 0 {
			return nil, complain("the format's braces don't match")
		}
		match := fieldForm.FindStringSubmatch(format[i+1 : i+length])
		i += length + 1
		if match == nil {
			return nil, complain("the format has a field that is not supported")
		}
		var v any
		n, err := strconv.Atoi(match[1])
		switch {
		case match[1] == "":
			n = automatic
			automatic++
			fallthrough
		case err == nil:
			if n >= len(args.positional) {
				return nil, complain("there are fewer values than the format wants")
			}
			v = args.positional[n]
		default:
			var given bool
			if v, given = args.keywords[match[1]]; !given {
				return nil, complain("the format wants a value %s", match[1])
			}
		}
		piece, err := m.field(v, match)
		if err != nil {
			return nil, err
		}
		b.WriteString(piece)
		if b.Len() > maxText {
			break
		}
	}
	return b.String(), m.budget.made(b.Len())
}

// field writes one field of str.format.
func (m *machine) field(v any, match []string) (string, error) {
	if u, ok := v.(*Undefined); ok {
		return "", u.use()
	}
	align, sign, zero, width, precision, verb := match[2], match[3], match[4], match[5], match[6], match[7]
	_, isWhole := whole(v)
	_, isFloat := v.(float64)
	if verb == "" {
		switch {
		case isFloat && precision != "":
			verb = "f"
		case isWhole && (sign != "" || zero != ""):
			verb = "d"
		default:
			verb = "s"
		}
	} else if (verb == "s") != !(isWhole || isFloat) {
		return "", complain("the format's %s doesn't go with %s", verb, describe(v))
	}
	n, err := strconv.Atoi("0" + width)
	if err != nil || n > 1000 {
		return "", complain("the format's width is too large")
	}
	if zero != "" && align == "" && verb != "s" {
		return m.formatted(v, sign+"0", width, precision, verb)
	}
	piece, err := m.formatted(v, sign, "", precision, verb)
	if err != nil {
		return "", err
	}
	if align == "" {
		align = map[bool]string{true: ">", false: "<"}[isWhole || isFloat]
	}
	missing := max(n-len([]rune(piece)), 0)
	left := map[string]int{"<": 0, ">": missing, "^": missing / 2}[align]
	return strings.Repeat(" ", left) + piece + strings.Repeat(" ", missing-left), nil
}

// toJSON writes a value as Python's json does: a blank after commas and colons, everything beyond ASCII escaped; nice is
// indented by 4, with its keys sorted.
func toJSON(nice bool) filter {
	return plainFilter(func(m *machine, v any) (any, error) {
		var b strings.Builder
		if err := m.writeJSON(&b, v, nice, 0); err != nil {
			return nil, err
		}
		return b.String(), m.budget.made(b.Len())
	})
}

func (m *machine) writeJSON(b *strings.Builder, v any, nice bool, depth int) error {
	if err := m.budget.step(1); err != nil {
		return err
	}
	if depth > maxDepth || b.Len() > maxText {
		return complain("the value is too large for JSON")
	}
	between, inner, outer := ", ", "", ""
	if nice {
		between, inner, outer = ",", "\n"+strings.Repeat("    ", depth+1), "\n"+strings.Repeat("    ", depth)
	}
	switch v := v.(type) {
	case nil:
		b.WriteString("null")
	case bool:
		b.WriteString(strconv.FormatBool(v))
	case int64:
		b.WriteString(strconv.FormatInt(v, 10))
	case float64:
		b.WriteString(floatRepr(v))
	case string:
		b.WriteString(jsonText(v))
	case []any, Tuple:
		items, _ := listOf(v)
		if len(items) == 0 {
			b.WriteString("[]")
			return nil
		}
		b.WriteByte('[')
		for i, item := range items {
			if i > 0 {
				b.WriteString(between)
			}
			b.WriteString(inner)
			if err := m.writeJSON(b, item, nice, depth+1); err != nil {
				return err
			}
		}
		b.WriteString(outer + "]")
	case *Dict, Mapping:
		d, err := m.asDict(v)
		if err != nil {
			return err
		}
		if d.Len() == 0 {
			b.WriteString("{}")
			return nil
		}
		keys := d.keys
		if nice {
			sorted, err := sortFilter(m, keys, given{positional: []any{false, true}})
			if err != nil {
				return err
			}
			keys = sorted.([]any)
		}
		b.WriteByte('{')
		for i, key := range keys {
			if i > 0 {
				b.WriteString(between)
			}
			b.WriteString(inner)
			name, err := m.str(key)
			if err != nil {
				return err
			}
			if err := m.writeJSON(b, name, nice, depth+1); err != nil {
				return err
			}
			b.WriteString(": ")
			value, _ := d.Get(key)
			if err := m.writeJSON(b, value, nice, depth+1); err != nil {
				return err
			}
		}
		b.WriteString(outer + "}")
	case *Undefined:
		return v.use()
	default:
		return complain("%s has no JSON", describe(v))
	}
	return nil
}

// jsonText writes a text with everything beyond ASCII as \uXXXX.
func jsonText(text string) string {
	var b strings.Builder
	b.WriteByte('"')
	for _, r := range text {
		switch {
		case r == '"' || r == '\\':
			b.WriteByte('\\')
			b.WriteRune(r)
		case r == '\n':
			b.WriteString(`\n`)
		case r == '\r':
			b.WriteString(`\r`)
		case r == '\t':
			b.WriteString(`\t`)
		case r == '\b':
			b.WriteString(`\b`)
		case r == '\f':
			b.WriteString(`\f`)
		case r >= ' ' && r < 0x7f:
			b.WriteRune(r)
		case r < 0x10000:
			fmt.Fprintf(&b, `\u%04x`, r)
		default:
			r -= 0x10000
			fmt.Fprintf(&b, `\u%04x\u%04x`, 0xd800+r>>10, 0xdc00+r&0x3ff)
		}
	}
	b.WriteByte('"')
	return b.String()
}

func fromJSON(m *machine, v any, args given) (any, error) {
	all, err := texts([]any{v})
	if err != nil {
		return nil, err
	}
	if _, err := args.bind(""); err != nil {
		return nil, err
	}
	decoder := json.NewDecoder(strings.NewReader(all[0]))
	decoder.UseNumber()
	parsed, err := m.readJSON(decoder, 0)
	if _, more := decoder.Token(); err != nil || more != io.EOF {
		return nil, complain("the text isn't JSON")
	}
	return parsed, nil
}

func (m *machine) readJSON(decoder *json.Decoder, depth int) (any, error) {
	t, err := decoder.Token()
	if err != nil || depth > maxDepth {
		return nil, complain("the text isn't JSON")
	}
	if err := m.budget.step(1); err != nil {
		return nil, err
	}
	switch t := t.(type) {
	case json.Number:
		v, ok := parseNumber(strings.TrimPrefix(t.String(), "-"))
		if !ok {
			return nil, tooLarge()
		}
		if strings.HasPrefix(t.String(), "-") {
			return m.operate(int64(0), "-", v)
		}
		return v, nil
	case json.Delim:
		items, d := []any{}, NewDict()
		for decoder.More() {
			v, err := m.readJSON(decoder, depth+1)
			if err != nil {
				return nil, err
			}
			if t == '[' {
				items = append(items, v)
				continue
			}
			value, err := m.readJSON(decoder, depth+1)
			if err != nil {
				return nil, err
			}
			d.Set(v, value)
		}
		if _, err := decoder.Token(); err != nil {
			return nil, complain("the text isn't JSON")
		}
		if t == '[' {
			return items, nil
		}
		return d, nil
	}
	return t, nil
}
