package soak

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"sync"
	"syscall"
	"time"

	"github.com/pgporter/pgporter/lab/fakepatroni"
)

// Seen is what a server has seen since it was asked last, and what it has open now.
type Seen struct {
	// Sessions are startup packets that came, by their aims; Cancels CancelRequests.
	Sessions map[string]int64 `json:"sessions"`
	Cancels  int64            `json:"cancels"`
	// Open are connections now.
	Open int64 `json:"open"`
	// Turns are the sessions of the aim turn that are open, MostTurns the most that ever were at once.
	Turns     int64 `json:"turns"`
	MostTurns int64 `json:"most_turns"`
	// Sent and Passed are the bytes of scripts.
	Sent, Passed int64
	// BulkSent and BulkGot are of the aim bulk.
	BulkSent, BulkGot tally
	// Failures is how many sessions broke what their script says; First has the first of them.
	Failures int64    `json:"failures"`
	First    []string `json:"first,omitempty"`
}

// maxListed bounds the failures that are kept word for word.
const maxListed = 10

func (s *Seen) fail(err error) {
	s.Failures++
	if len(s.First) < maxListed {
		s.First = append(s.First, err.Error())
	}
}

// trivialServer does what the startup packets of its clients ask for.
type trivialServer struct {
	mu   sync.Mutex
	seen Seen
}

// serve runs a server and its Patroni until ctx ends. Connections that are open then are closed.
func (t *trivialServer) serve(ctx context.Context, port, patroni net.Listener) {
	var all sync.WaitGroup
	api := &http.Server{Handler: fakepatroni.Patroni(), ReadHeaderTimeout: time.Minute}
	all.Go(func() { _ = api.Serve(patroni) }) // until Close
	open := map[net.Conn]bool{}
	all.Go(func() {
		for {
			conn, err := port.Accept()
			if errors.Is(err, net.ErrClosed) {
				return
			}
			if err != nil {
				t.mu.Lock()
				t.seen.fail(fmt.Errorf("the server's own accept: %w", err))
				t.mu.Unlock()
				time.Sleep(10 * time.Millisecond)
				continue
			}
			t.mu.Lock()
			open[conn] = true
			t.seen.Open++
			t.mu.Unlock()
			all.Go(func() {
				err := t.attend(conn.(*net.TCPConn))
				_ = conn.Close()
				t.mu.Lock()
				defer t.mu.Unlock()
				delete(open, conn)
				t.seen.Open--
				if err != nil && ctx.Err() == nil {
					t.seen.fail(err)
				}
			})
		}
	})
	<-ctx.Done()
	_ = api.Close()
	_ = port.Close()
	t.mu.Lock()
	for conn := range open {
		_ = conn.Close()
	}
	t.mu.Unlock()
	all.Wait()
}

// report gives what was seen since the last report.
func (t *trivialServer) report() Seen {
	t.mu.Lock()
	defer t.mu.Unlock()
	seen := t.seen
	t.seen = Seen{Open: seen.Open, Turns: seen.Turns, MostTurns: seen.Turns}
	return seen
}

func (t *trivialServer) note(f func(*Seen)) {
	t.mu.Lock()
	defer t.mu.Unlock()
	f(&t.seen)
}

func (t *trivialServer) attend(conn *net.TCPConn) error {
	aim, err := welcome(conn)
	switch {
	case errors.Is(err, errCancel):
		t.note(func(s *Seen) { s.Cancels++ })
		return nil
	case errors.Is(err, errNobody):
		// pgporter probes the port, and connects for clients that leave in the same moment.
		return nil
	case err != nil:
		return err
	}
	var kind string
	var a, b uint64
	if n, _ := fmt.Sscanf(aim, "%s %d %d", &kind, &a, &b); n == 0 {
		return fmt.Errorf("no such aim: %q", aim)
	}
	turn := int64(0)
	if kind == aimTurn {
		turn = 1
	}
	t.note(func(s *Seen) {
		if s.Sessions == nil {
			s.Sessions = map[string]int64{}
		}
		s.Sessions[kind]++
		s.Turns += turn
		s.MostTurns = max(s.MostTurns, s.Turns)
	})
	_, err = conn.Write(greeting)
	switch kind {
	case aimNothing:
		_, _ = io.Copy(io.Discard, conn)
		return nil
	case aimTurn:
		_, readErr := io.ReadFull(conn, make([]byte, 1))
		// Counted before it ends, so that whoever replaces it comes later.
		t.note(func(s *Seen) { s.Turns-- })
		return errors.Join(err, readErr)
	case aimEcho:
		if err == nil {
			_, err = io.CopyBuffer(onlyWriter{conn}, conn, make([]byte, 512))
		}
		if errors.Is(err, syscall.ECONNRESET) {
			err = nil // a client that held on until its process ended
		}
		return err
	case aimBulk:
		return errors.Join(err, t.bulk(conn, int64(a), b))
	case aimScript:
		script := scriptOf(a, b)
		s := side{conn: conn, out: script.downContent, in: script.upContent, outLen: script.down, inLen: script.up,
			piece: script.piece, stall: script.serverStalls, ending: script.ending.seenFromServer()}
		if err == nil || script.ending == clientLeaves {
			err = s.play()
		}
		t.note(func(seen *Seen) {
			seen.Sent += s.sent
			seen.Passed += s.passed
		})
		if err != nil {
			return fmt.Errorf("server's side of session %d (%+v): %w", b, script, err)
		}
		return nil
	}
	return fmt.Errorf("no such aim: %q", aim)
}

// onlyWriter hides that a socket could be spliced: an echo of 9,000 idle sessions should hold no pipes.
type onlyWriter struct{ io.Writer }

// bulk sends and receives at once.
func (t *trivialServer) bulk(conn *net.TCPConn, total int64, seed uint64) error {
	sent, got, err := exchange(conn, total, stream(seed+1), stream(seed))
	t.note(func(s *Seen) { s.BulkSent, s.BulkGot = sent, got })
	return err
}

// exchange sends and receives total bytes at once, and ends the stream in order both ways.
func exchange(conn *net.TCPConn, total int64, out, in stream) (sent, got tally, err error) {
	writing := make(chan error, 1)
	go func() {
		var err error
		if sent, err = out.send(conn, total, 64<<10); err == nil {
			err = conn.CloseWrite()
		}
		if err != nil {
			err = errBroken{fmt.Sprintf("after %d bytes written", sent.Bytes), err}
		}
		writing <- err
	}()
	got, err = in.receive(conn, toItsEnd)
	if errors.Is(err, io.EOF) {
		err = nil
	} else {
		err = errBroken{fmt.Sprintf("after %d bytes read", got.Bytes), err}
		_ = conn.Close()
	}
	return sent, got, errors.Join(err, <-writing)
}
