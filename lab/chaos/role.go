package chaos

import (
	"context"
	"fmt"
	"net"
	"slices"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/pgporter/pgporter/lab/sandbox"
)

// sessionsEnd is how long a session may stay on a member that was promoted, where the service excludes the primary: a check
// each second (pg_rto: fast) that may take a second, three of them where Patroni falls silent, and 200 ms of draining.
const sessionsEnd = 5 * time.Second

// promotion is a member becoming a primary.
type promotion struct {
	member string
	// seen is when the member itself said so first; it said the contrary at before.
	seen, before time.Time
}

// roleWatcher asks each member's PostgreSQL whether it is a standby, and has idle sessions through the services that exclude
// the primary.
type roleWatcher struct {
	field *field

	mu         sync.Mutex
	promotions []promotion
	standby    map[string]standbyReport
	// servers is what each member's PostgreSQL said when it was asked past every service.
	servers map[string]spans
	// reads are the answers that primaries gave through services that exclude them.
	reads []read
	wrong []string
	// ended is how long sessions were seen to stay on a promoted member.
	ended []time.Duration
	// stayed counts those of services that allow it.
	stayed int
}

func newRoleWatcher(f *field) *roleWatcher {
	return &roleWatcher{field: f, standby: map[string]standbyReport{}, servers: map[string]spans{}}
}

// read is an answer that a client had from a primary.
type read struct {
	to     sandbox.Access
	member string
	at     time.Time
}

// standbyReport is what a member said of itself last.
type standbyReport struct {
	standby bool
	when    time.Time
}

// watch asks a member, over a session of its own past every service, until ctx ends.
func (r *roleWatcher) watch(ctx context.Context, m sandbox.Member) {
	to, err := r.field.Access(m.Name, "")
	if err != nil {
		r.complain("%v", err)
		return
	}
	var conn *pgx.Conn
	again := time.NewTicker(100 * time.Millisecond)
	defer again.Stop()
	for {
		select {
		case <-ctx.Done():
			if conn != nil {
				end, cancel := context.WithTimeout(context.Background(), time.Second)
				conn.Close(end) //nolint:errcheck // it is over either way
				cancel()
			}
			return
		case <-again.C:
		}
		asked, cancel := context.WithTimeout(ctx, 2*time.Second)
		err := error(nil)
		if conn == nil {
			conn, err = r.field.open(asked, m.Name, to)
		}
		var standby bool
		var at time.Time
		var started string
		if err == nil {
			err = conn.QueryRow(asked, "select pg_is_in_recovery(), clock_timestamp(), pg_postmaster_start_time()::text").Scan(&standby, &at, &started)
		}
		if err == nil {
			r.said(m.Name, standby, at)
			r.note(m.Name, standby, started, at)
		} else if conn != nil {
			conn.Close(asked) //nolint:errcheck // it is over either way
			conn = nil
		}
		cancel()
	}
}

// said notes what a member said of itself, to the watcher or to a client. What comes late is of no use any more.
func (r *roleWatcher) said(member string, standby bool, now time.Time) {
	r.mu.Lock()
	defer r.mu.Unlock()
	was, known := r.standby[member]
	if known && now.Before(was.when) {
		return
	}
	if known && was.standby && !standby {
		r.promotions = append(r.promotions, promotion{member, now, was.when})
	}
	r.standby[member] = standbyReport{standby, now}
}

func (r *roleWatcher) complain(format string, args ...any) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.wrong = append(r.wrong, clock(time.Now())+" "+fmt.Sprintf(format, args...))
}

// last is the last promotion of a member before a moment.
func (r *roleWatcher) last(member string, before time.Time) (promotion, bool) {
	for _, p := range slices.Backward(r.promotions) {
		if p.member == member && !p.before.After(before) {
			return p, true
		}
	}
	return promotion{}, false
}

// answered notes who answered a client.
func (r *roleWatcher) answered(to sandbox.Access, member string, standby bool, at time.Time) {
	r.said(member, standby, at)
	if !standby && excludesPrimary(to.Port) {
		r.mu.Lock()
		defer r.mu.Unlock()
		r.reads = append(r.reads, read{to, member, at})
	}
}

// judge gives everything that was wrong: of the answers of primaries, those that came too long after the promotion. It is
// asked at the end, as the watcher may hear of a promotion later than a client.
func (r *roleWatcher) judge() []string {
	r.mu.Lock()
	defer r.mu.Unlock()
	wrong := slices.Clone(r.wrong)
	for _, read := range r.reads {
		since := "it had never been seen as a standby"
		if p, known := r.last(read.member, read.at); known {
			if read.at.Sub(p.seen) <= sessionsEnd+r.field.unheard(read.to.Node, p.seen, read.at) {
				continue
			}
			since = "a primary since " + clock(p.seen)
		}
		wrong = append(wrong, fmt.Sprintf("%s %s:%d answered from %s: %s", clock(read.at), read.to.Host, read.to.Port, read.member, since))
	}
	return wrong
}

// idle is a session that says nothing: only its end is waited for.
type idle struct {
	to     sandbox.Access
	member string
	opened time.Time
	conn   net.Conn
}

// hold keeps one idle session after the other open through a service until ctx ends; sit waits for the end of each.
func (r *roleWatcher) hold(ctx context.Context, to sandbox.Access, sit func(context.Context, idle)) {
	again := time.NewTicker(200 * time.Millisecond)
	defer again.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-again.C:
		}
		asked, cancel := context.WithTimeout(ctx, patience)
		conn, err := r.field.open(asked, sandbox.Client, to)
		var address string
		var standby bool
		var at time.Time
		if err == nil {
			err = conn.QueryRow(asked, "select "+who+", pg_is_in_recovery()").Scan(&address, &at, &standby)
		}
		cancel()
		if err == nil {
			r.answered(to, r.field.name(address), standby, at)
			sit(ctx, idle{to, r.field.name(address), at, conn.PgConn().Conn()})
		}
		if conn != nil {
			end, cancel := context.WithTimeout(context.Background(), time.Second)
			conn.Close(end) //nolint:errcheck // it is over either way
			cancel()
		}
	}
}

// sit waits for the session's end, and looks every 100 ms whether it should have come.
func (r *roleWatcher) sit(ctx context.Context, s idle) {
	buffer := make([]byte, 1024)
	var late *promotion
	for ctx.Err() == nil {
		s.conn.SetReadDeadline(time.Now().Add(100 * time.Millisecond)) //nolint:errcheck // the read then fails
		_, err := s.conn.Read(buffer)
		now := time.Now()
		over := err != nil && !isTimeout(err)
		r.mu.Lock()
		p, promoted := r.last(s.member, now)
		promoted = promoted && p.seen.After(s.opened)
		stays := now.Sub(p.seen)
		excused := time.Duration(0)
		if promoted {
			excused = r.field.unheard(s.to.Node, p.seen, now)
		}
		switch {
		case !promoted:
		case over && excludesPrimary(s.to.Port):
			r.ended = append(r.ended, max(0, stays-excused))
		case !excludesPrimary(s.to.Port) && late == nil:
			r.stayed++
			late = &p
		case excludesPrimary(s.to.Port) && late == nil && stays > sessionsEnd+excused:
			late = &p
			r.wrong = append(r.wrong, fmt.Sprintf("%s the session through %s:%d of %s is still on %s, which was promoted at %s",
				clock(now), s.to.Host, s.to.Port, clock(s.opened), s.member, clock(p.seen)))
		}
		r.mu.Unlock()
		if over {
			return
		}
	}
}

func isTimeout(err error) bool {
	netErr, is := err.(net.Error)
	return is && netErr.Timeout()
}
