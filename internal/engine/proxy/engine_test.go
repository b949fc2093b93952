package proxy

import (
	"io"
	"net"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/pgporter/pgporter/internal/config/model"
	"github.com/pgporter/pgporter/internal/monitor/view"
)

func TestRouting(t *testing.T) {
	a, b, c := startBackend(t, "a", "127.0.42.1"), startBackend(t, "b", "127.0.42.2"), startBackend(t, "c", "127.0.42.3")
	heavy, down, empty, spare, spare2 := up(a), up(b), up(a), up(b), up(c)
	heavy.weight, down.down, empty.weight, spare.backup, spare2.backup = 300, true, 0, true, true
	downA := up(a)
	downA.down = true
	for _, test := range []struct {
		name    string
		servers []server
		want    string
	}{
		{"in turn", []server{up(a), up(b), up(c)}, "a b c a b c"},
		{"by weight", []server{heavy, up(b)}, "a a b a a a b a"},
		{"not to one that is down", []server{up(a), down, up(c)}, "a c a c"},
		{"no backup while a regular one is up", []server{up(a), spare}, "a a a"},
		{"the first backup when none is", []server{downA, spare, spare2}, "b b b"},
		{"weight 0 is not usable", []server{empty, spare}, "b b"},
	} {
		t.Run(test.name, func(t *testing.T) {
			def := definition(t, "replica", "127.0.43.1")
			board := view.NewBoard(viewOf(serviceOf(def, test.servers...)))
			run(t, Config{}, Endpoint{"pg-test", def, board, 0})
			if got := sequence(t, addressOf(def), len(strings.Fields(test.want))); got != test.want {
				t.Errorf("reached %s, want %s", got, test.want)
			}
		})
	}
}

func TestLeastConnCountsSessions(t *testing.T) {
	a, b := startBackend(t, "a", "127.0.42.1"), startBackend(t, "b", "127.0.42.2")
	def := definition(t, "replica", "127.0.43.2")
	def.Balance = model.LeastConn
	r := run(t, Config{}, Endpoint{"pg-test", def, view.NewBoard(viewOf(serviceOf(def, up(a), up(b)))), 0})
	var held []*net.TCPConn
	for range 4 {
		conn, _ := reach(t, addressOf(def))
		held = append(held, conn)
	}
	if a.open() != 2 || b.open() != 2 {
		t.Fatalf("a has %d, b has %d", a.open(), b.open())
	}
	_ = held[1].Close()
	_ = held[3].Close()
	eventually(t, "b's sessions end", func() bool { return r.service(t, def.FullName).Sessions == 2 })
	if got := sequenceHeld(t, addressOf(def), 2); got != "b b" {
		t.Errorf("after b's sessions ended: %s", got)
	}
}

// sequenceHeld is sequence with the sessions left open.
func sequenceHeld(t *testing.T, address string, n int) string {
	var names []string
	for range n {
		_, name := reach(t, address)
		names = append(names, name)
	}
	return strings.Join(names, " ")
}

func TestMarkDownEndsSessions(t *testing.T) {
	a, b := startBackend(t, "a", "127.0.42.1"), startBackend(t, "b", "127.0.42.2")
	def, other := definition(t, "primary", "127.0.43.3"), definition(t, "default", "127.0.43.3")
	demoted, risen := up(a), up(a)
	demoted.down, demoted.epoch, demoted.reason = true, 1, "503 replica running"
	risen.epoch = 1
	for _, test := range []struct {
		name  string
		after []server
		ends  bool
	}{
		{"demoted", []server{demoted, up(b)}, true},
		{"up again under a higher epoch", []server{risen, up(b)}, true},
		{"no longer a server", []server{up(b)}, true},
		{"no longer a server of a service that keeps sessions", []server{up(b)}, false},
		{"down, but sessions are left", []server{{backend: a, weight: 100, down: true}, up(b)}, false},
		{"nothing changed", []server{up(a), up(b)}, false},
		{"another order", []server{up(b), up(a)}, false},
	} {
		t.Run(test.name, func(t *testing.T) {
			def.Options.ShutdownSessions = !strings.HasSuffix(test.name, "keeps sessions")
			board := view.NewBoard(viewOf(serviceOf(def, up(a)), serviceOf(other, up(a))))
			r := run(t, Config{}, Endpoint{"pg-test", def, board, 0}, Endpoint{"pg-test", other, board, 0})
			busy, _ := reach(t, addressOf(def))
			idle, _ := reach(t, addressOf(def))
			neighbour, _ := reach(t, addressOf(other))
			echoes(t, busy)
			began := time.Now()
			board.Publish(viewOf(serviceOf(def, test.after...), serviceOf(other, up(a))))
			if test.ends {
				over(t, busy)
				over(t, idle)
				if took := time.Since(began); took > time.Second {
					t.Errorf("the sessions ended after %v", took)
				}
				eventually(t, "one line says so", func() bool { return r.log.count("ended 2 sessions on a: ") == 1 })
			} else {
				echoes(t, busy)
				echoes(t, idle)
			}
			echoes(t, neighbour)
		})
	}
}

