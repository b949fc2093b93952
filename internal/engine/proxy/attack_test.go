package proxy

import (
	"context"
	"errors"
	"io"
	"net"
	"net/netip"
	"os"
	"sync"
	"testing"
	"time"

	"github.com/pgporter/pgporter/internal/monitor/view"
)

// withSlots has an engine, which has no endpoints yet, have so many slots for so many services.
func (r *rig) withSlots(slots, services int) {
	for r.files = 0; Slots(r.files, r.aside, services) < slots; r.files++ {
	}
	r.lobby.setLimit(lobbyFiles(r.files))
}

// reachWithin connects a client and has it be served within a time.
func reachWithin(t *testing.T, address string, limit time.Duration) *net.TCPConn {
	t.Helper()
	conn := dial(t, address)
	must(t, conn.SetDeadline(time.Now().Add(limit)))
	if _, err := greeting(conn); err != nil {
		t.Fatalf("not served within %s: %v", limit, err)
	}
	must(t, conn.SetDeadline(time.Now().Add(patience)))
	return conn
}

// soon is less than the time that a client may take to say what it wants while there is room, and much more than it takes where there
// is none on a machine that is well.
const soon = 50 * time.Second

// Clients that say nothing, more than there are slots, keep nobody of another service waiting for long, and neither anybody of
// theirs, though each of them might take a minute.
func TestAttackSilentClients(t *testing.T) {
	a := startBackend(t, "a", "127.0.42.1")
	one, other := definition(t, "one", "127.0.64.11"), definition(t, "other", "127.0.64.11")
	board := view.NewBoard(viewOf(serviceOf(one, up(a)), serviceOf(other, up(a))))
	r := made(Config{Hold: time.Minute})
	r.begin(t)
	r.withSlots(64, 2)
	r.commit(t, Endpoint{"pg-test", one, board, 0}, Endpoint{"pg-test", other, board, 0})
	session, _ := reach(t, addressOf(one))
	for range 200 {
		dialSilent(t, addressOf(one))
	}
	// Its own slots are there at once.
	must(t, reachWithin(t, addressOf(other), soon).Close())
	reachWithin(t, addressOf(one), soon)
	echoes(t, session)
}

// A client whose encryption request was declined, and who then says nothing, holds a server's connection as well.
func TestAttackSilentAfterDecline(t *testing.T) {
	a := startScript(t, "a", "127.0.42.1", func(conn net.Conn) {
		what, err := readPacket(conn)
		if err == nil && what == sslRequest {
			if _, err = conn.Write([]byte{declined}); err == nil {
				what, err = readPacket(conn)
			}
		}
		if err == nil && what == startupMessage {
			_, _ = io.WriteString(conn, "a\n")
			_, _ = io.Copy(conn, conn)
		}
	})
	def := definition(t, "one", "127.0.64.12")
	r := made(Config{Hold: time.Minute})
	r.begin(t)
	r.withSlots(32, 1)
	r.commit(t, Endpoint{"pg-test", def, view.NewBoard(viewOf(serviceOf(def, up(a)))), 0})
	for range 31 {
		conn := dialSilent(t, addressOf(def))
		_, err := conn.Write(sslAsked)
		must(t, err)
		var answer [1]byte
		_, err = io.ReadFull(conn, answer[:])
		must(t, err)
	}
	reachWithin(t, addressOf(def), soon)
	reachWithin(t, addressOf(def), soon)
	reachWithin(t, addressOf(def), soon)
}

// A pool that opens hundreds of connections at once and takes its time to say what they are for has all of them served.
func TestAttackIsNoPool(t *testing.T) {
	a := startBackend(t, "a", "127.0.42.1")
	def := definition(t, "one", "127.0.64.13")
	// A machine that is busy takes longer for as many than what is usual.
	run(t, Config{Hold: time.Minute, OpeningTimeout: time.Hour}, Endpoint{"pg-test", def, view.NewBoard(viewOf(serviceOf(def, up(a)))), 0})
	const burst = 300
	var conns []*net.TCPConn
	for range burst {
		conns = append(conns, dialSilent(t, addressOf(def)))
	}
	for _, conn := range conns {
		_, err := conn.Write(startup)
		must(t, err)
	}
	for i, conn := range conns {
		if _, err := greeting(conn); err != nil {
			t.Fatalf("connection %d of %d: %v", i, burst, err)
		}
	}
}

