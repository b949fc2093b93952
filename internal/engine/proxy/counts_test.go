package proxy

import (
	"errors"
	"io"
	"net"
	"sync"
	"testing"
	"time"

	"github.com/pgporter/pgporter/internal/config/model"
	"github.com/pgporter/pgporter/internal/engine"
	"github.com/pgporter/pgporter/internal/engine/relay"
	"github.com/pgporter/pgporter/internal/monitor/view"
)

func TestRates(t *testing.T) {
	at := func(seconds float64) time.Time {
		return clockBegan.Add(time.Duration(seconds * float64(time.Second)))
	}
	var r rate
	var a arrivals
	steps := []struct {
		at     float64
		events int
		// reads is what is read then, most the most of any second so far.
		reads, most int
	}{
		{10.0, 100, 100, 100},
		{10.5, 0, 100, 100},
		{11.25, 0, 75, 100},
		{11.5, 10, 60, 100},
		{12.5, 0, 5, 100},
		{13.0, 0, 0, 100},
		{20.9, 200, 200, 200},
		{21.0, 1, 201, 200},
		{99.0, 3, 3, 200},
	}
	for _, step := range steps {
		for range step.events {
			r.add(at(step.at))
			a.add(at(step.at))
		}
		if got := r.read(at(step.at)); got != step.reads || r.most != step.most {
			t.Errorf("at %v s a rate is %d, and at most %d; want %d and %d", step.at, got, r.most, step.reads, step.most)
		}
		if got := a.read(at(step.at)); got != step.reads || int(a.most.Load()) != step.most {
			t.Errorf("at %v s arrivals are %d, and at most %d; want %d and %d", step.at, got, a.most.Load(), step.reads, step.most)
		}
	}
}

func TestArrivalsAtOnce(t *testing.T) {
	var a arrivals
	var all sync.WaitGroup
	for range 8 {
		all.Go(func() {
			for range 1000 {
				a.add(clockBegan.Add(time.Minute))
			}
		})
	}
	all.Wait()
	if a.total.Load() != 8000 || a.most.Load() != 8000 || a.read(clockBegan.Add(time.Minute)) != 8000 {
		t.Errorf("%d in all, %d at most, %d now", a.total.Load(), a.most.Load(), a.read(clockBegan.Add(time.Minute)))
	}
}

func TestAverage(t *testing.T) {
	var a average
	a.add(10 * time.Millisecond)
	a.add(20 * time.Millisecond)
	if a.read() != 15*time.Millisecond {
		t.Errorf("of two: %v", a.read())
	}
	for range 20 * averageOf {
		a.add(time.Second)
	}
	if got := a.read(); got < 999*time.Millisecond || got > time.Second {
		t.Errorf("what is long ago still counts: %v", got)
	}
}

func TestWhySessionsEnd(t *testing.T) {
	broken := errors.New("client: read: connection reset by peer")
	for want, end := range map[endReason]relay.End{
		endClient: {}, endServer: {ServerFirst: true}, endError: {Cause: broken, ServerFirst: true}, endIdle: {Cause: broken, Aborted: true},
	} {
		if got := (&session{why: endIdle}).reason(end); got != want {
			t.Errorf("%+v is %s, want %s", end, got, want)
		}
	}
}

// countedUntil waits until the service's counters are as wanted.
func (r *rig) countedUntil(t *testing.T, d model.Definition, what string, holds func(engine.Traffic) bool) engine.Traffic {
	t.Helper()
	deadline := time.Now().Add(patience)
	got := r.service(t, d.FullName)
	for ; !holds(got); got = r.service(t, d.FullName) {
		time.Sleep(time.Millisecond)
		if time.Now().After(deadline) {
			t.Fatalf("never came: %s; counted %+v", what, got)
		}
	}
	return got
}

