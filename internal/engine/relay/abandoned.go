//go:build linux && !portable

package relay

import (
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// abandonLimit is how long a server may take nothing of what a client has left that broke. A variable, so that a test needn't
// wait for it.
var abandonLimit = 10 * time.Second

// noticeErrors puts a client from which nothing is read at first, since the pair came with bytes that the server doesn't take, into
// the epoll without any interest: EPOLLERR and EPOLLHUP are told in any case.
func (f *Flow) noticeErrors() {
	if c := &f.client; !f.over && !c.registered {
		// If that fails, so will waiting for its bytes, which ends the flow.
		_ = f.loop.watch(c, 0)
	}
}

// abandon sees to it that a client that broke (reset, timed out) doesn't hold a server that has stalled. Nothing is read from
// a client while the server has bytes to take, so that it would be noticed when the server takes them, which may be
// never. A client that has ended its stream in order isn't meant: it may be waiting for an answer. If its process is gone
// its kernel says so to a keepalive probe.
//
// The reverse needs nothing: a server that broke isn't there any more to be held, and what it has said last is for the client.
func (f *Flow) abandon(s *side, events uint32) {
	// An error that was met in writing to the client isn't told again.
	broke := events&unix.EPOLLERR != 0 || f.cause != nil
	if s != &f.client || !broke || f.aborted || f.abandoned || len(f.server.pending) == 0 {
		return
	}
	f.abandoned = true
	f.expectProgress(f.server.moved)
}

// expectProgress looks again after a while whether the server has taken something since it had a number of bytes.
func (f *Flow) expectProgress(moved int64) {
	time.AfterFunc(abandonLimit, func() {
		f.mu.Lock()
		defer f.mu.Unlock()
		switch {
		case f.over || f.aborted:
		case len(f.server.pending) == 0:
			// The client is read, or waits to be: it ends by itself.
			f.abandoned = false
		case f.server.moved != moved:
			f.expectProgress(f.server.moved)
		default:
			why := syscall.ECONNRESET
			if code, err := unix.GetsockoptInt(f.client.fd, unix.SOL_SOCKET, unix.SO_ERROR); err == nil && code != 0 {
				why = syscall.Errno(code)
			}
			f.cut(&f.client, "read", why)
			f.settle()
		}
	})
}
