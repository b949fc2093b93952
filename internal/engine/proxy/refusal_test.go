package proxy

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgproto3"

	"github.com/pgporter/pgporter/internal/config/model"
	"github.com/pgporter/pgporter/internal/monitor/view"
)

func TestRefusalSeenByADriver(t *testing.T) {
	a, b, dead := startBackend(t, "pg-test-1", "127.0.42.1"), startBackend(t, "pg-test-2", "127.0.42.2"), startBackend(t, "pg-test-3", "127.0.42.3")
	must(t, dead.Close())
	down, empty, spare, full := up(a), up(b), up(b), up(a)
	down.down, down.reason = true, "silent: connection refused"
	empty.weight = 0
	spare.backup, spare.down, spare.reason = true, true, "503 replica starting"
	refused := fmt.Sprintf("cannot connect to %s: connection refused", dead.Addr())
	reserve := up(b)
	reserve.backup = true
	for _, test := range []struct {
		name    string
		options string
		servers []server
		code    string
		message string
		detail  string
	}{
		{"all down", "", []server{down, spare}, "57P03", "service pg-test-primary has no usable server",
			"pg-test-1: down: silent: connection refused\npg-test-2: down: 503 replica starting"},
		{"weight 0", "", []server{down, empty}, "57P03", "service pg-test-primary has no usable server",
			"pg-test-1: down: silent: connection refused\npg-test-2: up, but its weight is 0"},
		{"nobody selected", "", nil, "57P03", "service pg-test-primary has no usable server", "its selector matches no member now"},
		{"connect fails", "", []server{up(dead), reserve}, "57P03", "service pg-test-primary has no usable server",
			"pg-test-3: " + refused + "\npg-test-2: up, but a backup"},
		{"full", "maxconn 1", []server{full}, "53300", "service pg-test-primary is full: its usable servers have 1 sessions each",
			"pg-test-1: up: 200 replica running"},
	} {
		for _, sslmode := range []string{"disable", "prefer"} {
			t.Run(test.name+" sslmode "+sslmode, func(t *testing.T) {
				def := definition(t, "primary", "127.0.45.1")
				var problems []model.OptionProblem
				if def.Options, problems = model.ParseOptions(test.options); problems != nil {
					t.Fatal(problems)
				}
				run(t, Config{}, Endpoint{"pg-test", def, view.NewBoard(viewOf(serviceOf(def, test.servers...))), 0})
				if test.code == "53300" {
					reach(t, addressOf(def))
				}
				ctx, cancel := context.WithTimeout(t.Context(), patience)
				defer cancel()
				_, err := pgconn.Connect(ctx, fmt.Sprintf("postgres://u:p@%s/d?sslmode=%s", addressOf(def), sslmode))
				var answer *pgconn.PgError
				if !errors.As(err, &answer) {
					t.Fatalf("the driver says %v", err)
				}
				if answer.Severity != "FATAL" || answer.Code != test.code || answer.Message != test.message || answer.Detail != test.detail {
					t.Errorf("got %s %s %q\n%q\nwant %s %q\n%q", answer.Severity, answer.Code, answer.Message, answer.Detail, test.code, test.message, test.detail)
				}
			})
		}
	}

	t.Run("a service that the View doesn't have", func(t *testing.T) {
		def := definition(t, "primary", "127.0.45.1")
		run(t, Config{}, Endpoint{"pg-test", def, view.NewBoard(viewOf()), 0})
		_, err := pgconn.Connect(t.Context(), fmt.Sprintf("postgres://u:p@%s/d", addressOf(def)))
		if err == nil || !strings.Contains(err.Error(), "service pg-test-primary is not known yet (SQLSTATE 57P03)") {
			t.Errorf("the driver says %v", err)
		}
	})
}

func packet(code uint32, body string) []byte {
	p := binary.BigEndian.AppendUint32(nil, uint32(8+len(body)))
	p = binary.BigEndian.AppendUint32(p, code)
	return append(p, body...)
}

