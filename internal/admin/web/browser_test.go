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
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/chromedp/cdproto/cdp"
	"github.com/chromedp/cdproto/emulation"
	"github.com/chromedp/cdproto/input"
	"github.com/chromedp/cdproto/log"
	"github.com/chromedp/chromedp"
	"github.com/chromedp/chromedp/kb"

	"github.com/pgporter/pgporter/internal/access/gate"
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

// tab is a tab of a headless Chromium, and what its console said.
type tab struct {
	context.Context
	t    *testing.T
	mu   sync.Mutex
	said []string
}

// browse starts a browser. Whatever the console says that is no information fails the test, unless it is expected.
func browse(t *testing.T, expected ...string) *tab {
	t.Helper()
	program := ""
	for _, name := range []string{"chromium", "chromium-browser", "google-chrome"} {
		if path, err := exec.LookPath(name); err == nil {
			program = path
			break
		}
	}
	if program == "" {
		t.Fatal("there is no Chromium: scripts/prerequisites installs it")
	}
	options := append(chromedp.DefaultExecAllocatorOptions[:], chromedp.ExecPath(program), chromedp.WSURLReadTimeout(patience), chromedp.Flag("disable-dev-shm-usage", true),
		chromedp.Flag("ignore-certificate-errors", true), chromedp.WindowSize(1280, 900))
	if os.Geteuid() == 0 {
		options = append(options, chromedp.NoSandbox)
	}
	allocator, end := chromedp.NewExecAllocator(t.Context(), options...)
	ctx, cancel := chromedp.NewContext(allocator)
	b := &tab{Context: ctx, t: t}
	t.Cleanup(func() {
		// The browser is told to end, and waited for.
		if err := chromedp.Cancel(ctx); err != nil && !errors.Is(err, context.Canceled) {
			t.Log(err)
		}
		cancel()
		end()
	})
	// It lives as long as the context of its first action.
	if err := chromedp.Do(ctx); err != nil {
		t.Fatal(err)
	}
	if _, err := chromedp.Call(ctx, log.Enable, cdp.Empty{}); err != nil {
		t.Fatal(err)
	}
	console, silence := context.WithCancel(ctx)
	messages := chromedp.Console(console)
	var listening sync.WaitGroup
	listening.Go(func() {
		for m, err := range messages {
			if err != nil {
				return
			}
			if m.Type == "warning" || m.Type == "error" || m.Type == "assert" || m.IsException() {
				b.mu.Lock()
				b.said = append(b.said, m.String())
				b.mu.Unlock()
			}
		}
	})
	t.Cleanup(func() {
		silence()
		listening.Wait()
	said:
		for _, line := range b.said {
			for _, e := range expected {
				if strings.Contains(line, e) {
					continue said
				}
			}
			t.Errorf("the console says: %s", line)
		}
	})
	return b
}

// do does something in the tab, for as long as a busy machine may take.
func (b *tab) do(what string, actions ...chromedp.Action[chromedp.Void]) {
	b.t.Helper()
	ctx, cancel := context.WithTimeout(b.Context, patience)
	defer cancel()
	if err := chromedp.Do(ctx, actions...); err != nil {
		b.t.Fatalf("%s: %v", what, err)
	}
}

// eval gives what an expression is.
func eval[T any](b *tab, expression string) T {
	b.t.Helper()
	ctx, cancel := context.WithTimeout(b.Context, patience)
	defer cancel()
	v, err := chromedp.Run(ctx, chromedp.Evaluate[T](expression))
	if err != nil {
		b.t.Fatalf("%s: %v", expression, err)
	}
	return v
}

// until waits for an expression to be true. It is asked for again and again: the page's own policy lets nobody make functions of texts in it.
func (b *tab) until(what, expression string) {
	b.t.Helper()
	again := time.NewTicker(50 * time.Millisecond)
	defer again.Stop()
	for limit := time.After(patience); !eval[bool](b, expression); {
		select {
		case <-again.C:
		case <-limit:
			b.t.Fatalf("%s: not within %s; the page shows:\n%s", what, patience, eval[string](b, `document.body.innerText`))
		}
	}
}

// sees waits for a text on the page.
func (b *tab) sees(text string) {
	b.t.Helper()
	b.until("no "+text, `document.body.innerText.includes(`+quoted(text)+`)`)
}

