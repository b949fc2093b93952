package proxy

import "golang.org/x/sys/unix"

// errNothingYet is what a socket says that has no bytes for now.
const errNothingYet = unix.EAGAIN

// hasLeft tells whether a socket's peer has ended its stream, also behind bytes that nobody has read.
func hasLeft(fd uintptr) bool {
	events := []unix.PollFd{{Fd: int32(fd), Events: peerClosed}}
	for {
		n, err := unix.Poll(events, 0)
		if err != unix.EINTR {
			return n > 0 && events[0].Revents&peerClosed != 0
		}
	}
}
