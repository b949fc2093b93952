package proxy

import (
	"context"
	"errors"
	"io"
	"net"
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

// cancelTimeout is how long, at most, a client waits for its CancelRequest to have been passed on, and the request for its turn and
// for servers to close.
const cancelTimeout = time.Second

// cancel passes a CancelRequest to every server of the service, whatever its health: which of them the session is on that
// it means can't be seen, and a server ignores a key that it didn't give out. It never waits for a server to be up. Like
// PostgreSQL it answers by closing, once the servers have: who cancels and then sends the next query on the session must
// know that the request won't hit that one. A server that is slow to answer doesn't hold up the client longer than
// cancelTimeout, nor a connection to it, once it was sent the request.
//
// A request takes a client's place and a connection to each address. How many of those there are at a time is bounded (cancels); what
// doesn't get one in time is dropped.
func (d *dispatcher) cancel(c *client) {
	defer c.close()
	d.cancels.Add(1)
	if err := c.take(); err != nil {
		return
	}
	ctx, stop := context.WithTimeout(d.engine.over, d.protocol().connectTimeout)
	defer stop()
	early := time.AfterFunc(cancelTimeout, c.close)
	defer early.Stop()
	svc := d.view()
	if svc == nil {
		return
	}
	header, err := c.proxyHeader(svc.Options.ProxyVersion())
	if err != nil {
		d.engine.log.Warn("cannot pass on a cancel request", "service", d.name, "error", err)
		return
	}
	request := slices.Concat(header, c.packet)
	var addresses []string
	for _, server := range svc.Servers {
		addresses = append(addresses, server.Address())
	}
	slices.Sort(addresses)
	addresses = slices.Compact(addresses)
	d.engine.log.Debug("passing on a cancel request", "service", d.name, "client", c.from.String(), "servers", len(addresses))
	closed, release := context.WithTimeout(ctx, cancelTimeout)
	defer release()
	var sending sync.WaitGroup
	var crowded atomic.Int32
	for _, address := range addresses {
		sending.Go(func() {
			p := &passing{service: d.name, source: c.source(), server: address}
			err := d.engine.cancels.take(closed, p)
			if err == nil {
				err = passCancel(ctx, closed, address, request, &d.cancelsSent)
				d.engine.cancels.leave(p)
			}
			if errors.Is(err, errCrowded) {
				crowded.Add(1)
			}
			if err != nil {
				d.engine.log.Debug("cannot pass on a cancel request", "service", d.name, "server", address, "error", plain(err))
			}
		})
	}
	sending.Wait()
	if n := crowded.Load(); n > 0 {
		if say, missed := d.drops.ready(time.Now()); say {
			d.engine.log.Warn("dropped a cancel request: too many are on their way", "service", d.name, "client", c.from.String(),
				"servers", n, "requests_since_last_line", missed+1)
		}
	}
}

// passCancel sends a CancelRequest, with what goes before it, to one server, and waits until the server has closed the connection, but
// no longer than closed lasts. sent counts it once it was sent.
func passCancel(ctx, closed context.Context, address string, request []byte, sent *atomic.Uint64) error {
	var dialer net.Dialer
	conn, err := dialer.DialContext(ctx, "tcp", address)
	if err != nil {
		return err
	}
	defer conn.Close()
	defer context.AfterFunc(closed, func() { _ = conn.SetReadDeadline(past) })()
	// A new connection's buffer takes it at once.
	if _, err := conn.Write(request); err != nil {
		return err
	}
	sent.Add(1)
	_, err = io.Copy(io.Discard, conn)
	return err
}
