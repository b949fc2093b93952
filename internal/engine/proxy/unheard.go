package proxy

import (
	"net/netip"
	"sync"
	"time"
)

const (
	// leastPatience is how long every client may take to say what it wants: one that is well has said so within milliseconds, and a pool
	// that opens hundreds at once, or a network that loses a packet, within this.
	leastPatience = 2 * time.Second
	// silentOfSource is how many clients of one source, at one service, may be silent for as long as any other; those beyond it have a
	// lessOfSource of that time. It is more than what a person or a check of the port has, and has nothing to say in how many
	// clients of the source come or have sessions.
	silentOfSource = 128
	lessOfSource   = 6
	// unheardInterval is how often clients are looked at that haven't said what they want.
	unheardInterval = 250 * time.Millisecond
	// Patience is whole while more than roomy of the slots are free, and leastPatience once no more than tight are.
	roomy, tight = 1.0 / 2, 1.0 / 8
)

// openingTime is how long a client may take to say what it wants, with so much of the slots free; whole is how long it may where
// there is room.
func openingTime(spare float64, whole time.Duration) time.Duration {
	least := min(leastPatience, whole)
	part := min(1, max(0, (spare-tight)/(roomy-tight)))
	return least + time.Duration(part*float64(whole-least))
}

// unheard are clients of a service that haven't said yet what they want and have been waited for longer than the fast path does. The
// fewer slots are free, the sooner they have to go; so those go first that have been silent for longest.
type unheard struct {
	mu      sync.Mutex
	clients map[*hearing]struct{}
	sources map[netip.Addr]int
}

// hearing is a wait for what one client says.
type hearing struct {
	client *client
	since  time.Time
	// over says that it has to go.
	over bool
}

// listen runs hear, which waits for what a client says, and has it end with errSilent when patience does.
func (d *dispatcher) listen(c *client, hear func() error) error {
	h, first := d.unheard.add(c)
	if first {
		d.queue.wakeWatcher()
	}
	err := hear()
	if d.unheard.remove(h) {
		// It may have come after the end of hear.
		_ = c.conn.SetReadDeadline(time.Time{})
	}
	return err
}

// add notes a client, and tells whether it is the only one.
func (u *unheard) add(c *client) (h *hearing, first bool) {
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.clients == nil {
		u.clients, u.sources = map[*hearing]struct{}{}, map[netip.Addr]int{}
	}
	h = &hearing{client: c, since: time.Now()}
	u.clients[h] = struct{}{}
	u.sources[c.source()]++
	return h, len(u.clients) == 1
}

// remove forgets a client, and tells whether it had to go.
func (u *unheard) remove(h *hearing) bool {
	u.mu.Lock()
	defer u.mu.Unlock()
	delete(u.clients, h)
	from := h.client.source()
	if !h.over {
		u.leave(from)
	}
	return h.over
}

func (u *unheard) leave(from netip.Addr) {
	if u.sources[from]--; u.sources[from] == 0 {
		delete(u.sources, from)
	}
}

// sweep has those go with whom patience is over, and gives how many, and how many stay.
func (u *unheard) sweep(limit time.Duration, now time.Time) (gone, stay int) {
	u.mu.Lock()
	defer u.mu.Unlock()
	less := max(limit/lessOfSource, leastPatience)
	for h := range u.clients {
		from := h.client.source()
		silent := now.Sub(h.since)
		if !h.over && silent < limit && (silent < less || u.sources[from] <= silentOfSource) {
			stay++
			continue
		}
		// Again for one that has had to go before: its wait may have begun after that, with a deadline of its own.
		_ = h.client.conn.SetReadDeadline(past)
		if h.over {
			stay++
			continue
		}
		h.over = true
		gone++
		u.leave(from)
	}
	return gone, stay
}

// patience is how long a client may take now to say what it wants.
func (d *dispatcher) patience() time.Duration {
	return openingTime(d.slots.spare(), d.engine.cfg.OpeningTimeout)
}

// endSilent has clients go that take too long to say what they want, and tells whether there are more. Without a shortage of slots that
// is no news.
func (d *dispatcher) endSilent(now time.Time) (more bool) {
	limit := d.patience()
	gone, stay := d.unheard.sweep(limit, now)
	if gone > 0 {
		if say, missed := d.silences.ready(now); say {
			d.engine.log.Warn("closing clients that don't say what they want, others need their places", "service", d.name, "clients", gone,
				"patience", limit.Round(time.Millisecond), "rounds_since_last_line", missed+1)
		}
	}
	return stay > 0
}
