package proxy

import (
	"fmt"
	"io"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/pgporter/pgporter/internal/config/model"
	"github.com/pgporter/pgporter/internal/engine/balance"
	"github.com/pgporter/pgporter/internal/monitor/view"
)

// led is a View of a service of the leader's.
func led(svc view.Service) *view.View {
	svc.Leads = true
	return viewOf(svc)
}

// hold has a board's leader services be held, until release is called.
func hold(t *testing.T, board *view.Board) (release func()) {
	t.Helper()
	now := time.Now()
	if _, taken := board.Hold(view.Hold{ID: "one", By: "somebody", Since: now, Until: now.Add(time.Minute)}, now); !taken {
		t.Fatal("there is a hold already")
	}
	return func() { board.Release("one", time.Now()) }
}

// passes reads nothing from connections until a time has passed.
func passes(t *testing.T, d time.Duration, conns ...*net.TCPConn) {
	t.Helper()
	for began := time.Now(); time.Since(began) < d; {
		for _, conn := range conns {
			quiet(t, conn)
		}
	}
}

// TestHeldForASwitchover: whoever comes while there is a View's Hold waits for its end, however long he would wait without, and then for
// the new leader to come up. Sessions go on.
func TestHeldForASwitchover(t *testing.T) {
	for n, own := range []time.Duration{0, 200 * time.Millisecond, patience} {
		t.Run(fmt.Sprint("hold ", own), func(t *testing.T) {
			a, b := startBackend(t, "a", "127.0.42.1"), startBackend(t, "b", "127.0.42.2")
			def := definition(t, "primary", fmt.Sprint("127.0.51.", n+1))
			was, will := up(a), up(b)
			will.down = true
			board := view.NewBoard(led(serviceOf(def, was, will)))
			r := run(t, Config{Hold: own}, Endpoint{"pg-test", def, board, lately})
			session, _ := reach(t, addressOf(def))
			release := hold(t, board)
			plain, encrypting := dial(t, addressOf(def)), dialSilent(t, addressOf(def))
			_, err := encrypting.Write(sslAsked)
			must(t, err)
			holding(t, r, def, 2)
			passes(t, 500*time.Millisecond, plain, encrypting)
			echoes(t, session)
			// The old leader goes, the hold ends, and the new one isn't there yet.
			was.down, was.epoch = true, 1
			board.Publish(led(serviceOf(def, was, will)))
			over(t, session)
			passes(t, 300*time.Millisecond, plain)
			release()
			passes(t, 500*time.Millisecond, plain, encrypting)
			will.down = false
			board.Publish(led(serviceOf(def, was, will)))
			if name, err := greeting(plain); err != nil || name != "b" {
				t.Errorf("reached %q, %v", name, err)
			}
			if s := r.service(t, def.FullName); s.Refused != 0 {
				t.Errorf("status %+v", s)
			}
		})
	}
}

