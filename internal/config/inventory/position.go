package inventory

import (
	"strconv"
	"strings"
	"unicode/utf8"

	"go.yaml.in/yaml/v4"

	"github.com/pgporter/pgporter/internal/config/diag"
)

// At gives the position in the file of what is at an offset (in bytes) of a text. A scalar's offsets aren't its source's:
// quotes, escapes, folded lines and indentation lie between. But all of these only add, drop or change blanks, or are escapes
// that can be read again; so the n-th character that isn't blank is the same in both. A blank at the offset, or the text's
// end, is taken for what follows the last such character.
func (v Value) At(offset int) diag.Position {
	text, isText := v.Text()
	if !isText || v.node == nil || v.pos.Line > len(v.doc.lines) {
		return v.pos
	}
	offset = max(0, min(offset, len(text)))
	before := 0
	for _, r := range text[:offset] {
		if !isBlank(r) {
			before++
		}
	}
	next, _ := utf8.DecodeRuneInString(text[offset:])
	afterLast := offset == len(text) || isBlank(next)
	w := v.walker()
	position := w.at
	for {
		start := w.at
		r, ok := w.next()
		if !ok {
			return v.doc.position(position)
		}
		if isBlank(r) {
			continue
		}
		if before == 0 && (!afterLast || offset == 0) {
			return v.doc.position(start)
		}
		before--
		position = w.at
		if before == 0 && afterLast {
			return v.doc.position(position)
		}
	}
}

func isBlank(r rune) bool { return r == ' ' || r == '\t' || isBreak(r) }

// walker reads the characters of a scalar from the source.
type walker struct {
	source string
	at     int
	style  yaml.Style
}

// walker starts where the scalar's characters start: after its anchor, its tag, its opening quote, its block header.
func (v Value) walker() *walker {
	w := &walker{source: v.doc.source, style: v.node.Style}
	w.at = v.doc.lines[v.pos.Line-1]
	line := w.source[w.at:]
	if v.pos.Line == 1 {
		trimmed := strings.TrimPrefix(line, "\ufeff")
		w.at += len(line) - len(trimmed)
		line = trimmed
	}
	for range v.pos.Column - 1 {
		_, size := utf8.DecodeRuneInString(w.source[w.at:])
		w.at += size
	}
	for w.at < len(w.source) && (w.source[w.at] == '&' || w.source[w.at] == '!') {
		w.at += skip(w.source[w.at:], " \t\r\n", false)
		w.at += skip(w.source[w.at:], " \t\r\n", true)
	}
	switch {
	case w.style&(yaml.SingleQuotedStyle|yaml.DoubleQuotedStyle) != 0:
		w.at++
	case w.style&(yaml.LiteralStyle|yaml.FoldedStyle) != 0:
		w.at += skip(w.source[w.at:], "\r\n", false)
	}
	return w
}

// skip counts the leading bytes of s that are (or aren't) among set.
func skip(s, set string, among bool) int {
	for i := range len(s) {
		if strings.IndexByte(set, s[i]) >= 0 != among {
			return i
		}
	}
	return len(s)
}

// next gives the scalar's next character and goes past what it is written with.
func (w *walker) next() (rune, bool) {
	if w.at >= len(w.source) {
		return 0, false
	}
	r, size := utf8.DecodeRuneInString(w.source[w.at:])
	w.at += size
	switch {
	case w.style&yaml.SingleQuotedStyle != 0 && r == '\'':
		if !strings.HasPrefix(w.source[w.at:], "'") {
			return 0, false
		}
		w.at++
	case w.style&yaml.DoubleQuotedStyle != 0 && r == '"':
		return 0, false
	case w.style&yaml.DoubleQuotedStyle != 0 && r == '\\':
		return w.escape(), true
	}
	return r, true
}

// escape reads what follows a backslash in double quotes.
func (w *walker) escape() rune {
	r, size := utf8.DecodeRuneInString(w.source[w.at:])
	w.at += size
	digits := map[rune]int{'x': 2, 'u': 4, 'U': 8}[r]
	if digits == 0 || w.at+digits > len(w.source) {
		if strings.ContainsRune("ntrNLP", r) || isBlank(r) {
			return ' '
		}
		return r | 0x100000
	}
	code, err := strconv.ParseUint(w.source[w.at:w.at+digits], 16, 32)
	w.at += digits
	if err != nil {
		return utf8.RuneError
	}
	return rune(code)
}
