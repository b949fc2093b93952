package tcpservice

import (
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/pgporter/pgporter/internal/config/diag"
	"github.com/pgporter/pgporter/internal/config/model"
)

// reader reads a service, all of it even if a part is wrong.
type reader struct {
	g        model.TCPService
	s        Service
	problems []Problem
	// at is the line being read.
	at int
	// seen are the directives so far that may be there once.
	seen map[string]bool
	// http is what `option httpchk` has begun; nil without it.
	http *Request
	// step is how far the http-check lines are.
	step step
	// connect is their connection; nil for the server's own.
	connect *connection
	// connectAt and httpAt are the lines of `http-check connect` and `option httpchk`.
	connectAt, httpAt             int
	client, server, tunnel, check time.Duration
}

func (r *reader) add(p Problem) { r.problems = append(r.problems, p) }

// fail is a problem at a word of the line.
func (r *reader) fail(code diag.Code, w word, want, format string, args ...any) {
	r.add(Problem{Code: code, Part: InLine, Index: r.at, Offset: w.offset, What: fmt.Sprintf(format, args...), Want: want})
}

// directives are the lines that the native engine has, by their first word.
var directives map[string]func(r *reader, words []word)

// options are those that begin with `option`.
var options map[string]func(r *reader, words []word)

// timeouts are those that begin with `timeout`.
var timeouts = map[string]func(r *reader) *time.Duration{
	"connect": func(r *reader) *time.Duration { return &r.s.Connect },
	"queue":   func(r *reader) *time.Duration { return &r.s.Queue },
	"check":   func(r *reader) *time.Duration { return &r.check },
	"client":  func(r *reader) *time.Duration { return &r.client },
	"server":  func(r *reader) *time.Duration { return &r.server },
	"tunnel":  func(r *reader) *time.Duration { return &r.tunnel },
}

func init() {
	directives = map[string]func(r *reader, words []word){
		"description": func(*reader, []word) {},
		"http-check":  (*reader).httpCheck,
		"log":         (*reader).logging,
		"mode":        (*reader).mode,
		"option":      (*reader).option,
		"retries":     (*reader).retries,
		"timeout":     (*reader).timeout,
	}
	options = map[string]func(r *reader, words []word){
		// What the native engine always does.
		"abortonclose": (*reader).flag,
		"clitcpka":     (*reader).flag,
		"srvtcpka":     (*reader).flag,
		"tcpka":        (*reader).flag,
		"redispatch":   (*reader).redispatch,
		// What has no effect in mode tcp, with HAProxy either.
		"http-keep-alive": (*reader).flag,
		"allbackups":      func(r *reader, words []word) { r.flag(words); r.s.AllBackups = true },
		"httpchk":         (*reader).httpchk,
		"tcp-check":       (*reader).tcpCheck,
	}
	for _, name := range strings.Fields("dontlog-normal dontlognull httplog log-health-checks log-separate-errors logasap tcplog") {
		options[name] = (*reader).logging
	}
}

// keys are lines that belong into a key of the service.
var keys = map[string]string{
	"balance": "the key balance", "bind": "the keys ip and port", "default-server": "the key default", "maxconn": "the key maxconn",
	"server": "the key servers", "server-template": "the key servers",
}

// line reads one line.
func (r *reader) line(index int, text string) {
	r.at = index
	words, wrong := split(text)
	if wrong != nil {
		wrong.Index = index
		r.add(*wrong)
		return
	}
	if len(words) == 0 {
		return
	}
	first := words[0]
	read, known := directives[first.text]
	key, isKey := keys[first.text]
	switch {
	case isKey:
		r.fail(diag.NativeUnsupported, first, orHAProxy(key+" of the service"), "%s %s", first.text, unsupported)
	case !known:
		r.fail(diag.NativeUnsupported, first, orHAProxy("leave it out"), "%s %s", first.text, unsupported)
	default:
		read(r, words)
	}
}

// once tells whether a directive may be read: each may be there once.
func (r *reader) once(w word, name string) bool {
	if r.seen[name] {
		r.fail(diag.ListenLine, w, "one of them", "%s is there twice", name)
		return false
	}
	r.seen[name] = true
	return true
}

// arguments tells whether a line has as many words after its name as it takes.
func (r *reader) arguments(words []word, least, most int, want string) bool {
	name := words[0].text
	if name == "option" || name == "timeout" {
		name, words = name+" "+words[1].text, words[1:]
	}
	switch n := len(words) - 1; {
	case n < least:
		r.fail(diag.ListenLine, words[0], want, "nothing follows %s", name)
	case n > most:
		r.fail(diag.ListenLine, words[most+1], want, "%s doesn't take %q", name, words[most+1].text)
	default:
		return true
	}
	return false
}

