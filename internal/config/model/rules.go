package model

import "net/netip"

// Overlap tells whether two listeners on one port can't be had together: the addresses are the same, or one is every
// address of the node ("*"). A name that is no address may be any.
func Overlap(a, b string) bool {
	x, errX := netip.ParseAddr(a)
	y, errY := netip.ParseAddr(b)
	if errX != nil || errY != nil {
		return true
	}
	if x == y || x.IsUnspecified() && y.IsUnspecified() {
		return true
	}
	// A socket on :: takes IPv4 too; one on 0.0.0.0 doesn't take IPv6.
	return x.IsUnspecified() && (x.Is6() || y.Is4()) || y.IsUnspecified() && (y.Is6() || x.Is4())
}
