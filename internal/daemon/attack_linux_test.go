package daemon

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/pgporter/pgporter/internal/access/dns"
	"github.com/pgporter/pgporter/internal/admin/api"
	"github.com/pgporter/pgporter/internal/admin/control"
)

// attacked is what a process that is attacked is told.
type attacked struct {
	Host, Bind, Inventory, Control, Names string
	Files                                 control.Files
}

// attackedVariable has it, in JSON.
const attackedVariable = "PGPORTER_TEST_ATTACKED"

// TestAttackedProcess is no test: it is the process that TestAttackOnListeners attacks, with few descriptors, until its standard input ends.
// Elsewhere it does nothing.
func TestAttackedProcess(t *testing.T) {
	text := os.Getenv(attackedVariable)
	if text == "" {
		return
	}
	if err := syscall.Setrlimit(syscall.RLIMIT_NOFILE, &syscall.Rlimit{Cur: 1024, Max: 1024}); err != nil {
		t.Fatal(err)
	}
	var a attacked
	if err := json.Unmarshal([]byte(text), &a); err != nil {
		t.Fatal(err)
	}
	credentials, err := control.LoadCredentials(a.Files)
	if err != nil {
		t.Fatal(err)
	}
	names, err := NewNames(t.Context(), dns.Config{Address: a.Names, Logger: slog.New(slog.DiscardHandler)}, nil)
	if err != nil {
		t.Fatal(err)
	}
	r := start(t, fixture{host: a.Host}, a.Bind, a.Inventory, false, func(c *Config) {
		c.Control, c.Parts, c.Hold = &Control{Address: a.Control, Credentials: credentials}, []Part{names}, 5*time.Second
		c.Source.(*InventoryFile).Names = true
	})
	fmt.Printf("\nready %s\n", r.admin)
	_, _ = io.Copy(io.Discard, os.Stdin)
	fmt.Printf("\nlog\n%s\n", &r.log)
}

// TestAttackOnListeners has strangers come to every address of a pgporter that has 1,024 descriptors, more of them than that to each. A
// session goes on, no member counts as down, the status can be read, and who has the token is answered. Afterwards clients are served.
func TestAttackOnListeners(t *testing.T) {
	f := newFixture(t, address(101))
	bind := address(102)
	free := func() string {
		l := listen(t, bind)
		defer l.Close()
		return l.Addr().String()
	}
	page := free()
	_, pagePort, err := net.SplitHostPort(page)
	if err != nil {
		t.Fatal(err)
	}
	port, err := strconv.Atoi(pagePort)
	if err != nil {
		t.Fatal(err)
	}
	a := attacked{Host: f.host, Bind: bind, Control: free(), Names: free(), Inventory: withPage(f.inventory("primary:5433", "other:5436"), port, "pgporter_page_actions: true", "haproxy_admin_password: a horse")}
	if a.Files, err = control.MakeCredentials(t.TempDir(), []string{bind}, time.Now(), time.Hour); err != nil {
		t.Fatal(err)
	}
	text, err := json.Marshal(a)
	if err != nil {
		t.Fatal(err)
	}
	program := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^TestAttackedProcess$", "-test.timeout=5m")
	program.Env = append(os.Environ(), attackedVariable+"="+string(text))
	in, err := program.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := program.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := program.Start(); err != nil {
		t.Fatal(err)
	}
	c := &controlled{running: &running{t: t, bind: bind}, node: f.host, address: a.Control, files: a.Files}
	c.renewClient()
	lines := bufio.NewScanner(out)
	var before strings.Builder
	for c.admin == "" && lines.Scan() {
		before.WriteString(lines.Text() + "\n")
		c.admin, _ = strings.CutPrefix(lines.Text(), "ready ")
		if !strings.HasPrefix(lines.Text(), "ready ") {
			c.admin = ""
		}
	}
	if c.admin == "" {
		t.Fatalf("it didn't start:\n%s", before.String())
	}
	ended := func() (log string) {
		_ = in.Close()
		var all strings.Builder
		for lines.Scan() {
			all.WriteString(lines.Text() + "\n")
		}
		if err := program.Wait(); err != nil {
			t.Errorf("it ended with %v", err)
		}
		return all.String()
	}

	c.until("up", func(s *api.Status) bool { return s.Clusters[0].Services[0].Up && s.Clusters[0].Services[1].Up })
	session := c.dial("5433")
	const hello = "\x00\x00\x00\x09\x00\x03\x00\x00\x00"
	echo(t, session, hello)
	flood := func(address, word string, n int) {
		t.Helper()
		for range n {
			conn, err := net.DialTimeout("tcp", address, 100*time.Millisecond)
			if err != nil {
				continue // the backlog is full, which is all that an attack gets
			}
			t.Cleanup(func() { conn.Close() })
			_, _ = io.WriteString(conn, word)
		}
	}
	for round := range 3 {
		flood(a.Control, "\x16\x03\x01", 1100/3)
		flood(c.admin, "GET /status HTTP/1.1\r\n", 1100/3)
		flood(page, "GET /stream HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n", 1100/9)
		flood(page, "POST /login HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 100000\r\n\r\n", 1100/9)
		flood(page, "GET / HTTP/1.1\r\nX: "+strings.Repeat("a", 20<<10), 1100/9)
		flood(a.Names, "\x00", 300/3)
		flood(bind+":5433", "", 480/3)
		// As long as a member's silence takes to count, twice.
		for began := time.Now(); time.Since(began) < 2*time.Second; {
			s, err := c.ask()
			if err != nil {
				t.Errorf("round %d: the status can't be read: %v", round, err)
				break
			}
			for _, service := range s.Clusters[0].Services {
				if !service.Up {
					t.Fatalf("round %d: %s is down: %+v", round, service.FullName, service.Servers)
				}
			}
			echo(t, session, "still there")
		}
		if _, err := c.client.Ask(t.Context(), c.address); err != nil {
			t.Errorf("round %d: who has the token: %v", round, err)
		}
		if code, body := fetched(t, page, "/metrics"); code != 200 {
			t.Errorf("round %d: the scrape: %d %.200s", round, code, body)
		}
		other := c.dial("5436")
		echo(t, other, hello)
		_ = other.Close()
	}
	log := ended()
	if strings.Contains(log, syscall.EMFILE.Error()) {
		t.Errorf("descriptors ran out:\n%s", log)
	}
	if !strings.Contains(log, "there are too many at a time") {
		t.Errorf("the log says nothing of connections that were closed:\n%s", log)
	}
}
