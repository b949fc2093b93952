package load

import (
	"context"
	"errors"
	"fmt"
	"net"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgproto3"
)

// peer is a server that speaks PostgreSQL's protocol as far as it is set to: it says what follows the startup packet, and what
// follows each query.
type peer struct {
	startup []pgproto3.BackendMessage
	query   []pgproto3.BackendMessage
}

var (
	welcome = []pgproto3.BackendMessage{
		&pgproto3.AuthenticationOk{}, &pgproto3.ParameterStatus{Name: "standard_conforming_strings", Value: "on"},
		&pgproto3.ParameterStatus{Name: "client_encoding", Value: "UTF8"}, &pgproto3.ReadyForQuery{TxStatus: 'I'},
	}
	hangsUp = []pgproto3.BackendMessage(nil)
)

func fatal(code string) []pgproto3.BackendMessage {
	return []pgproto3.BackendMessage{&pgproto3.ErrorResponse{Severity: "FATAL", Code: code, Message: "scripted"}}
}

// answered is one value, of type text or boolean (PostgreSQL's pg_type: 25 and 16).
func answered(value string) []pgproto3.BackendMessage {
	oid := uint32(25)
	if value == "t" || value == "f" {
		oid = 16
	}
	return []pgproto3.BackendMessage{
		&pgproto3.RowDescription{Fields: []pgproto3.FieldDescription{{Name: []byte("answer"), DataTypeOID: oid, DataTypeSize: -1, TypeModifier: -1}}},
		&pgproto3.DataRow{Values: [][]byte{[]byte(value)}},
		&pgproto3.CommandComplete{CommandTag: []byte("INSERT 0 1")},
		&pgproto3.ReadyForQuery{TxStatus: 'I'},
	}
}

// serve runs a peer on loopback until the test ends; next gives the script of each connection.
func serve(t *testing.T, next func() peer) string {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var serving sync.WaitGroup
	t.Cleanup(func() {
		listener.Close()
		serving.Wait()
	})
	serving.Go(func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			serving.Go(func() {
				defer conn.Close()
				next().speak(conn)
			})
		}
	})
	return fmt.Sprintf("postgres://u:p@%s/d?sslmode=disable", listener.Addr())
}

func (p peer) speak(conn net.Conn) {
	backend := pgproto3.NewBackend(conn, conn)
	if _, err := backend.ReceiveStartupMessage(); err != nil {
		return
	}
	say := func(messages []pgproto3.BackendMessage) bool {
		for _, m := range messages {
			backend.Send(m)
		}
		return backend.Flush() == nil && len(messages) > 0
	}
	if !say(p.startup) {
		return
	}
	for {
		m, err := backend.Receive()
		if err != nil {
			return
		}
		switch m.(type) {
		case *pgproto3.Query:
			if !say(p.query) {
				return
			}
		default: // a password, or a good-bye
			return
		}
	}
}

