package relay

import (
	"net"

	"golang.org/x/sys/unix"
)

// unacknowledged gives the bytes (and the end of stream, as one) that the peer's kernel hasn't acknowledged: tcp(7), SIOCOUTQ.
func unacknowledged(conn *net.TCPConn) int {
	n := 0
	control(conn, func(fd int) { n, _ = unix.IoctlGetInt(fd, unix.SIOCOUTQ) })
	return n
}

// tcpClose is the kernel's number of the state of a connection that is over (include/net/tcp_states.h, TCP_CLOSE).
const tcpClose = 7

// isDead tells whether a connection is over at both ends, as a reset or a timeout leaves it.
func isDead(conn *net.TCPConn) bool {
	dead := false
	control(conn, func(fd int) {
		info, err := unix.GetsockoptTCPInfo(fd, unix.IPPROTO_TCP, unix.TCP_INFO)
		dead = err == nil && info.State == tcpClose
	})
	return dead
}

// control runs a system call on a socket; on a closed one it doesn't.
func control(conn *net.TCPConn, call func(fd int)) {
	raw, err := conn.SyscallConn()
	if err != nil {
		return
	}
	_ = raw.Control(func(fd uintptr) { call(int(fd)) })
}
