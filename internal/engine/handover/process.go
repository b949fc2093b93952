//go:build unix

package handover

import (
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strconv"
	"time"
)

// variable is set, in the environment of a process that is to take over, to the descriptor of its end.
const variable = "PGPORTER_HANDOVER"

// Successor is a process that was started to take over from this one, and this one's end of the connection between them.
type Successor struct {
	*Conn
	command *exec.Cmd
	ended   chan struct{}
}

// Start runs a program with arguments as this process's successor: in its directory, with its environment, and with its
// output and error output.
func Start(program string, arguments []string) (*Successor, error) {
	conn, fd, err := Pair()
	if err != nil {
		return nil, err
	}
	theirs := os.NewFile(uintptr(fd), "handover")
	defer theirs.Close()
	s := &Successor{Conn: conn, command: exec.Command(program, arguments...), ended: make(chan struct{})}
	s.command.Stdout, s.command.Stderr = os.Stdout, os.Stderr
	s.command.ExtraFiles = []*os.File{theirs}
	// The first of ExtraFiles is descriptor 3 there.
	s.command.Env = append(os.Environ(), variable+"=3")
	if err := s.command.Start(); err != nil {
		_ = conn.Close()
		return nil, fmt.Errorf("the new process can't be started: %w", err)
	}
	go func() {
		defer close(s.ended)
		// How it ended is in command.ProcessState.
		_ = s.command.Wait()
	}()
	return s, nil
}

// PID is the process's number.
func (s *Successor) PID() int { return s.command.Process.Pid }

// End ends the process, if it hasn't ended by itself within a moment, waits for that, and closes this end. What it gives
// says in words how the process ended.
func (s *Successor) End() string {
	// Without us it has nothing to do. A moment is enough for a process that fails to say why.
	_ = s.Close()
	select {
	case <-s.ended:
	case <-time.After(grace):
		_ = s.command.Process.Kill()
		<-s.ended
		return "it had to be killed"
	}
	return s.command.ProcessState.String()
}

// SendLast sends the item after which everything belongs to the successor: it may use what it has from when it has answered.
// Without an answer in time the process is ended; taken then says that it had answered after all, and may have begun.
func (s *Successor) SendLast(item Item) (taken bool, err error) {
	if err = s.Send(item); err == nil {
		return true, nil
	}
	_ = s.command.Process.Kill()
	<-s.ended
	_ = s.SetDeadline(time.Now().Add(grace))
	var answer [4]byte
	n, _ := io.ReadFull(s.unix, answer[:])
	return n > 0, err
}

// grace is how long a process that isn't wanted has to end by itself.
const grace = 500 * time.Millisecond

// Predecessor gives this end of the connection to the process that this one was started to take over from; nil if there is none.
func Predecessor() (*Conn, error) {
	text, set := os.LookupEnv(variable)
	if !set {
		return nil, nil
	}
	// It isn't for the processes that this one starts.
	if err := os.Unsetenv(variable); err != nil {
		return nil, err
	}
	fd, err := strconv.Atoi(text)
	if err != nil || fd < 3 {
		return nil, fmt.Errorf("%s=%q is no descriptor to take over from", variable, text)
	}
	return Open(fd)
}

// ReceiveUntil takes messages up to the one that ends with an item of a kind, which is the last that it gives. With an error
// no descriptor is left open.
func (c *Conn) ReceiveUntil(kind string) ([]Item, error) {
	var all []Item
	for {
		items, err := c.Receive()
		if err != nil {
			Close(all)
			if errors.Is(err, io.EOF) {
				return nil, errors.New("the other process has hung up")
			}
			return nil, err
		}
		all = append(all, items...)
		if n := len(all); n > 0 && all[n-1].Kind == kind {
			return all, nil
		}
	}
}
