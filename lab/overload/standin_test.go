package overload

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"time"
)

// question asks a member's API over a connection of its own and gives all that comes; err says that nothing did.
func question(ctx context.Context, m *Member, path string) (string, error) {
	var d net.Dialer
	conn, err := d.DialContext(ctx, "tcp", fmt.Sprintf("%s:%d", m.Address, PatroniPort))
	if err != nil {
		return "", err
	}
	defer conn.Close()
	defer context.AfterFunc(ctx, func() { _ = conn.Close() })()
	if _, err := fmt.Fprintf(conn, "GET %s HTTP/1.1\r\nHost: lab\r\n\r\n", path); err != nil {
		return "", err
	}
	text, err := io.ReadAll(conn)
	return string(text), err
}

func standIns(t *testing.T) *Cluster {
	t.Helper()
	c, err := Start(netip.MustParseAddr(address(3, 0)), netip.MustParseAddr(address(3, 1)))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := c.Close(); err != nil {
			t.Error(err)
		}
	})
	return c
}

// A stand-in that could be asked as much as one likes would show nothing.
func TestStandInHasTheCapacityOfARealOne(t *testing.T) {
	c := standIns(t)
	replica := c.Members[1]
	replica.RefuseReplication()
	const askers = 8
	began := time.Now()
	var all sync.WaitGroup
	for range askers {
		all.Go(func() {
			if _, err := question(t.Context(), replica, "/primary"); err != nil {
				t.Error(err)
			}
		})
	}
	all.Wait()
	if took := time.Since(began); took < askers*costDear {
		t.Errorf("%d questions took %s, less than %s of work each", askers, took, costDear)
	}

	// Nobody waits for these, and the last one waits for them.
	if err := replica.Be(Hangs); err != nil {
		t.Fatal(err)
	}
	gaveUp, giveUp := context.WithCancel(t.Context())
	for range askers {
		all.Go(func() { _, _ = question(gaveUp, replica, "/replica") })
	}
	// A thread begins with the connection: whoever gives up before the question was read, leaves none behind.
	asked := func(questions int) func() bool {
		return func() bool { return len(replica.Counts().Questions) == questions }
	}
	until(t, asked(2*askers))
	giveUp()
	all.Wait()
	began = time.Now()
	all.Go(func() {
		if _, err := question(t.Context(), replica, "/primary"); err != nil {
			t.Error(err)
		}
	})
	until(t, asked(2*askers+1))
	if text, err := question(t.Context(), replica, "/liveness"); err != nil || !strings.HasPrefix(text, "HTTP/1.0 200 ") {
		t.Errorf("/liveness while SQL hangs: %q, %v", text, err)
	}
	if err := replica.Be(Well); err != nil {
		t.Fatal(err)
	}
	all.Wait()
	if took := time.Since(began); took < (askers+1)*costDear {
		t.Errorf("a question behind %d whose askers have left took %s", askers, took)
	}
	if left := replica.Counts().Left; left != askers {
		t.Errorf("%d askers have left, want %d", left, askers)
	}

	// Halted, it has a backlog and no more.
	if err := replica.Be(Halted); err != nil {
		t.Fatal(err)
	}
	var conns []net.Conn
	for {
		conn, err := net.DialTimeout("tcp", fmt.Sprintf("%s:%d", replica.Address, PatroniPort), 500*time.Millisecond)
		if err != nil {
			break
		}
		conns = append(conns, conn)
		if len(conns) > 2*backlog {
			t.Fatalf("%d connections are in the backlog", len(conns))
		}
	}
	for _, conn := range conns {
		_ = conn.Close()
	}
	if len(conns) < backlog {
		t.Errorf("only %d connections are in the backlog", len(conns))
	}
}

// What the members say follows Patroni's rules.
func TestStandInSpeaksAsPatroniDoes(t *testing.T) {
	c := standIns(t)
	primary, replica := c.Members[0], c.Members[1]
	paths := []string{"/primary", "/read-write", "/leader", "/standby-leader", "/replica", "/replica?lag=1MB", "/read-only", "/async", "/sync", "/read-only-sync", "/health", "/readiness", "/liveness", "/else"}
	for _, test := range []struct {
		name             string
		be               func()
		primary, replica string
		// says is in the replica's body.
		says string
	}{
		{"in peace", func() {}, "+++---+--++++-", "----++++--+++-", `"role":"replica","server_version":170012,"xlog":{"paused":false,"received_location":83888696,"replayed_location":83888696,"replayed_timestamp":null},"timeline":1,`},
		{"without etcd", func() { c.Blind(true) }, "+++---+---+++-", "----+++---+-+-", `"cluster_unlocked":true,"failsafe_mode_is_active":true,`},
		{"with no leader", func() { c.Blind(false); c.Unlock() }, "----------+-+-", "----++++--+++-", `"cluster_unlocked":true,`},
		{"after an election", func() { c.Lead(primary); replica.RefuseReplication() }, "+++---+--++++-", "----++++--+++-", `"timeline":null,`},
	} {
		t.Run(test.name, func(t *testing.T) {
			test.be()
			for m, want := range map[*Member]string{primary: test.primary, replica: test.replica} {
				got := ""
				for _, path := range paths {
					text, err := question(t.Context(), m, path)
					if err != nil {
						t.Fatal(err)
					}
					switch {
					case strings.HasPrefix(text, "HTTP/1.0 200 "):
						got += "+"
					case strings.HasPrefix(text, "HTTP/1.0 503 "):
						got += "-"
					default:
						t.Errorf("%s of %s: %s", path, m.Name, text)
					}
					if strings.Contains(text, "Content-Length") {
						t.Errorf("%s of %s: an answer of Python's has no length: %s", path, m.Name, text)
					}
				}
				if got != want {
					t.Errorf("%s: %v\n got %s\nwant %s", m.Name, paths, got, want)
				}
			}
			if text, err := question(t.Context(), replica, "/replica"); err != nil || !strings.Contains(text, test.says) {
				t.Errorf("%s, %v: want %s", text, err, test.says)
			}
		})
	}
}

func until(t *testing.T, so func() bool) {
	t.Helper()
	look := time.NewTicker(5 * time.Millisecond)
	defer look.Stop()
	for late := time.After(30 * time.Second); !so(); {
		select {
		case <-late:
			t.Fatal("it doesn't come to it")
		case <-look.C:
		}
	}
}
