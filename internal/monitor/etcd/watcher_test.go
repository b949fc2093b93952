package etcd

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/mvccpb"
	clientv3 "go.etcd.io/etcd/client/v3"
)

// TestFollow: what Patroni writes in a cluster's life is delivered change by change, and what isn't asked for isn't.
func TestFollow(t *testing.T) {
	e := startEtcd(t).connect(clientv3.Config{})
	f := follow(t, at(e), nil)
	f.says("leader ")
	e.put("/pg/pg-test/initialize", "7710787112816185761")
	f.says("leader , system 7710787112816185761")
	e.put("/pg/pg-test/config", "{}")
	e.put("/pg/pg-test/status", `{"optime":1}`)
	e.put("/pg/pg-test/status", `{"optime":1}`)
	e.put("/pg/pg-test/sync", "{}")
	e.put("/pg/pg-test/history", "[]")
	e.put("/pg/pg-test-other/leader", "pg-test-other-1")
	e.put("/pg/pg-test/leader", "pg-test-1")
	first := f.says("leader pg-test-1, system 7710787112816185761")
	e.put("/pg/pg-test/failover", `{"leader":"pg-test-1","member":"pg-test-2"}`)
	f.says(`leader pg-test-1, failover {"leader":"pg-test-1","member":"pg-test-2"}, system 7710787112816185761`)
	e.remove("/pg/pg-test/leader")
	gone := f.says(`leader , failover {"leader":"pg-test-1","member":"pg-test-2"}, system 7710787112816185761`)
	if first.LeaderRevision == 0 || gone.LeaderRevision != 0 || gone.FailoverRevision <= first.LeaderRevision {
		t.Errorf("revisions %+v, %+v", first, gone)
	}
	e.put("/pg/pg-test/leader", "pg-test-2")
	f.says(`leader pg-test-2, failover {"leader":"pg-test-1","member":"pg-test-2"}, system 7710787112816185761`)
	e.put("/pg/pg-test/failover", "{}")
	if done := f.says("leader pg-test-2, system 7710787112816185761"); done.FailoverRevision <= gone.FailoverRevision {
		t.Errorf("revision %d", done.FailoverRevision)
	}
	e.remove("/pg/pg-test/failover")
	f.says("leader pg-test-2, system 7710787112816185761")
	// The same member takes the key again within one transaction: only the revision tells.
	e.do(func(ctx context.Context) error {
		_, err := e.admin.Put(ctx, "/pg/pg-test/leader", "pg-test-2")
		return err
	})
	if again := f.says("leader pg-test-2, system 7710787112816185761"); again.LeaderRevision <= first.LeaderRevision {
		t.Errorf("revision %d", again.LeaderRevision)
	}
	// One who comes later reads it all at once; a lease's end is a deletion.
	late := follow(t, at(e), nil)
	late.says("leader pg-test-2, system 7710787112816185761")
	e.do(func(ctx context.Context) error {
		lease, err := e.admin.Grant(ctx, 1)
		if err != nil {
			return err
		}
		_, err = e.admin.Put(ctx, "/pg/pg-test/leader", "pg\x1b-test-3", clientv3.WithLease(lease.ID))
		return err
	})
	late.says("leader pg\\u001b-test-3, system 7710787112816185761")
	late.says("leader , system 7710787112816185761")
	f.says("leader pg\\u001b-test-3, system 7710787112816185761")
	f.says("leader , system 7710787112816185761")
}

