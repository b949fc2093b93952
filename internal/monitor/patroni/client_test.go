package patroni

import (
	"bufio"
	"context"
	"encoding/pem"
	"errors"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"
)

// scripted serves one scripted answer per connection: it reads a request, writes the text and then does what end says.
func scripted(t *testing.T, answer string, end func(net.Conn)) (base string) {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	served := make(chan struct{})
	go func() {
		defer close(served)
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			if _, err := http.ReadRequest(bufio.NewReader(conn)); err == nil {
				io.WriteString(conn, answer)
			}
			if end != nil {
				end(conn)
			}
			conn.Close()
		}
	}()
	t.Cleanup(func() {
		listener.Close()
		<-served
	})
	return "http://" + listener.Addr().String()
}

func TestGet(t *testing.T) {
	var connections atomic.Int32
	server := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch {
		case r.Method != http.MethodGet:
			w.WriteHeader(http.StatusMethodNotAllowed)
		case r.URL.Path == "/replica" && r.URL.RawQuery == "lag=10MB&tag_zone=a":
			w.Header().Set("Content-Type", "application/json")
			w.WriteHeader(http.StatusServiceUnavailable)
			io.WriteString(w, `{"role": "replica", "state": "running"}`)
		case r.URL.Path == "/liveness":
			w.WriteHeader(http.StatusOK)
		case r.URL.Path == "/elsewhere":
			http.Redirect(w, r, "/liveness", http.StatusFound)
		default:
			w.WriteHeader(http.StatusNotFound)
		}
	}))
	server.Config.ConnState = func(_ net.Conn, s http.ConnState) {
		if s == http.StateNew {
			connections.Add(1)
		}
	}
	server.Start()
	defer server.Close()
	// A proxy in the environment isn't for checks.
	t.Setenv("HTTP_PROXY", "http://127.0.0.1:1")
	t.Setenv("http_proxy", "http://127.0.0.1:1")
	c := NewClient(Options{})
	for i, test := range []struct{ path, want string }{
		{"/replica?lag=10MB&tag_zone=a", "503 replica running"},
		{"/liveness", "200"},
		{"liveness", "200"},
		{"/elsewhere", "302"},
		{"/nowhere", "404"},
	} {
		answer, err := c.Get(t.Context(), server.URL, test.path)
		if err != nil || answer.Words() != test.want {
			t.Errorf("GET %s: %q %v, want %q", test.path, answer.Words(), err, test.want)
		}
		if n := connections.Load(); n != int32(i+1) {
			t.Errorf("%d connections for %d requests", n, i+1)
		}
	}
}

// TestSilence: what isn't a whole answer is an error in short words with its cause.
func TestSilence(t *testing.T) {
	closed, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	refused := "http://" + closed.Addr().String()
	closed.Close()
	reset := func(c net.Conn) { c.(*net.TCPConn).SetLinger(0) }
	const head = "HTTP/1.0 200 OK\r\nContent-Type: application/json\r\n"
	for _, test := range []struct {
		name, base, want string
		cause            error
	}{
		{"refused", refused, "connection refused", syscall.ECONNREFUSED},
		{"reset", scripted(t, "", reset), "connection reset", syscall.ECONNRESET},
		{"closed", scripted(t, "", nil), "connection closed without an answer", io.ErrUnexpectedEOF},
		{"half a head", scripted(t, "HTTP/1.0 200 OK\r\nContent-", nil), "malformed MIME header", nil},
		{"half a body", scripted(t, head+"\r\n{\"role\": \"mas", nil), "the answer broke off: its JSON isn't whole", nil},
		{"half a measured body", scripted(t, head+"Content-Length: 100\r\n\r\n{}", nil), "the answer broke off: connection closed without an answer", io.ErrUnexpectedEOF},
		{"too long", scripted(t, "HTTP/1.0 200 OK\r\n\r\n"+strings.Repeat("x", maxBody+1), nil), "the answer is longer than 1048576 bytes", nil},
		{"not HTTP", scripted(t, "SSH-2.0-OpenSSH\r\n", nil), "malformed HTTP", nil},
		{"no address", "http://127.0.0.1:notaport", "invalid port", nil},
	} {
		t.Run(test.name, func(t *testing.T) {
			answer, err := NewClient(Options{}).Get(t.Context(), test.base, "/primary")
			if err == nil || !strings.Contains(err.Error(), test.want) {
				t.Fatalf("answer %+v, error %v; want %q", answer, err, test.want)
			}
			if test.cause != nil && !errors.Is(err, test.cause) {
				t.Errorf("error %v isn't %v", err, test.cause)
			}
		})
	}
}

