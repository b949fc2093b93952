package cli

import (
	"bytes"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// told is a Patroni that answers what it is told to answer: what is tested is what is made of it, a real one is asked by the
// end-to-end tests.
func told(t *testing.T, scope string, config string, members ...string) string {
	t.Helper()
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch {
		case r.URL.Path == "/cluster":
			fmt.Fprintf(w, `{"members": [%s], "scope": %q}`, strings.Join(members, ","), scope)
		case r.URL.Path == "/config" && config != "":
			fmt.Fprint(w, config)
		case r.URL.Path == "/patroni":
			fmt.Fprintf(w, `{"state": "running", "role": "primary", "patroni": {"version": "4.0.4", "scope": %q}}`, scope)
		default:
			http.Error(w, "", http.StatusBadGateway)
		}
	}))
	t.Cleanup(server.Close)
	return server.URL
}

// pooler answers an SSLRequest on PgBouncer's usual port of an address, until the test ends.
func pooler(t *testing.T, address string) {
	t.Helper()
	l, err := net.Listen("tcp", address+":6432")
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			conn.Write([]byte("N")) //nolint:errcheck // whoever asked may be gone
			conn.Close()            //nolint:errcheck // nothing more is said
		}
	}()
	t.Cleanup(func() { l.Close(); <-done })
}

// What init makes of clusters of every kind is in testdata/init.yml, and check has no error to say of it.
func TestInit(t *testing.T) {
	pooler(t, "127.0.63.11")
	pooler(t, "127.0.63.12")
	shop := told(t, "shop", `{"ttl": 20, "loop_wait": 10}`,
		`{"name": "shop-a", "role": "replica", "state": "streaming", "api_url": "http://127.0.63.11:8008/patroni", "host": "127.0.63.11", "port": 5432, "tags": {"zone": "north", "nofailover": true, "rack": 7, "pg_role": "x"}}`,
		`{"name": "shop b", "role": "leader", "state": "running", "api_url": "https://127.0.63.12:8009/patroni", "host": "127.0.63.12", "port": 5433, "tags": {"zone": "yes: no"}}`,
		`{"name": "shop-c", "role": "replica", "state": "creating replica"}`)
	shop2 := told(t, "shop.eu_1", `{"ttl": 20, "loop_wait": 10}`,
		`{"name": "eu1.example", "role": "leader", "state": "running", "api_url": "http://127.0.63.21:8008/patroni", "host": "127.0.63.21", "port": 5432}`,
		`{"name": "eu2.example", "role": "sync_standby", "state": "running", "api_url": "http://127.0.63.11:8018/patroni", "host": "127.0.63.22", "port": 5434}`)
	copied := told(t, "copy", `{"standby_cluster": {"host": "127.0.63.12", "port": 5433}}`,
		`{"name": "copy-1", "role": "standby_leader", "state": "running", "api_url": "http://127.0.63.31:8008/patroni", "host": "127.0.63.31", "port": 5432}`)
	unread := told(t, "unread", "",
		`{"name": "unread-1", "role": "leader", "state": "running", "api_url": "http://127.0.63.41:8008/patroni", "host": "127.0.63.41", "port": 5432}`)
	nameless := told(t, "shop", `{}`,
		`{"name": "x", "role": "leader", "state": "running", "api_url": "http://127.0.63.51:8008/patroni", "host": "127.0.63.51", "port": 5432}`)
	asked := strings.Join([]string{shop2, copied, unread, nameless, shop2}, ",")

	t.Chdir(t.TempDir())
	// A member that can't be called so makes no file.
	var stdout, stderr bytes.Buffer
	if status := Main([]string{"init", "--patroni", shop, "--out", "first.yml"}, nil, &stdout, &stderr); status != 1 || !strings.Contains(stderr.String(), `the member's name is the text "shop b"`) {
		t.Errorf("status %d: %s", status, &stderr)
	}
	if _, err := os.Stat("first.yml"); err == nil {
		t.Error("a file is there all the same")
	}
	stderr.Reset()
	if status := Main([]string{"init", "--patroni", asked, "-o", "first.yml"}, nil, &stdout, &stderr); status != 0 {
		t.Fatalf("status %d: %s", status, &stderr)
	}
	text, err := os.ReadFile("first.yml")
	if err != nil {
		t.Fatal(err)
	}
	if status := Main([]string{"check", "first.yml"}, nil, &stdout, &stderr); status != 0 || strings.Contains(stderr.String(), "error:") {
		t.Errorf("check says %d: %s\nof\n%s", status, &stderr, text)
	}
	compareInit(t, text, shop2, copied, unread, nameless)

	// It is there now.
	stderr.Reset()
	if status := Main([]string{"init", "--patroni", unread, "-o", "first.yml"}, nil, &stdout, &stderr); status != 2 || !strings.Contains(stderr.String(), "there is such a file: --force writes over it") {
		t.Errorf("status %d: %s", status, &stderr)
	}
	if again, _ := os.ReadFile("first.yml"); !bytes.Equal(again, text) {
		t.Error("the file is another one")
	}
	if status := Main([]string{"init", "--patroni", unread, "-o", "first.yml", "--force"}, nil, &stdout, &stderr); status != 0 {
		t.Errorf("--force: %s", &stderr)
	}
	// Somebody who doesn't answer is left out by nobody.
	stderr.Reset()
	if status := Main([]string{"init", "--patroni", unread + ",127.0.63.99:1"}, nil, &stdout, &stderr); status != 1 || !strings.Contains(stderr.String(), "127.0.63.99:1: connection refused") {
		t.Errorf("status %d: %s", status, &stderr)
	}
}

// compareInit holds a file to the golden one, in which who was asked goes by letters.
func compareInit(t *testing.T, text []byte, asked ...string) {
	t.Helper()
	got := string(text)
	for i, url := range asked {
		got = strings.ReplaceAll(got, url, fmt.Sprintf("http://%c", 'A'+i))
	}
	golden := filepath.Join(source, "testdata", "init.yml")
	if os.Getenv("UPDATE_SCRIPTS") != "" {
		if err := os.WriteFile(golden, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	want, err := os.ReadFile(golden)
	if err != nil {
		t.Fatal(err)
	}
	if got != string(want) {
		t.Errorf("it isn't testdata/init.yml:\n%s", got)
	}
}

// source is this folder, wherever a test changes to.
var source, _ = filepath.Abs(".")
