//go:build linux && !portable

package relay

import (
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
	e := EndsOf(f.client.fd, f.server.fd)
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
