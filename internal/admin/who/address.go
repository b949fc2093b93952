package who

import (
	"fmt"
	"net/netip"
	"strconv"
	"strings"
)

// Address is one end of a connection as PgBouncer shows it; the zero value is none.
type Address struct {
	netip.AddrPort
	// Socket says that it is a Unix socket.
	Socket bool
}

// socketWord begins what PgBouncer calls a Unix socket; newer ones put a process number behind it, in parentheses.
const socketWord = "unix"

// ParseAddress reads the columns addr and port of SHOW CLIENTS and SHOW SERVERS: an address of IPv4 or IPv6, `unix`, or nothing for
// a connection that isn't made yet.
func ParseAddress(addr, port string) (Address, error) {
	if addr == "" {
		return Address{}, nil
	}
	if rest, is := strings.CutPrefix(addr, socketWord); is && (rest == "" || strings.HasPrefix(rest, "(") && strings.HasSuffix(rest, ")")) {
		return Address{Socket: true}, nil
	}
	// A path is how a socket is called that a connection goes to.
	if strings.HasPrefix(addr, "/") || strings.HasPrefix(addr, "@") {
		return Address{Socket: true}, nil
	}
	ip, err := netip.ParseAddr(addr)
	if err != nil {
		return Address{}, fmt.Errorf("%q isn't an address: %w", addr, err)
	}
	number, err := strconv.ParseUint(port, 10, 16)
	if err != nil {
		return Address{}, fmt.Errorf("the port of %s isn't one: %w", addr, err)
	}
	return Address{AddrPort: plain(netip.AddrPortFrom(ip, uint16(number)))}, nil
}
