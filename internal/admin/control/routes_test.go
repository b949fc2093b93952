package control

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/json"
	"encoding/pem"
	"errors"
	"io"
	"log/slog"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/pgporter/pgporter/internal/admin/api"
)

// steered has functions that answer with what they were asked.
func steered() Steering {
	return Steering{
		Node:   func() api.Node { return api.Node{Node: "10.10.10.11"} },
		Status: func() api.Status { return api.Status{Node: "10.10.10.11"} },
		Events: func(after uint64) []api.Event { return []api.Event{{ID: after + 1, Text: "something"}} },
		Sessions: func(f api.SessionFilter) (api.Sessions, error) {
			return api.Sessions{Node: "10.10.10.11", Sessions: []api.Session{{ID: f.ID, Client: f.Client, Service: f.Service}}, More: f.Limit}, nil
		},
		Order: func(_ context.Context, o api.Order) ([]api.OrderResult, error) {
			if o.Member == "pg-test-9" {
				return nil, errors.New("no member pg-test-9")
			}
			return []api.OrderResult{{Service: o.Service, Member: o.Member, Now: api.Ordered{State: o.State, Weight: o.Weight, By: o.By}}}, nil
		},
		EndSessions: func(_ context.Context, e api.EndSessions, by string) (api.SessionsEnded, error) {
			if by == "" {
				return api.SessionsEnded{}, errors.New("nobody")
			}
			return api.SessionsEnded{Ended: 3}, nil
		},
		Goroutines: func() (string, error) { return "2 @ 0x1\n#\tmain", nil },
		Reread: func(_ context.Context, by string) (api.Reread, error) {
			if by == "" {
				return api.Reread{}, errors.New("nobody")
			}
			return api.Reread{Generation: 8}, nil
		},
	}
}

func TestClientSteers(t *testing.T) {
	n := startNode(t, nobodyTakes)
	at, client := n.serveWith(steered(), n.server.Credentials), n.client()
	ctx := t.Context()
	if status, err := client.Status(ctx, at); err != nil || status.Node != "10.10.10.11" {
		t.Errorf("status: %+v, %v", status, err)
	}
	if events, err := client.Events(ctx, at, 41); err != nil || len(events) != 1 || events[0].ID != 42 {
		t.Errorf("events: %+v, %v", events, err)
	}
	want := api.SessionFilter{Service: "a b&c", Client: "10.0.0.0/8", ID: 7, Limit: 5, Idle: 1.5}
	if s, err := client.Sessions(ctx, at, want); err != nil || len(s.Sessions) != 1 || s.Sessions[0] != (api.Session{ID: 7, Client: "10.0.0.0/8", Service: "a b&c"}) || s.More != 5 {
		t.Errorf("sessions: %+v, %v", s, err)
	}
	weight := 50
	results, err := client.Order(ctx, at, api.Order{Member: "pg-test-2", State: api.Drain, Weight: &weight, By: "somebody else"})
	if err != nil || len(results) != 1 || results[0].Member != "pg-test-2" || results[0].Now.State != api.Drain || *results[0].Now.Weight != 50 || results[0].Now.By != "token at 127.0.0.1" {
		t.Errorf("order: %+v, %v", results, err)
	}
	if _, err := client.Order(ctx, at, api.Order{Member: "pg-test-9"}); !errors.Is(err, ErrRefused) || err.Error() != "refused: no member pg-test-9" {
		t.Errorf("an order that is refused: %v", err)
	}
	if ended, err := client.EndSessions(ctx, at, api.EndSessions{Filter: api.SessionFilter{Member: "pg-test-2"}}); err != nil || ended.Ended != 3 {
		t.Errorf("ended: %+v, %v", ended, err)
	}
	if _, err := client.EndSessions(ctx, at, api.EndSessions{Filter: api.SessionFilter{Limit: 3}}); !errors.Is(err, ErrRefused) || !strings.Contains(err.Error(), "every session") {
		t.Errorf("all sessions: %v", err)
	}
	if ended, err := client.EndSessions(ctx, at, api.EndSessions{All: true}); err != nil || ended.Ended != 3 {
		t.Errorf("all sessions, expressly: %+v, %v", ended, err)
	}
	if text, err := client.Goroutines(ctx, at); err != nil || !strings.HasPrefix(text, "2 @ 0x1\n#") {
		t.Errorf("goroutines: %q, %v", text, err)
	}
	if reread, err := client.Reread(ctx, at); err != nil || reread.Generation != 8 {
		t.Errorf("reread: %+v, %v", reread, err)
	}
}

