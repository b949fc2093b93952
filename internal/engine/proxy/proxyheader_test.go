package proxy

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"sync/atomic"
	"testing"

	"github.com/pires/go-proxyproto"

	"github.com/pgporter/pgporter/internal/monitor/view"
)

// proxied is a connection whose PROXY header has been read.
type proxied struct {
	net.Conn
	rest *bufio.Reader
}

func (p proxied) Read(b []byte) (int, error) { return p.rest.Read(b) }

// readPreface reads the header that a connection begins with, and spells it.
func readPreface(conn net.Conn) (string, proxied, error) {
	rest := bufio.NewReader(conn)
	h, err := proxyproto.Read(rest)
	if err != nil {
		return "", proxied{}, err
	}
	local := ""
	if h.Command.IsLocal() {
		local = " local"
	}
	return fmt.Sprintf("v%d%s %s > %s", h.Version, local, h.SourceAddr, h.DestinationAddr), proxied{conn, rest}, nil
}

// The header comes before everything else on each connection to a server, once, and says who the client is; the client sees
// the same session as without.
func TestProxyHeader(t *testing.T) {
	direct := []byte("\x16\x03\x01hello")
	for _, test := range []struct {
		name, options, version string
		cfg                    Config
		// listen is the service's address.
		listen string
		// server has one conversation for each connection in turn, after the header.
		server [][]step
		client []step
	}{
		{"version 1", "send-proxy", "v1", longHold, "127.0.48.1", [][]step{{{startup, askSASL}}}, []step{{nil, startup}, {askSASL, nil}}},
		{"version 2", "send-proxy-v2", "v2", longHold, "127.0.48.1", [][]step{{{startup, askSASL}}}, []step{{nil, startup}, {askSASL, nil}}},
		{"the second goes before the first", "send-proxy-v2 send-proxy", "v2", longHold, "127.0.48.1", [][]step{{{startup, askSASL}}}, []step{{nil, startup}, {askSASL, nil}}},
		{"version 1, IPv6", "send-proxy", "v1", longHold, "::1", [][]step{{{startup, askSASL}}}, []step{{nil, startup}, {askSASL, nil}}},
		{"version 2, IPv6", "send-proxy-v2", "v2", longHold, "::1", [][]step{{{startup, askSASL}}}, []step{{nil, startup}, {askSASL, nil}}},
		{"nobody is held", "send-proxy", "v1", Config{}, "127.0.48.1", [][]step{{{startup, askSASL}}}, []step{{nil, startup}, {askSASL, nil}}},
		{"direct tls", "send-proxy-v2", "v2", longHold, "127.0.48.1", [][]step{{{direct, askSASL}}}, []step{{nil, direct}, {askSASL, nil}}},
		{"once for all packets of a connection", "send-proxy", "v1", longHold, "127.0.48.1", [][]step{{{sslAsked, []byte("N")}, {startup, askSASL}}},
			[]step{{nil, sslAsked}, {[]byte("N"), startup}, {askSASL, nil}}},
		{"again for each connection", "send-proxy-v2", "v2", longHold, "127.0.48.1", [][]step{{{startup, starting}}, {{startup, nil}}, {{startup, askSASL}}},
			[]step{{nil, startup}, {askSASL, nil}}},
	} {
		t.Run(test.name, func(t *testing.T) {
			var calls atomic.Int64
			headers := make(chan string, len(test.server))
			a := startScript(t, "a", "127.0.42.1", func(conn net.Conn) {
				n := int(calls.Add(1))
				header, rest, err := readPreface(conn)
				if err != nil || n > len(test.server) {
					t.Errorf("connection %d: header %q, %v", n, header, err)
					return
				}
				headers <- header
				play(t, rest, test.server[n-1], n == len(test.server))
			})
			def := definition(t, "primary", test.listen)
			def.Options = options(t, test.options)
			r := run(t, test.cfg, Endpoint{"pg-test", def, view.NewBoard(viewOf(serviceOf(def, up(a)))), lately})
			conn := dialSilent(t, addressOf(def))
			var toServer, toClient int
			for _, s := range test.client {
				got := make([]byte, len(s.reads))
				if _, err := io.ReadFull(conn, got); err != nil || !bytes.Equal(got, s.reads) {
					t.Fatalf("the client got %q, %v; want %q", got, err, s.reads)
				}
				_, err := conn.Write(s.says)
				must(t, err)
				toServer, toClient = toServer+len(s.says), toClient+len(s.reads)
			}
			echoes(t, conn)
			want := fmt.Sprintf("%s %s > %s", test.version, conn.LocalAddr(), addressOf(def))
			for range test.server {
				if got := <-headers; got != want {
					t.Errorf("the server was told %q, want %q", got, want)
				}
			}
			_ = conn.Close()
			eventually(t, "the client is gone", func() bool { return r.service(t, def.FullName).Clients == 0 })
			if s := r.service(t, def.FullName); s.ToServer != int64(toServer+4) || s.ToClient != int64(toClient+4) {
				t.Errorf("%d bytes to the server, %d to the client; want the client's own %d and %d", s.ToServer, s.ToClient, toServer+4, toClient+4)
			}
		})
	}
}

