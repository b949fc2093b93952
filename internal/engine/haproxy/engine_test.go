package haproxy

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/pgporter/pgporter/internal/config/model"
	"github.com/pgporter/pgporter/internal/engine"
	"github.com/pgporter/pgporter/internal/monitor/view"
	"github.com/pgporter/pgporter/internal/render/stamp"
)

// TestNobodyGoesToAnUncheckedServer: all members would pass HAProxy's own check, and the Board knows better.
func TestNobodyGoesToAnUncheckedServer(t *testing.T) {
	w := newWorld(t, 84)
	w.begin(w.config(), w.says(1, "2", "1", "2", "3"))
	w.connectsTo(2)
	// Reloads know it too.
	for range 3 {
		if err := w.take(w.says(1, "2", "1", "2", "3")); err != nil {
			t.Fatal(err)
		}
		w.connectsTo(2)
	}
}

// TestNothingIsKnown: with no word of the members, HAProxy's own checks must have passed first.
func TestNothingIsKnown(t *testing.T) {
	w := newWorld(t, 84)
	w.options = brisk
	w.answer(503, 1, 2, 3)
	w.begin(w.config(), w.says(0, "", "1", "2", "3"))
	if _, seq := w.dial(); seq != 0 {
		t.Errorf("connected to %d before anything was checked", seq)
	}
	w.answer(200, 1, 2, 3)
	w.until("HAProxy has checked", func() bool {
		_, seq := w.dial()
		return seq != 0
	})
}

func TestFollowsTheBoard(t *testing.T) {
	w := newWorld(t, 84)
	w.begin(w.config(), w.says(1, "23", "2", "3", "1b"))
	w.connectsTo(2, 3)
	before := w.workers()
	var sessions [4]net.Conn
	for sessions[2] == nil || sessions[3] == nil {
		conn, seq := w.dial()
		sessions[seq] = conn
	}

	// Three is down although its check passes: its session ends and nobody new comes.
	w.says(1, "2", "2", "3", "1b")
	ends(t, sessions[3])
	w.connectsTo(2)
	if !answers(sessions[2]) {
		t.Error("a healthy session has ended")
	}
	// It is up again before HAProxy would have found out.
	w.says(1, "23", "2", "3", "1b")
	w.until("three is connected to", func() bool { _, seq := w.dial(); return seq == 3 })
	if after := w.workers(); after.Current != before.Current {
		t.Error("that took a reload")
	}

	// Two is the leader now, one a replica: the backup flag takes a reload, and nobody gives a command.
	w.says(2, "13", "1", "3", "2b")
	w.until("the roles are followed", func() bool { return strings.Contains(w.log.String(), "HAProxy follows a change of roles") })
	w.connectsTo(1, 3)
	// The session on two is in a worker that checks nothing; two is down since.
	ends(t, sessions[2])
	text, err := os.ReadFile(filepath.Join(w.dir, confDir, "pg-test-reads.cfg"))
	if err != nil || !strings.Contains(string(text), "weight 100 backup") || strings.Count(string(text), " backup\n") != 1 {
		t.Errorf("the file doesn't say it: %v\n%s", err, text)
	}
}

// gate is a log whose reader stops at the first line that holds a text, until it is let go on.
type gate struct {
	stop         string
	reached, let chan struct{}
	once         sync.Once
}

func (g *gate) Write(p []byte) (int, error) {
	if strings.Contains(string(p), g.stop) {
		g.once.Do(func() {
			close(g.reached)
			<-g.let
		})
	}
	return len(p), nil
}

// TestHAProxyIsSetBeforeTheLog has nobody read the line that a server is down: it is, its sessions have ended, and another
// change is prepared meanwhile.
func TestHAProxyIsSetBeforeTheLog(t *testing.T) {
	w := newWorld(t, 84)
	g := &gate{stop: "health=down", reached: make(chan struct{}), let: make(chan struct{})}
	c := w.config()
	c.Logger = slog.New(slog.NewTextHandler(g, nil))
	w.begin(c, w.says(1, "23", "2", "3", "1b"))
	t.Cleanup(func() { close(g.let) })
	w.connectsTo(2, 3)
	var sessions [4]net.Conn
	for sessions[3] == nil {
		conn, seq := w.dial()
		sessions[seq] = conn
	}
	offer := w.says(1, "2", "2", "3", "1b")
	<-g.reached
	ends(t, sessions[3])
	w.connectsTo(2)
	change, err := w.engine.Prepare(t.Context(), offer)
	if err != nil {
		t.Fatal(err)
	}
	change.Abort()
}

