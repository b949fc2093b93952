package proxy

import (
	"fmt"
	"net"

	"github.com/pires/go-proxyproto"

	"github.com/pgporter/pgporter/internal/service"
)

// proxyVersion is a version of the PROXY protocol (its specification is HAProxy's proxy-protocol.txt); 0 is none.
type proxyVersion byte

// proxyVersionOf gives the version that a service's options ask for.
func proxyVersionOf(o service.Options) proxyVersion {
	switch {
	case o.SendProxyV2:
		return 2
	case o.SendProxy:
		return 1
	}
	return 0
}

// preface is what every connection to a server begins with on behalf of this client: a header with the addresses of the
// client and of the service that it connected to. It is no part of the session and counts as no byte of it.
func (c *client) preface(version proxyVersion) ([]byte, error) {
	if version == 0 {
		return nil, nil
	}
	// A socket of both families gives IPv4 addresses in their IPv6 form; the header has to say what they are.
	to := c.conn.LocalAddr().(*net.TCPAddr).AddrPort()
	header, err := proxyproto.HeaderProxyFromAddrs(byte(version), &net.TCPAddr{IP: c.from.Addr().AsSlice(), Port: int(c.from.Port())},
		&net.TCPAddr{IP: to.Addr().Unmap().AsSlice(), Port: int(to.Port())}).Format()
	if err != nil {
		return nil, fmt.Errorf("PROXY header of a client from %s to %s: %w", c.from, to, err)
	}
	return header, nil
}