// TestNoSessionSlipsPastAMarkDown flips the View while clients connect. Each flip raises the epoch of the server that goes
// down, so in the end no session may be left on a server whose epoch has risen since the session began.
func TestNoSessionSlipsPastAMarkDown(t *testing.T) {
	a, b := startBackend(t, "a", "127.0.42.1"), startBackend(t, "b", "127.0.42.2")
	def := definition(t, "primary", "127.0.43.4")
	at := func(epoch uint64) *view.View {
		// One of the two is primary; who is not has an epoch that rose when it was demoted.
		sa, sb := up(a), up(b)
		sa.epoch, sb.epoch = (epoch+1)/2, epoch/2
		sa.down, sb.down = epoch%2 == 1, epoch%2 == 0
		return viewOf(serviceOf(def, sa, sb))
	}
	board := view.NewBoard(at(0))
	r := run(t, Config{}, Endpoint{"pg-test", def, board, 0})
	stop := make(chan struct{})
	var clients sync.WaitGroup
	var mu sync.Mutex
	var held []net.Conn
	var reached atomic.Int64
	for range 8 {
		clients.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
				}
				conn, err := net.Dial("tcp", addressOf(def))
				if err != nil {
					t.Errorf("connect: %v", err)
					return
				}
				_ = conn.SetDeadline(time.Now().Add(patience))
				_, _ = conn.Write(startup)
				if _, err := greeting(conn); err != nil {
					_ = conn.Close()
					continue
				}
				reached.Add(1)
				mu.Lock()
				held = append(held, conn)
				mu.Unlock()
			}
		})
	}
	halt := sync.OnceFunc(func() {
		close(stop)
		clients.Wait()
	})
	defer halt()
	// Most flips come at moments that have nothing to do with the clients'; each tenth waits until one has got through, however long
	// the machine takes for that.
	const flips = 2000
	var epoch uint64
	for epoch < flips {
		epoch++
		board.Publish(at(epoch))
		if epoch%10 == 0 {
			before := reached.Load()
			eventually(t, "a client gets through", func() bool { return reached.Load() > before })
		} else {
			time.Sleep(time.Duration(epoch%7) * 100 * time.Microsecond)
		}
		if epoch%100 == 0 {
			mu.Lock()
			for _, conn := range held {
				_ = conn.Close()
			}
			held = nil
			mu.Unlock()
		}
	}
	halt()
	// The last flip ends what is left on the one that goes, then the other is demoted as well.
	epoch++
	board.Publish(at(epoch))
	gone := a
	if epoch%2 == 0 {
		gone = b
	}
	eventually(t, "every session on the demoted server ends", func() bool { return gone.open() == 0 })
	sa, sb := up(a), up(b)
	sa.down, sb.down, sa.epoch, sb.epoch = true, true, epoch, epoch
	board.Publish(viewOf(serviceOf(def, sa, sb)))
	eventually(t, "every session ends", func() bool {
		return a.open()+b.open() == 0 && r.service(t, def.FullName).Sessions == 0
	})
	for _, conn := range held {
		_, err := io.Copy(io.Discard, conn)
		if err != nil && !isReset(err) {
			t.Errorf("a client still waits: %v", err)
		}
		_ = conn.Close()
	}
	t.Logf("%d sessions, %d flips", reached.Load(), epoch)
}

