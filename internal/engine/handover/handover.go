//go:build unix

// Package handover passes open sockets, with what has to be known of them, from one process to another.
//
// It owns the wire format, and how one process starts the other (Start, Predecessor): what an Item of some kind means is its
// sender's and its receiver's affair. The two may be different releases. So each message says which version it is written in,
// a receiver knows the newest and the one before, and a body is JSON, whose unknown fields are passed over.
//
// A message is a head of 12 bytes (the letters PGPH, version, number of descriptors and length of the body, big-endian),
// with which the descriptors travel (unix(7), SCM_RIGHTS), and a body: the items as a JSON array. The receiver answers
// each with the message's number. Unanswered descriptors count against the sender's limit of open files, so no message is
// sent before the one before it was answered.
package handover

import (
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"syscall"
	"time"
)

// Version is the newest version of the wire format, Oldest the oldest that is still read.
const (
	Version = 1
	Oldest  = 1
)

const (
	magic    = "PGPH"
	headSize = 12
	// mostDescriptors is what the kernel lets one message carry (unix(7), SCM_MAX_FD).
	mostDescriptors = 253
	// mostBody bounds a message; what one session can have pending, both ways and in JSON, is a quarter of it.
	mostBody = 1 << 20
	// fullBody is from when on a message isn't filled further.
	fullBody = 256 << 10
)

// Item is something that is handed over.
type Item struct {
	Kind string `json:"kind"`
	// Body says what it is, in JSON.
	Body json.RawMessage `json:"body,omitempty"`
	// Descriptors are its open files. With Send they stay the sender's; what Receive gives is the receiver's to close. Whoever takes
	// them out of an item, to keep or to close them, leaves it without: nobody can close them a second time then.
	Descriptors []int `json:"-"`
	// Count is the number of descriptors, on the wire.
	Count int `json:"descriptors,omitempty"`
}

// Close closes the descriptors that items have, and leaves them without.
func Close(items []Item) {
	for i := range items {
		for _, fd := range items[i].Descriptors {
			_ = syscall.Close(fd)
		}
		items[i].Descriptors = nil
	}
}

// Conn is one end of a handing over.
type Conn struct {
	unix     *net.UnixConn
	sent     uint32
	received uint32
}

// New makes an end of a connected stream socket.
func New(conn *net.UnixConn) *Conn { return &Conn{unix: conn} }

// Pair makes two connected ends: one stays, the other's descriptor is for the process that is started.
func Pair() (*Conn, int, error) {
	syscall.ForkLock.RLock()
	fds, err := syscall.Socketpair(syscall.AF_UNIX, syscall.SOCK_STREAM, 0)
	if err == nil {
		syscall.CloseOnExec(fds[0])
		syscall.CloseOnExec(fds[1])
	}
	syscall.ForkLock.RUnlock()
	if err != nil {
		return nil, -1, fmt.Errorf("a socket to hand over through: %w", err)
	}
	c, err := Open(fds[0])
	if err != nil {
		_ = syscall.Close(fds[1])
		return nil, -1, err
	}
	return c, fds[1], nil
}

// SetDeadline bounds how long Send and Receive wait.
func (c *Conn) SetDeadline(t time.Time) error { return c.unix.SetDeadline(t) }

// Interrupt ends what Send and Receive wait for now, and all that they would wait for until the next SetDeadline.
func (c *Conn) Interrupt() { _ = c.unix.SetDeadline(time.Unix(1, 0)) }

// Close ends it.
func (c *Conn) Close() error { return c.unix.Close() }

// Send brings items to the other process, in as many messages as it takes, and returns when the last was answered.
func (c *Conn) Send(items ...Item) error {
	for len(items) > 0 {
		n, body, descriptors, err := pack(items)
		if err != nil {
			return err
		}
		if err := c.send(body, descriptors); err != nil {
			return fmt.Errorf("handing over: %w", err)
		}
		items = items[n:]
	}
	return nil
}

// pack puts as many items into a message as it should hold.
func pack(items []Item) (n int, body []byte, descriptors []int, err error) {
	body = append(body, '[')
	for ; n < len(items) && len(body) < fullBody && len(descriptors)+len(items[n].Descriptors) <= mostDescriptors; n++ {
		item := items[n]
		item.Count = len(item.Descriptors)
		text, err := json.Marshal(item)
		if err != nil {
			return 0, nil, nil, fmt.Errorf("handing over a %s: %w", item.Kind, err)
		}
		if n > 0 {
			if len(body)+len(text) > mostBody-2 {
				break
			}
			body = append(body, ',')
		}
		body = append(body, text...)
		descriptors = append(descriptors, item.Descriptors...)
	}
	body = append(body, ']')
	if n == 0 || len(body) > mostBody {
		return 0, nil, nil, fmt.Errorf("handing over a %s: it has %d descriptors and %d bytes, at most %d and %d fit", items[0].Kind, len(items[0].Descriptors), len(body), mostDescriptors, mostBody)
	}
	return n, body, descriptors, nil
}

