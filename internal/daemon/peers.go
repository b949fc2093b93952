package daemon

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"strconv"
	"sync"
	"time"

	"github.com/pgporter/pgporter/internal/admin/control"
	"github.com/pgporter/pgporter/internal/engine/process"
)

// Sockets for those on this machine are abstract ones (unix(7)), named after the process, so that nothing is left of them: one for what
// the control address takes too (steerName), and a shadow's own, over which descriptors go (localName). The kernel says who calls
// (SO_PEERCRED): root and the process's own user may, since they could do anything to the process anyway.

// steerName is the socket at which a process has the control address's routes for its own machine.
func steerName(pid int) string { return fmt.Sprintf("@pgporter-%d", pid) }

// peer is a connection of a user who may give orders.
type peer struct {
	*net.UnixConn
	// who is its user, for the log and the events.
	who string
}

// peers are those who may; others are closed and told to the log, in a line a minute.
type peers struct {
	net.Listener
	log *slog.Logger

	mu      sync.Mutex
	told    time.Time
	untold  int
	closing chan struct{}
	closed  sync.Once
}

// listenPeers opens a socket for those on this machine who may give orders.
func (d *Daemon) listenPeers(ctx context.Context, name string) (*peers, error) {
	var config net.ListenConfig
	listener, err := config.Listen(ctx, "unix", name)
	if err != nil {
		return nil, err
	}
	return &peers{Listener: listener, log: d.log, closing: make(chan struct{})}, nil
}

// Accept gives the next connection of who may, a *peer. An error means that the listener is closed.
func (p *peers) Accept() (net.Conn, error) {
	for {
		conn, err := p.Listener.Accept()
		select {
		case <-p.closing:
			if err == nil {
				conn.Close()
			}
			return nil, net.ErrClosed
		default:
		}
		if err != nil {
			p.log.Warn("an order from this machine couldn't be taken", "error", err)
			select {
			case <-p.closing:
			case <-time.After(time.Second):
			}
			continue
		}
		user, _, err := peerOf(conn.(*net.UnixConn))
		if err != nil || user != 0 && user != os.Geteuid() {
			p.refuse(user, err)
			conn.Close()
			continue
		}
		return &peer{conn.(*net.UnixConn), whoIs(user)}, nil
	}
}

func (p *peers) refuse(user int, err error) {
	p.mu.Lock()
	p.untold++
	now, untold := time.Now(), p.untold
	quiet := now.Sub(p.told) < time.Minute
	if !quiet {
		p.told, p.untold = now, 0
	}
	p.mu.Unlock()
	if !quiet {
		p.log.Warn("an order from this machine is refused: it is another user's", "user", user, "error", err, "times", untold)
	}
}

// Close ends the listener and who waits in Accept.
func (p *peers) Close() error {
	p.closed.Do(func() { close(p.closing) })
	return p.Listener.Close()
}

// whoIs says who a user is.
func whoIs(id int) string {
	if name := userNamed(id); name != "" {
		return fmt.Sprintf("%s (uid %d)", name, id)
	}
	return "uid " + strconv.Itoa(id)
}

// listenForSteering opens the socket at which this machine's own give orders; nil where none are taken.
func (d *Daemon) listenForSteering(ctx context.Context) net.Listener {
	if !abstractSockets {
		return nil
	}
	listener, err := d.listenPeers(ctx, steerName(os.Getpid()))
	if err != nil {
		d.log.Error("no orders are taken from this machine: their socket can't be opened", "error", err)
		return nil
	}
	return listener
}

// serveSteering takes orders from this machine until ctx ends. When it returns, none is being carried out and none will be.
func (d *Daemon) serveSteering(ctx context.Context, listener net.Listener) error {
	if listener == nil {
		return nil
	}
	defer d.takeNoMore()
	server := control.Local{Steering: d.steering(), Logger: d.log, Who: func(conn net.Conn) string {
		if p, is := conn.(*peer); is {
			return p.who
		}
		return "this machine"
	}}
	return server.Serve(ctx, d.guard(listener, "local", d.budget.local))
}

// Steer connects to the pgporter with a process number at the socket where this machine's own give orders. Whose number that is was
// said by who answered at one of the admin addresses: the process has to be seen to be a pgporter that listens there, as for Ask.
func Steer(ctx context.Context, pid int, admin []netip.AddrPort) (net.Conn, error) {
	p, _, err := seen(pid, admin)
	if err != nil {
		return nil, err
	}
	defer p.Close()
	var dialer net.Dialer
	conn, err := dialer.DialContext(ctx, "unix", steerName(pid))
	if err != nil {
		return nil, fmt.Errorf("the pgporter with number %d takes no orders at a socket of this machine: %w", pid, err)
	}
	if err := belongsTo(conn.(*net.UnixConn), pid); err != nil {
		conn.Close()
		return nil, err
	}
	return conn, nil
}

// belongsTo says that a connection's other end isn't a process's, if so: anybody may take a name of an abstract socket.
func belongsTo(conn *net.UnixConn, pid int) error {
	if _, is, err := peerOf(conn); err != nil || is != pid {
		return fmt.Errorf("its socket is that of process %d: %w", is, errors.Join(err, process.ErrEnded))
	}
	return nil
}
