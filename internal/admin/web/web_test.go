package web

import (
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/pgporter/pgporter/internal/admin/api"
)

// sampled has one service that leads somewhere and one that doesn't.
func sampled() api.Status {
	return api.Status{Version: "test", Clusters: []api.Cluster{{Name: "pg-test", Services: []api.Service{
		{FullName: "pg-test-primary", Up: true, Servers: []api.Server{{Member: "pg-test-1", Up: true, Serving: true, Reason: "200 primary running"}}},
		{FullName: "pg-test-offline", Servers: []api.Server{{Member: "pg-test-3", Reason: "silent: connection refused"}}},
		{FullName: "pg-test-default", Up: true, Shadow: true, Servers: []api.Server{{Member: "pg-test-1", Up: true, Serving: true, Reason: "200 primary running"}}},
	}}}}
}

func none() []string { return nil }

// shown is what an address shows that nobody tells anything.
func shown(status func() api.Status) http.Handler {
	return Handler(Config{Status: status, Problems: none, Names: none})
}

// asked is a request to an address.
func asked(method, path string) *http.Request {
	r := httptest.NewRequest(method, path, nil)
	r.Host = "10.10.10.11:8432"
	return r
}

func TestRoutes(t *testing.T) {
	handler := shown(sampled)
	for _, test := range []struct {
		method, path string
		code         int
		body         string
	}{
		{"GET", "/services/pg-test-primary", 200, "pg-test-primary up\npg-test-1 200 primary running\n"},
		{"HEAD", "/services/pg-test-primary", 200, "pg-test-primary up\npg-test-1 200 primary running\n"},
		{"GET", "/services/pg-test-offline", 503, "pg-test-offline down\npg-test-3 silent: connection refused\n"},
		{"GET", "/services/primary", 404, "no service \"primary\" here; there are: pg-test-primary, pg-test-offline, pg-test-default\n"},
		{"GET", "/services/pg-test-default", 503, "pg-test-default shadow\npg-test-1 200 primary running\n"},
		{"GET", "/services", 200, "pg-test-primary up\npg-test-offline down\npg-test-default shadow\n"},
		{"GET", "/health", 200, "ok\n"},
		{"GET", "/nothing", 404, "404 page not found\n"},
		{"POST", "/status", 405, "Method Not Allowed\n"},
		{"DELETE", "/services/pg-test-primary", 405, "Method Not Allowed\n"},
	} {
		t.Run(test.method+test.path, func(t *testing.T) {
			answer := httptest.NewRecorder()
			handler.ServeHTTP(answer, asked(test.method, test.path))
			if answer.Code != test.code || answer.Body.String() != test.body {
				t.Errorf("got %d %q, want %d %q", answer.Code, answer.Body, test.code, test.body)
			}
		})
	}
}

// TestHealthTellsProblems: they are all listed, and nobody has to give a status for that.
func TestHealthTellsProblems(t *testing.T) {
	answer := httptest.NewRecorder()
	status := func() api.Status { t.Error("the status was asked for"); return api.Status{} }
	Handler(Config{Status: status, Problems: func() []string { return []string{"one stands still", "two stands still"} }, Names: none}).ServeHTTP(answer, asked("GET", "/health"))
	if answer.Code != 503 || answer.Body.String() != "one stands still\ntwo stands still\n" {
		t.Errorf("got %d %q", answer.Code, answer.Body)
	}
}

func TestStatusIsTheAPI(t *testing.T) {
	server := httptest.NewServer(shown(sampled))
	defer server.Close()
	got, err := api.Client{Address: strings.TrimPrefix(server.URL, "http://")}.Status(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	gotText, _ := json.Marshal(got)
	wantText, _ := json.Marshal(sampled())
	if string(gotText) != string(wantText) {
		t.Errorf("got %s\nwant %s", gotText, wantText)
	}
}

func TestClientNamesWhatAnswers(t *testing.T) {
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.Write([]byte("<html>")) }))
	address := strings.TrimPrefix(server.URL, "http://")
	_, err := api.Client{Address: address}.Status(t.Context())
	if err == nil || !strings.Contains(err.Error(), "isn't a pgporter's") {
		t.Errorf("another server's answer: %v", err)
	}
	server.Close()
	_, err = api.Client{Address: address}.Status(t.Context())
	if err == nil || !strings.Contains(err.Error(), "no pgporter answers at "+address) {
		t.Errorf("nobody there: %v", err)
	}
}

func TestPageIsServed(t *testing.T) {
	answer := httptest.NewRecorder()
	shown(sampled).ServeHTTP(answer, asked("GET", "/"))
	if answer.Code != 200 || !strings.HasPrefix(answer.Header().Get("Content-Type"), "text/html") {
		t.Errorf("the page: %d %s", answer.Code, answer.Header())
	}
	for _, part := range []struct{ path, kind, text string }{{"page.css", "text/css", ".is-serving"}, {"page.js", "text/javascript", "new Stream("}} {
		if !strings.Contains(answer.Body.String(), `"`+part.path+`"`) {
			t.Errorf("the page doesn't name %s", part.path)
		}
		of := httptest.NewRecorder()
		shown(sampled).ServeHTTP(of, asked("GET", "/"+part.path))
		if of.Code != 200 || !strings.HasPrefix(of.Header().Get("Content-Type"), part.kind) || !strings.Contains(of.Body.String(), part.text) {
			t.Errorf("%s: %d %s", part.path, of.Code, of.Header())
		}
	}
}