// A socket for both families shows IPv4 clients in IPv6's form; the header has their own.
func TestProxyHeaderOfMappedAddresses(t *testing.T) {
	got := make(chan string, 1)
	a := startScript(t, "a", "127.0.42.1", func(conn net.Conn) {
		header, _, err := readPreface(conn)
		if err != nil {
			t.Error(err)
		}
		got <- header
	})
	def := definition(t, "primary", "*")
	def.Options = options(t, "send-proxy")
	run(t, Config{}, Endpoint{"pg-test", def, view.NewBoard(viewOf(serviceOf(def, up(a)))), lately})
	at := fmt.Sprintf("127.0.48.9:%d", def.Port)
	conn := dial(t, at)
	if want := fmt.Sprintf("v1 %s > %s", conn.LocalAddr(), at); <-got != want {
		t.Errorf("not %s", want)
	}
}

// A CancelRequest is preceded by it too, on every server.
func TestProxyHeaderOfCancelRequests(t *testing.T) {
	got := make(chan string, 2)
	record := func(conn net.Conn) {
		header, rest, err := readPreface(conn)
		all, _ := io.ReadAll(io.LimitReader(rest, int64(len(cancelled))))
		got <- fmt.Sprintf("%s %v %q", header, err, all)
	}
	a, b := startScript(t, "a", "127.0.42.1", record), startScript(t, "b", "127.0.42.2", record)
	def := definition(t, "primary", "127.0.48.1")
	def.Options = options(t, "send-proxy-v2")
	run(t, longHold, Endpoint{"pg-test", def, view.NewBoard(viewOf(serviceOf(def, up(a), up(b)))), lately})
	conn := dialSilent(t, addressOf(def))
	_, err := conn.Write(cancelled)
	must(t, err)
	over(t, conn)
	want := fmt.Sprintf("v2 %s > %s <nil> %q", conn.LocalAddr(), addressOf(def), cancelled)
	for range 2 {
		if header := <-got; header != want {
			t.Errorf("a server had %s, want %s", header, want)
		}
	}
}

// HAProxy takes the header for what it is: it passes on, in one of its own, whom ours named.
func TestHAProxyReadsTheHeader(t *testing.T) {
	headers := make(chan string, 1)
	a := startScript(t, "a", "127.0.42.1", func(conn net.Conn) {
		header, rest, err := readPreface(conn)
		if err != nil {
			// HAProxy is asked whether it listens.
			return
		}
		headers <- header
		play(t, rest, []step{{startup, askSASL}}, true)
	})
	port := freePort(t)
	cfg := filepath.Join(t.TempDir(), "haproxy.cfg")
	must(t, os.WriteFile(cfg, fmt.Appendf(nil, "defaults\n mode tcp\n timeout connect 5s\n timeout client 1m\n timeout server 1m\n"+
		"listen a\n bind 127.0.42.9:%d accept-proxy\n server a %s send-proxy-v2\n", port, a.Addr()), 0o600))
	haproxy := exec.Command("haproxy", "-db", "-f", cfg)
	must(t, haproxy.Start())
	t.Cleanup(func() {
		_ = haproxy.Process.Kill()
		_ = haproxy.Wait()
	})
	at := net.JoinHostPort("127.0.42.9", strconv.Itoa(port))
	eventually(t, "HAProxy listens", func() bool {
		conn, err := net.Dial("tcp", at)
		if err == nil {
			_ = conn.Close()
		}
		return err == nil
	})
	for _, words := range []string{"send-proxy", "send-proxy-v2"} {
		t.Run(words, func(t *testing.T) {
			def := definition(t, "primary", "127.0.48.8")
			def.Options = options(t, words)
			svc := serviceOf(def, up(a))
			svc.Servers[0].Host, svc.Servers[0].Port = "127.0.42.9", port
			run(t, longHold, Endpoint{"pg-test", def, view.NewBoard(viewOf(svc)), lately})
			conn := dial(t, addressOf(def))
			if _, err := io.ReadFull(conn, make([]byte, len(askSASL))); err != nil {
				t.Fatal(err)
			}
			if want, got := fmt.Sprintf("v2 %s > %s", conn.LocalAddr(), addressOf(def)), <-headers; got != want {
				t.Errorf("HAProxy was told %q, want %q", got, want)
			}
			echoes(t, conn)
		})
	}
}
