//go:build linux && !portable

package proxy

import (
	"context"
	"crypto/sha256"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"reflect"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/pgporter/pgporter/internal/config/model"
	"github.com/pgporter/pgporter/internal/engine"
	"github.com/pgporter/pgporter/internal/engine/handover"
	"github.com/pgporter/pgporter/internal/engine/relay"
	"github.com/pgporter/pgporter/internal/monitor/view"
)

// succeed has an engine in this process take over from r, as one in another process would, and stops r.
func succeed(t testing.TB, r *rig, cfg Config, known HealthStatus, endpoints ...Endpoint) *rig {
	t.Helper()
	next := inherit(t, r, cfg, endpoints...)
	frozen, err := r.Freeze()
	must(t, err)
	items, err := frozen.Items()
	must(t, err)
	items = passed(t, items)
	frozen.Release()
	if known == nil {
		known = next.HealthStatus()
	}
	_, _, err = next.TakeOver(items, known)
	must(t, err)
	next.begin(t)
	began := time.Now()
	r.stop()
	if took := time.Since(began); took > time.Second {
		t.Errorf("the old engine took %s to go", took)
	}
	return next
}

// inherit makes an engine with the sockets of another, up to where it would take over.
func inherit(t testing.TB, r *rig, cfg Config, endpoints ...Endpoint) *rig {
	t.Helper()
	var items []handover.Item
	var names []string
	for at, socket := range r.Sockets() {
		fd, err := handover.Duplicate(socket)
		must(t, err)
		defer relay.Discard(fd)
		items, names = append(items, handover.Item{Kind: "socket", Descriptors: []int{fd}}), append(names, at)
	}
	cfg.Inherited = map[string]*net.TCPListener{}
	for i, item := range passed(t, items) {
		l, err := handover.Listener(item.Descriptors[0])
		must(t, err)
		cfg.Inherited[names[i]] = l
	}
	return prepared(t, cfg, endpoints...)
}

// passed are items as they come out at the other end.
func passed(t testing.TB, items []handover.Item) []handover.Item {
	t.Helper()
	from, fd, err := handover.Pair()
	must(t, err)
	to, err := handover.Open(fd)
	must(t, err)
	defer to.Close()
	sent := make(chan error, 1)
	go func() {
		sent <- from.Send(items...)
		from.Close()
	}()
	var got []handover.Item
	for {
		some, err := to.Receive()
		if err == io.EOF {
			break
		}
		must(t, err)
		got = append(got, some...)
	}
	must(t, <-sent)
	return got
}

// TestSuccessorTakesEverything hands over idle sessions, queued clients and one whose encryption request was declined, and looks
// at the counters before and after.
func TestSuccessorTakesEverything(t *testing.T) {
	a := startBackend(t, "a", "127.0.42.1")
	def := definition(t, "primary", "127.0.43.50")
	with := viewOf(serviceOf(def, up(a)))
	board := view.NewBoard(with)
	endpoint := Endpoint{"pg-test", def, board, lately}
	r := run(t, longHold, endpoint)
	var open []net.Conn
	for range 3 {
		conn, _ := reach(t, addressOf(def))
		echoes(t, conn)
		open = append(open, conn)
	}
	sequence(t, addressOf(def), 2)
	eventually(t, "two sessions are over", func() bool { return r.service(t, def.FullName).Sessions == 3 })
	before := r.service(t, def.FullName)

	files := openFiles(t)
	next := succeed(t, r, longHold, nil, endpoint)
	eventually(t, "no descriptor is left over", func() bool { return openFiles(t) <= files })
	after := next.service(t, def.FullName)
	if after.TotalSessions != 5 || after.Sessions != 3 || after.Clients != 3 || after.Accepted != 5 || after.AcceptRateMax == 0 || after.Ended[engine.EndClient] != 2 {
		t.Errorf("after %+v", after)
	}
	// But for the rates all goes on, to the last counter.
	for _, of := range []*engine.Traffic{&before, &after} {
		of.AcceptRate, of.SessionRate, of.LastSession = 0, 0, of.LastSession.Round(0).UTC()
		of.Servers[0].SessionRate, of.Servers[0].LastSession = 0, of.Servers[0].LastSession.Round(0).UTC()
	}
	if !reflect.DeepEqual(before, after) {
		t.Errorf("before %+v\nafter %+v", before, after)
	}
	for _, conn := range open {
		echoes(t, conn)
	}
	open[0].Close()
	eventually(t, "a session that was taken over ends like any other", func() bool { return next.service(t, def.FullName).Sessions == 2 })

	// Nobody is up now: who comes waits, and goes on waiting under the next.
	down := up(a)
	down.down = true
	board.Publish(viewOf(serviceOf(def, down)))
	waiting := dial(t, addressOf(def))
	holding(t, next, def, 1)
	silent := dialSilent(t, addressOf(def))
	last := succeed(t, next, longHold, nil, endpoint)
	holding(t, last, def, 1)
	quiet(t, waiting)
	board.Publish(with)
	if name, err := greeting(waiting); name != "a" || err != nil {
		t.Errorf("the client that waited came to %q, %v", name, err)
	}
	_, err := silent.Write(startup)
	must(t, err)
	if name, err := greeting(silent); name != "a" || err != nil {
		t.Errorf("the client that had said nothing came to %q, %v", name, err)
	}
	for _, conn := range open[1:] {
		echoes(t, conn)
	}
}