func quoted(text string) string {
	return "`" + strings.NewReplacer("`", "\\`", "\\", "\\\\").Replace(text) + "`"
}

// press presses keys. A character comes with the key that is pressed, as from a keyboard: whoever takes the key keeps it out of a field.
func (b *tab) press(keys string) {
	b.t.Helper()
	for _, key := range keys {
		if key < ' ' || key > '~' {
			b.do("press a key", chromedp.KeyEvent(string(key)))
			continue
		}
		for _, kind := range []input.DispatchKeyEventType{input.DispatchKeyEventTypeKeyDown, input.DispatchKeyEventTypeKeyUp} {
			params := input.DispatchKeyEventParams{Type: kind, Key: string(key)}
			if kind == input.DispatchKeyEventTypeKeyDown {
				params.Text = string(key)
			}
			if _, err := chromedp.Call(b.Context, input.DispatchKeyEvent, params); err != nil {
				b.t.Fatal(err)
			}
		}
	}
}

// shoot keeps a picture of what is seen, where PGPORTER_SCREENSHOTS says, or with the test.
func (b *tab) shoot(name string) {
	b.t.Helper()
	ctx, cancel := context.WithTimeout(b.Context, patience)
	defer cancel()
	picture, err := chromedp.Run(ctx, chromedp.FullScreenshot(100))
	if err != nil {
		b.t.Fatal(err)
	}
	dir := os.Getenv("PGPORTER_SCREENSHOTS")
	if dir == "" {
		return
	}
	if err := os.WriteFile(filepath.Join(dir, name+".png"), picture, 0o644); err != nil {
		b.t.Fatal(err)
	}
}

// size makes the window as large as a screen; dark is the system's theme.
func (b *tab) size(width, height int64, dark, calm bool) {
	b.t.Helper()
	features := []*emulation.MediaFeature{{Name: "prefers-color-scheme", Value: map[bool]string{true: "dark", false: "light"}[dark]}}
	if calm {
		features = append(features, &emulation.MediaFeature{Name: "prefers-reduced-motion", Value: "reduce"})
	}
	b.do("size", chromedp.EmulateViewport(width, height))
	if _, err := chromedp.Call(b.Context, emulation.SetEmulatedMedia, emulation.SetEmulatedMediaParams{Features: features}); err != nil {
		b.t.Fatal(err)
	}
}

// fits says that nothing is wider than the window.
func (b *tab) fits(when string) {
	b.t.Helper()
	if wide := eval[string](b, `[...document.querySelectorAll('body *')].filter(e => !e.closest('.scroll, svg, .unseen, thead, dialog, .skip') && e.getBoundingClientRect().right > innerWidth + 1).map(e => e.tagName + '.' + e.className).join(' ')`); wide != "" {
		b.t.Errorf("%s: wider than the window: %s", when, wide)
	}
	if eval[bool](b, `document.documentElement.scrollWidth > innerWidth + 1`) {
		b.t.Errorf("%s: the page is wider than the window", when)
	}
}

// The page through a failover, in both themes and as wide as a phone, with nothing on the console.
func TestBrowserThroughAFailover(t *testing.T) {
	w := newWorld(1)
	s := show(t, w)
	b := browse(t)
	b.size(1280, 900, false, false)
	b.do("open", chromedp.Navigate("http://"+s.at+"/haproxy/pg-test-1/"))
	b.sees("all 4 services are served")
	b.until("the picture", `document.querySelectorAll('svg.picture .primary').length === 1 && document.querySelectorAll('svg.picture .flows').length > 3`)
	if got := eval[string](b, `document.querySelector('svg.picture .primary .name').textContent`); got != "★ pg-test-1" {
		t.Errorf("the primary is %q", got)
	}
	b.until("charts", `document.querySelectorAll('svg.chart').length === 6 && document.querySelectorAll('svg.chart .curve').length >= 20`)
	light := eval[string](b, `getComputedStyle(document.documentElement).backgroundColor`)
	b.shoot("well-light")

	w.fail(1, "silent: connection refused")
	b.until("a member down in the picture", `document.querySelectorAll('svg.picture .is-down.member .crossed').length === 1`)
	b.sees("primary: no server takes clients")
	b.sees("7 clients wait")
	b.until("said aloud", `document.getElementById('spoken').textContent.includes('pg-test is ill')`)
	b.until("the title", `document.title.startsWith('✕ pg-test-1')`)
	b.shoot("ill-light")
	w.switchTo(2)
	b.until("another primary", `(document.querySelector('svg.picture .primary .name') || {}).textContent === '★ pg-test-2'`)
	b.sees("pg-test-2 is primary now")
	b.sees("pg-test-1 is down: silent: connection refused")

	b.size(1280, 900, true, false)
	b.until("dark", `getComputedStyle(document.documentElement).backgroundColor !== `+quoted(light))
	b.shoot("look-dark")
	b.press("t")
	b.until("light, whatever the system wants", `getComputedStyle(document.documentElement).backgroundColor === `+quoted(light))
	b.press("t")
	b.until("dark", `getComputedStyle(document.documentElement).backgroundColor !== `+quoted(light))
	b.press("t")
	b.fits("wide")

	b.size(390, 844, false, true)
	b.until("narrow", `innerWidth === 390 && document.querySelector('svg.picture').clientWidth < 390`)
	b.fits("on a phone")
	if n := eval[int](b, `document.querySelectorAll('.drift').length`); n != 0 {
		t.Errorf("%d things move though nobody wants it", n)
	}
	b.shoot("look-phone")
	w.fail(1, "")
	b.sees("all 4 services are served")
}

