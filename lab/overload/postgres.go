package overload

import (
	"encoding/binary"
	"io"
	"net"
	"time"
)

// Codes of first packets (protocol 3, "Message Formats").
const (
	codeSSL    = 80877103
	codeGSS    = 80877104
	codeCancel = 80877102
)

// welcome is AuthenticationOk and ReadyForQuery in an idle transaction.
var welcome = []byte{'R', 0, 0, 0, 8, 0, 0, 0, 0, 'Z', 0, 0, 0, 5, 'I'}

// postgres is a backend: whoever comes costs a fork.
func (m *Member) postgres(conn net.Conn) {
	m.forks.Lock()
	m.work(costBackend)
	m.forks.Unlock()
	if !session(conn) {
		m.cluster.mu.Lock()
		defer m.cluster.mu.Unlock()
		m.counts.Knocks = append(m.counts.Knocks, time.Now())
	}
}

func (m *Member) pgbouncer(conn net.Conn) { session(conn) }

// session declines encryption, lets a client in and keeps it until it leaves; false says that it never asked for a session.
func session(conn net.Conn) bool {
	for {
		var head [8]byte
		if _, err := io.ReadFull(conn, head[:]); err != nil {
			return false
		}
		length, code := binary.BigEndian.Uint32(head[:]), binary.BigEndian.Uint32(head[4:])
		if length < 8 {
			return false
		}
		if _, err := io.CopyN(io.Discard, conn, int64(length)-8); err != nil {
			return false
		}
		switch code {
		case codeSSL, codeGSS:
			if _, err := conn.Write([]byte{'N'}); err != nil {
				return false
			}
			continue
		case codeCancel:
			return true
		}
		if _, err := conn.Write(welcome); err == nil {
			_, _ = io.Copy(io.Discard, conn)
		}
		return true
	}
}
