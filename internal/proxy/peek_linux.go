package proxy

import "golang.org/x/sys/unix"

// peerClosed are the events of a socket whose peer has ended its stream: poll(2).
const peerClosed = unix.POLLRDHUP | unix.POLLHUP | unix.POLLERR
