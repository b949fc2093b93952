package web

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"log/slog"
	"math/big"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/chromedp/cdproto/emulation"
	"github.com/chromedp/chromedp"
	"github.com/chromedp/chromedp/kb"

	"github.com/pgporter/pgporter/internal/access/gate"
	"github.com/pgporter/pgporter/lab/e2e/browser"
)

// patience is how long what has to come may take on a busy machine.
const patience = 90 * time.Second

// site is an address that shows a world.
type site struct {
	world   *fakeWorld
	feed    *Feed
	actions *Actions
	at      string
	config  Config
	tls     *tls.Config
	stop    func()
}

// open shows a world at an address: a new one, or the one it was shown at before.
func (s *site) open(t *testing.T) {
	t.Helper()
	at := s.at
	if at == "" {
		at = "127.0.0.1:0"
	}
	l, err := net.Listen("tcp", at)
	if err != nil {
		t.Fatal(err)
	}
	s.at = l.Addr().String()
	ctx, cancel := context.WithCancel(t.Context())
	var joined sync.WaitGroup
	joined.Go(func() { s.feed.Run(ctx) })
	joined.Go(func() {
		if err := Serve(ctx, gate.New(l, gate.Of(32), nil), Handler(s.config), s.tls, slog.New(slog.DiscardHandler)); err != nil {
			t.Error(err)
		}
	})
	var once sync.Once
	s.stop = func() {
		once.Do(func() {
			cancel()
			joined.Wait()
		})
	}
	t.Cleanup(s.stop)
}

func show(t *testing.T, w *fakeWorld) *site {
	t.Helper()
	s := &site{world: w, feed: NewFeed(w.Status, w), actions: NewActions(w.order, slog.New(slog.DiscardHandler))}
	s.actions.Set(Access{On: true, User: "admin", Loopback: true}, "right horse")
	s.config = Config{Status: w.Status, Problems: none, Names: none, Feed: s.feed, Streams: 16, Actions: s.actions, Events: w.Events}
	s.open(t)
	return s
}

// certificate is one that nobody trusts.
func certificate(t *testing.T) *tls.Config {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	of := &x509.Certificate{SerialNumber: big.NewInt(1), NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour), IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}}
	der, err := x509.CreateCertificate(rand.Reader, of, of, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	return &tls.Config{Certificates: []tls.Certificate{{Certificate: [][]byte{der}, PrivateKey: key}}}
}

// The page through a failover, in both themes and as wide as a phone, with nothing on the console.
func TestBrowserThroughAFailover(t *testing.T) {
	w := newWorld(1)
	s := show(t, w)
	b := browser.Open(t)
	b.Size(1280, 900, false, false)
	b.Do("open", chromedp.Navigate("http://"+s.at+"/haproxy/pg-test-1/"))
	b.Sees("all 4 services are served")
	b.Until("the picture", `document.querySelectorAll('svg.picture .primary').length === 1 && document.querySelectorAll('svg.picture .flows').length > 3`)
	if got := browser.Eval[string](b, `document.querySelector('svg.picture .primary .name').textContent`); got != "★ pg-test-1" {
		t.Errorf("the primary is %q", got)
	}
	b.Until("charts", `document.querySelectorAll('svg.chart').length === 6 && document.querySelectorAll('svg.chart .curve').length >= 20`)
	light := browser.Eval[string](b, `getComputedStyle(document.documentElement).backgroundColor`)
	b.Shoot("well-light")

	w.fail(1, "silent: connection refused")
	b.Until("a member down in the picture", `document.querySelectorAll('svg.picture .is-down.member .crossed').length === 1`)
	b.Sees("primary: no server takes clients")
	b.Sees("7 clients wait")
	b.Until("said aloud", `document.getElementById('spoken').textContent.includes('pg-test is ill')`)
	b.Until("the title", `document.title.startsWith('✕ pg-test-1')`)
	b.Shoot("ill-light")
	w.switchTo(2)
	b.Until("another primary", `(document.querySelector('svg.picture .primary .name') || {}).textContent === '★ pg-test-2'`)
	b.Sees("pg-test-2 is primary now")
	b.Sees("pg-test-1 is down: silent: connection refused")

	b.Size(1280, 900, true, false)
	b.Until("dark", `getComputedStyle(document.documentElement).backgroundColor !== `+browser.Quoted(light))
	b.Shoot("look-dark")
	b.Press("t")
	b.Until("light, whatever the system wants", `getComputedStyle(document.documentElement).backgroundColor === `+browser.Quoted(light))
	b.Press("t")
	b.Until("dark", `getComputedStyle(document.documentElement).backgroundColor !== `+browser.Quoted(light))
	b.Press("t")
	b.Fits("wide")

	b.Size(390, 844, false, true)
	b.Until("narrow", `innerWidth === 390 && document.querySelector('svg.picture').clientWidth < 390`)
	b.Fits("on a phone")
	if n := browser.Eval[int](b, `document.querySelectorAll('.drift').length`); n != 0 {
		t.Errorf("%d things move though nobody wants it", n)
	}
	b.Shoot("look-phone")
	w.fail(1, "")
	b.Sees("all 4 services are served")
}

