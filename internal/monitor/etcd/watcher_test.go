package etcd

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

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
	late.says("leader pg?-test-3, system 7710787112816185761")
	late.says("leader , system 7710787112816185761")
	f.says("leader pg?-test-3, system 7710787112816185761")
	f.says("leader , system 7710787112816185761")
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
		f.lost(e.address + ": connection refused")
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