// TestHoldTakesBack: a client that is being connected as a hold begins isn't refused, and isn't connected either. It goes back to wait.
func TestHoldTakesBack(t *testing.T) {
	b := startBackend(t, "b", "127.0.42.2")
	connected := make(chan struct{}, 8)
	mute := startScript(t, "mute", "127.0.42.1", func(conn net.Conn) {
		connected <- struct{}{}
		_, _ = io.Copy(io.Discard, conn)
	})
	declines := startScript(t, "declines", "127.0.42.3", func(conn net.Conn) {
		if what, err := readPacket(conn); err == nil && what == sslRequest {
			_, _ = conn.Write([]byte{declined})
		}
		_, _ = io.Copy(io.Discard, conn)
	})
	for name, test := range map[string]struct {
		ip    string
		first *backend
		// begin brings a client on its way to the first server, next has it say what it says then.
		begin func(t *testing.T, conn *net.TCPConn)
		next  func(t *testing.T, conn *net.TCPConn)
	}{
		"before the server's first word": {"127.0.51.11", mute, func(t *testing.T, conn *net.TCPConn) {
			_, err := conn.Write(startup)
			must(t, err)
			<-connected
		}, func(*testing.T, *net.TCPConn) {}},
		"after its encryption was declined": {"127.0.51.12", declines, func(t *testing.T, conn *net.TCPConn) {
			_, err := conn.Write(sslAsked)
			must(t, err)
			var answer [1]byte
			if _, err := io.ReadFull(conn, answer[:]); err != nil || answer[0] != declined {
				t.Fatalf("answered %q, %v", answer, err)
			}
		}, func(t *testing.T, conn *net.TCPConn) {
			_, err := conn.Write(startup)
			must(t, err)
		}},
	} {
		t.Run(name, func(t *testing.T) {
			def := definition(t, "primary", test.ip)
			board := view.NewBoard(led(serviceOf(def, up(test.first))))
			r := run(t, longHold, Endpoint{"pg-test", def, board, lately})
			conn := dialSilent(t, addressOf(def))
			test.begin(t, conn)
			release := hold(t, board)
			test.next(t, conn)
			holding(t, r, def, 1)
			quiet(t, conn)
			eventually(t, "nobody is at the first server", func() bool { return test.first.open() == 0 })
			board.Publish(led(serviceOf(def, up(b))))
			release()
			if name, err := greeting(conn); err != nil || name != "b" {
				t.Errorf("reached %q, %v", name, err)
			}
			if s := r.service(t, def.FullName); s.Refused != 0 {
				t.Errorf("status %+v", s)
			}
		})
	}
}

// TestWhoWaitsWhileHeldMayLeave: a client without a goroutine that leaves is out of the queue, and the others go in their order.
func TestWhoWaitsWhileHeldMayLeave(t *testing.T) {
	a := startBackend(t, "a", "127.0.42.1")
	def := definition(t, "primary", "127.0.51.21")
	board := view.NewBoard(led(serviceOf(def, up(a))))
	r := run(t, longHold, Endpoint{"pg-test", def, board, lately})
	release := hold(t, board)
	var conns []*net.TCPConn
	for n := range 8 {
		conns = append(conns, dial(t, addressOf(def)))
		holding(t, r, def, n+1)
	}
	for n := 0; n < len(conns); n += 2 {
		if n%4 == 0 {
			must(t, conns[n].SetLinger(0))
		}
		must(t, conns[n].Close())
	}
	holding(t, r, def, 4)
	eventually(t, "they have no places either", func() bool { return r.service(t, def.FullName).Clients == 4 })
	release()
	for n := 1; n < len(conns); n += 2 {
		if name, err := greeting(conns[n]); err != nil || name != "a" {
			t.Errorf("client %d reached %q, %v", n, name, err)
		}
	}
	if s := r.service(t, def.FullName); s.Refused != 0 || s.Sessions != 4 || s.TotalSessions != 4 {
		t.Errorf("status %+v", s)
	}
}

// TestQueueHasRoomForMaxConn: all that the service may have wait, and a CancelRequest comes in all the same.
func TestQueueHasRoomForMaxConn(t *testing.T) {
	cancels := make(chan string, 1)
	a := startScript(t, "a", "127.0.42.1", func(conn net.Conn) {
		all, _ := io.ReadAll(io.LimitReader(conn, int64(len(cancelled))))
		cancels <- string(all)
	})
	def := definition(t, "primary", "127.0.51.31")
	def.MaxConn = 20
	board := view.NewBoard(led(serviceOf(def, up(a))))
	r := run(t, longHold, Endpoint{"pg-test", def, board, lately})
	release := hold(t, board)
	defer release()
	for n := range def.MaxConn {
		dial(t, addressOf(def))
		holding(t, r, def, n+1)
	}
	conn := dialSilent(t, addressOf(def))
	_, err := conn.Write(cancelled)
	must(t, err)
	if got := <-cancels; got != string(cancelled) {
		t.Errorf("the server had %q", got)
	}
	over(t, conn)
	if s := r.service(t, def.FullName); s.Refused != 0 || s.Queued != def.MaxConn {
		t.Errorf("status %+v", s)
	}
}

