package proxy

import (
	"context"
	"io"
	"net"
	"runtime"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/pgporter/pgporter/internal/engine/relay"
	"github.com/pgporter/pgporter/internal/monitor/view"
)

func TestStop(t *testing.T) {
	a := startBackend(t, "a", "127.0.42.1")
	t.Run("sessions finish", func(t *testing.T) {
		def := definition(t, "primary", "127.0.43.9")
		r := run(t, Config{StopTimeout: time.Minute}, Endpoint{"pg-test", def, view.NewBoard(viewOf(serviceOf(def, up(a)))), 0})
		conn, _ := reach(t, addressOf(def))
		stopped := make(chan struct{})
		go func() {
			r.stop()
			close(stopped)
		}()
		eventually(t, "nobody is accepted", func() bool {
			late, err := net.Dial("tcp", addressOf(def))
			if err == nil {
				_ = late.Close()
			}
			return err != nil
		})
		echoes(t, conn)
		select {
		case <-stopped:
			t.Fatal("stopped with a session open")
		default:
		}
		_ = conn.Close()
		<-stopped
		if _, err := r.Prepare(nil); err == nil {
			t.Error("a stopped engine prepares a change")
		}
		if err := r.Run(t.Context()); err == nil {
			t.Error("a stopped engine runs again")
		}
	})
	t.Run("those that don't are ended", func(t *testing.T) {
		def := definition(t, "primary", "127.0.43.9")
		r := run(t, Config{StopTimeout: 50 * time.Millisecond}, Endpoint{"pg-test", def, view.NewBoard(viewOf(serviceOf(def, up(a)))), 0})
		conn, _ := reach(t, addressOf(def))
		r.stop()
		over(t, conn)
		if r.log.count("ended 1 session on a: pgporter stops") != 1 {
			t.Error("the log doesn't tell")
		}
	})
	t.Run("a mark-down still counts while stopping", func(t *testing.T) {
		def := definition(t, "primary", "127.0.43.9")
		board := view.NewBoard(viewOf(serviceOf(def, up(a))))
		r := run(t, Config{StopTimeout: time.Minute}, Endpoint{"pg-test", def, board, 0})
		conn, _ := reach(t, addressOf(def))
		go r.stop()
		board.Publish(viewOf(serviceOf(def)))
		over(t, conn)
		r.stop()
	})
	t.Run("a client that is being led or refused", func(t *testing.T) {
		def := definition(t, "primary", "127.0.43.9")
		svc := serviceOf(def, up(a))
		hole := fullListener(t, "127.0.42.4")
		svc.Servers[0].Host, svc.Servers[0].Port = hole.IP.String(), hole.Port
		other := definition(t, "replica", "127.0.43.9")
		board := view.NewBoard(viewOf(svc, serviceOf(other)))
		r := run(t, Config{ConnectTimeout: time.Minute}, Endpoint{"pg-test", def, board, 0}, Endpoint{"pg-test", other, board, 0})
		led, silent := dial(t, addressOf(def)), dialSilent(t, addressOf(other))
		eventually(t, "both are in", func() bool {
			return r.service(t, def.FullName).Clients == 1 && r.service(t, other.FullName).Clients == 1
		})
		began := time.Now()
		r.stop()
		if took := time.Since(began); took > 2*time.Second {
			t.Errorf("stopping took %v", took)
		}
		// Who was being connected is told, if there is still time for it.
		if _, err := io.Copy(io.Discard, led); err != nil && !isReset(err) {
			t.Errorf("the client that was being led: %v", err)
		}
		over(t, silent)
	})
}

func TestRunWithoutEndpointsEndsWithItsContext(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	must(t, New(Config{}).Run(ctx))
}

// TestNothingIsLeftBehind counts goroutines and descriptors around sessions that end in every way.
func TestNothingIsLeftBehind(t *testing.T) {
	a, b := startBackend(t, "a", "127.0.42.1"), startBackend(t, "b", "127.0.42.2")
	def, nobody := definition(t, "replica", "127.0.43.10"), definition(t, "offline", "127.0.43.10")
	var epoch uint64
	next := func() *view.View {
		epoch++
		sa := up(a)
		sa.epoch = epoch
		return viewOf(serviceOf(def, sa, up(b)), serviceOf(nobody))
	}
	board := view.NewBoard(next())
	r := run(t, Config{}, Endpoint{"pg-test", def, board, 0}, Endpoint{"pg-test", nobody, board, 0})
	round := func(n int) {
		var clients sync.WaitGroup
		for i := range n {
			clients.Go(func() {
				to := def
				if i%5 == 4 {
					to = nobody
				}
				conn, err := net.Dial("tcp", addressOf(to))
				if err != nil {
					t.Errorf("connect: %v", err)
					return
				}
				defer conn.Close()
				_ = conn.SetDeadline(time.Now().Add(patience))
				if to.Name == "offline" {
					_, _ = conn.Write([]byte("GET / HTTP/1.1\r\n\r\n"))
				} else {
					_, _ = conn.Write(startup)
					_, _ = greeting(conn)
				}
				switch i % 3 {
				case 0:
					_ = conn.(*net.TCPConn).SetLinger(0)
				case 1:
					_ = conn.(*net.TCPConn).CloseWrite()
					_, _ = io.Copy(io.Discard, conn)
				}
			})
			if i%20 == 0 {
				board.Publish(next())
			}
		}
		clients.Wait()
		eventually(t, "all clients are gone", func() bool {
			return r.service(t, def.FullName).Clients+r.service(t, nobody.FullName).Clients == 0 && a.open()+b.open() == 0
		})
	}
	round(30)
	files, goroutines := openFiles(t), runtime.NumGoroutine()
	round(300)
	eventually(t, "descriptors and goroutines are as they were", func() bool {
		return openFiles(t) <= files && runtime.NumGoroutine() <= goroutines
	})
	if s := r.service(t, nobody.FullName); s.Refused != 66 {
		t.Errorf("refused %d clients, want 66", s.Refused)
	}
}

