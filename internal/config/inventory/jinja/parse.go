package jinja

import (
	"regexp"
	"slices"
	"strings"
	"unicode"
)

// parser makes the tree. The grammar is that of Jinja's parser.py.
type parser struct {
	source string
	// at is where the next token begins, or the blanks before it; ahead is that token, if it has been looked at.
	at    int
	ahead *token
	// tokens is what is a token, constants are names that are values, and escapes says that a backslash in a text begins one.
	tokens    *regexp.Regexp
	constants map[string]any
	escapes   bool
	depth     int
	// strip says that a tag's minus takes the blanks before what follows.
	strip bool
}

// is tells whether the next token is one of some operators or words.
func (p *parser) is(words ...string) bool {
	t := p.peek()
	return (t.kind == operator || t.kind == name) && slices.Contains(words, t.text)
}

// accept goes past an operator or a word if it is there.
func (p *parser) accept(word string) bool {
	found := p.is(word)
	if found {
		p.next()
	}
	return found
}

func (p *parser) expect(operator string) {
	if !p.accept(operator) {
		panic(p.unexpected("expected " + operator))
	}
}

// unexpected is the failure of a token that can't stand where it does.
func (p *parser) unexpected(want string) failure {
	t := p.peek()
	if t.kind == end || t.kind == over {
		t.text = "the end"
	}
	if want != "" {
		want = ", " + want
	}
	return failAt(t.offset, "the expression has %s where it can't be%s", t.text, want)
}

func (p *parser) name() string {
	if p.peek().kind != name {
		panic(p.unexpected("expected a name"))
	}
	return p.next().text
}

// nested bounds how deep the parser goes, within what the stack can bear: defer p.nested()().
func (p *parser) nested() func() {
	if p.depth++; p.depth > maxDepth {
		panic(failAt(p.at, "the template is nested too deeply"))
	}
	return func() { p.depth-- }
}

// What opens a tag, and what closes each kind. A minus takes the blanks outside of the tag. As Ansible has it, the line end
// after a block or a comment goes (trim_blocks), unless a plus keeps it.
var (
	tagBegin   = regexp.MustCompile(`\{\{-?|\{%[-+]?|\{#-?`)
	printEnd   = regexp.MustCompile(`^\s*(-?)\}\}`)
	blockEnd   = regexp.MustCompile(`^\s*(?:\+%\}|(-?)%\}\n?)`)
	commentEnd = regexp.MustCompile(`(?s)^.*?(?:\+#\}|(-?)#\}\n?)`)
)

// body reads up to a block that begins with one of some words, and gives that word; with none, up to the end.
func (p *parser) body(ends ...string) (*node, string) {
	defer p.nested()()
	body := &node{op: "body", at: p.at}
	for {
		from, to := len(p.source), len(p.source)
		begin := tagBegin.FindStringIndex(p.source[p.at:])
		if begin != nil {
			from, to = p.at+begin[0], p.at+begin[1]
		}
		if text := p.outside(from, begin != nil && p.source[to-1] == '-'); text != "" {
			body.of = append(body.of, &node{op: "literal", at: p.at, value: text})
		}
		p.seek(to)
		switch {
		case begin == nil && len(ends) > 0:
			panic(failAt(to, "a block is never closed with {%% endif %%}"))
		case begin == nil:
			return body, ""
		case p.source[from+1] == '#':
			p.closed(from, commentEnd, "#}")
			continue
		case p.source[from+1] == '{':
			p.escapes = false
			body.of = append(body.of, p.expression())
			p.closed(from, printEnd, "}}")
			continue
		}
		p.escapes = true
		offset := p.peek().offset
		switch word := p.name(); {
		case slices.Contains(ends, word):
			return body, word
		case word == "if":
			body.of = append(body.of, p.branch(from))
		case word == "elif" || word == "else" || word == "endif":
			panic(failAt(offset, "{%% %s %%} stands outside of an {%% if %%}, or after its {%% else %%}", word))
		default:
			panic(refusal(offset, "statement "+word))
		}
	}
}

// branch reads what stands behind the word if or elif, up to the endif.
func (p *parser) branch(begin int) *node {
	defer p.nested()()
	test := p.expression()
	p.closed(begin, blockEnd, "%}")
	then, word := p.body("elif", "else", "endif")
	n := &node{op: "if", at: begin, of: []*node{test, then}}
	if word == "elif" {
		n.of = append(n.of, p.branch(begin))
		return n
	}
	p.closed(begin, blockEnd, "%}")
	if word == "else" {
		otherwise, _ := p.body("endif")
		n.of = append(n.of, otherwise)
		p.closed(begin, blockEnd, "%}")
	}
	return n
}

// outside gives what stands outside of tags, up to an offset.
func (p *parser) outside(to int, stripEnd bool) string {
	text := p.source[p.at:to]
	if p.strip {
		text = strings.TrimLeftFunc(text, unicode.IsSpace)
	}
	if stripEnd {
		text = strings.TrimRightFunc(text, unicode.IsSpace)
	}
	p.strip = false
	return text
}

// closed goes past the end of the tag that began at an offset.
func (p *parser) closed(begin int, form *regexp.Regexp, closer string) {
	match := form.FindStringSubmatch(p.source[p.at:])
	switch {
	case match != nil:
		p.seek(p.at + len(match[0]))
		p.strip = match[1] == "-"
	case closer == "#}" || p.peek().kind == over:
		panic(failAt(begin, "the %s is never closed with %s", p.source[begin:begin+2], closer))
	default:
		panic(p.unexpected(""))
	}
}
