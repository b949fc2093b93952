package dns

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"runtime"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	wire "github.com/miekg/dns"
	"golang.org/x/net/ipv4"
	"golang.org/x/net/ipv6"
)

// Bounds of what clients may take.
const (
	// maxQuestion is longer than any question that has an answer.
	maxQuestion = 4096
	// maxConnections bounds connections where nobody says how many there may be.
	maxConnections = 256
	// patience is how long a connection may take for a question, or to take its answer (RFC 7766, section 6.2.3 asks for
	// seconds).
	patience = 10 * time.Second
	// again is the pause after an error of a socket that is none of a client's, such as a lack of descriptors.
	again = 100 * time.Millisecond
)

// readers is how many goroutines read datagrams: answering takes no waiting, so more than processors would bring nothing.
func readers() int { return min(runtime.GOMAXPROCS(0), 4) }

// counts are questions since the start, by what became of them.
type counts struct {
	questions, refused, unknown, malformed, turnedAway atomic.Uint64
}

// Counts are questions since the start, by what became of them.
type Counts struct {
	// Questions are all that were answered, Refused those for names that aren't ours, Unknown those for names below ours that
	// don't exist, Malformed those that can't be read. Rejected are connections that were too many.
	Questions, Refused, Unknown, Malformed, Rejected uint64
}

// Counts gives them, and how many names there are.
func (s *Server) Counts() (c Counts, names int) {
	n := &s.counts
	c = Counts{n.questions.Load(), n.refused.Load(), n.unknown.Load(), n.malformed.Load(), n.turnedAway.Load()}
	if t := s.current.Load(); t != nil {
		names = t.catalog.Names()
	}
	return c, names
}

// open opens both sockets of an address. A port of 0 becomes one that both have.
func open(ctx context.Context, address string) (*net.TCPListener, *net.UDPConn, error) {
	asked, err := netip.ParseAddrPort(address)
	host, port, errSplit := net.SplitHostPort(address)
	if err != nil && (errSplit != nil || host != "") {
		return nil, nil, fmt.Errorf("DNS address %q: an address with a port, as in 10.10.10.10:53", address)
	}
	family := ""
	if err == nil && !asked.Addr().Unmap().Is4() {
		family = "6"
	} else if err == nil {
		family = "4"
	}
	var config net.ListenConfig
	for try := 0; ; try++ {
		tcp, err := config.Listen(ctx, "tcp"+family, address)
		if err != nil {
			return nil, nil, explained(address, err)
		}
		at := net.JoinHostPort(host, fmt.Sprint(tcp.Addr().(*net.TCPAddr).Port))
		udp, err := config.ListenPacket(ctx, "udp"+family, at)
		if err != nil {
			tcp.Close()
			if port == "0" && errors.Is(err, syscall.EADDRINUSE) && try < 10 {
				continue
			}
			return nil, nil, explained(at, err)
		}
		conn := udp.(*net.UDPConn)
		if err := noteDestination(conn); err != nil {
			tcp.Close()
			udp.Close()
			return nil, nil, fmt.Errorf("DNS address %s: %w", at, err)
		}
		return tcp.(*net.TCPListener), conn, nil
	}
}

// explained says what to do about an address that can't be had.
func explained(address string, err error) error {
	switch {
	case errors.Is(err, os.ErrPermission):
		program, _ := os.Executable()
		return fmt.Errorf("DNS address %s: %w: a port below 1024 takes root or CAP_NET_BIND_SERVICE (setcap cap_net_bind_service=+ep %s); or take another, as in --dns=:5353", address, err, program)
	case errors.Is(err, syscall.EADDRNOTAVAIL):
		return fmt.Errorf("DNS address %s: %w: it is no address of this machine", address, syscall.EADDRNOTAVAIL)
	}
	return fmt.Errorf("DNS address %s: %w", address, err)
}

// noteDestination has the kernel say which address a datagram came to: an answer has to come from there, or clients drop it.
func noteDestination(conn *net.UDPConn) error {
	err6 := ipv6.NewPacketConn(conn).SetControlMessage(ipv6.FlagDst|ipv6.FlagInterface, true)
	err4 := ipv4.NewPacketConn(conn).SetControlMessage(ipv4.FlagDst|ipv4.FlagInterface, true)
	if err6 != nil && err4 != nil {
		return err4
	}
	return nil
}

// answerDatagrams reads questions and answers them, one after the other.
func (s *Server) answerDatagrams(ctx context.Context) error {
	question := make([]byte, maxQuestion)
	for {
		n, client, err := wire.ReadFromSessionUDP(s.udp, question)
		if errors.Is(err, net.ErrClosed) || ctx.Err() != nil && errors.Is(err, os.ErrDeadlineExceeded) {
			return nil
		}
		if err != nil {
			s.log.Warn("a question could not be read", "dns", s.Address(), "error", err)
			if !pause(ctx) {
				return nil
			}
			continue
		}
		answer := s.respond(question[:n], true)
		if answer == nil {
			continue
		}
		if _, err := wire.WriteToSessionUDP(s.udp, answer, client); err != nil {
			// A client with an address that nobody can have, or a full queue: it asks again if it cares.
			s.log.Debug("an answer could not be sent", "client", client.RemoteAddr().String(), "error", err)
		}
	}
}

// respond gives the answer to a message and counts it.
func (s *Server) respond(message []byte, udp bool) []byte {
	answer, code := s.current.Load().answers.Respond(message, udp)
	n := &s.counts
	switch {
	case answer == nil:
		n.malformed.Add(1)
		return nil
	case code == wire.RcodeRefused:
		n.refused.Add(1)
	case code == wire.RcodeNameError:
		n.unknown.Add(1)
	case code == wire.RcodeFormatError:
		n.malformed.Add(1)
	}
	n.questions.Add(1)
	return answer
}

// pause waits a moment; false if ctx ends.
func pause(ctx context.Context) bool {
	timer := time.NewTimer(again)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-timer.C:
		return true
	}
}

// answerConnections takes connections until the socket is closed, and ends those that are open then.
func (s *Server) answerConnections(ctx context.Context) error {
	var serving sync.WaitGroup
	defer serving.Wait()
	for {
		conn, err := s.gate.Accept()
		if errors.Is(err, net.ErrClosed) {
			return nil
		}
		if err != nil {
			s.log.Warn("a connection could not be taken", "dns", s.Address(), "error", err)
			if !pause(ctx) {
				return nil
			}
			continue
		}
		serving.Go(func() { s.answerConnection(ctx, conn) })
	}
}

// answerConnection answers the questions of a connection, one after the other. Each has its length before it (RFC 1035,
// section 4.2.2).
func (s *Server) answerConnection(ctx context.Context, conn net.Conn) {
	defer conn.Close()
	ended := context.AfterFunc(ctx, func() { conn.Close() })
	defer ended()
	var length [2]byte
	message := make([]byte, maxQuestion)
	for {
		conn.SetDeadline(time.Now().Add(patience))
		if _, err := io.ReadFull(conn, length[:]); err != nil {
			return
		}
		n := int(binary.BigEndian.Uint16(length[:]))
		if n > maxQuestion {
			s.counts.malformed.Add(1)
			return
		}
		if _, err := io.ReadFull(conn, message[:n]); err != nil {
			return
		}
		answer := s.respond(message[:n], false)
		if answer == nil {
			return
		}
		framed := make([]byte, 2, 2+len(answer))
		binary.BigEndian.PutUint16(framed, uint16(len(answer)))
		if _, err := conn.Write(append(framed, answer...)); err != nil {
			return
		}
	}
}
