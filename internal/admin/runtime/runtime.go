// Package runtime is a socket at which HAProxy's runtime commands are understood, so that what is used to HAProxy goes on working: scripts
// with socat, hatop, Ansible's module, collectors of statistics.
//
// A client writes a line, of one command or several with semicolons between them. Each answer ends with an empty line, and after the line's
// last one the connection is closed; after `prompt` it stays, and each answer ends with `> `. Answers and refusals have HAProxy's form and,
// where programs look at them, its words (management guide, "Unix Socket commands"; version 2.6).
//
// Everything shown is made of one api.Status by the room statistics. Orders go where those of all other ways go, so they are the same:
// they hold across reloads and upgrades. What HAProxy could change while it runs, and pgporter can't (addresses, limits, more servers), is
// refused by name, with what to do instead: those follow from the inventory.
//
// Whoever can open the socket may do everything: its file is its owner's alone (mode 0600). A client that is silent, or doesn't read, is
// closed in time, and there are never more than a few.
package runtime

import (
	"bufio"
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	"os"
	"strings"
	"sync"
	"time"

	"github.com/pgporter/pgporter/internal/admin/api"
)

// Daemon is what the commands are about.
type Daemon interface {
	Status() api.Status
	Order(ctx context.Context, o api.Order) ([]api.OrderResult, error)
	Sessions(f api.SessionFilter) (api.Sessions, error)
	EndSessions(ctx context.Context, e api.EndSessions, by string) (api.SessionsEnded, error)
}

const (
	// clients is how many are served at once; others wait in the kernel's queue of the socket.
	clients = 16
	// idle is how long a client may be silent, until it says otherwise (set timeout cli); reading bounds how long it may take to read what it
	// was written.
	idle    = 10 * time.Second
	reading = 30 * time.Second
	// by is who gives orders, as the log and the events have it.
	by = "runtime socket"
)

// Serve answers at listener until ctx ends, and has ended with all its clients then. The listener is closed.
func Serve(ctx context.Context, listener net.Listener, d Daemon, log *slog.Logger) error {
	var serving sync.WaitGroup
	defer serving.Wait()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	defer context.AfterFunc(ctx, func() { _ = listener.Close() })()
	slots := make(chan struct{}, clients)
	for {
		select {
		case slots <- struct{}{}:
		case <-ctx.Done():
			return nil
		}
		conn, err := listener.Accept()
		if ctx.Err() != nil {
			if err == nil {
				_ = conn.Close()
			}
			return nil
		}
		if err != nil {
			<-slots
			if errors.Is(err, net.ErrClosed) {
				return err
			}
			// There was no descriptor for it.
			log.Warn("a client of the runtime socket can't be accepted", "error", err)
			select {
			case <-time.After(time.Second):
			case <-ctx.Done():
			}
			continue
		}
		serving.Go(func() {
			defer func() { <-slots }()
			c := client{conn: conn, in: bufio.NewReaderSize(conn, 4096), d: d, level: admin, idle: idle}
			c.out = bufio.NewWriterSize(slowly{conn}, 16<<10)
			if err := c.serve(ctx); err != nil {
				log.Debug("a client of the runtime socket is closed", "error", err)
			}
		})
	}
}

// slowly gives each write its time.
type slowly struct{ conn net.Conn }

func (s slowly) Write(b []byte) (int, error) {
	if err := s.conn.SetWriteDeadline(time.Now().Add(reading)); err != nil {
		return 0, err
	}
	return s.conn.Write(b)
}

// client is one connection.
type client struct {
	conn net.Conn
	in   *bufio.Reader
	out  *bufio.Writer
	d    Daemon
	// prompting says that it stays and is shown a prompt, done that it is to be closed.
	prompting, done bool
	level           level
	idle            time.Duration
}

func (c *client) serve(ctx context.Context) error {
	defer c.conn.Close()
	defer context.AfterFunc(ctx, func() { _ = c.conn.SetDeadline(time.Now()) })()
	for !c.done {
		if err := c.conn.SetReadDeadline(time.Now().Add(c.idle)); err != nil {
			return err
		}
		if ctx.Err() != nil {
			return nil
		}
		line, more, err := readCommand(c.in)
		if errors.Is(err, io.EOF) || errors.Is(err, os.ErrDeadlineExceeded) && c.prompting {
			return nil
		}
		if err != nil {
			return err
		}
		c.run(ctx, words(line))
		end := "\n"
		switch {
		case c.done:
			end = ""
		case c.prompting:
			end = "\n> "
		case !more && c.in.Buffered() == 0:
			c.done = true
		}
		_, _ = c.out.WriteString(end)
		// What comes next may take its time, or be never: this is its answer. Of several in one line they may go together.
		if more && c.in.Buffered() > 0 && !c.done {
			continue
		}
		if err := c.out.Flush(); err != nil {
			return err
		}
	}
	return nil
}

// run carries out a command and writes its answer.
func (c *client) run(ctx context.Context, args []string) {
	// The master's socket sends commands to a worker by its number; there is one.
	for len(args) > 0 && strings.HasPrefix(args[0], "@") {
		args = args[1:]
		if len(args) == 0 {
			return
		}
	}
	command, rest := find(args)
	if command == nil || len(args) == 0 {
		c.usage(args)
		return
	}
	if command.level > c.level {
		c.say("Permission denied")
		return
	}
	command.run(&call{client: c, ctx: ctx, args: rest})
}

// say writes a line.
func (c *client) say(line string) {
	_, _ = c.out.WriteString(line)
	_ = c.out.WriteByte('\n')
}
