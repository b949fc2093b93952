// Package browser is a headless Chromium for tests of pages: keys are pressed as on a keyboard, what has to come is waited for, and
// whatever the console says that nobody expects fails the test.
//
// The package knows no page.
package browser

import (
	"context"
	"errors"
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
)

// patience is how long what has to come may take on a busy machine.
const patience = 90 * time.Second

// Tab is a tab of a headless Chromium, and what its console said.
type Tab struct {
	context.Context
	t    *testing.T
	mu   sync.Mutex
	said []string
}

// Open starts a browser. Whatever the console says that is no information fails the test, unless it is expected.
func Open(t *testing.T, expected ...string) *Tab {
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
	b := &Tab{Context: ctx, t: t}
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

// Do does something in the tab, for as long as a busy machine may take.
func (b *Tab) Do(what string, actions ...chromedp.Action[chromedp.Void]) {
	b.t.Helper()
	ctx, cancel := context.WithTimeout(b.Context, patience)
	defer cancel()
	if err := chromedp.Do(ctx, actions...); err != nil {
		b.t.Fatalf("%s: %v", what, err)
	}
}

// Eval gives what an expression is.
func Eval[T any](b *Tab, expression string) T {
	b.t.Helper()
	ctx, cancel := context.WithTimeout(b.Context, patience)
	defer cancel()
	v, err := chromedp.Run(ctx, chromedp.Evaluate[T](expression))
	if err != nil {
		b.t.Fatalf("%s: %v", expression, err)
	}
	return v
}

// Until waits for an expression to be true. It is asked for again and again: the page's own policy lets nobody make functions of texts in it.
func (b *Tab) Until(what, expression string) {
	b.t.Helper()
	again := time.NewTicker(50 * time.Millisecond)
	defer again.Stop()
	for limit := time.After(patience); !Eval[bool](b, expression); {
		select {
		case <-again.C:
		case <-limit:
			b.t.Fatalf("%s: not within %s; the page shows:\n%s", what, patience, Eval[string](b, `document.body.innerText`))
		}
	}
}

// Sees waits for a text on the page.
func (b *Tab) Sees(text string) {
	b.t.Helper()
	b.Until("no "+text, `document.body.innerText.includes(`+Quoted(text)+`)`)
}

func Quoted(text string) string {
	return "`" + strings.NewReplacer("`", "\\`", "\\", "\\\\").Replace(text) + "`"
}

// Press presses keys. A character comes with the key that is pressed, as from a keyboard: whoever takes the key keeps it out of a field.
func (b *Tab) Press(keys string) {
	b.t.Helper()
	for _, key := range keys {
		if key < ' ' || key > '~' {
			b.Do("press a key", chromedp.KeyEvent(string(key)))
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

// Shoot keeps a picture of what is seen, where PGPORTER_SCREENSHOTS says, or with the test.
func (b *Tab) Shoot(name string) {
	b.t.Helper()
	ctx, cancel := context.WithTimeout(b.Context, patience)
	defer cancel()
	picture, err := chromedp.Run(ctx, chromedp.CaptureScreenshot())
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

// Size makes the window as large as a screen; dark is the system's theme.
func (b *Tab) Size(width, height int64, dark, calm bool) {
	b.t.Helper()
	features := []*emulation.MediaFeature{{Name: "prefers-color-scheme", Value: map[bool]string{true: "dark", false: "light"}[dark]}}
	if calm {
		features = append(features, &emulation.MediaFeature{Name: "prefers-reduced-motion", Value: "reduce"})
	}
	b.Do("size", chromedp.EmulateViewport(width, height))
	if _, err := chromedp.Call(b.Context, emulation.SetEmulatedMedia, emulation.SetEmulatedMediaParams{Features: features}); err != nil {
		b.t.Fatal(err)
	}
}

// Fits says that nothing is wider than the window.
func (b *Tab) Fits(when string) {
	b.t.Helper()
	if wide := Eval[string](b, `[...document.querySelectorAll('body *')].filter(e => !e.closest('.scroll, svg, .unseen, thead, dialog, .skip') && e.getBoundingClientRect().right > innerWidth + 1).map(e => e.tagName + '.' + e.className).join(' ')`); wide != "" {
		b.t.Errorf("%s: wider than the window: %s", when, wide)
	}
	if Eval[bool](b, `document.documentElement.scrollWidth > innerWidth + 1`) {
		b.t.Errorf("%s: the page is wider than the window", when)
	}
}
