// Package relay moves bytes between two sockets. It knows nothing of services, servers or PostgreSQL.
//
// A Flow takes over the two sockets of its Pair: it alone reads, writes and closes them from Start on. What it promises:
//
//   - Bytes are exact, in order, each way on its own. The end of one side's stream is passed on as such
//     (shutdown(SHUT_WR)) while the other direction goes on for as long as it likes.
//   - When one side breaks (reset, timed out), everything received from it before is still delivered; then the other side
//     is reset too, so that a stream that was cut never looks like one that came to its end. A server that doesn't take what
//     a broken client has left is waited for only so long (abandoned.go).
//   - Memory is bounded: one buffer of 64 KiB for each direction while a slow reader has bytes waiting for it, and none
//     otherwise.
//
// On Linux a few loops, each waiting for many sockets at once, carry all flows: a byte's way from socket to socket is in
// flow.go, with a detour through splice.go where much is on its way; the waiting is in loop.go, and prepare.go lends it to whoever opens the
// connections. Elsewhere portable.go does the same with two goroutines a flow, and without Detach.
package relay

import (
	"fmt"
	"net"
	"sync"
	"syscall"
	"time"

	"github.com/pgporter/pgporter/internal/beat"
)

// Times of a flow that ends other than by both streams' ends.
const (
	// DrainLimit is how long, at most, an Abort or a reset waits for bytes to reach the side that is still there.
	DrainLimit = 200 * time.Millisecond
	// drainQuiet is how long a server has to be silent during an Abort for its bytes to count as drained.
	drainQuiet = 20 * time.Millisecond
)

// BeatGap is how long a loop that has nothing to do takes for a round.
const BeatGap = beat.Gap

// What finds a peer that vanished without a word within two minutes (tcp(7): TCP_KEEPIDLE, TCP_KEEPINTVL, TCP_KEEPCNT). While
// bytes are on their way to it the kernel tries to bring them instead, for as long as net.ipv4.tcp_retries2 says: a quarter of
// an hour by default. TCP_USER_TIMEOUT would cut that short, and every reader who takes longer breaks with it.
//
// Variables, so that a test needn't wait for them.
var (
	keepAliveIdle     = time.Minute
	keepAliveInterval = 10 * time.Second
	keepAliveCount    = 6
)

// Pair is two connected sockets and how far their streams have come: all that is needed to begin a flow, or to go on with
// one that was detached.
type Pair struct {
	// Client and Server are non-blocking descriptors (see Descriptor).
	Client, Server int
	// ClientPrepared says that the client's socket comes from a listening one that PrepareListener has seen.
	ClientPrepared bool
	// Shared says that somebody else may have descriptors of the same sockets: another process, to which they were or are being
	// handed over. For as long as any descriptor of a socket is open, closing another one neither ends its streams nor takes it
	// out of an epoll.
	Shared bool
	// ToServer and ToClient are written first, before anything is read. They are not changed.
	ToServer, ToClient []byte
	// ClientEnded and ServerEnded say that a side's stream has come to its end, which is passed on after the bytes above.
	ClientEnded, ServerEnded bool
	// SentToServer and SentToClient are bytes that were brought to each side before the flow; they are counted as its own.
	SentToServer, SentToClient int64
}

// End is how a flow went.
type End struct {
	// Cause is nil if both streams came to their ends in order, what Abort was given if that ended the flow, and
	// otherwise an error that says which side broke and how.
	Cause error
	// Aborted says that Abort ended it. ClientBroke and ServerBroke say that a side's stream was cut (reset, timed out), by that side or
	// on the way. None is set of a flow that was Aborted but the first.
	Aborted, ClientBroke, ServerBroke bool
	// ServerFirst says that the server's stream was over, in order or not, before the client's.
	ServerFirst bool
	// ToServer and ToClient are the bytes that were written to each side.
	ToServer, ToClient int64
}

// Descriptor takes a connection out of the runtime's hands: it is closed, but what it was lives on, non-blocking, under the
// descriptor that is given. On an error the connection is untouched.
func Descriptor(conn *net.TCPConn) (int, error) {
	raw, err := conn.SyscallConn()
	if err != nil {
		return -1, err
	}
	fd := -1
	if controlErr := raw.Control(func(own uintptr) { fd, err = duplicate(own) }); controlErr != nil {
		return -1, controlErr
	}
	if err != nil {
		return -1, fmt.Errorf("duplicating a socket: %w", err)
	}
	// With a second descriptor open the connection itself isn't closed.
	_ = conn.Close()
	return fd, nil
}

// Discard closes a descriptor that was taken and isn't needed.
func Discard(fd int) { _ = syscall.Close(fd) }

// bufferSize bounds what a direction holds.
const bufferSize = 64 << 10

type buffer = [bufferSize]byte

var buffers = sync.Pool{New: func() any { return new(buffer) }}

// broken says which side failed, and how.
func broken(side, call string, err syscall.Errno) error {
	return fmt.Errorf("%s: %s: %w", side, call, err)
}
