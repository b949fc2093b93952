package proxy

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgproto3"

	"github.com/pgporter/pgporter/internal/monitor/view"
)

// fatal is an ErrorResponse as PostgreSQL sends it.
func fatal(code, message string) []byte {
	answer, err := (&pgproto3.ErrorResponse{Severity: "FATAL", SeverityUnlocalized: "FATAL", Code: code, Message: message}).Encode(nil)
	if err != nil {
		panic(err)
	}
	return answer
}

var (
	starting   = fatal("57P03", "the database system is starting up")
	negotiated = []byte("v\x00\x00\x00\x0c\x00\x03\x00\x00\x00\x00\x00\x00"[:13])
	askSASL    = []byte("R\x00\x00\x00\x17\x00\x00\x00\x0aSCRAM-SHA-256\x00\x00")
)

// step is a part of a scripted conversation: what is read first, then what is said.
type step struct{ reads, says []byte }

// play goes through a conversation, and then closes or echoes.
func play(t *testing.T, conn net.Conn, steps []step, echo bool) {
	_ = conn.SetDeadline(time.Now().Add(patience))
	for _, s := range steps {
		got := make([]byte, len(s.reads))
		if _, err := io.ReadFull(conn, got); err != nil || !bytes.Equal(got, s.reads) {
			t.Errorf("the server read %q, %v; want %q", got, err, s.reads)
			return
		}
		if _, err := conn.Write(s.says); err != nil {
			t.Errorf("the server says %q: %v", s.says, err)
		}
	}
	if echo {
		_, _ = io.Copy(conn, conn)
	}
}

