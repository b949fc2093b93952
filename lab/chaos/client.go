package chaos

import (
	"context"
	"errors"
	"fmt"
	"net"
	"regexp"
	"strconv"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/pgporter/pgporter/lab/sandbox"
)

// table is what writers write to.
const table = "chaos"

// patience bounds one attempt of a client. It is longer than clients are queued (5 s).
const patience = 10 * time.Second

// open connects from a node without TLS (pgx would try with it first and connect twice) and without prepared statements,
// which a PgBouncer in transaction mode doesn't keep. Of several hosts the one is taken that can be written to.
func (f *field) open(ctx context.Context, from string, to sandbox.Access) (*pgx.Conn, error) {
	config, err := pgx.ParseConfig(to.URL() + "?sslmode=disable")
	if err != nil {
		return nil, err
	}
	config.DialFunc = f.dialer(from)
	config.DefaultQueryExecMode, config.ConnectTimeout = pgx.QueryExecModeSimpleProtocol, patience
	if strings.Contains(to.Host, ",") {
		config.ConnectTimeout, config.ValidateConnect = time.Second, pgconn.ValidateConnectTargetSessionAttrsReadWrite
	}
	return pgx.ConnectConfig(ctx, config)
}

// client goes through one service of one node, again and again.
type client struct {
	field *field
	// from is the node that it is on.
	from string
	to   sandbox.Access
	// id is a writer's number; 0 for readers.
	id int
	// stays keeps the session as long as it lasts; otherwise each round connects anew.
	stays bool
	every time.Duration

	n    int
	conn *pgx.Conn
	// opened is when the session was, asked when the round began that it is in.
	opened, asked time.Time
	// member is whom the session is on, once that is known.
	member string
}

// run goes on until ctx ends.
func (c *client) run(ctx context.Context) {
	again := time.NewTicker(c.every)
	defer again.Stop()
	defer c.leave()
	for {
		select {
		case <-ctx.Done():
			return
		case <-again.C:
			c.round(ctx)
		}
	}
}

func (c *client) leave() {
	if c.conn == nil {
		return
	}
	// The answer to a goodbye is nothing to wait for.
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	c.conn.Close(ctx) //nolint:errcheck // the session is over either way
	c.conn = nil
}

func (c *client) round(parent context.Context) {
	ctx, cancel := context.WithTimeout(parent, patience)
	defer cancel()
	connected := c.conn != nil
	var err error
	c.asked = time.Now()
	if !connected {
		c.opened, c.member = c.asked, ""
		c.conn, err = c.field.open(ctx, c.from, c.to)
		connected = err == nil
		if connected && c.stays && c.to.Port == doorPort {
			c.field.doors.open()
		}
	}
	if err == nil && c.id > 0 {
		err = c.write(ctx)
	} else if err == nil {
		err = c.read(ctx)
	}
	if err != nil && parent.Err() == nil {
		c.field.ledger.failed(c.to.Port, connected, words(err))
		switch {
		case !c.stays || c.member == "":
		case c.to.Port == doorPort:
			c.field.doors.failed(doorSession{node: c.to.Node, member: c.member, asked: c.asked}, err)
		case forPrimary(c.to.Port):
			c.field.sessions.failed(leaderSession(c.to, c.member, c.opened), err)
		}
		var refusal *pgconn.PgError
		if errors.As(err, &refusal) && refusal.Code == "25006" {
			c.field.note("a write through %s:%d was connected to a standby: session of %s", c.to.Node, c.to.Port, clock(c.opened))
		}
	}
	if err != nil || !c.stays {
		c.leave()
	}
}

// who asks an instance which one it is and whether it is a standby.
const who = "host(inet_server_addr()), clock_timestamp()"

func (c *client) write(ctx context.Context) error {
	c.n++
	w := write{writer: c.id, n: c.n, node: c.to.Node, port: c.to.Port}
	var address, segment string
	// Of the name of a file of the log the first eight digits are the timeline that is written now.
	sql := fmt.Sprintf("insert into %s (writer, n) values (%d, %d) returning %s, pg_walfile_name(pg_current_wal_lsn()), pg_current_wal_lsn()::text", table, c.id, c.n, who)
	if err := c.conn.QueryRow(ctx, sql).Scan(&address, &w.at, &segment, &w.lsn); err != nil {
		return err
	}
	w.acked = time.Now()
	timeline, err := strconv.ParseInt(segment[:8], 16, 64)
	if err != nil {
		return fmt.Errorf("name of a log file %q: %w", segment, err)
	}
	w.timeline, w.member = int(timeline), c.field.name(address)
	c.member = w.member
	c.field.ledger.done(c.to.Port, w.acked, &w)
	return nil
}

// read asks who answers; through the offline service that must never be a primary.
func (c *client) read(ctx context.Context) error {
	var address string
	var at time.Time
	var standby bool
	sql := "select " + who + ", pg_is_in_recovery(), (select count(*) from (select 1 from " + table + " limit 1) as one)"
	if err := c.conn.QueryRow(ctx, sql).Scan(&address, &at, &standby, nil); err != nil {
		return err
	}
	c.field.ledger.done(c.to.Port, time.Now(), nil)
	c.field.roles.answered(c.to, c.field.name(address), standby, at)
	return nil
}

var addresses = regexp.MustCompile(`[0-9]+\.[0-9]+\.[0-9]+\.[0-9]+(:[0-9]+)?(->[0-9.:]+)?`)

// words are an error without what differs from client to client.
func words(err error) string {
	var refusal *pgconn.PgError
	if errors.As(err, &refusal) {
		first, _, _ := strings.Cut(refusal.Message, ":")
		return refusal.Code + " " + first
	}
	var netErr net.Error
	if errors.Is(err, context.DeadlineExceeded) || errors.As(err, &netErr) && netErr.Timeout() {
		return "no answer within " + patience.String()
	}
	for inner := errors.Unwrap(err); inner != nil; inner = errors.Unwrap(err) {
		err = inner
	}
	return addresses.ReplaceAllString(err.Error(), "")
}
