package cli

import (
	"bytes"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
)

func TestHealth(t *testing.T) {
	code, body := http.StatusOK, "ok\n"
	admin := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path != "/health" {
			t.Errorf("%s is asked for", r.URL.Path)
		}
		w.WriteHeader(code)
		fmt.Fprint(w, body)
	}))
	defer admin.Close()
	address := admin.Listener.Addr().String()
	nobody, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	nobody.Close()
	for _, test := range []struct {
		code          int
		body, address string
		status        int
		want          string
	}{
		{200, "ok\n", address, 0, "ok\n"},
		{503, "the loop of cluster pg-test stands still since 2026-03-01T03:04:05Z (42s)\nthe relay stands still\n", address, 1,
			"the loop of cluster pg-test stands still since 2026-03-01T03:04:05Z (42s)\nthe relay stands still\n"},
		{200, "<html>another program</html>", address, 1, "isn't a pgporter's: HTTP 200 OK"},
		{404, "", address, 1, "isn't a pgporter's: HTTP 404 Not Found"},
		{0, "", nobody.Addr().String(), 1, "no pgporter answers at " + nobody.Addr().String()},
		{0, "", "127.0.0.1:x", 2, "an address or address:port"},
	} {
		code, body = test.code, test.body
		var out, problems bytes.Buffer
		status := Main([]string{"health", "--admin", test.address}, nil, &out, &problems)
		if said := out.String() + problems.String(); status != test.status || !strings.Contains(said, test.want) {
			t.Errorf("%d %q: status %d, %q", test.code, test.body, status, said)
		}
	}
}
