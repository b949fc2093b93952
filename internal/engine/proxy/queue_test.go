package proxy

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgconn"

	"github.com/pgporter/pgporter/internal/config/model"
	"github.com/pgporter/pgporter/internal/monitor/view"
)

// lately is a TTL that no test outlives.
const lately = time.Hour

// longHold is a Config under which nobody waits in vain within a test.
var longHold = Config{Hold: patience}

func options(t testing.TB, text string) model.Options {
	t.Helper()
	parsed, problems := model.ParseOptions(text)
	if len(problems) > 0 {
		t.Fatal(problems)
	}
	return parsed
}

// leaderless runs a service that has just lost its only server, and gives the Views with that server and without.
func leaderless(t *testing.T, cfg Config, def model.Definition, a *backend) (r *rig, board *view.Board, with, without *view.View) {
	t.Helper()
	down := up(a)
	down.down, down.reason = true, "503 replica running"
	with, without = viewOf(serviceOf(def, up(a))), viewOf(serviceOf(def, down))
	board = view.NewBoard(with)
	r = run(t, cfg, Endpoint{"pg-test", def, board, lately})
	sequence(t, addressOf(def), 1)
	board.Publish(without)
	return r, board, with, without
}

// holding waits until the service holds n clients.
func holding(t *testing.T, r *rig, def model.Definition, n int) {
	t.Helper()
	eventually(t, fmt.Sprintf("%d clients are held", n), func() bool { return r.service(t, def.FullName).Queued == n })
}

// quiet asserts that a connection stays open and nothing comes from it.
func quiet(t *testing.T, conn net.Conn) {
	t.Helper()
	must(t, conn.SetReadDeadline(time.Now().Add(50*time.Millisecond)))
	n, err := conn.Read(make([]byte, 1))
	var timeout net.Error
	if n > 0 || !errors.As(err, &timeout) || !timeout.Timeout() {
		t.Fatalf("read %d bytes, %v, from a connection that should be quiet", n, err)
	}
	must(t, conn.SetReadDeadline(time.Now().Add(patience)))
}

func TestQueuedUntilAServerIsUp(t *testing.T) {
	a := startBackend(t, "a", "127.0.42.1")
	def := definition(t, "primary", "127.0.46.1")
	r, board, with, _ := leaderless(t, longHold, def, a)
	inTheClear, encrypting, direct := dial(t, addressOf(def)), dialSilent(t, addressOf(def)), dialSilent(t, addressOf(def))
	for conn, says := range map[*net.TCPConn][]byte{encrypting: sslAsked, direct: []byte("\x16\x03\x01")} {
		_, err := conn.Write(says)
		must(t, err)
	}
	holding(t, r, def, 3)
	quiet(t, inTheClear)
	quiet(t, encrypting)
	if a.open() != 0 {
		t.Error("the server was connected")
	}
	board.Publish(with)
	if name, err := greeting(inTheClear); err != nil || name != "a" {
		t.Errorf("reached %q, %v", name, err)
	}
	echoes(t, inTheClear)
	holding(t, r, def, 0)
	if s := r.service(t, def.FullName); s.Refused != 0 {
		t.Errorf("status %+v", s)
	}
}

// While clients wait for a server to be up, that is said; for a full one it would do nothing.
func TestServersAreAwaitedWhileClientsWait(t *testing.T) {
	a := startBackend(t, "a", "127.0.42.1")
	def := definition(t, "primary", "127.0.46.13")
	def.Options = options(t, "maxconn 1")
	var asked atomic.Int64
	cfg := Config{Hold: patience, Await: func(cluster, service string) {
		if cluster != "pg-test" || service != def.FullName {
			t.Errorf("%s of %s is awaited", service, cluster)
		}
		asked.Add(1)
	}}
	r, board, with, _ := leaderless(t, cfg, def, a)
	first, second := dial(t, addressOf(def)), dial(t, addressOf(def))
	began := time.Now()
	eventually(t, "the server is asked after", func() bool { return asked.Load() >= 3 })
	if most := int64(time.Since(began)/awaitInterval) + 2; asked.Load() > most {
		t.Errorf("asked %d times in %v", asked.Load(), time.Since(began))
	}
	board.Publish(with)
	holding(t, r, def, 1)
	before := asked.Load()
	quiet(t, second)
	quiet(t, second)
	quiet(t, second)
	quiet(t, second)
	quiet(t, second)
	quiet(t, second)
	if now := asked.Load(); now > before+1 {
		t.Errorf("asked %d times more of a full server", now-before)
	}
	_ = first.Close()
	if name, err := greeting(second); err != nil || name != "a" {
		t.Errorf("reached %q, %v", name, err)
	}
}