// TestStreamThroughSuccessors sends bytes both ways while one engine after the other takes over.
func TestStreamThroughSuccessors(t *testing.T) {
	enough := make(chan struct{})
	far := make(chan [2]flood, 1)
	a := startScript(t, "a", "127.0.42.1", func(conn net.Conn) {
		if _, err := readPacket(conn); err != nil {
			t.Errorf("startup: %v", err)
		}
		_, _ = conn.Write([]byte("a\n"))
		far <- flow(t, conn.(*net.TCPConn), 1, enough)
	})
	def := definition(t, "primary", "127.0.43.51")
	endpoint := Endpoint{"pg-test", def, view.NewBoard(viewOf(serviceOf(def, up(a)))), 0}
	r := run(t, Config{}, endpoint)
	conn, _ := reach(t, addressOf(def))
	affinity := make(chan [2]flood, 1)
	go func() { affinity <- flow(t, conn, 2, enough) }()
	moved := func(r *rig) int64 {
		s := r.service(t, def.FullName)
		return min(s.ToServer, s.ToClient)
	}
	for range 10 {
		at := moved(r)
		eventually(t, "bytes move", func() bool { return moved(r) > at+100_000 })
		r = succeed(t, r, Config{}, nil, endpoint)
	}
	close(enough)
	ours, theirs := <-affinity, <-far
	if ours[0] != theirs[1] || ours[1] != theirs[0] {
		t.Errorf("sent and got %v here, %v there", ours, theirs)
	}
	_ = conn.Close()
	eventually(t, "the session is over", func() bool { return r.service(t, def.FullName).Sessions == 0 })
	if s := r.service(t, def.FullName); s.ToServer != ours[0].bytes+sayHello || s.ToClient != ours[1].bytes+2 {
		t.Errorf("counted %d and %d bytes", s.ToServer, s.ToClient)
	}
}

// flood is what went one way: how many bytes, and their checksum.
type flood struct {
	bytes int64
	sum   [sha256.Size]byte
}

// flow writes bytes that no two places of the stream share until it is enough, and reads to the end meanwhile.
func flow(t testing.TB, conn *net.TCPConn, seed byte, enough <-chan struct{}) (sentAndGot [2]flood) {
	var both sync.WaitGroup
	both.Go(func() {
		sum, random := sha256.New(), rand.NewChaCha8([32]byte{seed})
		to := io.MultiWriter(sum, conn)
		for sent := int64(0); ; {
			n, err := io.CopyN(to, random, 50_000)
			sent += n
			if err != nil {
				t.Errorf("wrote %d bytes: %v", sent, err)
				return
			}
			select {
			case <-enough:
				_ = conn.CloseWrite()
				sentAndGot[0] = flood{sent, [sha256.Size]byte(sum.Sum(nil))}
				return
			default:
			}
		}
	})
	both.Go(func() {
		sum := sha256.New()
		n, err := io.Copy(sum, conn)
		if err != nil {
			t.Errorf("read %d bytes: %v", n, err)
		}
		sentAndGot[1] = flood{n, [sha256.Size]byte(sum.Sum(nil))}
	})
	both.Wait()
	return sentAndGot
}