// TestUnsettledRolesAreLeftAlone: without one running primary nothing is rendered anew.
func TestUnsettledRolesAreLeftAlone(t *testing.T) {
	w := newWorld(t, 84)
	w.begin(w.config(), w.says(1, "23", "2", "3", "1b"))
	w.says(0, "13", "1", "3", "2b")
	time.Sleep(2 * settleTime) // that nothing happens can only be waited for
	if strings.Contains(w.log.String(), "HAProxy follows") {
		t.Error("it was rendered by roles without a primary")
	}
	w.says(2, "13", "1", "3", "2b")
	w.until("the roles are followed", func() bool { return strings.Contains(w.log.String(), "HAProxy follows") })
}

// TestABoardIsNotOverruled: HAProxy's check passes all the time on a server that is down on the Board.
func TestABoardIsNotOverruled(t *testing.T) {
	w := newWorld(t, 84)
	w.options = brisk
	w.begin(w.config(), w.says(1, "2", "2", "3"))
	w.until("HAProxy's check has lost", func() bool { return strings.Contains(w.log.String(), "it is off until the server may") })
	w.until("three is down", func() bool {
		servers, err := w.engine.control.servers(t.Context(), w.workers().Current.PID)
		return err == nil && !servers[serverID{"pg-test-reads", "pg-test-3"}].takesClients()
	})
	for deadline := time.Now().Add(3 * time.Second); time.Now().Before(deadline); {
		conn, seq := w.dial()
		conn.Close()
		if seq != 2 {
			t.Fatalf("connected to %d", seq)
		}
	}
	w.says(1, "23", "2", "3")
	w.until("three is connected to", func() bool { _, seq := w.dial(); return seq == 3 })
	// Its check is on again: what HAProxy sees counts.
	w.answer(503, 3)
	w.until("HAProxy has found three down", func() bool {
		servers, err := w.engine.control.servers(t.Context(), w.workers().Current.PID)
		return err == nil && !servers[serverID{"pg-test-reads", "pg-test-3"}].takesClients()
	})
}

func TestRuntimeCommandsSuffice(t *testing.T) {
	w := newWorld(t, 84)
	offer := w.says(1, "23", "2", "3")
	w.begin(w.config(), offer)
	before := w.workers()
	var onThree net.Conn
	for seq := 0; seq != 3; {
		onThree, seq = w.dial()
	}

	w.says(1, "2", "2")
	w.until("three has left", func() bool { return strings.Contains(w.log.String(), "HAProxy follows") })
	ends(t, onThree)
	w.connectsTo(2)

	// It comes back, not up: HAProxy by itself would have it up until a check fails.
	w.says(1, "2", "2", "3")
	w.until("three is back", func() bool { return strings.Count(w.log.String(), "HAProxy follows") == 2 })
	w.connectsTo(2)
	w.says(1, "23", "2", "3")
	w.until("three is connected to", func() bool { _, seq := w.dial(); return seq == 3 })

	for i := range offer.Clusters[0].Set.Services[0].Servers {
		offer.Clusters[0].Set.Services[0].Servers[i].Weight = 7
	}
	view := *w.board.View()
	view.Services = append(view.Services[:0:0], view.Services...)
	view.Services[0].Service = offer.Clusters[0].Set.Services[0]
	w.board.Publish(&view)
	if err := w.take(offer); err != nil {
		t.Fatal(err)
	}
	servers, err := w.engine.control.servers(context.Background(), before.Current.PID)
	if at := (serverID{"pg-test-reads", "pg-test-2"}); err != nil || servers[at].Weight != 7 {
		t.Errorf("the weight: %+v, %v", servers[at], err)
	}
	if after := w.workers(); after.Current != before.Current {
		t.Error("HAProxy was reloaded")
	}
}

