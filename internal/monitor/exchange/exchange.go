// Package exchange puts many short requests over TCP at once: connect, send, receive until the answer is whole, close.
//
// A Loop is one goroutine over epoll(7), whatever the number of exchanges: a goroutine for each of them costs several times what
// the exchange does. It knows bytes and no protocol; More says when an answer is whole. It bounds each exchange's time and bytes, not
// how many there are: that is up to whoever starts them.
//
// While there is something to do the loop takes a nap between its rounds, so that one round serves what came in meanwhile: what
// would be a wake-up of a thread for each packet is one for all.
//
// There is one on Linux alone. Elsewhere New fails with errors.ErrUnsupported, and whoever asks does without.
package exchange

import (
	"net/netip"
	"time"

	"github.com/pgporter/pgporter/internal/beat"
)

// Request is what is sent, and what becomes of the answer.
type Request struct {
	To netip.AddrPort
	// Send is sent once there is a connection. It isn't changed.
	Send []byte
	// Connect bounds how long the connection may take, Within all of it from Start on. A Connect of 0 is as long as Within.
	Connect, Within time.Duration
	// Keepalive has the kernel look whether the host is still there while the answer is late.
	Keepalive bool
	// Most bounds how many bytes are received; with as many the exchange ends as with the peer's end.
	Most int
	// More gives how many bytes are missing at least, by those received so far: 0 if the answer is whole, UntilClosed if only the
	// peer's end says so. The loop waits for it.
	More func(received []byte) int
	// Keep, if it isn't nil, says of a whole answer that the connection is to be used further: see Result.Socket.
	Keep func(received []byte) bool
	// Done is called once, when the exchange has ended. The loop waits for it.
	Done func(Result)
}

// UntilClosed says that an answer ends with its connection.
const UntilClosed = 1<<63 - 1

// Result is what came of an exchange.
type Result struct {
	// Received is valid until Done returns.
	Received []byte
	// Connected says that the peer had taken the connection.
	Connected bool
	// Socket is a connection that was to be kept, and its receiver's to close; -1 if there is none.
	Socket int
	// Err is nil if the answer is whole by More, or there were Most bytes; io.EOF if the peer closed the connection;
	// context.DeadlineExceeded after Within; what the context says if that has ended; otherwise a *net.OpError with a syscall.Errno, or
	// os.ErrDeadlineExceeded after Connect.
	Err error
}

// BeatGap is how long a loop that nothing happens to takes for a round.
const BeatGap = beat.Gap
