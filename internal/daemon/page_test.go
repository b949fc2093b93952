package daemon

import (
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/pgporter/pgporter/internal/admin/api"
	"github.com/pgporter/pgporter/internal/config/intake"
	"github.com/pgporter/pgporter/internal/config/plan"
)

// freePort is one of an address that nobody has.
func freePort(t *testing.T, host string) int {
	t.Helper()
	l := listen(t, host)
	defer l.Close()
	return l.Addr().(*net.TCPAddr).Port
}

// fetched asks for a path at an address.
func fetched(t *testing.T, at, path string) (int, string) {
	t.Helper()
	client := http.Client{Timeout: patience, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
	res, err := client.Get("http://" + at + path)
	if err != nil {
		return 0, err.Error()
	}
	defer res.Body.Close()
	body, err := io.ReadAll(res.Body)
	if err != nil {
		t.Fatal(err)
	}
	return res.StatusCode, string(body)
}

// waitFor waits for what has to come.
func waitFor(t *testing.T, what string, holds func() bool) {
	t.Helper()
	again := time.NewTicker(10 * time.Millisecond)
	defer again.Stop()
	for limit := time.After(patience); !holds(); {
		select {
		case <-again.C:
		case <-limit:
			t.Fatalf("not %s after %s", what, patience)
		}
	}
}

// withPage has the inventory say where the page is.
func withPage(text string, port int, more ...string) string {
	vars := append([]string{fmt.Sprintf("haproxy_exporter_port: %d", port)}, more...)
	return strings.Replace(text, "    pg_cluster: pg-test\n", "    pg_cluster: pg-test\n    "+strings.Join(vars, "\n    ")+"\n", 1)
}

func TestPageWhereHAProxyWouldBe(t *testing.T) {
	f, bind := newFixture(t, address(141)), address(142)
	port := freePort(t, bind)
	r := start(t, f, bind, withPage(f.inventory("primary:5433"), port, "nodename: db-1.example.org", "exporter_metrics_path: /scrape"), false)
	at := fmt.Sprintf("%s:%d", bind, port)
	for path, want := range map[string]string{
		"/": "<title>", "/haproxy/pg-test-1/": "<title>", "/haproxy/anything/services": "pg-test-primary up\n", "/health": "ok\n", "/scrape": "# HELP", "/haproxy/x/page.js": "",
	} {
		if code, body := fetched(t, at, path); code != 200 || !strings.Contains(body, want) {
			t.Errorf("%s: %d %.200q", path, code, body)
		}
	}
	if code, _ := fetched(t, at, "/haproxy/pg-test-1"); code != 301 {
		t.Errorf("without its slash: %d", code)
	}
	if p := r.status().Page; p == nil || *p != (api.Page{Listen: at, Metrics: "/scrape", Node: "db-1.example.org"}) {
		t.Errorf("the status says %+v", p)
	}
	// As Pigsty's nginx asks: by the name of its upstream.
	request, err := http.NewRequestWithContext(t.Context(), "GET", "http://"+at+"/haproxy/db-1.example.org/health", nil)
	if err != nil {
		t.Fatal(err)
	}
	for host, code := range map[string]int{"haproxy-db-1.example.org": 200, "db-1.example.org": 200, "haproxy-db-2.example.org": 421} {
		request.Host = host
		res, err := http.DefaultClient.Do(request)
		if err != nil {
			t.Fatal(err)
		}
		res.Body.Close()
		if res.StatusCode != code {
			t.Errorf("asked for as %s: %d", host, res.StatusCode)
		}
	}

	// A reload that moves it, and one that says that there is no HAProxy here.
	second := freePort(t, bind)
	r.write(withPage(f.inventory("primary:5433"), second))
	r.reload <- syscall.SIGHUP
	moved := fmt.Sprintf("%s:%d", bind, second)
	waitFor(t, "moved", func() bool { code, _ := fetched(t, moved, "/health"); return code == 200 })
	waitFor(t, "closed", func() bool { code, _ := fetched(t, at, "/health"); return code == 0 })
	if code, body := fetched(t, moved, "/metrics"); code != 200 {
		t.Errorf("the metrics: %d %.200s", code, body)
	}
	r.write(withPage(f.inventory("primary:5433"), second, "haproxy_enabled: false"))
	r.reload <- syscall.SIGHUP
	waitFor(t, "closed", func() bool { code, _ := fetched(t, moved, "/health"); return code == 0 })
	r.until("without a page", func(s *api.Status) bool { return s.Page == nil })
	if log := r.log.String(); strings.Contains(log, "level=WARN") {
		t.Errorf("the log has warnings:\n%s", log)
	}
}

// Who has the port is named once, and once it is free the page is there. That somebody has it keeps no configuration from being taken.
func TestPageWaitsForItsPort(t *testing.T) {
	f, bind := newFixture(t, address(143)), address(144)
	other := listen(t, bind)
	port := other.Addr().(*net.TCPAddr).Port
	r := start(t, f, bind, withPage(f.inventory("primary:5433"), port), false)
	r.until("told", func(s *api.Status) bool {
		return s.Page != nil && strings.Contains(s.Page.Problem, fmt.Sprintf("(pid %d) listens on", os.Getpid()))
	})
	r.write(withPage(f.inventory("primary:5433", "more:5440"), port))
	r.reload <- syscall.SIGHUP
	r.until("reloaded", func(s *api.Status) bool { return s.Config.Generation == 2 })
	other.Close()
	at := other.Addr().String()
	waitFor(t, "opened", func() bool { code, _ := fetched(t, at, "/health"); return code == 200 })
	r.until("told", func(s *api.Status) bool { return s.Page.Problem == "" })
	if n := strings.Count(r.log.String(), "no page and no metrics"); n != 1 {
		t.Errorf("said %d times:\n%s", n, &r.log)
	}
}

// A service may have the port: the page gives way, and comes again when the service goes. The plan says so, too: it has no page then.
func TestPageGivesWayToServices(t *testing.T) {
	f, bind := newFixture(t, address(145)), address(146)
	port := freePort(t, bind)
	at := fmt.Sprintf("%s:%d", bind, port)
	r := start(t, f, bind, withPage(f.inventory("primary:5433"), port), false)
	if code, _ := fetched(t, at, "/health"); code != 200 {
		t.Fatal("no page")
	}
	r.write(withPage(f.inventory("primary:5433", fmt.Sprintf("more:%d", port)), port))
	r.reload <- syscall.SIGHUP
	r.until("taken", func(s *api.Status) bool { return s.Config.Generation == 2 && s.Page == nil })
	echo(t, r.dial(fmt.Sprint(port)), "a client\n")
	if !strings.Contains(r.log.String(), fmt.Sprintf("haproxy_exporter_port %d of %s is the port of service", port, f.host)) {
		t.Errorf("the log doesn't say it:\n%s", &r.log)
	}
	r.write(withPage(f.inventory("primary:5433"), port))
	r.reload <- syscall.SIGHUP
	waitFor(t, "back", func() bool { code, _ := fetched(t, at, "/health"); return code == 200 })
}

// A plan of a release that knew of no page has none, and its sum is right; one with a page is read as it was written.
func TestPlansWithAndWithoutPage(t *testing.T) {
	f, bind := newFixture(t, address(147)), address(148)
	port := freePort(t, bind)
	kept := planOf(t, f.host, withPage(f.inventory("primary:5433"), port, "pgporter_page_actions: true", "haproxy_admin_password: hunter2zz"), plan.Needs{})
	if p := kept.Page; p == nil || p.Port != port || !p.Actions || p.User != "admin" || p.Password != "" || p.PasswordFile != "/etc/pgporter/haproxy.password" {
		t.Errorf("planned: %+v", p)
	}
	text, err := kept.Encode()
	if err != nil || strings.Contains(string(text), "hunter2zz") {
		t.Errorf("%v\n%s", err, text)
	}
	if read, problems := intake.DecodeFile("x", text); problems.Err() != nil || *read.Page != *kept.Page {
		t.Errorf("read: %+v, %v", read.Page, problems)
	}
	kept.Page = nil
	path := t.TempDir() + "/plan.json"
	if err := WritePlan(path, kept); err != nil {
		t.Fatal(err)
	}
	r := start(t, f, bind, "", false, func(c *Config) { c.Source = &PlanFile{Path: path, Node: f.host, Logger: c.Logger} })
	if s := r.status(); s.Page != nil {
		t.Errorf("it has a page: %+v", s.Page)
	}
}
