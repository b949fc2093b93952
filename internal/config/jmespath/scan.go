package jmespath

import (
	"encoding/json"
	"strconv"
	"strings"
	"unicode/utf8"
)

type tokenKind int

const (
	tokEnd tokenKind = iota
	tokIdentifier
	tokQuoted
	tokLiteral
	tokNumber
	tokCurrent
	tokExpref
	tokColon
	tokComma
	tokRightBracket
	tokRightParen
	tokRightBrace
	tokPipe
	tokOr
	tokAnd
	tokCompare
	tokFlatten
	tokStar
	tokFilter
	tokDot
	tokNot
	tokLeftBrace
	tokLeftBracket
	tokLeftParen
)

// token is a word of an expression.
type token struct {
	kind   tokenKind
	offset int
	// text is what stands in the expression, for messages; an identifier's name.
	text string
	// value is a literal's, or a number's as an int.
	value any
}

// single are the tokens of one character that begin no longer one.
var single = map[byte]tokenKind{
	'.': tokDot, '*': tokStar, ']': tokRightBracket, ',': tokComma, ':': tokColon, '@': tokCurrent,
	'(': tokLeftParen, ')': tokRightParen, '{': tokLeftBrace, '}': tokRightBrace,
}

// longer are the tokens of which one may begin another: of each group the longest comes first.
var longer = []struct {
	text string
	kind tokenKind
}{
	{"[?", tokFilter}, {"[]", tokFlatten}, {"[", tokLeftBracket},
	{"||", tokOr}, {"|", tokPipe},
	{"&&", tokAnd}, {"&", tokExpref},
	{"<=", tokCompare}, {"<", tokCompare}, {">=", tokCompare}, {">", tokCompare}, {"==", tokCompare},
	{"!=", tokCompare}, {"!", tokNot},
}

// scan splits an expression into tokens; the last one is tokEnd.
func scan(text string) ([]token, error) {
	var tokens []token
	for i := 0; i < len(text); {
		t, size, err := next(text, i)
		if err != nil {
			return nil, err
		}
		if size == 0 {
			i++
			continue
		}
		tokens = append(tokens, t)
		i += size
	}
	return append(tokens, token{kind: tokEnd, offset: len(text), text: "the end"}), nil
}

// next reads the token at offset i and says how many bytes it takes; 0 for a blank.
func next(text string, i int) (token, int, error) {
	rest := text[i:]
	c := rest[0]
	if strings.IndexByte(" \t\r\n", c) >= 0 {
		return token{}, 0, nil
	}
	if kind, ok := single[c]; ok {
		return token{kind: kind, offset: i, text: rest[:1]}, 1, nil
	}
	for _, l := range longer {
		if strings.HasPrefix(rest, l.text) {
			return token{kind: l.kind, offset: i, text: l.text}, len(l.text), nil
		}
	}
	switch {
	case isLetter(c):
		n := 1
		for n < len(rest) && (isLetter(rest[n]) || isDigit(rest[n])) {
			n++
		}
		return token{kind: tokIdentifier, offset: i, text: rest[:n]}, n, nil
	case isDigit(c) || c == '-':
		n := 1
		for n < len(rest) && isDigit(rest[n]) {
			n++
		}
		number, err := strconv.Atoi(rest[:n])
		if err != nil {
			return token{}, 0, failAt(i, "%s is no number", rest[:n])
		}
		return token{kind: tokNumber, offset: i, text: rest[:n], value: number}, n, nil
	case c == '\'' || c == '"' || c == '`':
		return quoted(rest, i)
	case c == '=':
		return token{}, 0, failAt(i, "= is no operator; equality is ==")
	case c == '?':
		return token{}, 0, failAt(i, "? has to follow its [ at once, as in [?a == b]")
	}
	r, _ := utf8.DecodeRuneInString(rest)
	return token{}, 0, failAt(i, "the character %q means nothing here", r)
}

// quoted reads a token in quotes: '…' is a text, "…" a name, `…` a literal.
func quoted(rest string, offset int) (token, int, error) {
	quote := rest[0]
	n := 1
	for n < len(rest) && rest[n] != quote {
		if rest[n] == '\\' {
			n++
		}
		n++
	}
	if n >= len(rest) {
		return token{}, 0, failAt(offset, "%c is never closed", quote)
	}
	body := rest[1:n]
	t := token{offset: offset, text: rest[:n+1]}
	switch quote {
	case '\'':
		t.kind, t.value = tokLiteral, strings.ReplaceAll(body, `\'`, `'`)
	case '"':
		var name string
		if err := json.Unmarshal([]byte(t.text), &name); err != nil {
			return token{}, 0, failAt(offset, "%s is no text in JSON", t.text)
		}
		t.kind, t.text = tokQuoted, name
	case '`':
		value, ok := literal(strings.ReplaceAll(body, "\\`", "`"))
		if !ok {
			return token{}, 0, failAt(offset, "%s holds neither JSON nor a word", t.text)
		}
		t.kind, t.value = tokLiteral, value
	}
	return t, n + 1, nil
}

// literal is the value of what stands between backticks: JSON, or else (JMESPath's older form, which JEP-12 keeps alive) a
// text without its quotes, leading blanks dropped.
func literal(body string) (any, bool) {
	var value any
	if json.Unmarshal([]byte(body), &value) == nil {
		return value, true
	}
	err := json.Unmarshal([]byte(`"`+strings.TrimLeft(body, " \t\r\n")+`"`), &value)
	return value, err == nil
}

func isLetter(c byte) bool { return c == '_' || 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' }

func isDigit(c byte) bool { return '0' <= c && c <= '9' }
