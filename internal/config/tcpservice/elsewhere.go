package tcpservice

import (
	"fmt"
	"slices"
	"strings"

	"github.com/pgporter/pgporter/internal/config/model"
)

// harmlessOptions are what may follow `option` in a line from elsewhere. Their arguments are plain words, or a path of a URL.
var harmlessOptions = strings.Fields("abortonclose allbackups clitcpka contstats dontlog-normal dontlognull forwardfor http-keep-alive http-server-close " +
	"httpchk httpclose httplog ldap-check log-health-checks log-separate-errors logasap nolinger pgsql-check redis-check redispatch smtpchk " +
	"splice-auto srvtcpka ssl-hello-chk tcp-check tcp-smart-accept tcp-smart-connect tcpka tcplog")

// harmlessDirectives are the first words of lines from elsewhere of which all others are plain.
var harmlessDirectives = strings.Fields("backlog description fullconn hash-type mode retries timeout")

// harmlessChecks are the parameters of http-check lines that may come from elsewhere, and how many words each takes. Text of theirs
// isn't a log format, in which HAProxy would put variables and more.
var harmlessChecks = map[string]map[string]int{
	"connect": {"comment": 1, "default": 0, "ssl": 0, "linger": 0, "send-proxy": 0, "port": 1, "addr": 1, "sni": 1, "alpn": 1, "proto": 1},
	"send":    {"comment": 1, "meth": 1, "uri": 1, "ver": 1, "hdr": 2, "body": 1},
	"expect":  {"comment": 1, "!": 0, "status": 1, "rstatus": 1, "string": 1, "rstring": 1, "min-recv": 1},
}

// NotFromElsewhere says why a line of a TCP service's options may only stand in an inventory that the machine itself reads, and at
// which of its bytes; empty if it may be sent. A line can have HAProxy, which runs as root as a rule, read files, run scripts and
// tell of variables: only what is known to do nothing of the kind is let through.
func NotFromElsewhere(line string) (why string, offset int) {
	words, problem := split(line)
	if problem != nil {
		return problem.What, problem.Offset
	}
	if len(words) == 0 {
		return "", 0
	}
	// What HAProxy undoes, or puts something in for, is refused before it is understood.
	if at := strings.IndexAny(line, `"'\%`); at >= 0 {
		return "it has a quote, a backslash or a % in it", at
	}
	first, args := words[0], words[1:]
	plain := func(args []word, also string) (string, int) {
		for _, w := range args {
			if !model.PlainWord(strings.Map(func(r rune) rune {
				if strings.ContainsRune(also, r) {
					return 'x'
				}
				return r
			}, w.text)) {
				return fmt.Sprintf("%q has characters that a file, a script or a variable may be named with", w.text), w.offset
			}
		}
		return "", 0
	}
	switch {
	case slices.Contains(harmlessDirectives, first.text):
		return plain(args, ",/()")
	case first.text == "log" && len(args) == 1 && args[0].text == "global":
		return "", 0
	case first.text == "option" && len(args) > 0 && slices.Contains(harmlessOptions, args[0].text):
		return plain(args[1:], "/?=&*,~+")
	case first.text == "http-check" && len(args) > 0 && harmlessChecks[args[0].text] != nil:
		takes := harmlessChecks[args[0].text]
		for i := 1; i < len(args); i++ {
			n, known := takes[args[i].text]
			if !known {
				return fmt.Sprintf("%s of http-check %s isn't known to name no file, script or variable", args[i].text, args[0].text), args[i].offset
			}
			values := args[i+1 : min(len(args), i+1+n)]
			if args[0].text == "connect" {
				if why, offset := plain(values, ""); why != "" {
					return why, offset
				}
			}
			i += n
		}
		return "", 0
	}
	return first.text + " isn't known to name no file, script, variable or resolver", first.offset
}
