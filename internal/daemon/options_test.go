package daemon

import (
	"bufio"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/pgporter/pgporter/internal/admin/api"
)

// secured is a member whose Patroni speaks TLS only, and says what it is set to. Its server puts its name before each line
// that it returns.
type secured struct {
	fixture
	name string
	// says is the answer: `200 primary running`.
	says atomic.Value
	// authority is a file with the certificate that Patroni's is signed by.
	authority string
}

func newSecured(t *testing.T, name, host, says string) *secured {
	t.Helper()
	s := &secured{name: name}
	s.says.Store(says)
	patroni := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		var status int
		var role, state string
		fmt.Sscan(s.says.Load().(string), &status, &role, &state)
		w.WriteHeader(status)
		fmt.Fprintf(w, `{"state": %q, "role": %q, "timeline": 1}`, state, role)
	}))
	patroni.Listener.Close()
	patroni.Listener = listen(t, host)
	patroni.Config.ErrorLog = log.New(io.Discard, "", 0)
	patroni.StartTLS()
	t.Cleanup(patroni.Close)
	s.authority = filepath.Join(t.TempDir(), "ca.crt")
	if err := os.WriteFile(s.authority, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: patroni.Certificate().Raw}), 0o600); err != nil {
		t.Fatal(err)
	}
	server := listen(t, host)
	var sessions sync.WaitGroup
	sessions.Go(func() {
		for {
			conn, err := server.Accept()
			if err != nil {
				return
			}
			sessions.Go(func() {
				defer conn.Close()
				reader := bufio.NewReader(conn)
				// A probe begins with a zero byte (SSLRequest), and wants one in return.
				if first, err := reader.Peek(1); err == nil && first[0] == 0 {
					fmt.Fprint(conn, "N")
					return
				}
				for lines := bufio.NewScanner(reader); lines.Scan(); {
					fmt.Fprintf(conn, "%s: %s\n", name, lines.Text())
				}
			})
		}
	})
	t.Cleanup(func() {
		server.Close()
		sessions.Wait()
	})
	port := func(l net.Listener) int { return l.Addr().(*net.TCPAddr).Port }
	s.fixture = fixture{host, port(patroni.Listener), port(server)}
	return s
}

// says sends a line and gives what comes back.
func says(t *testing.T, conn net.Conn, line string) string {
	t.Helper()
	if err := conn.SetDeadline(time.Now().Add(patience)); err != nil {
		t.Fatal(err)
	}
	if _, err := fmt.Fprintln(conn, line); err != nil {
		t.Fatal(err)
	}
	got, err := bufio.NewReader(conn).ReadString('\n')
	if err != nil {
		t.Fatalf("%q: %v", got, err)
	}
	return strings.TrimSuffix(got, "\n")
}

// Options that say how Patroni is asked and what becomes of sessions, from the inventory to the sockets.
func TestOptionsAtWork(t *testing.T) {
	one := newSecured(t, "one", address(41), "200 primary running")
	two := newSecured(t, "two", address(42), "503 replica starting")
	inventory := func(words string) string {
		return fmt.Sprintf(`pg-test:
  hosts:
    %s: { pg_seq: 1, pg_role: primary, pg_port: %d, patroni_port: %d }
    %s: { pg_seq: 2, pg_role: replica, pg_port: %d, patroni_port: %d }
  vars:
    pg_cluster: pg-test
    pg_default_services:
      - name: replica
        port: 5434
        dest: postgres
        check: /read-only
        selector: "[? pg_role == 'replica']"
        backup: "[? pg_role == 'primary']"
        options: inter 3s fastinter 200ms downinter 200ms rise 1 fall 3 %s
`, one.host, one.echoPort, one.patroniPort, two.host, two.echoPort, two.patroniPort, words)
	}
	secure := "on-marked-up shutdown-backup-sessions check-ssl ca-file " + one.authority
	// httptest signs all with one key, so one authority is enough for both.
	r := start(t, one.fixture, address(43), inventory(secure), false)
	up := func(n int) func(*api.Status) bool {
		return func(s *api.Status) bool { return s.Clusters[0].Services[0].Servers[n].Up }
	}
	server := func(name string) int {
		for i, s := range r.status().Clusters[0].Services[0].Servers {
			if s.Member == name {
				return i
			}
		}
		t.Fatalf("no server %s", name)
		return 0
	}
	r.until("up", up(server("pg-test-1")))
	onBackup := r.dial("5434")
	if got := says(t, onBackup, "hello"); got != "one: hello" {
		t.Errorf("the backup's session says %q", got)
	}
	two.says.Store("200 replica running")
	r.until("up", up(server("pg-test-2")))
	if n, err := onBackup.Read(make([]byte, 1)); n != 0 || !errors.Is(err, io.EOF) && !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("the backup's session reads %d bytes, %v", n, err)
	}
	const logged = "ended 1 session on pg-test-1: a backup, and pg-test-2 is up (on-marked-up shutdown-backup-sessions)"
	r.until("logged: "+logged, func(*api.Status) bool { return strings.Contains(r.log.String(), logged) })
	session := r.dial("5434")
	if got := says(t, session, "hello"); got != "two: hello" {
		t.Errorf("a session says %q", got)
	}

	// A file that can't be read keeps the running configuration; one that doesn't vouch for Patroni is taken, and nobody passes.
	absent := filepath.Join(t.TempDir(), "none.crt")
	for _, words := range []string{"check-ssl ca-file " + absent, "check-ssl verify none crt " + absent} {
		r.write(inventory(words))
		r.reload <- syscall.SIGHUP
		r.until("refused", func(s *api.Status) bool {
			return strings.Contains(s.Config.Refused, "service pg-test-replica: options: ") && strings.Contains(s.Config.Refused, absent)
		})
		if got := says(t, session, "after "+words); got != "two: after "+words {
			t.Errorf("a session says %q", got)
		}
		r.write(inventory(secure))
		r.reload <- syscall.SIGHUP
		r.until("taken again", func(s *api.Status) bool { return s.Config.Refused == "" })
	}
	r.write(inventory("check-ssl ca-file " + one.authority + " verifyhost other.test"))
	r.reload <- syscall.SIGHUP
	r.until("down for its name", func(s *api.Status) bool {
		server := s.Clusters[0].Services[0].Servers[server("pg-test-2")]
		return !server.Up && strings.Contains(server.Reason, "not other.test")
	})
	r.write(inventory("check-ssl verify none"))
	r.reload <- syscall.SIGHUP
	r.until("up without a look at the certificate", up(server("pg-test-2")))
}
