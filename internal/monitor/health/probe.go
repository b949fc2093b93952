package health

import (
	"context"
	"crypto/tls"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strconv"
	"syscall"
	"time"

	"github.com/pires/go-proxyproto"
)

// DestinationOf is the target of a probe of a member's port, which wants to be spoken to in a version of the PROXY protocol (0
// for none).
func DestinationOf(member, host string, port int, proxy byte) Target {
	return Target{Member: member, Base: net.JoinHostPort(host, strconv.Itoa(port)), Proxy: proxy}
}

// Probe is the CheckFunc of destinations. It sends an SSLRequest, which PostgreSQL and its poolers answer with a byte before
// anything else, also when they are full, starting or stopping: PostgreSQL's postmaster has to have forked for it, PgBouncer's
// only loop to have come round. Whatever byte comes is an answer. The outcome is the zero one then, and silence otherwise;
// Accepted says that there was a connection.
func Probe(ctx context.Context, t Target) Outcome {
	conn, err := new(net.Dialer).DialContext(ctx, "tcp", t.Base)
	if err != nil {
		return silent(err, plainly(err), false)
	}
	defer conn.Close()
	defer context.AfterFunc(ctx, func() { _ = conn.SetDeadline(time.Unix(1, 0)) })()
	packet, err := announced(t.Proxy)
	if err != nil {
		return Outcome{Silence: err.Error()}
	}
	answer := make([]byte, 1)
	if _, err = conn.Write(packet); err == nil {
		_, err = io.ReadFull(conn, answer)
	}
	if err != nil {
		return Outcome{Silence: plainly(err), Accepted: true}
	}
	if answer[0] == 'S' {
		secure(ctx, conn)
	}
	return Outcome{}
}

// secure finishes what an answer of 'S' begins. PostgreSQL writes a line into its log for each client that leaves before the handshake has
// ended, and none for one that leaves after it. Whose certificate it is doesn't matter: nothing is said to it.
func secure(ctx context.Context, conn net.Conn) {
	ctx, cancel := context.WithTimeout(ctx, time.Second)
	defer cancel()
	secured := tls.Client(conn, &tls.Config{InsecureSkipVerify: true})
	if secured.HandshakeContext(ctx) == nil {
		_ = secured.Close()
	}
}

// announced is the SSLRequest, behind a header that says that the connection is the proxy's own (the PROXY protocol's LOCAL).
func announced(proxy byte) ([]byte, error) {
	if proxy == 0 {
		return sslRequest(), nil
	}
	header, err := (&proxyproto.Header{Version: proxy, Command: proxyproto.LOCAL, TransportProtocol: proxyproto.UNSPEC}).Format()
	if err != nil {
		return nil, fmt.Errorf("a PROXY header of version %d: %w", proxy, err)
	}
	return append(header, sslRequest()...), nil
}

// sslRequest is the packet (PostgreSQL documentation, "Message Formats"): its length and a code.
func sslRequest() []byte {
	const length, code = 8, 1234<<16 | 5679
	return binary.BigEndian.AppendUint32(binary.BigEndian.AppendUint32(nil, length), code)
}

// plainly is a network error without the addresses.
func plainly(err error) string {
	var errno syscall.Errno
	switch {
	case errors.Is(err, os.ErrDeadlineExceeded), errors.Is(err, context.DeadlineExceeded):
		return "timed out"
	case errors.As(err, &errno):
		return errno.Error()
	case errors.Is(err, io.EOF):
		return "closed the connection"
	}
	return err.Error()
}