// TestMembers: a member's role and state are told as they change, and nothing else of what it writes.
func TestMembers(t *testing.T) {
	e := startEtcd(t).connect(clientv3.Config{})
	value := func(role, state string, position int) string {
		return fmt.Sprintf(`{"conn_url":"postgres://10.10.10.11:5432/postgres","state":"%s","role":"%s","xlog_location":%d,"timeline":1}`, state, role, position)
	}
	e.put("/pg/pg-test/members/pg-test-2", value("replica", "running", 1))
	f := follow(t, at(e), nil)
	first := f.says("leader , pg-test-2 replica running")
	e.put("/pg/pg-test/members/pg-test-2", value("replica", "running", 2))
	e.put("/pg/pg-test/members/pg-test-1", value("master", "running", 2))
	two := f.says("leader , pg-test-1 primary running, pg-test-2 replica running")
	if two.Members[1] != first.Members[0] || two.Members[0].Revision <= first.Members[0].Revision {
		t.Errorf("members %+v, then %+v", first.Members, two.Members)
	}
	e.put("/pg/pg-test/members/pg-test-1", value("primary", "running", 3))
	e.put("/pg/pg-test/members/pg-test-3/lost", value("replica", "running", 3))
	e.put("/pg/pg-test/config", `{"standby_cluster":{"host":"10.10.10.20"}}`)
	f.says("leader , standby, pg-test-1 primary running, pg-test-2 replica running")
	e.put("/pg/pg-test/members/pg-test-1", value("primary", "stopping", 4))
	stopping := f.says("leader , standby, pg-test-1 primary stopping, pg-test-2 replica running")
	if stopping.Members[0].Revision <= two.Members[0].Revision || two.Members[0].State != "running" {
		t.Errorf("members %+v, then %+v", two.Members, stopping.Members)
	}
	e.put("/pg/pg-test/members/pg-test-0", "?")
	f.says("leader , standby, pg-test-0  , pg-test-1 primary stopping, pg-test-2 replica running")
	e.remove("/pg/pg-test/members/pg-test-1")
	f.says("leader , standby, pg-test-0  , pg-test-2 replica running")
	e.remove("/pg/pg-test/config")
	f.says("leader , pg-test-0  , pg-test-2 replica running")
	f.quiet()
}

// TestPositions: a WAL position comes with the next read of the leader key, and is no reason to deliver anything by itself.
func TestPositions(t *testing.T) {
	e := startEtcd(t).connect(clientv3.Config{})
	e.put("/pg/pg-test/status", `{"optime":1}`)
	etcd, err := New(at(e))
	if err != nil {
		t.Fatal(err)
	}
	w := etcd.Watch("/pg/pg-test")
	unhurried(w)
	w.pace.beat, w.pace.all = time.Hour, time.Hour
	f := every(t, w)
	if r := f.next(); r.Optime != 1 {
		t.Errorf("%+v", r)
	}
	for i := range 10 {
		e.put("/pg/pg-test/status", fmt.Sprintf(`{"optime":%d,"slots":{"pg_test_2":%d}}`, i+2, i))
	}
	// One change that is told, so that all before it have been seen.
	e.put("/pg/pg-test/initialize", "7710787112816185761")
	if r := f.next(); r.System == "" || r.Optime != 1 {
		t.Errorf("%+v", r)
	}
	w.Confirm()
	if r := f.next(); r.Optime != 11 {
		t.Errorf("%+v", r)
	}
	e.remove("/pg/pg-test/status")
	e.remove("/pg/pg-test/initialize")
	if r := f.next(); r.System != "" || r.Optime != 11 {
		t.Errorf("%+v", r)
	}
	w.Confirm()
	if r := f.next(); r.Optime != 0 {
		t.Errorf("%+v", r)
	}
	f.quiet()
}

// TestRenewed: a leader that lives is told from one that doesn't by what is left of its lease, while that is asked for.
func TestRenewed(t *testing.T) {
	e := startEtcd(t).connect(clientv3.Config{})
	var lease clientv3.LeaseID
	granted := time.Now()
	e.do(func(ctx context.Context) error {
		l, err := e.admin.Grant(ctx, 3600)
		if err != nil {
			return err
		}
		lease = l.ID
		_, err = e.admin.Put(ctx, "/pg/pg-test/leader", "pg-test-1", clientv3.WithLease(lease))
		return err
	})
	etcd, err := New(at(e))
	if err != nil {
		t.Fatal(err)
	}
	w := etcd.Watch("/pg/pg-test")
	briskly(w)
	f := every(t, w)
	await := func(what string, is func(Reading) bool) Reading {
		t.Helper()
		for end := time.Now().Add(patience); ; {
			r := f.next()
			if r.Lost != "" {
				t.Fatal(r.Lost)
			}
			if is(r) {
				return r
			}
			if time.Now().After(end) {
				t.Fatalf("%s: %+v", what, r)
			}
		}
	}
	if r := f.next(); !r.Renewed.IsZero() {
		t.Errorf("renewed %v without having asked", r.Renewed)
	}
	w.AskLease(true)
	await("granted", func(r Reading) bool { return r.Renewed.After(granted.Add(-time.Second)) })
	for range 2 {
		began := time.Now()
		e.do(func(ctx context.Context) error { _, err := e.admin.KeepAliveOnce(ctx, lease); return err })
		// The earliest moment that it can have been is up to a second before.
		r := await("renewed", func(r Reading) bool { return r.Renewed.After(began.Add(-time.Second)) })
		if r.Renewed.After(time.Now()) {
			t.Errorf("renewed %v, later than now", r.Renewed)
		}
	}
	w.AskLease(false)
	await("not asked any more", func(r Reading) bool { return r.Renewed.IsZero() })
	w.AskLease(true)
	await("asked again", func(r Reading) bool { return !r.Renewed.IsZero() })
	// A key without a lease is nobody's to renew.
	e.put("/pg/pg-test/leader", "pg-test-2")
	await("without a lease", func(r Reading) bool { return r.Leader == "pg-test-2" && r.Renewed.IsZero() })
	e.remove("/pg/pg-test/leader")
	await("without a key", func(r Reading) bool { return r.Leader == "" && r.Renewed.IsZero() })
}

