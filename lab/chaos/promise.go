package chaos

import (
	"context"
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"os"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/pgporter/pgporter/internal/admin/api"
	"github.com/pgporter/pgporter/lab/sandbox"
)

// promise is something that has to hold whatever happens. Its hooks give how it was broken, a line each; any may be nil.
type promise struct {
	says string
	// watch looks on from before the first fault until clients have stopped, and returns when ctx ends.
	watch func(ctx context.Context) error
	// settled is asked once the last fault is undone, with clients still at work; concluded when they have stopped.
	settled, concluded func(ctx context.Context) []string
	// figures tell what was measured, for the summary.
	figures func() []string
}

// promises are all that are made. Each is checked by itself: another one is another entry.
func promises(f *field, revision int64) []promise {
	answers := &answering{field: f}
	resources := &resources{field: f}
	carrying := &carrying{field: f}
	load := &load{field: f}
	return []promise{
		{says: "no acknowledged write is lost", concluded: f.lostWrites},
		{
			says:      "no write is taken by a member that the leader key's history doesn't name for that moment",
			watch:     func(ctx context.Context) error { return f.keys.watch(ctx, revision) },
			concluded: f.unledWrites,
		},
		{
			says:      fmt.Sprintf("sessions of services for replicas on a promoted member end within %s, and no new ones get there", sessionsEnd),
			watch:     f.roles.run,
			concluded: func(context.Context) []string { return f.roles.judge() },
			figures:   f.roles.figures,
		},
		{
			says:    "every service answers on every node in time after the last fault: " + times(answersWithin),
			settled: answers.await, concluded: answers.idle, figures: answers.figures,
		},
		{
			says:    "every member that is well carries its services again on every node, in time after it has been well: " + times(carriesWithin),
			settled: carrying.await, figures: carrying.figures,
		},
		{
			says:  "no session to the leader ends while the leader key names it and it is well",
			watch: f.sessions.run, concluded: f.sessions.judge, figures: f.sessions.figures,
		},
		{
			says:      "no session at a door ends by pgporter switchover, killed or not, a reload or an upgrade",
			concluded: f.doors.judgeSessions, figures: f.doors.figures,
		},
		{
			says:    fmt.Sprintf("no PgBouncer's database is left paused, nor is one for longer than %s", longestPause),
			watch:   f.doors.watch,
			settled: f.doors.settled, concluded: f.doors.judgePauses,
		},
		{says: "each Patroni is asked within the budget: " + budget(), watch: load.watch, concluded: load.judge, figures: load.figures},
		{says: "every pgporter lives, without a data race", concluded: f.unwell},
		{
			says:  "sessions, goroutines and descriptors return to what they were",
			watch: resources.begin, concluded: resources.compare, figures: resources.figures,
		},
	}
}

// lostWrites looks for the acknowledged writes on the leader and, where they came back, on the others.
func (f *field) lostWrites(ctx context.Context) []string {
	writes := f.ledger.acknowledged()
	if len(writes) == 0 {
		return []string{"nothing was written at all"}
	}
	leader, rows, position, err := f.leaderRows(ctx)
	if err != nil {
		return []string{"no leader can be asked what it has: " + err.Error()}
	}
	missing := lost(writes, rows, leader.Name)
	for _, m := range f.members {
		if m == leader {
			continue
		}
		rows, _, err := f.rows(ctx, m, position)
		if err != nil {
			f.say("%s can't be asked what it has: %v", m.Name, err)
			continue
		}
		missing = append(missing, lost(writes, rows, m.Name)...)
	}
	return missing
}

// leaderRows asks the leader what it has, and where its log ends. A leader may step down at any time: whoever follows is asked
// then, for a minute.
func (f *field) leaderRows(ctx context.Context) (leader sandbox.Member, rows map[[2]int]bool, position string, err error) {
	for deadline := time.Now().Add(time.Minute); ; {
		leader, err = f.Leader(ctx)
		if err == nil {
			rows, position, err = f.rows(ctx, leader, "")
		}
		if err == nil || time.Now().After(deadline) {
			return leader, rows, position, err
		}
		f.say("the leader can't be asked what it has (asking again): %v", err)
		if !rest(ctx, time.Second) {
			return leader, nil, "", err
		}
	}
}