// TestStartup plays what clients and servers say to each other before a session. The server's first connections are
// refused in one way or another, the last one is taken up: the client must not see more than that one, every byte exact.
func TestStartup(t *testing.T) {
	long := packet(3<<16, "user\x00u\x00application_name\x00"+strings.Repeat("x", 8000)+"\x00\x00")
	oversized, undersized := []byte("\x00\x7f\xff\xff\x00\x03\x00\x00"), []byte("\x00\x00\x00\x07\x00\x03\x00\x00")
	longKey, oldest := packet(cancelRequestCode, "\x00\x00\x00\x07"+strings.Repeat("k", maxCancelKey+1)), packet(2<<16, "user\x00u\x00\x00")
	wrongPassword := fatal("28P01", `password authentication failed for user "u"`)
	for _, test := range []struct {
		name string
		// server has one conversation for each connection in turn.
		server [][]step
		client []step
		// ends says that the server closes after the last; otherwise it echoes, beginning with what is beyond its script.
		ends   bool
		beyond string
	}{
		{"taken up at once", [][]step{{{startup, askSASL}}}, []step{{nil, startup}, {askSASL, nil}}, false, ""},
		{"a long startup packet", [][]step{{{long, askSASL}}}, []step{{nil, long}, {askSASL, nil}}, false, ""},
		{"starting up", [][]step{{{startup, starting}}, {{startup, starting}}, {{startup, askSASL}}},
			[]step{{nil, startup}, {askSASL, nil}}, false, ""},
		{"starting up, after a note on the version", [][]step{{{newer, join(negotiated, starting)}}, {{newer, join(negotiated, askSASL)}}},
			[]step{{nil, newer}, {join(negotiated, askSASL), nil}}, false, ""},
		{"closes without a word", [][]step{{{startup, nil}}, {{startup, askSASL}}}, []step{{nil, startup}, {askSASL, nil}}, false, ""},
		{"closes at once", [][]step{{}, {{startup, askSASL}}}, []step{{nil, startup}, {askSASL, nil}}, false, ""},
		{"another error is the client's to see", [][]step{{{startup, wrongPassword}}}, []step{{nil, startup}, {wrongPassword, nil}}, true, ""},
		{"encryption", [][]step{{{sslAsked, []byte("S")}}}, []step{{nil, sslAsked}, {[]byte("S"), []byte("\x16\x03\x01hello")}}, false, "\x16\x03\x01hello"},
		{"encryption and more at once", [][]step{{{sslAsked, []byte("S")}}}, []step{{nil, join(sslAsked, []byte("\x16\x03\x01hello"))}, {[]byte("S"), nil}}, false, "\x16\x03\x01hello"},
		{"gssapi", [][]step{{{gssAsked, []byte("G")}}}, []step{{nil, gssAsked}, {[]byte("G"), []byte("token")}}, false, "token"},
		{"encryption declined", [][]step{{{sslAsked, []byte("N")}, {startup, askSASL}}},
			[]step{{nil, sslAsked}, {[]byte("N"), startup}, {askSASL, nil}}, false, ""},
		{"both declined", [][]step{{{gssAsked, []byte("N")}, {sslAsked, []byte("N")}, {startup, askSASL}}},
			[]step{{nil, gssAsked}, {[]byte("N"), sslAsked}, {[]byte("N"), startup}, {askSASL, nil}}, false, ""},
		{"declined, then starting up", [][]step{{{sslAsked, []byte("N")}, {startup, starting}}, {{startup, askSASL}}},
			[]step{{nil, sslAsked}, {[]byte("N"), startup}, {askSASL, nil}}, false, ""},
		{"declined, then closed while the client thinks", [][]step{{{sslAsked, []byte("N")}}, {{startup, askSASL}}},
			[]step{{nil, sslAsked}, {[]byte("N"), startup}, {askSASL, nil}}, false, ""},
		{"the same request twice is the server's to answer", [][]step{{{sslAsked, []byte("N")}, {sslAsked, wrongPassword}}},
			[]step{{nil, sslAsked}, {[]byte("N"), sslAsked}, {wrongPassword, nil}}, true, ""},
		{"an error instead of S or N", [][]step{{{sslAsked, wrongPassword}}}, []step{{nil, sslAsked}, {wrongPassword, nil}}, true, ""},
		{"refused instead of S or N", [][]step{{{sslAsked, starting}}, {{sslAsked, []byte("S")}}}, []step{{nil, sslAsked}, {[]byte("S"), nil}}, false, ""},
		{"direct tls", [][]step{{{[]byte("\x16\x03\x01hello"), []byte("\x16\x03\x03")}}}, []step{{nil, []byte("\x16\x03\x01hello")}, {[]byte("\x16\x03\x03"), nil}}, false, ""},
		{"garbage", [][]step{{{[]byte("GET / HTTP/1.1\r\n\r\n"), []byte("what?")}}}, []step{{nil, []byte("GET / HTTP/1.1\r\n\r\n")}, {[]byte("what?"), nil}}, true, ""},
		{"a length that no packet has", [][]step{{{oversized, wrongPassword}}}, []step{{nil, oversized}, {wrongPassword, nil}}, true, ""},
		{"a length below its own", [][]step{{{undersized, wrongPassword}}}, []step{{nil, undersized}, {wrongPassword, nil}}, true, ""},
		{"a cancel request with a key that none has", [][]step{{{longKey, nil}}}, []step{{nil, longKey}}, true, ""},
		{"protocol 2", [][]step{{{oldest, wrongPassword}}}, []step{{nil, oldest}, {wrongPassword, nil}}, true, ""},
		{"declined, then tls all the same", [][]step{{{sslAsked, []byte("N")}, {[]byte("\x16\x03\x01hello"), []byte("what?")}}},
			[]step{{nil, sslAsked}, {[]byte("N"), []byte("\x16\x03\x01hello")}, {[]byte("what?"), nil}}, true, ""},
		{"declined, then garbage", [][]step{{{sslAsked, []byte("N")}, {oversized, []byte("what?")}}},
			[]step{{nil, sslAsked}, {[]byte("N"), oversized}, {[]byte("what?"), nil}}, true, ""},
		{"ssl declined, then gssapi", [][]step{{{sslAsked, []byte("N")}, {gssAsked, []byte("G")}}},
			[]step{{nil, sslAsked}, {[]byte("N"), gssAsked}, {[]byte("G"), []byte("token")}}, false, "token"},
		{"an answer that begins like an error", [][]step{{{startup, []byte("E\xff\xff\xff\xffnonsense")}}}, []step{{nil, startup}, {[]byte("E\xff\xff\xff\xffnonsense"), nil}}, true, ""},
		{"an answer that breaks off", [][]step{{{startup, starting[:9]}}}, []step{{nil, startup}, {starting[:9], nil}}, true, ""},
	} {
		for _, pieces := range []string{"at once", "byte by byte"} {
			t.Run(test.name+" "+pieces, func(t *testing.T) {
				var calls atomic.Int64
				a := startScript(t, "a", "127.0.42.1", func(conn net.Conn) {
					n := int(calls.Add(1))
					if n > len(test.server) {
						t.Errorf("the server was connected %d times", n)
						return
					}
					last := n == len(test.server)
					play(t, conn, test.server[n-1], last && !test.ends)
				})
				def := definition(t, "primary", "127.0.48.1")
				r := run(t, longHold, Endpoint{"pg-test", def, view.NewBoard(viewOf(serviceOf(def, up(a)))), lately})
				conn := dialSilent(t, addressOf(def))
				var toServer, toClient int
				for _, s := range test.client {
					got := make([]byte, len(s.reads))
					if _, err := io.ReadFull(conn, got); err != nil || !bytes.Equal(got, s.reads) {
						t.Fatalf("the client got %q, %v; want %q", got, err, s.reads)
					}
					toClient += len(s.reads)
					toServer += len(s.says)
					for left := s.says; len(left) > 0; {
						n := len(left)
						if pieces == "byte by byte" && n < 100 {
							n = 1
						}
						_, err := conn.Write(left[:n])
						must(t, err)
						left = left[n:]
					}
				}
				if test.ends {
					over(t, conn)
				} else {
					// What the client sent beyond the server's script comes back.
					back := make([]byte, len(test.beyond))
					if _, err := io.ReadFull(conn, back); err != nil || string(back) != test.beyond {
						t.Fatalf("the client got %q, %v; want %q", back, err, test.beyond)
					}
					toClient += len(back)
					echoes(t, conn)
					toServer, toClient = toServer+4, toClient+4
				}
				_ = conn.Close()
				eventually(t, "the client is gone", func() bool { return r.service(t, def.FullName).Clients == 0 })
				s := r.service(t, def.FullName)
				if s.ToServer != int64(toServer) || s.ToClient != int64(toClient) || s.Refused != 0 || s.TotalSessions != 1 ||
					int(s.Servers[0].ConnectFailures) != len(test.server)-1 || int(calls.Load()) != len(test.server) {
					t.Errorf("%d bytes to the server, %d to the client, %d connections; status %+v", toServer, toClient, calls.Load(), s)
				}
			})
		}
	}
}

