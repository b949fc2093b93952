package proxy

import (
	"io"
	"net"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/pgporter/pgporter/internal/config/model"
	"github.com/pgporter/pgporter/internal/monitor/view"
)

// greeter is a server that speaks first, as MySQL's, SMTP's and SSH's do, and then echoes.
func greeter(t testing.TB, name, ip string) *backend {
	t.Helper()
	return startScript(t, name, ip, func(conn net.Conn) {
		_, _ = io.WriteString(conn, name+"\n")
		_, _ = io.Copy(conn, conn)
	})
}

// commitTCP makes services of other protocols those that are offered.
func (r *rig) commitTCP(t testing.TB, tcpEndpoints ...TCPEndpoint) {
	t.Helper()
	change, err := r.Prepare(nil, tcpEndpoints...)
	must(t, err)
	change.Commit()
	change.Publish()
}

func tcpEndpoint(d model.Definition, board *view.Board, tcp TCPService) TCPEndpoint {
	return TCPEndpoint{Endpoint{Definition: d, Board: board, Expectancy: time.Minute}, tcp}
}

// greeted connects a client that waits to be spoken to.
func greeted(t testing.TB, address string) (*net.TCPConn, string) {
	t.Helper()
	conn := dialSilent(t, address)
	name, err := greeting(conn)
	must(t, err)
	return conn, name
}

func TestServersMaySpeakFirst(t *testing.T) {
	a, b := greeter(t, "a", "127.0.0.2"), greeter(t, "b", "127.0.0.3")
	def := definition(t, "raw", "127.0.0.1")
	board := view.NewBoard(viewOf(serviceOf(def, up(a), up(b))))
	r := run(t, Config{Hold: patience})
	r.commitTCP(t, tcpEndpoint(def, board, TCPService{}))
	var came []string
	var clients []*net.TCPConn
	for range 4 {
		conn, name := greeted(t, addressOf(def))
		echoes(t, conn)
		clients, came = append(clients, conn), append(came, name)
	}
	if slices.Sort(came); !slices.Equal(came, []string{"a", "a", "b", "b"}) {
		t.Errorf("came to %v", came)
	}
	// What looks like PostgreSQL's cancel request is none of our business.
	_, err := clients[0].Write([]byte("\x00\x00\x00\x10\x04\xd2\x16\x2e12345678"))
	must(t, err)
	got := make([]byte, 16)
	if _, err := io.ReadFull(clients[0], got); err != nil || string(got[8:]) != "12345678" {
		t.Errorf("%q, %v", got, err)
	}
	// A server that is marked down ends its sessions; the others stay.
	board.Publish(viewOf(serviceOf(def, server{backend: a, down: true, weight: 100, epoch: 1, reason: "timed out (3 in a row)"}, up(b))))
	eventually(t, "a's sessions are over", func() bool { return a.open() == 0 })
	eventually(t, "b's are left", func() bool { s := r.service(t, def.FullName); return s.Sessions == 2 && s.TotalSessions == 4 })
}

func TestTCPClientsAreClosedWithoutAWord(t *testing.T) {
	gone := greeter(t, "gone", "127.0.0.2")
	_ = gone.Close()
	def := definition(t, "raw", "127.0.0.1")
	board := view.NewBoard(viewOf(serviceOf(def, up(gone))))
	var mu sync.Mutex
	var asked []string
	recheck := func(member string) {
		mu.Lock()
		defer mu.Unlock()
		asked = append(asked, member)
	}
	for _, test := range []struct {
		name string
		cfg  Config
		tcp  TCPService
		wait time.Duration
	}{
		{"nobody is held", Config{}, TCPService{Recheck: recheck}, 0},
		{"one try", Config{Hold: patience}, TCPService{Once: true, Recheck: recheck}, 0},
		{"timeout queue", Config{Hold: patience}, TCPService{Queue: 250 * time.Millisecond, Recheck: recheck}, 250 * time.Millisecond},
	} {
		t.Run(test.name, func(t *testing.T) {
			asked = nil
			r := run(t, test.cfg)
			r.commitTCP(t, tcpEndpoint(def, board, test.tcp))
			began := time.Now()
			over(t, dialSilent(t, addressOf(def)))
			if took := time.Since(began); took < test.wait || took > test.wait+10*time.Second {
				t.Errorf("closed after %s, want %s", took, test.wait)
			}
			eventually(t, "it is counted", func() bool { return r.service(t, def.FullName).Refused == 1 })
			mu.Lock()
			defer mu.Unlock()
			if len(asked) == 0 || asked[0] != "gone" {
				t.Errorf("asked to be checked: %v", asked)
			}
			eventually(t, "it is said", func() bool { return r.log.count("closed a client that no server takes") == 1 })
		})
	}
}

