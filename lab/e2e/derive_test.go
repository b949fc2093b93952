//go:build derivation

package e2e

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"net/http"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"go.uber.org/zap"

	"github.com/pgporter/pgporter/internal/monitor/patroni"
	"github.com/pgporter/pgporter/lab/sandbox"
)

// TestDerivation takes minutes on a cluster of its own, so it is no part of the others: make derivation.
func TestDerivation(t *testing.T) {
	s := shared{cluster: up(t, 84, sandbox.Config{Fall: patient})}
	s.settle(t)
	s.derivation(t)
	s.t = t
}

// derivation compares what members say to a path with what follows from their answers to /primary just before and after,
// through the states that a sandbox can be brought into. The rules are compared with a real Patroni this way, of
// whatever release the machine has.
func (s shared) derivation(t *testing.T) {
	// This is about Patroni: whoever else asks the members takes their time.
	for _, m := range s.Declared() {
		if err := s.Kill(t.Context(), syscall.SIGTERM, m.Name+"/pgporter"); err != nil {
			t.Fatal(err)
		}
	}
	d := compare(t, s)
	running := func(a patroni.Answer, status int, role string) bool {
		return a.Status == status && a.Role == role && a.State == patroni.StateRunning && !a.ClusterUnlocked && !a.Pause && len(a.Tags) == 0
	}
	leads := func(a patroni.Answer) bool { return running(a, 200, patroni.RolePrimary) }
	follows := func(a patroni.Answer) bool { return running(a, 503, patroni.RoleReplica) }
	d.until("a leader", 45, leads)
	d.until("a replica", 45, follows)
	d.mu.Lock()
	version := d.version
	d.mu.Unlock()

	d.enter("tags, and pg-test-3 doesn't replay")
	restore := []func(){
		s.tag(t, "pg-test-1", "noloadbalance: true", "foo: bar"),
		s.tag(t, "pg-test-2", "noloadbalance: true", "foo: bar"),
		s.tag(t, "pg-test-3", "clonefrom: true", "foo: bar"),
	}
	replays := s.stopReplay(t)
	tagged := func(role string) func(patroni.Answer) bool {
		return func(a patroni.Answer) bool {
			return a.Role == role && a.Tags["foo"] == "bar" && (a.Tags["noloadbalance"] == "true" || a.Tags["clonefrom"] == "true")
		}
	}
	d.until("a leader with tags", 45, tagged(patroni.RolePrimary))
	d.until("replicas with tags", 90, tagged(patroni.RoleReplica))
	d.untilLagging(9)
	replays()
	for _, f := range restore {
		f()
	}
	d.until("a leader without tags", 3, leads)

	d.enter("synchronous mode")
	s.configure(t, "synchronous_mode", true)
	d.until("a synchronous standby", 60, func(a patroni.Answer) bool { return a.SyncStandby })
	if !strings.HasPrefix(version, "3.") {
		s.configure(t, "synchronous_mode", "quorum")
		d.until("a standby of a quorum", 60, func(a patroni.Answer) bool { return a.QuorumStandby })
	}
	s.configure(t, "synchronous_mode", nil)

	d.enter("switchover to pg-test-2")
	if _, err := s.Switchover(t.Context(), "pg-test-2"); err != nil {
		t.Fatal(err)
	}
	d.until("a leader after the switchover", 9, leads)

	d.enter("a replica's PostgreSQL killed")
	d.crash(s, func() string { return "pg-test-3" }, follows, func(a patroni.Answer) bool { return a.Status == 503 && a.State != patroni.StateRunning })
	d.enter("the leader's PostgreSQL killed")
	d.crash(s, func() string {
		leader, err := s.Leader(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		return leader.Name
	}, leads, func(a patroni.Answer) bool { return a.Status == 200 && a.State != patroni.StateRunning })

	d.enter("Patroni killed and started")
	for _, member := range []string{"pg-test-2", "pg-test-3"} {
		if err := s.Kill(t.Context(), syscall.SIGKILL, member+"/patroni"); err != nil {
			t.Fatal(err)
		}
		// Its threads may hold its port for a moment longer than it lives.
		eventually(t, patience, func(ctx context.Context) error { return s.Start(ctx, member+"/patroni") })
	}
	d.until("a leader after its Patroni was killed", 9, leads)
	d.until("a replica after its Patroni was killed", 18, follows)

	d.enter("pause")
	s.pause(true)
	paused := func(status int, role string, unlocked bool) func(patroni.Answer) bool {
		return func(a patroni.Answer) bool {
			return a.Status == status && a.Role == role && a.Pause && a.ClusterUnlocked == unlocked
		}
	}
	d.until("a leader in pause", 15, paused(200, patroni.RolePrimary, false))
	d.until("a replica in pause", 15, paused(503, patroni.RoleReplica, false))
	d.enter("pause, etcd away")
	s.withoutEtcd(t, func() {
		d.until("a leader in pause without etcd", 9, paused(200, patroni.RolePrimary, true))
		d.until("a replica in pause without etcd", 6, paused(503, patroni.RoleReplica, true))
	})
	d.until("a leader in pause with etcd again", 3, paused(200, patroni.RolePrimary, false))
	s.pause(false)

	d.enter("failsafe mode, etcd away")
	s.configure(t, "failsafe_mode", true)
	eventually(t, patience, func(ctx context.Context) error {
		got, err := d.etcd.Get(ctx, "/pg/pg-test/failsafe")
		if err == nil && got.Count == 0 {
			err = fmt.Errorf("the leader hasn't written whom it asks without etcd")
		}
		return err
	})
	unlocked := func(role string) func(patroni.Answer) bool {
		return func(a patroni.Answer) bool {
			return a.ClusterUnlocked && a.Failsafe && a.Role == role && a.State == patroni.StateRunning
		}
	}
	s.withoutEtcd(t, func() {
		d.until("a leader in failsafe mode", 9, unlocked(patroni.RolePrimary))
		d.until("a replica in failsafe mode", 6, unlocked(patroni.RoleReplica))
	})
	d.until("a leader after failsafe mode", 3, leads)

	// What of its loop fails first decides how a leader gives up. If it is the renewal of its key, Patroni keeps what it has read of the
	// DCS until that is ttl old; if it is the reading, that is forgotten at once (get_cluster resets it), and cluster_unlocked is said.
	givesUp := func(unlocked bool) func(patroni.Answer) bool {
		return func(a patroni.Answer) bool {
			return a.ClusterUnlocked == unlocked && !a.Failsafe && (a.Status == 503 && a.Role != patroni.RoleReplica || a.State == "starting")
		}
	}
	d.enter("etcd lost by a renewal")
	modes := []any{nil, false}
	d.leaderGivesUp(s, func() {
		// Members show a new configuration as soon as they have read it, which is when the leader is about to renew its key.
		s.configure(t, "failsafe_mode", modes[0])
		slices.Reverse(modes)
	}, leads, givesUp(false), nil)
	d.enter("etcd lost by a reading")
	d.leaderGivesUp(s, func() { d.until("a leader between two loops", 9, leads) }, leads, givesUp(true), func() {
		d.until("a replica without etcd", 6, func(a patroni.Answer) bool {
			return a.ClusterUnlocked && !a.Failsafe && a.Role == patroni.RoleReplica && a.State == patroni.StateRunning
		})
	})
	d.until("a leader at the end", 3, leads)
	d.until("a replica at the end", 3, follows)

	d.stop()
	t.Logf("Patroni %s, %.0fs: %d comparisons counted of %d; %d unsettled, of which Patroni said 503 where it would pass if the DCS were seen: %d; %d differences; bodies and how often they counted:\n%s",
		version, time.Since(d.began).Seconds(), d.counted, d.asked, d.unsettled, d.blind, len(d.differences), d.table())
	for _, difference := range d.differences {
		t.Error(difference)
	}
	if d.blind == 0 {
		t.Error("no answer depended on whether the DCS is seen: what is to stay unsettled wasn't tried")
	}
	// Each path has passed and not passed, but those that can't.
	constant := map[string]bool{"/standby-leader": true, "/patroni": true, "/nonsense": true, "/sync/": true, "/replica?tag_none=x": true}
	if strings.HasPrefix(version, "3.") {
		constant["/quorum"] = true
	}
	for _, path := range derivedPaths {
		// PostgreSQL doesn't run for moments only.
		if n := d.results[path]; path != "/health" && (n[200] == 0 || n[503] == 0) != constant[path] {
			t.Errorf("%s: %v", path, n)
		}
	}
}

// derivedPaths are compared, in turn.
var derivedPaths = []string{
	"/", "/replica", "/read-only", "/async", "/read-only-sync", "/health", "/readiness", "/leader",
	"/read-write", "/replica?lag=1MB", "/sync", "/quorum", "/read-only-quorum", "/read-only?lag=0", "/health?tag_foo=bar", "/replica?tag_none=x",
	"/master", "/asynchronous?lag=1kB", "/synchronous", "/read-only-synchronous", "/standby-leader", "/replica?tag_clonefrom=true&lag=1TB", "/patroni",
	"/db-primary/x", "/read-only-sync?tag_foo=bar", "/async?lag=1MB", "/nonsense", "/sync/", "/primary?tag_none=x&lag=0",
}

// differential asks every member of a cluster and compares.
type differential struct {
	t    *testing.T
	etcd *clientv3.Client
	end  context.CancelFunc
	all  sync.WaitGroup

	began time.Time

	mu sync.Mutex
	// state is what the test has brought about, version Patroni's.
	state, version string
	// samples are comparisons that counted, by the answer that both neighbours gave.
	samples []patroni.Answer
	// asked, counted and unsettled are comparisons; blind are those where Patroni refused for want of the DCS.
	asked, counted, unsettled, blind int
	// lagging are refusals for nothing but a lag.
	lagging     int
	differences []string
	// results are how often each path had which status.
	results map[string]map[int]int
	// positions are those of the leader in etcd, and when each was read first.
	positions []readPosition
}

type readPosition struct {
	at  time.Time
	wal int64
}

// compare begins to ask the members.
func compare(t *testing.T, s shared) *differential {
	etcd, err := clientv3.New(clientv3.Config{Endpoints: []string{"http://" + s.prefix + ".10:2379"}, Logger: zap.NewNop()})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	d := &differential{t: t, etcd: etcd, end: cancel, began: time.Now(), state: "normal", results: map[string]map[int]int{}}
	t.Cleanup(func() {
		d.stop()
		etcd.Close()
	})
	d.all.Go(func() { d.readPositions(ctx) })
	for i, m := range s.Declared() {
		// Not all with the same path.
		d.all.Go(func() { d.watch(ctx, m, i*len(derivedPaths)/3) })
	}
	return d
}

func (d *differential) stop() {
	d.end()
	d.all.Wait()
}

// enter names the state that is brought about next.
func (d *differential) enter(state string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.t.Logf("after %.0fs: %s", time.Since(d.began).Seconds(), state)
	d.state = state
}

// pace is how often a member is asked at most.
const pace = 30 * time.Millisecond

// watch asks one member until the end.
func (d *differential) watch(ctx context.Context, m sandbox.Member, next int) {
	turn := time.NewTimer(0)
	defer turn.Stop()
	get := func(path string) (patroni.Answer, bool) {
		select {
		case <-ctx.Done():
			return patroni.Answer{}, false
		case <-turn.C:
		}
		began := time.Now()
		a, ok := getAnswer(ctx, "http://"+m.Address+":8008"+path)
		// A replica that sees no leader works for each answer; at full speed these questions would be all that it does.
		turn.Reset(max(pace, 2*time.Since(began)))
		return a, ok
	}
	var before patroni.Answer
	var known bool
	var since time.Time
	for ctx.Err() == nil {
		began := time.Now()
		if !known {
			before, known = get("/primary")
			since = began
			continue
		}
		paths, statuses := make([]string, 0, 3), make([]int, 0, 3)
		for len(paths) < 3 && known {
			path := derivedPaths[next%len(derivedPaths)]
			next++
			var a patroni.Answer
			if a, known = get(path); known {
				paths, statuses = append(paths, path), append(statuses, a.Status)
			}
		}
		if !known {
			continue
		}
		asked := time.Now()
		after, ok := get("/primary")
		if ok {
			d.count(m.Name, before, after, since, paths, statuses)
		}
		before, known, since = after, ok, asked
	}
}

// getAnswer asks for one path. An API that restarts doesn't answer.
func getAnswer(ctx context.Context, url string) (patroni.Answer, bool) {
	patience := 10 * time.Second
	if strings.HasSuffix(url, "/patroni") {
		// Where its query fails Patroni tries once more there after 1 to 1.8 s, when a state that passes is over.
		patience = 500 * time.Millisecond
	}
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return patroni.Answer{}, false
	}
	request.Close = true
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		return patroni.Answer{}, false
	}
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	return patroni.ParseAnswer(response.StatusCode, body), err == nil
}