// A server that can't be connected to, or says nothing, is doubted while a client waits for it, also after it has declined encryption.
func TestASilentServerIsDoubted(t *testing.T) {
	// Whose packet is long is served by a goroutine.
	long := packet(3<<16, "user\x00"+strings.Repeat("u", 1000)+"\x00\x00")
	for _, test := range []struct {
		name           string
		server, client []step
	}{
		{"no connection", nil, []step{{nil, startup}}},
		{"no connection, by a goroutine", nil, []step{{nil, long}}},
		{"from the start", []step{{startup, nil}}, []step{{nil, startup}}},
		{"from the start, by a goroutine", []step{{long, nil}}, []step{{nil, long}}},
		{"after SSLRequest", []step{{sslAsked, []byte("N")}, {startup, nil}}, []step{{nil, sslAsked}, {[]byte("N"), startup}}},
	} {
		t.Run(test.name, func(t *testing.T) {
			a := startScript(t, "a", "127.0.42.1", func(conn net.Conn) { play(t, conn, test.server, true) })
			def := definition(t, "primary", "127.0.48.1")
			svc := serviceOf(def, up(a))
			if test.server == nil {
				hole := fullListener(t, "127.0.42.4")
				svc.Servers[0].Host, svc.Servers[0].Port = hole.IP.String(), hole.Port
			}
			doubted := make(chan string, 2)
			run(t, Config{Hold: 10 * time.Second, Doubt: func(cluster, service, member string) {
				select {
				case doubted <- cluster + " " + service + " " + member:
				default:
				}
			}}, Endpoint{"pg-test", def, view.NewBoard(viewOf(svc)), lately})
			conn := dialSilent(t, addressOf(def))
			for _, s := range test.client {
				_, err := io.ReadFull(conn, make([]byte, len(s.reads)))
				must(t, err)
				_, err = conn.Write(s.says)
				must(t, err)
			}
			for range min(len(test.server)+1, 2) {
				if got, want := <-doubted, "pg-test "+def.FullName+" a"; got != want {
					t.Errorf("doubted %s, want %s", got, want)
				}
			}
		})
	}
}

// A server that refuses for as long as the client waits is named in the client's own refusal.
func TestRefusalOfAServerIsNamed(t *testing.T) {
	a := startScript(t, "a", "127.0.42.1", func(conn net.Conn) { play(t, conn, []step{{startup, starting}}, false) })
	b := startScript(t, "b", "127.0.42.2", func(conn net.Conn) { play(t, conn, []step{{startup, nil}}, false) })
	def := definition(t, "primary", "127.0.48.2")
	var rechecked sync.Map
	cfg := Config{Hold: 3 * time.Second, Recheck: func(_, member string) { rechecked.Store(member, true) }}
	run(t, cfg, Endpoint{"pg-test", def, view.NewBoard(viewOf(serviceOf(def, up(a), up(b)))), 0})
	message, err := pgproto3.NewFrontend(dial(t, addressOf(def)), nil).Receive()
	no, refused := message.(*pgproto3.ErrorResponse)
	want := fmt.Sprintf("a: %s refuses: the database system is starting up (SQLSTATE 57P03)\nb: %s closed the connection before it had said anything", a.Addr(), b.Addr())
	if err != nil || !refused || no.Code != "57P03" || no.Message != "service pg-test-primary has no usable server (waited 3s)" || no.Detail != want {
		t.Errorf("told %+v, %v", message, err)
	}
	for _, member := range []string{"a", "b"} {
		if _, was := rechecked.Load(member); !was {
			t.Errorf("%s was not checked again", member)
		}
	}
}

