package discover

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/pgporter/pgporter/internal/config/model"
)

var quiet = slog.New(slog.NewTextHandler(io.Discard, nil))

// address is a loopback address of this test process's own, so that two runs on one machine don't meet.
func address(last int) string {
	pid := os.Getpid()
	return fmt.Sprintf("127.%d.%d.%d", 64+pid>>8%128, pid%256, last)
}

// fakePatroni answers /cluster and /patroni as 3.0.2 does, with the members that the test sets. A fake because what is
// tested is the reading of answers; the real one is asked by the end-to-end tests.
type fakePatroni struct {
	*httptest.Server
	scope   string
	members atomic.Pointer[string]
}

func newFakePatroni(t *testing.T, scope, members string) *fakePatroni {
	f := &fakePatroni{scope: scope}
	f.members.Store(&members)
	f.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/cluster":
			fmt.Fprintf(w, `{"members": [%s]}`, *f.members.Load())
		case "/patroni":
			fmt.Fprintf(w, `{"state": "running", "role": "replica", "patroni": {"version": "3.0.2", "scope": %q}}`, f.scope)
		default:
			http.NotFound(w, r)
		}
	}))
	t.Cleanup(f.Close)
	return f
}

func member(name, role, host string) string {
	return fmt.Sprintf(`{"name": %q, "role": %q, "state": "running", "api_url": "http://%s:8008/patroni", "host": %q, "port": 5432, "timeline": 1}`, name, role, host, host)
}

func TestFindMembers(t *testing.T) {
	// The second member's address has somebody on the pool's port who speaks PostgreSQL; a plain listener stands in.
	pool, err := net.Listen("tcp", address(12)+":6432")
	if err != nil {
		t.Fatal(err)
	}
	defer pool.Close()
	go func() {
		for {
			conn, err := pool.Accept()
			if err != nil {
				return
			}
			io.ReadFull(conn, make([]byte, 8))
			conn.Write([]byte("N"))
			conn.Close()
		}
	}()
	p := newFakePatroni(t, "pg-test", strings.Join([]string{
		member("pg-test-2", "replica", address(12)),
		member("pg-test-1", "leader", address(11)),
		`{"name": "pg-test-9", "role": "replica", "state": "creating replica"}`}, ","))
	f, err := New([]string{p.URL}, quiet)
	if err != nil {
		t.Fatal(err)
	}
	found, err := f.Find(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, m := range found.Cluster.Members {
		got = append(got, fmt.Sprintf("%s %s %s:%d pool %d patroni %d", m.Name, m.Role, m.Host, m.PostgresPort, m.PgBouncerPort, m.PatroniPort))
	}
	want := []string{
		"pg-test-1 primary " + address(11) + ":5432 pool 5432 patroni 8008",
		"pg-test-2 replica " + address(12) + ":5432 pool 6432 patroni 8008",
	}
	if strings.Join(got, "\n") != strings.Join(want, "\n") || found.Cluster.Name != "pg-test" {
		t.Errorf("cluster %q:\n%s\nwant\n%s", found.Cluster.Name, strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
	if assumed := strings.Join(found.Assumed, "\n"); !strings.Contains(assumed, "no PgBouncer answers on port 6432 of pg-test-1:") {
		t.Errorf("assumed: %s", assumed)
	}
}

func TestMembersOnOneHostHaveNoCommonPool(t *testing.T) {
	p := newFakePatroni(t, "pg-test", member("a", "leader", address(13))+","+member("b", "replica", address(13)))
	pool, err := net.Listen("tcp", address(13)+":6432")
	if err != nil {
		t.Fatal(err)
	}
	defer pool.Close()
	f, err := New([]string{p.URL}, quiet)
	if err != nil {
		t.Fatal(err)
	}
	found, err := f.Find(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for _, m := range found.Cluster.Members {
		if m.PgBouncerPort != m.PostgresPort {
			t.Errorf("%s: pool on %d", m.Name, m.PgBouncerPort)
		}
	}
}

func TestMembershipIsFollowed(t *testing.T) {
	p := newFakePatroni(t, "pg-test", member("pg-test-1", "leader", address(11)))
	f, err := New([]string{p.URL}, quiet)
	if err != nil {
		t.Fatal(err)
	}
	look := func() (model.Cluster, bool) {
		t.Helper()
		found, differs, err := f.look(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		return found.Cluster, differs
	}
	if _, differs := look(); !differs {
		t.Error("the first look differs from none before")
	}
	if _, differs := look(); differs {
		t.Error("nothing changed, yet it differs")
	}
	// A switchover and a new member: the new one is taken, the roles of those known are left to the checks.
	now := member("pg-test-1", "replica", address(11)) + "," + member("pg-test-2", "leader", address(12))
	p.members.Store(&now)
	c, differs := look()
	if !differs || len(c.Members) != 2 || c.Members[0].Role != model.Primary || c.Members[1].Role != model.Replica {
		t.Errorf("after a member came: differs %v, %+v", differs, c.Members)
	}
	none := ""
	p.members.Store(&none)
	if found, err := f.Find(t.Context()); err == nil || !strings.Contains(err.Error(), "knows no member") {
		t.Errorf("an empty answer is taken: %+v, %v", found, err)
	}
}

func TestFindRefuses(t *testing.T) {
	a := newFakePatroni(t, "pg-a", member("pg-a-1", "leader", address(11)))
	b := newFakePatroni(t, "pg-b", member("pg-b-1", "leader", address(12)))
	f, err := New([]string{a.URL, b.URL}, quiet)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := f.Find(t.Context()); err == nil || !strings.Contains(err.Error(), "different clusters, pg-a and pg-b") {
		t.Errorf("two clusters: %v", err)
	}
	a.Close()
	b.Close()
	if _, err := f.Find(t.Context()); err == nil || !strings.Contains(err.Error(), "connection refused") {
		t.Errorf("nobody there: %v", err)
	}
}

func TestAddresses(t *testing.T) {
	for _, test := range []struct{ text, want string }{
		{"10.10.10.11", "http://10.10.10.11:8008"},
		{"10.10.10.11:9008", "http://10.10.10.11:9008"},
		{"https://pg-test-1", "https://pg-test-1:8008"},
		{"http://10.10.10.11:8008/", "http://10.10.10.11:8008"},
		{"::1", "http://[::1]:8008"},
		{"[::1]:8009", "http://[::1]:8009"},
		{"", ""}, {"10.10.10.11:patroni", ""}, {"10.10.10.11:70000", ""}, {"ftp://10.10.10.11", ""}, {"a b", ""}, {"10.10.10.11/cluster", ""},
	} {
		if got, err := baseURL(test.text); got != test.want || (err == nil) != (test.want != "") {
			t.Errorf("%q: %q, %v; want %q", test.text, got, err, test.want)
		}
	}
}

func FuzzAddress(f *testing.F) {
	for _, seed := range []string{"10.10.10.11", "[::1]:8008", "https://a:1", "http://:8008", "a@b"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, text string) {
		base, err := baseURL(text)
		if err != nil {
			return
		}
		if _, err := http.NewRequestWithContext(context.Background(), "GET", base+"/cluster", nil); err != nil {
			t.Errorf("%q is taken as %q, which no request can be made of: %v", text, base, err)
		}
	})
}
