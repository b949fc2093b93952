package overload

import (
	"context"
	"fmt"
	"net"
	"os/exec"
	"path/filepath"
	"sync"
	"syscall"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"go.uber.org/zap"

	"github.com/pgporter/pgporter/lab/bench/subject"
)

// etcd is a real one with the cluster's keys in it, as Patroni 4.0.7 writes them.
type etcd struct {
	t       *testing.T
	address string
	process *subject.Process
	client  *clientv3.Client
	lease   clientv3.LeaseID
}

// ttl is the leader key's, in seconds (`pg_rto: fast`).
const ttl = 20

// startEtcd starts it for a scene, until the test ends.
func startEtcd(t *testing.T, scene int) *etcd {
	host := address(scene, members+nodes)
	e := &etcd{t: t, address: net.JoinHostPort(host, "2379")}
	dir := t.TempDir()
	clients, peers := "http://"+e.address, "http://"+net.JoinHostPort(host, "2380")
	command := exec.Command("etcd", "--name", "one", "--data-dir", filepath.Join(dir, "data"), "--unsafe-no-fsync", "--listen-client-urls", clients, "--advertise-client-urls", clients,
		"--listen-peer-urls", peers, "--initial-advertise-peer-urls", peers, "--initial-cluster", "one="+peers)
	var err error
	if e.process, err = subject.Start(command, filepath.Join(dir, "log"), syscall.SIGTERM); err != nil {
		t.Fatalf("etcd (Debian's package etcd-server) is needed: %v", err)
	}
	t.Cleanup(e.process.Stop)
	if e.client, err = clientv3.New(clientv3.Config{Endpoints: []string{e.address}, Logger: zap.NewNop()}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = e.client.Close() })
	e.do(func(ctx context.Context) error {
		lease, err := e.client.Grant(ctx, ttl)
		if err == nil {
			e.lease = lease.ID
		}
		return err
	})
	// Once per loop, as a Patroni does it.
	var renewing sync.WaitGroup
	ctx, cancel := context.WithCancel(context.Background())
	renewing.Go(func() {
		loop := time.NewTicker(2 * time.Second)
		defer loop.Stop()
		for {
			select {
			case <-ctx.Done():
				return
			case <-loop.C:
				_, _ = e.client.KeepAliveOnce(ctx, e.lease)
			}
		}
	})
	t.Cleanup(func() {
		cancel()
		renewing.Wait()
	})
	e.put("initialize", systemID)
	e.put("config", fmt.Sprintf(`{"ttl": %d, "loop_wait": 2, "retry_timeout": 3, "failsafe_mode": true}`, ttl))
	e.put("status", fmt.Sprintf(`{"optime": %d}`, position))
	return e
}

// do does what is asked of etcd, within the time that it has to start.
func (e *etcd) do(what func(ctx context.Context) error) {
	e.t.Helper()
	ctx, cancel := context.WithTimeout(e.t.Context(), 30*time.Second)
	defer cancel()
	if err := what(ctx); err != nil {
		e.t.Fatalf("etcd: %v", err)
	}
}

func (e *etcd) put(key, value string, options ...clientv3.OpOption) {
	e.t.Helper()
	e.do(func(ctx context.Context) error {
		_, err := e.client.Put(ctx, "/pg/"+Name+"/"+key, value, options...)
		return err
	})
}

// lead gives the leader key to a member, or takes it away.
func (e *etcd) lead(leader *Member) {
	e.t.Helper()
	if leader == nil {
		e.do(func(ctx context.Context) error {
			_, err := e.client.Delete(ctx, "/pg/"+Name+"/leader")
			return err
		})
		return
	}
	for _, m := range leader.cluster.Members {
		role := "replica"
		if m == leader {
			role = "primary"
		}
		e.put("members/"+m.Name, fmt.Sprintf(`{"conn_url": "postgres://%[1]s:5432/postgres", "api_url": "http://%[1]s:8008/patroni", "state": "running", "role": %q, "version": "4.0.7", "xlog_location": %d}`,
			m.Address, role, position), clientv3.WithLease(e.lease))
	}
	e.put("leader", leader.Name, clientv3.WithLease(e.lease))
}

// signal stops or continues it.
func (e *etcd) signal(s syscall.Signal) {
	e.t.Helper()
	if err := syscall.Kill(e.process.PID(), s); err != nil {
		e.t.Fatal(err)
	}
}
