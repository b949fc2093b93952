package proxy

import (
	"net"
	"testing"

	"github.com/pgporter/pgporter/internal/monitor/view"
)

func TestSlotsOf(t *testing.T) {
	for _, test := range []struct {
		files uint64
		want  int
	}{{0, 1}, {64, 1}, {66, 1}, {256, 92}, {1024, 464}, {20_000, 9655}, {524_288, 253_920}, {1 << 63, 1_040_187_360}} {
		if got := slotsOf(test.files); got != test.want {
			t.Errorf("%d files: %d clients, want %d", test.files, got, test.want)
		}
	}
	for _, clients := range []int{1, 2, 92, 464, 9655, 20_000, 1_000_003} {
		files := FilesFor(clients)
		if got, less := slotsOf(files), slotsOf(files-3); got < clients || clients > 1 && less >= clients {
			t.Errorf("%d clients: %d files give %d, three less %d", clients, files, got, less)
		}
	}
}

// Berths are shared by all services: a client of one waits for one of another to leave.
func TestSlotsAreShared(t *testing.T) {
	a := startBackend(t, "a", "127.0.42.1")
	one, other := definition(t, "one", "127.0.63.11"), definition(t, "other", "127.0.63.11")
	board := view.NewBoard(viewOf(serviceOf(one, up(a)), serviceOf(other, up(a))))
	r := run(t, Config{})
	r.slots.mu.Lock()
	r.slots.limit = 3
	r.slots.mu.Unlock()
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