// TestSlow: an etcd whose answers take longer than a beat isn't lost, isn't asked twice at once, and its answers count for when
// they were asked for.
func TestSlow(t *testing.T) {
	e := startEtcd(t).connect(clientv3.Config{})
	e.put("/pg/pg-test/leader", "pg-test-1")
	const late = 300 * time.Millisecond
	etcd, err := New(Config{Endpoints: []string{startLatePipe(t, host, e.address, late).address}})
	if err != nil {
		t.Fatal(err)
	}
	w := etcd.Watch("/pg/pg-test")
	briskly(w)
	f := every(t, w)
	var before time.Time
	for range 8 {
		r := f.next()
		if r.Lost != "" || r.Leader != "pg-test-1" {
			t.Fatalf("%+v", r)
		}
		if ago := time.Since(r.Read); ago < late {
			t.Errorf("read %v ago", ago)
		}
		if gap := r.Read.Sub(before); gap < late {
			t.Errorf("asked %v after the one before", gap)
		}
		before = r.Read
	}
}

// TestAskLeaseRaces: what may be called at any time is, while readings are delivered and looked at.
func TestAskLeaseRaces(t *testing.T) {
	e := startEtcd(t).connect(clientv3.Config{})
	etcd, err := New(at(e))
	if err != nil {
		t.Fatal(err)
	}
	w := etcd.Watch("/pg/pg-test")
	briskly(w)
	f := every(t, w)
	var seen []Reading
	for i := range 20 {
		w.AskLease(i%2 == 0)
		w.Confirm()
		e.put(fmt.Sprintf("/pg/pg-test/members/pg-test-%02d", 20-i), `{"role":"replica"}`)
		seen = append(seen, f.next())
	}
	// What was delivered stays as it was.
	for _, r := range seen {
		if !slices.IsSortedFunc(r.Members, func(a, b MemberKey) int { return strings.Compare(a.Name, b.Name) }) {
			t.Errorf("members %+v", r.Members)
		}
	}
}