var (
	startup   = packet(3<<16, "user\x00u\x00\x00")
	newer     = packet(3<<16|9999, "user\x00u\x00\x00")
	sslAsked  = packet(sslRequestCode, "")
	gssAsked  = packet(gssEncRequestCode, "")
	cancelled = packet(cancelRequestCode, "\x00\x00\x00\x07key!")
)

// openings are what clients send first, by name. They are the seeds of the fuzz target too.
var openings = []struct {
	name string
	sent []byte
	// What comes back before the end: N for each encryption request that was declined, E for the error; or the client has
	// what it came for, or has left, before it can be refused.
	answer string
}{
	{"startup", startup, "E"},
	{"startup of a later minor version", newer, "E"},
	{"ssl, startup", join(sslAsked, startup), "NE"},
	{"gss, startup", join(gssAsked, startup), "NE"},
	{"gss, ssl, startup", join(gssAsked, sslAsked, startup), "NNE"},
	{"startup and more", join(startup, bytes.Repeat([]byte("p"), 20_000)), "E"},
	{"ssl twice", join(sslAsked, sslAsked, startup), "N"},
	{"cancel", cancelled, unrefused},
	{"cancel after ssl", join(sslAsked, cancelled), "N"},
	{"cancel with a key of 256 bytes", packet(cancelRequestCode, "\x00\x00\x00\x07"+strings.Repeat("k", 256)), unrefused},
	{"direct tls", []byte("\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03"), ""},
	{"http", []byte("GET / HTTP/1.1\r\nHost: x\r\n\r\n"), ""},
	{"protocol 2", packet(2<<16, "user\x00u\x00\x00"), ""},
	{"length 0", packet(0, "")[4:], unrefused},
	{"too long", []byte("\x00\x7f\xff\xff\x00\x03\x00\x00"), ""},
	{"no terminator", packet(3<<16, "user"), ""},
	{"cut in the head", startup[:5], unrefused},
	{"cut in the body", startup[:12], unrefused},
	{"nothing", nil, unrefused},
}

// unrefused is the answer of openings that nobody refuses.
const unrefused = "none"

func join(parts ...[]byte) []byte { return bytes.Join(parts, nil) }

func TestRefusedPackets(t *testing.T) {
	def := definition(t, "primary", "127.0.45.2")
	r := run(t, Config{}, Endpoint{"pg-test", def, view.NewBoard(viewOf(serviceOf(def))), 0})
	for _, test := range openings {
		for _, pieces := range []string{"at once", "byte by byte"} {
			t.Run(test.name+" "+pieces, func(t *testing.T) {
				conn := dialSilent(t, addressOf(def))
				go func() {
					step := len(test.sent)
					if pieces == "byte by byte" && step < 1000 {
						step = 1
					}
					for sent := 0; sent < len(test.sent); sent += step {
						if _, err := conn.Write(test.sent[sent:min(sent+step, len(test.sent))]); err != nil {
							return
						}
					}
					// Whoever closes his side has left, if that is seen before he is heard: he isn't refused, then.
					if test.answer == unrefused {
						_ = conn.CloseWrite()
					}
				}()
				got, err := io.ReadAll(conn)
				if err != nil && !isReset(err) {
					t.Fatal(err)
				}
				answer, rest := "", got
				for len(rest) > 0 && rest[0] == 'N' {
					answer, rest = answer+"N", rest[1:]
				}
				if len(rest) > 0 {
					message, err := pgproto3.NewFrontend(bytes.NewReader(rest), nil).Receive()
					if e, ok := message.(*pgproto3.ErrorResponse); err != nil || !ok || e.Code != "57P03" {
						t.Fatalf("got %q: %v", rest, err)
					}
					answer += "E"
				}
				if want := strings.TrimSuffix(test.answer, unrefused); answer != want {
					t.Errorf("answered %q, want %q", answer, want)
				}
			})
		}
	}
	eventually(t, "all clients are gone", func() bool { return r.service(t, def.FullName).Clients == 0 })
	var refused uint64
	for _, test := range openings {
		if test.answer != unrefused {
			refused += 2
		}
	}
	if s := r.service(t, def.FullName); s.Refused != refused {
		t.Errorf("refused %d, want %d", s.Refused, refused)
	}
}

