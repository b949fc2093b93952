package jinja

import (
	"regexp"
	"strings"
	"unicode"
)

// kind is what a token is.
type kind int

const (
	// text is what stands outside of all braces.
	text kind = iota
	// beginPrint and beginBlock are {{ and {%, end is }} or %}.
	beginPrint
	beginBlock
	end
	name
	number
	quoted
	operator
	// over is the end of the template.
	over
)

// token is a piece of a template. value is a number's value or a text without its quotes.
type token struct {
	kind   kind
	text   string
	value  any
	offset int
}

func isNameRune(r rune) bool { return r == '_' || unicode.IsLetter(r) || unicode.IsDigit(r) }

// split cuts a template into tokens, white space control, comments and raw blocks worked in. As Ansible has it, the line end
// after a block's %} goes (trim_blocks).
func split(source string) ([]token, error) {
	l := &lexer{source: strings.TrimSuffix(source, "\n")}
	for l.at < len(l.source) {
		if err := l.outside(); err != nil {
			return nil, err
		}
	}
	l.tokens = append(l.tokens, token{kind: over, offset: len(l.source)})
	return l.tokens, nil
}

type lexer struct {
	source string
	at     int
	tokens []token
	// stripNext says that a tag's minus takes the blanks before what follows.
	stripNext bool
}

func (l *lexer) fail(offset int, format string, args ...any) error {
	return locate(complain(format, args...), offset)
}

// data adds what stands outside of tags.
func (l *lexer) data(from, to int, stripEnd bool) {
	piece := l.source[from:to]
	if l.stripNext {
		piece = strings.TrimLeftFunc(piece, unicode.IsSpace)
	}
	if stripEnd {
		piece = strings.TrimRightFunc(piece, unicode.IsSpace)
	}
	l.stripNext = false
	if piece != "" {
		l.tokens = append(l.tokens, token{kind: text, text: piece, offset: from})
	}
}

var rawForm = regexp.MustCompile(`^\{%[-+]?\s*raw\s*(-?)%\}\n?`)
var endRawForm = regexp.MustCompile(`\{%([-+]?)\s*endraw\s*([-+]?)%\}`)

// outside reads up to the next tag, and the tag.
func (l *lexer) outside() error {
	start, begin := l.at, -1
	for i := l.at; i+1 < len(l.source); i++ {
		if c := l.source[i+1]; l.source[i] == '{' && (c == '{' || c == '%' || c == '#') {
			begin = i
			break
		}
	}
	if begin < 0 {
		l.data(start, len(l.source), false)
		l.at = len(l.source)
		return nil
	}
	sign := byte(0)
	if begin+2 < len(l.source) {
		sign = l.source[begin+2]
	}
	l.data(start, begin, sign == '-')
	switch l.source[begin+1] {
	case '#':
		return l.comment(begin)
	case '%':
		if match := rawForm.FindStringSubmatch(l.source[begin:]); match != nil {
			return l.raw(begin, match)
		}
		return l.inside(begin, beginBlock, "%}", sign)
	}
	return l.inside(begin, beginPrint, "}}", sign)
}

func (l *lexer) comment(begin int) error {
	length := strings.Index(l.source[begin:], "#}")
	if length < 0 {
		return l.fail(begin, "the comment is never closed with #}")
	}
	l.at = begin + length + 2
	l.afterBlock(l.source[begin+length-1])
	return nil
}

func (l *lexer) raw(begin int, match []string) error {
	from := begin + len(match[0])
	closing := endRawForm.FindStringSubmatchIndex(l.source[from:])
	if closing == nil {
		return l.fail(begin, "the raw block is never closed with {%% endraw %%}")
	}
	l.stripNext = match[1] == "-"
	l.data(from, from+closing[0], closing[2] < closing[3] && l.source[from+closing[2]] == '-')
	l.at = from + closing[1]
	l.afterBlock(l.source[l.at-3])
	return nil
}

// afterBlock takes the line end after a block, or all blanks after one that ends with a minus; a plus keeps them.
func (l *lexer) afterBlock(sign byte) {
	switch {
	case sign == '-':
		l.stripNext = true
	case sign != '+' && strings.HasPrefix(l.source[l.at:], "\n"):
		l.at++
	}
}

