package chaos

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"maps"
	"net"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/jackc/pgx/v5/pgconn"

	"github.com/pgporter/pgporter/lab/sandbox"
)

// deed is what was done to a process, a node or the network, from when until when it was undone; to is zero while it lasts.
type deed struct {
	kind kind
	// member is whom it was done to, parts which of its processes.
	member   string
	parts    []string
	from, to time.Time
}

// during says whether a deed touches the time from one moment to another, where it is felt for a while after it was undone.
func (d deed) during(from, to time.Time, felt time.Duration) bool {
	return !d.from.After(to) && (d.to.IsZero() || !d.to.Add(felt).Before(from))
}

// begin notes that something is being done; the function that it gives is for when that is over.
func (f *field) begin(plan fault, member string) (over func()) {
	f.mu.Lock()
	defer f.mu.Unlock()
	i := len(f.deeds)
	f.deeds = append(f.deeds, deed{kind: plan.kind, member: member, parts: plan.kind.parts(member), from: time.Now()})
	return func() {
		f.mu.Lock()
		defer f.mu.Unlock()
		if f.deeds[i].to.IsZero() {
			f.deeds[i].to = time.Now()
		}
	}
}

func (f *field) done() []deed {
	f.mu.Lock()
	defer f.mu.Unlock()
	return slices.Clone(f.deeds)
}

// session is one to the leader that ended.
type session struct {
	node   string
	port   int
	member string
	// busy ones have one statement after the other, others say nothing.
	busy          bool
	opened, ended time.Time
	// word is what the server said last (FATAL), how is what else was seen of the end.
	word, how string
}

func (s session) String() string {
	does := "the idle session"
	if s.busy {
		does = "the busy session"
	}
	return fmt.Sprintf("%s through %s:%d of %s on %s ended at %s: %s", does, s.node, s.port, clock(s.opened), s.member, clock(s.ended), s.how)
}

// circumstances are what is known of the time in which sessions ended.
type circumstances struct {
	keys tenures
	// primary says whether a member's PostgreSQL was the same primary from one moment to another, by its own word.
	primary func(member string, from, to time.Time) bool
	deeds   []deed
	// frozen is for how much of a time a node's pgporter hung, silent for how much of it a node couldn't be heard.
	frozen, silent func(node string, from, to time.Time) time.Duration
}

// excuse says why a session may have ended; empty if it may not: the leader key named the member all the time, its PostgreSQL answered
// as a primary, and nothing was done to what the session went through.
func (c circumstances) excuse(s session) string {
	if s.word != "" {
		return "the server said so"
	}
	hung := c.frozen(s.node, s.ended.Add(-sessionsEnd), s.ended)
	// since is from when on a cause counts: what was before the session it has survived. Watchers hear of both a little late.
	since := func(before time.Duration) time.Time {
		from := s.ended.Add(-before - hung)
		if first := s.opened.Add(newsTravel); from.Before(first) {
			from = first
		}
		if from.After(s.ended) {
			from = s.ended
		}
		return from
	}
	if !c.keys.holds(s.member, since(orphaned), s.ended.Add(newsTravel)) {
		return "the leader key"
	}
	if !c.primary(s.member, since(sessionsEnd), s.ended.Add(newsTravel)) {
		return "PostgreSQL was away"
	}
	touched := func(what string, felt time.Duration) func(deed) bool {
		return func(d deed) bool {
			return slices.Contains(d.parts, what) && d.during(since(sessionsEnd), s.ended.Add(newsTravel), felt)
		}
	}
	died := func(d deed) bool {
		switch d.kind {
		case killPatroni, crash, stopPatroni, hang, losePower:
			return touched(s.member+"/patroni", starts+sessionsEnd)(d)
		}
		return false
	}
	switch {
	case slices.ContainsFunc(c.deeds, died):
		return "Patroni was dead"
	case s.port == pooledPort && slices.ContainsFunc(c.deeds, touched(s.member+"/pgbouncer", sessionsEnd)):
		return "PgBouncer was away"
	case slices.ContainsFunc(c.deeds, func(d deed) bool {
		return (d.kind == killPgporter || d.kind == losePower) && touched(s.node+"/pgporter", newsTravel)(d)
	}):
		return "pgporter was killed"
	case c.silent(s.member, since(sessionsEnd), s.ended) > 0 || c.silent(s.node, since(sessionsEnd), s.ended) > 0:
		return "the network"
	case c.blind(s):
		return "neither etcd nor Patroni to be heard for the TTL"
	}
	return ""
}

