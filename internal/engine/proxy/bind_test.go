//go:build linux

package proxy

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/pgporter/pgporter/internal/config/model"
	"github.com/pgporter/pgporter/internal/engine/handover"
	"github.com/pgporter/pgporter/internal/monitor/view"
	"github.com/pgporter/pgporter/lab/sandbox/guard"
)

// TestMain lets the test binary be another process that holds a port: see heldByAnother.
func TestMain(m *testing.M) {
	if spec := os.Getenv("PROXY_TEST_HOLD"); spec != "" {
		holdPort(spec)
		return
	}
	os.Exit(guard.Run(m.Run))
}

// holdPort is another process: it listens on `ip:port option` until its input ends. Options are reuseaddr, reuseport, and
// bound, which doesn't listen.
func holdPort(spec string) {
	words := strings.Fields(spec)
	fail := func(err error) {
		if err != nil {
			fmt.Println("failed:", err)
			os.Exit(1)
		}
	}
	at, err := netip.ParseAddrPort(words[0])
	fail(err)
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM, 0)
	fail(err)
	for _, option := range words[1:] {
		switch option {
		case "reuseaddr":
			fail(unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_REUSEADDR, 1))
		case "reuseport":
			fail(unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_REUSEPORT, 1))
		}
	}
	fail(unix.Bind(fd, &unix.SockaddrInet4{Port: int(at.Port()), Addr: at.Addr().As4()}))
	if words[len(words)-1] != "bound" {
		fail(unix.Listen(fd, 16))
	}
	fmt.Println("holding")
	_, _ = os.Stdin.Read(make([]byte, 1))
}

// boundByAnother has another process hold an address, and gives its pid.
func boundByAnother(t *testing.T, spec string) int {
	t.Helper()
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), "PROXY_TEST_HOLD="+spec)
	input, err := cmd.StdinPipe()
	must(t, err)
	output, err := cmd.StdoutPipe()
	must(t, err)
	must(t, cmd.Start())
	t.Cleanup(func() {
		_ = input.Close()
		_ = cmd.Wait()
	})
	line, err := bufio.NewReader(output).ReadString('\n')
	if err != nil || line != "holding\n" {
		t.Fatalf("the holder says %q, %v", line, err)
	}
	return cmd.Process.Pid
}

func TestTakenAddressNamesTheHolder(t *testing.T) {
	const ip = "127.0.44.1"
	command, err := os.ReadFile("/proc/self/comm")
	must(t, err)
	name := strings.TrimSpace(string(command))
	for _, test := range []struct {
		// Where the other listens (PORT is the port), how, and what of it the message says.
		holder, options, where string
		// What we want to listen on.
		ip string
	}{
		{ip + ":PORT", "", ip + ":PORT", ip},
		{ip + ":PORT", "reuseaddr", ip + ":PORT", ip},
		{ip + ":PORT", "reuseport", ip + ":PORT", ip},
		{ip + ":PORT", "reuseaddr reuseport", ip + ":PORT", ip},
		{"0.0.0.0:PORT", "", "0.0.0.0:PORT", ip},
		{"0.0.0.0:PORT", "reuseaddr", "0.0.0.0:PORT", ip},
		{"0.0.0.0:PORT", "reuseport", "0.0.0.0:PORT", ip},
		{"0.0.0.0:PORT", "reuseaddr reuseport", "0.0.0.0:PORT", ip},
		{ip + ":PORT", "reuseport", ip + ":PORT", "*"},
		{ip + ":PORT", "reuseaddr reuseport", ip + ":PORT", "0.0.0.0"},
	} {
		t.Run(fmt.Sprintf("%s %s for %s", test.holder, test.options, test.ip), func(t *testing.T) {
			port := strconv.Itoa(freePort(t))
			pid := boundByAnother(t, strings.ReplaceAll(test.holder, "PORT", port)+" "+test.options)
			def := definition(t, "primary", ip)
			def.IP = test.ip
			def.Port, _ = strconv.Atoi(port)
			_, err := New(Config{}).Prepare([]Endpoint{{"pg-test", def, view.NewBoard(viewOf()), 0}})
			want := fmt.Sprintf("service pg-test-primary: cannot listen on %s: address already in use: %s (pid %d) listens on %s",
				net.JoinHostPort(test.ip, port), name, pid, strings.ReplaceAll(test.where, "PORT", port))
			if err == nil || err.Error() != want {
				t.Errorf("got  %v\nwant %s", err, want)
			}
			var bind *BindError
			if !errors.As(err, &bind) || !errors.Is(err, syscall.EADDRINUSE) {
				t.Errorf("%#v is no BindError", err)
			}
		})
	}

	t.Run("bound but not listening", func(t *testing.T) {
		port := freePort(t)
		boundByAnother(t, fmt.Sprintf("%s:%d bound", ip, port))
		def := definition(t, "primary", ip)
		def.Port = port
		_, err := New(Config{}).Prepare([]Endpoint{{"pg-test", def, view.NewBoard(viewOf()), 0}})
		if err == nil || !strings.HasSuffix(err.Error(), "who does can't be known") {
			t.Errorf("got %v", err)
		}
	})
}

