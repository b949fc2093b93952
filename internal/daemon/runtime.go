package daemon

import (
	"context"
	"errors"
	"net"
	"os"

	"github.com/pgporter/pgporter/internal/admin/runtime"
)

// prepareRuntime takes the runtime socket over from the process before, or makes one, which has its name only once everything else is
// ready; nil without one.
func (d *Daemon) prepareRuntime(ctx context.Context) (*runtime.Socket, error) {
	if d.cfg.RuntimeSocket == "" {
		return nil, nil
	}
	if fd := d.cfg.Inherited.socket(runtimeSocket + d.cfg.RuntimeSocket); fd >= 0 {
		file := os.NewFile(uintptr(fd), d.cfg.RuntimeSocket)
		listener, err := net.FileListener(file)
		_ = file.Close()
		if unix, is := listener.(*net.UnixListener); is {
			inherited, missing := runtime.Inherit(unix, d.cfg.RuntimeSocket)
			if missing == nil {
				return inherited, nil
			}
			_, err = unix.Close(), missing
		}
		d.log.Warn("the runtime socket isn't taken over from the process before", "error", err)
	}
	socket, err := runtime.Prepare(ctx, d.cfg.RuntimeSocket)
	if err != nil && d.cfg.Inherited != nil {
		// Sessions are worth more: a socket that can't be made is no reason to stay with the program of before.
		d.log.Error("nobody can be answered at the runtime socket", "problem", err.Error())
		return nil, nil
	}
	return socket, err
}

// serveRuntime answers at the runtime socket until ctx ends.
func (d *Daemon) serveRuntime(ctx context.Context, socket *runtime.Socket) error {
	if socket == nil {
		return nil
	}
	defer func() {
		if errors.Is(context.Cause(ctx), errHandedOver) {
			// The next process has it, with its name.
			_ = socket.Close()
			return
		}
		socket.Discard()
	}()
	if err := socket.Publish(); err != nil {
		d.log.Error("nobody can be answered at the runtime socket", "problem", err.Error())
		<-ctx.Done()
		return nil
	}
	return runtime.Serve(ctx, socket, d, d.log)
}
