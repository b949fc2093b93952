// Package haproxycfg renders services as configuration for HAProxy: one file a service, as Pigsty lays them out, and the base
// file that they need.
//
// Rendering is pure: values in, text out. What a file means is what Pigsty's own templates mean by it, directive for
// directive; differences are listed in docs/compatibility.md. Every value is either known to be harmless, quoted, or refused
// with an error: no name, path or password can end a line or start a directive of its own. What users may write in
// HAProxy's language (options of TCP services) is kept inside its own section.
//
// Times, names of options and quoting are those of HAProxy's configuration manual, version 2.6. `balance` is always said:
// HAProxy 3.3 changed what holds without it.
package haproxycfg

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"github.com/pgporter/pgporter/internal/config/model"
)

// FileName is a service's file below conf.d.
func FileName(service string) string { return service + ".cfg" }

// BaseFile is the file that the services need.
const BaseFile = "haproxy.cfg"

// builder writes a section and keeps the first thing that can't be written.
type builder struct {
	strings.Builder
	err error
	// servers are the names of the section's servers.
	servers map[string]bool
}

func (b *builder) fail(format string, args ...any) {
	if b.err == nil {
		b.err = fmt.Errorf(format, args...)
	}
}

// line writes one directive, indented.
func (b *builder) line(format string, args ...any) {
	b.WriteString("    ")
	fmt.Fprintf(b, format, args...)
	b.WriteByte('\n')
}

// networksInLine is how many networks stand in a line: HAProxy takes 64 words and 2,048 bytes (MAX_LINE_ARGS, LINESIZE).
const networksInLine = 40

// allow has clients from elsewhere closed before anything is read of them.
func (b *builder) allow(networks model.Networks) {
	switch {
	case len(networks) == 0:
		return
	case len(networks) <= networksInLine:
		b.line("tcp-request connection reject unless { src%s }", spaced(networks))
		return
	}
	const acl = "pgporter-allow"
	for some := range slices.Chunk(networks, networksInLine) {
		b.line("acl %s src%s", acl, spaced(some))
	}
	b.line("tcp-request connection reject unless %s", acl)
}

// spaced has a space before each network.
func spaced(networks model.Networks) string {
	var all strings.Builder
	for _, network := range networks {
		all.WriteString(" " + network.String())
	}
	return all.String()
}

// name checks the name of a proxy or a server.
func (b *builder) name(what, text string) string {
	if !model.IsName(text) {
		b.fail("%s %q: letters, digits, dashes, dots and underscores", what, text)
	}
	return text
}

func (b *builder) host(what, text string) string {
	if !model.IsHost(text) {
		b.fail("%s %q: an address or a host name", what, text)
	}
	return text
}

// bind gives what to listen on. HAProxy takes the last colon for the port's.
func (b *builder) bind(ip string, port int) string {
	if ip != "*" {
		b.host("ip", ip)
	}
	return fmt.Sprintf("%s:%d", ip, b.port("port", port))
}

// server checks a server's name, which no other server of the service may have: HAProxy 3.3 refuses that, older ones find the
// wrong one when asked about it.
func (b *builder) server(name string) string {
	if b.servers[name] {
		b.fail("two servers are called %s", name)
	}
	if b.servers == nil {
		b.servers = map[string]bool{}
	}
	b.servers[name] = true
	return b.name("server", name)
}

// initAddr is what a server whose host is a name needs: without it HAProxy doesn't start while a single name can't be
// resolved. With it such a server is out of service, the others are not. What options already say of it holds.
func initAddr(host string, options ...string) string {
	if _, err := netip.ParseAddr(host); err == nil || host == "localhost" {
		return ""
	}
	for _, o := range options {
		if slices.Contains(strings.Fields(o), "init-addr") {
			return ""
		}
	}
	return " init-addr last,libc,none"
}

func (b *builder) port(what string, port int) int {
	if port < 1 || port > 65535 {
		b.fail("%s %d: from 1 to 65535", what, port)
	}
	return port
}

// words keeps a text that is HAProxy's own language, such as server options, on its line: blanks are made single, and what
// could end the line or hide the rest of it is refused.
func (b *builder) words(what, text string) string {
	text = strings.Join(strings.FieldsFunc(text, func(r rune) bool { return r == ' ' || r == '\t' || r == '\n' || r == '\r' }), " ")
	if strings.ContainsFunc(text, isControl) {
		b.fail("%s: a control character in %q", what, text)
	}
	return text
}

func isControl(r rune) bool { return r < ' ' || r == 0x7f }

// quote makes one word of a text (manual 2.6, section 2.2): nothing between single quotes is special but the quote.
func (b *builder) quote(what, text string) string {
	if strings.ContainsFunc(text, isControl) || text == "" {
		b.fail("%s: neither empty nor with control characters", what)
	}
	if !strings.ContainsFunc(text, isSpecial) {
		return text
	}
	return "'" + strings.ReplaceAll(text, "'", `'\''`) + "'"
}

func isSpecial(r rune) bool {
	return !(r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || strings.ContainsRune("-_./:@%+=,", r))
}

// rule is the line that sets a file's headings off.
const rule = "#---------------------------------------------------------------------\n"
