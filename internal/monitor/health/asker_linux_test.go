//go:build linux && !portable

package health

import (
	"bufio"
	"context"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"reflect"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/pgporter/pgporter/internal/monitor/exchange"
	"github.com/pgporter/pgporter/internal/monitor/patroni"
)

// exchanging runs an exchange loop until the test ends.
func exchanging(t *testing.T) *exchange.Loop {
	t.Helper()
	l, err := exchange.New()
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	var running sync.WaitGroup
	running.Go(func() { l.Run(ctx) })
	t.Cleanup(func() {
		cancel()
		running.Wait()
	})
	return l
}

// bothWays puts a question by the exchange loop and by a goroutine, and gives what comes of it, which has to be the same.
func bothWays(t *testing.T, l *exchange.Loop, target Target, port bool, within time.Duration) Outcome {
	t.Helper()
	outcomes := map[bool]Outcome{}
	for _, by := range []bool{true, false} {
		a := &Asker{Client: patroni.NewClient(patroni.Options{})}
		if by {
			a.Exchange = l
			if to := a.prepare(target, port).To; !to.IsValid() {
				t.Fatal("it is left to a goroutine")
			}
		}
		ended := make(chan Outcome, 1)
		a.Ask(t.Context(), target, port, within, func(o Outcome) { ended <- o })
		outcomes[by] = <-ended
		a.Wait()
	}
	if !reflect.DeepEqual(outcomes[true], outcomes[false]) {
		t.Errorf("by the loop %+v, by a goroutine %+v", outcomes[true], outcomes[false])
	}
	return outcomes[true]
}

// answering has do serve connections at the address that is given, until the test ends.
func answering(t *testing.T, do func(c *net.TCPConn)) string {
	t.Helper()
	listener, err := net.ListenTCP("tcp", &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Fatal(err)
	}
	var serving sync.WaitGroup
	serving.Go(func() {
		for {
			c, err := listener.AcceptTCP()
			if err != nil {
				return
			}
			serving.Go(func() {
				defer c.Close()
				do(c)
			})
		}
	})
	t.Cleanup(func() {
		listener.Close()
		serving.Wait()
	})
	return listener.Addr().String()
}

// nobody is an address where nobody listens.
func nobody(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}

