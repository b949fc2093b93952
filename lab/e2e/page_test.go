package e2e

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/chromedp/chromedp"
	"github.com/chromedp/chromedp/kb"

	"github.com/pgporter/pgporter/internal/admin/api"
	"github.com/pgporter/pgporter/lab/e2e/browser"
	"github.com/pgporter/pgporter/lab/sandbox"
)

// readers load a service until the test ends: each opens a session, reads some rows in it, leaves, and comes again. None of them does two
// things at once, so that the load has a bound however slow the machine is.
func (c *cluster) readers(node string, s service, n int, rows string) {
	ctx, stop := context.WithCancel(c.t.Context())
	var joined sync.WaitGroup
	c.t.Cleanup(func() {
		stop()
		joined.Wait()
	})
	for i := range n {
		joined.Go(func() {
			pause := func(d time.Duration) {
				select {
				case <-ctx.Done():
				case <-time.After(d):
				}
			}
			for round := 0; ctx.Err() == nil; round++ {
				conn, err := connect(ctx, node, s)
				if err != nil {
					pause(200 * time.Millisecond)
					continue
				}
				for k := 0; k < 30+(7*i+11*round)%40 && ctx.Err() == nil; k++ {
					if _, err := conn.Exec(ctx, "select repeat('x', "+rows+")"); err != nil {
						break
					}
					pause(time.Duration(60+20*((i+round)%5)) * time.Millisecond)
				}
				_ = conn.Close(context.WithoutCancel(ctx))
			}
		})
	}
}

