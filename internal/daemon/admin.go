package daemon

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"os"
	"slices"
	"syscall"
	"time"

	"github.com/pgporter/pgporter/internal/access/gate"
	"github.com/pgporter/pgporter/internal/admin/web"
	"github.com/pgporter/pgporter/internal/engine/proxy"
)

// listenAdmin opens the admin address, unless it is inherited; if somebody has it, the error says who.
func listenAdmin(ctx context.Context, address string, inherited *Inherited) (net.Listener, error) {
	if l, err := inherited.listener(adminSocket + address); l != nil || err != nil {
		return l, err
	}
	var config net.ListenConfig
	listener, err := config.Listen(ctx, "tcp", address)
	var refused *net.OpError
	if errors.As(err, &refused) && errors.Is(err, syscall.EADDRINUSE) {
		if at, ok := refused.Addr.(*net.TCPAddr); ok {
			return nil, fmt.Errorf("admin address %s: %w: %s; another is chosen with --admin", address, syscall.EADDRINUSE, proxy.Holder(at.AddrPort()))
		}
	}
	if refused != nil {
		// The address has been said.
		err = refused.Err
	}
	if err != nil {
		return nil, fmt.Errorf("admin address %s: %w", address, err)
	}
	return listener, nil
}

// adminNames are the names by which the admin address may be asked for: those that were said, and this machine's.
func (d *Daemon) adminNames() []string {
	d.mu.Lock()
	names := append(slices.Clone(d.cfg.AdminNames), d.node)
	d.mu.Unlock()
	if host, err := os.Hostname(); err == nil {
		names = append(names, host)
	}
	return names
}

// lastAnswers is how long requests that are being answered may take once ctx has ended.
const lastAnswers = 300 * time.Millisecond

// serveAdmin answers at the admin address until ctx ends.
func (d *Daemon) serveAdmin(ctx context.Context, listener net.Listener) error {
	server := &http.Server{
		Handler:           gate.Serving(web.Handler(d.Status, d.liveness.problems, d.adminNames)),
		ConnContext:       gate.Context,
		ReadHeaderTimeout: 5 * time.Second,
		ReadTimeout:       10 * time.Second,
		WriteTimeout:      30 * time.Second,
		IdleTimeout:       30 * time.Second,
		MaxHeaderBytes:    16 << 10,
		ErrorLog:          slog.NewLogLogger(d.log.Handler(), slog.LevelDebug),
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
	if err := server.Serve(d.guard(listener, "admin", d.budget.admin)); !errors.Is(err, http.ErrServerClosed) {
		stopped()
		return fmt.Errorf("admin address %s: %w", listener.Addr(), err)
	}
	<-closed
	return nil
}
