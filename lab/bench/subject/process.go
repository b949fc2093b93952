// Package subject starts the programs that a benchmark compares, the way their users start them, and ends them by their
// ids. It knows nothing of what is measured.
package subject

import (
	"bytes"
	"context"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"time"
)

// Process is a program that was started.
type Process struct {
	name    string
	command *exec.Cmd
	ended   chan struct{}
	failed  error
	log     string
	finish  syscall.Signal
}

// stopTime is what a program gets to end by itself.
const stopTime = 5 * time.Second

// Start runs a prepared command, with a file as its standard output and error, until Stop, which sends it finish.
func Start(command *exec.Cmd, log string, finish syscall.Signal) (*Process, error) {
	p := &Process{name: filepath.Base(command.Path), command: command, log: log, ended: make(chan struct{}), finish: finish}
	out, err := os.Create(log)
	if err != nil {
		return nil, err
	}
	defer out.Close()
	command.Stdout, command.Stderr = out, out
	if command.SysProcAttr == nil {
		command.SysProcAttr = &syscall.SysProcAttr{}
	}
	// Ctrl-C is for the benchmark, which ends what it started.
	command.SysProcAttr.Setpgid = true
	if err := command.Start(); err != nil {
		return nil, fmt.Errorf("%s: %w", p.name, err)
	}
	go func() {
		defer close(p.ended)
		p.failed = command.Wait()
	}()
	return p, nil
}

// PID is the process's id, for as long as Stop wasn't called.
func (p *Process) PID() int { return p.command.Process.Pid }

// Await asks every 50 ms until there is nothing to complain of. That the program has ended meanwhile is an error, with the
// end of what it said.
func (p *Process) Await(ctx context.Context, within time.Duration, complaint func(context.Context) error) error {
	ctx, cancel := context.WithTimeout(ctx, within)
	defer cancel()
	again := time.NewTicker(50 * time.Millisecond)
	defer again.Stop()
	for {
		err := complaint(ctx)
		if err == nil {
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("%s, after %s: %w\n%s", p.name, within, err, p.said())
		case <-p.ended:
			return fmt.Errorf("%s ended: %v\n%s", p.name, p.failed, p.said())
		case <-again.C:
		}
	}
}

// said gives the last lines of the log.
func (p *Process) said() []byte {
	text, err := os.ReadFile(p.log)
	if err != nil {
		return []byte(err.Error())
	}
	lines := bytes.SplitAfter(text, []byte("\n"))
	return bytes.Join(lines[max(0, len(lines)-20):], nil)
}

// Stop ends the program, by force if it has to be, and returns when it has ended.
func (p *Process) Stop() {
	p.command.Process.Signal(p.finish) //nolint:errcheck // it has ended then
	kill := time.AfterFunc(stopTime, func() { p.command.Process.Kill() })
	defer kill.Stop()
	<-p.ended
}

// Listens says whether somebody takes connections at an address.
func Listens(ctx context.Context, address string) error {
	var d net.Dialer
	conn, err := d.DialContext(ctx, "tcp", address)
	if err != nil {
		return err
	}
	return conn.Close()
}