func TestAllFailuresOfPrepareAtOnce(t *testing.T) {
	const ip = "127.0.44.2"
	board := view.NewBoard(viewOf())
	taken, fine := definition(t, "primary", ip), definition(t, "replica", ip)
	pid := boundByAnother(t, addressOf(taken)+" reuseport")
	bad, high, twin, twice, blind := definition(t, "bad", ip), definition(t, "high", ip), fine, fine, definition(t, "blind", ip)
	bad.IP, high.Port = "pg-test.internal", 70000
	twin.FullName = "pg-other-replica"
	twice.Port++
	_, err := New(Config{}).Prepare([]Endpoint{{"pg-test", taken, board, 0}, {"pg-test", fine, board, 0}, {"pg-test", bad, board, 0},
		{"pg-test", high, board, 0}, {"pg-other", twin, board, 0}, {"pg-test", twice, board, 0}, {"pg-test", blind, nil, 0}})
	if err == nil {
		t.Fatal("no error")
	}
	for _, want := range []string{
		fmt.Sprintf("service pg-test-primary: cannot listen on %s: address already in use: ", addressOf(taken)),
		fmt.Sprintf("(pid %d) listens on %s", pid, addressOf(taken)),
		`service pg-test-bad: "pg-test.internal" is not an IP address to listen on`,
		"service pg-test-high: port 70000 is out of range, 1 to 65535",
		fmt.Sprintf("service pg-other-replica: %s is already the address of service pg-test-replica", addressOf(fine)),
		"service pg-test-replica is there twice",
		"service pg-test-blind: no board of cluster pg-test to read health from",
	} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("the error lacks %q:\n%v", want, err)
		}
	}
	// What had been opened is closed again.
	l, err := net.Listen("tcp4", addressOf(fine))
	must(t, err)
	_ = l.Close()
}

func TestAddressThatIsNotThereYet(t *testing.T) {
	board := view.NewBoard(viewOf())
	var endpoints []Endpoint
	var want []string
	// TEST-NET-1 and the documentation prefix: no machine has these.
	for i, ip := range []string{"192.0.2.77", "2001:db8::77"} {
		if _, err := net.Listen("tcp", net.JoinHostPort(ip, "0")); err == nil {
			t.Fatalf("%s can be bound without IP_FREEBIND, so this test shows nothing", ip)
		}
		if l, err := net.Listen("tcp6", "[::1]:0"); err != nil && strings.Contains(ip, "::") {
			t.Log("this machine has no IPv6")
			continue
		} else if err == nil {
			_ = l.Close()
		}
		def := definition(t, "primary", "127.0.44.3")
		def.IP, def.FullName = ip, fmt.Sprint("pg-test-", i)
		endpoints = append(endpoints, Endpoint{"pg-test", def, board, 0})
		want = append(want, net.JoinHostPort(ip, strconv.Itoa(def.Port)))
	}
	r := run(t, Config{}, endpoints...)
	for i, s := range r.Status() {
		if s.Address != want[i] {
			t.Errorf("%s listens on %s, want %s", s.Service, s.Address, want[i])
		}
	}
}

func TestBindSaysWhatTheStarMeans(t *testing.T) {
	for _, test := range []struct{ bind, ip, want string }{
		{"", "*", "*:5433"},
		{"*", "*", "*:5433"},
		{"", "", "*:5433"},
		{"127.0.44.4", "*", "127.0.44.4:5433"},
		{"127.0.44.4", "127.0.44.5", "127.0.44.5:5433"},
		{"127.0.44.4", "0.0.0.0", "0.0.0.0:5433"},
		{"::1", "*", "[::1]:5433"},
		{"::ffff:127.0.44.4", "*", "127.0.44.4:5433"},
	} {
		at, err := listenAddrOf(model.Definition{IP: test.ip, Port: 5433}, test.bind)
		if err != nil || at.String() != test.want {
			t.Errorf("%q with bind %q is %s (%v), want %s", test.ip, test.bind, at, err, test.want)
		}
	}
}