// Nothing may hang on how soon the watcher gets to a new View: here there is none, since the engine doesn't run.
func TestNewestViewDecidesBeforeAByteIsMoved(t *testing.T) {
	a := startBackend(t, "a", "127.0.42.1")
	def := definition(t, "primary", "127.0.43.12")
	down, risen := up(a), up(a)
	down.down, risen.epoch = true, 1
	for _, test := range []struct {
		name   string
		after  *view.View
		starts bool
	}{
		{"unchanged", viewOf(serviceOf(def, up(a))), true},
		{"down with its epoch unchanged", viewOf(serviceOf(def, down)), false},
		{"up under a higher epoch", viewOf(serviceOf(def, risen)), false},
		{"no longer a server", viewOf(serviceOf(def)), false},
		{"no longer a service", viewOf(), false},
	} {
		t.Run(test.name, func(t *testing.T) {
			board := view.NewBoard(viewOf(serviceOf(def, up(a))))
			d := lone(New(Config{}), Endpoint{"pg-test", def, board, 0})
			t.Cleanup(func() {
				d.retire(errStopping)
				d.engine.serving.Wait()
			})
			c, server := newClient(dial(t, a.Addr().String()), 1), dial(t, a.Addr().String())
			s, _ := d.sessions.register(c, nil)
			if s == nil {
				t.Fatal("no session")
			}
			board.Publish(test.after)
			err := d.start(c, s, server, nil)
			if starts := err == nil; starts != test.starts {
				t.Errorf("started: %v", err)
			}
			if err != nil {
				d.sessions.release(s, false)
			}
			if n := d.sessions.picker.Sessions("a"); (n == 1) != test.starts || len(d.sessions.open) != n {
				t.Errorf("%d sessions are counted, %d are noted", n, len(d.sessions.open))
			}
		})
	}
}

// sayHello is the size of a client's startup packet.
var sayHello = int64(len(startup))

func TestStatusKeepsTheTotalsOfServersThatLeft(t *testing.T) {
	a, b := startBackend(t, "a", "127.0.42.1"), startBackend(t, "b", "127.0.42.2")
	def := definition(t, "primary", "127.0.43.13")
	board := view.NewBoard(viewOf(serviceOf(def, up(a))))
	r := run(t, Config{}, Endpoint{"pg-test", def, board, 0})
	conn, _ := reach(t, addressOf(def))
	echoes(t, conn)
	// Bytes are counted once they have been written, when the client may have them already.
	eventually(t, "the session's bytes are counted", func() bool {
		s := r.service(t, def.FullName).Servers
		return len(s) == 1 && s[0].Member == "a" && s[0].Sessions == 1 && s[0].TotalSessions == 1 && s[0].ToServer == sayHello+4 && s[0].ToClient == 6
	})
	board.Publish(viewOf(serviceOf(def, up(b))))
	over(t, conn)
	eventually(t, "a is no longer listed", func() bool { return len(r.service(t, def.FullName).Servers) == 1 })
	sequence(t, addressOf(def), 1)
	eventually(t, "both sessions are over", func() bool { return r.service(t, def.FullName).Clients == 0 })
	got := r.service(t, def.FullName)
	if got.TotalSessions != 2 || got.Sessions != 0 || got.ToServer != 2*sayHello+4 || got.ToClient != 8 || got.Servers[0].Member != "b" || got.Servers[0].TotalSessions != 1 {
		t.Errorf("status %+v", got)
	}
}

func TestLacksOfThisNodeAreNoFaultOfTheServer(t *testing.T) {
	for errno, want := range map[syscall.Errno]bool{syscall.EMFILE: true, syscall.ENFILE: true, syscall.EADDRNOTAVAIL: true,
		syscall.ECONNREFUSED: false, syscall.ETIMEDOUT: false, syscall.EHOSTUNREACH: false} {
		err := &net.OpError{Op: "dial", Err: os.NewSyscallError("connect", errno)}
		if ours(err) != want {
			t.Errorf("%v: %v", errno, !want)
		}
	}
}

