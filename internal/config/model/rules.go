package model

import (
	"net/netip"
	"strings"
)

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

// IsCheckPath tells whether a text can be a Definition's Check: a path, with a query or not, that a request line holds as
// it is.
func IsCheckPath(text string) bool {
	return strings.HasPrefix(text, "/") && !strings.ContainsFunc(text, func(r rune) bool { return r <= ' ' || r >= 0x7f || r == '"' || r == '#' })
}