// TestTCPClientsAreQueued has one wait for a server that comes.
func TestTCPClientsAreQueued(t *testing.T) {
	a := greeter(t, "a", "127.0.0.2")
	def := definition(t, "raw", "127.0.0.1")
	board := view.NewBoard(viewOf(serviceOf(def, up(a))))
	r := run(t, Config{Hold: patience})
	r.commitTCP(t, tcpEndpoint(def, board, TCPService{}))
	greeted(t, addressOf(def))
	board.Publish(viewOf(serviceOf(def, server{backend: a, down: true, weight: 100})))
	conn := dialSilent(t, addressOf(def))
	eventually(t, "it waits", func() bool { return r.service(t, def.FullName).Queued == 1 })
	board.Publish(viewOf(serviceOf(def, up(a))))
	if name, err := greeting(conn); name != "a" || err != nil {
		t.Errorf("%q, %v", name, err)
	}
}

func TestIdleSessionsEnd(t *testing.T) {
	a := greeter(t, "a", "127.0.0.2")
	def := definition(t, "raw", "127.0.0.1")
	board := view.NewBoard(viewOf(serviceOf(def, up(a))))
	r := run(t, Config{})
	r.commitTCP(t, tcpEndpoint(def, board, TCPService{}))
	conn, _ := greeted(t, addressOf(def))
	echoes(t, conn)
	// A reload that brings a limit reaches sessions that are there, and keeps those that speak.
	const idle = 3 * time.Second
	r.commitTCP(t, tcpEndpoint(def, board, TCPService{Idle: idle}))
	tick := time.NewTicker(idle / 100)
	defer tick.Stop()
	for began := time.Now(); time.Since(began) < idle*3/2; <-tick.C {
		echoes(t, conn)
	}
	began := time.Now()
	over(t, conn)
	if took := time.Since(began); took < idle/2 {
		t.Errorf("it ended after %s", took)
	}
	if r.log.count("ended 1 session on a: neither side has sent anything for 3s") != 1 {
		t.Error("nobody says why")
	}
}

// TestServerOptionsOfItsOwn: maxconn and maxqueue may differ from server to server.
func TestServerOptionsOfItsOwn(t *testing.T) {
	a, b := greeter(t, "a", "127.0.0.2"), greeter(t, "b", "127.0.0.3")
	def := definition(t, "raw", "127.0.0.1")
	svc := serviceOf(def, up(a), up(b))
	one, two := model.Options{MaxConn: 1, MaxQueue: 1}, model.Options{MaxConn: 2, MaxQueue: 1}
	svc.Servers[0].Own, svc.Servers[1].Own = &one, &two
	r := run(t, Config{Hold: patience})
	r.commitTCP(t, tcpEndpoint(def, view.NewBoard(viewOf(svc)), TCPService{}))
	var came []string
	var clients []*net.TCPConn
	for range 3 {
		conn, name := greeted(t, addressOf(def))
		clients, came = append(clients, conn), append(came, name)
	}
	if slices.Sort(came); !slices.Equal(came, []string{"a", "b", "b"}) {
		t.Errorf("came to %v", came)
	}
	for waiting := range 2 {
		clients = append(clients, dialSilent(t, addressOf(def)))
		eventually(t, "it waits", func() bool { return r.service(t, def.FullName).Queued == waiting+1 })
	}
	over(t, dialSilent(t, addressOf(def)))
	_ = clients[0].Close()
	if name, err := greeting(clients[3]); name == "" || err != nil {
		t.Errorf("the first that waits: %q, %v", name, err)
	}
}

// A server that resets a session is looked at out of turn by what checks the service, and not by what checks clusters.
func TestServerThatResetsATCPSession(t *testing.T) {
	a := startScript(t, "a", "127.0.0.2", func(conn net.Conn) {
		_, _ = io.WriteString(conn, "a\n")
		_, _ = conn.Read(make([]byte, 1))
		_ = conn.(*net.TCPConn).SetLinger(0)
	})
	def := definition(t, "tcp", "127.0.0.1")
	r := run(t, Config{Recheck: func(cluster, member string) { t.Errorf("%s of cluster %q is rechecked", member, cluster) }})
	rechecked := make(chan string, 1)
	r.commitTCP(t, tcpEndpoint(def, view.NewBoard(viewOf(serviceOf(def, up(a)))), TCPService{Recheck: func(member string) { rechecked <- member }}))
	conn, _ := greeted(t, addressOf(def))
	_, err := conn.Write([]byte("x"))
	must(t, err)
	if member := <-rechecked; member != "a" {
		t.Errorf("%s is rechecked", member)
	}
}
