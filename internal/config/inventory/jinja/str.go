package jinja

import (
	"fmt"
	"math"
	"strconv"
	"strings"
	"unicode"
)

// str is Python's str() of a value.
func (m *machine) str(v any) string {
	if text, isText := v.(string); isText {
		return text
	}
	if u, isUndefined := v.(*Undefined); isUndefined && u.soft {
		return ""
	}
	var b strings.Builder
	m.repr(&b, v, 0)
	m.made(b.Len())
	return b.String()
}

// repr writes Python's repr() of a value.
func (m *machine) repr(b *strings.Builder, v any, depth int) {
	m.step(1)
	if depth > maxDepth {
		panic(m.failure("the value is nested too deeply"))
	}
	switch v := defined(v).(type) {
	case nil:
		b.WriteString("None")
	case bool:
		b.WriteString(map[bool]string{true: "True", false: "False"}[v])
	case int64:
		b.WriteString(strconv.FormatInt(v, 10))
	case float64:
		b.WriteString(floatRepr(v))
	case string:
		quoteText(b, v)
	case []any:
		m.reprItems(b, "[", v, nil, "]", depth)
	case Tuple:
		m.reprItems(b, "(", v, nil, map[bool]string{true: ",)", false: ")"}[len(v) == 1], depth)
	default:
		m.reprItems(b, "{", m.items(v), v, "}", depth)
	}
	if b.Len() > maxText {
		m.made(b.Len())
	}
}

// reprItems writes a list, or the keys of a mapping with their values.
func (m *machine) reprItems(b *strings.Builder, begin string, items []any, of any, end string, depth int) {
	b.WriteString(begin)
	for i, item := range items {
		if i > 0 {
			b.WriteString(", ")
		}
		m.repr(b, item, depth+1)
		if of != nil {
			value, _ := m.member(of, item)
			b.WriteString(": ")
			m.repr(b, value, depth+1)
		}
	}
	b.WriteString(end)
}

// floatRepr writes a float as Python does: the shortest text that reads back, an exponent below 1e-4 and from 1e16.
func floatRepr(f float64) string {
	if math.IsInf(f, 0) || math.IsNaN(f) {
		return strings.TrimPrefix(strings.ToLower(strconv.FormatFloat(f, 'f', -1, 64)), "+")
	}
	if a := math.Abs(f); a != 0 && (a < 1e-4 || a >= 1e16) {
		return strconv.FormatFloat(f, 'e', -1, 64)
	}
	text := strconv.FormatFloat(f, 'f', -1, 64)
	if !strings.Contains(text, ".") {
		text += ".0"
	}
	return text
}

// quoteText writes a text in Python's quotes.
func quoteText(b *strings.Builder, text string) {
	quote := '\''
	if strings.ContainsRune(text, '\'') && !strings.ContainsRune(text, '"') {
		quote = '"'
	}
	b.WriteRune(quote)
	for _, r := range text {
		switch {
		case r == quote || r == '\\':
			b.WriteByte('\\')
			b.WriteRune(r)
		case strings.ContainsRune("\n\r\t", r):
			b.WriteString(strings.Trim(strconv.QuoteRune(r), "'"))
		case unicode.IsPrint(r):
			b.WriteRune(r)
		case r < 0x100:
			fmt.Fprintf(b, `\x%02x`, r)
		case r < 0x10000:
			fmt.Fprintf(b, `\u%04x`, r)
		default:
			fmt.Fprintf(b, `\U%08x`, r)
		}
	}
	b.WriteRune(quote)
}