// TestPage looks at the page of a node as an operator does, in a browser: under load, through orders, a switchover, a primary that is
// killed, and an upgrade, with a password that is wrong before the right one.
func TestPage(t *testing.T) {
	t.Parallel()
	c := up(t, 86, sandbox.Config{Fall: patient})
	one := c.member(1)
	const password = "a horse of its own"
	text, err := os.ReadFile(c.Inventory())
	if err != nil {
		t.Fatal(err)
	}
	edited := strings.Replace(string(text), "    pg_rto:", "    pgporter_page_actions: true\n    haproxy_admin_password: "+password+"\n    pg_rto:", 1)
	if edited == string(text) {
		t.Fatalf("the inventory has no pg_rto:\n%s", text)
	}
	if err := os.WriteFile(c.Inventory(), []byte(edited), 0o600); err != nil {
		t.Fatal(err)
	}
	// The sandbox's unprivileged user reads it.
	if info, err := os.Stat(filepath.Dir(c.Inventory())); err == nil {
		if owner, is := info.Sys().(*syscall.Stat_t); is {
			_ = os.Chown(c.Inventory(), int(owner.Uid), int(owner.Gid))
		}
	}
	if err := c.Kill(t.Context(), syscall.SIGHUP, "pg-test-1/pgporter"); err != nil {
		t.Fatal(err)
	}
	client := api.Client{Address: one + ":8432"}
	server := func(ctx context.Context, service, member string) (api.Server, error) {
		s, err := client.Status(ctx)
		if err != nil {
			return api.Server{}, err
		}
		for _, cl := range s.Clusters {
			for _, sv := range cl.Services {
				for _, v := range sv.Servers {
					if sv.FullName == service && v.Member == member {
						return v, nil
					}
				}
			}
		}
		return api.Server{}, fmt.Errorf("no server %s of %s", member, service)
	}
	eventually(t, patience, func(ctx context.Context) error {
		s, err := client.Status(ctx)
		if err == nil && (s.Page == nil || !s.Page.Actions || s.Page.Warning != "" || s.Page.Problem != "") {
			err = fmt.Errorf("the page: %+v", s.Page)
		}
		return err
	})
	c.readers(one, primary, 6, "9000")
	c.readers(one, replica, 9, "24000")
	c.readers(one, direct, 3, "3000")
	c.readers(one, offline, 2, "60000")

	at := "http://" + one + ":9101/haproxy/pg-test-1/"
	b := browser.Open(t, "401 (Unauthorized)", "net::ERR_")
	shots := os.Getenv("PGPORTER_SCREENSHOTS") != ""
	b.Size(1280, 800, false, !shots)
	b.Do("open", chromedp.Navigate(at))
	b.Sees("all 4 services are served")
	b.Until("traffic in the picture", `document.querySelectorAll('svg.picture .flows').length >= 8 && document.querySelector('svg.picture .primary .name').textContent === '★ pg-test-1'`)
	// A page that is opened anew has what was before.
	long := 15
	if shots {
		long = 300
	}
	for s := min(long, 60); s <= long; s += 60 {
		b.Until("some time", fmt.Sprintf(`performance.now() > %d`, 1000*s))
	}
	b.Do("anew", chromedp.Reload())
	b.Until("charts with a past", fmt.Sprintf(`[...document.querySelectorAll('svg.chart .curve0')].some(p => p.getBBox().width > %d)`, long*200/600*2/3))
	b.Shoot("page-light")

	// The scrape goes on as it was, whoever looks.
	if res, err := http.Get("http://" + one + ":9101/metrics"); err != nil {
		t.Error(err)
	} else {
		body, _ := io.ReadAll(res.Body)
		res.Body.Close()
		if !bytes.Contains(body, []byte(`haproxy_server_status{proxy="pg-test-primary"`)) {
			t.Errorf("the metrics: %.500s", body)
		}
	}
	// What HAProxy's page takes changes nothing here.
	form, err := http.NewRequestWithContext(t.Context(), "POST", at, strings.NewReader("s=pg-test-1&b=%233&action=drain"))
	if err != nil {
		t.Fatal(err)
	}
	form.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	form.SetBasicAuth("admin", password)
	if res, err := http.DefaultClient.Do(form); err != nil {
		t.Error(err)
	} else if res.Body.Close(); res.StatusCode != http.StatusForbidden {
		t.Errorf("HAProxy's form: %d", res.StatusCode)
	}

	b.Until("somebody may log in", `document.getElementById('session').textContent === 'Log in'`)
	b.Press("l")
	b.Until("the dialog", `document.activeElement.name === 'password'`)
	b.Press("pigsty" + kb.Enter)
	b.Sees("the name or the password is wrong")
	b.Press(password + kb.Enter)
	b.Until("logged in", `document.getElementById('session').textContent === 'Log out admin'`)
	act := func(service, member, what string, is func(api.Server) bool) {
		t.Helper()
		button := fmt.Sprintf(`document.querySelector('[data-key="s %s"] [data-key="v %s"] [data-do="%s"]')`, service, member, what)
		b.Until("a button", button+` !== null`)
		b.Do(what, chromedp.Evaluate[chromedp.Void](`void `+button+`.click()`))
		b.Until("what will happen", `document.querySelector('#dialog .go')?.disabled === false && document.querySelectorAll('#dialog .effects li').length === 1`)
		if what == "weight" {
			b.Press("3")
			b.Until("what will happen", `document.querySelector('#dialog .go')?.disabled === false`)
		}
		t.Logf("%s: %s", what, browser.Eval[string](b, `document.querySelector('#dialog .effects').innerText`))
		if before, err := server(t.Context(), service, member); err != nil || is(before) {
			t.Errorf("it was done before it was confirmed: %+v, %v", before.Order, err)
		}
		b.Do("confirm", chromedp.Evaluate[chromedp.Void](`void document.querySelector('#dialog .go').click()`))
		b.Until("done", `!document.getElementById('dialog').open`)
		eventually(t, patience, func(ctx context.Context) error {
			s, err := server(ctx, service, member)
			if err == nil && !is(s) {
				err = fmt.Errorf("after %s: %+v", what, s.Order)
			}
			return err
		})
	}
	state := func(want api.ServerState) func(api.Server) bool {
		return func(s api.Server) bool {
			return s.Order != nil && s.Order.State == want && strings.HasPrefix(s.Order.By, "admin at 127.") && strings.HasSuffix(s.Order.By, "(page)")
		}
	}
	act("pg-test-replica", "pg-test-2", "drain", state(api.Drain))
	b.Sees("drained by admin at 127.")
	c.t = t
	for range 4 {
		if i, err := ask(t.Context(), one, replica); err != nil || i.address != c.member(3) {
			t.Errorf("with pg-test-2 drained: %s, %v", i, err)
		}
	}
	act("pg-test-replica", "pg-test-2", "maint", state(api.Maintenance))
	act("pg-test-replica", "pg-test-2", "ready", func(s api.Server) bool { return s.Order == nil || s.Order.State == api.Ready })
	act("pg-test-replica", "pg-test-3", "weight", func(s api.Server) bool { return s.Weight == 3 })
	b.Sees("its weight is 3, it was 100 by admin at 127.")

	// A switchover under load.
	if _, err := c.Switchover(t.Context(), "pg-test-2"); err != nil {
		t.Fatal(err)
	}
	b.Until("another primary", `document.querySelector('svg.picture .primary .name').textContent === '★ pg-test-2'`)
	b.Sees("all 4 services are served")
	b.Until("in what happened", `[...document.querySelectorAll('.event .what')].some(e => e.textContent.includes('pg-test-2') && e.textContent.includes('primary'))`)
	b.Until("traffic to it", `document.querySelectorAll('svg.picture .flows').length >= 8`)

	// A primary whose machine is gone.
	if err := c.Kill(t.Context(), syscall.SIGKILL, "pg-test-2/patroni", "pg-test-2/postgres", "pg-test-2/pgbouncer"); err != nil {
		t.Fatal(err)
	}
	b.Until("crossed out", `document.querySelectorAll('svg.picture .member.is-down .crossed').length === 1`)
	b.Size(1280, 800, true, !shots)
	b.Until("ill, and in a word why", `document.title.startsWith('✕') && document.querySelector('ul.words').innerText.includes('no server takes clients')`)
	b.Shoot("page-dark")
	b.Size(390, 844, false, true)
	b.Until("narrow", `innerWidth === 390`)
	b.Fits("a phone")
	b.Shoot("page-phone")
	b.Until("a new primary", `!['★ pg-test-2', undefined].includes(document.querySelector('svg.picture .primary .name')?.textContent) && !document.title.startsWith('✕')`)
	b.Size(1280, 800, false, !shots)

	// An upgrade ends the stream, which comes back by itself, with the port.
	before := browser.Eval[string](b, `document.getElementById('foot').innerText.match(/process\s+(\d+)/)[1]`)
	if err := c.Kill(t.Context(), syscall.SIGUSR2, "pg-test-1/pgporter"); err != nil {
		t.Fatal(err)
	}
	b.Until("of the next process", `!document.body.classList.contains('lost') && document.getElementById('foot').innerText.includes('took') && document.getElementById('foot').innerText.match(/process\s+(\d+)/)[1] !== '`+before+`'`)
	b.Until("with what happened before", `[...document.querySelectorAll('.event .what')].some(e => e.textContent.includes('pg-test-2') && e.textContent.includes('primary'))`)
	log := c.log("pg-test-1/pgporter")
	for _, want := range []string{"a login to the page failed", "logged in to the page", "an order from the page was carried out"} {
		if !strings.Contains(log, want) {
			t.Errorf("the log doesn't say %q", want)
		}
	}
	if strings.Contains(log, "no page and no metrics") {
		t.Error("the port was lost at the upgrade")
	}
	if strings.Contains(log, password) {
		t.Error("the log has the password")
	}
}