// serveWith serves other routes than the node's at another address.
func (n *node) serveWith(s Steering, credentials *Credentials) string {
	n.t.Helper()
	listener, err := net.Listen("tcp", "127.0.64.1:0")
	if err != nil {
		n.t.Fatal(err)
	}
	ctx, stop := context.WithCancel(n.t.Context())
	ended := make(chan error, 1)
	server := &Server{Credentials: credentials, Steering: s, Logger: slog.New(slog.DiscardHandler)}
	go func() { ended <- server.Serve(ctx, listener) }()
	n.t.Cleanup(func() {
		stop()
		if err := <-ended; err != nil {
			n.t.Error(err)
		}
	})
	return listener.Addr().String()
}

// TestRoutesRefuse asks for what there isn't, and says what can't be meant.
func TestRoutesRefuse(t *testing.T) {
	n := startNode(t, nobodyTakes)
	at, client := n.serveWith(steered(), n.server.Credentials), n.client()
	for _, test := range []struct {
		method, path, body string
		code               int
		want               string
	}{
		{"GET", "/statsu", "", 404, `there is no "/statsu"; did you mean /status`},
		{"GET", "/", "", 404, `there is no "/"; there are: /node, /status, /events, /sessions, /debug/goroutines, /servers, /sessions/end, /hold, /reload, /plan, /plan/dry-run`},
		{"GET", "/status/", "", 404, `there is no "/status/"; did you mean /status`},
		{"GET", "//status", "", 404, `there is no "//status"; did you mean /status`},
		{"DELETE", "/sessions", "", 405, "DELETE /sessions: it takes GET"},
		{"HEAD", "/status", "", 405, ""},
		{"GET", "/servers", "", 405, "GET /servers: it takes POST"},
		{"GET", "/status?pretty=1", "", 400, `/status takes no parameters, and there is "pretty"`},
		{"GET", "/sessions?memebr=x", "", 400, `/sessions has no parameter "memebr"; did you mean member`},
		{"GET", "/sessions?color=x", "", 400, `/sessions has no parameter "color"; there are: client, cluster, id, idle_seconds, limit, member, service`},
		{"GET", "/sessions?member=a&member=b", "", 400, "the parameter member is there twice"},
		{"GET", "/sessions?%zz", "", 400, "the query can't be read"},
		{"GET", "/sessions?client=10.0.0", "", 400, `client "10.0.0": an address or a network (CIDR)`},
		{"GET", "/sessions?limit=10001", "", 400, "limit 10001: up to 10000"},
		{"GET", "/sessions?id=0", "", 400, `id="0": the id of a session`},
		{"GET", "/sessions?idle_seconds=NaN", "", 400, `idle_seconds="NaN": a number of seconds`},
		{"GET", "/events?after=-1", "", 400, `after="-1": the id of an event`},
		{"POST", "/servers", "", 400, "the order is empty"},
		{"POST", "/servers", "{", 400, "the order isn't JSON"},
		{"POST", "/servers", "{}{}", 400, "something follows the order at byte 3"},
		{"POST", "/servers", `{"memebr":"pg-test-2"}`, 400, `there is no field "memebr"; did you mean member`},
		{"POST", "/servers", `{"member":"pg-test-2","weight":"50"}`, 400, "weight is a string"},
		{"POST", "/servers", `{"member":"pg-test-2","color":"red"}`, 400, `there is no field "color"; there are: cluster, service, member, state, weight, declared_weight, dry_run, by`},
		{"POST", "/servers", `{"member":"pg-test-9"}`, 422, "no member pg-test-9"},
		{"POST", "/servers", strings.Repeat(" ", maxOrder+1), 413, "16384 bytes at most"},
		{"POST", "/sessions/end", `{}`, 422, "every session of the node"},
		{"POST", "/sessions/end", `{"filter":{"clinet":"10.0.0.1"}}`, 400, `there is no field "clinet"; did you mean client`},
		{"POST", "/sessions/end", `{"filter":{"client":"ten"}}`, 400, `client "ten": an address or a network`},
		{"POST", "/plan", "{}", 501, "this pgporter can't do that"},
	} {
		req, err := http.NewRequestWithContext(t.Context(), test.method, "https://"+at+test.path, strings.NewReader(test.body))
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set("Authorization", bearer+client.token)
		res, err := client.http.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		body, _ := io.ReadAll(res.Body)
		res.Body.Close()
		var refusal api.Refusal
		if test.method != "HEAD" {
			if err := json.Unmarshal(body, &refusal); err != nil {
				t.Errorf("%s %s: %s isn't a refusal: %v", test.method, test.path, body, err)
			}
		}
		if res.StatusCode != test.code || !strings.HasPrefix(refusal.Error, test.want) && !strings.Contains(refusal.Error, test.want) {
			t.Errorf("%s %s %.60s: %s %q, want %d with %q", test.method, test.path, test.body, res.Status, refusal.Error, test.code, test.want)
		}
	}
}