func (r *reader) option(words []word) {
	if len(words) == 1 {
		r.fail(diag.ListenLine, words[0], "an option", "nothing follows option")
		return
	}
	name := words[1].text
	read, known := options[name]
	switch {
	case !known && strings.HasSuffix(name, "-check") || name == "smtpchk" || name == "ssl-hello-chk":
		r.fail(diag.NativeUnsupported, words[1], orHAProxy("option tcp-check, or option httpchk"), "option %s %s", name, unsupported)
	case !known:
		r.fail(diag.NativeUnsupported, words[1], orHAProxy("leave it out"), "option %s %s", name, unsupported)
	default:
		read(r, words)
	}
}

// flag is an option without arguments.
func (r *reader) flag(words []word) { r.arguments(words, 0, 0, "nothing after it") }

// logging has to do with HAProxy's own log, which the native engine doesn't write.
func (r *reader) logging(words []word) {
	name := words[0].text
	if name == "option" {
		name += " " + words[1].text
		r.flag(words)
	}
	r.add(Problem{Code: diag.NativeIgnores, Part: InLine, Index: r.at, Offset: words[0].offset, Minor: true,
		What: name + " is about HAProxy's log: the native engine carries the service without it", Want: "leave it out"})
}

func (r *reader) mode(words []word) {
	if r.arguments(words, 1, 1, "tcp") && words[1].text != "tcp" {
		r.fail(diag.NativeUnsupported, words[1], orHAProxy("tcp"), "mode %s %s", words[1].text, unsupported)
	}
}

// redispatch has no effect: who finds a server's port closed is always connected to another. The number says in HAProxy at
// which attempt.
func (r *reader) redispatch(words []word) {
	if !r.arguments(words, 0, 1, "nothing after it, or a whole number") || len(words) == 2 {
		return
	}
	if n, err := strconv.Atoi(words[2].text); err != nil || n == 0 {
		r.fail(diag.NativeUnsupported, words[2], orHAProxy("a whole number other than 0: the native engine always tries another server"), "option redispatch is %q", words[2].text)
	}
}

func (r *reader) retries(words []word) {
	const want = "a whole number from 0 to 2147483647"
	if !r.arguments(words, 1, 1, want) || !r.once(words[0], "retries") {
		return
	}
	n, err := strconv.Atoi(words[1].text)
	if err != nil || n < 0 || n > 1<<31-1 {
		r.fail(diag.ListenLine, words[1], want, "retries is %q", words[1].text)
		return
	}
	r.s.Once = n == 0
}

func (r *reader) timeout(words []word) {
	if len(words) == 1 {
		r.fail(diag.ListenLine, words[0], "which timeout, and how long", "nothing follows timeout")
		return
	}
	field, known := timeouts[words[1].text]
	if !known {
		r.fail(diag.NativeUnsupported, words[1], orHAProxy("leave it out"), "timeout %s %s", words[1].text, unsupported)
		return
	}
	name := "timeout " + words[1].text
	if !r.arguments(words, 1, 1, "a time, as in 5s") || !r.once(words[0], name) {
		return
	}
	d, err := model.ParseTime(words[2].text)
	switch {
	case err != nil:
		what, want, _ := strings.Cut(err.Error(), "; ")
		r.fail(diag.ListenLine, words[2], want, "%s %s", name, what)
	case d < time.Millisecond:
		r.fail(diag.NativeUnsupported, words[2], orHAProxy("at least 1ms"), "%s is %q", name, words[2].text)
	default:
		*field(r) = d
	}
}

// conclude settles what several lines say together.
func (r *reader) conclude() {
	r.s.Idle = r.tunnel
	if r.tunnel == 0 {
		// Bytes that come from one side go to the other, so that both are idle at the same time.
		r.s.Idle = min(r.client, r.server)
		if r.client == 0 || r.server == 0 {
			r.s.Idle = max(r.client, r.server)
		}
	}
	if r.connect != nil && r.step == connected {
		r.at = r.connectAt
		r.fail(diag.ListenLine, word{}, "http-check send after it", "http-check connect has nothing to send")
	}
}

// port reads a port.
func port(text string) (int, bool) {
	n, err := strconv.Atoi(text)
	return n, err == nil && n >= 1 && n <= 65535
}

// address reads an IP address.
func address(text string) (string, bool) {
	a, err := netip.ParseAddr(text)
	return text, err == nil && a.Zone() == ""
}

// tokenBytes are those of a method and of a header's name (RFC 9110, section 5.6.2).
func isToken(text string) bool {
	return text != "" && !strings.ContainsFunc(text, func(c rune) bool {
		return !(c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || strings.ContainsRune("!#$%&'*+-.^_`|~", c))
	})
}

// isURI tells whether a text can stand in a request's line.
func isURI(text string) bool {
	return (text == "*" || strings.HasPrefix(text, "/")) && !slices.ContainsFunc([]byte(text), func(c byte) bool { return c <= ' ' || c >= 0x7f })
}
