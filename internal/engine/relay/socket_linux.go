package relay

import (
	"syscall"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// duplicate gives a second descriptor of a socket.
func duplicate(fd uintptr) (int, error) {
	return unix.FcntlInt(fd, unix.F_DUPFD_CLOEXEC, 0)
}

// PrepareListener sets a listening socket's options to what a flow's sockets need: those that it accepts have them from then
// on. Setting them again does no harm.
func PrepareListener(fd int) { prepare(fd) }

// prepare sets a socket's options. They fail only on one that is dead already, which the first read says better.
func prepare(fd int) {
	option(fd, unix.IPPROTO_TCP, unix.TCP_NODELAY, 1)
	option(fd, unix.SOL_SOCKET, unix.SO_KEEPALIVE, 1)
	option(fd, unix.IPPROTO_TCP, unix.TCP_KEEPIDLE, int32(keepAliveIdle/time.Second))
	option(fd, unix.IPPROTO_TCP, unix.TCP_KEEPINTVL, int32(keepAliveInterval/time.Second))
	option(fd, unix.IPPROTO_TCP, unix.TCP_KEEPCNT, int32(keepAliveCount))
}

// option is setsockopt(2) with a number.
func option(fd, level, name int, value int32) {
	_, _, _ = unix.RawSyscall6(unix.SYS_SETSOCKOPT, uintptr(fd), uintptr(level), uintptr(name), uintptr(unsafe.Pointer(&value)), unsafe.Sizeof(value), 0)
}

// Receive and Send are recv(2) and send(2) on a socket of a flow that hasn't begun. They never wait, and p isn't empty.
func Receive(fd int, p []byte) (int, error) { return outcome(receive(fd, p)) }

// Send is Receive's counterpart.
func Send(fd int, p []byte) (int, error) { return outcome(send(fd, p)) }

func outcome(n int, err syscall.Errno) (int, error) {
	if err != 0 {
		return n, err
	}
	return n, nil
}

// receive and send are recv(2) and send(2) on a non-blocking socket. They don't tell the scheduler, which has nothing to gain
// from calls that never wait: that is a good part of what they would cost. p isn't empty.
func receive(fd int, p []byte) (int, syscall.Errno) {
	return transfer(unix.SYS_RECVFROM, fd, p, unix.MSG_DONTWAIT)
}

func send(fd int, p []byte) (int, syscall.Errno) {
	return transfer(unix.SYS_SENDTO, fd, p, unix.MSG_DONTWAIT|unix.MSG_NOSIGNAL)
}

func transfer(call uintptr, fd int, p []byte, flags uintptr) (int, syscall.Errno) {
	for {
		n, _, err := unix.RawSyscall6(call, uintptr(fd), uintptr(unsafe.Pointer(&p[0])), uintptr(len(p)), flags, 0, 0)
		if err == 0 {
			return int(n), 0
		}
		if err != unix.EINTR {
			return 0, err
		}
	}
}

// endStream is shutdown(2) of our stream, and closeAtOnce close(2), where neither waits: they don't tell the scheduler either.
func endStream(fd int) {
	_, _, _ = unix.RawSyscall(unix.SYS_SHUTDOWN, uintptr(fd), unix.SHUT_WR, 0)
}

func closeAtOnce(fd int) {
	_, _, _ = unix.RawSyscall(unix.SYS_CLOSE, uintptr(fd), 0, 0)
}

// disconnect resets a connection at once, whoever else has descriptors of it: connect(2) with AF_UNSPEC.
func disconnect(fd int) {
	unspecified := unix.RawSockaddr{Family: unix.AF_UNSPEC}
	_, _, _ = unix.RawSyscall(unix.SYS_CONNECT, uintptr(fd), uintptr(unsafe.Pointer(&unspecified)), unsafe.Sizeof(unspecified))
}

// finish ends our stream to a peer and closes once the peer's kernel has all of it. Closing at once would lose bytes if
// the peer has sent something that nobody read: the kernel answers that with a reset.
func finish(fd int, limit time.Duration) {
	_ = unix.Shutdown(fd, unix.SHUT_WR)
	delivered(fd, limit)
	_ = unix.Close(fd)
}

// delivered waits until the peer's kernel has everything that was written, or the limit is over. No event tells of that, so
// it looks again and again.
func delivered(fd int, limit time.Duration) {
	for wait := 100 * time.Microsecond; limit > 0 && !isDead(fd) && unacknowledged(fd) > 0; wait = min(2*wait, 5*time.Millisecond) {
		time.Sleep(wait)
		limit -= wait
	}
}

// unacknowledged gives the bytes (and the end of stream, as one) that the peer's kernel hasn't acknowledged: tcp(7), SIOCOUTQ.
func unacknowledged(fd int) int {
	n, _ := unix.IoctlGetInt(fd, unix.SIOCOUTQ)
	return n
}

// tcpClose is the kernel's number of the state of a connection that is over (include/net/tcp_states.h, TCP_CLOSE).
const tcpClose = 7

// isDead tells whether a connection is over at both ends, as a reset or a timeout leaves it.
func isDead(fd int) bool {
	info, err := unix.GetsockoptTCPInfo(fd, unix.IPPROTO_TCP, unix.TCP_INFO)
	return err == nil && info.State == tcpClose
}
