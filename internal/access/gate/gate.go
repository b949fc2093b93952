// Package gate is a listener that lets in as many connections as there are places, so that whoever has no credentials can't take
// all descriptors, and none of its sources can keep out the others.
//
// Who comes while there is no place takes that of another: the oldest connection that does nothing anybody waits for, of the same source
// if that has as many as a source may, and else of the source that has most. So nobody keeps a place by doing nothing, and an
// operator gets in while a flood goes on. Who has shown credentials is never closed, and who is being answered only if that
// takes long; where nobody gives way the one who comes is closed at once. Accept never waits for a place.
//
// The package knows nothing of what is said on a connection: whoever serves it says when it is busy or known.
package gate

import (
	"context"
	"net"
	"net/http"
	"net/netip"
	"slices"
	"sync"
	"time"
)

// Limits are how many connections there may be.
type Limits struct {
	// Total is that of all, PerSource that of one source. Sources are addresses; those of this machine are one, and so are those of
	// one network of IPv6 (/64), of which a single machine has as many as it likes.
	Total, PerSource int
}

// Of gives the limits of an address that may have so many connections: three quarters for one source.
func Of(total int) Limits { return Limits{Total: total, PerSource: max(1, total*3/4)} }

// local is how many of so many places only this machine's own programs have.
func local(total int) int { return total / 8 }

// busyTime is how long a connection may be busy before it gives way as if it weren't: who doesn't read an answer is served no more than
// who doesn't ask.
const busyTime = 5 * time.Second

// Listener limits the connections of another one.
type Listener struct {
	net.Listener
	limits Limits
	// closed is called for each connection that was closed for want of places. May be nil.
	closed func(from netip.Addr)

	mu sync.Mutex
	// open are in the order in which they came. There are never many.
	open []*Conn
}

// New limits a listener, which is the Listener's from then on. closed is told of each connection that was closed since there were too
// many, without a lock held; it may be nil.
func New(l net.Listener, limits Limits, closed func(from netip.Addr)) *Listener {
	return &Listener{Listener: l, limits: limits, closed: closed}
}

// Conn is a connection that has a place.
type Conn struct {
	net.Conn
	listener *Listener
	from     netip.Addr
	source   netip.Prefix

	// What follows is guarded by the Listener's lock.

	// busy is since when it does something that somebody waits for; zero while it doesn't.
	busy time.Time
	// known says that its other end has shown credentials.
	known bool
}

// Accept gives the next connection that has a place.
func (l *Listener) Accept() (net.Conn, error) {
	for {
		conn, err := l.Listener.Accept()
		if err != nil {
			return nil, err
		}
		c := l.conn(conn)
		gone := l.admit(c, time.Now())
		if gone == nil {
			return c, nil
		}
		_ = gone.Close()
		if l.closed != nil {
			l.closed(gone.from)
		}
		if gone != c {
			return c, nil
		}
	}
}

// conn is a connection that has no place yet.
func (l *Listener) conn(conn net.Conn) *Conn {
	c := &Conn{Conn: conn, listener: l}
	if at, is := conn.RemoteAddr().(*net.TCPAddr); is {
		c.from = at.AddrPort().Addr().Unmap()
	}
	c.source = sourceOf(c.from)
	return c
}

// here stands for all addresses of this machine's own network.
var here = netip.PrefixFrom(netip.IPv6Loopback(), 128)

// sourceOf gives what an address is counted as.
func sourceOf(a netip.Addr) netip.Prefix {
	if !a.IsValid() || a.IsLoopback() {
		return here
	}
	return Network(a)
}

// Network is what belongs to one stranger: an address of IPv4, or a network of IPv6 (/64), of whose addresses a single machine has as many
// as it likes.
func Network(a netip.Addr) netip.Prefix {
	if a = a.Unmap().WithZone(""); a.Is4() {
		return netip.PrefixFrom(a, 32)
	}
	network, _ := a.Prefix(64) // 64 is allowed for every address of IPv6
	return network
}

// admit gives a connection a place, and which one has to be closed for that, if any: it may be this one.
func (l *Listener) admit(c *Conn, now time.Time) (gone *Conn) {
	l.mu.Lock()
	defer l.mu.Unlock()
	counts := map[netip.Prefix]int{}
	for _, o := range l.open {
		counts[o.source]++
	}
	remote := len(l.open) - counts[here]
	give := func(of func(netip.Prefix) bool) *Conn {
		if o := l.oldest(of, now); o != nil {
			return o
		}
		return c
	}
	most := func(of func(netip.Prefix) bool) func(netip.Prefix) bool {
		n := 0
		for source, count := range counts {
			if of(source) {
				n = max(n, count)
			}
		}
		return func(source netip.Prefix) bool { return of(source) && counts[source] == n }
	}
	switch {
	case counts[c.source] >= l.limits.PerSource:
		gone = give(func(source netip.Prefix) bool { return source == c.source })
	case c.source != here && remote >= l.limits.Total-local(l.limits.Total):
		gone = give(most(func(source netip.Prefix) bool { return source != here }))
	case len(l.open) >= l.limits.Total:
		gone = give(most(func(netip.Prefix) bool { return true }))
	}
	if gone != c {
		l.open = append(l.open, c)
	}
	return gone
}

// oldest gives the connection that gives way first, of certain sources; nil if none does. l.mu is held.
func (l *Listener) oldest(of func(netip.Prefix) bool, now time.Time) *Conn {
	var slow *Conn
	for _, o := range l.open {
		switch {
		case o.known || !of(o.source):
		case o.busy.IsZero():
			return o
		case slow == nil && now.Sub(o.busy) >= busyTime:
			slow = o
		}
	}
	return slow
}

// Close closes the connection and gives its place back.
func (c *Conn) Close() error {
	l := c.listener
	l.mu.Lock()
	if i := slices.Index(l.open, c); i >= 0 {
		l.open = slices.Delete(l.open, i, i+1)
	}
	l.mu.Unlock()
	return c.Conn.Close()
}

// mark notes whether the connection is busy, and, if so, that its other end is known.
func (c *Conn) mark(busy time.Time, known bool) {
	c.listener.mu.Lock()
	defer c.listener.mu.Unlock()
	c.busy, c.known = busy, c.known || known
}

// Count gives how many connections have a place.
func (l *Listener) Count() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return len(l.open)
}

// connKey is a context's key of its request's connection.
type connKey struct{}

// Context is an http.Server's ConnContext: it lets Serving and Know find the connection. One that has no place here is let be.
func Context(ctx context.Context, conn net.Conn) context.Context {
	for {
		// A crypto/tls.Conn, say.
		around, is := conn.(interface{ NetConn() net.Conn })
		if !is {
			break
		}
		conn = around.NetConn()
	}
	return context.WithValue(ctx, connKey{}, conn)
}

// Serving has a request's connection be busy for as long as it is answered.
func Serving(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if c, is := r.Context().Value(connKey{}).(*Conn); is {
			c.mark(time.Now(), false)
			defer func() { c.mark(time.Time{}, false) }()
		}
		next.ServeHTTP(w, r)
	})
}

// Know notes that a request has shown credentials: its connection isn't closed for others.
func Know(r *http.Request) {
	if c, is := r.Context().Value(connKey{}).(*Conn); is {
		c.mark(time.Now(), true)
	}
}
