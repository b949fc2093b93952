//go:build !linux

package relay

import (
	"syscall"
	"time"
)

// duplicate gives a second descriptor of a socket.
func duplicate(fd uintptr) (int, error) {
	own, err := syscall.Dup(int(fd))
	if err == nil {
		syscall.CloseOnExec(own)
		err = syscall.SetNonblock(own, true)
	}
	return own, err
}

// unacknowledged isn't known here: what a reset finds unsent is lost.
func unacknowledged(int) int { return 0 }

// delivered doesn't wait for what isn't known.
func delivered(int, time.Duration) {}

// isDead isn't known here: a reset that a write got to see may be passed on as an end in order.
func isDead(int) bool { return false }
