package control

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/pgporter/pgporter/internal/admin/api"
	"github.com/pgporter/pgporter/internal/config/intake"
	"github.com/pgporter/pgporter/internal/config/model"
)

// node is a control address under test.
type node struct {
	t       *testing.T
	address string
	files   Files
	server  *Server
	log     bytes.Buffer
	logging sync.Mutex
	stop    context.CancelFunc
	ended   chan error
}

func (n *node) Write(text []byte) (int, error) {
	n.logging.Lock()
	defer n.logging.Unlock()
	return n.log.Write(text)
}

func (n *node) logged() string {
	n.logging.Lock()
	defer n.logging.Unlock()
	return n.log.String()
}

func startNode(t *testing.T, take func(ctx context.Context, o intake.Order, from string, dryRun bool) (api.Taken, error)) *node {
	t.Helper()
	files, err := MakeCredentials(t.TempDir(), []string{"127.0.64.1", "node.example"}, time.Now(), time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	credentials, err := LoadCredentials(files)
	if err != nil {
		t.Fatal(err)
	}
	listener, err := net.Listen("tcp", "127.0.64.1:0")
	if err != nil {
		t.Fatal(err)
	}
	n := &node{t: t, address: listener.Addr().String(), files: files, ended: make(chan error, 1)}
	n.server = &Server{Credentials: credentials, Steering: Steering{Take: take, Node: func() api.Node { return api.Node{Node: "10.10.10.11", Engine: api.EngineNative, Generation: 7} }}, Logger: slog.New(slog.NewTextHandler(n, nil))}
	var ctx context.Context
	ctx, n.stop = context.WithCancel(t.Context())
	go func() { n.ended <- n.server.Serve(ctx, listener) }()
	t.Cleanup(func() {
		n.stop()
		if err := <-n.ended; err != nil {
			t.Errorf("the server ended with %v", err)
		}
	})
	return n
}

// client is one with these files of the node's.
func (n *node) client() *Client {
	n.t.Helper()
	token, err := ReadToken(n.files.Token)
	if err != nil {
		n.t.Fatal(err)
	}
	c, err := NewClient(token, n.files.Certificate)
	if err != nil {
		n.t.Fatal(err)
	}
	return c
}

func order() intake.Order {
	return intake.Order{Plan: model.Plan{Node: "10.10.10.11"}, Source: "pigsty.yml", Sender: "dba@infra"}
}

func nobodyTakes(context.Context, intake.Order, string, bool) (api.Taken, error) {
	return api.Taken{}, errors.New("nothing should have come this far")
}

func TestOrdersArrive(t *testing.T) {
	type call struct {
		order  intake.Order
		dryRun bool
	}
	var calls []call
	n := startNode(t, func(_ context.Context, o intake.Order, from string, dryRun bool) (api.Taken, error) {
		calls = append(calls, call{o, dryRun})
		if host, _, err := net.SplitHostPort(from); err != nil || host != "127.0.0.1" && !strings.HasPrefix(host, "127.0.64.") {
			t.Errorf("from %q", from)
		}
		return api.Taken{Node: o.Plan.Node, Generation: 7, DryRun: dryRun, Changes: api.Changes{Services: []api.ServiceChange{{Service: "s", Kind: api.Added}}}}, nil
	})
	if who, err := n.client().Ask(t.Context(), n.address); err != nil || who != (api.Node{Node: "10.10.10.11", Engine: "native", Generation: 7}) {
		t.Errorf("it says it is %+v, %v", who, err)
	}
	for _, dryRun := range []bool{false, true} {
		taken, err := n.client().Send(t.Context(), n.address, order(), dryRun)
		if err != nil {
			t.Fatal(err)
		}
		if taken.Generation != 7 || taken.DryRun != dryRun || len(taken.Changes.Services) != 1 {
			t.Errorf("got %+v", taken)
		}
	}
	if len(calls) != 2 || calls[0].dryRun || !calls[1].dryRun || calls[0].order.Sender != "dba@infra" || calls[1].order.Plan.Node != "10.10.10.11" {
		t.Errorf("got %+v", calls)
	}
}

func TestRefusalsArrive(t *testing.T) {
	n := startNode(t, func(context.Context, intake.Order, string, bool) (api.Taken, error) {
		return api.Taken{}, errors.New("service pg-test-more: port 5440 is taken\nanother problem")
	})
	_, err := n.client().Send(t.Context(), n.address, order(), false)
	if !errors.Is(err, ErrRefused) || errors.Is(err, ErrUnknown) || err.Error() != "refused: service pg-test-more: port 5440 is taken\nanother problem" {
		t.Errorf("got %v", err)
	}
}

// TestNothingWithoutTheToken asks for everything there is without credentials, or with wrong ones.
func TestNothingWithoutTheToken(t *testing.T) {
	n := startNode(t, nobodyTakes)
	token, err := ReadToken(n.files.Token)
	if err != nil {
		t.Fatal(err)
	}
	transport := n.client().http
	for _, header := range []string{"", "Bearer", "Bearer ", token, "Basic " + token, "Bearer " + token[:63], "Bearer " + token + "0", "Bearer " + strings.ToUpper(token), "Bearer  " + token} {
		for _, path := range []string{"/", "/node", "/plan", "/plan/dry-run", "/nothing"} {
			for _, method := range []string{"GET", "POST"} {
				req, err := http.NewRequestWithContext(t.Context(), method, "https://"+n.address+path, strings.NewReader("{}"))
				if err != nil {
					t.Fatal(err)
				}
				if header != "" {
					req.Header.Set("Authorization", header)
				}
				res, err := transport.Do(req)
				if err != nil {
					t.Fatal(err)
				}
				body, _ := io.ReadAll(res.Body)
				res.Body.Close()
				if res.StatusCode != http.StatusUnauthorized || string(body) != `{"error":"the token isn't this node's"}`+"\n" {
					t.Errorf("%s %s with %q: %s %s", method, path, header, res.Status, body)
				}
			}
		}
	}
	if log := n.logged(); !strings.Contains(log, "a request without credentials came to the control address") || strings.Contains(log, token) {
		t.Errorf("the log: %s", log)
	}
	other, err := NewClient(strings.Repeat("x", 64), n.files.Certificate)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := other.Send(t.Context(), n.address, order(), false); !errors.Is(err, ErrRefused) || !strings.Contains(err.Error(), "the token isn't this node's") {
		t.Errorf("another token: %v", err)
	}
}

func TestRoutesWithTheToken(t *testing.T) {
	n := startNode(t, nobodyTakes)
	client := n.client()
	for _, test := range []struct {
		method, path, body string
		code               int
		want               string
	}{
		{"GET", "/plan", "", 405, "GET /plan: it takes POST"},
		{"POST", "/", "", 404, `there is no `},
		{"POST", "/plan", "{", 400, "not an order that this version understands"},
		{"POST", "/plan/dry-run", `{"plan":{"node":"10.10.10.11"},"color":1}`, 400, `unknown field \"color\"`},
		{"POST", "/plan", `{"plan":{"node":"a b","clusters":[{"name":"x y","ttl":1}]}}`, 400, `node is \"a b\"`},
		{"POST", "/plan", strings.Repeat(" ", intake.MaxBytes+1), 413, "16777216 bytes at most"},
	} {
		req, err := http.NewRequestWithContext(t.Context(), test.method, "https://"+n.address+test.path, strings.NewReader(test.body))
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set("Authorization", "Bearer "+client.token)
		res, err := client.http.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		body, _ := io.ReadAll(res.Body)
		res.Body.Close()
		if res.StatusCode != test.code || !strings.Contains(string(body), test.want) {
			t.Errorf("%s %s: %s %s, want %d with %q", test.method, test.path, res.Status, body, test.code, test.want)
		}
	}
}

// TestClientTrustsNobodyElse has nodes that a token must not be shown to.
func TestClientTrustsNobodyElse(t *testing.T) {
	shown := make(chan string, 10)
	n := startNode(t, nobodyTakes)
	_, port, _ := net.SplitHostPort(n.address)
	spy := httptest.NewUnstartedServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { shown <- r.Header.Get("Authorization") }))
	spy.Config.ErrorLog = slog.NewLogLogger(slog.DiscardHandler, slog.LevelDebug)
	spy.StartTLS()
	defer spy.Close()
	open := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { shown <- r.Header.Get("Authorization") }))
	defer open.Close()
	nobody, err := net.Listen("tcp", "127.0.64.2:0")
	if err != nil {
		t.Fatal(err)
	}
	nobody.Close()
	system, err := NewClient(strings.Repeat("x", 64), "")
	if err != nil {
		t.Fatal(err)
	}
	for _, test := range []struct {
		name    string
		client  *Client
		address string
		want    string
	}{
		{"another certificate", n.client(), spy.Listener.Addr().String(), "isn't trusted: x509: certificate signed by unknown authority (--ca names whom to trust)"},
		{"the system's authorities", system, n.address, "isn't trusted"},
		{"another host", n.client(), "localhost:" + port, "localhost:" + port},
		{"no TLS", n.client(), open.Listener.Addr().String(), "speaks no TLS: it isn't a control address"},
		{"nobody", n.client(), nobody.Addr().String(), "nobody listens at " + nobody.Addr().String()},
	} {
		t.Run(test.name, func(t *testing.T) {
			_, err := test.client.Send(t.Context(), test.address, order(), false)
			if err == nil || !strings.Contains(err.Error(), test.want) || errors.Is(err, ErrUnknown) || errors.Is(err, ErrRefused) {
				t.Errorf("got %v, want %q in it", err, test.want)
			}
		})
	}
	select {
	case header := <-shown:
		t.Errorf("somebody else was shown %q", header)
	default:
	}
}