// comeAndGo has clients come to backends a and b without a pause until stop, which waits for them. count gives how many have been
// served.
func comeAndGo(t testing.TB, address string) (count func() int, stop func()) {
	ctx, cancel := context.WithCancel(t.Context())
	var clients sync.WaitGroup
	var served atomic.Int64
	for range 8 {
		clients.Go(func() {
			for ctx.Err() == nil {
				conn, err := net.DialTimeout("tcp", address, patience)
				if err != nil {
					t.Errorf("dial: %v", err)
					return
				}
				_ = conn.SetDeadline(time.Now().Add(patience))
				_, err = conn.Write(startup)
				name := ""
				if err == nil {
					name, err = greeting(conn)
				}
				if err != nil || name != "a" && name != "b" {
					t.Errorf("came to %q: %v", name, err)
				}
				_ = conn.Close()
				served.Add(1)
			}
		})
	}
	return func() int { return int(served.Load()) }, func() {
		cancel()
		clients.Wait()
	}
}

// TestClientsComeThroughSuccessors has clients come without a pause while engines take over from each other: none is refused,
// reset or connected with a wrong server.
func TestClientsComeThroughSuccessors(t *testing.T) {
	a, b := startBackend(t, "a", "127.0.42.1"), startBackend(t, "b", "127.0.42.2")
	def := definition(t, "primary", "127.0.43.52")
	endpoint := Endpoint{"pg-test", def, view.NewBoard(viewOf(serviceOf(def, up(a), up(b)))), lately}
	r := run(t, longHold, endpoint)
	count, stop := comeAndGo(t, addressOf(def))
	for range 12 {
		at := count()
		eventually(t, "clients are served", func() bool { return t.Failed() || count() > at+20 })
		r = succeed(t, r, longHold, nil, endpoint)
	}
	stop()
	eventually(t, "every session is over", func() bool { s := r.service(t, def.FullName); return s.Clients == 0 && s.Sessions == 0 })
	if s := r.service(t, def.FullName); s.Refused != 0 {
		t.Errorf("%d were refused", s.Refused)
	}
}

// TestThaw has a handing over fail: everything goes on.
func TestThaw(t *testing.T) {
	a := startBackend(t, "a", "127.0.42.1")
	def := definition(t, "primary", "127.0.43.53")
	r, board, with, without := leaderless(t, longHold, def, a)
	board.Publish(with)
	open, _ := reach(t, addressOf(def))
	board.Publish(without)
	waiting := dial(t, addressOf(def))
	holding(t, r, def, 1)
	before, files := r.service(t, def.FullName), openFiles(t)
	for range 3 {
		frozen, err := r.Freeze()
		must(t, err)
		if _, err := io.WriteString(open, "ping"); err != nil {
			t.Fatal(err)
		}
		if items, err := frozen.Items(); err != nil || len(items) != 3 {
			t.Fatalf("%d items, %v", len(items), err)
		}
		newcomer := dial(t, addressOf(def))
		frozen.Thaw()
		got := make([]byte, 4)
		if _, err := io.ReadFull(open, got); err != nil || string(got) != "ping" {
			t.Fatalf("the session answers %q, %v", got, err)
		}
		holding(t, r, def, 2)
		_ = newcomer.Close()
		eventually(t, "who has left is gone", func() bool { return r.service(t, def.FullName).Clients == 2 })
	}
	after := r.service(t, def.FullName)
	if after.Sessions != 1 || after.TotalSessions != before.TotalSessions || after.ToClient != before.ToClient+12 || openFiles(t) > files {
		t.Errorf("before %+v with %d files\nafter %+v with %d", before, files, after, openFiles(t))
	}
	// A server that went while everything stood still loses its sessions then.
	frozen, err := r.Freeze()
	must(t, err)
	risen := up(a)
	risen.epoch = 1
	board.Publish(viewOf(serviceOf(def, risen)))
	frozen.Thaw()
	over(t, open)
	if name, err := greeting(waiting); name != "a" || err != nil {
		t.Errorf("the client that waited came to %q, %v", name, err)
	}
}