func (c *Conn) send(body []byte, descriptors []int) error {
	head := append(make([]byte, 0, headSize), magic...)
	head = binary.BigEndian.AppendUint16(head, Version)
	head = binary.BigEndian.AppendUint16(head, uint16(len(descriptors)))
	head = binary.BigEndian.AppendUint32(head, uint32(len(body)))
	var rights []byte
	if len(descriptors) > 0 {
		rights = syscall.UnixRights(descriptors...)
	}
	if _, _, err := c.unix.WriteMsgUnix(head, rights, nil); err != nil {
		return err
	}
	if _, err := c.unix.Write(body); err != nil {
		return err
	}
	c.sent++
	var answer [4]byte
	if _, err := io.ReadFull(c.unix, answer[:]); err != nil {
		return fmt.Errorf("the answer to message %d: %w", c.sent, err)
	}
	if n := binary.BigEndian.Uint32(answer[:]); n != c.sent {
		return fmt.Errorf("the answer to message %d has number %d", c.sent, n)
	}
	return nil
}

// Receive takes the next message. The other side goes on when it is answered, which happens here. io.EOF means that the
// other side has closed between messages.
func (c *Conn) Receive() ([]Item, error) {
	head := make([]byte, headSize)
	rights := make([]byte, syscall.CmsgSpace(mostDescriptors*4))
	n, length, flags, _, err := c.unix.ReadMsgUnix(head, rights)
	if n == 0 && (err == nil || errors.Is(err, io.EOF)) {
		return nil, io.EOF
	}
	if err != nil {
		return nil, fmt.Errorf("taking over: %w", err)
	}
	descriptors, err := rightsOf(rights[:length])
	if err == nil && flags&syscall.MSG_CTRUNC != 0 {
		err = errors.New("not every descriptor came: this process's limit of open files is too low")
	}
	var items []Item
	if err == nil {
		items, err = c.receive(head, n, descriptors)
	}
	if err == nil {
		c.received++
		_, err = c.unix.Write(binary.BigEndian.AppendUint32(nil, c.received))
	}
	if err != nil {
		Close([]Item{{Descriptors: descriptors}})
		return nil, fmt.Errorf("taking over: %w", err)
	}
	return items, nil
}

// receive reads the rest of a message whose head's first n bytes are there.
func (c *Conn) receive(head []byte, n int, descriptors []int) ([]Item, error) {
	if _, err := io.ReadFull(c.unix, head[n:]); err == io.EOF {
		return nil, io.ErrUnexpectedEOF
	} else if err != nil {
		return nil, err
	}
	version, count, size := binary.BigEndian.Uint16(head[4:]), binary.BigEndian.Uint16(head[6:]), binary.BigEndian.Uint32(head[8:])
	switch {
	case string(head[:4]) != magic:
		return nil, fmt.Errorf("what comes isn't from pgporter: it begins with %q", head[:4])
	case version < Oldest || version > Version:
		return nil, fmt.Errorf("the other process writes version %d of the format, this one reads %d to %d", version, Oldest, Version)
	case size > mostBody:
		return nil, fmt.Errorf("a message of %d bytes; at most %d", size, mostBody)
	case int(count) != len(descriptors):
		return nil, fmt.Errorf("a message announces %d descriptors and brings %d", count, len(descriptors))
	}
	body := make([]byte, size)
	if _, err := io.ReadFull(c.unix, body); err != nil {
		return nil, err
	}
	return unpack(body, descriptors)
}

// unpack reads a body and gives each item its descriptors.
func unpack(body []byte, descriptors []int) ([]Item, error) {
	var items []Item
	if err := json.Unmarshal(body, &items); err != nil {
		return nil, fmt.Errorf("a message's body: %w", err)
	}
	rest := descriptors
	for i := range items {
		item := &items[i]
		if item.Count < 0 || item.Count > len(rest) {
			return nil, fmt.Errorf("a %s has %d descriptors, and %d are left", item.Kind, item.Count, len(rest))
		}
		item.Descriptors, rest = rest[:item.Count:item.Count], rest[item.Count:]
	}
	if len(rest) > 0 {
		return nil, fmt.Errorf("%d descriptors belong to nothing", len(rest))
	}
	return items, nil
}

// rightsOf gives the descriptors that came with a message. They are given along with an error, too.
func rightsOf(control []byte) ([]int, error) {
	if len(control) == 0 {
		return nil, nil
	}
	messages, err := syscall.ParseSocketControlMessage(control)
	if err != nil {
		return nil, fmt.Errorf("descriptors: %w", err)
	}
	var all []int
	for _, m := range messages {
		if m.Header.Level != syscall.SOL_SOCKET || m.Header.Type != syscall.SCM_RIGHTS {
			continue
		}
		fds, parseErr := syscall.ParseUnixRights(&m)
		if parseErr != nil {
			err = fmt.Errorf("descriptors: %w", parseErr)
		}
		all = append(all, fds...)
	}
	return all, err
}