func TestConnectFailureTriesTheNextServer(t *testing.T) {
	dead, b := startBackend(t, "dead", "127.0.42.1"), startBackend(t, "b", "127.0.42.2")
	must(t, dead.Close())
	def := definition(t, "replica", "127.0.43.5")
	var rechecked atomic.Int64
	r := run(t, Config{Recheck: func(cluster, member string) {
		if cluster != "pg-test" || member != "dead" {
			t.Errorf("recheck of %s %s", cluster, member)
		}
		rechecked.Add(1)
	}}, Endpoint{"pg-test", def, view.NewBoard(viewOf(serviceOf(def, up(dead), up(b)))), 0})
	if got := sequence(t, addressOf(def), 6); got != "b b b b b b" {
		t.Errorf("reached %s", got)
	}
	if n := rechecked.Load(); n < 3 || n > 6 {
		t.Errorf("rechecked %d times", n)
	}
	if n := r.log.count("takes no client"); n != 1 {
		t.Errorf("%d lines in the log, want one a second", n)
	}
	status := r.service(t, def.FullName)
	if status.Servers[0].ConnectFailures != uint64(rechecked.Load()) || status.Servers[0].TotalSessions != 0 || status.TotalSessions != 6 {
		t.Errorf("status %+v", status)
	}
}

// TestServerThatResetsASession is looked at out of turn; one whose session ends in order isn't.
func TestServerThatResetsASession(t *testing.T) {
	for _, test := range []struct {
		name  string
		close func(conn *net.TCPConn)
		want  int64
	}{
		{"in order", func(*net.TCPConn) {}, 0},
		{"reset", func(conn *net.TCPConn) { _ = conn.SetLinger(0) }, 1},
	} {
		t.Run(test.name, func(t *testing.T) {
			told := make(chan struct{})
			a := startScript(t, "a", "127.0.42.1", func(conn net.Conn) {
				if _, err := readPacket(conn); err != nil {
					return
				}
				_, _ = io.WriteString(conn, "a\n")
				<-told
				test.close(conn.(*net.TCPConn))
			})
			def := definition(t, "replica", "127.0.43.5")
			var rechecked atomic.Int64
			r := run(t, Config{Recheck: func(string, string) { rechecked.Add(1) }}, Endpoint{"pg-test", def, view.NewBoard(viewOf(serviceOf(def, up(a)))), 0})
			conn, _ := reach(t, addressOf(def))
			if rechecked.Load() != 0 {
				t.Error("rechecked before anything happened")
			}
			close(told)
			_, _ = io.Copy(io.Discard, conn)
			_ = conn.Close()
			eventually(t, "the session is over", func() bool { return r.service(t, def.FullName).Clients == 0 })
			eventually(t, "the member is rechecked as often as it has to be", func() bool { return rechecked.Load() == test.want })
		})
	}
}

// TestMarkDownDuringConnect has a server that never completes a connection: once it is marked down the client goes on.
func TestMarkDownDuringConnect(t *testing.T) {
	stuck, b := startBackend(t, "stuck", "127.0.42.1"), startBackend(t, "b", "127.0.42.2")
	hole := fullListener(t, "127.0.42.4")
	lost := up(stuck)
	def := definition(t, "replica", "127.0.43.6")
	svc := serviceOf(def, lost)
	svc.Servers[0].Host, svc.Servers[0].Port = hole.IP.String(), hole.Port
	board := view.NewBoard(viewOf(svc))
	r := run(t, Config{ConnectTimeout: time.Minute, Recheck: func(string, string) { t.Error("recheck of a server that is known to be down") }},
		Endpoint{"pg-test", def, board, 0})
	conn := dial(t, addressOf(def))
	eventually(t, "the client is being led", func() bool {
		s := r.service(t, def.FullName)
		return s.Clients == 1 && s.Sessions == 0
	})
	lost.down = true
	after := serviceOf(def, lost, up(b))
	after.Servers[0].Host, after.Servers[0].Port = hole.IP.String(), hole.Port
	board.Publish(viewOf(after))
	if name, err := greeting(conn); err != nil || name != "b" {
		t.Errorf("reached %q, %v", name, err)
	}
}

