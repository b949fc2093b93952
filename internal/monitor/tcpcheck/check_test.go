package tcpcheck

import (
	"bufio"
	"context"
	"encoding/pem"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/pgporter/pgporter/internal/config/model"
	"github.com/pgporter/pgporter/internal/config/tcpservice"
)

// recording is a server that takes note of each request and answers all of them with the same bytes.
type recording struct {
	port    int
	mu      sync.Mutex
	request string
}

func answering(t *testing.T, ip, answer string) *recording {
	t.Helper()
	l, err := net.Listen("tcp", ip+":0")
	if err != nil {
		t.Fatal(err)
	}
	r := &recording{port: l.Addr().(*net.TCPAddr).Port}
	var serving sync.WaitGroup
	serving.Go(func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			serving.Go(func() {
				defer conn.Close()
				_ = conn.SetDeadline(time.Now().Add(time.Minute))
				in := bufio.NewReader(conn)
				request, err := http.ReadRequest(in)
				if err != nil {
					return
				}
				body, _ := io.ReadAll(request.Body)
				r.mu.Lock()
				r.request = fmt.Sprintf("%s %s %s %v %q", request.Method, request.RequestURI, request.Proto, headers(request), body)
				r.mu.Unlock()
				_, _ = io.WriteString(conn, answer)
			})
		}
	})
	t.Cleanup(func() {
		_ = l.Close()
		serving.Wait()
	})
	return r
}

// headers gives those that were sent, without the ones that the server makes up.
func headers(r *http.Request) map[string]string {
	all := map[string]string{}
	for name := range r.Header {
		all[name] = r.Header.Get(name)
	}
	if r.Host != "" {
		all["Host"] = r.Host
	}
	if r.ContentLength > 0 {
		all["Content-Length"] = strconv.FormatInt(r.ContentLength, 10)
	}
	return all
}

func (r *recording) asked() string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.request
}

// service is a service with one server that is checked.
func service(ip string, port int, words string, lines ...string) model.TCPService {
	return model.TCPService{Name: "x", IP: "127.0.0.1", Port: 6000, Protocol: "tcp", MaxConn: 100, Balance: "roundrobin", Options: lines, Default: "inter 2s",
		Servers: []model.TCPServer{{Name: "a", Host: ip, Port: port, Options: words}}}
}

func parse(t *testing.T, g model.TCPService) tcpservice.Service {
	t.Helper()
	s, problems := tcpservice.Parse(g)
	if wrong := tcpservice.Errors(g, problems); len(wrong) > 0 {
		t.Fatal(strings.Join(wrong, "\n"))
	}
	return s
}

// once runs a service's one check and gives what comes of it.
func once(t *testing.T, g model.TCPService) string {
	t.Helper()
	p, err := newProbe(*parse(t, g).Checks[0])
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), p.Timeout)
	defer cancel()
	outcome := p.run(ctx)
	if outcome.Silence != "" {
		return "fail " + outcome.Silence
	}
	return fmt.Sprint("pass ", outcome.Answer.Status)
}