// showing starts a server that has a node's certificate.
func showing(t *testing.T, c *Credentials, host string, handler http.Handler) *httptest.Server {
	t.Helper()
	server := httptest.NewUnstartedServer(handler)
	server.Listener.Close()
	var err error
	if server.Listener, err = net.Listen("tcp", host+":0"); err != nil {
		t.Fatal(err)
	}
	// With a list of its own httptest adds no certificate.
	server.TLS = &tls.Config{Certificates: []tls.Certificate{c.current.Load().certificate}}
	server.Config.ErrorLog = slog.NewLogLogger(slog.DiscardHandler, slog.LevelDebug)
	server.StartTLS()
	t.Cleanup(server.Close)
	return server
}

// TestCertificateIsForTheHost reaches a node by an address that its certificate isn't for.
func TestCertificateIsForTheHost(t *testing.T) {
	files, err := MakeCredentials(t.TempDir(), []string{"10.10.10.11"}, time.Now(), time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	credentials, err := LoadCredentials(files)
	if err != nil {
		t.Fatal(err)
	}
	server := showing(t, credentials, "127.0.64.1", http.NotFoundHandler())
	client, err := NewClient(strings.Repeat("x", 64), files.Certificate)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := client.Send(t.Context(), server.Listener.Addr().String(), order(), false); err == nil || !strings.Contains(err.Error(), "valid for 10.10.10.11, not 127.0.64.1") {
		t.Errorf("got %v", err)
	}
}

// TestSilence has nodes that don't answer, before and after the order has reached them.
func TestSilence(t *testing.T) {
	// As a halted process: the kernel accepts, nobody reads.
	halted, err := net.Listen("tcp", "127.0.64.3:0")
	if err != nil {
		t.Fatal(err)
	}
	defer halted.Close()
	release := make(chan struct{})
	n := startNode(t, func(context.Context, intake.Order, string, bool) (api.Taken, error) {
		<-release
		return api.Taken{}, nil
	})
	defer close(release)
	ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
	defer cancel()
	if _, err := n.client().Send(ctx, halted.Addr().String(), order(), false); err == nil || errors.Is(err, ErrUnknown) || !strings.Contains(err.Error(), "no answer from "+halted.Addr().String()) {
		t.Errorf("a halted node: %v", err)
	}
	// The time has to be enough for the order to be sent whole.
	for wait := 500 * time.Millisecond; ; wait *= 2 {
		late, cancel := context.WithTimeout(t.Context(), wait)
		_, err := n.client().Send(late, n.address, order(), false)
		cancel()
		if !errors.Is(err, ErrUnknown) && wait < time.Minute {
			continue
		}
		if !errors.Is(err, ErrUnknown) || !strings.Contains(err.Error(), "no answer from") {
			t.Errorf("a node that took it and said nothing: %v", err)
		}
		break
	}
}

// TestOtherServersAnswers has TLS servers of a trusted certificate that are no pgporters.
func TestOtherServersAnswers(t *testing.T) {
	n := startNode(t, nobodyTakes)
	for _, test := range []struct {
		name    string
		handler http.HandlerFunc
		want    string
	}{
		{"a page", func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, "<html>") }, "isn't a pgporter's"},
		{"an error page", func(w http.ResponseWriter, _ *http.Request) { http.Error(w, "no", http.StatusBadGateway) }, "HTTP 502 Bad Gateway, as no control address of this version does"},
		{"a redirect", func(w http.ResponseWriter, r *http.Request) {
			http.Redirect(w, r, "https://"+n.address+"/plan", http.StatusTemporaryRedirect)
		}, "HTTP 307 Temporary Redirect"},
	} {
		t.Run(test.name, func(t *testing.T) {
			server := showing(t, n.server.Credentials, "127.0.64.1", test.handler)
			if _, err := n.client().Send(t.Context(), server.Listener.Addr().String(), order(), false); err == nil || !strings.Contains(err.Error(), test.want) {
				t.Errorf("got %v, want %q in it", err, test.want)
			}
		})
	}
}