// Everything can be done with keys.
func TestBrowserKeys(t *testing.T) {
	w := newWorld(25)
	s := show(t, w)
	b := browser.Open(t)
	b.Size(1280, 900, false, true)
	b.Do("open", chromedp.Navigate("http://"+s.at+"/"))
	b.Until("the list", `document.querySelectorAll('table.list tbody tr').length === 25`)
	b.Fits("the list")
	b.Shoot("overview-light")
	b.Press("j")
	b.Press("j")
	b.Press(kb.ArrowDown)
	b.Press("k")
	b.Until("the second row", `document.activeElement.dataset.key === 'c pg-001'`)
	// The stream changes the row, and the focus stays.
	b.Until("still the second row after some seconds", `(self.first ??= Date.now(), document.activeElement.dataset.key === 'c pg-001' && Date.now() - self.first > 2500)`)
	if outline := browser.Eval[string](b, `getComputedStyle(document.activeElement).outlineStyle`); outline != "solid" {
		t.Errorf("the focus isn't seen: %s", outline)
	}
	b.Press(kb.Enter)
	b.Until("opened", `location.hash === '#/c/pg-001' && document.querySelectorAll('section.service').length === 4`)
	b.Press(kb.Escape)
	b.Until("back", `location.hash === '#/' && document.querySelector('table.list') !== null`)
	b.Press("/")
	b.Until("the field", `document.activeElement.id === 'find'`)
	b.Press("017")
	b.Until("found", `document.querySelectorAll('table.list tbody tr').length === 1 && document.activeElement.id === 'find' && document.activeElement.value === '017'`)
	b.Press(kb.Enter)
	b.Until("opened", `location.hash === '#/c/pg-017'`)
	b.Press("e")
	b.Sees("Nothing has happened")
	w.switchTo(3)
	b.Sees("pg-test-3 is primary now")
	b.Press("?")
	b.Until("help", `document.getElementById('dialog').open`)
	b.Press(kb.Escape)
	b.Until("closed", `!document.getElementById('dialog').open`)
	b.Press("o")
	b.Until("the list", `location.hash === '#/'`)
	b.Size(390, 844, true, true)
	b.Until("narrow", `innerWidth === 390`)
	b.Fits("the list on a phone")
	b.Shoot("overview-phone")
}

