package proxy

import (
	"fmt"
	"io"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/pgporter/pgporter/internal/config/model"
	"github.com/pgporter/pgporter/internal/monitor/view"
)

// orderable is a View whose members are declared, so that there can be orders for them.
func orderable(services ...view.Service) *view.View {
	v := viewOf(services...)
	declared := map[string]bool{}
	for _, s := range services {
		for _, server := range s.Servers {
			if !declared[server.Member] {
				declared[server.Member] = true
				v.Members = append(v.Members, view.Member{Member: model.Member{Name: server.Member}})
			}
		}
	}
	return v
}

// command is an operator's, for the servers of a service.
func command(b *view.Board, s view.State, service string, members ...string) {
	var on []view.ServerID
	for _, m := range members {
		on = append(on, view.ServerID{Service: service, Member: m})
	}
	b.Order(view.Command{State: &s, By: "root (uid 0)", At: time.Now()}, on)
}

// visit is a client that comes, hears where it is, and goes.
func visit(address string) (string, error) {
	conn, err := net.DialTimeout("tcp", address, patience)
	if err != nil {
		return "", err
	}
	defer conn.Close()
	_ = conn.SetDeadline(time.Now().Add(patience))
	if _, err := conn.Write(startup); err != nil {
		return "", err
	}
	return greeting(conn)
}

// TestDrainUnderLoad has a server drained while clients come all the time: from the moment in which it is in force no new client is led
// there, nobody is refused, and who has a session there keeps it.
func TestDrainUnderLoad(t *testing.T) {
	a, b := startBackend(t, "a", "127.0.0.1"), startBackend(t, "b", "127.0.0.1")
	def := definition(t, "replica", "127.0.0.1")
	board := view.NewBoard(orderable(serviceOf(def, up(a), up(b))))
	r := run(t, longHold, Endpoint{"pg-test", def, board, lately})
	var kept []io.ReadWriter
	for range 20 {
		conn := dial(t, addressOf(def))
		if name, err := greeting(conn); err != nil {
			t.Fatalf("%s %v", name, err)
		} else if name == "a" {
			kept = append(kept, conn)
		}
	}
	if len(kept) != 10 {
		t.Fatalf("%d of 20 clients are on a", len(kept))
	}
	var clients sync.WaitGroup
	var mu sync.Mutex
	served, drained := 0, false
	done := make(chan struct{})
	enough := func(n int) func() bool {
		return func() bool {
			mu.Lock()
			defer mu.Unlock()
			return served >= n
		}
	}
	for range 8 {
		clients.Go(func() {
			for {
				select {
				case <-done:
					return
				default:
				}
				mu.Lock()
				after := drained
				mu.Unlock()
				name, err := visit(addressOf(def))
				if err != nil || after && name == "a" {
					t.Errorf("a client that came (after the drain: %t) got %q, %v", after, name, err)
					return
				}
				mu.Lock()
				served++
				mu.Unlock()
			}
		})
	}
	eventually(t, "clients are served", enough(200))
	command(board, view.Drain, def.FullName, "a")
	mu.Lock()
	drained = true
	n := served
	mu.Unlock()
	eventually(t, "clients are served after the drain", enough(n+200))
	close(done)
	clients.Wait()
	for i, conn := range kept {
		fmt.Fprintf(conn, "still %d", i)
		echo := make([]byte, len("still 0"))
		if _, err := io.ReadFull(conn, echo); err != nil || string(echo) != fmt.Sprintf("still %d", i) {
			t.Errorf("session %d of 10 on the drained server: %q, %v", i, echo, err)
		}
	}
	if status := r.service(t, def.FullName); status.Refused > 0 {
		t.Errorf("%d clients were refused", status.Refused)
	}
	command(board, view.Ready, def.FullName, "a")
	eventually(t, "a takes clients again", func() bool {
		name, err := visit(addressOf(def))
		return err == nil && name == "a"
	})
}

