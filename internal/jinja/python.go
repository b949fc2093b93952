package jinja

import (
	"math"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"
)

// str is Python's str() of a value.
func (m *machine) str(v any) (string, error) {
	switch v := v.(type) {
	case string:
		return v, nil
	case *Undefined:
		if v.soft {
			return "", nil
		}
		return "", v.use()
	}
	var b strings.Builder
	if err := m.repr(&b, v, 0); err != nil {
		return "", err
	}
	return b.String(), nil
}

// repr writes Python's repr() of a value.
func (m *machine) repr(b *strings.Builder, v any, depth int) error {
	if err := m.budget.step(1); err != nil {
		return err
	}
	if depth > maxDepth {
		return complain("the value is nested too deeply")
	}
	before := b.Len()
	switch v := v.(type) {
	case nil:
		b.WriteString("None")
	case bool:
		if v {
			b.WriteString("True")
		} else {
			b.WriteString("False")
		}
	case int64:
		b.WriteString(strconv.FormatInt(v, 10))
	case float64:
		b.WriteString(floatRepr(v))
	case string:
		quoteText(b, v)
	case []any:
		b.WriteByte('[')
		if err := m.reprItems(b, v, depth); err != nil {
			return err
		}
		b.WriteByte(']')
	case Tuple:
		b.WriteByte('(')
		if err := m.reprItems(b, v, depth); err != nil {
			return err
		}
		if len(v) == 1 {
			b.WriteByte(',')
		}
		b.WriteByte(')')
	case *Dict, Mapping:
		d, err := m.asDict(v)
		if err != nil {
			return err
		}
		b.WriteByte('{')
		for i, key := range d.keys {
			if i > 0 {
				b.WriteString(", ")
			}
			if err := m.repr(b, key, depth+1); err != nil {
				return err
			}
			b.WriteString(": ")
			value, _ := d.Get(key)
			if err := m.repr(b, value, depth+1); err != nil {
				return err
			}
		}
		b.WriteByte('}')
	case *Undefined:
		return v.use()
	default:
		return complain("%s is no value", describe(v))
	}
	if b.Len() > maxText {
		return complain("the template makes a text of more than %d bytes", maxText)
	}
	if depth == 0 {
		return m.budget.made(b.Len() - before)
	}
	return nil
}

func (m *machine) reprItems(b *strings.Builder, items []any, depth int) error {
	for i, item := range items {
		if i > 0 {
			b.WriteString(", ")
		}
		if err := m.repr(b, item, depth+1); err != nil {
			return err
		}
	}
	return nil
}

// floatRepr writes a float as Python does: the shortest text that reads back, an exponent below 1e-4 and from 1e16.
func floatRepr(f float64) string {
	switch {
	case math.IsInf(f, 1):
		return "inf"
	case math.IsInf(f, -1):
		return "-inf"
	case math.IsNaN(f):
		return "nan"
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
		case r == '\n':
			b.WriteString(`\n`)
		case r == '\r':
			b.WriteString(`\r`)
		case r == '\t':
			b.WriteString(`\t`)
		case r == ' ' || unicode.IsPrint(r):
			b.WriteRune(r)
		case r < 0x100:
			b.WriteString(`\x` + hex(r, 2))
		case r < 0x10000:
			b.WriteString(`\u` + hex(r, 4))
		default:
			b.WriteString(`\U` + hex(r, 8))
		}
	}
	b.WriteRune(quote)
}

func hex(r rune, width int) string {
	digits := strconv.FormatInt(int64(r), 16)
	return strings.Repeat("0", width-len(digits)) + digits
}

// parseLiteral reads a text as Python's ast.literal_eval does, with JSON's true, false and null beside; false if it isn't one.
// A set, bytes, a complex number and a number beyond 64 bits, which JSON can't hold or services don't need, aren't.
func parseLiteral(text string) (any, bool) {
	l := &literal{text: text}
	l.blanks()
	v, ok := l.value(0)
	if !ok {
		return nil, false
	}
	l.blanks()
	return v, l.at == len(text)
}

type literal struct {
	text string
	at   int
}

func (l *literal) blanks() {
	for l.at < len(l.text) && strings.IndexByte(" \t\n\r\f", l.text[l.at]) >= 0 {
		l.at++
	}
}

func (l *literal) peek() byte {
	if l.at == len(l.text) {
		return 0
	}
	return l.text[l.at]
}

func (l *literal) value(depth int) (any, bool) {
	if depth > maxDepth {
		return nil, false
	}
	switch c := l.peek(); {
	case c == '[':
		items, _, ok := l.list(']', depth)
		return items, ok
	case c == '(':
		items, comma, ok := l.list(')', depth)
		if ok && len(items) == 1 && !comma {
			return items[0], true
		}
		return Tuple(items), ok
	case c == '{':
		return l.dict(depth)
	case c == '\'' || c == '"':
		return l.texts()
	case c == '-' || c == '+' || c == '.' || c >= '0' && c <= '9':
		return l.number()
	}
	start := l.at
	for l.at < len(l.text) && isNameByte(l.text[l.at]) {
		l.at++
	}
	switch l.text[start:l.at] {
	case "True", "true":
		return true, true
	case "False", "false":
		return false, true
	case "None", "null":
		return nil, true
	}
	return nil, false
}

func isNameByte(c byte) bool {
	return c == '_' || c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9'
}

