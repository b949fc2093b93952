package haproxycfg

import (
	"strings"
	"testing"

	"github.com/pgporter/pgporter/internal/config/model"
	"github.com/pgporter/pgporter/internal/render/stamp"
)

// keywords are the first words of the lines that a rendered service consists of.
var keywords = map[string]int{
	"bind": 1, "mode": 1, "maxconn": 1, "balance": 1, "option": 2, "http-check": 2, "default-server": 1, "server": 1,
}

// confined checks that a text is one section with the lines that it should have and no others: whatever was put into names
// and values stayed there. It reads lines as HAProxy does, not as the renderer writes them.
func confined(t *testing.T, text string, want map[string]int) {
	t.Helper()
	sections := 0
	found := map[string]int{}
	for i, line := range strings.Split(text, "\n") {
		if strings.ContainsFunc(line, func(r rune) bool { return r < ' ' }) {
			t.Errorf("line %d: a control character: %q", i+1, line)
		}
		first := ""
		if words := strings.Fields(line); len(words) > 0 {
			first = words[0]
		}
		switch {
		case first == "" || strings.HasPrefix(first, "#"):
		case !strings.HasPrefix(line, " "):
			sections++
			if first != "listen" || len(strings.Fields(line)) != 2 {
				t.Errorf("line %d: %q", i+1, line)
			}
		default:
			found[first]++
		}
	}
	if sections != 1 {
		t.Errorf("%d sections in\n%s", sections, text)
	}
	for word, n := range found {
		if want[word] != n {
			t.Errorf("%d lines begin with %s, want %d, in\n%s", n, word, want[word], text)
		}
	}
}

func FuzzService(f *testing.F) {
	f.Add("pg-test-primary", "*", "/primary", "inter 2s", "pg-test-1", "10.10.10.11", "roundrobin")
	f.Add("pg\nlisten", "0.0.0.0", "/a b#c'd\"e\\", "inter 2s\nserver x", "a b", "::1", "uri depth 2")
	f.Add("pg-test-primary", "*", "/\r\nserver", "# x", "pg-test-1", "pg.example", "leastconn\n")
	f.Fuzz(func(t *testing.T, name, ip, check, options, server, host, balance string) {
		c := model.Cluster{Name: "pg-test", Members: []model.Member{{Name: server, Host: host, PatroniPort: 8008}}}
		s := model.Service{
			Definition: model.Definition{FullName: name, IP: ip, Port: 5433, Check: check, MaxConn: 10, Balance: model.Balance(balance), Options: model.Options{Text: options}},
			Servers:    []model.Server{{Member: server, Host: host, Port: 5432, Weight: 1}},
		}
		text, err := Service(host, c, s)
		if err != nil {
			return
		}
		confined(t, text, keywords)
		if _, ours := stamp.Of(FileName(name), text); !ours {
			t.Errorf("the stamp can't be read back from\n%s", text)
		}
	})
}

func FuzzTCPService(f *testing.F) {
	f.Add("minio", "tcp", "roundrobin", "option httpchk", "inter 2s", "minio-1", "10.0.0.1", "check")
	f.Add("minio", "http", "hdr(x)", "'listen' x\nbackend y", "inter 2s", "minio-1", "10.0.0.1", "check\r\nglobal")
	f.Add("6379", "tcp", "source", "\\l\\isten x", "", "a", "h", "# x")
	f.Fuzz(func(t *testing.T, name, protocol, balance, option, words, server, host, options string) {
		g := model.TCPService{Name: name, IP: "*", Port: 1, Protocol: protocol, Balance: balance, Options: []string{option}, Default: words,
			Servers: []model.TCPServer{{Name: server, Host: host, Port: 2, Options: options}}}
		text, err := TCPService("node", g)
		if err != nil {
			return
		}
		// A written line may be any directive, but each is one line.
		want := map[string]int{"bind": 1, "mode": 1, "maxconn": 1, "balance": 1, "default-server": 1, "server": 1}
		for _, line := range strings.FieldsFunc(option, func(r rune) bool { return r == '\n' || r == '\r' }) {
			if words := strings.Fields(line); len(words) > 0 {
				want[words[0]]++
			}
		}
		confined(t, text, want)
	})
}