func TestNobodyIsQueuedInVain(t *testing.T) {
	a := startBackend(t, "a", "127.0.42.1")
	def := definition(t, "primary", "127.0.46.2")
	down := up(a)
	down.down = true
	for _, test := range []struct {
		name string
		hold time.Duration
		ttl  time.Duration
		was  *view.View
	}{
		{"hold is off", 0, lately, viewOf(serviceOf(def, up(a)))},
		{"there was no server yet", patience, lately, viewOf(serviceOf(def, down))},
		{"the cluster has no such service yet", patience, lately, viewOf()},
		{"the server was lost too long ago", patience, time.Nanosecond, viewOf(serviceOf(def, up(a)))},
	} {
		t.Run(test.name, func(t *testing.T) {
			board := view.NewBoard(test.was)
			run(t, Config{Hold: test.hold}, Endpoint{"pg-test", def, board, test.ttl})
			conn := dial(t, addressOf(def))
			if _, err := greeting(conn); err == nil {
				_ = conn.Close()
			}
			board.Publish(viewOf(serviceOf(def, down)))
			began := time.Now()
			_, err := pgconn.Connect(t.Context(), fmt.Sprintf("postgres://u:p@%s/d", addressOf(def)))
			if took := time.Since(began); err == nil || !strings.Contains(err.Error(), "57P03") || strings.Contains(err.Error(), "waited") || took > patience/2 {
				t.Errorf("after %v: %v", took, err)
			}
		})
	}
}

func TestHoldExpires(t *testing.T) {
	a := startBackend(t, "a", "127.0.42.1")
	def := definition(t, "primary", "127.0.46.3")
	const hold = 300 * time.Millisecond
	r, board, with, _ := leaderless(t, Config{Hold: hold}, def, a)
	for _, sslmode := range []string{"disable", "prefer"} {
		began := time.Now()
		_, err := pgconn.Connect(t.Context(), fmt.Sprintf("postgres://u:p@%s/d?sslmode=%s", addressOf(def), sslmode))
		var told *pgconn.PgError
		if !errors.As(err, &told) || told.Severity != "FATAL" || told.Code != "57P03" ||
			told.Message != "service pg-test-primary has no usable server (waited 300ms)" || told.Detail != "a: down: 503 replica running" {
			t.Errorf("the driver says %v", err)
		}
		if took := time.Since(began); took < hold || took > hold+5*time.Second {
			t.Errorf("refused after %v", took)
		}
	}
	// Once its request was declined the client is never connected, even if a server is up by then.
	conn := dialSilent(t, addressOf(def))
	_, err := conn.Write(sslAsked)
	must(t, err)
	var answer [1]byte
	if _, err := io.ReadFull(conn, answer[:]); err != nil || answer[0] != 'N' {
		t.Fatalf("answered %q, %v", answer, err)
	}
	board.Publish(with)
	sequence(t, addressOf(def), 1)
	_, err = conn.Write(startup)
	must(t, err)
	if said, err := io.ReadAll(conn); err != nil || !strings.Contains(string(said), "57P03") {
		t.Errorf("told %q, %v", said, err)
	}
	// With prefer the driver tries twice.
	if s := r.service(t, def.FullName); s.Refused != 4 || s.TotalSessions != 2 {
		t.Errorf("status %+v", s)
	}
}

func TestWhoLeavesQuitsTheQueue(t *testing.T) {
	a := startBackend(t, "a", "127.0.42.1")
	def := definition(t, "primary", "127.0.46.4")
	r, board, with, _ := leaderless(t, longHold, def, a)
	for _, test := range []struct {
		name  string
		leave func(conn *net.TCPConn)
	}{
		{"closes", func(conn *net.TCPConn) { _ = conn.Close() }},
		{"resets", func(conn *net.TCPConn) { _ = conn.SetLinger(0); _ = conn.Close() }},
		{"ends its stream", func(conn *net.TCPConn) { _ = conn.CloseWrite() }},
	} {
		t.Run(test.name, func(t *testing.T) {
			first, leaving, last := dial(t, addressOf(def)), dial(t, addressOf(def)), dial(t, addressOf(def))
			holding(t, r, def, 3)
			test.leave(leaving)
			holding(t, r, def, 2)
			quiet(t, first)
			quiet(t, last)
			_ = first.Close()
			_ = last.Close()
			holding(t, r, def, 0)
		})
	}
	eventually(t, "all are gone", func() bool { return r.service(t, def.FullName).Clients == 0 })
	board.Publish(with)
	sequence(t, addressOf(def), 1)
	if s := r.service(t, def.FullName); s.Refused != 0 || s.TotalSessions != 2 || s.Servers[0].ConnectFailures != 0 {
		t.Errorf("status %+v", s)
	}
}

