//go:build unix && !linux

package handover

import "errors"

// ErrAlone says that a socket shares its address with no other.
var ErrAlone = errors.ErrUnsupported

// Which of the sockets that share an address gets new connections.
const (
	First = 0
	Next  = 1
)

// Copy is for Linux.
func Copy(int, int) (int, error) { return -1, errors.ErrUnsupported }

// Share is for Linux.
func Share(int) error { return errors.ErrUnsupported }

// Steer is for Linux.
func Steer(int, int) error { return errors.ErrUnsupported }