// impatient has a Freeze wait for clients for next to no time.
func impatient(t testing.TB) {
	usual := freezeTimeout
	freezeTimeout = 20 * time.Millisecond
	t.Cleanup(func() { freezeTimeout = usual })
}

// TestFreezeThatFails has one client on its way that doesn't stop: sessions and other clients go on, that one is served in the end,
// and so is whoever hands over then.
func TestFreezeThatFails(t *testing.T) {
	impatient(t)
	var silent atomic.Bool
	script := func(name string) func(net.Conn) {
		return func(conn net.Conn) {
			if !silent.CompareAndSwap(true, false) {
				echo(conn, name)
			}
		}
	}
	a, b := startScript(t, "a", "127.0.42.1", script("a")), startScript(t, "b", "127.0.42.2", script("b"))
	def := definition(t, "primary", "127.0.43.57")
	board := view.NewBoard(viewOf(serviceOf(def, up(a), up(b))))
	endpoint := Endpoint{"pg-test", def, board, lately}
	// A client whose server has failed it is stopped by whoever is told of that.
	told, goOn := make(chan struct{}, 1), make(chan struct{})
	cfg := longHold
	cfg.Recheck = func(string, string) {
		select {
		case told <- struct{}{}:
			<-goOn
		default:
		}
	}
	r := run(t, cfg, endpoint)
	release := sync.OnceFunc(func() { close(goOn) })
	t.Cleanup(release)
	sessions := map[string]net.Conn{}
	for len(sessions) < 2 {
		conn, name := reach(t, addressOf(def))
		sessions[name] = conn
	}
	silent.Store(true)
	late := dial(t, addressOf(def))
	eventually(t, "a client is stopped", func() bool { return len(told) == 1 })
	before, goroutines, files := r.service(t, def.FullName), runtime.NumGoroutine(), openFiles(t)

	const rounds = 5
	for range rounds {
		if _, err := r.Freeze(); err == nil || !strings.Contains(err.Error(), "clients didn't stop") {
			t.Fatalf("a client doesn't stop, and the error is %v", err)
		}
		for _, conn := range sessions {
			echoes(t, conn)
		}
		sequence(t, addressOf(def), 1)
	}
	eventually(t, "nothing is left of it", func() bool { return runtime.NumGoroutine() <= goroutines && openFiles(t) <= files })
	after := r.service(t, def.FullName)
	if after.Sessions != 2 || after.TotalSessions != before.TotalSessions+rounds || after.Refused != 0 {
		t.Errorf("before %+v\nafter %+v", before, after)
	}
	if want := before.ToClient + rounds*2*4 + rounds*2; after.ToClient != want {
		t.Errorf("counted %d bytes to clients, want %d", after.ToClient, want)
	}
	risen := up(b)
	risen.epoch = 1
	board.Publish(viewOf(serviceOf(def, up(a), risen)))
	over(t, sessions["b"])

	release()
	if name, err := greeting(late); err != nil || name != "a" && name != "b" {
		t.Errorf("the late client came to %q, %v", name, err)
	}
	eventually(t, "the late client is one of the service", func() bool {
		s := r.service(t, def.FullName)
		return s.Sessions == 2 && s.Clients == 2 && s.Refused == 0
	})
	r = succeed(t, r, longHold, nil, endpoint)
	echoes(t, sessions["a"])
	echoes(t, late)
	if s := r.service(t, def.FullName); s.Sessions != 2 || s.Clients != 2 {
		t.Errorf("handed over: %+v", s)
	}
}

// TestClientsComeThroughFreezesThatFail has clients come without a pause meanwhile: none is refused, reset or connected with a wrong server.
func TestClientsComeThroughFreezesThatFail(t *testing.T) {
	impatient(t)
	a, b := startBackend(t, "a", "127.0.42.1"), startBackend(t, "b", "127.0.42.2")
	def := definition(t, "primary", "127.0.43.58")
	endpoint := Endpoint{"pg-test", def, view.NewBoard(viewOf(serviceOf(def, up(a), up(b)))), lately}
	r := run(t, longHold, endpoint)
	count, stop := comeAndGo(t, addressOf(def))
	for range 30 {
		at := count()
		eventually(t, "clients are served", func() bool { return t.Failed() || count() > at+20 })
		// Stands for a client whose goroutine the machine doesn't run.
		r.dispatching.add(1)
		if _, err := r.Freeze(); err == nil {
			t.Fatal("not every client has stopped, and everything is frozen")
		}
		r.dispatching.add(-1)
	}
	r = succeed(t, r, longHold, nil, endpoint)
	stop()
	eventually(t, "every session is over", func() bool { s := r.service(t, def.FullName); return s.Clients == 0 && s.Sessions == 0 })
	if s := r.service(t, def.FullName); s.Refused != 0 || int(s.TotalSessions) != count() {
		t.Errorf("%d were refused, and %d sessions counted, want %d", s.Refused, s.TotalSessions, count())
	}
}

