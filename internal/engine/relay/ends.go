package relay

import (
	"net/netip"
	"strconv"
	"time"

	"golang.org/x/sys/unix"
)

// Ends are the addresses of a flow's two connections, as the kernel has them: the client's and the one that it connected to, and ours and
// the server's of the other one.
type Ends struct {
	Client, Listen, Local, Server netip.AddrPort
	// Idle is for how long neither side has sent anything; -1 where the system doesn't say.
	Idle time.Duration
}

// EndsOf are the addresses of a Pair's sockets, which the caller has.
func EndsOf(client, server int) Ends {
	e := Ends{Idle: -1}
	e.Listen, e.Client = endsOf(client)
	e.Local, e.Server = endsOf(server)
	return e
}

// endsOf are a socket's own address and its peer's; an invalid one is of a connection that is dead.
func endsOf(fd int) (own, peer netip.AddrPort) {
	if sa, err := unix.Getsockname(fd); err == nil {
		own = addressOf(sa)
	}
	if sa, err := unix.Getpeername(fd); err == nil {
		peer = addressOf(sa)
	}
	return own, peer
}

func addressOf(sa unix.Sockaddr) netip.AddrPort {
	switch sa := sa.(type) {
	case *unix.SockaddrInet4:
		return netip.AddrPortFrom(netip.AddrFrom4(sa.Addr), uint16(sa.Port))
	case *unix.SockaddrInet6:
		addr := netip.AddrFrom16(sa.Addr).Unmap()
		if addr.Is6() && sa.ZoneId != 0 {
			addr = addr.WithZone(strconv.Itoa(int(sa.ZoneId)))
		}
		return netip.AddrPortFrom(addr, uint16(sa.Port))
	}
	return netip.AddrPort{}
}