// TestListenersCanBeSteered: the kernel can be told which socket gets new connections before there is another one beside, and it is done.
func TestListenersCanBeSteered(t *testing.T) {
	at, err := model.ListenAddrOf("127.0.44.6", freePort(t))
	must(t, err)
	own, err := listenSteerable(at)
	must(t, err)
	defer own.Close()
	do := func(what func(fd int) error) {
		t.Helper()
		var err error
		apply(own, func(fd uintptr) error {
			err = what(int(fd))
			return nil
		})
		must(t, err)
	}
	do(handover.Share)
	do(func(fd int) error { return handover.Steer(fd, handover.First) })
	beside, err := listenOn(at, share(1))
	must(t, err)
	defer beside.Close()
	for n, want := range []*net.TCPListener{own, beside} {
		do(func(fd int) error { return handover.Steer(fd, n) })
		for range 20 {
			client, err := net.Dial("tcp", at.String())
			must(t, err)
			defer client.Close()
			must(t, want.SetDeadline(time.Now().Add(5*time.Second)))
			served, err := want.Accept()
			must(t, err)
			defer served.Close()
			if served.RemoteAddr().String() != client.LocalAddr().String() {
				t.Errorf("%s was accepted for %s", served.RemoteAddr(), client.LocalAddr())
			}
		}
	}
}

func TestFailedPrepareLeavesWhatRuns(t *testing.T) {
	a := startBackend(t, "a", "127.0.42.1")
	def, fresh, taken := definition(t, "primary", "127.0.44.6"), definition(t, "replica", "127.0.44.6"), definition(t, "default", "127.0.44.6")
	board := view.NewBoard(viewOf(serviceOf(def, up(a))))
	r := run(t, Config{}, Endpoint{"pg-test", def, board, 0})
	conn, _ := reach(t, addressOf(def))
	boundByAnother(t, addressOf(taken))
	if _, err := r.Prepare([]Endpoint{{"pg-test", fresh, board, 0}, {"pg-test", taken, board, 0}}); err == nil {
		t.Fatal("a taken port went through")
	}
	change, err := r.Prepare([]Endpoint{{"pg-test", fresh, board, 0}})
	must(t, err)
	if _, err := r.Prepare(nil); err == nil {
		t.Error("a second change could be prepared")
	}
	change.Abort()
	change.Commit() // too late to mean anything
	change.Publish()
	echoes(t, conn)
	reach(t, addressOf(def))
	if late, err := net.Dial("tcp", addressOf(fresh)); err == nil {
		_ = late.Close()
		t.Error("the aborted change still listens")
	}
	if s := r.Status(); len(s) != 1 || s[0].Service != def.FullName || s[0].Sessions != 2 {
		t.Errorf("status %+v", s)
	}
}

func TestReload(t *testing.T) {
	a, b := startBackend(t, "a", "127.0.42.1"), startBackend(t, "b", "127.0.42.2")
	kept, moved, removed, added := definition(t, "primary", "127.0.44.7"), definition(t, "replica", "127.0.44.7"),
		definition(t, "default", "127.0.44.7"), definition(t, "offline", "127.0.44.7")
	board := view.NewBoard(viewOf(serviceOf(kept, up(a)), serviceOf(moved, up(a)), serviceOf(removed, up(a))))
	r := run(t, Config{}, Endpoint{"pg-test", kept, board, 0}, Endpoint{"pg-test", moved, board, 0}, Endpoint{"pg-test", removed, board, 0})
	onKept, _ := reach(t, addressOf(kept))
	onMoved, _ := reach(t, addressOf(moved))
	onRemoved, _ := reach(t, addressOf(removed))

	// From another Board, with b in a's place for new clients of the first, another port for the second, another service on
	// the port of the third.
	drained := up(a)
	drained.weight = 0
	oldMoved := moved
	moved.Port = definition(t, "replica", "127.0.44.7").Port
	added.Port = removed.Port
	next := view.NewBoard(viewOf(serviceOf(kept, drained, up(b)), serviceOf(moved, up(a)), serviceOf(added, up(b))))
	r.commit(t, Endpoint{"pg-test", kept, next, 0}, Endpoint{"pg-test", moved, next, 0}, Endpoint{"pg-test", added, next, 0})
	over(t, onRemoved)
	echoes(t, onKept)
	echoes(t, onMoved)
	for _, test := range []struct {
		def  model.Definition
		want string
	}{{kept, "b"}, {moved, "a"}, {added, "b"}} {
		if got := sequence(t, addressOf(test.def), 1); got != test.want {
			t.Errorf("%s leads to %s, want %s", test.def.FullName, got, test.want)
		}
	}
	if conn, err := net.Dial("tcp", addressOf(oldMoved)); err == nil {
		_ = conn.Close()
		t.Error("the old port is still open")
	}
	// The Board that counts is the new one, for sessions from before the reload too.
	board.Publish(viewOf())
	echoes(t, onKept)
	next.Publish(viewOf(serviceOf(kept, up(b)), serviceOf(moved, up(a)), serviceOf(added, up(b))))
	over(t, onKept)
	echoes(t, onMoved)
}