// TestQueueIsLetGoInParts: of those who waited only so many are on their way to a server at a time, and whoever waits for that isn't refused,
// however slow the server is.
func TestQueueIsLetGoInParts(t *testing.T) {
	answer := make(chan struct{})
	slow := startScript(t, "slow", "127.0.42.1", func(conn net.Conn) {
		<-answer
		echo(conn, "slow")
	})
	def := definition(t, "primary", "127.0.51.41")
	const waiting, own = 5 * advanceAtOnce, 300 * time.Millisecond
	svc := serviceOf(def, up(slow))
	board := view.NewBoard(led(svc))
	r := run(t, Config{Hold: own}, Endpoint{"pg-test", def, board, lately})
	release := hold(t, board)
	var conns []*net.TCPConn
	for range waiting {
		conns = append(conns, dial(t, addressOf(def)))
	}
	holding(t, r, def, waiting)
	began := time.Now()
	release()
	most := func() int { return advanceAtOnce * (1 + int(time.Since(began)/advancePatience)) }
	for came := 0; came < waiting; {
		came = slow.open()
		if limit := most(); came > limit {
			t.Fatalf("%d of %d are on their way after %v, %d at most", came, waiting, time.Since(began), limit)
		}
		// A connection that comes later waits behind those who waited.
		if s := r.service(t, def.FullName); s.Refused != 0 {
			t.Fatalf("status %+v", s)
		}
	}
	if took := time.Since(began); took < own {
		t.Errorf("all came within %v", took)
	}
	close(answer)
	for n, conn := range conns {
		if name, err := greeting(conn); err != nil || name != "slow" {
			t.Fatalf("client %d reached %q, %v", n, name, err)
		}
	}
}

// TestHoldsFailover: with `hold: failover` clients wait for as long as one can take, and are told as soon as it is known that none can come;
// when one may come again, new ones wait again.
func TestHoldsFailover(t *testing.T) {
	a := startBackend(t, "a", "127.0.42.1")
	const own = 200 * time.Millisecond
	failover := &model.Hold{Failover: true}
	for n, cfg := range []Config{{Hold: own}, {Hold: own, HoldFailover: true}} {
		def := definition(t, "primary", fmt.Sprint("127.0.51.", 51+n))
		if !cfg.HoldFailover {
			def.Hold = failover
		}
		down := up(a)
		down.down, down.reason = true, "503 primary stopped"
		board := view.NewBoard(led(serviceOf(def, up(a))))
		r := run(t, cfg, Endpoint{"pg-test", def, board, lately})
		sequence(t, addressOf(def), 1)
		board.Publish(led(serviceOf(def, down)))
		conn := dial(t, addressOf(def))
		holding(t, r, def, 1)
		passes(t, 3*own, conn)
		hopeless := led(serviceOf(def, down))
		hopeless.Hopeless = "there is no other member to promote"
		board.Publish(hopeless)
		said, err := io.ReadAll(conn)
		if err != nil || !strings.Contains(string(said), "57P03") || !strings.Contains(string(said), "(waited ") ||
			!strings.Contains(string(said), "a: down: 503 primary stopped\nno failover can bring one: there is no other member to promote\x00") {
			t.Errorf("told %q, %v", said, err)
		}
		// Whoever comes now is told at once.
		if said, err = io.ReadAll(dial(t, addressOf(def))); err != nil || !strings.Contains(string(said), "no failover can bring one") || strings.Contains(string(said), "waited") {
			t.Errorf("told %q, %v", said, err)
		}
		board.Publish(led(serviceOf(def, down)))
		conn = dial(t, addressOf(def))
		holding(t, r, def, 1)
		passes(t, 2*own, conn)
		board.Publish(led(serviceOf(def, up(a))))
		if name, err := greeting(conn); err != nil || name != "a" {
			t.Errorf("reached %q, %v", name, err)
		}
	}
}

