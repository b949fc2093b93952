package tcpservice

import (
	"strconv"
	"strings"

	"github.com/pgporter/pgporter/internal/config/diag"
)

// word is one word of a line, quotes and escapes undone, with where it begins.
type word struct {
	text   string
	offset int
}

// mostWords is how many words HAProxy takes in a line (MAX_LINE_ARGS).
const mostWords = 64

// split cuts a line into words as HAProxy does (configuration manual 2.6, section 2.2): quotes, backslashes, and comments
// behind a #. Environment variables, which HAProxy puts in between double quotes, are refused: they would be those of
// another program.
func split(line string) ([]word, *Problem) {
	var words []word
	var text strings.Builder
	start, quote, quoted := -1, byte(0), 0
	fail := func(code diag.Code, at int, what, want string) ([]word, *Problem) {
		return words, &Problem{Code: code, Part: InLine, Offset: at, What: what, Want: want}
	}
	end := func() {
		if start >= 0 {
			words = append(words, word{text.String(), start})
			text.Reset()
			start = -1
		}
	}
	i := 0
scan:
	for ; i < len(line); i++ {
		c := line[i]
		blank := c == ' ' || c == '\t'
		if quote == 0 && blank {
			end()
			continue
		}
		if quote == 0 && c == '#' {
			break scan
		}
		if start < 0 {
			start = i
		}
		switch {
		case quote == 0 && (c == '"' || c == '\''):
			quote, quoted = c, i
		case quote == c:
			quote = 0
		case quote == '"' && c == '$':
			return fail(diag.NativeUnsupported, i, `"$" in double quotes names an environment variable, which `+unsupported, orHAProxy(`\$ for the character`))
		case c == '\\' && quote != '\'':
			taken, n, known := escape(line[i+1:], quote)
			if !known {
				return fail(diag.ListenLine, i, "a backslash with x needs two hexadecimal digits", `\x41, or \\x`)
			}
			text.WriteString(taken)
			i += n
		case c < ' ' && c != '\t' || c == 0x7f:
			return fail(diag.ListenLine, i, "a control character is in the line", "an escape, as in \\n or \\x01")
		default:
			text.WriteByte(c)
		}
	}
	if quote != 0 {
		return fail(diag.ListenLine, quoted, "a quote isn't closed", "another "+string(quote))
	}
	end()
	if len(words) > mostWords {
		return fail(diag.ListenLine, words[mostWords].offset, "the line has more than "+strconv.Itoa(mostWords)+" words", "fewer")
	}
	return words, nil
}

// escape gives what a backslash and what follows it stand for, and how many bytes of rest that takes. What isn't known to
// HAProxy keeps its backslash: regular expressions are full of it.
func escape(rest string, quote byte) (text string, taken int, known bool) {
	if rest == "" {
		return `\`, 0, true
	}
	switch c := rest[0]; {
	case strings.IndexByte(` \#'"`, c) >= 0, c == '$' && quote == '"':
		return string(c), 1, true
	case c == 'n':
		return "\n", 1, true
	case c == 'r':
		return "\r", 1, true
	case c == 't':
		return "\t", 1, true
	case c == 'x':
		if len(rest) < 3 {
			return "", 0, false
		}
		n, err := strconv.ParseUint(rest[1:3], 16, 8)
		if err != nil {
			return "", 0, false
		}
		return string([]byte{byte(n)}), 3, true
	}
	return `\`, 0, true
}
