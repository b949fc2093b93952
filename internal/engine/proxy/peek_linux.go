package proxy

import (
	"unsafe"

	"golang.org/x/sys/unix"
)

// peerClosed are the events of a socket whose peer has ended its stream: poll(2).
const peerClosed = unix.POLLRDHUP | unix.POLLHUP | unix.POLLERR

// peek looks at the bytes that a socket has received, without taking them or waiting for any. 0 is the stream's end. It doesn't
// tell the scheduler, which has nothing to gain from a call that never waits. p isn't empty.
func peek(fd uintptr, p []byte) (int, error) {
	for {
		n, _, err := unix.RawSyscall6(unix.SYS_RECVFROM, fd, uintptr(unsafe.Pointer(&p[0])), uintptr(len(p)), unix.MSG_PEEK|unix.MSG_DONTWAIT, 0, 0)
		if err == 0 {
			return int(n), nil
		}
		if err != unix.EINTR {
			return 0, err
		}
	}
}