// A daemon that has nothing of a kind says so with an empty list, and not with null.
func TestListsAreThere(t *testing.T) {
	s := steered()
	s.Events = func(uint64) []api.Event { return nil }
	s.Order = func(context.Context, api.Order) ([]api.OrderResult, error) { return nil, nil }
	s.Sessions = func(api.SessionFilter) (api.Sessions, error) { return api.Sessions{}, nil }
	n := startNode(t, nobodyTakes)
	at, client := n.serveWith(s, n.server.Credentials), n.client()
	for _, test := range []struct{ method, path, body, want string }{
		{"GET", "/events", "", `{"events":[]}`},
		{"GET", "/sessions", "", `"sessions":[]}`},
		{"POST", "/servers", `{"member":"a"}`, `[]`},
	} {
		var raw json.RawMessage
		if _, err := client.do(t.Context(), test.method, at, test.path, []byte(test.body), &raw); err != nil || !strings.HasSuffix(string(bytes.TrimSpace(raw)), test.want) {
			t.Errorf("%s: %s, %v", test.path, raw, err)
		}
	}
}

// authority makes certificates of clients.
type authority struct {
	t    *testing.T
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
	path string
}

func newAuthority(t *testing.T, name string) *authority {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: name}, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	a := &authority{t: t, key: key, path: filepath.Join(t.TempDir(), name+".crt")}
	if a.cert, err = x509.ParseCertificate(der); err != nil {
		t.Fatal(err)
	}
	a.write(a.path, "CERTIFICATE", der)
	return a
}

func (a *authority) write(path, kind string, der []byte) {
	if err := os.WriteFile(path, pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}), 0o600); err != nil {
		a.t.Fatal(err)
	}
}

// client gives the files of a certificate for a client.
func (a *authority) client(name string, until time.Time, usage x509.ExtKeyUsage) Credential {
	a.t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		a.t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(time.Now().UnixNano()), Subject: pkix.Name{CommonName: name}, NotBefore: time.Now().Add(-2 * time.Hour), NotAfter: until,
		ExtKeyUsage: []x509.ExtKeyUsage{usage}}
	der, err := x509.CreateCertificate(rand.Reader, template, a.cert, key.Public(), a.key)
	if err != nil {
		a.t.Fatal(err)
	}
	text, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		a.t.Fatal(err)
	}
	dir := a.t.TempDir()
	c := Credential{Certificate: filepath.Join(dir, "client.crt"), Key: filepath.Join(dir, "client.key")}
	a.write(c.Certificate, "CERTIFICATE", der)
	a.write(c.Key, "PRIVATE KEY", text)
	return c
}

