package cluster

import (
	"context"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/pgporter/pgporter/internal/config/model"
	"github.com/pgporter/pgporter/internal/monitor/etcd"
	"github.com/pgporter/pgporter/internal/monitor/view"
)

// scriptedKeys are a Keys that a test speaks for.
type scriptedKeys struct {
	path      string
	says      chan etcd.Reading
	confirmed atomic.Int32
	running   atomic.Bool
}

func (k *scriptedKeys) Run(ctx context.Context, deliver etcd.Deliver) {
	k.running.Store(true)
	defer k.running.Store(false)
	for {
		select {
		case r := <-k.says:
			deliver(ctx, r)
		case <-ctx.Done():
			return
		}
	}
}

func (k *scriptedKeys) Confirm()      { k.confirmed.Add(1) }
func (k *scriptedKeys) AskLease(bool) {}

// trio is a stage on which pg-test-1 leads two replicas, and the keys of their cluster, which say nothing yet.
func trio() (*stage, *scriptedKeys) {
	g := newStage()
	g.set(1, "lock primary running")
	g.set(2, "replica running")
	g.set(3, "replica running")
	return g, &scriptedKeys{says: make(chan etcd.Reading)}
}

// watched makes a Loop that follows the keys and asks the stage.
func (k *scriptedKeys) watched(t *testing.T, g *stage, log *logbook) *Loop {
	t.Helper()
	c, _ := declared("trio")
	l, err := New(c, Config{Logger: slog.New(log), Check: g.check, Probe: g.probe, Keys: func(model.Cluster) Keys { return k }})
	if err != nil {
		t.Fatal(err)
	}
	return l
}

// TestPromotion: whenever in the pace of questions the key comes to name a member, and whatever its last answers have cost, it serves a
// quarter of a second after it was promoted, and at most as much later than that as the promotion took.
func TestPromotion(t *testing.T) {
	for _, promoted := range []time.Duration{100 * time.Millisecond, 240 * time.Millisecond, 400 * time.Millisecond} {
		for phase := range 20 {
			after := 18*time.Second + time.Duration(phase)*150*time.Millisecond
			for name, vacancy := range map[string]time.Duration{"crash": after, "switchover": 200 * time.Millisecond} {
				t.Run(fmt.Sprintf("%s/%v/%v", name, promoted, phase), func(t *testing.T) { promotion(t, name == "switchover", after, vacancy, promoted) })
			}
		}
	}
}

func promotion(t *testing.T, asked bool, after, vacancy, promoted time.Duration) {
	synctest.Test(t, func(t *testing.T) {
		g, keys := trio()
		l := keys.watched(t, g, &logbook{})
		ctx, cancel := context.WithCancel(t.Context())
		var joined sync.WaitGroup
		joined.Go(func() { l.Run(ctx) })
		defer joined.Wait()
		defer cancel()
		keys.says <- etcd.Reading{Leader: "pg-test-1", LeaderRevision: 1, Read: time.Now()}
		time.Sleep(after)
		if asked {
			keys.says <- etcd.Reading{Leader: "pg-test-1", LeaderRevision: 1, Failover: `{"leader":"pg-test-1"}`, FailoverRevision: 2, Read: time.Now()}
			time.Sleep(1300 * time.Millisecond)
		}
		g.set(1, "silent refused")
		g.set(2, "unlocked replica running")
		g.set(3, "unlocked replica running")
		keys.says <- etcd.Reading{Read: time.Now()}
		time.Sleep(vacancy)
		keys.says <- etcd.Reading{Leader: "pg-test-2", LeaderRevision: 3, Read: time.Now()}
		g.set(2, "lock replica running")
		time.Sleep(promoted)
		g.set(2, "lock primary running")
		for began := time.Now(); !health1(t, l.Board().View(), "pg-test-primary", "pg-test-2").Up; time.Sleep(10 * time.Millisecond) {
			if late := time.Since(began); late > 250*time.Millisecond+promoted {
				t.Fatalf("it doesn't serve %v after it was promoted", late)
			}
		}
	})
}

