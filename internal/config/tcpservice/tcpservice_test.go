package tcpservice

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/pgporter/pgporter/internal/config/model"
	"github.com/pgporter/pgporter/internal/render/haproxycfg"
)

// listen is a service with a server that is checked and the given lines.
func listen(lines ...string) model.TCPService {
	return model.TCPService{Name: "x", IP: "127.0.0.1", Port: 6000, Protocol: "tcp", MaxConn: 100, Balance: "roundrobin", Options: lines, Default: "inter 2s",
		Servers: []model.TCPServer{{Name: "a", Host: "127.0.0.2", Port: 80, Options: "check"}}}
}

// tell writes problems one to a line: part, index, offset, what; want.
func tell(problems []Problem) string {
	var all []string
	for _, p := range problems {
		where := [...]string{"protocol", "balance", "line", "default", "server"}[p.Part]
		minor := ""
		if p.Minor {
			minor = "(minor) "
		}
		all = append(all, fmt.Sprintf("%s %d:%d: %s%s; %s", where, p.Index, p.Offset, minor, p.What, p.Want))
	}
	return strings.Join(all, "\n")
}

// taken are lines that are taken, with the request that the checks make of them; empty for connecting.
var taken = []struct {
	lines []string
	want  string
}{
	{nil, ""},
	{[]string{"option tcp-check"}, ""},
	{[]string{"option httpchk"}, `{"Method":"OPTIONS","URI":"/","Version":"HTTP/1.0","Headers":null,"Body":"","Expect":null}`},
	{[]string{"option httpchk /x?a=b"}, `{"Method":"OPTIONS","URI":"/x?a=b","Version":"HTTP/1.0","Headers":null,"Body":"","Expect":null}`},
	{[]string{"option httpchk HEAD *"}, `{"Method":"HEAD","URI":"*","Version":"HTTP/1.0","Headers":null,"Body":"","Expect":null}`},
	{[]string{"option httpchk GET /x HTTP/1.1", "http-check send hdr Host a.b hdr X-Y 'a  b' hdr Pct 100%% body \"a b\" meth POST"},
		`{"Method":"POST","URI":"/x","Version":"HTTP/1.1","Headers":[{"Name":"Host","Value":"a.b"},{"Name":"X-Y","Value":"a  b"},{"Name":"Pct","Value":"100%"}],"Body":"a b","Expect":null}`},
	// Pigsty's own.
	{[]string{"option httpchk", "option http-keep-alive", "http-check send meth OPTIONS uri /minio/health/live", "http-check expect status 200"},
		`{"Method":"OPTIONS","URI":"/minio/health/live","Version":"HTTP/1.0","Headers":null,"Body":"","Expect":[{"Not":false,"Status":[{"From":200,"To":200}],"StatusPattern":"","Text":"","Pattern":"","Comment":""}]}`},
	{[]string{"option httpchk", "http-check connect port 81 addr 127.0.0.3 comment first", "http-check send uri /a comment second", `http-check expect ! string SQL\ Error comment "no SQL"`,
		"http-check expect !rstatus ^[45]", "http-check expect comment third status 200,300-399 # and nothing else", `http-check expect rstring ^"a b"\.$`},
		`{"Method":"OPTIONS","URI":"/a","Version":"HTTP/1.0","Headers":null,"Body":"","Expect":[` +
			`{"Not":true,"Status":null,"StatusPattern":"","Text":"SQL Error","Pattern":"","Comment":"no SQL"},` +
			`{"Not":true,"Status":null,"StatusPattern":"^[45]","Text":"","Pattern":"","Comment":""},` +
			`{"Not":false,"Status":[{"From":200,"To":200},{"From":300,"To":399}],"StatusPattern":"","Text":"","Pattern":"","Comment":"third"},` +
			`{"Not":false,"Status":null,"StatusPattern":"","Text":"","Pattern":"^a b\\.$","Comment":""}]}`},
	{[]string{"mode tcp", "description a service", "option redispatch", "retries 3", "option abortonclose", "option tcpka", "option clitcpka", "option srvtcpka", "# a comment", "   "}, ""},
	{[]string{"option redispatch -1", "retries 0", "timeout connect 5s", "timeout queue 10s", "timeout check 2s", "timeout client 1h", "timeout server 30m", "option allbackups"}, ""},
	{[]string{`option httpchk GET "/a\x2fb"`}, `{"Method":"GET","URI":"/a/b","Version":"HTTP/1.0","Headers":null,"Body":"","Expect":null}`},
}