// Everything can be done with keys.
func TestBrowserKeys(t *testing.T) {
	w := newWorld(25)
	s := show(t, w)
	b := browse(t)
	b.size(1280, 900, false, true)
	b.do("open", chromedp.Navigate("http://"+s.at+"/"))
	b.until("the list", `document.querySelectorAll('table.list tbody tr').length === 25`)
	b.fits("the list")
	b.shoot("overview-light")
	b.press("j")
	b.press("j")
	b.press(kb.ArrowDown)
	b.press("k")
	b.until("the second row", `document.activeElement.dataset.key === 'c pg-001'`)
	// The stream changes the row, and the focus stays.
	b.until("still the second row after some seconds", `(self.first ??= Date.now(), document.activeElement.dataset.key === 'c pg-001' && Date.now() - self.first > 2500)`)
	if outline := eval[string](b, `getComputedStyle(document.activeElement).outlineStyle`); outline != "solid" {
		t.Errorf("the focus isn't seen: %s", outline)
	}
	b.press(kb.Enter)
	b.until("opened", `location.hash === '#/c/pg-001' && document.querySelectorAll('section.service').length === 4`)
	b.press(kb.Escape)
	b.until("back", `location.hash === '#/' && document.querySelector('table.list') !== null`)
	b.press("/")
	b.until("the field", `document.activeElement.id === 'find'`)
	b.press("017")
	b.until("found", `document.querySelectorAll('table.list tbody tr').length === 1 && document.activeElement.id === 'find' && document.activeElement.value === '017'`)
	b.press(kb.Enter)
	b.until("opened", `location.hash === '#/c/pg-017'`)
	b.press("e")
	b.sees("Nothing has happened")
	w.switchTo(3)
	b.sees("pg-test-3 is primary now")
	b.press("?")
	b.until("help", `document.getElementById('dialog').open`)
	b.press(kb.Escape)
	b.until("closed", `!document.getElementById('dialog').open`)
	b.press("o")
	b.until("the list", `location.hash === '#/'`)
	b.size(390, 844, true, true)
	b.until("narrow", `innerWidth === 390`)
	b.fits("the list on a phone")
	b.shoot("overview-phone")
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
			b := browse(t, "401 (Unauthorized)", "409 (Conflict)")
			b.size(1280, 900, false, true)
			b.do("open", chromedp.Navigate(scheme+s.at+"/haproxy/pg-test-1/"))
			b.until("may log in", `document.getElementById('session').textContent === 'Log in'`)
			if n := eval[int](b, `document.querySelectorAll('.act').length`); n != 0 {
				t.Errorf("%d buttons for nobody", n)
			}
			b.press("l")
			b.until("the dialog", `document.activeElement.name === 'password'`)
			b.press("wrong" + kb.Enter)
			b.sees("the name or the password is wrong")
			b.press("right horse" + kb.Enter)
			b.until("logged in", `document.getElementById('session').textContent === 'Log out admin' && document.querySelectorAll('.act').length > 10`)
			if eval[string](b, `document.cookie`) != "" {
				t.Error("scripts see the cookie")
			}
			click := func(row, what string) {
				t.Helper()
				selector := `[data-key="s pg-test-replica"] [data-key="v ` + row + `"] [data-do="` + what + `"]`
				b.until("a button to "+what, `document.querySelector('`+selector+`') !== null`)
				b.do(what, chromedp.Evaluate[chromedp.Void](`void document.querySelector('`+selector+`').click()`))
				b.until("the dialog", `document.getElementById('dialog').open`)
			}
			confirm := func() {
				t.Helper()
				b.until("may be confirmed", `document.querySelector('#dialog .go')?.disabled === false`)
				b.do("confirm", chromedp.Evaluate[chromedp.Void](`void document.querySelector('#dialog .go').click()`))
				b.until("done", `!document.getElementById('dialog').open`)
			}
			state := func(row, want string) {
				t.Helper()
				b.until(row+" is "+want, `document.querySelector('[data-key="s pg-test-replica"] [data-key="v `+row+`"] .state').innerText.endsWith('`+want+`')`)
			}
			click("pg-test-2", "drain")
			b.until("what will happen", `document.querySelector('#dialog .effects')?.innerText.includes('takes no new clients') === true`)
			b.shoot("order-" + name)
			confirm()
			state("pg-test-2", "drained")
			b.sees("drained by admin at 127.0.0.1 (page)")
			b.until("hatched", `document.querySelectorAll('svg.picture .to-drain').length > 0`)
			click("pg-test-2", "maint")
			confirm()
			state("pg-test-2", "maintenance")
			click("pg-test-2", "ready")
			confirm()
			state("pg-test-2", "serving")
			click("pg-test-3", "weight")
			b.press("7")
			confirm()
			b.sees("7 (declared 100)")
			// One that isn't confirmed changes nothing.
			click("pg-test-3", "drain")
			b.press(kb.Escape)
			b.until("closed", `!document.getElementById('dialog').open`)
			state("pg-test-3", "serving")
			// One that is refused says why.
			w.mu.Lock()
			w.refuse = errors.New("a new process is taking over")
			w.mu.Unlock()
			click("pg-test-3", "drain")
			b.sees("a new process is taking over")
			b.press(kb.Escape)
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
			b.until("asked anew", `document.querySelector('#dialog form.login') !== null`)
			b.press("right horse" + kb.Enter)
			b.until("what will happen", `document.querySelector('#dialog .effects')?.innerText.includes('takes no new clients') === true`)
			b.press(kb.Escape)
			b.until("closed", `!document.getElementById('dialog').open`)
			b.press("l")
			b.until("logged out", `document.getElementById('session').textContent === 'Log in' && document.querySelectorAll('.act').length === 0`)
		})
	}
}

