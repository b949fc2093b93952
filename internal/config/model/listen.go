package model

import (
	"fmt"
	"net/netip"
	"strconv"
	"strings"
)

// ListenAddr is where something on a node listens. It is comparable.
type ListenAddr struct {
	// Addr is the address; the zero Addr is every address of the node, IPv4 and IPv6 ("*").
	Addr netip.Addr
	Port uint16
}

// ListenAddrOf reads an address to listen on, or "*", with a port from 1 to 65535.
func ListenAddrOf(ip string, port int) (ListenAddr, error) {
	if port < 1 || port > 65535 {
		return ListenAddr{}, fmt.Errorf("port %d is out of range, 1 to 65535", port)
	}
	if ip == "*" {
		return ListenAddr{Port: uint16(port)}, nil
	}
	addr, err := netip.ParseAddr(ip)
	if err != nil {
		return ListenAddr{}, fmt.Errorf("%q is not an IP address to listen on", ip)
	}
	return ListenAddr{addr.Unmap(), uint16(port)}, nil
}

// ParseListenAddr reads what String gives.
func ParseListenAddr(text string) (ListenAddr, error) {
	if port, every := strings.CutPrefix(text, "*:"); every {
		n, err := strconv.ParseUint(port, 10, 16)
		return ListenAddr{Port: uint16(n)}, err
	}
	at, err := netip.ParseAddrPort(text)
	return ListenAddr{at.Addr(), at.Port()}, err
}

// Every tells whether it is every address of the node.
func (a ListenAddr) Every() bool { return !a.Addr.IsValid() }

// String is address:port, with * for every address.
func (a ListenAddr) String() string {
	if a.Every() {
		return "*:" + strconv.Itoa(int(a.Port))
	}
	return netip.AddrPortFrom(a.Addr, a.Port).String()
}

// Covers tells whether it is every address, or every one of a family, and the other some of these.
func (a ListenAddr) Covers(o ListenAddr) bool {
	if a.Port != o.Port || a == o {
		return false
	}
	return a.Every() || !o.Every() && a.Addr.IsUnspecified() && a.Addr.Is4() == o.Addr.Is4()
}

// Overlaps tells whether the two can't be had together: they are the same, or one covers the other, where a socket on :: takes
// IPv4 too (HAProxy's does, without v6only); one on 0.0.0.0 doesn't take IPv6.
func (a ListenAddr) Overlaps(o ListenAddr) bool {
	return a == o || a.Covers(o) || o.Covers(a) || a.Port == o.Port && (a.Addr == netip.IPv6Unspecified() || o.Addr == netip.IPv6Unspecified())
}

// Listeners are what listens on one node so far, each with who it is. The zero value has none.
type Listeners[T any] struct {
	byPort map[uint16][]listening[T]
}

type listening[T any] struct {
	at  ListenAddr
	who T
}

// Add takes one more in, whatever is there.
func (l *Listeners[T]) Add(at ListenAddr, who T) {
	if l.byPort == nil {
		l.byPort = map[uint16][]listening[T]{}
	}
	l.byPort[at.Port] = append(l.byPort[at.Port], listening[T]{at, who})
}

// Overlapping gives those, at most so many, that are in the way of another, in the order in which they were added.
func (l *Listeners[T]) Overlapping(at ListenAddr, most int) []T {
	var found []T
	for _, other := range l.byPort[at.Port] {
		if len(found) == most {
			break
		}
		if at.Overlaps(other.at) {
			found = append(found, other.who)
		}
	}
	return found
}
