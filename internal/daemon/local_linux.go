package daemon

import (
	"net"
	"os"

	"golang.org/x/sys/unix"
)

// abstractSockets says that there are sockets with names that are no files (unix(7)).
const abstractSockets = true

// peerOf is whose a connection's other end is, and its process (unix(7), SO_PEERCRED).
func peerOf(conn *net.UnixConn) (user, pid int, err error) {
	raw, err := conn.SyscallConn()
	if err != nil {
		return -1, 0, err
	}
	var who *unix.Ucred
	if outer := raw.Control(func(fd uintptr) { who, err = unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED) }); outer != nil {
		return -1, 0, outer
	}
	if err != nil {
		return -1, 0, os.NewSyscallError("SO_PEERCRED", err)
	}
	return int(who.Uid), int(who.Pid), nil
}
