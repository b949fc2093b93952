package throughput

import (
	"bytes"
	"context"
	"net"
	"strings"
	"testing"
	"time"
)

// served starts a trivial server and gives its address.
func served(t *testing.T) string {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- Serve(ctx, listener) }()
	t.Cleanup(func() {
		stop()
		if err := <-ended; err != nil {
			t.Errorf("the trivial server: %v", err)
		}
	})
	return listener.Addr().String()
}

// TestTrivial: each load against the trivial server itself.
func TestTrivial(t *testing.T) {
	address := served(t)
	const lasts = 50 * time.Millisecond
	over := make(chan struct{})
	close(over)
	for kind, right := range map[string]func(Work) bool{
		"connect": func(w Work) bool { return w.Sessions >= 4 && w.Bytes == 0 && w.Took >= lasts },
		"out": func(w Work) bool {
			return w.Sessions == 4 && w.Bytes >= 4*chunk && w.Bytes%chunk == 0 && w.Took >= lasts/2
		},
		"in": func(w Work) bool {
			return w.Sessions == 4 && w.Bytes >= 4*chunk && w.Bytes%chunk == 0 && w.Took >= lasts
		},
		"idle": func(w Work) bool { return w.Sessions == 4 && w.Bytes == 0 && w.Took > 0 },
	} {
		var done []Work
		err := Load{Kind: kind, Address: address, Streams: 4, Lasts: lasts}.Do(t.Context(), func(w Work) { done = append(done, w) }, over)
		if err != nil || len(done) != 1 || !right(done[0]) {
			t.Errorf("%s: %+v, %v", kind, done, err)
		}
	}
}

// TestLostSession: a load through something that loses bytes or sessions is an error, and no figure.
func TestLostSession(t *testing.T) {
	for kind, ends := range map[string]func(net.Conn, []byte){
		"connect": func(c net.Conn, _ []byte) { c.Write(welcome); c.Write([]byte{'E'}) },
		"out":     func(c net.Conn, _ []byte) { c.Write(welcome); c.(*net.TCPConn).SetLinger(0) },
		"in": func(c net.Conn, buffer []byte) { // one byte less than came
			c.Write(welcome)
			n, _ := swallow(c)
			c.Write([]byte{0, 0, 0, 0, byte((n - 1) >> 24), byte((n - 1) >> 16), byte((n - 1) >> 8), byte(n - 1)})
		},
		"idle":  func(c net.Conn, _ []byte) { c.Write(welcome); c.(*net.TCPConn).SetLinger(0) },
		"other": func(net.Conn, []byte) {},
	} {
		listener, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		served := make(chan struct{})
		go func() {
			defer close(served)
			for {
				conn, err := listener.Accept()
				if err != nil {
					return
				}
				buffer := make([]byte, 256)
				if _, err := database(conn, buffer); err == nil {
					ends(conn, buffer)
				}
				conn.Close()
			}
		}()
		over := make(chan struct{})
		var done []Work
		load := Load{Kind: kind, Address: listener.Addr().String(), Streams: 1, Lasts: 20 * time.Millisecond}
		err = load.Do(t.Context(), func(w Work) { done = append(done, w); close(over) }, over)
		listener.Close()
		<-served
		if err == nil {
			t.Errorf("%s: no error, and %+v", kind, done)
		}
	}
}

func TestStartup(t *testing.T) {
	buffer := make([]byte, 256)
	if got, err := database(bytes.NewReader(startup("bench", "pour:2s")), buffer); got != "pour:2s" || err != nil {
		t.Errorf("%q, %v", got, err)
	}
	for text, problem := range map[string]string{
		"":                                     "EOF",
		"\x00\x00\x00\x08\x04\xd2\x16\x2f":     "no startup message",
		"\x00\x00\x10\x00\x00\x03\x00\x00":     "length 4096",
		"\x00\x00\x00\x09\x00\x03\x00\x00\x00": "names no database",
	} {
		if _, err := database(strings.NewReader(text), buffer); err == nil || !strings.Contains(err.Error(), problem) {
			t.Errorf("%q: %v, want %q", text, err, problem)
		}
	}
}

func FuzzStartup(f *testing.F) {
	f.Add(startup("bench", "idle"))
	f.Add([]byte("\x00\x00\x00\x09\x00\x03\x00\x00\x00"))
	f.Fuzz(func(t *testing.T, message []byte) {
		if got, err := database(bytes.NewReader(message), make([]byte, 256)); err == nil && !bytes.Contains(message, []byte("\x00database\x00"+got)) && !bytes.Contains(message, []byte("database\x00"+got)) {
			t.Errorf("%q of %q", got, message)
		}
	})
}
