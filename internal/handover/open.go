//go:build unix

package handover

import (
	"fmt"
	"net"
	"os"
)

// Open makes an end of the descriptor of a connected stream socket, and owns it from then on.
func Open(fd int) (*Conn, error) {
	file := os.NewFile(uintptr(fd), "handover")
	defer file.Close()
	conn, err := net.FileConn(file)
	if err != nil {
		return nil, fmt.Errorf("descriptor %d is nothing to take over from: %w", fd, err)
	}
	unix, isUnix := conn.(*net.UnixConn)
	if !isUnix {
		_ = conn.Close()
		return nil, fmt.Errorf("descriptor %d is nothing to take over from: a %T", fd, conn)
	}
	return New(unix), nil
}