// A client that says nothing, or no more than that it wants encryption, is closed after a bounded time.
func TestSilentClientIsClosed(t *testing.T) {
	def := definition(t, "primary", "127.0.45.3")
	const limit = 300 * time.Millisecond
	run(t, Config{OpeningTimeout: limit}, Endpoint{"pg-test", def, view.NewBoard(viewOf(serviceOf(def))), 0})
	for _, test := range []struct {
		name  string
		says  []byte
		after time.Duration
	}{{"nothing", nil, limit}, {"half a packet", startup[:7], limit}, {"an encryption request", sslAsked, refusalTime}} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			conn := dialSilent(t, addressOf(def))
			began := time.Now()
			_, err := conn.Write(test.says)
			must(t, err)
			if _, err := io.Copy(io.Discard, conn); err != nil && !isReset(err) {
				t.Fatal(err)
			}
			if took := time.Since(began); took < test.after*9/10 || took > test.after+5*time.Second {
				t.Errorf("closed after %v", took)
			}
		})
	}
}

// A client that takes its time over a packet has no more of it than one that says nothing, and costs no server anything
// before the packet is whole.
func TestTricklingClientIsClosed(t *testing.T) {
	const limit = 400 * time.Millisecond
	for _, test := range []struct {
		name string
		// first is said at once, and answered with N; then trickled comes byte by byte.
		first, trickled []byte
		connections     int64
	}{
		{"the first packet", nil, packet(3<<16, strings.Repeat("x", 9000)), 0},
		{"the packet after N", sslAsked, packet(3<<16, strings.Repeat("x", 9000)), 1},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			var connections atomic.Int64
			over := make(chan []byte, 1)
			a := startScript(t, "a", "127.0.42.1", func(conn net.Conn) {
				connections.Add(1)
				asked := make([]byte, len(sslAsked))
				_, _ = io.ReadFull(conn, asked)
				_, _ = conn.Write([]byte("N"))
				rest, _ := io.ReadAll(conn)
				over <- rest
			})
			def := definition(t, "primary", "127.0.45.4")
			cfg := longHold
			cfg.OpeningTimeout = limit
			r := run(t, cfg, Endpoint{"pg-test", def, view.NewBoard(viewOf(serviceOf(def, up(a)))), lately})
			conn := dialSilent(t, addressOf(def))
			if test.first != nil {
				_, err := conn.Write(test.first)
				must(t, err)
				if _, err := io.ReadFull(conn, make([]byte, 1)); err != nil {
					t.Fatal(err)
				}
			}
			began := time.Now()
			tick := time.NewTicker(limit / 20)
			defer tick.Stop()
			for _, one := range test.trickled {
				if _, err := conn.Write([]byte{one}); err != nil {
					break
				}
				if time.Since(began) > limit+5*time.Second {
					t.Fatal("it is still heard")
				}
				<-tick.C
			}
			if took := time.Since(began); took < limit*9/10 {
				t.Errorf("closed after %v", took)
			}
			eventually(t, "it is gone", func() bool { return r.service(t, def.FullName).Clients == 0 && a.open() == 0 })
			if n := connections.Load(); n != test.connections {
				t.Errorf("%d connections to the server, want %d", n, test.connections)
			}
			if test.connections > 0 {
				if rest := <-over; len(rest) > 0 {
					t.Errorf("the server had %d bytes of a packet that isn't whole", len(rest))
				}
			}
		})
	}
}

