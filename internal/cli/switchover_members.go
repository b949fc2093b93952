package cli

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/pgporter/pgporter/internal/cli/switchover"
	"github.com/pgporter/pgporter/internal/config/model"
	"github.com/pgporter/pgporter/internal/monitor/patroni"
)

// member is one by its name.
func member(members []model.Member, name string) (model.Member, error) {
	for _, m := range members {
		if m.Name == name {
			return m, nil
		}
	}
	return model.Member{}, fmt.Errorf("member %s, which Patroni has, has no address that is known here", name)
}

// patroniAPI is the REST API of a cluster's members.
type patroniAPI struct {
	client  *patroni.Client
	members []model.Member
	who     patroni.Credential
}

func (p *patroniAPI) base(name string) (string, error) {
	m, err := member(p.members, name)
	return patroni.BaseURL(m.Host, m.PatroniPort, m.PatroniTLS), err
}

// anyOf asks all members at once and gives the first answer.
func anyOf[T any](ctx context.Context, p *patroniAPI, ask func(ctx context.Context, base string) (T, error)) (T, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	type answer struct {
		said T
		err  error
	}
	answers := make(chan answer, len(p.members))
	var asking sync.WaitGroup
	defer asking.Wait()
	defer cancel()
	for _, m := range p.members {
		asking.Go(func() {
			said, err := ask(ctx, patroni.BaseURL(m.Host, m.PatroniPort, m.PatroniTLS))
			if err != nil {
				err = fmt.Errorf("%s: %w", m.Name, err)
			}
			answers <- answer{said, err}
		})
	}
	var problems []string
	for range p.members {
		a := <-answers
		if a.err == nil {
			return a.said, nil
		}
		problems = append(problems, a.err.Error())
	}
	slices.Sort(problems)
	var none T
	return none, fmt.Errorf("no Patroni answers: %s", strings.Join(problems, "; "))
}

func (p *patroniAPI) Cluster(ctx context.Context) (patroni.Cluster, error) {
	return anyOf(ctx, p, p.client.Cluster)
}

func (p *patroniAPI) Config(ctx context.Context) (patroni.Config, error) {
	return anyOf(ctx, p, p.client.Config)
}

func (p *patroniAPI) Member(ctx context.Context, name string) (patroni.Answer, error) {
	base, err := p.base(name)
	if err != nil {
		return patroni.Answer{}, err
	}
	return p.client.Get(ctx, base, "/patroni")
}

func (p *patroniAPI) Switchover(ctx context.Context, leader, candidate string) (int, string, error) {
	base, err := p.base(leader)
	if err != nil {
		return 0, "", fmt.Errorf("%w: %w", patroni.ErrNotAsked, err)
	}
	return p.client.Switchover(ctx, base, leader, candidate, p.who)
}

// memberServers are the PostgreSQL and PgBouncer of a cluster's members.
type memberServers struct {
	members []model.Member
	// pooled says that services lead to PgBouncers.
	pooled  bool
	account account

	mu    sync.Mutex
	conns map[string]*pgx.Conn
}

// pooledByServices says whether a service leads to PgBouncer. Members that were discovered have one if it has answered.
func pooledByServices(a model.Access) bool {
	for _, o := range a.Offers {
		if o.Dest.Kind == model.ToPgBouncer {
			return a.Pooled
		}
	}
	return a.Offers == nil
}

func (s *memberServers) Postgres(ctx context.Context, name string) error {
	m, err := member(s.members, name)
	if err != nil {
		return err
	}
	return answersAt(ctx, m.Host, m.PostgresPort)
}

func (s *memberServers) Pooler(ctx context.Context, name string) error {
	m, err := member(s.members, name)
	if err != nil || !s.pooled || m.PgBouncerPort == m.PostgresPort {
		return err
	}
	return answersAt(ctx, m.Host, m.PgBouncerPort)
}

