package etcd

import (
	"syscall"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
)

// A connection that breaks while this node has no descriptor for another one is no loss of etcd, as long as what is known isn't too old;
// afterwards it is one, with that for a reason.
func TestAttackNoDescriptors(t *testing.T) {
	e := startEtcd(t).connect(clientv3.Config{})
	e.put("/pg/pg-test/leader", "pg-test-1")
	p := startPipe(t, e.address)
	f := follow(t, Config{Endpoints: []string{p.address}}, func(w *Watcher) {
		briskly(w)
		w.pace.read = 3 * time.Second
	})
	f.says("leader pg-test-1")
	var before syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &before); err != nil {
		t.Fatal(err)
	}
	limit := func(files uint64) {
		t.Helper()
		// Files beyond it that are open already stay so.
		if err := syscall.Setrlimit(syscall.RLIMIT_NOFILE, &syscall.Rlimit{Cur: files, Max: before.Max}); err != nil {
			t.Fatal(err)
		}
	}
	defer limit(before.Cur)
	limit(0)
	p.cut()
	select {
	case r := <-f.readings:
		t.Fatalf("delivered %q", short(r))
	case <-time.After(time.Second):
	}
	limit(before.Cur)
	e.put("/pg/pg-test/leader", "pg-test-2")
	f.says("leader pg-test-2")
	limit(0)
	p.cut()
	f.lost("this node can't ask: too many open files")
	limit(before.Cur)
	f.back("leader pg-test-2")
}
