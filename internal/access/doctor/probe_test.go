package doctor

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io"
	"math/big"
	"net"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgproto3"

	"github.com/pgporter/pgporter/internal/access/connstr"
	"github.com/pgporter/pgporter/internal/config/model"
)

// server speaks enough of the protocol to be probed.
type server struct {
	// answer is what it says of itself, in the order of the question; reported is in_hot_standby.
	answer   [5]string
	reported string
	// refuses is a code with which nobody is let in; hangs says that questions get no answer; tls is what it encrypts with.
	refuses string
	hangs   bool
	tls     *tls.Config
}

// listen serves on a loopback port of its own until the test ends.
func (s server) listen(t *testing.T) int {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var running sync.WaitGroup
	var mu sync.Mutex
	open := map[net.Conn]bool{}
	running.Go(func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			mu.Lock()
			open[conn] = true
			mu.Unlock()
			running.Go(func() {
				defer conn.Close()
				if err := s.serve(conn); err != nil && !errors.Is(err, io.EOF) && !errors.Is(err, io.ErrUnexpectedEOF) && !errors.Is(err, net.ErrClosed) {
					t.Logf("server: %v", err)
				}
			})
		}
	})
	t.Cleanup(func() {
		l.Close()
		mu.Lock()
		for conn := range open {
			conn.Close()
		}
		mu.Unlock()
		running.Wait()
	})
	return l.Addr().(*net.TCPAddr).Port
}

func (s server) serve(conn net.Conn) error {
	backend := pgproto3.NewBackend(conn, conn)
	for {
		message, err := backend.ReceiveStartupMessage()
		if err != nil {
			return err
		}
		if _, is := message.(*pgproto3.SSLRequest); !is {
			break
		}
		if s.tls == nil {
			if _, err := conn.Write([]byte("N")); err != nil {
				return err
			}
			continue
		}
		if _, err := conn.Write([]byte("S")); err != nil {
			return err
		}
		conn = tls.Server(conn, s.tls)
		backend = pgproto3.NewBackend(conn, conn)
	}
	if s.refuses != "" {
		backend.Send(&pgproto3.ErrorResponse{Severity: "FATAL", Code: s.refuses, Message: "no"})
		return backend.Flush()
	}
	backend.Send(&pgproto3.AuthenticationOk{})
	if s.reported != "" {
		backend.Send(&pgproto3.ParameterStatus{Name: "in_hot_standby", Value: s.reported})
	}
	backend.Send(&pgproto3.ReadyForQuery{TxStatus: 'I'})
	if err := backend.Flush(); err != nil {
		return err
	}
	for {
		message, err := backend.Receive()
		if err != nil {
			return err
		}
		query, is := message.(*pgproto3.Query)
		if !is {
			return nil
		}
		if s.hangs {
			continue
		}
		row := s.answer[:]
		if query.String != question {
			row = []string{"7"}
		}
		values := make([][]byte, len(row))
		fields := make([]pgproto3.FieldDescription, len(row))
		for i, text := range row {
			values[i], fields[i] = []byte(text), pgproto3.FieldDescription{Name: []byte("f"), DataTypeOID: 25, DataTypeSize: -1, TypeModifier: -1}
		}
		backend.Send(&pgproto3.RowDescription{Fields: fields})
		backend.Send(&pgproto3.DataRow{Values: values})
		backend.Send(&pgproto3.CommandComplete{CommandTag: []byte("SELECT 1")})
		backend.Send(&pgproto3.ReadyForQuery{TxStatus: 'I'})
		if err := backend.Flush(); err != nil {
			return err
		}
	}
}

func certificate(t *testing.T) *tls.Config {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), NotAfter: time.Now().Add(time.Hour)}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	return &tls.Config{Certificates: []tls.Certificate{{Certificate: [][]byte{der}, PrivateKey: key}}}
}

// alone keeps the client's own settings out.
func alone(t *testing.T) {
	t.Helper()
	for _, name := range []string{"PGPASSWORD", "PGSSLMODE", "PGSERVICE", "PGHOST", "PGCONNECT_TIMEOUT"} {
		t.Setenv(name, "")
	}
	t.Setenv("PGPASSFILE", t.TempDir()+"/none")
}