// count compares what was asked between two answers to /primary, the first of which was asked for at since.
func (d *differential) count(member string, before, after patroni.Answer, since time.Time, paths []string, statuses []int) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.asked += len(paths)
	d.version = cmp.Or(after.Version, d.version)
	plain := func(a patroni.Answer) patroni.Answer {
		a.Location, a.Received, a.Replayed, a.ReplayPaused, a.PendingRestart = 0, 0, 0, false, false
		return a
	}
	if !reflect.DeepEqual(plain(before), plain(after)) {
		return
	}
	from, to := d.between(since)
	for i, path := range paths {
		want, how := before.To(patroni.ParsePath(path), patroni.Facts{Position: from})
		same := true
		for _, a := range []patroni.Answer{before, after} {
			for _, position := range []int64{from, to} {
				other, otherwise := a.To(patroni.ParsePath(path), patroni.Facts{Position: position})
				same = same && other.Status == want.Status && otherwise == how
			}
		}
		if !same {
			continue
		}
		got := statuses[i]
		d.counted++
		sample := plain(after)
		sample.Name = member // 3.0.2 doesn't tell it.
		d.samples = append(d.samples, sample)
		if d.results[path] == nil {
			d.results[path] = map[int]int{}
		}
		d.results[path][got]++
		switch how {
		case patroni.Unsettled:
			d.unsettled++
			if got == 503 && want.Status == 200 {
				d.blind++
				continue
			}
		case patroni.Underivable:
			// /readiness from 4.1 on.
			continue
		}
		if got != want.Status {
			d.differences = append(d.differences, fmt.Sprintf("%s: %s of %s is %d, but %s says %d (%v; unlocked %t, failsafe %t, pause %t, sync %t, quorum %t, tags %v, positions %d to %d, replayed %d to %d)",
				d.state, path, member, got, after.Words(), want.Status, how, after.ClusterUnlocked, after.Failsafe, after.Pause,
				after.SyncStandby, after.QuorumStandby, after.Tags, from, to, before.Replayed, after.Replayed))
			continue
		}
		bare, query, _ := strings.Cut(path, "?")
		if without, _ := after.To(patroni.ParsePath(bare), patroni.Facts{}); strings.Contains(query, "lag=") && !strings.Contains(query, "tag_") && got == 503 && without.Status == 200 {
			d.lagging++
		}
	}
}

