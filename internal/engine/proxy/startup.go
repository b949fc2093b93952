package proxy

import (
	"encoding/binary"
	"fmt"
	"io"
)

// packetKind is what a client's packet before authentication asks for (PostgreSQL documentation, "Message Formats": these
// packets have a length and a code, but no type byte).
type packetKind int

const (
	startupMessage packetKind = iota + 1
	sslRequest
	gssEncRequest
	cancelRequest
	// notStartup is what is no packet of PostgreSQL's protocol 3: TLS that was started without a request, or anything else. It
	// is the server's to answer.
	notStartup
)

// declined is how a server says no to a request for encryption.
const declined = 'N'

const (
	sslRequestCode    = 1234<<16 | 5679
	gssEncRequestCode = 1234<<16 | 5680
	cancelRequestCode = 1234<<16 | 5678

	protocolMajor = 3
	// maxStartupPacket is PostgreSQL's MAX_STARTUP_PACKET_LENGTH.
	maxStartupPacket = 10000
	// maxCancelKey is the longest key of a CancelRequest (protocol 3.2).
	maxCancelKey = 256
)

// readPacket reads one packet to its end and says what it is. It never reads beyond it. Anything that isn't a packet of
// PostgreSQL's protocol 3 is an error, TLS that was started without a request included.
func readPacket(in io.Reader) (packetKind, error) {
	var head [8]byte
	// The first byte of a length that is allowed is 0. Knowing so before the rest has come keeps nobody waiting.
	if _, err := io.ReadFull(in, head[:1]); err != nil {
		return 0, err
	}
	if head[0] != 0 {
		return 0, fmt.Errorf("starts with byte 0x%02x, which no packet of PostgreSQL's startup does", head[0])
	}
	if _, err := io.ReadFull(in, head[1:]); err != nil {
		return 0, err
	}
	length, code := binary.BigEndian.Uint32(head[:4]), binary.BigEndian.Uint32(head[4:])
	if length < 8 || length > maxStartupPacket {
		return 0, fmt.Errorf("startup packet of %d bytes, 8 to %d are allowed", length, maxStartupPacket)
	}
	body := make([]byte, length-8)
	if _, err := io.ReadFull(in, body); err != nil {
		return 0, err
	}
	return kindOf(code, body)
}

// kindOf says what a packet is by its code and what follows that.
func kindOf(code uint32, body []byte) (packetKind, error) {
	switch {
	case code == sslRequestCode && len(body) == 0:
		return sslRequest, nil
	case code == gssEncRequestCode && len(body) == 0:
		return gssEncRequest, nil
	case code == cancelRequestCode && len(body) >= 8 && len(body) <= 4+maxCancelKey:
		return cancelRequest, nil
	case code>>16 == protocolMajor && len(body) > 0 && body[len(body)-1] == 0:
		return startupMessage, nil
	}
	return 0, fmt.Errorf("packet with code %d and a body of %d bytes is none of PostgreSQL's startup", code, len(body))
}