func TestOldTLSIsRefused(t *testing.T) {
	n := startNode(t, nobodyTakes)
	client := n.client()
	config := client.http.Transport.(*http.Transport).TLSClientConfig
	config.MinVersion, config.MaxVersion = 0x0303, 0x0303
	if _, err := client.Send(t.Context(), n.address, order(), false); err == nil || !strings.Contains(err.Error(), "protocol version") {
		t.Errorf("TLS 1.2: %v", err)
	}
}

func TestRenewedCredentials(t *testing.T) {
	n := startNode(t, func(context.Context, intake.Order, string, bool) (api.Taken, error) { return api.Taken{}, nil })
	before := n.client()
	next, err := MakeCredentials(t.TempDir(), []string{"127.0.64.1"}, time.Now(), 2*time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	for from, to := range map[string]string{next.Token: n.files.Token, next.Certificate: n.files.Certificate} {
		if err := os.Rename(from, to); err != nil {
			t.Fatal(err)
		}
	}
	// The key is still the old one: nothing changes.
	if err := n.server.Credentials.Renew(); err == nil || !strings.Contains(err.Error(), n.files.Key) {
		t.Errorf("a key that doesn't fit: %v", err)
	}
	if _, err := before.Send(t.Context(), n.address, order(), false); err != nil {
		t.Errorf("the old credentials after a failed renewal: %v", err)
	}
	if err := os.Rename(next.Key, n.files.Key); err != nil {
		t.Fatal(err)
	}
	if err := n.server.Credentials.Renew(); err != nil {
		t.Fatal(err)
	}
	if _, err := before.Send(t.Context(), n.address, order(), false); err == nil {
		t.Error("the old credentials are still good")
	}
	if _, err := n.client().Send(t.Context(), n.address, order(), false); err != nil {
		t.Errorf("the new credentials: %v", err)
	}
}

func TestTokenFiles(t *testing.T) {
	dir := t.TempDir()
	good := strings.Repeat("0123456789abcdef", 2)
	for _, test := range []struct {
		name, text string
		mode       os.FileMode
		want       string
	}{
		{"good", good, 0o600, ""},
		{"trimmed", "\n " + good + "\r\n", 0o400, ""},
		{"readable by the group", good, 0o640, "others than its owner have access to it (mode 0640); chmod 600 it"},
		{"writable by all", good, 0o602, "(mode 0602)"},
		{"short", good[1:], 0o600, "one word of at least 32 visible characters"},
		{"two words", good + " " + good, 0o600, "one word"},
		{"control characters", good + "\x01", 0o600, "one word"},
		{"empty", "", 0o600, "one word"},
		{"huge", strings.Repeat("x", 2<<20), 0o600, "is too large"},
	} {
		t.Run(test.name, func(t *testing.T) {
			path := filepath.Join(dir, strings.ReplaceAll(test.name, " ", "-"))
			if err := os.WriteFile(path, []byte(test.text), 0o600); err != nil {
				t.Fatal(err)
			}
			if err := os.Chmod(path, test.mode); err != nil {
				t.Fatal(err)
			}
			token, err := ReadToken(path)
			switch {
			case test.want == "" && (err != nil || token != good):
				t.Errorf("got %q, %v", token, err)
			case test.want != "" && (err == nil || !strings.Contains(err.Error(), test.want) || !strings.Contains(err.Error(), path)):
				t.Errorf("got %v, want %q in it", err, test.want)
			case err != nil && test.text != "" && strings.Contains(err.Error(), good[1:]):
				t.Errorf("the error holds the token: %v", err)
			}
		})
	}
	if _, err := ReadToken(filepath.Join(dir, "nowhere")); err == nil || !strings.HasSuffix(err.Error(), "nowhere: no such file or directory") {
		t.Errorf("no file: %v", err)
	}
	if _, err := ReadToken(dir); err == nil || !strings.Contains(err.Error(), "isn't a file") {
		t.Errorf("a directory: %v", err)
	}
}

func TestCredentialsProblemsComeTogether(t *testing.T) {
	files, err := MakeCredentials(t.TempDir(), []string{"10.10.10.11"}, time.Now(), time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	for _, path := range []string{files.Token, files.Key} {
		if err := os.Chmod(path, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := LoadCredentials(files); err == nil || !strings.Contains(err.Error(), "token "+files.Token) || !strings.Contains(err.Error(), "key "+files.Key) {
		t.Errorf("got %v", err)
	}
}

func TestMakeCredentials(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "new")
	now := time.Now()
	files, err := MakeCredentials(dir, []string{"10.10.10.11", "fd00::1", "node.example"}, now, 48*time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	for path, mode := range map[string]os.FileMode{dir: 0o700, files.Token: 0o600, files.Key: 0o600, files.Certificate: 0o644} {
		if info, err := os.Stat(path); err != nil || info.Mode().Perm() != mode {
			t.Errorf("%s: %v, %v", path, info.Mode(), err)
		}
	}
	credentials, err := LoadCredentials(files)
	if err != nil {
		t.Fatal(err)
	}
	leaf := credentials.current.Load().certificate.Leaf
	for _, host := range []string{"10.10.10.11", "fd00::1", "node.example"} {
		if err := leaf.VerifyHostname(host); err != nil {
			t.Error(err)
		}
	}
	if leaf.IsCA || credentials.Expires().Sub(now.Add(48*time.Hour)).Abs() > time.Second {
		t.Errorf("authority %v, until %s", leaf.IsCA, credentials.Expires())
	}
	// What is there stays, and nothing half is left beside it.
	if err := os.Remove(files.Token); err != nil {
		t.Fatal(err)
	}
	key, err := os.ReadFile(files.Key)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := MakeCredentials(dir, []string{"10.10.10.11"}, now, time.Hour); err == nil || !strings.Contains(err.Error(), files.Certificate+": file exists") {
		t.Errorf("got %v", err)
	}
	if _, err := os.Stat(files.Token); err == nil {
		t.Error("a token without a certificate was left")
	}
	if again, err := os.ReadFile(files.Key); err != nil || !bytes.Equal(again, key) {
		t.Errorf("the key was replaced: %v", err)
	}
}

func TestClientRefusesBadAuthorities(t *testing.T) {
	path := filepath.Join(t.TempDir(), "ca")
	if _, err := NewClient("x", path); err == nil || !strings.Contains(err.Error(), "authority "+path) {
		t.Errorf("no file: %v", err)
	}
	if err := os.WriteFile(path, []byte("no PEM"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := NewClient("x", path); err == nil || !strings.Contains(err.Error(), "it has no certificate") {
		t.Errorf("no certificate: %v", err)
	}
}

// TestStopLetsAnAnswerEnd stops a server that is working on an order.
func TestStopLetsAnAnswerEnd(t *testing.T) {
	arrived, release := make(chan struct{}), make(chan struct{})
	n := startNode(t, func(context.Context, intake.Order, string, bool) (api.Taken, error) {
		close(arrived)
		<-release
		return api.Taken{Generation: 3}, nil
	})
	client, result := n.client(), make(chan error, 1)
	go func() {
		taken, err := client.Send(t.Context(), n.address, order(), false)
		if err == nil && taken.Generation != 3 {
			err = fmt.Errorf("got %+v", taken)
		}
		result <- err
	}()
	<-arrived
	n.stop()
	close(release)
	if err := <-result; err != nil {
		t.Error(err)
	}
}

func TestStrangersDontFloodTheLog(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var log bytes.Buffer
		logger := slog.New(slog.NewTextHandler(&log, nil))
		var s strangers
		for range 1000 {
			s.note(logger, "10.0.0.1:1", errors.New("no"), time.Now())
			time.Sleep(10 * time.Millisecond)
		}
		if lines := strings.Count(log.String(), "\n"); lines != 10 || !strings.Contains(log.String(), "others_before=99") {
			t.Errorf("%d lines:\n%s", lines, log.String())
		}
	})
}