func TestClientCertificates(t *testing.T) {
	trusted, foreign := newAuthority(t, "trusted"), newAuthority(t, "foreign")
	n := startNode(t, nobodyTakes)
	n.files.ClientCA = trusted.path
	credentials, err := LoadCredentials(n.files)
	if err != nil {
		t.Fatal(err)
	}
	at := n.serveWith(steered(), credentials)
	later := time.Now().Add(time.Hour)
	good := trusted.client("dba\x1b[31m", later, x509.ExtKeyUsageClientAuth)
	for _, test := range []struct {
		name string
		with Credential
		want string
	}{
		{"of the authority", good, ""},
		{"of another authority", foreign.client("dba", later, x509.ExtKeyUsageClientAuth), "the client's certificate isn't trusted here: x509: certificate signed by unknown authority"},
		{"expired", trusted.client("dba", time.Now().Add(-time.Hour), x509.ExtKeyUsageClientAuth), "the client's certificate isn't trusted here: x509: certificate has expired"},
		{"a server's", trusted.client("dba", later, x509.ExtKeyUsageServerAuth), "the client's certificate isn't trusted here: x509: certificate specifies an incompatible key usage"},
		{"neither", Credential{}, "the token isn't this node's"},
		{"a wrong token", Credential{Token: strings.Repeat("x", 64)}, "the token isn't this node's"},
		{"a wrong token and a right certificate", Credential{Token: strings.Repeat("x", 64), Certificate: good.Certificate, Key: good.Key}, ""},
	} {
		client, err := NewClientWith(test.with, n.files.Certificate)
		if err != nil {
			t.Fatal(err)
		}
		results, err := client.Order(t.Context(), at, api.Order{Member: "pg-test-2"})
		switch {
		case test.want != "" && (err == nil || !strings.Contains(err.Error(), test.want)):
			t.Errorf("%s: %v, want %q", test.name, err, test.want)
		case test.want == "" && (err != nil || !strings.HasPrefix(results[0].Now.By, "certificate dba") || !strings.HasSuffix(results[0].Now.By, " at 127.0.0.1") || strings.Contains(results[0].Now.By, "\x1b")):
			t.Errorf("%s: %+v, %v", test.name, results, err)
		}
	}
	// The token goes on.
	if _, err := n.client().Order(t.Context(), at, api.Order{Member: "pg-test-2"}); err != nil {
		t.Errorf("the token: %v", err)
	}
	// An authority that is replaced counts from then on, also for connections that are open.
	certificate, err := tls.LoadX509KeyPair(good.Certificate, good.Key)
	if err != nil {
		t.Fatal(err)
	}
	roots, err := readAuthority(n.files.Certificate)
	if err != nil {
		t.Fatal(err)
	}
	kept := &http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{RootCAs: roots, Certificates: []tls.Certificate{certificate}}}}
	defer kept.CloseIdleConnections()
	get := func() int {
		res, err := kept.Get("https://" + at + "/node")
		if err != nil {
			t.Fatal(err)
		}
		defer res.Body.Close()
		io.Copy(io.Discard, res.Body)
		return res.StatusCode
	}
	if code := get(); code != 200 {
		t.Errorf("before: %d", code)
	}
	text, err := os.ReadFile(foreign.path)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(trusted.path, text, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := credentials.Renew(); err != nil {
		t.Fatal(err)
	}
	if code := get(); code != 401 {
		t.Errorf("after the authority was replaced: %d", code)
	}
	// One that can't be read leaves what was.
	if err := os.WriteFile(trusted.path, []byte("no certificate"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := credentials.Renew(); err == nil || !strings.Contains(err.Error(), "it has no certificate (PEM)") {
		t.Errorf("no authority: %v", err)
	}
}

// TestLocal has the routes at a socket whose listener says who is there.
func TestLocal(t *testing.T) {
	path := filepath.Join(t.TempDir(), "socket")
	listener, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	local := Local{Steering: steered(), Who: func(net.Conn) string { return "root (uid 0)" }, Logger: slog.New(slog.DiscardHandler)}
	ctx, stop := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- local.Serve(ctx, listener) }()
	defer func() {
		stop()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	}()
	client := NewLocalClient(func(ctx context.Context) (net.Conn, error) {
		var dialer net.Dialer
		return dialer.DialContext(ctx, "unix", path)
	})
	results, err := client.Order(ctx, "pgporter", api.Order{Member: "pg-test-2", State: api.Ready})
	if err != nil || results[0].Now.By != "root (uid 0)" {
		t.Errorf("got %+v, %v", results, err)
	}
	// Who asks somebody first where the socket is hasn't sent the order by that.
	first := httptest.NewServer(http.NotFoundHandler())
	defer first.Close()
	failing := NewLocalClient(func(ctx context.Context) (net.Conn, error) {
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, first.URL, nil)
		if err != nil {
			return nil, err
		}
		if res, err := http.DefaultClient.Do(req); err == nil {
			res.Body.Close()
		}
		return nil, errors.New("it takes no orders from you")
	})
	if _, err := failing.Order(ctx, "pgporter", api.Order{Member: "pg-test-2"}); err == nil || err.Error() != "it takes no orders from you" {
		t.Errorf("got %v", err)
	}
}
