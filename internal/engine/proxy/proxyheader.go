package proxy

import (
	"fmt"
	"net"

	"github.com/pires/go-proxyproto"
)

// proxyHeader is what every connection to a server begins with on behalf of this client, in a version of the PROXY protocol (its
// specification is HAProxy's proxy-protocol.txt; version 0 is none): a header with the addresses of the
// client and of the service that it connected to. It is no part of the session and counts as no byte of it.
func (c *client) proxyHeader(version byte) ([]byte, error) {
	if version == 0 {
		return nil, nil
	}
	// A socket of both families gives IPv4 addresses in their IPv6 form; the header has to say what they are.
	to := c.conn.LocalAddr().(*net.TCPAddr).AddrPort()
	header, err := proxyproto.HeaderProxyFromAddrs(version, &net.TCPAddr{IP: c.from.Addr().AsSlice(), Port: int(c.from.Port())},
		&net.TCPAddr{IP: to.Addr().Unmap().AsSlice(), Port: int(to.Port())}).Format()
	if err != nil {
		return nil, fmt.Errorf("PROXY header of a client from %s to %s: %w", c.from, to, err)
	}
	return header, nil
}
