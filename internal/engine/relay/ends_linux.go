//go:build linux && !portable

package relay

import (
	"net/netip"
	"strconv"
	"time"

	"golang.org/x/sys/unix"
)

// Ends asks the kernel for the flow's addresses (getsockname(2), getpeername(2)), and for how long it is idle (tcp(7), TCP_INFO). It is
// false of a flow that moves nothing, not yet or not any more: its sockets needn't be its own then.
func (f *Flow) Ends() (Ends, bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.over || f.happened != nil || f.loop == nil {
		return Ends{}, false
	}
	e := Ends{Idle: -1}
	e.Listen, e.Client = endsOf(f.client.fd)
	e.Local, e.Server = endsOf(f.server.fd)
	for _, fd := range []int{f.client.fd, f.server.fd} {
		info, err := unix.GetsockoptTCPInfo(fd, unix.IPPROTO_TCP, unix.TCP_INFO)
		if err != nil {
			continue
		}
		if quiet := time.Duration(info.Last_data_recv) * time.Millisecond; e.Idle < 0 || quiet < e.Idle {
			e.Idle = quiet
		}
	}
	return e, true
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