// rows reads what a member has, once it has replayed everything up to a position of the leader's log.
func (f *field) rows(ctx context.Context, m sandbox.Member, position string) (rows map[[2]int]bool, at string, err error) {
	to, err := f.Access(m.Name, "")
	if err != nil {
		return nil, "", err
	}
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	conn, err := f.open(ctx, m.Name, to)
	if err != nil {
		return nil, "", err
	}
	defer conn.Close(ctx) //nolint:errcheck // everything has been read
	for position != "" {
		var there bool
		if err := conn.QueryRow(ctx, "select pg_last_wal_replay_lsn() >= '"+position+"'").Scan(&there); err != nil {
			return nil, "", fmt.Errorf("replay up to %s: %w", position, err)
		}
		if there {
			break
		}
		select {
		case <-ctx.Done():
			return nil, "", fmt.Errorf("it hasn't replayed the log up to %s: %w", position, ctx.Err())
		case <-time.After(100 * time.Millisecond):
		}
	}
	if position == "" {
		if err := conn.QueryRow(ctx, "select pg_current_wal_lsn()::text").Scan(&at); err != nil {
			return nil, "", err
		}
	}
	all, err := conn.Query(ctx, "select writer, n from "+table)
	if err != nil {
		return nil, "", err
	}
	rows = map[[2]int]bool{}
	var key [2]int
	for all.Next() {
		if err := all.Scan(&key[0], &key[1]); err != nil {
			return nil, "", err
		}
		rows[key] = true
	}
	return rows, at, all.Err()
}

func (f *field) unledWrites(context.Context) []string {
	began, err := f.keys.timelines()
	if err != nil {
		return []string{err.Error()}
	}
	writes := f.ledger.acknowledged()
	return append(unconfirmed(writes, f.keys.seen(), f.frozen), forked(writes, began)...)
}

// unwell finds pgporters that ended by themselves and what their logs shouldn't have.
func (f *field) unwell(context.Context) []string {
	f.mu.Lock()
	wrong := slices.Clone(f.died)
	f.mu.Unlock()
	for _, m := range f.members {
		path, err := f.Log(m.Name + "/pgporter")
		if err != nil {
			wrong = append(wrong, err.Error())
			continue
		}
		text, err := os.ReadFile(path)
		if err != nil {
			wrong = append(wrong, err.Error())
			continue
		}
		for _, sign := range []string{"DATA RACE", "panic:", "fatal error:"} {
			if strings.Contains(string(text), sign) {
				wrong = append(wrong, fmt.Sprintf("%s: %s", path, sign))
			}
		}
	}
	return wrong
}

// run has every member asked and idle sessions open until ctx ends.
func (r *roleWatcher) run(ctx context.Context) error {
	var all sync.WaitGroup
	defer all.Wait()
	for _, m := range r.field.members {
		all.Go(func() { r.watch(ctx, m) })
	}
	for _, to := range r.field.services() {
		if excludesPrimary(to.Port) || to.Port == replicaPort {
			all.Go(func() { r.hold(ctx, to, r.sit) })
		}
	}
	return nil
}

func (r *roleWatcher) figures() []string {
	r.mu.Lock()
	defer r.mu.Unlock()
	longest := time.Duration(0)
	for _, d := range r.ended {
		longest = max(longest, d)
	}
	return []string{
		fmt.Sprintf("%d promotions; %d idle sessions of services for replicas were on a promoted member, the longest ended after %.2fs", len(r.promotions), len(r.ended), longest.Seconds()),
		fmt.Sprintf("%d idle sessions of the replica service were on a promoted member; it may connect to the primary", r.stayed),
	}
}

// answering measures how long each service takes to answer after the last fault.
type answering struct {
	field *field
	began time.Time
	mu    sync.Mutex
	took  map[int]time.Duration
}

func (a *answering) await(ctx context.Context) []string {
	a.took = map[int]time.Duration{}
	var wrong []string
	var all sync.WaitGroup
	a.began = time.Now()
	for _, to := range append(a.field.services(), a.field.Doors("default")...) {
		all.Go(func() {
			err := a.field.answers(ctx, to, answersWithin(to.Port))
			a.mu.Lock()
			defer a.mu.Unlock()
			if err != nil {
				wrong = append(wrong, fmt.Sprintf("%s on %s (%s:%d): %v", to.Name, to.Node, to.Host, to.Port, err))
				return
			}
			a.took[to.Port] = max(a.took[to.Port], time.Since(a.began))
		})
	}
	all.Wait()
	slices.Sort(wrong)
	return wrong
}

// answers waits until a service does what it is for; the last failure is the error.
func (f *field) answers(ctx context.Context, to sandbox.Access, within time.Duration) error {
	ctx, cancel := context.WithTimeout(ctx, within)
	defer cancel()
	var last error
	again := time.NewTicker(100 * time.Millisecond)
	defer again.Stop()
	for {
		asked, stop := context.WithTimeout(ctx, patience)
		conn, err := f.open(asked, sandbox.Client, to)
		if err == nil {
			var standby bool
			err = conn.QueryRow(asked, "select pg_is_in_recovery()").Scan(&standby)
			switch {
			case err == nil && forPrimary(to.Port) && standby:
				err = fmt.Errorf("it connects to a standby")
			case err == nil && excludesPrimary(to.Port) && !standby:
				err = fmt.Errorf("it connects to the primary")
			}
			conn.Close(asked) //nolint:errcheck // the answer is in hand
		}
		stop()
		if err == nil {
			return nil
		}
		if ctx.Err() == nil || last == nil {
			last = err
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("not within %s: %w", within, last)
		case <-again.C:
		}
	}
}

