package daemon

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"strings"
	"testing"

	"github.com/getkin/kin-openapi/openapi3"

	"github.com/pgporter/pgporter/internal/admin/api"
	"github.com/pgporter/pgporter/internal/admin/control"
)

// TestAnswersAreAsDocumented asks a running daemon for all that the OpenAPI document has, and holds the answers against it: nothing of
// another kind, nothing that isn't documented.
func TestAnswersAreAsDocumented(t *testing.T) {
	f := newFixture(t, address(171))
	c := startControlled(t, f, address(172), f.inventory("primary:5433"))
	session := c.dial("5433")
	echo(t, session, "there is a session\n")
	document, err := openapi3.NewLoader().LoadFromData(api.OpenAPI)
	if err != nil {
		t.Fatal(err)
	}
	for _, schema := range document.Components.Schemas {
		no := false
		schema.Value.AdditionalProperties = openapi3.AdditionalProperties{Has: &no}
	}
	token, err := control.ReadToken(c.files.Token)
	if err != nil {
		t.Fatal(err)
	}
	authority, err := os.ReadFile(c.files.Certificate)
	if err != nil {
		t.Fatal(err)
	}
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(authority)
	client := &http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{RootCAs: roots}, DisableKeepAlives: true}}
	bodies := map[string]string{
		"/servers":      `{"member": "pg-test-1", "weight": 50}`,
		"/sessions/end": `{"filter": {"member": "pg-test-1"}}`,
		"/hold":         `{"cluster": "pg-test", "id": "one", "from": "pg-test-1", "for_seconds": 0}`,
	}
	asked := 0
	ask := func(method, base, path string, operation *openapi3.Operation) {
		t.Helper()
		want := http.StatusOK
		if path == "/plan" || path == "/plan/dry-run" {
			// What it takes is pgporter's own; a body that isn't it is refused, and refusals are documented.
			want = http.StatusBadRequest
		}
		url := base + strings.ReplaceAll(path, "{name}", "pg-test-primary")
		req, err := http.NewRequestWithContext(t.Context(), method, url, strings.NewReader(bodies[path]))
		if err != nil {
			t.Fatal(err)
		}
		if strings.HasPrefix(base, "https:") {
			req.Header.Set("Authorization", "Bearer "+token)
		}
		res, err := client.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		defer res.Body.Close()
		body, err := io.ReadAll(res.Body)
		if err != nil {
			t.Fatal(err)
		}
		asked++
		response := operation.Responses.Status(res.StatusCode)
		if res.StatusCode != want || response == nil {
			t.Errorf("%s %s: %s %s", method, url, res.Status, body)
			return
		}
		kind, _, _ := strings.Cut(res.Header.Get("Content-Type"), ";")
		content := response.Value.Content.Get(kind)
		if content == nil {
			t.Errorf("%s %s: it is %s, which isn't documented", method, url, kind)
			return
		}
		if kind != "application/json" {
			return
		}
		var value any
		decoder := json.NewDecoder(bytes.NewReader(body))
		decoder.UseNumber()
		if err := decoder.Decode(&value); err != nil {
			t.Fatal(err)
		}
		if err := content.Schema.Value.VisitJSON(value); err != nil {
			t.Errorf("%s %s: %v\n%s", method, url, err, body)
		}
	}
	for path, item := range document.Paths.Map() {
		for method, operation := range item.Operations() {
			for _, tag := range operation.Tags {
				base := map[string]string{"admin": "http://" + c.admin, "control": "https://" + c.address}[tag]
				ask(method, base, path, operation)
			}
		}
	}
	if asked < 15 {
		t.Errorf("only %d routes were asked", asked)
	}
}

// TestThisMachineSteers gives orders at the socket of the machine.
func TestThisMachineSteers(t *testing.T) {
	f := newFixture(t, address(173))
	r := start(t, f, address(174), f.inventory("primary:5433"), false)
	client := control.NewLocalClient(func(ctx context.Context) (net.Conn, error) {
		var dialer net.Dialer
		return dialer.DialContext(ctx, "unix", steerName(os.Getpid()))
	})
	results, err := client.Order(t.Context(), "pgporter", api.Order{Member: "pg-test-1", State: api.Drain})
	if err != nil {
		t.Fatal(err)
	}
	if len(results) != 1 || !results[0].Changed || results[0].Now.By != whoIs(os.Geteuid()) {
		t.Errorf("got %+v", results)
	}
	if !strings.Contains(r.log.String(), "ordered") {
		t.Errorf("the log doesn't tell of it:\n%s", r.log.String())
	}
	if _, err := client.Order(t.Context(), "pgporter", api.Order{Member: "pg-test-11", State: api.Drain}); err == nil || !strings.Contains(err.Error(), `there is no member "pg-test-11" here: the members are pg-test-1; did you mean pg-test-1`) {
		t.Errorf("got %v", err)
	}
	reread, err := client.Reread(t.Context(), "pgporter")
	if err != nil || reread.Generation != 2 || reread.Source != r.path {
		t.Errorf("got %+v, %v", reread, err)
	}
	if err := os.WriteFile(r.path, []byte("- nothing"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := client.Reread(t.Context(), "pgporter"); err == nil || !strings.Contains(err.Error(), "refused: ") {
		t.Errorf("a broken inventory: %v", err)
	}
	if s := r.status(); s.Config.Generation != 2 || s.Config.Refusals != 1 {
		t.Errorf("after it: %+v", s.Config)
	}
}

// TestDocumentedCurl runs what docs/api.md shows: every command has an answer that isn't a refusal.
func TestDocumentedCurl(t *testing.T) {
	text, err := os.ReadFile("../../docs/api.md")
	if err != nil {
		t.Fatal(err)
	}
	f := newFixture(t, address(175))
	c := startControlled(t, f, address(176), f.inventory("primary:5433"))
	real := strings.NewReplacer("127.0.0.1:8432", c.admin, "10.10.10.11:8433", c.address, "control.crt", c.files.Certificate, "control.token", c.files.Token,
		"pgporter-4711", strings.TrimPrefix(steerName(os.Getpid()), "@"))
	commands := 0
	for _, block := range strings.Split(string(text), "```sh\n")[1:] {
		block, _, _ = strings.Cut(block, "```")
		for line := range strings.Lines(block) {
			commands++
			out, err := exec.CommandContext(t.Context(), "sh", "-c", strings.Replace(real.Replace(line), "curl -s", "curl -sS --fail-with-body", 1)).CombinedOutput()
			if err != nil || !json.Valid(out) {
				t.Errorf("%s: %v: %s", line, err, out)
			}
		}
	}
	if commands < 10 {
		t.Errorf("only %d commands were found", commands)
	}
}
