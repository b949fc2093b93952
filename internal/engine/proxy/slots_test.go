package proxy

import (
	"net"
	"testing"

	"github.com/pgporter/pgporter/internal/monitor/view"
)

func TestSlots(t *testing.T) {
	for _, test := range []struct {
		files           uint64
		aside, services int
		want            int
	}{{0, 0, 0, 1}, {64, 64, 4, 1}, {256, 64, 4, 84}, {1024, 130, 5, 412}, {20_000, 200, 5, 9513}, {1 << 63, 200, 5, 1_073_741_337}} {
		if got := Slots(test.files, test.aside, test.services); got != test.want {
			t.Errorf("%d files, %d aside, %d services: %d clients, want %d", test.files, test.aside, test.services, got, test.want)
		}
	}
}

// Slots are shared by all services: a client of one waits for one of another to leave.
func TestSlotsAreShared(t *testing.T) {
	a := startBackend(t, "a", "127.0.42.1")
	one, other := definition(t, "one", "127.0.63.11"), definition(t, "other", "127.0.63.11")
	board := view.NewBoard(viewOf(serviceOf(one, up(a)), serviceOf(other, up(a))))
	r := run(t, Config{})
	r.files = 0
	for Slots(r.files, r.aside, 2) < 3 {
		r.files++
	}
	r.commit(t, Endpoint{"pg-test", one, board, 0}, Endpoint{"pg-test", other, board, 0})
	var inside []*net.TCPConn
	for range 3 {
		conn, _ := reach(t, addressOf(one))
		inside = append(inside, conn)
	}
	// A listener that waits for a client already may take that one; the next waits.
	first, second := dial(t, addressOf(other)), dial(t, addressOf(other))
	quiet(t, second)
	if s := r.service(t, other.FullName); s.Clients > 1 {
		t.Errorf("%d clients of the other service, want 1 at most", s.Clients)
	}
	for _, conn := range inside[:2] {
		echoes(t, conn)
		_ = conn.Close()
	}
	for _, conn := range []*net.TCPConn{first, second} {
		if _, err := greeting(conn); err != nil {
			t.Errorf("after others have left: %v", err)
		}
	}
}