// Silent clients of one source, more than it may have, go soon although there is room; who has said what it wants stays.
func TestAttackSilentSource(t *testing.T) {
	a := startBackend(t, "a", "127.0.42.1")
	def := definition(t, "one", "127.0.64.14")
	r := run(t, Config{Hold: time.Minute, OpeningTimeout: 10 * patience}, Endpoint{"pg-test", def, view.NewBoard(viewOf(serviceOf(def, up(a)))), 0})
	session, _ := reach(t, addressOf(def))
	for range 2 * silentOfSource {
		dialSilent(t, addressOf(def))
	}
	d := r.dispatchers[def.FullName]
	heard := func() int {
		d.unheard.mu.Lock()
		defer d.unheard.mu.Unlock()
		return len(d.unheard.clients)
	}
	eventually(t, "all are listened to", func() bool { return heard() == 2*silentOfSource })
	now := time.Now()
	limit := 30 * time.Minute
	if gone, stay := d.unheard.sweep(limit, now); gone != 0 || stay != 2*silentOfSource {
		t.Errorf("at first %d go and %d stay", gone, stay)
	}
	if gone, stay := d.unheard.sweep(limit, now.Add(limit/lessOfSource)); gone != silentOfSource || stay != silentOfSource {
		t.Errorf("after a while %d go and %d stay, want %d each", gone, stay, silentOfSource)
	}
	eventually(t, "those beyond the source's limit have gone", func() bool { return r.service(t, def.FullName).Clients == silentOfSource+1 })
	echoes(t, session)
}

// A client whose wait begins after it had to go, on a machine without a processor to spare, goes with the next look.
func TestAttackSilenceBeforeTheWait(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.64.14:0")
	must(t, err)
	defer l.Close()
	dialSilent(t, l.Addr().String())
	conn, err := l.Accept()
	must(t, err)
	defer conn.Close()
	var u unheard
	u.add(newClient(conn.(*net.TCPConn), 1))
	late := time.Now().Add(time.Hour)
	if gone, stay := u.sweep(time.Minute, late); gone != 1 || stay != 0 {
		t.Errorf("%d go and %d stay", gone, stay)
	}
	must(t, conn.SetReadDeadline(time.Now().Add(patience)))
	if gone, stay := u.sweep(time.Minute, late); gone != 0 || stay != 1 {
		t.Errorf("of one that was told %d go and %d stay", gone, stay)
	}
	began := time.Now()
	if _, err := conn.Read(make([]byte, 1)); !errors.Is(err, os.ErrDeadlineExceeded) || time.Since(began) > patience/2 {
		t.Errorf("it has waited for %s: %v", time.Since(began), err)
	}
}

// most notes the most that there ever was of something.
type most struct {
	mu       sync.Mutex
	now, max int
}

func (m *most) add(n int) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.now += n
	m.max = max(m.max, m.now)
}

func (m *most) peak() int {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.max
}

// Cancel requests to servers that don't close have few connections at a time, leave sessions alone, and are over soon.
func TestAttackCancels(t *testing.T) {
	const members, requests = 3, 460
	var open [members]most
	servers := []server{}
	for i := range members {
		servers = append(servers, up(startScript(t, string(rune('a'+i)), "127.0.42.1", func(conn net.Conn) {
			what, err := readPacket(conn)
			switch {
			case err == nil && what == startupMessage:
				_, _ = io.WriteString(conn, "a\n")
				_, _ = io.Copy(conn, conn)
			case err == nil:
				open[i].add(1)
				defer open[i].add(-1)
				_, _ = io.Copy(io.Discard, conn)
			}
		})))
	}
	def := definition(t, "one", "127.0.64.15")
	// One address is one connection, however often it is there.
	again := servers[0]
	again.backend = &backend{name: "again", Listener: servers[0].Listener}
	servers = append(servers, again)
	r := run(t, Config{Hold: time.Minute}, Endpoint{"pg-test", def, view.NewBoard(viewOf(serviceOf(def, servers...))), 0})
	session, _ := reach(t, addressOf(def))
	var conns []net.Conn
	for range requests {
		conn := dialSilent(t, addressOf(def))
		_, err := conn.Write(cancelled)
		must(t, err)
		conns = append(conns, conn)
	}
	for _, conn := range conns {
		over(t, conn)
	}
	eventually(t, "nobody is left", func() bool { return r.service(t, def.FullName).Clients == 1 })
	for i := range members {
		// A server sees the end of one after the beginning of the next.
		if n := open[i].peak(); n > 2*perSource || n == 0 {
			t.Errorf("%d connections at a time to a server, %d are wanted", n, perSource)
		}
	}
	echoes(t, session)
	if r.log.count("dropped a cancel request") == 0 {
		t.Error("the log says nothing of what was dropped")
	}
}

