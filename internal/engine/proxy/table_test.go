package proxy

import (
	"net/netip"
	"testing"
	"time"

	"github.com/pgporter/pgporter/internal/engine"
	"github.com/pgporter/pgporter/internal/engine/relay"
	"github.com/pgporter/pgporter/internal/monitor/view"
)

func TestSessionsAreListedAndEnded(t *testing.T) {
	a, b := startBackend(t, "a", "127.0.42.1"), startBackend(t, "b", "127.0.42.2")
	first, second := definition(t, "replica", "127.0.43.75"), definition(t, "primary", "127.0.43.76")
	board := view.NewBoard(viewOf(serviceOf(first, up(a), up(b)), serviceOf(second, up(a))))
	r := run(t, Config{}, Endpoint{"pg-test", first, board, 0}, Endpoint{"pg-test", second, board, 0})
	one, atOne := reach(t, addressOf(first))
	two, _ := reach(t, addressOf(first))
	three, _ := reach(t, addressOf(second))
	echoes(t, three)

	all, more, err := r.Sessions(engine.SessionFilter{})
	must(t, err)
	if len(all) != 3 || more != 0 {
		t.Fatalf("%+v, and %d more", all, more)
	}
	oldest, newest := all[0], all[2]
	if oldest.Client.String() != one.LocalAddr().String() || oldest.Listen.String() != addressOf(first) || oldest.Member != atOne || oldest.Service != first.FullName ||
		oldest.Cluster != "pg-test" || oldest.Began.After(all[1].Began) || all[1].ID == oldest.ID {
		t.Errorf("the oldest: %+v", oldest)
	}
	if newest.Server.String() != a.Addr().String() || !newest.Local.IsValid() || newest.ToClient < 2 || newest.ToServer < sayHello {
		t.Errorf("the newest: %+v", newest)
	}
	// What the server sees as its client.
	seen := map[string]bool{}
	a.mu.Lock()
	for conn := range a.conns {
		seen[conn.RemoteAddr().String()] = true
	}
	a.mu.Unlock()
	if !seen[newest.Local.String()] {
		t.Errorf("the server sees %v, and not %s", seen, newest.Local)
	}

	network := func(text string) netip.Prefix { return netip.MustParsePrefix(text) }
	tests := map[string]struct {
		filter     engine.SessionFilter
		some, more int
	}{
		"a service":        {engine.SessionFilter{Service: first.FullName}, 2, 0},
		"a member":         {engine.SessionFilter{Member: "b"}, 1, 0},
		"both":             {engine.SessionFilter{Service: second.FullName, Member: "b"}, 0, 0},
		"a cluster":        {engine.SessionFilter{Cluster: "pg-test"}, 3, 0},
		"another cluster":  {engine.SessionFilter{Cluster: "pg-prod"}, 0, 0},
		"an id":            {engine.SessionFilter{ID: newest.ID}, 1, 0},
		"a network":        {engine.SessionFilter{Client: network("127.0.0.0/8")}, 3, 0},
		"another network":  {engine.SessionFilter{Client: network("10.0.0.0/8")}, 0, 0},
		"the oldest":       {engine.SessionFilter{Limit: 1}, 1, 2},
		"idle for an hour": {engine.SessionFilter{Idle: time.Hour}, 0, 0},
	}
	for name, test := range tests {
		if !relay.Detaches && test.filter.Idle > 0 {
			continue // only Linux tells
		}
		got, more, err := r.Sessions(test.filter)
		if err != nil || len(got) != test.some || more != test.more {
			t.Errorf("%s: %+v, %d more, %v", name, got, more, err)
		}
		if n, err := r.EndSessions(test.filter, "nobody", true); err != nil || n != test.some {
			t.Errorf("%s: %d would be ended, %v", name, n, err)
		}
	}
	if relay.Detaches {
		eventually(t, "the oldest is idle for a moment", func() bool {
			got, _, err := r.Sessions(engine.SessionFilter{Idle: 5 * time.Millisecond, ID: oldest.ID})
			return err == nil && len(got) == 1
		})
	}

	n, err := r.EndSessions(engine.SessionFilter{Service: second.FullName, Member: "a"}, "root (uid 0)", false)
	if n != 1 || err != nil {
		t.Errorf("%d ended, %v", n, err)
	}
	over(t, three)
	got := r.countedUntil(t, second, "it is over", func(s engine.Traffic) bool { return s.Sessions == 0 })
	if got.Ended[engine.EndKilled] != 1 || got.ClientAborts+got.ServerAborts != 0 {
		t.Errorf("counted %+v", got)
	}
	if r.log.count(`ended 1 session on a: by order of root (uid 0)`) != 1 {
		t.Errorf("the log: %s", r.log.text.String())
	}
	echoes(t, one)
	echoes(t, two)
	// Of all at once.
	if n, err := r.EndSessions(engine.SessionFilter{}, "root (uid 0)", false); n != 2 || err != nil {
		t.Errorf("%d ended, %v", n, err)
	}
	over(t, one)
	over(t, two)
}
