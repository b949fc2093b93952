package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"syscall"

	"golang.org/x/sys/unix"
	"golang.org/x/term"
)

// foreground says whether keys can be read: r is standard input and a terminal whose foreground this process is in. One in
// the background would be halted for reading.
func foreground(r io.Reader) bool {
	file, ok := r.(*os.File)
	if !ok || file != os.Stdin || !term.IsTerminal(int(file.Fd())) {
		return false
	}
	group, err := unix.IoctlGetInt(int(file.Fd()), unix.TIOCGPGRP)
	return err == nil && group == unix.Getpgrp()
}

// readKeys calls pressed with every key that is pressed on standard input until ctx ends. Keys come one by one and aren't
// shown; Ctrl-C stays a signal. The terminal is left as it was.
func readKeys(ctx context.Context, pressed func(key byte)) error {
	fd := int(os.Stdin.Fd())
	before, err := unix.IoctlGetTermios(fd, unix.TCGETS)
	if err != nil {
		return fmt.Errorf("terminal: %w", err)
	}
	// Sent to the background later, reading fails instead of halting the process (termios(3)); the terminal isn't ours then.
	signal.Ignore(syscall.SIGTTIN, syscall.SIGTTOU)
	defer signal.Reset(syscall.SIGTTIN, syscall.SIGTTOU)
	keys := *before
	keys.Lflag &^= unix.ICANON | unix.ECHO
	keys.Cc[unix.VMIN], keys.Cc[unix.VTIME] = 1, 0
	if err := unix.IoctlSetTermios(fd, unix.TCSETS, &keys); err != nil {
		return fmt.Errorf("terminal: %w", err)
	}
	defer unix.IoctlSetTermios(fd, unix.TCSETS, before) //nolint:errcheck // it is gone then
	for ctx.Err() == nil {
		ready := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}
		n, err := unix.Poll(ready, 100)
		if errors.Is(err, unix.EINTR) || err == nil && n == 0 {
			continue
		}
		if err != nil {
			return fmt.Errorf("terminal: %w", err)
		}
		var key [1]byte
		switch n, err := unix.Read(fd, key[:]); {
		case errors.Is(err, unix.EINTR):
		case err != nil:
			return fmt.Errorf("terminal: %w", err)
		case n == 0:
			return nil // hung up
		default:
			pressed(key[0])
		}
	}
	return nil
}
