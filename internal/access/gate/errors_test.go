package gate

import (
	"bytes"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
)

// A panic while a request is answered is in the log of every level; what a stranger does isn't.
func TestPanicsAreLogged(t *testing.T) {
	var text bytes.Buffer
	logger := ErrorLog(slog.New(slog.NewTextHandler(&text, nil)))
	server := httptest.NewUnstartedServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { panic("of the test") }))
	server.Config.ErrorLog = logger
	server.Start()
	if _, err := http.Get(server.URL); err == nil {
		t.Error("a panic is an answer")
	}
	server.Close()
	logger.Print("http: TLS handshake error from 127.0.0.1:1")
	if got := text.String(); !strings.Contains(got, "level=ERROR") || !strings.Contains(got, "of the test") || strings.Contains(got, "handshake") {
		t.Error(got)
	}
}
