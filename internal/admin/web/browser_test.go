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
	"github.com/chromedp/cdproto/log"
	"github.com/chromedp/chromedp"

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

// press presses keys.
func (b *tab) press(keys string) {
	b.t.Helper()
	b.do("press "+keys, chromedp.KeyEvent(keys))
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

func TestLook(t *testing.T) {
	w := newWorld(1)
	s := show(t, w)
	b := browse(t)
	b.size(1280, 900, false, false)
	b.do("open", chromedp.Navigate("http://"+s.at+"/haproxy/pg-test-1/"))
	b.sees("all 4 services are served")
	time.Sleep(12 * time.Second)
	b.shoot("light")
	b.size(1280, 900, true, false)
	b.shoot("dark")
	b.size(390, 844, true, true)
	time.Sleep(time.Second)
	b.shoot("phone")
	w.fail(1, "silent: connection refused")
	w.switchTo(2)
	b.size(1280, 900, false, true)
	time.Sleep(3 * time.Second)
	b.shoot("failed")
	s.world.mu.Lock()
	s.world.clusters = 30
	s.world.mu.Unlock()
	time.Sleep(3 * time.Second)
	b.do("x", chromedp.Navigate("http://"+s.at+"/#/"))
	time.Sleep(12 * time.Second)
	b.shoot("overview")
}