// TestSocketsThatAnotherProcessHas end sessions whose sockets another process has, too: after a handing over that failed, and after
// one whose other side hasn't closed its own yet. No epoll may be left with a socket that is closed here: the kernel would tell of
// it for as long as the other process has it, and keep a processor busy.
func TestSocketsThatAnotherProcessHas(t *testing.T) {
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(4))
	a := startBackend(t, "a", "127.0.42.1")
	def := definition(t, "primary", "127.0.43.59")
	r, board, with, without := leaderless(t, longHold, def, a)
	endpoint := Endpoint{"pg-test", def, board, lately}
	const clients = 4
	// come gives sessions, and clients that wait for a server.
	come := func() (open, waiting []*net.TCPConn) {
		board.Publish(with)
		for range clients {
			conn, _ := reach(t, addressOf(def))
			open = append(open, conn)
		}
		board.Publish(without)
		for range clients {
			waiting = append(waiting, dial(t, addressOf(def)))
		}
		holding(t, r, def, clients)
		return open, waiting
	}
	end := func(open, waiting []*net.TCPConn) {
		board.Publish(with)
		for _, conn := range waiting {
			if name, err := greeting(conn); name != "a" || err != nil {
				t.Fatalf("a client that waited came to %q, %v", name, err)
			}
		}
		for _, conn := range append(open, waiting...) {
			echoes(t, conn)
			must(t, conn.CloseWrite())
			over(t, conn)
		}
		eventually(t, "the sessions are over", func() bool { return r.service(t, def.FullName).Clients == 0 })
		eventually(t, "no epoll waits for a socket that is closed", func() bool { return closedAndWaitedFor(t) == 0 })
	}
	open, waiting := come()
	frozen, err := r.Freeze()
	must(t, err)
	items, err := frozen.Items()
	must(t, err)
	theirs := passed(t, items)
	frozen.Thaw()
	end(open, waiting)
	handover.Close(theirs)

	open, waiting = come()
	next := inherit(t, r, longHold, endpoint)
	frozen, err = r.Freeze()
	must(t, err)
	items, err = frozen.Items()
	must(t, err)
	theirs = passed(t, items)
	_, _, err = next.TakeOver(passed(t, items), next.HealthStatus())
	must(t, err)
	frozen.Release()
	r.stop()
	r = next
	r.begin(t)
	end(open, waiting)
	handover.Close(theirs)
}

// closedAndWaitedFor counts what this process's epolls wait for that isn't open any more under the descriptor as which it was
// registered (proc(5), fdinfo).
func closedAndWaitedFor(t testing.TB) (n int) {
	t.Helper()
	entries, err := os.ReadDir("/proc/self/fd")
	must(t, err)
	for _, entry := range entries {
		if to, err := os.Readlink("/proc/self/fd/" + entry.Name()); err != nil || to != "anon_inode:[eventpoll]" {
			continue
		}
		text, err := os.ReadFile("/proc/self/fdinfo/" + entry.Name())
		if err != nil {
			continue
		}
		for line := range strings.Lines(string(text)) {
			var fd int
			var events, data, inode uint64
			var at int64
			if _, err := fmt.Sscanf(line, "tfd: %d events: %x data: %x pos:%d ino:%x", &fd, &events, &data, &at, &inode); err != nil {
				continue
			}
			var open unix.Stat_t
			if unix.Fstat(fd, &open) != nil || open.Ino != inode {
				n++
			}
		}
	}
	return n
}

