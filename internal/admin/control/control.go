// Package control is the listener by which a node's configuration is changed from elsewhere: the server that `pgporter run`
// opens on request, the client that `pgporter reload` is, and the credentials of both.
//
// It is a listener of its own, apart from the admin address, so that what everybody may read and what changes something
// never share a port. It speaks TLS 1.3 and nothing else, and every request has to bring the token, whatever it asks for:
// who has none learns nothing but that. Without credentials there is no such server; no default opens it.
//
//	GET  /node           says who this is: api.Node
//	POST /plan           takes an intake.Order: 200 and api.Taken once it runs
//	POST /plan/dry-run   says what it would change, and changes nothing
//
// 400 is an order that can't be read or isn't sound, 401 the token, 413 an order that is too long, 422 one that this node
// refuses, each with an api.Refusal. What ran before goes on after any of them.
//
// The package owns no configuration: whether an order is taken is for the function that the server is given.
package control

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"strings"
	"sync"
	"time"

	"github.com/pgporter/pgporter/internal/access/gate"
	"github.com/pgporter/pgporter/internal/admin/api"
	"github.com/pgporter/pgporter/internal/config/intake"
)

// DefaultPort is the control address's port where none is given.
const DefaultPort = "8433"

const (
	nodePath   = "/node"
	takePath   = "/plan"
	dryRunPath = "/plan/dry-run"
)

// Server answers at a control address.
type Server struct {
	Credentials *Credentials
	// Node says who this node is now.
	Node func() api.Node
	// Take makes an order the running configuration, or says why not; with dryRun it only says what would change. from is the
	// sender's address. ctx isn't the connection's: an order that arrived whole is carried out though its sender hangs up.
	Take   func(ctx context.Context, o intake.Order, from string, dryRun bool) (api.Taken, error)
	Logger *slog.Logger

	strangers strangers
}

// Serve answers until ctx ends; requests that are being answered then get a moment to end. Where the listener is a gate.Listener,
// who has shown the token keeps the connection, and others give way.
func (s *Server) Serve(ctx context.Context, listener net.Listener) error {
	server := &http.Server{
		Handler:     gate.Serving(s.handler(ctx)),
		ConnContext: gate.Context,
		TLSConfig:   s.Credentials.serverTLS(),
		// What a stranger's connection can cost is bounded before the token is looked at: this bounds the handshake, too.
		ReadHeaderTimeout: 5 * time.Second,
		ReadTimeout:       30 * time.Second,
		WriteTimeout:      time.Minute,
		IdleTimeout:       30 * time.Second,
		MaxHeaderBytes:    16 << 10,
		Protocols:         new(http.Protocols),
		ErrorLog:          slog.NewLogLogger(s.Logger.Handler(), slog.LevelDebug),
	}
	server.Protocols.SetHTTP1(true)
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
	if err := server.ServeTLS(listener, "", ""); !errors.Is(err, http.ErrServerClosed) {
		return fmt.Errorf("control address %s: %w", listener.Addr(), err)
	}
	<-ctx.Done()
	return nil
}

// handler answers requests; what they set off belongs to ctx.
func (s *Server) handler(ctx context.Context) http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET "+nodePath, func(w http.ResponseWriter, _ *http.Request) { answer(w, http.StatusOK, s.Node()) })
	mux.HandleFunc("POST "+takePath, func(w http.ResponseWriter, r *http.Request) { s.order(ctx, w, r, false) })
	mux.HandleFunc("POST "+dryRunPath, func(w http.ResponseWriter, r *http.Request) { s.order(ctx, w, r, true) })
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if !s.Credentials.admits(r.Header.Get("Authorization")) {
			s.strangers.note(s.Logger, r.RemoteAddr, time.Now())
			// Without this the body of a stranger would be read to keep the connection.
			w.Header().Set("Connection", "close")
			w.Header().Set("WWW-Authenticate", `Bearer realm="pgporter"`)
			refuse(w, http.StatusUnauthorized, "the token isn't this node's")
			return
		}
		gate.Know(r)
		mux.ServeHTTP(w, r)
	})
}

func (s *Server) order(ctx context.Context, w http.ResponseWriter, r *http.Request, dryRun bool) {
	text, err := io.ReadAll(http.MaxBytesReader(w, r.Body, intake.MaxBytes))
	var long *http.MaxBytesError
	switch {
	case errors.As(err, &long):
		refuse(w, http.StatusRequestEntityTooLarge, fmt.Sprintf("the order is too long: %d bytes at most", intake.MaxBytes))
		return
	case err != nil:
		refuse(w, http.StatusBadRequest, "the order didn't arrive whole")
		return
	}
	o, err := intake.Decode(text)
	if err != nil {
		s.Logger.Warn("an order that isn't sound came to the control address", "from", r.RemoteAddr, "problems", err.Error())
		refuse(w, http.StatusBadRequest, err.Error())
		return
	}
	taken, err := s.Take(ctx, o, r.RemoteAddr, dryRun)
	if err != nil {
		refuse(w, http.StatusUnprocessableEntity, err.Error())
		return
	}
	answer(w, http.StatusOK, taken)
}

func refuse(w http.ResponseWriter, code int, why string) { answer(w, code, api.Refusal{Error: why}) }

func answer(w http.ResponseWriter, code int, v any) {
	text, err := json.Marshal(v)
	if err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Cache-Control", "no-store")
	w.WriteHeader(code)
	w.Write(append(text, '\n'))
}

// strangers counts requests without the token, so that a flood of them is one line a second.
type strangers struct {
	mu       sync.Mutex
	logged   time.Time
	unlogged int
}

func (s *strangers) note(log *slog.Logger, from string, now time.Time) {
	s.mu.Lock()
	if now.Sub(s.logged) < time.Second {
		s.unlogged++
		s.mu.Unlock()
		return
	}
	before := s.unlogged
	s.logged, s.unlogged = now, 0
	s.mu.Unlock()
	log.Warn("a request without the token came to the control address", "from", from, "others_before", before)
}

// bearer is how a request brings its token (RFC 6750, section 2.1).
const bearer = "Bearer "

func tokenOf(header string) (string, bool) { return strings.CutPrefix(header, bearer) }