// One replica that refuses is passed over for another one at once, and is left alone for a while.
func TestRefusingReplicaIsPassedOver(t *testing.T) {
	a := startScript(t, "a", "127.0.42.1", func(conn net.Conn) { play(t, conn, []step{{startup, starting}}, false) })
	b := startBackend(t, "b", "127.0.42.2")
	def := definition(t, "replica", "127.0.48.3")
	r := run(t, longHold, Endpoint{"pg-test", def, view.NewBoard(viewOf(serviceOf(def, up(a), up(b)))), 0})
	began := time.Now()
	if got := sequence(t, addressOf(def), 10); got != strings.TrimSpace(strings.Repeat("b ", 10)) {
		t.Errorf("reached %s", got)
	}
	most := uint64(time.Since(began)/retryPause) + 1
	if s := r.service(t, def.FullName); s.Servers[0].ConnectFailures > most || s.Servers[0].ConnectFailures == 0 {
		t.Errorf("%d failures within %v", s.Servers[0].ConnectFailures, time.Since(began))
	}
}

// A client that takes its time after its encryption request was declined doesn't keep others from a server that is tried
// again after a failure.
func TestThinkingClientHoldsUpNobody(t *testing.T) {
	var calls atomic.Int64
	conversations := [][]step{{}, {{sslAsked, []byte("N")}, {startup, askSASL}}, {{startup, askSASL}}}
	a := startScript(t, "a", "127.0.42.1", func(conn net.Conn) {
		n := calls.Add(1)
		play(t, conn, conversations[n-1], n > 1)
	})
	def := definition(t, "primary", "127.0.48.4")
	run(t, longHold, Endpoint{"pg-test", def, view.NewBoard(viewOf(serviceOf(def, up(a)))), 0})
	thinking := dialSilent(t, addressOf(def))
	expect := func(conn net.Conn, says, answer []byte) {
		t.Helper()
		_, err := conn.Write(says)
		must(t, err)
		got := make([]byte, len(answer))
		if _, err := io.ReadFull(conn, got); err != nil || !bytes.Equal(got, answer) {
			t.Fatalf("got %q, %v; want %q", got, err, answer)
		}
	}
	expect(thinking, sslAsked, []byte("N"))
	expect(dialSilent(t, addressOf(def)), startup, askSASL)
	expect(thinking, startup, askSASL)
	echoes(t, thinking)
}

func TestFirstResponse(t *testing.T) {
	endless := []byte("E\x00\x00\x20\x00SFATAL\x00C57P03\x00")
	for _, test := range []struct {
		name    string
		said    []byte
		refused string
		decided bool
	}{
		{"nothing", nil, "", false},
		{"encryption accepted", []byte("S"), "", true},
		{"encryption declined", []byte("N"), "", true},
		{"asks for a password", askSASL, "", true},
		{"starting up", starting, "the database system is starting up", true},
		{"starting up, and more", join(starting, []byte("x")), "the database system is starting up", true},
		{"starting up, cut", starting[:len(starting)-1], "", false},
		{"cut in its head", starting[:3], "", false},
		{"after the version", join(negotiated, starting), "the database system is starting up", true},
		{"the version alone", negotiated, "", false},
		{"too many", fatal("53300", "sorry"), "", true},
		{"longer than any", endless, "", true},
		{"shorter than any", []byte("E\x00\x00\x00\x03"), "", true},
		{"no fields", []byte("E\x00\x00\x00\x05\x00"), "", true},
	} {
		no, decided := firstResponse(test.said)
		message := ""
		if no != nil {
			message = no.message
		}
		if decided != test.decided || message != test.refused {
			t.Errorf("%s: decided %v, refused %q", test.name, decided, message)
		}
	}
}

func FuzzFirstWord(f *testing.F) {
	for _, seed := range [][]byte{nil, starting, askSASL, join(negotiated, starting), starting[:9], []byte("E\xff\xff\xff\xff")} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, said []byte) {
		no, decided := firstResponse(said)
		if no != nil && (!decided || no.code != codeCannotConnectNow) {
			t.Errorf("refused with %q, decided %v", no.code, decided)
		}
		// More bytes never change what has been decided, and enough of them always decide.
		more := append(bytes.Clone(said), 'x')
		if again, still := firstResponse(more); decided && (!still || (again == nil) != (no == nil)) {
			t.Errorf("decided %v %v, then with one byte more %v %v", decided, no, still, again)
		}
		if len(said) > 0 && said[0] == 'E' && len(said) >= 5+maxResponse && !decided {
			t.Errorf("%d bytes with a length of %d decide nothing", len(said), binary.BigEndian.Uint32(said[1:5]))
		}
	})
}