// TestAcceptSurvivesALackOfDescriptors lowers the process's own limit for a moment.
func TestAcceptSurvivesALackOfDescriptors(t *testing.T) {
	a := startBackend(t, "a", "127.0.42.1")
	def := definition(t, "primary", "127.0.43.11")
	r := run(t, Config{}, Endpoint{"pg-test", def, view.NewBoard(viewOf(serviceOf(def, up(a)))), 0})
	sequence(t, addressOf(def), 1)
	eventually(t, "the session is gone", func() bool { return a.open() == 0 && r.service(t, def.FullName).Clients == 0 })
	var limit syscall.Rlimit
	must(t, syscall.Getrlimit(syscall.RLIMIT_NOFILE, &limit))
	restore := limit
	t.Cleanup(func() { must(t, syscall.Setrlimit(syscall.RLIMIT_NOFILE, &restore)) })
	// The client's own descriptor is the lowest that is free; nothing is left for the engine's.
	probe, err := syscall.Dup(0)
	must(t, err)
	must(t, syscall.Close(probe))
	limit.Cur = uint64(probe) + 1
	must(t, syscall.Setrlimit(syscall.RLIMIT_NOFILE, &limit))
	conn := dial(t, addressOf(def))
	eventually(t, "the log tells", func() bool { return r.log.count("cannot accept clients") > 0 })
	must(t, syscall.Setrlimit(syscall.RLIMIT_NOFILE, &restore))
	if name, err := greeting(conn); err != nil || name != "a" {
		t.Errorf("the client got %q, %v", name, err)
	}
	if n := r.log.count("cannot accept clients"); n > 2 {
		t.Errorf("%d lines in the log", n)
	}
}

// TestNothingEndsBeforePublish: a Change that is committed and not yet published ends no session, turns nobody away and has nobody
// connected with a service that the Board doesn't show yet.
func TestNothingEndsBeforePublish(t *testing.T) {
	a := startBackend(t, "a", "127.0.42.1")
	stays, goes, comes := definition(t, "primary", "127.0.43.11"), definition(t, "replica", "127.0.43.11"), definition(t, "default", "127.0.43.11")
	board := view.NewBoard(viewOf(serviceOf(stays, up(a)), serviceOf(goes, up(a))))
	r := run(t, Config{}, Endpoint{"pg-test", stays, board, 0}, Endpoint{"pg-test", goes, board, 0})
	one, _ := reach(t, addressOf(stays))
	two, _ := reach(t, addressOf(goes))
	change, err := r.Prepare([]Endpoint{{"pg-test", stays, board, 0}, {"pg-test", comes, board, 0}})
	must(t, err)
	change.Commit()
	change.Abort() // too late to mean anything
	early := dial(t, addressOf(comes))
	echoes(t, one)
	echoes(t, two)
	three, _ := reach(t, addressOf(goes))
	if s := r.service(t, comes.FullName); s.Clients != 0 || s.Refused != 0 {
		t.Errorf("somebody was accepted: %+v", s)
	}
	if _, err := r.Prepare(nil); err == nil {
		t.Error("a second change could be prepared")
	}
	board.Publish(viewOf(serviceOf(stays, up(a)), serviceOf(comes, up(a))))
	change.Publish()
	over(t, two)
	over(t, three)
	echoes(t, one)
	if name, err := greeting(early); err != nil || name != "a" {
		t.Errorf("who waited is led to %q, %v", name, err)
	}
}

// TestBeats: idle loops go round each second, and a dispatcher that waits for somebody does not.
func TestBeats(t *testing.T) {
	a := startBackend(t, "a", "127.0.42.1")
	def := definition(t, "primary", "127.0.43.12")
	r := prepared(t, Config{}, Endpoint{"pg-test", def, view.NewBoard(viewOf(serviceOf(def, up(a)))), 0})
	if got := r.Beats(); len(got) != 0 {
		t.Errorf("before it runs: %v", got)
	}
	r.begin(t)
	conn, _ := reach(t, addressOf(def))
	name := "the dispatcher of service " + def.FullName
	before := r.Beats()
	if _, there := before[name]; !there || len(before) < 2 && relay.Detaches {
		t.Errorf("loops: %v", before)
	}
	goes := func(what string, before map[string]uint64) {
		t.Helper()
		eventually(t, what, func() bool {
			now, all := r.Beats(), true
			for loop, n := range before {
				all = all && now[loop] > n
			}
			return all
		})
	}
	goes("all loops go round", before)
	r.mu.Lock()
	d := r.dispatchers[def.FullName]
	r.mu.Unlock()
	d.sessions.mu.Lock()
	// It may be on its way to the lock.
	time.Sleep(BeatGap + BeatGap/2)
	before = r.Beats()
	time.Sleep(2 * BeatGap)
	if now := r.Beats(); now[name] != before[name] {
		t.Error("it beats while it stands still")
	}
	d.sessions.mu.Unlock()
	goes("it goes round again", map[string]uint64{name: before[name]})
	echoes(t, conn)
}
