//go:build !linux

package proxy

import "golang.org/x/sys/unix"

// peerClosed are the events of a connection that is over. That a peer has ended its stream behind bytes which nobody has read
// can't be known here: such a client is found gone when its turn comes.
const peerClosed = unix.POLLHUP | unix.POLLERR
