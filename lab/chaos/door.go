package chaos

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"maps"
	"os/exec"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/jackc/pgx/v5/pgconn"

	"github.com/pgporter/pgporter/lab/sandbox"
)

// commandWithin is how long a pgporter switchover is waited for.
const commandWithin = 75 * time.Second

// drainedSwitchOver has pgporter switchover hand over to whom it chooses; one that finds the cluster in no state for it says so.
func (f *field) drainedSwitchOver(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, commandWithin)
	defer cancel()
	f.say("%s asked for", drainedSwitchover)
	began := time.Now()
	said, err := f.command(ctx, syscall.SIGTERM)
	if err != nil {
		f.say("%s: not now, after %.1fs: %v: %s", drainedSwitchover, time.Since(began).Seconds(), err, said)
		return nil
	}
	f.say("%s: %s", drainedSwitchover, said)
	return nil
}

// command runs pgporter switchover, which gets a signal when ctx ends, and gives its last line.
func (f *field) command(ctx context.Context, end syscall.Signal) (last string, err error) {
	var said bytes.Buffer
	err = f.Steer(ctx, end, &said, &said, "switchover", scope)
	lines := strings.Split(strings.TrimSpace(said.String()), "\n")
	for _, line := range lines {
		f.note("pgporter switchover: %s", line)
		if strings.Contains(line, "DATA RACE") || strings.HasPrefix(line, "panic:") {
			f.mu.Lock()
			f.died = append(f.died, "pgporter switchover: "+line)
			f.mu.Unlock()
		}
	}
	return strings.TrimSpace(lines[len(lines)-1]), err
}

// abandonSwitchover runs pgporter switchover and kills it after a while, wherever it is by then.
func (f *field) abandonSwitchover(ctx context.Context, after time.Duration) {
	began := time.Now()
	killed, kill := context.WithTimeout(ctx, after)
	defer kill()
	last, err := f.command(killed, syscall.SIGKILL)
	how := "killed"
	var exit *exec.ExitError
	if err == nil || errors.As(err, &exit) && exit.Exited() {
		how = "over before that"
	}
	f.say("%s after %.1fs: %s, at %q", abandonedSwitchover, time.Since(began).Seconds(), how, last)
}

// doorSession is a client's session at a door that ended.
type doorSession struct {
	node string
	// member is whom its last transaction was on; asked is when what it asked for last was sent, ended when the session was over.
	member       string
	asked, ended time.Time
	how          string
}

func (s doorSession) String() string {
	return fmt.Sprintf("a session at the door of %s (last on %s) ended at %s, %.1fs after it asked: %s", s.node, s.member, clock(s.ended), s.ended.Sub(s.asked).Seconds(), s.how)
}

// calm says that a kind of fault is none to a door's clients: they wait, or don't notice.
func (k kind) calm() bool {
	switch k {
	case switchover, drainedSwitchover, abandonedSwitchover, reload, reloadEdit, reloadBroken, upgrade, refuseReplication, killPgBouncer, haltPgBouncer, endedItself:
		return true
	}
	return false
}

// cutByServer is what PostgreSQL says to sessions as it is stopped in order (SQLSTATE admin_shutdown).
const cutByServer = "57P01"

