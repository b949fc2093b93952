package model

import (
	"errors"
	"net/netip"
)

// Networks are where clients of a service may come from; none is anywhere.
type Networks []netip.Prefix

// MaxNetworks is how many a service may have: each client's address is looked up in them one after the other.
const MaxNetworks = 256

// Allow tells whether a client may come from an address.
func (n Networks) Allow(from netip.Addr) bool {
	if len(n) == 0 {
		return true
	}
	from = from.Unmap().WithZone("")
	for _, network := range n {
		if network.Contains(from) {
			return true
		}
	}
	return false
}

// ParseNetwork reads a network, or an address, which is one of its own. The error says what is wrong with it; what would be right is
// the network that was meant, if there is one.
func ParseNetwork(text string) (network netip.Prefix, right string, err error) {
	if addr, err := netip.ParseAddr(text); err == nil {
		if addr.Zone() != "" {
			return netip.Prefix{}, "", errors.New("has a zone, which no client's address has")
		}
		addr = addr.Unmap()
		return netip.PrefixFrom(addr, addr.BitLen()), "", nil
	}
	if network, err = netip.ParsePrefix(text); err != nil {
		return netip.Prefix{}, "", errors.New("is neither an address nor a network")
	}
	switch whole := network.Masked(); {
	case network.Addr().Is4In6():
		return netip.Prefix{}, "", errors.New("is a network of IPv4 in the words of IPv6")
	case network != whole:
		return netip.Prefix{}, whole.String(), errors.New("has bits behind its mask")
	}
	return network, "", nil
}