// readPositions follows /status in etcd. Any position of the last seconds may be what a member goes by: each reads it once a loop.
func (d *differential) readPositions(ctx context.Context) {
	beat := time.NewTicker(200 * time.Millisecond)
	defer beat.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-beat.C:
		}
		short, cancel := context.WithTimeout(ctx, time.Second)
		got, err := d.etcd.Get(short, "/pg/pg-test/status")
		cancel()
		if err != nil || len(got.Kvs) == 0 {
			continue
		}
		var status struct {
			Optime int64 `json:"optime"`
		}
		if json.Unmarshal(got.Kvs[0].Value, &status) != nil {
			continue
		}
		d.mu.Lock()
		if last := len(d.positions) - 1; last < 0 || d.positions[last].wal != status.Optime {
			d.positions = append(d.positions, readPosition{time.Now(), status.Optime})
		}
		d.mu.Unlock()
	}
}

// between gives the least and the greatest position that a member may have gone by since then: its loop of 2 s may be late.
func (d *differential) between(since time.Time) (from, to int64) {
	oldest := since.Add(-6 * time.Second)
	for i, p := range slices.Backward(d.positions) {
		if i == len(d.positions)-1 {
			from, to = p.wal, p.wal
		}
		from, to = min(from, p.wal), max(to, p.wal)
		if p.at.Before(oldest) {
			break
		}
	}
	return from, to
}

