package runtime

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"syscall"
	"time"
)

// Socket is the file at which commands are taken. It is made in two steps, since a process that takes over from another has to know that it
// could have the file before it has everything else.
type Socket struct {
	net.Listener
	path, temporary string
	made            fs.FileInfo
}

// Inherit gives the socket that another process had at path and has handed over: with its name, and with those who wait to be accepted. It
// is an error if the name isn't there any more.
func Inherit(listener *net.UnixListener, path string) (*Socket, error) {
	path, err := filepath.Abs(path)
	if err != nil {
		return nil, err
	}
	made, err := os.Lstat(path)
	if err == nil && made.Mode().Type() != fs.ModeSocket {
		err = errNoSocket
	}
	if err != nil {
		return nil, fmt.Errorf("runtime socket %s: %w", path, err)
	}
	listener.SetUnlinkOnClose(false)
	return &Socket{Listener: listener, path: path, made: made}, nil
}

// Prepare makes the socket beside path, so that all that can fail has been done. What a process has left there that is no more will be
// replaced. One that lives keeps it, and that is an error.
func Prepare(ctx context.Context, path string) (*Socket, error) {
	path, err := filepath.Abs(path)
	if err != nil {
		return nil, err
	}
	s := &Socket{path: path, temporary: path + "." + strconv.Itoa(os.Getpid())}
	if err := os.Remove(s.temporary); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("runtime socket %s: %w", path, err)
	}
	// fchmod before bind(2): the file has its mode from the first moment. Systems that can't do that have it a moment later.
	config := net.ListenConfig{Control: func(_, _ string, raw syscall.RawConn) error {
		return raw.Control(func(fd uintptr) { _ = syscall.Fchmod(int(fd), 0o600) })
	}}
	if s.Listener, err = config.Listen(ctx, "unix", s.temporary); err != nil {
		var op *net.OpError
		if errors.As(err, &op) {
			err = op.Err
		}
		return nil, fmt.Errorf("runtime socket %s: %w", path, err)
	}
	s.Listener.(*net.UnixListener).SetUnlinkOnClose(false)
	if err = os.Chmod(s.temporary, 0o600); err == nil {
		s.made, err = os.Lstat(s.temporary)
	}
	if err == nil {
		err = replaceable(ctx, path)
	}
	if err != nil {
		s.Discard()
		return nil, fmt.Errorf("runtime socket %s: %w", path, err)
	}
	return s, nil
}

// Publish gives the socket its name, unless it has that already.
func (s *Socket) Publish() error {
	if s.temporary == "" {
		return nil
	}
	if err := os.Rename(s.temporary, s.path); err != nil {
		return fmt.Errorf("runtime socket %s: %w", s.path, err)
	}
	s.temporary = ""
	return nil
}

var errNoSocket = errors.New("there is something else than a socket")

// replaceable says why a path may not be replaced: it is something else than a socket, or somebody answers there.
func replaceable(ctx context.Context, path string) error {
	there, err := os.Lstat(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	if there.Mode().Type() != fs.ModeSocket {
		return errNoSocket
	}
	dialer := net.Dialer{Timeout: time.Second}
	conn, err := dialer.DialContext(ctx, "unix", path)
	if errors.Is(err, syscall.ECONNREFUSED) || errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	_ = conn.Close()
	return errors.New("another process answers there")
}

// Discard ends the listener and removes its file, unless that is another process's by now.
func (s *Socket) Discard() {
	_ = s.Close()
	path := s.path
	if s.temporary != "" {
		path = s.temporary
	}
	if there, err := os.Lstat(path); err == nil && s.made != nil && os.SameFile(there, s.made) {
		_ = os.Remove(path)
	}
}