// TestPicture: reads of the leader key and of all keys, and what a watch brings of the same changes, in every order that they
// may come in.
func TestPicture(t *testing.T) {
	w := &Watcher{path: "/pg/pg-test"}
	kv := func(name, value string, revision int64) *mvccpb.KeyValue {
		return &mvccpb.KeyValue{Key: []byte("/pg/pg-test/" + name), Value: []byte(value), ModRevision: revision}
	}
	read := func(s *session, whole bool, at int64, kvs ...*mvccpb.KeyValue) {
		s.take(answered{&clientv3.GetResponse{Header: &etcdserverpb.ResponseHeader{Revision: at}, Kvs: kvs}, whole, time.Unix(at, 0), nil})
	}
	put := func(s *session, kv *mvccpb.KeyValue) { s.changed([]*clientv3.Event{{Type: mvccpb.Event_PUT, Kv: kv}}) }
	remove := func(s *session, name string, at int64) {
		s.changed([]*clientv3.Event{{Type: mvccpb.Event_DELETE, Kv: kv(name, "", at)}})
	}
	running := `{"role":"replica","state":"running"}`
	for _, test := range []struct {
		name string
		do   func(s *session)
		want string
	}{
		{"a read before its event", func(s *session) {
			read(s, false, 20, kv("leader", "two", 15))
			put(s, kv("members/two", running, 14))
			remove(s, "leader", 13)
			put(s, kv("leader", "two", 15))
		}, "leader two, two replica running"},
		{"an event before the read", func(s *session) {
			remove(s, "leader", 13)
			put(s, kv("leader", "two", 15))
			read(s, false, 12, kv("leader", "one", 5))
		}, "leader two"},
		{"a key that has gone", func(s *session) {
			read(s, false, 14)
			put(s, kv("leader", "one", 13))
		}, "leader "},
		{"a key that came after the read", func(s *session) {
			read(s, false, 14)
			put(s, kv("leader", "two", 15))
		}, "leader two"},
		{"all keys", func(s *session) {
			put(s, kv("members/two", running, 14))
			read(s, true, 20, kv("leader", "three", 16), kv("members/three", running, 18))
			put(s, kv("members/four", running, 19))
			remove(s, "members/three", 21)
			remove(s, "failover", 22)
		}, "leader three"},
		{"all keys, too late", func(s *session) {
			put(s, kv("members/two", running, 24))
			read(s, true, 20, kv("leader", "three", 16))
		}, "leader one, two replica running"},
	} {
		t.Run(test.name, func(t *testing.T) {
			s := &session{Watcher: w}
			read(s, true, 10, kv("leader", "one", 5))
			test.do(s)
			if got := short(s.now); got != test.want {
				t.Errorf("%s, want %s", got, test.want)
			}
		})
	}
	s := &session{Watcher: w}
	read(s, true, 10, kv("members/one", running, 5))
	read(s, true, 20, kv("members/one", running, 15), kv("members/two", running, 16))
	if m := s.now.Members; m[0].Revision != 5 || m[1].Revision != 16 {
		t.Errorf("members %+v", m)
	}
}

func TestEqual(t *testing.T) {
	at := time.Unix(1, 0)
	full := Reading{"", "a", 1, "f", 2, "s", true, []MemberKey{{"a", "primary", "running", 3}}, 4, at, at}
	if !full.Equal(full) || !(Reading{}).Equal(Reading{Members: []MemberKey{}}) {
		t.Error("not its own equal")
	}
	for i, change := range []func(*Reading){
		func(r *Reading) { r.Lost = "x" }, func(r *Reading) { r.Leader = "" }, func(r *Reading) { r.LeaderRevision++ }, func(r *Reading) { r.Failover = "" },
		func(r *Reading) { r.FailoverRevision++ }, func(r *Reading) { r.System = "" }, func(r *Reading) { r.Standby = false },
		func(r *Reading) { r.Members = nil }, func(r *Reading) { r.Members = []MemberKey{{"a", "primary", "running", 4}} },
		func(r *Reading) { r.Optime++ }, func(r *Reading) { r.Renewed = r.Renewed.Add(1) }, func(r *Reading) { r.Read = r.Read.Add(1) },
	} {
		other := full
		if change(&other); other.Equal(full) {
			t.Errorf("change %d isn't seen", i)
		}
	}
}

// TestCitusPath: a group of a Citus cluster has its keys one level deeper.
func TestCitusPath(t *testing.T) {
	e := startEtcd(t).connect(clientv3.Config{})
	e.put("/pg/pg-citus/0/leader", "pg-citus0-1")
	e.put("/pg/pg-citus/1/leader", "pg-citus1-2")
	etcd, err := New(at(e))
	if err != nil {
		t.Fatal(err)
	}
	run(t, etcd.Watch("/pg/pg-citus/0"), nil).says("leader pg-citus0-1")
	run(t, etcd.Watch("/pg/pg-citus/1/"), nil).says("leader pg-citus1-2")
	run(t, etcd.Watch("/pg/pg-citus"), nil).says("leader ")
}

// brisk shortens a Watcher's times: what is well answers within them even on a machine that has little time for it.
func brisk(w *Watcher) {
	w.pace = paces{attempt: 6 * time.Second, read: 6 * time.Second, beat: 100 * time.Millisecond, all: time.Second, first: 20 * time.Millisecond, most: 200 * time.Millisecond}
}

// unhurried lengthens them, where the reason for a loss is to be something else than slowness.
func unhurried(w *Watcher) { w.pace.attempt, w.pace.read = time.Minute, time.Minute }

// briskly is brisk where nothing is to be lost, or lost for its time.
func briskly(w *Watcher) {
	brisk(w)
	unhurried(w)
}