// excuse says why a session at a door may have ended; empty if it may not: switchovers by pgporter, reloads and upgrades are no reason, and those
// by Patroni alone only where it stopped PostgreSQL, some tenths of a second after its failover key was there, before this node had
// paused. names are the members.
func (s doorSession) excuse(deeds []deed, keys tenures, silent func(node string, from, to time.Time) time.Duration, names []string) string {
	touched := func(what string, felt time.Duration) bool {
		return slices.ContainsFunc(deeds, func(d deed) bool {
			ours := d.kind.calm() && d.kind != endedItself
			return !ours && slices.Contains(d.parts, what) && d.during(s.asked.Add(-newsTravel), s.ended.Add(newsTravel), felt)
		})
	}
	switch {
	case touched(s.node+"/door", poolTries+newsTravel):
		return "the door was away"
	case touched(s.node+"/pgporter", poolTries+newsTravel):
		return "pgporter was away"
	case touched("etcd", leads+leaderCarries):
		return "etcd was away"
	case strings.HasPrefix(s.how, cutByServer) && slices.ContainsFunc(deeds, func(d deed) bool {
		return (d.kind == switchover || d.kind == freezeConsumer) && d.during(s.asked.Add(-newsTravel), s.ended.Add(newsTravel), newsTravel)
	}):
		return "Patroni stopped its server before the pause was there"
	}
	for _, m := range names {
		// Whoever led lately, or leads next, has to be well for a switchover to be one.
		if m != s.member && !keys.named(m, s.asked.Add(-leaderCarries), s.ended.Add(newsTravel)) {
			continue
		}
		for _, part := range []string{"/postgres", "/patroni", "/restproxy"} {
			if touched(m+part, leads+leaderCarries) {
				return "a leader was away"
			}
		}
		if silent(m, s.asked.Add(-leads), s.ended) > 0 {
			return "the network"
		}
	}
	if silent(s.node, s.asked.Add(-leads), s.ended) > 0 || touched(network, leads) {
		return "the network"
	}
	return ""
}

// named says whether a member held the key at some moment.
func (all tenures) named(member string, from, to time.Time) bool {
	for i, t := range all {
		if t.holder == member && !t.from.After(to) && !all.end(i, to).Before(from) {
			return true
		}
	}
	return false
}

// doors watches the sessions and the pauses of the PgBouncers before pgporters.
type doors struct {
	field *field

	mu     sync.Mutex
	opened int
	ended  []doorSession
	// pauses are those that are over, paused those that last, by node and database, from when they were seen first.
	pauses []pause
	paused map[string]time.Time
}

// pause is a time in which a database was paused.
type pause struct {
	what     string
	from, to time.Time
}

// failed notes the end of a session at a door, if that is what an error means. A client that gave up waiting ended it itself.
func (d *doors) failed(s doorSession, err error) {
	var refusal *pgconn.PgError
	switch {
	case errors.As(err, &refusal):
		if refusal.Severity != "FATAL" && refusal.Severity != "PANIC" {
			return
		}
	case words(err) == "no answer within "+patience.String(), errors.Is(err, context.Canceled):
		return
	}
	s.ended, s.how = time.Now(), words(err)
	d.mu.Lock()
	defer d.mu.Unlock()
	d.ended = append(d.ended, s)
}

func (d *doors) open() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.opened++
}

const (
	// pausesSeen is how often it is looked whether databases are paused.
	pausesSeen = 200 * time.Millisecond
	// longestPause is how long a hold lasts at most, and how long an end of it may take to be acted on.
	longestPause = time.Minute + newsTravel + sessionsEnd
)

// watch asks every PgBouncer of every node, at its own console, whether databases are paused, until ctx ends.
func (d *doors) watch(ctx context.Context) error {
	d.paused = map[string]time.Time{}
	var all sync.WaitGroup
	defer all.Wait()
	for _, m := range d.field.members {
		for _, suffix := range []string{"/door", "/pgbouncer"} {
			to, err := d.field.Access(m.Name+suffix, "")
			if err != nil {
				return err
			}
			if to, err = to.As("dbuser_stats", "pgbouncer"); err != nil {
				return err
			}
			all.Go(func() { d.look(ctx, m, m.Name+suffix, to) })
		}
	}
	return nil
}

// look asks one PgBouncer. One that doesn't answer has no pause: it was killed, or hangs, and is asked again.
func (d *doors) look(ctx context.Context, m sandbox.Member, what string, to sandbox.Access) {
	for rest(ctx, pausesSeen) {
		names, err := d.field.pausedDatabases(ctx, m.Name, to)
		if err == nil {
			d.see(what, names, time.Now())
		}
	}
}