// TestSuccessorKnowsBetter hands over sessions of a server that the successor has lost since it said that it was up, of one
// that isn't configured any more, and of a service that isn't.
func TestSuccessorKnowsBetter(t *testing.T) {
	a, b, c := startBackend(t, "a", "127.0.42.1"), startBackend(t, "b", "127.0.42.2"), startBackend(t, "c", "127.0.42.3")
	lost, gone, kept, dropped := definition(t, "lost", "127.0.43.54"), definition(t, "gone", "127.0.43.54"), definition(t, "kept", "127.0.43.54"), definition(t, "dropped", "127.0.43.54")
	kept.Options.ShutdownSessions = false
	board := view.NewBoard(viewOf(serviceOf(lost, up(a)), serviceOf(gone, up(b)), serviceOf(kept, up(b)), serviceOf(dropped, up(a))))
	endpoints := func(board *view.Board, definitions ...model.Definition) []Endpoint {
		var all []Endpoint
		for _, d := range definitions {
			all = append(all, Endpoint{"pg-test", d, board, 0})
		}
		return all
	}
	r := run(t, Config{}, endpoints(board, lost, gone, kept, dropped)...)
	conns := map[string]net.Conn{}
	for _, d := range []model.Definition{lost, gone, kept, dropped} {
		conns[d.Name], _ = reach(t, addressOf(d))
	}
	since := up(a)
	since.down, since.epoch, since.reason = true, 8, "503 replica running"
	theirs := view.NewBoard(viewOf(serviceOf(lost, since), serviceOf(gone, up(c)), serviceOf(kept, up(c))))
	known := HealthStatus{lost.FullName: {"a": {Up: true, Epoch: 7}}, gone.FullName: {"c": {Up: true}}, kept.FullName: {"c": {Up: true}}}
	if why := r.Unsettled(known); why != "" {
		t.Errorf("unsettled: %s", why)
	}
	succeed(t, r, Config{}, known, endpoints(theirs, lost, gone, kept)...)
	over(t, conns["lost"])
	over(t, conns["gone"])
	over(t, conns["dropped"])
	echoes(t, conns["kept"])
}

func TestUnsettled(t *testing.T) {
	a, b := startBackend(t, "a", "127.0.42.1"), startBackend(t, "b", "127.0.42.2")
	def := definition(t, "primary", "127.0.43.55")
	paused := up(b)
	board := view.NewBoard(viewOf(serviceOf(def, up(b))))
	r := run(t, Config{}, Endpoint{"pg-test", def, board, 0})
	_, _ = reach(t, addressOf(def))
	paused.down, paused.reason = true, "silent: timed out"
	board.Publish(viewOf(serviceOf(def, up(a), paused)))
	up, down := ServerHealth{Up: true}, ServerHealth{}
	for _, test := range []struct {
		name   string
		theirs HealthStatus
		want   string
	}{
		{"alike", HealthStatus{def.FullName: {"a": up, "b": up}}, ""},
		{"not known yet", HealthStatus{def.FullName: nil}, "service pg-test-primary isn't known yet"},
		{"not offered", HealthStatus{}, ""},
		{"up here only", HealthStatus{def.FullName: {"a": down, "b": up}}, "server a of service pg-test-primary is up, and not so for the new process yet"},
		{"with sessions, and down", HealthStatus{def.FullName: {"a": up, "b": down}}, "server b of service pg-test-primary has sessions and isn't up: silent: timed out"},
		{"not its server any more", HealthStatus{def.FullName: {"a": up}}, ""},
	} {
		if got := r.Unsettled(test.theirs); got != test.want {
			t.Errorf("%s: %q, want %q", test.name, got, test.want)
		}
	}
	def.Options.ShutdownSessions = false
	board.Publish(viewOf(serviceOf(def, paused)))
	if why := r.Unsettled(HealthStatus{def.FullName: {"b": down}}); why != "" {
		t.Errorf("sessions that stay anyway: %q", why)
	}
}

