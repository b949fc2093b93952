package proxy

import (
	"context"
	"io"
	"net"
	"slices"
	"sync"
	"time"
)

// cancelTimeout is how long, at most, a client waits for its CancelRequest to have been passed on.
const cancelTimeout = time.Second

// cancel passes a CancelRequest to every server of the service, whatever its health: which of them the session is on that
// it means can't be seen, and a server ignores a key that it didn't give out. It never waits for a server to be up. Like
// PostgreSQL it answers by closing, once the servers have: who cancels and then sends the next query on the session must
// know that the request won't hit that one. A server that is slow to answer doesn't hold up the client longer than
// cancelPatience.
func (d *dispatcher) cancel(c *client) {
	defer c.close()
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
	d.engine.log.Debug("passing on a cancel request", "service", d.name, "client", c.from.String(), "servers", len(svc.Servers))
	var passing sync.WaitGroup
	for _, server := range svc.Servers {
		passing.Go(func() {
			if err := passCancel(ctx, server.Address(), request); err != nil {
				d.engine.log.Debug("cannot pass on a cancel request", "service", d.name, "server", server.Member, "error", plain(err))
			}
		})
	}
	passing.Wait()
}

// passCancel sends a CancelRequest, with what goes before it, to one server and waits until the server has closed the connection.
func passCancel(ctx context.Context, address string, request []byte) error {
	var dialer net.Dialer
	conn, err := dialer.DialContext(ctx, "tcp", address)
	if err != nil {
		return err
	}
	defer conn.Close()
	defer context.AfterFunc(ctx, func() { _ = conn.SetDeadline(past) })()
	if _, err := conn.Write(request); err != nil {
		return err
	}
	_, err = io.Copy(io.Discard, conn)
	return err
}
