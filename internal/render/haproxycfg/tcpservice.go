package haproxycfg

import (
	"fmt"
	"slices"
	"strings"

	"github.com/pgporter/pgporter/internal/config/model"
	"github.com/pgporter/pgporter/internal/render/stamp"
)

// sections are the words that end a section and begin another (manual, section 1.3 and the chapters of its list; those of
// versions up to 3.3 included, so that a text which is harmless for one isn't a section for another).
var sections = []string{
	"acme", "backend", "cache", "crt-store", "defaults", "dynamic-update", "fcgi-app", "frontend", "global", "http-errors", "listen",
	"log-forward", "log-profile", "mailers", "peers", "program", "resolvers", "ring", "traces", "userlist",
}

// TCPService renders a node's service that belongs to no PostgreSQL cluster. Its options are lines in HAProxy's own language:
// they may say what they like inside of the service's section, but not leave it.
func TCPService(node string, g model.TCPService) (string, error) {
	b := &builder{}
	b.WriteString(stamp.Stamp{Kind: stamp.HAProxy, File: FileName(g.Name)}.Line())
	b.WriteString(rule)
	fmt.Fprintf(b, "# service: %s @ %s:%d\n", g.Name, b.host("host", node), g.Port)
	b.WriteString(rule)
	fmt.Fprintf(b, "listen %s\n", b.name("service", g.Name))
	b.line("bind %s", b.bind(g.IP, g.Port))
	b.line("mode %s", b.name("protocol", g.Protocol))
	b.line("maxconn %d", g.MaxConn)
	b.allow(g.Allow)
	b.line("balance %s", b.words("balance", g.Balance))
	for _, option := range g.Options {
		for _, line := range strings.FieldsFunc(option, func(r rune) bool { return r == '\n' || r == '\r' }) {
			b.handWritten(line)
		}
	}
	b.line("default-server %s", b.words("default", g.Default))
	b.WriteString("\n    # server\n")
	for _, s := range g.Servers {
		text := fmt.Sprintf("server %s %s:%d", b.server(s.Name), b.host("ip", s.Host), b.port("port", s.Port))
		if s.Backup {
			text += " backup"
		}
		if s.Weight != nil {
			text += fmt.Sprintf(" weight %d", *s.Weight)
		}
		text += initAddr(s.Host, g.Default, s.Options)
		if s.Options != "" {
			text += " " + b.words("options of server "+s.Name, s.Options)
		}
		b.line("%s", text)
	}
	if b.err != nil {
		return "", fmt.Errorf("service %q: %w", g.Name, b.err)
	}
	return b.String(), nil
}

// handWritten writes a line that a user wrote in HAProxy's language.
func (b *builder) handWritten(text string) {
	text = b.words("option", text)
	if text == "" {
		return
	}
	first := keyword(text)
	if slices.Contains(sections, first) {
		b.fail("option %q begins a section of its own; directives of a listen section", text)
	}
	// .if, .else and the like reach over the end of the section (manual, section 2.4).
	if strings.HasPrefix(first, ".") {
		b.fail("option %q is no directive; directives of a listen section", text)
	}
	b.line("%s", text)
}

// keyword is the first word of a line as HAProxy reads it, quotes and backslashes undone (manual, section 2.2).
func keyword(line string) string {
	var word strings.Builder
	var quote byte
	for i := 0; i < len(line); i++ {
		c := line[i]
		switch {
		case quote == 0 && (c == ' ' || c == '#'):
			return word.String()
		case quote == 0 && (c == '"' || c == '\''):
			quote = c
		case quote == c:
			quote = 0
		case c == '\\' && quote != '\'' && i+1 < len(line):
			i++
			word.WriteByte(line[i])
		default:
			word.WriteByte(c)
		}
	}
	return word.String()
}