func TestProber(t *testing.T) {
	closed, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	nobody := fmt.Sprintf("postgres://u:p@%s/d?sslmode=disable", closed.Addr())
	closed.Close()
	for name, c := range map[string]struct {
		url  string
		peer peer
		want Outcome
	}{
		"written":                              {peer: peer{welcome, answered("10.1.2.3")}, want: Written},
		"nobody there":                         {url: nobody, want: Refused},
		"hung up on":                           {peer: peer{hangsUp, nil}, want: Refused},
		"refused with a reason":                {peer: peer{fatal("57P03"), nil}, want: Refused},
		"hung up on while authenticated":       {peer: peer{[]pgproto3.BackendMessage{&pgproto3.AuthenticationCleartextPassword{}}, nil}, want: LoginCut},
		"hung up on while it writes":           {peer: peer{welcome, hangsUp}, want: WriteCut},
		"cut after the row, before its commit": {peer: peer{welcome, append(answered("10.1.2.3")[:2:2], fatal("57P01")...)}, want: WriteCut},
		"on a replica":                         {peer: peer{welcome, append(fatal("25006"), &pgproto3.ReadyForQuery{TxStatus: 'I'})}, want: ReadOnly},
	} {
		t.Run(name, func(t *testing.T) {
			url := c.url
			if url == "" {
				url = serve(t, func() peer { return c.peer })
			}
			ctx, stop := context.WithTimeout(t.Context(), time.Minute)
			defer stop()
			var got []Probe
			p := Prober{URL: url, SQL: "insert", Every: time.Millisecond, Connect: time.Minute, Write: time.Minute, Observe: func(probe Probe) {
				if got = append(got, probe); len(got) == 2 {
					stop()
				}
			}}
			if err := p.Run(ctx); err != nil {
				t.Fatal(err)
			}
			if len(got) != 2 {
				t.Fatalf("%d probes", len(got))
			}
			for _, probe := range got {
				if probe.Outcome != c.want || (probe.Err == nil) != (c.want == Written) || probe.Ended.Before(probe.Began) {
					t.Errorf("%+v, want outcome %d", probe, c.want)
				}
				if (probe.Server == "10.1.2.3") != (c.want == Written) {
					t.Errorf("server %q", probe.Server)
				}
			}
		})
	}
	if err := (&Prober{URL: "postgres://[", Every: time.Second}).Run(t.Context()); err == nil {
		t.Error("a URL that is none")
	}
}

// TestProberOfSeveralHosts: with several hosts it counts as refused wherever it came to an end.
func TestProberOfSeveralHosts(t *testing.T) {
	one := serve(t, func() peer {
		return peer{[]pgproto3.BackendMessage{&pgproto3.AuthenticationCleartextPassword{}}, nil}
	})
	var host string
	fmt.Sscanf(one, "postgres://u:p@%s", &host) //nolint:errcheck // looked at below
	host = host[:len(host)-len("/d?sslmode=disable")]
	ctx, stop := context.WithTimeout(t.Context(), time.Minute)
	defer stop()
	var got Probe
	p := Prober{URL: fmt.Sprintf("postgres://u:p@%s,%s/d?sslmode=disable", host, host), SQL: "insert", Every: time.Millisecond,
		Connect: time.Minute, Write: time.Minute, Observe: func(probe Probe) { got = probe; stop() }}
	if err := p.Run(ctx); err != nil {
		t.Fatal(err)
	}
	if got.Outcome != Refused || got.Err == nil {
		t.Errorf("%+v", got)
	}
}

func TestWatcher(t *testing.T) {
	recovery := func(value string) peer { return peer{welcome, answered(value)} }
	// A standby, one that is promoted, one that falls silent, one that writes again.
	turns := []peer{recovery("t"), recovery("f"), {welcome, hangsUp}, {fatal("57P03"), nil}, recovery("f")}
	var mu sync.Mutex
	turn := 0
	url := serve(t, func() peer {
		mu.Lock()
		defer mu.Unlock()
		p := turns[min(turn, len(turns)-1)]
		turn++
		// Each answers one question, so that the next turn comes.
		if len(p.query) > 0 && turn < len(turns) {
			p.query = append(slices.Clone(p.query), &pgproto3.ErrorResponse{Severity: "FATAL", Code: "57P01", Message: "the next one"})
		}
		return p
	})
	ctx, stop := context.WithTimeout(t.Context(), time.Minute)
	defer stop()
	var got []bool
	w := Watcher{URL: url, Every: time.Millisecond, Observe: func(a Answer) {
		if a.Answered.Before(a.Sent) {
			t.Error(errors.New("answered before it was asked"))
		}
		if got = append(got, a.Writable); len(got) == 4 {
			stop()
		}
	}}
	if err := w.Run(ctx); err != nil {
		t.Fatal(err)
	}
	if !slices.Equal(got, []bool{false, true, false, true}) {
		t.Errorf("%v", got)
	}
}