func TestCounters(t *testing.T) {
	a := startBackend(t, "a", "127.0.42.1")
	def := definition(t, "primary", "127.0.43.70")
	board := view.NewBoard(viewOf(serviceOf(def, up(a))))
	r := run(t, Config{Hold: patience}, Endpoint{"pg-test", def, board, 0})
	before := time.Now()

	one, _ := reach(t, addressOf(def))
	two, _ := reach(t, addressOf(def))
	echoes(t, one)
	got := r.countedUntil(t, def, "two sessions", func(s engine.Traffic) bool { return s.Sessions == 2 && s.ToClient == 4+2+2 })
	if got.Clients != 2 || got.ClientsMax != 2 || got.Limit != 1000 || got.Accepted != 2 || got.AcceptRateMax < 1 || got.SessionsMax != 2 || got.SessionRateMax < 1 ||
		got.Attempts != 2 || got.LastSession.Before(before) || got.ConnectSum <= 0 || got.QueueTime != 0 {
		t.Errorf("counted %+v", got)
	}
	made := uint64(0)
	for _, n := range got.Connecting {
		made += n
	}
	if made != 2 || got.Servers[0].Counts.Connecting != got.Connecting || got.Servers[0].SessionsMax != 2 || got.Servers[0].LastSession.IsZero() {
		t.Errorf("connections by how long they took: %v, the server's: %+v", got.Connecting, got.Servers[0])
	}

	// One ends in order, one in a reset.
	must(t, one.CloseWrite())
	over(t, one)
	must(t, two.SetLinger(0))
	must(t, two.Close())
	got = r.countedUntil(t, def, "both are over", func(s engine.Traffic) bool { return s.Clients == 0 })
	if got.Ended[engine.EndClient] != 1 || got.Ended[engine.EndError] != 1 || got.ClientAborts != 1 || got.ServerAborts != 0 || got.SessionTime <= 0 ||
		got.SessionsMax != 2 || got.ClientsMax != 2 {
		t.Errorf("counted %+v", got)
	}

	// A mark-down ends one, and the next client waits until the server is back.
	three, _ := reach(t, addressOf(def))
	down := up(a)
	down.down, down.epoch = true, 1
	board.Publish(viewOf(serviceOf(def, down)))
	over(t, three)
	endpoint := Endpoint{"pg-test", def, board, patience}
	r.commit(t, endpoint)
	waiting := dial(t, addressOf(def))
	got = r.countedUntil(t, def, "one waits", func(s engine.Traffic) bool { return s.Queued == 1 && s.Ended[engine.EndDown] == 1 })
	if got.Waiting.Before(before) || got.QueuedMax != 1 {
		t.Errorf("waiting since %v, %d at most", got.Waiting, got.QueuedMax)
	}
	back := up(a)
	back.epoch = 1
	board.Publish(viewOf(serviceOf(def, back)))
	_, err := greeting(waiting)
	must(t, err)
	got = r.countedUntil(t, def, "it has a session", func(s engine.Traffic) bool { return s.Sessions == 1 })
	if got.QueueTime <= 0 || !got.Waiting.IsZero() || got.Attempts != 4 || got.TotalSessions != 4 {
		t.Errorf("counted %+v", got)
	}
	if all := r.Process(); all.AcceptRateMax < 1 || all.SessionRateMax < 1 || all.Listeners != 1 || all.Limit < 1 {
		t.Errorf("of the process: %+v", all)
	}
}

func TestRetriesAreCounted(t *testing.T) {
	a, b := startBackend(t, "a", "127.0.42.1"), startBackend(t, "b", "127.0.42.2")
	def := definition(t, "replica", "127.0.43.71")
	must(t, a.Close())
	r := run(t, Config{}, Endpoint{"pg-test", def, view.NewBoard(viewOf(serviceOf(def, up(a), up(b)))), 0})
	if got := sequence(t, addressOf(def), 2); got != "b b" {
		t.Fatalf("reached %s", got)
	}
	got := r.service(t, def.FullName)
	if got.ConnectFailures == 0 || got.Retries != got.ConnectFailures || got.Redispatches != got.Retries || got.Servers[1].Redispatches != got.Redispatches ||
		got.Attempts != 2+got.ConnectFailures || got.TotalSessions != 2 {
		t.Errorf("counted %+v", got)
	}
}

func TestCancelsAreCounted(t *testing.T) {
	heard := make(chan bool, 8)
	script := func(conn net.Conn) {
		what, err := readPacket(conn)
		heard <- err == nil && what == cancelRequest
	}
	a, b := startScript(t, "a", "127.0.42.1", script), startScript(t, "b", "127.0.42.2", script)
	def := definition(t, "replica", "127.0.43.72")
	r := run(t, Config{}, Endpoint{"pg-test", def, view.NewBoard(viewOf(serviceOf(def, up(a), up(b)))), 0})
	conn := dialSilent(t, addressOf(def))
	_, err := conn.Write(cancelled)
	must(t, err)
	_, _ = io.Copy(io.Discard, conn)
	got := r.countedUntil(t, def, "the request", func(s engine.Traffic) bool { return s.CancelsSent == 2 })
	if got.Cancels != 1 || !<-heard || !<-heard {
		t.Errorf("counted %+v", got)
	}
}
