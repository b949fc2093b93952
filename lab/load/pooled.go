package load

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
)

// Fate says what became of a transaction.
type Fate int

// The fates of a transaction.
const (
	// Committed is one whose COMMIT was acknowledged.
	Committed Fate = iota
	// Unanswered is one of which nothing was answered: its pool had no connection for it, or the connection failed before the answer to
	// the first statement. None of it has happened, and whoever had it may try again.
	Unanswered
	// Lost is one that had begun: its first statement was answered, and it failed after that. A COMMIT among them may count all the same.
	Lost
)

// Transaction is what became of one: BEGIN, a statement, COMMIT.
type Transaction struct {
	// Client and N are which: the client's number, and its how many-eth.
	Client, N    int
	Began, Ended time.Time
	Fate         Fate
	// Server is the address of the server that took it, by its own word; empty if that wasn't answered.
	Server string
	// Err is why it isn't known to be committed; nil if the server said that it is.
	Err error
}

// Probe is a transaction as a prober's would be.
func (t Transaction) Probe() Probe {
	p := Probe{Began: t.Began, Ended: t.Ended, Server: t.Server, Err: t.Err}
	if t.Err != nil {
		p.Outcome, p.Server = WriteCut, ""
	}
	return p
}

// Pooled are clients as applications have them: they share a pool of connections that stay, and do one transaction after the other.
type Pooled struct {
	// URL is where to; pgx's keywords hold. The statements are prepared and done in one message each (protocol: extended), by no name,
	// as a pooler in transaction mode wants it.
	URL string
	// Clients is how many there are, numbered from First on, each with a connection.
	Clients, First int
	// SQL writes a row by $1, the client, and $2, its transaction, and returns the address of the server as text.
	SQL string
	// Every is the time between the starts of two transactions of a client, if the first is over by then. Limit bounds one, and the
	// connect before it.
	Every, Limit time.Duration
	// Observe is called with every transaction, by several goroutines; those that the end of Run interrupted aren't reported.
	Observe func(Transaction)
	// Made, if it isn't nil, is called whenever the pool has made a connection, Broken whenever it closes one that is of no more use.
	Made   func()
	Broken func(at time.Time)

	opened, closed atomic.Int64
}

// Run has them at work until ctx ends. An error is that the pool can't be made or hasn't all its connections at first; ready, if it
// isn't nil, is closed once it has.
func (p *Pooled) Run(ctx context.Context, ready chan<- struct{}) error {
	config, err := pgxpool.ParseConfig(p.URL)
	if err != nil {
		return fmt.Errorf("pooled clients: %w", err)
	}
	config.ConnConfig.DefaultQueryExecMode = pgx.QueryExecModeExec
	config.MaxConns = int32(p.Clients)
	// What closes a connection is what happens to it, not its age.
	config.MaxConnLifetime, config.MaxConnIdleTime = 24*time.Hour, 24*time.Hour
	config.AfterConnect = func(context.Context, *pgx.Conn) error {
		p.opened.Add(1)
		if p.Made != nil {
			p.Made()
		}
		return nil
	}
	config.BeforeClose = func(*pgx.Conn) {
		if ctx.Err() != nil {
			return
		}
		p.closed.Add(1)
		if p.Broken != nil {
			p.Broken(time.Now())
		}
	}
	pool, err := pgxpool.NewWithConfig(ctx, config)
	if err != nil {
		return fmt.Errorf("pooled clients: %w", err)
	}
	defer pool.Close()
	if err := p.connectAll(ctx, pool); err != nil {
		return fmt.Errorf("pooled clients: %w", err)
	}
	if ready != nil {
		close(ready)
	}
	var clients sync.WaitGroup
	for i := range p.Clients {
		clients.Go(func() { p.work(ctx, pool, i) })
	}
	clients.Wait()
	return nil
}

// connectAll opens every connection of the pool.
func (p *Pooled) connectAll(ctx context.Context, pool *pgxpool.Pool) error {
	ctx, cancel := context.WithTimeout(ctx, p.Limit)
	defer cancel()
	var taken []*pgxpool.Conn
	defer func() {
		for _, c := range taken {
			c.Release()
		}
	}()
	for range p.Clients {
		c, err := pool.Acquire(ctx)
		if err != nil {
			return err
		}
		taken = append(taken, c)
	}
	return nil
}

func (p *Pooled) work(ctx context.Context, pool *pgxpool.Pool, i int) {
	// Not all in the same instant.
	begin := time.NewTimer(time.Duration(i) * p.Every / time.Duration(p.Clients))
	defer begin.Stop()
	select {
	case <-ctx.Done():
		return
	case <-begin.C:
	}
	every := time.NewTicker(p.Every)
	defer every.Stop()
	for n := 1; ; n++ {
		select {
		case <-ctx.Done():
			return
		case <-every.C:
		}
		t := Transaction{Client: p.First + i, N: n, Began: time.Now()}
		one, over := context.WithTimeout(ctx, p.Limit)
		p.do(one, pool, &t)
		over()
		t.Ended = time.Now()
		if ctx.Err() == nil {
			p.Observe(t)
		}
	}
}

// do does one and says what became of it.
func (p *Pooled) do(ctx context.Context, pool *pgxpool.Pool, t *Transaction) {
	t.Fate = Unanswered
	t.Err = pgx.BeginFunc(ctx, pool, func(tx pgx.Tx) error {
		t.Fate = Lost
		return tx.QueryRow(ctx, p.SQL, t.Client, t.N).Scan(&t.Server)
	})
	if t.Err == nil {
		t.Fate = Committed
	}
}

// Closed is how many connections have ended that the clients didn't end, and Opened how many were made in all: one for each client where
// none has ended.
func (p *Pooled) Closed() int { return int(p.closed.Load()) }

// Opened is how many connections were made.
func (p *Pooled) Opened() int { return int(p.opened.Load()) }