// until waits until n more comparisons counted between answers of which is says that they are of that state.
func (d *differential) until(what string, n int, is func(patroni.Answer) bool) {
	d.t.Helper()
	if got := d.wait(patience, n, is); got < n {
		d.t.Fatalf("%s: %d comparisons counted, want %d; so far:\n%s", what, got, n, d.table())
	}
}

// wait is until, and tells how many there are when enough or too much time has passed.
func (d *differential) wait(within time.Duration, n int, is func(patroni.Answer) bool) (got int) {
	d.mu.Lock()
	seen := len(d.samples)
	d.mu.Unlock()
	end := time.NewTimer(within)
	defer end.Stop()
	again := time.NewTicker(50 * time.Millisecond)
	defer again.Stop()
	for {
		d.mu.Lock()
		for ; seen < len(d.samples); seen++ {
			if is(d.samples[seen]) {
				got++
			}
		}
		d.mu.Unlock()
		if got >= n {
			return got
		}
		select {
		case <-end.C:
			return got
		case <-again.C:
		}
	}
}

// crash kills a member's PostgreSQL and waits until one is well, which needn't be the same if it takes that long. Patroni starts it
// at once, and what is over that soon may be over before both neighbours have been asked: then it is done again.
func (d *differential) crash(s shared, member func() string, well, crashed func(patroni.Answer) bool) {
	d.t.Helper()
	for range 5 {
		name := member()
		if err := s.Kill(d.t.Context(), syscall.SIGKILL, name+"/postgres"); err != nil {
			d.t.Fatal(err)
		}
		seen := d.wait(5*time.Second, 3, crashed)
		d.until(name+"'s PostgreSQL was killed, and one is well", 9, well)
		if seen >= 3 {
			return
		}
	}
	d.t.Fatalf("it was killed and not seen so; so far:\n%s", d.table())
}

