//go:build unix

package handover

import (
	"fmt"
	"net"
	"os"
	"syscall"

	"golang.org/x/sys/unix"
)

// Duplicate gives a second descriptor of a socket, which is the caller's to close.
func Duplicate(socket syscall.Conn) (int, error) {
	raw, err := socket.SyscallConn()
	if err != nil {
		return -1, err
	}
	fd := -1
	if outer := raw.Control(func(own uintptr) { fd, err = unix.FcntlInt(own, unix.F_DUPFD_CLOEXEC, 0) }); outer != nil {
		return -1, outer
	}
	return fd, err
}

// Listener makes a listening socket of its descriptor, and owns it from then on.
func Listener(fd int) (*net.TCPListener, error) {
	file := os.NewFile(uintptr(fd), "listener")
	defer file.Close()
	l, err := net.FileListener(file)
	if err != nil {
		return nil, fmt.Errorf("descriptor %d is no listening socket: %w", fd, err)
	}
	tcp, is := l.(*net.TCPListener)
	if !is {
		_ = l.Close()
		return nil, fmt.Errorf("descriptor %d is no TCP socket: a %T", fd, l)
	}
	return tcp, nil
}

// Open makes an end of the descriptor of a connected stream socket, and owns it from then on.
func Open(fd int) (*Conn, error) {
	file := os.NewFile(uintptr(fd), "handover")
	defer file.Close()
	conn, err := net.FileConn(file)
	if err != nil {
		return nil, fmt.Errorf("descriptor %d is nothing to take over from: %w", fd, err)
	}
	socket, isUnix := conn.(*net.UnixConn)
	if !isUnix {
		_ = conn.Close()
		return nil, fmt.Errorf("descriptor %d is nothing to take over from: a %T", fd, conn)
	}
	return New(socket), nil
}
