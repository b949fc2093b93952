package health

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/pires/go-proxyproto"

	"github.com/pgporter/pgporter/internal/config/model"
)

func TestPort(t *testing.T) {
	options, problems := model.ParseOptions("inter 2s fastinter 1s fall 3")
	if len(problems) > 0 {
		t.Fatal(problems)
	}
	answers, refuses := Outcome{}, Outcome{Silence: "connection refused"}
	hangs := Outcome{Silence: "timed out after 1s", Accepted: true}
	type result struct {
		at   time.Duration
		what Outcome
	}
	ms := func(n int) time.Duration { return time.Duration(n) * time.Millisecond }
	for _, test := range []struct {
		name    string
		lenient bool
		results []result
		closed  string
		next    time.Duration
	}{
		{"nothing is known", false, nil, "", ms(1000)},
		{"it answers", false, []result{{0, answers}}, "", ms(2000)},
		{"the first probe", false, []result{{0, refuses}}, "connection refused", ms(1000)},
		{"one probe later on", false, []result{{0, answers}, {ms(2000), hangs}}, "", ms(1000)},
		{"three", false, []result{{0, answers}, {ms(2000), hangs}, {ms(3000), hangs}, {ms(3950), hangs}},
			"takes connections and doesn't answer: timed out after 1s (3 in a row)", ms(1000)},
		{"three in haste", false, []result{{0, answers}, {ms(2000), refuses}, {ms(2100), refuses}, {ms(2200), refuses}}, "", ms(1000)},
		{"not in a row", false, []result{{0, answers}, {ms(2000), refuses}, {ms(3000), refuses}, {ms(4000), answers}, {ms(5000), refuses}}, "", ms(1000)},
		{"it answers again", false, []result{{0, refuses}, {ms(1000), refuses}, {ms(2000), answers}}, "", ms(2000)},
		{"never answered, and nobody knows what it speaks", true, []result{{0, hangs}, {ms(1000), hangs}, {ms(2000), hangs}, {ms(3000), hangs}}, "", ms(2000)},
		{"nobody knows what it speaks, and it is gone", true, []result{{0, hangs}, {ms(1000), refuses}, {ms(2000), refuses}, {ms(3000), refuses}}, "connection refused (3 in a row)", ms(1000)},
		{"nobody knew what it speaks, but it has answered", true, []result{{0, answers}, {ms(1000), hangs}, {ms(2000), hangs}, {ms(3000), hangs}},
			"takes connections and doesn't answer: timed out after 1s (3 in a row)", ms(1000)},
	} {
		t.Run(test.name, func(t *testing.T) {
			var p Port
			for _, r := range test.results {
				p = p.Feed(r.what, test.lenient, options, time.Unix(0, 0).Add(r.at))
			}
			if got := p.Closed(); got != test.closed {
				t.Errorf("closed: %q, want %q", got, test.closed)
			}
			if got := p.Next(options); got != test.next {
				t.Errorf("next after %v, want %v", got, test.next)
			}
		})
	}
}

