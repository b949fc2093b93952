package tcpservice

import (
	"fmt"
	"regexp"
	"regexp/syntax"
	"strconv"
	"strings"

	"github.com/pgporter/pgporter/internal/config/diag"
)

// step is how far the sequence of http-check lines has come: connect, send, expect.
type step int

const (
	begun step = iota
	connected
	sent
	expecting
)

// connection is what `http-check connect` says.
type connection struct {
	addr string
	port int
	// own (default) takes what the connection doesn't say from the server.
	own, tls bool
	sni      string
}

// httpchk reads `option httpchk [[method] uri [version]]`.
func (r *reader) httpchk(words []word) {
	if !r.arguments(words, 0, 3, "at most a method, a URI and a version; further lines of the request with http-check send") || !r.kind(words[1], "option httpchk") {
		return
	}
	r.httpAt = r.at
	r.http = &Request{Method: "OPTIONS", URI: "/", Version: "HTTP/1.0"}
	args := words[2:]
	if len(args) == 1 {
		r.uri(args[0])
		return
	}
	for i, read := range []func(word){r.method, r.uri, r.version} {
		if i < len(args) {
			read(args[i])
		}
	}
}

func (r *reader) tcpCheck(words []word) {
	if r.arguments(words, 0, 0, "nothing after it") {
		r.kind(words[1], "option tcp-check")
	}
}

// kind notes how servers are checked, which can be said once: HAProxy would go by the last.
func (r *reader) kind(w word, name string) bool {
	for _, other := range []string{"option httpchk", "option tcp-check"} {
		if r.seen[other] && other != name {
			r.fail(diag.ListenLine, w, "one of them", "%s is there beside %s", name, other)
			return false
		}
	}
	return r.once(w, name)
}

func (r *reader) method(w word) {
	if !isToken(w.text) {
		r.fail(diag.ListenLine, w, "a method, as in GET", "method is %q", w.text)
		return
	}
	r.http.Method = w.text
}

func (r *reader) uri(w word) {
	if !isURI(w.text) {
		r.fail(diag.NativeUnsupported, w, orHAProxy("a path, as in /health"), "uri is %q", w.text)
		return
	}
	r.http.URI = w.text
}

func (r *reader) version(w word) {
	if w.text != "HTTP/1.0" && w.text != "HTTP/1.1" {
		r.fail(diag.NativeUnsupported, w, orHAProxy("HTTP/1.0 or HTTP/1.1; headers with http-check send hdr"), "version is %q", w.text)
		return
	}
	r.http.Version = w.text
}

// httpCheck reads a line of the sequence: connect at most once, send at most once, and then what is expected.
func (r *reader) httpCheck(words []word) {
	if len(words) == 1 {
		r.fail(diag.ListenLine, words[0], "connect, send or expect", "nothing follows http-check")
		return
	}
	what := words[1]
	switch {
	case what.text != "connect" && what.text != "send" && what.text != "expect":
		r.fail(diag.NativeUnsupported, what, orHAProxy("connect, send or expect"), "http-check %s %s", what.text, unsupported)
		return
	case r.http == nil:
		r.fail(diag.ListenLine, words[0], "option httpchk before it", "http-check %s without option httpchk has no effect", what.text)
		return
	}
	args := words[2:]
	switch what.text {
	case "connect":
		if r.step >= connected {
			r.fail(diag.NativeUnsupported, what, orHAProxy("one, as the first http-check line"), "a sequence of checks (http-check connect after http-check %s) %s", r.step, unsupported)
			return
		}
		r.step, r.connectAt, r.connect = connected, r.at, &connection{}
		r.readConnect(args)
	case "send":
		if r.step >= sent {
			r.fail(diag.ListenLine, what, "one, before http-check expect", "http-check send after http-check %s", r.step)
			return
		}
		r.step = sent
		r.readSend(args)
	case "expect":
		if r.step == connected {
			r.fail(diag.ListenLine, what, "http-check send in between", "http-check expect after http-check connect")
			return
		}
		r.step = expecting
		r.readExpect(what, args)
	}
}