func TestTotalsSurviveReloads(t *testing.T) {
	w := newWorld(t, 84)
	offer := w.says(1, "2", "2")
	w.begin(w.config(), offer)
	open, _ := w.dial()
	for range 2 {
		w.connectsTo(2)
		if err := w.take(offer); err != nil {
			t.Fatal(err)
		}
	}
	w.until("the counters agree", func() bool {
		got := w.engine.Traffic(context.Background())[0]
		return got.Sessions == 1 && got.TotalSessions == 7 && got.Servers[0].TotalSessions == 7 && got.Servers[0].Up && got.Address == w.bind+":7434"
	})
	if !answers(open) {
		t.Error("the session didn't survive")
	}
	w.says(1, "none", "2")
	w.until("a client who finds nobody is counted", func() bool {
		_, seq := w.dial()
		return seq == 0 && w.engine.Traffic(context.Background())[0].Refused > 0
	})
}

func TestRefusedChangesLeaveEverything(t *testing.T) {
	w := newWorld(t, 84)
	offer := w.says(1, "2", "2", "3b")
	w.begin(w.config(), offer)
	session, _ := w.dial()
	file := filepath.Join(w.dir, confDir, "pg-test-reads.cfg")
	before, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	tcp := func(port int, options ...string) engine.Offer {
		o := offer
		o.TCPServices = []model.TCPService{{Name: "web", IP: "*", Port: port, Protocol: "tcp", MaxConn: 9, Balance: "roundrobin", Options: options,
			Default: "inter 1s", Servers: []model.TCPServer{{Name: "a", Host: w.host(1), Port: destination, Options: "check"}}}}
		return o
	}
	taken, err := net.Listen("tcp", w.bind+":0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	port := taken.Addr().(*net.TCPAddr).Port
	for _, test := range []struct {
		name  string
		offer engine.Offer
		want  string
	}{
		{"a directive that HAProxy hasn't", tcp(7435, "no-such-directive"), confDir + "/web.cfg:"},
		{"a port that somebody has", tcp(port), fmt.Sprintf("service web: %s:%d is taken by another process", w.bind, port)},
		{"no base file", engine.Offer{}, ""},
	} {
		t.Run(test.name, func(t *testing.T) {
			err := w.take(test.offer)
			if test.want == "" {
				return
			}
			if err == nil || !strings.Contains(err.Error(), test.want) || strings.Contains(err.Error(), ".pgporter-check") {
				t.Errorf("got %v, want %q in it", err, test.want)
			}
			if after, err := os.ReadFile(file); err != nil || string(after) != string(before) {
				t.Errorf("the file has changed: %v", err)
			}
			if _, err := os.Stat(filepath.Join(w.dir, confDir, "web.cfg")); !errors.Is(err, os.ErrNotExist) {
				t.Errorf("the refused file is there: %v", err)
			}
			if !answers(session) {
				t.Error("the session has ended")
			}
		})
	}
}

// TestRollBack: what HAProxy takes as a configuration but can't carry out is taken back, files and all.
func TestRollBack(t *testing.T) {
	w := newWorld(t, 84)
	offer := w.says(1, "2", "2", "3b")
	w.begin(w.config(), offer)
	session, _ := w.dial()
	worse := offer
	// An address that this machine hasn't: haproxy -c doesn't see that.
	worse.TCPServices = []model.TCPService{{Name: "web", IP: "192.0.2.1", Port: 7435, Protocol: "tcp", MaxConn: 9, Balance: "roundrobin",
		Default: "inter 1s", Servers: []model.TCPServer{{Name: "a", Host: w.host(1), Port: destination}}}}
	err := w.take(worse)
	if err == nil || !strings.Contains(err.Error(), "192.0.2.1") {
		t.Errorf("got %v", err)
	}
	if _, err := os.Stat(filepath.Join(w.dir, confDir, "web.cfg")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the refused file is there: %v", err)
	}
	w.connectsTo(2)
	if !answers(session) {
		t.Error("the session has ended")
	}
	if err := w.take(offer); err != nil {
		t.Errorf("afterwards: %v", err)
	}
}

// TestNothingEndsBeforeCommit: a Change that HAProxy has loaded ends no session, and one that is given up then leaves HAProxy as
// it was: what it carries, its files, and who is with whom.
func TestNothingEndsBeforeCommit(t *testing.T) {
	w := newWorld(t, 84)
	offer := w.says(1, "23", "2", "3")
	web := []model.TCPService{{Name: "web", IP: "*", Port: 7435, Protocol: "tcp", MaxConn: 9, Balance: "roundrobin",
		Default: "inter 1s", Servers: []model.TCPServer{{Name: "a", Host: w.host(1), Port: destination}}}}
	offer.TCPServices = web
	w.begin(w.config(), offer)
	var sessions []net.Conn
	for len(sessions) < 2 {
		conn, seq := w.dial()
		if seq == 2+len(sessions) {
			sessions = append(sessions, conn)
		}
	}
	tcp, err := net.Dial("tcp", w.bind+":7435")
	if err != nil {
		t.Fatal(err)
	}
	defer tcp.Close()
	if _, err := tcp.Read(make([]byte, 1)); err != nil {
		t.Fatal(err)
	}
	sessions = append(sessions, tcp)
	file := filepath.Join(w.dir, confDir, "pg-test-reads.cfg")
	before, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	less := offer
	less.Clusters = []engine.Cluster{offer.Clusters[0]}
	less.Clusters[0].Set.Services = []model.Service{offer.Clusters[0].Set.Services[0]}
	svc := &less.Clusters[0].Set.Services[0]
	svc.Servers = svc.Servers[:1]
	for name, tcp := range map[string][]model.TCPService{"a server less": web, "a server and a service less": nil} {
		t.Run(name, func(t *testing.T) {
			less := less
			less.TCPServices = tcp
			change, err := w.engine.Prepare(t.Context(), less)
			if err != nil {
				t.Fatal(err)
			}
			if err := change.Load(t.Context()); err != nil {
				t.Fatal(err)
			}
			w.connectsTo(2)
			time.Sleep(2 * tick) // that nothing happens can only be waited for
			change.Abort()
			change.Commit(t.Context()) // too late to mean anything
			w.until("three is connected to again", func() bool { _, seq := w.dial(); return seq == 3 })
			w.connectsTo(2, 3)
			time.Sleep(2 * tick) // that nothing happens can only be waited for
			for i, s := range sessions {
				if !answers(s) {
					t.Errorf("session %d has ended", i)
				}
			}
			if after, err := os.ReadFile(file); err != nil || string(after) != string(before) {
				t.Errorf("the file has changed: %v", err)
			}
			if conn, err := net.Dial("tcp", w.bind+":7435"); err != nil {
				t.Errorf("the TCP service is gone: %v", err)
			} else {
				conn.Close()
			}
		})
	}
}

// TestTheBoardIsOfTheDeclarationBefore: what a Board says between Load and Commit holds for servers that are where they were and
// checked as they were, and with Commit, when it is of the new declaration, HAProxy is at once where the Board is.
func TestTheBoardIsOfTheDeclarationBefore(t *testing.T) {
	for _, test := range []struct {
		name  string
		alter func(w *world, c *model.Cluster, s *model.Service)
		// loaded are the members that clients are connected to before Commit, up those that the Board says are up by then, and
		// committed those that clients are connected to after it.
		loaded    []int
		up        string
		committed []int
	}{
		{"a member has moved to where one answers", func(w *world, c *model.Cluster, s *model.Service) {
			c.Members[2].Host, s.Servers[1].Host = w.host(1), w.host(1)
		}, []int{2}, "23", []int{1, 2}},
		{"another check", func(_ *world, _ *model.Cluster, s *model.Service) { s.Check = "/primary" }, nil, "3", []int{3}},
		{"another check of TLS", func(_ *world, _ *model.Cluster, s *model.Service) { s.Options.CheckTLS.SNI = "pg" }, nil, "23", []int{2, 3}},
		{"another destination", func(w *world, _ *model.Cluster, s *model.Service) {
			s.Servers[0].Port = destination + 1
			w.serve(2, destination+1)
		}, []int{3}, "23", []int{2, 3}},
		{"another port of Patroni's", func(_ *world, c *model.Cluster, _ *model.Service) { c.Members[1].PatroniPort++ }, []int{3}, "23", []int{2, 3}},
		{"another interval", func(_ *world, _ *model.Cluster, s *model.Service) {
			s.Options, _ = model.ParseOptions(strings.Replace(steady, "inter 1h", "inter 30m", 1))
		}, []int{2, 3}, "23", []int{2, 3}},
	} {
		t.Run(test.name, func(t *testing.T) {
			w := newWorld(t, 84)
			offer := w.says(1, "23", "2", "3")
			w.begin(w.config(), offer)
			w.until("the Board is followed", func() bool {
				w.engine.mu.Lock()
				defer w.engine.mu.Unlock()
				return len(w.engine.watch.published) == 2
			})
			next := w.altered(&offer, func(c *model.Cluster, s *model.Service) { test.alter(w, c, s) })
			change, err := w.engine.Prepare(t.Context(), offer)
			if err != nil {
				t.Fatal(err)
			}
			if err := change.Load(t.Context()); err != nil {
				t.Fatal(err)
			}
			if len(test.loaded) == 0 {
				if _, seq := w.dial(); seq != 0 {
					t.Errorf("connected to %d", seq)
				}
			} else {
				w.connectsTo(test.loaded...)
			}
			for i := range next.Services[0].Health {
				next.Services[0].Health[i].Up = strings.Contains(test.up, fmt.Sprint(2+i))
			}
			w.board.Publish(next)
			change.Commit(t.Context())
			w.connectsTo(test.committed...)
		})
	}
}

// TestSessionsOfAClusterThatStays: it was to go, and its servers' sessions have had to end before. What is given up ends none,
// whether HAProxy couldn't load it or something else failed after that.
func TestSessionsOfAClusterThatStays(t *testing.T) {
	w := newWorld(t, 84)
	w.says(1, "23", "2", "3")
	w.says(1, "1", "2", "3")
	offer := w.says(1, "23", "2", "3")
	w.begin(w.config(), offer)
	session, _ := w.dial()
	without := offer
	without.Clusters = nil
	// An address that this machine hasn't: haproxy -c doesn't see that.
	worse := without
	worse.TCPServices = []model.TCPService{{Name: "web", IP: "192.0.2.1", Port: 7435, Protocol: "tcp", MaxConn: 9, Balance: "roundrobin",
		Default: "inter 1s", Servers: []model.TCPServer{{Name: "a", Host: w.host(1), Port: destination}}}}
	if err := w.take(worse); err == nil || !strings.Contains(err.Error(), "192.0.2.1") {
		t.Errorf("got %v", err)
	}
	goesOn := func(after string) {
		t.Helper()
		rounds := w.engine.Beats()
		w.until("Run has looked twice", func() bool { return w.engine.Beats() >= rounds+3 })
		if !answers(session) {
			t.Errorf("after %s the session has ended", after)
		}
	}
	goesOn("a reload that HAProxy refuses")
	change, err := w.engine.Prepare(t.Context(), without)
	if err != nil {
		t.Fatal(err)
	}
	if err := change.Load(t.Context()); err != nil {
		t.Fatal(err)
	}
	change.Abort()
	goesOn("a change that was given up")
	w.connectsTo(2, 3)
	if err := w.take(without); err != nil {
		t.Fatal(err)
	}
	ends(t, session)
}

func TestAServiceThatGoes(t *testing.T) {
	w := newWorld(t, 84)
	offer := w.says(1, "2", "2")
	more := offer
	more.TCPServices = []model.TCPService{{Name: "web", IP: "*", Port: 7435, Protocol: "tcp", MaxConn: 9, Balance: "roundrobin",
		Default: "inter 1s", Servers: []model.TCPServer{{Name: "a", Host: w.host(1), Port: destination}}}}
	w.begin(w.config(), more)
	handWritten := filepath.Join(w.dir, confDir, "handwritten.cfg")
	if err := os.WriteFile(handWritten, []byte(fmt.Sprintf("listen handwritten\n    bind %s:7436\n    server a %s:%d\n", w.bind, w.host(3), destination)), 0o644); err != nil {
		t.Fatal(err)
	}
	conn, err := net.Dial("tcp", w.bind+":7435")
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if _, err := conn.Read(make([]byte, 1)); err != nil {
		t.Fatal(err)
	}
	if err := w.take(offer); err != nil {
		t.Fatal(err)
	}
	ends(t, conn)
	if _, err := os.Stat(filepath.Join(w.dir, confDir, "web.cfg")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the file of the service that went is there: %v", err)
	}
	if conn, err := net.Dial("tcp", w.bind+":7435"); err == nil {
		conn.Close()
		t.Error("its port is open")
	}
	if _, err := os.Stat(handWritten); err != nil {
		t.Errorf("somebody else's file: %v", err)
	}
	other, err := net.Dial("tcp", w.bind+":7436")
	if err != nil {
		t.Fatalf("somebody else's service isn't carried: %v", err)
	}
	other.Close()
}

func TestStopInOrder(t *testing.T) {
	w := newWorld(t, 84)
	c := w.config()
	c.StopTimeout = 10 * time.Second
	w.begin(c, w.says(1, "2", "2"))
	short, _ := w.dial()
	long, _ := w.dial()
	pid := w.engine.master
	began := time.Now()
	w.stop()
	w.until("nobody is let in", func() bool {
		conn, err := net.Dial("tcp", w.address())
		if err == nil {
			conn.Close()
		}
		return err != nil
	})
	if !answers(short) {
		t.Error("a session ended before its time")
	}
	beats := w.engine.Beats()
	w.until("it goes round while it stops", func() bool { return w.engine.Beats() >= beats+3 })
	if !answers(short) || !answers(long) {
		t.Error("a session ended before its time")
	}
	if got := w.engine.Traffic(t.Context()); len(got) != 1 || got[0].Sessions != 2 {
		t.Errorf("the traffic while it stops: %+v", got)
	}
	short.Close()
	ends(t, long)
	if took := time.Since(began); took < time.Second {
		t.Errorf("the long session ended after %s", took)
	}
	w.end()
	if err := syscall.Kill(pid, 0); !errors.Is(err, syscall.ESRCH) {
		t.Errorf("HAProxy is still there: %v", err)
	}
}

func TestADeadHAProxyIsStartedAgain(t *testing.T) {
	w := newWorld(t, 84)
	w.begin(w.config(), w.says(1, "2", "1", "2"))
	w.engine.mu.Lock()
	master := w.engine.master
	w.engine.mu.Unlock()
	if err := syscall.Kill(master, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	w.until("it was started", func() bool { return strings.Count(w.log.String(), "HAProxy serves") == 2 })
	w.connectsTo(2)
}

// TestAdoption: pgporter was killed, its HAProxy went on; the next pgporter takes it over.
func TestAdoption(t *testing.T) {
	w := newWorld(t, 84)
	offer := w.says(1, "2", "1", "2")
	first, err := New(w.config())
	if err != nil {
		t.Fatal(err)
	}
	w.engine = first
	if err := w.take(offer); err != nil {
		t.Fatal(err)
	}
	session, _ := w.dial()
	if second, err := New(w.config()); err != nil {
		t.Fatal(err)
	} else if _, err := second.Prepare(t.Context(), offer); err == nil || !strings.Contains(err.Error(), "another pgporter has HAProxy's directory") {
		t.Errorf("two of them: %v", err)
	}
	first.release() // as the kernel does when a process ends
	w.begin(w.config(), offer)
	if w.engine.master != first.master {
		t.Error("it isn't the same HAProxy")
	}
	w.connectsTo(2)
	if !answers(session) {
		t.Error("the session has ended")
	}
	// Nothing is known of when the session began; its server is down.
	w.says(1, "1", "1", "2")
	ends(t, session)
	w.end()
	<-first.ended
}

func TestSystemsHAProxy(t *testing.T) {
	for _, withMaster := range []bool{true, false} {
		t.Run(fmt.Sprintf("master socket %v", withMaster), func(t *testing.T) {
			w := newWorld(t, 84)
			c, pid := w.system(withMaster)
			gone := filepath.Join(w.dir, confDir, "pg-old-primary.cfg")
			if err := os.WriteFile(gone, []byte(stamp.Stamp{Kind: stamp.HAProxy, Cluster: "pg-old", File: "pg-old-primary.cfg"}.Line()), 0o644); err != nil {
				t.Fatal(err)
			}
			base, err := os.ReadFile(filepath.Join(w.dir, "haproxy.cfg"))
			if err != nil {
				t.Fatal(err)
			}
			offer := w.says(1, "23", "2", "3", "1b")
			w.begin(c, offer)
			w.connectsTo(2, 3)
			onTwo, seq := w.dial()
			for seq != 2 {
				onTwo, seq = w.dial()
			}
			if after, err := os.ReadFile(filepath.Join(w.dir, "haproxy.cfg")); err != nil || string(after) != string(base) {
				t.Errorf("haproxy.cfg has changed: %v", err)
			}
			if _, err := os.Stat(gone); !errors.Is(err, os.ErrNotExist) {
				t.Errorf("our file of a service that is gone: %v", err)
			}
			w.says(2, "13", "1", "3", "2b")
			w.until("the roles are followed", func() bool { return strings.Contains(w.log.String(), "HAProxy follows") })
			w.connectsTo(1, 3)
			if withMaster {
				ends(t, onTwo) // it is in a worker that checks nothing
			}
			// Whoever else reloads it now begins with what the Board says.
			was := w.workers().Current
			signalled := time.Time{}
			w.until("somebody else's reload", func() bool {
				// A master that is still busy with the reload before doesn't see a signal.
				if time.Since(signalled) > 2*time.Second {
					signalled = time.Now()
					if err := syscall.Kill(pid, syscall.SIGUSR2); err != nil {
						t.Fatal(err)
					}
				}
				p, err := w.engine.control.processes(context.Background())
				return err == nil && p.Current.PID != 0 && p.Current != was
			})
			w.connectsTo(1, 3)
			w.end()
			// It goes on, and starts with nobody after a reload that we don't see.
			w.connectsTo(1, 3)
			servers, err := os.ReadFile(w.engine.state)
			if err != nil || strings.Count(string(servers), " 0 0 100 100 0 ") != 3 {
				t.Errorf("the state that is left: %v\n%s", err, servers)
			}
		})
	}
}

func TestSystemsHAProxyThatDoesntReadConfD(t *testing.T) {
	w := newWorld(t, 84)
	c, _ := w.system(true)
	moved := filepath.Join(w.dir, "elsewhere")
	if err := os.MkdirAll(filepath.Join(moved, confDir), 0o755); err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile(filepath.Join(w.dir, "haproxy.cfg"))
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(moved, "haproxy.cfg"), text, 0o644); err != nil {
		t.Fatal(err)
	}
	c.Dir = moved
	if w.engine, err = New(c); err != nil {
		t.Fatal(err)
	}
	err = w.take(w.says(1, "2", "2"))
	if err == nil || !strings.Contains(err.Error(), "HAProxy lacks service pg-test-reads (does its command line have -f for conf.d?)") {
		t.Errorf("got %v", err)
	}
	if left, _ := filepath.Glob(filepath.Join(moved, confDir, "*")); len(left) > 0 {
		t.Errorf("files were left: %v", left)
	}
}

// What answers at the socket of a HAProxy that runs already may name any process as its master.
func TestAttackAdoptedMasterIsHAProxy(t *testing.T) {
	dir := t.TempDir()
	socket, err := net.Listen("unix", filepath.Join(dir, masterSocket))
	if err != nil {
		t.Fatal(err)
	}
	answered := make(chan struct{})
	go func() {
		defer close(answered)
		for {
			conn, err := socket.Accept()
			if err != nil {
				return
			}
			_, _ = io.ReadAll(conn)
			fmt.Fprintf(conn, "%d master 0 0d 2.6\n", os.Getpid())
			conn.Close()
		}
	}()
	e, err := New(Config{Dir: dir, Binary: "/usr/sbin/haproxy"})
	if err != nil {
		t.Fatal(err)
	}
	if err := e.begin(t.Context()); err == nil || !strings.Contains(err.Error(), "as its master") {
		t.Errorf("taken over as HAProxy: %v", err)
	}
	socket.Close()
	<-answered
}

// TestOrders has an operator order: HAProxy is told at once, and neither the loop that follows the Board nor a reload undoes it.
func TestOrders(t *testing.T) {
	w := newWorld(t, 84)
	offer := w.says(1, "23", "2", "3", "1b")
	w.begin(w.config(), offer)
	w.connectsTo(2, 3)
	sessions := map[int]net.Conn{}
	for len(sessions) < 2 {
		conn, seq := w.dial()
		sessions[seq] = conn
	}
	on := func(seq int) []view.ServerID {
		return []view.ServerID{{Service: "pg-test-reads", Member: fmt.Sprintf("pg-test-%d", seq)}}
	}
	order := func(c view.Command, seq int, changed bool) {
		t.Helper()
		c.By, c.At = "x", time.Now()
		told, err := w.engine.Order(t.Context(), c, on(seq), nil)
		if got := told[on(seq)[0]]; err != nil || got != (Told{Changed: changed}) {
			t.Fatalf("told %+v, %v", told, err)
		}
		w.board.Order(c, on(seq))
	}
	states := func() map[serverID]serverState {
		servers, err := w.engine.control.servers(t.Context(), w.workers().Current.PID)
		if err != nil {
			t.Error(err)
		}
		return servers
	}
	drain, maint, ready, seven := view.Drain, view.Maintenance, view.Ready, 7
	before := w.workers()
	order(view.Command{State: &drain}, 3, true)
	order(view.Command{State: &drain}, 3, false)
	w.connectsTo(2)
	order(view.Command{Weight: &seven}, 2, true)
	if !answers(sessions[3]) {
		t.Error("the session on the drained server has ended")
	}
	w.says(1, "23", "2", "3", "1b") // the loop has a look
	if after := w.workers(); after.Current != before.Current {
		t.Error("an order took a reload")
	}
	text, err := os.ReadFile(filepath.Join(w.dir, confDir, "pg-test-reads.cfg"))
	if err != nil || strings.Count(string(text), "weight 100") != 3 {
		t.Errorf("the file doesn't say what is declared: %v\n%s", err, text)
	}

	// A change of roles takes a reload.
	w.says(2, "13", "1", "3", "2b")
	w.until("the roles are followed", func() bool { return strings.Contains(w.log.String(), "HAProxy follows a change of roles") })
	w.connectsTo(1)
	if got := states(); got[serverID{"pg-test-reads", "pg-test-2"}].Weight != 7 || got[serverID{"pg-test-reads", "pg-test-3"}].state() != drain {
		t.Errorf("states after the reload: %+v", got)
	}
	if !answers(sessions[3]) {
		t.Error("the session on the drained server, in the worker before, has ended")
	}
	order(view.Command{State: &maint}, 3, true)
	ends(t, sessions[3])
	order(view.Command{State: &ready}, 3, true)
	w.connectsTo(1, 3)

	// Three leaves the service in maintenance and comes back: it was parked meanwhile.
	order(view.Command{State: &maint}, 3, true)
	w.says(2, "1", "1", "2b")
	w.until("three is out", func() bool { return strings.Contains(w.log.String(), "HAProxy was told what has changed") })
	w.says(2, "13", "1", "3", "2b")
	w.until("three is in maintenance again", func() bool {
		return strings.Count(w.log.String(), "HAProxy was told what has changed") == 2 && states()[serverID{"pg-test-reads", "pg-test-3"}].state() == maint
	})
	w.connectsTo(1)
}
