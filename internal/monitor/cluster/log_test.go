package cluster

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/pgporter/pgporter/internal/daemon/logqueue"
)

// stuck is a log's reader that takes nothing until it is let go.
type stuck struct {
	let  chan struct{}
	mu   sync.Mutex
	text strings.Builder
}

func (s *stuck) Write(p []byte) (int, error) {
	<-s.let
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.text.Write(p)
}

func TestASwitchoverWaitsForNoReaderOfTheLog(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, _ := declared("trio")
		reader := &stuck{let: make(chan struct{})}
		queue := logqueue.New(reader, func(out io.Writer, dropped uint64) error {
			_, err := fmt.Fprintf(out, "%d dropped\n", dropped)
			return err
		})
		log := slog.New(slog.NewTextHandler(queue, nil))
		g := newStage()
		g.set(1, "lock primary running")
		g.set(2, "replica running")
		g.set(3, "replica running")
		l, err := New(c, Config{Logger: log, Check: g.check, Probe: g.probe})
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		var joined sync.WaitGroup
		joined.Go(func() { l.Run(ctx) })
		time.Sleep(10 * time.Second)
		// Others have more to say than the queue takes.
		flood := strings.Repeat("x", 1000)
		for queue.Dropped() == 0 {
			log.Info(flood)
		}
		g.set(3, "silent connection refused")
		time.Sleep(10 * time.Second)
		g.set(1, "demoted stopped")
		g.set(2, "lock primary running")
		time.Sleep(5 * time.Second)
		if got, want := serving(l.Board().View()), "serve primary 2, replica 2, default 2, offline –"; got != want {
			t.Errorf("5 s after a switchover that nobody reads of: %s, want %s", got, want)
		}
		cancel()
		joined.Wait()
		close(reader.let)
		queue.Close(time.Minute)
		if text, want := reader.text.String(), fmt.Sprintf("%d dropped\n", queue.Dropped()); !strings.HasSuffix(text, want) {
			t.Errorf("the log ends with %q, want %q", text[max(0, len(text)-100):], want)
		}
	})
}

// late is a log that looks, with each line, at what is published by then.
type late struct {
	l     *Loop
	lines []string
}

func (h *late) Enabled(context.Context, slog.Level) bool { return true }
func (h *late) WithAttrs([]slog.Attr) slog.Handler       { return h }
func (h *late) WithGroup(string) slog.Handler            { return h }
func (h *late) Handle(_ context.Context, r slog.Record) error {
	h.lines = append(h.lines, r.Message+" | "+serving(h.l.Board().View()))
	return nil
}

func TestTheViewIsPublishedBeforeTheLogTellsOfIt(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, _ := declared("single")
		g, log := newStage(), &late{}
		g.set(1, "lock primary running")
		l, err := New(c, Config{Logger: slog.New(log), Check: g.check, Probe: g.probe})
		if err != nil {
			t.Fatal(err)
		}
		log.l = l
		ctx, cancel := context.WithCancel(t.Context())
		var joined sync.WaitGroup
		joined.Go(func() { l.Run(ctx) })
		time.Sleep(10 * time.Second)
		g.set(1, "demoted stopped")
		time.Sleep(10 * time.Second)
		cancel()
		joined.Wait()
		for _, want := range []string{"is up", "is down"} {
			logged := 0
			for _, line := range log.lines {
				if !strings.Contains(line, "pg-test-primary") || !strings.Contains(line, want) {
					continue
				}
				logged++
				if gone := strings.Contains(line, "serve primary –"); gone != (want == "is down") {
					t.Errorf("the log has what wasn't published: %s", line)
				}
			}
			if logged == 0 {
				t.Errorf("no line says that the server %s: %q", want, log.lines)
			}
		}
	})
}