// pausedDatabases are those that a PgBouncer has paused, by its own word.
func (f *field) pausedDatabases(ctx context.Context, from string, to sandbox.Access) ([]string, error) {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	conn, err := f.open(ctx, from, to)
	if err != nil {
		return nil, err
	}
	defer conn.Close(ctx) //nolint:errcheck // the answer is in hand
	rows, err := conn.Query(ctx, "show databases")
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	var paused []string
	for rows.Next() {
		name := ""
		for i, column := range rows.FieldDescriptions() {
			switch value := string(rows.RawValues()[i]); column.Name {
			case "name":
				name = value
			case "paused":
				if value == "1" {
					paused = append(paused, name)
				}
			}
		}
	}
	return paused, rows.Err()
}

// see notes which databases of a PgBouncer are paused now.
func (d *doors) see(what string, names []string, now time.Time) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for at := range d.paused {
		pool, name, _ := strings.Cut(at, " ")
		if pool == what && !slices.Contains(names, name) {
			d.pauses = append(d.pauses, pause{at, d.paused[at], now})
			delete(d.paused, at)
		}
	}
	for _, name := range names {
		if _, known := d.paused[what+" "+name]; !known {
			d.paused[what+" "+name] = now
		}
	}
}

// settled waits until nothing is paused any more.
func (d *doors) settled(ctx context.Context) []string {
	for deadline := time.Now().Add(longestPause); ; {
		d.mu.Lock()
		left := slices.Sorted(maps.Keys(d.paused))
		d.mu.Unlock()
		if len(left) == 0 {
			return nil
		}
		if time.Now().After(deadline) || !rest(ctx, pausesSeen) {
			return []string{"still paused: " + strings.Join(left, ", ")}
		}
	}
}

// judgePauses finds those that lasted too long. Of a pgporter that hung or was away, and of a PgBouncer that hung, that time doesn't count.
func (d *doors) judgePauses(context.Context) []string {
	d.mu.Lock()
	defer d.mu.Unlock()
	deeds := d.field.done()
	var wrong []string
	for _, p := range d.pauses {
		pool, _, _ := strings.Cut(p.what, " ")
		node, _, _ := strings.Cut(pool, "/")
		excused := time.Duration(0)
		for _, deed := range deeds {
			if deed.member != node || !slices.ContainsFunc(deed.parts, func(part string) bool { return part == pool || part == node+"/pgporter" }) {
				continue
			}
			excused += overlap([]freeze{{node, deed.from, deed.to}}, node, p.from, p.to) + starts
		}
		if lasted := p.to.Sub(p.from); lasted > longestPause+excused {
			wrong = append(wrong, fmt.Sprintf("%s was paused for %.1fs from %s on", p.what, lasted.Seconds(), clock(p.from)))
		}
	}
	return wrong
}

func (d *doors) excuses() (reasons map[string]int, wrong []string) {
	deeds, keys, names := d.field.done(), d.field.keys.seen(), d.field.names()
	d.mu.Lock()
	defer d.mu.Unlock()
	reasons = map[string]int{}
	for _, s := range d.ended {
		why := s.excuse(deeds, keys, d.field.silent, names)
		if why == "" {
			why = "without a reason"
			wrong = append(wrong, s.String())
		}
		reasons[why]++
	}
	return reasons, wrong
}

// judgeSessions finds the sessions at doors that ended without a reason.
func (d *doors) judgeSessions(context.Context) []string {
	_, wrong := d.excuses()
	if d.opened == 0 {
		wrong = append(wrong, "no session at a door came about")
	}
	return wrong
}

func (d *doors) figures() []string {
	reasons, _ := d.excuses()
	var all []string
	for _, reason := range slices.Sorted(maps.Keys(reasons)) {
		all = append(all, fmt.Sprintf("%d %s", reasons[reason], reason))
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	longest := time.Duration(0)
	for _, p := range d.pauses {
		longest = max(longest, p.to.Sub(p.from))
	}
	return []string{
		fmt.Sprintf("%d sessions at doors that stay were opened; of those ended: %s", d.opened, strings.Join(all, ", ")),
		fmt.Sprintf("databases of PgBouncers were seen paused %d times, for %.1fs at most", len(d.pauses), longest.Seconds()),
	}
}
