//go:build linux && !portable

package relay

import (
	"syscall"

	"golang.org/x/sys/unix"
)

// splicePipe is a pipe(2) through which bytes of a bulk stream go from socket to socket without being copied to this process and back
// (splice(2)). A loop has one. It is empty between two steps, so nothing of a flow is ever left in it.
type splicePipe struct {
	// in and out are -1 where there is no pipe: everything is copied then.
	in, out int
}

// pipeBytes is how much a pipe is asked to hold, in bytes. A page in it takes a slot of one, however little of it is used: with
// Linux's default of 16 slots a splice would bring a fraction of a buffer.
const pipeBytes = 16 * bufferSize

// newSplicePipe makes a pipe. Without one, for want of descriptors say, the loop copies.
func newSplicePipe() splicePipe {
	var ends [2]int
	if unix.Pipe2(ends[:], unix.O_NONBLOCK|unix.O_CLOEXEC) != nil {
		return splicePipe{-1, -1}
	}
	// A smaller one does as well.
	_, _ = unix.FcntlInt(uintptr(ends[1]), unix.F_SETPIPE_SZ, pipeBytes)
	return splicePipe{in: ends[1], out: ends[0]}
}

func (d *splicePipe) close() {
	if d.in >= 0 {
		_, _ = unix.Close(d.in), unix.Close(d.out)
		d.in, d.out = -1, -1
	}
}

// fill takes what a socket has received, at most a buffer full: 0 is the stream's end, EAGAIN that there is nothing, EINVAL that
// sockets of its kind can't be spliced.
func (d *splicePipe) fill(from int) (int, syscall.Errno) { return spliced(from, d.in, bufferSize) }

// pour gives a socket what it takes of the n bytes in the pipe, and says how many it took. The rest is in p[:n-taken] then, and the
// pipe is empty. err is what the socket said in the end: the kernel tells of a reset only once, so no write would say so again. A
// reset that meets a splice between two of its parts isn't told at all (fs/splice.c, splice_to_socket: what was moved is told instead),
// and EPIPE is what follows, as after an end in order. If the rest can't be had, the pipe is lost, and whole is false: bytes are missing.
func (d *splicePipe) pour(to, n int, p []byte) (taken int, whole bool, err syscall.Errno) {
	for taken < n && err == 0 {
		var m int
		if m, err = spliced(d.out, to, n-taken); err == 0 && m == 0 {
			break
		}
		taken += m
	}
	for rest := p[:n-taken]; len(rest) > 0; {
		m, err := unix.Read(d.out, rest)
		if err == unix.EINTR {
			continue
		}
		if err != nil || m == 0 {
			d.close()
			return taken, false, 0
		}
		rest = rest[m:]
	}
	return taken, true, err
}

// spliced is splice(2), without waiting.
func spliced(from, to, most int) (int, syscall.Errno) {
	for {
		n, _, err := unix.RawSyscall6(unix.SYS_SPLICE, uintptr(from), 0, uintptr(to), 0, uintptr(most), unix.SPLICE_F_MOVE|unix.SPLICE_F_NONBLOCK)
		if err == 0 {
			return int(n), 0
		}
		if err != unix.EINTR {
			return 0, err
		}
	}
}
