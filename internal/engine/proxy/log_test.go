package proxy

import (
	"log/slog"
	"net"
	"runtime"
	"strings"
	"sync"
	"testing"

	"github.com/pgporter/pgporter/internal/config/model"
	"github.com/pgporter/pgporter/internal/monitor/view"
)

// gate is a log whose reader stops at the first line that holds a text, until it is let go on.
type gate struct {
	stop         string
	reached, let chan struct{}
	once         sync.Once
	logBook
}

func (g *gate) Write(p []byte) (int, error) {
	if strings.Contains(string(p), g.stop) {
		g.once.Do(func() {
			close(g.reached)
			<-g.let
		})
	}
	return g.logBook.Write(p)
}

// behind runs an engine whose log stops at a line until let is called, or the test ends. logged waits for that line.
func behind(t *testing.T, stop string, cfg Config, endpoints ...Endpoint) (r *rig, logged, let func()) {
	t.Helper()
	g := &gate{stop: stop, reached: make(chan struct{}), let: make(chan struct{})}
	let = sync.OnceFunc(func() { close(g.let) })
	cfg.Logger = slog.New(slog.NewTextHandler(g, nil))
	r = &rig{Engine: New(cfg), log: &g.logBook}
	r.begin(t)
	t.Cleanup(let)
	r.commit(t, endpoints...)
	return r, func() { <-g.reached }, let
}

// TestNoLineOfTheLogHoldsALock has the log stand still at the line that a session was ended. Whoever waits for the View that ended it
// is let in all the same, and new clients, other sessions, their ends and the status don't come to a stop.
func TestNoLineOfTheLogHoldsALock(t *testing.T) {
	a, b := startBackend(t, "a", "127.0.42.1"), startBackend(t, "b", "127.0.42.2")
	one, two := definition(t, "one", "127.0.43.97"), definition(t, "two", "127.0.43.98")
	board := view.NewBoard(viewOf(serviceOf(one, up(a))))
	r, logged, _ := behind(t, "ended 1 session on a", longHold, Endpoint{"pg-one", one, board, lately},
		Endpoint{"pg-two", two, view.NewBoard(viewOf(serviceOf(two, up(a)))), lately})
	ends, _ := reach(t, addressOf(one))
	// As many as the relay has loops, and more: one that stood still would take some along.
	others := make([]*net.TCPConn, 2*runtime.GOMAXPROCS(0)+2)
	for i := range others {
		others[i], _ = reach(t, addressOf(two))
	}
	full := up(a)
	full.down = true
	board.Publish(viewOf(serviceOf(one, full)))
	waits := dial(t, addressOf(one))
	holding(t, r, one, 1)

	full.epoch++
	board.Publish(viewOf(serviceOf(one, full, up(b))))
	logged()
	over(t, ends)
	if name, err := greeting(waits); name != "b" || err != nil {
		t.Errorf("who waited was led to %q, %v", name, err)
	}
	if _, name := reach(t, addressOf(one)); name != "b" {
		t.Errorf("a new client was led to %q", name)
	}
	for _, conn := range others {
		echoes(t, conn)
		_ = conn.Close()
	}
	eventually(t, "the other service's sessions have ended", func() bool { return r.service(t, two.FullName).Sessions == 0 })
	eventually(t, "the two sessions on b are left", func() bool { return r.service(t, one.FullName).Sessions == 2 })
}

// TestPublishLogsWithoutTheEnginesLock has the log stand still at the line that a listener was closed: services that are there, the
// new one too, take clients, and the status is told.
func TestPublishLogsWithoutTheEnginesLock(t *testing.T) {
	a := startBackend(t, "a", "127.0.42.1")
	goes, stays, comes := definition(t, "goes", "127.0.43.97"), definition(t, "stays", "127.0.43.98"), definition(t, "comes", "127.0.43.99")
	on := func(d model.Definition) Endpoint {
		return Endpoint{"pg-test", d, view.NewBoard(viewOf(serviceOf(d, up(a)))), lately}
	}
	keep := on(stays)
	r, logged, let := behind(t, "stopped listening", longHold, keep, on(goes))
	change, err := r.Prepare([]Endpoint{keep, on(comes)})
	must(t, err)
	change.Commit()
	var publishing sync.WaitGroup
	publishing.Go(change.Publish)
	logged()
	for _, d := range []string{addressOf(stays), addressOf(comes)} {
		conn, _ := reach(t, d)
		echoes(t, conn)
	}
	if got := r.service(t, comes.FullName).Sessions; got != 1 {
		t.Errorf("%d sessions of the new service", got)
	}
	let()
	publishing.Wait()
}
