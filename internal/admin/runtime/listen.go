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

// Prepare makes the socket beside path, so that all that can fail has been done. What a process has left there that is no more will be
// replaced. One that lives keeps it, and that is an error, unless ours says that it is the one that is taken over from.
func Prepare(ctx context.Context, path string, ours func(*net.UnixConn) bool) (*Socket, error) {
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
		err = replaceable(ctx, path, ours)
	}
	if err != nil {
		s.Discard()
		return nil, fmt.Errorf("runtime socket %s: %w", path, err)
	}
	return s, nil
}

// Publish gives the socket its name.
func (s *Socket) Publish() error {
	if err := os.Rename(s.temporary, s.path); err != nil {
		return fmt.Errorf("runtime socket %s: %w", s.path, err)
	}
	s.temporary = ""
	return nil
}

// replaceable says why a path may not be replaced: it is something else than a socket, or somebody answers there.
func replaceable(ctx context.Context, path string, ours func(*net.UnixConn) bool) error {
	there, err := os.Lstat(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	if there.Mode().Type() != fs.ModeSocket {
		return errors.New("there is something else than a socket")
	}
	dialer := net.Dialer{Timeout: time.Second}
	conn, err := dialer.DialContext(ctx, "unix", path)
	if errors.Is(err, syscall.ECONNREFUSED) || errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	defer conn.Close()
	if ours != nil && ours(conn.(*net.UnixConn)) {
		return nil
	}
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