// idle finds the services whose clients, who were at work all the time, had nothing from them since the last fault.
func (a *answering) idle(context.Context) []string {
	var wrong []string
	seen := map[int]bool{}
	for _, to := range append(a.field.services(), a.field.Doors("default")...) {
		if !seen[to.Port] && !a.field.ledger.since(to.Port, a.began) {
			wrong = append(wrong, fmt.Sprintf("none of the clients of %s got anything done since the last fault", to.Name))
		}
		seen[to.Port] = true
	}
	return wrong
}

func (a *answering) figures() []string {
	a.mu.Lock()
	defer a.mu.Unlock()
	var all []string
	for port, d := range a.took {
		all = append(all, fmt.Sprintf("%d after %.1fs", port, d.Seconds()))
	}
	slices.Sort(all)
	return []string{"after the last fault every node answered on " + strings.Join(all, ", ")}
}

// resources compares what each pgporter holds before the clients come and after they have left.
type resources struct {
	field         *field
	before, after map[string]holding
}

// holding is what a pgporter has.
type holding struct{ sessions, queued, goroutines, descriptors int }

func (h holding) String() string {
	return fmt.Sprintf("%d sessions, %d waiting clients, %d goroutines, %d descriptors", h.sessions, h.queued, h.goroutines, h.descriptors)
}

// What may differ: connections for checks and to etcd that happen to be open, with two goroutines each.
const (
	moreDescriptors = 12
	moreGoroutines  = 24
)

func (r *resources) begin(ctx context.Context) error {
	r.before, r.after = map[string]holding{}, map[string]holding{}
	for _, m := range r.field.members {
		has, err := r.of(ctx, m)
		if err != nil {
			return err
		}
		r.before[m.Name] = has
	}
	return nil
}

func (r *resources) of(ctx context.Context, m sandbox.Member) (holding, error) {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	status, err := r.field.status(ctx, m)
	if err != nil {
		return holding{}, err
	}
	has := holding{goroutines: status.Goroutines}
	for _, c := range status.Clusters {
		for _, s := range c.Services {
			has.sessions += s.Sessions
			has.queued += s.Queued
		}
	}
	open, err := os.ReadDir(fmt.Sprintf("/proc/%d/fd", status.PID))
	if err != nil {
		return holding{}, fmt.Errorf("descriptors of %s's pgporter: %w", m.Name, err)
	}
	has.descriptors = len(open)
	return has, nil
}

// status asks a node's pgporter, as one sits before it.
func (f *field) status(ctx context.Context, m sandbox.Member) (api.Status, error) {
	var status api.Status
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+net.JoinHostPort(m.Address, api.DefaultPort)+"/status", nil)
	if err != nil {
		return status, err
	}
	client := http.Client{Transport: &http.Transport{DialContext: f.dialer(m.Name), DisableKeepAlives: true}}
	response, err := client.Do(request)
	if err != nil {
		return status, fmt.Errorf("status of %s's pgporter: %w", m.Name, err)
	}
	defer response.Body.Close()
	if err := json.NewDecoder(response.Body).Decode(&status); err != nil {
		return status, fmt.Errorf("status of %s's pgporter: %w", m.Name, err)
	}
	return status, nil
}

// compare waits for what ends a little after the clients, for half a minute at most.
func (r *resources) compare(ctx context.Context) []string {
	// Their connections to pgporters are kept for who comes next.
	for _, m := range r.field.members {
		if err := r.field.Kill(ctx, syscall.SIGKILL, m.Name+"/door"); err != nil {
			return []string{err.Error()}
		}
	}
	var wrong []string
	for range 60 {
		wrong = nil
		for _, m := range r.field.members {
			has, err := r.of(ctx, m)
			was := r.before[m.Name]
			r.after[m.Name] = has
			if err != nil {
				wrong = append(wrong, err.Error())
			} else if has.sessions > 0 || has.queued > 0 || has.goroutines > was.goroutines+moreGoroutines || has.descriptors > was.descriptors+moreDescriptors {
				wrong = append(wrong, fmt.Sprintf("the pgporter of %s has %s; before there were %s", m.Name, has, was))
			}
		}
		if wrong == nil {
			return nil
		}
		select {
		case <-ctx.Done():
			return wrong
		case <-time.After(500 * time.Millisecond):
		}
	}
	return wrong
}

func (r *resources) figures() []string {
	var all []string
	for _, m := range r.field.members {
		all = append(all, fmt.Sprintf("the pgporter of %s: %s; before %s", m.Name, r.after[m.Name], r.before[m.Name]))
	}
	return all
}
