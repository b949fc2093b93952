// Package process sends signals to processes whose numbers came from elsewhere: over a socket, say.
//
// A number proves nothing. Whoever answers may name any process, a group (a negative one) or everything (-1), and a number goes to
// another process one day. So a process is opened first (pidfd_open(2)), then looked at, and only then signalled: what was looked
// at is what gets the signal. Nothing here knows what the signal is for.
package process

import (
	"errors"
	"path/filepath"
	"slices"
	"strings"
)

// ErrEnded is that there is no such process (any more).
var ErrEnded = errors.New("it isn't running")

// ErrUnknown is that processes can't be looked at on this system.
var ErrUnknown = errors.New("this system doesn't tell what a process is")

// named tells whether an executable, as /proc tells its path, has one of the names. The file of a program that was replaced since
// it started is deleted.
func named(executable string, names []string) bool {
	return slices.Contains(names, filepath.Base(strings.TrimSuffix(executable, " (deleted)")))
}
