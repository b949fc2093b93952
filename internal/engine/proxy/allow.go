package proxy

import (
	"net"
	"net/netip"
	"time"
)

// admits tells whether a client that was just accepted may come from its address, and counts it. One that may not is the caller's to
// close, before anything of it was read. The list is the newest assignment's: clients that are there already stay.
func (d *dispatcher) admits(from netip.Addr, now time.Time) bool {
	d.came(now)
	if d.endpoint().Definition.Allow.Allow(from) {
		return true
	}
	d.denied.Add(1)
	if say, missed := d.denials.ready(now); say {
		// Whoever accepts holds the lock of the listening socket.
		d.engine.serving.Go(func() {
			d.engine.log.Warn("closed a client: the service isn't for its address (allow)", "service", d.name, "client", from.Unmap().String(), "clients_since_last_line", missed+1)
		})
	}
	return false
}

// admitsConn is admits of a connection, which is closed if it may not come.
func (d *dispatcher) admitsConn(conn *net.TCPConn) bool {
	from, _ := conn.RemoteAddr().(*net.TCPAddr)
	if from == nil || d.admits(from.AddrPort().Addr(), time.Now()) {
		return true
	}
	_ = conn.SetLinger(0)
	_ = conn.Close()
	return false
}