// A stream that is lost is said, since when, and comes back by itself.
func TestBrowserLosesTheStream(t *testing.T) {
	w := newWorld(1)
	s := show(t, w)
	b := browse(t, "net::ERR_")
	b.size(1280, 900, false, true)
	b.do("open", chromedp.Navigate("http://"+s.at+"/"))
	b.sees("all 4 services are served")
	s.stop()
	b.until("lost", `document.body.classList.contains('lost') && /No word from this pgporter since \d\d:\d\d:\d\d, \d+s ago/.test(document.getElementById('link').textContent) && document.title.startsWith('⚠ lost')`)
	b.shoot("lost")
	w.switchTo(2)
	s.open(t)
	b.until("back", `!document.body.classList.contains('lost') && document.getElementById('link').textContent === ''`)
	b.until("the newest", `document.querySelector('svg.picture .primary .name').textContent === '★ pg-test-2'`)
	b.sees("pg-test-2 is primary now")
}

// Without scripts there is a table.
func TestBrowserWithoutScripts(t *testing.T) {
	s := show(t, newWorld(2))
	b := browse(t)
	if _, err := chromedp.Call(b.Context, emulation.SetScriptExecutionDisabled, emulation.SetScriptExecutionDisabledParams{Value: true}); err != nil {
		t.Fatal(err)
	}
	b.do("open", chromedp.Navigate("http://"+s.at+"/haproxy/pg-test-1/"))
	b.do("the table", chromedp.WaitReady("body.plain table"))
	ctx, cancel := context.WithTimeout(b.Context, patience)
	defer cancel()
	if text, err := chromedp.Run(ctx, chromedp.Text("body")); err != nil || !strings.Contains(text, "pg-test-primary") || !strings.Contains(text, "serving") {
		t.Errorf("%q, %v", text, err)
	}
}
