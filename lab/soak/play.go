package soak

import (
	"errors"
	"fmt"
	"io"
	"net"
	"syscall"
	"time"
)

// sideTime bounds what a side of a session may take, so that one that hangs is an error and not a wait.
const sideTime = 2 * time.Minute

// end is how a stream has to end.
type end int

const (
	inOrder end = iota
	byReset
	anyhow
)

// errBroken is what the other side of a session did that it wasn't to do, or what became of its bytes.
type errBroken struct {
	what string
	err  error
}

func (e errBroken) Error() string { return e.what + ": " + e.err.Error() }
func (e errBroken) Unwrap() error { return e.err }

// side is one end of a scripted session.
type side struct {
	conn         *net.TCPConn
	out, in      stream
	outLen       int64
	inLen        int64
	piece        int
	stall        time.Duration
	ending       ending
	sent, passed int64
}

// play does the side's part of a script; sent and passed are the bytes that it wrote and read.
func (s *side) play() error {
	_ = s.conn.SetDeadline(time.Now().Add(sideTime))
	switch s.ending {
	case bothAtOnce:
		writing := make(chan error, 1)
		go func() {
			err := s.send()
			if err == nil {
				err = s.conn.CloseWrite()
			}
			writing <- err
		}()
		err := s.receive(s.inLen, inOrder)
		if err != nil {
			// Whoever waits for this side must not wait for good.
			s.reset()
		}
		return errors.Join(err, <-writing)
	case clientFirst: // as are the following, as seen from the side that goes first
		if err := s.send(); err != nil {
			return err
		}
		if err := s.conn.CloseWrite(); err != nil {
			return errBroken{"ending the stream", err}
		}
		return s.receive(s.inLen, inOrder)
	case serverFirst:
		if err := s.receive(s.inLen, inOrder); err != nil {
			return err
		}
		return s.send()
	case clientResets:
		if _, err := s.in.receive(s.conn, s.inLen); err != nil {
			return errBroken{"reading what was sent before", err}
		}
		s.passed = s.inLen
		if err := s.send(); err != nil {
			return err
		}
		s.reset()
		return nil
	case serverResets:
		if err := s.send(); err != nil {
			return err
		}
		return s.receive(s.inLen, byReset)
	case clientLeaves:
		return nil // the caller closes
	case serverLeaves:
		// Nobody takes it: any failure will do.
		_ = s.send()
		_ = s.conn.CloseWrite()
		return s.receive(s.inLen, anyhow)
	}
	return fmt.Errorf("no ending %d", s.ending)
}

// seenFromServer is an ending with the sides changed: what the client does there the server does here.
func (w ending) seenFromServer() ending {
	switch w {
	case clientFirst:
		return serverFirst
	case serverFirst:
		return clientFirst
	case clientResets:
		return serverResets
	case serverResets:
		return clientResets
	case clientLeaves:
		return serverLeaves
	case serverLeaves:
		return clientLeaves
	}
	return w
}

func (s *side) reset() {
	_ = s.conn.SetLinger(0)
	_ = s.conn.Close()
}

func (s *side) send() error {
	t, err := s.out.send(s.conn, s.outLen, s.piece)
	s.sent = t.Bytes
	if err != nil {
		return errBroken{fmt.Sprintf("after %d of %d bytes written", t.Bytes, s.outLen), err}
	}
	return nil
}

// receive reads to the stream's end and judges it.
func (s *side) receive(total int64, want end) error {
	if s.stall > 0 {
		time.Sleep(s.stall)
	}
	t, err := s.in.receive(s.conn, toItsEnd)
	s.passed = t.Bytes
	var content errContent
	reset := errors.Is(err, syscall.ECONNRESET)
	switch {
	case errors.As(err, &content):
		return errBroken{"content", err}
	case t.Bytes > total:
		return errBroken{fmt.Sprintf("read %d bytes, %d were sent", t.Bytes, total), err}
	case want == anyhow && (reset || errors.Is(err, io.EOF)):
		return nil
	case want == byReset && reset:
		return nil
	case want == inOrder && errors.Is(err, io.EOF) && t.Bytes == total:
		return nil
	}
	return errBroken{fmt.Sprintf("read %d of %d bytes", t.Bytes, total), err}
}
