package daemon

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"slices"
	"syscall"

	"github.com/pgporter/pgporter/internal/admin/statistics"
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
	if page := d.page.status(); page != nil {
		// Pigsty's nginx asks for what it calls its upstream.
		names = append(names, page.Node, "haproxy-"+page.Node)
	}
	if host, err := os.Hostname(); err == nil {
		names = append(names, host)
	}
	return names
}

// shown is what every address shows. As many as most look at once.
func (d *Daemon) shown(most int) web.Config {
	// Scrapes and questions have the other half of the connections.
	return web.Config{Feed: d.feed, Streams: most / 2, Status: d.Status, Problems: d.liveness.problems, Names: d.adminNames, CSV: statistics.Page, Events: d.Events}
}

// serveAdmin answers at the admin address until ctx ends.
func (d *Daemon) serveAdmin(ctx context.Context, listener net.Listener) error {
	if err := web.Serve(ctx, d.guard(listener, "admin", d.budget.admin), web.Handler(d.shown(d.budget.admin)), nil, d.log); err != nil {
		return fmt.Errorf("admin address %s: %w", listener.Addr(), err)
	}
	return nil
}