// TestSuccessorListensElsewhere has the old engine listen on an address of its own beside the one for every address.
func TestSuccessorListensElsewhere(t *testing.T) {
	a := startBackend(t, "a", "127.0.42.1")
	def := definition(t, "primary", "127.0.43.56")
	board := view.NewBoard(viewOf(serviceOf(def, up(a))))
	r := run(t, Config{}, Endpoint{"pg-test", def, board, 0})
	at := addressOf(def)
	def.IP = "*"
	r.commit(t, Endpoint{"pg-test", def, board, 0})
	places := func(r *rig) []string {
		var all []string
		for at := range r.Sockets() {
			all = append(all, at)
		}
		slices.Sort(all)
		return all
	}
	before := places(r)
	if len(before) != 2 {
		t.Fatalf("listens on %v", before)
	}
	r = succeed(t, r, Config{}, nil, Endpoint{"pg-test", def, board, 0})
	if after := places(r); !slices.Equal(before, after) {
		t.Errorf("listens on %v, before on %v", after, before)
	}
	conn, _ := reach(t, at)
	echoes(t, conn)
}

func TestTakeOverRefusesNonsense(t *testing.T) {
	e := New(Config{})
	for _, item := range []handover.Item{
		{Kind: "soup"}, {Kind: sessionItem, Body: []byte(`{}`)}, {Kind: clientItem, Body: []byte(`{}`)}, {Kind: serviceItem, Body: []byte(`7`)},
	} {
		if _, _, err := e.TakeOver([]handover.Item{item}, nil); err == nil {
			t.Errorf("%s is taken", item.Kind)
		}
	}
	ctx, stop := context.WithCancel(t.Context())
	stop()
	must(t, e.Run(ctx))
	if _, err := e.Freeze(); err == nil {
		t.Error("an engine that has stopped can be frozen")
	}
	if _, _, err := e.TakeOver(nil, nil); err == nil {
		t.Error("an engine that has run takes over")
	}
}

// TestLobbyIsHandedOver: who waits in the lobby is handed over, and served where it comes to.
func TestLobbyIsHandedOver(t *testing.T) {
	a := startBackend(t, "a", "127.0.42.1")
	def := definition(t, "one", "127.0.64.17")
	def.MaxConn = 1
	r := run(t, Config{Hold: time.Minute}, Endpoint{"pg-test", def, view.NewBoard(viewOf(serviceOf(def, up(a)))), 0})
	session, _ := reach(t, addressOf(def))
	waiting := dial(t, addressOf(def))
	d := func() *dispatcher {
		r.mu.Lock()
		defer r.mu.Unlock()
		return r.dispatchers[def.FullName]
	}
	eventually(t, "a client waits in the lobby", func() bool { return d().lobby.waiting.Load() == 1 })
	before := d()
	frozen, err := r.Freeze()
	must(t, err)
	// The service, its session and the client.
	if items, err := frozen.Items(); err != nil || len(items) != 3 {
		t.Errorf("%d items, %v", len(items), err)
	}
	frozen.Thaw()
	if before.lobby.count() != 0 || before.lobby.waiting.Load() != 0 {
		t.Error("the lobby still has somebody")
	}
	echoes(t, session)
	must(t, session.Close())
	if _, err := greeting(waiting); err != nil {
		t.Errorf("who waited: %v", err)
	}
	must(t, waiting.Close())
	eventually(t, "nobody is left", func() bool { return d().slots.count() == 0 && r.lobby.count() == 0 })
}

func TestSessionLogGoesOnAfterAHandOver(t *testing.T) {
	a := startBackend(t, "a", "127.0.42.1")
	def := definition(t, "primary", "127.0.43.86")
	endpoint := Endpoint{"pg-test", def, view.NewBoard(viewOf(serviceOf(def, up(a)))), 0}
	before, after := &told{}, &told{}
	r := run(t, Config{SessionLog: before}, endpoint)
	conn, _ := reach(t, addressOf(def))
	succeed(t, r, Config{SessionLog: after}, nil, endpoint)
	echoes(t, conn)
	must(t, conn.CloseWrite())
	over(t, conn)
	later, _ := reach(t, addressOf(def))
	echoes(t, later)
	eventually(t, "the end is told by the next process, under the same number", func() bool { return len(after.all()) == 2 })
	got := append(before.all(), after.all()...)
	want := []string{"start 1 pg-test-primary a", fmt.Sprintf("end 1 client <nil>, %d and 6 bytes", sayHello+4), "start 2 pg-test-primary a"}
	if fmt.Sprint(got) != fmt.Sprint(want) {
		t.Errorf("told %q, want %q", got, want)
	}
}
