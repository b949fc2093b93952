package proxy

import (
	"encoding/binary"
	"net"
	"net/netip"
	"os"
	"reflect"
	"strconv"
	"syscall"
	"unsafe"

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
func takeOver(at listenAddr, leaving []*listener) (*net.TCPListener, error) {
	for _, own := range leaving {
		apply(own.socket, share(1))
		defer apply(own.socket, share(0))
	}
	return listenSteerable(at)
}

// listenSteerable listens on an address with a socket that is the first of a group (SO_REUSEPORT), which no other user's can join yet: so the kernel
// can be told where new connections go before one has come that shares the address (handover.Steer). Of sockets that were
// alone it learns that only then, and the other has got some by that time.
func listenSteerable(at listenAddr) (*net.TCPListener, error) {
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

func share(on int) func(uintptr) error {
	return func(fd uintptr) error { return unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_REUSEPORT, on) }
}

func apply(socket syscall.Conn, set func(fd uintptr) error) {
	raw, err := socket.SyscallConn()
	if err != nil {
		return
	}
	_ = raw.Control(func(fd uintptr) { _ = set(fd) })
}

// acceptFrom is accept4(2) on a non-blocking socket.
func acceptFrom(socket int) (int, netip.AddrPort, error) {
	for {
		var from unix.RawSockaddrInet6
		size := uint32(unsafe.Sizeof(from))
		fd, _, err := unix.RawSyscall6(unix.SYS_ACCEPT4, uintptr(socket), uintptr(unsafe.Pointer(&from)), uintptr(unsafe.Pointer(&size)),
			unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0, 0)
		switch {
		case err == 0:
			return int(fd), addressOfPeer(&from), nil
		case err != unix.EINTR && err != unix.ECONNABORTED:
			return -1, netip.AddrPort{}, err
		}
	}
}

// addressOfPeer reads what accept4 gave.
func addressOfPeer(from *unix.RawSockaddrInet6) netip.AddrPort {
	if from.Family == unix.AF_INET {
		from := (*unix.RawSockaddrInet4)(unsafe.Pointer(from))
		return netip.AddrPortFrom(netip.AddrFrom4(from.Addr), swapped(from.Port))
	}
	addr := netip.AddrFrom16(from.Addr).Unmap()
	if addr.Is6() && from.Scope_id != 0 {
		addr = addr.WithZone(strconv.Itoa(int(from.Scope_id)))
	}
	return netip.AddrPortFrom(addr, swapped(from.Port))
}

// swapped turns a port as the network has it into one as Go has it, or back.
func swapped(port uint16) uint16 {
	p := (*[2]byte)(unsafe.Pointer(&port))
	return binary.BigEndian.Uint16(p[:])
}

// connectTo opens a socket and begins to connect it. An error is one of socket(2) or connect(2).
func connectTo(to netip.AddrPort) (int, error) {
	addr := to.Addr().Unmap()
	family := unix.AF_INET
	if addr.Is6() {
		family = unix.AF_INET6
	}
	fd, _, err := unix.RawSyscall(unix.SYS_SOCKET, uintptr(family), unix.SOCK_STREAM|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0)
	if err != 0 {
		return -1, os.NewSyscallError("socket", err)
	}
	if addr.Is6() {
		sa := unix.RawSockaddrInet6{Family: unix.AF_INET6, Port: swapped(to.Port()), Addr: addr.As16()}
		_, _, err = unix.RawSyscall(unix.SYS_CONNECT, fd, uintptr(unsafe.Pointer(&sa)), unsafe.Sizeof(sa))
	} else {
		sa := unix.RawSockaddrInet4{Family: unix.AF_INET, Port: swapped(to.Port()), Addr: addr.As4()}
		_, _, err = unix.RawSyscall(unix.SYS_CONNECT, fd, uintptr(unsafe.Pointer(&sa)), unsafe.Sizeof(sa))
	}
	if err != 0 && err != unix.EINPROGRESS && err != unix.EINTR {
		_ = unix.Close(int(fd))
		return -1, os.NewSyscallError("connect", err)
	}
	return int(fd), nil
}

// isConnected tells whether a socket that connectTo gave is connected, or why it never will be.
func isConnected(fd int) (bool, error) {
	failure, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_ERROR)
	if err != nil {
		return false, os.NewSyscallError("getsockopt", err)
	}
	if failure != 0 {
		return false, os.NewSyscallError("connect", syscall.Errno(failure))
	}
	there, err := unix.Getpeername(fd)
	if err != nil {
		return false, nil
	}
	// A connection to a port of the range that the kernel picks ours from may meet itself: simultaneous open.
	if here, err := unix.Getsockname(fd); err == nil && reflect.DeepEqual(here, there) {
		return false, os.NewSyscallError("connect", unix.ECONNREFUSED)
	}
	return true, nil
}