// leaderGivesUp takes etcd away, after something that decides what of the leader's loop fails first, and gives it back when the leader
// has been seen giving up and something has been done meanwhile. As with crash, that may take more than one go.
func (d *differential) leaderGivesUp(s shared, before func(), well, givesUp func(patroni.Answer) bool, meanwhile func()) {
	d.t.Helper()
	for range 5 {
		before()
		seen := 0
		s.withoutEtcd(d.t, func() {
			// Patroni tries to reach it for 8 s, in each of the places where it wants something of it.
			if seen = d.wait(20*time.Second, 3, givesUp); seen >= 3 && meanwhile != nil {
				meanwhile()
			}
		})
		d.until("etcd is back, and a leader is well", 9, well)
		if seen >= 3 {
			return
		}
	}
	d.t.Fatalf("a leader gave up and wasn't seen so; so far:\n%s", d.table())
}

// untilLagging waits until n more comparisons counted of a path that refuses for a lag and nothing else.
func (d *differential) untilLagging(n int) {
	d.t.Helper()
	eventually(d.t, patience, func(context.Context) error {
		d.mu.Lock()
		defer d.mu.Unlock()
		if d.lagging < n {
			return fmt.Errorf("%d comparisons counted where a replica lags; positions %v; so far:\n%s", d.lagging, d.positions, d.table())
		}
		return nil
	})
}