func TestLinesThatAreTaken(t *testing.T) {
	for _, test := range taken {
		t.Run(strings.Join(test.lines, " / "), func(t *testing.T) {
			s, problems := Parse(listen(test.lines...))
			if len(problems) > 0 {
				t.Fatal(tell(problems))
			}
			got := ""
			if s.Checks[0].HTTP != nil {
				text, err := json.Marshal(s.Checks[0].HTTP)
				if err != nil {
					t.Fatal(err)
				}
				got = string(text)
			}
			if got != test.want {
				t.Errorf("got  %s\nwant %s", got, test.want)
			}
		})
	}
}

func TestWhatLinesSay(t *testing.T) {
	g := listen("retries 0", "timeout connect 5s", "timeout queue 10s", "timeout check 2s", "timeout client 1h", "timeout server 30m", "option allbackups")
	weight := 7
	g.Default = "inter 4s fastinter 1s fall 5 maxconn 10 weight 50 check"
	g.Servers = []model.TCPServer{
		{Name: "a", Host: "127.0.0.2", Port: 80},
		{Name: "b", Host: "127.0.0.3", Port: 80, Weight: &weight, Backup: true, Options: "fall 2 maxconn 3 port 81 addr 127.0.0.9 check-ssl ca-file /ca.crt check-sni x.y"},
		{Name: "c", Host: "127.0.0.4", Port: 80, Options: "no-check weight 0 disabled inter 1s"},
	}
	s, problems := Parse(g)
	if len(problems) > 0 {
		t.Fatal(tell(problems))
	}
	if !s.Once || s.Connect != 5*time.Second || s.Queue != 10*time.Second || s.Idle != 30*time.Minute || !s.AllBackups || s.FullName != "x" || s.Check != "connect" || s.Options.MaxConn != 10 {
		t.Errorf("got %+v", s)
	}
	for i, want := range []string{
		"a weight 50 backup false maxconn 10 fall 5 disabled false: 127.0.0.2:80 <nil> connect 4s, 6s in all",
		"b weight 7 backup true maxconn 3 fall 2 disabled false: 127.0.0.9:81 &{On:true CAFile:/ca.crt NoVerify:false CertFile: SNI:x.y VerifyHost:} connect 4s, 6s in all",
		"c weight 0 backup false maxconn 10 fall 5 disabled true: not checked",
	} {
		server, own := s.Servers[i], s.OptionsOf(i)
		got := fmt.Sprintf("%s weight %d backup %v maxconn %d fall %d disabled %v: ", server.Member, server.Weight, server.Backup, own.MaxConn, own.Fall, own.Disabled)
		if c := s.Checks[i]; c == nil {
			got += "not checked"
		} else {
			got += fmt.Sprintf("%s:%d %+v connect %s, %s in all", c.Host, c.Port, c.TLS, c.Connect, c.Timeout)
		}
		if got != want {
			t.Errorf("got  %s\nwant %s", got, want)
		}
	}
}

// TestHowChecksConnect: without `default` a connection takes nothing of the server's words but its addresses.
func TestHowChecksConnect(t *testing.T) {
	for _, test := range []struct{ line, words, want string }{
		{"", "check check-ssl verify none check-sni a.b", "127.0.0.2:80 TLS, SNI a.b"},
		{"http-check connect", "check check-ssl verify none check-sni a.b port 81", "127.0.0.2:81"},
		{"http-check connect default", "check check-ssl verify none check-sni a.b", "127.0.0.2:80 TLS, SNI a.b"},
		{"http-check connect default sni c.d", "check check-ssl verify none check-sni a.b", "127.0.0.2:80 TLS, SNI c.d"},
		{"http-check connect ssl sni c.d port 82", "check verify none port 81", "127.0.0.2:82 TLS, SNI c.d"},
		{"http-check connect addr ::1", "check addr 127.0.0.5", "::1:80"},
	} {
		g := listen("option httpchk")
		if test.line != "" {
			g.Options = append(g.Options, test.line, "http-check send uri /")
		}
		g.Servers[0].Options = test.words
		s, problems := Parse(g)
		if len(problems) > 0 {
			t.Errorf("%s: %s", test.line, tell(problems))
			continue
		}
		c := s.Checks[0]
		got := fmt.Sprintf("%s:%d", c.Host, c.Port)
		if c.TLS != nil {
			got += " TLS, SNI " + c.TLS.SNI
		}
		if got != test.want {
			t.Errorf("%s with %s: %s, want %s", test.line, test.words, got, test.want)
		}
	}
}