// TestLoopLeaderKey: a leader key that moves ends the old primary and has the new one found within a tenth of a second, long
// before its next check would be due.
func TestLoopLeaderKey(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		log := &logbook{}
		g, keys := trio()
		l := keys.watched(t, g, log)
		ctx, cancel := context.WithCancel(t.Context())
		var joined sync.WaitGroup
		joined.Go(func() { l.Run(ctx) })
		keys.says <- etcd.Reading{Leader: "pg-test-1", LeaderRevision: 1}
		time.Sleep(10 * time.Second)
		old := health1(t, l.Board().View(), "pg-test-primary", "pg-test-1")
		if got, want := serving(l.Board().View()), "serve primary 1, replica 2 3, default 1, offline 3"; got != want {
			t.Fatalf("%s, want %s", got, want)
		}
		if key := l.Board().View().Key; key != (view.Key{Watched: true, Holder: "pg-test-1"}) {
			t.Errorf("key %+v", key)
		}

		// 1 hangs and would be believed for seconds; 2 takes the key and is promoted soon after.
		g.set(1, "silent timed out")
		g.set(2, "lock replica running")
		keys.says <- etcd.Reading{Leader: "pg-test-2", LeaderRevision: 2, Read: time.Now()}
		synctest.Wait()
		now := health1(t, l.Board().View(), "pg-test-primary", "pg-test-1")
		if now.Up || now.Epoch <= old.Epoch || !strings.Contains(now.Reason, "pg-test-2 holds the leader key") {
			t.Errorf("the old primary: %+v, was %+v", now, old)
		}
		asked := g.askedOf("pg-test-2")
		// Not at the moment of one of them: what it answers there would be either.
		time.Sleep(700 * time.Millisecond)
		if n := g.askedOf("pg-test-2") - asked; n < 1 || n > 3 {
			t.Errorf("%d questions in seven tenths of a second", n)
		}
		// Its Patroni writes that it leads, so that it needs not be asked all the time.
		g.set(2, "lock primary running")
		leads := []etcd.MemberKey{{Name: "pg-test-2", Role: "primary", State: "running", Revision: 3}}
		keys.says <- etcd.Reading{Leader: "pg-test-2", LeaderRevision: 2, Members: leads, Read: time.Now()}
		synctest.Wait()
		if got, want := serving(l.Board().View()), "serve primary 2, replica 1 3, default 2, offline 3"; got != want {
			t.Errorf("%s, want %s", got, want)
		}
		// Then there is peace again. 1 is silent for good.
		time.Sleep(10 * time.Second)
		asked = g.askedOf("pg-test-2")
		time.Sleep(10 * time.Second)
		if n := g.askedOf("pg-test-2") - asked; n > 6 {
			t.Errorf("%d questions in ten seconds of peace", n)
		}

		// One who contradicts the key has it read again, and isn't believed meanwhile.
		if n := keys.confirmed.Load(); n != 0 {
			t.Errorf("%d times confirmed without a reason", n)
		}
		g.set(3, "lock primary running")
		time.Sleep(3 * time.Second)
		if n := keys.confirmed.Load(); n == 0 {
			t.Error("the key was not read again")
		}
		if got, want := serving(l.Board().View()), "serve primary 2, replica 3, default 2, offline –"; got != want {
			t.Errorf("%s, want %s", got, want)
		}
		g.set(3, "replica running")

		// etcd is lost and comes back: nothing changes but what is known of the key.
		time.Sleep(20 * time.Second)
		before := serving(l.Board().View())
		keys.says <- etcd.Reading{Lost: "10.10.10.10:2379: timed out after 2s"}
		synctest.Wait()
		if key := l.Board().View().Key; key != (view.Key{Watched: true, Lost: "10.10.10.10:2379: timed out after 2s"}) {
			t.Errorf("key %+v", key)
		}
		time.Sleep(time.Minute)
		keys.says <- etcd.Reading{Leader: "pg-test-2", LeaderRevision: 2}
		time.Sleep(time.Minute)
		if after := serving(l.Board().View()); after != before {
			t.Errorf("%s, was %s", after, before)
		}
		for _, line := range []string{"etcd answers: pg-test-1 holds the leader key", "pg-test: pg-test-2 holds the leader key", "etcd is lost", "etcd answers again: pg-test-2 holds the leader key"} {
			if n := log.count(line); n != 1 {
				t.Errorf("%d times in the log: %s", n, line)
			}
		}
		cancel()
		joined.Wait()
		if keys.running.Load() {
			t.Error("Run of the keys goes on")
		}
	})
}

