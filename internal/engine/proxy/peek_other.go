//go:build !linux

package proxy

import "golang.org/x/sys/unix"

// peerClosed are the events of a connection that is over. That a peer has ended its stream behind bytes which nobody has read
// can't be known here: such a client is found gone when its turn comes.
const peerClosed = unix.POLLHUP | unix.POLLERR

// peek looks at the bytes that a socket has received, without taking them or waiting for any. 0 is the stream's end.
func peek(fd uintptr, p []byte) (int, error) {
	for {
		n, _, err := unix.Recvfrom(int(fd), p, unix.MSG_PEEK|unix.MSG_DONTWAIT)
		if err != unix.EINTR {
			return max(n, 0), err
		}
	}
}