// blind says whether a node could hear neither etcd nor the member's Patroni for so long that the key could have expired for all it knew.
func (c circumstances) blind(s session) bool {
	for _, cut := range c.deeds {
		if cut.kind != cutFromEtcd || cut.member != s.node || !cut.during(s.ended, s.ended, newsTravel) {
			continue
		}
		for _, mute := range c.deeds {
			switch mute.kind {
			case hangAPI, lateAPI, nonsenseAPI, haltPatroni:
			default:
				continue
			}
			began := cut.from
			if mute.from.After(began) {
				began = mute.from
			}
			// The last renewal that it can have heard of is a loop older.
			if mute.member == s.member && mute.during(s.ended, s.ended, newsTravel) && s.ended.Sub(began) >= ttl-loop-newsTravel {
				return true
			}
		}
	}
	return false
}

// sessions watches those through the services that connect to the leader: the idle ones it holds itself, the busy ones are
// clients'.
type sessions struct {
	field *field

	mu    sync.Mutex
	held  int
	ended []session
}

// run holds an idle session through each of these services on each node until ctx ends.
func (w *sessions) run(ctx context.Context) error {
	var all sync.WaitGroup
	defer all.Wait()
	for _, to := range w.field.services() {
		if forPrimary(to.Port) {
			all.Go(func() { w.field.roles.hold(ctx, to, w.sit) })
		}
	}
	return nil
}

// sit waits for the end of an idle session.
func (w *sessions) sit(ctx context.Context, s idle) {
	stop := context.AfterFunc(ctx, func() { s.conn.SetReadDeadline(time.Unix(1, 0)) }) //nolint:errcheck // the read then fails
	defer stop()
	w.mu.Lock()
	w.held++
	w.mu.Unlock()
	var said bytes.Buffer
	buffer := make([]byte, 1024)
	for {
		n, err := s.conn.Read(buffer)
		if said.Len() < len(buffer) {
			said.Write(buffer[:n])
		}
		if err == nil {
			continue
		}
		if ctx.Err() == nil {
			w.note(session{node: s.to.Node, port: s.to.Port, member: s.member, opened: s.opened, ended: time.Now(), word: lastWord(said.Bytes()), how: words(err)})
		}
		return
	}
}

// lastWord is what a server says before it ends a session: the message of an ErrorResponse that is FATAL or worse (PostgreSQL manual, "Error
// and Notice Message Fields"); empty if there is none.
func lastWord(said []byte) string {
	if !bytes.Contains(said, []byte("SFATAL\x00")) && !bytes.Contains(said, []byte("SPANIC\x00")) {
		return ""
	}
	_, message, _ := bytes.Cut(said, []byte("\x00M"))
	message, _, _ = bytes.Cut(message, []byte{0})
	return "FATAL " + string(message)
}

func (w *sessions) note(s session) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.ended = append(w.ended, s)
}

// failed notes the end of a client's session, if that is what an error means: a statement that failed, or takes long, is none.
func (w *sessions) failed(s session, err error) {
	var refusal *pgconn.PgError
	var netErr net.Error
	switch {
	case errors.As(err, &refusal):
		if refusal.Severity != "FATAL" && refusal.Severity != "PANIC" {
			return
		}
		s.word = "FATAL " + refusal.Message
	case errors.Is(err, context.DeadlineExceeded), errors.Is(err, context.Canceled), errors.As(err, &netErr) && netErr.Timeout():
		return
	}
	s.ended, s.busy, s.how = time.Now(), true, words(err)
	w.note(s)
}

// judge finds the sessions that ended without a reason.
func (w *sessions) judge(context.Context) []string {
	c := w.circumstances()
	var wrong []string
	for _, s := range w.all() {
		if c.excuse(s) == "" {
			wrong = append(wrong, s.String())
		}
	}
	if w.held == 0 {
		wrong = append(wrong, "not one idle session came about")
	}
	return wrong
}

func (w *sessions) all() []session {
	w.mu.Lock()
	defer w.mu.Unlock()
	return slices.Clone(w.ended)
}

func (w *sessions) circumstances() circumstances {
	f := w.field
	return circumstances{
		keys: f.keys.seen(), deeds: f.done(), frozen: f.frozen, silent: f.silent,
		primary: func(member string, from, to time.Time) bool {
			primary, there := f.roles.there(member, from, to)
			return primary && there
		},
	}
}

func (w *sessions) figures() []string {
	c := w.circumstances()
	why := map[string]int{}
	for _, s := range w.all() {
		reason := c.excuse(s)
		if reason == "" {
			reason = "without a reason"
		}
		why[reason]++
	}
	var all []string
	for _, reason := range slices.Sorted(maps.Keys(why)) {
		all = append(all, fmt.Sprintf("%d %s", why[reason], reason))
	}
	return []string{fmt.Sprintf("%d idle sessions were held on leaders; of those and the busy ones ended: %s", w.held, strings.Join(all, ", "))}
}

// leaderSession is what is noted of a client's session, once it is known whom it is on.
func leaderSession(to sandbox.Access, member string, opened time.Time) session {
	return session{node: to.Node, port: to.Port, member: member, opened: opened}
}
