package throughput

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"sync"
	"time"
)

// The trivial server speaks of PostgreSQL's protocol 3 what it takes to open a session and no more: it answers a startup
// message with AuthenticationOk and ReadyForQuery, and the database that is asked for says what follows:
//
//	idle          nothing: the session lasts until the client sends Terminate or leaves
//	pour:TIME     the server sends bytes for so long, and then ends its stream
//	swallow       the client sends bytes and ends its stream; the server answers with how many they were (8 bytes, big-endian)

// welcome is AuthenticationOk and ReadyForQuery in an idle transaction.
var welcome = []byte{'R', 0, 0, 0, 8, 0, 0, 0, 0, 'Z', 0, 0, 0, 5, 'I'}

// terminate is the message with which a client takes its leave.
var terminate = []byte{'X', 0, 0, 0, 4}

// chunk is what the trivial ends of a bulk stream read and write at once, in bytes.
const chunk = 256 << 10

// startup makes a startup message of protocol 3.0.
func startup(user, database string) []byte {
	body := "user\x00" + user + "\x00database\x00" + database + "\x00\x00"
	message := binary.BigEndian.AppendUint32(nil, uint32(8+len(body)))
	message = binary.BigEndian.AppendUint32(message, 3<<16)
	return append(message, body...)
}

// database reads a startup message and gives the database that it asks for.
func database(in io.Reader, buffer []byte) (string, error) {
	if _, err := io.ReadFull(in, buffer[:8]); err != nil {
		return "", err
	}
	length, code := int(binary.BigEndian.Uint32(buffer)), binary.BigEndian.Uint32(buffer[4:])
	if length < 9 || length > len(buffer) || code != 3<<16 {
		return "", fmt.Errorf("no startup message of protocol 3.0: length %d, code %d", length, code)
	}
	if _, err := io.ReadFull(in, buffer[8:length]); err != nil {
		return "", err
	}
	fields := strings.Split(string(buffer[8:length]), "\x00")
	for i := 0; i+1 < len(fields); i += 2 {
		if fields[i] == "database" {
			return fields[i+1], nil
		}
	}
	return "", errors.New("the startup message names no database")
}

// Serve is the trivial server: it serves whoever comes to the listener until ctx ends, and closes it.
func Serve(ctx context.Context, listener net.Listener) error {
	var sessions sync.WaitGroup
	defer sessions.Wait()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	defer context.AfterFunc(ctx, func() { listener.Close() })()
	for {
		conn, err := listener.Accept()
		if err != nil {
			if ctx.Err() != nil {
				return nil
			}
			return err
		}
		sessions.Go(func() {
			defer conn.Close()
			defer context.AfterFunc(ctx, func() { conn.Close() })()
			serve(conn) //nolint:errcheck // whoever measures sees that the session failed
		})
	}
}

// serve serves one session to its end.
func serve(conn net.Conn) error {
	var small [256]byte
	asked, err := database(conn, small[:])
	if err != nil {
		return err
	}
	if _, err := conn.Write(welcome); err != nil {
		return err
	}
	what, argument, _ := strings.Cut(asked, ":")
	switch what {
	case "idle":
		_, err := io.ReadFull(conn, small[:len(terminate)])
		return err
	case "pour":
		duration, err := time.ParseDuration(argument)
		if err != nil {
			return err
		}
		return pour(conn, duration)
	case "swallow":
		swallowed, err := swallow(conn)
		if err != nil {
			return err
		}
		_, err = conn.Write(binary.BigEndian.AppendUint64(nil, uint64(swallowed)))
		return err
	}
	return fmt.Errorf("nothing is called %q", asked)
}

// pour sends bytes for a time.
func pour(to io.Writer, duration time.Duration) error {
	bytes := make([]byte, chunk)
	for end := time.Now().Add(duration); time.Now().Before(end); {
		if _, err := to.Write(bytes); err != nil {
			return err
		}
	}
	return nil
}

// swallow reads to the end and gives how many bytes came.
func swallow(from io.Reader) (int64, error) {
	bytes := make([]byte, chunk)
	var all int64
	for {
		n, err := from.Read(bytes)
		all += int64(n)
		switch {
		case errors.Is(err, io.EOF):
			return all, nil
		case err != nil:
			return all, err
		}
	}
}
