package load

import (
	"context"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"
)

// Watcher asks one server itself, past every service, whether it takes writes.
type Watcher struct {
	// URL is the server's own.
	URL string
	// Every is the time between two questions.
	Every time.Duration
	// Observe is called with the first answer and whenever it changes.
	Observe func(Answer)
}

// Answer is what a server says. One that takes writes began to do so up to the watcher's interval, and the time of a login,
// before the question was sent.
type Answer struct {
	Writable bool
	// Sent is when the question was, Answered when it was answered or failed.
	Sent, Answered time.Time
}

// patience bounds a question to a server: one that is halted accepts connections and says nothing.
const patience = time.Second

// Run asks until ctx ends; only a URL that can't be read is an error.
func (w *Watcher) Run(ctx context.Context) error {
	config, err := pgx.ParseConfig(w.URL)
	if err != nil {
		return fmt.Errorf("watcher: %w", err)
	}
	config.DefaultQueryExecMode = pgx.QueryExecModeSimpleProtocol
	var conn *pgx.Conn
	hangUp := func() {
		if conn != nil {
			closing, closed := context.WithTimeout(context.WithoutCancel(ctx), patience)
			defer closed()
			conn.Close(closing) //nolint:errcheck // nothing was in flight
			conn = nil
		}
	}
	defer hangUp()
	ask := func() Answer {
		ctx, over := context.WithTimeout(ctx, patience)
		defer over()
		if conn == nil {
			fresh, err := pgx.ConnectConfig(ctx, config)
			if err != nil {
				now := time.Now()
				return Answer{false, now, now}
			}
			conn = fresh
		}
		sent := time.Now()
		var recovering bool
		if err := conn.QueryRow(ctx, "select pg_is_in_recovery()").Scan(&recovering); err != nil {
			hangUp()
			return Answer{false, sent, time.Now()}
		}
		return Answer{!recovering, sent, time.Now()}
	}
	every := time.NewTicker(w.Every)
	defer every.Stop()
	known, last := false, false
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-every.C:
		}
		answer := ask()
		if ctx.Err() == nil && (!known || answer.Writable != last) {
			known, last = true, answer.Writable
			w.Observe(answer)
		}
	}
}