var (
	numberForm = regexp.MustCompile(`(?i)^(?:(?:[0-9]+_)*[0-9]+(?:\.(?:[0-9]+_)*[0-9]+)?e[+-]?(?:[0-9]+_)*[0-9]+|(?:[0-9]+_)*[0-9]+\.(?:[0-9]+_)*[0-9]+|` +
		`0b(?:_?[01])+|0o(?:_?[0-7])+|0x(?:_?[0-9a-f])+|[1-9](?:_?[0-9])*|0(?:_?0)*)`)
	stringForm = regexp.MustCompile(`(?s)^(?:'(?:[^'\\]|\\.)*'|"(?:[^"\\]|\\.)*")`)
)

var operators = []string{"==", "!=", "<=", ">=", "//", "**", "+", "-", "*", "/", "%", "~", "<", ">", "=", ".", ",", ":", "|", "(", ")", "[", "]", "{", "}", ";"}

var closers = map[string]string{"(": ")", "[": "]", "{": "}"}

// inside reads a tag.
func (l *lexer) inside(begin int, opens kind, closer string, sign byte) error {
	l.tokens = append(l.tokens, token{kind: opens, offset: begin})
	l.at = begin + 2
	if sign == '-' || sign == '+' && opens == beginBlock {
		l.at++
	}
	var open []string
	for {
		l.at += len(l.source[l.at:]) - len(strings.TrimLeftFunc(l.source[l.at:], unicode.IsSpace))
		rest := l.source[l.at:]
		if rest == "" {
			return l.fail(begin, "the %s is never closed with %s", l.source[begin:begin+2], closer)
		}
		if len(open) == 0 {
			for _, prefix := range []string{"", "-", "+"} {
				if !strings.HasPrefix(rest, prefix+closer) || prefix == "+" && opens == beginPrint {
					continue
				}
				l.tokens = append(l.tokens, token{kind: end, offset: l.at})
				l.at += len(prefix) + len(closer)
				switch {
				case opens == beginBlock:
					l.afterBlock((prefix + "\x00")[0])
				case prefix == "-":
					l.stripNext = true
				}
				return nil
			}
		}
		if err := l.token(rest, opens == beginPrint); err != nil {
			return err
		}
		last := l.tokens[len(l.tokens)-1]
		if last.kind != operator {
			continue
		}
		if closes := closers[last.text]; closes != "" {
			open = append(open, closes)
		} else if strings.Contains(")]}", last.text) {
			if len(open) == 0 || open[len(open)-1] != last.text {
				return l.fail(last.offset, "%s closes nothing", last.text)
			}
			open = open[:len(open)-1]
		}
	}
}

// token reads one token inside a tag. Ansible doubles backslashes of texts in {{ … }}, so that each means itself there; in
// {% … %} they are Python's escapes.
func (l *lexer) token(rest string, literalBackslash bool) error {
	t := token{offset: l.at}
	if match := numberForm.FindString(rest); match != "" {
		t.kind, t.text = number, match
		var ok bool
		if t.value, ok = parseNumber(match); !ok {
			return l.fail(l.at, "the number %s is too large", match)
		}
	} else if match := stringForm.FindString(rest); match != "" {
		t.kind, t.text = quoted, match
		inner := match[1 : len(match)-1]
		if literalBackslash {
			if strings.Contains(strings.ReplaceAll(inner, `\\`, ""), `\`+match[:1]) {
				return l.fail(l.at, "a backslash doesn't escape a quote here: use the other kind of quotes")
			}
		} else {
			var ok bool
			if inner, ok = unescape(inner); !ok {
				return l.fail(l.at, "the text has an escape that can't be read")
			}
		}
		t.value = inner
	} else if length := strings.IndexFunc(rest, func(r rune) bool { return !isNameRune(r) }); length != 0 {
		if length < 0 {
			length = len(rest)
		}
		t.kind, t.text = name, rest[:length]
	} else {
		for _, o := range operators {
			if strings.HasPrefix(rest, o) {
				t.kind, t.text = operator, o
				break
			}
		}
		if t.kind != operator {
			r := []rune(rest)[0]
			if r == '\'' || r == '"' {
				return l.fail(l.at, "the text is never closed with %c", r)
			}
			return l.fail(l.at, "unexpected %q", r)
		}
	}
	l.at += len(t.text)
	l.tokens = append(l.tokens, t)
	return nil
}
