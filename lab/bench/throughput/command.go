package throughput

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"net"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// Trivial runs as the trivial server or its client, or as many members, as a process of the benchmark's own is asked to: `serve ADDRESS`,
// `KIND ADDRESS STREAMS TIME`, or `members CLUSTERS`. A client tells what it has done as JSON on its standard output, and idle sessions
// last until its standard input ends. Members tell what they were asked so far for each byte of their standard input.
func Trivial(ctx context.Context, args []string) error {
	if len(args) == 2 && args[0] == "members" {
		return members(ctx, args[1])
	}
	if len(args) == 2 && args[0] == "serve" {
		var config net.ListenConfig
		listener, err := config.Listen(ctx, "tcp", args[1])
		if err != nil {
			return err
		}
		return Serve(ctx, listener)
	}
	if len(args) != 4 {
		return refused{fmt.Errorf("trivial %s: serve ADDRESS, members CLUSTERS, or KIND ADDRESS STREAMS TIME", strings.Join(args, " "))}
	}
	streams, err := strconv.Atoi(args[2])
	if err != nil {
		return refused{err}
	}
	lasts, err := time.ParseDuration(args[3])
	if err != nil {
		return refused{err}
	}
	over := make(chan struct{})
	go func() {
		defer close(over)
		os.Stdin.Read(make([]byte, 1)) //nolint:errcheck // its end is what is waited for
	}()
	return Load{Kind: args[0], Address: args[1], Streams: streams, Lasts: lasts}.Do(ctx, func(w Work) {
		json.NewEncoder(os.Stdout).Encode(w) //nolint:errcheck // whoever asked has gone
	}, over)
}

// client is a client of the trivial server, a process of its own.
type client struct {
	command *exec.Cmd
	over    func() error
	said    *json.Decoder
	errors  bytes.Buffer
}

// ownProcess is a command that runs Trivial.
func (s *stage) ownProcess(ctx context.Context, args ...string) *exec.Cmd {
	args = append(slices.Clone(s.config.Trivial), args...)
	return exec.CommandContext(ctx, args[0], args[1:]...)
}

// startClient starts a client at an address.
func (s *stage) startClient(ctx context.Context, l Load) (*client, error) {
	c := &client{command: s.ownProcess(ctx, l.Kind, l.Address, strconv.Itoa(l.Streams), l.Lasts.String())}
	c.command.SysProcAttr = &syscall.SysProcAttr{Setpgid: true} // Ctrl-C is for the benchmark
	in, err := c.command.StdinPipe()
	if err != nil {
		return nil, err
	}
	out, err := c.command.StdoutPipe()
	if err != nil {
		return nil, err
	}
	c.command.Stderr, c.over, c.said = &c.errors, in.Close, json.NewDecoder(out)
	return c, c.command.Start()
}

// reports waits for what the client has done.
func (c *client) reports() (Work, error) {
	var w Work
	err := c.said.Decode(&w)
	return w, err
}

// ends tells the client that it's over and waits for its end.
func (c *client) ends() error {
	c.over() //nolint:errcheck // it has ended then
	if err := c.command.Wait(); err != nil {
		return fmt.Errorf("client of the trivial server: %w\n%s", err, c.errors.Bytes())
	}
	return nil
}

// load has a client do what it does and gives what it has done.
func (s *stage) load(ctx context.Context, l Load) (Work, error) {
	c, err := s.startClient(ctx, l)
	if err != nil {
		return Work{}, err
	}
	w, reported := c.reports()
	if err := c.ends(); err != nil {
		return Work{}, err
	}
	return w, reported
}
