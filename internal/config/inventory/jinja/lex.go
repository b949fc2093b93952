package jinja

import (
	"errors"
	"regexp"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"
)

// kind is what a token is.
type kind int

const (
	// literal is a number or a text.
	literal kind = iota
	name
	operator
	// end is -}}, %} and the like; a plain }} is two operators, since it may close mappings.
	end
	// over is the end of the template.
	over
)

// token is a piece of a tag. value is a number's value or a text without its quotes.
type token struct {
	kind   kind
	text   string
	value  any
	offset int
}

// Tokens are a number, a text, a name, an operator. Jinja's numbers aren't quite Python's, which has 1. and .5 too.
const (
	digits       = `[0-9](?:_?[0-9])*`
	wholeNumbers = `0b(?:_?[01])+|0o(?:_?[0-7])+|0x(?:_?[0-9a-f])+|[1-9](?:_?[0-9])*|0(?:_?0)*`
	jinjaNumber  = digits + `(?:\.` + digits + `)?e[-+]?` + digits + `|` + digits + `\.` + digits + `|` + wholeNumbers
	fraction     = `(?:` + digits + `)?\.` + digits + `|` + digits + `\.`
	pythonNumber = `(?:` + fraction + `|` + digits + `)e[-+]?` + digits + `|` + fraction + `|` + wholeNumbers
	otherTokens  = `('(?:[^'\\]|\\.)*'|"(?:[^"\\]|\\.)*")|([\p{L}\p{Nd}_]+)|(-\}\}|[-+]?%\})|==|!=|<=|>=|//|\*\*|[-+*/%~<>=.,:|()\[\]{}]`
)

var (
	tokenForm       = regexp.MustCompile(`(?is)^(?:(` + jinjaNumber + `)|` + otherTokens + `)`)
	pythonTokenForm = regexp.MustCompile(`(?is)^(?:(` + pythonNumber + `)|` + otherTokens + `)`)
)

// peek reads the next token. Ansible doubles backslashes of texts in {{ … }}, so that each means itself there; elsewhere they
// are Python's escapes.
func (p *parser) peek() token {
	if p.ahead != nil {
		return *p.ahead
	}
	rest := strings.TrimLeftFunc(p.source[p.at:], unicode.IsSpace)
	t := token{kind: over, offset: len(p.source) - len(rest)}
	// A token is short as a rule, and the expression is many times as fast on a short text.
	const window = 200
	match := p.tokens.FindStringSubmatch(rest[:min(len(rest), window)])
	if len(rest) > window && (match == nil || len(match[0]) > window-utf8.UTFMax) {
		match = p.tokens.FindStringSubmatch(rest)
	}
	switch {
	case rest == "":
		p.ahead = &t
		return t
	case match == nil && (rest[0] == '\'' || rest[0] == '"'):
		panic(failAt(t.offset, "the text is never closed with %c", rest[0]))
	case match == nil:
		panic(failAt(t.offset, "unexpected %q", []rune(rest)[0]))
	}
	t.text = match[0]
	ok := true
	switch {
	case match[1] != "":
		t.kind = literal
		if t.value, ok = parseNumber(t.text); !ok {
			panic(failAt(t.offset, "the number %s is too large", t.text))
		}
	case match[2] != "":
		t.kind = literal
		inner := t.text[1 : len(t.text)-1]
		if p.escapes {
			if inner, ok = unescape(inner); !ok {
				panic(failAt(t.offset, "the text has an escape that can't be read"))
			}
		} else if strings.Contains(strings.ReplaceAll(inner, `\\`, ""), `\`+t.text[:1]) {
			panic(failAt(t.offset, "a backslash doesn't escape a quote here: use the other kind of quotes"))
		}
		t.value = inner
	case match[3] != "":
		t.kind = name
	case match[4] != "":
		t.kind = end
	default:
		t.kind = operator
	}
	p.ahead = &t
	return t
}

func (p *parser) next() token {
	t := p.peek()
	p.seek(t.offset + len(t.text))
	return t
}

// seek goes on, or back, to an offset outside of a token.
func (p *parser) seek(offset int) { p.at, p.ahead = offset, nil }

var escapeForm = regexp.MustCompile(`(?s)\\(?:[0-7]{1,3}|x[[:xdigit:]]{2}|u[[:xdigit:]]{4}|U[[:xdigit:]]{8}|.)`)

// unescape reads Python's escapes in a text without its quotes. Those that Python doesn't know stay as they are.
func unescape(text string) (string, bool) {
	ok := true
	text = escapeForm.ReplaceAllStringFunc(text, func(escape string) string {
		switch c := escape[1]; {
		case c == '\n':
			return ""
		case c >= '0' && c <= '7':
			code, _ := strconv.ParseUint(escape[1:], 8, 32)
			return string(rune(code))
		case strings.IndexByte(`\'"abfnrtvxuU`, c) >= 0:
			r, _, _, err := strconv.UnquoteChar(escape, c)
			ok = ok && err == nil
			return string(r)
		}
		return escape
	})
	return text, ok
}

// parseNumber reads a number of Python's source.
func parseNumber(text string) (any, bool) {
	plain := strings.ReplaceAll(text, "_", "")
	n, err := strconv.ParseInt(plain, 0, 64)
	if err == nil || errors.Is(err, strconv.ErrRange) {
		return n, err == nil
	}
	f, err := strconv.ParseFloat(plain, 64)
	return f, err == nil
}
