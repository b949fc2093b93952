package patroni

import (
	"context"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
)

// The question is Patroni's own (api.py, do_POST_failover), and whatever it answers is given as it is.
func TestSwitchover(t *testing.T) {
	status, says := 200, `Successfully switched over to "pg-test-2"`
	var asked string
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		user, password, _ := r.BasicAuth()
		asked = strings.Join([]string{r.Method, r.URL.Path, string(body), user, password}, " ")
		w.WriteHeader(status)
		_, _ = io.WriteString(w, says+"\n")
	}))
	defer server.Close()
	c := NewClient(Options{})
	ask := func() (int, string, error) {
		return c.Switchover(t.Context(), server.URL, "pg-test-1", "pg-test-2", Credential{User: "postgres", Password: "secret"})
	}
	got, text, err := ask()
	if got != 200 || text != says || err != nil {
		t.Errorf("%d %q, %v", got, text, err)
	}
	if want := `POST /switchover {"candidate":"pg-test-2","leader":"pg-test-1"} postgres secret`; asked != want {
		t.Errorf("asked %s, want %s", asked, want)
	}
	status, says = 412, "leader name does not match\x1b[31m"
	if got, text, err = ask(); got != 412 || text != `leader name does not match\u001b[31m` || err != nil {
		t.Errorf("%d %q, %v", got, text, err)
	}
	// Without an account nothing is shown.
	if _, _, err := c.Switchover(t.Context(), server.URL, "pg-test-1", "pg-test-2", Credential{}); err != nil || !strings.HasSuffix(asked, "}  ") {
		t.Errorf("asked %q, %v", asked, err)
	}
	server.Close()
	if _, _, err := ask(); !errors.Is(err, ErrNotAsked) || !strings.Contains(err.Error(), "connection refused") {
		t.Errorf("nobody listens: %v", err)
	}
}

// Who breaks off in the middle may have taken the order.
func TestSwitchoverUnanswered(t *testing.T) {
	taken := make(chan struct{})
	ctx, cancel := context.WithCancel(t.Context())
	server := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		// That the client leaves is seen once its request has been read.
		_, _ = io.Copy(io.Discard, r.Body)
		close(taken)
		<-r.Context().Done()
	}))
	defer server.Close()
	go func() {
		<-taken
		cancel()
	}()
	if _, _, err := NewClient(Options{}).Switchover(ctx, server.URL, "a", "b", Credential{}); err == nil || errors.Is(err, ErrNotAsked) {
		t.Errorf("it was asked, and the error is %v", err)
	}
}
