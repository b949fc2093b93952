package pool

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net"
	"strconv"
	"strings"
	"time"

	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgproto3"

	"github.com/pgporter/pgporter/internal/config/safetext"
)

const (
	// consoleName is the database of PgBouncer's own commands.
	consoleName = "pgbouncer"
	// ownUser may log in at the Unix socket without a password if it is of PgBouncer's own user, and may do everything then.
	ownUser = "pgbouncer"
	// answerTime is how long PgBouncer may take for an answer.
	answerTime = 3 * time.Second
)

// Address is where a PgBouncer listens: a port, at a host or in the directory of a Unix socket.
type Address struct {
	Host string
	Port int
}

// ParseAddress reads HOST:PORT or DIRECTORY:PORT.
func ParseAddress(text string) (Address, error) {
	wrong := fmt.Errorf("%q: HOST:PORT, or the directory of a Unix socket with its port, as in /var/run/postgresql:6432", text)
	at := strings.LastIndexByte(text, ':')
	if at < 1 {
		return Address{}, wrong
	}
	port, err := strconv.ParseUint(text[at+1:], 10, 16)
	if err != nil || port == 0 {
		return Address{}, wrong
	}
	if text[0] == '/' {
		return Address{text[:at], int(port)}, nil
	}
	host, _, err := net.SplitHostPort(text)
	if err != nil || host == "" || strings.ContainsAny(host, "/, ") {
		return Address{}, wrong
	}
	return Address{host, int(port)}, nil
}

func (a Address) String() string {
	if a.Socket() {
		return a.Host + ":" + strconv.Itoa(a.Port)
	}
	return net.JoinHostPort(a.Host, strconv.Itoa(a.Port))
}

// Socket tells whether it is that of a Unix socket.
func (a Address) Socket() bool { return strings.HasPrefix(a.Host, "/") }

// refusal is PgBouncer's own no.
type refusal struct{ text string }

func (r refusal) Error() string { return r.text }

// console is a connection with PgBouncer's own commands. It speaks the simple protocol alone and, unlike pgconn, never sends a cancel
// request: that would end an operator's PAUSE of everything.
type console struct {
	conn     net.Conn
	frontend *pgproto3.Frontend
}

// open logs in at a console.
func open(ctx context.Context, cfg *Config, a Address) (*console, error) {
	ctx, cancel := context.WithTimeout(ctx, answerTime)
	defer cancel()
	quote := strings.NewReplacer(`\`, `\\`, `'`, `\'`)
	config, err := pgconn.ParseConfig(fmt.Sprintf("host='%s' port=%d dbname=%s user='%s' sslmode=prefer", quote.Replace(a.Host), a.Port, consoleName, quote.Replace(cmp.Or(cfg.User, ownUser))))
	if err != nil {
		return nil, err
	}
	password := ""
	if cfg.Password != nil {
		if password, err = cfg.Password(); err != nil {
			return nil, err
		}
	}
	// What else libpq's environment says is for others.
	config.Password, config.ValidateConnect = password, nil
	config.RuntimeParams = map[string]string{"application_name": "pgporter"}
	conn, err := pgconn.ConnectConfig(ctx, config)
	if err != nil {
		return nil, whyNot(ctx, err)
	}
	_ = conn.SyncConn(ctx)
	h, err := conn.Hijack()
	if err != nil {
		return nil, err
	}
	return &console{h.Conn, h.Frontend}, nil
}

// whyNot says in a line why there is no answer.
func whyNot(ctx context.Context, err error) error {
	var no *pgconn.PgError
	var late net.Error
	switch {
	case errors.As(err, &no):
		return refusal{safetext.Line(no.Message)}
	case ctx.Err() != nil, errors.As(err, &late) && late.Timeout():
		return fmt.Errorf("no answer in %s", answerTime)
	}
	// pgconn says again whom it connects to.
	for inner := errors.Unwrap(err); inner != nil; inner = errors.Unwrap(err) {
		err = inner
	}
	return errors.New(safetext.Line(err.Error()))
}

func (c *console) close() {
	_ = c.conn.SetDeadline(time.Now().Add(answerTime))
	c.frontend.Send(&pgproto3.Terminate{})
	_ = c.frontend.Flush()
	_ = c.conn.Close()
}

// do gives a command and reads its answer: rows by the names of their columns, which differ from version to version.
func (c *console) do(command string) ([]map[string]string, error) {
	if err := c.send(command); err != nil {
		return nil, err
	}
	return c.answer()
}

func (c *console) send(command string) error {
	_ = c.conn.SetDeadline(time.Now().Add(answerTime))
	c.frontend.Send(&pgproto3.Query{String: command})
	return c.frontend.Flush()
}

// answer reads the answer to what was sent. An error that isn't a refusal is the connection's end.
func (c *console) answer() ([]map[string]string, error) {
	var columns []string
	var rows []map[string]string
	var refused error
	for {
		message, err := c.frontend.Receive()
		if err != nil {
			if refused != nil {
				return nil, errors.New(refused.Error())
			}
			return nil, whyNot(context.Background(), err)
		}
		switch m := message.(type) {
		case *pgproto3.RowDescription:
			columns = columns[:0]
			for _, f := range m.Fields {
				columns = append(columns, string(f.Name))
			}
		case *pgproto3.DataRow:
			row := make(map[string]string, len(columns))
			for i, v := range m.Values {
				if i < len(columns) {
					row[columns[i]] = string(v)
				}
			}
			rows = append(rows, row)
		case *pgproto3.ErrorResponse:
			refused = refusal{safetext.Line(m.Message)}
		case *pgproto3.ReadyForQuery:
			return rows, refused
		}
	}
}

// quoted is a database's name as the console's commands take it.
func quoted(name string) string { return `"` + strings.ReplaceAll(name, `"`, `""`) + `"` }
