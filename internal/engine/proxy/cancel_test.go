package proxy

import (
	"bytes"
	"io"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/pgporter/pgporter/internal/monitor/view"
)

// TestCancelGoesToEveryServer has one server that is up, one that is down, one with weight 0, a backup, and one that isn't
// there.
func TestCancelGoesToEveryServer(t *testing.T) {
	got := make(chan string, 16)
	record := func(name string) func(conn net.Conn) {
		return func(conn net.Conn) {
			all, _ := io.ReadAll(io.LimitReader(conn, int64(len(cancelled))))
			got <- name + " " + string(all)
		}
	}
	servers := []server{}
	for _, name := range []string{"a", "b", "c", "d"} {
		servers = append(servers, up(startScript(t, name, "127.0.42.1", record(name))))
	}
	servers[1].down, servers[2].weight, servers[3].backup = true, 0, true
	dead := startBackend(t, "e", "127.0.42.5")
	must(t, dead.Close())
	servers = append(servers, up(dead))
	def := definition(t, "replica", "127.0.49.1")
	r := run(t, longHold, Endpoint{"pg-test", def, view.NewBoard(viewOf(serviceOf(def, servers...))), lately})
	for _, pieces := range []int{1, len(cancelled)} {
		conn := dialSilent(t, addressOf(def))
		for sent := 0; sent < len(cancelled); sent += pieces {
			_, err := conn.Write(cancelled[sent : sent+pieces])
			must(t, err)
		}
		over(t, conn)
		// The client is closed only after the servers have had the request.
		seen := map[string]bool{}
		for range 4 {
			select {
			case what := <-got:
				seen[what] = true
			default:
			}
		}
		for _, name := range []string{"a", "b", "c", "d"} {
			if !seen[name+" "+string(cancelled)] {
				t.Errorf("%s had no request: %v", name, seen)
			}
		}
	}
	eventually(t, "nobody is left", func() bool { return r.service(t, def.FullName).Clients == 0 })
	if s := r.service(t, def.FullName); s.Refused != 0 || s.TotalSessions != 0 || s.Servers[4].ConnectFailures != 0 {
		t.Errorf("status %+v", s)
	}
}

// A CancelRequest isn't queued when no server is up, whatever its key's size, and also after encryption was declined.
func TestCancelIsNeverQueued(t *testing.T) {
	longest := packet(cancelRequestCode, "\x00\x00\x00\x07"+strings.Repeat("k", maxCancelKey))
	for _, test := range []struct {
		name   string
		says   [][]byte
		server []step
		down   bool
	}{
		{"no server is up", [][]byte{cancelled}, []step{{cancelled, nil}}, true},
		{"a long key", [][]byte{longest}, []step{{longest, nil}}, true},
		{"after N", [][]byte{sslAsked, cancelled}, []step{{cancelled, nil}}, false},
	} {
		t.Run(test.name, func(t *testing.T) {
			done := make(chan bool, 1)
			a := startScript(t, "a", "127.0.42.1", func(conn net.Conn) {
				var first [8]byte
				if _, err := io.ReadFull(conn, first[:]); err == nil && bytes.Equal(first[:], sslAsked) {
					_, _ = conn.Write([]byte("N"))
					_, _ = io.Copy(io.Discard, conn)
					return
				}
				rest := make([]byte, len(test.server[0].reads)-8)
				_, err := io.ReadFull(conn, rest)
				done <- err == nil && bytes.Equal(append(first[:], rest...), test.server[0].reads)
			})
			def := definition(t, "primary", "127.0.49.2")
			gone := up(a)
			gone.down = test.down
			board := view.NewBoard(viewOf(serviceOf(def, up(a))))
			r := run(t, longHold, Endpoint{"pg-test", def, board, lately})
			eventually(t, "the server is seen", func() bool {
				d := r.dispatchers[def.FullName]
				return d.sessions.outlook().usable() > 0
			})
			board.Publish(viewOf(serviceOf(def, gone)))
			conn := dialSilent(t, addressOf(def))
			for n, says := range test.says {
				if n > 0 {
					var answer [1]byte
					if _, err := io.ReadFull(conn, answer[:]); err != nil || answer[0] != 'N' {
						t.Fatalf("answered %q, %v", answer, err)
					}
				}
				_, err := conn.Write(says)
				must(t, err)
			}
			over(t, conn)
			if !<-done {
				t.Error("the server had something else")
			}
		})
	}
}

// A server that hangs doesn't keep the client of a CancelRequest waiting for ever.
func TestCancelWaitsForNoHangingServer(t *testing.T) {
	mute := startScript(t, "mute", "127.0.42.1", func(conn net.Conn) { _, _ = io.Copy(io.Discard, conn) })
	def := definition(t, "primary", "127.0.49.3")
	r := run(t, longHold, Endpoint{"pg-test", def, view.NewBoard(viewOf(serviceOf(def, up(mute)))), lately})
	conn := dialSilent(t, addressOf(def))
	began := time.Now()
	_, err := conn.Write(cancelled)
	must(t, err)
	over(t, conn)
	if took := time.Since(began); took < cancelTimeout*9/10 || took > cancelTimeout+5*time.Second {
		t.Errorf("closed after %v", took)
	}
	eventually(t, "nobody is left", func() bool { return r.service(t, def.FullName).Clients == 0 && mute.open() == 0 })
}