// Who logs in may act, is told before what will happen, and stays nobody with a wrong password.
func TestBrowserActs(t *testing.T) {
	for name, encrypted := range map[string]bool{"plain": false, "TLS": true} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(1)
			s := &site{world: w, feed: NewFeed(w.Status, w), actions: NewActions(w.order, slog.New(slog.DiscardHandler))}
			s.actions.Set(Access{On: true, User: "admin", Loopback: true}, "right horse")
			s.config = Config{Status: w.Status, Problems: none, Names: none, Feed: s.feed, Streams: 16, Actions: s.actions, Events: w.Events}
			scheme := "http://"
			if encrypted {
				s.tls, scheme = certificate(t), "https://"
			}
			s.open(t)
			b := browser.Open(t, "401 (Unauthorized)", "409 (Conflict)")
			b.Size(1280, 900, false, true)
			b.Do("open", chromedp.Navigate(scheme+s.at+"/haproxy/pg-test-1/"))
			b.Until("may log in", `document.getElementById('session').textContent === 'Log in'`)
			if n := browser.Eval[int](b, `document.querySelectorAll('.act').length`); n != 0 {
				t.Errorf("%d buttons for nobody", n)
			}
			b.Press("l")
			b.Until("the dialog", `document.activeElement.name === 'password'`)
			b.Press("wrong" + kb.Enter)
			b.Sees("the name or the password is wrong")
			b.Press("right horse" + kb.Enter)
			b.Until("logged in", `document.getElementById('session').textContent === 'Log out admin' && document.querySelectorAll('.act').length > 10`)
			if browser.Eval[string](b, `document.cookie`) != "" {
				t.Error("scripts see the cookie")
			}
			click := func(row, what string) {
				t.Helper()
				selector := `[data-key="s pg-test-replica"] [data-key="v ` + row + `"] [data-do="` + what + `"]`
				b.Until("a button to "+what, `document.querySelector('`+selector+`') !== null`)
				b.Do(what, chromedp.Evaluate[chromedp.Void](`void document.querySelector('`+selector+`').click()`))
				b.Until("the dialog", `document.getElementById('dialog').open`)
			}
			confirm := func() {
				t.Helper()
				b.Until("may be confirmed", `document.querySelector('#dialog .go')?.disabled === false`)
				b.Do("confirm", chromedp.Evaluate[chromedp.Void](`void document.querySelector('#dialog .go').click()`))
				b.Until("done", `!document.getElementById('dialog').open`)
			}
			state := func(row, want string) {
				t.Helper()
				b.Until(row+" is "+want, `document.querySelector('[data-key="s pg-test-replica"] [data-key="v `+row+`"] .state').innerText.endsWith('`+want+`')`)
			}
			click("pg-test-2", "drain")
			b.Until("what will happen", `document.querySelector('#dialog .effects')?.innerText.includes('takes no new clients') === true`)
			b.Shoot("order-" + name)
			confirm()
			state("pg-test-2", "drained")
			b.Sees("drained by admin at 127.0.0.1 (page)")
			b.Until("hatched", `document.querySelectorAll('svg.picture .to-drain').length > 0`)
			click("pg-test-2", "maint")
			confirm()
			state("pg-test-2", "maintenance")
			click("pg-test-2", "ready")
			confirm()
			state("pg-test-2", "serving")
			click("pg-test-3", "weight")
			b.Press("7")
			confirm()
			b.Sees("7 (declared 100)")
			// One that isn't confirmed changes nothing.
			click("pg-test-3", "drain")
			b.Press(kb.Escape)
			b.Until("closed", `!document.getElementById('dialog').open`)
			state("pg-test-3", "serving")
			// One that is refused says why.
			w.mu.Lock()
			w.refuse = errors.New("a new process is taking over")
			w.mu.Unlock()
			click("pg-test-3", "drain")
			b.Sees("a new process is taking over")
			b.Press(kb.Escape)
			w.mu.Lock()
			w.refuse = nil
			for _, o := range w.given {
				if o.By != "admin at 127.0.0.1 (page)" {
					t.Errorf("ordered by %q", o.By)
				}
			}
			w.mu.Unlock()
			// A session that ended asks anew.
			s.actions.logins.end(session{})
			click("pg-test-3", "drain")
			b.Until("asked anew", `document.querySelector('#dialog form.login') !== null`)
			b.Press("right horse" + kb.Enter)
			b.Until("what will happen", `document.querySelector('#dialog .effects')?.innerText.includes('takes no new clients') === true`)
			b.Press(kb.Escape)
			b.Until("closed", `!document.getElementById('dialog').open`)
			b.Press("l")
			b.Until("logged out", `document.getElementById('session').textContent === 'Log in' && document.querySelectorAll('.act').length === 0`)
		})
	}
}

// A stream that is lost is said, since when, and comes back by itself.
func TestBrowserLosesTheStream(t *testing.T) {
	w := newWorld(1)
	s := show(t, w)
	b := browser.Open(t, "net::ERR_")
	b.Size(1280, 900, false, true)
	b.Do("open", chromedp.Navigate("http://"+s.at+"/"))
	b.Sees("all 4 services are served")
	s.stop()
	b.Until("lost", `document.body.classList.contains('lost') && /No word from this pgporter since \d\d:\d\d:\d\d, \d+s ago/.test(document.getElementById('link').textContent) && document.title.startsWith('⚠ lost')`)
	b.Shoot("lost")
	w.switchTo(2)
	s.open(t)
	b.Until("back", `!document.body.classList.contains('lost') && document.getElementById('link').textContent === ''`)
	b.Until("the newest", `document.querySelector('svg.picture .primary .name').textContent === '★ pg-test-2'`)
	b.Sees("pg-test-2 is primary now")
}

// Without scripts there is a table.
func TestBrowserWithoutScripts(t *testing.T) {
	s := show(t, newWorld(2))
	b := browser.Open(t)
	if _, err := chromedp.Call(b.Context, emulation.SetScriptExecutionDisabled, emulation.SetScriptExecutionDisabledParams{Value: true}); err != nil {
		t.Fatal(err)
	}
	b.Do("open", chromedp.Navigate("http://"+s.at+"/haproxy/pg-test-1/"))
	b.Do("the table", chromedp.WaitReady("body.plain table"))
	ctx, cancel := context.WithTimeout(b.Context, patience)
	defer cancel()
	if text, err := chromedp.Run(ctx, chromedp.Text("body")); err != nil || !strings.Contains(text, "pg-test-primary") || !strings.Contains(text, "serving") {
		t.Errorf("%q, %v", text, err)
	}
}