// Clients wait in the order in which they came, and as many are let in as the server may have.
func TestQueuedClientsAreLetInInOrder(t *testing.T) {
	a := startBackend(t, "a", "127.0.42.1")
	def := definition(t, "primary", "127.0.46.5")
	def.Options = options(t, "maxconn 2")
	r, board, with, _ := leaderless(t, longHold, def, a)
	var waiting []*net.TCPConn
	for n := range 6 {
		waiting = append(waiting, dial(t, addressOf(def)))
		holding(t, r, def, n+1)
	}
	board.Publish(with)
	for n := range waiting {
		if name, err := greeting(waiting[n]); err != nil || name != "a" {
			t.Fatalf("client %d reached %q, %v", n, name, err)
		}
		if n < 1 {
			continue
		}
		holding(t, r, def, len(waiting)-n-1)
		for _, later := range waiting[n+1:] {
			quiet(t, later)
		}
		// One goes, the next comes.
		_ = waiting[n-1].Close()
	}
}

func TestFullServersHaveClientsWait(t *testing.T) {
	a, b := startBackend(t, "a", "127.0.42.1"), startBackend(t, "b", "127.0.42.2")
	def := definition(t, "replica", "127.0.46.6")
	def.Options = options(t, "maxconn 1 maxqueue 1")
	const hold = 5 * time.Second
	r := run(t, Config{Hold: hold}, Endpoint{"pg-test", def, view.NewBoard(viewOf(serviceOf(def, up(a), up(b)))), 0})
	first, _ := reach(t, addressOf(def))
	second, _ := reach(t, addressOf(def))
	third := dial(t, addressOf(def))
	holding(t, r, def, 1)
	fourth := dial(t, addressOf(def))
	holding(t, r, def, 2)
	// Two servers have two clients wait, one each.
	began := time.Now()
	_, err := pgconn.Connect(t.Context(), fmt.Sprintf("postgres://u:p@%s/d", addressOf(def)))
	if err == nil || !strings.Contains(err.Error(), "53300") || strings.Contains(err.Error(), "waited") || time.Since(began) > hold*9/10 {
		t.Errorf("after %v: %v", time.Since(began), err)
	}
	_ = first.Close()
	if name, err := greeting(third); err != nil || name != "a" {
		t.Errorf("the third client reached %q, %v", name, err)
	}
	echoes(t, second)
	if said, err := io.ReadAll(fourth); err != nil || !strings.Contains(string(said), "53300") || !strings.Contains(string(said), "(waited 5s)") {
		t.Errorf("the fourth client was told %q, %v", said, err)
	}
}

// With balance source one client waits for its server while another's has room.
func TestWhoWaitsForItsOwnServerHoldsUpNobody(t *testing.T) {
	a, b := startBackend(t, "a", "127.0.42.1"), startBackend(t, "b", "127.0.42.2")
	def := definition(t, "replica", "127.0.46.7")
	def.Balance, def.Options = model.Source, options(t, "maxconn 1 maxqueue 1")
	r := run(t, longHold, Endpoint{"pg-test", def, view.NewBoard(viewOf(serviceOf(def, up(a), up(b)))), 0})
	from := func(ip string) *net.TCPConn {
		dialer := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP(ip)}}
		conn, err := dialer.Dial("tcp", addressOf(def))
		must(t, err)
		t.Cleanup(func() { _ = conn.Close() })
		must(t, conn.SetDeadline(time.Now().Add(patience)))
		_, err = conn.Write(startup)
		must(t, err)
		return conn.(*net.TCPConn)
	}
	// Two addresses that belong to different servers.
	homes := map[string]string{}
	for n := 1; len(homes) < 2; n++ {
		ip := fmt.Sprint("127.0.47.", n)
		conn := from(ip)
		name, err := greeting(conn)
		must(t, err)
		homes[name] = ip
		_ = conn.Close()
		eventually(t, "the session ends", func() bool { return r.service(t, def.FullName).Sessions == 0 })
	}
	on, err := greeting(from(homes["a"]))
	must(t, err)
	waits := from(homes["a"])
	holding(t, r, def, 1)
	other, err := greeting(from(homes["b"]))
	if err != nil || on != "a" || other != "b" {
		t.Errorf("reached %s and %s, %v", on, other, err)
	}
	quiet(t, waits)
	// maxqueue is of each server: one more of a's clients is refused at once, one of b's may wait.
	refused, err := io.ReadAll(from(homes["a"]))
	if err != nil || !strings.Contains(string(refused), "53300") || !strings.Contains(string(refused), "service pg-test-replica is full: a, to which clients from this address belong, has no room (maxconn 1)\x00") {
		t.Errorf("told %q, %v", refused, err)
	}
	patient := from(homes["b"])
	holding(t, r, def, 2)
	quiet(t, waits)
	quiet(t, patient)
}

