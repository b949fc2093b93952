package proxy

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"syscall"
	"time"
)

// client is somebody who was accepted and has no session yet. What it says stays in its socket, where it is only looked
// at, until a server has taken it: whoever gets the client then, a session or a refusal, finds it as if it had just come.
// Only its own goroutine uses it, but for the waking of one that waits in the queue.
type client struct {
	conn *net.TCPConn
	raw  syscall.RawConn
	from netip.AddrPort
	// ticket is its number among all that came to the service.
	ticket uint64
	// kind and packet are its latest packet, which nobody has answered yet.
	kind   packetKind
	packet []byte
	// declined are encryption requests that a server has declined already, and toServer and toClient the bytes of that.
	declined           map[packetKind]bool
	toServer, toClient int64
	// failures are what became of servers that were tried, by member.
	failures map[string]error
	// failed is the member that failed it last; empty if none did.
	failed string
	// shared says that its socket was handed over from or to another process, which may have a descriptor of it still.
	shared bool
	// waits is since when it has waited for a server; zero before it has waited at all. It may do so until kept in any case, if that is set.
	// expired says that it has waited for long enough.
	waits, kept time.Time
	// held are the words of the View's Hold that it waited for, once that is over.
	held    string
	expired bool
	// task is what the service went by when it began to wait, which says for how long; nil before.
	task *assignment
}

var (
	// errLeft is a client's that closed its connection.
	errLeft = errors.New("the client left")
	// errSilent is a client's that didn't say in time what it wants.
	errSilent = errors.New("the client didn't say what it wants")
	// errCancel is a client's that wants no session, but a query of another one cancelled.
	errCancel = errors.New("it is a cancel request")
)

func newClient(conn *net.TCPConn, ticket uint64) *client {
	// It can't fail on a connection that was made.
	raw, _ := conn.SyscallConn()
	from := conn.RemoteAddr().(*net.TCPAddr).AddrPort()
	return &client{conn: conn, raw: raw, from: netip.AddrPortFrom(from.Addr().Unmap(), from.Port()), ticket: ticket}
}

// source is what the client is counted as where its origin counts: its address, or its network of IPv6, of which one machine has as many
// addresses as it likes.
func (c *client) source() netip.Addr {
	addr := c.from.Addr()
	if addr.Is4() || addr.IsLoopback() {
		return addr
	}
	network, _ := addr.WithZone("").Prefix(64) // every address of IPv6 has one
	return network.Addr()
}

// connection hands a socket to the runtime, which makes a descriptor of its own. If that fails lack is called, with the socket
// still open. It is closed in any case.
func connection(fd int, lack func(error)) (*net.TCPConn, error) {
	file := os.NewFile(uintptr(fd), "")
	defer file.Close()
	conn, err := net.FileConn(file)
	if err != nil {
		lack(err)
		return nil, err
	}
	tcp, is := conn.(*net.TCPConn)
	if !is {
		_ = conn.Close()
		return nil, fmt.Errorf("a %T is no TCP connection", conn)
	}
	return tcp, nil
}

// past is a deadline that has passed: it wakes whoever waits on a socket.
var past = time.Unix(1, 0)

// hear waits for the client's next packet and looks at it without taking it. It ends with errLeft, errSilent after limit,
// or the cause of ctx's end.
func (c *client) hear(ctx context.Context, limit time.Duration) error {
	c.kind, c.packet = 0, nil
	seen := make([]byte, 512)
	var failed error
	attempt := func(fd uintptr) bool {
		n, err := peek(fd, seen)
		for err == nil && n == len(seen) && n < maxStartupPacket {
			seen = make([]byte, maxStartupPacket)
			n, err = peek(fd, seen)
		}
		switch {
		case err == errNothingYet:
			return false
		case err != nil || n == 0:
			failed = errLeft
			return true
		}
		var whole bool
		c.kind, c.packet, whole = peekedPacket(seen[:n])
		if !whole && hasLeft(fd) {
			failed, whole = errLeft, true
		}
		return whole
	}
	_ = c.conn.SetReadDeadline(time.Now().Add(limit))
	woken := make(chan struct{})
	stop := context.AfterFunc(ctx, func() {
		_ = c.conn.SetReadDeadline(past)
		close(woken)
	})
	err := c.raw.Read(attempt)
	if !stop() {
		// The deadline must not come over whoever is the next to read from the client.
		<-woken
		return context.Cause(ctx)
	}
	_ = c.conn.SetReadDeadline(time.Time{})
	switch {
	case errors.Is(err, os.ErrDeadlineExceeded):
		return errSilent
	case err != nil:
		return errLeft
	}
	return failed
}

// peekedPacket says what the bytes that a client has sent begin with; false if that can't be told yet.
func peekedPacket(seen []byte) (what packetKind, packet []byte, whole bool) {
	switch {
	case len(seen) > 0 && seen[0] != 0:
		return notStartup, nil, true
	case len(seen) < 8:
		return 0, nil, false
	}
	length, code := binary.BigEndian.Uint32(seen[:4]), binary.BigEndian.Uint32(seen[4:])
	switch {
	case length < 8 || length > maxStartupPacket:
		return notStartup, nil, true
	case int(length) > len(seen):
		return 0, nil, false
	}
	what, err := kindOf(code, seen[8:length])
	if err != nil {
		return notStartup, nil, true
	}
	return what, seen[:length], true
}

// take removes the packet from the client's socket, now that it was passed on. It doesn't block: the bytes are there.
func (c *client) take() error {
	if _, err := io.CopyN(io.Discard, c.conn, int64(len(c.packet))); err != nil {
		return errLeft
	}
	return nil
}

// decline tells the client that its encryption request was declined by a server, and waits for what it says to that.
func (c *client) decline(ctx context.Context, limit time.Duration) error {
	if err := c.take(); err != nil {
		return err
	}
	c.noteDeclined()
	if _, err := c.conn.Write([]byte{declined}); err != nil {
		return errLeft
	}
	return c.hear(ctx, limit)
}

// noteDeclined counts the client's packet, an encryption request, as one that was taken and declined.
func (c *client) noteDeclined() {
	if c.declined == nil {
		c.declined = map[packetKind]bool{}
	}
	c.declined[c.kind] = true
	c.toServer += int64(len(c.packet))
	c.toClient++
}

// noteFailure keeps in mind what became of a server that was tried.
func (c *client) noteFailure(member string, err error) {
	if c.failures == nil {
		c.failures = map[string]error{}
	}
	c.failures[member] = err
	c.failed = member
}

// close closes the connection, whoever else has descriptors of its socket.
func (c *client) close() {
	if c.shared {
		// With one of those open closing wouldn't end the stream.
		_ = c.conn.CloseWrite()
	}
	_ = c.conn.Close()
}

// left tells whether the client has closed its side, however much of what it sent is still unread.
func (c *client) left() bool {
	gone := true
	_ = c.raw.Control(func(fd uintptr) { gone = hasLeft(fd) })
	return gone
}

// wake ends awaitTurn.
func (c *client) wake() { _ = c.conn.SetReadDeadline(past) }

// awaitTurn waits until the client is woken or its time is up, and returns errLeft as soon as it has left.
func (c *client) awaitTurn() error {
	err := c.raw.Read(func(fd uintptr) bool { return hasLeft(fd) })
	if err == nil || !errors.Is(err, os.ErrDeadlineExceeded) {
		return errLeft
	}
	if c.left() {
		return errLeft
	}
	return nil
}