// judged are answers, and how the lines judge them.
var judged = []struct {
	lines  []string
	answer string
	want   string
}{
	{nil, "HTTP/1.0 200 OK\r\n\r\n", "pass 200"},
	{nil, "HTTP/1.0 302 Found\r\nLocation: /elsewhere\r\n\r\n", "pass 302"},
	{nil, "HTTP/1.0 404 Not Found\r\n\r\n", "fail 404, not 2xx or 3xx"},
	{nil, "HTTP/1.1 503 No\r\nContent-Length: 0\r\n\r\n", "fail 503, not 2xx or 3xx"},
	{nil, "SSH-2.0-OpenSSH_9.2\r\n", `fail no HTTP answer: malformed HTTP response "SSH-2.0-OpenSSH_9.2"`},
	{nil, "", "fail no HTTP answer: the connection was closed"},
	{nil, "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", "fail 100, not 2xx or 3xx"},
	{[]string{"http-check expect status 200"}, "HTTP/1.0 204 No Content\r\n\r\n", "fail 204, not what is expected"},
	{[]string{"http-check expect status 200,300-399"}, "HTTP/1.0 301 Moved\r\n\r\n", "pass 301"},
	{[]string{"http-check expect ! status 300-399,500"}, "HTTP/1.0 500 No\r\n\r\n", "fail 500, not what is expected"},
	{[]string{"http-check expect !status 300-399,500"}, "HTTP/1.0 404 No\r\n\r\n", "pass 404"},
	{[]string{"http-check expect rstatus ^2.4$"}, "HTTP/1.0 204 No\r\n\r\n", "pass 204"},
	{[]string{"http-check expect ! rstatus ^[45]"}, "HTTP/1.0 404 No\r\n\r\n", `fail 404 with a status like "^[45]"`},
	{[]string{"http-check expect string OK"}, "HTTP/1.0 500 No\r\nContent-Length: 5\r\n\r\nan OK", "pass 500"},
	{[]string{"http-check expect string OK comment not\\ ready"}, "HTTP/1.0 200 OK\r\nContent-Length: 4\r\n\r\nwait", "fail 200: not ready"},
	{[]string{"http-check expect ! string wait"}, "HTTP/1.0 200 OK\r\nContent-Length: 4\r\n\r\nwait", `fail 200 with "wait" in its body`},
	{[]string{"http-check expect ! string wait"}, "HTTP/1.0 200 OK\r\nContent-Length: 4\r\n\r\nOKOK", "pass 200"},
	{[]string{"http-check expect rstring ^O.$"}, "HTTP/1.0 200 OK\r\nContent-Length: 3\r\n\r\nOK\n", "pass 200"},
	{[]string{"http-check expect rstring ^K"}, "HTTP/1.0 200 OK\r\nContent-Length: 4\r\n\r\nO\nK\n", `fail 200 without something like "^K" in its body`},
	{[]string{"http-check expect status 200", "http-check expect string NO"}, "HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\nOK", `fail 200 without "NO" in its body`},
	{[]string{"http-check expect string OK", "http-check expect status 200"}, "HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\nOK", "pass 200"},
	{[]string{"http-check expect status 200"}, "HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nab", "pass 200"},
	{[]string{"http-check expect string ab"}, "HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nab", "pass 200"},
	{[]string{"http-check expect string bc"}, "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nab\r\n2\r\ncd\r\n0\r\n\r\n", "pass 200"},
	{[]string{"http-check expect string zzz"}, "HTTP/1.1 200 OK\r\nContent-Length: 100003\r\n\r\n" + strings.Repeat("a", 100000) + "zzz", `fail 200 without "zzz" in its body`},
}

// A check whose time was over before this node had a socket for it has asked nobody; one of a server that says nothing has.
func TestWithoutASocketNobodyWasAsked(t *testing.T) {
	silent, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer silent.Close()
	p, err := newProbe(*parse(t, service("127.0.0.1", silent.Addr().(*net.TCPAddr).Port, "check", "option httpchk")).Checks[0])
	if err != nil {
		t.Fatal(err)
	}
	over, cancel := context.WithDeadline(t.Context(), time.Unix(0, 0))
	defer cancel()
	if o := p.run(over); !o.NotAsked || o.Silence == "" {
		t.Errorf("without time: %+v", o)
	}
	short, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if o := p.run(short); o.NotAsked || o.Silence == "" {
		t.Errorf("of a silent server: %+v", o)
	}
}

func TestAnswersAreJudged(t *testing.T) {
	for _, test := range judged {
		t.Run(fmt.Sprintf("%v %.40q", test.lines, test.answer), func(t *testing.T) {
			server := answering(t, "127.0.0.1", test.answer)
			if got := once(t, service("127.0.0.1", server.port, "check", append([]string{"option httpchk"}, test.lines...)...)); got != test.want {
				t.Errorf("got  %s\nwant %s", got, test.want)
			}
		})
	}
}

