// Package safetext makes text that others wrote fit to be shown: on a terminal, in a log, in a table, in an answer's JSON.
//
// Servers, files and whoever has an address write what they like: escape sequences that a terminal obeys, characters that turn
// the line around or show nothing, line ends that look like lines of ours, and as much of it as fits. Line and Text show such
// characters as what they are (\u001b, \u202e, \x9b for a byte that is no UTF-8) and cut what is long, with a word on how long it
// was. Escapes are JSON's, so that text inside a JSON string means the same after it as before. IsSecret tells which names are
// those of secrets. The package is pure, imports nothing of ours, and every package may use it.
package safetext

import (
	"fmt"
	"io"
	"slices"
	"strings"
	"unicode"
	"unicode/utf16"
	"unicode/utf8"
)

// Most is how many bytes of a text Line shows, and Text of each of its lines; mostLines is how many lines.
const (
	Most      = 1000
	mostLines = 1000
)

// blanks are letters, marks and symbols that show nothing (Unicode's Default_Ignorable_Code_Point, and the empty Braille pattern).
var blanks = &unicode.RangeTable{
	R16: []unicode.Range16{
		{Lo: 0x034f, Hi: 0x034f, Stride: 1}, {Lo: 0x115f, Hi: 0x1160, Stride: 1}, {Lo: 0x17b4, Hi: 0x17b5, Stride: 1},
		{Lo: 0x180b, Hi: 0x180f, Stride: 1}, {Lo: 0x2800, Hi: 0x2800, Stride: 1}, {Lo: 0x3164, Hi: 0x3164, Stride: 1},
		{Lo: 0xfe00, Hi: 0xfe0f, Stride: 1}, {Lo: 0xffa0, Hi: 0xffa0, Stride: 1},
	},
	R32: []unicode.Range32{{Lo: 0xe0100, Hi: 0xe01ef, Stride: 1}},
}

// shows tells whether a character can be seen, and leaves those beside it where they are.
func shows(r rune) bool {
	if r < utf8.RuneSelf {
		return r >= ' ' && r < 0x7f
	}
	return unicode.IsGraphic(r) && !unicode.Is(blanks, r)
}

// Is tells whether a text is one line of which every character shows.
func Is(text string) bool { return hidden(text) == len(text) }

// hidden is where the first character is that doesn't show; the length if all do.
func hidden(text string) int {
	for i := 0; i < len(text); {
		if c := text[i]; c >= ' ' && c < 0x7f {
			i++
			continue
		}
		r, size := utf8.DecodeRuneInString(text[i:])
		if r == utf8.RuneError && size == 1 || !shows(r) {
			return i
		}
		i += size
	}
	return len(text)
}

// Line gives a text as one line of which every character shows, at most Most bytes of it.
func Line(text string) string { return Short(text, Most) }

// Short is Line with another limit, of the bytes before they are escaped.
func Short(text string, most int) string {
	text = Cut(text, most)
	if !Is(text) {
		text = string(escape(nil, []byte(text), ""))
	}
	return text
}

// Cut gives at most so many bytes of a text, and a word on how many there are where that are more.
func Cut(text string, most int) string {
	if len(text) <= most {
		return text
	}
	head := text[:most]
	// A character that would be cut in two is left out.
	for i := range min(utf8.UTFMax, most) {
		if start := most - 1 - i; utf8.RuneStart(head[start]) {
			if !utf8.FullRuneInString(head[start:]) {
				head = head[:start]
			}
			break
		}
	}
	return fmt.Sprintf("%s… (%d bytes)", head, len(text))
}

// Text gives a text of several lines with each as Line gives it, at most mostLines of them.
func Text(text string) string {
	if len(text) <= Most && Is(text) {
		return text
	}
	lines := strings.SplitN(text, "\n", mostLines+1)
	rest := ""
	if len(lines) > mostLines {
		rest = fmt.Sprintf("… (%d bytes more)", len(lines[mostLines]))
		lines = lines[:mostLines]
	}
	for i, line := range lines {
		lines[i] = Line(line)
	}
	if rest != "" {
		lines = append(lines, rest)
	}
	return strings.Join(lines, "\n")
}

// escape appends text with what doesn't show written out, except for the characters that are to stay.
func escape(to, text []byte, stay string) []byte {
	for len(text) > 0 {
		r, size := utf8.DecodeRune(text)
		switch {
		case r == utf8.RuneError && size == 1:
			to = fmt.Appendf(to, `\x%02x`, text[0])
		case shows(r) || strings.ContainsRune(stay, r):
			to = append(to, text[:size]...)
		case r == '\n':
			to = append(to, `\n`...)
		case r == '\r':
			to = append(to, `\r`...)
		case r == '\t':
			to = append(to, `\t`...)
		case r > 0xffff:
			high, low := utf16.EncodeRune(r)
			to = fmt.Appendf(to, `\u%04x\u%04x`, high, low)
		default:
			to = fmt.Appendf(to, `\u%04x`, r)
		}
		text = text[size:]
	}
	return to
}

// Writer gives a writer in front of w that writes out what doesn't show, but for line ends and tabs: the last bar for what is
// printed without a look at its parts. It is for one goroutine at a time, as w may be.
func Writer(w io.Writer) io.Writer { return &writer{w: w} }

type writer struct {
	w io.Writer
	// begun is the beginning of a character whose rest hasn't come.
	begun []byte
}

// Write writes whole characters and keeps the beginning of one for the next Write.
func (w *writer) Write(text []byte) (int, error) {
	taken := len(text)
	if len(w.begun) > 0 {
		text = append(w.begun, text...)
		w.begun = nil
	}
	for i := 1; i < utf8.UTFMax && i <= len(text); i++ {
		if end := text[len(text)-i:]; utf8.RuneStart(end[0]) {
			if !utf8.FullRune(end) {
				w.begun = slices.Clone(end)
				text = text[:len(text)-i]
			}
			break
		}
	}
	if !plain(text) {
		text = escape(make([]byte, 0, len(text)+64), text, "\n\t")
	}
	if _, err := w.w.Write(text); err != nil {
		return 0, err
	}
	return taken, nil
}

// plain tells whether a text is ASCII that Writer leaves as it is.
func plain(text []byte) bool {
	for _, c := range text {
		if (c < ' ' || c >= 0x7f) && c != '\n' && c != '\t' {
			return false
		}
	}
	return true
}