// TestKilled: an etcd that dies is reported once, and once that it is back, with what changed meanwhile.
func TestKilled(t *testing.T) {
	e := startEtcd(t).connect(clientv3.Config{})
	e.put("/pg/pg-test/leader", "pg-test-1")
	f := follow(t, at(e), briskly)
	f.says("leader pg-test-1")
	for range 2 {
		e.kill()
		// Reset, where it owed an answer when it died.
		f.lost(e.address + ": connection re")
		e.start()
		f.back("leader pg-test-1")
	}
	e.put("/pg/pg-test/leader", "pg-test-2")
	f.says("leader pg-test-2")
	f.quiet()
}

// TestHung: an etcd that is stopped with its connections open is noticed by the beat.
func TestHung(t *testing.T) {
	e := startEtcd(t).connect(clientv3.Config{})
	e.put("/pg/pg-test/leader", "pg-test-1")
	f := follow(t, at(e), brisk)
	f.says("leader pg-test-1")
	e.signal(syscall.SIGSTOP)
	f.lost("timed out")
	e.signal(syscall.SIGCONT)
	f.back("leader pg-test-1")
	e.put("/pg/pg-test/leader", "pg-test-2")
	f.says("leader pg-test-2")
}

// TestConfirm: a read out of turn finds out that etcd hangs, long before the beat would; while all is well it says nothing.
func TestConfirm(t *testing.T) {
	e := startEtcd(t).connect(clientv3.Config{})
	e.put("/pg/pg-test/leader", "pg-test-1")
	var w *Watcher
	f := follow(t, at(e), func(made *Watcher) {
		brisk(made)
		made.pace.beat = time.Hour
		w = made
	})
	f.says("leader pg-test-1")
	for range 100 {
		w.Confirm()
	}
	e.put("/pg/pg-test/leader", "pg-test-2")
	f.says("leader pg-test-2")
	e.signal(syscall.SIGSTOP)
	w.Confirm()
	f.lost("timed out")
	e.signal(syscall.SIGCONT)
	f.back("leader pg-test-2")
	f.quiet()
}

// TestCompacted: a watch whose revision has gone before it began is no loss, and misses nothing.
func TestCompacted(t *testing.T) {
	e := startEtcd(t).connect(clientv3.Config{})
	e.put("/pg/pg-test/leader", "pg-test-1")
	times := 0
	f := follow(t, at(e), func(w *Watcher) {
		w.hook = func(int64) {
			if times++; times > 2 {
				return
			}
			e.put("/pg/pg-test/leader", "pg-test-2")
			e.do(func(ctx context.Context) error {
				last, err := e.admin.Put(ctx, "/pg/pg-test/leader", "pg-test-3")
				if err != nil {
					return err
				}
				_, err = e.admin.Compact(ctx, last.Header.Revision, clientv3.WithCompactPhysical())
				return err
			})
		}
	})
	f.says("leader pg-test-1")
	// The second of two compactions changes the revision only.
	f.says("leader pg-test-3")
	f.says("leader pg-test-3")
	e.put("/pg/pg-test/leader", "pg-test-4")
	f.says("leader pg-test-4")
	f.quiet()
}

// TestNextAddress: whoever answers of several addresses is taken, without a word of the others; when that one dies and
// nobody else answers, it is reported.
func TestNextAddress(t *testing.T) {
	e := startEtcd(t).connect(clientv3.Config{})
	e.put("/pg/pg-test/leader", "pg-test-1")
	f := follow(t, Config{Endpoints: []string{freeAddress(t), "http://" + freeAddress(t) + "/", e.address}}, briskly)
	f.says("leader pg-test-1")
	e.kill()
	f.lost("connection refused")
	e.start()
	f.back("leader pg-test-1")
}

// TestBrokenConnection: a connection that ends under a healthy etcd is replaced without a word.
func TestBrokenConnection(t *testing.T) {
	e := startEtcd(t).connect(clientv3.Config{})
	e.put("/pg/pg-test/leader", "pg-test-1")
	p := startPipe(t, e.address)
	var read atomic.Int32
	f := follow(t, Config{Endpoints: []string{p.address}}, func(w *Watcher) {
		briskly(w)
		w.hook = func(int64) { read.Add(1) }
	})
	f.says("leader pg-test-1")
	for i := range int32(3) {
		// One that ends before the keys were read through it is a failed attempt.
		until(t, "no connection", func() bool { return read.Load() > i })
		p.cut()
	}
	until(t, "no fourth connection", func() bool { return read.Load() > 3 })
	e.put("/pg/pg-test/leader", "pg-test-2")
	f.says("leader pg-test-2")
	f.quiet()
}

