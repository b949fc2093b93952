package handover

import (
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// Copy gives a copy of another process's descriptor (pidfd_getfd(2)), which is the caller's to close. It takes the rights to trace that
// process: root's, as a rule. Flags such as O_NONBLOCK are the socket's, and so that process's, too: they may not be changed.
func Copy(pid, fd int) (int, error) {
	process, err := unix.PidfdOpen(pid, 0)
	if err != nil {
		return -1, os.NewSyscallError("pidfd_open", err)
	}
	defer unix.Close(process)
	own, err := unix.PidfdGetfd(process, fd, 0)
	if err != nil {
		return -1, os.NewSyscallError("pidfd_getfd", err)
	}
	return own, nil
}

// Share has a listening socket bear another one of this process's user beside it, at the same address (SO_REUSEPORT): the kernel lets two
// users have none in common, and goes by whose the socket's inode is.
func Share(fd int) error {
	if err := unix.Fchown(fd, os.Geteuid(), os.Getegid()); err != nil {
		return os.NewSyscallError("fchown", err)
	}
	return os.NewSyscallError("SO_REUSEPORT", unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_REUSEPORT, 1))
}

// ErrAlone says that a socket shares its address with no other.
var ErrAlone = errors.New("the socket shares its address with no other")

// Which of the sockets that share an address gets new connections: the one that was there first, or the one that came next.
const (
	First = 0
	Next  = 1
)

// Steer has all new connections of the sockets that share an address go to one of them (SO_ATTACH_REUSEPORT_CBPF: the program
// gives a constant). Handshakes that are under way end where they began.
func Steer(fd int, to int) error {
	program := []unix.SockFilter{{Code: unix.BPF_RET | unix.BPF_K, K: uint32(to)}}
	err := unix.SetsockoptSockFprog(fd, unix.SOL_SOCKET, unix.SO_ATTACH_REUSEPORT_CBPF, &unix.SockFprog{Len: 1, Filter: &program[0]})
	// What the kernel says of one that was never bound with SO_REUSEPORT hangs on its version.
	if errors.Is(err, unix.EINVAL) || errors.Is(err, unix.EOPNOTSUPP) {
		return ErrAlone
	}
	if err != nil {
		return fmt.Errorf("steering new connections: %w", os.NewSyscallError("SO_ATTACH_REUSEPORT_CBPF", err))
	}
	return nil
}
