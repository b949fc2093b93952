//go:build unix && (!linux || portable)

package relay

import "syscall"

// errNothingYet is what a non-blocking socket says that has no bytes for now.
const errNothingYet = syscall.EAGAIN

func readSocket(fd uintptr, p []byte) (int, error) {
	for {
		n, err := syscall.Read(int(fd), p)
		if err != syscall.EINTR {
			return max(n, 0), err
		}
	}
}
