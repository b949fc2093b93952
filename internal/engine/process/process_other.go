//go:build !linux

package process

import "syscall"

// Process can't be opened here.
type Process struct{ PID int }

// Open says that nothing is known of processes here.
func Open(int) (*Process, error) { return nil, ErrUnknown }

// Close has nothing to do.
func (*Process) Close() {}

// Executes can't be known here.
func (*Process) Executes(string, ...string) error { return ErrUnknown }

// User can't be known here.
func (*Process) User() (int, error) { return 0, ErrUnknown }

// Signal isn't sent to what isn't known.
func (*Process) Signal(syscall.Signal) error { return ErrUnknown }
