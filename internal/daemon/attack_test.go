package daemon

import (
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/pgporter/pgporter/internal/admin/api"
	"github.com/pgporter/pgporter/internal/config/safetext"
)

// What a hostile Patroni says, and what is wrong with an inventory, leaves the status and the log small and fit to be read, and
// nobody reads a secret there.
func TestAttackStatusAndLogStaySmall(t *testing.T) {
	hostile := "evil\x1b[2J\u202e\u200b\r\nnext" + strings.Repeat("A", 60_000)
	body, err := json.Marshal(map[string]any{"role": hostile, "state": hostile, "patroni": map[string]string{"version": hostile, "name": hostile, "scope": hostile}, "tags": map[string]string{hostile: hostile}})
	if err != nil {
		t.Fatal(err)
	}
	f := newFixture(t, address(81))
	patroni := listen(t, f.host)
	f.patroniPort = patroni.Addr().(*net.TCPAddr).Port
	var asked atomic.Int64
	var serving sync.WaitGroup
	serving.Go(func() {
		for {
			conn, err := patroni.Accept()
			if err != nil {
				return
			}
			serving.Go(func() {
				defer conn.Close()
				if _, err := conn.Read(make([]byte, 4096)); err != nil {
					return
				}
				answers := []string{"HTTP/1.0 200 OK\r\nContent-Type: application/json\r\n\r\n" + string(body), hostile, "HTTP/1.0 " + strings.Repeat("9", 60_000) + " OK\r\n\r\n", "HTTP/1.0 200 OK\r\n" + strings.Repeat("\x1b", 60_000) + "\r\n\r\n"}
				_, _ = io.WriteString(conn, answers[asked.Add(1)%int64(len(answers))])
			})
		}
	})
	t.Cleanup(func() {
		patroni.Close()
		serving.Wait()
	})
	services := make([]string, 30)
	for i := range services {
		services[i] = fmt.Sprintf("s%d:%d", i, 5500+i)
	}
	r := start(t, f, address(82), f.inventory(services...), false)
	largest, unshown := 0, ""
	look := func() {
		t.Helper()
		res, err := http.Get("http://" + r.admin + "/status")
		if err != nil {
			t.Fatal(err)
		}
		defer res.Body.Close()
		text, err := io.ReadAll(res.Body)
		if err != nil {
			t.Fatal(err)
		}
		largest = max(largest, len(text))
		for line := range strings.Lines(string(text)) {
			if !safetext.Is(strings.TrimSuffix(line, "\n")) {
				unshown = line
			}
		}
	}
	var before int64
	r.until("asked often", func(*api.Status) bool {
		if now := asked.Load(); now != before {
			before = now
			look()
		}
		return before >= 8
	})
	r.write(strings.Replace(f.inventory(services...), "pg_rto: fast", "pg_rto: \"\\e[2J\\u202e"+strings.Repeat("A", 60_000)+"\"\n    dba_password: hunter2zz\n    pg_dns_suffix: \"{{ dba_password }}\"\n    pg_namespace: \"{{ dba_password }}\"", 1))
	r.reload <- nil
	r.until("refused", func(s *api.Status) bool { return s.Config.Refused != "" })
	look()
	if refused := r.status().Config.Refused; !strings.Contains(refused, "dba_password") || strings.Contains(refused, "hunter2zz") {
		t.Errorf("refused: %s", refused)
	}
	if largest > 150_000 || unshown != "" {
		t.Errorf("the status has %d bytes, and %.300q", largest, unshown)
	}
	log := r.log.String()
	for line := range strings.Lines(log) {
		if !safetext.Is(strings.TrimSuffix(line, "\n")) || len(line) > 20_000 {
			t.Errorf("a line of the log: %d bytes, %.300q", len(line), line)
		}
	}
	if strings.Contains(log, "hunter2zz") {
		t.Errorf("the log has the secret: %s", log)
	}
}
