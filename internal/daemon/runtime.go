package daemon

import (
	"context"
	"net"

	"github.com/pgporter/pgporter/internal/admin/runtime"
)

// prepareRuntime makes the runtime socket, which has its name only once everything else is ready; nil without one. A process that this one
// takes over from may have the name.
func (d *Daemon) prepareRuntime(ctx context.Context) (*runtime.Socket, error) {
	if d.cfg.RuntimeSocket == "" {
		return nil, nil
	}
	return runtime.Prepare(ctx, d.cfg.RuntimeSocket, func(who *net.UnixConn) bool {
		before := d.cfg.Inherited
		if before == nil {
			return false
		}
		_, pid, err := peerOf(who)
		return err == nil && pid == before.state.PID
	})
}

// serveRuntime answers at the runtime socket until ctx ends.
func (d *Daemon) serveRuntime(ctx context.Context, socket *runtime.Socket) error {
	if socket == nil {
		return nil
	}
	defer socket.Discard()
	if err := socket.Publish(); err != nil {
		d.log.Error("nobody can be answered at the runtime socket", "problem", err.Error())
		<-ctx.Done()
		return nil
	}
	return runtime.Serve(ctx, socket, d, d.log)
}