// What comes of a question doesn't hang on who puts it.
func TestAPIBothWays(t *testing.T) {
	l := exchanging(t)
	const head, body = "HTTP/1.0 200 OK\r\nServer: BaseHTTP/0.6 Python/3.11.2\r\nContent-Type: application/json\r\n", `{"role": "master", "state": "running", "timeline": 3}`
	const stays = true
	for _, test := range []struct {
		name   string
		pieces []string
		// stays says that the server doesn't close the connection.
		stays bool
		want  string
	}{
		{"as Patroni answers", []string{head + "\r\n", body}, false, "200 primary running"},
		{"in one piece", []string{head + "\r\n" + body}, false, "200 primary running"},
		{"in many", strings.SplitAfter(head+"\r\n"+body, " "), false, "200 primary running"},
		{"measured", []string{head, "Content-Length: 53\r\n\r\n" + body[:20], body[20:]}, stays, "200 primary running"},
		{"in chunks", []string{"HTTP/1.1 503 No\r\nTransfer-Encoding: chunked\r\n\r\n", "20\r\n" + body[:32] + "\r\n", "15\r\n" + body[32:] + "\r\n", "0\r\n\r\n"}, stays, "503 primary running"},
		{"in chunks, broken off", []string{"HTTP/1.1 503 No\r\nTransfer-Encoding: chunked\r\n\r\n20\r\n" + body[:32] + "\r\n"}, false, "silent: the answer broke off: connection closed without an answer"},
		{"chunks that are none", []string{"HTTP/1.1 503 No\r\nTransfer-Encoding: chunked\r\n\r\nx\r\n"}, stays, "silent: the answer broke off: invalid byte in chunk length"},
		{"without a body", []string{"HTTP/1.1 204 No Content\r\n\r\n"}, stays, "204"},
		{"an empty one", []string{"HTTP/1.0 200 OK\r\nContent-Length: 0\r\n\r\n"}, stays, "200"},
		{"bare newlines", []string{"HTTP/1.0 200 OK\nContent-Length: 0\n\n"}, stays, "200"},
		{"more than was said", []string{head + "Content-Length: 53\r\n\r\n" + body + "and more"}, stays, "200 primary running"},
		{"less than was said", []string{head + "Content-Length: 100\r\n\r\n" + body}, false, "silent: the answer broke off: connection closed without an answer"},
		{"half a body", []string{head + "\r\n" + body[:20]}, false, "silent: the answer broke off: its JSON isn't whole"},
		{"half a head", []string{head[:30]}, false, "silent: "},
		{"no head", nil, false, "silent: connection closed without an answer"},
		{"nonsense", []string{"SSH-2.0-OpenSSH\r\n"}, stays, "silent: malformed HTTP"},
		{"half nonsense", []string{"SSH-2.0"}, false, "silent: "},
		{"another HTTP", []string{"HTTP/x y\r\n\r\n"}, stays, "silent: malformed HTTP"},
		{"a wrong header", []string{"HTTP/1.0 200 OK\r\nnone\r\n\r\n"}, stays, "silent: malformed MIME header"},
		{"too long", []string{"HTTP/1.0 200 OK\r\n\r\n", strings.Repeat("x", 1<<20), "x"}, false, "silent: the answer is longer than 1048576 bytes"},
		{"too long and measured", []string{"HTTP/1.0 200 OK\r\nContent-Length: 2000000\r\n\r\n", strings.Repeat("x", 2_000_000)}, stays, "silent: the answer is longer than 1048576 bytes"},
		{"nothing", nil, stays, "silent: no answer for 200ms"},
		{"half, and no more", []string{head + "\r\n" + body[:20]}, stays, "silent: no answer for 200ms"},
		{"half a head, and no more", []string{head[:20]}, stays, "silent: no answer for 200ms"},
		{"all but the end", []string{head + "\r\n" + body}, stays, "silent: no answer for 200ms"},
	} {
		t.Run(test.name, func(t *testing.T) {
			address := answering(t, func(c *net.TCPConn) {
				request, err := http.ReadRequest(bufio.NewReader(c))
				if err != nil {
					return
				}
				if request.URL.String() != "/primary?a=b" || request.Host != c.LocalAddr().String() || !request.Close || request.UserAgent() != "pgporter" {
					t.Errorf("the request: %+v", request)
				}
				for _, piece := range test.pieces {
					if _, err := io.WriteString(c, piece); err != nil {
						return
					}
				}
				if test.stays {
					io.Copy(io.Discard, c)
				}
			})
			within := 20 * time.Second
			if strings.Contains(test.want, "no answer") {
				within = 200 * time.Millisecond
			}
			if got := bothWays(t, l, Target{Member: "pg-test-1", Base: "http://" + address, Path: "/primary?a=b"}, false, within); !strings.HasPrefix(got.Words(), test.want) {
				t.Errorf("%q, want %q", got.Words(), test.want)
			}
		})
	}
	t.Run("refused", func(t *testing.T) {
		if got := bothWays(t, l, Target{Base: "http://" + nobody(t), Path: "/primary"}, false, time.Minute); !got.Dead || got.Silence != "connection refused" {
			t.Errorf("%+v", got)
		}
	})
	t.Run("reset", func(t *testing.T) {
		address := answering(t, func(c *net.TCPConn) {
			http.ReadRequest(bufio.NewReader(c))
			c.SetLinger(0)
		})
		if got := bothWays(t, l, Target{Base: "http://" + address, Path: "/primary"}, false, time.Minute); got.Dead || got.Silence != "connection reset" {
			t.Errorf("%+v", got)
		}
	})
}

