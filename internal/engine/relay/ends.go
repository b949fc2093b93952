package relay

import (
	"net/netip"
	"time"
)

// Ends are the addresses of a flow's two connections, as the kernel has them: the client's and the one that it connected to, and ours and
// the server's of the other one.
type Ends struct {
	Client, Listen, Local, Server netip.AddrPort
	// Idle is for how long neither side has sent anything; -1 where the system doesn't say.
	Idle time.Duration
}