// TestTimeout: a server that accepts and says nothing ends with the context.
func TestTimeout(t *testing.T) {
	over := make(chan struct{})
	base := scripted(t, "HTTP/1.0 200 OK\r\n\r\n{", func(net.Conn) { <-over })
	defer close(over)
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	_, err := NewClient(Options{}).Get(ctx, base, "/primary")
	if err == nil || !strings.Contains(err.Error(), "timed out") || !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("error %v", err)
	}
}

// TestWholeBodyWithoutLength: HTTP/1.0 as Patroni speaks it, the end of the connection being the end of the body.
func TestWholeBodyWithoutLength(t *testing.T) {
	base := scripted(t, "HTTP/1.0 200 OK\r\nServer: BaseHTTP/0.6 Python/3.11.2\r\nContent-Type: application/json\r\n\r\n{\"role\": \"master\", \"state\": \"running\"}", nil)
	answer, err := NewClient(Options{}).Get(t.Context(), base, "/primary")
	if err != nil || answer.Words() != "200 primary running" {
		t.Errorf("%q %v", answer.Words(), err)
	}
	status := scripted(t, "HTTP/1.0 503 Service Unavailable\r\n\r\n", nil)
	if answer, err := NewClient(Options{}).Get(t.Context(), status, "/liveness"); err != nil || answer.Words() != "503" {
		t.Errorf("%q %v", answer.Words(), err)
	}
}

func TestTLS(t *testing.T) {
	handler := http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		io.WriteString(w, `{"role": "primary", "state": "running"}`)
	})
	// Their certificate is for 127.0.0.1 and example.com.
	server, elsewhere := httptest.NewUnstartedServer(handler), httptest.NewUnstartedServer(handler)
	listener, err := net.Listen("tcp", "127.0.0.2:0")
	if err != nil {
		t.Fatal(err)
	}
	elsewhere.Listener.Close()
	elsewhere.Listener = listener
	for _, s := range []*httptest.Server{server, elsewhere} {
		s.Config.ErrorLog = log.New(io.Discard, "", 0)
		s.StartTLS()
		defer s.Close()
	}
	dir := t.TempDir()
	authority := filepath.Join(dir, "ca.crt")
	if err := os.WriteFile(authority, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: server.Certificate().Raw}), 0o600); err != nil {
		t.Fatal(err)
	}
	empty := filepath.Join(dir, "empty.crt")
	if err := os.WriteFile(empty, []byte("nothing\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	other := strings.Replace(server.URL, "127.0.0.1", "localhost", 1)
	for _, test := range []struct{ name, file, base, want string }{
		{"private authority", authority, server.URL, ""},
		{"its name isn't compared", authority, other, ""},
		{"system's authorities", "", server.URL, "unknown authority"},
		{"another name than the certificate's", "", other, "not localhost"},
		{"another address than the certificate's", "", elsewhere.URL, "not 127.0.0.2"},
		{"another address, private authority", authority, elsewhere.URL, ""},
		{"no such file", filepath.Join(dir, "none.crt"), server.URL, "CA file"},
		{"no certificate in it", empty, server.URL, "holds no certificate"},
		{"plain HTTP", authority, strings.Replace(server.URL, "https", "http", 1), "400"},
	} {
		t.Run(test.name, func(t *testing.T) {
			answer, err := NewClient(Options{CAFile: test.file}).Get(t.Context(), test.base, "/primary")
			got := answer.Words()
			if err != nil {
				got = err.Error()
			}
			if test.want == "" && got != "200 primary running" || !strings.Contains(got, test.want) {
				t.Errorf("got %q, want %q", got, test.want)
			}
		})
	}
}

func TestCluster(t *testing.T) {
	body, err := os.ReadFile("testdata/cluster.json")
	if err != nil {
		t.Fatal(err)
	}
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path != "/cluster" {
			w.WriteHeader(http.StatusNotFound)
		}
		w.Write(body)
	}))
	defer server.Close()
	c := NewClient(Options{})
	cluster, err := c.Cluster(t.Context(), server.URL)
	if err != nil || len(cluster.Members) != 3 || cluster.Members[1].Name != "pg-test-2" {
		t.Errorf("%+v %v", cluster, err)
	}
	for base, want := range map[string]string{
		server.URL + "/v2": "the answer is 404",
		scripted(t, "HTTP/1.0 200 OK\r\n\r\nmembers", nil): "isn't a JSON object",
	} {
		if _, err := c.Cluster(t.Context(), base); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("error %v, want %q", err, want)
		}
	}
}

func TestBaseURL(t *testing.T) {
	for _, test := range []struct {
		host string
		tls  bool
		want string
	}{
		{"10.10.10.11", false, "http://10.10.10.11:8008"},
		{"fd00::11", true, "https://[fd00::11]:8008"},
		{"db1.example", false, "http://db1.example:8008"},
	} {
		if got := BaseURL(test.host, 8008, test.tls); got != test.want {
			t.Errorf("BaseURL(%s) = %s, want %s", test.host, got, test.want)
		}
	}
}
