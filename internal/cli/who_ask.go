package cli

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/pgporter/pgporter/internal/admin/api"
	"github.com/pgporter/pgporter/internal/admin/control"
	"github.com/pgporter/pgporter/internal/admin/who"
	"github.com/pgporter/pgporter/internal/cli/command"
	"github.com/pgporter/pgporter/internal/config/model"
	"github.com/pgporter/pgporter/internal/config/safetext"
)

// account is who asks PostgreSQL or PgBouncer. An empty user is whom libpq would come as.
type account struct {
	user     string
	password model.Secret
	database string
}

// readAccount reads a file with lines `user = NAME` and `password = WORD`, and for PostgreSQL perhaps `database = NAME`; no file is
// what libpq's own environment says.
func readAccount(flag, path string) (account, error) {
	if path == "" {
		return account{}, nil
	}
	text, err := control.ReadPrivate(flag, path)
	if err != nil {
		return account{}, command.Input(err)
	}
	a, err := parseAccount(string(text))
	if err != nil {
		return account{}, command.Input(fmt.Errorf("%s %s: %w", flag, path, err))
	}
	return a, nil
}

// parseAccount reads such a file's text. What is wrong with a line is said without it: it may be a password.
func parseAccount(text string) (account, error) {
	var a account
	number := 0
	for line := range strings.Lines(text) {
		number++
		line = strings.TrimRight(line, "\r\n")
		if trimmed := strings.TrimSpace(line); trimmed == "" || trimmed[0] == '#' {
			continue
		}
		key, value, is := strings.Cut(line, "=")
		// One blank belongs to the sign, any other to the password.
		value = strings.TrimPrefix(value, " ")
		switch strings.TrimSpace(key) {
		case "user":
			a.user = strings.TrimSpace(value)
		case "password":
			a.password = model.Secret(value)
		case "database":
			a.database = strings.TrimSpace(value)
		default:
			is = false
		}
		if !is {
			return account{}, fmt.Errorf("line %d is neither `user = NAME` nor `password = WORD` nor `database = NAME`", number)
		}
	}
	if a.user == "" {
		return account{}, errors.New("it has no line `user = NAME`")
	}
	return a, nil
}