// fullListener gives the address of a socket whose backlog is full, so that connecting to it hangs.
func fullListener(t *testing.T, ip string) *net.TCPAddr {
	t.Helper()
	fd, err := syscall.Socket(syscall.AF_INET, syscall.SOCK_STREAM, 0)
	must(t, err)
	t.Cleanup(func() { _ = syscall.Close(fd) })
	var at syscall.SockaddrInet4
	copy(at.Addr[:], net.ParseIP(ip).To4())
	must(t, syscall.Bind(fd, &at))
	must(t, syscall.Listen(fd, 0))
	name, err := syscall.Getsockname(fd)
	must(t, err)
	address := &net.TCPAddr{IP: net.ParseIP(ip), Port: name.(*syscall.SockaddrInet4).Port}
	for {
		conn, err := net.DialTimeout("tcp", address.String(), time.Second)
		if err != nil {
			return address
		}
		t.Cleanup(func() { _ = conn.Close() })
	}
}

func TestServiceMaxConnLeavesTheRestInTheBacklog(t *testing.T) {
	a := startBackend(t, "a", "127.0.42.1")
	def := definition(t, "primary", "127.0.43.7")
	def.MaxConn = 2
	board := view.NewBoard(viewOf(serviceOf(def, up(a))))
	r := run(t, Config{}, Endpoint{"pg-test", def, board, 0})
	first, _ := reach(t, addressOf(def))
	second, _ := reach(t, addressOf(def))
	third := dial(t, addressOf(def))
	// Clients that come together are in line as they are heard.
	d := r.dispatchers[def.FullName]
	eventually(t, "the third waits in the lobby", func() bool { return d.lobby.waiting.Load() == 1 })
	fourth := dial(t, addressOf(def))
	must(t, third.SetReadDeadline(time.Now().Add(100*time.Millisecond)))
	if name, err := greeting(third); err == nil {
		t.Fatalf("a third client reached %s", name)
	}
	must(t, third.SetReadDeadline(time.Now().Add(patience)))
	if s := r.service(t, def.FullName); s.Sessions != 2 || s.Clients != 2 {
		t.Errorf("status %+v", s)
	}
	_ = first.Close()
	if name, err := greeting(third); err != nil || name != "a" {
		t.Fatalf("the third client got %q, %v", name, err)
	}
	echoes(t, second)
	// A reload that raises the limit lets the next one in.
	def.MaxConn = 3
	r.commit(t, Endpoint{"pg-test", def, board, 0})
	if name, err := greeting(fourth); err != nil || name != "a" {
		t.Fatalf("the fourth client got %q, %v", name, err)
	}
}

func TestHalfCloseThroughTheEngine(t *testing.T) {
	a := startBackend(t, "a", "127.0.42.1")
	def := definition(t, "primary", "127.0.43.8")
	r := run(t, Config{}, Endpoint{"pg-test", def, view.NewBoard(viewOf(serviceOf(def, up(a)))), 0})
	conn, _ := reach(t, addressOf(def))
	sent := strings.Repeat("0123456789", 300_000)
	go func() {
		_, _ = io.WriteString(conn, sent)
		_ = conn.CloseWrite()
	}()
	got, err := io.ReadAll(conn)
	if err != nil || string(got) != sent {
		t.Errorf("%d bytes came back (%v), want %d", len(got), err, len(sent))
	}
	eventually(t, "the session ends", func() bool { return r.service(t, def.FullName).Sessions == 0 })
	status := r.service(t, def.FullName)
	if status.ToServer != sayHello+int64(len(sent)) || status.ToClient != int64(len(sent)+len("a\n")) || status.Servers[0].ToServer != status.ToServer {
		t.Errorf("status %+v", status)
	}
}