// String is the name of the latest http-check line.
func (s step) String() string { return [...]string{"", "connect", "send", "expect"}[s] }

// parameters reads name-value pairs. How many words each name takes is in takes; nil is passed for unknown ones.
func (r *reader) parameters(line string, args []word, takes map[string]int, known string, haproxyOnly string, read func(name word, values []word)) {
	for i := 0; i < len(args); {
		name := args[i]
		n, isKnown := takes[name.text]
		switch {
		case !isKnown && strings.Contains(" "+haproxyOnly+" ", " "+name.text+" "):
			r.fail(diag.NativeUnsupported, name, orHAProxy("leave it out"), "%s %s %s", line, name.text, unsupported)
			return
		case !isKnown:
			r.fail(diag.ListenLine, name, known, "%s doesn't take %q", line, name.text)
			return
		case len(args)-i-1 < n:
			r.fail(diag.ListenLine, name, "what it is to be", "nothing follows %s", name.text)
			return
		}
		values := args[i+1 : i+1+n]
		for _, v := range values {
			if v.text == "" {
				r.fail(diag.ListenLine, v, "what it is to be", "%s is empty", name.text)
			}
		}
		read(name, values)
		i += 1 + n
	}
}

func (r *reader) readConnect(args []word) {
	c := r.connect
	r.parameters("http-check connect", args, map[string]int{"default": 0, "ssl": 0, "port": 1, "addr": 1, "sni": 1, "comment": 1},
		"default, port, addr, ssl, sni or comment", "send-proxy via-socks4 alpn linger proto", func(name word, values []word) {
			ok := true
			switch name.text {
			case "default":
				c.own = true
			case "ssl":
				c.tls = true
			case "port":
				if c.port, ok = port(values[0].text); !ok {
					r.fail(diag.NativeUnsupported, values[0], orHAProxy("a whole number from 1 to 65535"), "http-check connect: port is %q", values[0].text)
				}
			case "addr":
				if c.addr, ok = address(values[0].text); !ok {
					r.fail(diag.NativeUnsupported, values[0], orHAProxy("an IP address"), "http-check connect: addr is %q", values[0].text)
				}
			case "sni":
				c.sni = values[0].text
			}
		})
}

func (r *reader) readSend(args []word) {
	q := r.http
	r.parameters("http-check send", args, map[string]int{"meth": 1, "uri": 1, "ver": 1, "hdr": 2, "body": 1, "comment": 1},
		"meth, uri, ver, hdr, body or comment", "uri-lf body-lf", func(name word, values []word) {
			switch name.text {
			case "meth":
				r.method(values[0])
			case "uri":
				r.uri(values[0])
			case "ver":
				r.version(values[0])
			case "body":
				q.Body = values[0].text
			case "hdr":
				r.header(values[0], values[1])
			}
		})
}

// header reads a line of the request. HAProxy takes its value for a log format, in which % begins what is put in.
func (r *reader) header(name, value word) {
	text := strings.ReplaceAll(value.text, "%%", "")
	switch {
	case !isToken(name.text):
		r.fail(diag.ListenLine, name, "a header's name", "hdr is %q", name.text)
	case strings.EqualFold(name.text, "content-length") || strings.EqualFold(name.text, "transfer-encoding"):
		r.fail(diag.ListenLine, name, "leave it out: it follows from the body", "hdr %s would be ignored", name.text)
	case strings.Contains(text, "%"):
		r.fail(diag.NativeUnsupported, value, orHAProxy("%% for the character"), "a log format in hdr %s %s", name.text, unsupported)
	case strings.ContainsFunc(text, func(c rune) bool { return c < ' ' && c != '\t' || c == 0x7f }):
		r.fail(diag.ListenLine, value, "text", "hdr %s has a control character", name.text)
	default:
		r.http.Headers = append(r.http.Headers, Header{name.text, strings.ReplaceAll(value.text, "%%", "%")})
	}
}