// config is how to come to one address as the account. TLS, and what isn't said, are as libpq's environment has them.
func (a account) config(host string, port int, database string) (*pgx.ConnConfig, error) {
	quote := strings.NewReplacer(`\`, `\\`, `'`, `\'`)
	text := fmt.Sprintf("host='%s' port=%d dbname='%s'", quote.Replace(host), port, quote.Replace(database))
	if a.user != "" {
		text += fmt.Sprintf(" user='%s'", quote.Replace(a.user))
	}
	config, err := pgx.ParseConfig(text)
	if err != nil {
		return nil, err
	}
	if a.user != "" {
		config.Password = a.password.Reveal()
	}
	config.RuntimeParams = map[string]string{"application_name": "pgporter who"}
	return config, nil
}

// whoNode is a node that is asked.
type whoNode struct {
	name, host string
	sessions   sessionSource
}

// sessionSource is a pgporter that tells its sessions and ends them.
type sessionSource interface {
	Sessions(ctx context.Context, f api.SessionFilter) (api.Sessions, error)
	EndSessions(ctx context.Context, e api.EndSessions) (api.SessionsEnded, error)
}

// inquiry is whom to ask, and as whom.
type inquiry struct {
	cluster        string
	members        []model.Member
	nodes          []whoNode
	postgres, pool account
	timeout        time.Duration
	query          bool
}

// answered is what came of it: who is who, and who doesn't tell.
type answered struct {
	rows     []who.Row
	problems []string
}

// ask reads all tables and joins them. The nodes are asked first and last, all members in between, each at the same time.
func (q *inquiry) ask(ctx context.Context) answered {
	t := who.Tables{Nodes: make([]who.Node, len(q.nodes)), Members: make([]who.Member, len(q.members))}
	q.askNodes(ctx, t.Nodes, func(n *who.Node, sessions []api.Session) { n.Before = sessions })
	var asking sync.WaitGroup
	for i, m := range q.members {
		t.Members[i] = who.Member{Name: m.Name, Host: m.Host, Port: m.PostgresPort, PoolPort: m.PgBouncerPort}
		asking.Go(func() { q.askMember(ctx, m, &t.Members[i]) })
	}
	asking.Wait()
	q.askNodes(ctx, t.Nodes, func(n *who.Node, sessions []api.Session) { n.After = sessions })
	var a answered
	for _, n := range t.Nodes {
		if n.Problem != "" {
			a.problems = append(a.problems, fmt.Sprintf("node %s: %s", n.Name, n.Problem))
		}
	}
	for _, m := range t.Members {
		if m.Problem != "" {
			a.problems = append(a.problems, fmt.Sprintf("%s, PostgreSQL at %s: %s", m.Name, net.JoinHostPort(m.Host, strconv.Itoa(m.Port)), m.Problem))
		}
		if m.PoolProblem != "" {
			a.problems = append(a.problems, fmt.Sprintf("%s, PgBouncer at %s: %s", m.Name, net.JoinHostPort(m.Host, strconv.Itoa(m.PoolPort)), m.PoolProblem))
		}
	}
	a.rows = who.Join(t)
	return a
}

// askNodes reads the sessions of all nodes that told them so far.
func (q *inquiry) askNodes(ctx context.Context, nodes []who.Node, take func(*who.Node, []api.Session)) {
	var asking sync.WaitGroup
	slots := make(chan struct{}, together)
	for i, n := range q.nodes {
		if nodes[i].Problem != "" {
			continue
		}
		asking.Go(func() {
			slots <- struct{}{}
			defer func() { <-slots }()
			ctx, cancel := context.WithTimeout(ctx, q.timeout)
			defer cancel()
			node := &nodes[i]
			if node.Name == "" {
				node.Name = n.name
				node.Addresses = addressesOf(ctx, n.host)
			}
			sent := time.Now()
			s, err := q.sessionsOf(ctx, n)
			got := time.Now()
			switch {
			case err != nil:
				node.Problem = err.Error()
				return
			case s.More > 0:
				node.Problem = fmt.Sprintf("it has %d sessions more than it tells", s.More)
			}
			if node.Read.IsZero() {
				node.Read, node.Clock = sent, who.ClockOf(s.Now, sent, got)
			}
			take(node, s.Sessions)
		})
	}
	asking.Wait()
}

// sessionsOf are all sessions of a node with the members. A node tells so many at once and no more, so that of many each member's are
// asked for by themselves.
func (q *inquiry) sessionsOf(ctx context.Context, n whoNode) (api.Sessions, error) {
	all, err := n.sessions.Sessions(ctx, api.SessionFilter{Cluster: q.cluster})
	if err != nil || all.More == 0 {
		return all, err
	}
	all.Sessions, all.More = nil, 0
	for _, m := range q.members {
		one, err := n.sessions.Sessions(ctx, api.SessionFilter{Cluster: q.cluster, Member: m.Name})
		if err != nil {
			return api.Sessions{}, err
		}
		all.Sessions, all.More = append(all.Sessions, one.Sessions...), all.More+one.More
	}
	return all, nil
}

// addressesOf are the addresses of a host. One that can't be found is told by whoever connects to it.
func addressesOf(ctx context.Context, host string) []netip.Addr {
	found, err := net.DefaultResolver.LookupNetIP(ctx, "ip", host)
	if err != nil {
		return nil
	}
	return found
}

// askMember reads PostgreSQL's and PgBouncer's tables. PgBouncer's are read around PostgreSQL's, as those of nodes are.
func (q *inquiry) askMember(ctx context.Context, member model.Member, m *who.Member) {
	ctx, cancel := context.WithTimeout(ctx, q.timeout)
	defer cancel()
	var asking sync.WaitGroup
	asking.Go(func() {
		if err := q.askPostgres(ctx, member, m); err != nil {
			m.Problem = whyNot(ctx, err)
		}
	})
	if m.PoolPort != 0 {
		asking.Go(func() {
			if err := q.askPool(ctx, m); err != nil {
				m.PoolProblem = whyNot(ctx, err)
			}
		})
	}
	asking.Wait()
}

// whyNot says why a server doesn't tell.
func whyNot(ctx context.Context, err error) string {
	var refused *pgconn.PgError
	switch {
	case ctx.Err() != nil && errors.Is(context.Cause(ctx), context.DeadlineExceeded):
		return "no answer in time"
	case errors.As(err, &refused):
		return safetext.Line(fmt.Sprintf("%s (SQLSTATE %s)", refused.Message, refused.Code))
	}
	return safetext.Line(err.Error())
}

// mostQuery is how many characters of a query are read.
const mostQuery = 500

// backendsQuery is pg_stat_activity without who asks. Its columns are those that PostgreSQL 10 has.
const backendsQuery = `select pid, coalesce(host(client_addr), ''), coalesce(client_port, 0), backend_start, coalesce(backend_type, ''), coalesce(datname, ''), coalesce(usename, ''),
	coalesce(application_name, ''), coalesce(state, ''), coalesce(wait_event_type || ':' || wait_event, ''), case when $1 then left(coalesce(query, ''), $2) else '' end
	from pg_stat_activity where pid <> pg_backend_pid()`

// connect opens a connection with a member's PostgreSQL.
func (q *inquiry) connect(ctx context.Context, m model.Member) (*pgx.Conn, error) {
	config, err := q.postgres.config(m.Host, m.PostgresPort, cmp.Or(q.postgres.database, "postgres"))
	if err != nil {
		return nil, err
	}
	return pgx.ConnectConfig(ctx, config)
}

func (q *inquiry) askPostgres(ctx context.Context, member model.Member, m *who.Member) error {
	conn, err := q.connect(ctx, member)
	if err != nil {
		return err
	}
	defer conn.Close(ctx)
	var now time.Time
	var may bool
	sent := time.Now()
	if err := conn.QueryRow(ctx, "select clock_timestamp(), pg_has_role('pg_read_all_stats', 'usage')").Scan(&now, &may); err != nil {
		return err
	}
	m.Clock = who.ClockOf(now, sent, time.Now())
	if !may {
		return fmt.Errorf("the account %q isn't allowed to see others' addresses: GRANT pg_monitor TO it", conn.Config().User)
	}
	rows, err := conn.Query(ctx, backendsQuery, q.query, mostQuery)
	if err != nil {
		return err
	}
	backends, err := pgx.CollectRows(rows, func(row pgx.CollectableRow) (who.Backend, error) {
		var b who.Backend
		var address string
		var port int
		var start *time.Time
		err := row.Scan(&b.PID, &address, &port, &start, &b.Type, &b.Database, &b.User, &b.Application, &b.State, &b.Wait, &b.Query)
		if start != nil {
			b.Start = *start
		}
		// -1 is how pg_stat_activity says a Unix socket.
		if b.Socket = port == -1; address != "" && port > 0 {
			end, parseErr := who.ParseAddress(address, strconv.Itoa(port))
			b.Address, err = end.AddrPort, errors.Join(err, parseErr)
		}
		return b, err
	})
	m.Backends = backends
	return err
}

// console is the name of the database that PgBouncer is asked in.
const console = "pgbouncer"

func (q *inquiry) askPool(ctx context.Context, m *who.Member) error {
	config, err := q.pool.config(m.Host, m.PoolPort, console)
	if err != nil {
		return err
	}
	conn, err := pgconn.ConnectConfig(ctx, &config.Config)
	if err != nil {
		return err
	}
	defer conn.Close(ctx)
	clients, err := show(ctx, conn, "SHOW CLIENTS")
	if err != nil {
		return err
	}
	servers, err := show(ctx, conn, "SHOW SERVERS")
	if err != nil {
		return err
	}
	for _, row := range clients {
		address, err := who.ParseAddress(row["addr"], row["port"])
		if err != nil {
			return fmt.Errorf("SHOW CLIENTS: %w", err)
		}
		// The console's own clients have no backend.
		if row["database"] == console {
			continue
		}
		m.Clients = append(m.Clients, who.PoolClient{Address: address, Database: row["database"], User: row["user"], Application: row["application_name"], State: row["state"],
			Pointer: row["ptr"], Link: row["link"], Connected: poolTime(row["connect_time"])})
	}
	for _, row := range servers {
		address, err := who.ParseAddress(row["addr"], row["port"])
		local, err2 := who.ParseAddress(row["local_addr"], row["local_port"])
		if err := errors.Join(err, err2); err != nil {
			return fmt.Errorf("SHOW SERVERS: %w", err)
		}
		pid, err := strconv.Atoi(cmp.Or(row["remote_pid"], "0"))
		if err != nil {
			return fmt.Errorf("SHOW SERVERS: remote_pid: %w", err)
		}
		m.Servers = append(m.Servers, who.PoolServer{Address: address, Local: local, Database: row["database"], User: row["user"], State: row["state"], Pointer: row["ptr"], Link: row["link"], PID: pid})
	}
	return nil
}

// poolTime reads a time of PgBouncer's. It is in the machine's own zone, of which the name alone is said: only that of UTC is unambiguous.
func poolTime(text string) time.Time {
	rest, is := strings.CutSuffix(text, " UTC")
	if !is {
		return time.Time{}
	}
	at, err := time.Parse(time.DateTime, rest)
	if err != nil {
		return time.Time{}
	}
	return at
}

// show asks PgBouncer's console, which speaks the simple protocol alone, and gives rows by the names of their columns: those differ from
// version to version.
func show(ctx context.Context, conn *pgconn.PgConn, statement string) ([]map[string]string, error) {
	results, err := conn.Exec(ctx, statement).ReadAll()
	if err != nil {
		return nil, err
	}
	var rows []map[string]string
	for _, result := range results {
		for _, values := range result.Rows {
			row := make(map[string]string, len(values))
			for i, v := range values {
				row[result.FieldDescriptions[i].Name] = string(v)
			}
			rows = append(rows, row)
		}
	}
	return rows, nil
}