func TestLinesThatAreRefused(t *testing.T) {
	const native, engine = "isn't supported by the native engine", "; or HAProxy as the engine (--engine haproxy)"
	for _, test := range []struct{ lines, want string }{
		{"stats enable", "line 0:0: stats " + native + "; leave it out" + engine},
		{"server b 1.2.3.4:5", "line 0:0: server " + native + "; the key servers of the service" + engine},
		{"mode http", "line 0:5: mode http " + native + "; tcp" + engine},
		{"option", "line 0:0: nothing follows option; an option"},
		{"option pgsql-check user x", "line 0:7: option pgsql-check " + native + "; option tcp-check, or option httpchk" + engine},
		{"option tcplog", "line 0:0: (minor) option tcplog is about HAProxy's log: the native engine carries the service without it; leave it out"},
		{"option tcpka x", `line 0:13: option tcpka doesn't take "x"; nothing after it`},
		{"option redispatch x", `line 0:18: option redispatch is "x"; a whole number other than 0: the native engine always tries another server` + engine},
		{"retries", "line 0:0: nothing follows retries; a whole number from 0 to 2147483647"},
		{"retries 1 / retries 2", "line 1:0: retries is there twice; one of them"},
		{"timeout", "line 0:0: nothing follows timeout; which timeout, and how long"},
		{"timeout client", "line 0:8: nothing follows timeout client; a time, as in 5s"},
		{"timeout client-fin 1s", "line 0:8: timeout client-fin " + native + "; leave it out" + engine},
		{"timeout client 1y", `line 0:15: timeout client is "1y"; a whole number with a unit of us, ms, s, m, h or d, as in 500ms`},
		{"timeout client 0", `line 0:15: timeout client is "0"; at least 1ms` + engine},
		{"option httpchk G@T /", `line 0:15: method is "G@T"; a method, as in GET`},
		{"option httpchk GET x", `line 0:19: uri is "x"; a path, as in /health` + engine},
		{`option httpchk GET "/x y"`, `line 0:19: uri is "/x y"; a path, as in /health` + engine},
		{`option httpchk GET /x HTTP/1.1\r\nHost:\ y`, `line 0:22: version is "HTTP/1.1\r\nHost: y"; HTTP/1.0 or HTTP/1.1; headers with http-check send hdr` + engine},
		{"option httpchk GET /x HTTP/1.1 y", `line 0:31: option httpchk doesn't take "y"; at most a method, a URI and a version; further lines of the request with http-check send`},
		{"option httpchk / option httpchk", "line 1:7: option httpchk is there twice; one of them"},
		{"option tcp-check / option httpchk", "line 1:7: option httpchk is there beside option tcp-check; one of them"},
		{"http-check", "line 0:0: nothing follows http-check; connect, send or expect"},
		{"http-check send uri /", "line 0:0: http-check send without option httpchk has no effect; option httpchk before it"},
		{"option httpchk / http-check disable-on-404", "line 1:11: http-check disable-on-404 " + native + "; connect, send or expect" + engine},
		{"option httpchk / http-check connect", "line 1:0: http-check connect has nothing to send; http-check send after it"},
		{"option httpchk / http-check connect / http-check expect status 200",
			"line 2:11: http-check expect after http-check connect; http-check send in between\nline 1:0: http-check connect has nothing to send; http-check send after it"},
		{"option httpchk / http-check send uri /a / http-check connect",
			"line 2:11: a sequence of checks (http-check connect after http-check send) " + native + "; one, as the first http-check line" + engine},
		{"option httpchk / http-check send uri /a / http-check send uri /b", "line 2:11: http-check send after http-check send; one, before http-check expect"},
		{"option httpchk / http-check send colour red", `line 1:16: http-check send doesn't take "colour"; meth, uri, ver, hdr, body or comment`},
		{"option httpchk / http-check send uri-lf /a", "line 1:16: http-check send uri-lf " + native + "; leave it out" + engine},
		{"option httpchk / http-check send uri", "line 1:16: nothing follows uri; what it is to be"},
		{"option httpchk / http-check send body ''", "line 1:21: body is empty; what it is to be"},
		{"option httpchk / http-check send hdr X", "line 1:16: nothing follows hdr; what it is to be"},
		{"option httpchk / http-check send hdr X: 1", `line 1:20: hdr is "X:"; a header's name`},
		{"option httpchk / http-check send hdr X %[date]", "line 1:22: a log format in hdr X " + native + "; %% for the character" + engine},
		{`option httpchk / http-check send hdr X a\nb`, "line 1:22: hdr X has a control character; text"},
		{"option httpchk / http-check send hdr content-length 5", "line 1:20: hdr content-length would be ignored; leave it out: it follows from the body"},
		{"option httpchk / http-check connect port 0 / http-check send", `line 1:24: http-check connect: port is "0"; a whole number from 1 to 65535` + engine},
		{"option httpchk / http-check connect addr a.b / http-check send", `line 1:24: http-check connect: addr is "a.b"; an IP address` + engine},
		{"option httpchk / http-check connect send-proxy / http-check send", "line 1:19: http-check connect send-proxy " + native + "; leave it out" + engine},
		{"option httpchk / http-check connect ssl / http-check send", "server 0:0: its check speaks TLS, and nothing says whom to trust; ca-file with the authorities that sign its certificate, or verify none"},
		{"option httpchk / http-check expect", "line 1:11: nothing follows http-check expect; status, rstatus, string or rstring"},
		{"option httpchk / http-check expect !", `line 1:18: http-check expect doesn't take "!"; status, rstatus, string or rstring, with ! before it for the opposite`},
		{"option httpchk / http-check expect status", "line 1:18: nothing follows status; what it is to be"},
		{"option httpchk / http-check expect status 20", `line 1:25: status is "20"; statuses and ranges of them, as in 200,300-399`},
		{"option httpchk / http-check expect status 300-200", `line 1:25: status is "300-200"; statuses and ranges of them, as in 200,300-399`},
		{"option httpchk / http-check expect status 200 string OK", "line 1:29: http-check expect has a second condition; a line of its own"},
		{"option httpchk / http-check expect min-recv 5 string OK", "line 1:18: http-check expect min-recv " + native + "; status, rstatus, string or rstring" + engine},
		{"option httpchk / http-check expect rstring a++", `line 1:26: rstring is "a++": invalid nested repetition operator; a regular expression that RE2 has` + engine},
		{"option httpchk / http-check expect string 'a", "line 1:25: a quote isn't closed; another '"},
		{`option httpchk / http-check expect string "$HOME"`, `line 1:26: "$" in double quotes names an environment variable, which ` + native + `; \$ for the character` + engine},
		{`option httpchk / http-check expect string \xg0`, `line 1:25: a backslash with x needs two hexadecimal digits; \x41, or \\x`},
		{"description" + strings.Repeat(" x", 64), "line 0:138: the line has more than 64 words; fewer"},
	} {
		t.Run(test.lines, func(t *testing.T) {
			_, problems := Parse(listen(strings.Split(test.lines, " / ")...))
			if got := tell(problems); got != test.want {
				t.Errorf("got\n%s\nwant\n%s", got, test.want)
			}
		})
	}
}