// answersAt says why nobody answers an SSLRequest at a port (PostgreSQL's documentation, "SSL Session Encryption").
func answersAt(ctx context.Context, host string, port int) error {
	conn, err := (&net.Dialer{}).DialContext(ctx, "tcp", net.JoinHostPort(host, strconv.Itoa(port)))
	if err == nil {
		defer conn.Close() //nolint:errcheck // nothing more is wanted of it
		defer context.AfterFunc(ctx, func() { _ = conn.SetDeadline(time.Unix(1, 0)) })()
		if _, err = conn.Write([]byte{0, 0, 0, 8, 0x04, 0xd2, 0x16, 0x2f}); err == nil {
			var answer [1]byte
			_, err = conn.Read(answer[:])
		}
	}
	switch {
	case ctx.Err() != nil:
		return fmt.Errorf("port %d: no answer: %w", port, ctx.Err())
	case errors.Is(err, syscall.ECONNREFUSED):
		return fmt.Errorf("port %d refuses", port)
	case err != nil:
		return fmt.Errorf("port %d: %w", port, err)
	}
	return nil
}

// use does something with a connection to a member's PostgreSQL, which is kept: transactions are looked at again and again.
func (s *memberServers) use(ctx context.Context, name string, do func(*pgx.Conn) error) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	conn := s.conns[name]
	if conn == nil || conn.IsClosed() {
		m, err := member(s.members, name)
		if err != nil {
			return err
		}
		config, err := s.account.config(m.Host, m.PostgresPort, cmp.Or(s.account.database, "postgres"))
		if err != nil {
			return err
		}
		config.RuntimeParams["application_name"] = "pgporter switchover"
		config.RuntimeParams["statement_timeout"] = "0"
		if conn, err = pgx.ConnectConfig(ctx, config); err != nil {
			return errors.New(whyNot(ctx, err))
		}
		if s.conns == nil {
			s.conns = map[string]*pgx.Conn{}
		}
		s.conns[name] = conn
	}
	if err := do(conn); err != nil {
		return errors.New(whyNot(ctx, err))
	}
	return nil
}

// close ends the connections.
func (s *memberServers) close() {
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	for _, conn := range s.conns {
		_ = conn.Close(ctx) // nobody is told that it doesn't say goodbye
	}
}

func (s *memberServers) Checkpoint(ctx context.Context, name string) error {
	return s.use(ctx, name, func(conn *pgx.Conn) error {
		_, err := conn.Exec(ctx, "CHECKPOINT")
		return err
	})
}

// transactionsQuery is what of pg_stat_activity has a transaction open.
const transactionsQuery = `select pid, xact_start, coalesce(usename, ''), coalesce(datname, ''), coalesce(application_name, ''), coalesce(host(client_addr), ''),
	coalesce(state, ''), extract(epoch from clock_timestamp() - xact_start)::float8
	from pg_stat_activity where backend_type = 'client backend' and xact_start is not null and state <> 'idle' and pid <> pg_backend_pid() order by xact_start`

func (s *memberServers) Transactions(ctx context.Context, name string) (found []switchover.Transaction, err error) {
	err = s.use(ctx, name, func(conn *pgx.Conn) error {
		var may bool
		if err := conn.QueryRow(ctx, "select pg_has_role('pg_read_all_stats', 'usage')").Scan(&may); err != nil {
			return err
		}
		if !may {
			return fmt.Errorf("the account %q isn't allowed to see others' transactions: GRANT pg_monitor TO it", conn.Config().User)
		}
		rows, err := conn.Query(ctx, transactionsQuery)
		if err != nil {
			return err
		}
		found, err = pgx.CollectRows(rows, func(row pgx.CollectableRow) (switchover.Transaction, error) {
			var t switchover.Transaction
			err := row.Scan(&t.PID, &t.Begun, &t.User, &t.Database, &t.Application, &t.Client, &t.State, &t.Seconds)
			return t, err
		})
		return err
	})
	return found, err
}

// Cancel cancels backends that are still in these transactions: process numbers are used again.
func (s *memberServers) Cancel(ctx context.Context, name string, these []switchover.Transaction) error {
	return s.use(ctx, name, func(conn *pgx.Conn) error {
		for _, t := range these {
			if _, err := conn.Exec(ctx, "select pg_cancel_backend(pid) from pg_stat_activity where pid = $1 and xact_start = $2", t.PID, t.Begun); err != nil {
				return err
			}
		}
		return nil
	})
}