// TestBrokenAndMute: what was known isn't believed for as long as an attempt may take, if the connection breaks and the next is
// silent.
func TestBrokenAndMute(t *testing.T) {
	e := startEtcd(t).connect(clientv3.Config{})
	e.put("/pg/pg-test/leader", "pg-test-1")
	p := startPipe(t, e.address)
	f := follow(t, Config{Endpoints: []string{p.address}}, func(w *Watcher) {
		brisk(w)
		w.pace.attempt = time.Hour
	})
	f.says("leader pg-test-1")
	p.mute.Store(true)
	p.cut()
	f.lost("timed out")
}

// TestAuthentication: an etcd with users, as Pigsty sets it up: a user for each cluster that may read its own keys.
func TestAuthentication(t *testing.T) {
	e := startEtcd(t).connect(clientv3.Config{})
	e.put("/pg/pg-test/leader", "pg-test-1")
	e.do(func(ctx context.Context) error {
		a := e.admin.Auth
		_, err1 := a.UserAdd(ctx, "root", "secret of root")
		_, err2 := a.UserGrantRole(ctx, "root", "root")
		_, err3 := a.RoleAdd(ctx, "pg-test")
		_, err4 := a.RoleGrantPermission(ctx, "pg-test", "/pg/pg-test/", clientv3.GetPrefixRangeEnd("/pg/pg-test/"), clientv3.PermissionType(clientv3.PermReadWrite))
		_, err5 := a.UserAdd(ctx, "pg-test", "secret of pg-test")
		_, err6 := a.UserGrantRole(ctx, "pg-test", "pg-test")
		_, err7 := a.AuthEnable(ctx)
		return errors.Join(err1, err2, err3, err4, err5, err6, err7)
	})
	root := (&etcd{t: t, scheme: e.scheme, address: e.address}).connect(clientv3.Config{Username: "root", Password: "secret of root"})

	as := func(user, password string) Config {
		return Config{Endpoints: []string{e.address}, User: user, Password: fixed(password)}
	}
	f := follow(t, as("pg-test", "secret of pg-test"), unhurried)
	f.says("leader pg-test-1")
	root.put("/pg/pg-test/leader", "pg-test-2")
	f.says("leader pg-test-2")

	follow(t, as("pg-test", "wrong"), unhurried).lost("authentication failed")
	follow(t, at(e), unhurried).lost("user name is empty")
	other, err := New(as("pg-test", "secret of pg-test"))
	if err != nil {
		t.Fatal(err)
	}
	run(t, other.Watch("/pg/pg-other"), unhurried).lost("permission denied")

	// A password that is mended while pgporter runs is taken with the next attempt.
	password := filepath.Join(t.TempDir(), "password")
	write := func(text string) {
		if err := os.WriteFile(password, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write("wrong")
	mended := follow(t, Config{Endpoints: []string{e.address}, User: "pg-test", Password: func() (string, error) {
		text, err := os.ReadFile(password)
		return string(text), err
	}}, unhurried)
	mended.lost("authentication failed")
	write("secret of pg-test")
	mended.says("leader pg-test-2")
}

// TestRunEnds: Run returns promptly whatever it is doing.
func TestRunEnds(t *testing.T) {
	e := startEtcd(t).connect(clientv3.Config{})
	silent := startSilent(t)
	for name, address := range map[string]string{"following": e.address, "refused": freeAddress(t), "waiting for an answer": silent} {
		t.Run(name, func(t *testing.T) {
			etcd, err := New(Config{Endpoints: []string{address}})
			if err != nil {
				t.Fatal(err)
			}
			ctx, cancel := context.WithCancel(t.Context())
			ended := make(chan struct{})
			heard := make(chan struct{}, 1)
			go func() {
				defer close(ended)
				etcd.Watch("/pg/pg-test").Run(ctx, func(ctx context.Context, r Reading) {
					heard <- struct{}{}
					<-ctx.Done()
				})
			}()
			if address != silent {
				<-heard
			}
			cancel()
			select {
			case <-ended:
			case <-time.After(patience):
				t.Fatal("Run goes on")
			}
		})
	}
}
