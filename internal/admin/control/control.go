// Package control is how a node is looked at and steered from elsewhere, and by those on the node itself who may: the server of
// the control address that `pgporter run` opens on request, the same routes at a socket of the machine, the client of both that
// commands are, and the credentials.
//
// The control address is a listener of its own, apart from the admin address, so that what everybody may read and what changes
// something never share a port. It speaks TLS 1.3 and nothing else, and every request has to bring the token, or a certificate of
// the authority that was named, whatever it asks for: who has neither learns nothing but that. Without credentials there is no
// such server; no default opens it. At the socket of the machine the kernel says who calls, and the listener lets in who may.
//
//	GET  /node           says who this is: api.Node
//	GET  /status         api.Status
//	GET  /events         api.Events, those after ?after=ID
//	GET  /sessions       api.Sessions, those that a filter in the query chooses
//	GET  /debug/goroutines  api.Goroutines, for a report of a fault
//	POST /servers        takes an api.Order: what became of each server, []api.OrderResult
//	POST /sessions/end   takes an api.EndSessions: api.SessionsEnded
//	POST /hold           takes an api.HoldOrder: api.Held
//	POST /reload         has the node read its own configuration again: api.Reread
//	POST /plan           takes an intake.Order: 200 and api.Taken once it runs
//	POST /plan/dry-run   says what it would change, and changes nothing
//
// 400 is what can't be read, 401 the credentials, 404 and 405 a route that there isn't, 413 a body that is too long, 422 what this
// node refuses, 501 what it can't, each with an api.Refusal. What ran before goes on after any of them.
//
// The package owns nothing that it shows or changes: that is for the functions of a Steering.
package control

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"strings"
	"sync"
	"time"

	"github.com/pgporter/pgporter/internal/access/gate"
)

// DefaultPort is the control address's port where none is given.
const DefaultPort = "8433"

// Server answers at a control address.
type Server struct {
	Credentials *Credentials
	Steering    Steering
	Logger      *slog.Logger

	strangers strangers
}

// Serve answers until ctx ends; requests that are being answered then get a moment to end. Where the listener is a gate.Listener,
// who has shown credentials keeps the connection, and others give way.
func (s *Server) Serve(ctx context.Context, listener net.Listener) error {
	server := newServer(s.handler(ctx), s.Logger)
	server.TLSConfig = s.Credentials.serverTLS()
	if err := serve(ctx, server, func() error { return server.ServeTLS(listener, "", "") }); err != nil {
		return fmt.Errorf("control address %s: %w", listener.Addr(), err)
	}
	return nil
}

// handler answers requests; what they set off belongs to ctx.
func (s *Server) handler(ctx context.Context) http.Handler {
	routes := s.Steering.handler(ctx, s.Logger)
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		who, err := s.Credentials.admits(r)
		if err != nil {
			s.strangers.note(s.Logger, r.RemoteAddr, err, time.Now())
			// Without this the body of a stranger would be read to keep the connection.
			w.Header().Set("Connection", "close")
			w.Header().Set("WWW-Authenticate", `Bearer realm="pgporter"`)
			refuse(w, http.StatusUnauthorized, err.Error())
			return
		}
		gate.Know(r)
		routes.ServeHTTP(w, r.WithContext(context.WithValue(r.Context(), whoKey{}, who)))
	})
}

// Local answers at a socket of this machine. Who may is for its listener: a connection that it gives is let in.
type Local struct {
	Steering Steering
	// Who says who is at the other end of a connection of the listener, for the log and the events.
	Who    func(net.Conn) string
	Logger *slog.Logger
}

// Serve answers until ctx ends, as that of a Server.
func (l *Local) Serve(ctx context.Context, listener net.Listener) error {
	server := newServer(l.Steering.handler(ctx, l.Logger), l.Logger)
	server.ConnContext = func(ctx context.Context, conn net.Conn) context.Context {
		ctx = gate.Context(ctx, conn)
		if place, is := conn.(*gate.Conn); is {
			conn = place.Conn
		}
		return context.WithValue(ctx, whoKey{}, l.Who(conn))
	}
	if err := serve(ctx, server, func() error { return server.Serve(listener) }); err != nil {
		return fmt.Errorf("socket for orders from this machine: %w", err)
	}
	return nil
}

// whoKey is a context's key of who asks.
type whoKey struct{}

func newServer(handler http.Handler, log *slog.Logger) *http.Server {
	server := &http.Server{
		Handler:     gate.Serving(handler),
		ConnContext: gate.Context,
		// What a stranger's connection can cost is bounded before the token is looked at: this bounds the handshake, too.
		ReadHeaderTimeout: 5 * time.Second,
		ReadTimeout:       30 * time.Second,
		WriteTimeout:      time.Minute,
		IdleTimeout:       30 * time.Second,
		MaxHeaderBytes:    16 << 10,
		Protocols:         new(http.Protocols),
		ErrorLog:          gate.ErrorLog(log),
	}
	server.Protocols.SetHTTP1(true)
	return server
}

// serve runs a server until ctx ends.
func serve(ctx context.Context, server *http.Server, run func() error) error {
	var stopping sync.WaitGroup
	defer stopping.Wait()
	served := make(chan struct{})
	defer close(served)
	stopping.Go(func() {
		select {
		case <-served:
		case <-ctx.Done():
			last, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Second)
			defer cancel()
			if server.Shutdown(last) != nil {
				server.Close()
			}
		}
	})
	if err := run(); !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	<-ctx.Done()
	return nil
}

// strangers counts requests without credentials, so that a flood of them is one line a second.
type strangers struct {
	mu       sync.Mutex
	logged   time.Time
	unlogged int
}

func (s *strangers) note(log *slog.Logger, from string, why error, now time.Time) {
	s.mu.Lock()
	if now.Sub(s.logged) < time.Second {
		s.unlogged++
		s.mu.Unlock()
		return
	}
	before := s.unlogged
	s.logged, s.unlogged = now, 0
	s.mu.Unlock()
	log.Warn("a request without credentials came to the control address", "from", from, "why", why.Error(), "others_before", before)
}

// bearer is how a request brings its token (RFC 6750, section 2.1).
const bearer = "Bearer "

func tokenOf(header string) (string, bool) { return strings.CutPrefix(header, bearer) }
