package throughput

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"
)

// Load is what the client of the trivial server does. It is a process of its own, so that neither its memory nor its
// time is a proxy's.
type Load struct {
	// Kind is connect, out, in or idle.
	Kind string
	// Address is where it connects.
	Address string
	// Streams is how many sessions there are at a time.
	Streams int
	// Lasts is for how long it goes on; idle sessions stay until the client is asked to end.
	Lasts time.Duration
}

// Work is what a client of the trivial server has done.
type Work struct {
	// Sessions are those that were opened and, unless idle, came to their end in order.
	Sessions int64
	// Bytes are those of bulk streams that have arrived.
	Bytes int64
	// Took is from the first session's begin, or the first byte's, to the last one's end.
	Took time.Duration
}

// patience bounds every single step of a client.
const patience = 15 * time.Second

// Do works until it is done. Idle sessions are reported when all are open, and closed when over is closed.
func (l Load) Do(ctx context.Context, report func(Work), over <-chan struct{}) error {
	switch l.Kind {
	case "connect":
		w, err := l.connect(ctx)
		if err != nil {
			return err
		}
		report(w)
	case "out", "in":
		w, err := l.bulk(ctx)
		if err != nil {
			return err
		}
		report(w)
	case "idle":
		return l.idle(ctx, report, over)
	default:
		return fmt.Errorf("no load is called %q; there are: connect, out, in, idle", l.Kind)
	}
	return nil
}

// open opens a session and reads the server's answer.
func (l Load) open(ctx context.Context, database string) (*net.TCPConn, error) {
	d := net.Dialer{Timeout: patience}
	opened, err := d.DialContext(ctx, "tcp", l.Address)
	if err != nil {
		return nil, err
	}
	conn := opened.(*net.TCPConn)
	answered := func() error {
		if err := conn.SetDeadline(time.Now().Add(patience)); err != nil {
			return err
		}
		if _, err := conn.Write(startup("bench", database)); err != nil {
			return err
		}
		var answer [15]byte
		if _, err := io.ReadFull(conn, answer[:]); err != nil {
			return err
		}
		if !bytes.Equal(answer[:], welcome) {
			return fmt.Errorf("the answer isn't the trivial server's: %q", answer)
		}
		return nil
	}
	if err := answered(); err != nil {
		conn.Close()
		return nil, err
	}
	return conn, nil
}

// connect opens sessions and ends them, each stream one after the other.
func (l Load) connect(ctx context.Context) (Work, error) {
	began := time.Now()
	end := began.Add(l.Lasts)
	var all atomic.Int64
	group, ctx := errgroup.WithContext(ctx)
	for range l.Streams {
		group.Go(func() error {
			for time.Now().Before(end) {
				if err := l.once(ctx); err != nil {
					return err
				}
				all.Add(1)
			}
			return nil
		})
	}
	err := group.Wait()
	return Work{Sessions: all.Load(), Took: time.Since(began)}, err
}

// once is a session that is ended as soon as it is open. The server closes first.
func (l Load) once(ctx context.Context) error {
	conn, err := l.open(ctx, "idle")
	if err != nil {
		return err
	}
	defer conn.Close()
	return leave(conn)
}

// ended waits for the end of what the server sends.
func ended(conn *net.TCPConn) error {
	var rest [1]byte
	n, err := conn.Read(rest[:])
	switch {
	case n > 0:
		return fmt.Errorf("instead of the end after Terminate comes byte 0x%02x", rest[0])
	case !errors.Is(err, io.EOF):
		return fmt.Errorf("the end after Terminate: %w", err)
	}
	return nil
}

// bulk moves bytes through all streams at a time: out of the server, or in to it.
func (l Load) bulk(ctx context.Context) (Work, error) {
	database, move := "swallow", l.pourAll
	if l.Kind == "out" {
		database, move = "pour:"+l.Lasts.String(), swallowAll
	}
	opening, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	var conns []*net.TCPConn
	defer func() {
		for _, c := range conns {
			c.Close()
		}
	}()
	for range l.Streams {
		conn, err := l.open(opening, database)
		if err != nil {
			return Work{}, err
		}
		conns = append(conns, conn)
		if err := conn.SetDeadline(time.Now().Add(l.Lasts + patience)); err != nil {
			return Work{}, err
		}
	}
	began := time.Now()
	var all atomic.Int64
	var group errgroup.Group
	for _, conn := range conns {
		group.Go(func() error {
			n, err := move(conn)
			all.Add(n)
			return err
		})
	}
	err := group.Wait()
	return Work{Sessions: int64(l.Streams), Bytes: all.Load(), Took: time.Since(began)}, err
}

func swallowAll(conn *net.TCPConn) (int64, error) { return swallow(conn) }

// pourAll sends bytes for the time of the load, and gives how many the server says have arrived.
func (l Load) pourAll(conn *net.TCPConn) (int64, error) {
	counted := &counter{to: conn}
	if err := pour(counted, l.Lasts); err != nil {
		return 0, err
	}
	if err := conn.CloseWrite(); err != nil {
		return 0, err
	}
	var said [8]byte
	if _, err := io.ReadFull(conn, said[:]); err != nil {
		return 0, fmt.Errorf("what the server has swallowed: %w", err)
	}
	if arrived := int64(binary.BigEndian.Uint64(said[:])); arrived != counted.n {
		return 0, fmt.Errorf("%d bytes were sent and %d arrived", counted.n, arrived)
	}
	return counted.n, nil
}

// counter counts what is written.
type counter struct {
	to io.Writer
	n  int64
}

func (c *counter) Write(p []byte) (int, error) {
	n, err := c.to.Write(p)
	c.n += int64(n)
	return n, err
}

// openers is how many idle sessions are opened at a time.
const openers = 32

// idle opens sessions and leaves them alone until it is over.
func (l Load) idle(ctx context.Context, report func(Work), over <-chan struct{}) error {
	began := time.Now()
	conns := make([]*net.TCPConn, l.Streams)
	defer func() {
		for _, c := range conns {
			if c != nil {
				c.Close()
			}
		}
	}()
	group, opening := errgroup.WithContext(ctx)
	group.SetLimit(openers)
	for i := range conns {
		group.Go(func() error {
			conn, err := l.open(opening, "idle")
			if err != nil {
				return fmt.Errorf("session %d of %d: %w", i+1, l.Streams, err)
			}
			conns[i] = conn
			return nil
		})
	}
	if err := group.Wait(); err != nil {
		return err
	}
	report(Work{Sessions: int64(l.Streams), Took: time.Since(began)})
	select {
	case <-over:
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	// Memory of sessions that were ended meanwhile would be no session's.
	var closing sync.WaitGroup
	failed := make([]error, len(conns))
	for i, conn := range conns {
		closing.Go(func() {
			if err := leave(conn); err != nil {
				failed[i] = fmt.Errorf("session %d of %d: %w", i+1, l.Streams, err)
			}
		})
	}
	closing.Wait()
	return errors.Join(failed...)
}

// leave ends a session in order.
func leave(conn *net.TCPConn) error {
	if err := conn.SetDeadline(time.Now().Add(patience)); err != nil {
		return err
	}
	if _, err := conn.Write(terminate); err != nil {
		return err
	}
	return ended(conn)
}
