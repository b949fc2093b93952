package load

import (
	"context"
	"errors"
	"fmt"
	"net"
	"sync/atomic"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
)

// Prober connects, writes one row and leaves, again and again.
type Prober struct {
	// URL is where to; pgx's keywords hold, among them several hosts that are tried in order.
	URL string
	// SQL writes one row and returns the address of the server that did, as text.
	SQL string
	// Every is the time between the starts of two probes, if the first is over by then; Connect and Write bound a probe's
	// two parts. Connect holds for all hosts of the URL together, connect_timeout in the URL for each.
	Every, Connect, Write time.Duration
	// Observe is called with every probe, one after the other. One that was interrupted by the end of Run isn't reported.
	Observe func(Probe)
}

// Run probes until ctx ends; only a URL that can't be read is an error.
func (p *Prober) Run(ctx context.Context) error {
	config, err := pgx.ParseConfig(p.URL)
	if err != nil {
		return fmt.Errorf("prober: %w", err)
	}
	// A pooler in transaction mode keeps no prepared statements.
	config.DefaultQueryExecMode = pgx.QueryExecModeSimpleProtocol
	every := time.NewTicker(p.Every)
	defer every.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-every.C:
			if probe := p.probe(ctx, config.Copy()); ctx.Err() == nil {
				p.Observe(probe)
			}
		}
	}
}

// readOnly is the SQLSTATE of a write in a transaction that may not write (PostgreSQL manual, "Error Codes").
const readOnly = "25006"

func (p *Prober) probe(ctx context.Context, config *pgx.ConnConfig) Probe {
	var taken atomic.Bool
	dial := config.DialFunc
	config.DialFunc = func(ctx context.Context, network, address string) (net.Conn, error) {
		conn, err := dial(ctx, network, address)
		if err != nil {
			return nil, err
		}
		return &firstByte{Conn: conn, taken: &taken}, nil
	}
	probe := Probe{Began: time.Now()}
	connecting, connected := context.WithTimeout(ctx, p.Connect)
	defer connected()
	conn, err := pgx.ConnectConfig(connecting, config)
	if err != nil {
		probe.Ended, probe.Err, probe.Outcome = time.Now(), err, Refused
		if taken.Load() && len(config.Fallbacks) == 0 {
			probe.Outcome = LoginCut
		}
		return probe
	}
	writing, written := context.WithTimeout(ctx, p.Write)
	defer written()
	if probe.Err = conn.QueryRow(writing, p.SQL).Scan(&probe.Server); probe.Err != nil {
		probe.Outcome, probe.Server = WriteCut, ""
		var refusal *pgconn.PgError
		if errors.As(probe.Err, &refusal) && refusal.Code == readOnly {
			probe.Outcome = ReadOnly
		}
	}
	probe.Ended = time.Now()
	conn.Close(writing) //nolint:errcheck // the answer is in hand
	return probe
}

// firstByte notes whether the first message of a connection is a request for authentication: a server has taken it up then
// (PostgreSQL manual, "Message Formats": an error is E, a request for authentication R).
type firstByte struct {
	net.Conn
	taken *atomic.Bool
	begun bool
}

func (f *firstByte) Read(p []byte) (int, error) {
	n, err := f.Conn.Read(p)
	if n > 0 && !f.begun {
		f.begun = true
		f.taken.Store(p[0] == 'R')
	}
	return n, err
}
