//go:build !linux || portable

package relay

import (
	"net"
	"net/netip"
)

// Ends gives the flow's addresses. It is false once its sockets are closed.
func (f *Flow) Ends() (Ends, bool) {
	e := Ends{Idle: -1}
	for conn, ends := range map[*net.TCPConn][2]*netip.AddrPort{f.client.conn: {&e.Listen, &e.Client}, f.server.conn: {&e.Local, &e.Server}} {
		own, isOwn := conn.LocalAddr().(*net.TCPAddr)
		peer, isPeer := conn.RemoteAddr().(*net.TCPAddr)
		if !isOwn || !isPeer || own == nil || peer == nil {
			return Ends{}, false
		}
		*ends[0], *ends[1] = unmapped(own), unmapped(peer)
	}
	return e, true
}

func unmapped(a *net.TCPAddr) netip.AddrPort {
	at := a.AddrPort()
	return netip.AddrPortFrom(at.Addr().Unmap(), at.Port())
}