func TestServicesThatAreRefused(t *testing.T) {
	g := listen()
	g.Protocol, g.Balance, g.Default = "http", "hdr(Host)", "inter 1s cookie a"
	weight := 5
	g.Servers = []model.TCPServer{{Name: "a", Host: "127.0.0.2", Port: 80, Weight: &weight, Backup: true, Options: "check ssl verify none"}}
	_, problems := Parse(g)
	const engine = "; or HAProxy as the engine (--engine haproxy)"
	want := []string{
		"service x: protocol http isn't supported by the native engine; tcp" + engine,
		"service x: balance hdr(Host) isn't supported by the native engine; roundrobin, leastconn, first, source or random" + engine,
		"service x: default: option cookie isn't supported by the native engine; leave it out: it is about HTTP" + engine,
		"service x: server a: option ssl isn't supported by the native engine; leave it out: the TLS of clients is passed on as it is; for checks there is check-ssl" + engine,
	}
	if got := Errors(g, problems); strings.Join(got, "\n") != strings.Join(want, "\n") {
		t.Errorf("got\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
	for _, p := range problems {
		if p.Part == InServer && p.Offset != len("check ") {
			t.Errorf("the server's word is at %d, want %d: the keys weight and backup are no part of its options", p.Offset, len("check "))
		}
	}
}

// TestPatternsAreHAProxys: a $ is also before a last line feed, as PCRE has it.
func TestPatternsAreHAProxys(t *testing.T) {
	for _, test := range []struct {
		pattern, text string
		want          bool
	}{
		{"^OK$", "OK", true}, {"^OK$", "OK\n", true}, {"^OK$", "OK\n\n", false}, {"^OK$", "OK\nNO", false}, {"(OK$|no)", "OK\n", true},
		{`OK\z`, "OK\n", false}, {"(?m)^OK$", "a\nOK\nb", true}, {"(?i)ok", "OK", true}, {"^K", "O\nK", false}, {"a.b", "a\nb", false},
	} {
		pattern, err := Compile(test.pattern)
		if err != nil {
			t.Errorf("%s: %v", test.pattern, err)
		} else if got := pattern.MatchString(test.text); got != test.want {
			t.Errorf("%q on %q: %v, want %v", test.pattern, test.text, got, test.want)
		}
	}
}

// TestHAProxyTakesWhatWeTake gives a HAProxy every combination of lines that the native engine takes: those above and those
// of the fuzz target's corpus.
func TestHAProxyTakesWhatWeTake(t *testing.T) {
	all := [][]string{}
	for _, test := range taken {
		all = append(all, test.lines)
	}
	files, err := filepath.Glob("testdata/fuzz/FuzzParse/*")
	if err != nil || len(files) < 4 {
		t.Fatalf("a corpus of %d, %v", len(files), err)
	}
	for _, seed := range files {
		lines, words := corpus(t, seed)
		all = append(all, append([]string{"\x00" + words}, lines...))
	}
	var config strings.Builder
	config.WriteString("defaults\n    timeout connect 3s\n    timeout client 1h\n    timeout server 1h\n    timeout check 3s\n")
	count := 0
	for _, lines := range all {
		g := listen(lines...)
		if len(lines) > 0 && strings.HasPrefix(lines[0], "\x00") {
			g = listen(lines[1:]...)
			g.Servers[0].Options = lines[0][1:]
		}
		_, problems := Parse(g)
		if len(Errors(g, problems)) > 0 {
			continue
		}
		g.Name, g.Port = fmt.Sprintf("x%d", count), 6000+count
		text, err := haproxycfg.TCPService("127.0.0.1", g)
		if err != nil {
			t.Errorf("%q can't be rendered: %v", lines, err)
			continue
		}
		config.WriteString(strings.ReplaceAll(text, "ca-file /ca.crt", "verify none"))
		count++
	}
	if count < 12 {
		t.Fatalf("only %d services", count)
	}
	file := filepath.Join(t.TempDir(), "all.cfg")
	if err := os.WriteFile(file, []byte(config.String()), 0o600); err != nil {
		t.Fatal(err)
	}
	out, err := exec.Command("haproxy", "-c", "-f", file).CombinedOutput()
	if err != nil {
		t.Fatalf("haproxy -c: %v\n%s\n%s", err, out, config.String())
	}
	for line := range strings.Lines(string(out)) {
		if strings.Contains(line, "[WARNING]") && !strings.Contains(line, "log format ignored") && !strings.Contains(line, "'option httplog' not usable") {
			t.Errorf("HAProxy warns: %s", line)
		}
	}
}