// TestReloadedHold: a hold that is changed is that of those who come from then on.
func TestReloadedHold(t *testing.T) {
	a := startBackend(t, "a", "127.0.42.1")
	def := definition(t, "primary", "127.0.51.61")
	r, board, with, _ := leaderless(t, longHold, def, a)
	before := dial(t, addressOf(def))
	holding(t, r, def, 1)
	def.Hold = &model.Hold{}
	r.commit(t, Endpoint{"pg-test", def, board, lately})
	if said, err := io.ReadAll(dial(t, addressOf(def))); err != nil || !strings.Contains(string(said), "57P03") || strings.Contains(string(said), "waited") {
		t.Errorf("told %q, %v", said, err)
	}
	passes(t, 200*time.Millisecond, before)
	board.Publish(with)
	if name, err := greeting(before); err != nil || name != "a" {
		t.Errorf("reached %q, %v", name, err)
	}
}

// TestAllowance has how long clients wait, in each kind of shortage.
func TestAllowance(t *testing.T) {
	const own, failoverTakes = 5 * time.Second, time.Minute
	t0 := time.Unix(1000, 0)
	// The client came 10 s after the last server was lost.
	lost, since := t0, t0.Add(10*time.Second)
	def := model.Definition{FullName: "pg-test-primary", Balance: model.RoundRobin}
	svc := func(up bool, state view.State) *view.Service {
		return &view.Service{Service: model.Service{Definition: def, Servers: []model.Server{{Member: "a", Weight: 100}}},
			Health: []view.Health{{Up: up, Order: view.Order{State: state}}}, Leads: true}
	}
	down, there, drained := svc(false, view.Ready), svc(true, view.Ready), svc(true, view.Drain)
	for _, test := range []struct {
		name     string
		failover bool
		hold     time.Duration
		short    shortage
		kept     time.Time
		want     time.Time
	}{
		{"a time", false, own, shortage{svc: down, outcome: balance.None, lost: lost}, time.Time{}, since.Add(own)},
		{"a time, though none can come", false, own, shortage{svc: down, outcome: balance.None, lost: lost, hopeless: "x"}, time.Time{}, since.Add(own)},
		{"none", false, 0, shortage{svc: down, outcome: balance.None, lost: lost}, time.Time{}, since},
		{"none, after a hold", false, 0, shortage{svc: down, outcome: balance.None, lost: lost}, since.Add(time.Second), since.Add(time.Second)},
		{"failover", true, own, shortage{svc: down, outcome: balance.None, lost: lost}, time.Time{}, lost.Add(failoverTakes)},
		{"failover, and nothing else", true, 0, shortage{svc: down, outcome: balance.None, lost: lost}, time.Time{}, lost.Add(failoverTakes)},
		{"failover, and none can come", true, own, shortage{svc: down, outcome: balance.None, lost: lost, hopeless: "x"}, time.Time{}, lost.Add(own)},
		{"the same after a hold", true, own, shortage{svc: down, outcome: balance.None, lost: lost, hopeless: "x"}, since.Add(own), since.Add(own)},
		{"failover, and the servers fail", true, own, shortage{svc: there, outcome: balance.None, lost: lost}, time.Time{}, since.Add(failoverTakes)},
		{"failover, and the servers are full", true, own, shortage{svc: there, outcome: balance.Full, lost: lost}, time.Time{}, since.Add(own)},
		{"failover, and the leader was taken out", true, own, shortage{svc: drained, outcome: balance.None, lost: lost}, time.Time{}, since.Add(own)},
		{"failover, and no service", true, own, shortage{outcome: balance.None, lost: lost}, time.Time{}, since.Add(own)},
	} {
		task := assignment{Endpoint: Endpoint{Definition: def, Expectancy: failoverTakes}, protocol: protocol{hold: test.hold, failover: test.failover}}
		if got := task.allowance(test.short).until(since, test.kept, test.short.outcome); !got.Equal(test.want) {
			t.Errorf("%s: until %v after it came, want %v", test.name, got.Sub(since), test.want.Sub(since))
		}
	}
}