// TestProbe probes servers on loopback that do what PostgreSQL and its poolers do, or don't.
func TestProbe(t *testing.T) {
	certificate := httptest.NewTLSServer(nil)
	defer certificate.Close()
	secured := make(chan error, 1)
	for _, test := range []struct {
		name  string
		serve func(conn net.Conn)
		want  Outcome
	}{
		{"without TLS", func(conn net.Conn) { conn.Write([]byte("N")) }, Outcome{}},
		{"with TLS", func(conn net.Conn) {
			conn.Write([]byte("S"))
			inner := tls.Server(conn, certificate.TLS)
			err := inner.HandshakeContext(t.Context())
			if err == nil {
				// The client leaves in order.
				if _, err = inner.Read(make([]byte, 1)); err == io.EOF {
					err = nil
				}
			}
			secured <- err
		}, Outcome{}},
		{"an error", func(conn net.Conn) { conn.Write([]byte("E\x00\x00\x00\x04")) }, Outcome{}},
		{"something else", func(conn net.Conn) { conn.Write([]byte("HTTP/1.1 400 Bad Request\r\n\r\n")) }, Outcome{}},
		{"hangs", func(conn net.Conn) { io.Copy(io.Discard, conn) }, Outcome{Silence: "timed out", Accepted: true}},
		{"closes", func(net.Conn) {}, Outcome{Silence: "closed the connection", Accepted: true}},
		{"resets", func(conn net.Conn) { conn.(*net.TCPConn).SetLinger(0) }, Outcome{Silence: "connection reset by peer", Accepted: true}},
	} {
		t.Run(test.name, func(t *testing.T) {
			l, err := net.Listen("tcp", "127.0.0.1:0")
			if err != nil {
				t.Fatal(err)
			}
			ended := make(chan struct{})
			go func() {
				defer close(ended)
				conn, err := l.Accept()
				if err != nil {
					return
				}
				defer conn.Close()
				request := make([]byte, 8)
				if _, err := io.ReadFull(bufio.NewReaderSize(conn, 8), request); err != nil || string(request) != "\x00\x00\x00\x08\x04\xd2\x16\x2f" {
					t.Errorf("%x, %v", request, err)
				}
				test.serve(conn)
			}()
			limit := time.Minute
			if test.want.Silence == "timed out" {
				limit = time.Second
			}
			ctx, cancel := context.WithTimeout(t.Context(), limit)
			defer cancel()
			if got := Probe(ctx, DestinationOf("pg-test-1", "127.0.0.1", l.Addr().(*net.TCPAddr).Port, 0)); got.Silence != test.want.Silence || got.Accepted != test.want.Accepted {
				t.Errorf("%+v, want %+v", got, test.want)
			}
			l.Close()
			<-ended
		})
	}
	if err := <-secured; err != nil {
		t.Errorf("the handshake: %v", err)
	}
	t.Run("refuses", func(t *testing.T) {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		at := l.Addr().(*net.TCPAddr)
		l.Close()
		if got := Probe(t.Context(), DestinationOf("pg-test-1", "127.0.0.1", at.Port, 0)); got.Silence != "connection refused" || got.Accepted {
			t.Errorf("%+v", got)
		}
	})
	t.Run("no address", func(t *testing.T) {
		if got := Probe(t.Context(), DestinationOf("pg-test-1", "256.0.0.1", 5432, 0)); got.Accepted || !strings.Contains(got.Silence, "256.0.0.1") {
			t.Errorf("%+v", got)
		}
	})
}

// A server that wants a PROXY header first takes anything else for a mistake: it is probed with one.
func TestProbeAnnouncesItself(t *testing.T) {
	for _, version := range []byte{1, 2} {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		got := make(chan error, 1)
		go func() {
			got <- func() error {
				conn, err := l.Accept()
				if err != nil {
					return err
				}
				defer conn.Close()
				in := bufio.NewReader(conn)
				header, err := proxyproto.Read(in)
				if err != nil {
					return err
				}
				// Version 1 has no command LOCAL; UNKNOWN says the same.
				if header.Version != version || header.TransportProtocol != proxyproto.UNSPEC {
					return fmt.Errorf("the header is %+v", header)
				}
				packet := make([]byte, 8)
				if _, err := io.ReadFull(in, packet); err != nil || !bytes.Equal(packet, sslRequest()) {
					return fmt.Errorf("behind the header: %x, %v", packet, err)
				}
				_, err = conn.Write([]byte("N"))
				return err
			}()
		}()
		outcome := Probe(t.Context(), DestinationOf("pg-test-1", "127.0.0.1", l.Addr().(*net.TCPAddr).Port, version))
		if err := <-got; err != nil || outcome.Silence != "" {
			t.Errorf("version %d: %v, %+v", version, err, outcome)
		}
		l.Close()
	}
}