func TestRefuseEndsWithItsContext(t *testing.T) {
	ours, theirs := net.Pipe()
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() {
		refuse(ctx, ours, &refusal{code: codeCannotConnectNow, message: "m"}, nil)
		close(done)
	}()
	cancel()
	<-done
	if _, err := theirs.Read(make([]byte, 1)); err != io.EOF {
		t.Errorf("the client sees %v", err)
	}
}

// FuzzOpeningOf looks for bytes of which more say something else than fewer did: they are looked at as they come.
func FuzzOpeningOf(f *testing.F) {
	for _, o := range openings {
		f.Add(o.sent)
	}
	f.Fuzz(func(t *testing.T, sent []byte) {
		what, packet, whole := peekedPacket(sent)
		switch {
		case !whole && (what != 0 || packet != nil):
			t.Fatalf("undecided, but %d with %d bytes", what, len(packet))
		case !whole && len(sent) >= maxStartupPacket:
			t.Fatalf("undecided after %d bytes", len(sent))
		case whole && what != notStartup && !bytes.HasPrefix(sent, packet):
			t.Fatalf("%d with %q", what, packet)
		}
		decided := false
		for n := range len(sent) + 1 {
			now, part, early := peekedPacket(sent[:n])
			if decided && !early || early && (now != what || !bytes.Equal(part, packet)) {
				t.Fatalf("%d bytes: %d with %d bytes, decided %v; all %d: %d with %d bytes", n, now, len(part), early, len(sent), what, len(packet))
			}
			decided = early
		}
	})
}

func FuzzReadOpening(f *testing.F) {
	for _, o := range openings {
		f.Add(o.sent)
	}
	f.Fuzz(func(t *testing.T, sent []byte) {
		in := bytes.NewReader(sent)
		what, err := readPacket(in)
		if err != nil {
			if what != 0 {
				t.Errorf("%d with error %v", what, err)
			}
			return
		}
		used := sent[:len(sent)-in.Len()]
		if len(used) < 8 || len(used) > maxStartupPacket || int(binary.BigEndian.Uint32(used)) != len(used) {
			t.Errorf("read %d bytes of a packet that says %d", len(used), binary.BigEndian.Uint32(sent))
		}
		// What the protocol library takes for one of these is one, and the same.
		message, err := pgproto3.NewBackend(bytes.NewReader(used), io.Discard).ReceiveStartupMessage()
		if err != nil {
			return
		}
		same := false
		switch message.(type) {
		case *pgproto3.StartupMessage:
			same = what == startupMessage
		case *pgproto3.SSLRequest:
			same = what == sslRequest
		case *pgproto3.GSSEncRequest:
			same = what == gssEncRequest
		case *pgproto3.CancelRequest:
			same = what == cancelRequest
		}
		if !same {
			t.Errorf("%T was read as %d", message, what)
		}
	})
}

// TestRefusalNamesTheHold: who is refused during a hold, or after one in vain, hears of it, and not who ordered it.
func TestRefusalNamesTheHold(t *testing.T) {
	at := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	def := definition(t, "primary", "127.0.42.9")
	board := view.NewBoard(viewOf(serviceOf(def, up(startBackend(t, "pg-test-1", "127.0.42.8")))))
	led := *board.View()
	led.Services[0].Leads = true
	board.Publish(&led)
	d := lone(New(longHold), Endpoint{"pg-test", def, board, lately})
	board.Hold(view.Hold{ID: "one", From: "pg-test-1", To: "pg-test-2", By: "root (uid 0)", Since: at, Until: at.Add(time.Hour)}, at)
	const held = "held for a switchover to pg-test-2 by an operator since 12:00:00Z"
	c := &client{waits: time.Now()}
	if no := d.refusal(c, d.sessions.outlook()); no.message != "service pg-test-primary is "+held {
		t.Errorf("during it: %s", no.message)
	}
	c.held, c.expired = d.view().HeldWords, true
	board.Release("one", at)
	if no := d.refusal(c, d.sessions.outlook()); !strings.HasSuffix(no.message, ", it was "+held) {
		t.Errorf("after it: %s", no.message)
	}
}
