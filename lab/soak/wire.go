package soak

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"

	"github.com/jackc/pgx/v5/pgproto3"
)

// What a session is for is the database in its startup packet.
const (
	// aimEcho: everything comes back.
	aimEcho = "echo"
	// aimBulk: bytes and a seed follow; both sides send that many at once.
	aimBulk = "bulk"
	// aimScript: seed and number follow; see script.
	aimScript = "script"
	// aimTurn: the server counts the session among those that are open until it has read a byte, and then ends it.
	aimTurn = "turn"
	// aimNothing: nothing is expected.
	aimNothing = "nothing"
)

var sslRequest = must((&pgproto3.SSLRequest{}).Encode(nil))

var cancelRequest = must((&pgproto3.CancelRequest{ProcessID: 1, SecretKey: []byte{0, 0, 0, 2}}).Encode(nil))

// greeting is the server's answer to a startup packet: AuthenticationOk.
var greeting = must((&pgproto3.AuthenticationOk{}).Encode(nil))

// startup is the packet of a session with an aim.
func startup(aim string) []byte {
	return must((&pgproto3.StartupMessage{ProtocolVersion: pgproto3.ProtocolVersion30, Parameters: map[string]string{"user": "soak", "database": aim}}).Encode(nil))
}

// must is for encoding constants, which can't fail.
func must(p []byte, err error) []byte {
	if err != nil {
		panic(err)
	}
	return p
}

// errRefused is what pgporter said to a client that it connected to nothing.
type errRefused struct{ code, message string }

func (e errRefused) Error() string { return e.message + " (SQLSTATE " + e.code + ")" }

// tooMany is the SQLSTATE too_many_connections.
const tooMany = "53300"

// greeted reads the answer to a startup packet: the greeting, or an errRefused.
func greeted(from io.Reader) error {
	got := make([]byte, len(greeting))
	if _, err := io.ReadFull(from, got[:5]); err != nil {
		return fmt.Errorf("instead of a greeting: %w", err)
	}
	if length := binary.BigEndian.Uint32(got[1:]); got[0] == 'E' && length >= 4 && length < 64<<10 {
		body := make([]byte, length-4)
		if _, err := io.ReadFull(from, body); err != nil {
			return fmt.Errorf("instead of a greeting, within an error: %w", err)
		}
		var said pgproto3.ErrorResponse
		if err := said.Decode(body); err != nil {
			return err
		}
		return errRefused{said.Code, said.Message}
	}
	if _, err := io.ReadFull(from, got[5:]); err != nil {
		return fmt.Errorf("within the greeting: %w", err)
	}
	if !bytes.Equal(got, greeting) {
		return fmt.Errorf("instead of a greeting: %x", got)
	}
	return nil
}

var (
	errCancel = errors.New("a cancel request")
	errNobody = errors.New("no startup packet")
)

// welcome reads a client's packets up to the startup packet, declining encryption, and gives the aim.
func welcome(conn io.ReadWriter) (aim string, err error) {
	for {
		var head [8]byte
		if _, err := io.ReadFull(conn, head[:]); err != nil {
			return "", errNobody
		}
		length, code := binary.BigEndian.Uint32(head[:]), binary.BigEndian.Uint32(head[4:])
		if length < 8 || length > 10000 {
			return "", fmt.Errorf("a first packet of %d bytes", length)
		}
		body := make([]byte, length-4)
		copy(body, head[4:])
		if _, err := io.ReadFull(conn, body[4:]); err != nil {
			return "", errNobody
		}
		switch code {
		case binary.BigEndian.Uint32(sslRequest[4:]):
			if _, err := conn.Write([]byte{'N'}); err != nil {
				return "", errNobody
			}
			continue
		case binary.BigEndian.Uint32(cancelRequest[4:]):
			return "", errCancel
		}
		var m pgproto3.StartupMessage
		if err := m.Decode(body); err != nil {
			return "", fmt.Errorf("a first packet that is no startup packet: %w", err)
		}
		return m.Parameters["database"], nil
	}
}