// TestReloadHasNoGap connects without pause while the configuration is replaced again and again: every client must reach
// the server, whether its address stays or changes hands between `*` and an address of the node.
func TestReloadHasNoGap(t *testing.T) {
	for _, star := range []bool{false, true} {
		t.Run(fmt.Sprintf("star %v", star), func(t *testing.T) {
			a := startBackend(t, "a", "127.0.42.1")
			const ip = "127.0.44.8"
			def := definition(t, "primary", ip)
			board := view.NewBoard(viewOf(serviceOf(def, up(a))))
			r := run(t, Config{}, Endpoint{"pg-test", def, board, 0})
			ctx, cancel := context.WithCancel(t.Context())
			var clients sync.WaitGroup
			var reached atomic.Int64
			for range 4 {
				clients.Go(func() {
					for ctx.Err() == nil {
						conn, err := net.Dial("tcp", addressOf(def))
						if err != nil {
							t.Errorf("connect: %v", err)
							return
						}
						_ = conn.SetDeadline(time.Now().Add(patience))
						_, _ = conn.Write(startup)
						if name, err := greeting(conn); err != nil || name != "a" {
							t.Errorf("reached %q: %v", name, err)
							return
						}
						_ = conn.Close()
						reached.Add(1)
					}
				})
			}
			other := def
			for i := range 24 {
				if star && i%2 == 0 {
					other.IP = "*"
				} else {
					other.IP = ip
				}
				change, err := r.Prepare([]Endpoint{{"pg-test", other, board, 0}})
				must(t, err)
				before := reached.Load()
				eventually(t, "clients come through meanwhile", func() bool { return t.Failed() || reached.Load() > before+4 })
				if i%3 == 2 {
					change.Abort()
				} else {
					change.Commit()
					change.Publish()
				}
			}
			cancel()
			clients.Wait()
		})
	}
}

// A foreign listener that shares its port is an obstacle also where our own sockets share theirs for a moment.
func TestTakingOverSeesStrangers(t *testing.T) {
	const mine, theirs = "127.0.44.9", "127.0.44.10"
	def := definition(t, "primary", mine)
	board := view.NewBoard(viewOf())
	r := run(t, Config{}, Endpoint{"pg-test", def, board, 0})
	pid := boundByAnother(t, fmt.Sprintf("%s:%d reuseport", theirs, def.Port))
	def.IP = "*"
	_, err := r.Prepare([]Endpoint{{"pg-test", def, board, 0}})
	if err == nil || !strings.Contains(err.Error(), fmt.Sprintf("(pid %d) listens on %s:%d", pid, theirs, def.Port)) {
		t.Errorf("got %v", err)
	}
	reachable, err := net.Dial("tcp", net.JoinHostPort(mine, strconv.Itoa(def.Port)))
	must(t, err)
	_ = reachable.Close()
}

func TestParseRow(t *testing.T) {
	const rest = " 00000000:0000 0A 00000000:00000000 00:00000000 00000000   999        0 4711 1 0000000000000000 100 0 0 10 0"
	for _, test := range []struct{ line, want string }{
		{"   0: 0B01007F:1539" + rest, "127.0.1.11:5433"},
		{"   1: 00000000:1538" + rest, "0.0.0.0:5432"},
		{"   2: 00000000000000000000000000000000:1539" + rest, "*:5433"},
		{"   3: 00000000000000000000000001000000:1539" + rest, "[::1]:5433"},
		{"   4: 0000000000000000FFFF00000B01007F:1539" + rest, "127.0.1.11:5433"},
	} {
		got, ok := parseRow(test.line)
		if !ok || got.at.String() != test.want || !got.listening || got.uid != 999 || got.inode != "4711" {
			t.Errorf("%s: %+v, want %s", test.line, got, test.want)
		}
	}
	for _, line := range []string{"", "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode", "0: zz:1539" + rest, "0: 0B0100:1539" + rest, "0: 0B01007F:99999" + rest} {
		if got, ok := parseRow(line); ok {
			t.Errorf("%q is read as %+v", line, got)
		}
	}
}