// A server that refuses connections is tried again after a short pause, by one client at a time.
func TestRefusedConnectIsTriedAgain(t *testing.T) {
	l, err := net.Listen("tcp4", "127.0.42.5:0")
	must(t, err)
	address := l.Addr().String()
	must(t, l.Close())
	dead := &backend{name: "a", Listener: l, conns: map[net.Conn]bool{}}
	def := definition(t, "primary", "127.0.46.8")
	r := run(t, longHold, Endpoint{"pg-test", def, view.NewBoard(viewOf(serviceOf(def, up(dead)))), 0})
	var conns []*net.TCPConn
	for range 20 {
		conns = append(conns, dial(t, addressOf(def)))
	}
	failures := func() int { return int(r.service(t, def.FullName).Servers[0].ConnectFailures) }
	eventually(t, "there were some attempts", func() bool { return failures() > 20 })
	before, began := failures(), time.Now()
	eventually(t, "there are more", func() bool { return failures() >= before+5 })
	if most, got := int(time.Since(began)/retryPause)+2, failures()-before; got > most {
		t.Errorf("%d attempts in %v", got, time.Since(began))
	}
	l, err = net.Listen("tcp4", address)
	must(t, err)
	alive := &backend{name: "a", Listener: l, conns: map[net.Conn]bool{}}
	alive.serve(t, func(conn net.Conn) { echo(conn, "a") })
	for n, conn := range conns {
		if name, err := greeting(conn); err != nil || name != "a" {
			t.Fatalf("client %d reached %q, %v", n, name, err)
		}
	}
	if s := r.service(t, def.FullName); s.Refused != 0 || s.Sessions != len(conns) {
		t.Errorf("status %+v", s)
	}
}

// A server that takes the connection but doesn't answer loses its clients to the next one when it is marked down.
func TestSilentServerLosesItsClients(t *testing.T) {
	b := startBackend(t, "b", "127.0.42.2")
	connected := make(chan struct{}, 8)
	mute := startScript(t, "mute", "127.0.42.1", func(conn net.Conn) {
		connected <- struct{}{}
		_, _ = io.Copy(io.Discard, conn)
	})
	def := definition(t, "primary", "127.0.46.9")
	board := view.NewBoard(viewOf(serviceOf(def, up(mute))))
	run(t, longHold, Endpoint{"pg-test", def, board, lately})
	conn := dial(t, addressOf(def))
	<-connected
	quiet(t, conn)
	gone := up(mute)
	gone.down = true
	board.Publish(viewOf(serviceOf(def, gone, up(b))))
	if name, err := greeting(conn); err != nil || name != "b" {
		t.Errorf("reached %q, %v", name, err)
	}
	echoes(t, conn)
}

func TestRemovedServiceEndsItsQueue(t *testing.T) {
	a := startBackend(t, "a", "127.0.42.1")
	def := definition(t, "primary", "127.0.46.10")
	r, _, _, _ := leaderless(t, longHold, def, a)
	conn := dial(t, addressOf(def))
	holding(t, r, def, 1)
	r.commit(t)
	said, err := io.ReadAll(conn)
	if err != nil || !strings.Contains(string(said), "service pg-test-primary is no longer offered here") {
		t.Errorf("told %q, %v", said, err)
	}
}