// TestLoopKeyPath: a declaration with another path has that one followed instead, and nothing of the old one counts.
func TestLoopKeyPath(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, _ := declared("trio")
		g := newStage()
		g.set(1, "lock primary running")
		g.set(2, "replica running")
		g.set(3, "replica running")
		made := make(chan *scriptedKeys, 2)
		l, err := New(c, Config{Logger: slog.New(&logbook{}), Check: g.check, Probe: g.probe, Keys: func(c model.Cluster) Keys {
			if c.KeyPath == "/none" {
				return nil
			}
			keys := &scriptedKeys{path: c.KeyPath, says: make(chan etcd.Reading)}
			made <- keys
			return keys
		}})
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		var joined sync.WaitGroup
		joined.Go(func() { l.Run(ctx) })
		time.Sleep(time.Second)
		first := <-made
		first.says <- etcd.Reading{Leader: "pg-test-2", LeaderRevision: 1}
		synctest.Wait()
		if got, want := serving(l.Board().View()), "serve primary –, replica 1 3, default –, offline 3"; got != want {
			t.Errorf("%s, want %s", got, want)
		}
		for _, path := range []string{"/pg/shard/0", "/none"} {
			c.KeyPath = path
			if err := replace(t.Context(), l, c); err != nil {
				t.Fatal(err)
			}
		}
		synctest.Wait()
		if second := <-made; second.path != "/pg/shard/0" || first.running.Load() || second.running.Load() {
			t.Errorf("path %s, running %v and %v", second.path, first.running.Load(), second.running.Load())
		}
		time.Sleep(3 * time.Second)
		if got, want := serving(l.Board().View()), "serve primary 1, replica 2 3, default 1, offline 3"; got != want {
			t.Errorf("%s, want %s", got, want)
		}
		cancel()
		joined.Wait()
	})
}

// TestViewTellsWhoLeads: a View says when the key was confirmed, and when each member's Patroni last said that it leads.
func TestViewTellsWhoLeads(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, _ := declared("trio")
		g := newStage()
		g.set(1, "lock primary running")
		g.set(2, "replica running")
		g.set(3, "replica running")
		keys := &scriptedKeys{says: make(chan etcd.Reading)}
		l, err := New(c, Config{Logger: slog.New(&logbook{}), Check: g.check, Keys: func(model.Cluster) Keys { return keys }})
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		var joined sync.WaitGroup
		joined.Go(func() { l.Run(ctx) })
		// leads gives how long ago a member said that it leads; -1 if it says otherwise.
		usable := func(member int) time.Duration {
			if led := l.Board().View().Members[member-1].Led; !led.IsZero() {
				return time.Since(led)
			}
			return -1
		}
		keys.says <- etcd.Reading{Leader: "pg-test-1", LeaderRevision: 1, Read: time.Now()}
		time.Sleep(10 * time.Second)
		if ago := usable(1); ago < 0 || ago > 8*time.Second {
			t.Errorf("the leader said %v ago that it leads", ago)
		}
		if usable(2) >= 0 || usable(3) >= 0 {
			t.Error("a replica leads")
		}
		// A reading that only confirms the one before is in the View with the next one.
		read := time.Now()
		keys.says <- etcd.Reading{Leader: "pg-test-1", LeaderRevision: 1, Read: read}
		time.Sleep(answeredGap + 2*time.Second)
		if key := l.Board().View().Key; !key.Confirmed.Equal(read) || key.Holder != "pg-test-1" {
			t.Errorf("key %+v", key)
		}
		// Silence says nothing; a running primary without the key says that it doesn't lead.
		g.set(1, "silent refused")
		time.Sleep(5 * time.Second)
		if ago := usable(1); ago < 4*time.Second {
			t.Errorf("in silence the leader said %v ago that it leads", ago)
		}
		g.set(1, "primary running")
		time.Sleep(5 * time.Second)
		if ago := usable(1); ago >= 0 {
			t.Errorf("a primary without the key said %v ago that it leads", ago)
		}
		g.set(1, "lock unlocked failsafe paused primary running")
		keys.says <- etcd.Reading{Lost: "10.10.10.10:2379: timed out after 2s"}
		time.Sleep(5 * time.Second)
		if m := l.Board().View().Members[0]; !m.Unlocked || !m.Failsafe || !m.Pause || m.Led.IsZero() {
			t.Errorf("unlocked %v, failsafe %v, pause %v, led %v", m.Unlocked, m.Failsafe, m.Pause, m.Led)
		}
		if key := l.Board().View().Key; !key.Confirmed.IsZero() {
			t.Errorf("key %+v", key)
		}
		// A standby cluster's leader gets 503 from /primary, and leads all the same.
		g.set(1, "replica running")
		g.set(2, "lock standby-cluster standby_leader running")
		time.Sleep(8 * time.Second)
		if usable(1) >= 0 || usable(2) < 0 {
			t.Errorf("after the standby leader came: %v and %v", usable(1), usable(2))
		}
		cancel()
		joined.Wait()
	})
}