// table lists what the members said and how many comparisons counted there.
func (d *differential) table() string {
	rows := map[string]int{}
	for _, a := range d.samples {
		row := a.Words()
		for i, on := range []bool{a.ClusterUnlocked, a.Failsafe, a.Pause, a.SyncStandby, a.QuorumStandby, a.TimelineNull} {
			if on {
				row += ", " + [...]string{"unlocked", "failsafe", "pause", "sync", "quorum", "timeline null"}[i]
			}
		}
		if len(a.Tags) > 0 {
			row += fmt.Sprint(" ", a.Tags)
		}
		rows[row]++
	}
	var text strings.Builder
	for _, row := range slices.Sorted(maps.Keys(rows)) {
		fmt.Fprintf(&text, "%6d  %s\n", rows[row], row)
	}
	return text.String()
}

// tag gives a member tags, and has its Patroni read them; what it returns takes them away again.
func (s shared) tag(t *testing.T, member string, tags ...string) (restore func()) {
	t.Helper()
	path := filepath.Join(s.Dir(), member, "patroni.yml")
	plain, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	before, _, ok := bytes.Cut(plain, []byte("\ntags:\n"))
	if !ok {
		t.Fatalf("%s has no tags", path)
	}
	write := func(text []byte) {
		if err := os.WriteFile(path, text, 0); err != nil {
			t.Fatal(err)
		}
		if err := s.Kill(t.Context(), syscall.SIGHUP, member+"/patroni"); err != nil {
			t.Fatal(err)
		}
	}
	write([]byte(string(before) + "\ntags:\n  " + strings.Join(tags, "\n  ") + "\n"))
	return func() { write(plain) }
}

// stopReplay has pg-test-3 replay nothing that pg-test-1 writes, and pg-test-1 write something; what it returns ends that.
func (s shared) stopReplay(t *testing.T) (resume func()) {
	t.Helper()
	instance := direct
	instance.port = 5432
	query := func(node, sql string, into ...any) {
		conn, err := connect(t.Context(), node, instance)
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close(t.Context())
		if err := conn.QueryRow(t.Context(), sql).Scan(into...); err != nil {
			t.Fatal(err)
		}
	}
	// Patroni ends a pause of the replay, so that the process has to be stopped.
	var pid int
	query(s.member(3), "select pid from pg_stat_activity where backend_type = 'startup'", &pid)
	if err := syscall.Kill(pid, syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	resume = sync.OnceFunc(func() {
		if err := syscall.Kill(pid, syscall.SIGCONT); err != nil {
			t.Error(err)
		}
	})
	t.Cleanup(resume)
	var written string
	query(s.member(1), "select pg_logical_emit_message(false, 'lag', repeat('x', 4000000))::text", &written)
	return resume
}

// configure changes one key of the dynamic configuration.
func (s shared) configure(t *testing.T, key string, value any) {
	t.Helper()
	if err := s.Configure(t.Context(), map[string]any{key: value}); err != nil {
		t.Fatal(err)
	}
}

// withoutEtcd does something while etcd is away.
func (s shared) withoutEtcd(t *testing.T, do func()) {
	t.Helper()
	if err := s.Kill(t.Context(), syscall.SIGKILL, "etcd"); err != nil {
		t.Fatal(err)
	}
	start := sync.OnceFunc(func() {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(t.Context()), patience)
		defer cancel()
		if err := s.Start(ctx, "etcd"); err != nil {
			t.Error(err)
		}
	})
	defer start()
	do()
}
