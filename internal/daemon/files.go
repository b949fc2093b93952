package daemon

import (
	"fmt"
	"log/slog"
	"math"
	"net"
	"net/netip"
	"runtime"
	"sort"
	"sync"
	"time"

	"github.com/pgporter/pgporter/internal/access/gate"
	"github.com/pgporter/pgporter/internal/engine"
	"github.com/pgporter/pgporter/internal/engine/proxy"
)

// budget is what a limit of open files is divided into beside clients' descriptors: whoever may open one has as many as are set aside
// for it here, so that none is ever wanting where checks are made.
type budget struct {
	// files is the limit.
	files uint64
	// admin, control, names and page are the connections that the admin address, the control address, DNS over TCP and the page's port
	// may have; 0 where there is no such address.
	admin, control, names, page int
	// local are the connections that the socket for orders from this machine may have.
	local int
	// questions are those under way at members' APIs and ports, checks those at servers of TCP services.
	questions, checks int
	// own is what is always open, and what is opened for a moment: standard streams, the runtime's, the relay's loops, listening
	// sockets, files that are read, the hand-over's socket.
	own int
}

// budgetOf divides a limit of open files.
func budgetOf(files uint64, control, names, page bool) budget {
	part := func(of uint64, least, most int) int { return max(least, int(min(files/of, uint64(most)))) }
	b := budget{files: files, admin: part(32, 8, 64), questions: part(21, 16, 512), checks: part(64, 8, 256), local: part(128, 4, 16), own: 40 + 5*runtime.GOMAXPROCS(0)}
	if control {
		b.control = part(32, 8, 64)
	}
	if names {
		b.names = part(42, 8, 256)
	}
	if page {
		b.page = part(64, 8, 64)
	}
	return b
}

// newBudget divides the limit that this process has.
func newBudget(c Config) budget {
	names := false
	for _, p := range c.Parts {
		n, is := p.(*Names)
		names = names || is && n.Address() != ""
	}
	_, planned := c.Source.(planned)
	return budgetOf(proxy.OpenFiles(), c.Control != nil, names, planned && c.HAProxy == nil && c.Shadow == nil)
}

// aside is how many descriptors are for all but clients, with so many clusters under watch: each has a connection to etcd, and a second
// one while that breaks.
func (b budget) aside(clusters int) int {
	return b.admin + b.control + b.names + b.page + b.local + b.questions + b.checks + b.own + 2*clusters
}

// slots is for how many clients there are descriptors with what is offered, and filesFor which limit would do for so many.
func (b budget) slots(o engine.Offer) int {
	services := len(o.TCP.Services)
	for _, c := range o.Clusters {
		services += len(c.Definitions)
	}
	return proxy.Slots(b.files, b.aside(clusters(o)), services)
}

func (b budget) filesFor(clients int, o engine.Offer) uint64 {
	return uint64(sort.Search(math.MaxInt32, func(files int) bool {
		return budgetOf(uint64(files), b.control > 0, b.names > 0, b.page > 0).slots(o) >= clients
	}))
}

// clusters is how many are under watch for an Offer.
func clusters(o engine.Offer) int { return len(o.Clusters) + len(o.Elsewhere) }

// shortfall says in words that there may be more clients than descriptors for them, if so. A service without a maxconn asks for
// nothing.
func (b budget) shortfall(o engine.Offer) string {
	clients := 0
	for _, c := range o.Clusters {
		for _, definition := range c.Definitions {
			clients += definition.MaxConn
		}
	}
	for _, s := range o.TCP.Services {
		clients += s.MaxConn
	}
	slots := b.slots(o)
	if clients <= slots {
		return ""
	}
	return fmt.Sprintf("the limit of open files allows for %d clients at a time, the services' maxconn for %d: whoever comes beyond the first waits to be accepted. "+
		"A hard limit of %d would do: LimitNOFILE= in pgporter's systemd unit, elsewhere ulimit -Hn", slots, clients, b.filesFor(clients, o))
}

// tellShortfall logs it, once for as long as it stays the same. d.taking is held.
func (d *Daemon) tellShortfall(o engine.Offer) {
	if d.tcpcheck == nil {
		return // HAProxy has limits of its own
	}
	if text := d.budget.shortfall(o); text != d.short {
		if d.short = text; text != "" {
			d.log.Warn(text)
		}
	}
}

// guard lets in as many connections to an address as are set aside for it, and tells the log of those that were too many, in a line a
// minute.
func (d *Daemon) guard(l net.Listener, what string, most int) net.Listener {
	var mu sync.Mutex
	var told time.Time
	untold := 0
	return gate.New(l, gate.Of(most), func(from netip.Addr) {
		now := time.Now()
		mu.Lock()
		untold++
		n := untold
		say := now.Sub(told) >= time.Minute
		if say {
			told, untold = now, 0
		}
		mu.Unlock()
		if say {
			d.log.Warn("closed connections: there are too many at a time, and who did nothing had to go", "address", what, "at_most", most,
				"latest_from", slog.AnyValue(from), "since_last_line", n)
		}
	})
}