// TestHAProxyJudgesTheSame has a HAProxy check the same answers by the same lines.
func TestHAProxyJudgesTheSame(t *testing.T) {
	dir, err := os.MkdirTemp("", "up-") // t.TempDir is too long for sockets
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	socket := filepath.Join(dir, "s")
	config := "global\n stats socket " + socket + "\ndefaults\n mode tcp\n timeout connect 3s\n timeout client 1h\n timeout server 1h\n timeout check 3s\n"
	for i, test := range judged {
		server := answering(t, "127.0.0.1", test.answer)
		config += fmt.Sprintf("backend b%d\n option httpchk\n %s\n server a 127.0.0.1:%d check inter 200ms rise 1 fall 1\n", i, strings.Join(test.lines, "\n "), server.port)
	}
	file := filepath.Join(dir, "c.cfg")
	if err := os.WriteFile(file, []byte(config), 0o600); err != nil {
		t.Fatal(err)
	}
	program := exec.CommandContext(t.Context(), "haproxy", "-db", "-f", file)
	var out strings.Builder
	program.Stdout, program.Stderr = &out, &out
	if err := program.Start(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan struct{})
	go func() {
		_ = program.Wait()
		close(ended)
	}()
	t.Cleanup(func() {
		_ = program.Process.Kill()
		<-ended
	})
	again := time.NewTicker(20 * time.Millisecond)
	defer again.Stop()
	limit := time.After(time.Minute)
	var states map[string]string
	for len(states) < len(judged) {
		select {
		case <-ended:
			t.Fatalf("HAProxy has ended:\n%s", out.String())
		case <-limit:
			t.Fatalf("HAProxy has checked %d of %d", len(states), len(judged))
		case <-again.C:
			states = checkedByHAProxy(socket)
		}
	}
	for i, test := range judged {
		theirs := states[fmt.Sprintf("b%d", i)]
		if ours, _, _ := strings.Cut(test.want, " "); ours != theirs {
			t.Errorf("%v on %.60q: ours %s, HAProxy %s", test.lines, test.answer, test.want, theirs)
		}
	}
}

// checkedByHAProxy gives pass or fail of the servers whose first check has ended, by the backend's name.
func checkedByHAProxy(socket string) map[string]string {
	conn, err := net.Dial("unix", socket)
	if err != nil {
		return nil
	}
	defer conn.Close()
	if _, err := io.WriteString(conn, "show stat\n"); err != nil {
		return nil
	}
	states := map[string]string{}
	column := map[string]int{}
	lines := bufio.NewScanner(conn)
	for lines.Scan() {
		fields := strings.Split(strings.TrimPrefix(lines.Text(), "# "), ",")
		if len(column) == 0 {
			for i, name := range fields {
				column[name] = i
			}
			continue
		}
		if len(fields) < len(column)-1 || fields[column["svname"]] != "a" {
			continue
		}
		switch status := fields[column["check_status"]]; {
		case status == "" || status == "INI" || strings.HasPrefix(status, "*"):
		case status == "L7OK":
			states[fields[0]] = "pass"
		default:
			states[fields[0]] = "fail"
		}
	}
	return states
}

func TestRequests(t *testing.T) {
	for _, test := range []struct {
		lines []string
		want  string
	}{
		{[]string{"option httpchk"}, `OPTIONS / HTTP/1.0 map[] ""`},
		{[]string{"option httpchk GET /x?a=b HTTP/1.1", "http-check send hdr Host a.b hdr X '1 2'"}, `GET /x?a=b HTTP/1.1 map[Connection:close Host:a.b X:1 2] ""`},
		{[]string{"option httpchk", "http-check send meth POST uri /p body 'a b' hdr Connection x"}, `POST /p HTTP/1.0 map[Connection:x Content-Length:3] "a b"`},
	} {
		server := answering(t, "127.0.0.1", "HTTP/1.0 200 OK\r\n\r\n")
		if got := once(t, service("127.0.0.1", server.port, "check", test.lines...)); got != "pass 200" || server.asked() != test.want {
			t.Errorf("%v: %s\ngot  %s\nwant %s", test.lines, got, server.asked(), test.want)
		}
	}
}