func TestProbe(t *testing.T) {
	alone(t)
	leads := server{answer: [5]string{"127.0.0.1", "5432", "f", "off", "1.5"}}
	follows := server{answer: [5]string{"127.0.0.1", "5442", "t", "on", "2.5"}}
	stale, socket, encrypted := leads, leads, leads
	stale.reported = "on"
	socket.answer[0], socket.answer[1] = "", "0"
	encrypted.tls = certificate(t)
	gone, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	nobody := gone.Addr().(*net.TCPAddr).Port
	gone.Close()

	cfg := Config{Timeout: time.Minute, Total: 2 * time.Minute, Resolver: &net.Resolver{}, Members: []model.Member{
		{Name: "pg-1", Host: "127.0.0.1", PostgresPort: 5432}, {Name: "pg-2", Host: "127.0.0.1", PostgresPort: 5442}}}
	endpoint := func(session string, ports ...int) connstr.Endpoint {
		w := connstr.Endpoint{By: connstr.ByIP, Service: connstr.PgBouncer, User: "o'hara \\", Database: "test", Session: session, Pooled: true}
		for _, port := range ports {
			w.Hosts, w.Ports = append(w.Hosts, "127.0.0.1"), append(w.Ports, port)
		}
		return w
	}
	own := endpoint("", leads.listen(t))
	own.Service, own.Instance = connstr.Postgres, "pg-1"
	hung := server{hangs: true}.listen(t)
	endpoints := []struct {
		title, member, tls string
		endpoint           connstr.Endpoint
		kind               Kind
	}{
		{"own port", "pg-1", "", own, OK},
		{"no address, but known by its start", "pg-1", "", endpoint("", socket.listen(t)), OK},
		{"stale in_hot_standby", "pg-1", "", endpoint("", stale.listen(t)), StaleStandby},
		{"TLS", "pg-1", "1.3", endpoint("", encrypted.listen(t)), OK},
		{"the primary is second", "pg-1", "", endpoint("primary", follows.listen(t), leads.listen(t)), OK},
		{"a standby is third", "pg-2", "", endpoint("prefer-standby", nobody, leads.listen(t), follows.listen(t)), OK},
		{"no standby", "pg-1", "", endpoint("prefer-standby", nobody, leads.listen(t)), OK},
		{"no primary", "", "", endpoint("primary", follows.listen(t)), WrongRole},
		{"nobody", "", "", endpoint("", nobody), NobodyListens},
		{"no password", "", "", endpoint("", server{refuses: "28P01"}.listen(t)), BadLogin},
		{"full", "", "", endpoint("", server{refuses: "53300"}.listen(t)), Full},
	}
	all := make([]connstr.Endpoint, len(endpoints))
	for i, w := range endpoints {
		all[i] = w.endpoint
	}
	results := Examine(t.Context(), all, cfg)
	for i, w := range endpoints {
		if r := results[i]; r.Verdict.Kind != w.kind || r.Member != w.member || r.Outcome.TLS != w.tls {
			t.Errorf("%s: %q by %q over TLS %q: %+v %+v", w.title, r.Verdict.Kind, r.Member, r.Outcome.TLS, r.Outcome, r.Verdict)
		}
	}

	// What hangs ends with its time, and what is left then isn't tried.
	cfg.Timeout, cfg.Total = 2*time.Second, 3*time.Second
	many := make([]connstr.Endpoint, 3*atOnce)
	for i := range many {
		many[i] = endpoint("", hung)
	}
	kinds := map[Kind]int{}
	for _, r := range Examine(t.Context(), many, cfg) {
		kinds[r.Verdict.Kind]++
	}
	if kinds[PoolStuck] < atOnce || kinds[NoTime] < 1 || kinds[PoolStuck]+kinds[NoTime]+kinds[NoAnswer] != len(many) {
		t.Errorf("of %d endpoints that hang: %v", len(many), kinds)
	}
}

// TLS that is asked for and isn't there is no silent fallback.
func TestTLSRequired(t *testing.T) {
	alone(t)
	t.Setenv("PGSSLMODE", "require")
	w := connstr.Endpoint{By: connstr.ByIP, Service: connstr.Postgres, Hosts: []string{"127.0.0.1"}, Ports: []int{server{}.listen(t)}, User: "test", Database: "test"}
	o := Probe(t.Context(), w, Config{Timeout: time.Minute, Resolver: &net.Resolver{}})
	if o.Answer != nil || o.Fault != Other || o.Text != "TLS is asked for (PGSSLMODE), and there is none" {
		t.Errorf("it ends with %+v", o)
	}
}