// readExpect reads `[comment text] [!] status|rstatus|string|rstring pattern [comment text]`.
func (r *reader) readExpect(what word, args []word) {
	var e Expect
	matched := false
	for i := 0; i < len(args); i++ {
		w := args[i]
		name := w.text
		negated := strings.HasPrefix(name, "!")
		name = strings.TrimPrefix(name, "!")
		if negated && name == "" && i+1 < len(args) {
			i++
			name = args[i].text
			w = args[i]
		}
		switch name {
		case "comment", "status", "rstatus", "string", "rstring":
		case "hdr", "fhdr", "string-lf", "min-recv", "ok-status", "error-status", "tout-status", "on-success", "on-error", "status-code":
			r.fail(diag.NativeUnsupported, w, orHAProxy("status, rstatus, string or rstring"), "http-check expect %s %s", name, unsupported)
			return
		default:
			r.fail(diag.ListenLine, w, "status, rstatus, string or rstring, with ! before it for the opposite", "http-check expect doesn't take %q", w.text)
			return
		}
		if i+1 == len(args) || args[i+1].text == "" {
			r.fail(diag.ListenLine, w, "what it is to be", "nothing follows %s", name)
			return
		}
		i++
		if name == "comment" {
			e.Comment = args[i].text
			continue
		}
		if matched {
			r.fail(diag.ListenLine, w, "a line of its own", "http-check expect has a second condition")
			return
		}
		matched, e.Not = true, negated
		if !r.pattern(&e, name, args[i]) {
			return
		}
	}
	if !matched {
		r.fail(diag.ListenLine, what, "status, rstatus, string or rstring", "nothing follows http-check expect")
		return
	}
	r.http.Expect = append(r.http.Expect, e)
}

func (r *reader) pattern(e *Expect, name string, w word) bool {
	var err error
	switch name {
	case "status":
		if e.Status, err = statuses(w.text); err != nil {
			r.fail(diag.ListenLine, w, "statuses and ranges of them, as in 200,300-399", "status is %q", w.text)
		}
	case "string":
		e.Text = w.text
	case "rstatus":
		e.StatusPattern = w.text
		_, err = Compile(w.text)
	case "rstring":
		e.Pattern = w.text
		_, err = Compile(w.text)
	}
	if err != nil && name != "status" {
		r.fail(diag.NativeUnsupported, w, orHAProxy("a regular expression that RE2 has"), "%s is %q: %v", name, w.text, err)
	}
	return err == nil
}

// statuses reads a list of statuses and ranges.
func statuses(text string) ([]Range, error) {
	var all []Range
	for one := range strings.SplitSeq(text, ",") {
		from, to, isRange := strings.Cut(one, "-")
		if !isRange {
			to = from
		}
		low, errLow := strconv.ParseUint(from, 10, 16)
		high, errHigh := strconv.ParseUint(to, 10, 16)
		if errLow != nil || errHigh != nil || low > high || low < 100 || high > 999 {
			return nil, fmt.Errorf("%q is no status", one)
		}
		all = append(all, Range{int(low), int(high)})
	}
	return all, nil
}

// Compile makes a pattern's regular expression. HAProxy's come from PCRE, of which RE2 has what needs no backtracking; as
// there, an end of the text is also before a last line feed.
func Compile(pattern string) (*regexp.Regexp, error) {
	tree, err := syntax.Parse(pattern, syntax.Perl)
	if err != nil {
		// The error repeats the pattern, which is there already.
		if e, ok := err.(*syntax.Error); ok {
			return nil, fmt.Errorf("%s", e.Code)
		}
		return nil, err
	}
	return regexp.Compile(mendEnds(tree).String())
}

// mendEnds puts an optional line feed before each $.
func mendEnds(tree *syntax.Regexp) *syntax.Regexp {
	if tree.Op == syntax.OpEndText && tree.Flags&syntax.WasDollar != 0 {
		feed := &syntax.Regexp{Op: syntax.OpLiteral, Rune: []rune{'\n'}}
		end := &syntax.Regexp{Op: syntax.OpEndText}
		return &syntax.Regexp{Op: syntax.OpConcat, Sub: []*syntax.Regexp{{Op: syntax.OpQuest, Sub: []*syntax.Regexp{feed}}, end}}
	}
	for i, sub := range tree.Sub {
		tree.Sub[i] = mendEnds(sub)
	}
	return tree
}
