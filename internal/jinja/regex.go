package jinja

import (
	"regexp"
	"strconv"
	"strings"
	"unicode"
)

// compileRegex reads a pattern of Python's. What Go's regular expressions haven't (looking around, references inside the
// pattern), which would also cost more than linear time, is refused.
func compileRegex(pattern any, ignoreCase, multiline any) (*regexp.Regexp, error) {
	all, err := texts([]any{pattern})
	if err != nil {
		return nil, err
	}
	flags := ""
	for _, flag := range []struct {
		on     any
		letter string
	}{{ignoreCase, "i"}, {multiline, "m"}} {
		yes, err := truth(flag.on)
		if err != nil {
			return nil, err
		}
		if yes {
			flags += flag.letter
		}
	}
	source := strings.ReplaceAll(all[0], `\Z`, `\z`)
	if flags != "" {
		source = "(?" + flags + ")" + source
	}
	re, err := regexp.Compile(source)
	if err != nil {
		return nil, complain("the regular expression can't be used: it may not look around or refer to its own groups")
	}
	return re, nil
}

func regexReplace(m *machine, v any, args given) (any, error) {
	values, err := args.bind("pattern replacement ignorecase multiline", "", "", false, false)
	if err != nil {
		return nil, err
	}
	text, err := m.str(v)
	if err != nil {
		return nil, err
	}
	re, err := compileRegex(values[0], values[2], values[3])
	if err != nil {
		return nil, err
	}
	replacement, err := texts(values[1:2])
	if err != nil {
		return nil, err
	}
	matches := re.FindAllStringSubmatchIndex(text, -1)
	if err := m.budget.made(min(len(matches)*(len(replacement[0])+1)+len(text), 1<<40)); err != nil {
		return nil, err
	}
	var b strings.Builder
	last := 0
	for _, match := range matches {
		b.WriteString(text[last:match[0]])
		if err := m.expand(&b, re, replacement[0], text, match); err != nil {
			return nil, err
		}
		last = match[1]
	}
	b.WriteString(text[last:])
	return b.String(), m.budget.made(b.Len())
}

// expand writes a replacement with its \1 and \g<name> filled in.
func (m *machine) expand(b *strings.Builder, re *regexp.Regexp, replacement, text string, match []int) error {
	for i := 0; i < len(replacement); {
		if replacement[i] != '\\' || i+1 == len(replacement) {
			b.WriteByte(replacement[i])
			i++
			continue
		}
		c := replacement[i+1]
		group := ""
		switch {
		case c == 'g':
			inner, _, closed := strings.Cut(strings.TrimPrefix(replacement[i+2:], "<"), ">")
			if !closed {
				return complain("the replacement has \\g without <group>")
			}
			group = inner
			i += len(inner) + 4
		case c >= '1' && c <= '9':
			end := i + 2
			if end < len(replacement) && replacement[end] >= '0' && replacement[end] <= '9' {
				end++
			}
			group = replacement[i+1 : end]
			i = end
		case c == 'n':
			b.WriteByte('\n')
			i += 2
			continue
		case c == 't':
			b.WriteByte('\t')
			i += 2
			continue
		case c == '\\':
			b.WriteByte('\\')
			i += 2
			continue
		default:
			return complain("the replacement has an escape that can't be read")
		}
		n, err := strconv.Atoi(group)
		if err != nil {
			n = re.SubexpIndex(group)
		}
		if n < 0 || n > re.NumSubexp() {
			return complain("the replacement refers to a group that the expression hasn't")
		}
		if match[2*n] >= 0 {
			b.WriteString(text[match[2*n]:match[2*n+1]])
		}
		if b.Len() > maxText {
			return m.budget.made(b.Len())
		}
	}
	return nil
}

func regexSearch(m *machine, v any, args given) (any, error) {
	if len(args.positional) == 0 {
		return nil, complain("needs an expression")
	}
	flags, err := given{keywords: args.keywords, names: args.names}.bind("ignorecase multiline", false, false)
	if err != nil {
		return nil, err
	}
	groups, err := texts(args.positional[1:])
	if err != nil {
		return nil, err
	}
	text, err := m.str(v)
	if err != nil {
		return nil, err
	}
	re, err := compileRegex(args.positional[0], flags[0], flags[1])
	if err != nil {
		return nil, err
	}
	match := re.FindStringSubmatch(text)
	switch {
	case match == nil:
		return nil, nil
	case len(groups) == 0:
		return match[0], nil
	}
	found := []any{}
	for _, group := range groups {
		id := strings.TrimSuffix(strings.TrimPrefix(strings.TrimPrefix(group, `\`), "g<"), ">")
		n, err := strconv.Atoi(id)
		if err != nil {
			n = re.SubexpIndex(id)
		}
		if !strings.HasPrefix(group, `\`) || n < 0 || n >= len(match) {
			return nil, complain("there is no such group in the expression")
		}
		found = append(found, match[n])
	}
	return found, nil
}

func regexFindAll(m *machine, v any, args given) (any, error) {
	values, err := args.bind("regex multiline ignorecase", false, false)
	if err != nil {
		return nil, err
	}
	text, err := m.str(v)
	if err != nil {
		return nil, err
	}
	re, err := compileRegex(values[0], values[2], values[1])
	if err != nil {
		return nil, err
	}
	found := []any{}
	for _, match := range re.FindAllStringSubmatch(text, maxItems+1) {
		switch len(match) {
		case 1:
			found = append(found, match[0])
		case 2:
			found = append(found, match[1])
		default:
			var groups Tuple
			for _, group := range match[1:] {
				groups = append(groups, group)
			}
			found = append(found, groups)
		}
	}
	return found, m.budget.listed(len(found))
}

// escapeRegex is Python's re.escape.
func escapeRegex(text string) string {
	var b strings.Builder
	for _, r := range text {
		if strings.ContainsRune("()[]{}?*+-|^$\\.&~# \t\n\r\v\f", r) && r <= unicode.MaxASCII {
			b.WriteByte('\\')
		}
		b.WriteRune(r)
	}
	return b.String()
}