func TestProbeBothWays(t *testing.T) {
	l := exchanging(t)
	certificate := httptest.NewTLSServer(nil)
	defer certificate.Close()
	secured := make(chan error, 2)
	asked := func(c net.Conn) { io.ReadFull(c, make([]byte, 8)) }
	for _, test := range []struct {
		name string
		do   func(c *net.TCPConn)
		want Outcome
	}{
		{"without TLS", func(c *net.TCPConn) { asked(c); c.Write([]byte("N")); io.Copy(io.Discard, c) }, Outcome{}},
		{"with TLS", func(c *net.TCPConn) {
			asked(c)
			c.Write([]byte("S"))
			inner := tls.Server(c, certificate.TLS)
			err := inner.HandshakeContext(t.Context())
			if err == nil {
				// The client leaves in order.
				if _, err = inner.Read(make([]byte, 1)); err == io.EOF {
					err = nil
				}
			}
			secured <- err
		}, Outcome{}},
		{"with TLS that isn't spoken", func(c *net.TCPConn) { asked(c); c.Write([]byte("S")) }, Outcome{}},
		{"an error", func(c *net.TCPConn) { asked(c); c.Write([]byte("E\x00\x00\x00\x04")) }, Outcome{}},
		{"hangs", func(c *net.TCPConn) { io.Copy(io.Discard, c) }, Outcome{Silence: "no answer for 200ms", Accepted: true, Code: CodeNoAnswer}},
		{"closes", func(c *net.TCPConn) { asked(c) }, Outcome{Silence: "closed the connection", Accepted: true}},
		{"resets", func(c *net.TCPConn) { asked(c); c.SetLinger(0) }, Outcome{Silence: "connection reset by peer", Accepted: true}},
	} {
		t.Run(test.name, func(t *testing.T) {
			within := 20 * time.Second
			if test.name == "hangs" {
				within = 200 * time.Millisecond
			}
			if got := bothWays(t, l, Target{Base: answering(t, test.do)}, true, within); !reflect.DeepEqual(got, test.want) {
				t.Errorf("%+v, want %+v", got, test.want)
			}
		})
	}
	for range 2 {
		if err := <-secured; err != nil {
			t.Errorf("the handshake: %v", err)
		}
	}
	if got := bothWays(t, l, Target{Base: nobody(t)}, true, time.Minute); !got.Dead || got.Accepted || got.Silence != "connection refused" {
		t.Errorf("nobody: %+v", got)
	}
	for _, proxy := range []byte{1, 2} {
		heard := make(chan string, 2)
		header, _ := announced(proxy)
		at := answering(t, func(c *net.TCPConn) {
			got := make([]byte, len(header))
			io.ReadFull(c, got)
			heard <- string(got)
			c.Write([]byte("N"))
		})
		if got := bothWays(t, l, Target{Base: at, Proxy: proxy}, true, time.Minute); !reflect.DeepEqual(got, Outcome{}) {
			t.Errorf("version %d: %+v", proxy, got)
		}
		if a, b := <-heard, <-heard; a != b || a != string(header) {
			t.Errorf("version %d: %q, %q", proxy, a, b)
		}
	}
}

// A want of this node's own is no silence of anybody.
func TestWantsAreOurs(t *testing.T) {
	for _, err := range []error{syscall.EMFILE, syscall.ENFILE, syscall.ENOBUFS, syscall.ENOMEM, syscall.EADDRNOTAVAIL, syscall.ECONNREFUSED} {
		r := exchange.Result{Err: &net.OpError{Op: "dial", Net: "tcp", Err: err}}
		want := !errors.Is(err, syscall.ECONNREFUSED)
		if a, p := answered(r), probed(r); a.NotAsked != want || p.NotAsked != want || a.Silence == "" || p.Silence == "" {
			t.Errorf("%v: %+v, %+v", err, a, p)
		}
	}
}

// What the loop can't do is left to goroutines, and done.
func TestLeftToGoroutines(t *testing.T) {
	a := &Asker{Client: patroni.NewClient(patroni.Options{}), Exchange: exchanging(t)}
	at := answering(t, func(c *net.TCPConn) {
		http.ReadRequest(bufio.NewReader(c))
		io.WriteString(c, "HTTP/1.0 200 OK\r\n\r\n{\"role\": \"replica\"}")
	})
	_, port, _ := net.SplitHostPort(at)
	ended := make(chan Outcome, 1)
	for _, test := range []struct{ base, want string }{
		{"http://localhost:" + port, "200 replica"},
		{"https://" + at, "silent: "},
		{"http://" + at + "x", "silent: "},
	} {
		target := Target{Base: test.base, Path: "/primary"}
		if a.prepare(target, false).To.IsValid() {
			t.Errorf("%s: the loop takes it", test.base)
		}
		a.Ask(t.Context(), target, false, 10*time.Second, func(o Outcome) { ended <- o })
		if got := <-ended; !strings.HasPrefix(got.Words(), test.want) {
			t.Errorf("%s: %s", test.base, got.Words())
		}
	}
	// Wait has nothing to wait for, and requests of old don't pile up.
	a.Wait()
	for i := range 3 * mostPrepared {
		a.prepare(Target{Base: "http://127.0.0.1:" + strconv.Itoa(1+i), Path: "/"}, false)
	}
	if len(a.prepared) > mostPrepared {
		t.Errorf("%d requests are kept", len(a.prepared))
	}
}
