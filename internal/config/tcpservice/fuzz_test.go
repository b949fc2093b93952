package tcpservice

import (
	"os"
	"strconv"
	"strings"
	"testing"
)

// corpus reads a file of the fuzz target's corpus.
func corpus(t *testing.T, file string) (lines []string, words string) {
	t.Helper()
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	var values []string
	for _, line := range strings.Split(string(text), "\n")[1:] {
		quoted, is := strings.CutPrefix(line, "string(")
		if !is {
			continue
		}
		value, err := strconv.Unquote(strings.TrimSuffix(quoted, ")"))
		if err != nil {
			t.Fatalf("%s: %q: %v", file, line, err)
		}
		values = append(values, value)
	}
	if len(values) != 2 {
		t.Fatalf("%s has %d texts", file, len(values))
	}
	return strings.Split(values[0], "\n"), values[1]
}

// FuzzParse looks for lines and words of a server that make the reader panic, whose problems are nowhere, or that become a
// check that can't be run.
func FuzzParse(f *testing.F) {
	for _, test := range taken {
		f.Add(strings.Join(test.lines, "\n"), "check")
	}
	f.Fuzz(func(t *testing.T, lines, words string) {
		g := listen(strings.Split(lines, "\n")...)
		g.Servers[0].Options = words
		s, problems := Parse(g)
		for _, p := range problems {
			length := map[Part]int{InLine: 0, InServer: len(words), InDefault: len(g.Default)}[p.Part]
			if p.Part == InLine {
				length = len(g.Options[p.Index])
			}
			if p.What == "" || p.Offset < 0 || p.Offset > length {
				t.Fatalf("%q, %q: the problem %+v is nowhere", lines, words, p)
			}
		}
		if len(Errors(g, problems)) > 0 {
			return
		}
		if len(s.Checks) != 1 || s.Servers[0].Weight < 0 || s.Servers[0].Weight > 256 {
			t.Fatalf("%q, %q give %+v", lines, words, s)
		}
		c := s.Checks[0]
		if c == nil {
			return
		}
		if c.Host == "" || c.Port < 1 || c.Port > 65535 || c.Connect <= 0 || c.Timeout <= c.Connect {
			t.Fatalf("%q, %q give the check %+v", lines, words, c)
		}
		if c.TLS != nil && !c.TLS.NoVerify && c.TLS.CAFile == "" {
			t.Fatalf("%q, %q: nobody is trusted", lines, words)
		}
		if c.HTTP == nil {
			return
		}
		parts := []string{c.HTTP.Method, c.HTTP.URI, c.HTTP.Version}
		for _, h := range c.HTTP.Headers {
			parts = append(parts, h.Name, h.Value)
		}
		for _, part := range parts {
			if strings.ContainsAny(part, "\r\n\x00") {
				t.Fatalf("%q: the request %+v breaks its lines", lines, c.HTTP)
			}
		}
		for _, e := range c.HTTP.Expect {
			if _, err := Compile(e.Pattern + e.StatusPattern); err != nil {
				t.Fatalf("%q: %v", lines, err)
			}
		}
	})
}