// TestHoldUnderFlips has clients that come, wait, leave and are connected while the only server goes up and down: nobody may be
// refused, and nothing may be left behind.
func TestHoldUnderFlips(t *testing.T) {
	a := startBackend(t, "a", "127.0.42.1")
	def := definition(t, "primary", "127.0.46.12")
	def.Options = options(t, "maxconn 3")
	r, board, with, without := leaderless(t, longHold, def, a)
	ctx, cancel := context.WithCancel(t.Context())
	var clients sync.WaitGroup
	var reached, left atomic.Int64
	halt := sync.OnceFunc(func() {
		cancel()
		board.Publish(with)
		clients.Wait()
	})
	defer halt()
	for n := range 12 {
		clients.Go(func() {
			for i := n; ctx.Err() == nil; i++ {
				conn, err := net.Dial("tcp", addressOf(def))
				if err != nil {
					t.Errorf("connect: %v", err)
					return
				}
				_, _ = conn.Write(startup)
				limit := patience
				if i%4 == 0 {
					limit = time.Duration(i%7) * time.Millisecond
				}
				_ = conn.SetDeadline(time.Now().Add(limit))
				var timeout net.Error
				switch name, err := greeting(conn); {
				case err == nil && name == "a":
					reached.Add(1)
				case errors.As(err, &timeout) && timeout.Timeout() && limit < patience:
					left.Add(1)
				default:
					t.Errorf("got %q, %v", name, err)
				}
				_ = conn.Close()
			}
		})
	}
	const flips = 100
	for n := 0; n < flips || left.Load() == 0; n++ {
		board.Publish(with)
		target := reached.Load() + 5
		eventually(t, "clients get through", func() bool { return reached.Load() >= target })
		board.Publish(without)
	}
	halt()
	eventually(t, "all are gone", func() bool {
		s := r.service(t, def.FullName)
		return s.Clients == 0 && s.Queued == 0 && a.open() == 0
	})
	if s := r.service(t, def.FullName); s.Refused != 0 {
		t.Errorf("%d reached it, %d left; status %+v", reached.Load(), left.Load(), s)
	}
	d := r.dispatchers[def.FullName]
	d.sessions.mu.Lock()
	defer d.sessions.mu.Unlock()
	if n := d.sessions.picker.Sessions("a"); n != 0 {
		t.Errorf("%d sessions are counted for ever", n)
	}
}

// fullService is a dispatcher without a watcher whose only server has room for one session, and two clients that may wait.
func fullService(t *testing.T, ip string) (d *dispatcher, first, second *client) {
	a := startBackend(t, "a", "127.0.42.1")
	def := definition(t, "primary", ip)
	def.Options = options(t, "maxconn 1")
	d = lone(New(longHold), Endpoint{"pg-test", def, view.NewBoard(viewOf(serviceOf(def, up(a)))), lately})
	conn := func(ticket uint64) *client { return newClient(dial(t, a.Addr().String()), ticket) }
	return d, conn(1), conn(2)
}

// A server that becomes free while a client is about to wait for it is that client's: whoever frees it finds the client, or the
// client finds the server. Nobody but these two looks.
func TestNobodyIsForgottenOnTheWayIntoTheQueue(t *testing.T) {
	d, c, _ := fullService(t, "127.0.46.14")
	s, _, _ := d.queue.enter(&client{}, nil, nil)
	for range 5000 {
		var freeing sync.WaitGroup
		old := s
		freeing.Go(func() { d.release(old, errUnwanted) })
		c.waits = time.Time{}
		var w *waiter
		s, w, _ = d.queue.enter(c, nil, c.wake)
		freeing.Wait()
		if w != nil {
			s = d.queue.leave(w)
		}
		if s == nil {
			t.Fatal("a client waits for a server that is free")
		}
		if n := d.queue.waiting.Load(); n != 0 {
			t.Fatalf("%d clients are counted that nobody knows", n)
		}
	}
}

// Who comes when there is room again gets none of it while somebody waits, whose turn has come with that.
func TestNobodyOvertakesTheQueue(t *testing.T) {
	d, first, second := fullService(t, "127.0.46.15")
	s, _, _ := d.queue.enter(&client{}, nil, nil)
	_, w2, _ := d.queue.enter(second, nil, second.wake)
	_, w1, _ := d.queue.enter(first, nil, first.wake)
	if s == nil || w1 == nil || w2 == nil {
		t.Fatal("the server isn't full")
	}
	d.sessions.release(s, false) // and nobody looks after the queue
	if s, _, _ := d.queue.enter(&client{}, nil, nil); s != nil {
		t.Error("who came last was served first")
	}
	if w1.session == nil || w2.session != nil {
		t.Errorf("the turn of the one who came first, and of nobody else, has come: %v, %v", w1.session, w2.session)
	}
	if left := d.queue.leave(w1); left != w1.session {
		t.Errorf("its session is %v", left)
	}
	if n := d.queue.waiting.Load(); n != 1 {
		t.Errorf("%d wait", n)
	}
}
