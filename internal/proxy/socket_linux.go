package proxy

import (
	"net"

	"golang.org/x/sys/unix"
)

// allowMissingAddress lets a socket be bound to an address that the node doesn't have now, such as a VIP that is
// elsewhere: ip(7), IP_FREEBIND.
func allowMissingAddress(fd uintptr, six bool) error {
	if six {
		return unix.SetsockoptInt(int(fd), unix.IPPROTO_IPV6, unix.IPV6_FREEBIND, 1)
	}
	return unix.SetsockoptInt(int(fd), unix.IPPROTO_IP, unix.IP_FREEBIND, 1)
}

// takeOver listens on an address that overlaps own listeners which are about to be closed, so that there is no gap
// between. The kernel allows it while all these sockets have SO_REUSEPORT; it is taken off again at once, and whoever
// else holds an overlapping address with that option is still an obstacle.
func takeOver(at place, leaving []*listener) (*net.TCPListener, error) {
	share := func(on int) func(uintptr) error {
		return func(fd uintptr) error { return unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_REUSEPORT, on) }
	}
	for _, own := range leaving {
		apply(own.socket, share(1))
		defer apply(own.socket, share(0))
	}
	socket, err := listenOn(at, share(1))
	if err != nil {
		return nil, &BindError{at.String(), strangers(at), err}
	}
	apply(socket, share(0))
	if who := strangers(at); who != "" {
		_ = socket.Close()
		return nil, &BindError{at.String(), who, unix.EADDRINUSE}
	}
	return socket, nil
}

func apply(socket *net.TCPListener, set func(fd uintptr) error) {
	raw, err := socket.SyscallConn()
	if err != nil {
		return
	}
	_ = raw.Control(func(fd uintptr) { _ = set(fd) })
}
