package web

import (
	"context"
	"crypto/tls"
	"errors"
	"log/slog"
	"net"
	"net/http"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/pgporter/pgporter/internal/access/gate"
)

// lastAnswers is how long requests that are being answered may take once it is to end.
const lastAnswers = 300 * time.Millisecond

// headerTime is how long a client may take for what it begins with: the first byte, a TLS handshake, a request's header.
const headerTime = 5 * time.Second

// Serve answers at a listener, which it closes, until ctx ends. Who has come is known by a gate in front of it. With encryption, clients
// may speak TLS or not: the first byte of a connection tells.
func Serve(ctx context.Context, l net.Listener, h http.Handler, encryption *tls.Config, log *slog.Logger) error {
	serve := func(ctx context.Context, l net.Listener) error {
		server := &http.Server{
			Handler:           gate.Serving(h),
			ConnContext:       gate.Context,
			BaseContext:       func(net.Listener) context.Context { return ctx },
			ReadHeaderTimeout: headerTime,
			ReadTimeout:       10 * time.Second,
			WriteTimeout:      30 * time.Second,
			IdleTimeout:       30 * time.Second,
			MaxHeaderBytes:    16 << 10,
			ErrorLog:          gate.ErrorLog(log),
		}
		closed := make(chan struct{})
		stopped := context.AfterFunc(ctx, func() {
			defer close(closed)
			last, cancel := context.WithTimeout(context.WithoutCancel(ctx), lastAnswers)
			defer cancel()
			if server.Shutdown(last) != nil {
				server.Close()
			}
		})
		if err := server.Serve(l); !errors.Is(err, http.ErrServerClosed) {
			stopped()
			server.Close()
			return err
		}
		<-closed
		return nil
	}
	if encryption == nil {
		return serve(ctx, l)
	}
	s := newSplit(l)
	group, ctx := errgroup.WithContext(ctx)
	group.Go(func() error { return s.run(ctx) })
	group.Go(func() error { return serve(ctx, s.plain) })
	group.Go(func() error { return serve(ctx, tls.NewListener(s.encrypted, encryption)) })
	return group.Wait()
}

// split brings the connections of one listener to two queues, by their first byte: clients that speak TLS begin with a record of type
// 22, a handshake (RFC 8446, 5.1), which no HTTP begins with.
type split struct {
	net.Listener
	plain, encrypted *queue
}

// queue is a listener that is given its connections.
type queue struct {
	net.Listener
	conns  chan net.Conn
	closed chan struct{}
	once   sync.Once
}

func newSplit(l net.Listener) *split {
	q := func() *queue { return &queue{Listener: l, conns: make(chan net.Conn), closed: make(chan struct{})} }
	return &split{Listener: l, plain: q(), encrypted: q()}
}

const handshakeRecord = 22

// run brings them there until the listener is closed, as it is when ctx ends. There are as many goroutines as the listener lets in
// connections.
func (s *split) run(ctx context.Context) error {
	defer context.AfterFunc(ctx, func() { s.Listener.Close() })()
	var looking sync.WaitGroup
	defer looking.Wait()
	for wait := time.Duration(0); ; {
		conn, err := s.Listener.Accept()
		if err != nil {
			if ctx.Err() != nil {
				return nil
			}
			if errors.Is(err, net.ErrClosed) {
				return err
			}
			// As net/http does: descriptors may be wanting for a moment.
			wait = min(max(2*wait, 5*time.Millisecond), time.Second)
			select {
			case <-ctx.Done():
				return nil
			case <-time.After(wait):
			}
			continue
		}
		wait = 0
		looking.Go(func() {
			defer context.AfterFunc(ctx, func() { conn.Close() })()
			first := make([]byte, 1)
			_ = conn.SetReadDeadline(time.Now().Add(headerTime))
			if _, err := conn.Read(first); err != nil {
				conn.Close()
				return
			}
			_ = conn.SetReadDeadline(time.Time{})
			to := s.plain
			if first[0] == handshakeRecord {
				to = s.encrypted
			}
			select {
			case to.conns <- &begun{Conn: conn, first: first}:
			case <-to.closed:
				conn.Close()
			}
		})
	}
}

// Accept gives the next connection.
func (q *queue) Accept() (net.Conn, error) {
	select {
	case conn := <-q.conns:
		return conn, nil
	case <-q.closed:
		return nil, net.ErrClosed
	}
}

// Close ends Accept; the listener behind stays.
func (q *queue) Close() error {
	q.once.Do(func() { close(q.closed) })
	return nil
}

// begun is a connection of which the first byte has been read.
type begun struct {
	net.Conn
	first []byte
}

// Read gives the first byte again, and then what follows.
func (b *begun) Read(p []byte) (int, error) {
	if len(b.first) > 0 && len(p) > 0 {
		n := copy(p, b.first)
		b.first = b.first[n:]
		return n, nil
	}
	return b.Conn.Read(p)
}

// NetConn is the connection itself, for who asks whose it is.
func (b *begun) NetConn() net.Conn { return b.Conn }