func (l *literal) list(end byte, depth int) (items []any, comma, ok bool) {
	items = []any{}
	l.at++
	for {
		l.blanks()
		if l.peek() == end {
			l.at++
			return items, comma, true
		}
		if len(items) > 0 && !comma || len(items) > maxItems {
			return nil, false, false
		}
		item, ok := l.value(depth + 1)
		if !ok {
			return nil, false, false
		}
		items = append(items, item)
		l.blanks()
		if comma = l.peek() == ','; comma {
			l.at++
		}
	}
}

func (l *literal) dict(depth int) (any, bool) {
	d := NewDict()
	l.at++
	for comma := true; ; {
		l.blanks()
		if l.peek() == '}' {
			l.at++
			return d, true
		}
		if !comma {
			return nil, false
		}
		key, ok := l.value(depth + 1)
		l.blanks()
		if !ok || l.peek() != ':' {
			return nil, false
		}
		l.at++
		l.blanks()
		value, ok := l.value(depth + 1)
		if !ok || !d.Set(key, value) {
			return nil, false
		}
		l.blanks()
		if comma = l.peek() == ','; comma {
			l.at++
		}
	}
}

// texts reads one text, or several beside each other, which are one to Python.
func (l *literal) texts() (any, bool) {
	var whole strings.Builder
	for {
		quote := l.peek()
		start := l.at + 1
		end := start
		for end < len(l.text) && l.text[end] != quote {
			if l.text[end] == '\n' {
				return nil, false
			}
			if l.text[end] == '\\' {
				end++
			}
			end++
		}
		if end >= len(l.text) {
			return nil, false
		}
		text, ok := unescape(l.text[start:end])
		if !ok {
			return nil, false
		}
		whole.WriteString(text)
		l.at = end + 1
		l.blanks()
		if c := l.peek(); c != '\'' && c != '"' {
			return whole.String(), true
		}
	}
}

// unescape reads Python's escapes in a text without its quotes.
func unescape(text string) (string, bool) {
	if !strings.Contains(text, `\`) {
		return text, true
	}
	var b strings.Builder
	for i := 0; i < len(text); {
		if text[i] != '\\' || i+1 == len(text) {
			b.WriteByte(text[i])
			i++
			continue
		}
		c := text[i+1]
		i += 2
		switch c {
		case '\n':
		case '\\', '\'', '"':
			b.WriteByte(c)
		case 'n', 't', 'r', 'a', 'b', 'f', 'v':
			b.WriteByte(map[byte]byte{'n': '\n', 't': '\t', 'r': '\r', 'a': 7, 'b': 8, 'f': 12, 'v': 11}[c])
		case 'x', 'u', 'U':
			digits := map[byte]int{'x': 2, 'u': 4, 'U': 8}[c]
			if i+digits > len(text) {
				return "", false
			}
			code, err := strconv.ParseUint(text[i:i+digits], 16, 32)
			if err != nil || !utf8.ValidRune(rune(code)) {
				return "", false
			}
			b.WriteRune(rune(code))
			i += digits
		case '0', '1', '2', '3', '4', '5', '6', '7':
			end := i
			for end < len(text) && end < i+2 && text[end] >= '0' && text[end] <= '7' {
				end++
			}
			code, _ := strconv.ParseUint(text[i-1:end], 8, 32)
			b.WriteRune(rune(code))
			i = end
		default:
			b.WriteByte('\\')
			b.WriteByte(c)
		}
	}
	return b.String(), true
}

func (l *literal) number() (any, bool) {
	start := l.at
	negative := false
	for c := l.peek(); c == '-' || c == '+'; c = l.peek() {
		negative = negative != (c == '-')
		l.at++
		l.blanks()
		if l.at-start > maxDepth {
			return nil, false
		}
	}
	digits := l.at
	for l.at < len(l.text) {
		c := l.text[l.at]
		exponentSign := (c == '-' || c == '+') && (l.text[l.at-1] == 'e' || l.text[l.at-1] == 'E') && !strings.HasPrefix(l.text[digits:], "0x")
		if !isNameByte(c) && c != '.' && !exponentSign {
			break
		}
		l.at++
	}
	v, ok := parseNumber(l.text[digits:l.at])
	switch n := v.(type) {
	case int64:
		if negative {
			return -n, ok
		}
	case float64:
		if negative {
			return -n, ok
		}
	}
	return v, ok
}

// parseNumber reads a number as it may stand in Python's source.
func parseNumber(text string) (any, bool) {
	if text == "" || strings.Contains(text, "__") || strings.HasPrefix(text, "_") || strings.HasSuffix(text, "_") {
		return nil, false
	}
	plain := strings.ToLower(strings.ReplaceAll(text, "_", ""))
	if len(plain) > 2 && plain[0] == '0' && strings.IndexByte("xob", plain[1]) >= 0 {
		n, err := strconv.ParseInt(plain, 0, 64)
		return n, err == nil
	}
	if strings.Trim(plain, "0123456789") == "" {
		if plain[0] == '0' && strings.Trim(plain, "0") != "" {
			return nil, false
		}
		n, err := strconv.ParseInt(plain, 10, 64)
		return n, err == nil
	}
	if strings.Trim(plain, "0123456789.e+-") != "" {
		return nil, false
	}
	f, err := strconv.ParseFloat(plain, 64)
	return f, err == nil
}
