package cli

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"sync"

	"github.com/jackc/pgx/v5"
	"github.com/spf13/cobra"

	"github.com/pgporter/pgporter/internal/admin/api"
	"github.com/pgporter/pgporter/internal/admin/who"
	"github.com/pgporter/pgporter/internal/cli/command"
	"github.com/pgporter/pgporter/internal/config/model"
)

// killing is how a row is ended: at its pgporter, or else at PostgreSQL. why says why it isn't; empty if it is.
type killing struct {
	row     who.Row
	session bool
	why     string
}

// killingOf decides it. chosen is the process number that was asked for, 0 for none: what isn't certain of a row is whose it is, and who
// names a backend doesn't ask that.
func killingOf(r who.Row, chosen int) killing {
	k := killing{row: r, session: r.Session != 0 && (r.Route == who.PorterPool || r.PID == 0)}
	switch {
	case r.Route == who.Internal || r.Route == who.Replication:
		k.why = "it serves no client"
	case r.Route == who.Pool:
		k.why = "it comes past pgporter, and PgBouncer may give its backend to another: KILL_CLIENT in PgBouncer's console"
	case r.Route == who.PoolIdle && r.PID != chosen:
		k.why = "nobody uses it"
	case r.PID == 0 && r.Session == 0:
		k.why = "it has no backend"
	case r.Uncertain != "" && !k.session && r.PID != chosen:
		k.why = "whose it is isn't certain: " + r.Uncertain
	}
	return k
}

// end ends what was shown, after asking whether that is meant.
func (f *whoFlags) end(ctx context.Context, c *cobra.Command, q *inquiry, rows []who.Row) error {
	var ends, left []killing
	for _, r := range rows {
		k := killingOf(r, f.filter.PID)
		if k.why != "" {
			left = append(left, k)
			continue
		}
		ends = append(ends, k)
	}
	for _, k := range left {
		fmt.Fprintf(c.ErrOrStderr(), "%s: left alone: %s\n", k.name(), k.why)
	}
	if len(ends) == 0 {
		return errors.New("there is nothing to end")
	}
	sure, err := f.confirm(c, fmt.Sprintf("End %s?", command.Plural(len(ends), "client")))
	if err != nil {
		return err
	}
	if !sure {
		return errors.New("nothing was ended")
	}
	outcomes := make([]error, len(ends))
	var ending sync.WaitGroup
	slots := make(chan struct{}, together)
	for _, m := range q.members {
		ending.Go(func() { q.terminate(ctx, m, ends, outcomes) })
	}
	for i, k := range ends {
		if !k.session {
			continue
		}
		ending.Go(func() {
			slots <- struct{}{}
			defer func() { <-slots }()
			outcomes[i] = q.endSession(ctx, k.row)
		})
	}
	ending.Wait()
	failed := 0
	for i, k := range ends {
		if outcomes[i] != nil {
			failed++
			fmt.Fprintf(c.ErrOrStderr(), "%s: %s\n", k.name(), whyNot(ctx, outcomes[i]))
			continue
		}
		how := "terminated"
		if k.session {
			how = "its session ended"
		}
		fmt.Fprintf(c.ErrOrStderr(), "%s: %s\n", k.name(), how)
	}
	if failed > 0 || len(left) > 0 {
		return command.Status(command.ExitFailed)
	}
	return nil
}

// name is what a row is called in messages.
func (k killing) name() string {
	text := k.row.Member
	if k.row.PID != 0 {
		text += fmt.Sprintf(" pid %d", k.row.PID)
	}
	if k.row.Client != "" {
		text += " (" + k.row.Client + ")"
	}
	return text
}

var (
	errGone      = errors.New("it has ended already, or its number is another backend's by now")
	errNotEnded  = errors.New("PostgreSQL couldn't signal it")
	errNoSession = errors.New("its session has ended already")
)

// terminate ends the backends of one member. Process numbers are used again, so that of a backend goes with when it started.
func (q *inquiry) terminate(ctx context.Context, m model.Member, ends []killing, outcomes []error) {
	of := func(k killing) bool { return k.row.Member == m.Name && !k.session }
	if !slices.ContainsFunc(ends, of) {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, q.timeout)
	defer cancel()
	conn, err := q.connect(ctx, m)
	if err == nil {
		defer conn.Close(ctx)
	}
	for i, k := range ends {
		if !of(k) {
			continue
		}
		if outcomes[i] = err; err != nil {
			continue
		}
		var ended bool
		failed := conn.QueryRow(ctx, "select pg_terminate_backend(pid) from pg_stat_activity where pid = $1 and backend_start = $2", k.row.PID, *k.row.Start).Scan(&ended)
		switch {
		case errors.Is(failed, pgx.ErrNoRows):
			outcomes[i] = errGone
		case failed != nil:
			outcomes[i] = failed
		case !ended:
			outcomes[i] = errNotEnded
		}
	}
}

// endSession has a pgporter end one session. Its number goes with who it is of: after an upgrade the numbers may be others.
func (q *inquiry) endSession(ctx context.Context, r who.Row) error {
	at := slices.IndexFunc(q.nodes, func(n whoNode) bool { return n.name == r.Node })
	client, err := netip.ParseAddrPort(r.Client)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, q.timeout)
	defer cancel()
	ended, err := q.nodes[at].sessions.EndSessions(ctx, api.EndSessions{Filter: api.SessionFilter{ID: r.Session, Member: r.Member, Client: client.Addr().String()}})
	if err == nil && ended.Ended == 0 {
		err = errNoSession
	}
	return err
}
