package proxy

import (
	"sync"
	"testing"
	"time"

	"github.com/pgporter/pgporter/internal/monitor/view"
)

// A server that failed is tried by nobody for a moment, and then by one client at a time, until it takes one.
func TestBackoff(t *testing.T) {
	b := backoff{servers: map[string]*failing{}}
	first, second := &session{member: "a"}, &session{member: "a"}
	soon, later := time.Now(), time.Now().Add(time.Minute)
	avoided := func(when string, now time.Time, want bool) {
		t.Helper()
		if b.avoid(now)["a"] != want {
			t.Errorf("%s: avoided is %v", when, !want)
		}
	}
	avoided("before it failed", soon, false)
	b.trying(first)
	b.yield(first)
	b.reset("a")
	b.fail(first)
	avoided("when it has just failed", soon, true)
	avoided("after the pause", later, false)
	b.trying(first)
	avoided("while one tries", later, true)
	b.yield(second)
	avoided("while one tries, when another one ends", later, true)
	b.yield(first)
	avoided("when the one has something else to do", later, false)
	b.trying(second)
	b.fail(second)
	avoided("when it has failed again", soon, true)
	b.retryNow([]string{"a"})
	avoided("after a change", soon, false)
	b.fail(first)
	b.reset("a")
	b.reset("a")
	avoided("when it has taken one", soon, false)
	b.fail(first)
	b.retryNow(nil)
	avoided("when it is another's name", soon, false)
	if n := b.count.Load(); n != 0 {
		t.Errorf("%d servers are counted for ever", n)
	}
}

// However many clients ask at once, one tries a server that failed.
func TestOneTriesAServerThatFailed(t *testing.T) {
	a := startBackend(t, "a", "127.0.42.1")
	def := definition(t, "primary", "127.0.46.13")
	d := lone(New(longHold), Endpoint{"pg-test", def, view.NewBoard(viewOf(serviceOf(def, up(a)))), lately})
	s, _ := d.sessions.register(&client{}, nil)
	for range 200 {
		d.release(s, errClosedEarly)
		if over, _ := d.sessions.register(&client{}, nil); over != nil {
			t.Fatal("it is tried at once")
		}
		d.backoff.retryNow([]string{"a"})
		tries := make([]*session, 8)
		var asking sync.WaitGroup
		for i := range tries {
			asking.Go(func() { tries[i], _ = d.sessions.register(&client{}, nil) })
		}
		asking.Wait()
		s = nil
		for _, try := range tries {
			if try != nil && s != nil {
				t.Fatal("two try it")
			}
			if try != nil {
				s = try
			}
		}
		if s == nil {
			t.Fatal("nobody tries it")
		}
	}
}