func TestConnecting(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	port := l.Addr().(*net.TCPAddr).Port
	if got := once(t, service("127.0.0.1", port, "check")); got != "pass 0" {
		t.Errorf("an open port: %s", got)
	}
	if got := once(t, service("127.0.0.1", 1, "check port "+strconv.Itoa(port), "option tcp-check")); got != "pass 0" {
		t.Errorf("an open port for checks: %s", got)
	}
	// Nobody accepts there; nobody answers either.
	if got := once(t, service("127.0.0.1", port, "check inter 100ms", "option httpchk", "timeout check 1s", "http-check expect status 200")); !strings.HasPrefix(got, "fail ") {
		t.Errorf("one that says nothing: %s", got)
	}
	_ = l.Close()
	if got := once(t, service("127.0.0.1", port, "check")); got != "fail cannot connect: connection refused" {
		t.Errorf("a closed port: %s", got)
	}
	if got := once(t, service("127.0.0.1", port, "check", "option httpchk")); got != "fail cannot connect: connection refused" {
		t.Errorf("a closed port of an HTTP server: %s", got)
	}
}

func TestChecksOverTLS(t *testing.T) {
	server := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { fmt.Fprint(w, r.TLS.ServerName) }))
	server.Config.ErrorLog = log.New(io.Discard, "", 0)
	server.StartTLS()
	defer server.Close()
	port := server.Listener.Addr().(*net.TCPAddr).Port
	ca := filepath.Join(t.TempDir(), "ca.crt")
	if err := os.WriteFile(ca, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: server.Certificate().Raw}), 0o600); err != nil {
		t.Fatal(err)
	}
	lines := []string{"option httpchk GET / HTTP/1.1", "http-check send hdr Host x", "http-check expect status 200", "timeout check 1m"}
	for _, test := range []struct{ words, line, want string }{
		{"check check-ssl ca-file " + ca, "", "pass 200"},
		{"check check-ssl verify none", "", "pass 200"},
		{"check check-ssl verifyhost example.com ca-file " + ca, "", "pass 200"},
		{"check check-ssl verifyhost example.org ca-file " + ca, "", "fail TLS: x509: certificate is valid for example.com, *.example.com, not example.org"},
		{"check check-ssl check-sni www.example.com ca-file " + ca, "http-check expect string www.example.com", "pass 200"},
		{"check check-ssl ca-file @system-ca", "", "fail TLS: x509: certificate signed by unknown authority"},
		{"check", "", "fail 400, not what is expected"},
	} {
		all := lines
		if test.line != "" {
			all = append(all[:len(all):len(all)], test.line)
		}
		if got := once(t, service("127.0.0.1", port, test.words, all...)); got != test.want {
			t.Errorf("%s: %s\nwant %s", test.words, got, test.want)
		}
	}
	if got := once(t, service("127.0.0.1", port, "check ca-file "+ca, "option httpchk", "http-check connect ssl sni a.example.com", "http-check send ver HTTP/1.1 hdr Host x",
		"http-check expect string a.example.com")); got != "pass 200" {
		t.Errorf("http-check connect ssl: %s", got)
	}
	_, err := Prepare([]tcpservice.Service{parse(t, service("127.0.0.1", port, "check check-ssl ca-file "+ca+".gone"))})
	if err == nil || !strings.Contains(err.Error(), "service x: server a: ") || !strings.Contains(err.Error(), ca+".gone: no such file") {
		t.Errorf("a file that isn't there: %v", err)
	}
}