func TestMaintenanceEndsSessions(t *testing.T) {
	for _, test := range []struct {
		options string
		ends    bool
	}{{"on-marked-down shutdown-sessions", true}, {"", false}} {
		t.Run(test.options, func(t *testing.T) {
			a, b := startBackend(t, "a", "127.0.0.1"), startBackend(t, "b", "127.0.0.1")
			def := definition(t, "replica", "127.0.0.1")
			def.Options, _ = model.ParseOptions(test.options)
			board := view.NewBoard(orderable(serviceOf(def, up(a), server{backend: b, weight: 100, backup: true})))
			r := run(t, Config{}, Endpoint{"pg-test", def, board, 0})
			conn := dial(t, addressOf(def))
			if name, err := greeting(conn); name != "a" || err != nil {
				t.Fatalf("%s %v", name, err)
			}
			command(board, view.Maintenance, def.FullName, "a")
			next := dial(t, addressOf(def))
			if name, err := greeting(next); name != "b" || err != nil {
				t.Errorf("the backup doesn't step in: %s %v", name, err)
			}
			if !test.ends {
				fmt.Fprint(conn, "x")
				if _, err := io.ReadFull(conn, make([]byte, 1)); err != nil {
					t.Errorf("the session has ended: %v", err)
				}
				return
			}
			if n, err := conn.Read(make([]byte, 1)); err == nil {
				t.Errorf("the session goes on: %d bytes", n)
			}
			eventually(t, "the log says who ended it", func() bool {
				return r.log.count("ended 1 session on a: it was put into maintenance by root (uid 0)") == 1
			})
		})
	}
}

// TestOrderedOutServiceRefuses has all of a service's servers taken out: clients wait for the hold, and are told by whom.
func TestOrderedOutServiceRefuses(t *testing.T) {
	a := startBackend(t, "a", "127.0.0.1")
	def := definition(t, "primary", "127.0.0.1")
	board := view.NewBoard(orderable(serviceOf(def, up(a))))
	run(t, Config{Hold: 200 * time.Millisecond}, Endpoint{"pg-test", def, board, lately})
	if name, err := visit(addressOf(def)); name != "a" || err != nil {
		t.Fatalf("%s %v", name, err)
	}
	command(board, view.Drain, def.FullName, "a")
	conn := dial(t, addressOf(def))
	answer, err := io.ReadAll(conn)
	for _, want := range []string{"57P03", "service pg-test-primary has no usable server: a is drained by order of an operator since ", "(waited 200ms)", "a: drained by order of an operator since ", "; up: 200 replica running"} {
		if !strings.Contains(string(answer), want) {
			t.Errorf("%q isn't in the answer %q (%v)", want, answer, err)
		}
	}
}

// TestReadyLetsWaitingClientsIn is a short maintenance that clients barely notice.
func TestReadyLetsWaitingClientsIn(t *testing.T) {
	a := startBackend(t, "a", "127.0.0.1")
	def := definition(t, "primary", "127.0.0.1")
	board := view.NewBoard(orderable(serviceOf(def, up(a))))
	r := run(t, longHold, Endpoint{"pg-test", def, board, lately})
	if name, err := visit(addressOf(def)); name != "a" || err != nil {
		t.Fatalf("%s %v", name, err)
	}
	command(board, view.Maintenance, def.FullName, "a")
	waiting := dial(t, addressOf(def))
	eventually(t, "it waits", func() bool { return r.service(t, def.FullName).Queued == 1 })
	command(board, view.Ready, def.FullName, "a")
	if name, err := greeting(waiting); name != "a" || err != nil {
		t.Errorf("%s %v", name, err)
	}
}

// TestCancelsReachDrainedServers: the session that a request means may be on one.
func TestCancelsReachDrainedServers(t *testing.T) {
	heard := make(chan string, 2)
	record := func(name string) func(net.Conn) {
		return func(conn net.Conn) {
			if all, err := io.ReadAll(io.LimitReader(conn, int64(len(cancelled)))); err == nil {
				heard <- name + " " + string(all)
			}
		}
	}
	a, b := startScript(t, "a", "127.0.0.1", record("a")), startScript(t, "b", "127.0.0.1", record("b"))
	def := definition(t, "replica", "127.0.0.1")
	board := view.NewBoard(orderable(serviceOf(def, up(a), up(b))))
	run(t, Config{}, Endpoint{"pg-test", def, board, 0})
	command(board, view.Drain, def.FullName, "a")
	command(board, view.Maintenance, def.FullName, "b")
	conn := dialSilent(t, addressOf(def))
	_, err := conn.Write(cancelled)
	must(t, err)
	over(t, conn)
	if got := map[string]bool{<-heard: true, <-heard: true}; !got["a "+string(cancelled)] || !got["b "+string(cancelled)] {
		t.Errorf("heard %v", got)
	}
}
