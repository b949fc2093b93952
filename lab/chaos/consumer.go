package chaos

import (
	"context"
	"fmt"
	"net"
	"sync"
	"time"

	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgproto3"

	"github.com/pgporter/pgporter/lab/sandbox"
)

// consumer is a replication client that has stopped reading, like a pg_receivewal after SIGSTOP: its primary can't send it what is left of
// the log, and for that reason doesn't stop until wal_sender_timeout (60 s) or until the client has gone.
type consumer struct {
	conn *pgconn.PgConn
	// switching is the switchover that was asked for behind it.
	switching sync.WaitGroup
}

// unread is how much of the log a frozen consumer is left behind by: more than the socket's buffers hold.
const unread = 32

// freezeConsumer puts a frozen consumer before the leader and asks for a switchover, which goes on by itself.
func (f *field) freezeConsumer(ctx context.Context, plan fault) error {
	member := f.keys.is("leader", f.names())
	if member == "" {
		return fmt.Errorf("nobody leads")
	}
	to, err := f.Access(member, "")
	if err != nil {
		return err
	}
	within, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	c := &consumer{}
	if c.conn, err = f.replicate(within, member, to); err != nil {
		return fmt.Errorf("a consumer of %s: %w", member, err)
	}
	if err := f.writeLog(within, member, to); err != nil {
		c.conn.Close(within) //nolint:errcheck // it is over either way
		return err
	}
	f.mu.Lock()
	f.consumers[plan.at] = c
	f.mu.Unlock()
	f.say("a consumer of %s reads no more", member)
	c.switching.Go(func() {
		if err := f.switchOver(ctx, plan.lasts+15*time.Second); err != nil {
			f.say("%s: %v", plan.kind, err)
		}
	})
	return nil
}

// replicate begins physical replication from a server and leaves it unread.
func (f *field) replicate(ctx context.Context, member string, to sandbox.Access) (*pgconn.PgConn, error) {
	config, err := pgconn.ParseConfig(to.URL() + "?sslmode=disable&replication=database&application_name=consumer")
	if err != nil {
		return nil, err
	}
	dial := f.dialer(member)
	config.DialFunc = func(ctx context.Context, network, address string) (net.Conn, error) {
		conn, err := dial(ctx, network, address)
		if tcp, is := conn.(*net.TCPConn); is {
			err = tcp.SetReadBuffer(64 << 10)
		}
		return conn, err
	}
	conn, err := pgconn.ConnectConfig(ctx, config)
	if err != nil {
		return nil, err
	}
	// Where the log ends is in the third column (PostgreSQL manual, "Streaming Replication Protocol").
	system, err := conn.Exec(ctx, "IDENTIFY_SYSTEM").ReadAll()
	if err == nil && (len(system) != 1 || len(system[0].Rows) != 1 || len(system[0].Rows[0]) < 3) {
		err = fmt.Errorf("IDENTIFY_SYSTEM says %v", system)
	}
	if err == nil {
		conn.Frontend().Send(&pgproto3.Query{String: "START_REPLICATION PHYSICAL " + string(system[0].Rows[0][2])})
		err = conn.Frontend().Flush()
	}
	if err == nil {
		var first pgproto3.BackendMessage
		if first, err = conn.ReceiveMessage(ctx); err == nil {
			if _, begins := first.(*pgproto3.CopyBothResponse); !begins {
				err = fmt.Errorf("START_REPLICATION: %#v", first)
			}
		}
	}
	if err != nil {
		conn.Close(ctx) //nolint:errcheck // it is over either way
		return nil, err
	}
	return conn, nil
}

// writeLog makes the server's log grow by unread MB.
func (f *field) writeLog(ctx context.Context, member string, to sandbox.Access) error {
	conn, err := f.open(ctx, member, to)
	if err != nil {
		return err
	}
	defer conn.Close(ctx) //nolint:errcheck // what was done is done
	return conn.QueryRow(ctx, fmt.Sprintf("select count(pg_logical_emit_message(false, 'chaos', repeat('x', 1024 * 1024))) from generate_series(1, %d)", unread)).Scan(nil)
}

// endConsumer has the consumer of a fault go away, and waits for the end of its switchover.
func (f *field) endConsumer(at time.Duration) {
	f.mu.Lock()
	c := f.consumers[at]
	delete(f.consumers, at)
	f.mu.Unlock()
	if c == nil {
		return
	}
	c.conn.Conn().Close() //nolint:errcheck // without a goodbye, which the server wouldn't read
	c.switching.Wait()
}