// A cancel request arrives though all slots are taken, by sessions and by clients that say nothing, and others wait for one.
func TestAttackCancelInACrowd(t *testing.T) {
	got := make(chan bool, 1)
	a := startScript(t, "a", "127.0.42.1", func(conn net.Conn) {
		switch what, err := readPacket(conn); {
		case err == nil && what == startupMessage:
			_, _ = io.WriteString(conn, "a\n")
			_, _ = io.Copy(conn, conn)
		case err == nil && what == cancelRequest:
			got <- true
		}
	})
	def := definition(t, "one", "127.0.64.16")
	def.MaxConn = 20
	r := run(t, Config{Hold: time.Minute}, Endpoint{"pg-test", def, view.NewBoard(viewOf(serviceOf(def, up(a)))), 0})
	for range 20 {
		reach(t, addressOf(def))
	}
	waiting := dial(t, addressOf(def))
	for range 30 {
		dialSilent(t, addressOf(def))
	}
	conn := dialSilent(t, addressOf(def))
	_, err := conn.Write(cancelled)
	must(t, err)
	select {
	case <-got:
	case <-time.After(soon):
		t.Error("the cancel request didn't arrive")
	}
	over(t, conn)
	if s := r.service(t, def.FullName); s.Sessions != 20 {
		t.Errorf("%d sessions, want 20", s.Sessions)
	}
	quiet(t, waiting)
}

// A source that sends cancel requests without end, to a server that doesn't close, doesn't keep another source's away.
func TestAttackCancelsOfOneSource(t *testing.T) {
	c := cancels{limit: 8}
	hostile := &net.TCPAddr{IP: net.IPv4(10, 0, 0, 1)}
	request := func(service, server string, from *net.TCPAddr) *passing {
		return &passing{service: service, server: server, source: from.AddrPort().Addr()}
	}
	// Nobody waits.
	over, cancel := context.WithCancel(t.Context())
	cancel()
	var begun []*passing
	for i := range 100 {
		p := request("one", string(rune('a'+i%10)), hostile)
		if err := c.take(over, p); err == nil {
			begun = append(begun, p)
		} else if !errors.Is(err, errCrowded) {
			t.Fatal(err)
		}
	}
	if len(begun) != 4 {
		t.Errorf("%d of one source are on their way, want half of 8", len(begun))
	}
	busy := cancels{limit: 100}
	for range 20 {
		_ = busy.take(over, request("one", "a", hostile))
	}
	if busy.taken != perSource {
		t.Errorf("%d of one source are on their way to one server, want %d", busy.taken, perSource)
	}
	genuine := request("one", "a", &net.TCPAddr{IP: net.IPv4(10, 0, 0, 2)})
	if err := c.take(over, genuine); err != nil {
		t.Errorf("another source's: %v", err)
	}
	for _, p := range append(begun, genuine) {
		c.leave(p)
	}
	if c.taken != 0 || len(c.by) != 0 || len(c.line) != 0 {
		t.Errorf("%d are counted still, %v, %d wait", c.taken, c.by, len(c.line))
	}
}

func TestSource(t *testing.T) {
	for from, want := range map[string]string{"10.0.0.1": "10.0.0.1", "127.0.0.2": "127.0.0.2", "2001:db8::1": "2001:db8::", "2001:db8:0:1::1": "2001:db8:0:1::",
		"fe80::1%eth0": "fe80::", "::1": "::1"} {
		c := client{from: netip.AddrPortFrom(netip.MustParseAddr(from), 1)}
		if got := c.source().String(); got != want {
			t.Errorf("%s counts as %s, want %s", from, got, want)
		}
	}
}

func TestOpeningTime(t *testing.T) {
	for _, test := range []struct {
		spare       float64
		whole, want time.Duration
	}{
		{1, time.Minute, time.Minute}, {0.5, time.Minute, time.Minute}, {0.3125, time.Minute, 31 * time.Second}, {0.125, time.Minute, leastPatience},
		{0, time.Minute, leastPatience}, {0, 100 * time.Millisecond, 100 * time.Millisecond},
	} {
		if got := openingTime(test.spare, test.whole); got != test.want {
			t.Errorf("with %v of the slots free and %v: %v, want %v", test.spare, test.whole, got, test.want)
		}
	}
}

// What a service has as its own no other one takes, and it is counted the same however that changes.
func TestOwnSlots(t *testing.T) {
	common := slots{limit: 4}
	one, other := slots{of: &common}, slots{of: &common}
	one.setOwn(2)
	other.setOwn(2)
	for n := range 6 {
		if !one.reserve() {
			t.Fatalf("no slot after %d", n)
		}
	}
	if one.reserve() {
		t.Fatal("it takes another service's")
	}
	if room, _ := other.room(); !room || !other.reserve() || !other.reserve() || other.reserve() {
		t.Fatal("the other service hasn't its own")
	}
	_, changed := other.room()
	other.free()
	select {
	case <-changed:
	default:
		t.Error("nobody is told of an own slot that is free again")
	}
	one.setOwn(0)
	other.setOwn(1)
	for range 6 {
		one.free()
	}
	other.free()
	if one.count() != 0 || other.count() != 0 || common.count() != 0 {
		t.Errorf("%d, %d and %d are counted though all have left", one.count(), other.count(), common.count())
	}
}
